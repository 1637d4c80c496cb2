"""ProducerStates: what a leader accepts, what every replica remembers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.partition.producer_state import SEQUENCE_MAX, ProducerStates


def produce(states: ProducerStates, sequence: int, count: int, offset: int, epoch: int = 0) -> None:
    """Producer 7's batch as the leader takes it."""
    last = (sequence + count - 1) % (SEQUENCE_MAX + 1)
    assert states.check(7, epoch, sequence, last) is None
    states.appended(7, epoch, last, offset, offset + count - 1, 1000, False)


def refused(states: ProducerStates, sequence: int, epoch: int = 0, *, transactional: bool = False) -> ErrorCode:
    with pytest.raises(BrokerError) as raised:
        states.check(7, epoch, sequence, sequence, is_transactional=transactional)
    return raised.value.error


def test_the_last_five_batches_are_known_as_duplicates() -> None:
    states = ProducerStates()
    for number in range(6):
        produce(states, number * 2, 2, 100 + number * 2)
    duplicate = states.check(7, 0, 2, 3)
    assert duplicate is not None
    assert (duplicate.base_offset, duplicate.last_offset) == (102, 103)
    assert refused(states, 0) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_a_gap_an_old_epoch_and_a_new_epoch() -> None:
    states = ProducerStates()
    produce(states, 0, 3, 0, epoch=1)
    assert refused(states, 4, epoch=1) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert refused(states, 3, epoch=0) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert refused(states, 3, epoch=2) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    produce(states, 0, 1, 3, epoch=2)
    produce(states, 1, 1, 4, epoch=2)


def test_sequences_wrap() -> None:
    states = ProducerStates()
    states.appended(7, 0, SEQUENCE_MAX - 1, 0, 0, 1, False)
    produce(states, SEQUENCE_MAX, 3, 1)
    duplicate = states.check(7, 0, SEQUENCE_MAX, 1)
    assert duplicate is not None
    assert duplicate.base_sequence == SEQUENCE_MAX
    produce(states, 2, 1, 4)
    states = ProducerStates()
    states.appended(7, 0, SEQUENCE_MAX, 0, 0, 1, False)
    produce(states, 0, 1, 1)


def test_an_unknown_producer_may_begin_anywhere() -> None:
    states = ProducerStates()
    produce(states, 41, 1, 0)
    assert refused(states, 41 + 2) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_expiry_spares_open_transactions() -> None:
    states = ProducerStates()
    states.appended(1, 0, 0, 0, 0, 1000, False)
    states.appended(2, 0, 0, 1, 1, 1000, True)
    states.appended(3, 0, 0, 2, 2, 1500, False)
    assert states.expire(2000, 1000) == 1
    assert [entry.producer_id for entry in states.snapshot()] == [2, 3]


def test_transactions_hold_the_last_stable_offset_until_their_marker_is_below_the_high_watermark() -> None:
    states = ProducerStates()
    assert states.first_unstable_offset(0) is None
    states.appended(1, 0, 4, 10, 14, 1, True)
    states.appended(2, 0, 2, 15, 17, 1, True)
    assert states.first_unstable_offset(18) == 10
    completed = states.transaction_ended(1, 0, 3, False, 18, 1)
    assert completed is not None
    assert (completed.first_offset, completed.last_offset, completed.is_aborted) == (10, 18, True)
    assert completed.last_stable_offset == 15, "producer 2's is still open"
    assert states.first_unstable_offset(18) == 10
    assert states.first_unstable_offset(19) == 15
    completed = states.transaction_ended(2, 0, 3, True, 19, 1)
    assert completed is not None
    assert completed.last_stable_offset == 20
    assert states.first_unstable_offset(20) is None
    assert states.transaction_ended(2, 0, 3, True, 20, 1) is None, "nothing was open"


def test_a_write_outside_the_transaction_and_a_fenced_coordinator() -> None:
    states = ProducerStates()
    states.appended(7, 1, 0, 0, 0, 1, True)
    assert refused(states, 1, epoch=1) == ErrorCode.INVALID_TXN_STATE
    assert states.check(7, 1, 1, 1, is_transactional=True) is None
    states.transaction_ended(7, 1, 5, True, 1, 1)
    with pytest.raises(BrokerError) as raised:
        states.check_marker(7, 1, 4)
    assert raised.value.error == ErrorCode.TRANSACTION_COORDINATOR_FENCED
    with pytest.raises(BrokerError) as raised:
        states.check_marker(7, 0, 5)
    assert raised.value.error == ErrorCode.INVALID_PRODUCER_EPOCH
    states.check_marker(7, 1, 5)


_batches = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 1), st.booleans(), st.booleans()), max_size=25)


@settings(max_examples=100, deadline=None)
@given(_batches)
def test_a_snapshot_loads_into_the_same_snapshot(steps: list[tuple[int, int, bool, bool]]) -> None:
    states = ProducerStates()
    offset = 0
    sequences: dict[tuple[int, int], int] = {}
    for producer, epoch, transactional, ends in steps:
        if ends and transactional:
            states.transaction_ended(producer, epoch, 1, epoch == 1, offset, offset)
        else:
            sequence = sequences.get((producer, epoch), -1) + 1
            sequences[producer, epoch] = sequence
            states.appended(producer, epoch, sequence, offset, offset, offset, transactional)
        offset += 1
    again = ProducerStates()
    again.load(states.snapshot(), offset)
    assert again.snapshot() == states.snapshot()
    assert again.first_unstable_offset(offset) == states.first_unstable_offset(offset)
    again.load(again.snapshot(), offset)
    other = ProducerStates()
    other.load(states.snapshot(), offset)
    assert again == other

"""A refused batch of an idempotent producer is not held against the batches that were sent behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock as TaskClock

from tests.unit.replica_cluster import PARTITION, TestTime, batch, clusters
from zkbroker.broker.refusals import REFUSAL_SECONDS_MAX, REFUSALS_MAX, Refusals
from zkbroker.model.errors import ErrorCode

T, P = PARTITION


@pytest.fixture
def networks(tmp_path: Path) -> Iterator[Any]:
    with clusters(tmp_path) as make:
        yield make


def sent(sequence: int, producer_id: int = 7, epoch: int = 0) -> bytes:
    return batch(b"x", producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)


def test_a_batch_behind_one_that_was_refused_before_the_election_is_told_to_come_again(networks: Any) -> None:
    """What chaos found: two requests under way to a broker that becomes leader between them."""
    network = networks(1, 2)
    network.elect(1, 0)
    network.run()
    stored = network.produce(1, sent(0))
    network.run()
    assert stored[0].error is ErrorCode.NONE
    assert network.produce(2, sent(1))[0].error is ErrorCode.NOT_LEADER_OR_FOLLOWER
    network.elect(2, 1)
    assert network.produce(2, sent(2))[0].error is ErrorCode.NOT_LEADER_OR_FOLLOWER
    first, second = network.produce(2, sent(1)), network.produce(2, sent(2))
    network.run()
    assert (first[0].error, second[0].error) == (ErrorCode.NONE, ErrorCode.NONE)
    assert (first[0].base_offset, second[0].base_offset) == (1, 2)
    assert network.produce(2, sent(9))[0].error is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_a_producer_nobody_knows_does_not_begin_behind_its_refused_batch(networks: Any) -> None:
    """What the simulator found: a log takes any first sequence of a producer that is new to it, so the second batch was
    stored before the first, and the first was out of order for ever."""
    network = networks(1, 2)
    network.elect(2, 0)
    assert network.produce(1, sent(0))[0].error is ErrorCode.NOT_LEADER_OR_FOLLOWER
    network.elect(1, 1)
    assert network.produce(1, sent(1))[0].error is ErrorCode.NOT_LEADER_OR_FOLLOWER
    first, second = network.produce(1, sent(0)), network.produce(1, sent(1))
    network.run()
    assert (first[0].base_offset, second[0].base_offset) == (0, 1)
    lonely = network.produce(1, sent(5, producer_id=8))
    network.run()
    assert lonely[0].error is ErrorCode.NONE


def test_a_gap_that_nobody_explains_is_out_of_order() -> None:
    refusals = Refusals(TestTime(TaskClock()))
    assert refusals.instead_of_gap(T, P, sent(5)) is None
    refusals.note(T, P, sent(3), ErrorCode.NOT_LEADER_OR_FOLLOWER)
    assert refusals.instead_of_gap(T, P, sent(5)) is ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert refusals.instead_of_gap(T, P, sent(5, producer_id=8)) is None
    assert refusals.instead_of_gap(T, P, sent(5, epoch=1)) is None
    assert refusals.instead_of_gap(T, 1, sent(5)) is None
    assert refusals.instead_of_gap(T, P, sent(3)) is None


def test_the_refusal_is_over_when_the_batch_has_come_or_time_has_passed() -> None:
    reactor = TaskClock()
    refusals = Refusals(TestTime(reactor))
    refusals.note(T, P, sent(3), ErrorCode.NOT_ENOUGH_REPLICAS)
    refusals.note(T, P, sent(4), ErrorCode.NOT_ENOUGH_REPLICAS)
    refusals.appended(T, P, sent(2))
    assert refusals.instead_of_gap(T, P, sent(4)) is ErrorCode.NOT_ENOUGH_REPLICAS
    refusals.appended(T, P, sent(3))
    assert refusals.instead_of_gap(T, P, sent(4)) is None and len(refusals) == 0
    refusals.note(T, P, sent(3), ErrorCode.NOT_ENOUGH_REPLICAS)
    reactor.advance(REFUSAL_SECONDS_MAX)
    assert refusals.instead_of_gap(T, P, sent(4)) is None


def test_a_producer_that_went_elsewhere_is_forgotten_at_the_next_batch_after_a_while() -> None:
    reactor = TaskClock()
    refusals = Refusals(TestTime(reactor))
    refusals.note(T, P, sent(3), ErrorCode.NOT_LEADER_OR_FOLLOWER)
    reactor.advance(REFUSAL_SECONDS_MAX / 2)
    refusals.note(T, P, sent(3, producer_id=8), ErrorCode.NOT_LEADER_OR_FOLLOWER)
    reactor.advance(REFUSAL_SECONDS_MAX / 2)
    refusals.appended(T, 1, sent(0, producer_id=9))
    assert len(refusals) == 1
    assert refusals.instead_of_gap(T, P, sent(4, producer_id=8)) is ErrorCode.NOT_LEADER_OR_FOLLOWER


def test_only_what_comes_again_is_remembered_and_not_without_bound() -> None:
    refusals = Refusals(TestTime(TaskClock()))
    refusals.note(T, P, sent(3), ErrorCode.CORRUPT_MESSAGE)
    refusals.note(T, P, b"short", ErrorCode.NOT_LEADER_OR_FOLLOWER)
    refusals.note(T, P, None, ErrorCode.NOT_LEADER_OR_FOLLOWER)
    refusals.note(T, P, batch(b"x"), ErrorCode.NOT_LEADER_OR_FOLLOWER)
    assert len(refusals) == 0
    for producer_id in range(REFUSALS_MAX + 5):
        refusals.note(T, P, sent(0, producer_id), ErrorCode.NOT_LEADER_OR_FOLLOWER)
    assert len(refusals) == REFUSALS_MAX

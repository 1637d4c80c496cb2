"""The ISR machine: every state with every event, and what each answer of the controller means."""

from __future__ import annotations

import itertools

import pytest

from zkbroker.model.channel import IsrAnswer
from zkbroker.model.errors import ErrorCode, InvariantViolation
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.partition.isr import Committed, InSyncReplicas, Outcome, PendingExpand, PendingShrink

STATE = PartitionState("id", (1, 2, 3), 1, 5, (1, 2), 7, 1)


def machine(state: PartitionState = STATE) -> InSyncReplicas:
    return InSyncReplicas(
        TopicPartition("t", 0), state, broker_epoch_of=lambda b: 100 + b, next_proposal_id=itertools.count(1).__next__
    )


def answer(isr: InSyncReplicas, error: ErrorCode, state: PartitionState | None = None, number: int = 0) -> Outcome:
    proposal = isr.state.proposal
    number = number or (proposal.proposal_id if proposal else 1)
    return isr.answered(IsrAnswer("t", 0, "id", number, error, state))


def test_a_joiner_counts_before_the_answer_and_a_leaver_until_it() -> None:
    isr = machine()
    proposal = isr.expand(3)
    assert isinstance(isr.state, PendingExpand)
    assert (isr.state.isr, isr.state.maximal) == ((1, 2), (1, 2, 3))
    assert proposal.isr == ((1, 101), (2, 102), (3, 103))
    assert (proposal.leader_epoch, proposal.partition_epoch, proposal.recovering) == (5, 7, False)
    isr = machine()
    proposal = isr.shrink((2,))
    assert isinstance(isr.state, PendingShrink)
    assert isr.state.maximal == (1, 2) and proposal.isr == ((1, 101),)


def test_confirmed() -> None:
    isr = machine()
    isr.expand(3)
    assert answer(isr, ErrorCode.NONE, STATE._replace(isr=(1, 2, 3), partition_epoch=8)) is Outcome.COMMITTED
    assert isr.state == Committed((1, 2, 3), 8)


@pytest.mark.parametrize("error", list(ErrorCode))
def test_only_two_errors_revert(error: ErrorCode) -> None:
    isr = machine()
    isr.expand(3)
    outcome = answer(isr, error)
    if error in (ErrorCode.INELIGIBLE_REPLICA, ErrorCode.OPERATION_NOT_ATTEMPTED):
        assert outcome is Outcome.REVERTED and isr.state == Committed((1, 2), 7)
    else:
        assert outcome in (Outcome.RETRY, Outcome.STUCK, Outcome.IGNORED)
        assert isr.state.maximal == (1, 2, 3)


def test_a_topic_that_the_controller_cannot_read_now_is_asked_for_again() -> None:
    """Its state comes back unchanged once the znode is mended: no newer state would ever free the proposal."""
    isr = machine()
    isr.expand(3)
    assert answer(isr, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION) is Outcome.RETRY
    assert answer(isr, ErrorCode.FENCED_LEADER_EPOCH) is Outcome.STUCK


def test_stale_answers_change_nothing() -> None:
    isr = machine()
    isr.expand(3)
    news = STATE._replace(isr=(1, 2, 3), partition_epoch=8)
    assert answer(isr, ErrorCode.NONE, news, number=99) is Outcome.IGNORED
    assert answer(isr, ErrorCode.INELIGIBLE_REPLICA, number=99) is Outcome.IGNORED
    assert answer(isr, ErrorCode.NONE, news._replace(leader_epoch=6)) is Outcome.IGNORED
    assert answer(isr, ErrorCode.NONE, news._replace(partition_epoch=6)) is Outcome.IGNORED
    assert answer(machine(), ErrorCode.NONE, news) is Outcome.IGNORED
    assert isinstance(isr.state, PendingExpand)


def test_a_newer_state_replaces_a_pending_one_and_its_late_answer_is_ignored() -> None:
    isr = machine()
    isr.shrink((2,))
    assert not isr.replaced(STATE)
    assert isr.replaced(STATE._replace(isr=(1, 3), partition_epoch=8))
    assert isr.state == Committed((1, 3), 8)
    assert answer(isr, ErrorCode.NONE, STATE._replace(isr=(1,), partition_epoch=9)) is Outcome.IGNORED


def test_one_proposal_at_a_time() -> None:
    for first in (lambda isr: isr.expand(3), lambda isr: isr.shrink((2,))):
        isr = machine()
        first(isr)
        with pytest.raises(InvariantViolation):
            isr.expand(4)
        with pytest.raises(InvariantViolation):
            isr.shrink((2,))


def test_illegal_isrs_are_broken_invariants() -> None:
    with pytest.raises(InvariantViolation):
        machine().expand(2)
    with pytest.raises(InvariantViolation):
        machine().replaced(STATE._replace(isr=(), partition_epoch=8))

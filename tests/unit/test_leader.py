"""A leader's decisions: the rules one by one, then random events against a dumb model and the invariants."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zkbroker.model.channel import FollowerContact, IsrAnswer
from zkbroker.model.errors import ErrorCode, InvariantViolation
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.partition.epoch_cache import EpochCache
from zkbroker.partition.isr import Outcome
from zkbroker.partition.leader import NOTHING, FetchRefusal, LeaderState, ProposeIsr, RaiseHighWatermark

LAG = 30.0
EPOCHS = {1: 101, 2: 102, 3: 103}


class Case:
    """A leader (broker 1 of 1, 2, 3, leader epoch 5) with what it is asked about."""

    def __init__(
        self,
        isr: tuple[int, ...] = (1, 2, 3),
        end: int = 10,
        mark: int = 0,
        min_isr: int = 1,
        epochs: EpochCache | None = None,
        elr: tuple[int, ...] = (),
    ) -> None:
        self.live: dict[int, int] = dict(EPOCHS)
        self.now = 1000.0
        self.state = PartitionState("id", (1, 2, 3), 1, 5, isr, 7, 1, elr=elr)
        self.epochs = epochs or EpochCache([(5, end)])
        self.ids = itertools.count(1).__next__
        self.leader = self.make(self.state, end, mark, min_isr)
        self.contacts = {broker: FollowerContact(broker, EPOCHS[broker], self.now) for broker in (2, 3)}

    def make(
        self, state: PartitionState, end: int, mark: int, min_isr: int, counted: int | None = None, **more: Any
    ) -> LeaderState:
        return LeaderState(
            TopicPartition("t", 0),
            state,
            broker_id=1,
            own_broker_epoch=lambda: 101,
            live_broker_epoch=self.live.get,
            next_proposal_id=self.ids,
            epochs=self.epochs,
            log_end_offset=end,
            counted_end=end if counted is None else counted,
            high_watermark=mark,
            min_insync_replicas=min_isr,
            lag_seconds_max=LAG,
            now=self.now,
            **more,
        )

    def fetch(self, broker: int, offset: int, counted: int | None = None) -> Any:
        contact = self.contacts[broker]
        contact.last_fetch_at = self.now
        return self.leader.follower_fetched(contact, offset, offset if counted is None else counted, 0, self.now)

    def append(self, end: int, counted: int | None = None) -> Any:
        return self.leader.appended(end, end if counted is None else counted, self.now)

    def answer(self, error: ErrorCode = ErrorCode.NONE, isr: tuple[int, ...] = ()) -> Any:
        proposal = self.leader.isr.state.proposal
        assert proposal is not None
        state = self.state._replace(isr=isr, partition_epoch=proposal.partition_epoch + 1) if isr else None
        return self.leader.isr_answered(IsrAnswer("t", 0, "id", proposal.proposal_id, error, state), self.now)


def test_the_high_watermark_is_the_smallest_end_of_the_isr() -> None:
    case = Case()
    assert case.fetch(2, 8) == NOTHING, "nothing is known of broker 3"
    assert case.fetch(3, 6) == (RaiseHighWatermark(6),)
    assert case.fetch(3, 10) == (RaiseHighWatermark(8),)
    assert case.fetch(2, 10) == (RaiseHighWatermark(10),)
    assert case.append(12) == NOTHING


def test_it_waits_for_a_caught_up_joiner_while_that_may_join() -> None:
    case = Case(isr=(1, 2))
    case.fetch(2, 10)
    case.fetch(3, 10)
    assert case.leader.isr.state.maximal == (1, 2, 3)
    case.answer(ErrorCode.INELIGIBLE_REPLICA)
    case.append(12)
    assert case.fetch(2, 12) == NOTHING, "3 is caught up and may join"
    del case.live[3]
    assert case.leader.look_again(case.now) == (RaiseHighWatermark(12),)


def test_it_is_frozen_below_the_min_isr() -> None:
    case = Case(isr=(1,), min_isr=2)
    assert case.append(12) == NOTHING
    assert case.leader.append_refusal(-1) is ErrorCode.NOT_ENOUGH_REPLICAS
    assert case.leader.append_refusal(1) is None
    assert case.fetch(2, 12)[0] == ProposeIsr(case.leader.isr.state.proposal)
    assert case.leader.high_watermark == 0, "not committed yet"
    assert case.answer(isr=(1, 2))[1] == (RaiseHighWatermark(12),)


def test_min_isr_above_the_replication_factor_means_all_replicas() -> None:
    assert Case(min_isr=5).leader.effective_min_isr == 3


def test_no_expansion_below_the_epoch_start_even_above_the_high_watermark() -> None:
    case = Case(isr=(1,), end=10, mark=3, min_isr=2)
    assert case.fetch(2, 9) == NOTHING
    assert case.fetch(2, 10) != NOTHING


def test_no_expansion_of_the_dead_or_of_an_old_incarnation() -> None:
    case = Case(isr=(1, 2))
    case.fetch(2, 10)
    case.live[3] = 203
    assert case.fetch(3, 10) == NOTHING
    del case.live[3]
    assert case.fetch(3, 10) == NOTHING
    case.live[3] = 103
    assert case.fetch(3, 10) != NOTHING


def refusal(case: Case, broker: int = 2, epoch: int = 5, offset: int = 10, last: int = 5, start: int = 0) -> Any:
    return case.leader.fetch_refusal(case.contacts[broker], epoch, offset, last, start)


def test_fetches_are_judged_in_order() -> None:
    case = Case(end=10, epochs=EpochCache([(1, 0), (3, 4), (5, 10)]))
    assert refusal(case) is None
    assert refusal(case, epoch=4).error is ErrorCode.FENCED_LEADER_EPOCH
    assert refusal(case, epoch=6, offset=-7).error is ErrorCode.UNKNOWN_LEADER_EPOCH
    assert refusal(case, last=6).error is ErrorCode.OFFSET_OUT_OF_RANGE
    assert refusal(case, last=3, offset=9, start=10).error is ErrorCode.OFFSET_OUT_OF_RANGE, "before divergence"
    assert refusal(case, last=1, offset=6) == FetchRefusal(ErrorCode.NONE, 1, 4)
    assert refusal(case, last=2, offset=3) == FetchRefusal(ErrorCode.NONE, 1, 4)
    assert refusal(case, last=5, offset=11) == FetchRefusal(ErrorCode.NONE, 5, 10)
    assert refusal(case, last=-1, offset=0) is None
    assert refusal(case, last=-1, offset=11).error is ErrorCode.OFFSET_OUT_OF_RANGE
    del case.leader.followers[3]
    assert refusal(case, broker=3).error is ErrorCode.UNKNOWN_LEADER_EPOCH
    case.fetch(2, 10)
    case.contacts[2] = FollowerContact(2, 99, case.now)
    assert refusal(case).error is ErrorCode.STALE_BROKER_EPOCH


def test_shrink_takes_out_who_is_behind_for_too_long() -> None:
    case = Case()
    case.fetch(2, 10)
    case.fetch(3, 10)
    case.append(12)
    case.fetch(2, 12)
    case.now += LAG
    assert case.leader.shrink_if_lagging(case.now) == NOTHING
    case.now += 0.1
    (effect,) = case.leader.shrink_if_lagging(case.now)
    assert effect.proposal.isr == ((1, 101), (2, 102)), "2 holds all, however long ago it fetched"
    assert case.leader.shrink_if_lagging(case.now) == NOTHING, "one at a time"
    assert case.leader.high_watermark == 10, "3 counts until it is confirmed"
    assert case.answer(isr=(1, 2))[1] == (RaiseHighWatermark(12),)


def test_a_follower_that_keeps_up_with_a_moving_end_stays() -> None:
    case = Case(isr=(1, 2), end=0)
    for step in range(100):
        case.append((step + 1) * 10)
        case.fetch(2, step * 10)  # always one append behind
        case.now += 1.0
        assert case.leader.shrink_if_lagging(case.now) == NOTHING


def test_an_idle_follower_was_caught_up_until_its_sessions_last_fetch() -> None:
    case = Case(isr=(1, 2))
    case.fetch(2, 10)
    case.now += 1000.0
    case.contacts[2].last_fetch_at = case.now
    case.now += 0.4
    case.append(12)
    case.now += LAG - 1
    assert case.leader.shrink_if_lagging(case.now) == NOTHING
    case.now += 1
    assert case.leader.shrink_if_lagging(case.now) != NOTHING


def test_under_a_flush_policy_the_flushed_ends_count() -> None:
    case = Case(isr=(1, 2), end=0)
    assert case.append(4, counted=0) == NOTHING
    assert case.fetch(2, 4, counted=2) == NOTHING
    assert case.leader.flushed(3, case.now) == (RaiseHighWatermark(2),)
    assert case.fetch(2, 4, counted=4) == (RaiseHighWatermark(3),)


def test_a_flush_policy_switched_on_takes_nothing_back() -> None:
    case = Case(isr=(1, 2), end=8)
    assert case.fetch(2, 8) == (RaiseHighWatermark(8),)
    # From here on the ends on disk are told, which lie below the high watermark.
    assert case.append(10, counted=5) == NOTHING
    assert case.fetch(2, 10, counted=5) == NOTHING
    assert case.fetch(3, 8, counted=8) != NOTHING, "a proposal, and no broken invariant"
    assert case.leader.high_watermark == 8
    successor = case.make(case.state._replace(leader_epoch=6), 10, 8, 1, counted=5, predecessor=case.leader)
    assert successor.started(case.now) == NOTHING
    assert (successor.high_watermark, successor.counted_end) == (8, 8)
    assert successor.flushed(10, case.now) == NOTHING, "the follower has not flushed"
    contact = case.contacts[2]
    assert successor.follower_fetched(contact, 10, 10, 0, case.now) == (RaiseHighWatermark(10),)


def test_contact_rule() -> None:
    case = Case(isr=(1, 2))
    fresh = case.leader.has_fresh_contact
    assert fresh(case.now, 1.0, 2.0)
    assert not fresh(case.now, 3.0, 2.0)
    case.fetch(2, 10)
    assert not fresh(case.now, 3.0, 2.0), "it may have been sent long ago, and read only now"
    case.contacts[2].proven_at = case.now
    case.fetch(2, 10)
    assert fresh(case.now + 1.9, 3.0, 2.0)
    assert not fresh(case.now + 2.0, 3.0, 2.0)
    case.contacts[2].proven_at = case.now + 5
    assert fresh(case.now + 6, 3.0, 2.0)
    case.leader.follower_left(case.contacts[2])
    assert not fresh(case.now + 6, 3.0, 2.0), "the session went on without this partition"
    assert Case(isr=(1,)).leader.has_fresh_contact(case.now, 99.0, 2.0)
    assert not Case(isr=(1,), elr=(2,)).leader.has_fresh_contact(case.now, 99.0, 2.0)


def test_a_follower_outside_the_isr_is_no_evidence() -> None:
    case = Case(isr=(1, 2), end=10)
    case.contacts[3].proven_at = case.now
    case.fetch(3, 0)
    assert not case.leader.has_fresh_contact(case.now, 99.0, 2.0)


def test_leading_on_in_a_new_epoch_keeps_ends_and_forgets_contacts() -> None:
    case = Case()
    case.fetch(2, 10)
    case.fetch(3, 8)
    state = case.state._replace(leader_epoch=6, isr=(1, 2), partition_epoch=9)
    successor = case.make(state, 10, case.leader.high_watermark, 1, predecessor=case.leader)
    assert [successor.followers[broker].log_end_offset for broker in (2, 3)] == [10, 8]
    assert not successor.has_fresh_contact(case.now, 99.0, 2.0)
    assert successor.started(case.now) == (RaiseHighWatermark(10),)


def test_ends_of_followers_do_not_outlive_another_leader() -> None:
    """Broker 3 led for a moment in epoch 6, which this broker never heard of: 2 obeyed, and truncated to 3's log."""
    case = Case()
    case.fetch(2, 10)
    case.fetch(3, 8)
    state = case.state._replace(leader_epoch=7, isr=(1, 2), partition_epoch=10)
    successor = case.make(state, 10, case.leader.high_watermark, 1, predecessor=case.leader)
    assert successor.started(case.now) == NOTHING, "what 2 held in epoch 5 it may hold no more"
    assert successor.high_watermark == 8
    assert successor.follower_fetched(case.contacts[2], 10, 10, 0, case.now) == (RaiseHighWatermark(10),)


def test_a_newer_state_changes_isr_assignment_and_elr() -> None:
    case = Case()
    state = case.state._replace(isr=(1,), replicas=(1, 3, 4), partition_epoch=8, elr=(3,))
    assert case.leader.state_told(state, case.now) == NOTHING, "the ELR may be elected: it is waited for"
    assert sorted(case.leader.followers) == [3, 4]
    assert case.leader.state_told(case.state, case.now) == NOTHING
    newer = state._replace(elr=(), partition_epoch=9)
    assert case.leader.state_told(newer, case.now) == (RaiseHighWatermark(10),)


def test_a_shrink_that_made_somebody_eligible_is_known_before_the_high_watermark_moves() -> None:
    """The controller goes by min.insync.replicas=2, this leader still by 1: it must not go on without broker 2."""
    case = Case(isr=(1, 2), min_isr=1)
    case.fetch(2, 8)
    case.now += 100
    case.append(12)
    [proposed] = case.leader.shrink_if_lagging(case.now)
    assert isinstance(proposed, ProposeIsr)
    after = case.state._replace(isr=(1,), elr=(2,), partition_epoch=8)
    answer = IsrAnswer("t", 0, "id", proposed.proposal.proposal_id, ErrorCode.NONE, after)
    assert case.leader.isr_answered(answer, case.now) == (Outcome.COMMITTED, NOTHING)
    assert case.fetch(2, 9) == (RaiseHighWatermark(9),)
    assert case.leader.state_told(after._replace(elr=(), partition_epoch=9), case.now) == (RaiseHighWatermark(12),)


def test_broken_invariants_raise() -> None:
    case = Case()
    with pytest.raises(InvariantViolation):
        case.append(9)
    with pytest.raises(InvariantViolation):
        case.fetch(2, 11)
    with pytest.raises(InvariantViolation):
        Case(isr=(2, 3)).leader.started(0.0)


def test_acks_all_ends_by_the_maximal_isr() -> None:
    case = Case(isr=(1,), min_isr=2)
    assert case.leader.acks_all_outcome() is ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND
    case.fetch(2, 10)
    assert case.leader.acks_all_outcome() is ErrorCode.NONE


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["append", "fetch", "wait", "shrink", "answer", "told", "die", "return", "look"]),
        st.integers(0, 3),
        st.integers(0, 5),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.integers(1, 3), st.sampled_from([(1,), (1, 2), (1, 2, 3)]))
@example([("wait", 0, 4), ("shrink", 0, 0), ("fetch", 0, 0), ("answer", 0, 0)], 1, (1, 2, 3))
def test_random_events_keep_the_invariants(
    events: list[tuple[str, int, int]], min_isr: int, isr: tuple[int, ...]
) -> None:
    """Invariants 3, 4 and 8 of kafka-semantics §7, and the high watermark against the rule written out plainly."""
    case = Case(isr=isr, end=0, min_isr=min_isr)
    leader = case.leader
    leader.started(case.now)
    written = {isr}
    """ISRs that the controller may have written since the last one known: what the maximal ISR must contain."""
    ends = {2: -1, 3: -1}
    for kind, which, amount in events:
        broker = 2 + which % 2
        before, was_frozen = leader.high_watermark, leader.is_under_min_isr
        if kind == "append":
            case.append(leader.log_end_offset + amount)
        elif kind == "fetch":
            ends[broker] = max(ends[broker], 0) + min(amount, leader.log_end_offset - max(ends[broker], 0))
            case.fetch(broker, ends[broker])
        elif kind == "wait":
            case.now += amount * 10.0
        elif kind == "shrink":
            leader.shrink_if_lagging(case.now)
        elif kind == "die":
            case.live.pop(broker, None)
        elif kind == "return":
            case.live[broker] = EPOCHS[broker]
        elif kind == "look":
            leader.look_again(case.now)
        proposal = leader.isr.state.proposal
        if proposal is not None:
            proposed = tuple(member for member, _ in proposal.isr)
            written.add(proposed)
            if kind == "answer":
                error = (ErrorCode.NONE, ErrorCode.INELIGIBLE_REPLICA, ErrorCode.NOT_CONTROLLER)[which % 3]
                case.answer(error, proposed if error is ErrorCode.NONE else ())
            elif kind == "told":
                epoch = proposal.partition_epoch + 1
                leader.state_told(case.state._replace(isr=proposed, partition_epoch=epoch), case.now)
        state = leader.isr.state
        if state.proposal is not proposal:
            # Answered; a commit may have been followed by the next proposal at once.
            written = {state.isr}
            if state.proposal is not None:
                written.add(tuple(member for member, _ in state.proposal.isr))
        assert all(set(state.maximal) >= set(possible) for possible in written)
        assert 1 in state.isr and set(state.maximal) <= {1, 2, 3}
        assert before <= leader.high_watermark <= leader.log_end_offset
        if was_frozen and leader.is_under_min_isr:
            assert leader.high_watermark == before
        members = [ends[member] for member in state.maximal if member != 1]
        assert leader.high_watermark <= max(before, min([leader.log_end_offset, *members]))
        if not leader.is_under_min_isr and state.maximal == (1, 2, 3):
            assert leader.high_watermark == max(before, min([leader.log_end_offset, *members]))
        repr(leader)

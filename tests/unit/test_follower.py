"""A follower's decisions, each rule of kafka-semantics "Follower" with the case that it is there for."""

from __future__ import annotations

from typing import Any

from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import NO_LEADER, TopicPartition
from zkbroker.partition.epoch_cache import EpochCache
from zkbroker.partition.follower import AppendFetched, Discard, FollowerState, Retry, StartAgainAt, TruncateTo


def follower(leader: int = 1, *, is_in_isr: bool = True) -> FollowerState:
    return FollowerState(TopicPartition("t", 0), leader, 5, is_in_isr=is_in_isr)


def decide(state: FollowerState | None = None, **changes: Any) -> object:
    arguments: dict[str, Any] = {
        "request_epoch": 5,
        "request_offset": 10,
        "error": ErrorCode.NONE,
        "high_watermark": 9,
        "leader_log_start": 0,
        "leader_log_end": -1,
        "diverging_epoch": -1,
        "diverging_end": -1,
        "log_start_offset": 0,
        "log_end_offset": 10,
        "epochs": EpochCache([(1, 0), (3, 4), (4, 8)]),
    }
    return (state or follower()).answered(**{**arguments, **changes})


def test_an_answer_is_taken_only_if_epoch_and_offset_still_hold() -> None:
    assert decide() == AppendFetched(5, 9, 0)
    assert decide(request_epoch=4) == Discard()
    assert decide(log_end_offset=11) == Discard()
    assert decide(follower(NO_LEADER)) == Discard()


def test_divergence_in_a_known_epoch_ends_the_search() -> None:
    assert decide(diverging_epoch=3, diverging_end=6) == TruncateTo(6)
    assert decide(diverging_epoch=3, diverging_end=9) == TruncateTo(8), "our own epoch 3 ends at 8"
    assert decide(diverging_epoch=4, diverging_end=99) == TruncateTo(10)


def test_divergence_in_an_unknown_epoch_falls_to_the_one_below() -> None:
    assert decide(diverging_epoch=2, diverging_end=6) == TruncateTo(4)


def test_divergence_without_any_epoch() -> None:
    assert decide(diverging_epoch=2, diverging_end=6, epochs=EpochCache()) == TruncateTo(6)
    assert decide(diverging_epoch=2, diverging_end=16, epochs=EpochCache()) == TruncateTo(10)


def test_divergence_is_judged_before_the_high_watermark() -> None:
    state = follower()
    assert decide(state, diverging_epoch=3, diverging_end=6, high_watermark=10) == TruncateTo(6)
    assert state.leader_high_watermark == -1


def test_divergence_below_the_own_log_start_begins_where_the_leader_does() -> None:
    """An empty log at 6 passed for one that holds what is below; its broker was elected (simulator, disks 690)."""
    assert decide(diverging_epoch=3, diverging_end=6, log_start_offset=7) == StartAgainAt(0)
    assert decide(diverging_epoch=3, diverging_end=6, log_start_offset=7, leader_log_start=5) == StartAgainAt(5)
    assert decide(diverging_epoch=3, diverging_end=6, log_start_offset=7, leader_log_start=-1) == StartAgainAt(6)


def test_a_log_start_in_doubt_is_believed_if_the_leader_has_nothing_below() -> None:
    in_doubt = {"is_start_doubtful": True, "log_start_offset": 7}
    assert decide(**in_doubt, leader_log_start=3) == StartAgainAt(3)
    assert decide(**in_doubt, leader_log_start=7) == AppendFetched(5, 9, 7)
    assert decide(**in_doubt, leader_log_start=-1) == AppendFetched(5, 9, -1)
    assert decide(log_start_offset=7, leader_log_start=3) == AppendFetched(5, 9, 3), "deleted by intent"


def test_out_of_range() -> None:
    refused = {"error": ErrorCode.OFFSET_OUT_OF_RANGE}
    assert decide(**refused, leader_log_end=7) == TruncateTo(7)
    assert decide(**refused, leader_log_end=7, log_start_offset=8, leader_log_start=2) == StartAgainAt(2)
    assert decide(**refused, leader_log_start=20, leader_log_end=30) == StartAgainAt(20)
    assert decide(**refused, leader_log_start=2, leader_log_end=30) == Retry(ErrorCode.OFFSET_OUT_OF_RANGE)


def test_other_errors_wait() -> None:
    for error in (ErrorCode.FENCED_LEADER_EPOCH, ErrorCode.UNKNOWN_LEADER_EPOCH, ErrorCode.KAFKA_STORAGE_ERROR):
        assert decide(error=error) == Retry(error)


def test_the_high_watermark_is_never_above_the_own_end_and_may_fall() -> None:
    state = follower(is_in_isr=False)
    decide(state, high_watermark=20)
    assert (state.high_watermark_after(12), state.is_in_sync) == (12, False)
    assert (state.high_watermark_after(20), state.is_in_sync) == (20, True)
    decide(state, high_watermark=3)
    assert state.high_watermark_after(12) == 3

"""OffsetCommit, OffsetFetch, OffsetDelete, DeleteGroups."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.coordinator_scene import NONE, START_MS, Scene
from zkbroker.coordinator.records import group_key, offset_key, read_offset_value
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    CommitAnswer,
    CommitOffsets,
    DeleteOffsetsAnswer,
    FetchedOffset,
    FetchOffsetsAnswer,
    GroupError,
    OffsetToCommit,
    PartitionError,
)

T0, T1, U0 = ("t", 0), ("t", 1), ("u", 0)
DAY_S = 24 * 3600.0
MINE = {"range": b"\x00\x00\x00\x00\x00\x01\x00\x01t\xff\xff\xff\xff"}
"""A consumer's subscription to topic t."""


def simple(scene: Scene, offsets: Any, group: str = "g", **how: Any) -> int:
    """By a consumer that assigns by itself."""
    return scene.commit("", offsets, group, generation=-1, **how)


def errors(scene: Scene, ticket: int) -> list[ErrorCode]:
    answer = scene.answers[ticket]
    assert isinstance(answer, CommitAnswer)
    return [row.error for row in answer.rows]


def expire(scene: Scene, group: str = "g") -> None:
    scene.took(scene.shard.expire_offsets(group, scene.now))


# --- OffsetCommit and OffsetFetch ---


def test_a_commit_counts_when_it_is_written() -> None:
    scene = Scene()
    first = simple(scene, {T0: 5, T1: 6})
    assert scene.committed() == {}
    scene.written()
    assert errors(scene, first) == [NONE, NONE]
    second = simple(scene, {T0: 7})
    assert scene.committed() == {T0: 5, T1: 6}
    assert second not in scene.answers
    scene.written()
    assert scene.committed() == {T0: 7, T1: 6}


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        (ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.INVALID_COMMIT_OFFSET_SIZE),
        (ErrorCode.RECORD_LIST_TOO_LARGE, ErrorCode.INVALID_COMMIT_OFFSET_SIZE),
        (ErrorCode.INVALID_FETCH_SIZE, ErrorCode.INVALID_COMMIT_OFFSET_SIZE),
        (ErrorCode.NETWORK_EXCEPTION, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS),
        (ErrorCode.REQUEST_TIMED_OUT, ErrorCode.REQUEST_TIMED_OUT),
    ],
    ids=lambda error: error.name,
)
def test_a_commit_that_is_not_written(stored: ErrorCode, told: ErrorCode) -> None:
    scene = Scene()
    simple(scene, {T0: 5})
    scene.written()
    ticket = simple(scene, {T0: 6, T1: 1})
    scene.written(stored)
    assert errors(scene, ticket) == [told, told]
    assert scene.committed() == {T0: 5}
    assert scene.fetch(T0, stable=True).rows[0].error is NONE  # type: ignore[attr-defined]


def test_a_group_whose_first_commit_fails_never_was() -> None:
    scene = Scene()
    simple(scene, {T0: 5})
    scene.written(ErrorCode.NOT_ENOUGH_REPLICAS)
    assert scene.shard.group_ids() == ()


def test_outcomes_out_of_order() -> None:
    """A later commit is not undone by the success of an earlier one."""
    scene = Scene()
    simple(scene, {T0: 1})
    simple(scene, {T0: 2})
    scene.written(write_id=2)
    scene.written(write_id=1)
    assert scene.committed() == {T0: 2}


def test_a_commit_before_a_deletion_does_not_come_back() -> None:
    scene = Scene()
    simple(scene, {T0: 1})
    scene.delete_offsets(T0)
    simple(scene, {T0: 3})
    scene.written(write_id=2)
    scene.written(write_id=1)
    assert scene.committed() == {}
    scene.written(write_id=3)
    assert scene.committed() == {T0: 3}


def test_what_is_kept_of_a_commit() -> None:
    scene = Scene()
    scene.time = 1.0
    rows = (
        OffsetToCommit("t", 0, 5, 3, "note"),
        OffsetToCommit("t", 1, 6, -1, None),
        OffsetToCommit("t", 2, 7, commit_timestamp_ms=77),
        OffsetToCommit("t", 0, 8),
    )
    ticket = simple(scene, rows)
    scene.written()
    assert errors(scene, ticket) == [NONE] * 4
    assert scene.fetch(("t", 2), T0, ("t", 9), T0, T1) == FetchOffsetsAnswer(
        "g",
        NONE,
        (
            FetchedOffset("t", 2, 7, -1, ""),
            FetchedOffset("t", 0, 8, -1, ""),
            FetchedOffset("t", 9, -1, -1, ""),
            FetchedOffset("t", 1, 6, -1, ""),
        ),
    )
    times = [read_offset_value(record.value or b"").commit_timestamp_ms for record in scene.log]
    assert times == [START_MS + 1000, START_MS + 1000, 77]


def test_notes_have_a_limit_counted_as_java_counts() -> None:
    scene = Scene(metadata_length_max=4)
    notes = ("1234", "12345", "😀😀", "😀😀1", "ü" * 4, None)
    rows = tuple(OffsetToCommit("t", number, 1, -1, note) for number, note in enumerate(notes))
    ticket = simple(scene, rows)
    scene.written()
    too_large = ErrorCode.OFFSET_METADATA_TOO_LARGE
    assert errors(scene, ticket) == [NONE, too_large, NONE, too_large, NONE, NONE]
    ticket = simple(scene, rows[1:2], "h")
    assert errors(scene, ticket) == [too_large]
    assert not scene.outstanding
    assert "h" not in scene.shard.group_ids()


def test_what_no_record_can_hold() -> None:
    scene = Scene(metadata_length_max=10**6)
    rows = (OffsetToCommit("t" * 32_768, 0, 1), OffsetToCommit("t", 0, 1, -1, "x" * 32_768), OffsetToCommit("t", 1, 1))
    ticket = simple(scene, rows, retention_ms=2**63 - 1)
    scene.written()
    assert errors(scene, ticket) == [ErrorCode.INVALID_TOPIC_EXCEPTION, ErrorCode.OFFSET_METADATA_TOO_LARGE, NONE]
    assert read_offset_value(scene.log[-1].value or b"").expire_timestamp_ms == 2**63 - 1


def test_no_offsets_at_all() -> None:
    scene = Scene()
    assert scene.answers[simple(scene, ())] == CommitAnswer(())
    assert scene.shard.group_ids() == ()


def test_who_may_commit() -> None:
    scene = Scene()
    assert errors(scene, scene.commit("a", {T0: 1}, generation=0)) == [ErrorCode.ILLEGAL_GENERATION]
    scene.stable("a")
    cases: list[tuple[str, int, str | None, ErrorCode]] = [
        ("", -1, None, ErrorCode.UNKNOWN_MEMBER_ID),
        ("a-1", -1, None, ErrorCode.ILLEGAL_GENERATION),
        ("a-1", 0, None, ErrorCode.ILLEGAL_GENERATION),
        ("a-1", 2, None, ErrorCode.ILLEGAL_GENERATION),
        ("a-2", 1, None, ErrorCode.UNKNOWN_MEMBER_ID),
        ("a-1", 1, "i", ErrorCode.UNKNOWN_MEMBER_ID),
        ("", -1, "i", ErrorCode.UNKNOWN_MEMBER_ID),
    ]
    for member_id, generation, instance, error in cases:
        request = CommitOffsets("g", member_id, generation, instance, -1, (OffsetToCommit("t", 0, 1),))
        assert errors(scene, scene.ask("", request)) == [error]
    scene.commit("a", {T0: 1})
    scene.leave("a")
    scene.all_written()
    assert scene.committed() == {T0: 1}, "accepted before it left"
    assert errors(scene, scene.commit("a", {T0: 2})) == [ErrorCode.UNKNOWN_MEMBER_ID]
    simple(scene, {T0: 3})
    scene.written()
    assert scene.committed() == {T0: 3}


def test_the_empty_group_id_is_one_for_offsets() -> None:
    scene = Scene()
    simple(scene, {T0: 1}, "")
    scene.written()
    assert scene.committed("") == {T0: 1}
    assert scene.state("") == "Empty"
    scene.delete("")
    scene.written()
    assert scene.state("") == "Dead"


def test_fetching_from_nobody() -> None:
    scene = Scene()
    assert scene.fetch(T0) == FetchOffsetsAnswer("g", NONE, (FetchedOffset("t", 0, -1, -1, ""),))
    assert scene.fetch() == FetchOffsetsAnswer("g", NONE)


def test_stable_offsets_only() -> None:
    scene = Scene()
    simple(scene, {T0: 1, T1: 1})
    scene.written()
    simple(scene, {T0: 2})
    unstable = FetchedOffset("t", 0, -1, -1, "", ErrorCode.UNSTABLE_OFFSET_COMMIT)
    assert scene.fetch(T0, T1, stable=True).rows == (unstable, FetchedOffset("t", 1, 1))  # type: ignore[attr-defined]
    assert scene.fetch(T0).rows == (FetchedOffset("t", 0, 1),)  # type: ignore[attr-defined]


# --- OffsetDelete and DeleteGroups ---


def test_offsets_are_deleted_when_that_is_written() -> None:
    scene = Scene()
    simple(scene, {T0: 1, T1: 1})
    scene.written()
    ticket = scene.delete_offsets(T0, U0)
    assert scene.committed() == {T0: 1, T1: 1}
    scene.written()
    rows = (PartitionError("t", 0, NONE), PartitionError("u", 0, NONE))
    assert scene.answers[ticket] == DeleteOffsetsAnswer(NONE, rows)
    assert scene.committed() == {T1: 1}
    assert scene.log[-1] == (offset_key("g", "t", 0), None)
    ticket = scene.delete_offsets(T1)
    scene.written(ErrorCode.NOT_ENOUGH_REPLICAS)
    assert scene.answers[ticket] == DeleteOffsetsAnswer(
        NONE, (PartitionError("t", 1, ErrorCode.COORDINATOR_NOT_AVAILABLE),)
    )
    assert scene.committed() == {T1: 1}
    assert scene.state() == "Empty"


def test_offsets_that_are_not_there() -> None:
    scene = Scene()
    assert scene.answers[scene.delete_offsets(T0)] == DeleteOffsetsAnswer(ErrorCode.GROUP_ID_NOT_FOUND)
    simple(scene, {T1: 1})
    scene.written()
    ticket = scene.delete_offsets(T0)
    assert scene.answers[ticket] == DeleteOffsetsAnswer(NONE, (PartitionError("t", 0, NONE),))


def test_offsets_of_subscribed_topics_are_not_deleted() -> None:
    """KIP-496."""
    scene = Scene()
    scene.stable("a", protocols=MINE)
    scene.commit("a", {T0: 1, U0: 1})
    scene.written()
    ticket = scene.delete_offsets(T0, U0)
    scene.written()
    rows = (PartitionError("t", 0, ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC), PartitionError("u", 0, NONE))
    assert scene.answers[ticket] == DeleteOffsetsAnswer(NONE, rows)
    assert scene.committed() == {T0: 1}


def test_subscriptions_that_cannot_be_read_are_to_everything() -> None:
    scene = Scene()
    scene.stable("a", protocols={"range": b"?"})
    scene.commit("a", {T0: 1})
    scene.written()
    ticket = scene.delete_offsets(T0)
    rows = (PartitionError("t", 0, ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC),)
    assert scene.answers[ticket] == DeleteOffsetsAnswer(NONE, rows)


def test_of_other_groups_with_members_nothing_is_deleted() -> None:
    scene = Scene()
    scene.stable("a", protocol_type="connect")
    assert scene.answers[scene.delete_offsets(T0)] == DeleteOffsetsAnswer(ErrorCode.NON_EMPTY_GROUP)


def test_a_group_is_deleted_with_its_offsets_and_with_commits_under_way() -> None:
    scene = Scene()
    scene.stable("a")
    scene.leave("a")
    simple(scene, {T0: 1})
    scene.all_written()
    late = simple(scene, {T1: 1})
    ticket = scene.delete()
    assert ticket not in scene.answers
    assert errors(scene, simple(scene, {T0: 9})) == [ErrorCode.COORDINATOR_NOT_AVAILABLE]
    assert scene.answers[scene.join("b")].error is ErrorCode.COORDINATOR_NOT_AVAILABLE  # type: ignore[union-attr]
    assert scene.answers[scene.delete()] == GroupError("g", ErrorCode.GROUP_ID_NOT_FOUND)
    scene.all_written()
    assert errors(scene, late) == [NONE]
    assert scene.answers[ticket] == GroupError("g", NONE)
    keys = [offset_key("g", "t", 0), offset_key("g", "t", 1), group_key("g")]
    assert scene.log[-3:] == [(key, None) for key in keys]
    assert scene.shard.group_ids() == ()
    scene.load()
    assert scene.shard.group_ids() == ()
    scene.stable("c")


def test_a_group_that_could_not_be_deleted_is_what_it_was() -> None:
    scene = Scene()
    scene.stable("a")
    scene.leave("a")
    simple(scene, {T0: 1})
    scene.all_written()
    scene.wait(5)
    ticket = scene.delete()
    scene.written(ErrorCode.NOT_ENOUGH_REPLICAS)
    assert scene.answers[ticket] == GroupError("g", ErrorCode.COORDINATOR_NOT_AVAILABLE)
    assert (scene.state(), scene.committed()) == ("Empty", {T0: 1})
    scene.time = 7 * DAY_S + 6
    expire(scene)
    assert len(scene.outstanding) == 1, "it is empty since it was emptied, not since it was not deleted"


def test_a_group_without_a_record_needs_no_tombstone() -> None:
    scene = Scene()
    simple(scene, {T0: 1})
    scene.written()
    scene.delete()
    assert scene.log[1:] == [(offset_key("g", "t", 0), None)]


def test_an_unused_member_id_does_not_keep_a_group_from_being_deleted() -> None:
    scene = Scene()
    simple(scene, {T0: 1})
    scene.written()
    scene.join("a", known=True)
    ticket = scene.delete()
    scene.written()
    assert scene.answers[ticket] == GroupError("g", NONE)
    assert scene.shard.next_deadline() is None


def test_an_unused_member_id_is_gone_though_the_group_was_not_deleted() -> None:
    scene = Scene()
    simple(scene, {T0: 1})
    scene.written()
    scene.join("a", known=True)
    scene.delete()
    scene.written(ErrorCode.NOT_ENOUGH_REPLICAS)
    assert scene.answers[scene.join("a", known=True)].error is ErrorCode.UNKNOWN_MEMBER_ID  # type: ignore[union-attr]
    assert scene.state() == "Empty"


def test_many_offsets_are_deleted_in_batches_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zkbroker.coordinator.removal.TOMBSTONES_BYTES_MAX", 40)
    scene = Scene()
    simple(scene, {("t", number): 1 for number in range(7)})
    scene.written()
    ticket = scene.delete()
    sizes = [len(write.records) for write in scene.outstanding.values()]
    assert sizes == [3, 3, 1], "14 bytes each"
    scene.written(write_id=4)
    scene.written(ErrorCode.REQUEST_TIMED_OUT, write_id=3)
    assert ticket not in scene.answers
    scene.written(write_id=2)
    assert scene.answers[ticket] == GroupError("g", ErrorCode.REQUEST_TIMED_OUT)
    assert set(scene.committed()) == {("t", 3), ("t", 4), ("t", 5)}
    assert scene.state() == "Empty"

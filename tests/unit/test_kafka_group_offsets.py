"""OffsetCommit, OffsetFetch and OffsetDelete in all versions, asked with kio's classes."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.fakes.groups import FakeGroups
from tests.fakes.kafka_client import Listener, frame, frames_of
from tests.unit.kafka_group_tools import ask, code, commit_rows, groups, listener, served
from zkbroker.kafka import versions as v
from zkbroker.kafka.wire import Reader
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    CommitAnswer,
    CommitOffsets,
    DeleteOffsets,
    DeleteOffsetsAnswer,
    FetchedOffset,
    FetchOffsets,
    FetchOffsetsAnswer,
    OffsetToCommit,
    PartitionError,
)

__all__ = ["groups", "listener"]

FINE = ErrorCode.NONE
UNKNOWN = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def partition_rows(answer: Any) -> list[tuple[str, int, ErrorCode]]:
    return [(topic.name, row.partition_index, code(row)) for topic in answer.topics for row in topic.partitions]


@pytest.mark.parametrize("version", served(v.OFFSET_COMMIT, 2))
def test_commit(listener: Listener, groups: FakeGroups, version: int) -> None:
    refused = ErrorCode.OFFSET_METADATA_TOO_LARGE
    groups.answer = CommitAnswer(
        (PartitionError("t", 0, FINE), PartitionError("t", 1, refused), PartitionError("u", 0, FINE))
    )
    answer = ask(
        listener,
        v.OFFSET_COMMIT,
        version,
        group_id="g",
        member_id="m",
        generation_id_or_member_epoch=3,
        group_instance_id="static",
        retention_time=1000,
        topics=commit_rows(("t", 0), ("t", 7), ("t", 1), ("nowhere", 0), ("u", 0)),
    )
    epoch = 6 if version >= 6 else -1
    assert groups.asked == [
        CommitOffsets(
            "g",
            "m",
            3,
            "static" if version >= 7 else None,
            1000 if version <= 4 else -1,
            (
                OffsetToCommit("t", 0, 40, epoch, "note"),
                OffsetToCommit("t", 1, 41, epoch, None),
                OffsetToCommit("u", 0, 40, epoch, "note"),
            ),
        )
    ]
    assert partition_rows(answer) == [
        ("t", 0, FINE),
        ("t", 7, UNKNOWN),
        ("t", 1, refused),
        ("nowhere", 0, UNKNOWN),
        ("u", 0, FINE),
    ]


def test_commit_of_version_1_has_times(listener: Listener, groups: FakeGroups) -> None:
    row = struct.pack(">iqqh", 1, 44, 123_456, 1) + b"x"
    unknown = struct.pack(">iqqh", 9, 1, -1, -1)
    body = struct.pack(">h1sih1s", 1, b"g", 3, 1, b"m") + struct.pack(">ih1si", 1, 1, b"t", 2) + row + unknown
    connection, transport = listener.connect()
    connection.dataReceived(frame(struct.pack(">hhih", v.OFFSET_COMMIT, 1, 5, -1) + body))
    assert groups.asked == [CommitOffsets("g", "m", 3, None, -1, (OffsetToCommit("t", 1, 44, -1, "x", 123_456),))]
    (data,) = frames_of(transport.take())
    reader = Reader(data)
    assert [reader.int32(), reader.int32(), reader.string(False), reader.int32()] == [5, 1, "t", 2]
    assert [reader.int32(), reader.int16(), reader.int32(), reader.int16()] == [1, FINE, 9, UNKNOWN]
    assert reader.offset == reader.end


def test_a_commit_of_what_is_not_there_asks_no_coordinator(listener: Listener, groups: FakeGroups) -> None:
    topics = commit_rows(("nowhere", 0), ("t", 2))
    answer = ask(listener, v.OFFSET_COMMIT, 9, group_id="g", member_id="", topics=topics)
    assert partition_rows(answer) == [("nowhere", 0, UNKNOWN), ("t", 2, UNKNOWN)]
    assert ask(listener, v.OFFSET_COMMIT, 9, group_id="g", member_id="", topics=[]).topics == ()
    assert groups.asked == []


@pytest.mark.parametrize("version", served(v.OFFSET_FETCH))
def test_fetch_offsets(listener: Listener, groups: FakeGroups, version: int) -> None:
    topics = [{"name": "t", "partition_indexes": [1, 0]}, {"name": "nowhere", "partition_indexes": [3]}]
    fields: dict[str, Any] = {"group_id": "g", "topics": topics, "require_stable": True}
    if version >= 8:
        fields = {"groups": [fields, {"group_id": "h", "topics": None}], "require_stable": True}
    answer = ask(listener, v.OFFSET_FETCH, version, **fields)
    partitions = (("t", 1), ("t", 0), ("nowhere", 3))
    asked = [FetchOffsets("g", partitions, version >= 7)]
    if version >= 8:
        asked.append(FetchOffsets("h", None, True))
    assert groups.asked == [asked]
    if version >= 8:
        answer, other = answer.groups
        assert (answer.group_id, other.group_id, code(other), other.topics) == ("g", "h", FINE, ())
    assert partition_rows(answer) == [("t", 1, FINE), ("t", 0, FINE), ("nowhere", 3, FINE)]
    row = answer.topics[0].partitions[0]
    assert (row.committed_offset, row.metadata) == (5, "note")
    if version >= 5:
        assert row.committed_leader_epoch == 2
    if version >= 2:
        assert code(answer) == FINE


@pytest.mark.parametrize("version", served(v.OFFSET_FETCH))
def test_fetch_offsets_refused(listener: Listener, groups: FakeGroups, version: int) -> None:
    error = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    groups.answer = [FetchOffsetsAnswer("g", error, (FetchedOffset("t", 0, 9),))]
    group: dict[str, Any] = {"group_id": "g", "topics": [{"name": "t", "partition_indexes": [0]}]}
    answer = ask(listener, v.OFFSET_FETCH, version, **({"groups": [group]} if version >= 8 else group))
    if version >= 8:
        (answer,) = answer.groups
    if version == 1:
        assert partition_rows(answer) == [("t", 0, error)]
        assert answer.topics[0].partitions[0].committed_offset == -1
    else:
        assert (code(answer), answer.topics) == (error, ())


@pytest.mark.parametrize("version", served(v.OFFSET_FETCH, 2))
def test_fetch_all_offsets(listener: Listener, groups: FakeGroups, version: int) -> None:
    rows = (FetchedOffset("a", 0, 1), FetchedOffset("b", 0, 3, -1, None), FetchedOffset("a", 1, 2))
    groups.answer = [FetchOffsetsAnswer("g", FINE, rows)]
    group = {"group_id": "g", "topics": None}
    answer = ask(listener, v.OFFSET_FETCH, version, **({"groups": [group]} if version >= 8 else group))
    if version >= 8:
        (answer,) = answer.groups
    assert groups.asked[0][0].partitions is None
    assert [[row.committed_offset for row in topic.partitions] for topic in answer.topics] == [[1, 2], [3]]


def test_fetch_offsets_of_version_9_names_the_member(listener: Listener, groups: FakeGroups) -> None:
    ask(listener, v.OFFSET_FETCH, 9, groups=[{"group_id": "g", "member_id": "m", "member_epoch": 4, "topics": []}])
    assert groups.asked == [[FetchOffsets("g", (), False, "m", 4)]]


def test_delete_offsets(listener: Listener, groups: FakeGroups) -> None:
    subscribed = ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC
    groups.answer = DeleteOffsetsAnswer(FINE, (PartitionError("t", 0, subscribed), PartitionError("t", 1, FINE)))
    topics = [
        {"name": "nowhere", "partitions": [{"partition_index": 0}]},
        {"name": "t", "partitions": [{"partition_index": number} for number in (0, 5, 1)]},
    ]
    answer = ask(listener, v.OFFSET_DELETE, 0, group_id="g", topics=topics)
    assert groups.asked == [DeleteOffsets("g", (("t", 0), ("t", 1)))]
    assert code(answer) == FINE
    assert partition_rows(answer) == [("nowhere", 0, UNKNOWN), ("t", 0, subscribed), ("t", 5, UNKNOWN), ("t", 1, FINE)]
    groups.answer = DeleteOffsetsAnswer(ErrorCode.NON_EMPTY_GROUP)
    answer = ask(listener, v.OFFSET_DELETE, 0, group_id="g", topics=topics)
    assert (code(answer), answer.topics) == (ErrorCode.NON_EMPTY_GROUP, ())


@pytest.mark.parametrize("count", [1_000, 100_001])
def test_a_request_names_so_many_partitions_at_most(listener: Listener, groups: FakeGroups, count: int) -> None:
    body = struct.pack(">h1sih1si", 1, b"g", 1, 1, b"t", count) + bytes(4 * count)
    connection, transport = listener.connect()
    connection.dataReceived(frame(struct.pack(">hhih", v.OFFSET_FETCH, 1, 5, -1) + body))
    assert transport.is_closed == (count > 100_000)
    assert len(groups.asked) == (count <= 100_000)

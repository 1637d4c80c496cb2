"""OffsetCommit, OffsetFetch and OffsetDelete: where consumer groups have got to.

OffsetCommit 0 and OffsetFetch 0, which kept offsets in ZooKeeper, are not served.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.ports import MetadataPort
from zkbroker.kafka.request import Api, Request, Services, guarded
from zkbroker.kafka.versions import OFFSET_COMMIT, OFFSET_DELETE, OFFSET_FETCH
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

_KIO_COMMIT_FROM = 2
"""kio knows no OffsetCommit 1, whose rows have a time of commit each (librdkafka before 1.0 can send it)."""
_TOP_LEVEL_ERROR_FROM = 2
_BATCHED_FROM = 8


def _topics(rows: Iterable[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each topic once, with all its partitions, wherever they stand among the rows."""
    topics: dict[str, list[dict[str, Any]]] = {}
    for name, row in rows:
        topics.setdefault(name, []).append(row)
    return [{"name": name, "partitions": partitions} for name, partitions in topics.items()]


def _refusals(rows: Iterable[PartitionError]) -> list[dict[str, Any]]:
    return _topics((row.topic, {"partition_index": row.partition, "error_code": row.error}) for row in rows)


# OffsetCommit


def decode_commit(request: Request) -> CommitOffsets:
    if request.version < _KIO_COMMIT_FROM:
        return _decode_commit_v1(request.reader())
    message = decode_request(OFFSET_COMMIT, request.version, request.reader())
    return CommitOffsets(
        message.group_id,
        message.member_id,
        message.generation_id_or_member_epoch,
        getattr(message, "group_instance_id", None),
        getattr(message, "retention_time", -1),
        tuple(
            OffsetToCommit(
                topic.name,
                row.partition_index,
                row.committed_offset,
                getattr(row, "committed_leader_epoch", -1),
                row.committed_metadata,
            )
            for topic in message.topics
            for row in topic.partitions
        ),
    )


def _decode_commit_v1(reader: Reader) -> CommitOffsets:
    group_id = reader.string(False)
    generation = reader.int32()
    member_id = reader.string(False)
    offsets = []
    for _ in range(reader.array_size(False)):
        topic = reader.string(False)
        for _ in range(reader.array_size(False)):
            partition, offset, timestamp_ms = reader.int32(), reader.int64(), reader.int64()
            offsets.append(OffsetToCommit(topic, partition, offset, -1, reader.nullable_string(False), timestamp_ms))
    return CommitOffsets(group_id, member_id, generation, None, -1, tuple(offsets))


def _unknown(metadata: MetadataPort, partitions: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
    """Those that this broker knows nothing of."""
    found = set()
    for name, partition in partitions:
        topic = metadata.topic(name)
        if topic is None or partition not in topic.partitions:
            found.add((name, partition))
    return found


def serve_commit(services: Services, request: Request, message: CommitOffsets) -> None:
    unknown = _unknown(services.metadata, ((row.topic, row.partition) for row in message.offsets))
    known = [row for row in message.offsets if (row.topic, row.partition) not in unknown]

    def done(answer: CommitAnswer) -> None:
        found = iter(answer.rows)
        _answer_commit(
            request,
            (
                PartitionError(row.topic, row.partition, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
                if (row.topic, row.partition) in unknown
                else next(found)
                for row in message.offsets
            ),
        )

    if not known:  # the group is not looked at either, as in Kafka
        done(CommitAnswer(()))
        return
    asked = message._replace(offsets=tuple(known))
    request.waits_for(services.groups.commit(asked, guarded(request, message, done)))


def _answer_commit(request: Request, rows: Iterable[PartitionError]) -> None:
    version = max(request.version, _KIO_COMMIT_FROM)  # the answers of 1 and 2 are the same
    request.answer(encode_response(OFFSET_COMMIT, version, {"topics": _refusals(rows)}))


def refuse_commit(request: Request, message: CommitOffsets, error: ErrorCode, text: str | None) -> None:
    _answer_commit(request, (PartitionError(row.topic, row.partition, error) for row in message.offsets))


# OffsetFetch


def decode_fetch(request: Request) -> list[FetchOffsets]:
    """The groups asked for: one below version 8."""
    message = decode_request(OFFSET_FETCH, request.version, request.reader())
    require_stable = getattr(message, "require_stable", False)
    groups: list[SimpleNamespace] = message.groups if request.version >= _BATCHED_FROM else [message]
    return [
        FetchOffsets(
            group.group_id,
            None
            if group.topics is None
            else tuple((topic.name, partition) for topic in group.topics for partition in topic.partition_indexes),
            require_stable,
            getattr(group, "member_id", None),
            getattr(group, "member_epoch", -1),
        )
        for group in groups
    ]


def serve_fetch(services: Services, request: Request, message: list[FetchOffsets]) -> None:
    def done(answers: list[FetchOffsetsAnswer]) -> None:
        _answer_fetch(request, message, answers)

    request.waits_for(services.groups.fetch_offsets(message, guarded(request, message, done)))


def _answer_fetch(request: Request, message: list[FetchOffsets], answers: list[FetchOffsetsAnswer]) -> None:
    groups = [
        {"group_id": asked.group_id, "error_code": answer.error, "topics": _fetched(request, asked, answer)}
        for asked, answer in zip(message, answers, strict=True)
    ]
    fields = {"groups": groups} if request.version >= _BATCHED_FROM else groups[0]
    request.answer(encode_response(OFFSET_FETCH, request.version, fields))


def _fetched(request: Request, asked: FetchOffsets, answer: FetchOffsetsAnswer) -> list[dict[str, Any]]:
    rows: Iterator[FetchedOffset] | tuple[FetchedOffset, ...] = answer.rows
    if answer.error != ErrorCode.NONE:
        if request.version >= _TOP_LEVEL_ERROR_FROM:
            return []
        rows = (FetchedOffset(topic, partition, error=answer.error) for topic, partition in asked.partitions or ())
    return _topics(
        (
            row.topic,
            {
                "partition_index": row.partition,
                "committed_offset": row.offset,
                "committed_leader_epoch": row.leader_epoch,
                "metadata": row.metadata,
                "error_code": row.error,
            },
        )
        for row in rows
    )


def refuse_fetch(request: Request, message: list[FetchOffsets], error: ErrorCode, text: str | None) -> None:
    _answer_fetch(request, message, [FetchOffsetsAnswer(asked.group_id, error) for asked in message])


# OffsetDelete


def decode_delete(request: Request) -> DeleteOffsets:
    message = decode_request(OFFSET_DELETE, request.version, request.reader())
    partitions = tuple((topic.name, row.partition_index) for topic in message.topics for row in topic.partitions)
    return DeleteOffsets(message.group_id, partitions)


def serve_delete(services: Services, request: Request, message: DeleteOffsets) -> None:
    unknown = _unknown(services.metadata, message.partitions)

    def done(answer: DeleteOffsetsAnswer) -> None:
        if answer.error != ErrorCode.NONE:
            refuse_delete(request, message, answer.error, None)
            return
        found = iter(answer.rows)
        _answer_delete(
            request,
            ErrorCode.NONE,
            (
                PartitionError(*row, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION) if row in unknown else next(found)
                for row in message.partitions
            ),
        )

    asked = message._replace(partitions=tuple(row for row in message.partitions if row not in unknown))
    request.waits_for(services.groups.delete_offsets(asked, guarded(request, message, done)))


def _answer_delete(request: Request, error: ErrorCode, rows: Iterable[PartitionError]) -> None:
    fields = {"error_code": error, "topics": _refusals(rows)}
    request.answer(encode_response(OFFSET_DELETE, request.version, fields))


def refuse_delete(request: Request, message: DeleteOffsets, error: ErrorCode, text: str | None) -> None:
    _answer_delete(request, error, ())


OFFSET_COMMIT_API = Api(decode_commit, serve_commit, refuse_commit)
OFFSET_FETCH_API = Api(decode_fetch, serve_fetch, refuse_fetch)
OFFSET_DELETE_API = Api(decode_delete, serve_delete, refuse_delete)

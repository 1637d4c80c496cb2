"""ListOffsets and OffsetForLeaderEpoch: where a partition begins and ends, by time and by leader epoch."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.ports import EpochAnswer, EpochRow, OffsetAnswer, OffsetRow
from zkbroker.kafka.request import Api, Request, Services, guarded
from zkbroker.kafka.versions import LIST_OFFSETS, OFFSET_FOR_LEADER_EPOCH
from zkbroker.model.errors import ErrorCode

MAX_TIMESTAMP = -3
"""KIP-734, from version 7."""
EARLIEST_LOCAL_TIMESTAMP = -4
"""KIP-405, from version 8."""
LATEST_TIERED_TIMESTAMP = -5
"""KIP-1005, from version 9."""
_SINCE = {MAX_TIMESTAMP: 7, EARLIEST_LOCAL_TIMESTAMP: 8, LATEST_TIERED_TIMESTAMP: 9}


def _decode_list(request: Request) -> SimpleNamespace:
    return decode_request(LIST_OFFSETS, request.version, request.reader())


def _serve_list(services: Services, request: Request, message: SimpleNamespace) -> None:
    rows: list[OffsetRow] = []
    answers: list[OffsetAnswer | None] = []
    for topic in message.topics:
        for partition in topic.partitions:
            epoch = getattr(partition, "current_leader_epoch", -1)
            row = OffsetRow(topic.name, partition.partition_index, partition.timestamp, epoch)
            if request.version < _SINCE.get(row.timestamp_ms, 0):
                answers.append(OffsetAnswer(row.topic, row.partition, ErrorCode.UNSUPPORTED_VERSION))
            else:
                answers.append(None)
                rows.append(row)
    read_committed = getattr(message, "isolation_level", 0) == 1

    def done(found: list[OffsetAnswer]) -> None:
        remaining = iter(found)
        _answer_list(request, message, [row if row is not None else next(remaining) for row in answers])

    if rows:
        services.data.list_offsets(read_committed, rows, guarded(request, message, done))
    else:
        done([])


def _answer_list(request: Request, message: SimpleNamespace, answers: list[OffsetAnswer]) -> None:
    rows = (
        {
            "partition_index": row.partition,
            "error_code": row.error,
            "timestamp": row.timestamp_ms,
            "offset": row.offset,
            "leader_epoch": row.leader_epoch,
        }
        for row in answers
    )
    topics = [{"name": topic.name, "partitions": _next_rows(rows, topic)} for topic in message.topics]
    request.answer(encode_response(LIST_OFFSETS, request.version, {"topics": topics}))


def _next_rows(rows: Iterator[dict[str, Any]], topic: SimpleNamespace) -> list[dict[str, Any]]:
    """The answers of one topic: as many as it has partitions, in the order of the request."""
    return [next(rows) for _ in topic.partitions]


def _refuse_list(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    answers = [
        OffsetAnswer(topic.name, row.partition_index, error) for topic in message.topics for row in topic.partitions
    ]
    _answer_list(request, message, answers)


def _decode_epochs(request: Request) -> SimpleNamespace:
    return decode_request(OFFSET_FOR_LEADER_EPOCH, request.version, request.reader())


def _serve_epochs(services: Services, request: Request, message: SimpleNamespace) -> None:
    rows = [
        EpochRow(topic.topic, row.partition, row.leader_epoch, getattr(row, "current_leader_epoch", -1))
        for topic in message.topics
        for row in topic.partitions
    ]
    _answer_epochs(request, message, services.data.offsets_for_leader_epochs(rows))


def _answer_epochs(request: Request, message: SimpleNamespace, answers: list[EpochAnswer]) -> None:
    rows = (
        {
            "error_code": row.error,
            "partition": row.partition,
            "leader_epoch": row.leader_epoch,
            "end_offset": row.end_offset,
        }
        for row in answers
    )
    topics = [{"topic": topic.topic, "partitions": _next_rows(rows, topic)} for topic in message.topics]
    request.answer(encode_response(OFFSET_FOR_LEADER_EPOCH, request.version, {"topics": topics}))


def _refuse_epochs(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    answers = [EpochAnswer(topic.topic, row.partition, error) for topic in message.topics for row in topic.partitions]
    _answer_epochs(request, message, answers)


LIST_OFFSETS_API = Api(_decode_list, _serve_list, _refuse_list)
OFFSET_FOR_LEADER_EPOCH_API = Api(_decode_epochs, _serve_epochs, _refuse_epochs)

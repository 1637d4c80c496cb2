"""DeleteRecords (KIP-107): everything below an offset counts as deleted."""

from __future__ import annotations

from types import SimpleNamespace

from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.ports import DeletedRow, DeleteRow
from zkbroker.kafka.request import Api, Request, Services, guarded
from zkbroker.kafka.versions import DELETE_RECORDS
from zkbroker.model.errors import ErrorCode


def decode(request: Request) -> SimpleNamespace:
    return decode_request(DELETE_RECORDS, request.version, request.reader())


def serve(services: Services, request: Request, message: SimpleNamespace) -> None:
    rows: list[DeleteRow] = []
    refused: list[DeletedRow | None] = []
    for topic in message.topics:
        view = services.metadata.topic(topic.name)
        for row in topic.partitions:
            if view is not None and view.is_internal and row.partition_index in view.partitions:
                error = ErrorCode.INVALID_TOPIC_EXCEPTION
                refused.append(DeletedRow(topic.name, row.partition_index, error))
            else:
                refused.append(None)
                rows.append(DeleteRow(topic.name, row.partition_index, row.offset))

    def done(answers: list[DeletedRow]) -> None:
        remaining = iter(answers)
        _answer(request, message, [row if row is not None else next(remaining) for row in refused])

    if not rows:
        done([])
        return
    cancellable = services.data.delete_records(message.timeout, rows, guarded(request, message, done))
    if not request.is_done:
        request.cancellable = cancellable


def _answer(request: Request, message: SimpleNamespace, answers: list[DeletedRow]) -> None:
    rows = (
        {"partition_index": row.partition, "low_watermark": row.low_watermark, "error_code": row.error}
        for row in answers
    )
    topics = [{"name": topic.name, "partitions": [next(rows) for _ in topic.partitions]} for topic in message.topics]
    request.answer(encode_response(DELETE_RECORDS, request.version, {"topics": topics}))


def refuse(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    _answer(
        request,
        message,
        [DeletedRow(topic.name, row.partition_index, error) for topic in message.topics for row in topic.partitions],
    )


API = Api(decode, serve, refuse)

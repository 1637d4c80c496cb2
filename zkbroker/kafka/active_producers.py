"""DescribeProducers (KIP-664): who writes to a partition, and which transactions are open there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.request import Api, Request, Services
from zkbroker.kafka.versions import DESCRIBE_PRODUCERS
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import topic_name_error


def decode(request: Request) -> SimpleNamespace:
    return decode_request(DESCRIBE_PRODUCERS, request.version, request.reader())


def serve(services: Services, request: Request, message: SimpleNamespace) -> None:
    topics = [
        {
            "name": topic.name,
            "partitions": [_partition(services, topic.name, index) for index in topic.partition_indexes],
        }
        for topic in message.topics
    ]
    request.answer(encode_response(DESCRIBE_PRODUCERS, request.version, {"topics": topics}))


def _partition(services: Services, topic: str, partition: int) -> dict[str, Any]:
    problem = topic_name_error(topic)
    if problem is not None:
        return _failed(partition, ErrorCode.INVALID_TOPIC_EXCEPTION, problem)
    view = services.metadata.topic(topic)
    if view is None or partition not in view.partitions:
        text = "This server does not host this topic-partition."
        return _failed(partition, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, text)
    found = services.admin.settings.describe_producers(topic, partition)
    if found.error != ErrorCode.NONE:
        return _failed(partition, found.error, None)
    producers = [
        {
            "producer_id": producer.producer_id,
            "producer_epoch": producer.producer_epoch,
            "last_sequence": producer.last_sequence,
            "last_timestamp": producer.last_timestamp,
            "coordinator_epoch": producer.coordinator_epoch,
            "current_txn_start_offset": producer.transaction_start,
        }
        for producer in found.producers
    ]
    return {"partition_index": partition, "error_code": ErrorCode.NONE, "active_producers": producers}


def _failed(partition: int, error: ErrorCode, text: str | None) -> dict[str, Any]:
    return {"partition_index": partition, "error_code": error, "error_message": text, "active_producers": ()}


def refuse(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    topics = [
        {"name": topic.name, "partitions": [_failed(index, error, text) for index in topic.partition_indexes]}
        for topic in message.topics
    ]
    request.answer(encode_response(DESCRIBE_PRODUCERS, request.version, {"topics": topics}))


API = Api(decode, serve, refuse)

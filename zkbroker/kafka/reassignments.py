"""AlterPartitionReassignments and ListPartitionReassignments (KIP-455), ElectLeaders (KIP-183, KIP-460). Only the
controller's broker does them; the others say NOT_CONTROLLER, which sends a client to the controller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.request import Api, Request, Services, when_done
from zkbroker.kafka.versions import ALTER_PARTITION_REASSIGNMENTS, ELECT_LEADERS, LIST_PARTITION_REASSIGNMENTS
from zkbroker.model.errors import ErrorCode
from zkbroker.model.limits import PARTITIONS_MOVED_MAX
from zkbroker.model.reassignments import ElectionKind, OngoingMove, PartitionOutcome
from zkbroker.model.topics import TopicPartition

Outcomes = Mapping[TopicPartition, PartitionOutcome]


def _by_topic(rows: Iterable[tuple[TopicPartition, dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    topics: dict[str, list[dict[str, Any]]] = {}
    for partition, row in rows:
        topics.setdefault(partition.topic, []).append(row)
    return topics


def _outcome_rows(outcomes: Outcomes, index: str) -> dict[str, list[dict[str, Any]]]:
    return _by_topic(
        (
            partition,
            {
                index: partition.partition,
                "error_code": outcome.error,
                "error_message": _text(outcome.error, outcome.message),
            },
        )
        for partition, outcome in outcomes.items()
    )


def _text(error: ErrorCode, message: str | None) -> str | None:
    return None if error is ErrorCode.NONE else message or error.name


def _too_many(count: int) -> str | None:
    """Why a request that names so many partitions is refused as a whole; None if it is not."""
    if count <= PARTITIONS_MOVED_MAX:
        return None
    return f"{count} partitions in one request: at most {PARTITIONS_MOVED_MAX} are taken at once"


# AlterPartitionReassignments


def _decode_alter(request: Request) -> SimpleNamespace:
    return decode_request(ALTER_PARTITION_REASSIGNMENTS, request.version, request.reader())


def _serve_alter(services: Services, request: Request, message: SimpleNamespace) -> None:
    refused = _too_many(sum(len(topic.partitions) for topic in message.topics))
    if refused is not None:
        _refuse_alter(request, message, ErrorCode.POLICY_VIOLATION, refused)
        return
    wanted = {
        TopicPartition(topic.name, row.partition_index): None if row.replicas is None else tuple(row.replicas)
        for topic in message.topics
        for row in topic.partitions
    }

    def answer(outcomes: Outcomes) -> None:
        _answer_alter(request, ErrorCode.NONE, None, outcomes)

    deferred = services.admin.alter_reassignments(wanted, message.timeout)
    when_done(request, message, deferred, answer, _refuse_alter)


def _answer_alter(request: Request, error: ErrorCode, text: str | None, outcomes: Outcomes) -> None:
    topics = _outcome_rows(outcomes, "partition_index")
    fields = {
        "error_code": error,
        "error_message": _text(error, text),
        "responses": [{"name": name, "partitions": rows} for name, rows in topics.items()],
    }
    request.answer(encode_response(ALTER_PARTITION_REASSIGNMENTS, request.version, fields))


def _refuse_alter(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    _answer_alter(request, error, text, {})


# ListPartitionReassignments


def _decode_list(request: Request) -> SimpleNamespace:
    return decode_request(LIST_PARTITION_REASSIGNMENTS, request.version, request.reader())


def _serve_list(services: Services, request: Request, message: SimpleNamespace) -> None:
    wanted = None
    if message.topics is not None:
        refused = _too_many(sum(len(topic.partition_indexes) for topic in message.topics))
        if refused is not None:
            _refuse_list(request, message, ErrorCode.POLICY_VIOLATION, refused)
            return
        wanted = [TopicPartition(topic.name, number) for topic in message.topics for number in topic.partition_indexes]

    def answer(moves: Sequence[OngoingMove]) -> None:
        _answer_list(request, ErrorCode.NONE, None, moves)

    deferred = services.admin.list_reassignments(wanted, message.timeout)
    when_done(request, message, deferred, answer, _refuse_list)


def _answer_list(request: Request, error: ErrorCode, text: str | None, moves: Sequence[OngoingMove]) -> None:
    topics = _by_topic(
        (
            move.partition,
            {
                "partition_index": move.partition.partition,
                "replicas": move.replicas,
                "adding_replicas": move.adding,
                "removing_replicas": move.removing,
            },
        )
        for move in moves
    )
    fields = {
        "error_code": error,
        "error_message": _text(error, text),
        "topics": [{"name": name, "partitions": rows} for name, rows in topics.items()],
    }
    request.answer(encode_response(LIST_PARTITION_REASSIGNMENTS, request.version, fields))


def _refuse_list(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    _answer_list(request, error, text, ())


# ElectLeaders


def _decode_elect(request: Request) -> SimpleNamespace:
    return decode_request(ELECT_LEADERS, request.version, request.reader())


def _named(message: SimpleNamespace) -> list[TopicPartition] | None:
    if message.topic_partitions is None:
        return None
    return [TopicPartition(topic.topic, number) for topic in message.topic_partitions for number in topic.partitions]


def _serve_elect(services: Services, request: Request, message: SimpleNamespace) -> None:
    try:
        kind = ElectionKind(getattr(message, "election_type", ElectionKind.PREFERRED.value))
    except ValueError:
        _refuse_elect(request, message, ErrorCode.INVALID_REQUEST, f"no election type {message.election_type}")
        return

    if _too_many(sum(len(topic.partitions) for topic in message.topic_partitions or ())) is not None:
        _answer_elect(request, ErrorCode.POLICY_VIOLATION, {})
        return

    def answer(outcomes: Outcomes) -> None:
        _answer_elect(request, ErrorCode.NONE, outcomes)

    deferred = services.admin.elect_leaders(kind, _named(message), message.timeout)
    when_done(request, message, deferred, answer, _refuse_elect)


def _answer_elect(request: Request, error: ErrorCode, outcomes: Outcomes) -> None:
    topics = _outcome_rows(outcomes, "partition_id")
    fields = {
        "error_code": error,
        "replica_election_results": [{"topic": name, "partition_result": rows} for name, rows in topics.items()],
    }
    request.answer(encode_response(ELECT_LEADERS, request.version, fields))


def _refuse_elect(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    """As in Kafka each partition is told; with none named only the answer as a whole can say it (from version 1 on)."""
    named = _named(message)
    outcomes = dict.fromkeys(named or (), PartitionOutcome(error, text))
    _answer_elect(request, ErrorCode.NONE if named else error, outcomes)


ALTER_PARTITION_REASSIGNMENTS_API = Api(_decode_alter, _serve_alter, _refuse_alter)
LIST_PARTITION_REASSIGNMENTS_API = Api(_decode_list, _serve_list, _refuse_list)
ELECT_LEADERS_API = Api(_decode_elect, _serve_elect, _refuse_elect)

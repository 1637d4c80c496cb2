"""CreateTopics, DeleteTopics and CreatePartitions. Only the controller's broker does them; the others' AdminPort says
NOT_CONTROLLER, which sends a client to the controller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.ports import PartitionsToAdd, TopicToDelete
from zkbroker.kafka.request import Api, Request, Services, when_done
from zkbroker.kafka.versions import CREATE_PARTITIONS, CREATE_TOPICS, DELETE_TOPICS
from zkbroker.model.channel import NewTopic, TopicResult
from zkbroker.model.errors import ErrorCode
from zkbroker.model.limits import PARTITIONS_CREATED_MAX

_CONFIGS_FROM = 5
_DISABLED_FROM = 3
"""The first version of DeleteTopics that knows TOPIC_DELETION_DISABLED (KIP-322)."""


def _in_order(names: Iterable[str], refused: dict[str, TopicResult], done: Sequence[TopicResult]) -> list[TopicResult]:
    """One result per name, in the order asked and each once; what nobody answered is a server error."""
    results = {result.name: result for result in done}
    results.update(refused)
    missing = ErrorCode.UNKNOWN_SERVER_ERROR
    return [results.get(name) or TopicResult(name, missing, "no result") for name in dict.fromkeys(names)]


def _twice(names: Iterable[str]) -> dict[str, TopicResult]:
    return {
        name: TopicResult(name, ErrorCode.INVALID_REQUEST, "the topic is named more than once in the request")
        for name, count in Counter(names).items()
        if count > 1
    }


def _text(result: TopicResult) -> str | None:
    if result.error == ErrorCode.NONE:
        return None
    return result.message or result.error.name


# CreateTopics


def _decode_create(request: Request) -> SimpleNamespace:
    return decode_request(CREATE_TOPICS, request.version, request.reader())


def _new_topic(asked: SimpleNamespace) -> NewTopic:
    return NewTopic(
        asked.name,
        asked.num_partitions,
        asked.replication_factor,
        tuple((row.partition_index, tuple(row.broker_ids)) for row in asked.assignments),
        tuple((config.name, config.value) for config in asked.configs if config.value is not None),
    )


def _new_topic_error(asked: SimpleNamespace) -> TopicResult | None:
    """What is wrong with the request itself; what is wrong with the topic is the controller's to say."""
    if asked.assignments and (asked.num_partitions != -1 or asked.replication_factor != -1):
        text = "both numPartitions or replicationFactor and replicasAssignments were set"
        return TopicResult(asked.name, ErrorCode.INVALID_REQUEST, text)
    indexes = [row.partition_index for row in asked.assignments]
    if len(set(indexes)) != len(indexes):
        return TopicResult(asked.name, ErrorCode.INVALID_REPLICA_ASSIGNMENT, "a partition is assigned more than once")
    nulls = [config.name for config in asked.configs if config.value is None]
    if nulls:
        return TopicResult(asked.name, ErrorCode.INVALID_CONFIG, f"null value for {', '.join(nulls)}")
    return None


def _serve_create(services: Services, request: Request, message: SimpleNamespace) -> None:
    if len(message.topics) > PARTITIONS_CREATED_MAX:  # which the controller would say, seconds later
        text = f"{len(message.topics)} topics in one request: at most {PARTITIONS_CREATED_MAX} are created at once"
        _refuse_create(request, message, ErrorCode.POLICY_VIOLATION, text)
        return
    names = [asked.name for asked in message.topics]
    refused = _twice(names)
    topics: list[NewTopic] = []
    for asked in message.topics:
        if asked.name in refused:
            continue
        error = _new_topic_error(asked)
        if error is not None:
            refused[asked.name] = error
        else:
            topics.append(_new_topic(asked))

    def answer(results: Sequence[TopicResult]) -> None:
        configs = {topic.name: dict(topic.configs) for topic in topics} if request.version >= _CONFIGS_FROM else {}
        _answer_create(services, request, _in_order(names, refused, results), configs)

    if not topics:
        answer([])
        return
    deferred = services.admin.create_topics(topics, message.timeout, getattr(message, "validate_only", False))
    when_done(request, message, deferred, answer, _refuse_create)


def _answer_create(
    services: Services | None,
    request: Request,
    results: Iterable[TopicResult],
    configs: Mapping[str, Mapping[str, str]],
) -> None:
    """``configs``: what each topic asked for; the answer has all its settings (KIP-525)."""
    rows = []
    for result in results:
        created = result.error == ErrorCode.NONE
        rows.append(
            {
                "name": result.name,
                "topic_id": result.topic_id if created else None,
                "error_code": result.error,
                "error_message": _text(result),
                "num_partitions": result.partitions if created else -1,
                "replication_factor": result.replication_factor if created else -1,
                # Java's admin client reads the list without looking for null.
                "configs": _configs(services, configs[result.name])
                if created and services and result.name in configs
                else (),
            }
        )
    request.answer(encode_response(CREATE_TOPICS, request.version, {"topics": rows}))


def _configs(services: Services, overrides: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "name": entry.name,
            "value": None if entry.is_sensitive else entry.value,
            "read_only": entry.read_only,
            "config_source": entry.source,
            "is_sensitive": entry.is_sensitive,
        }
        for entry in services.admin.new_topic_config(overrides)
    ]


def _refuse_create(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    names = dict.fromkeys(asked.name for asked in message.topics)
    _answer_create(None, request, [TopicResult(name, error, text) for name in names], {})


# DeleteTopics


def _decode_delete(request: Request) -> SimpleNamespace:
    return decode_request(DELETE_TOPICS, request.version, request.reader())


def _to_delete(message: SimpleNamespace) -> list[TopicToDelete]:
    if hasattr(message, "topic_names"):  # before version 6
        return [TopicToDelete(name, None) for name in message.topic_names]
    return [TopicToDelete(topic.name, topic.topic_id) for topic in message.topics]


def _serve_delete(services: Services, request: Request, message: SimpleNamespace) -> None:
    metadata = services.metadata
    asked = _to_delete(message)
    rows: list[dict[str, Any]] = []
    wanted: dict[str, list[dict[str, Any]]] = {}
    asked_ids: dict[str, str] = {}
    for topic in asked:
        row: dict[str, Any] = {"name": topic.name, "topic_id": topic.topic_id, "error_message": None}
        rows.append(row)
        if (topic.name is None) == (topic.topic_id is None):
            row["error_code"] = ErrorCode.INVALID_REQUEST
            row["error_message"] = "a topic is named either by name or by id"
            continue
        name = topic.name if topic.name is not None else metadata.topic_name(topic.topic_id or "")
        if name is None:
            row["error_code"] = ErrorCode.UNKNOWN_TOPIC_ID
        else:
            view = metadata.topic(name)
            row["name"] = name
            row["topic_id"] = view.topic_id if view is not None else topic.topic_id
            wanted.setdefault(name, []).append(row)
            if topic.topic_id is not None:
                asked_ids[name] = topic.topic_id

    def answer(results: Sequence[TopicResult]) -> None:
        for result in _in_order(wanted, {}, results):
            for row in wanted[result.name]:
                row["error_code"] = result.error
                if result.error is ErrorCode.TOPIC_DELETION_DISABLED and request.version < _DISABLED_FROM:
                    row["error_code"] = ErrorCode.INVALID_REQUEST  # clients of then do not know the code
                row["error_message"] = _text(result)
        request.answer(encode_response(DELETE_TOPICS, request.version, {"responses": rows}))

    if not wanted:
        answer([])
        return
    # What the id's name means by now the controller knows better than this broker's picture.
    topics = [TopicToDelete(name, asked_ids.get(name)) for name in wanted]
    when_done(request, message, services.admin.delete_topics(topics, message.timeout), answer, _refuse_delete)


def _refuse_delete(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    rows = [
        {
            "name": topic.name if topic.name is not None or request.version >= 6 else "",
            "topic_id": topic.topic_id,
            "error_code": error,
            "error_message": text or error.name,
        }
        for topic in _to_delete(message)
    ]
    request.answer(encode_response(DELETE_TOPICS, request.version, {"responses": rows}))


# CreatePartitions


def _decode_partitions(request: Request) -> SimpleNamespace:
    return decode_request(CREATE_PARTITIONS, request.version, request.reader())


def _serve_partitions(services: Services, request: Request, message: SimpleNamespace) -> None:
    names = [topic.name for topic in message.topics]
    refused = _twice(names)
    topics = [
        PartitionsToAdd(
            topic.name,
            topic.count,
            None if topic.assignments is None else tuple(tuple(row.broker_ids) for row in topic.assignments),
        )
        for topic in message.topics
        if topic.name not in refused
    ]

    def answer(results: Sequence[TopicResult]) -> None:
        _answer_partitions(request, _in_order(names, refused, results))

    if not topics:
        answer([])
        return
    deferred = services.admin.create_partitions(topics, message.timeout, message.validate_only)
    when_done(request, message, deferred, answer, _refuse_partitions)


def _answer_partitions(request: Request, results: Iterable[TopicResult]) -> None:
    rows = [{"name": result.name, "error_code": result.error, "error_message": _text(result)} for result in results]
    request.answer(encode_response(CREATE_PARTITIONS, request.version, {"results": rows}))


def _refuse_partitions(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    names = dict.fromkeys(topic.name for topic in message.topics)
    _answer_partitions(request, [TopicResult(name, error, text) for name in names])


CREATE_TOPICS_API = Api(_decode_create, _serve_create, _refuse_create)
DELETE_TOPICS_API = Api(_decode_delete, _serve_delete, _refuse_delete)
CREATE_PARTITIONS_API = Api(_decode_partitions, _serve_partitions, _refuse_partitions)

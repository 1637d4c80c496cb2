"""AlterConfigs and IncrementalAlterConfigs (KIP-133, KIP-339): settings of topics, brokers and loggers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace

from zkbroker.kafka.config_ports import (
    BROKER_LOGGER_RESOURCE,
    BROKER_RESOURCE,
    TOPIC_RESOURCE,
    ResourceChanges,
    ResourceResult,
)
from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.request import Api, Request, Services, when_done
from zkbroker.kafka.versions import ALTER_CONFIGS, INCREMENTAL_ALTER_CONFIGS
from zkbroker.model.config.changes import ConfigChange, Operation
from zkbroker.model.errors import ErrorCode

_CLIENT_METRICS_RESOURCE = 16


def _decode(key: int, request: Request) -> SimpleNamespace:
    return decode_request(key, request.version, request.reader())


def _serve(key: int, services: Services, request: Request, message: SimpleNamespace) -> None:
    is_incremental = key == INCREMENTAL_ALTER_CONFIGS
    times = Counter((resource.resource_type, resource.resource_name) for resource in message.resources)
    refused: dict[int, ResourceResult] = {}
    wanted: list[ResourceChanges] = []
    for place, resource in enumerate(message.resources):
        kind, name = resource.resource_type, resource.resource_name
        problem = _problem(resource, is_incremental)
        if times[kind, name] > 1:
            problem = "Each resource must appear at most once."
        if problem is not None:
            refused[place] = ResourceResult(kind, name, ErrorCode.INVALID_REQUEST, problem)
            continue
        changes = tuple(
            ConfigChange(row.name, row.config_operation if is_incremental else Operation.SET, row.value)
            for row in resource.configs
        )
        wanted.append(ResourceChanges(kind, name, changes))

    def answer(results: Sequence[ResourceResult]) -> None:
        rest = iter(results)
        _answer(key, request, [refused.get(place) or next(rest) for place in range(len(message.resources))])

    if not wanted:
        answer([])
        return
    altered = services.admin.settings.alter_configs(wanted, is_incremental, message.validate_only)
    when_done(request, message, altered, answer, partial(_refuse, key))


def _problem(resource: SimpleNamespace, is_incremental: bool) -> str | None:
    """What is wrong with the request itself, in Kafka's words."""
    names = [row.name for row in resource.configs]
    if len(set(names)) < len(names):
        return "Error due to duplicate config keys"
    nulls = [
        row.name
        for row in resource.configs
        if row.value is None and not (is_incremental and row.config_operation == Operation.DELETE)
    ]
    if nulls:
        return f"Null value not supported for : {', '.join(nulls)}"
    kind = resource.resource_type
    if kind == _CLIENT_METRICS_RESOURCE:
        return "AlterConfigs is only supported for topics and brokers, but resource type is CLIENT_METRICS"
    known = (TOPIC_RESOURCE, BROKER_RESOURCE, *((BROKER_LOGGER_RESOURCE,) if is_incremental else ()))
    return None if kind in known else f"Unknown resource type {kind}"


def _answer(key: int, request: Request, results: Sequence[ResourceResult]) -> None:
    rows = [
        {
            "error_code": result.error,
            "error_message": None if result.error == ErrorCode.NONE else result.message or result.error.name,
            "resource_type": result.kind,
            "resource_name": result.name,
        }
        for result in results
    ]
    request.answer(encode_response(key, request.version, {"responses": rows}))


def _refuse(key: int, request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    results = [
        ResourceResult(resource.resource_type, resource.resource_name, error, text) for resource in message.resources
    ]
    _answer(key, request, results)


def _api(key: int) -> Api:
    return Api(partial(_decode, key), partial(_serve, key), partial(_refuse, key))


ALTER_CONFIGS_API = _api(ALTER_CONFIGS)
INCREMENTAL_ALTER_CONFIGS_API = _api(INCREMENTAL_ALTER_CONFIGS)

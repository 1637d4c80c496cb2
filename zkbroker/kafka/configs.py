"""DescribeConfigs: settings of topics, brokers and loggers, with where each comes from (KIP-226, KIP-412)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from zkbroker.kafka.config_ports import BROKER_LOGGER_RESOURCE, BROKER_RESOURCE, TOPIC_RESOURCE
from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.ports import ConfigDescription, ConfigEntry
from zkbroker.kafka.request import Api, Request, Services, when_done
from zkbroker.kafka.versions import DESCRIBE_CONFIGS
from zkbroker.model.errors import ErrorCode


def decode(request: Request) -> SimpleNamespace:
    return decode_request(DESCRIBE_CONFIGS, request.version, request.reader())


def serve(services: Services, request: Request, message: SimpleNamespace) -> None:
    # What was altered at any broker before is to be seen, so they are read again (from ZooKeeper, as in Kafka).
    kinds = {resource.resource_type for resource in message.resources}
    topics = [resource.resource_name for resource in message.resources if resource.resource_type == TOPIC_RESOURCE]
    refreshed = services.admin.settings.refresh_configs(topics, BROKER_RESOURCE in kinds)
    when_done(request, message, refreshed, lambda _: _answer(services, request, message), refuse)


def _answer(services: Services, request: Request, message: SimpleNamespace) -> None:
    results: list[dict[str, Any]] = []
    for resource in message.resources:
        description = _describe(services, resource)
        keys = resource.configuration_keys
        entries = [entry for entry in description.entries if not keys or entry.name in keys]
        results.append(
            {
                "error_code": description.error,
                "error_message": description.message,
                "resource_type": resource.resource_type,
                "resource_name": resource.resource_name,
                "configs": [_encode_entry(entry, message) for entry in entries],
            }
        )
    request.answer(encode_response(DESCRIBE_CONFIGS, request.version, {"results": results}))


def _describe(services: Services, resource: SimpleNamespace) -> ConfigDescription:
    kind, name = resource.resource_type, resource.resource_name
    if kind == TOPIC_RESOURCE:
        return services.admin.describe_topic_config(name)
    if kind not in (BROKER_RESOURCE, BROKER_LOGGER_RESOURCE):
        return ConfigDescription(ErrorCode.INVALID_REQUEST, f"Unsupported resource type: {kind} of {name!r}")
    problem = _name_problem(services.metadata.broker_id, name, kind)
    if problem is not None:
        return ConfigDescription(ErrorCode.INVALID_REQUEST, problem)
    if kind == BROKER_LOGGER_RESOURCE:
        return ConfigDescription(ErrorCode.NONE, None, services.admin.settings.describe_loggers())
    return services.admin.describe_broker_config(name)


def _name_problem(own_id: int, name: str, kind: int) -> str | None:
    """Why these settings cannot be asked of this broker, in Kafka's words; clients look up the broker named."""
    if not name:
        return "Broker id must not be empty" if kind == BROKER_LOGGER_RESOURCE else None
    if not (name.isascii() and name.removeprefix("-").isdigit()):
        return f"Broker id must be an integer, but it is: {name}"
    if name != str(own_id):
        also = "" if kind == BROKER_LOGGER_RESOURCE else " or empty string,"
        return f"Unexpected broker id, expected {own_id}{also} but received {name}"
    return None


def _encode_entry(entry: ConfigEntry, message: SimpleNamespace) -> dict[str, Any]:
    synonyms = entry.synonyms if message.include_synonyms else ()
    return {
        "name": entry.name,
        "value": None if entry.is_sensitive else entry.value,
        "read_only": entry.read_only,
        "config_source": entry.source,
        "is_sensitive": entry.is_sensitive,
        "synonyms": [
            {"name": name, "value": None if entry.is_sensitive else value, "source": source}
            for name, value, source in synonyms
        ],
        "config_type": entry.type,
        "documentation": entry.documentation if getattr(message, "include_documentation", False) else None,
    }


def refuse(request: Request, message: SimpleNamespace, error: ErrorCode, text: str | None) -> None:
    results = [
        {
            "error_code": error,
            "error_message": text or error.name,
            "resource_type": resource.resource_type,
            "resource_name": resource.resource_name,
            "configs": [],
        }
        for resource in message.resources
    ]
    request.answer(encode_response(DESCRIBE_CONFIGS, request.version, {"results": results}))


API = Api(decode, serve, refuse)

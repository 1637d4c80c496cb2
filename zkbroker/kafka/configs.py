"""DescribeConfigs: settings of topics and of brokers, with where each comes from (KIP-226)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.ports import ConfigDescription, ConfigEntry
from zkbroker.kafka.request import Api, Request, Services
from zkbroker.kafka.versions import DESCRIBE_CONFIGS
from zkbroker.model.errors import ErrorCode

TOPIC_RESOURCE = 2
BROKER_RESOURCE = 4
BROKER_LOGGER_RESOURCE = 8


def decode(request: Request) -> SimpleNamespace:
    return decode_request(DESCRIBE_CONFIGS, request.version, request.reader())


def serve(services: Services, request: Request, message: SimpleNamespace) -> None:
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
        return ConfigDescription(ErrorCode.INVALID_REQUEST, f"unexpected resource type {kind} of {name!r}")
    own = str(services.metadata.broker_id)
    if kind == BROKER_LOGGER_RESOURCE:
        if name != own:
            return ConfigDescription(
                ErrorCode.INVALID_REQUEST, f"loggers are asked of the broker itself: {own}, not {name!r}"
            )
        return ConfigDescription(ErrorCode.NONE, None)
    if name not in ("", own):
        return ConfigDescription(
            ErrorCode.INVALID_REQUEST, f"settings of a broker are asked of the broker itself: {own}, not {name!r}"
        )
    return services.admin.describe_broker_config(name)


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

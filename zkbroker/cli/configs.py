"""``zkbroker-configs``: describe and alter settings while brokers run; kafka-configs.sh in flags and output."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from zkbroker.cli import _common as common
from zkbroker.cli._broker_client import Brokers, error_text
from zkbroker.cli._config_entities import (
    DEFAULT,
    ENTITY_TYPES,
    Entity,
    Wish,
    add_entity_flags,
    parse_entity,
    parse_wish,
)
from zkbroker.kafka.versions import (
    DESCRIBE_CLIENT_QUOTAS,
    DESCRIBE_CONFIGS,
    DESCRIBE_USER_SCRAM_CREDENTIALS,
    INCREMENTAL_ALTER_CONFIGS,
)
from zkbroker.model.config.changes import Operation
from zkbroker.model.errors import ErrorCode

PROG = "zkbroker-configs"
EXAMPLES = """\
  what a topic has of its own, and from where each value would come without it:
    zkbroker-configs --bootstrap-server localhost:9092 --describe --topic orders
  keep its records for a day and only the last one of each key (values with commas go into brackets):
    zkbroker-configs --bootstrap-server localhost:9092 --alter --topic orders \\
        --add-config retention.ms=86400000,cleanup.policy=[compact,delete]
  back to what the brokers say:
    zkbroker-configs --bootstrap-server localhost:9092 --alter --topic orders --delete-config retention.ms
  all brokers from now on, without a restart; then one of them alone:
    zkbroker-configs --bootstrap-server localhost:9092 --alter --broker-defaults --add-config max.connections=5000
    zkbroker-configs --bootstrap-server localhost:9092 --alter --broker 1 --add-config max.connections=500
  everything that a broker goes by, with where it comes from:
    zkbroker-configs --bootstrap-server localhost:9092 --describe --broker 1 --all
  hear more from one logger of a broker, until it is restarted:
    zkbroker-configs --bootstrap-server localhost:9092 --alter --broker-logger 1 --add-config kazoo=DEBUG
"""

RESOURCE_TYPES = {"topics": 2, "brokers": 4, "broker-loggers": 8}
QUOTA_TYPES = {"users": "user", "clients": "client-id", "ips": "ip"}
QUOTA_WORDS = {"user": "user-principal", "client-id": "client-id", "ip": "ip"}
SOURCES = {
    1: "DYNAMIC_TOPIC_CONFIG",
    2: "DYNAMIC_BROKER_CONFIG",
    3: "DYNAMIC_DEFAULT_BROKER_CONFIG",
    4: "STATIC_BROKER_CONFIG",
    5: "DEFAULT_CONFIG",
    6: "DYNAMIC_BROKER_LOGGER_CONFIG",
}
MECHANISMS = {1: "SCRAM-SHA-256", 2: "SCRAM-SHA-512"}
_TOPIC_SOURCE, _BROKER_SOURCE, _DEFAULT_BROKER_SOURCE, _LOGGER_SOURCE = 1, 2, 3, 6


def make_parser() -> argparse.ArgumentParser:
    parser = common.make_parser(PROG, "Describe or alter settings while brokers run.", EXAMPLES)
    common.add_bootstrap(parser)
    parser.add_argument("--command-config", metavar="FILE", help="property file for the admin client")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--describe", action="store_true", help="show settings")
    action.add_argument("--alter", action="store_true", help="change settings")
    parser.add_argument(
        "--all", action="store_true", help="with --describe: also what was not altered, such as defaults"
    )
    parser.add_argument("--add-config", metavar="K=V[,K=V...]", help="settings to make; k=[v1,v2] for a list")
    parser.add_argument("--add-config-file", metavar="FILE", help="the same from a properties file")
    parser.add_argument("--delete-config", metavar="K[,K...]", help="settings to take away")
    add_entity_flags(parser)
    parser.add_argument("--force", action="store_true", help="accepted as in Kafka's tool; nothing is asked")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    return parser


def main(argv: list[str] | None = None) -> int:
    return common.run(PROG, _run, make_parser(), argv)


def _run(arguments: argparse.Namespace) -> int:
    entity = parse_entity(arguments)
    wish = parse_wish(arguments, entity)
    with Brokers(arguments.bootstrap_server, arguments.command_config) as brokers:
        if wish is not None:
            _alter(brokers, entity, wish, arguments.json)
        elif entity.kind in QUOTA_TYPES:
            _describe_quotas(brokers, entity, arguments.json)
        else:
            _describe(brokers, entity, arguments.all, arguments.json)
    return 0


# Topics, brokers and loggers


def _ask_configs(brokers: Brokers, kind: str, name: str) -> list[SimpleNamespace]:
    """All entries of one resource, by name; brokers and loggers are asked themselves."""
    fields = {
        "resources": [{"resource_type": RESOURCE_TYPES[kind], "resource_name": name, "configuration_keys": None}],
        "include_synonyms": True,
        "include_documentation": False,
    }
    if kind == "topics" or not name:
        answer = brokers.any(DESCRIBE_CONFIGS, fields)
    else:
        answer = brokers.of(_broker_id(name), DESCRIBE_CONFIGS, fields)
    (result,) = answer.results
    if result.error_code != ErrorCode.NONE:
        text = error_text(result.error_code, result.error_message)
        if result.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
            text = f"The topic '{name}' does not exist."
        raise common.CommandError(f"Error while executing config command : {text}")
    return sorted(result.configs, key=lambda entry: str(entry.name))


def _broker_id(name: str) -> int:
    try:
        return int(name)
    except ValueError:
        raise common.UsageError(
            f"the entity name for brokers and broker-loggers must be a valid integer broker id, not {name!r}"
        ) from None


def _dynamic_source(kind: str, name: str) -> int:
    """Where settings of the resource itself come from."""
    if kind == "topics":
        return _TOPIC_SOURCE
    if kind == "broker-loggers":
        return _LOGGER_SOURCE
    return _BROKER_SOURCE if name else _DEFAULT_BROKER_SOURCE


def _describe(brokers: Brokers, entity: Entity, wants_all: bool, as_json: bool) -> None:
    kind = entity.kind
    names: Sequence[str]
    if entity.name is not None:
        names = [entity.name]
    elif kind == "topics":
        names = brokers.topics
    else:
        names = [*map(str, sorted(brokers.addresses)), *([""] if kind == "brokers" else [])]
    documents = []
    for name in names:
        source = _dynamic_source(kind, name)
        entries = [row for row in _ask_configs(brokers, kind, name) if wants_all or row.config_source == source]
        if as_json:
            documents.append({"type": kind, "name": name or None, "configs": [_document(entry) for entry in entries]})
            continue
        if name:
            print(f"{'All' if wants_all else 'Dynamic'} configs for {kind[:-1]} {name} are:")
        else:
            print(f"Default configs for {kind} in the cluster are:")
        for entry in entries:
            print(_line(entry))
    if as_json:
        print(json.dumps({"version": 1, "entities": documents}))


def _line(entry: SimpleNamespace) -> str:
    synonyms = ", ".join(f"{_source(row.source)}:{row.name}={_text(row.value)}" for row in entry.synonyms)
    sensitive = "true" if entry.is_sensitive else "false"
    return f"  {entry.name}={_text(entry.value)} sensitive={sensitive} synonyms={{{synonyms}}}"


def _document(entry: SimpleNamespace) -> dict[str, Any]:
    return {
        "name": entry.name,
        "value": entry.value,
        "source": _source(entry.config_source),
        "sensitive": entry.is_sensitive,
        "readOnly": entry.read_only,
        "synonyms": [{"name": row.name, "value": row.value, "source": _source(row.source)} for row in entry.synonyms],
    }


def _source(number: int) -> str:
    return SOURCES.get(number, "UNKNOWN")


def _text(value: str | None) -> str:
    """As Java prints it."""
    return "null" if value is None else value


def _alter(brokers: Brokers, entity: Entity, wish: Wish, as_json: bool) -> None:
    kind, name = entity.kind, entity.name or ""
    if kind in QUOTA_TYPES:
        raise common.CommandError(
            f"{kind} cannot be altered: brokers do not enforce quotas and do not authenticate users yet"
        )
    source = _dynamic_source(kind, name)
    known = [row.name for row in _ask_configs(brokers, kind, name) if row.config_source == source]
    if kind == "broker-loggers":
        invalid = [key for key in (*wish.deleted, *wish.added) if key not in known]
        if invalid:
            raise common.CommandError(f"Invalid broker logger(s): {','.join(invalid)}")
    else:
        invalid = [key for key in wish.deleted if key not in known]
        if invalid:
            raise common.CommandError(f"Invalid config(s): {','.join(invalid)}")
    changes = [{"name": key, "config_operation": Operation.SET, "value": text} for key, text in wish.added.items()]
    changes += [
        {"name": key, "config_operation": Operation.DELETE, "value": None}
        for key in wish.deleted
        if key not in wish.added
    ]
    fields = {
        "resources": [{"resource_type": RESOURCE_TYPES[kind], "resource_name": name, "configs": changes}],
        "validate_only": False,
    }
    if kind == "topics" or not name:
        answer = brokers.any(INCREMENTAL_ALTER_CONFIGS, fields)
    else:
        answer = brokers.of(_broker_id(name), INCREMENTAL_ALTER_CONFIGS, fields)
    (result,) = answer.responses
    if result.error_code != ErrorCode.NONE:
        text = error_text(result.error_code, result.error_message)
        raise common.CommandError(f"Error while executing config command : {text}")
    if as_json:
        print(json.dumps({"version": 1, "altered": {"type": kind, "name": name or None}}))
    elif name:
        print(f"Completed updating config for {kind[:-1]} {name}.")
    else:
        print(f"Completed updating default config for {kind} in the cluster.")


# Quotas


def _describe_quotas(brokers: Brokers, entity: Entity, as_json: bool) -> None:
    components = [_component(one) for one in (entity, *([entity.child] if entity.child else []))]
    answer = brokers.any(DESCRIBE_CLIENT_QUOTAS, {"components": components, "strict": True})
    if answer.error_code != ErrorCode.NONE:
        text = error_text(answer.error_code, answer.error_message)
        raise common.CommandError(f"Error while executing config command : {text}")
    documents: list[dict[str, Any]] = []
    for entry in answer.entries or ():
        parts = sorted(entry.entity, key=lambda part: list(QUOTA_WORDS).index(part.entity_type))
        values = {row.key: row.value for row in sorted(entry.values, key=lambda row: str(row.key))}
        documents.append({"entity": {part.entity_type: part.entity_name for part in parts}, "quotas": values})
        if not as_json:
            who = ", ".join(_quota_words(part.entity_type, part.entity_name) for part in parts)
            print(f"Quota configs for {who} are {', '.join(f'{key}={value}' for key, value in values.items())}")
    if entity.kind == "users" and entity.child is None and entity.name != DEFAULT:
        documents += _describe_credentials(brokers, entity, as_json)
    if as_json:
        print(json.dumps({"version": 1, "entities": documents}))


def _describe_credentials(brokers: Brokers, entity: Entity, as_json: bool) -> list[dict[str, Any]]:
    users = None if entity.name is None else [{"name": entity.name}]
    answer = brokers.any(DESCRIBE_USER_SCRAM_CREDENTIALS, {"users": users})
    documents: list[dict[str, Any]] = []
    for row in answer.results:
        # A user without credentials is no mistake: he may have quotas.
        credentials = {MECHANISMS.get(one.mechanism, "UNKNOWN"): one.iterations for one in row.credential_infos}
        if not credentials:
            continue
        documents.append({"entity": {"user": row.user}, "scramIterations": credentials})
        if not as_json:
            shown = ", ".join(f"{name}=iterations={count}" for name, count in credentials.items())
            print(f"SCRAM credential configs for user-principal '{row.user}' are {shown}")
    return documents


def _component(entity: Entity) -> dict[str, Any]:
    match_type = 2 if entity.name is None else 0 if entity.name else 1
    return {"entity_type": QUOTA_TYPES[entity.kind], "match_type": match_type, "match": entity.name or None}


def _quota_words(entity_type: str, name: str | None) -> str:
    words = QUOTA_WORDS[entity_type]
    return f"the default {words}" if name is None else f"{words} '{name}'"


if __name__ == "__main__":
    sys.exit(main())


__all__ = ["ENTITY_TYPES", "PROG", "main", "make_parser"]

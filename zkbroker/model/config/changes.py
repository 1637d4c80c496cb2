"""What a request to alter settings makes of those that stand (KIP-133, KIP-339). Errors and words are Kafka's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from zkbroker.model.config.dynamic_keys import DYNAMIC_ONLY_KEYS, dynamic_key, limits_problem, refusal
from zkbroker.model.config.keys import Key, Scope
from zkbroker.model.config.table import BROKER_KEYS, closest, prefixed_key
from zkbroker.model.config.topic_table import TOPIC_KEYS
from zkbroker.model.config.topics import size_problem, validate_topic_overrides
from zkbroker.model.config.values import LIST, format_value, printable, split_list
from zkbroker.model.errors import BrokerError, ErrorCode


class Operation(IntEnum):
    """Kafka's ``AlterConfigOp.OpType``."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


class ConfigChange(NamedTuple):
    """One wish about one key."""

    name: str
    operation: int
    """One of ``Operation``, or what a client made up."""
    value: str | None


def changed_topic_settings(
    topic: str, current: Mapping[str, str], changes: Sequence[ConfigChange], is_incremental: bool
) -> dict[str, str]:
    """The topic's settings afterwards. Raises BrokerError INVALID_CONFIG or INVALID_REQUEST."""
    settings = _changed(current, changes, is_incremental, TOPIC_KEYS.get)
    problem = validate_topic_overrides(settings)
    if problem is not None:
        if problem.startswith("Invalid value "):
            problem = f"Invalid config value for resource ConfigResource(type=TOPIC, name='{topic}'): {problem}"
        raise BrokerError(ErrorCode.INVALID_CONFIG, problem)
    return settings


def changed_broker_settings(
    current: Mapping[str, str], changes: Sequence[ConfigChange], is_incremental: bool, is_cluster_wide: bool
) -> dict[str, str]:
    """The dynamic settings of one broker, or of all, afterwards. What stands there and is not obeyed (a Kafka that ran
    on these znodes may have left its listeners') hinders nothing. Raises BrokerError."""
    settings = _changed(current, changes, is_incremental, dynamic_key)
    fresh = [name for name in settings if current.get(name) != settings[name] or name in _named(changes)]
    _check_names(fresh, is_cluster_wide)
    for name in fresh:
        key, text = dynamic_key(name), settings[name]
        if key is None:
            raise BrokerError(ErrorCode.INVALID_REQUEST, f"Unknown broker config name: {printable(name, 100)}")
        problem = refusal(key, text) or limits_problem(name, key.parse(text))
        if problem is not None:
            shown = "[hidden]" if key.is_sensitive else text
            raise BrokerError(ErrorCode.INVALID_REQUEST, f"Invalid value {shown} for configuration {name}: {problem}")
    return settings


def _named(changes: Sequence[ConfigChange]) -> Collection[str]:
    return {change.name for change in changes}


def _check_names(names: Sequence[str], is_cluster_wide: bool) -> None:
    known = {name: dynamic_key(name) or prefixed_key(name) for name in names}
    unknown = [name for name, key in known.items() if key is None]
    if unknown:
        # Kafka stores them for plug-ins, of which there are none here: it is a slip.
        hint = closest(unknown[0], (*BROKER_KEYS, *DYNAMIC_ONLY_KEYS))
        raise BrokerError(ErrorCode.INVALID_REQUEST, f"Unknown broker config name: {printable(unknown[0], 100)}{hint}")
    scopes = {name: Scope.READ_ONLY if key is None else key.scope for name, key in known.items()}
    fixed = [name for name, scope in scopes.items() if scope is Scope.READ_ONLY]
    if fixed:
        raise BrokerError(ErrorCode.INVALID_REQUEST, f"Cannot update these configs dynamically: {_set(fixed)}")
    single = [name for name, scope in scopes.items() if scope is Scope.PER_BROKER or name not in BROKER_KEYS]
    single = [name for name in single if name not in DYNAMIC_ONLY_KEYS]
    if single and is_cluster_wide:
        raise BrokerError(
            ErrorCode.INVALID_REQUEST,
            f"Cannot update these configs at default cluster level, broker id must be specified: {_set(single)}",
        )
    if single:
        raise BrokerError(
            ErrorCode.INVALID_REQUEST,
            f"Cannot update these configs dynamically: {_set(single)}: listeners and their security are read at start",
        )


def _set(names: Sequence[str]) -> str:
    """As Scala prints it."""
    return f"Set({', '.join(names)})"


def _changed(
    current: Mapping[str, str],
    changes: Sequence[ConfigChange],
    is_incremental: bool,
    key_of: Callable[[str], Key | None],
) -> dict[str, str]:
    settings = dict(current) if is_incremental else {}
    for name, operation, value in changes:
        if operation not in Operation.__members__.values():
            raise BrokerError(ErrorCode.INVALID_REQUEST, f"Unknown operations type {operation}")
        if operation == Operation.DELETE:
            settings.pop(name, None)
            continue
        if value is None:
            raise BrokerError(ErrorCode.INVALID_REQUEST, f"Null value not supported for : {name}")
        if operation in (Operation.APPEND, Operation.SUBTRACT):
            value = _list_changed(name, settings.get(name), Operation(operation), value, key_of(name))
        settings[name] = value
    problem = size_problem(settings)
    if problem is not None:
        raise BrokerError(ErrorCode.INVALID_REQUEST, problem)
    return settings


def _list_changed(name: str, text: str | None, operation: Operation, value: str, key: Key | None) -> str:
    if key is None:
        raise BrokerError(ErrorCode.INVALID_CONFIG, f"Unknown config name: {printable(name, 100)}")
    if key.type is not LIST:
        verb = operation.name.lower()
        raise BrokerError(ErrorCode.INVALID_CONFIG, f"Config value {verb} is not allowed for config key: {name}")
    if not isinstance(text, str):
        # Kafka's own default, not what the broker has for topics that say nothing.
        text = format_value(key.default) or ""
    before = [element for element in split_list(text) if element]
    named = dict.fromkeys(element for element in split_list(value) if element)
    if operation is Operation.APPEND:
        return ",".join(dict.fromkeys([*before, *named]))
    return ",".join(element for element in before if element not in named)

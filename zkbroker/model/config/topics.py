"""A topic's effective settings: its own over the dynamic ones of brokers over the file's over the defaults."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from zkbroker.model.config.broker import BrokerConfig
from zkbroker.model.config.dynamic import parsed_dynamic, valid_dynamic
from zkbroker.model.config.dynamic_keys import dynamic_key, dynamic_refusal, refusal
from zkbroker.model.config.table import closest
from zkbroker.model.config.topic_table import TOPIC_KEYS, TOPIC_SYNONYMS, inherited_value
from zkbroker.model.config.values import LONG_MAX, Value, printable
from zkbroker.model.topic_config import TopicConfig

_FIELDS = tuple((field.name, field.name.replace("_", ".")) for field in fields(TopicConfig))


SETTINGS_BYTES_MAX = 512 * 1024
"""All settings of one entity together as JSON: a request to ZooKeeper has 1 MB at most."""


class Origin(NamedTuple):
    """One place that gives a topic key a value: a synonym as DescribeConfigs lists it."""

    name: str
    text: str | None
    source: int
    """One of the sources below."""


# Kafka's ConfigSource.
TOPIC_SOURCE = 1
DYNAMIC_BROKER_SOURCE = 2
DYNAMIC_DEFAULT_SOURCE = 3
STATIC_SOURCE = 4
DEFAULT_SOURCE = 5


def _inherited(
    broker: BrokerConfig, dynamic_default: dict[str, str], dynamic_broker: dict[str, str]
) -> dict[str, Value]:
    """What each topic key is when the topic says nothing; the dynamic settings are valid ones."""
    values = dict(broker.topic_defaults)
    dynamic = parsed_dynamic({**dynamic_default, **dynamic_broker})
    if dynamic:
        for name in values:
            values[name] = inherited_value(name, lambda key: dynamic[key] if key in dynamic else broker.values[key])
    return values


def _normalized(values: dict[str, Value]) -> dict[str, Value]:
    """Rules between topic keys, as Kafka's ``LogConfig`` has them."""
    retention_ms = values["retention.ms"]
    if isinstance(retention_ms, int) and retention_ms < 0:
        values["retention.ms"] = -1
    for limit in ("message.timestamp.before.max.ms", "message.timestamp.after.max.ms"):
        # KIP-937: the old limit of both directions holds where the new one was left alone.
        if values[limit] == LONG_MAX:
            values[limit] = values["message.timestamp.difference.max.ms"]
    return values


def topic_values(
    broker: BrokerConfig,
    dynamic_defaults: Mapping[str, str],
    dynamic_broker: Mapping[str, str],
    overrides: Mapping[str, str],
) -> tuple[dict[str, Value], list[str]]:
    """Every topic key's value, and one line for each setting that is ignored because it is wrong.

    The arguments are what znodes say: ``/config/brokers/<default>``, ``/config/brokers/N``, ``/config/topics/T``.
    Never raises for their content.
    """
    problems: list[str] = []
    own = valid_dynamic(dynamic_broker, "this broker", problems)
    default = valid_dynamic(dynamic_defaults, "all brokers", problems)
    values = _inherited(broker, default, own)
    for name in sorted(overrides):
        text = overrides[name]
        key = TOPIC_KEYS.get(name)
        if key is None:
            problems.append(f"unknown topic setting '{printable(name, 100)}'{closest(name, TOPIC_KEYS)}; it is ignored")
        elif not isinstance(text, str):
            problems.append(f"{name} is not a text; it is ignored")
        else:
            problem = refusal(key, text)
            if problem is None:
                values[name] = key.parse(text)
            else:
                problems.append(f"{name} is '{printable(text, 100)}': {problem}; it is ignored")
    return values, problems


def resolve_topic_config(
    broker: BrokerConfig,
    dynamic_defaults: Mapping[str, str],
    dynamic_broker: Mapping[str, str],
    overrides: Mapping[str, str],
) -> tuple[TopicConfig, list[str]]:
    """The topic's effective settings, and the problems: see ``topic_values``."""
    values, problems = topic_values(broker, dynamic_defaults, dynamic_broker, overrides)
    values = _normalized(values)
    found: dict[str, Any] = {field: values[name] for field, name in _FIELDS}
    return TopicConfig(**found), problems


def size_problem(settings: Mapping[str, str | None]) -> str | None:
    """Why these settings are too many for one znode, None when they are not. ZooKeeper closes the connection on which a
    larger one comes, whoever's session it is."""
    size = len(json.dumps(settings))
    if size <= SETTINGS_BYTES_MAX:
        return None
    return f"{size} bytes of settings: one resource has {SETTINGS_BYTES_MAX} at most"


def validate_topic_overrides(overrides: Mapping[str, str | None]) -> str | None:
    """Why these settings cannot be a topic's, in Kafka's words for INVALID_CONFIG; None when they can."""
    empty = sorted(name for name, text in overrides.items() if text is None)
    if empty:
        return f"Null value not supported for topic configs: {','.join(empty)}"
    problem = size_problem(overrides)
    if problem is not None:
        return problem
    values: dict[str, Value] = {name: key.default for name, key in TOPIC_KEYS.items()}
    for name, text in overrides.items():
        key = TOPIC_KEYS.get(name)
        if key is None:
            return f"Unknown topic config name: {name}"
        problem = refusal(key, text or "")
        if problem is not None:
            return f"Invalid value {text} for configuration {name}: {problem}"
        values[name] = key.parse(text or "")
    least, most = values["min.compaction.lag.ms"], values["max.compaction.lag.ms"]
    if isinstance(least, int) and isinstance(most, int) and least > most:
        return f"conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms ({most})"
    return None


def topic_origins(
    broker: BrokerConfig,
    dynamic_defaults: Mapping[str, str],
    dynamic_broker: Mapping[str, str],
    overrides: Mapping[str, str],
    name: str,
) -> Iterator[Origin]:
    """All that give the topic key a value, the strongest first: Kafka's synonyms of DescribeConfigs."""
    key = TOPIC_KEYS[name]
    own = overrides.get(name)
    if isinstance(own, str) and refusal(key, own) is None:
        yield Origin(name, own, TOPIC_SOURCE)
    names = [synonym.name for synonym in TOPIC_SYNONYMS.get(name, ())]
    yield from broker_origins(broker, dynamic_defaults, dynamic_broker, names)


def broker_origins(
    broker: BrokerConfig,
    dynamic_defaults: Mapping[str, str],
    dynamic_broker: Mapping[str, str],
    names: list[str],
) -> Iterator[Origin]:
    """All that give one of these broker keys (the strongest name first) a value, the strongest first."""
    for settings, source in ((dynamic_broker, DYNAMIC_BROKER_SOURCE), (dynamic_defaults, DYNAMIC_DEFAULT_SOURCE)):
        for name in names:
            text = settings.get(name)
            if isinstance(text, str) and dynamic_refusal(name, text) is None:
                yield Origin(name, text, source)
    for name in names:
        if name in broker.settings:
            yield Origin(name, broker.settings[name].text.strip(), STATIC_SOURCE)
    for name in names:
        key = dynamic_key(name)
        if key is not None and key.default is not None:
            yield Origin(name, key.show(key.default), DEFAULT_SOURCE)

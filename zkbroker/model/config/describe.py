"""Settings as DescribeConfigs shows them: value, where it comes from, its synonyms, its meaning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from zkbroker.model.config.broker import BrokerConfig
from zkbroker.model.config.dynamic import with_dynamic
from zkbroker.model.config.dynamic_keys import DYNAMIC_ONLY_KEYS, dynamic_key, dynamic_refusal
from zkbroker.model.config.entry import ConfigEntry
from zkbroker.model.config.keys import Key, Scope, Support
from zkbroker.model.config.table import BROKER_KEYS
from zkbroker.model.config.topic_table import TOPIC_KEYS, TOPIC_SYNONYMS
from zkbroker.model.config.topics import (
    DEFAULT_SOURCE,
    DYNAMIC_DEFAULT_SOURCE,
    Origin,
    broker_origins,
    topic_origins,
    topic_values,
)
from zkbroker.model.config.values import format_value

_FAMILIES = {
    synonyms[place].name: [synonym.name for synonym in synonyms[place:]]
    for synonyms in TOPIC_SYNONYMS.values()
    for place in range(len(synonyms))
}
"""A key and the weaker ones that stand in for it: log.retention.ms, then log.retention.minutes and …hours."""


def documentation(key: Key) -> str:
    """The key's line for people, with what zkbroker does not do about it."""
    if key.support is Support.SUPPORTED:
        return f"{key.doc} {key.note}".rstrip()
    return f"{key.doc} ({key.support.value.capitalize()}: {key.note}.)"


def _entry(key: Key, value: str | None, read_only: bool, origins: Iterable[Origin]) -> ConfigEntry:
    found = list(origins)
    source = found[0].source if found else DEFAULT_SOURCE
    return ConfigEntry(
        name=key.name,
        value=None if key.is_sensitive else value,
        read_only=read_only,
        is_default=source == DEFAULT_SOURCE,
        source=source,
        is_sensitive=key.is_sensitive,
        synonyms=tuple((name, None if key.is_sensitive else text, origin) for name, text, origin in found),
        type=int(key.type),
        documentation=documentation(key),
    )


def describe_topic_entries(
    broker: BrokerConfig,
    dynamic_defaults: Mapping[str, str],
    dynamic_broker: Mapping[str, str],
    overrides: Mapping[str, str],
) -> tuple[ConfigEntry, ...]:
    """Every topic key by name. Wrong settings in znodes, which nothing obeys, are not shown."""
    values, _ = topic_values(broker, dynamic_defaults, dynamic_broker, overrides)
    entries = []
    for name in sorted(TOPIC_KEYS):
        origins = topic_origins(broker, dynamic_defaults, dynamic_broker, overrides, name)
        entries.append(_entry(TOPIC_KEYS[name], format_value(values[name]), False, origins))
    return tuple(entries)


def describe_broker_entries(
    broker: BrokerConfig, dynamic_defaults: Mapping[str, str], dynamic_broker: Mapping[str, str]
) -> tuple[ConfigEntry, ...]:
    """Every broker key by name, with the values that hold now; of the keys that exist only as dynamic ones, those that
    are set."""
    now = with_dynamic(broker, dynamic_defaults, dynamic_broker)
    entries = []
    for name, key in sorted({**BROKER_KEYS, **DYNAMIC_ONLY_KEYS}.items()):
        if key.is_internal or (name in DYNAMIC_ONLY_KEYS and now[name] == key.default):
            continue
        origins = list(broker_origins(broker, dynamic_defaults, dynamic_broker, _FAMILIES.get(name, [name])))
        is_read_only = key.scope is not Scope.CLUSTER_WIDE
        entries.append(_entry(key, format_value(now[name]), is_read_only, _own_first(name, origins)))
    return tuple(entries)


def _own_first(name: str, origins: list[Origin]) -> list[Origin]:
    """Kafka's rule: what stands before the key's own first value is left out; without one, nothing is listed."""
    for index, origin in enumerate(origins):
        if origin.name == name:
            return origins[index:]
    return []


def describe_dynamic_default_entries(dynamic_defaults: Mapping[str, str]) -> tuple[ConfigEntry, ...]:
    """The cluster-wide dynamic settings alone: what DescribeConfigs of the broker without a name shows."""
    entries = []
    for name in sorted(dynamic_defaults):
        text = dynamic_defaults[name]
        key = dynamic_key(name)
        if key is not None and isinstance(text, str) and dynamic_refusal(name, text) is None:
            entries.append(_entry(key, text, False, [Origin(name, text, DYNAMIC_DEFAULT_SOURCE)]))
    return tuple(entries)

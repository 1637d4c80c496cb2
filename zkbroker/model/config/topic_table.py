"""The one table of all topic keys, and from which broker keys each takes its value when a topic says nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from zkbroker.model.config.keys import Key
from zkbroker.model.config.own_keys import RECORD_VALIDATION
from zkbroker.model.config.table import index_keys
from zkbroker.model.config.topic_keys import KAFKA_TOPIC_KEYS
from zkbroker.model.config.values import LONG_MAX, Value

_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS


class Synonym(NamedTuple):
    """A broker key that is the default of a topic key, and what its unit is in the topic key's unit."""

    name: str
    factor: int = 1


TOPIC_KEYS: Mapping[str, Key] = index_keys((*KAFKA_TOPIC_KEYS, RECORD_VALIDATION))

TOPIC_SYNONYMS: Mapping[str, tuple[Synonym, ...]] = MappingProxyType(
    {
        "cleanup.policy": (Synonym("log.cleanup.policy"),),
        "compression.gzip.level": (Synonym("compression.gzip.level"),),
        "compression.lz4.level": (Synonym("compression.lz4.level"),),
        "compression.type": (Synonym("compression.type"),),
        "compression.zstd.level": (Synonym("compression.zstd.level"),),
        "delete.retention.ms": (Synonym("log.cleaner.delete.retention.ms"),),
        "file.delete.delay.ms": (Synonym("log.segment.delete.delay.ms"),),
        "flush.messages": (Synonym("log.flush.interval.messages"),),
        "flush.ms": (Synonym("log.flush.interval.ms"), Synonym("log.flush.scheduler.interval.ms")),
        "index.interval.bytes": (Synonym("log.index.interval.bytes"),),
        "local.retention.bytes": (Synonym("log.local.retention.bytes"),),
        "local.retention.ms": (Synonym("log.local.retention.ms"),),
        "max.compaction.lag.ms": (Synonym("log.cleaner.max.compaction.lag.ms"),),
        "max.message.bytes": (Synonym("message.max.bytes"),),
        "message.downconversion.enable": (Synonym("log.message.downconversion.enable"),),
        "message.format.version": (Synonym("log.message.format.version"),),
        "message.timestamp.after.max.ms": (Synonym("log.message.timestamp.after.max.ms"),),
        "message.timestamp.before.max.ms": (Synonym("log.message.timestamp.before.max.ms"),),
        "message.timestamp.difference.max.ms": (Synonym("log.message.timestamp.difference.max.ms"),),
        "message.timestamp.type": (Synonym("log.message.timestamp.type"),),
        "min.cleanable.dirty.ratio": (Synonym("log.cleaner.min.cleanable.ratio"),),
        "min.compaction.lag.ms": (Synonym("log.cleaner.min.compaction.lag.ms"),),
        "min.insync.replicas": (Synonym("min.insync.replicas"),),
        "preallocate": (Synonym("log.preallocate"),),
        "record.validation": (Synonym("record.validation"),),
        "retention.bytes": (Synonym("log.retention.bytes"),),
        "retention.ms": (
            Synonym("log.retention.ms"),
            Synonym("log.retention.minutes", _MINUTE_MS),
            Synonym("log.retention.hours", _HOUR_MS),
        ),
        "segment.bytes": (Synonym("log.segment.bytes"),),
        "segment.index.bytes": (Synonym("log.index.size.max.bytes"),),
        "segment.jitter.ms": (Synonym("log.roll.jitter.ms"), Synonym("log.roll.jitter.hours", _HOUR_MS)),
        "segment.ms": (Synonym("log.roll.ms"), Synonym("log.roll.hours", _HOUR_MS)),
        "unclean.leader.election.enable": (Synonym("unclean.leader.election.enable"),),
    }
)
"""Kafka's ``ServerTopicConfigSynonyms``, the strongest first. A key without an entry has only its own default."""


def inherited_value(name: str, broker_value: Callable[[str], Value]) -> Value:
    """What a topic key is when the topic says nothing, given a way to look up broker keys (None: not set)."""
    for synonym in TOPIC_SYNONYMS.get(name, ()):
        value = broker_value(synonym.name)
        if value is None:
            continue
        if isinstance(value, int) and synonym.factor != 1:
            return -1 if value < 0 else min(value * synonym.factor, LONG_MAX)
        return value
    return TOPIC_KEYS[name].default

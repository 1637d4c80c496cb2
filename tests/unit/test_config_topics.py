"""A topic's settings: who gives them, what is wrong with them, and how DescribeConfigs shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkbroker.kafka.ports import ConfigEntry as PortsConfigEntry
from zkbroker.model.config import (
    BROKER_KEYS,
    TOPIC_KEYS,
    BrokerConfig,
    ConfigEntry,
    Setting,
    build_broker_config,
    describe_broker_entries,
    describe_dynamic_default_entries,
    describe_topic_entries,
    resolve_topic_config,
    validate_topic_overrides,
)
from zkbroker.model.config.values import LONG_MAX
from zkbroker.model.topic_config import TopicConfig

NONE: Mapping[str, str] = {}


def broker(**texts: str) -> BrokerConfig:
    """A broker's configuration with Python's ``_`` for ``.``."""
    named = {"zookeeper.connect": "h:1", **{name.replace("_", "."): text for name, text in texts.items()}}
    return build_broker_config(Setting(name, text, "b.yaml:1") for name, text in named.items())


def resolved(
    config: BrokerConfig,
    overrides: Mapping[str, str] = NONE,
    dynamic_broker: Mapping[str, str] = NONE,
    dynamic_defaults: Mapping[str, str] = NONE,
) -> TopicConfig:
    topic, problems = resolve_topic_config(config, dynamic_defaults, dynamic_broker, overrides)
    assert problems == []
    return topic


def test_kafkas_defaults() -> None:
    assert resolved(broker()) == TopicConfig()


def test_every_field_of_a_topic_can_be_overridden() -> None:
    overrides = {
        "cleanup.policy": "compact, delete",
        "compression.type": "zstd",
        "delete.retention.ms": "1",
        "file.delete.delay.ms": "2",
        "flush.messages": "3",
        "flush.ms": "4",
        "index.interval.bytes": "5",
        "max.compaction.lag.ms": "6",
        "max.message.bytes": "7",
        "message.timestamp.after.max.ms": "8",
        "message.timestamp.before.max.ms": "9",
        "message.timestamp.type": "LogAppendTime",
        "min.cleanable.dirty.ratio": "0.25",
        "min.compaction.lag.ms": "5",
        "min.insync.replicas": "2",
        "preallocate": "TRUE",
        "retention.bytes": "10",
        "retention.ms": "11",
        "segment.bytes": "14",
        "segment.index.bytes": "12",
        "segment.jitter.ms": "13",
        "segment.ms": "14",
        "unclean.leader.election.enable": "true",
        "record.validation": "full",
    }
    assert validate_topic_overrides(overrides) is None
    assert resolved(broker(), overrides) == TopicConfig(
        cleanup_policy=("compact", "delete"),
        compression_type="zstd",
        delete_retention_ms=1,
        file_delete_delay_ms=2,
        flush_messages=3,
        flush_ms=4,
        index_interval_bytes=5,
        max_compaction_lag_ms=6,
        max_message_bytes=7,
        message_timestamp_after_max_ms=8,
        message_timestamp_before_max_ms=9,
        message_timestamp_type="LogAppendTime",
        min_cleanable_dirty_ratio=0.25,
        min_compaction_lag_ms=5,
        min_insync_replicas=2,
        preallocate=True,
        retention_bytes=10,
        retention_ms=11,
        segment_bytes=14,
        segment_index_bytes=12,
        segment_jitter_ms=13,
        segment_ms=14,
        unclean_leader_election_enable=True,
        record_validation="full",
    )


@pytest.mark.parametrize(
    ("texts", "retention_ms"),
    [
        ({}, 604_800_000),
        ({"log_retention_hours": "2"}, 7_200_000),
        ({"log_retention_hours": "2", "log_retention_minutes": "3"}, 180_000),
        ({"log_retention_hours": "2", "log_retention_minutes": "3", "log_retention_ms": "4"}, 4),
        ({"log_retention_hours": "-1"}, -1),
        ({"log_retention_ms": "-7"}, -1),
    ],
)
def test_retention_is_the_finest_unit_that_is_set(texts: dict[str, str], retention_ms: int) -> None:
    assert resolved(broker(**texts)).retention_ms == retention_ms


def test_other_broker_keys_with_units_and_fallbacks() -> None:
    config = broker(log_roll_hours="2", log_roll_jitter_hours="1", log_flush_scheduler_interval_ms="70")
    topic = resolved(config)
    assert (topic.segment_ms, topic.segment_jitter_ms, topic.flush_ms) == (7_200_000, 3_600_000, 70)
    config = broker(log_roll_ms="5", log_roll_jitter_ms="6", log_flush_interval_ms="7", log_roll_hours="2")
    topic = resolved(config)
    assert (topic.segment_ms, topic.segment_jitter_ms, topic.flush_ms) == (5, 6, 7)


def test_the_old_timestamp_limit_holds_where_the_new_ones_are_not_set() -> None:
    topic = resolved(broker(log_message_timestamp_difference_max_ms="5", log_message_timestamp_after_max_ms="9"))
    assert (topic.message_timestamp_before_max_ms, topic.message_timestamp_after_max_ms) == (5, 9)
    topic = resolved(broker(), {"message.timestamp.difference.max.ms": "3"})
    assert (topic.message_timestamp_before_max_ms, topic.message_timestamp_after_max_ms) == (3, 3)


def test_the_topic_beats_this_broker_which_beats_all_brokers_which_beat_the_file() -> None:
    config = broker(log_retention_ms="1")
    levels: list[dict[str, Any]] = [
        {"dynamic_defaults": {"log.retention.ms": "2"}},
        {"dynamic_broker": {"log.retention.ms": "3"}},
        {"overrides": {"retention.ms": "4"}},
    ]
    given_so_far: dict[str, Any] = {}
    for expected, level in enumerate(levels, start=2):
        given_so_far.update(level)
        assert resolved(config, **given_so_far).retention_ms == expected
    # A dynamic log.retention.ms is finer than the file's hours, whatever their levels.
    assert resolved(broker(log_retention_hours="1"), dynamic_defaults={"log.retention.ms": "2"}).retention_ms == 2


def test_wrong_settings_in_znodes_are_reported_and_ignored() -> None:
    topic, problems = resolve_topic_config(
        broker(),
        {"log.retention.ms": "soon", "no.such": "secret", "log.retention.bytes": "5"},
        {"log.retention.hours": "1", "ssl.key.password": "x"},
        {"segment.bytes": "1", "segment.byte": "14", "remote.storage.enable": "true", "x\ny": "1", "retention.ms": "9"},
    )
    assert topic == TopicConfig(retention_ms=9, retention_bytes=5)
    assert problems == [
        "log.retention.hours of this broker is '1': it cannot change while the broker runs; it is ignored",
        "ssl.key.password of this broker is '[hidden]': it cannot change while the broker runs; it is ignored",
        "log.retention.ms of all brokers is 'soon': Not a number of type LONG; it is ignored",
        "no.such of all brokers is '[hidden]': unknown key; it is ignored",
        "remote.storage.enable is 'true': there is no tiered storage: segments there could not be read; it is ignored",
        "unknown topic setting 'segment.byte' (did you mean 'segment.bytes'?); it is ignored",
        "segment.bytes is '1': Value must be at least 14; it is ignored",
        r"unknown topic setting 'x\ny'; it is ignored",
    ]


def test_settings_that_are_no_texts() -> None:
    wrong: Any = {"retention.ms": 5, "log.retention.ms": None}
    topic, problems = resolve_topic_config(broker(), wrong, {}, wrong)
    assert topic == TopicConfig()
    assert problems == [
        "log.retention.ms of all brokers is not a text; it is ignored",
        "retention.ms of all brokers is not a text; it is ignored",
        "unknown topic setting 'log.retention.ms' (did you mean 'local.retention.ms'?); it is ignored",
        "retention.ms is not a text; it is ignored",
    ]


NAMES = st.one_of(st.sampled_from(sorted(TOPIC_KEYS)), st.sampled_from(sorted(BROKER_KEYS)), st.text(max_size=8))
TEXTS = st.one_of(st.text(max_size=12), st.integers().map(str), st.sampled_from(["true", "delete", "compact", "0.5"]))
ZNODE = st.dictionaries(NAMES, TEXTS, max_size=4)


@given(defaults=ZNODE, own=ZNODE, overrides=ZNODE)
@settings(max_examples=30, deadline=None)
def test_no_znode_content_does_harm(defaults: dict[str, str], own: dict[str, str], overrides: dict[str, str]) -> None:
    config = broker()
    topic, problems = resolve_topic_config(config, defaults, own, overrides)
    assert all("\n" not in problem for problem in problems)
    assert topic.retention_ms >= -1
    entries = {entry.name: entry for entry in describe_topic_entries(config, defaults, own, overrides)}
    assert entries["retention.bytes"].value == str(topic.retention_bytes)
    assert len(describe_broker_entries(config, defaults, own)) > 250
    assert len(describe_dynamic_default_entries(defaults)) <= len(defaults)
    if validate_topic_overrides(overrides) is None:
        assert resolve_topic_config(config, {}, {}, overrides)[1] == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({}, None),
        ({"cleanup.policy": "compact"}, None),
        ({"remote.storage.enable": "false"}, None),
        ({"no.such": "1"}, "Unknown topic config name: no.such"),
        ({"b": None, "a": None}, "Null value not supported for topic configs: a,b"),
        ({"retention.ms": "x"}, "Invalid value x for configuration retention.ms: Not a number of type LONG"),
        (
            {"min.insync.replicas": "0"},
            "Invalid value 0 for configuration min.insync.replicas: Value must be at least 1",
        ),
        (
            {"cleanup.policy": "shred"},
            "Invalid value shred for configuration cleanup.policy: String must be one of: compact, delete",
        ),
        ({"cleanup.policy": ""}, None),
        (
            {"preallocate": "yes"},
            "Invalid value yes for configuration preallocate: Expected value to be either true or false",
        ),
        (
            {"remote.storage.enable": "true"},
            "Invalid value true for configuration remote.storage.enable: "
            "there is no tiered storage: segments there could not be read",
        ),
        (
            {"min.compaction.lag.ms": "9", "max.compaction.lag.ms": "8"},
            "conflict topic config setting min.compaction.lag.ms (9) > max.compaction.lag.ms (8)",
        ),
    ],
)
def test_what_create_topics_is_told(overrides: dict[str, str | None], message: str | None) -> None:
    assert validate_topic_overrides(overrides) == message


def entry(entries: tuple[ConfigEntry, ...], name: str) -> ConfigEntry:
    return next(entry for entry in entries if entry.name == name)


def test_a_topic_is_described() -> None:
    config = broker(log_retention_hours="24", log_retention_minutes="5")
    entries = describe_topic_entries(
        config, {"log.retention.ms": "9"}, {"log.retention.ms": "8"}, {"retention.ms": "7"}
    )
    assert [entry.name for entry in entries] == sorted(TOPIC_KEYS)
    found = entry(entries, "retention.ms")
    assert found._replace(documentation=None) == ConfigEntry(
        name="retention.ms",
        value="7",
        read_only=False,
        is_default=False,
        source=1,
        is_sensitive=False,
        synonyms=(
            ("retention.ms", "7", 1),
            ("log.retention.ms", "8", 2),
            ("log.retention.ms", "9", 3),
            ("log.retention.minutes", "5", 4),
            ("log.retention.hours", "24", 4),
            ("log.retention.hours", "168", 5),
        ),
        type=5,
    )
    assert found.documentation == "How long records are kept, in milliseconds; -1 for ever."


def test_a_topics_value_is_in_its_own_unit_whatever_its_source() -> None:
    entries = describe_topic_entries(broker(log_retention_hours="24"), {}, {}, {})
    found = entry(entries, "retention.ms")
    assert (found.value, found.source, found.is_default) == ("86400000", 4, False)
    found = entry(entries, "segment.ms")
    assert (found.value, found.source, found.is_default) == ("604800000", 5, True)
    assert found.synonyms == (("log.roll.hours", "168", 5),)
    assert entry(entries, "flush.ms").value == str(LONG_MAX)
    found = entry(entries, "leader.replication.throttled.replicas")
    assert (found.value, found.source, found.synonyms) == ("", 5, ())
    found = entry(entries, "remote.log.copy.disable")
    assert "Accepted without effect" in (found.documentation or "")


def test_a_broker_is_described() -> None:
    config = broker(ssl_key_password="x", log_retention_hours="24", broker_id="5")
    entries = describe_broker_entries(config, {"log.retention.ms": "9", "min.insync.replicas": "2"}, {})
    assert [entry.name for entry in entries] == sorted(name for name, key in BROKER_KEYS.items() if not key.is_internal)
    secret = entry(entries, "ssl.key.password")
    assert (secret.value, secret.is_sensitive, secret.synonyms) == (None, True, (("ssl.key.password", None, 4),))
    found = entry(entries, "broker.id")
    assert (found.value, found.read_only, found.source, found.type) == ("5", True, 4, 3)
    assert found.synonyms == (("broker.id", "5", 4), ("broker.id", "-1", 5))
    found = entry(entries, "log.retention.ms")
    assert (found.value, found.read_only, found.source) == ("9", False, 3)
    assert found.synonyms == (
        ("log.retention.ms", "9", 3),
        ("log.retention.hours", "24", 4),
        ("log.retention.hours", "168", 5),
    )
    found = entry(entries, "min.insync.replicas")
    assert (found.value, found.source) == ("2", 3)
    found = entry(entries, "broker.rack")
    assert (found.value, found.source, found.is_default, found.synonyms) == (None, 5, True, ())
    found = entry(entries, "log.retention.minutes")
    assert (found.value, found.synonyms) == (None, ())


def test_dynamic_settings_of_read_only_keys_are_not_shown() -> None:
    entries = describe_broker_entries(broker(), {}, {"num.partitions": "7", "num.io.threads": "0"})
    assert entry(entries, "num.partitions").value == "1"
    assert entry(entries, "num.io.threads").value == "8"


def test_the_cluster_wide_defaults_are_described() -> None:
    entries = describe_dynamic_default_entries({"min.insync.replicas": "2", "num.partitions": "7", "no.such": "1"})
    assert [found._replace(documentation=None) for found in entries] == [
        ConfigEntry(
            name="min.insync.replicas",
            value="2",
            read_only=False,
            is_default=False,
            source=3,
            is_sensitive=False,
            synonyms=(("min.insync.replicas", "2", 3),),
            type=3,
        )
    ]


def test_the_listeners_port_shares_the_entry() -> None:
    assert PortsConfigEntry is ConfigEntry

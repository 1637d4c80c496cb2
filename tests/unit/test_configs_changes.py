"""Altering settings: what a request makes of those that stand, and what is refused with Kafka's words."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.unit.test_config_topics import broker
from zkbroker.model.config.changes import (
    ConfigChange,
    Operation,
    changed_broker_settings,
    changed_topic_settings,
)
from zkbroker.model.config.dynamic import with_dynamic
from zkbroker.model.config.topics import SETTINGS_BYTES_MAX, validate_topic_overrides
from zkbroker.model.errors import BrokerError, ErrorCode

SET, DELETE, APPEND, SUBTRACT = Operation


def topic(
    current: Mapping[str, str], *changes: tuple[str, int, str | None], incremental: bool = True
) -> dict[str, str]:
    return changed_topic_settings("t", current, [ConfigChange(*change) for change in changes], incremental)


def brokers(
    current: Mapping[str, str], *changes: tuple[str, int, str | None], all_of_them: bool = False
) -> dict[str, str]:
    return changed_broker_settings(current, [ConfigChange(*change) for change in changes], True, all_of_them)


@pytest.mark.parametrize(
    ("current", "change", "after"),
    [
        ({}, ("retention.ms", SET, "1"), {"retention.ms": "1"}),
        ({"flush.ms": "1"}, ("retention.ms", SET, "2"), {"flush.ms": "1", "retention.ms": "2"}),
        ({"flush.ms": "1"}, ("flush.ms", DELETE, None), {}),
        ({}, ("flush.ms", DELETE, "ignored"), {}),
        ({}, ("foo", DELETE, None), {}),
        ({}, ("cleanup.policy", APPEND, "compact"), {"cleanup.policy": "delete,compact"}),
        ({"cleanup.policy": "compact"}, ("cleanup.policy", APPEND, "compact"), {"cleanup.policy": "compact"}),
        ({}, ("cleanup.policy", SUBTRACT, "delete"), {"cleanup.policy": ""}),
        (
            {},
            ("leader.replication.throttled.replicas", APPEND, "0:1, 1:2"),
            {"leader.replication.throttled.replicas": "0:1,1:2"},
        ),
        (
            {"leader.replication.throttled.replicas": "0:1,1:2"},
            ("leader.replication.throttled.replicas", SUBTRACT, "0:1,7:7"),
            {"leader.replication.throttled.replicas": "1:2"},
        ),
    ],
)
def test_operations(current: Mapping[str, str], change: tuple[str, int, str | None], after: Mapping[str, str]) -> None:
    assert topic(current, change) == after


def test_a_request_of_the_old_kind_replaces_everything() -> None:
    assert topic({"flush.ms": "1"}, ("retention.ms", SET, "2"), incremental=False) == {"retention.ms": "2"}
    assert topic({"flush.ms": "1"}, incremental=False) == {}


PREFIX = "Invalid config value for resource ConfigResource(type=TOPIC, name='t'): "


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (("foo", SET, "1"), "INVALID_CONFIG", "Unknown topic config name: foo"),
        (("foo", APPEND, "1"), "INVALID_CONFIG", "Unknown config name: foo"),
        (
            ("flush.ms", APPEND, "1"),
            "INVALID_CONFIG",
            "Config value append is not allowed for config key: flush.ms",
        ),
        (
            ("retention.ms", SET, "abc"),
            "INVALID_CONFIG",
            PREFIX + "Invalid value abc for configuration retention.ms: Not a number of type LONG",
        ),
        (
            ("cleanup.policy", APPEND, "bogus"),
            "INVALID_CONFIG",
            PREFIX
            + "Invalid value delete,bogus for configuration cleanup.policy: String must be one of: compact, delete",
        ),
        (("retention.ms", SET, None), "INVALID_REQUEST", "Null value not supported for : retention.ms"),
        (("retention.ms", 9, "1"), "INVALID_REQUEST", "Unknown operations type 9"),
    ],
)
def test_what_topics_refuse(change: tuple[str, int, str | None], error: str, message: str) -> None:
    with pytest.raises(BrokerError) as refused:
        topic({}, change)
    assert (refused.value.error, str(refused.value)) == (ErrorCode[error], message)


def test_rules_between_keys_are_judged_by_what_comes_out() -> None:
    with pytest.raises(BrokerError, match="conflict topic config setting") as refused:
        topic({"min.compaction.lag.ms": "10"}, ("max.compaction.lag.ms", SET, "5"))
    assert refused.value.error is ErrorCode.INVALID_CONFIG
    topic({"min.compaction.lag.ms": "10"}, ("max.compaction.lag.ms", SET, "5"), ("min.compaction.lag.ms", DELETE, None))


@pytest.mark.parametrize(
    ("change", "is_cluster_wide", "message"),
    [
        (("num.partitions", SET, "3"), False, "Cannot update these configs dynamically: Set(num.partitions)"),
        (("log.retention.ms", SET, "x"), True, "Invalid value x for configuration log.retention.ms: Not a number"),
        (("log.retention.ms", SET, "0"), True, "Invalid value 0 for configuration log.retention.ms: it must be 1"),
        (("log.roll.ms", SET, "0"), True, "Invalid value 0 for configuration log.roll.ms: it must be 1 or more"),
        (("max.connections.per.ip.overrides", SET, "x:y"), True, "Invalid value x:y for configuration max.conn"),
        (("log.retention.mss", SET, "1"), True, "Unknown broker config name: log.retention.mss (did you mean 'log.ret"),
        (
            ("listeners", SET, "A://:1"),
            True,
            "Cannot update these configs at default cluster level, broker id must be specified: Set(listeners)",
        ),
        (("listeners", SET, "A://:1"), False, "Cannot update these configs dynamically: Set(listeners): listeners and"),
        (
            ("listener.name.a.ssl.keystore.location", SET, "/x"),
            False,
            "Cannot update these configs dynamically: Set(listener.name.a.ssl.keystore.location): listeners and their",
        ),
        (("leader.replication.throttled.rate", SET, "-1"), False, "Invalid value -1 for configuration leader.repl"),
    ],
)
def test_what_brokers_refuse(change: tuple[str, int, str], is_cluster_wide: bool, message: str) -> None:
    with pytest.raises(BrokerError) as refused:
        brokers({}, change, all_of_them=is_cluster_wide)
    assert refused.value.error is ErrorCode.INVALID_REQUEST
    assert str(refused.value).startswith(message)


def test_what_a_kafka_left_hinders_no_other_change() -> None:
    left = {"listener.name.a.ssl.keystore.location": "/x", "num.partitions": "3", "plugin.setting": "1"}
    assert brokers(left, ("log.retention.ms", SET, "1")) == {**left, "log.retention.ms": "1"}
    assert brokers(left, ("plugin.setting", DELETE, None), ("num.partitions", DELETE, None)) == {
        "listener.name.a.ssl.keystore.location": "/x"
    }
    with pytest.raises(BrokerError):
        brokers(left, ("num.partitions", SET, "3"))


def test_settings_that_a_znode_cannot_hold_are_refused() -> None:
    with pytest.raises(BrokerError, match="bytes of settings") as refused:
        topic({}, ("leader.replication.throttled.replicas", SET, "1:1," * (SETTINGS_BYTES_MAX // 4)))
    assert refused.value.error is ErrorCode.INVALID_REQUEST
    with pytest.raises(BrokerError, match="bytes of settings"):
        # Each of these takes six bytes in JSON.
        brokers({"left.by.kafka": "é" * (SETTINGS_BYTES_MAX // 6)}, ("max.connections", SET, "1"))
    # The same for a topic that is to be made: the controller's session would lose its connection again and again.
    pairs = {"leader.replication.throttled.replicas": ",".join(["1:1"] * (SETTINGS_BYTES_MAX // 4))}
    assert "bytes of settings" in (validate_topic_overrides(pairs) or "")


def test_a_broker_as_it_is_now() -> None:
    config = broker(log_retention_hours="1", max_connections="7")
    now = with_dynamic(
        config,
        {"max.connections": "5", "log.retention.ms": "0", "leader.replication.throttled.rate": "9", "foo": "1"},
        {"max.connections": "6", "num.partitions": "9", "log.segment.bytes": "20", "listeners": "A://:1"},
    )
    assert (now.get_int("max.connections"), config.get_int("max.connections")) == (6, 7)
    assert now.get_int("num.partitions") == 1
    assert now["listeners"] == config["listeners"]
    assert (now.topic_defaults["retention.ms"], now.topic_defaults["segment.bytes"]) == (3_600_000, 20)
    assert now.get_int("leader.replication.throttled.rate") == 9
    assert now.get_int("follower.replication.throttled.rate") == 2**63 - 1

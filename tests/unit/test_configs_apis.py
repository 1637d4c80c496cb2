"""The APIs of settings, log folders, producers and quotas: what a request becomes, and what its answer says."""

from __future__ import annotations

from typing import Any

import pytest
from kio.index import load_request_schema

from tests.fakes.kafka_client import Listener
from tests.harness.differential import build
from zkbroker.kafka.config_ports import (
    ActiveProducer,
    LogDescription,
    LogDirDescription,
    PartitionProducers,
    Quota,
    QuotaFilter,
    ResourceChanges,
    ScramUser,
)
from zkbroker.kafka.versions import (
    ALTER_CONFIGS,
    DESCRIBE_CLIENT_QUOTAS,
    DESCRIBE_CONFIGS,
    DESCRIBE_LOG_DIRS,
    DESCRIBE_PRODUCERS,
    DESCRIBE_USER_SCRAM_CREDENTIALS,
    INCREMENTAL_ALTER_CONFIGS,
)
from zkbroker.model.config.changes import ConfigChange
from zkbroker.model.errors import ErrorCode

SET, DELETE, APPEND = 0, 1, 2


def ask(listener: Listener, key: int, version: int, **fields: Any) -> Any:
    return listener.ask(build(load_request_schema(key, version), fields))


def resource(kind: int, name: str, *configs: tuple[str, int, str | None]) -> dict[str, Any]:
    rows = [{"name": key, "config_operation": operation, "value": value} for key, operation, value in configs]
    return {"resource_type": kind, "resource_name": name, "configs": rows}


def errors(response: Any) -> list[tuple[str, str, str | None]]:
    return [(row.resource_name, row.error_code.name, row.error_message) for row in response.responses]


@pytest.mark.parametrize(
    ("key", "version"), [(ALTER_CONFIGS, 0), (ALTER_CONFIGS, 2), (INCREMENTAL_ALTER_CONFIGS, 0), (44, 1)]
)
def test_changes_go_to_the_broker_and_errors_keep_their_places(key: int, version: int) -> None:
    listener = Listener()
    settings = listener.broker.settings
    settings.errors = {"bad": ErrorCode.INVALID_CONFIG}
    response = ask(
        listener,
        key,
        version,
        resources=[
            resource(2, "twice", ("a", SET, "1")),
            resource(2, "bad", ("a", SET, "1")),
            resource(2, "twice", ("b", SET, "2")),
            resource(4, "", ("c", SET, "3")),
            resource(0, "t", ("c", SET, "3")),
            resource(2, "keys", ("c", SET, "3"), ("c", SET, "4")),
            resource(2, "nulls", ("c", SET, None), ("d", APPEND, None)),
            resource(16, "metrics", ("c", SET, "3")),
        ],
        validate_only=True,
    )
    once = "Each resource must appear at most once."
    assert errors(response) == [
        ("twice", "invalid_request", once),
        ("bad", "invalid_config", "INVALID_CONFIG"),
        ("twice", "invalid_request", once),
        ("", "none", None),
        ("t", "invalid_request", "Unknown resource type 0"),
        ("keys", "invalid_request", "Error due to duplicate config keys"),
        ("nulls", "invalid_request", "Null value not supported for : c, d"),
        (
            "metrics",
            "invalid_request",
            "AlterConfigs is only supported for topics and brokers, but resource type is CLIENT_METRICS",
        ),
    ]
    asked = [
        ResourceChanges(2, "bad", (ConfigChange("a", SET, "1"),)),
        ResourceChanges(4, "", (ConfigChange("c", SET, "3"),)),
    ]
    assert settings.asked == [(asked, key == INCREMENTAL_ALTER_CONFIGS, True)]


def test_only_the_incremental_kind_deletes_and_alters_loggers() -> None:
    listener = Listener()
    loggers = resource(8, "1", ("root", DELETE, None))
    assert errors(ask(listener, INCREMENTAL_ALTER_CONFIGS, 1, resources=[loggers])) == [("1", "none", None)]
    old = resource(8, "1", ("root", SET, "INFO"))
    answer = ask(listener, ALTER_CONFIGS, 2, resources=[old])
    assert errors(answer) == [("1", "invalid_request", "Unknown resource type 8")]
    assert len(listener.broker.settings.asked) == 1


def test_a_broker_that_cannot_alter_refuses_each_resource() -> None:
    listener = Listener()
    listener.broker.settings.error = ErrorCode.REQUEST_TIMED_OUT
    response = ask(listener, INCREMENTAL_ALTER_CONFIGS, 1, resources=[resource(2, "a"), resource(2, "b")])
    assert errors(response) == [(name, "request_timed_out", "REQUEST_TIMED_OUT") for name in ("a", "b")]


def test_settings_are_read_anew_before_they_are_described() -> None:
    listener = Listener()
    rows = [{"resource_type": kind, "resource_name": name} for kind, name in ((2, "a"), (2, "b"), (4, "1"))]
    ask(listener, DESCRIBE_CONFIGS, 4, resources=rows)
    ask(listener, DESCRIBE_CONFIGS, 4, resources=rows[:1])
    assert listener.broker.settings.refreshed == [(("a", "b"), True), (("a",), False)]


@pytest.mark.parametrize(
    ("kind", "name", "error", "message"),
    [
        (4, "2", "invalid_request", "Unexpected broker id, expected 1 or empty string, but received 2"),
        (4, "x", "invalid_request", "Broker id must be an integer, but it is: x"),
        (8, "", "invalid_request", "Broker id must not be empty"),
        (8, "2", "invalid_request", "Unexpected broker id, expected 1 but received 2"),
        (8, "1", "none", None),
    ],
)
def test_brokers_and_loggers_are_described_by_their_own_broker(
    kind: int, name: str, error: str, message: str | None
) -> None:
    response = ask(Listener(), DESCRIBE_CONFIGS, 4, resources=[{"resource_type": kind, "resource_name": name}])
    (result,) = response.results
    assert (result.error_code.name, result.error_message or None) == (error, message)
    if kind == 8 and error == "none":
        assert [(row.name, row.value, row.config_source) for row in result.configs] == [("root", "INFO", 6)]


@pytest.mark.parametrize("version", range(1, 5))
def test_log_folders(version: int) -> None:
    listener = Listener()
    listener.broker.settings.folders = [
        LogDirDescription(
            "/a",
            ErrorCode.NONE,
            (LogDescription("u", 0, 5, 0), LogDescription("t", 1, 7, -1), LogDescription("u", 1, 6, 0)),
            100,
            40,
        ),
        LogDirDescription("/b", ErrorCode.KAFKA_STORAGE_ERROR),
    ]
    response = ask(listener, DESCRIBE_LOG_DIRS, version, topics=None)
    first, second = response.results
    assert (first.log_dir, first.error_code.name) == ("/a", "none")
    assert [
        (t.name, [(p.partition_index, p.partition_size, p.offset_lag) for p in t.partitions]) for t in first.topics
    ] == [
        ("t", [(1, 7, -1)]),
        ("u", [(0, 5, 0), (1, 6, 0)]),
    ]
    assert (second.log_dir, second.error_code.name, second.topics) == ("/b", "kafka_storage_error", ())
    if version >= 4:
        assert [(row.total_bytes, row.usable_bytes) for row in response.results] == [(100, 40), (-1, -1)]
    topics = [{"topic": "t", "partitions": [1]}, {"topic": "t", "partitions": [2]}]
    ask(listener, DESCRIBE_LOG_DIRS, version, topics=topics)
    assert listener.broker.settings.asked == [(None,), ({"t": [1, 2]},)]


def test_producers_of_partitions() -> None:
    listener = Listener()
    listener.broker.add_topic("t")
    listener.broker.settings.producers = PartitionProducers(
        ErrorCode.NONE, (ActiveProducer(7, 1, 9, 1234, 2, 5), ActiveProducer(8, 0, 0, 55, -1, -1))
    )
    topics = [{"name": name, "partition_indexes": [0, 9]} for name in ("t", "nope", "a b")]
    response = ask(listener, DESCRIBE_PRODUCERS, 0, topics=topics)
    found = [[partition.error_code.name for partition in topic.partitions] for topic in response.topics]
    unknown = "unknown_topic_or_partition"
    assert found == [["none", unknown], [unknown, unknown], ["invalid_topic_exception"] * 2]
    first, second = response.topics[0].partitions[0].active_producers
    assert (first.producer_id, first.producer_epoch, first.last_sequence, first.last_timestamp) == (7, 1, 9, 1234)
    assert (first.coordinator_epoch, first.current_txn_start_offset) == (2, 5)
    assert (second.coordinator_epoch, second.current_txn_start_offset) == (-1, -1)
    listener.broker.settings.producers = PartitionProducers(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    (topic,) = ask(listener, DESCRIBE_PRODUCERS, 0, topics=[{"name": "t", "partition_indexes": [0]}]).topics
    assert topic.partitions[0].error_code.name == "not_leader_or_follower"


@pytest.mark.parametrize("version", [0, 1])
def test_quotas(version: int) -> None:
    listener = Listener()
    settings = listener.broker.settings
    settings.quotas = [Quota((("user", "a"), ("client-id", None)), {"producer_byte_rate": 5.0})]
    components = [
        {"entity_type": "user", "match_type": 0, "match": "a"},
        {"entity_type": "client-id", "match_type": 1, "match": "ignored"},
    ]
    response = ask(listener, DESCRIBE_CLIENT_QUOTAS, version, components=components, strict=True)
    assert settings.asked == [([QuotaFilter("user", False, "a"), QuotaFilter("client-id", False)], True)]
    (entry,) = response.entries
    assert [(part.entity_type, part.entity_name) for part in entry.entity] == [("user", "a"), ("client-id", None)]
    assert [(row.key, row.value) for row in entry.values] == [("producer_byte_rate", 5.0)]


@pytest.mark.parametrize(
    ("components", "error", "message"),
    [
        ([("", 2, None)], "invalid_request", "Unexpected empty filter component entity type"),
        ([("foo", 2, None)], "unsupported_version", "Custom entity type 'foo' not supported"),
        ([("user", 2, None), ("user", 2, None)], "invalid_request", "Duplicate user filter component entity type"),
        ([("user", 7, None)], "invalid_request", "Unexpected match type: 7"),
        ([("user", 0, None)], "invalid_request", "Request specifies no name of the user"),
        ([("ip", 2, None), ("user", 2, None)], "invalid_request", "Invalid entity filter component combination"),
    ],
)
def test_quotas_that_nobody_can_have(components: list[Any], error: str, message: str) -> None:
    rows = [{"entity_type": kind, "match_type": match_type, "match": match} for kind, match_type, match in components]
    response = ask(Listener(), DESCRIBE_CLIENT_QUOTAS, 1, components=rows)
    assert response.error_code.name == error
    assert response.error_message.startswith(message)
    assert response.entries is None


def test_users_with_scram_credentials() -> None:
    listener = Listener()
    settings = listener.broker.settings
    settings.scram_users = [ScramUser("b", ((1, 4096),)), ScramUser("a", ((1, 8192), (2, 5000)))]

    def described(names: list[str] | None) -> list[tuple[str, str, list[tuple[int, int]]]]:
        users = None if names is None else [{"name": name} for name in names]
        response = ask(listener, DESCRIBE_USER_SCRAM_CREDENTIALS, 0, users=users)
        return [
            (row.user, row.error_code.name, [(one.mechanism, one.iterations) for one in row.credential_infos])
            for row in response.results
        ]

    everybody = [("a", "none", [(1, 8192), (2, 5000)]), ("b", "none", [(1, 4096)])]
    assert described(None) == described([]) == everybody
    assert described(["b", "nope", "", "a", "a"]) == [
        ("b", "none", [(1, 4096)]),
        ("nope", "resource_not_found", []),
        ("", "resource_not_found", []),
        ("a", "duplicate_resource", []),
    ]
    assert settings.asked[-1] == (["b", "nope"],)
    count = len(settings.asked)
    assert described(["a", "a"]) == [("a", "duplicate_resource", [])]
    assert len(settings.asked) == count
    settings.error = ErrorCode.REQUEST_TIMED_OUT
    response = ask(listener, DESCRIBE_USER_SCRAM_CREDENTIALS, 0, users=None)
    assert (response.error_code.name, response.results) == ("request_timed_out", ())

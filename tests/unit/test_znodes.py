"""Znodes against a listing of a live Kafka 3.9.1 cluster, and against what no Kafka ever wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkbroker.model.cluster import BrokerRegistration, Endpoint
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.zookeeper.znodes import (
    ZnodeError,
    admin,
    brokers,
    cluster,
    config,
    controller,
    feature,
    notifications,
    producer_ids,
    states,
    topics,
)
from zkbroker.zookeeper.znodes.paths import PERSISTENT_PATHS

LISTING = Path(__file__).parent.parent / "data" / "kafka-3.9.1" / "znodes.txt"

TOPIC_ID = "HUZdS2QlRPWWZBLZPv1EaQ"


def listed() -> list[tuple[str, int, str]]:
    """(path, version, data) of every znode of the listing."""
    found = []
    for line in LISTING.read_text().splitlines():
        if line.startswith("/"):
            path, _kind, version, data = line.split("\t")
            found.append((path, int(version.removeprefix("v")), data))
    return found


def again(path: str, version: int, data: bytes) -> bytes:
    """``data`` decoded and encoded by the codec of ``path``."""
    if path.startswith("/brokers/ids/"):
        original = json.loads(data)
        registration = brokers.decode(path, data, 7)
        assert registration.epoch == 7
        assert registration.is_kafka
        return brokers.encode(registration, timestamp_ms=int(original["timestamp"]))
    if path.endswith("/state"):
        state = states.decode(path, data, version)
        assert state.partition_epoch == version
        return states.encode(state)
    if path.startswith("/brokers/topics/"):
        return topics.encode(topics.decode(path, data))
    if path.startswith("/config/"):
        return config.encode(config.decode(path, data))
    if path == controller.PATH:
        info = controller.decode(data)
        return controller.encode(info.broker_id, timestamp_ms=info.timestamp_ms)
    if path == controller.EPOCH_PATH:
        return controller.encode_epoch(controller.decode_epoch(data))
    if path == cluster.PATH:
        return cluster.encode(cluster.decode(data))
    if path == feature.PATH:
        return feature.encode(feature.decode(data))
    if path == producer_ids.PATH:
        return producer_ids.encode(producer_ids.decode(data))
    raise AssertionError(f"no codec for {path}")


@pytest.mark.parametrize(
    ("path", "version", "data"), [entry for entry in listed() if entry[2]], ids=lambda v: str(v)[:40]
)
def test_what_kafka_wrote_is_written_again(path: str, version: int, data: str) -> None:
    """The same JSON; byte for byte where the order of the keys is not that of a Java hash map of partitions."""
    written = again(path, version, data.encode()).decode()
    assert json.loads(written) == json.loads(data)
    if "__transaction_state" not in path:
        assert written == data


def test_every_kind_of_znode_of_the_listing_was_tried() -> None:
    assert len([entry for entry in listed() if entry[2]]) == 16


def test_the_persistent_paths_are_those_kafka_made() -> None:
    """With their parents they are what the listing has, but for topics, brokers and what has content from the start."""
    mine = {producer_ids.PATH, "/", "/brokers", "/config", "/admin", "/cluster", *PERSISTENT_PATHS}
    empty = {path for path, _, data in listed() if not data and not path.startswith("/brokers/topics/")}
    assert mine == empty | {producer_ids.PATH}


def test_a_broker_of_zkbroker_as_json() -> None:
    endpoints = (
        Endpoint("REPLICATION", "h1", 9192),
        Endpoint("INTERNAL", "h1", 9092),
        Endpoint("EXTERNAL", "::1", 9093),
    )
    registration = BrokerRegistration(4, 99, endpoints, (("INTERNAL", "PLAINTEXT"), ("EXTERNAL", "SSL")), "r1")
    data = brokers.encode(registration, timestamp_ms=5)
    assert json.loads(data) == {
        "version": 5,
        "host": "h1",
        "port": 9092,
        "jmx_port": -1,
        "timestamp": "5",
        "endpoints": ["REPLICATION://h1:9192", "INTERNAL://h1:9092", "EXTERNAL://[::1]:9093"],
        "listener_security_protocol_map": {"REPLICATION": "PLAINTEXT", "INTERNAL": "PLAINTEXT", "EXTERNAL": "SSL"},
        "features": {},
        "rack": "r1",
    }
    decoded = brokers.decode(brokers.broker_path(4), data, 99)
    assert decoded.endpoints == endpoints
    assert decoded.rack == "r1"
    assert not decoded.is_kafka


def test_without_a_plaintext_kafka_listener_host_and_port_are_void() -> None:
    """The line protocol's own listener is plaintext, but no old Kafka client must ever be sent there."""
    endpoints = (Endpoint("REPLICATION", "h1", 9192), Endpoint("SSL", "h1", 9092))
    value = json.loads(brokers.encode(BrokerRegistration(4, 0, endpoints), timestamp_ms=5))
    assert (value["host"], value["port"]) == (None, -1)
    assert value["listener_security_protocol_map"] == {"REPLICATION": "PLAINTEXT", "SSL": "SSL"}


@pytest.mark.parametrize(
    ("data", "listeners", "rack"),
    [
        ('{"version":1,"host":"h","port":9092,"jmx_port":1,"timestamp":"1"}', ["PLAINTEXT://h:9092"], None),
        ('{"version":2,"host":"h","port":9092,"endpoints":["SSL://h:9093"]}', ["SSL://h:9093"], None),
        ('{"version":3,"host":"h","port":9092,"endpoints":["SSL://h:1"],"rack":"r"}', ["SSL://h:1"], "r"),
        (
            '{"version":4,"host":"h","port":9092,"endpoints":["client://h:1"],"rack":null,'
            '"listener_security_protocol_map":{"CLIENT":"SSL"}}',
            ["CLIENT://h:1"],
            None,
        ),
        (
            '{"version":5,"host":null,"port":-1,"endpoints":["A://[::1]:1","B://:2"],"features":{"x":{}},'
            '"listener_security_protocol_map":{"A":"SSL","B":"SASL_SSL"}}',
            ["A://[::1]:1", "B://:2"],
            None,
        ),
    ],
)
def test_brokers_of_every_version(data: str, listeners: list[str], rack: str | None) -> None:
    registration = brokers.decode("/brokers/ids/3", data.encode(), 8)
    assert registration.broker_id == 3
    assert [str(endpoint) for endpoint in registration.endpoints] == listeners
    assert {name for name, _ in registration.security_protocols} >= {e.listener for e in registration.endpoints}
    assert registration.rack == rack


def test_topics_of_versions_one_and_two_have_no_id() -> None:
    one = topics.decode("/brokers/topics/t", b'{"version":1,"partitions":{"1":[2,1],"0":[1,2]}}')
    assert one == topics.TopicAssignment("", {0: (1, 2), 1: (2, 1)}, {}, {})
    assert list(one.partitions) == [0, 1]
    two = topics.decode(
        "/brokers/topics/t",
        b'{"version":2,"partitions":{"0":[1,2,3]},"adding_replicas":{"0":[3]},"removing_replicas":{"0":[1],"7":[9]}}',
    )
    assert two == topics.TopicAssignment("", {0: (1, 2, 3)}, {0: (3,)}, {0: (1,)})
    assert json.loads(topics.encode(two)) == {
        "version": 2,
        "partitions": {"0": [1, 2, 3]},
        "adding_replicas": {"0": [3]},
        "removing_replicas": {"0": [1]},
    }


def test_partition_ids_can_have_gaps() -> None:
    found = topics.decode("/brokers/topics/t", b'{"version":3,"partitions":{"0":[1],"5":[2]}}')
    assert list(found.partitions) == [0, 5]


def test_the_extra_keys_of_a_state_only_where_they_say_something() -> None:
    plain = states.LeaderAndIsr(leader=1, leader_epoch=2, isr=(1, 2), controller_epoch=3, partition_epoch=4)
    data = b'{"controller_epoch":3,"leader":1,"version":1,"leader_epoch":2,"isr":[1,2]}'
    assert states.encode(plain) == data
    why = "unclean: “2” is away"
    full = plain._replace(isr=(1,), recovering=True, elr=(2,), reason=why, leader_reason=why)
    assert (
        states.encode(full)
        == (
            '{"controller_epoch":3,"leader":1,"version":1,"leader_epoch":2,"isr":[1],"leader_recovery_state":1,'
            '"elr":[2],"elr_version":4,"reason":"unclean: “2” is away"}'
        ).encode()
    )
    path = states.state_path("t", 0)
    assert path == "/brokers/topics/t/partitions/0/state"
    assert states.decode(path, states.encode(full), 4) == full
    joined = full._replace(isr=(1, 3), recovering=False, elr=(), reason="broker 3 caught up")
    assert states.encode(joined).endswith(
        '"reason":"broker 3 caught up","leader_reason":"unclean: “2” is away"}'.encode()
    )
    assert states.decode(path, states.encode(joined), 4) == joined


def test_an_elr_counts_only_if_it_was_written_by_somebody_who_knows_its_rules() -> None:
    state = states.LeaderAndIsr(1, 2, (1,), 3, 4, elr=(2,))
    path = states.state_path("t", 0)
    data = states.encode(state)
    assert states.decode(path, data, 4).elr == (2,)
    # written again by another hand: an older zkbroker hands "elr" on, Kafka drops both
    assert states.decode(path, data, 5).elr == ()
    assert states.decode(path, data.replace(b',"elr_version":4', b""), 4).elr == ()
    assert states.decode(path, data.replace(b'"isr":[1]', b'"isr":[1,2]'), 4).elr == ()


def test_two_znodes_make_one_partition_state() -> None:
    assignment = topics.TopicAssignment(TOPIC_ID, {0: (1,), 1: (1, 2, 3)}, {1: (3,)}, {1: (2,)})
    found = states.LeaderAndIsr(-1, 5, (1,), 6, 7, elr=(2,), reason="r", leader_reason="l")
    state = states.partition_state(assignment, 1, found)
    assert state == PartitionState(TOPIC_ID, (1, 2, 3), -1, 5, (1,), 7, 6, (3,), (2,), False, (2,), "r", "l")
    assert states.encode(state) == states.encode(found)


def test_entities_are_encoded_as_kafkas_sanitizer_does() -> None:
    for entity, name in [
        ("my.topic_1-x", "my.topic_1-x"),
        ("user@host/a b*c+d~e", "user%40host%2Fa%20b%2Ac%2Bd%7Ee"),
        ("ä", "%C3%A4"),
        ("<default>", "<default>"),
    ]:
        assert config.entity_name(entity) == name
        assert config.entity_from_name(name) == entity
    assert config.entity_from_name("%ff") == "%ff"
    assert config.broker_path("<default>") == "/config/brokers/<default>"
    assert config.topic_path("t") == "/config/topics/t"


def test_notices_of_changed_settings_in_both_versions() -> None:
    assert json.loads(config.encode_change("topics", "t")) == {"version": 2, "entity_path": "topics/t"}
    path = "/config/changes/config_change_0000000000"
    assert config.decode_change(path, config.encode_change("users", "a b")) == ("users", "a b")
    assert config.decode_change(path, b'{"version":1,"entity_type":"topics","entity_name":"t"}') == ("topics", "t")
    nested = b'{"version":2,"entity_path":"users/a%20b/clients/c"}'
    assert config.decode_change(path, nested) == ("users", "a%20b/clients/c")


def test_what_tools_write_below_admin() -> None:
    t0, t1 = TopicPartition("t", 0), TopicPartition("t", 1)
    data = b'{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[1,2]}]}'
    assert admin.decode_reassignment(data) == {t0: (1, 2)}
    assert admin.encode_reassignment({t0: (1, 2)}) == data
    twice = admin.encode_preferred_election([t1, t0, t1])
    assert admin.decode_preferred_election(twice) == (t1, t0)
    assert admin.encode_preferred_election([t1]) == b'{"version":1,"partitions":[{"topic":"t","partition":1}]}'


def test_notifications_to_the_controller() -> None:
    path = f"{notifications.ISR_CHANGE_PREFIX}0000000000"
    partitions = (TopicPartition("t", 0), TopicPartition("u", 1))
    assert notifications.decode_isr_change(path, notifications.encode_isr_change(partitions)) == partitions
    path = f"{notifications.LOG_DIR_EVENT_PREFIX}0000000000"
    assert notifications.encode_log_dir_event(2) == b'{"version":1,"broker":2,"event":1}'
    assert notifications.decode_log_dir_event(path, b'{"version":1,"broker":2,"event":1}') == 2


def test_feature_levels() -> None:
    one = b'{"features":{"f":{"min_version_level":1,"max_version_level":3}},"version":1,"status":0}'
    levels = feature.decode(one)
    assert levels == feature.FeatureLevels(False, {"f": 3})
    assert feature.decode(feature.encode(levels)) == levels


STATE = '{"leader":1,"leader_epoch":0,"controller_epoch":1,"isr":[1]}'


def _state(**changes: Any) -> bytes:
    return json.dumps(json.loads(STATE) | changes).encode()


def _topic(**changes: Any) -> bytes:
    return json.dumps({"version": 3, "partitions": {"0": [1]}} | changes).encode()


def _broker(**changes: Any) -> bytes:
    return json.dumps({"version": 2, "endpoints": ["PLAINTEXT://h:1"]} | changes).encode()


DECODERS: dict[str, Callable[[bytes], object]] = {
    "broker": lambda data: brokers.decode("/brokers/ids/1", data, 1),
    "topic": lambda data: topics.decode("/brokers/topics/t", data),
    "state": lambda data: states.decode("/brokers/topics/t/partitions/0/state", data, 1),
    "controller": controller.decode,
    "controller epoch": controller.decode_epoch,
    "reassignment": admin.decode_reassignment,
    "preferred": admin.decode_preferred_election,
    "config": lambda data: config.decode("/config/topics/t", data),
    "change": lambda data: config.decode_change("/config/changes/config_change_0000000000", data),
    "cluster": cluster.decode,
    "producer ids": producer_ids.decode,
    "isr change": lambda data: notifications.decode_isr_change("/isr_change_notification/x", data),
    "log dir event": lambda data: notifications.decode_log_dir_event("/log_dir_event_notification/x", data),
    "feature": feature.decode,
}


@pytest.mark.parametrize(
    ("decoder", "data", "why"),
    [
        ("state", b"", "not JSON"),
        ("state", b"\xff\xfe", "not JSON"),
        ("state", b"[1]", "not a JSON object"),
        ("state", b'{"leader":NaN}', "NaN"),
        ("state", b"[" * 100_000, "not JSON"),
        ("state", b'{"leader":' + b"9" * 5000 + b"}", "not JSON"),
        ("state", _state(leader=True), "'leader' is a boolean"),
        ("state", _state(leader=1.0), "'leader' is a fraction"),
        ("state", _state(leader="1"), "'leader' is a string"),
        ("state", _state(leader=-2), "'leader' is out of range"),
        ("state", _state(leader=2), "not in 'isr'"),
        ("state", _state(isr=[]), "'isr' is empty"),
        ("state", _state(isr=[1, 1]), "'isr' names a broker twice"),
        ("state", _state(isr=None), "'isr' is null"),
        ("state", _state(leader_epoch=2**31), "'leader_epoch' is out of range"),
        ("state", _state(leader_recovery_state=2), "'leader_recovery_state' is out of range"),
        ("state", _state(elr=[True]), "'elr' is a boolean"),
        ("state", b'{"leader":1,"leader_epoch":0,"controller_epoch":1,"isr":[1],"reason":"\\ud800"}', "surrogates"),
        ("topic", _topic(partitions={"0": [1, 1]}), "names a broker twice"),
        ("topic", _topic(partitions={"0": []}), "has no replicas"),
        ("topic", _topic(partitions={"x": [1]}), "a partition of 'partitions' is 'x'"),
        ("topic", _topic(partitions={"01": [1]}), "is '01'"),
        ("topic", _topic(partitions={"-1": [1]}), "is '-1'"),
        ("topic", _topic(partitions=[[1]]), "'partitions' is a list"),
        ("topic", _topic(topic_id="short"), "'topic_id' is 'short'"),
        ("topic", _topic(topic_id=TOPIC_ID[:21] + "!"), "'topic_id'"),
        ("topic", _topic(adding_replicas={"0": [2]}), "not among its replicas"),
        ("broker", _broker(version=0), "'version' is out of range"),
        ("broker", _broker(endpoints="x"), "'endpoints' is not a list"),
        ("broker", _broker(endpoints=["h:1"]), "is not NAME://host:port"),
        ("broker", _broker(endpoints=["PLAINTEXT://h:65536"]), "is not NAME://host:port"),
        ("broker", _broker(endpoints=["CLIENT://h:1"]), "not in the security protocol map"),
        ("broker", _broker(endpoints=["PLAINTEXT://h:1", "plaintext://h:2"]), "two endpoints of one listener"),
        ("broker", _broker(listener_security_protocol_map={"PLAINTEXT": "TLS"}), "unknown security protocol"),
        ("broker", _broker(rack=1), "'rack' is an integer"),
        ("controller", b'{"version":1}', "no 'brokerid'"),
        ("controller epoch", b"1\n", "not a number"),
        ("controller epoch", "١".encode(), "not a number"),
        ("config", b'{"version":1,"config":{"a":1}}', "'a' is an integer"),
        ("change", b'{"version":3,"entity_path":"topics/t"}', "'version' is 3"),
        ("change", b'{"version":2,"entity_path":"tropics/t"}', "unknown entity type"),
        ("change", b'{"version":2,"entity_path":"topics"}', "no entity"),
        ("producer ids", b'{"broker":1,"block_start":"9","block_end":"8"}', "ends before it starts"),
        ("producer ids", b'{"broker":1,"block_start":0,"block_end":"8"}', "'block_start' is an integer"),
        ("cluster", b'{"version":"1","id":""}', "'id' is empty"),
        ("feature", b'{"features":{"f":1},"version":2,"status":1}', "'f' is not an object"),
    ],
)
def test_garbage_is_refused_with_a_reason(decoder: str, data: bytes, why: str) -> None:
    with pytest.raises(ZnodeError) as caught:
        DECODERS[decoder](data)
    assert why in caught.value.why
    assert str(caught.value) == f"{caught.value.path}: {caught.value.why}"


def test_a_child_of_brokers_ids_that_is_no_number() -> None:
    assert brokers.broker_id_from_name("12") == 12
    for name in ("", "x", "-1", "1x", "99999999999"):
        with pytest.raises(ZnodeError):
            brokers.broker_id_from_name(name)


_KEYS = [
    *(
        "version",
        "host",
        "port",
        "endpoints",
        "listener_security_protocol_map",
        "rack",
        "partitions",
        "topic_id",
        "adding_replicas",
    ),
    *(
        "removing_replicas",
        "leader",
        "leader_epoch",
        "controller_epoch",
        "isr",
        "elr",
        "elr_version",
        "reason",
        "leader_recovery_state",
        "brokerid",
    ),
    *(
        "timestamp",
        "kraftControllerEpoch",
        "config",
        "entity_path",
        "entity_type",
        "entity_name",
        "id",
        "broker",
        "block_start",
    ),
    *("block_end", "event", "features", "status", "topic", "partition", "replicas", "0", "1", "max_version_level"),
]
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 6)
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["1", TOPIC_ID, "PLAINTEXT://h:1", "topics/t", "PLAINTEXT", "t"])
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4),
    max_leaves=8,
)
_SEEDS = [entry[2] for entry in listed() if 0 < len(entry[2]) < 400]


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=8).map(lambda v: json.dumps(v).encode()))
def test_no_json_makes_a_decoder_raise_anything_else(data: bytes) -> None:
    _only_znode_errors(data)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(_SEEDS), st.sampled_from(_SEEDS), st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=3))
def test_no_changed_znode_makes_a_decoder_raise_anything_else(one: str, other: str, changes: dict[str, Any]) -> None:
    value: dict[str, Any] = {}
    for seed in (one, other):
        loaded = json.loads(seed)
        value |= loaded if isinstance(loaded, dict) else {}
    _only_znode_errors(json.dumps(value | changes).encode())


@settings(max_examples=120, deadline=None)
@given(
    st.binary(max_size=40)
    | st.tuples(st.sampled_from(_SEEDS), st.integers(0, 400), st.binary(max_size=3)).map(
        lambda parts: parts[0].encode()[: parts[1]] + parts[2] + parts[0].encode()[parts[1] + len(parts[2]) :]
    )
)
def test_no_bytes_make_a_decoder_raise_anything_else(data: bytes) -> None:
    _only_znode_errors(data)


def _only_znode_errors(data: bytes) -> None:
    for name, decoder in DECODERS.items():
        try:
            decoded = decoder(data)
        except ZnodeError as error:
            assert error.why, name
        else:
            assert decoded is not None, name


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 2**31 - 1), st.lists(st.integers(0, 9), min_size=1, unique=True).map(tuple), max_size=5
    )
)
def test_any_assignment_survives_the_round_trip(partitions: dict[int, tuple[int, ...]]) -> None:
    adding = {partition: replicas[:1] for partition, replicas in partitions.items() if len(replicas) > 1}
    assignment = topics.TopicAssignment(TOPIC_ID, dict(sorted(partitions.items())), dict(sorted(adding.items())), {})
    assert topics.decode("/brokers/topics/t", topics.encode(assignment)) == assignment

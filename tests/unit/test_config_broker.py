"""From settings to a BrokerConfig: values, origins, and every combination that stops the start."""

from __future__ import annotations

import pytest

from zkbroker.model.cluster import Endpoint
from zkbroker.model.config import BROKER_KEYS, BrokerConfig, Setting, Support, build_broker_config
from zkbroker.model.config.values import format_value
from zkbroker.model.errors import InvariantViolation, StartError

BASE = {"zookeeper.connect": "127.0.0.1:2181", "broker.id": "1", "listeners": "PLAINTEXT://127.0.0.1:9092"}


def build(**changed: str) -> BrokerConfig:
    """A configuration with Python's ``_`` for ``.``."""
    return build_from({name.replace("_", "."): text for name, text in changed.items()})


def build_from(changed: dict[str, str]) -> BrokerConfig:
    texts = {**BASE, **changed}
    return build_broker_config(Setting(name, text, f"b.yaml:{n}") for n, (name, text) in enumerate(texts.items(), 1))


def refusal(changed: dict[str, str]) -> str:
    with pytest.raises(StartError) as raised:
        build_from(changed)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_defaults_and_typed_values() -> None:
    config = build()
    assert config.broker_id == 1
    assert config.get_int("num.partitions") == 1
    assert config.get_bool("auto.create.topics.enable") is True
    assert config.get_float("log.cleaner.min.cleanable.ratio") == 0.5
    assert config.get_str("compression.type") == "producer"
    assert config.get_list("log.cleanup.policy") == ("delete",)
    assert config.get_list("log.dirs") == ()
    assert config.get_optional_int("log.retention.ms") is None
    assert config.get_optional_str("broker.rack") is None
    assert config.rack is None
    assert config.log_dirs == ("/tmp/zkbroker-logs",)
    assert config.get_int("zookeeper.session.timeout.ms") == 6000
    assert config.zookeeper_connection_timeout_ms == 6000
    assert config.listeners == (Endpoint("PLAINTEXT", "127.0.0.1", 9092), Endpoint("REPLICATION", "127.0.0.1", 19092))
    assert config.kafka_listeners == (Endpoint("PLAINTEXT", "127.0.0.1", 9092),)
    assert config.listener("REPLICATION").port == 19092
    assert config.advertised_listeners == config.listeners
    assert dict(config.protocols) == {"PLAINTEXT": "PLAINTEXT", "REPLICATION": "PLAINTEXT"}
    assert config.warnings == ()
    assert repr(config) == "BrokerConfig(broker 1, 3 settings)"


def test_written_values() -> None:
    config = build(broker_rack="r1", zookeeper_connection_timeout_ms="9000", log_retention_ms="5", log_dirs="/a, /b")
    assert config.rack == "r1"
    assert config.zookeeper_connection_timeout_ms == 9000
    assert config.get_optional_int("log.retention.ms") == 5
    assert config.log_dirs == ("/a", "/b")
    assert config.get_list("log.dirs") == ("/a", "/b")
    assert config["log.dirs"] == "/a, /b"


def test_asking_for_the_wrong_type_is_a_broken_invariant() -> None:
    config = build()
    for ask in (
        lambda: config["no.such"],
        lambda: config.get_int("compression.type"),
        lambda: config.get_int("log.retention.ms"),
        lambda: config.get_int("delete.topic.enable"),
        lambda: config.get_bool("num.partitions"),
        lambda: config.get_str("num.partitions"),
        lambda: config.get_float("delete.topic.enable"),
        lambda: config.get_list("num.partitions"),
        lambda: config.get_optional_int("broker.rack"),
        lambda: config.get_optional_str("num.partitions"),
        lambda: config.listener("OTHER"),
    ):
        with pytest.raises(InvariantViolation):
            ask()


def test_a_configuration_cannot_be_changed() -> None:
    config = build()
    with pytest.raises(TypeError):
        config.values["num.partitions"] = 2  # type: ignore[index]
    with pytest.raises(AttributeError):
        config.broker_id = 2  # type: ignore[misc]


def test_the_last_setting_of_a_key_holds_and_says_where_it_comes_from() -> None:
    settings = [Setting(name, text, "b.yaml:1") for name, text in BASE.items()]
    config = build_broker_config(
        [*settings, Setting("num.partitions", "2", "b.yaml:9"), Setting("broker.id", "7", "--override")]
    )
    assert config.broker_id == 7
    assert config.origin("broker.id") == "--override"
    assert config.origin("num.partitions") == "b.yaml:9"
    assert config.origin("log.dirs") == "default"
    assert config.non_default() == (
        "broker.id = 7 (--override)",
        "listeners = PLAINTEXT://127.0.0.1:9092 (b.yaml:1)",
        "num.partitions = 2 (b.yaml:9)",
        "zookeeper.connect = 127.0.0.1:2181 (b.yaml:1)",
    )


def test_what_is_listed_hides_secrets_and_default_values() -> None:
    config = build_from(
        {
            "ssl.key.password": "hunter2",
            "listener.name.x.ssl.key.password": "hunter2",
            "rsm.config.secret": "hunter2",
            "num.partitions": "1",
        }
    )
    listed = "\n".join(config.non_default())
    assert "hunter2" not in listed
    assert "ssl.key.password = [hidden]" in listed
    assert "rsm.config.secret = [plug-in setting]" in listed
    assert "num.partitions" not in listed


def test_keys_without_effect_are_named() -> None:
    config = build_from(
        {
            "num.io.threads": "16",
            "num.network.threads": "3",
            "listener.name.x.ssl.keystore.location": "/k",
            "rlmm.config.x": "1",
            "num.partitions": "4",
        }
    )
    assert config.without_effect() == ("listener.name.x.ssl.keystore.location", "num.io.threads", "rlmm.config.x")


def test_unknown_keys() -> None:
    assert refusal({"log.dirz": "/a"}) == "b.yaml:4: unknown key 'log.dirz' (did you mean 'log.dirs'?)"
    assert refusal({"qqqqqqqqqq": "1"}) == "b.yaml:4: unknown key 'qqqqqqqqqq'"
    assert refusal({"retention.ms": "1"}) == (
        "b.yaml:4: unknown key 'retention.ms' (that is a topic's key; the broker's is 'log.retention.ms')"
    )
    assert refusal({"listener.name.x.no.such": "1"}).startswith("b.yaml:4: unknown key 'listener.name.x.no.such'")


def test_wrong_values() -> None:
    assert refusal({"num.partitions": "many"}) == "b.yaml:4: num.partitions 'many': Not a number of type INT"
    assert refusal({"num.partitions": "0"}) == "b.yaml:4: num.partitions '0': Value must be at least 1"
    assert "must be no more than 3600000" in refusal({"zookeeper.session.timeout.ms": "3600001"})
    assert "must be at least 1000" in refusal({"zookeeper.session.timeout.ms": "999"})
    assert "String must be one of" in refusal({"compression.type": "lzo"})
    assert "String must be one of" in refusal({"log.cleanup.policy": "delete,shred"})


def test_a_wrong_line_is_wrong_even_if_an_override_replaces_it() -> None:
    settings = [Setting(name, text, "b.yaml:1") for name, text in BASE.items()]
    settings += [Setting("num.partitions", "x", "b.yaml:9"), Setting("num.partitions", "2", "--override")]
    with pytest.raises(StartError, match=r"^b\.yaml:9: num\.partitions"):
        build_broker_config(settings)


REFUSED = [key for key in BROKER_KEYS.values() if key.support is Support.REFUSED]


@pytest.mark.parametrize("key", REFUSED, ids=lambda key: key.name)
def test_refused_keys(key: object) -> None:
    assert isinstance(key, type(REFUSED[0]))
    assert refusal({key.name: "true"}) == f"b.yaml:4: {key.name} is refused: {key.note}"
    harmless = build_from({key.name: key.harmless or ""})
    assert format_value(harmless[key.name]) in ("", "false")


def test_broker_id_may_be_called_node_id() -> None:
    only_node = {name: text for name, text in BASE.items() if name != "broker.id"}
    settings = [Setting(name, text, "b.yaml:1") for name, text in only_node.items()]
    config = build_broker_config([*settings, Setting("node.id", "5", "b.yaml:2")])
    assert (config.broker_id, config["broker.id"], config["node.id"]) == (5, 5, 5)
    assert build(node_id="1").broker_id == 1
    assert refusal({"node.id": "2"}) == "b.yaml:4: node.id: 2 is not broker.id, which is 1"


def test_broker_ids() -> None:
    assert build_from({"broker.id": "-1"}).broker_id == -1
    assert "it must be set, since broker.id.generation.enable is false" in refusal(
        {"broker.id": "-1", "broker.id.generation.enable": "false"}
    )
    assert "b.yaml:2: broker.id: 1001 is above reserved.broker.max.id (1000)" in refusal({"broker.id": "1001"})
    assert build_from({"broker.id": "1001", "broker.id.generation.enable": "false"}).broker_id == 1001
    assert build_from({"broker.id": "1001", "reserved.broker.max.id": "2000"}).broker_id == 1001
    assert "b.yaml:2: broker.id '-2': Value must be at least -1" in refusal({"broker.id": "-2"})
    node = [Setting("zookeeper.connect", "h:1", "b.yaml:1"), Setting("node.id", "-2", "b.yaml:2")]
    with pytest.raises(StartError, match=r"^b\.yaml:2: node\.id: -2 is not a broker id"):
        build_broker_config(node)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"listeners": ""}, "b.yaml:3: listeners: it is empty"),
        ({"listeners": "PLAINTEXT:9092"}, "b.yaml:3: listeners: 'PLAINTEXT:9092' is not NAME://host:port"),
        ({"listeners": "REPLICATION://h:1"}, "b.yaml:3: listeners: there is no listener for clients"),
        ({"listeners": "PLAINTEXT://h:1,REPLICATION://h:2,REPLICATION://h:3"}, "two listeners are called REPLICATION"),
        ({"listeners": "PLAINTEXT://h:1,REPLICATION://h:1"}, "have the same port"),
        (
            {"listeners": "PLAINTEXT://h:60000"},
            "b.yaml:3: listeners: there is no REPLICATION listener, and its default",
        ),
        ({"listeners": "INSIDE://h:1"}, "b.yaml:3: listeners: INSIDE is not in listener.security.protocol.map"),
        ({"listeners": "SSL://h:1"}, "b.yaml:3: listeners: SSL://h:1: SSL is not supported yet, only PLAINTEXT"),
        ({"listeners": "SASL_PLAINTEXT://h:1"}, "SASL_PLAINTEXT is not supported yet"),
        ({"listeners": "PLAINTEXT://0.0.0.0:1"}, "b.yaml:3: listeners: PLAINTEXT://0.0.0.0:1 listens everywhere"),
        ({"listeners": "PLAINTEXT://[::]:1"}, "PLAINTEXT://[::]:1 listens everywhere"),
        ({"listener.security.protocol.map": "X"}, "b.yaml:4: listener.security.protocol.map: 'X' is not NAME:PROTOCOL"),
        ({"advertised.listeners": "X"}, "b.yaml:4: advertised.listeners: 'X' is not NAME://host:port"),
        ({"advertised.listeners": "X://h:1"}, "b.yaml:4: advertised.listeners: X is not among listeners"),
        ({"advertised.listeners": "PLAINTEXT://0.0.0.0:1"}, "b.yaml:4: advertised.listeners: nobody can connect to"),
        ({"advertised.listeners": "PLAINTEXT://h:0"}, "nobody can connect to port 0"),
        ({"inter.broker.listener.name": "X"}, "b.yaml:4: inter.broker.listener.name: X is not among the advertised"),
        (
            {"inter.broker.listener.name": "PLAINTEXT", "security.inter.broker.protocol": "PLAINTEXT"},
            "b.yaml:4: inter.broker.listener.name: security.inter.broker.protocol is set too",
        ),
        (
            {"security.inter.broker.protocol": "SSL"},
            "b.yaml:4: security.inter.broker.protocol: SSL is not supported yet",
        ),
        ({"control.plane.listener.name": "X"}, "b.yaml:4: control.plane.listener.name: X is not among listeners"),
        (
            {"control.plane.listener.name": "PLAINTEXT", "inter.broker.listener.name": "PLAINTEXT"},
            "b.yaml:4: control.plane.listener.name: it must not be inter.broker.listener.name",
        ),
        ({"early.start.listeners": "X"}, "b.yaml:4: early.start.listeners: X is not among listeners"),
        ({"log.dirs": ""}, "b.yaml:4: log.dirs: a folder's name is empty"),
        ({"log.dirs": "/a,,/b"}, "b.yaml:4: log.dirs: a folder's name is empty"),
        ({"log.dirs": "/a,/b,/a/"}, "b.yaml:4: log.dirs: /a/ is there twice"),
        ({"log.dir": ""}, "b.yaml:4: log.dir: a folder's name is empty"),
        ({"zookeeper.connect": ""}, "b.yaml:1: zookeeper.connect: it must be set"),
        ({"zookeeper.connect": "/x"}, "b.yaml:1: zookeeper.connect: it names no server"),
        ({"zookeeper.connect": "h:x"}, "b.yaml:1: zookeeper.connect: 'h:x' is not host:port"),
        ({"zookeeper.connect": "h:0"}, "'h:0' is not host:port"),
        ({"zookeeper.connect": "h:1,,i:1"}, "'' is not host:port"),
        ({"zookeeper.connect": "h:1/a,i:1/a"}, "is not a path of ZooKeeper"),
        ({"zookeeper.connect": "h:1/a//b"}, "'/a//b' is not a path of ZooKeeper"),
        ({"zookeeper.connect": "h:1/a/../b"}, "is not a path of ZooKeeper"),
        ({"log.retention.ms": "0"}, "b.yaml:4: log.retention.ms: it must be 1 or more, or -1"),
        ({"log.retention.hours": "0"}, "b.yaml:4: log.retention.hours: it must be 1 or more"),
        ({"log.roll.ms": "0"}, "b.yaml:4: log.roll.ms: it must be 1 or more"),
        ({"log.roll.jitter.ms": "-1"}, "b.yaml:4: log.roll.jitter.ms: it must be 0 or more"),
        ({"log.flush.interval.ms": "0"}, "b.yaml:4: log.flush.interval.ms: it must be 1 or more"),
        (
            {"log.cleaner.min.compaction.lag.ms": "9", "log.cleaner.max.compaction.lag.ms": "8"},
            "b.yaml:4: log.cleaner.min.compaction.lag.ms: 9 is above log.cleaner.max.compaction.lag.ms (8)",
        ),
        (
            {"replica.lag.time.max.ms": "400"},
            "b.yaml:4: replica.lag.time.max.ms: 400 is below replica.fetch.wait.max.ms (500)",
        ),
        ({"replica.fetch.wait.max.ms": "30001"}, "replica.socket.timeout.ms: 30000 is below replica.fetch.wait.max.ms"),
        ({"queued.max.request.bytes": "5"}, "b.yaml:4: queued.max.request.bytes: 5 is below socket.request.max.bytes"),
        ({"max.connections.per.ip.overrides": "h:x"}, "max.connections.per.ip.overrides: 'h:x' is not host:count"),
    ],
)
def test_combinations_that_cannot_be(changed: dict[str, str], message: str) -> None:
    assert message in refusal(changed)


def test_without_zookeeper_there_is_no_start() -> None:
    with pytest.raises(StartError, match=r"^zookeeper\.connect: it must be set"):
        build_broker_config([])


def test_several_listeners_with_a_protocol_map() -> None:
    config = build_from(
        {
            "listeners": "INSIDE://0.0.0.0:9092,OUTSIDE://0.0.0.0:9093,REPLICATION://0.0.0.0:9094",
            "advertised.listeners": "INSIDE://b1:9092,OUTSIDE://example.com:19093",
            "listener.security.protocol.map": "INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT",
            "inter.broker.listener.name": "INSIDE",
            "control.plane.listener.name": "OUTSIDE",
            "early.start.listeners": "INSIDE",
        }
    )
    assert [str(endpoint) for endpoint in config.advertised_listeners] == [
        "INSIDE://b1:9092",
        "OUTSIDE://example.com:19093",
        "REPLICATION://b1:9094",
    ]
    assert [endpoint.listener for endpoint in config.kafka_listeners] == ["INSIDE", "OUTSIDE"]
    assert dict(config.protocols) == dict.fromkeys(["INSIDE", "OUTSIDE", "REPLICATION"], "PLAINTEXT")


def test_an_empty_host_is_left_to_the_shell() -> None:
    assert build_from({"listeners": "PLAINTEXT://:0"}).advertised_listeners == (
        Endpoint("PLAINTEXT", "", 0),
        Endpoint("REPLICATION", "", 0),
    )


@pytest.mark.parametrize(
    ("text", "hosts", "chroot"),
    [
        ("h:1", ("h:1",), ""),
        ("h", ("h:2181",), ""),
        (" h:1 , i:2 /a/b/ ", ("h:1", "i:2"), "/a/b"),
        ("[::1]:5,h", ("[::1]:5", "h:2181"), ""),
        ("h:1/", ("h:1",), ""),
    ],
)
def test_zookeeper_connect(text: str, hosts: tuple[str, ...], chroot: str) -> None:
    assert build_from({"zookeeper.connect": text}).zookeeper == (hosts, chroot)


def test_what_is_odd_is_only_warned_about() -> None:
    config = build_from({"min.insync.replicas": "2", "message.max.bytes": "200000000"})
    assert [warning.partition(" ")[0] for warning in config.warnings] == ["min.insync.replicas", "message.max.bytes"]
    assert build_from({"queued.max.request.bytes": "-1"}).get_int("queued.max.request.bytes") == -1

"""Settings altered through a broker: what it writes, what it makes of races and lost answers, when it holds."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.harness.zookeeper_worlds import FakeWorld, connect, wait
from tests.unit.test_config_topics import broker
from zkbroker.broker.client_quotas import read_client_quotas
from zkbroker.broker.dynamic_settings import CurrentSettings
from zkbroker.broker.metadata import ClusterMetadata
from zkbroker.broker.settings_admin import SettingsAdmin
from zkbroker.broker.topic_configs import TopicConfigs
from zkbroker.kafka.config_ports import QuotaFilter, ResourceChanges, ResourceResult, ScramUser
from zkbroker.model.cluster import ClusterDelta
from zkbroker.model.config import resolve_topic_config
from zkbroker.model.config.changes import ConfigChange
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.zookeeper.client import Create, Delete, SetData
from zkbroker.zookeeper.znodes import config as znode

SET, DELETE, APPEND = 0, 1, 2
DEFAULT = "/config/brokers/<default>"


class Broker:
    """A broker's settings and their admin on a session of its own."""

    def __init__(self, world: World, broker_id: int) -> None:
        self.world = world
        self.zk = world.session()
        connect(world, self.zk)
        self.lines: list[str] = []
        self.changed: list[str] = []
        config = broker()
        self.configs = TopicConfigs(
            broker_id=broker_id,
            zk=self.zk,
            clock=world.clock,
            resolve=lambda default, own, topic: resolve_topic_config(config, default, own, topic),
            changed=self.changed.append,
            log=self.lines.append,
            brokers_changed=lambda: self.settings.changed(),
        )
        self.settings = CurrentSettings(config, lambda: (self.configs.dynamic_default, self.configs.dynamic_broker))
        metadata = ClusterMetadata("c", broker_id)
        state = PartitionState("id", (1,), 1, 0, (1,), 0, 1)
        metadata.apply(
            ClusterDelta(1, 1, 0, is_snapshot=True, partitions=tuple((TopicPartition(t, 0), state) for t in "tu"))
        )
        nothing: Any = None
        self.admin = SettingsAdmin(
            broker_id=broker_id,
            zk=self.zk,
            reactor=world.reactor,
            clock=world.clock,
            metadata=metadata,
            topic_configs=self.configs,
            logs=nothing,
            replicas=nothing,
            log=self.lines.append,
        )
        wait(world, self.configs.start())

    def begin(
        self, kind: int, name: str, *changes: tuple[str, int, str | None], old: bool = False, check: bool = False
    ) -> Deferred[list[ResourceResult]]:
        wish = ResourceChanges(kind, name, tuple(ConfigChange(*change) for change in changes))
        return self.admin.alter_configs([wish], not old, check)

    def alter(self, kind: int, name: str, *changes: tuple[str, int, str | None], **how: bool) -> tuple[str, str | None]:
        (result,) = wait(self.world, self.begin(kind, name, *changes, **how))
        assert (result.kind, result.name) == (kind, name)
        return result.error.name, result.message


class World(FakeWorld):
    def __init__(self) -> None:
        super().__init__()
        for path in ("/config", "/config/topics", "/config/brokers", "/config/changes", "/brokers", "/brokers/topics"):
            self.zookeeper.write(Create(path, b""))
        for topic in "tu":
            self.zookeeper.write(Create(f"/brokers/topics/{topic}", b"{}"))
        self.one, self.two = Broker(self, 1), Broker(self, 2)

    def settle(self) -> None:
        for _ in range(40):
            self.reactor.advance(0.001)

    def data(self, path: str) -> bytes | None:
        return self.zookeeper.data(path)

    def notices(self) -> list[bytes | None]:
        names = wait(self, self.one.zk.children("/config/changes"))
        return [self.data(f"/config/changes/{name}") for name in names]


def test_a_topic_is_altered_and_every_broker_obeys() -> None:
    world = World()
    assert world.one.alter(2, "t", ("retention.ms", SET, "1000"), ("flush.ms", SET, "5")) == ("NONE", None)
    assert world.data("/config/topics/t") == b'{"version":1,"config":{"retention.ms":"1000","flush.ms":"5"}}'
    assert world.notices() == [b'{"version":2,"entity_path":"topics/t"}']
    assert world.one.configs.get("t").retention_ms == 1000
    wait(world, world.two.configs.load("t"))
    assert world.two.alter(2, "t", ("retention.ms", DELETE, None)) == ("NONE", None)
    world.settle()
    assert world.data("/config/topics/t") == b'{"version":1,"config":{"flush.ms":"5"}}'
    assert [one.configs.get("t").retention_ms for one in (world.one, world.two)] == [604_800_000] * 2
    assert world.one.alter(2, "t", ("segment.ms", SET, "7"), old=True) == ("NONE", None)
    assert world.data("/config/topics/t") == b'{"version":1,"config":{"segment.ms":"7"}}'


def test_brokers_are_altered_each_for_itself_and_all_together() -> None:
    world = World()
    assert world.one.alter(4, "1", ("max.connections", SET, "5")) == ("NONE", None)
    assert world.one.alter(4, "", ("max.connections", SET, "6"), ("log.retention.ms", SET, "9")) == ("NONE", None)
    world.settle()
    assert [one.settings.config.get_int("max.connections") for one in (world.one, world.two)] == [5, 6]
    assert [one.configs.get("t").retention_ms for one in (world.one, world.two)] == [9, 9]
    assert world.data("/config/brokers/1") == b'{"version":1,"config":{"max.connections":"5"}}'
    assert world.notices() == [
        b'{"version":2,"entity_path":"brokers/1"}',
        b'{"version":2,"entity_path":"brokers/<default>"}',
    ]


def test_nothing_is_written_for_a_check_or_a_mistake() -> None:
    world = World()
    assert world.one.alter(2, "t", ("retention.ms", SET, "1"), check=True) == ("NONE", None)
    assert world.one.alter(2, "t", ("retention.ms", SET, "x"), check=True)[0] == "INVALID_CONFIG"
    assert world.one.alter(2, "t", ("foo", SET, "1")) == ("INVALID_CONFIG", "Unknown topic config name: foo")
    assert world.one.alter(4, "", ("num.partitions", SET, "1"))[0] == "INVALID_REQUEST"
    assert world.data("/config/topics/t") is None
    assert world.data(DEFAULT) is None
    assert world.notices() == []


@pytest.mark.parametrize(
    ("kind", "name", "error", "message"),
    [
        (2, "nope", "UNKNOWN_TOPIC_OR_PARTITION", "The topic 'nope' does not exist."),
        (2, "", "INVALID_REQUEST", "Default topic resources are not allowed."),
        (4, "2", "INVALID_REQUEST", "Unexpected broker id, expected 1, but received 2"),
        (4, "x", "INVALID_REQUEST", "Node id must be an integer, but it is: x"),
        (8, "", "INVALID_REQUEST", "Node id must be an integer, but it is: "),
        (8, "2", "INVALID_REQUEST", "Unexpected node id. Expected 1, but received 2"),
    ],
)
def test_who_is_not_there(kind: int, name: str, error: str, message: str) -> None:
    assert World().one.alter(kind, name, ("a", SET, "1")) == (error, message)


def test_two_brokers_that_alter_the_same_topic_lose_nothing() -> None:
    world = World()
    first = world.one.begin(2, "t", ("leader.replication.throttled.replicas", APPEND, "0:1"))
    second = world.two.begin(2, "t", ("leader.replication.throttled.replicas", APPEND, "0:2"))
    third = world.two.begin(2, "t", ("flush.ms", SET, "5"))
    for one in (first, second, third):
        assert wait(world, one)[0].error is ErrorCode.NONE
    found = znode.decode("", world.data("/config/topics/t") or b"")
    assert sorted(found.pop("leader.replication.throttled.replicas").split(",")) == ["0:1", "0:2"]
    assert found == {"flush.ms": "5"}
    assert len(world.notices()) == 3


def test_a_topic_that_goes_meanwhile_leaves_no_settings() -> None:
    world = World()
    altered = world.one.begin(2, "t", ("flush.ms", SET, "5"))
    world.zookeeper.write(Delete("/brokers/topics/t"))
    (result,) = wait(world, altered)
    assert (result.error, result.message) == (
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        "The topic 't' does not exist.",
    )
    assert world.data("/config/topics/t") is None


@pytest.mark.parametrize("fault", ["lose_next_reply", "lose_next_request", "break_connection"])
def test_a_lost_answer_is_asked_for_again(fault: str) -> None:
    world = World()
    getattr(world, fault)(world.one.zk)
    assert world.one.alter(2, "t", ("flush.ms", SET, "5")) == ("NONE", None)
    for delay in range(1, 6):
        altered = world.one.begin(2, "t", ("flush.ms", SET, str(delay)))
        for _ in range(delay):
            world.reactor.advance(0.001)
        getattr(world, fault)(world.one.zk)
        assert wait(world, altered)[0].error is ErrorCode.NONE
        assert znode.decode("", world.data("/config/topics/t") or b"") == {"flush.ms": str(delay)}


def test_without_zookeeper_the_request_ends_in_time() -> None:
    world = World()
    world.one.zk.disconnect()
    altered = world.one.begin(2, "t", ("flush.ms", SET, "5"))
    results: list[Any] = []
    altered.addCallback(results.extend)
    for _ in range(120):
        world.reactor.advance(0.1)
    assert [result.error for result in results] == [ErrorCode.REQUEST_TIMED_OUT]


def test_what_does_not_decode_is_replaced_by_nobody_but_a_person() -> None:
    world = World()
    world.zookeeper.write(Create("/config/topics/t", b"rubbish"))
    error, message = world.one.alter(2, "t", ("flush.ms", SET, "5"))
    assert error == "INVALID_CONFIG" and "does not decode" in (message or "")
    assert world.data("/config/topics/t") == b"rubbish"


def test_missing_parents_are_made() -> None:
    world = World()
    for path in ("/config/topics", "/config/changes"):
        world.zookeeper.write(Delete(path))
    assert world.one.alter(2, "t", ("flush.ms", SET, "5")) == ("NONE", None)
    assert len(world.notices()) == 1


def test_what_another_broker_altered_is_described_here_at_once() -> None:
    world = World()
    wait(world, world.one.configs.load("t"))
    world.zookeeper.write(Create("/config/topics/t", znode.encode({"flush.ms": "5"})))
    wait(world, world.one.admin.refresh_configs(["t", "nope"], True))
    assert world.one.configs.overrides("t") == {"flush.ms": "5"}
    assert not world.one.configs.knows("nope")
    world.zookeeper.write(SetData("/config/topics/t", b"rubbish"))
    wait(world, world.one.admin.refresh_configs(["t"], False))
    assert world.one.configs.overrides("t") == {"flush.ms": "5"}
    world.one.zk.disconnect()
    assert world.one.admin.refresh_configs(["t"], True).called


def quotas(world: World, *filters: QuotaFilter, strict: bool = False) -> list[tuple[Any, Any]]:
    found = wait(world, read_client_quotas(world.one.zk, filters, strict))
    return sorted((str(dict(quota.entity)), dict(quota.values)) for quota in found)


def test_quotas_that_stand_in_the_znodes() -> None:
    world = World()
    assert quotas(world) == []
    for path, settings in {
        "users": None,
        "users/alice": {"producer_byte_rate": "1000", "SCRAM-SHA-256": "salt=…"},
        "users/alice/clients": None,
        "users/alice/clients/c1": {"consumer_byte_rate": "2000"},
        "users/<default>": {},
        "users/<default>/clients": None,
        "users/<default>/clients/<default>": {"request_percentage": "40.5"},
        "users/a%40b": {"SCRAM-SHA-256": "salt=…", "producer_byte_rate": "soon"},
        "clients": None,
        "clients/c1": {"request_percentage": "20"},
        "ips": None,
        "ips/1.2.3.4": {"connection_creation_rate": "5"},
    }.items():
        world.zookeeper.write(Create(f"/config/{path}", b"" if settings is None else znode.encode(settings)))
    world.zookeeper.write(Create("/config/clients/garbled", b"rubbish"))
    alice = ("{'user': 'alice'}", {"producer_byte_rate": 1000.0})
    both = ("{'user': 'alice', 'client-id': 'c1'}", {"consumer_byte_rate": 2000.0})
    default = ("{'user': None, 'client-id': None}", {"request_percentage": 40.5})
    client = ("{'client-id': 'c1'}", {"request_percentage": 20.0})
    ip = ("{'ip': '1.2.3.4'}", {"connection_creation_rate": 5.0})
    assert quotas(world) == sorted([alice, both, default, client, ip])
    assert quotas(world, strict=True) == []
    user = QuotaFilter("user", True)
    assert quotas(world, user) == sorted([alice, both, default])
    assert quotas(world, user, strict=True) == [alice]
    assert quotas(world, QuotaFilter("user", False, "alice")) == sorted([alice, both])
    assert quotas(world, QuotaFilter("user", False)) == [default]
    assert quotas(world, user, QuotaFilter("client-id", False, "c1"), strict=True) == [both]
    assert quotas(world, QuotaFilter("client-id", True), strict=True) == [client]
    assert quotas(world, QuotaFilter("ip", True)) == [ip]
    assert quotas(world, QuotaFilter("ip", False)) == []


def test_users_with_scram_credentials_in_the_znodes() -> None:
    world = World()
    assert wait(world, world.one.admin.describe_scram_users(None)) == []
    credential = "salt=YQ==,stored_key=Yg==,server_key=Yw==,iterations=4096"
    for path, data in {
        "users": b"",
        "users/alice": znode.encode({"SCRAM-SHA-256": credential, "SCRAM-SHA-512": "salt=YQ==,iterations=5000"}),
        "users/a%40b": znode.encode({"SCRAM-SHA-512": credential}),
        "users/<default>": znode.encode({"SCRAM-SHA-256": credential}),
        "users/quotas": znode.encode({"producer_byte_rate": "1"}),
        "users/garbled": b"rubbish",
        "users/odd": znode.encode({"SCRAM-SHA-256": "iterations=many"}),
    }.items():
        world.zookeeper.write(Create(f"/config/{path}", data))
    both, one = ScramUser("alice", ((1, 4096), (2, 5000))), ScramUser("a@b", ((2, 4096),))
    assert sorted(wait(world, world.one.admin.describe_scram_users(None))) == sorted([both, one])
    assert wait(world, world.one.admin.describe_scram_users(["nope", "a@b", "quotas", "odd"])) == [one]

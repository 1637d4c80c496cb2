"""The channel is pointed at whoever holds the office, at the address that its registration names."""

from __future__ import annotations

from tests.harness.zookeeper_worlds import FakeWorld, connect
from zkbroker.broker.controller_link import LOOK_AGAIN_S, ControllerLink
from zkbroker.model.cluster import BrokerRegistration, Endpoint
from zkbroker.zookeeper.client import Create, Delete, SetData
from zkbroker.zookeeper.znodes import brokers as znode


class World(FakeWorld):
    def __init__(self) -> None:
        super().__init__()
        for path in ("/brokers", "/brokers/ids"):
            self.zookeeper.write(Create(path, b""))
        self.zk = self.session()
        connect(self, self.zk)
        self.told: list[str] = []
        self.lines: list[str] = []
        self.link = ControllerLink(broker_id=1, zk=self.zk, reactor=self.reactor, channel=self, log=self.lines.append)

    def controller_changed(self, controller_id: int, host: str, port: int) -> None:
        self.told.append(f"{controller_id} {host}:{port}")

    def controller_lost(self) -> None:
        self.told.append("lost")

    def register(self, broker_id: int, listener: str = "REPLICATION") -> None:
        endpoints = (Endpoint(listener, "h", 19000 + broker_id),)
        description = BrokerRegistration(broker_id, -1, endpoints, ((listener, "PLAINTEXT"),))
        self.zookeeper.write(Create(f"/brokers/ids/{broker_id}", znode.encode(description, timestamp_ms=1)))

    def pass_time(self, seconds: float = 0.1) -> None:
        for _ in range(round(seconds / 0.01)):
            self.reactor.advance(0.01)


def test_the_address_is_that_of_the_registration() -> None:
    world = World()
    world.register(2)
    world.link.controller_changed(2)
    world.pass_time()
    assert world.told == ["2 h:19002"]
    assert repr(world.link) == "ControllerLink(controller=2)"


def test_the_own_broker_needs_no_address() -> None:
    world = World()
    world.zk.disconnect()
    world.link.controller_changed(1)
    assert world.told == ["1 :0"]


def test_nobody_in_office() -> None:
    world = World()
    world.link.controller_changed(-1)
    assert world.told == ["lost"]


def test_a_controller_that_is_not_registered_yet_is_looked_for_again_and_told_once() -> None:
    world = World()
    world.link.controller_changed(2)
    world.pass_time(5 * LOOK_AGAIN_S)
    assert world.told == []
    assert len(world.lines) == 1
    world.register(2)
    world.pass_time(LOOK_AGAIN_S + 0.1)
    assert world.told == ["2 h:19002"]
    world.pass_time(5 * LOOK_AGAIN_S)
    assert world.told == ["2 h:19002"]


def test_garbage_and_a_missing_listener_are_looked_at_again() -> None:
    world = World()
    world.zookeeper.write(Create("/brokers/ids/2", b"{oops"))
    world.link.controller_changed(2)
    world.pass_time(2 * LOOK_AGAIN_S)
    world.zookeeper.write(Delete("/brokers/ids/2"))
    world.register(2, "PLAINTEXT")
    world.pass_time(2 * LOOK_AGAIN_S)
    assert world.told == []
    assert [line.split(":")[0] for line in world.lines][:1] == ["address of controller 2 not found yet"]
    assert world.lines[-1].endswith("it has no REPLICATION listener")
    description = BrokerRegistration(2, -1, (Endpoint("REPLICATION", "h", 5),), (("REPLICATION", "PLAINTEXT"),))
    world.zookeeper.write(SetData("/brokers/ids/2", znode.encode(description, timestamp_ms=1)))
    world.pass_time(LOOK_AGAIN_S + 0.1)
    assert world.told == ["2 h:5"]


def test_an_answer_about_an_earlier_controller_is_dropped() -> None:
    world = World()
    world.register(2)
    world.register(3)
    world.link.controller_changed(2)
    world.link.controller_changed(3)
    world.pass_time()
    assert world.told == ["3 h:19003"]
    world.link.controller_changed(2)
    world.link.controller_changed(-1)
    world.pass_time()
    assert world.told == ["3 h:19003", "lost"]


def test_a_look_that_lost_its_connection_is_made_again() -> None:
    world = World()
    world.register(2)
    world.link.controller_changed(2)
    world.zk.disconnect()
    world.pass_time(1.0)
    assert world.told == []
    world.zk.reconnect()
    world.pass_time(LOOK_AGAIN_S + 0.1)
    assert world.told == ["2 h:19002"]


def test_stopped_it_tells_nothing_and_leaves_no_timer() -> None:
    world = World()
    world.link.controller_changed(2)
    world.pass_time()
    world.link.stop()
    world.register(2)
    world.pass_time(2.0)
    assert (world.told, world.reactor.getDelayedCalls()) == ([], [])

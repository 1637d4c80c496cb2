"""Three brokers and their controller loops against the fake ensemble, for the tests of the controller."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock as Reactor

from tests.fakes.zookeeper import FakeSession, FakeZooKeeper
from zkbroker.broker.controller_loop import ControllerLoop
from zkbroker.broker.controller_settings import ControllerSettings
from zkbroker.model.channel import AlterPartitionRequest, IsrAnswer, IsrProposal, NewTopic
from zkbroker.model.cluster import BrokerRegistration, ClusterDelta, Endpoint
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.zookeeper.znodes import brokers as broker_znode
from zkbroker.zookeeper.znodes import states as state_znode
from zkbroker.zookeeper.znodes import topics as topic_znode

T0 = TopicPartition("t", 0)


class Clocks:
    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor

    def monotonic(self) -> float:
        return float(self._reactor.seconds())

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + int(self._reactor.seconds() * 1000)


class FakeSubscriber:
    def __init__(self, broker_id: int, broker_epoch: int) -> None:
        self.broker_id = broker_id
        self.broker_epoch = broker_epoch
        self.deltas: list[ClusterDelta] = []
        self.closed: str | None = None

    def push(self, delta: ClusterDelta) -> None:
        self.deltas.append(delta)

    def close(self, reason: str) -> None:
        self.closed = reason

    @property
    def states(self) -> dict[TopicPartition, PartitionState]:
        """What the broker believes after all it was told."""
        known: dict[TopicPartition, PartitionState] = {}
        for delta in self.deltas:
            if delta.is_snapshot:
                known = {}
            for topic, topic_id in delta.deleted_topics:
                known = {tp: state for tp, state in known.items() if (tp.topic, state.topic_id) != (topic, topic_id)}
            known.update(delta.partitions)
        return known


class Cluster:
    """Brokers that consist of a registration and a controller loop."""

    def __init__(self, brokers: int = 3, *, settings: ControllerSettings | None = None) -> None:
        self.reactor = Reactor()
        self.clock = Clocks(self.reactor)
        self.zk = FakeZooKeeper(self.reactor, self.clock, latency=0.001)
        self.settings = settings or ControllerSettings()
        self.sessions: dict[int, FakeSession] = {}
        self.loops: dict[int, ControllerLoop] = {}
        self.told: list[tuple[int, int, int]] = []
        self.lines: list[str] = []
        self.config_error: str | None = None
        for broker_id in range(1, brokers + 1):
            self.up(broker_id)

    def up(self, broker_id: int) -> None:
        session = self.zk.session(session_timeout_s=6.0, name=str(broker_id))
        session.start()
        self.sessions[broker_id] = session
        loop = ControllerLoop(
            broker_id=broker_id,
            zk=session,
            clock=self.clock,
            reactor=self.reactor,
            random=random.Random(broker_id),
            settings=self.settings,
            broker_epoch=lambda: self.epoch(broker_id),
            topic_overrides_error=lambda config: self.config_error,
            controller_changed=lambda holder, epoch: self.told.append((broker_id, holder, epoch)),
            log=lambda line: self.lines.append(f"[{broker_id}] {line}"),
        )
        self.loops[broker_id] = loop
        self.turns()
        loop.start()
        self.register(broker_id)
        loop.registered()
        self.turns()

    def register(self, broker_id: int) -> None:
        registration = BrokerRegistration(
            broker_id,
            0,
            (Endpoint("PLAINTEXT", f"h{broker_id}", 9092), Endpoint("REPLICATION", f"h{broker_id}", 9093)),
            (("PLAINTEXT", "PLAINTEXT"), ("REPLICATION", "PLAINTEXT")),
        )
        data = broker_znode.encode(registration, timestamp_ms=1)
        path = broker_znode.broker_path(broker_id)
        self.wait(self.sessions[broker_id].create(path, data, ephemeral=True, make_parents=True))

    def epoch(self, broker_id: int) -> int:
        stat = self.zk.stat(broker_znode.broker_path(broker_id))
        return -1 if stat is None else stat.czxid

    def kill(self, broker_id: int) -> None:
        """kill -9; its session ends some time later."""
        session = self.sessions.pop(broker_id)
        del self.loops[broker_id]
        session_id = session.session_id
        session.kill()
        self.zk.expire(session_id)
        self.turns()

    def turns(self, seconds: float = 0.5) -> None:
        for _ in range(int(seconds / 0.005)):
            self.reactor.advance(0.005)

    def wait(self, deferred: Deferred[Any], seconds: float = 5.0) -> Any:
        results: list[Any] = []
        deferred.addBoth(results.append)
        passed = 0.0
        while not results and passed < seconds:
            self.reactor.advance(0.005)
            passed += 0.005
        assert results, "no answer in time"
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        return results[0]

    @property
    def controller(self) -> ControllerLoop:
        [loop] = [loop for loop in self.loops.values() if loop.is_controller]
        return loop

    @property
    def controller_id(self) -> int:
        [broker_id] = [broker_id for broker_id, loop in self.loops.items() if loop.is_controller]
        return broker_id

    def subscribe(self, broker_id: int) -> FakeSubscriber:
        subscriber = FakeSubscriber(broker_id, self.epoch(broker_id))
        self.wait(self.controller.subscribe(subscriber))
        return subscriber

    def create(self, name: str = "t", partitions: int = 1, factor: int = 3, **topic: Any) -> Any:
        new = NewTopic(name, partitions, factor, **topic)
        return self.wait(self.controller.create_topics([new], 30_000, False))[0]

    def join(self, *isr: int, partition: TopicPartition = T0) -> IsrAnswer:
        """The leader's word that these are in sync."""
        state = self.state(partition)
        assert state is not None
        topic_id = self.controller._serving().controller.image.topics[partition.topic].topic_id
        members = tuple((member, self.epoch(member)) for member in isr)
        proposal = IsrProposal(*partition, topic_id, 1, state.leader_epoch, state.partition_epoch, members)
        request = AlterPartitionRequest(state.leader, self.epoch(state.leader), (proposal,))
        [answer] = self.wait(self.controller.alter_partition(request)).answers
        assert isinstance(answer, IsrAnswer)
        return answer

    def row(self, topic: str = "t") -> topic_znode.TopicAssignment:
        path = topic_znode.topic_path(topic)
        data = self.zk.data(path)
        assert data is not None
        return topic_znode.decode(path, data)

    def state(self, partition: TopicPartition = T0) -> state_znode.LeaderAndIsr | None:
        path = state_znode.state_path(*partition)
        data, stat = self.zk.data(path), self.zk.stat(path)
        return None if data is None or stat is None else state_znode.decode(path, data, stat.version)

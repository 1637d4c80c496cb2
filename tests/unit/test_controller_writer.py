"""The controller's fenced writes against a ZooKeeper that answers as the test says."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from zkbroker.broker.controller_zookeeper import FencedWriter
from zkbroker.controller.effects import StateWrite
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.zookeeper.client import BadVersionError, Check, ConnectionLossError, Delete, MultiError, SetData, Stat
from zkbroker.zookeeper.znodes import states as state_znode

T0 = TopicPartition("t", 0)
STATE = PartitionState("id", (1, 2), 1, 3, (1, 2), 6, 1)


class LaggingServer:
    """The connection breaks under the first write, which is nevertheless carried out: seen on the new server only by
    who writes there."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.is_caught_up = False

    def multi(self, ops: list[Any]) -> Deferred[Any]:
        assert isinstance(ops[0], Check)
        if any(isinstance(op, SetData) for op in ops):
            self.calls.append("write")
            return fail(ConnectionLossError("multi"))
        self.calls.append("nothing")
        self.is_caught_up = True
        return succeed([None for _ in ops])

    def get(self, path: str, watch: Any = None) -> Deferred[Any]:
        self.calls.append("read")
        state = STATE if self.is_caught_up else STATE._replace(isr=(1,), partition_epoch=5)
        stat = Stat(1, 2, state.partition_epoch, 0)
        return succeed((state_znode.encode(state), stat))


def test_a_write_whose_answer_is_lost_is_looked_for_behind_all_writes_under_way() -> None:
    server = LaggingServer()
    writer = FencedWriter(server, 1, Clock(), lambda topic: None)  # type: ignore[arg-type]
    found: list[Any] = []
    [chunk] = writer.write_states([StateWrite(T0, STATE, 5)])
    chunk.addBoth(found.append)
    assert server.calls == ["write", "nothing", "read"]
    [(partition, state)] = found[0]
    assert partition == T0
    assert (state.isr, state.partition_epoch) == ((1, 2), 6)


class ReturningBroker:
    """Broker 2 registers anew while the connection is away that was to delete its old registration."""

    def __init__(self) -> None:
        self.epoch = 10
        self.deleted: list[int] = []

    def exists(self, path: str) -> Deferred[Stat]:
        return succeed(Stat(self.epoch, self.epoch, 1, 7))

    def get(self, path: str) -> Deferred[Any]:
        return succeed((state_znode.encode(STATE), Stat(1, 2, 6, 0)))

    def multi(self, ops: list[Any]) -> Deferred[Any]:
        if any(isinstance(op, SetData) for op in ops) and self.epoch == 10:
            return fail(MultiError(2, BadVersionError("state")))
        if any(isinstance(op, Delete) for op in ops):
            if self.epoch == 10:
                self.epoch = 20
                return fail(ConnectionLossError("multi"))
            self.deleted.append(self.epoch)
        return succeed([None for _ in ops])


def test_a_fence_deletes_nothing_once_its_evidence_is_old() -> None:
    server, clock = ReturningBroker(), Clock()
    writer = FencedWriter(server, 1, clock, lambda topic: None)  # type: ignore[arg-type]
    found: list[Any] = []
    writer.fence_broker(2, 10, [StateWrite(T0, STATE, 5)]).addBoth(found.append)
    clock.advance(1.0)
    assert server.deleted == []
    [(is_gone, [(partition, _)])] = found
    assert is_gone and partition == T0

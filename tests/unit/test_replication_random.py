"""Replicas under the real controller's decisions, with faults by seed: nothing acknowledged is lost, all heals.

No network and no ZooKeeper: the pure controller, real Replicas on real logs, and delays, cuts, kills, failovers between
them. A kill keeps what was written, as the page cache does.
"""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, execute, fail

from tests.unit.log_tools import UnsyncedDisk
from tests.unit.replica_cluster import PARTITION, TOPIC_ID, Fetchers, Network, Session, batch
from zkbroker.broker.replicas import Replicas
from zkbroker.controller.cluster_image import Placement, TopicImage
from zkbroker.controller.controller import Controller
from zkbroker.controller.effects import Answer, Effect, PushDelta, WriteStates
from zkbroker.controller.office import ControllerRules
from zkbroker.kafka.ports import ProduceRow
from zkbroker.log.dirs import LogDirs
from zkbroker.model.channel import AlterPartitionRequest, AlterPartitionResponse, Applied
from zkbroker.model.cluster import BrokerRegistration, ClusterDelta, Endpoint
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.records.batch import batches
from zkbroker.records.record import records_of

BROKERS = (1, 2, 3)
TOPIC = TopicImage("t", TOPIC_ID, {0: Placement(BROKERS)})


class World(Network):
    def __init__(self, folder: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.zxid = 1000
        self.running: set[int] = set()
        self.registered: dict[int, BrokerRegistration] = {}
        self.views: dict[int, dict[int, int]] = {}
        self.inbox: dict[int, list[ClusterDelta]] = {}
        self.subscribed: dict[int, int] = {}
        self.stored: dict[TopicPartition, tuple[PartitionState, int]] = {}
        self.tokens: dict[int, Deferred[Any]] = {}
        self.token = 0
        self.office = Controller(9, 0, ControllerRules(auto_rebalance=False))
        super().__init__(folder, *BROKERS, lag_seconds_max=2.0)
        self.config = dataclasses.replace(self.config, min_insync_replicas=1 + seed % 2)
        self.acked: dict[int, bytes] = {}
        self.consumed: dict[int, bytes] = {}
        self.produced = 0
        self.take_office()
        self.nudge()

    # Brokers

    def start(self, broker_id: int) -> Replicas:
        self.zxid += 1
        self.epochs[broker_id] = self.zxid
        self.registered[broker_id] = BrokerRegistration(broker_id, self.zxid, (Endpoint("REPLICATION", "h", 1),))
        view = self.views[broker_id] = dict[int, int]()
        self.inbox[broker_id] = []
        self.subscribed.pop(broker_id, None)
        logs = LogDirs(
            disk=UnsyncedDisk(),
            clock=self.time,
            reactor=self.reactor,
            run_in_thread=execute,
            log_dirs=[str(self.folder / f"broker-{broker_id}")],
            broker_id=broker_id,
            topic_config=lambda _: self.config,
            dir_failed=lambda folder, reason, partitions: self.fatal.append((reason, OSError(folder))),
            boot_id="boot",
        )
        logs.open("cluster")
        logs.losses.add(())  # no log is missing
        replicas = Replicas(
            broker_id=broker_id,
            reactor=self.reactor,
            clock=self.time,
            logs=logs,
            settings=self.settings,
            broker_epoch=lambda: self.epochs[broker_id],
            live_broker_epoch=view.get,
            topic_config=lambda _: self.config,
            metadata_leader=lambda _: None,
            contact_age=lambda: 0.0,
            fatal=lambda event, error: self.fatal.append((event, error)),
            report=self.reports.append,
        )
        self.logs[broker_id] = logs
        self.replicas[broker_id] = replicas
        self.fetchers[broker_id] = Fetchers(self, broker_id)
        replicas.fetchers = self.fetchers[broker_id]
        replicas.controller = lambda request: self.ask(broker_id, request)
        self.running.add(broker_id)
        self.later(self.look_at_brokers, 0.1)
        return replicas

    def crash(self, broker_id: int) -> None:
        super().crash(broker_id)
        self.running.discard(broker_id)
        self.registered.pop(broker_id, None)
        self.subscribed.pop(broker_id, None)
        self.inbox[broker_id] = []
        for fetchers in self.fetchers.values():
            if fetchers.session is not None and fetchers.session.leader == broker_id:
                fetchers.session = Session(self, fetchers.broker_id, broker_id)
        self.later(self.look_at_brokers, 0.5)

    def is_cut(self, one: int, other: int) -> bool:
        return super().is_cut(one, other) or one not in self.running or other not in self.running

    def nudge(self) -> None:
        """What fetchers and channels do by themselves: ask again, subscribe again."""
        for broker_id in sorted(self.running):
            session = self.fetchers[broker_id].session
            if session is not None and not self.is_cut(session.follower, session.leader):
                session.contact.last_fetch_at = self.time.monotonic()
                session.ask()
                session.look()
            elif session is not None:
                session.row = None
            self.subscribe(broker_id)
        self.reactor.callLater(0.05, self.nudge)

    def subscribe(self, broker_id: int) -> None:
        epoch = self.epochs[broker_id]
        if broker_id in self.cut:
            self.subscribed.pop(broker_id, None)
            self.inbox[broker_id] = []
        elif broker_id not in self.subscribed and self.office.image.settled_epoch(broker_id) == epoch:
            self.subscribed[broker_id] = epoch
            self.post(broker_id, self.office.snapshot(broker_id))

    def post(self, broker_id: int, delta: ClusterDelta) -> None:
        self.inbox[broker_id].append(delta)
        self.later(lambda: self.deliver(broker_id), 0.05)

    def deliver(self, broker_id: int) -> None:
        if not self.inbox[broker_id]:
            return
        delta = self.inbox[broker_id].pop(0)
        view = self.views[broker_id]
        if delta.is_snapshot:
            view.clear()
        for broker in delta.removed_brokers:
            view.pop(broker, None)
        view.update({broker.broker_id: broker.epoch for broker in delta.brokers})
        replicas = self.replicas[broker_id]
        replicas.brokers_changed()
        told = [(partition, replicas.apply(partition, state)) for partition, state in delta.partitions]
        failures = tuple((partition, reason) for partition, reason in told if reason is not None)
        number = 0 if delta.is_snapshot else 1
        receipt, epoch, office = Applied(delta.controller_epoch, number, failures), self.epochs[broker_id], self.office
        self.later(lambda: self.event(office, office.delta_applied(broker_id, epoch, receipt)), 0.05)

    # The controller

    def take_office(self) -> None:
        office = Controller(9, self.office.controller_epoch + 1, ControllerRules(auto_rebalance=False))
        self.office = office
        self.subscribed.clear()
        for broker_id in self.inbox:
            self.inbox[broker_id] = []
        tokens, self.tokens = self.tokens, {}
        for waiting in tokens.values():
            waiting.errback(BrokerError(ErrorCode.NOT_CONTROLLER))
        now = self.time.monotonic()
        self.event(office, office.cluster_read(list(self.registered.values()), [TOPIC], dict(self.stored), {}, [], now))

    def look_at_brokers(self) -> None:
        if hasattr(self, "acked"):
            now = self.time.monotonic()
            self.event(self.office, self.office.brokers_changed(list(self.registered.values()), now))

    def ask(self, broker_id: int, request: AlterPartitionRequest) -> Deferred[AlterPartitionResponse]:
        if broker_id in self.cut:
            return fail(BrokerError(ErrorCode.NETWORK_EXCEPTION))
        self.token += 1
        token, answer = self.token, Deferred[AlterPartitionResponse]()
        self.tokens[token] = answer
        office = self.office
        self.later(lambda: self.event(office, office.isr_change_requested(token, request)), 0.05)
        return answer

    def event(self, office: Controller, effects: list[Effect]) -> None:
        if office is not self.office:
            return
        for effect in [*effects, *office.turn_ended()]:
            if isinstance(effect, WriteStates):
                self.later(lambda writes=effect.writes: self.write(office, writes), 0.05)
            elif isinstance(effect, PushDelta):
                for broker_id in list(self.subscribed):
                    if office.image.broker_epoch(broker_id) == self.subscribed[broker_id]:
                        self.post(broker_id, effect.delta)
                    else:
                        del self.subscribed[broker_id]
            elif isinstance(effect, Answer):
                waiting = self.tokens.pop(effect.token, None)
                if waiting is not None and self.dice.random() < 0.8:
                    waiting.callback(effect.result)

    def write(self, office: Controller, writes: Any) -> None:
        if office is not self.office:
            return  # fenced
        found: list[tuple[TopicPartition, PartitionState | None]] = []
        for write in writes:
            before = self.stored.get(write.partition)
            if (-1 if before is None else before[0].partition_epoch) == write.expected_version:
                self.zxid += 1
                self.stored[write.partition] = write.state, self.zxid
            found.append((write.partition, self.stored[write.partition][0]))
        self.later(lambda: self.found(office, found), 0.05)

    def found(self, office: Controller, found: list[tuple[TopicPartition, PartitionState | None]]) -> None:
        if office is self.office:
            self.event(office, office.states_found(found))

    # What happens

    def later(self, act: Any, seconds_max: float) -> None:
        self.reactor.callLater(self.dice.random() * seconds_max, act)

    def produce_one(self) -> None:
        """To whoever believes to lead."""
        for broker_id in sorted(self.running):
            value = b"%d" % self.produced
            self.produced += 1

            def answered(rows: list[Any], value: bytes = value) -> None:
                if rows[0].error is ErrorCode.NONE:
                    assert rows[0].base_offset not in self.acked
                    self.acked[rows[0].base_offset] = value

            self.replicas[broker_id].produce(-1, 1000, None, [ProduceRow("t", 0, batch(value))], answered)

    def consume_some(self) -> None:
        for broker_id in sorted(self.running):
            for row in self.consume(broker_id, max(0, len(self.consumed) - 3)):
                for offset, value in values(b"".join(map(bytes, row.records or ()))):
                    assert self.consumed.setdefault(offset, value) == value

    def disturb(self) -> None:
        fault = self.dice.randrange(9)
        broker_id = self.dice.choice(BROKERS)
        if fault <= 1 and broker_id in self.running:
            self.crash(broker_id)
        elif fault <= 3 and broker_id not in self.running:
            self.start(broker_id)
        elif fault == 4:
            self.cut.symmetric_difference_update({broker_id})
        elif fault == 5:
            self.take_office()
        elif fault == 6 and broker_id in self.running and broker_id not in self.cut:
            self.crash(broker_id)
            self.start(broker_id)
        elif fault == 7 and broker_id in self.registered:
            # the session expired, the process lives: it registers again
            self.replicas[broker_id].registration_lost()
            self.zxid += 1
            self.epochs[broker_id] = self.zxid
            self.registered[broker_id] = self.registered[broker_id]._replace(epoch=self.zxid)
            self.subscribed.pop(broker_id, None)
            self.inbox[broker_id] = []
            self.later(self.look_at_brokers, 0.5)
        for _ in range(self.dice.randrange(6)):
            self.produce_one()
            self.run(self.dice.random() * 0.1)
        self.consume_some()
        self.run(self.dice.choice((0.05, 0.3, 1.0, 4.0)))


def values(data: bytes) -> list[tuple[int, bytes]]:
    return [
        (record.offset, bytes(record.value or b""))
        for position, header in batches(data)
        for record in records_of(data, header, position)
    ]


def content(world: World, broker_id: int) -> dict[int, bytes]:
    log = world.logs[broker_id].logs[PARTITION]
    read = log.read(log.log_start_offset, 10_000_000, log.log_end_offset, may_wait=True)
    assert read is not None
    return dict(values(b"".join(map(bytes, read.chunks))))


@pytest.mark.parametrize("seed", range(12))
def test_nothing_acknowledged_is_lost_and_all_heals(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, seed)
    world.run(1.0)
    for _ in range(40):
        world.disturb()
        assert world.fatal == []
    world.cut.clear()
    for broker_id in BROKERS:
        if broker_id not in world.running:
            world.start(broker_id)
    world.run(90.0)
    state = world.stored[PARTITION][0]
    assert sorted(state.isr) == [1, 2, 3], f"{state} {world.replicas[state.leader].partition_lines(None)}"
    before = len(world.acked)
    world.produce_one()
    world.run(1.0)
    assert len(world.acked) == before + 1
    logs = [content(world, broker_id) for broker_id in BROKERS]
    assert logs[0] == logs[1] == logs[2]
    assert world.acked.items() <= logs[0].items()
    assert world.consumed.items() <= logs[0].items()
    assert world.fatal == []
    world.close()

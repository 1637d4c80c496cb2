"""The real controller and real leaders around logs that are lists: kills, losses of power, another min.insync.replicas.

While fewer brokers lose what they had not flushed than the smallest min.insync.replicas of the run, no record that was
acknowledged with acks=all is ever missing from the log of a leader, and in the end somebody leads.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from zkbroker.controller.cluster_image import Placement, TopicImage, TopicRules
from zkbroker.controller.controller import Controller
from zkbroker.controller.effects import Answer, Effect, PushDelta, StateWrite, WriteStates
from zkbroker.controller.office import ControllerRules
from zkbroker.model.channel import (
    AlterPartitionRequest,
    AlterPartitionResponse,
    FollowerContact,
    IsrProposal,
)
from zkbroker.model.cluster import BrokerRegistration, Endpoint, LossyReplica
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import NO_LEADER, PartitionState, TopicPartition
from zkbroker.partition.epoch_cache import EpochCache
from zkbroker.partition.leader import Effects, LeaderState, RaiseHighWatermark

T0 = TopicPartition("t", 0)
TOPIC_ID = "id-of-t"
LAG_S = 10.0


class Broker:
    """A process, its disk and what it was told."""

    def __init__(self, broker_id: int) -> None:
        self.broker_id = broker_id
        self.is_running = False
        self.epoch = -1
        self.log: list[tuple[int, int]] = []
        """(leader epoch, record)"""
        self.flushed = 0
        self.is_lossy = False
        self.epochs = EpochCache([])
        self.high_watermark = 0
        self.state: PartitionState | None = None
        self.leader: LeaderState | None = None
        self.min_isr = 1
        self.inbox: list[PartitionState] = []

    def truncate(self, end: int) -> None:
        del self.log[end:]
        self.epochs.truncate_from_end(end)
        self.flushed = min(self.flushed, end)
        self.high_watermark = min(self.high_watermark, end)

    def append(self, entry: tuple[int, int]) -> None:
        if self.epochs.latest_epoch < entry[0]:
            self.epochs.assign(entry[0], len(self.log))
        self.log.append(entry)


class World:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.replicas = tuple(range(1, self.random.choice((3, 3, 4)) + 1))
        self.minima = self.random.choice(((2,), (2, 3), (3,), (1, 2), (1, 3), (1, 2, 3)))
        self.min_isr = self.random.choice(self.minima)
        may_lose = min(min(self.minima), len(self.replicas)) - 1
        self.frail = self.random.sample(self.replicas, may_lose)
        """Only these ever lose what they had not flushed."""
        self.now = 1000.0
        self.zxid = 100
        self.numbers = itertools.count(1)
        self.brokers = {broker_id: Broker(broker_id) for broker_id in self.replicas}
        self.registered: dict[int, BrokerRegistration] = {}
        self.state: PartitionState | None = None
        self.mzxid = 0
        self.pending: list[StateWrite] = []
        self.proposals: list[tuple[int, int, IsrProposal]] = []
        self.asked: dict[int, tuple[int, int]] = {}
        self.answers: list[tuple[int, int, AlterPartitionResponse]] = []
        self.waiting: list[tuple[int, int]] = []
        """(offset, record) of the leader's records that are not acknowledged yet."""
        self.acknowledged: dict[int, int] = {}
        """Offset → record."""
        self.led_epoch = -1
        self.controller_epoch = 0
        self.take_office()

    # ZooKeeper and the controller

    def take_office(self) -> None:
        self.controller_epoch += 1
        self.pending.clear()
        self.asked.clear()
        rules = ControllerRules(min_insync_replicas=self.min_isr, auto_rebalance=False)
        self.controller = Controller(1, self.controller_epoch, rules)
        states = {} if self.state is None else {T0: (self.state, self.mzxid)}
        topic = TopicImage("t", TOPIC_ID, {0: Placement(self.replicas)})
        brokers = list(self.registered.values())
        self.run(self.controller.cluster_read(brokers, [topic], states, {}, [], self.now))
        for broker in self.brokers.values():
            broker.inbox.clear()
            self.tell_snapshot(broker)

    def tell_snapshot(self, broker: Broker) -> None:
        if broker.is_running and self.controller.image.settled_epoch(broker.broker_id) == broker.epoch:
            broker.inbox += [state for _, state in self.controller.snapshot(broker.broker_id).partitions]

    def run(self, effects: list[Effect]) -> None:
        for effect in [*effects, *self.controller.turn_ended()]:
            if isinstance(effect, WriteStates):
                self.pending += effect.writes
            elif isinstance(effect, Answer):
                asked = self.asked.pop(effect.token, None)
                if asked is not None and isinstance(effect.result, AlterPartitionResponse):
                    self.answers.append((*asked, effect.result))
            elif isinstance(effect, PushDelta):
                for broker in self.brokers.values():
                    known = self.controller.image.settled_epoch(broker.broker_id)
                    if broker.is_running and known == broker.epoch:
                        broker.inbox += [state for _, state in effect.delta.partitions]
                        if broker.broker_id in {new.broker_id for new in effect.delta.brokers}:
                            self.tell_snapshot(broker)

    def look(self) -> None:
        self.run(self.controller.brokers_changed(list(self.registered.values()), self.now))

    def finish_write(self) -> None:
        if not self.pending:
            return
        write = self.pending.pop(0)
        version = -1 if self.state is None else self.state.partition_epoch
        if self.random.random() < 0.9 and version == write.expected_version:
            self.zxid += 1
            self.state, self.mzxid = write.state, self.zxid
        self.run(self.controller.states_found([(T0, self.state)]))

    # Brokers

    def register(self, broker: Broker) -> None:
        end = len(broker.log)
        lossy = (LossyReplica("t", 0, TOPIC_ID, broker.epochs.latest_epoch, end),) if broker.is_lossy else ()
        self.registered[broker.broker_id] = BrokerRegistration(
            broker.broker_id, broker.epoch, (Endpoint("REPLICATION", "h", 1),), lossy=lossy
        )

    def start(self, broker: Broker) -> None:
        if not broker.is_running:
            self.zxid += 1
            broker.is_running, broker.epoch = True, self.zxid
            broker.min_isr = self.min_isr
            self.register(broker)

    def stop(self, broker: Broker, *, loses: bool = False) -> None:
        if not broker.is_running:
            return
        broker.is_running = False
        broker.state = broker.leader = None
        broker.inbox.clear()
        if loses and broker.broker_id in self.frail:
            broker.truncate(self.random.randint(broker.flushed, len(broker.log)))
            broker.epochs = EpochCache(list(broker.epochs.entries))  # forgets what it saw of what is gone
            broker.is_lossy = True
        if self.random.random() < 0.5:
            self.registered.pop(broker.broker_id)

    def expire(self, broker: Broker) -> None:
        if not broker.is_running:
            self.registered.pop(broker.broker_id, None)

    def hear(self, broker: Broker) -> None:
        if not broker.inbox:
            return
        state, known = broker.inbox.pop(0), broker.state
        if known is not None and state.leader_epoch < known.leader_epoch:
            return
        is_news = known is None or state.leader_epoch > known.leader_epoch
        if is_news:
            broker.state = state
            broker.leader = None
            if state.leader == broker.broker_id:
                self.lead(broker, state)
        elif known is not None and state.partition_epoch > known.partition_epoch:
            broker.state = state
            if broker.leader is not None:
                self.effects(broker, broker.leader.state_told(state, self.now))
        if broker.is_lossy and state.leader != NO_LEADER:
            is_out = broker.broker_id not in (*state.isr, *state.elr)
            if is_out or (state.leader == broker.broker_id and state.recovering):
                broker.is_lossy = False
                self.register(broker)

    def lead(self, broker: Broker, state: PartitionState) -> None:
        if broker.epochs.highest_seen >= state.leader_epoch or (broker.is_lossy and not state.recovering):
            return
        assert not state.recovering, "no unclean election was allowed"
        broker.epochs.assign(state.leader_epoch, len(broker.log))
        leader = broker.leader = LeaderState(
            T0,
            state,
            broker_id=broker.broker_id,
            own_broker_epoch=lambda: broker.epoch,
            live_broker_epoch=lambda other: None if other not in self.registered else self.registered[other].epoch,
            next_proposal_id=self.numbers.__next__,
            epochs=broker.epochs,
            log_end_offset=len(broker.log),
            counted_end=len(broker.log),
            high_watermark=broker.high_watermark,
            min_insync_replicas=broker.min_isr,
            lag_seconds_max=LAG_S,
            now=self.now,
        )
        self.led_epoch = max(self.led_epoch, state.leader_epoch)
        self.waiting.clear()
        for offset, record in self.acknowledged.items():
            assert len(broker.log) > offset and broker.log[offset][1] == record, (
                f"{broker.broker_id} leads without record {record}: {leader}"
            )
        self.effects(broker, leader.started(self.now))

    def effects(self, broker: Broker, effects: Effects) -> None:
        leader = broker.leader
        assert leader is not None
        for effect in effects:
            if isinstance(effect, RaiseHighWatermark):
                broker.high_watermark = effect.offset
                is_good = leader.acks_all_outcome() is ErrorCode.NONE
                for offset, record in self.waiting:
                    if offset < effect.offset and is_good and broker.log[offset] == (leader.leader_epoch, record):
                        self.acknowledged[offset] = record
                self.waiting = [entry for entry in self.waiting if entry[0] >= effect.offset]
            else:
                self.proposals.append((broker.broker_id, broker.epoch, effect.proposal))

    def append(self, broker: Broker) -> None:
        leader = broker.leader
        if leader is None or leader.append_refusal(-1) is not None:
            return
        record = next(self.numbers)
        self.waiting.append((len(broker.log), record))
        broker.append((leader.leader_epoch, record))
        self.effects(broker, leader.appended(len(broker.log), len(broker.log), self.now))

    def fetch(self, broker: Broker) -> None:
        state = broker.state
        source = None if state is None else self.brokers.get(state.leader)
        if not broker.is_running or state is None or source is None or source.leader is None or source is broker:
            return
        leader = source.leader
        contact = FollowerContact(broker.broker_id, broker.epoch, self.now)
        end = len(broker.log)
        refusal = leader.fetch_refusal(contact, state.leader_epoch, end, broker.epochs.latest_epoch, 0)
        if refusal is not None:
            if refusal.diverging_end >= 0:
                own = broker.epochs.end_offset_for(refusal.diverging_epoch, end)
                broker.truncate(min(refusal.diverging_end, end if own is None else own[1]))
            elif refusal.error is ErrorCode.OFFSET_OUT_OF_RANGE:
                broker.truncate(min(end, leader.log_end_offset))
            return
        self.effects(source, leader.follower_fetched(contact, end, end, 0, self.now))
        for entry in source.log[end : end + self.random.randint(0, 3)]:
            broker.append(entry)
        broker.high_watermark = min(leader.high_watermark, len(broker.log))

    def propose(self) -> None:
        if not self.proposals:
            return
        broker_id, epoch, proposal = self.proposals.pop(self.random.randrange(len(self.proposals)))
        token = next(self.numbers)
        self.asked[token] = broker_id, epoch
        request = AlterPartitionRequest(broker_id, epoch, (proposal,))
        self.run(self.controller.isr_change_requested(token, request))
        leader = self.brokers[broker_id].leader
        if leader is not None and leader.isr.state.proposal == proposal:
            self.proposals.append((broker_id, epoch, proposal))  # until it is answered

    def answer(self) -> None:
        if not self.answers:
            return
        broker_id, epoch, response = self.answers.pop(0)
        broker = self.brokers[broker_id]
        if broker.leader is None or broker.epoch != epoch:
            return
        for answer in response.answers:
            self.effects(broker, broker.leader.isr_answered(answer, self.now)[1])

    # Settings

    def change_minimum(self) -> None:
        self.min_isr = self.random.choice(self.minima)

    def controller_hears_minimum(self) -> None:
        self.run(self.controller.topic_rules_changed("t", TopicRules(min_insync_replicas=self.min_isr)))

    def broker_hears_minimum(self, broker: Broker) -> None:
        broker.min_isr = self.min_isr
        if broker.leader is not None:
            self.effects(broker, broker.leader.min_isr_changed(self.min_isr, self.now))

    # Time

    def step(self) -> None:
        broker = self.brokers[self.random.choice(self.replicas)]
        others = list(self.brokers.values())
        steps: list[tuple[float, Callable[[], object]]] = [
            (8, lambda: list(map(self.append, others))),
            (12, lambda: list(map(self.fetch, others))),
            (12, lambda: self.fetch(broker)),
            (16, lambda: self.hear(broker)),
            (10, self.finish_write),
            (6, self.look),
            (8, self.propose),
            (8, self.answer),
            (4, lambda: self.start(broker)),
            (0.4, lambda: self.stop(broker)),
            (0.6, lambda: self.stop(broker, loses=True)),
            (3, lambda: self.expire(broker)),
            (2, lambda: setattr(broker, "flushed", len(broker.log))),
            (1, lambda: self.lag(broker)),
            (1, self.change_minimum),
            (1, self.controller_hears_minimum),
            (1, lambda: self.broker_hears_minimum(broker)),
            (0.2, self.take_office),
        ]
        self.now += self.random.random() * 0.2
        self.random.choices([act for _, act in steps], [weight for weight, _ in steps])[0]()

    def lag(self, broker: Broker) -> None:
        if broker.leader is not None:
            self.now += LAG_S * 1.2
            self.effects(broker, broker.leader.shrink_if_lagging(self.now))

    def heal(self) -> None:
        for broker in self.brokers.values():
            self.start(broker)
        for _ in range(60):
            self.look()
            self.finish_write()
            self.controller_hears_minimum()
            for broker in self.brokers.values():
                while broker.inbox:
                    self.hear(broker)
                self.broker_hears_minimum(broker)
                for _ in range(3):
                    self.fetch(broker)
            self.propose()
            self.answer()


@pytest.mark.parametrize("block", range(10))
def test_nothing_acknowledged_is_lost_while_fewer_lose_power_than_the_minimum(block: int) -> None:
    acknowledged = eligible = 0
    for seed in range(block * 60, block * 60 + 60):
        world = World(seed)
        for broker in world.brokers.values():
            world.start(broker)
        for _ in range(400):
            world.step()
            eligible += world.state is not None and bool(world.state.elr)
        world.heal()
        state = world.state
        assert state is not None and state.leader != NO_LEADER, (seed, state, world.registered)
        leader = world.brokers[state.leader]
        assert leader.leader is not None, (seed, state)
        for offset, record in world.acknowledged.items():
            assert leader.log[offset][1] == record, (seed, offset)
        acknowledged += len(world.acknowledged)
    assert acknowledged > 300
    assert eligible > 1000

"""Random events, writes that fail or are overtaken: the rules of a partition's state hold after every step."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkbroker.controller.cluster_image import Placement, TopicImage, TopicRules
from zkbroker.controller.controller import Controller
from zkbroker.controller.effects import Answer, Effect, PushDelta, StateWrite, WriteStates
from zkbroker.controller.elections import (
    Election,
    elect_for_shutdown,
    elect_offline,
    elect_preferred,
    elect_reassigned,
    elected,
)
from zkbroker.controller.office import ControllerRules
from zkbroker.model.channel import AlterPartitionRequest, IsrProposal
from zkbroker.model.cluster import BrokerRegistration, Endpoint
from zkbroker.model.errors import InvariantViolation
from zkbroker.model.topics import NO_LEADER, PartitionState, TopicPartition

BROKERS = (1, 2, 3, 4)


class World:
    """ZooKeeper's states, brokers that come and go, leaders that change their ISR; terms of a controller."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.zxid = 100
        self.now = 0.0
        self.brokers: dict[int, BrokerRegistration] = {}
        self.states: dict[TopicPartition, PartitionState] = {}
        self.mzxids: dict[TopicPartition, int] = {}
        self.topics = [
            TopicImage("t", "id-t", {n: Placement(tuple(self.random.sample(BROKERS, 3))) for n in range(3)}),
            TopicImage("u", "id-u", {0: Placement((self.random.choice(BROKERS),))}),
        ]
        self.epoch = 0
        self.pending: list[StateWrite] = []
        self.open_tokens: dict[int, None] = {}
        self.token = 0
        self.told: dict[TopicPartition, PartitionState] = {}
        self.take_office()

    def take_office(self) -> None:
        self.epoch += 1
        self.pending.clear()
        self.open_tokens.clear()
        self.told.clear()
        self.controller = Controller(1, self.epoch, ControllerRules())
        states = {tp: (state, self.mzxids[tp]) for tp, state in self.states.items()}
        brokers = list(self.brokers.values())
        self.run(self.controller.cluster_read(brokers, self.topics, states, {}, [], self.now))
        self.told.update(self.controller.snapshot(1).partitions)

    def run(self, effects: list[Effect]) -> None:
        for effect in [*effects, *self.controller.turn_ended()]:
            if isinstance(effect, WriteStates):
                writing = [write.partition for write in self.pending]
                assert not set(writing) & {write.partition for write in effect.writes}, "two writes under way"
                self.pending += effect.writes
            elif isinstance(effect, Answer):
                del self.open_tokens[effect.token]
            elif isinstance(effect, PushDelta):
                for partition, state in effect.delta.partitions:
                    before = self.told.get(partition)
                    assert before is None or state.partition_epoch > before.partition_epoch
                    self.told[partition] = state
                    assert self.states[partition] == state, "told before it was written"

    def register(self, broker_id: int) -> None:
        self.zxid += 1
        self.brokers[broker_id] = BrokerRegistration(broker_id, self.zxid, (Endpoint("REPLICATION", "h", 1),))

    def look(self) -> None:
        self.run(self.controller.brokers_changed(list(self.brokers.values()), self.now))

    def finish_write(self, happens: bool = True) -> None:
        if not self.pending:
            return
        write = self.pending.pop(self.random.randrange(len(self.pending)))
        before = self.states.get(write.partition)
        if happens and (-1 if before is None else before.partition_epoch) == write.expected_version:
            self.check_step(before, write.state)
            self.zxid += 1
            self.states[write.partition] = write.state
            self.mzxids[write.partition] = self.zxid
        self.run(self.controller.states_found([(write.partition, self.states.get(write.partition))]))

    def check_step(self, before: PartitionState | None, after: PartitionState) -> None:
        assert after.isr and set(after.isr) <= set(after.replicas) and len(set(after.isr)) == len(after.isr)
        assert after.leader == NO_LEADER or after.leader in after.isr
        assert not after.recovering or len(after.isr) == 1
        if before is None:
            assert (after.leader_epoch, after.partition_epoch) == (0, 0)
            return
        assert after.partition_epoch == before.partition_epoch + 1
        if after.leader_epoch == before.leader_epoch:
            assert after.leader == before.leader  # an ISR change of the leader
        else:
            assert after.leader_epoch == before.leader_epoch + 1
            if not after.recovering:
                assert set(after.isr) <= set(before.isr), "a clean election adds nobody"

    def propose(self) -> None:
        partition = self.random.choice(sorted(self.states)) if self.states else None
        if partition is None or self.states[partition].leader not in self.brokers:
            return
        state = self.states[partition]
        others = [broker for broker in state.replicas if broker != state.leader and broker in self.brokers]
        isr = [state.leader, *self.random.sample(others, self.random.randint(0, len(others)))]
        members = tuple((member, self.brokers[member].epoch) for member in isr)
        proposal = IsrProposal(*partition, state.topic_id, 1, state.leader_epoch, state.partition_epoch, members, False)
        self.token += 1
        self.open_tokens[self.token] = None
        sender = self.brokers[state.leader]
        request = AlterPartitionRequest(sender.broker_id, sender.epoch, (proposal,))
        self.run(self.controller.isr_change_requested(self.token, request))

    def shutdown(self) -> None:
        known = sorted(self.controller.image.brokers)
        if known:
            broker_id = self.random.choice(known)
            self.token += 1
            self.open_tokens[self.token] = None
            epoch = self.controller.image.broker_epoch(broker_id)
            assert epoch is not None
            self.run(self.controller.shutdown_requested(self.token, broker_id, epoch))

    def step(self) -> None:
        broker_id = self.random.choice(BROKERS)
        self.now += self.random.random() * 60
        actions: list[Callable[[], None]] = [
            lambda: self.register(broker_id),
            lambda: self.register(broker_id),
            lambda: self.brokers.pop(broker_id, None) and None,
            self.look,
            self.look,
            self.look,
            self.finish_write,
            self.finish_write,
            self.finish_write,
            lambda: self.finish_write(happens=False),
            self.propose,
            self.propose,
            self.shutdown,
            lambda: self.run(self.controller.time_passed(self.now)),
            lambda: self.run(self.controller.topic_rules_changed("t", TopicRules(unclean=self.random.random() < 0.3))),
            lambda: self.run(self.controller.log_dir_failed(broker_id, [TopicPartition("t", 0)], "I/O error")),
        ]
        if self.random.random() < 0.02:
            self.take_office()
        else:
            self.random.choice(actions)()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_states_keep_their_rules_and_all_is_well_in_the_end(seed: int) -> None:
    world = World(seed)
    for _ in range(120):
        world.step()
    for broker_id in BROKERS:  # heal: everybody registers anew
        world.register(broker_id)
    world.look()
    for _ in range(200):
        world.finish_write()
    assert world.pending == []
    assert list(world.open_tokens) == []
    assert all(state.leader != NO_LEADER for state in world.states.values()), (seed, world.states)
    assert len(world.states) == 4
    assert world.told == world.states


STATE = PartitionState("id", (1, 2, 3), 1, 4, (3, 1, 2), 7, 1)


def test_the_four_elections() -> None:
    def online(broker: int) -> bool:
        return broker in (2, 3)

    def short(election: Election | None) -> object:
        return None if election is None else election[:3]

    assert short(elect_offline((1, 2, 3), (3, 1, 2), online, unclean=False)) == (2, (3, 2), False)
    assert elect_offline((1, 2, 3), (1,), online, unclean=False) is None
    assert short(elect_offline((1, 2, 3), (1,), online, unclean=True)) == (2, (2,), True)
    assert short(elect_offline((1, 2, 3), (3, 1), online, unclean=True)) == (3, (3,), False)
    assert elect_preferred((1, 2), (1, 2), online) is None
    assert short(elect_preferred((2, 1), (1, 2), online)) == (2, (1, 2), False)
    assert elect_preferred((2, 1), (1,), online) is None
    assert short(elect_reassigned((1, 3), (1, 2, 3), online)) == (3, (1, 2, 3), False)
    assert elect_reassigned((1,), (1, 2, 3), online) is None
    assert short(elect_for_shutdown((1, 2, 3), (1, 2, 3), lambda broker: True, lambda broker: broker == 1)) == (
        2,
        (2, 3),
        False,
    )
    assert elect_for_shutdown((1, 2), (1,), lambda broker: True, lambda broker: broker == 1) is None


def test_an_election_that_breaks_the_rules_raises() -> None:
    with pytest.raises(InvariantViolation):
        elected(STATE, elect_preferred((2,), (2,), bool)._replace(isr=(3,)), 1, "")  # type: ignore[union-attr]

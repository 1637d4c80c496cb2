"""A leader whom the controller does not reach reads in ZooKeeper that another leads, or how it leads on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from twisted.internet.task import Clock

from tests.fakes.zookeeper import FakeZooKeeper
from tests.unit.controller_cluster import Clocks
from zkbroker.broker.own_states import OwnStates
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.zookeeper.client import ZooKeeperClient
from zkbroker.zookeeper.znodes import states as state_znode
from zkbroker.zookeeper.znodes import topics as topic_znode

T0 = TopicPartition("t", 0)
T1 = TopicPartition("t", 1)
ID, OTHER_ID = "A" * 22, "B" * 21 + "A"
STATE = PartitionState(ID, (1, 2, 3), 1, 4, (1, 2, 3), 0, 1)
TIMEOUT_S = 6.0


class Broker:
    """Broker 1 leads two partitions; the controller was heard when the test says so."""

    def __init__(self) -> None:
        self.reactor = Clock()
        clock = Clocks(self.reactor)
        self.ensemble = FakeZooKeeper(self.reactor, clock, latency=0.001)
        session = self.ensemble.session(session_timeout_s=TIMEOUT_S, name="1")
        session.start()
        self.session = session
        self.zk: ZooKeeperClient = session
        self.led = {T0: STATE, T1: STATE}
        self.controller_age = 0.0
        self.deposed: dict[TopicPartition, PartitionState] = {}
        self.led_on: list[tuple[TopicPartition, PartitionState]] = []
        self.lines: list[str] = []
        self.touches: list[bool] = []
        self.confirmed: list[float] = []
        self.passes(0.1)
        for partition in self.led:
            self.zk.create(state_znode.state_path(*partition), state_znode.encode(STATE), make_parents=True)
        self.passes(0.1)
        self.own = OwnStates(
            broker_id=1,
            reactor=self.reactor,
            clock=clock,
            zk=self.zk,
            session_timeout_s=TIMEOUT_S,
            led=lambda: list(self.led.items()),
            controller_age=lambda: self.controller_age,
            told=self.take,
            log=self.lines.append,
            out_of_touch=self.touches.append,
            confirmed=self.confirmed.append,
        )
        self.own.start()

    def take(self, states: Sequence[tuple[TopicPartition, PartitionState]]) -> None:
        for partition, state in states:
            if state.leader == 1:
                self.led_on.append((partition, state))
                self.led[partition] = state
            else:
                self.deposed[partition] = state
                del self.led[partition]

    def assign(self, topic_id: str = ID, replicas: tuple[int, ...] = (1, 2, 3)) -> None:
        """Write the topic's znode."""
        topic = topic_znode.TopicAssignment(topic_id, {0: replicas, 1: replicas})
        path = topic_znode.topic_path("t")
        self.zk.set(path, topic_znode.encode(topic))
        self.passes(0.1)

    def write(self, partition: TopicPartition, **changed: object) -> None:
        state = STATE._replace(**changed)  # type: ignore[arg-type]
        self.zk.set(state_znode.state_path(*partition), state_znode.encode(state))
        self.passes(0.1)

    def passes(self, seconds: float) -> None:
        self.reactor.pump([0.05] * round(seconds / 0.05))


@pytest.fixture
def broker() -> Broker:
    return Broker()


def test_it_steps_down_from_what_another_leads_and_goes_on_with_the_rest(broker: Broker) -> None:
    broker.controller_age = 2.5
    broker.write(T1, leader=2, leader_epoch=5, isr=(2, 3), reason="2 of 2 ISR followers cannot reach broker 1")
    broker.passes(1.0)
    assert list(broker.deposed) == [T1]
    state = broker.deposed[T1]
    assert (state.leader, state.leader_epoch, state.isr, state.partition_epoch) == (2, 5, (2, 3), 1)
    assert (state.topic_id, state.replicas) == (ID, (1, 2, 3))
    assert list(broker.led) == [T0]


def test_what_is_led_is_confirmed_by_an_answer_about_all_of_it(broker: Broker) -> None:
    broker.controller_age = TIMEOUT_S
    asked_at = broker.reactor.seconds()
    broker.passes(TIMEOUT_S)
    assert broker.confirmed and all(at >= asked_at for at in broker.confirmed)
    broker.led[TopicPartition("gone", 0)] = STATE
    broker.passes(0.1)
    broker.confirmed.clear()
    broker.passes(TIMEOUT_S)
    assert broker.confirmed == []


def test_while_the_controller_is_heard_it_asks_nobody(broker: Broker) -> None:
    broker.write(T1, leader=2, leader_epoch=5, isr=(2, 3))
    broker.controller_age = 1.9
    broker.passes(5.0)
    assert broker.deposed == {}
    broker.controller_age = 2.1
    broker.passes(1.0)
    assert list(broker.deposed) == [T1]


def test_it_leads_on_as_the_controller_wrote_it(broker: Broker) -> None:
    """A follower left the ISR: the leader epoch rises by that, and the other followers know it already."""
    broker.assign()
    broker.controller_age = 10.0
    broker.write(T1, leader_epoch=5, isr=(1, 3), elr=(2,), partition_epoch=1, controller_epoch=2, reason="2 is cut off")
    broker.passes(2.0)
    state = STATE._replace(
        leader_epoch=5,
        isr=(1, 3),
        elr=(2,),
        partition_epoch=1,
        controller_epoch=2,
        reason="2 is cut off",
        leader_reason="2 is cut off",
    )
    assert broker.led_on == [(T1, state)], "once, and nothing of the other partition"
    assert broker.deposed == {}


def test_it_takes_the_outcome_of_its_own_proposal_whose_answer_was_lost(broker: Broker) -> None:
    broker.assign(replicas=(1, 2, 4))
    broker.controller_age = 10.0
    broker.write(T0, isr=(1, 2))
    broker.passes(1.0)
    assert broker.led_on == [(T0, STATE._replace(isr=(1, 2), partition_epoch=1, replicas=(1, 2, 4)))]


def test_it_takes_no_older_state_and_none_that_another_leads_in_the_same_epoch(broker: Broker) -> None:
    broker.assign()
    broker.controller_age = 10.0
    broker.write(T0, leader=1, leader_epoch=3, isr=(1,))
    broker.write(T1, leader=2, leader_epoch=4, isr=(2, 3))
    broker.passes(2.0)
    assert broker.deposed == {} and broker.led_on == []


@pytest.mark.parametrize(("topic_id", "replicas"), [(OTHER_ID, (1, 2, 3)), (ID, (2, 3)), (ID, (1, 2)), (None, ())])
def test_it_does_not_lead_what_the_topics_znode_does_not_give_it(
    broker: Broker, topic_id: str | None, replicas: tuple[int, ...]
) -> None:
    """Deleted and created again, or not assigned like this: the leadership may be another's by now."""
    if topic_id is not None:
        broker.assign(topic_id, replicas)
    broker.controller_age = 10.0
    broker.write(T0, leader_epoch=9, isr=(1, 3))
    broker.passes(2.0)
    assert broker.led_on == [] and broker.deposed == {}


def test_a_leadership_that_was_dropped_while_zookeeper_was_asked_is_not_taken_up(broker: Broker) -> None:
    """The registration was lost: only the controller may give it again, to the next incarnation."""
    broker.assign()
    broker.write(T0, leader_epoch=5, isr=(1, 3))
    broker.controller_age = 10.0
    asked: list[str] = []
    get = broker.zk.get

    def get_and_lose(path: str, *args: object) -> object:
        asked.append(path)
        if path == topic_znode.topic_path("t"):
            broker.led.clear()
        return get(path, *args)  # type: ignore[arg-type]

    broker.zk.get = get_and_lose  # type: ignore[method-assign, assignment]
    broker.passes(2.0)
    assert topic_znode.topic_path("t") in asked
    assert broker.led_on == []


def test_without_a_leader_it_steps_down_too(broker: Broker) -> None:
    broker.controller_age = 10.0
    broker.write(T0, leader=-1, leader_epoch=5, isr=(1,))
    broker.passes(1.0)
    assert broker.deposed[T0].leader == -1


def test_what_does_not_decode_or_is_gone_hinders_nothing(broker: Broker) -> None:
    broker.controller_age = 10.0
    broker.zk.set(state_znode.state_path(*T0), b"{")
    broker.passes(1.0)
    broker.zk.delete(state_znode.state_path(*T0))
    broker.write(T1, leader=3, leader_epoch=5, isr=(3,))
    broker.passes(1.0)
    assert list(broker.deposed) == [T1]


def test_it_tells_when_neither_controller_nor_zookeeper_is_heard(broker: Broker) -> None:
    broker.controller_age = 10.0
    broker.passes(2.0)
    assert broker.touches == []
    broker.session.disconnect()
    broker.passes(2.0)
    assert broker.touches and all(broker.touches)
    broker.controller_age = 0.1
    broker.passes(2.0)
    assert broker.touches.count(False) == 1 and broker.touches[-1] is False


def test_a_stopped_one_asks_no_more(broker: Broker) -> None:
    broker.controller_age = 10.0
    broker.own.stop()
    broker.write(T1, leader=3, leader_epoch=5, isr=(3,))
    broker.passes(3.0)
    assert broker.deposed == {}

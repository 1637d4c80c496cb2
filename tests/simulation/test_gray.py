"""Gray failures in the simulated world: brokers that live for ZooKeeper and for nobody else, disks that hang."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.simulation.process import Node
from tests.simulation.settings import WorldSettings
from tests.simulation.simple import (
    TOPIC,
    booted,
    consume,
    controller_of,
    create_topic,
    in_process,
    isr_of,
    leader_of,
    produce,
)
from tests.simulation.world import World
from zkbroker.model.channel import NewTopic

TIMEOUT_S = 3.0
SEEDS = range(41, 46)


def world_of(seed: int, brokers: int = 3) -> World:
    """A follower that lags stays in the ISR for a minute, so that only complaints can help in time."""
    config = {"replica.lag.time.max.ms": "60000", "log.dir.stall.ms": "1000", "auto.leader.rebalance.enable": "false"}
    return booted(seed, WorldSettings(brokers=brokers, session_timeout_s=TIMEOUT_S, config=config))


def state_of(world: World) -> dict[str, Any]:
    data = world.zookeeper.data(f"/brokers/topics/{TOPIC}/partitions/0/state")
    assert data is not None
    state: dict[str, Any] = json.loads(data)
    return state


def led(world: World, is_controller: bool) -> Node:
    """A topic whose leader is the controller, or is not."""
    assert world.run_until(lambda: controller_of(world) is not None, 10.0)
    controller = controller_of(world)
    assert controller is not None and controller.parts is not None
    others = [broker_id for broker_id in world.nodes if broker_id != controller.broker_id]
    replicas = (controller.broker_id, *others) if is_controller else (*others, controller.broker_id)
    admin, answers = controller.parts.admin, list[Any]()
    topic = NewTopic(TOPIC, assignment=((0, replicas),))
    in_process(controller, lambda: admin.create_topics([topic], 5_000, False).addBoth(answers.append))
    assert world.run_until(lambda: answers and leader_of(world) is not None and len(isr_of(world)) == 3, 10.0)
    leader = leader_of(world)
    assert leader is not None and (leader is controller) is is_controller
    produce(world, b"before")
    return leader


def isolate(world: World, broker_id: int) -> None:
    """From the other brokers, not from ZooKeeper and clients."""
    for other in world.nodes:
        if other != broker_id:
            world.cut(broker_id, other)


def leads(node: Node) -> bool:
    return node.parts is not None and bool(node.parts.replicas.led())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_leader_cut_off_is_followed_within_the_timeout_and_hears_of_it_from_zookeeper(seed: int) -> None:
    with world_of(seed) as world:
        leader = led(world, is_controller=False)
        isolate(world, leader.broker_id)
        assert world.run_until(lambda: state_of(world)["leader"] != leader.broker_id, TIMEOUT_S)
        state = state_of(world)
        assert state["reason"] == f"2 of 2 ISR followers cannot reach broker {leader.broker_id}"
        assert leader.broker_id not in state["isr"]
        assert world.run_until(lambda: not leads(leader), TIMEOUT_S)
        produce(world, b"meanwhile", seconds_max=1.0)
        world.run_for(3 * TIMEOUT_S)
        assert state_of(world) == state
        world.heal_all()
        assert world.run_until(lambda: len(isr_of(world)) == 3, 20.0)
        assert consume(world) == [b"before", b"meanwhile"]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_controller_cut_off_that_leads_loses_both_within_the_timeout_and_once(seed: int) -> None:
    with world_of(seed) as world:
        leader = led(world, is_controller=True)
        isolate(world, leader.broker_id)
        assert world.run_until(lambda: state_of(world)["leader"] != leader.broker_id, TIMEOUT_S)
        epoch = world.zookeeper.data("/controller_epoch")
        produce(world, b"meanwhile", seconds_max=1.0)
        world.run_for(5 * TIMEOUT_S)
        assert world.zookeeper.data("/controller_epoch") == epoch
        assert controller_of(world) not in (None, leader)
        world.heal_all()
        assert world.run_until(lambda: len(isr_of(world)) == 3, 20.0)
        assert consume(world) == [b"before", b"meanwhile"]


@pytest.mark.parametrize("seed", SEEDS)
def test_two_brokers_cut_from_each_other_keep_their_controller_and_one_of_them_leads(seed: int) -> None:
    with world_of(seed, brokers=2) as world:
        create_topic(world, **{"min.insync.replicas": "1"})
        assert world.run_until(lambda: len(isr_of(world)) == 2, 10.0)
        produce(world, b"before")
        epoch = world.zookeeper.data("/controller_epoch")
        isolate(world, 1)
        assert world.run_until(lambda: len(isr_of(world)) == 1, TIMEOUT_S)
        state = state_of(world)
        world.run_for(10 * TIMEOUT_S)
        assert world.zookeeper.data("/controller_epoch") == epoch
        assert state_of(world) == state
        world.heal_all()
        assert world.run_until(lambda: len(isr_of(world)) == 2, 20.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_leader_whose_flushes_hang_is_followed_on_its_own_word(seed: int) -> None:
    with world_of(seed) as world:
        create_topic(world, **{"flush.messages": "1"})
        assert world.run_until(lambda: len(isr_of(world)) == 3, 10.0)
        produce(world, b"before")
        leader = leader_of(world)
        assert leader is not None
        world.disk_slow(leader.broker_id, 60.0)
        began = world.now
        assert produce(world, b"meanwhile", seconds_max=TIMEOUT_S) >= 1
        assert world.now - began < TIMEOUT_S
        assert state_of(world)["reason"].startswith(f"broker {leader.broker_id}'s log folder /data stalled for 1.")
        assert state_of(world)["leader"] != leader.broker_id


@pytest.mark.parametrize("is_controller", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_leader_that_hangs_in_its_disk_is_followed_when_its_session_would_end(seed: int, is_controller: bool) -> None:
    """ZooKeeper's threads keep its session: its peers or its own watchdog end the leadership."""
    with world_of(seed) as world:
        leader = led(world, is_controller)
        world.stall(leader.broker_id, 10 * TIMEOUT_S, in_disk=True)
        limit_s = TIMEOUT_S + world.settings.zookeeper_tick_s + 1.0
        assert world.run_until(lambda: state_of(world)["leader"] != leader.broker_id, limit_s)
        assert world.run_until(lambda: not leader.is_running, TIMEOUT_S)
        produce(world, b"meanwhile", seconds_max=1.0)
        world.start(leader.broker_id)
        assert world.run_until(lambda: len(isr_of(world)) == 3, 20.0)
        assert consume(world) == [b"before", b"meanwhile"]

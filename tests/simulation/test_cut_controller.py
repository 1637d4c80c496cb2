"""A leader and the controller do not hear each other, though ZooKeeper hears both and the other brokers hear all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from tests.simulation.process import Node
from tests.simulation.simple import TOPIC, consume, controller_of, in_process, isr_of, leader_of, produce
from tests.simulation.test_gray import TIMEOUT_S, isolate, state_of, world_of
from tests.simulation.world import World
from zkbroker.model.channel import NewTopic
from zkbroker.model.errors import ErrorCode

SEEDS = range(61, 67)


class Cast(NamedTuple):
    leader: Node
    controller: Node
    others: Sequence[Node]


def topic_of(world: World, replicas: int, *, with_controller: bool, min_isr: int = 2) -> Cast:
    """A topic that the controller does not lead, and follows or does not."""
    assert world.run_until(lambda: controller_of(world) is not None, 10.0)
    controller = controller_of(world)
    assert controller is not None and controller.parts is not None
    ids = [broker_id for broker_id in world.nodes if broker_id != controller.broker_id]
    assigned = (*ids[: replicas - 1], controller.broker_id) if with_controller else tuple(ids[:replicas])
    admin, answers = controller.parts.admin, list[Any]()
    topic = NewTopic(TOPIC, assignment=((0, assigned),), configs=(("min.insync.replicas", str(min_isr)),))
    in_process(controller, lambda: admin.create_topics([topic], 5_000, False).addBoth(answers.append))
    assert world.run_until(lambda: answers and len(isr_of(world)) == replicas and leader_of(world) is not None, 10.0)
    assert answers[0][0].error is ErrorCode.NONE
    leader = leader_of(world)
    assert leader is world.nodes[ids[0]]
    produce(world, b"before")
    return Cast(leader, controller, [world.nodes[other] for other in ids[1:]])


def cut_lasts(world: World, cast: Cast) -> None:
    """It ends for acks=all within the session timeout, and nobody else is bothered; then it is over."""
    controller_epoch = world.zookeeper.data("/controller_epoch")
    world.cut(cast.leader.broker_id, cast.controller.broker_id)
    produce(world, b"meanwhile", seconds_max=TIMEOUT_S)
    for _ in range(3):
        world.run_for(TIMEOUT_S)
        produce(world, b"later", seconds_max=1.0)
    assert world.zookeeper.data("/controller_epoch") == controller_epoch


def all_is_well_again(world: World, replicas: int) -> None:
    world.heal_all()
    assert world.run_until(lambda: len(isr_of(world)) == replicas, 20.0)
    produce(world, b"after", seconds_max=1.0)
    values = consume(world)
    # An attempt that timed out may have been appended too.
    assert list(dict.fromkeys(values)) == [b"before", b"meanwhile", b"later", b"after"]


@pytest.mark.parametrize("brokers", [3, 4, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_controller_that_follows_leaves_the_isr_and_the_leader_hears_of_it_from_zookeeper(
    seed: int, brokers: int
) -> None:
    with world_of(seed, brokers) as world:
        cast = topic_of(world, 3, with_controller=True)
        cut_lasts(world, cast)
        state = state_of(world)
        assert state["leader"] == cast.leader.broker_id
        assert cast.controller.broker_id not in state["isr"] and len(state["isr"]) == 2
        assert state["reason"] == f"broker {cast.controller.broker_id} cannot reach broker {cast.leader.broker_id}"
        all_is_well_again(world, 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_five_replicas_go_on_as_four(seed: int) -> None:
    with world_of(seed, 5) as world:
        cast = topic_of(world, 5, with_controller=True, min_isr=3)
        cut_lasts(world, cast)
        assert len(state_of(world)["isr"]) == 4
        all_is_well_again(world, 5)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_controller_that_is_the_only_follower_leads(seed: int) -> None:
    with world_of(seed) as world:
        cast = topic_of(world, 2, with_controller=True, min_isr=1)
        cut_lasts(world, cast)
        state = state_of(world)
        assert (state["leader"], state["isr"]) == (cast.controller.broker_id, [cast.controller.broker_id])
        all_is_well_again(world, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_controller_that_does_not_follow_is_not_missed(seed: int) -> None:
    with world_of(seed, 4) as world:
        cast = topic_of(world, 3, with_controller=False)
        before = state_of(world)
        cut_lasts(world, cast)
        assert state_of(world) == before
        all_is_well_again(world, 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_follower_that_dies_meanwhile_is_not_waited_for(seed: int) -> None:
    """The leader cannot ask for it and is not told of it: the controller writes it, ZooKeeper tells."""
    with world_of(seed, 4) as world:
        cast = topic_of(world, 3, with_controller=False)
        world.cut(cast.leader.broker_id, cast.controller.broker_id)
        world.run_for(TIMEOUT_S)
        follower = next(node for node in cast.others if node.broker_id in isr_of(world))
        world.kill(follower.broker_id)
        produce(world, b"meanwhile", seconds_max=2 * TIMEOUT_S)
        assert follower.broker_id not in isr_of(world)
        assert state_of(world)["leader"] == cast.leader.broker_id
        produce(world, b"later", seconds_max=1.0)
        world.start(follower.broker_id)
        all_is_well_again(world, 3)


@pytest.mark.parametrize("brokers", [3, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_is_cut_off_in_office_is_followed_also_by_those_who_stepped_down_lately(
    seed: int, brokers: int
) -> None:
    """Those let others go first too; but not as long as the one who has just stepped down."""
    with world_of(seed, brokers) as world:
        held: set[int] = set()
        while len(held) < brokers:
            assert world.run_until(lambda: controller_of(world) is not None, 10.0)
            cut_off = controller_of(world)
            assert cut_off is not None
            # Who steps down again soon is more patient; each broker's first time is looked at here.
            if cut_off.broker_id in held:
                break
            held.add(cut_off.broker_id)
            isolate(world, cut_off.broker_id)
            assert world.run_until(lambda office=cut_off: controller_of(world) not in (None, office), 2 * TIMEOUT_S), (
                f"{cut_off} keeps the office, {len(held)} stepped down"
            )
            world.run_for(TIMEOUT_S)
            assert controller_of(world) is not cut_off
            world.heal_all()
            world.run_for(2 * TIMEOUT_S)
        assert len(held) >= 2

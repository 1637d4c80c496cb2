"""The simulated world itself: it runs whole brokers, and the same seed gives the same run to the byte."""

from __future__ import annotations

from tests.simulation.world import World


def booted(seed: int) -> World:
    """A world whose brokers are all ready."""
    world = World(seed)
    world.start_all()
    assert world.run_until(lambda: all(node.is_ready for node in world.nodes.values()), 10.0)
    return world


def test_three_brokers_start_and_one_is_controller() -> None:
    with booted(1) as world:
        assert sorted(world.zookeeper.children("/brokers/ids")) == ["1", "2", "3"]
        assert world.zookeeper.data("/controller") is not None


def test_the_same_seed_gives_the_same_trace_and_another_another() -> None:
    digests = []
    for seed in (5, 5, 6):
        with booted(seed) as world:
            world.run_steps(2_000)
            digests.append(world.trace.digest())
    assert digests[0] == digests[1] != digests[2]

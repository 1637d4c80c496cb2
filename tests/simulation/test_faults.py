"""The fault driver: one seed, one plan; what is left out moves nothing else; every kind of every profile exists."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.simulation.faults import FaultDriver
from tests.simulation.network import HostState
from tests.simulation.profiles import PROFILES, Profile
from zkbroker.model.topics import TopicPartition

SESSION_S = 1.5


def parts_of_leader(broker_id: int) -> Any:
    """A broker that believes that it leads, and that it is controller."""
    state = SimpleNamespace(replicas=(1, 2, 3), isr=(1, 2, 3), leader=broker_id, leader_epoch=5)
    isr = SimpleNamespace(state=SimpleNamespace(isr=state.isr, maximal=state.isr, proposal=None))
    leader = SimpleNamespace(isr=isr, min_insync_replicas=2, effective_min_isr=2, log_end_offset=0, high_watermark=0)
    replica = SimpleNamespace(partition=TopicPartition("t", 0), leader=leader, follower=None, state=state)
    return SimpleNamespace(
        replicas=SimpleNamespace(_table=SimpleNamespace(replicas={("t", 0): replica})),
        controller=SimpleNamespace(is_controller=True),
    )


class RecordingWorld:
    """A world that does nothing but write down what is done to it. Time passes by one second with ten steps."""

    def __init__(self, seed: int, brokers_count: int = 3) -> None:
        self.random = random.Random(seed)
        self.steps = 0
        self.counts: Counter[str] = Counter()
        self.settings = SimpleNamespace(session_timeout_s=SESSION_S, zookeeper_tick_s=0.2)
        self.calls: list[tuple[Any, ...]] = []
        self.zookeeper = SimpleNamespace(
            tree=SimpleNamespace(znodes={"/brokers/topics/t": None, "/brokers/topics/t/partitions/0/state": None}),
            is_serving=False,
            stat=lambda path: None,
            data=lambda path: b'{"leader":1,"leader_epoch":5,"isr":[1,2,3]}',
            write=lambda *ops: self.calls.append((self.steps, "write", ops)),
        )
        self.network = SimpleNamespace(states=dict.fromkeys(range(1, brokers_count + 1), HostState.UP))
        self.now = 0.0
        self.ran = None
        self.lines: list[str] = []
        self.trace = SimpleNamespace(add=lambda kind, text: self.lines.append(f"{self.steps} {kind} {text}"))
        process = SimpleNamespace(is_alive=True, zk=SimpleNamespace(slower_s=0.0))
        self.nodes = {
            broker_id: SimpleNamespace(
                is_running=True, is_paused=False, parts=parts_of_leader(broker_id), process=process
            )
            for broker_id in range(1, brokers_count + 1)
        }
        self._due: list[tuple[float, int, Callable[[], object]]] = []

    def __getattr__(self, name: str) -> Callable[..., object]:
        def record(*args: Any, **keywords: Any) -> bool:
            self.calls.append((self.steps, name, *args, *sorted(keywords.items())))
            return True

        return record

    def kill(self, broker_id: int, lose_unflushed: bool = False, **how: Any) -> None:
        assert self.nodes[broker_id].is_running
        self.nodes[broker_id].is_running = False
        self.calls.append((self.steps, "kill", broker_id, lose_unflushed, *sorted(how.items())))

    def start(self, broker_id: int) -> None:
        assert not self.nodes[broker_id].is_running
        self.nodes[broker_id].is_running = True
        self.calls.append((self.steps, "start", broker_id))

    def call_later(self, seconds: float, kind: str, act: Callable[[], object]) -> None:
        self._due.append((self.steps + seconds * 10, len(self.calls), act))

    def run(self, driver: FaultDriver, steps: int) -> None:
        for _ in range(steps):
            self.steps += 1
            driver.after_step(self)
            due, self._due = self._due, []
            for at, order, act in due:
                if at <= self.steps:
                    act()
                else:
                    self._due.append((at, order, act))


def driven(seed: int, profile: Profile, steps: int = 3000, **options: Any) -> tuple[RecordingWorld, FaultDriver]:
    world = RecordingWorld(seed)
    driver = FaultDriver(world, profile, **options)
    world.run(driver, steps)
    return world, driver


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_every_kind_of_a_profile_strikes(name: str) -> None:
    struck: set[str] = set()
    for seed in range(40):
        world, _ = driven(seed, PROFILES[name])
        struck |= {key.removeprefix("fault:") for key in world.counts}
    assert struck == {kind for kind, rate in PROFILES[name].rates.items() if rate > 0}


def test_one_seed_gives_one_plan_and_another_seed_another() -> None:
    one, two, other = (driven(seed, PROFILES["default"]) for seed in (5, 5, 6))
    assert one[0].calls == two[0].calls
    assert one[0].lines == two[0].lines
    assert one[0].calls != other[0].calls


def test_a_fault_that_is_left_out_moves_no_other() -> None:
    profile = Profile("resets", "", {"reset": 10.0, "slow_link": 5.0})
    _, driver = driven(9, profile)
    left_out = {fault.number for fault in driver.struck[::3]}
    _, fewer = driven(9, profile, disabled=left_out)
    assert fewer.struck == [fault for fault in driver.struck if fault.number not in left_out]
    assert left_out


def test_the_rates_are_per_thousand_steps() -> None:
    count = sum(len(driven(seed, Profile("x", "", {"reset": 7.0}), 4000)[1].struck) for seed in range(30))
    assert 0.8 < count / (30 * 7 * 3.7) < 1.2


def test_a_stopped_driver_strikes_no_more_and_leaves_the_healing_to_the_world() -> None:
    world = RecordingWorld(3)
    driver = FaultDriver(world, PROFILES["crashes"])
    world.run(driver, 2000)
    driver.stop()
    before = list(world.calls)
    world.run(driver, 2000)
    assert world.calls == before


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="earthquake"):
        FaultDriver(RecordingWorld(1), Profile("x", "", {"earthquake": 1.0}))

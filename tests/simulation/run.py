"""One run: a world of one seed under one profile, so many steps, then healed and looked at once more."""

from __future__ import annotations

import dataclasses
import functools
import logging
import random
import re
import sys
import traceback
from collections.abc import Mapping
from contextlib import nullcontext
from typing import NamedTuple

from twisted.logger import globalLogBeginner

from tests.simulation import workload
from tests.simulation.bugs import SWITCHES
from tests.simulation.checkers import install
from tests.simulation.faults import FaultDriver, Struck
from tests.simulation.mutation import applied
from tests.simulation.profiles import PROFILES
from tests.simulation.violation import Violation
from tests.simulation.workload import Workload
from tests.simulation.world import World, WorldSettings

TRACE_LINES_KEPT = 400
"""Of a run in a campaign; ``--trace`` keeps all."""

RESTART_S = 0.3
"""After so long a broker that ended is started again, once faults are over."""

UNDISTURBED_SHARE = 0.8
"""Of the runs: faults begin, and steps are counted, once the cluster stands; in the others from the first event on."""

START_S_MAX = 10.0

FLUSH_KEY = "log.flush.interval.messages"


class RunSpec(NamedTuple):
    """Everything that decides a run. ``brokers``, ``partitions`` and ``clients`` are drawn from the seed where None."""

    seed: int
    profile: str = "default"
    steps: int = 2000
    mutant: str = ""
    without_faults: tuple[int, ...] = ()
    brokers: int | None = None
    partitions: int | None = None
    clients: int | None = None
    heals: bool = True
    """Afterwards faults end, and the cluster must come round."""
    keeps_trace: bool = False


class RunResult(NamedTuple):
    """What came of it; plain data, so that a worker process can hand it over."""

    spec: RunSpec
    steps: int
    """Steps done, with those of the start and of the time after all healed; if there is a violation: until it."""
    violation: str | None
    counts: Mapping[str, int]
    faults: tuple[Struck, ...] = ()
    trace: tuple[str, ...] = ()
    traceback: str = ""

    def headline(self) -> str:
        """Seed, profile, step and the first line of the violation."""
        spec = self.spec
        mutant = f" with {spec.mutant}" if spec.mutant else ""
        first = (self.violation or "clean").splitlines()[0]
        return f"seed {spec.seed} profile {spec.profile}{mutant} step {self.steps} of {spec.steps}: {first}"

    def signature(self) -> str:
        """The violation without its numbers: two runs that have the same failed in the same way."""
        return re.sub(r"[0-9]+", "#", (self.violation or "").split("\n", 1)[0])[:48]


def run(spec: RunSpec) -> RunResult:
    """One run from its seed to the end; never raises for what the product does."""
    _quiet()
    with applied(SWITCHES[spec.mutant]) if spec.mutant else nullcontext():
        return _run(spec)


@functools.cache
def _quiet() -> None:
    """What brokers log goes to their world's trace; Twisted and ``logging`` would print it to stderr besides."""
    logging.getLogger("zkbroker").addHandler(logging.NullHandler())
    logging.getLogger("zkbroker").propagate = False
    if sys.modules.get("pytest") is None:
        globalLogBeginner.beginLoggingTo([lambda event: None], redirectStandardIO=False, discardBuffer=True)


def _run(spec: RunSpec) -> RunResult:
    shape = random.Random(f"shape of {spec.seed}")
    settings = _settings(spec, shape)
    with World(spec.seed, settings) as world:
        driver: FaultDriver | None = None
        violation, trace_back = None, ""
        try:
            clients = _workload(world, spec, shape)
            world.start_all()
            clients.start()
            if shape.random() < UNDISTURBED_SHARE:
                world.run_until(lambda: _stands(world, clients), START_S_MAX)
            world.counts["steps_of_the_start"] += world.steps
            driver = FaultDriver(world, PROFILES[spec.profile], disabled=spec.without_faults)
            world.checkers.append(driver)
            world.run_steps(spec.steps)
            driver.stop()
            if spec.heals:
                world.heal_all()
                world.checkers.append(Supervisor())
                clients.check_liveness()
            if settings.config.get(FLUSH_KEY) == "1" and world.counts["permitted_losses"]:
                raise Violation(6, f"{world.counts['permitted_losses']} losses though acknowledged means on the disk")
        except Violation as found:
            violation = str(found)
        except Exception as error:
            # The simulator's own, or a checker's: as bad as a violation, and repeated in the same way.
            violation = f"invariant -1: {type(error).__name__}: {error}"
            trace_back = traceback.format_exc()
        return RunResult(
            spec,
            world.steps,
            violation,
            dict(world.counts),
            () if driver is None else tuple(driver.struck),
            tuple(world.trace.lines()) if violation is not None or spec.keeps_trace else (),
            trace_back,
        )


def _stands(world: World, clients: Workload) -> bool:
    """Every broker serves, and every topic is there."""
    if not all(node.is_ready for node in world.nodes.values()):
        return False
    topics = {
        partition.topic for partition in clients.checkers.ghost.partitions.values() if partition.state is not None
    }
    return topics >= set(clients.settings.topics)


class Supervisor:
    """Once all is healed: starts what ends by itself, as an operator's would (a SIGTERM or a failed disk may still be
    on its way to its end)."""

    def __init__(self) -> None:
        self._restarts: dict[int, None] = {}

    def after_step(self, world: World) -> None:
        for broker_id, node in world.nodes.items():
            if not node.is_running and broker_id not in self._restarts:
                self._restarts[broker_id] = None
                world.call_later(RESTART_S, "supervisor", lambda broker_id=broker_id: self._start(world, broker_id))

    def _start(self, world: World, broker_id: int) -> None:
        del self._restarts[broker_id]
        world.start(broker_id)


def _settings(spec: RunSpec, shape: random.Random) -> WorldSettings:
    """The shape of the cluster: drawn from the seed, the same for every profile."""
    profile = PROFILES[spec.profile]
    brokers = shape.randint(profile.brokers_min, profile.brokers_max)
    config = {"min.insync.replicas": shape.choice(("1", "2", "2", "2", "2"))}
    if shape.random() < 0.2 or profile.flushes:
        config[FLUSH_KEY] = "1"
    config.update(profile.config)
    if shape.random() < 0.3:
        config["log.segment.bytes"] = "1500"
    brokers = spec.brokers or brokers
    own_config: dict[int, dict[str, str]] = {}
    replication_factor_max = 3
    if profile.odd_shapes:
        odd = random.Random(f"odd shape of {spec.seed}")
        brokers = spec.brokers or odd.choice((1, 2, 3, 4))
        replication_factor_max = odd.choice((1, 2, 2, 3))
        config["min.insync.replicas"] = odd.choice(("1", "2", "3"))
        own_config = _own_config(brokers, odd)
    return WorldSettings(
        brokers=brokers,
        own_config=own_config,
        replication_factor_max=replication_factor_max,
        session_timeout_s=shape.choice((1.0, 1.5, 2.0)),
        config=config,
        late_share=shape.choice((0.01, 0.02, 0.1)),
        late_s_max=shape.choice((0.02, 0.1, 0.4)),
        split_share=shape.choice((0.0, 0.1, 0.3)),
        trace_lines_max=None if spec.keeps_trace else TRACE_LINES_KEPT,
    )


def _own_config(brokers: int, odd: random.Random) -> dict[int, dict[str, str]]:
    """Keys in which the brokers of one cluster may differ: who waits for sessions, who flushes."""
    every = odd.choice((0, 1, 2))
    own: dict[int, dict[str, str]] = {broker_id: {} for broker_id in range(1, brokers + 1)}
    for broker_id, keys in own.items():
        if every and broker_id % every == 0:
            keys["broker.failure.detection"] = "session"
        if odd.random() < 0.2:
            keys[FLUSH_KEY] = "1"
    return own


def _workload(world: World, spec: RunSpec, shape: random.Random) -> Workload:
    """Checkers and clients; they begin with ``start``."""
    min_insync_replicas = int(world.settings.config["min.insync.replicas"])
    checkers = install(world, min_insync_replicas=min(min_insync_replicas, len(world.nodes)))
    profile = PROFILES[spec.profile]
    clients = profile.clients if spec.clients is None else spec.clients
    drawn = workload.drawn(shape, clients=clients, changes_topics=profile.changes_topics)
    # Steps are dear: records in most of them, also such that a deposed leader has alone.
    drawn = dataclasses.replace(
        drawn,
        batches_per_turn=shape.choice((0.6, 1.5, 3.0)),
        weak_producers=drawn.weak_producers + (1 if clients is None and shape.random() < 0.5 else 0),
    )
    if profile.moves_partitions:
        moves_per_turn = random.Random(f"moves of {spec.seed}").choice((0.2, 0.5, 0.9))
        drawn = dataclasses.replace(drawn, moves_per_turn=moves_per_turn)
    if spec.partitions is not None:
        drawn = dataclasses.replace(drawn, topics=dict.fromkeys(drawn.topics, spec.partitions))
    return Workload(world, checkers, drawn)

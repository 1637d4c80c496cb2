"""One round of ``zkbroker-bench failover``: a fault strikes a running cluster while a client writes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from zkbroker.cli._canary import Canary, SchedulingDelay
from zkbroker.cli._failover_cluster import TUNED_CLIENT, check_written, create_topic, prefer
from zkbroker.cli._failover_writer import FailoverWriter
from zkbroker.cli._figures import is_steady, longest_gap
from zkbroker.cli._processes import LocalFailure
from zkbroker.cli.bench_failover_scenarios import Fault, Scenario, System

INTERVAL_S = 0.002
DEFAULTS_INTERVAL_S = 0.02
"""The client with librdkafka's defaults writes less, lest it take the processors from the one that is measured."""
WARM_COUNT = 300
STEADY_S = 1.0
"""Writing goes on again when it went on for so long …"""
PAUSE_S_MAX = 0.3
"""… without a longer pause than that."""
RECOVERY_TIMEOUT_S = 240.0
UNDONE_AFTER_SESSION_S = 7.0
"""A fault that a system does nothing about is undone so long after a session would have expired: 25 s by default."""
LOOK_INTERVAL_S = 0.02
BEFORE_S = 0.5
"""The canary is listened to from so long before the fault."""
PHASE_S_MAX = 1.0
"""The fault strikes at a random moment of so long. librdkafka looks after its brokers once a second, counted from its
start; where no request of its fails, because none is under way when the leader dies, nothing else may make it ask for
the new leader. A fault at a constant time after its start would measure where in that second it fell, not the brokers.
"""


class Round(NamedTuple):
    """What one fault cost."""

    scenario: str
    system: str
    number: int
    victim: int
    gap_ms: float
    """Longest time without an acknowledged write; with many partitions: from the fault until all were led again; where
    all lost power: from their start until the first one."""
    defaults_gap_ms: float | None
    """The same as seen by a client with librdkafka's defaults."""
    moved_ms: float | None
    """From the fault until the state znode named a live leader and no dead member; looked at every 20 ms."""
    acknowledged_count: int
    lost_count: int
    duplicated_count: int
    cpu_s: float
    """Of all brokers, from the fault until writing went on steadily …"""
    window_s: float
    """… which took so long."""
    waited_s: float
    """Of which the one that waited longest was ready to run and had no processor."""
    delay: SchedulingDelay
    phase_s: float = 0.0
    """For how long the fault was put off at random, up to PHASE_S_MAX."""
    was_idle: bool | None = None
    """The client had no request under way when the fault struck; None: not looked at."""
    undone_ms: float | None = None
    """From the fault until it was undone, where it was while clients wrote. Without ``moved_ms`` that ended it."""
    rejoined_ms: float | None = None
    """From then until the old leader was a follower in the ISR again."""
    unsaved_count: int | None = None
    """After a loss of power: acknowledged records that were on no broker's disk."""
    person_ms: float | None = None
    """From when the brokers were started again until a person had to accept a loss; None: nobody had to."""

    @property
    def is_quiet(self) -> bool:
        return self.delay.is_quiet

    def as_json(self) -> dict[str, Any]:
        fields = self._asdict()
        del fields["delay"]
        return {**fields, "canary_p99_ms": self.delay.p99_ms, "canary_max_ms": self.delay.max_ms}


def choose_victim(role: str, controller: int, brokers: Sequence[int], number: int) -> tuple[int, int]:
    """(victim, leader of the partition that is written to): the others take turns."""
    others = [broker for broker in brokers if broker != controller]
    if role == "controller":
        return controller, controller
    victim = others[number % len(others)]
    if role == "follower":
        return victim, next(broker for broker in others if broker != victim)
    return victim, victim


def run_round(
    system: System,
    scenario: Scenario,
    number: int,
    canary: Canary,
    with_defaults: bool,
    extra: Mapping[str, Any],
    phase_s: float,
) -> Round:
    """``extra`` are settings of the clients; ``phase_s`` puts the fault off, see PHASE_S_MAX. Raises LocalFailure when
    the cluster does not come back. All brokers run again afterwards, or none does."""
    cluster = system.cluster
    cluster.start()
    controller = cluster.controller_id()
    if controller is None:
        raise LocalFailure("no broker is the controller")
    victim, leader = choose_victim(scenario.victim, controller, list(cluster.brokers), number)
    topics = {f"failover-{leader}": "tuned", **({f"defaults-{leader}": "defaults"} if with_defaults else {})}
    for topic in topics:
        create_topic(cluster, topic, [[leader, *(broker for broker in cluster.brokers if broker != leader)]])
        cluster.wait_isr(topic, list(cluster.brokers))
        prefer(cluster, topic, {0: leader})
    with contextlib.ExitStack() as stack:
        writers = []
        for topic, kind in topics.items():
            is_tuned = kind == "tuned"
            config = {**(TUNED_CLIENT if is_tuned else {}), **extra, **scenario.fault.client}
            writers.append(
                FailoverWriter(
                    system.directory,
                    f"{kind}-{scenario.name}-{number}-{time.monotonic_ns()}",
                    cluster.bootstrap,
                    topic,
                    INTERVAL_S if is_tuned else DEFAULTS_INTERVAL_S,
                    config,
                )
            )
            stack.callback(writers[-1].close)
        for writer in writers:
            writer.start(WARM_COUNT if writer is writers[0] else WARM_COUNT // 10)
        time.sleep(BEFORE_S + phase_s)
        with striking(system, victim, scenario.fault) as strike:
            recovery = _wait_recovered(system, strike, list(topics), writers)
            ended_s = time.monotonic()
            cpu_s, waited_s = strike.cpu_s(), strike.waited_s()
        for writer in writers:
            writer.stop()
    gaps = [1000 * longest_gap(writer.acknowledged_s, strike.at_s, ended_s).seconds for writer in writers]
    cluster.start()
    lost = duplicated = acknowledged = 0
    for writer in writers:
        lost += (counts := check_written(cluster.bootstrap, writer))[0]
        duplicated += counts[1]
        acknowledged += len(writer.offsets)
    if scenario.fault.is_undone:
        # What it left in processes that lived is no matter of the next round: a broker that was suspected falsely is
        # not fenced early for a minute, and half a connection counts for half a minute.
        cluster.stop(120)
    return Round(
        scenario.name,
        system.name,
        number,
        victim,
        gaps[0],
        gaps[1] if len(gaps) > 1 else None,
        _since_ms(recovery.moved_s, strike.at_s),
        acknowledged,
        lost,
        duplicated,
        cpu_s,
        ended_s - strike.at_s,
        waited_s,
        canary.delay(strike.at_s - BEFORE_S, ended_s),
        phase_s,
        writers[0].was_idle(strike.at_s),
        _since_ms(recovery.undone_s, strike.at_s),
        _since_ms(recovery.rejoined_s, recovery.undone_s),
    )


def _since_ms(moment_s: float | None, start_s: float | None) -> float | None:
    return None if moment_s is None or start_s is None else 1000 * (moment_s - start_s)


class Strike:
    """A fault, and what the brokers spend on it."""

    def __init__(self, system: System, victim: int, fault: Fault) -> None:
        self.victim = victim
        self.fault = fault
        self._system = system
        self._is_undone = False
        self._brokers = list(system.cluster.brokers.values())
        self._cpu_before_s = [broker.cpu_seconds() for broker in self._brokers]
        self._waited_before = [broker.waited_by_thread() for broker in self._brokers]
        self.at_s = time.monotonic()

    def strike(self) -> None:
        self.fault.strike(self._system, self.victim)

    def undo(self) -> None:
        """Once."""
        if not self._is_undone:
            self._is_undone = True
            self.fault.undo(self._system, self.victim)

    def cpu_s(self) -> float:
        """Of the brokers that are there, since."""
        now = [broker.cpu_seconds() for broker in self._brokers]
        return sum(max(0.0, after - before) for before, after in zip(self._cpu_before_s, now, strict=True))

    def waited_s(self) -> float:
        """Of the one that waited longest for a processor, since."""
        rows = zip(self._brokers, self._waited_before, strict=True)
        return max(broker.waited_seconds(before) for broker, before in rows)


@contextlib.contextmanager
def striking(system: System, victim: int, fault: Fault) -> Iterator[Strike]:
    """Strike, and undo it at the end; a broker that ended is started by the next round."""
    strike = Strike(system, victim, fault)
    try:
        strike.strike()
        yield strike
    finally:
        strike.undo()


class Recovery(NamedTuple):
    """When what came about, by time.monotonic(); None: it did not, or was not waited for."""

    moved_s: float | None
    """The znodes named a live leader and no dead member."""
    undone_s: float | None
    rejoined_s: float | None


def _wait_recovered(
    system: System, strike: Strike, topics: Sequence[str], writers: Sequence[FailoverWriter]
) -> Recovery:
    """Until the victim neither leads nor is in an ISR, has ended if it was told to, and all write steadily; then, if
    that is part of the fault, until it is undone and the victim in all ISRs again."""
    cluster, fault, victim = system.cluster, strike.fault, strike.victim
    deadline = strike.at_s + RECOVERY_TIMEOUT_S
    session_s = float(cluster.brokers[victim].settings["zookeeper.session.timeout.ms"]) / 1000
    undo_s = strike.at_s + session_s + UNDONE_AFTER_SESSION_S if fault.is_undone else float("inf")
    moved_s: float | None = None
    undone_s: float | None = None
    while True:
        now = time.monotonic()
        if moved_s is None and undone_s is None and all(_has_left(cluster.state(topic), victim) for topic in topics):
            moved_s = now
        has_ended = not fault.ends_broker or not cluster.brokers[victim].is_running
        ended_s = moved_s if moved_s is not None else undone_s
        if ended_s is not None and has_ended and now > ended_s + STEADY_S:
            times = [writer.look() for writer in writers]
            if all(is_steady(one, now - STEADY_S, now, PAUSE_S_MAX) for one in times):
                break
        if undone_s is None and now > undo_s:
            strike.undo()
            undone_s = time.monotonic()
        if now > deadline:
            raise LocalFailure(f"no steady writing within {RECOVERY_TIMEOUT_S:g} s of the fault\n{cluster.explain()}")
        time.sleep(LOOK_INTERVAL_S if moved_s is None else 5 * LOOK_INTERVAL_S)
    if not fault.is_undone:
        return Recovery(moved_s, None, None)
    if undone_s is None:
        strike.undo()
        undone_s = time.monotonic()
    cluster.wait_for(
        lambda: all(victim in cluster.isr(topic) for topic in topics), f"broker {victim} is in all ISRs again", 90
    )
    return Recovery(moved_s, undone_s, time.monotonic() if moved_s is not None else None)


def _has_left(state: Mapping[str, Any] | None, victim: int) -> bool:
    return state is not None and state["leader"] not in (-1, victim) and victim not in state["isr"]

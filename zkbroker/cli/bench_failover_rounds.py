"""One round of ``zkbroker-bench failover``: a fault strikes a running cluster while a client writes."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zkbroker.cli._canary import Canary, SchedulingDelay
from zkbroker.cli._failover_cluster import TUNED_CLIENT, check_written, create_topic, prefer
from zkbroker.cli._failover_writer import FailoverWriter
from zkbroker.cli._figures import is_steady, longest_gap
from zkbroker.cli._local_cluster import LocalCluster
from zkbroker.cli._processes import LocalFailure

PATIENT_CLIENT = {"topic.metadata.refresh.interval.ms": 250, "socket.timeout.ms": 1000}
"""What a client needs besides to leave a leader that is silent: nothing else tells it (both clients, that scenario)."""
INTERVAL_S = 0.002
DEFAULTS_INTERVAL_S = 0.02
"""The client with librdkafka's defaults writes less, lest it take the processors from the one that is measured."""
WARM_COUNT = 300
STEADY_S = 1.0
"""Writing goes on again when it went on for so long …"""
PAUSE_S_MAX = 0.3
"""… without a longer pause than that."""
RECOVERY_TIMEOUT_S = 240.0
LOOK_INTERVAL_S = 0.02
BEFORE_S = 0.5
"""The canary is listened to from so long before the fault."""
PHASE_S_MAX = 1.0
"""The fault strikes at a random moment of so long. librdkafka looks after its brokers once a second, counted from its
start; where no request of its fails, because none is under way when the leader dies, nothing else may make it ask for
the new leader. A fault at a constant time after its start would measure where in that second it fell, not the brokers.
"""


class Scenario(NamedTuple):
    name: str
    title: str
    victim: str
    """leader, controller (that leads, too) or follower (in the ISR)"""
    fault: signal.Signals
    asked_ms: tuple[float, float] | None
    """What zkbroker's median and 19th of 20 are to stay below."""
    partitions_count: int = 1


SCENARIOS = (
    Scenario("kill-leader", "kill -9 of a leader", "leader", signal.SIGKILL, (250, 600)),
    Scenario("kill-controller", "kill -9 of the controller that leads", "controller", signal.SIGKILL, (400, 900)),
    Scenario("kill-follower", "kill -9 of a follower in the ISR", "follower", signal.SIGKILL, (250, 600)),
    Scenario("stop-leader", "SIGTERM of a leader", "leader", signal.SIGTERM, (50, 50)),
    Scenario("stop-controller", "SIGTERM of the controller that leads", "controller", signal.SIGTERM, (150, 150)),
    Scenario("pause-leader", "SIGSTOP of a leader", "leader", signal.SIGSTOP, None),
    Scenario("partitions", "kill -9 with 1,000 partitions", "leader", signal.SIGKILL, (1000, 1000), 1000),
)


class Round(NamedTuple):
    """What one fault cost."""

    scenario: str
    system: str
    number: int
    victim: int
    gap_ms: float
    """Longest time without an acknowledged write; with many partitions: from the fault until all were led again."""
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

    @property
    def is_quiet(self) -> bool:
        return self.delay.is_quiet

    def as_json(self) -> dict[str, Any]:
        fields = self._asdict()
        del fields["delay"]
        return {**fields, "canary_p99_ms": self.delay.p99_ms, "canary_max_ms": self.delay.max_ms}


class System(NamedTuple):
    """One of the two that are compared, with its cluster of three."""

    name: str
    cluster: LocalCluster
    directory: Path


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
    the cluster does not come back. All brokers run again afterwards."""
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
            config = {**(TUNED_CLIENT if is_tuned else {}), **extra}
            if scenario.fault == signal.SIGSTOP:
                config.update(PATIENT_CLIENT)
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
        with striking(cluster, victim, scenario.fault) as strike:
            moved_s = _wait_recovered(cluster, list(topics), victim, strike.at_s, scenario.fault, writers)
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
    return Round(
        scenario.name,
        system.name,
        number,
        victim,
        gaps[0],
        gaps[1] if len(gaps) > 1 else None,
        1000 * (moved_s - strike.at_s),
        acknowledged,
        lost,
        duplicated,
        cpu_s,
        ended_s - strike.at_s,
        waited_s,
        canary.delay(strike.at_s - BEFORE_S, ended_s),
        phase_s,
        writers[0].was_idle(strike.at_s),
    )


class Strike:
    """A fault that has struck."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._brokers = list(cluster.brokers.values())
        self._cpu_before_s = [broker.cpu_seconds() for broker in self._brokers]
        self._waited_before_s = [broker.waited_seconds() for broker in self._brokers]
        self.at_s = time.monotonic()

    def cpu_s(self) -> float:
        """Of the brokers that are there, since."""
        now = [broker.cpu_seconds() for broker in self._brokers]
        return sum(max(0.0, after - before) for before, after in zip(self._cpu_before_s, now, strict=True))

    def waited_s(self) -> float:
        """Of the one that waited longest for a processor, since."""
        now = [broker.waited_seconds() for broker in self._brokers]
        return max(max(0.0, after - before) for before, after in zip(self._waited_before_s, now, strict=True))


@contextlib.contextmanager
def striking(cluster: LocalCluster, victim: int, fault: signal.Signals) -> Iterator[Strike]:
    """Strike; a broker that was paused goes on at the end, a dead one is started by the next round."""
    broker = cluster.brokers[victim]
    strike = Strike(cluster)
    if fault == signal.SIGSTOP:
        broker.pause()
    else:
        broker.send(fault)
    try:
        yield strike
    finally:
        if broker.is_paused:
            broker.resume()


def _wait_recovered(
    cluster: LocalCluster,
    topics: Sequence[str],
    victim: int,
    struck_s: float,
    fault: signal.Signals,
    writers: Sequence[FailoverWriter],
) -> float:
    """Until the victim neither leads nor is in an ISR, has ended if it was told to, and all write steadily; when the
    znodes said so."""
    moved_s: float | None = None
    deadline = struck_s + RECOVERY_TIMEOUT_S
    while True:
        now = time.monotonic()
        if moved_s is None and all(_has_left(cluster.state(topic), victim) for topic in topics):
            moved_s = now
        has_ended = fault == signal.SIGSTOP or not cluster.brokers[victim].is_running
        if moved_s is not None and has_ended and now > moved_s + STEADY_S:
            times = [writer.look() for writer in writers]
            if all(is_steady(one, now - STEADY_S, now, PAUSE_S_MAX) for one in times):
                return moved_s
        if now > deadline:
            raise LocalFailure(f"no steady writing within {RECOVERY_TIMEOUT_S:g} s of the fault\n{cluster.explain()}")
        time.sleep(LOOK_INTERVAL_S if moved_s is None else 5 * LOOK_INTERVAL_S)


def _has_left(state: Mapping[str, Any] | None, victim: int) -> bool:
    return state is not None and state["leader"] not in (-1, victim) and victim not in state["isr"]

"""The faults of ``zkbroker-bench failover``: how each strikes a broker, how it is undone, and what is asked for."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zkbroker.cli._disk_faults import FaultyDisk
from zkbroker.cli._local_cluster import LocalCluster
from zkbroker.cli._namespaces import Network

PATIENT_CLIENT = {"topic.metadata.refresh.interval.ms": 250, "socket.timeout.ms": 1000}
"""What a client needs besides to leave a leader that is silent: nothing else tells it (both clients, that scenario)."""


class System(NamedTuple):
    """One of the two that are compared, with its cluster of three."""

    name: str
    cluster: LocalCluster
    directory: Path
    network: Network | None = None
    """Where its brokers are; None: all on 127.0.0.1."""
    disks: Mapping[int, FaultyDisk] = {}
    """Its brokers' disks, in rounds in which they may fail."""


class Fault(NamedTuple):
    """Something that happens to one broker of a system."""

    strike: Callable[[System, int], None]
    undo: Callable[[System, int], None] = lambda system, victim: None
    """So that the broker can take part again. It is not asked to start one that ended."""
    ends_broker: bool = True
    is_undone: bool = False
    """Whether it is undone while clients write, and the broker is to be a follower in the ISR again: when writing goes
    on, at the latest some time after the session timeout. Others are undone when all is measured."""
    client: Mapping[str, Any] = {}
    """Settings of both clients."""
    needs_network: bool = False
    """Brokers with network namespaces of their own."""
    needs_disks: bool = False
    """Brokers that were started on disks that can fail."""


def member(broker: int) -> str:
    """What the Network calls it."""
    return f"b{broker}"


def _signal(number: signal.Signals) -> Fault:
    return Fault(lambda system, victim: system.cluster.brokers[victim].send(number))


def _peers(system: System, victim: int) -> list[str]:
    return [member(broker) for broker in system.cluster.brokers if broker != victim]


def _network(system: System) -> Network:
    if system.network is None:
        raise ValueError(f"{system.name} has no network of its own")
    return system.network


def _reject(system: System, victim: int) -> None:
    network = _network(system)
    for peer in _peers(system, victim):
        network.reject(peer, member(victim))
    network.reject_local(member(victim))


def _cut(system: System, victim: int) -> None:
    for peer in _peers(system, victim):
        _network(system).cut(member(victim), peer)


def _heal(system: System, _victim: int) -> None:
    _network(system).heal()


def _destroy(system: System, victim: int) -> None:
    _network(system).destroy(member(victim))
    system.cluster.brokers[victim].send(signal.SIGKILL)


def _restore(system: System, victim: int) -> None:
    system.cluster.brokers[victim].kill()
    _network(system).restore(member(victim))


def _hang(*calls: str) -> Fault:
    return Fault(
        lambda system, victim: system.disks[victim].hang(*calls),
        _mend,
        ends_broker=False,
        is_undone=True,
        needs_disks=True,
    )


def _mend(system: System, victim: int) -> None:
    system.disks[victim].mend()
    if not system.cluster.brokers[victim].is_running:
        system.cluster.brokers[victim].start()  # a broker that can only wait for its disk ends


def _lose_power(system: System, _victim: int) -> None:
    for broker in system.cluster.brokers.values():
        broker.pause()
    for disk in system.disks.values():
        disk.lose_power()


KILL = _signal(signal.SIGKILL)
STOP = _signal(signal.SIGTERM)
PAUSE = Fault(
    lambda system, victim: system.cluster.brokers[victim].pause(),
    lambda system, victim: system.cluster.brokers[victim].resume(),
    ends_broker=False,
    client=PATIENT_CLIENT,
)
REJECT = Fault(_reject, _heal, ends_broker=False, is_undone=True, needs_network=True)
"""A false suspicion: to its peers and to clients it looks dead, and ZooKeeper hears it."""
CUT = Fault(_cut, _heal, ends_broker=False, is_undone=True, needs_network=True)
"""A gray failure: what it and its peers send to each other is dropped; clients and ZooKeeper reach it."""
DESTROY = Fault(_destroy, _restore, needs_network=True)
"""As a container that is removed: its address goes with it."""

HANG = _hang("write", "sync")
"""The process and its session live; what it asks of its disk does not return."""
HANG_FLUSH = _hang("sync")
POWER = Fault(_lose_power, needs_disks=True)
"""All brokers are killed at once, and what was not fsynced is gone."""


class Scenario(NamedTuple):
    name: str
    title: str
    victim: str
    """leader, controller (that leads, too), follower (in the ISR) or all"""
    fault: Fault
    asked_ms: tuple[float, float] | None
    """What zkbroker's median and 19th of 20 are to stay below."""
    partitions_count: int = 1
    settings: Mapping[str, Any] = {}
    """Of all brokers in its rounds; for faults of disks."""
    may_lose: bool = False
    """Acknowledged records may be lost: how many is the figure, and no failure."""
    rejoin_asked_ms: float | None = None
    """So soon after the fault was undone the old leader is to be a follower in the ISR."""

    @property
    def target(self) -> str:
        return "" if self.asked_ms is None else f" (< {self.asked_ms[0]:.0f}, {self.asked_ms[1]:.0f} ms)"


FLUSHED = {"log.flush.interval.messages": 1}
ROLLED = {"log.segment.bytes": 16384}
"""Kafka's default policy flushes a segment when the next one begins. Segments are so small that most of a round's
records are in flushed ones, as most of a log is that has been written to for a day."""

SCENARIOS = (
    Scenario("kill-leader", "kill -9 of a leader", "leader", KILL, (250, 600)),
    Scenario("kill-controller", "kill -9 of the controller that leads", "controller", KILL, (400, 900)),
    Scenario("kill-follower", "kill -9 of a follower in the ISR", "follower", KILL, (250, 600)),
    Scenario("stop-leader", "SIGTERM of a leader", "leader", STOP, (50, 50)),
    Scenario("stop-controller", "SIGTERM of the controller that leads", "controller", STOP, (150, 150)),
    Scenario("pause-leader", "SIGSTOP of a leader (< session timeout + tick + 1 s)", "leader", PAUSE, None),
    Scenario("partitions", "kill -9 with 1,000 partitions", "leader", KILL, (1000, 1000), 1000),
    Scenario("destroy-leader", "kill -9 of a leader and its network", "leader", DESTROY, (1000, 1000)),
    Scenario("reject-leader", "REJECT of a leader's connections", "leader", REJECT, None, rejoin_asked_ms=5000),
    Scenario("cut-leader", "a leader cut from its peers (< session timeout)", "leader", CUT, None),
    Scenario("hang-disk", "a leader whose disk hangs (< session timeout)", "leader", HANG, None),
    Scenario(
        "hang-flush", "a leader whose fsyncs hang, each append flushed", "leader", HANG_FLUSH, None, settings=FLUSHED
    ),
    Scenario("power-loss", "all lose power, Kafka's flush policy", "all", POWER, None, settings=ROLLED, may_lose=True),
    Scenario("power-loss-flush", "all lose power, each append flushed", "all", POWER, None, settings=FLUSHED),
)

"""``zkbroker-bench failover`` on disks that fail: rounds with brokers that were started for it, and losses of power.

A disk's fault needs brokers that were started on it, and a leader whose disk hung is trusted with little for a minute:
so each of these rounds has its brokers started anew, and stopped at its end.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from zkbroker.cli._canary import Canary
from zkbroker.cli._disk_faults import FaultyDisk
from zkbroker.cli._failover_cluster import TUNED_CLIENT, check_written, create_topic
from zkbroker.cli._failover_writer import FailoverWriter
from zkbroker.cli._figures import is_steady
from zkbroker.cli._local_cluster import LocalCluster
from zkbroker.cli._processes import LocalFailure
from zkbroker.cli.bench_failover_rounds import (
    BEFORE_S,
    INTERVAL_S,
    LOOK_INTERVAL_S,
    PAUSE_S_MAX,
    RECOVERY_TIMEOUT_S,
    STEADY_S,
    Round,
)
from zkbroker.cli.bench_failover_scenarios import Scenario, System
from zkbroker.records.batch import batches

PERSON_S = 10.0
"""A partition that has no leader so long after all brokers are back waits for a person, who then accepts the loss."""


@contextlib.contextmanager
def on_faulty_disks(system: System, scenario: Scenario, library: Path) -> Iterator[System]:
    """The system with nothing running and its brokers' next start on disks that can fail, with the scenario's settings;
    at the end nothing runs either, and all is as before."""
    cluster = system.cluster
    cluster.stop(120)
    settings = {broker_id: dict(broker.settings) for broker_id, broker in cluster.brokers.items()}
    disks = {broker_id: FaultyDisk(broker, library) for broker_id, broker in cluster.brokers.items()}
    for broker in cluster.brokers.values():
        broker.settings.update(scenario.settings)
    try:
        yield system._replace(disks=disks)
    finally:
        for broker_id, disk in disks.items():
            disk.remove()
            cluster.brokers[broker_id].settings = settings[broker_id]
        cluster.stop(120)


def run_power_round(
    system: System, scenario: Scenario, number: int, canary: Canary, records_count: int, phase_s: float
) -> Round:
    """As bench_failover_rounds.run_round, for a system on faulty disks all of whose brokers lose power at once, when
    ``records_count`` were acknowledged. They start again when their sessions have expired, for machines take longer
    than that to boot."""
    cluster = system.cluster
    brokers = list(cluster.brokers)
    cluster.start()
    # A log of its own: what an earlier round lost, or waits for, is no matter of this one.
    topic = f"{scenario.name}-{number}-{time.monotonic_ns()}"
    create_topic(cluster, topic, [[brokers[(number + turn) % len(brokers)] for turn in range(len(brokers))]])
    cluster.wait_isr(topic, brokers)
    writer = FailoverWriter(system.directory, topic, cluster.bootstrap, topic, INTERVAL_S, TUNED_CLIENT)
    with contextlib.closing(writer):
        writer.start(records_count, RECOVERY_TIMEOUT_S)
        time.sleep(phase_s)
        scenario.fault.strike(system, 0)
        saved_end = max(log_end(disk) for disk in _logs(cluster, topic))
        cluster.wait_for(lambda: cluster.live_ids() == [], "the sessions of all brokers have expired", 120)
        back_s = time.monotonic()
        acknowledged = len(writer.look())
        unsaved = sum(1 for offset in writer.offsets.values() if offset >= saved_end)
        cluster.start()
        person_s = _wait_written_again(cluster, topic, writer, acknowledged)
        ended_s = time.monotonic()
        processes = list(cluster.brokers.values())
        cpu_s = sum(broker.cpu_seconds() for broker in processes)
        waited_s = max(broker.waited_seconds() for broker in processes)
        writer.stop()
        lost, duplicated = check_written(cluster.bootstrap, writer)
    return Round(
        scenario.name,
        system.name,
        number,
        0,
        1000 * (writer.acknowledged_s[acknowledged] - back_s),
        None,
        None,
        acknowledged,
        lost,
        duplicated,
        cpu_s,
        ended_s - back_s,
        waited_s,
        canary.delay(back_s - BEFORE_S, ended_s),
        phase_s,
        unsaved_count=unsaved,
        person_ms=None if person_s is None else 1000 * (person_s - back_s),
    )


def _wait_written_again(cluster: LocalCluster, topic: str, writer: FailoverWriter, acknowledged: int) -> float | None:
    """When a person had to accept the loss; None: nobody had to. ``acknowledged`` were so before power was lost."""
    began_s = time.monotonic()
    person_s = None
    while True:
        now = time.monotonic()
        writer.check_running()
        times = writer.look()
        if len(times) > acknowledged:
            since_s = max(times[acknowledged], now - STEADY_S)
            if now > times[acknowledged] + STEADY_S and is_steady(times, since_s, now, PAUSE_S_MAX):
                return person_s
        elif person_s is None and now > began_s + PERSON_S and cluster.leader(topic) == -1:
            accept_loss(cluster, topic)
            person_s = time.monotonic()
        if now > began_s + RECOVERY_TIMEOUT_S:
            raise LocalFailure(f"no steady writing {RECOVERY_TIMEOUT_S:g} s after power was back\n{cluster.explain()}")
        time.sleep(5 * LOOK_INTERVAL_S)


def accept_loss(cluster: LocalCluster, topic: str) -> None:
    """Allow an unclean election, as ``kafka-configs --zookeeper`` does."""
    zookeeper, path = cluster.zookeeper, f"/config/topics/{topic}"
    zookeeper.ensure_path(path)
    body = {"version": 1, "config": {"unclean.leader.election.enable": "true"}}
    zookeeper.set(path, json.dumps(body).encode())
    change = {"version": 2, "entity_path": f"topics/{topic}"}
    zookeeper.create("/config/changes/config_change_", json.dumps(change).encode(), sequence=True, makepath=True)


def _logs(cluster: LocalCluster, topic: str) -> Iterable[Path]:
    return [broker.data_dir / f"{topic}-0" for broker in cluster.brokers.values()]


def log_end(folder: Path) -> int:
    """The offset after the last record of a log of whole batches without a gap, by reading its segments."""
    end = 0
    for path in sorted(folder.glob("*.log")):
        if int(path.stem) > end:
            break
        for _, header in batches(path.read_bytes()):
            end = header.next_offset
    return end

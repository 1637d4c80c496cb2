"""``zkbroker-bench idle``: what brokers cost while nothing happens."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from zkbroker.cli import _common as common
from zkbroker.cli._failover_cluster import create_topic
from zkbroker.cli._group_members import Brokers, Member, MemberSettings
from zkbroker.cli._idle_consumers import IdleConsumer, make_consumers
from zkbroker.cli._local_cluster import LocalCluster, start_command
from zkbroker.cli._local_kafka import kafka_start_command
from zkbroker.cli._local_zookeeper import LocalEnsemble
from zkbroker.cli._processes import LocalFailure

PROG = "zkbroker-bench idle"
DESCRIPTION = """\
Measure what brokers cost while nothing happens: partitions that nobody writes to and consumers poll, and members of
consumer groups that have no partition and send a heartbeat each 3 s.

Starts an ensemble and brokers on this machine, gives the partitions three replicas, waits until every consumer and
member is settled, and then counts the CPU seconds of each broker's process. The same brokers with the topic only, with
consumers, and with consumers and members are measured one after the other, so that each one's part can be seen.
"""
EXAMPLES = f"""\
  1,000 partitions, 10 consumers, 500 members, a minute for each figure:
    {PROG}
  the same with Apache Kafka 3.9.1 (ZKBROKER_KAFKA_LIBS names the folder with its jars):
    {PROG} --kafka
"""
TOPIC = "bench-idle"
SETTLE_S = 6.0
"""After everybody has what it asked for: the tail of starting costs something, too."""
READY_TIMEOUT_S = 240.0
MEMBER_SESSION_MS = 30_000
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Figure(NamedTuple):
    what: str
    seconds: float
    cores: dict[int, float]
    """By broker id: CPU seconds per second."""
    answers_per_s: float

    def line(self) -> str:
        each = "  ".join(f"broker {one} {100 * share:5.2f} %" for one, share in self.cores.items())
        return f"{self.what:<34}{each}  ({self.answers_per_s:.0f} fetches answered a second)"


def cpu_seconds(pid: int) -> float:
    """Of a process so far, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def make_parser() -> argparse.ArgumentParser:
    parser = common.make_parser(PROG, DESCRIPTION, EXAMPLES)
    parser.add_argument("--partitions", type=common.positive, default=1000, metavar="N")
    parser.add_argument("--consumers", type=common.positive, default=10, metavar="N", help="that share the partitions")
    parser.add_argument("--members", type=common.positive, default=500, metavar="N", help="without a partition")
    parser.add_argument("--groups", type=common.positive, default=10, metavar="N", help="that share the members")
    parser.add_argument("--brokers", type=common.positive, default=3, metavar="N")
    parser.add_argument("--seconds", type=common.positive, default=60, metavar="S", help="for each figure (default 60)")
    parser.add_argument(
        "--no-sessions", action="store_true", help="consumers name all partitions each time, as librdkafka does"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of the brokers")
    parser.add_argument("--kafka", action="store_true", help="brokers of Apache Kafka 3.9.1 (ZKBROKER_KAFKA_LIBS)")
    parser.add_argument("--percent-max", type=float, metavar="P", help="status 1 if a broker needs more of a core")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures")
    return parser


def main(argv: list[str] | None = None) -> int:
    return common.run(PROG, _run, make_parser(), argv)


def _run(arguments: argparse.Namespace) -> int:
    common.raise_on_signals()
    if arguments.kafka and "ZKBROKER_KAFKA_LIBS" not in os.environ:
        raise common.UsageError("--kafka needs ZKBROKER_KAFKA_LIBS, the folder with Kafka's jars")
    figures: list[Figure] = []
    try:
        with _cluster(arguments) as cluster:
            ids = list(cluster.brokers)
            turned = [(ids[turn:] + ids[:turn])[:3] for turn in range(len(ids))]
            create_topic(cluster, TOPIC, [turned[number % len(ids)] for number in range(arguments.partitions)])
            cluster.wait_isr(TOPIC, ids, READY_TIMEOUT_S)
            asyncio.run(_Idle(cluster, arguments, figures).run())
    except (LocalFailure, OSError) as failure:
        print(f"{PROG}: {failure}", file=sys.stderr)
        return 1
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([one._asdict() for one in figures], indent=1) + "\n")
    most = 100 * max(share for one in figures for share in one.cores.values())
    return 1 if arguments.percent_max is not None and most > arguments.percent_max else 0


@contextlib.contextmanager
def _cluster(arguments: argparse.Namespace) -> Iterator[LocalCluster]:
    settings = {
        "offsets.topic.replication.factor": min(3, arguments.brokers),
        **dict(pair.split("=", 1) for pair in arguments.set),
    }
    with tempfile.TemporaryDirectory(prefix="zkbroker-bench-") as folder:
        ensemble = LocalEnsemble(Path(folder))
        try:
            ensemble.start()
            with LocalCluster(
                ensemble.connect,
                Path(folder),
                arguments.brokers,
                settings,
                command=kafka_start_command if arguments.kafka else start_command,
                replication_listener=not arguments.kafka,
            ) as cluster:
                yield cluster
        finally:
            ensemble.stop()


class _Idle:
    def __init__(self, cluster: LocalCluster, arguments: argparse.Namespace, figures: list[Figure]) -> None:
        self._cluster = cluster
        self._arguments = arguments
        self._figures = figures
        self._consumers: list[IdleConsumer] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        arguments = self._arguments
        addresses = {one.broker_id: (one.host, one.port) for one in self._cluster.brokers.values()}
        brokers = Brokers(list(addresses.values()))
        try:
            await self._measure(f"{arguments.partitions} partitions")
            leaders = {number: self._cluster.wait_leader(TOPIC, number) for number in range(arguments.partitions)}
            self._consumers = make_consumers(leaders, addresses, TOPIC, arguments.consumers, not arguments.no_sessions)
            self._begin(self._consumers)
            await self._wait(lambda: all(one.answers_count > 2 for one in self._consumers), "consumers poll")
            await self._measure(f"+ {arguments.consumers} consumers")
            settings = MemberSettings(MEMBER_SESSION_MS, 1e9, lambda: None)
            members = [
                Member(brokers, f"idle-{number % arguments.groups}", TOPIC, 0, settings)
                for number in range(arguments.members)
            ]
            self._begin(members)
            await self._wait(lambda: all(one.generation > 0 for one in members), "members have joined")
            await self._measure(f"+ {arguments.members} members")
            unexpected = [line for consumer in self._consumers for line in consumer.unexpected]
            unexpected += [line for member in members for line in member.unexpected]
            for line in sorted(set(unexpected)):
                print(f"unexpected answer: {line}")
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            brokers.close()

    def _begin(self, who: list[IdleConsumer] | list[Member]) -> None:
        self._tasks += [asyncio.create_task(one.run()) for one in who]

    async def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not condition():
            for task in self._tasks:
                if task.done() and (failure := task.exception()) is not None:
                    raise LocalFailure(f"{failure!r} before all {what}")
            if time.monotonic() > deadline:
                raise LocalFailure(f"not all {what} after {READY_TIMEOUT_S:g} s")
            await asyncio.sleep(0.1)

    async def _measure(self, what: str) -> None:
        await asyncio.sleep(SETTLE_S)
        pids = {one.broker_id: one.pid for one in self._cluster.brokers.values()}
        answers = sum(one.answers_count for one in self._consumers)
        before = {broker: cpu_seconds(pid) for broker, pid in pids.items()}
        began = time.monotonic()
        await asyncio.sleep(self._arguments.seconds)
        seconds = time.monotonic() - began
        cores = {broker: (cpu_seconds(pid) - before[broker]) / seconds for broker, pid in pids.items()}
        answers = sum(one.answers_count for one in self._consumers) - answers
        self._figures.append(Figure(what, seconds, cores, answers / seconds))
        print(self._figures[-1].line(), flush=True)

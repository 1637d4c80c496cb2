"""``zkbroker-bench groups``: how long consumer groups are without a coordinator when theirs is killed, and what that
costs a producer that has nothing to do with them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from zkbroker.cli import _common as common
from zkbroker.cli._canary import Canary
from zkbroker.cli._failover_cluster import create_topic, prefer
from zkbroker.cli._failover_writer import FailoverWriter
from zkbroker.cli._figures import percentile
from zkbroker.cli._group_members import Brokers, Member, MemberSettings
from zkbroker.cli._local_cluster import LocalCluster
from zkbroker.cli._local_zookeeper import LocalEnsemble
from zkbroker.cli._processes import LocalFailure
from zkbroker.coordinator.partitioning import partition_for

PROG = "zkbroker-bench groups"
DESCRIPTION = """\
Measure how long consumer groups are without a coordinator when theirs is killed.

Starts an ensemble and three brokers on this machine. All groups are chosen so that one broker coordinates them; each
member has a connection of its own, sends a heartbeat each 3 s and commits each 5 s. Then that broker is killed
(kill -9). Every member looks for the next coordinator as Java's client does (again after 100 ms, 200 ms … 1 s) and
joins again with another subscription, so that each group must rebalance: the figure is the time until every member of a
group has its assignment in a new generation. What was committed and acknowledged is fetched afterwards: a lost offset
is said and makes the status 1.

Beside them a producer writes with acks=all each 2 ms to a topic of the other two brokers; its latency from the kill
until the last group is stable is compared with that before. The canary is a process that only sleeps: how late it wakes
tells how busy the machine itself was. Members, brokers and
ZooKeeper share its cores; the members give way to the others, as if they were elsewhere.
"""
EXAMPLES = f"""\
  100 groups of 10 members, three rounds:
    {PROG}
  a quick look:
    {PROG} --groups 5 --members 3 --rounds 1
"""
BROKER_IDS = (1, 2, 3)
OFFSETS_TOPIC = "__consumer_offsets"
TOPIC = "bench-groups"
PRODUCER_TOPIC = "bench-unrelated"
PRODUCE_INTERVAL_S = 0.002
COMMIT_S = 5.0
"""Java's auto.commit.interval.ms."""
BEFORE_S = 6.0
"""How long is measured before the kill, and the members commit."""
AFTER_S_MIN = 2.0
"""The producer is measured for at least so long after the kill."""
RECOVERY_TIMEOUT_S = 90.0
_R = TypeVar("_R")


class Round(NamedTuple):
    number: int
    groups_s: list[float]
    """From the kill until the last member of each group was stable."""
    producer_before_p99_ms: float
    producer_during_p99_ms: float
    lost_offsets: int
    unexpected: list[str]
    canary_before_p99_ms: float
    canary_during_p99_ms: float
    cpu_s: float
    """What the other two brokers used from the kill until the last group was stable, together."""
    waited_s: float
    """Of these, the one that waited most for a processor."""

    def line(self) -> str:
        return (
            f"round {self.number}: {len(self.groups_s)} groups rebalanced, median "
            f"{percentile(self.groups_s, 0.5):.2f} s, all {max(self.groups_s):.2f} s after the kill; offsets lost: "
            f"{self.lost_offsets}\n"
            f"  unrelated producer: p99 {self.producer_before_p99_ms:.1f} ms before, "
            f"{self.producer_during_p99_ms:.1f} ms during; canary: p99 {self.canary_before_p99_ms:.1f} ms before, "
            f"{self.canary_during_p99_ms:.1f} ms during\n"
            f"  the brokers used {self.cpu_s:.2f} s of CPU until then; one waited {self.waited_s:.2f} s for a processor"
        )


def make_parser() -> argparse.ArgumentParser:
    parser = common.make_parser(PROG, DESCRIPTION, EXAMPLES)
    parser.add_argument("--groups", type=common.positive, default=100, metavar="N")
    parser.add_argument("--members", type=common.positive, default=10, metavar="N", help="of each group")
    parser.add_argument("--rounds", type=common.positive, default=3, metavar="N")
    parser.add_argument("--session-timeout-ms", type=common.positive, default=18_000, metavar="MS", help="of brokers")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of the brokers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every round's figures")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where logs and data go, and stay; must not exist")
    return parser


def main(argv: list[str] | None = None) -> int:
    return common.run(PROG, _run, make_parser(), argv)


def _run(arguments: argparse.Namespace) -> int:
    common.raise_on_signals()
    rounds: list[Round] = []
    try:
        with (
            _folder(arguments.keep) as directory,
            _cluster(arguments, directory) as cluster,
            Canary(directory) as canary,
        ):
            for number in range(1, arguments.rounds + 1):
                rounds.append(_Round(arguments, directory, cluster, canary, number).run())
                print(rounds[-1].line(), flush=True)
    except (LocalFailure, OSError) as failure:
        print(f"{PROG}: {failure}", file=sys.stderr)
        return 1
    finally:
        if arguments.json is not None:
            arguments.json.write_text(json.dumps([one._asdict() for one in rounds], indent=1) + "\n")
    for line in sorted({line for one in rounds for line in one.unexpected}):
        print(f"unexpected answer: {line}")
    return 1 if any(one.lost_offsets for one in rounds) else 0


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="zkbroker-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _cluster(arguments: argparse.Namespace, directory: Path) -> Iterator[LocalCluster]:
    ensemble = LocalEnsemble(directory)
    settings = {
        "zookeeper.session.timeout.ms": arguments.session_timeout_ms,
        "min.insync.replicas": 2,
        **dict(pair.split("=", 1) for pair in arguments.set),
    }
    try:
        ensemble.start()
        with LocalCluster(ensemble.connect, directory, len(BROKER_IDS), settings) as cluster:
            yield cluster
    finally:
        ensemble.stop()


def _aside(act: Callable[[], _R]) -> _R:
    """In a thread that gives way to all other processes, as members on other machines would. (On Linux a thread has a
    niceness of its own.) Given up with this process."""
    outcome: list[_R | BaseException] = []

    def run() -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        try:
            outcome.append(act())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
    result = outcome[0]
    if isinstance(result, BaseException):
        raise result
    return result


class _Round:
    def __init__(
        self, arguments: argparse.Namespace, directory: Path, cluster: LocalCluster, canary: Canary, number: int
    ) -> None:
        self._arguments = arguments
        self._directory = directory
        self._cluster = cluster
        self._canary = canary
        self._number = number

    def run(self) -> Round:
        """Raises LocalFailure."""
        cluster = self._cluster
        cluster.start()
        ids = list(cluster.brokers)
        create_topic(cluster, TOPIC, [ids] * self._arguments.members)
        asyncio.run(self._make_offsets_topic())
        self._settle(OFFSETS_TOPIC)
        controller = cluster.controller_id()
        # Not the broker in office: how long its successor takes is another benchmark's matter.
        victim = next(one for one in ids if one != controller)
        others = [one for one in ids if one != victim]
        create_topic(cluster, f"{PRODUCER_TOPIC}-{victim}", [others])
        topic = f"{PRODUCER_TOPIC}-{victim}"
        writer = FailoverWriter(
            self._directory, f"producer-{self._number}", self._bootstrap(others), topic, PRODUCE_INTERVAL_S,
            {"linger.ms": 0}
        )  # fmt: skip
        try:
            writer.start(warm_count=100)
            return _aside(lambda: asyncio.run(self._measure(victim, others, writer)))
        finally:
            writer.close()

    def _bootstrap(self, ids: Sequence[int]) -> str:
        return ",".join(f"{self._cluster.brokers[one].host}:{self._cluster.brokers[one].port}" for one in ids)

    def _addresses(self, ids: Sequence[int]) -> list[tuple[str, int]]:
        return [(self._cluster.brokers[one].host, self._cluster.brokers[one].port) for one in ids]

    async def _make_offsets_topic(self) -> None:
        brokers = Brokers(self._addresses(list(self._cluster.brokers)))
        try:
            for _ in range(600):
                found = await brokers.find("whoever")
                if found is not None and not found.error:
                    return
                await asyncio.sleep(0.1)
            raise LocalFailure(f"no coordinator was found\n{self._cluster.explain()}")
        finally:
            brokers.close()

    def _settle(self, topic: str) -> None:
        """All replicas in sync, each partition led by its first one."""
        cluster = self._cluster
        cluster.wait_isr(topic, list(cluster.brokers), 240)
        firsts = {int(number): one[0] for number, one in self._assignment(topic).items()}
        prefer(cluster, topic, firsts, 240)

    def _assignment(self, topic: str) -> dict[str, list[int]]:
        partitions: dict[str, list[int]] = self._cluster.read_json(f"/brokers/topics/{topic}")["partitions"]
        return partitions

    def _group_names(self, victim: int) -> list[str]:
        """Names whose partitions the victim leads, spread over these as names are."""
        assignment = self._assignment(OFFSETS_TOPIC)
        names: list[str] = []
        index = 0
        while len(names) < self._arguments.groups:
            name = f"bench-{self._number}-{index}"
            index += 1
            if assignment[str(partition_for(name, len(assignment)))][0] == victim:
                names.append(name)
        return names

    async def _measure(self, victim: int, others: Sequence[int], writer: FailoverWriter) -> Round:
        stable = asyncio.Event()
        settings = MemberSettings(30_000, COMMIT_S, stable.set)
        brokers = Brokers(self._addresses(others))
        groups = {
            name: [Member(brokers, name, TOPIC, index, settings) for index in range(self._arguments.members)]
            for name in self._group_names(victim)
        }
        members = [member for group in groups.values() for member in group]
        tasks = [asyncio.create_task(member.run()) for member in members]
        try:
            await self._wait(stable, groups, dict.fromkeys(groups, -1), "have formed")
            before_s = time.monotonic()
            await asyncio.sleep(BEFORE_S)
            generations = {name: max(member.generation for member in group) for name, group in groups.items()}
            acknowledged = {member: member.acknowledged_offset for member in members}
            survivors = [self._cluster.brokers[one] for one in others]
            cpu_s = sum(broker.cpu_seconds() for broker in survivors)
            waits = [broker.waited_by_thread() for broker in survivors]
            self._cluster.brokers[victim].kill()
            killed_s = time.monotonic()
            for member in members:
                # Answers that were read after the list was made count as well: whoever has them was promised.
                acknowledged[member] = max(acknowledged[member], member.acknowledged_offset)
            await self._wait(stable, groups, generations, "have rebalanced")
            groups_s = [max(member.stable_at_s for member in group) - killed_s for group in groups.values()]
            stable_s = time.monotonic()
            cpu_s = sum(broker.cpu_seconds() for broker in survivors) - cpu_s
            waited_s = max(broker.waited_seconds(wait) for broker, wait in zip(survivors, waits, strict=True))
            lost = await self._count_lost(acknowledged)
            until_s = max(stable_s, killed_s + AFTER_S_MIN)
            await asyncio.sleep(max(0.0, until_s - time.monotonic()))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            brokers.close()
        await asyncio.to_thread(writer.stop)
        return Round(
            self._number,
            groups_s,
            percentile(writer.latencies_ms(before_s, killed_s), 0.99),
            percentile(writer.latencies_ms(killed_s, until_s), 0.99),
            lost,
            [line for member in members for line in member.unexpected],
            self._canary.delay(before_s, killed_s).p99_ms,
            self._canary.delay(killed_s, until_s).p99_ms,
            cpu_s,
            waited_s,
        )

    async def _wait(
        self, stable: asyncio.Event, groups: dict[str, list[Member]], generations: dict[str, int], what: str
    ) -> None:
        """Until every member of each group is in one generation above that."""
        left = set(groups)
        deadline = time.monotonic() + RECOVERY_TIMEOUT_S
        while left:
            left = {
                name
                for name in left
                if len({member.generation for member in groups[name]}) > 1
                or groups[name][0].generation <= generations[name]
            }
            if time.monotonic() > deadline:
                raise LocalFailure(
                    f"{len(left)} of {len(groups)} groups do not {what}, {sorted(left)[0]} for one\n"
                    f"{self._cluster.explain()}"
                )
            stable.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stable.wait(), 0.05)

    async def _count_lost(self, acknowledged: dict[Member, int]) -> int:
        lost = 0
        for member, offset in acknowledged.items():
            found = None
            deadline = time.monotonic() + RECOVERY_TIMEOUT_S
            while found is None:
                if time.monotonic() > deadline:
                    raise LocalFailure(f"the offsets of {member.group} could not be fetched")
                try:
                    found = await member.fetch_offset()
                except OSError:
                    found = None
                if found is None:
                    await asyncio.sleep(0.05)
            lost += found < offset
        return lost

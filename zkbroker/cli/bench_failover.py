"""``zkbroker-bench failover``: for how long a fault keeps a client from writing, and what it costs the brokers."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from zkbroker.cli import _common as common
from zkbroker.cli._canary import Canary
from zkbroker.cli._disk_faults import disk_faults_library
from zkbroker.cli._local_cluster import LocalBroker, LocalCluster, start_command
from zkbroker.cli._local_kafka import kafka_start_command
from zkbroker.cli._local_zookeeper import LocalEnsemble
from zkbroker.cli._namespaces import Network, NotAllowed, remove_left_namespaces, why_no_network
from zkbroker.cli._processes import LocalFailure
from zkbroker.cli.bench_failover_disks import on_faulty_disks, run_power_round
from zkbroker.cli.bench_failover_partitions import run_partitions_round
from zkbroker.cli.bench_failover_report import round_line, table
from zkbroker.cli.bench_failover_rounds import PHASE_S_MAX, Round, run_round
from zkbroker.cli.bench_failover_scenarios import SCENARIOS, Scenario, System, member

PROG = "zkbroker-bench failover"
DESCRIPTION = """\
Measure for how long a fault keeps a client from writing.

Starts an ensemble and three brokers on this machine. In each round a client in a process of its own writes a record
every 2 ms with acks=all; then the fault strikes, and the figure is the longest time between two acknowledgements, by
the clock of the client's delivery callbacks, until writing has gone on for a second. It strikes at a random moment of a
second, the same one for both systems: the client, librdkafka, looks after its brokers once a second, and where none of
its requests was under way when the leader died ("nothing under way"), it may ask for the new one only then. It has
retry.backoff.ms 10, retry.backoff.max.ms 20, reconnect.backoff.ms 10, reconnect.backoff.max.ms 50 and
topic.metadata.refresh.fast.interval.ms 10; beside it a second one with librdkafka's defaults writes every 20 ms.
For pause-leader both have topic.metadata.refresh.interval.ms 250 and socket.timeout.ms 1000: a silent leader tells
nobody that it is one no more. For partitions the figure is the time until each of the victim's took a record.

For destroy-leader, reject-leader and cut-leader the brokers and ZooKeeper are in network namespaces that the benchmark
makes and removes (root on Linux; elsewhere they are skipped with the reason). The last two leave the broker alive: they
are undone when writing has gone on for a second, or else 7 s after the session timeout ("it lasted until undone"), and
a second figure is the time from then until the old leader followed in the ISR again. After such a round all brokers
are restarted: they remember for a minute whom they suspected falsely.

Disks fail by a library that stands before the system calls of brokers that are started with it (Linux and a C compiler;
elsewhere skipped). A disk that hangs is undone likewise. When all lose power, the figure is the number of acknowledged
records that are lost: of each file is left what was there at its last fsync. The brokers start again when their
sessions have expired. Where no leader is elected, because nobody knows what is missing, a person accepts the loss after
10 s. Kafka's flush policy is its default, with segments of 16 KiB: a segment is flushed when the next one begins, so
that with the default of 1 GiB nearly all would be lost that the kernel had not written of its own accord. There losses
do not make the status 1.

After each round everything that was acknowledged is read back: a lost record is said and makes the status 1. A canary
process that only sleeps shows how late this machine lets processes run; where its p99 passes 20 ms, the round is
repeated, and both are shown. "waited" is for how long the broker that waited most was ready to run and had no
processor: what a machine with other work costs. Figures: the median and the 19th of 20 (95th percentile by nearest
rank).
"""
EXAMPLES = f"""\
  everything, 20 rounds each (about an hour and a half, as root):
    {PROG}
  a quick look at one fault:
    {PROG} --scenario kill-leader --rounds 5 --no-client-defaults
  a leader that only its peers cannot reach, and one that they believe dead:
    sudo {PROG} --scenario cut-leader --scenario reject-leader --rounds 3
  beside Kafka 3.9.1, turn about, figures also as JSON (hours: Kafka waits 18 s for each session):
    {PROG} --kafka --kafka-rounds 5 --json failover.json
  as it would be without the fast path, keeping the brokers' logs:
    {PROG} --set broker.failure.detection=session --keep ./failover-logs

scenarios, with what is asked of zkbroker's median and 19th of 20:
""" + "\n".join(f"  {one.name:<17} {one.title}{one.target}" for one in SCENARIOS)
TURN_ROUNDS = 5
"""So many rounds of one system before the other's turn: a cluster's start takes longer than a round."""
REPEATED_MAX = 1.0
"""How many noisy rounds are repeated, per round that was asked for."""
BROKER_IDS = (1, 2, 3)
ZOOKEEPER, ZOOKEEPER_NUMBER = "zk", 100
"""What the ensemble's namespace is called, and what its address ends with; all servers are in it."""


def make_parser() -> argparse.ArgumentParser:
    parser = common.make_parser(PROG, DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "--scenario",
        action="append",
        choices=[one.name for one in SCENARIOS],
        metavar="NAME",
        help="may be repeated; default: all, see below",
    )
    parser.add_argument("--rounds", type=common.positive, default=20, metavar="N", help="of each scenario (default 20)")
    parser.add_argument("--no-client-defaults", action="store_true", help="without the second client")
    parser.add_argument("--client", action="append", default=[], metavar="KEY=VALUE", help="librdkafka setting of both")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of zkbroker's brokers")
    parser.add_argument(
        "--records",
        type=common.positive,
        default=10_000,
        metavar="N",
        help="acknowledged before all lose power (default 10000)",
    )
    parser.add_argument(
        "--session-timeout-ms", type=common.positive, default=18_000, metavar="MS", help="default 18000"
    )
    parser.add_argument("--kafka", action="store_true", help="the same with Kafka 3.9.1, turn about")
    parser.add_argument("--kafka-rounds", type=common.positive, metavar="N", help="fewer for Kafka (default: --rounds)")
    parser.add_argument(
        "--kafka-libs",
        default=os.environ.get("ZKBROKER_KAFKA_LIBS"),
        metavar="FOLDER",
        help="Kafka's jars (default: $ZKBROKER_KAFKA_LIBS; bin/zkbroker-bench fetches them)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="every round's figures, also after an interruption")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where logs and data go, and stay; must not exist")
    return parser


def main(argv: list[str] | None = None) -> int:
    return common.run(PROG, _run, make_parser(), argv)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.kafka and not (arguments.kafka_libs and Path(arguments.kafka_libs).is_dir()):
        raise common.UsageError("--kafka needs Kafka's jars: --kafka-libs or ZKBROKER_KAFKA_LIBS")
    if arguments.json is not None:
        with arguments.json.open("a"):  # now, not after an hour
            pass
    common.raise_on_signals()
    wanted = arguments.scenario or [one.name for one in SCENARIOS]
    bench = _Bench(arguments, [one for one in SCENARIOS if one.name in wanted])
    try:
        with _folder(arguments.keep) as directory:
            bench.run(directory)
    except (LocalFailure, NotAllowed) as failure:
        print(f"{PROG}: {failure}", file=sys.stderr)
        bench.report()
        return 1
    except KeyboardInterrupt:
        bench.report()
        raise
    bench.report()
    return 0 if bench.is_whole else 1


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        folder = Path(tempfile.mkdtemp(prefix="zkbroker-failover-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        keep.mkdir(parents=True)
    except FileExistsError:
        raise common.CommandError(f"{PROG}: {keep} exists") from None
    yield keep.resolve()


def _command_in(
    network: Network | None, command: Callable[[LocalBroker], list[str]]
) -> Callable[[LocalBroker], list[str]]:
    """The same in the broker's namespace, if there is one for each."""
    if network is None:
        return command
    return lambda broker: [*network.enter(member(broker.broker_id)), *command(broker)]


class _Bench:
    def __init__(self, arguments: argparse.Namespace, scenarios: Sequence[Scenario]) -> None:
        self._arguments = arguments
        self._scenarios = scenarios
        self._rounds: list[Round] = []
        self._skipped: dict[str, str] = {}
        """Scenario → why."""
        self._phases_s: dict[tuple[str, int], float] = {}
        self._library: Path | None = None
        """That lets disks fail."""

    @property
    def is_whole(self) -> bool:
        may_lose = {one.name for one in self._scenarios if one.may_lose}
        return not any(one.lost_count for one in self._rounds if one.scenario not in may_lose)

    def run(self, directory: Path) -> None:
        """Ends all that it started, whatever happens; first what a run that was killed has left."""
        remove_left_namespaces()
        local = self._with_disks([one for one in self._scenarios if not one.fault.needs_network], directory)
        networked = [one for one in self._scenarios if one.fault.needs_network]
        if local:
            self._run_scenarios(local, directory, None)
        if not networked:
            return
        reason = why_no_network()
        if reason is None:
            with Network() as network:
                self._run_scenarios(networked, directory / "networked", network)
        else:
            self._skip(networked, reason)

    def _with_disks(self, scenarios: Sequence[Scenario], directory: Path) -> Sequence[Scenario]:
        """Those of them that can be: disks that fail take a library that has to be compiled."""
        faulty = [one for one in scenarios if one.fault.needs_disks]
        if faulty:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                self._library = disk_faults_library(directory)
            except LocalFailure as failure:
                self._skip(faulty, str(failure))
                return [one for one in scenarios if one not in faulty]
        return scenarios

    def _skip(self, scenarios: Sequence[Scenario], reason: str) -> None:
        for scenario in scenarios:
            self._skipped[scenario.name] = reason
            print(f"{scenario.name}: skipped: {reason}", flush=True)

    def _run_scenarios(self, scenarios: Sequence[Scenario], directory: Path, network: Network | None) -> None:
        """With an ensemble and clusters for them."""
        with contextlib.ExitStack() as stack:
            if network is None:
                ensemble = LocalEnsemble(directory)
            else:
                host = network.add(ZOOKEEPER, ZOOKEEPER_NUMBER)
                ensemble = LocalEnsemble(directory, host=host, prefix=network.enter(ZOOKEEPER))
            stack.callback(ensemble.stop)
            ensemble.start()
            canary = stack.enter_context(Canary(directory))
            systems = self._make_systems(ensemble.connect, directory, network)
            for system in systems:
                stack.callback(system.cluster.close)
            for scenario in scenarios:
                self._run_scenario(scenario, systems, canary)

    def _make_systems(self, connect: str, directory: Path, network: Network | None) -> list[System]:
        settings = {
            "zookeeper.session.timeout.ms": self._arguments.session_timeout_ms,
            "default.replication.factor": 3,
            "min.insync.replicas": 2,
            "auto.create.topics.enable": "false",
            "auto.leader.rebalance.enable": "false",  # the leader that is to be killed stays one until then
        }
        ours = {**settings, **common.key_values(self._arguments.set, "--set")}
        place = directory / "zkbroker"
        # One system's brokers run at a time, so both have the same places.
        hosts = None if network is None else [network.add(member(number), number) for number in BROKER_IDS]
        command = _command_in(network, start_command)
        cluster = LocalCluster(f"{connect}/zkbroker", place, len(BROKER_IDS), ours, command=command, hosts=hosts)
        systems = [System("zkbroker", cluster, place, network)]
        if self._arguments.kafka:
            place = directory / "kafka"
            command = _command_in(network, partial(kafka_start_command, libs=self._arguments.kafka_libs))
            cluster = LocalCluster(
                f"{connect}/kafka",
                place,
                len(BROKER_IDS),
                settings,
                command=command,
                replication_listener=False,
                hosts=hosts,
            )
            systems.append(System("Kafka", cluster, place, network))
        return systems

    def _run_scenario(self, scenario: Scenario, systems: Sequence[System], canary: Canary) -> None:
        print(f"{scenario.name}: {scenario.title}", flush=True)
        left = {system.name: self._count(system) for system in systems}
        repeated = dict.fromkeys(left, 0)
        while any(left.values()):
            for system in systems:
                if not left[system.name]:
                    continue
                for _ in range(min(TURN_ROUNDS, left[system.name])):
                    number = self._count(system) - left[system.name]
                    done = self._run_round(system, scenario, number, canary)
                    self._rounds.append(done)
                    print("  " + round_line(done, self._count(system)), flush=True)
                    canary.forget(time.monotonic())
                    if not done.is_quiet and repeated[system.name] < REPEATED_MAX * self._count(system):
                        repeated[system.name] += 1
                        continue
                    left[system.name] -= 1
                if len(systems) > 1:
                    system.cluster.stop(120)

    def _run_round(self, system: System, scenario: Scenario, number: int, canary: Canary) -> Round:
        if scenario.partitions_count > 1:
            return run_partitions_round(system, scenario, number, canary)
        client = common.key_values(self._arguments.client, "--client")
        # Drawn once for a round's number: both systems, and a round that is repeated, are struck at the same moment.
        phase_s = self._phases_s.setdefault((scenario.name, number), random.uniform(0, PHASE_S_MAX))
        with_defaults = not self._arguments.no_client_defaults
        if not scenario.fault.needs_disks or self._library is None:
            return run_round(system, scenario, number, canary, with_defaults, client, phase_s)
        with on_faulty_disks(system, scenario, self._library) as faulty:
            if scenario.victim == "all":
                return run_power_round(faulty, scenario, number, canary, self._arguments.records, phase_s)
            return run_round(faulty, scenario, number, canary, with_defaults, client, phase_s)

    def _count(self, system: System) -> int:
        arguments = self._arguments
        return int(arguments.rounds if system.name == "zkbroker" else arguments.kafka_rounds or arguments.rounds)

    @property
    def _system_names(self) -> list[str]:
        return ["zkbroker", "Kafka"] if self._arguments.kafka else ["zkbroker"]

    def report(self) -> None:
        """What was measured so far."""
        if self._rounds:
            print()
            for line in table(self._rounds, self._scenarios, self._system_names):
                print(line)
            for name, reason in self._skipped.items():
                print(f"{name}: skipped: {reason}")
            sys.stdout.flush()
        if self._arguments.json is not None:
            self._arguments.json.write_text(json.dumps([one.as_json() for one in self._rounds], indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())

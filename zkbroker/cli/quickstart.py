"""``bin/quickstart``: a real cluster on this machine, its leader killed with -9 while records are written, and a count.

What it prints is what it saw: znodes as they are in ZooKeeper, times as measured, records as read back.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from zkbroker.cli import _common as common
from zkbroker.cli._local_cluster import LocalCluster
from zkbroker.cli._local_zookeeper import LocalEnsemble, zookeeper_class_path
from zkbroker.cli._processes import ChildProcess, LocalFailure, free_ports, port_is_free, wait_until
from zkbroker.cli._traffic import CheckedWriter, read_back

PROG = "quickstart"
TOPIC = "quickstart"
ROOT = Path(__file__).resolve().parents[2]
WRITE_BEFORE_S = 3.0
WRITE_AFTER_S = 3.0
RECORDS_PER_SECOND = 1000
EXAMPLES = """\
  watch it, then play with the running cluster; Ctrl-C ends it:
    bin/quickstart
  run to the end by itself; status 0 only if every acknowledged record came back:
    bin/quickstart --once
  against an ensemble of your own:
    ZOOKEEPER_CONNECT=zk1:2181,zk2:2181,zk3:2181 bin/quickstart
"""


def make_parser() -> argparse.ArgumentParser:
    parser = common.make_parser(
        PROG,
        "Start a ZooKeeper ensemble and three brokers, write, kill -9 the leader, read everything back.",
        EXAMPLES,
    )
    parser.add_argument(
        "--once", action="store_true", help="end after the check instead of leaving the cluster running"
    )
    parser.add_argument("--keep-data", action="store_true", help="do not begin with empty folders")
    parser.add_argument(
        "--data", type=Path, default=ROOT / "data" / "quickstart", metavar="DIR", help="where it all lies"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    return common.run(PROG, _run, make_parser(), argv)


class Screen:
    """Plain lines with the seconds since the start; bold only on a terminal."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._is_terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def step(self, text: str) -> None:
        shown = f"\x1b[1m{text}\x1b[0m" if self._is_terminal else text
        print(f"\n{self._stamp()} {shown}", flush=True)

    def say(self, text: str) -> None:
        print(f"{self._stamp()}   {text}", flush=True)

    def znode(self, path: str, content: Any) -> None:
        shown = content if isinstance(content, str) else json.dumps(content, separators=(",", ":"))
        print(f"          {path}\n            {shown}", flush=True)

    def _stamp(self) -> str:
        return f"{time.monotonic() - self._began:6.2f} s"


class DockerEnsemble:
    """Three ZooKeeper servers as containers, for a machine with Docker and without Java."""

    def __init__(self, directory: Path) -> None:
        ports = free_ports(9)
        self.client_ports = ports[:3]
        self.connect = ",".join(f"127.0.0.1:{port}" for port in self.client_ports)
        servers = " ".join(
            f"server.{number + 1}=127.0.0.1:{ports[3 + number]}:{ports[6 + number]};{self.client_ports[number]}"
            for number in range(3)
        )
        self.servers = [
            ChildProcess(
                f"zookeeper-{number + 1}",
                [
                    *("docker", "run", "--rm", "--init", "--network", "host"),
                    *("--name", f"zkbroker-quickstart-zookeeper-{number + 1}-{os.getpid()}"),
                    *("-e", f"ZOO_MY_ID={number + 1}", "-e", f"ZOO_SERVERS={servers}"),
                    *("-e", "ZOO_TICK_TIME=1000", "-e", "ZOO_ADMINSERVER_ENABLED=false"),
                    "zookeeper:3.9",
                ],
                directory / f"zookeeper-{number + 1}.log",
            )
            for number in range(3)
        ]

    def start(self) -> None:
        for server in self.servers:
            server.start()

    def stop(self) -> None:
        for server in self.servers:
            server.stop()


def _has_docker() -> bool:
    if shutil.which("docker") is None:
        return False
    probe = ChildProcess("docker", ["docker", "info"], Path(os.devnull))
    probe.start()
    return probe.wait(20) == 0


def find_zookeeper(screen: Screen, directory: Path) -> tuple[str, LocalEnsemble | DockerEnsemble | None]:
    """A connect string, and what was started for it (None: it was running already). Raises LocalFailure."""
    given = os.environ.get("ZOOKEEPER_CONNECT")
    if given:
        # A place of its own each time: another run's topics and registrations are not ours.
        screen.step("ZooKeeper: the ensemble of ZOOKEEPER_CONNECT")
        connect = given if "/" in given else f"{given}/zkbroker-quickstart-{int(time.time())}"
        screen.say(connect)
        return connect, None
    if zookeeper_class_path() is not None:
        wanted = [2181, 2182, 2183]
        ports = wanted if all(port_is_free(port) for port in wanted) else free_ports(3)
        screen.step("ZooKeeper: starting an ensemble of three servers")
        ensemble = LocalEnsemble(directory, client_ports=ports)
        ensemble.start()
        for number, server in enumerate(ensemble.servers):
            screen.say(f"{server.name} on port {ports[number]}: {ensemble.mode(number)}")
        return ensemble.connect, ensemble
    if _has_docker():
        screen.step("ZooKeeper: starting three containers")
        containers = DockerEnsemble(directory)
        containers.start()
        screen.say(containers.connect)
        return containers.connect, containers
    raise LocalFailure(
        "no ZooKeeper found: set ZOOKEEPER_CONNECT, install Debian's package `zookeeper`, or start Docker"
    )


def make_cluster(connect: str, directory: Path) -> LocalCluster:
    """Three brokers by conf/broker-N.yaml; other ports than the file's only where those are taken."""
    wanted = [9092, 9093, 9094]
    ports = wanted if all(port_is_free(port) for port in wanted) else free_ports(3)
    cluster = LocalCluster(connect, directory, ports=ports)
    for broker_id, broker in cluster.brokers.items():
        path = ROOT / "conf" / f"broker-{broker_id}.yaml"
        if path.exists():
            broker.settings = {**yaml.safe_load(path.read_text()), **broker.settings}
    return cluster


def _run(arguments: argparse.Namespace) -> int:
    common.raise_on_signals((signal.SIGTERM, signal.SIGHUP))
    screen = Screen()
    directory: Path = arguments.data.resolve()
    if directory.exists() and not arguments.keep_data:
        if any(directory.iterdir()) and not (directory / ".quickstart").exists():
            raise common.CommandError(f"{PROG}: {directory} holds something else than a quickstart's data; left alone")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / ".quickstart").touch()
    zookeeper: LocalEnsemble | DockerEnsemble | None = None
    cluster: LocalCluster | None = None
    try:
        connect, zookeeper = find_zookeeper(screen, directory)
        cluster = make_cluster(connect, directory)
        is_whole = _show(screen, cluster)
        if not arguments.once:
            _hints(screen, cluster, connect)
            _wait_for_the_end(screen, cluster)
        return 0 if is_whole else 1
    except LocalFailure as failure:
        print(f"{PROG}: {failure}", file=sys.stderr)
        return 1
    finally:
        if cluster is not None:
            screen.step("Stopping")
            try:
                screen.say(f"brokers gone after {cluster.stop(20):.1f} s (controlled shutdown)")
            except LocalFailure as failure:
                print(f"{PROG}: {failure}", file=sys.stderr)
            cluster.close()
        if zookeeper is not None:
            zookeeper.stop()


def _show(screen: Screen, cluster: LocalCluster) -> bool:
    """The run itself; True if every acknowledged record came back once and in order."""
    screen.step("Brokers: starting three")
    began = time.monotonic()
    cluster.start()
    for broker in cluster.brokers.values():
        screen.say(f"{broker.name}: process {broker.pid}, port {broker.port}, {broker.rss_bytes() / 2**20:.0f} MiB")
    screen.say(f"registered after {time.monotonic() - began:.2f} s; controller is broker {cluster.controller_id()}")
    screen.znode("/controller", cluster.read_json("/controller"))
    screen.znode("/brokers/ids/1", cluster.read_json("/brokers/ids/1"))

    screen.step(f"Topic {TOPIC}: one partition, three replicas, min.insync.replicas=2")
    if TOPIC not in cluster.topics():
        new = common.kafka_admin.NewTopic(TOPIC, 1, 3, config={"min.insync.replicas": "2"})
        client = common.kafka_admin.AdminClient(common.client_config(cluster.bootstrap, defaults={}))
        client.create_topics([new], operation_timeout=20)[TOPIC].result(30)
    cluster.wait_isr(TOPIC, sorted(cluster.brokers))
    leader = cluster.wait_leader(TOPIC)
    path = f"/brokers/topics/{TOPIC}/partitions/0/state"
    screen.say(f"broker {leader} leads")
    screen.znode(path, cluster.state(TOPIC))

    screen.step(f"Writing {RECORDS_PER_SECOND} records a second with acks=all and enable.idempotence=true")
    writer = CheckedWriter(cluster.bootstrap, TOPIC, RECORDS_PER_SECOND)
    writer.start()
    time.sleep(WRITE_BEFORE_S)
    screen.say(f"{writer.acknowledged_count} acknowledged so far")

    screen.step(f"kill -9 {cluster.brokers[leader].pid}: broker {leader}, the leader")
    killed = time.monotonic()
    cluster.brokers[leader].kill()
    successor = cluster.wait_leader(TOPIC, other_than=leader, timeout_s=60)
    screen.say(f"ZooKeeper names broker {successor} as leader {time.monotonic() - killed:.2f} s after the kill")
    screen.znode(path, cluster.state(TOPIC))
    if cluster.controller_id() is not None:
        screen.say(f"controller is broker {cluster.controller_id()}")
    at_kill = writer.acknowledged_count
    wait_until(lambda: writer.acknowledged_count > at_kill, "writing goes on", 60, cluster.explain)
    screen.say(f"writing goes on {time.monotonic() - killed:.2f} s after the kill")
    time.sleep(WRITE_AFTER_S)

    screen.step(f"Broker {leader} comes back")
    cluster.restart(leader)
    cluster.wait_isr(TOPIC, sorted(cluster.brokers))
    screen.say(f"caught up and in sync again; broker {cluster.leader(TOPIC)} still leads")
    screen.znode(path, cluster.state(TOPIC))
    writer.stop()

    screen.step("Reading everything back")
    verdict = read_back(cluster.bootstrap, TOPIC, writer)
    screen.say(f"sent          {writer.sent_count}")
    screen.say(f"acknowledged  {writer.acknowledged_count} ({writer.failed_count} failed)")
    screen.say(f"read          {verdict.read_count}")
    screen.say(
        f"lost {verdict.lost_count}, duplicated {verdict.duplicated_count}, out of order {verdict.misplaced_count}"
    )
    screen.say(f"the longest time without an acknowledgement was {writer.longest_gap_s:.2f} s")
    back = writer.acknowledged_count - verdict.lost_count
    if verdict.is_whole and writer.acknowledged_count > 0:
        screen.step(f"{back} of {writer.acknowledged_count} acknowledged records came back.")
        return True
    screen.step(
        f"NOT WHOLE: {back} of {writer.acknowledged_count} acknowledged records came back. This is a bug: tell us."
    )
    return False


def _hints(screen: Screen, cluster: LocalCluster, connect: str) -> None:
    first = f"127.0.0.1:{cluster.brokers[1].port}"
    servers, slash, chroot = connect.partition("/")
    cli = shutil.which("zkCli.sh") or "/usr/share/zookeeper/bin/zkCli.sh"
    replication = str(cluster.brokers[1].settings["listeners"]).rpartition(":")[2]
    screen.step("The cluster runs. Try, in another terminal:")
    for line in (
        f"{cli} -server {servers.split(',')[0]}{slash}{chroot} get /brokers/topics/{TOPIC}/partitions/0/state",
        f"kcat -b {first} -L",
        f"bin/zkbroker-topics --bootstrap-server {first} --describe",
        f"bin/zkbroker-console-producer --bootstrap-server {first} --topic {TOPIC}",
        f"bin/zkbroker-console-consumer --bootstrap-server {first} --topic {TOPIC} --from-beginning --max-messages 5",
        f"printf 'STATUS\\nPARTITIONS\\n' | nc -q1 127.0.0.1 {replication}      # what brokers say to each other",
    ):
        print(f"    {line}")
    print("  Ctrl-C stops the brokers and the ensemble.", flush=True)


def _wait_for_the_end(screen: Screen, cluster: LocalCluster) -> None:
    """Until Ctrl-C; says when a broker ends, which is what people try first."""
    known = {broker_id: broker.is_running for broker_id, broker in cluster.brokers.items()}
    try:
        while True:
            time.sleep(0.5)
            for broker_id, broker in cluster.brokers.items():
                if known[broker_id] and not broker.is_running:
                    known[broker_id] = False
                    screen.say(f"broker {broker_id} ended (status {broker.exit_status}); see {broker.log_path}")
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    sys.exit(main())

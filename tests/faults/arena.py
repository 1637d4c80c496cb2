"""What is tortured: an ensemble, brokers on it, and, where this machine allows it, a network and a small disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka.admin import AdminClient
from kazoo.client import KazooClient
from kazoo.handlers.threading import KazooTimeoutError

from tests.faults.network import RunFolder, mount_small, why_no_mount
from tests.harness.brokers import Cluster, LocalBroker, LocalFailure, quiet
from tests.harness.zookeeper import ZooKeeperEnsemble
from zkbroker.cli._canary import Canary
from zkbroker.cli._namespaces import Network, why_no_network

KAFKA_PORT, REPLICATION_PORT = 9092, 19092
TICK_MS = 500
PATIENCE_S = 120.0
"""How long something may take that must come about."""


class ArenaSettings(NamedTuple):
    brokers: int = 3
    session_ms: int = 3000
    disk_mib: int = 64
    """Of the last broker's second log folder, which can be filled."""
    overrides: Mapping[str, Any] = {}

    @property
    def ensemble_pause_s(self) -> float:
        """How long the whole ensemble stands still: longer than the sessions."""
        return self.session_ms / 1000 + 2

    @property
    def sync_ticks(self) -> int:
        """Of the ensemble, so that its followers do not leave their leader over that pause.

        Those of ZooKeeper 3.8.0 that return to the same leader while it has proposals under way may have logged some
        of them before, and their acknowledgements died with the old connections: then the leader commits nothing any
        more, with all followers in sync, until it is restarted (seen with five brokers: 70 commits, 1061 proposals).
        """
        return math.ceil(2 * self.ensemble_pause_s * 1000 / TICK_MS)


def start_in(network: Network, broker: LocalBroker) -> list[str]:
    return [
        *network.enter(f"b{broker.broker_id}"),
        *(sys.executable, "-m", "zkbroker.cli.server_start", str(broker.config_path)),
    ]


class ArenaCluster(Cluster):
    """Brokers with addresses of their own if there is a network for them."""

    def __init__(self, connect: str, folder: Path, settings: ArenaSettings, network: Network | None) -> None:
        overrides = {
            "zookeeper.session.timeout.ms": settings.session_ms,
            "replica.lag.time.max.ms": 3000,
            "replica.high.watermark.checkpoint.interval.ms": 1000,
            "log.segment.bytes": 200_000,
            "log.retention.ms": -1,
            "log.index.interval.bytes": 1024,
            **settings.overrides,
        }
        super().__init__(connect, folder, settings.brokers, overrides, kafka=False)
        self.hosts = dict.fromkeys(self.brokers, "127.0.0.1")
        if network is None:
            return
        for number, broker in self.brokers.items():
            host = self.hosts[number] = network.add(f"b{number}", number)
            broker.settings["listeners"] = f"PLAINTEXT://{host}:{KAFKA_PORT},REPLICATION://{host}:{REPLICATION_PORT}"
            self.brokers[number] = LocalBroker(
                number, broker.directory, broker.settings, KAFKA_PORT, partial(start_in, network)
            )

    @property
    def bootstrap(self) -> str:
        return ",".join(f"{self.hosts[number]}:{broker.port}" for number, broker in self.brokers.items())

    def _is_informed(self, broker: LocalBroker) -> bool:
        server = f"{self.hosts[broker.broker_id]}:{broker.port}"
        told = AdminClient(quiet({"bootstrap.servers": server})).list_topics(timeout=5)
        return sorted(told.brokers) == sorted(self.brokers) and told.controller_id == self.controller_id()


class Arena:
    """Use as a context manager. ``no_network`` and ``no_disk`` say why some faults cannot be had; None: they can."""

    ensemble: ZooKeeperEnsemble
    cluster: ArenaCluster
    network: Network | None
    canary: Canary

    def __init__(self, settings: ArenaSettings | None = None) -> None:
        self.settings = settings or ArenaSettings()
        self.no_network = why_no_network()
        self.no_disk = why_no_mount()
        self.small_disk: Path | None = None
        """The last broker's second log folder, on a file system of its own."""
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Arena:
        try:
            self._make()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _make(self) -> None:
        folder = self._stack.enter_context(RunFolder()).path
        self.canary = self._stack.enter_context(Canary(folder))
        self.network = self._stack.enter_context(Network()) if self.no_network is None else None
        names = [f"zk{number}" for number in (1, 2, 3)]
        if self.network is None:
            self.ensemble = self.make_ensemble(folder)
        else:
            hosts = [self.network.add(name, 101 + number) for number, name in enumerate(names)]
            prefixes = [self.network.enter(name) for name in names]
            self.ensemble = self.make_ensemble(folder, hosts, prefixes)
        self._stack.enter_context(self.ensemble)
        self.cluster = ArenaCluster(self.ensemble.connect_string, folder / "brokers", self.settings, self.network)
        if self.no_disk is None:
            self._add_small_disk(self.cluster.brokers[self.settings.brokers])
        self._stack.callback(self.cluster.close)
        self.cluster.start(PATIENCE_S)

    def make_ensemble(
        self, folder: Path, hosts: Sequence[str] = (), prefixes: Sequence[Sequence[str]] = ()
    ) -> ZooKeeperEnsemble:
        return ZooKeeperEnsemble(
            3,
            tick_ms=TICK_MS,
            sync_ticks=self.settings.sync_ticks,
            folder=folder / "zookeeper",
            hosts=hosts,
            prefixes=prefixes,
        )

    def _add_small_disk(self, broker: LocalBroker) -> None:
        self.small_disk = broker.data_dir.with_name("data-2")
        self.small_disk.mkdir(parents=True)
        mount_small(self.small_disk, self.settings.disk_mib)
        broker.settings["log.dirs"] = f"{broker.data_dir},{self.small_disk}"

    @property
    def session_s(self) -> float:
        return self.settings.session_ms / 1000

    def heal(self) -> None:
        """Undo whatever a fault that failed half-way has left: everybody runs, and hears everybody."""
        if self.network is not None:
            self.network.heal()
        for server in self.ensemble.servers:
            server.resume()
        self.ensemble.start()
        for broker in self.cluster.brokers.values():
            if broker.is_paused:
                broker.resume()
            if not broker.is_running:
                broker.start()

    # -- folders of brokers

    def log_dirs(self, number: int) -> list[Path]:
        return [Path(name) for name in str(self.cluster.brokers[number].settings["log.dirs"]).split(",")]

    def replica_dirs(self, number: int, topic: str) -> list[Path]:
        return sorted(
            path for folder in self.log_dirs(number) for path in folder.glob(f"{topic}-*") if path.name[-1].isdigit()
        )

    def empty_folders(self, number: int) -> None:
        """What is mounted stays, without its content. A running broker may write while this removes."""
        for folder in self.log_dirs(number):
            for path in folder.iterdir():
                if path.is_dir():
                    while path.exists():
                        shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def digest(self, number: int, topic: str, partition: int) -> tuple[str, int]:
        """Digest and size of a replica's records on the disk, over all its segments."""
        digest, size = hashlib.sha256(), 0
        for path in self.replica_dirs(number, topic):
            if path.name == f"{topic}-{partition}":
                for segment in sorted(path.glob("*.log")):
                    content = segment.read_bytes()
                    digest.update(content)
                    size += len(content)
        return digest.hexdigest()[:16], size

    # -- sessions

    def expire_session(self, number: int) -> None:
        """Close the broker's ZooKeeper session from outside, as ZooKeeper does when it expires."""
        kept = json.loads((self.log_dirs(number)[0] / "zookeeper-session.json").read_text())
        session_id = int(kept["session_id"])
        client = KazooClient(
            self.ensemble.connect_string,
            timeout=self.session_s,
            client_id=(session_id, bytes.fromhex(kept["password"])),
        )
        client.start(timeout=20)
        if client.client_id is None or client.client_id[0] != session_id:
            raise LocalFailure(f"the session of broker {number} had ended before")
        client.stop()
        client.close()

    def zookeeper_commits(self, timeout_s: float = 5) -> bool:
        """Whether the ensemble makes a new session: without that no broker can do anything about anything."""
        client = KazooClient(self.ensemble.connect_string, timeout=self.session_s)
        try:
            client.start(timeout=timeout_s)
        except KazooTimeoutError:
            return False
        finally:
            client.stop()
            client.close()
        return True

    def keep_logs(self, folder: Path) -> None:
        """Copy the brokers' logs there, for whoever looks into a violation."""
        folder.mkdir(parents=True, exist_ok=True)
        for broker in self.cluster.brokers.values():
            if broker.log_path.exists():
                shutil.copy(broker.log_path, folder / f"{broker.name}.log")

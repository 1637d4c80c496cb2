"""Brokers on this machine as child processes: what quickstart, the benchmark and tests/harness share.

A broker is started as a user starts it: a YAML file and ``zkbroker-server-start``. What the cluster knows of itself it
reads from ZooKeeper, as a person with zkCli would.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from kazoo.retry import KazooRetry

from zkbroker.cli._processes import ChildProcess, LocalFailure, free_ports, wait_until

_T = TypeVar("_T")
_StartCommand = Callable[["LocalBroker"], list[str]]

PATIENCE_S = 90.0
"""How long what must come about is waited for by default: long enough for a machine that does much else."""


def start_command(broker: LocalBroker) -> list[str]:
    return [sys.executable, "-m", "zkbroker.cli.server_start", str(broker.config_path)]


def broker_environment() -> dict[str, str]:
    """This process's variables for a broker whose file alone decides: a ZKBROKER_… setting of the caller's shell would
    configure all brokers alike, and those variables that scripts and tests know name no key."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ZKBROKER_") or name == "ZKBROKER_REACTOR"
    }


class LocalBroker(ChildProcess):
    """One broker: its configuration file, its data folder, its process."""

    def __init__(
        self,
        broker_id: int,
        directory: Path,
        settings: Mapping[str, Any],
        port: int,
        command: _StartCommand = start_command,
        host: str = "127.0.0.1",
    ) -> None:
        self.broker_id = broker_id
        self.host = host
        self.port = port
        self.directory = directory
        self.data_dir = directory / "data"
        self.config_path = directory / "broker.yaml"
        self.settings = dict(settings)
        self._command = command
        super().__init__(f"broker-{broker_id}", [], directory / "server.log", broker_environment())

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config_path.write_text(yaml.safe_dump(self.settings, sort_keys=False))
        self.argv = self._command(self)
        super().start()

    def wait_started(self, timeout_s: float = PATIENCE_S, explain: Callable[[], str] | None = None) -> None:
        """Until it says that it serves. Raises LocalFailure with its last lines, at once if the process has ended."""

        def says_started() -> bool:
            return self.exit_status is not None or "started" in self.log_text()

        wait_until(says_started, f"{self.name} has started", timeout_s, explain or self.log_tail)
        if self.exit_status is not None:
            raise LocalFailure(f"{self.name} ended at start with status {self.exit_status}\n{self.log_tail()}")


class LocalCluster:
    """N brokers under one chroot of a running ensemble. Use as a context manager, or start() and close()."""

    def __init__(
        self,
        zookeeper_connect: str,
        directory: Path,
        brokers_count: int = 3,
        overrides: Mapping[str, Any] | None = None,
        ports: Sequence[int] | None = None,
        command: _StartCommand = start_command,
        replication_listener: bool = True,
        hosts: Sequence[str] | None = None,
    ) -> None:
        """``zookeeper_connect`` with its chroot; ``overrides`` are broker keys for all. ``ports`` are the brokers'
        Kafka ports, else free ones; ``hosts`` where they listen, else all on 127.0.0.1. A ``command`` other than the
        default starts another broker implementation, or a broker elsewhere."""
        self.zookeeper_connect = zookeeper_connect
        self.directory = directory
        free = free_ports(2 * brokers_count)
        kafka_ports = list(ports) if ports else free[:brokers_count]
        self.brokers: dict[int, LocalBroker] = {}
        for index, port in enumerate(kafka_ports):
            broker_id = index + 1
            host = hosts[index] if hosts else "127.0.0.1"
            listeners = f"PLAINTEXT://{host}:{port}"
            if replication_listener:
                listeners += f",REPLICATION://{host}:{free[brokers_count + index]}"
            folder = directory / f"broker-{broker_id}"
            settings = {
                "broker.id": broker_id,
                "listeners": listeners,
                "log.dirs": str(folder / "data"),
                "zookeeper.connect": zookeeper_connect,
                **(overrides or {}),
            }
            self.brokers[broker_id] = LocalBroker(broker_id, folder, settings, port, command, host)
        self._zookeeper: KazooClient | None = None

    def __enter__(self) -> LocalCluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def bootstrap(self) -> str:
        return ",".join(f"{broker.host}:{broker.port}" for broker in self.brokers.values())

    @property
    def running(self) -> list[LocalBroker]:
        return [broker for broker in self.brokers.values() if broker.is_running and not broker.is_paused]

    # -- the processes

    def start(self, timeout_s: float = PATIENCE_S) -> None:
        """Start those that do not run, and wait until all are registered."""
        for broker in self.brokers.values():
            if not broker.is_running:
                broker.start()
        for broker in self.brokers.values():
            broker.wait_started(timeout_s, self.explain)
        self.wait_for(
            lambda: self.live_ids() == sorted(self.brokers) and self.controller_id() is not None,
            "all brokers are registered and one is the controller",
            timeout_s,
        )

    def restart(self, broker_id: int, timeout_s: float = PATIENCE_S) -> None:
        """Start a broker that ended, and wait until it serves."""
        self.brokers[broker_id].start()
        self.brokers[broker_id].wait_started(timeout_s, self.explain)

    def stop(self, timeout_s: float = 60) -> float:
        """SIGTERM to all at once, then wait; the seconds until the last was gone."""
        started = time.monotonic()
        for broker in self.brokers.values():
            broker.terminate()
        for broker in self.brokers.values():
            broker.wait(timeout_s)
        return time.monotonic() - started

    def close(self) -> None:
        """End everything at once (kill -9): for the end of a test, not of a cluster that somebody wants to keep."""
        for broker in self.brokers.values():
            broker.kill()
        if self._zookeeper is not None:
            self._zookeeper.stop()
            self._zookeeper.close()
            self._zookeeper = None

    def wait_for(self, condition: Callable[[], _T], what: str, timeout_s: float = PATIENCE_S) -> _T:
        """Until ``condition`` is true. On failure the text holds the cluster's znodes and each broker's last lines."""
        return wait_until(condition, what, timeout_s, self.explain)

    def explain(self) -> str:
        lines = []
        try:
            lines.append(f"  live {self.live_ids()} controller {self.controller_id()}")
            for topic in self.topics():
                states = [(partition, self.state(topic, partition)) for partition in self.partitions(topic)]
                lines.extend(f"  {topic}-{partition} {json.dumps(state)}" for partition, state in states)
        except Exception as error:
            lines.append(f"  (ZooKeeper: {error!r})")
        for broker in self.brokers.values():
            lines.append(f"  {broker!r}")
            lines.append(broker.log_tail())
        return "\n".join(lines)

    # -- what ZooKeeper says

    @property
    def zookeeper(self) -> KazooClient:
        """A kazoo client in the cluster's chroot, connected."""
        if self._zookeeper is None:
            # Connecting is tried for ever (a client that gives up is closed for good), a command for half a minute.
            client = KazooClient(
                self.zookeeper_connect,
                timeout=10,
                connection_retry=KazooRetry(max_tries=-1, delay=0.1, max_delay=1.0),
                command_retry=KazooRetry(max_tries=30, delay=0.1, max_delay=1.0),
            )
            client.start(timeout=20)
            self._zookeeper = client
        return self._zookeeper

    def read(self, path: str) -> bytes | None:
        """The data of a znode; None if there is none."""
        try:
            data, _ = self.zookeeper.retry(self.zookeeper.get, path)
        except NoNodeError:
            return None
        return bytes(data or b"")

    def read_json(self, path: str) -> Any:
        data = self.read(path)
        return None if not data else json.loads(data)

    def _children(self, path: str) -> list[str]:
        try:
            return sorted(self.zookeeper.retry(self.zookeeper.get_children, path))
        except NoNodeError:
            return []

    def live_ids(self) -> list[int]:
        return sorted(int(name) for name in self._children("/brokers/ids"))

    def controller_id(self) -> int | None:
        office = self.read_json("/controller")
        return None if office is None else int(office["brokerid"])

    def topics(self) -> list[str]:
        return self._children("/brokers/topics")

    def partitions(self, topic: str) -> list[int]:
        return sorted(int(name) for name in self._children(f"/brokers/topics/{topic}/partitions"))

    def state(self, topic: str, partition: int = 0) -> dict[str, Any] | None:
        """``/brokers/topics/T/partitions/P/state`` decoded; None if there is none."""
        state: dict[str, Any] | None = self.read_json(f"/brokers/topics/{topic}/partitions/{partition}/state")
        return state

    def leader(self, topic: str, partition: int = 0) -> int | None:
        """The leader's id, -1 for none; None if the partition is unknown."""
        state = self.state(topic, partition)
        return None if state is None else int(state["leader"])

    def isr(self, topic: str, partition: int = 0) -> list[int]:
        state = self.state(topic, partition)
        return [] if state is None else [int(member) for member in state["isr"]]

    def wait_isr(self, topic: str, members: Sequence[int], timeout_s: float = PATIENCE_S) -> None:
        """Until every partition of the topic has exactly these in-sync replicas, and a leader among them."""

        def holds() -> bool:
            partitions = self.partitions(topic)
            return bool(partitions) and all(
                sorted(self.isr(topic, partition)) == sorted(members) and self.leader(topic, partition) in members
                for partition in partitions
            )

        self.wait_for(holds, f"ISR of {topic} is {sorted(members)}", timeout_s)

    def wait_leader(
        self, topic: str, partition: int = 0, *, other_than: int | None = None, timeout_s: float = PATIENCE_S
    ) -> int:
        """Until the partition has a leader (another than that one); its id."""

        def leader() -> int | None:
            found = self.leader(topic, partition)
            return found if found not in (None, -1, other_than) else None

        found = self.wait_for(leader, f"{topic}-{partition} has a leader other than {other_than}", timeout_s)
        if found is None:
            raise LocalFailure("wait_until returned without a leader")
        return found

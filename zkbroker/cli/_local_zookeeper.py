"""A ZooKeeper ensemble on this machine: the servers of Debian's package or of a release folder."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from zkbroker.cli._processes import ChildProcess, LocalFailure, free_ports, wait_until

DEBIAN_JAR = Path("/usr/share/java/zookeeper.jar")
DEBIAN_LOGGER = Path("/usr/share/java/slf4j-simple.jar")


def zookeeper_class_path() -> str | None:
    """Where ZooKeeper's server classes are: $ZOOKEEPER_HOME/lib, or Debian's package. None: not on this machine."""
    home = os.environ.get("ZOOKEEPER_HOME")
    if home and (Path(home) / "lib").is_dir():
        return f"{home}/lib/*"
    if DEBIAN_JAR.exists() and shutil.which("java"):
        return f"{DEBIAN_JAR}:{DEBIAN_LOGGER}"
    return None


def four_letter_word(port: int, word: str, timeout_s: float = 2, host: str = "127.0.0.1") -> str:
    """Ask a server one of ZooKeeper's four letter words. Raises OSError when nobody answers."""
    with socket.create_connection((host, port), timeout_s) as connection:
        connection.sendall(word.encode())
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts).decode()


class LocalEnsemble:
    """N ZooKeeper servers on one host, each a JVM with its folder below ``directory``."""

    def __init__(
        self,
        directory: Path,
        servers_count: int = 3,
        client_ports: Sequence[int] | None = None,
        tick_time_ms: int = 1000,
        settings: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        """``tick_time_ms`` bounds session timeouts to 2–60 ticks. ``settings`` are further zoo.cfg lines; ``prefix``
        is what their command begins with, to run them where ``host`` is."""
        self.host = host
        class_path = zookeeper_class_path()
        if class_path is None:
            raise LocalFailure("no ZooKeeper here: install Debian's package `zookeeper` or set ZOOKEEPER_HOME")
        ports = free_ports(3 * servers_count)
        self.client_ports = list(client_ports) if client_ports else ports[:servers_count]
        peers = [
            f"server.{number}={host}:{ports[servers_count + number - 1]}:{ports[2 * servers_count + number - 1]}"
            for number in range(1, servers_count + 1)
        ]
        self.servers: list[ChildProcess] = []
        for number, port in enumerate(self.client_ports, start=1):
            folder = directory / f"zookeeper-{number}"
            (folder / "data").mkdir(parents=True, exist_ok=True)
            (folder / "data" / "myid").write_text(f"{number}\n")
            lines = {
                "tickTime": str(tick_time_ms),
                "initLimit": "20",
                "syncLimit": "10",
                "maxSessionTimeout": str(60 * tick_time_ms),
                "dataDir": str(folder / "data"),
                "clientPort": str(port),
                "clientPortAddress": host,
                "maxClientCnxns": "0",
                "admin.enableServer": "false",
                "4lw.commands.whitelist": "*",
                **(settings or {}),
            }
            config = folder / "zoo.cfg"
            text = "".join(f"{key}={value}\n" for key, value in lines.items())
            config.write_text(text + ("\n".join(peers) + "\n" if servers_count > 1 else ""))
            argv = [
                *prefix,
                "java",
                "-Xmx128m",
                "-Xss512k",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-Dzookeeper.jmx.log4j.disable=true",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                "-Dorg.slf4j.simpleLogger.showDateTime=true",
                "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
                "-cp",
                class_path,
                "org.apache.zookeeper.server.quorum.QuorumPeerMain",
                str(config),
            ]
            self.servers.append(ChildProcess(f"zookeeper-{number}", argv, folder / "server.log"))

    @property
    def connect(self) -> str:
        """The value for ``zookeeper.connect``, without a chroot."""
        return ",".join(f"{self.host}:{port}" for port in self.client_ports)

    def start(self, timeout_s: float = 60) -> None:
        for server in self.servers:
            if not server.is_running:
                server.start()
        self.wait_serving(timeout_s)

    def wait_serving(self, timeout_s: float = 60) -> None:
        """Until every running server serves clients. Raises LocalFailure, with their last log lines."""
        for number, server in enumerate(self.servers):
            if server.is_running:
                wait_until(
                    lambda number=number: self.mode(number),  # type: ignore[misc]
                    f"{server.name} serves",
                    timeout_s,
                    server.log_tail,
                )

    def mode(self, number: int) -> str | None:
        """leader, follower or standalone of the server with this index (from 0); None when it does not serve."""
        try:
            answer = four_letter_word(self.client_ports[number], "srvr", host=self.host)
        except OSError:
            return None
        modes = [line.partition(":")[2].strip() for line in answer.splitlines() if line.startswith("Mode:")]
        return modes[0] if modes else None

    def stop(self) -> None:
        for server in self.servers:
            server.kill()  # a ZooKeeper server survives kill -9 by design and ends slower otherwise

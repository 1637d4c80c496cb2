"""A real ZooKeeper ensemble for tests: one or three servers on 127.0.0.1, each in its own process and folder.

Every server is killed by the kernel when the thread that started it ends (parent-death signal), so start them from
the main thread: then nothing is left running, not even after ``kill -9`` of the test process.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

SERVER_CLASS = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
CLI_CLASS = "org.apache.zookeeper.ZooKeeperMain"

# Below Linux's range for outgoing connections, so that a killed server finds its port free when it comes back.
PORTS_FIRST = 20_000
PORTS_LAST = 32_000

START_TIMEOUT_S = 90.0


class ZooKeeperMissing(Exception):
    """There is no Java or no ZooKeeper on this machine; says what to install."""


def zookeeper_classpath() -> str:
    """The Java class path of ZooKeeper: ``$ZOOKEEPER_HOME/lib``, or Debian's package. Raises ZooKeeperMissing."""
    if shutil.which("java") is None:
        raise ZooKeeperMissing("no 'java' on the PATH: install Debian's package zookeeper")
    home = os.environ.get("ZOOKEEPER_HOME")
    if home and Path(home, "lib").is_dir():
        return f"{home}/lib/*"
    debian = Path("/usr/share/java/zookeeper.jar")
    if debian.exists():
        # The manifest names all else; a logger that writes to stderr is not among it.
        return f"{debian}:{debian.with_name('slf4j-simple.jar')}"
    raise ZooKeeperMissing("ZooKeeper not found: install Debian's package zookeeper or set ZOOKEEPER_HOME")


def free_ports(count: int) -> list[int]:
    """``count`` different TCP ports of 127.0.0.1 on which nothing listens at this moment."""
    chosen: list[int] = []
    source = random.SystemRandom()
    while len(chosen) < count:
        port = source.randrange(PORTS_FIRST, PORTS_LAST)
        if port in chosen:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        chosen.append(port)
    return chosen


def die_with_parent(command: list[str]) -> list[str]:
    """``command`` started so that the kernel kills it when the thread that started it is gone (Linux)."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return command
    return [setpriv, "--pdeathsig", "KILL", "--", *command]


class ZooKeeperServer:
    """One server of an ensemble; ``number`` counts from 1. ``prefix`` is put before the command that starts it."""

    def __init__(
        self,
        number: int,
        client_port: int,
        folder: Path,
        config: str,
        classpath: str,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        self.number = number
        self.host = host
        self._prefix = list(prefix)
        self.client_port = client_port
        self.folder = folder
        self.log_path = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._config_path = folder / "zoo.cfg"
        self._classpath = classpath
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "myid").write_text(f"{number}\n")
        self._config_path.write_text(config)

    def __repr__(self) -> str:
        return f"ZooKeeperServer({self.number}, {self.address}, running={self.is_running})"

    @property
    def address(self) -> str:
        return f"{self.host}:{self.client_port}"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start the process; returns at once, see ``wait_until_serving``."""
        if self.is_running:
            return
        command = [
            *self._prefix,
            *("java", "-Xmx128m", "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"),
            "-Dzookeeper.admin.enableServer=false",
            "-Dzookeeper.4lw.commands.whitelist=*",
            "-Dzookeeper.forceSync=no",
            "-Dzookeeper.preAllocSize=1024",
            "-Dzookeeper.jmx.log4j.disable=true",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            *("-cp", self._classpath, SERVER_CLASS, str(self._config_path)),
        ]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                die_with_parent(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )

    def four_letter_word(self, word: str, timeout_s: float = 2.0) -> str:
        """The answer to ``ruok``, ``srvr``, ``mntr`` …; empty when the server does not answer."""
        try:
            with socket.create_connection((self.host, self.client_port), timeout_s) as connection:
                connection.sendall(word.encode("ascii"))
                answer = b""
                while chunk := connection.recv(8192):
                    answer += chunk
        except OSError:
            return ""
        return answer.decode("utf-8", "replace")

    def mode(self) -> str:
        """``leader``, ``follower``, ``standalone``, or empty while it serves nobody."""
        for line in self.four_letter_word("srvr").splitlines():
            if line.startswith("Mode: "):
                return line.removeprefix("Mode: ").strip()
        return ""

    def wait_until_serving(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Raises TimeoutError, with the end of the server's log, when it does not serve in time."""
        deadline = time.monotonic() + timeout_s
        while not self.mode():
            if not self.is_running or time.monotonic() > deadline:
                log = self.log_path.read_text(errors="replace")[-2000:]
                raise TimeoutError(f"ZooKeeper server {self.number} does not serve; its log ends with:\n{log}")
            time.sleep(0.05)

    def kill(self) -> None:
        """``kill -9``, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait until it is gone."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered."""
        if self.process is not None:
            self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after ``pause``."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class ZooKeeperEnsemble:
    """Servers that know each other. ``tick_ms`` sets the shortest session timeout (2 ticks) and longest (20).

    ``sync_ticks`` is ``syncLimit``: how long a follower may hear nothing from its leader, or the leader from it.
    ``hosts`` and ``prefixes`` have one entry a server: where it listens, and what its command begins with.
    """

    def __init__(
        self,
        servers: int = 1,
        *,
        tick_ms: int = 500,
        sync_ticks: int = 10,
        folder: str | Path | None = None,
        hosts: Sequence[str] = (),
        prefixes: Sequence[Sequence[str]] = (),
    ) -> None:
        classpath = zookeeper_classpath()
        self._owns_folder = folder is None
        self.folder = Path(folder) if folder is not None else Path(tempfile.mkdtemp(prefix="zookeeper-"))
        ports = free_ports(3 * servers)
        hosts = hosts or ["127.0.0.1"] * servers
        peers = ""
        if servers > 1:
            for index in range(servers):
                peer, election = ports[servers + index], ports[2 * servers + index]
                peers += f"server.{index + 1}={hosts[index]}:{peer}:{election}\n"
        self.servers: list[ZooKeeperServer] = []
        for index in range(servers):
            place = self.folder / f"server-{index + 1}"
            config = (
                f"tickTime={tick_ms}\ninitLimit=20\nsyncLimit={sync_ticks}\ndataDir={place / 'data'}\n"
                f"clientPort={ports[index]}\nclientPortAddress={hosts[index]}\nmaxClientCnxns=0\n"
                f"autopurge.purgeInterval=0\n{peers}"
            )
            prefix = prefixes[index] if prefixes else ()
            server = ZooKeeperServer(index + 1, ports[index], place, config, classpath, hosts[index], prefix)
            self.servers.append(server)

    def __enter__(self) -> ZooKeeperEnsemble:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"ZooKeeperEnsemble({self.connect_string})"

    @property
    def connect_string(self) -> str:
        """``host:port,…`` of every server, without a chroot."""
        return ",".join(server.address for server in self.servers)

    def server(self, number: int) -> ZooKeeperServer:
        return self.servers[number - 1]

    def leader(self) -> ZooKeeperServer | None:
        """The server that leads the ensemble now (a lone server leads itself)."""
        for server in self.servers:
            if server.is_running and server.mode() in ("leader", "standalone"):
                return server
        return None

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start every server that does not run, and wait until all serve."""
        for server in self.servers:
            server.start()
        self.wait_until_serving(self.servers, timeout_s)

    def wait_until_serving(
        self, servers: Iterable[ZooKeeperServer] | None = None, timeout_s: float = START_TIMEOUT_S
    ) -> None:
        """Wait for ``servers``, or for all that were started. Raises TimeoutError."""
        for server in list(servers) if servers is not None else [s for s in self.servers if s.is_running]:
            server.wait_until_serving(timeout_s)

    def kill(self, number: int) -> None:
        """``kill -9`` one server."""
        self.server(number).kill()

    def restart(self, number: int, timeout_s: float = START_TIMEOUT_S) -> None:
        """Stop one server if it runs, start it again and wait until it serves."""
        self.server(number).stop()
        self.server(number).start()
        self.server(number).wait_until_serving(timeout_s)

    def stop(self) -> None:
        """Kill every server and remove the folder if it was made here."""
        for server in self.servers:
            server.kill()
        if self._owns_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def server_of_port(self, port: int) -> ZooKeeperServer | None:
        """The server whose client port this is: which one a client is connected to."""
        for server in self.servers:
            if server.client_port == port:
                return server
        return None


def zk_cli(ensemble: ZooKeeperEnsemble | str, command: str, *, timeout_s: float = 30.0) -> str:
    """What ``zkCli.sh -server … COMMAND`` prints, for example ``zk_cli(ensemble, "get /controller")``.

    ``ensemble`` may also be a connect string, with or without a chroot. An error of the command is in the text.
    """
    connect = ensemble if isinstance(ensemble, str) else ensemble.connect_string
    done = subprocess.run(
        [
            *("java", "-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"),
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=off",
            *("-cp", zookeeper_classpath(), CLI_CLASS, "-server", connect, *command.split(" ")),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout_s,
        check=False,
        text=True,
    )
    lines = done.stdout.splitlines()
    # The client greets before it answers: drop its banner and the event of its own connection.
    noise = ("Connecting to ", "WATCHER::", "WatchedEvent state:")
    return "\n".join(line for line in lines if line and not line.startswith(noise))

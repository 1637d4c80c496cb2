"""Child processes of the local tools: servers on this machine that end with the tool that started them.

Quickstart, the benchmark and the tests' harness start ZooKeeper servers and brokers with it. Linux and macOS.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")

POLL_INTERVAL_S = 0.02
"""How often conditions are looked at: short beside a session timeout, long beside what a look costs."""


class LocalFailure(Exception):
    """Something on this machine did not come about; the text says what and shows the last log lines."""


def free_ports(count: int) -> list[int]:
    """Ports on 127.0.0.1 that nobody listens on now, all different.

    Another process may take one before it is used; the range below the ephemeral ports makes that unlikely.
    """
    held: list[socket.socket] = []
    try:
        start = 20_000 + int.from_bytes(os.urandom(2), "big") % 10_000
        for port in range(start, 32_000):
            candidate = socket.socket()
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                candidate.close()
                continue
            held.append(candidate)
            if len(held) == count:
                return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
    raise LocalFailure(f"no {count} free ports on 127.0.0.1")


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until(condition: Callable[[], _T], what: str, timeout_s: float, explain: Callable[[], str] = lambda: "") -> _T:
    """Call ``condition`` until it returns something true, and return that.

    An exception of the condition counts as "not yet" and is shown if time runs out. Raises LocalFailure.
    """
    deadline = time.monotonic() + timeout_s
    last: object = None
    while True:
        try:
            result = condition()
            if result:
                return result
            last = result
        except Exception as error:
            last = error
        if time.monotonic() > deadline:
            raise LocalFailure(f"not within {timeout_s:g} s: {what} (last look: {last!r})\n{explain()}".rstrip())
        time.sleep(POLL_INTERVAL_S)


class ChildProcess:
    """One server process: its output goes to a file, and it dies with this process even after a kill -9."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.log_path = log_path
        self.environment = dict(env) if env is not None else None
        """Its variables; None: this process's."""
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self.is_paused = False

    def __repr__(self) -> str:
        state = "not started" if self._process is None else f"pid={self.pid} exit={self.exit_status}"
        return f"<ChildProcess {self.name} {state}>"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise LocalFailure(f"{self.name} was never started")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """Negative: ended by that signal. None: never started, or running."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        if self.is_running:
            raise LocalFailure(f"{self.name} already runs as process {self.pid}")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        argv = self.argv
        setpriv = shutil.which("setpriv")
        if setpriv is not None:
            argv = [setpriv, "--pdeathsig", "KILL", *argv]
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            # A session of its own: Ctrl-C at the terminal reaches the tool, which then stops its servers in order.
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self._cwd,
                start_new_session=True,
            )
        self.is_paused = False

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def pause(self) -> None:
        """SIGSTOP: sockets stay open, nothing is answered."""
        self.send(signal.SIGSTOP)
        self.is_paused = True

    def resume(self) -> None:
        self.send(signal.SIGCONT)
        self.is_paused = False

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.wait(10)

    def terminate(self) -> None:
        """SIGTERM, without waiting; a paused process is resumed first."""
        if self.is_paused:
            self.resume()
        self.send(signal.SIGTERM)

    def stop(self, timeout_s: float = 30) -> float:
        """SIGTERM and wait; the seconds it took. Raises LocalFailure (after kill -9) if it does not end in time."""
        started = time.monotonic()
        self.terminate()
        try:
            self.wait(timeout_s)
        except LocalFailure:
            self.kill()
            raise
        return time.monotonic() - started

    def wait(self, timeout_s: float) -> int | None:
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise LocalFailure(f"{self.name} did not end within {timeout_s:g} s\n{self.log_tail()}") from None

    def log_text(self) -> str:
        """What it wrote since its last start."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(self._log_start)
                return log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def log_tail(self, lines: int = 15) -> str:
        tail = self.log_text().splitlines()[-lines:]
        return "\n".join(f"    {self.name}| {line}" for line in tail) or f"    {self.name}| (no output)"

    def cpu_seconds(self) -> float:
        """User and system time so far, from /proc; 0.0 where there is none or the process is gone."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def waited_seconds(self, before: Mapping[int, float] | None = None) -> float:
        """For how long its threads could have run and had no processor, so far or since ``before``."""
        started = before or {}
        return sum(waited - started.get(thread, 0.0) for thread, waited in self.waited_by_thread().items())

    def waited_by_thread(self) -> dict[int, float]:
        """The same for each thread that lives, from /proc (Linux's schedstat); empty where there is none or the process
        is gone. Threads end (a JVM's compilers do when they are idle), so sums over them may fall."""
        waited = {}
        for path in Path(f"/proc/{self.pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                waited[int(path.parent.name)] = int(path.read_text().split()[1]) / 1e9
        return waited

    def rss_bytes(self) -> int:
        """Resident memory, from /proc; 0 where there is none or the process is gone."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except OSError:
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

"""A network for brokers and ZooKeeper servers that can be cut: a Linux network namespace for each, and a bridge.

The bridge is in a namespace of its own ("hub"), so that no rule of this machine's firewall applies to it; this machine
itself is one more member. Packets are dropped or refused where they arrive, by a rule in the receiver's namespace: one
way is one rule. Everything is named after the process that made it: what a process that was killed has left is
recognised by that. The failover benchmark and tests/faults use it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType

NAMESPACES = Path("/run/netns")
PREFIX = "zkbroker-faults-"
"""Of namespaces: ``zkbroker-faults-PID-NAME``."""
HUB = "hub"
REMOVAL_S = 10.0
ADDRESSES = "198.18.{}.{}"
"""From the block that RFC 2544 sets aside for tests: no real network has them."""


class NotAllowed(Exception):
    """This user or machine may not do that; the text says why."""


def run(*command: str) -> str:
    """What it prints. Raises NotAllowed with its complaint."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAllowed(f"{' '.join(command)}: {error}") from None
    if done.returncode != 0:
        raise NotAllowed(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def why_no_network() -> str | None:
    """Why network namespaces and firewall rules cannot be made here; None if they can."""
    for tool, package in (("ip", "iproute2"), ("iptables", "iptables"), ("nsenter", "util-linux")):
        if shutil.which(tool) is None:
            return f"no {tool!r} on the PATH (Debian: {package})"
    name = f"{PREFIX}{os.getpid()}-probe"
    try:
        run("ip", "netns", "add", name)
        try:
            run("ip", "-n", name, "link", "add", "probe", "type", "bridge")
            run("nsenter", f"--net={NAMESPACES / name}", "iptables", "-w", "-A", "INPUT", "-p", "tcp", "-j", "DROP")
        finally:
            run("ip", "netns", "del", name)
    except NotAllowed as error:
        return str(error)
    return None


def namespaces(of: str = "") -> list[str]:
    """Namespaces of all runs, or of the run with that folder name."""
    names = sorted(path.name for path in NAMESPACES.glob(f"{PREFIX}*"))
    return [name for name in names if re.match(rf"{re.escape(of)}-" if of else PREFIX, name)]


def remove_namespaces(of: str) -> None:
    """Those of the run of that name; with their links, and what is at the links' other ends."""
    for name in namespaces(of):
        with contextlib.suppress(NotAllowed):
            run("ip", "netns", "del", name)


def remove_left_namespaces() -> list[str]:
    """Remove those whose process is gone; their names."""
    gone = []
    for name in namespaces():
        pid = name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(NotAllowed):
                run("ip", "netns", "del", name)
                gone.append(name)
    return gone


class Network:
    """Members are called by short names, ``b1`` or ``zk2``. Use as a context manager; NotAllowed if it cannot be."""

    def __init__(self) -> None:
        pid = os.getpid()
        self._run = f"{PREFIX}{pid}"
        self._uplink = f"zkf{pid}"
        self._subnet = 0
        self._addresses: dict[str, str] = {}

    def __enter__(self) -> Network:
        self._subnet = self._free_subnet()
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _free_subnet(self) -> int:
        """The third byte of the addresses: one that no route of this machine has."""
        routes = run("ip", "-4", "route", "show", "table", "all")
        first = os.getpid() % 250
        candidates: list[int] = [*range(first, 250), *range(first)]
        for number in candidates:
            if ADDRESSES.format(number, "") not in routes:
                return number
        raise NotAllowed("no free subnet in 198.18.0.0/16")

    def _make(self) -> None:
        hub = self.namespace(HUB)
        run("ip", "netns", "add", hub)
        run("ip", "-n", hub, "link", "set", "lo", "up")
        run("ip", "-n", hub, "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
        run("ip", "-n", hub, "link", "set", "bridge", "up")
        run("ip", "link", "add", self._uplink, "type", "veth", "peer", "name", "uplink", "netns", hub)
        run("ip", "-n", hub, "link", "set", "uplink", "master", "bridge", "up")
        run("ip", "address", "add", ADDRESSES.format(self._subnet, 254) + "/24", "dev", self._uplink)
        run("ip", "link", "set", self._uplink, "up")

    def close(self) -> None:
        """Deleting a namespace deletes the ends of links in it, and with them the other ends."""
        for name in (*self._addresses, HUB):
            with contextlib.suppress(NotAllowed):
                run("ip", "netns", "del", self.namespace(name))
        # A process that was killed a moment ago may hold the namespace, and so the link, a little longer.
        with contextlib.suppress(NotAllowed):
            run("ip", "link", "del", self._uplink)

    def namespace(self, member: str) -> str:
        return f"{self._run}-{member}"

    def address(self, member: str) -> str:
        return self._addresses[member]

    def enter(self, member: str) -> list[str]:
        """What a command begins with that is to run in the member's namespace; it becomes the command itself."""
        return ["nsenter", f"--net={NAMESPACES / self.namespace(member)}"]

    # -- members

    def add(self, member: str, number: int) -> str:
        """A new member with the address that ends with ``number``, which is returned."""
        self._addresses[member] = ADDRESSES.format(self._subnet, number)
        self.restore(member)
        return self._addresses[member]

    def restore(self, member: str) -> None:
        """Make a member's namespace (again), whole, with its address."""
        own, hub, link = self.namespace(member), self.namespace(HUB), f"to-{member}"
        # A namespace that was destroyed is taken apart in the background; its link goes last.
        deadline = time.monotonic() + REMOVAL_S
        while f"{link}@" in run("ip", "-n", hub, "link", "show"):
            if time.monotonic() > deadline:
                raise NotAllowed(f"the link of {member} is still there")
            time.sleep(0.05)
        run("ip", "netns", "add", own)
        run("ip", "-n", own, "link", "set", "lo", "up")
        # Always the same hardware address: the others have it in their ARP caches.
        hardware = f"02:00:00:00:00:{int(self._addresses[member].rpartition('.')[2]):02x}"
        peer = ["peer", "name", "eth0", "address", hardware, "netns", own]
        run("ip", "-n", hub, "link", "add", link, "type", "veth", *peer)
        run("ip", "-n", hub, "link", "set", link, "master", "bridge", "up")
        run("ip", "-n", own, "address", "add", f"{self._addresses[member]}/24", "dev", "eth0")
        run("ip", "-n", own, "link", "set", "eth0", "up")

    def destroy(self, member: str) -> None:
        """Take the member's namespace away: it ends, with its address, when its last process does."""
        run("ip", "netns", "del", self.namespace(member))

    # -- faults

    def _rule(self, at: str, source: str, target: list[str]) -> None:
        filters = ["-s", self._addresses[source]]
        run(*self.enter(at), "iptables", "-w", "-A", "INPUT", *filters, *target)

    def cut(self, source: str, to: str, one_way: bool = False) -> None:
        """Drop, without a word, all that ``source`` sends to ``to``, and the other way unless ``one_way``."""
        self._rule(to, source, ["-j", "DROP"])
        if not one_way:
            self._rule(source, to, ["-j", "DROP"])

    def reject(self, source: str, to: str) -> None:
        """What ``source`` sends to ``to`` is answered with a reset: to it, nobody listens there any more."""
        self._rule(to, source, ["-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"])

    def reject_local(self, to: str) -> None:
        """As ``reject``, for what this machine's own processes (the clients) send."""
        source = ADDRESSES.format(self._subnet, 254)
        run(
            *(*self.enter(to), "iptables", "-w", "-A", "INPUT", "-s", source),
            *("-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"),
        )

    def heal(self) -> None:
        """Everybody hears everybody again."""
        for member in self._addresses:
            if (NAMESPACES / self.namespace(member)).exists():
                run(*self.enter(member), "iptables", "-w", "-F", "INPUT")

"""The cut network itself, and that nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.network import RunFolder, clean_leftovers, why_no_mount
from zkbroker.cli import _namespaces
from zkbroker.cli._namespaces import PREFIX, Network, namespaces, why_no_network

ROOT = Path(__file__).resolve().parents[2]
SERVER = """
import socket
listener = socket.create_server(("", 7000))
print("listening", flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(b"hello")
    connection.close()
"""
CLIENT = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], 7000), 1) as connection:
        print(connection.recv(5).decode())
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    reason = why_no_network()
    if reason:
        pytest.skip(reason)
    with RunFolder(), Network() as made:
        for number, member in enumerate(("b1", "b2", "zk1"), start=1):
            made.add(member, number)
        yield made


@pytest.fixture
def listening(network: Network) -> Iterator[Network]:
    """A server in every namespace."""
    servers = [serve(network, member) for member in ("b1", "b2", "zk1")]
    yield network
    network.heal()
    for server in servers:
        server.kill()
        server.wait()


def serve(network: Network, member: str) -> subprocess.Popen[bytes]:
    command = [*network.enter(member), sys.executable, "-c", SERVER]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert server.stdout is not None and server.stdout.readline()
    return server


def asks(network: Network, source: str, to: str) -> str:
    command = [*network.enter(source), sys.executable, "-c", CLIENT, network.address(to)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_members_are_cut_both_ways_or_one(listening: Network) -> None:
    assert asks(listening, "b1", "b2") == asks(listening, "b2", "b1") == "hello"
    listening.cut("b1", "b2")
    assert asks(listening, "b1", "b2") == asks(listening, "b2", "b1") == "TimeoutError"
    assert asks(listening, "b1", "zk1") == asks(listening, "b2", "zk1") == "hello"
    listening.heal()
    assert asks(listening, "b1", "b2") == "hello"
    # One way: b2's answers do not arrive either, since TCP needs both; zk1 is not concerned.
    listening.cut("b1", "b2", one_way=True)
    assert asks(listening, "b1", "b2") == "TimeoutError"
    assert asks(listening, "zk1", "b2") == "hello"


def test_a_rejecting_member_seems_dead_to_some(listening: Network) -> None:
    listening.reject("b1", "b2")
    assert asks(listening, "b1", "b2") == "ConnectionRefusedError"
    assert asks(listening, "zk1", "b2") == "hello"
    with socket.create_connection((listening.address("b2"), 7000), 5) as connection:
        assert connection.recv(5) == b"hello"
    listening.reject_local("b2")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((listening.address("b2"), 7000), 5)


def test_a_destroyed_member_comes_back_under_its_address(network: Network) -> None:
    address = network.address("b2")
    server = serve(network, "b2")
    network.destroy("b2")
    server.kill()
    server.wait()
    network.restore("b2")
    server = serve(network, "b2")
    assert (asks(network, "b1", "b2"), network.address("b2")) == ("hello", address)
    server.kill()
    server.wait()


LEFT_BEHIND = """
import sys, time
from pathlib import Path
from tests.faults.network import RunFolder, mount_small, why_no_mount
from zkbroker.cli._namespaces import Network
with RunFolder() as folder, Network() as network:
    network.add("b1", 1)
    if why_no_mount() is None:
        (folder.path / "disk").mkdir()
        mount_small(folder.path / "disk", 1)
    print("made", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_stays_behind(number: signal.Signals, network: Network) -> None:
    """An interrupted run cleans up after itself; a killed one is cleaned up after by the next."""
    child = subprocess.Popen(
        [sys.executable, "-c", LEFT_BEHIND], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    assert child.stdout is not None and child.stdout.readline() == b"made\n"
    folder = Path(tempfile.gettempdir()) / f"{PREFIX}{child.pid}"
    own = f"{PREFIX}{os.getpid()}"

    def left() -> tuple[bool, int, int]:
        mounts = Path("/proc/mounts").read_text().count(f"{folder}/")
        return folder.exists(), mounts, len(namespaces(folder.name))

    assert left() == (True, int(why_no_mount() is None), 2)
    clean_leftovers()
    assert left()[0] and left()[2] == 2, "a run that lives is left alone"
    child.send_signal(number)
    child.wait()
    if number == signal.SIGKILL:
        assert left()[0]
        clean_leftovers()
    assert left() == (False, 0, 0)
    assert len(namespaces(own)) == 4, "and so is this one"


def test_commands_end_with_a_reason() -> None:
    with pytest.raises(_namespaces.NotAllowed, match="No such file"):
        _namespaces.run("zkbroker-no-such-tool")

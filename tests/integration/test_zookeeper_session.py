"""A session against a real ensemble of three whose servers die, hang and restart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.fixtures import Machine
from tests.harness.zookeeper import ZooKeeperEnsemble, ZooKeeperMissing, ZooKeeperServer, zk_cli
from tests.harness.zookeeper_worlds import RealWorld, connect, link, server_port, wait
from zkbroker.zookeeper.client import ConnectionLossError, Create, SessionState
from zkbroker.zookeeper.session import KazooSession

TIMEOUT_S = 6.0

ROOT = Path(__file__).parent.parent.parent

ZOMBIE = """
import json, sys
from tests.harness.zookeeper_worlds import PumpReactor, RealClock
from zkbroker.zookeeper.session import KazooSession

reactor, clock, states, looks = PumpReactor(), RealClock(), [], []
session = KazooSession(sys.argv[1], session_timeout_ms=1500, connection_timeout_ms=5000, clock=clock, reactor=reactor,
                       log=lambda line: None)
session.listen(lambda state: states.append(state.value))

def look():
    looks.append((clock.monotonic(), session.last_reply_at))
    reactor.callLater(0.02, look)

session.start()
reactor.run_until(lambda: bool(states), 10)
print("ready", flush=True)
look()
reactor.run_until(lambda: len(states) == 4, 15)
gap, after = max((b[0] - a[0], b) for a, b in zip(looks, looks[1:]))
print(json.dumps({"states": states, "gap_s": gap, "age_s": after[0] - after[1]}))
"""
"""A process whose session expires while it is stopped; tells what it believes the moment that it goes on."""


@pytest.fixture(scope="module")
def ensemble() -> Iterator[ZooKeeperEnsemble]:
    try:
        made = ZooKeeperEnsemble(3)
    except ZooKeeperMissing as missing:
        pytest.skip(str(missing))
    with made:
        yield made


@pytest.fixture
def world(ensemble: ZooKeeperEnsemble, request: pytest.FixtureRequest) -> Iterator[RealWorld]:
    ensemble.start()
    made = RealWorld(ensemble, f"/{request.node.name}", timeout_ms=int(TIMEOUT_S * 1000))
    yield made
    made.close()


def server_of(ensemble: ZooKeeperEnsemble, client: KazooSession) -> ZooKeeperServer:
    server = ensemble.server_of_port(server_port(client))
    assert server is not None
    return server


def connect_to_follower(world: RealWorld, ensemble: ZooKeeperEnsemble) -> tuple[KazooSession, list[SessionState]]:
    """A session whose server does not lead, so that the ensemble goes on when it hangs."""
    while True:
        client = world.session()
        states = connect(world, client)
        if server_of(ensemble, client) is not ensemble.leader():
            return client, states
        wait(world, client.stop())


def test_a_killed_server_is_left_at_once(world: RealWorld, ensemble: ZooKeeperEnsemble, machine: Machine) -> None:
    client, states = connect_to_follower(world, ensemble)
    session_id = client.session_id
    wait(world, client.create("/e", b"", ephemeral=True))
    started = time.monotonic()
    server_of(ensemble, client).kill()
    world.until(lambda: states[-1] is SessionState.RECONNECTED)
    took_s = time.monotonic() - started
    print(f"connected to another server {took_s:.2f} s after kill -9")
    machine.check(took_s, 3, started, "another server")
    assert client.session_id == session_id
    assert states == [SessionState.CONNECTED, SessionState.SUSPENDED, SessionState.RECONNECTED]
    assert "ephemeralOwner = 0x0" not in zk_cli(ensemble, f"get -s /{world_name(client)}/e")


def world_name(client: KazooSession) -> str:
    return client._chroot.strip("/")


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_server_that_hangs_is_noticed_and_left(world: RealWorld, ensemble: ZooKeeperEnsemble, is_busy: bool) -> None:
    """Also while requests are sent all the time, which make kazoo alone forget its pings."""
    client, states = connect_to_follower(world, ensemble)
    session_id = client.session_id
    noticed: list[float] = []
    client.listen(lambda state: noticed.append(time.monotonic()))

    def ask() -> None:
        client.exists("/").addErrback(lambda failure: failure.trap(ConnectionLossError))
        world.reactor.callLater(0.1, ask)

    if is_busy:
        ask()
    wait(world, client.exists("/"))
    server = server_of(ensemble, client)
    started = time.monotonic()
    server.pause()
    try:
        world.until(lambda: states[-1] is SessionState.RECONNECTED)
    finally:
        server.resume()
    print(f"SIGSTOP: noticed after {noticed[0] - started:.2f} s, elsewhere after {noticed[1] - started:.2f} s")
    assert noticed[0] - started < TIMEOUT_S * 0.8
    assert client.session_id == session_id
    assert states == [SessionState.CONNECTED, SessionState.SUSPENDED, SessionState.RECONNECTED]


def test_a_process_stopped_past_its_timeout_does_not_think_itself_in_contact(ensemble: ZooKeeperEnsemble) -> None:
    ensemble.start()
    command = [sys.executable, "-c", ZOMBIE, ensemble.connect_string]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as zombie:
        try:
            assert zombie.stdout is not None
            assert zombie.stdout.readline() == "ready\n"
            time.sleep(0.3)
            zombie.send_signal(signal.SIGSTOP)
            time.sleep(2.5)
            zombie.send_signal(signal.SIGCONT)
            told = json.loads(zombie.stdout.read())
        finally:
            zombie.kill()
    assert told["states"] == ["connected", "suspended", "expired", "connected"]
    assert told["gap_s"] > 2.4
    assert told["age_s"] > 2.4


def test_a_rolling_restart_keeps_the_session(world: RealWorld, ensemble: ZooKeeperEnsemble) -> None:
    client = world.session()
    states = connect(world, client)
    session_id = client.session_id
    wait(world, client.create("/e", b"", ephemeral=True))
    created = wait(world, client.get("/e"))[1]
    for number in (1, 2, 3):
        was_there = server_of(ensemble, client) is ensemble.server(number)
        before = len(states)
        ensemble.server(number).stop()
        if was_there:
            world.until(lambda before=before: SessionState.SUSPENDED in states[before:])  # type: ignore[misc]
        ensemble.restart(number)
        world.until(lambda: client.is_connected)
        world.until(lambda: writes(world, client))
    assert client.session_id == session_id
    assert states.count(SessionState.CONNECTED) == 1
    assert SessionState.EXPIRED not in states
    stat = wait(world, client.exists("/e"))
    assert stat is not None
    assert (stat.czxid, stat.ephemeral_owner) == (created.czxid, session_id)


def writes(world: RealWorld, client: KazooSession) -> bool:
    """Whether a write goes through now."""
    try:
        wait(world, client.set("/e", b""))
    except ConnectionLossError:
        world.until(lambda: client.is_connected)
        return False
    return True


def test_an_ensemble_that_is_away_is_waited_for(
    world: RealWorld, ensemble: ZooKeeperEnsemble, machine: Machine
) -> None:
    """The thread neither gives up nor waits long between attempts; start and stop never block."""
    client = world.session()
    states = connect(world, client)
    for server in ensemble.servers:
        server.kill()
    world.until(lambda: states[-1] is SessionState.SUSPENDED)
    late = world.session()
    started = time.monotonic()
    late.start()
    stopped = late.stop()
    machine.check(time.monotonic() - started, 0.7, started, "neither call waits")
    wait(world, stopped)
    machine.check(time.monotonic() - started, 2.5, started, "the end")
    ensemble.start()
    started = time.monotonic()
    world.until(lambda: client.is_connected)
    machine.check(time.monotonic() - started, 8, started, "connected again")
    assert wait(world, client.exists("/")) is not None


def test_a_dead_thread_of_kazoo_is_replaced(world: RealWorld, ensemble: ZooKeeperEnsemble) -> None:
    client = world.session()
    states = connect(world, client)
    session_id = client.session_id

    def die(*args: object) -> None:
        raise RuntimeError("the test kills this thread")

    link(client).connection._read_response = die
    client.exists("/").addErrback(lambda failure: failure.trap(ConnectionLossError))
    world.until(lambda: states[-1] is SessionState.RECONNECTED)
    assert client.session_id == session_id
    assert states == [SessionState.CONNECTED, SessionState.SUSPENDED, SessionState.RECONNECTED]


def test_empty_data_is_null_as_kafka_writes_it(world: RealWorld, ensemble: ZooKeeperEnsemble) -> None:
    """Kafka takes an empty /latest_producer_id_block for a broken one, a null for none yet."""
    client = world.session()
    connect(world, client)
    wait(world, client.create("/one", b""))
    wait(world, client.multi([Create("/two", b"")]))
    for name in ("one", "two"):
        assert zk_cli(ensemble, f"get /{world_name(client)}/{name}") == "null"


def test_idle_sessions_have_one_thread_and_close_it(world: RealWorld, ensemble: ZooKeeperEnsemble) -> None:
    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    before = threads()
    client = world.session()
    connect(world, client)
    assert threads() == before + 1
    wait(world, client.stop())
    world.until(lambda: threads() == before)

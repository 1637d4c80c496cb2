"""A broker's life on the fake ensemble: started, stopped at every moment of the start, failed, restarted."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock

from tests.fakes.zookeeper import FakeZooKeeper
from zkbroker.broker import session_file
from zkbroker.broker.lifecycle import Broker, State
from zkbroker.broker.settings import CONTACT_SHARE, unreachable_seconds
from zkbroker.log.disk import Disk
from zkbroker.model.config.broker import Setting
from zkbroker.model.config.build import build_broker_config
from zkbroker.model.topics import TopicPartition
from zkbroker.zookeeper.client import Create

STEP_S = 0.001


class HandClock:
    def __init__(self, reactor: MemoryReactorClock) -> None:
        self._reactor = reactor

    def monotonic(self) -> float:
        return float(self._reactor.seconds())

    def wall_ms(self) -> int:
        return int(self._reactor.seconds() * 1000) + 1_700_000_000_000


class World:
    """An ensemble, a reactor, and brokers in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reactor = MemoryReactorClock()
        self.clock = HandClock(self.reactor)
        self.zookeeper = FakeZooKeeper(self.reactor, self.clock, latency=0.001)
        self.ends: list[str | None] = []
        self.lines: list[str] = []
        self.watched: list[str] = []

    def broker(self, name: str = "data", **settings: str) -> Broker:
        values = {
            "broker.id": "1",
            "zookeeper.connect": "h:1",
            "zookeeper.session.timeout.ms": "2000",
            "log.dirs": str(self.folder / name),
            "listeners": "PLAINTEXT://127.0.0.1:0,REPLICATION://127.0.0.1:0",
        }
        values.update({key.replace("_", "."): text for key, text in settings.items()})
        return Broker(
            config=build_broker_config([Setting(key, text, "test") for key, text in values.items()]),
            reactor=self.reactor,
            clock=self.clock,
            source=random.Random(5),
            disk=Disk(),
            run_in_thread=self._run_in_thread,
            zk=self.zookeeper.session(session_timeout_s=2.0),
            close_session=self.zookeeper.close_session,
            watchdog=self,
            log=self.lines.append,
            fatal=self._fatal,
            ended=self.ends.append,
        )

    def _run_in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.reactor.callLater(0, lambda: done.callback(function(*arguments)))
        return done

    def _fatal(self, event: str, error: BaseException) -> None:
        raise AssertionError(event) from error

    # The watchdog

    def start(self) -> None:
        self.watched.append("start")

    def tick(self) -> None: ...

    def stop(self) -> None:
        self.watched.append("stop")

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.reactor.advance(STEP_S)

    def until(self, condition: Callable[[], object], seconds_max: float = 10.0) -> None:
        until = self.reactor.seconds() + seconds_max
        while not condition():
            assert self.reactor.seconds() < until, self.lines
            self.reactor.advance(STEP_S)

    def started(self, broker: Broker) -> Broker:
        broker.start()
        self.until(lambda: any(" started in " in line for line in self.lines))
        return broker

    def locked(self, name: str = "data") -> bool:
        release = Disk().lock(str(self.folder / name / ".lock"))
        if release is not None:
            release()
        return release is None

    def leaves_nothing(self) -> bool:
        ephemerals = [path for path, znode in self.zookeeper.tree.znodes.items() if znode.owner]
        folder_is_free = not (self.folder / "data").exists() or not self.locked()
        return not ephemerals and not self.zookeeper._sessions and folder_is_free


def test_it_registers_becomes_controller_serves_and_goes(tmp_path: Path) -> None:
    world = World(tmp_path)
    broker = world.started(world.broker())
    assert broker.state is State.RUNNING
    assert world.zookeeper.data("/brokers/ids/1") is not None
    assert world.zookeeper.data("/controller") is not None
    assert world.locked()
    assert session_file.read_session(Disk(), str(tmp_path / "data")) is not None
    broker.stop()
    broker.stop()
    world.until(lambda: world.ends, 3.0)
    assert world.ends == [None]
    assert world.leaves_nothing()
    assert session_file.read_session(Disk(), str(tmp_path / "data")) is None
    assert (tmp_path / "data" / ".kafka_cleanshutdown").exists()
    assert "Traceback" not in "".join(world.lines)
    assert repr(broker).startswith("Broker(1 ended")


def test_status_says_how_its_replicas_and_its_peers_stand(tmp_path: Path) -> None:
    world = World(tmp_path)
    broker = world.started(world.broker())
    assert broker._parts is not None
    broker._parts._fetchers.follow(TopicPartition("t", 0), 2)
    broker._parts._fetchers.set_address(2, 9, "h2", 9093)
    world.pass_time(0.1)
    lines = broker._parts._server.status.status_lines()
    assert "replicas: 0 (0 led, 0 catching up, 0 offline)" in lines
    assert "under min ISR: 0" in lines and "ISR proposals under way: 0" in lines
    assert [line for line in lines if line.startswith("fetching: LeaderFetcher(")]
    assert broker._parts.controller.is_controller  # whom nothing troubles
    assert not [line for line in lines if line.startswith("problem")]
    broker.stop()
    world.until(lambda: world.ends)


def test_the_session_timeout_that_the_ensemble_grants_is_the_one_that_holds(tmp_path: Path) -> None:
    """Else the contact rule would trust a session that is over already."""
    world = World(tmp_path)
    broker = world.started(world.broker(zookeeper_session_timeout_ms="6000"))
    assert "the ensemble allows a session timeout of 2 s, not 6 s" in world.lines
    assert broker._parts is not None
    assert broker._parts.replicas._shared.settings.contact_seconds_max == min(
        2.0 * CONTACT_SHARE, unreachable_seconds(2.0)
    )
    broker.stop()
    world.until(lambda: world.ends, 3.0)


def test_a_stop_at_any_moment_of_the_start_is_a_clean_end(tmp_path: Path) -> None:
    steps = 0
    states: set[State] = set()
    while True:
        world = World(tmp_path / str(steps))
        broker = world.broker()
        broker.start()
        for _ in range(steps):
            world.reactor.advance(STEP_S)
        is_started = any(" started in " in line for line in world.lines)
        states.add(broker.state)
        broker.stop()
        world.until(lambda world=world: world.ends, 3.0)
        world.pass_time(0.05)
        assert world.ends == [None], steps
        assert world.leaves_nothing(), steps
        assert "Traceback" not in "".join(world.lines), world.lines
        if is_started:
            break
        steps += 3
    assert states == {State.STARTING, State.RUNNING}
    assert steps > 30


def test_the_watchdog_looks_only_while_the_logs_are_open_and_in_use(tmp_path: Path) -> None:
    world = World(tmp_path)
    broker = world.broker()
    broker.start()
    world.until(lambda: world.watched)
    assert any("logs loaded" in line for line in world.lines)
    broker.stop()
    world.until(lambda: world.ends)
    assert world.watched[:2] == ["start", "stop"]


def test_a_stop_before_the_start_is_an_end_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    broker = world.broker()
    broker.stop()
    world.until(lambda: world.ends)
    broker.start()
    world.pass_time(0.1)
    assert (world.ends, broker.state) == ([None], State.ENDED)


def test_zookeeper_away_at_start_is_one_line(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.zookeeper.stop()
    world.broker().start()
    world.until(lambda: world.ends)
    assert world.ends == ["ZooKeeper at h:1 cannot be reached: no session within 2000 ms"]
    assert "Traceback" not in "".join(world.lines)


def test_zookeeper_away_at_stop_is_waited_for_no_longer_than_allowed(tmp_path: Path) -> None:
    world = World(tmp_path)
    broker = world.started(world.broker())
    world.zookeeper.stop()
    world.pass_time(0.1)
    broker.stop()
    world.until(lambda: world.ends, 3.0)
    assert world.ends == [None]
    assert not world.locked()
    # Its session lives on: the next process may close it.
    assert session_file.read_session(Disk(), str(tmp_path / "data")) is not None


def test_a_first_folder_that_failed_does_not_fail_the_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    broker = world.started(world.broker())

    def unlink(disk: Disk, path: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Disk, "unlink", unlink)
    broker.stop()
    world.until(lambda: world.ends, 3.0)
    assert world.ends == [None]
    assert "Traceback" not in "".join(world.lines)


def test_a_broken_connection_during_the_start_only_delays_it(tmp_path: Path) -> None:
    for steps in range(0, 60, 4):
        world = World(tmp_path / str(steps))
        broker = world.broker()
        broker.start()
        world.pass_time(steps * STEP_S)
        world.zookeeper.stop()
        world.pass_time(0.2)
        world.zookeeper.start()
        world.until(lambda world=world: any(" started in " in line for line in world.lines))
        assert world.ends == []
        broker.stop()
        world.until(lambda world=world: world.ends)
        assert world.leaves_nothing()


def test_an_id_is_generated_once_and_stays_with_the_folder(tmp_path: Path) -> None:
    world = World(tmp_path)
    for _ in range(2):
        broker = world.started(world.broker(broker_id="-1"))
        assert world.zookeeper.children("/brokers/ids") == ["1001"]
        broker.stop()
        world.until(lambda: world.ends)
        world.ends.clear()
        world.lines.clear()
    world.started(world.broker("other", broker_id="-1", reserved_broker_max_id="10"))
    assert world.zookeeper.children("/brokers/ids") == ["12"]


def test_a_folder_of_another_broker_is_one_line_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").write_text("version=0\nbroker.id=7\n")
    world = World(tmp_path)
    world.broker().start()
    world.until(lambda: world.ends)
    assert world.ends == [f"log.dirs: {tmp_path}/data belongs to broker 7, broker.id is 1"]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [".lock", "meta.properties"]
    assert world.leaves_nothing()


def test_an_id_in_use_is_one_line_and_its_owner_keeps_its_place(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.started(world.broker())
    owner = world.zookeeper.stat("/brokers/ids/1")
    second = world.broker("second")
    second.start()
    world.until(lambda: world.ends, 15.0)
    assert world.ends[0] is not None
    assert world.ends[0].startswith("broker.id 1 is in use: /brokers/ids/1 belongs to the live session")
    assert world.zookeeper.stat("/brokers/ids/1") == owner
    assert (world.locked("data"), world.locked("second")) == (True, False)


def test_after_a_crash_the_old_session_is_closed_and_the_place_taken_at_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    first = world.started(world.broker())
    port = first._bound["PLAINTEXT"].port if first._bound["PLAINTEXT"].socket.fileno() >= 0 else 0
    before = world.zookeeper.stat("/brokers/ids/1")
    assert before is not None
    # kill -9: the kernel lets go of the locks and sockets, ZooKeeper keeps the session.
    data = world.zookeeper.data("/brokers/ids/1") or b""
    first._zk.kill()  # type: ignore[attr-defined]
    assert first._logs is not None
    first._logs.abandon()
    ports = [int(part.split(b'"')[0]) for part in data.split(b"127.0.0.1:")[1:]]
    assert port in (0, ports[0])
    second = world.broker(listeners=f"PLAINTEXT://127.0.0.1:{ports[0]},REPLICATION://127.0.0.1:{ports[1]}")
    started_at = world.reactor.seconds()
    second.start()
    world.until(lambda: (stat := world.zookeeper.stat("/brokers/ids/1")) is not None and stat.czxid > before.czxid)
    assert world.reactor.seconds() - started_at < 1.0


def test_a_kafka_broker_in_the_same_znodes_ends_the_start(tmp_path: Path) -> None:
    world = World(tmp_path)
    kafka = b'{"version":4,"endpoints":["PLAINTEXT://h:1"],"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT"}}'
    world.zookeeper.write(Create("/brokers", b""), Create("/brokers/ids", b""), Create("/brokers/ids/9", kafka))
    world.broker().start()
    world.until(lambda: world.ends)
    assert world.ends[0] is not None
    assert world.ends[0].startswith("broker 9 in /brokers/ids is an Apache Kafka broker")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("cut", ["zookeeper", "expiry"])
def test_it_goes_on_after_zookeeper_was_away_or_its_session_expired(tmp_path: Path, cut: str) -> None:
    world = World(tmp_path)
    broker = world.started(world.broker())
    before = world.zookeeper.stat("/brokers/ids/1")
    assert before is not None
    if cut == "zookeeper":
        world.zookeeper.stop()
        world.pass_time(1.0)
        world.zookeeper.start()
        world.pass_time(1.0)
        assert world.zookeeper.stat("/brokers/ids/1") == before
    else:
        world.zookeeper.expire(broker._zk.session_id)
        world.pass_time(2.0)
        after = world.zookeeper.stat("/brokers/ids/1")
        assert after is not None
        assert after.czxid > before.czxid
    kept = session_file.read_session(Disk(), str(tmp_path / "data"))
    assert kept == (broker._zk.session_id, broker._zk.session_password)
    assert (world.ends, broker.state) == ([], State.RUNNING)

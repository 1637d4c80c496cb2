"""Where a test of a ZooKeeper session runs: with a real ensemble and real time, or with the fake and a fake clock.

A world makes sessions, lets time pass until something is true, and injects the faults that both know.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from kazoo.exceptions import ConnectionDropped
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock as TwistedClock
from twisted.python.failure import Failure

from tests.fakes.zookeeper import FakeSession, FakeZooKeeper
from tests.harness.zookeeper import ZooKeeperEnsemble
from zkbroker.zookeeper.client import SessionState, ZooKeeperClient
from zkbroker.zookeeper.leftover import close_session
from zkbroker.zookeeper.session import KazooSession

T = TypeVar("T")

WAIT_S = 60.0


class _Timer:
    def __init__(self, call: Callable[[], object]) -> None:
        self._call: Callable[[], object] | None = call

    def active(self) -> bool:
        return self._call is not None

    def cancel(self) -> None:
        self._call = None

    def run(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()


class PumpReactor:
    """callLater and callFromThread in real time, run only while a test waits: no global reactor, no threads."""

    def __init__(self) -> None:
        self._from_threads: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = itertools.count()

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> _Timer:  # noqa: A002
        timer = _Timer(lambda: callable(*args))
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._order), timer))
        return timer

    def callFromThread(self, callable: Callable[..., object], *args: object) -> None:  # noqa: A002
        self._from_threads.put(lambda: callable(*args))

    def run_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Run what is due until ``condition``; False when it does not come true in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            now = time.monotonic()
            if now >= deadline:
                return False
            if self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2].run()
                continue
            pause_s = min(deadline, self._timers[0][0] if self._timers else deadline) - now
            try:
                self._from_threads.get(timeout=max(pause_s, 0.0001))()
            except queue.Empty:
                continue
        return True


class RealClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class FakeClock:
    def __init__(self, clock: TwistedClock) -> None:
        self._clock = clock

    def monotonic(self) -> float:
        return float(self._clock.seconds())

    def wall_ms(self) -> int:
        return int(self._clock.seconds() * 1000) + 1_700_000_000_000


class World(Protocol):
    def session(self, *, session: tuple[int, bytes] | None = None) -> ZooKeeperClient: ...
    def until(self, condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None: ...
    def close_session(self, session_id: int, password: bytes) -> Deferred[bool]: ...
    def expire(self, client: ZooKeeperClient) -> None: ...
    def crash(self, client: ZooKeeperClient) -> None: ...
    def break_connection(self, client: ZooKeeperClient) -> None: ...
    def lose_next_reply(self, client: ZooKeeperClient) -> None: ...
    def lose_next_request(self, client: ZooKeeperClient) -> None: ...
    def monotonic(self) -> float: ...
    def close(self) -> None: ...


def wait(world: World, deferred: Deferred[T]) -> T:
    """The result of ``deferred``; raises what it failed with."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    world.until(lambda: bool(results))
    if isinstance(results[0], Failure):
        results[0].raiseException()
    result: T = results[0]
    return result


def connect(world: World, client: ZooKeeperClient) -> list[SessionState]:
    """Start and wait for the session; gives the list that will hold every state told."""
    states: list[SessionState] = []
    client.listen(states.append)
    client.start()
    world.until(lambda: client.is_connected)
    return states


class FakeWorld:
    """Latency is 1 ms each way."""

    def __init__(self) -> None:
        self.reactor = TwistedClock()
        self.clock = FakeClock(self.reactor)
        self.zookeeper = FakeZooKeeper(self.reactor, self.clock, latency=0.001)  # type: ignore[arg-type]

    def session(self, *, session: tuple[int, bytes] | None = None) -> FakeSession:
        return self.zookeeper.session(session_timeout_s=2.0, session=session)

    def until(self, condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        deadline = self.reactor.seconds() + timeout_s
        while not condition():
            if self.reactor.seconds() >= deadline:
                raise TimeoutError("it did not come true")
            self.reactor.advance(0.0005)

    def close_session(self, session_id: int, password: bytes) -> Deferred[bool]:
        return self.zookeeper.close_session(session_id, password)

    def expire(self, client: ZooKeeperClient) -> None:
        self.zookeeper.expire(client.session_id)

    def crash(self, client: ZooKeeperClient) -> None:
        assert isinstance(client, FakeSession)
        client.kill()

    def break_connection(self, client: ZooKeeperClient) -> None:
        assert isinstance(client, FakeSession)
        client.disconnect()
        client.reconnect()

    def lose_next_reply(self, client: ZooKeeperClient) -> None:
        assert isinstance(client, FakeSession)
        client.lose_next_reply()

    def lose_next_request(self, client: ZooKeeperClient) -> None:
        assert isinstance(client, FakeSession)
        client.lose_next_request()

    def monotonic(self) -> float:
        return self.clock.monotonic()

    def close(self) -> None:
        """Nothing is left running."""


class RealWorld:
    """Sessions of ``timeout_ms`` with ``ensemble``, below ``chroot``."""

    def __init__(self, ensemble: ZooKeeperEnsemble, chroot: str = "", timeout_ms: int = 2000) -> None:
        self.ensemble = ensemble
        self.reactor = PumpReactor()
        self.clock = RealClock()
        self.lines: list[str] = []
        self._chroot = chroot
        self._timeout_ms = timeout_ms
        self._sessions: list[KazooSession] = []

    def session(self, *, session: tuple[int, bytes] | None = None) -> KazooSession:
        client = KazooSession(
            self.ensemble.connect_string + self._chroot,
            session_timeout_ms=self._timeout_ms,
            connection_timeout_ms=10_000,
            clock=self.clock,
            reactor=self.reactor,
            session=session,
            log=self.lines.append,
        )
        self._sessions.append(client)
        return client

    def until(self, condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        if not self.reactor.run_until(condition, timeout_s):
            raise TimeoutError("it did not come true; the sessions said:\n" + "\n".join(self.lines))

    def close_session(self, session_id: int, password: bytes) -> Deferred[bool]:
        return close_session(
            self.ensemble.connect_string, session_id, password, timeout_s=5, clock=self.clock, reactor=self.reactor
        )

    def expire(self, client: ZooKeeperClient) -> None:
        wait(self, self.close_session(client.session_id, client.session_password))

    def crash(self, client: ZooKeeperClient) -> None:
        """As ``kill -9`` would end it: the socket closes, the session stays until its timeout."""
        assert isinstance(client, KazooSession)
        client._is_stopped = True
        link(client).client._stopped.set()
        link(client).shut()

    def break_connection(self, client: ZooKeeperClient) -> None:
        link(client).shut()

    def lose_next_reply(self, client: ZooKeeperClient) -> None:
        connection = link(client).connection

        def lose(*args: Any) -> None:
            del connection._read_response
            raise ConnectionDropped("the test loses this reply")

        connection._read_response = lose

    def lose_next_request(self, client: ZooKeeperClient) -> None:
        connection = link(client).connection

        def lose(*args: Any) -> None:
            del connection._submit
            raise ConnectionDropped("the test loses this request")

        connection._submit = lose

    def monotonic(self) -> float:
        return self.clock.monotonic()

    def close(self) -> None:
        """Stop every session."""
        for client in self._sessions:
            wait(self, client.stop())


def link(client: ZooKeeperClient) -> Any:
    """The kazoo side of a real session."""
    assert isinstance(client, KazooSession)
    return client._link


def server_port(client: ZooKeeperClient) -> int:
    """The port of the server to which a real session is connected."""
    port: int = link(client).handler.socket_now.getpeername()[1]
    return port

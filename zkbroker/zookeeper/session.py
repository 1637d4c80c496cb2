"""A session with a real ensemble: ZooKeeperClient on the reactor, over a kazoo client in its own thread."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from zkbroker.model.clock import Clock
from zkbroker.zookeeper.calls import Call, Calls, WatchHandle, watch_handle
from zkbroker.zookeeper.client import (
    ANY_VERSION,
    ConnectionLossError,
    MultiResult,
    NodeExistsError,
    NoNodeError,
    Op,
    SessionExpiredError,
    SessionState,
    Stat,
    Watch,
    ZooKeeperError,
)
from zkbroker.zookeeper.kazoo_link import (
    AsyncResult,
    Link,
    LinkEvent,
    Reactor,
    close_link,
    multi_results,
    split_connect_string,
    to_stat,
)

PINGS_PER_TIMEOUT = 6
LOOKS_PER_TIMEOUT = 12
SILENCE_PER_TIMEOUT = 2
"""The connection is dropped after a session timeout divided by this without any answer."""
AWAY_REPEAT_S_MAX = 60.0
"""Between two lines of the log that say that there is no session."""


class KazooSession:
    """Fills ``zkbroker.zookeeper.client.ZooKeeperClient``.

    ``connect_string`` is ``host:port,…`` and may end with a chroot, which is created if missing; ValueError if it is
    not. ``session`` (id, password) reopens an old session: RECONNECTED tells that it lives, EXPIRED and CONNECTED that
    it was gone. Calls fail with ConnectionLossError while ``is_connected`` is false, with SessionExpiredError after
    EXPIRED. Empty data is written as null, as Kafka writes it. When the connection breaks, in this order and in one
    turn of the reactor: calls under way fail, SUSPENDED is told, watches fire.
    """

    def __init__(
        self,
        connect_string: str,
        *,
        session_timeout_ms: int,
        connection_timeout_ms: int,
        clock: Clock,
        reactor: Reactor,
        session: tuple[int, bytes] | None = None,
        log: Callable[[str], None],
    ) -> None:
        self._hosts, self._chroot = split_connect_string(connect_string)
        self._timeout_s = session_timeout_ms / 1000
        self._connection_timeout_s = connection_timeout_ms / 1000
        self._clock = clock
        self._reactor = reactor
        self._log = log
        self._session_id, self._password = session if session is not None else (0, b"")
        self._listeners: list[Callable[[SessionState], None]] = []
        self._link: Link | None = None
        self._is_connected = False
        self._is_expired = False
        self._is_stopped = False
        self._calls = Calls(clock, reactor, lambda: self._link)
        self._last_reply_at = -math.inf
        self._ping_at = -math.inf
        self._look_due = 0.0
        self._away_since = 0.0
        self._away_told_after_s = 0.0

    def __repr__(self) -> str:
        state = "stopped" if self._is_stopped else "connected" if self._is_connected else "away"
        return f"KazooSession({self._hosts}{self._chroot} 0x{self._session_id & (2**64 - 1):x} {state})"

    @property
    def session_id(self) -> int:
        return self._session_id

    @property
    def session_password(self) -> bytes:
        return self._password

    @property
    def is_connected(self) -> bool:
        return self._is_connected

    @property
    def last_reply_at(self) -> float:
        if self._link is not None:
            self._last_reply_at = max(self._last_reply_at, self._link.asked_at)
        return self._last_reply_at

    @property
    def agreed_timeout_s(self) -> float:
        """The session timeout that the ensemble agreed to: within its own limits, not always the one asked for."""
        return self._timeout_s if self._link is None else self._link.agreed_timeout_s

    @property
    def last_problem(self) -> str:
        """Why the last attempt to connect failed or the connection broke, for people; empty if none did."""
        return "" if self._link is None else self._link.warning.text

    def listen(self, listener: Callable[[SessionState], None]) -> None:
        self._listeners.append(listener)

    def start(self) -> None:
        if self._link is not None or self._is_stopped:
            return
        self._went_away()
        self._make_link()
        self._look_later()

    def stop(self) -> Deferred[None]:
        link, was_stopped = self._link, self._is_stopped
        self._is_stopped = True
        self._is_connected = False
        self._calls.disarm()
        self._calls.fail(ConnectionLossError)
        if link is None or was_stopped:
            return succeed(None)
        with link.lock:
            link.is_open = False
        return close_link(link, self._reactor)

    # Calls.

    def get(self, path: str, watch: Watch | None = None) -> Deferred[tuple[bytes, Stat]]:
        full, handle = self._full(path), watch_handle(watch)

        def finish(result: Any) -> tuple[bytes, Stat]:
            data, stat = result
            return data or b"", to_stat(stat)

        return self._call(path, lambda link: link.get(full, self._calls.watcher(handle)), finish, handle)

    def exists(self, path: str, watch: Watch | None = None) -> Deferred[Stat | None]:
        full, handle = self._full(path), watch_handle(watch)

        def finish(result: Any) -> Stat | None:
            return None if result is None else to_stat(result)

        return self._call(path, lambda link: link.exists(full, self._calls.watcher(handle)), finish, handle)

    def children(self, path: str, watch: Watch | None = None) -> Deferred[list[str]]:
        full, handle = self._full(path), watch_handle(watch)
        return self._call(path, lambda link: link.children(full, self._calls.watcher(handle)), sorted, handle)

    def create(
        self, path: str, data: bytes, *, ephemeral: bool = False, sequential: bool = False, make_parents: bool = False
    ) -> Deferred[str]:
        full = self._full(path)
        created = self._call(path, lambda link: link.create(full, data, ephemeral, sequential), self._relative)
        if make_parents:
            created.addErrback(self._without_parent, path, data, ephemeral, sequential)
        return created

    def _without_parent(self, failure: Failure, path: str, data: bytes, ephemeral: bool, sequential: bool) -> Any:
        failure.trap(NoNodeError)
        parent = path.rpartition("/")[0]
        if not parent:
            return failure
        made = self.create(parent, b"", make_parents=True).addErrback(_ignore_existing)
        return made.addCallback(lambda _: self.create(path, data, ephemeral=ephemeral, sequential=sequential))

    def set(self, path: str, data: bytes, version: int = ANY_VERSION) -> Deferred[Stat]:
        full = self._full(path)
        return self._call(path, lambda link: link.set(full, data, version), to_stat)

    def delete(self, path: str, version: int = ANY_VERSION) -> Deferred[None]:
        full = self._full(path)
        return self._call(path, lambda link: link.delete(full, version), lambda _: None)

    def multi(self, ops: Sequence[Op]) -> Deferred[list[MultiResult]]:
        if not ops:
            return succeed([])
        ops = tuple(ops)
        full = [op._replace(path=self._full(op.path)) for op in ops]

        def finish(result: Any) -> list[MultiResult]:
            found = multi_results(ops, result)
            return [self._relative(value) if isinstance(value, str) else value for value in found]

        return self._call(ops[0].path, lambda link: link.multi(full), finish)

    def _full(self, path: str) -> str:
        if not path.startswith("/"):
            raise ValueError(f"not an absolute path: {path!r}")
        return self._chroot + path if path != "/" else self._chroot or "/"

    def _relative(self, full: str) -> str:
        return full[len(self._chroot) :] or "/"

    def _call(
        self,
        path: str,
        begin: Callable[[Link], AsyncResult],
        finish: Callable[[Any], Any],
        handle: WatchHandle | None = None,
    ) -> Deferred[Any]:
        if not self._is_connected:
            return fail(SessionExpiredError(path) if self._is_expired else ConnectionLossError(path))
        return self._calls.submit(Call(path, begin, finish, handle))

    # The state of the session.

    def _make_link(self) -> None:
        session = (self._session_id, self._password) if self._session_id else None
        self._link = Link(
            self._hosts, self._timeout_s, self._connection_timeout_s, self._clock, session, self._link_changed
        )
        self._link.start()

    def _link_changed(self, link: Link, event: LinkEvent, number: int, session: tuple[int, bytes] | None) -> None:
        """kazoo's thread."""
        if event is LinkEvent.CONNECTED:
            self._reactor.callFromThread(self._link_connected, link, number, session)
        elif event is LinkEvent.EXPIRED:
            self._reactor.callFromThread(self._link_expired, link)
        else:
            self._reactor.callFromThread(self._link_lost, link)

    def _link_lost(self, link: Link) -> None:
        if link is self._link and not self._is_stopped:
            self._broken(ConnectionLossError)

    def _link_expired(self, link: Link) -> None:
        if link is self._link and not self._is_stopped:
            self._broken(SessionExpiredError)
            self._expired()

    def _link_connected(self, link: Link, number: int, session: tuple[int, bytes]) -> None:
        if link is not self._link or self._is_stopped:
            return
        with link.lock:
            link.is_open = number == link.number
        self._ping()
        session_id, password = session
        if session_id == self._session_id:
            self._connected(session_id, password, SessionState.RECONNECTED)
            return
        self._expired()
        # Until it is announced nobody but this uses the new session; a loss meanwhile only means another round.
        self._make_chroot().addCallbacks(
            lambda _: self._announce(link, number, session_id, password), lambda failure: self._no_chroot(failure, link)
        )

    def _announce(self, link: Link, number: int, session_id: int, password: bytes) -> None:
        if link is self._link and link.number == number and not self._is_stopped:
            self._connected(session_id, password, SessionState.CONNECTED)

    def _make_chroot(self) -> Deferred[Any]:
        if not self._chroot:
            return succeed(None)
        chroot = self._chroot
        looked = self._calls.submit(Call(chroot, lambda link: link.exists(chroot), lambda stat: stat, None))
        return looked.addCallback(lambda stat: None if stat is not None else self._make_path(chroot))

    def _make_path(self, full: str) -> Deferred[Any]:
        parent = full.rpartition("/")[0]
        made = self._make_path(parent) if parent else succeed(None)

        def create(_: object) -> Deferred[Any]:
            call = Call(full, lambda link: link.create(full, b""), lambda path: path, None)
            return self._calls.submit(call).addErrback(_ignore_existing)

        return made.addCallback(create)

    def _no_chroot(self, failure: Failure, link: Link) -> None:
        if failure.check(ConnectionLossError, SessionExpiredError) is None:
            self._log(f"cannot create the chroot {self._chroot}: {failure.getErrorMessage()}")
            self._reactor.callLater(1.0, link.shut)

    def _connected(self, session_id: int, password: bytes, state: SessionState) -> None:
        self._session_id, self._password = session_id, password
        self._is_connected = True
        self._is_expired = False
        self._log(f"ZooKeeper session 0x{session_id & (2**64 - 1):x} {state.value}")
        self._tell(state)

    def _expired(self) -> None:
        """Tell EXPIRED, once, while ``session_id`` is still the old one."""
        if not self._session_id:
            return
        self._is_expired = True
        self._log(f"ZooKeeper session 0x{self._session_id & (2**64 - 1):x} expired")
        self._tell(SessionState.EXPIRED)
        self._session_id, self._password = 0, b""

    def _broken(self, error: type[ZooKeeperError]) -> None:
        was_connected, self._is_connected = self._is_connected, False
        self._calls.fail(error)
        if not was_connected:
            return
        self._log(f"ZooKeeper connection lost: {self.last_problem}")
        self._went_away()
        armed = self._calls.disarm()
        self._tell(SessionState.SUSPENDED)
        for handle in armed:
            if not self._is_stopped:
                handle.watch()

    def _tell(self, state: SessionState) -> None:
        for listener in list(self._listeners):
            if not self._is_stopped:
                listener(state)

    # Is the server still there?

    def _look_later(self) -> None:
        pause_s = self.agreed_timeout_s / LOOKS_PER_TIMEOUT
        self._look_due = self._clock.monotonic() + pause_s
        self._reactor.callLater(pause_s, self._look)

    def _look(self) -> None:
        link = self._link
        if self._is_stopped or link is None:
            return
        now = self._clock.monotonic()
        timeout_s = link.agreed_timeout_s
        if link.is_dead:
            self._log(f"the ZooKeeper client's thread died, starting another: {link.warning.text}")
            self._last_reply_at = self.last_reply_at
            self._broken(ConnectionLossError)
            link.close()
            self._make_link()
        elif link.is_open:
            # After a stop of this whole process the answer may wait unread: then look once more before judging.
            is_late = now - self._look_due > timeout_s / PINGS_PER_TIMEOUT
            if not is_late and now - link.heard_at >= timeout_s / SILENCE_PER_TIMEOUT:
                self._log(f"ZooKeeper has not answered for {now - link.heard_at:.1f} s: trying another server")
                link.shut()
            elif now - self._ping_at >= timeout_s / PINGS_PER_TIMEOUT * 0.99:
                self._ping()
        if not self._is_connected:
            self._tell_absence(now)
        self._look_later()

    def _went_away(self) -> None:
        self._away_since, self._away_told_after_s = self._clock.monotonic(), self._timeout_s

    def _tell_absence(self, now: float) -> None:
        """For people: an ensemble that cannot commit looks to them as if the broker did not try."""
        away_s = now - self._away_since
        if away_s >= self._away_told_after_s:
            self._away_told_after_s = away_s + min(away_s, AWAY_REPEAT_S_MAX)
            self._log(f"no session with ZooKeeper for {away_s:.0f} s: {self.last_problem or 'no answer'}")

    def _ping(self) -> None:
        link = self._link
        if link is None:
            return
        self._ping_at = now = self._clock.monotonic()
        with link.lock:
            result = link.exists("/") if link.is_open else None
        if result is not None:
            result.rawlink(lambda answer: link.answered(now, answer))


def _ignore_existing(failure: Failure) -> None:
    failure.trap(NodeExistsError)

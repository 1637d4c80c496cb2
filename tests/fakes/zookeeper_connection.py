"""The connection of a session to the ensemble in memory of zookeeper.py: what is on its way, and the client's state."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from zkbroker.model.clock import Clock
from zkbroker.zookeeper.client import (
    ConnectionLossError,
    SessionExpiredError,
    SessionState,
    Watch,
    ZooKeeperError,
)

if TYPE_CHECKING:
    from tests.fakes.zookeeper import FakeZooKeeper

PINGS_PER_TIMEOUT = 6
"""How often the real client asks for an answer within one session timeout."""


class Timers(Protocol):
    """The one thing asked of a reactor; ``task.Clock`` and a simulator have it too."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> Any: ...  # noqa: A002


class WatchHandle:
    """One watch: left at the server when the read is done, known to the client when the answer is there."""

    __slots__ = ("is_armed", "path", "session", "watch")

    def __init__(self, session: FakeConnection, path: str, watch: Watch) -> None:
        self.session = session
        self.path = path
        self.watch = watch
        self.is_armed = False


class _Call:
    __slots__ = ("deferred", "execute", "handle", "is_write", "name", "path", "sent_at")

    def __init__(
        self,
        name: str,
        path: str,
        execute: Callable[[], Any],
        is_write: bool,
        handle: WatchHandle | None,
        sent_at: float,
    ) -> None:
        self.deferred: Deferred[Any] = Deferred()
        self.name = name
        self.path = path
        self.execute = execute
        self.is_write = is_write
        self.handle = handle
        self.sent_at = sent_at


class FakeConnection:
    """Messages in both directions, in order, each ``FakeZooKeeper``'s latency under way; connects again by itself."""

    def __init__(
        self,
        zookeeper: FakeZooKeeper,
        reactor: Timers,
        clock: Clock,
        session_timeout_s: float,
        session: tuple[int, bytes] | None,
        name: str,
    ) -> None:
        self._zookeeper = zookeeper
        self._reactor = reactor
        self._clock = clock
        self._timeout_s = session_timeout_s
        self._session_id, self._password = session if session is not None else (0, b"")
        self._name = name
        self._listeners: list[Callable[[SessionState], None]] = []
        self._is_started = False
        self._is_stopped = False
        self._is_killed = False
        self._is_connected = False
        self._is_expired = False
        self._is_reachable = True
        self._is_cut = False
        """Connected as far as this side knows, but nothing gets through."""
        self._cut_turns: list[Callable[[int], None]] = []
        """What would have arrived meanwhile, at either side."""
        self._notices: Any = None
        self._is_paused = False
        self._held = 0
        self._connection = 0
        """Number of the connection; what belongs to an older one is dropped."""
        self._asks_since = 0.0
        self._last_reply_at = float("-inf")
        self._pending: deque[_Call] = deque()
        self._outbound: deque[_Call] = deque()
        self._inbound: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._armed: list[WatchHandle] = []
        self._lose_reply = False
        self._lose_request = False
        self._write_late_s = 0.0
        self.slower_s = 0.0
        """So much longer each of its messages takes, one way."""

    def __repr__(self) -> str:
        state = "connected" if self._is_connected else "away"
        return f"{type(self).__name__}({self._name or hex(self._session_id)} {state})"

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
        if self._is_connected and not self._is_paused and not self._is_cut:
            self._ping()
        return self._last_reply_at

    @property
    def agreed_timeout_s(self) -> float:
        return self._timeout_s

    def listen(self, listener: Callable[[SessionState], None]) -> None:
        self._listeners.append(listener)

    def start(self) -> None:
        self._is_started = True
        self._connect_later()

    def _call(
        self,
        name: str,
        path: str,
        execute: Callable[[], Any],
        *,
        is_write: bool = False,
        handle: WatchHandle | None = None,
    ) -> Deferred[Any]:
        if not self._is_connected:
            return fail(SessionExpiredError(path) if self._is_expired else ConnectionLossError(path))
        call = _Call(name, path, execute, is_write, handle, self._clock.monotonic())
        self._pending.append(call)
        self._outbound.append(call)
        self._zookeeper._reactor.callLater(
            self._zookeeper._delay() + self.slower_s, self._server_turn, self._connection
        )
        return call.deferred

    def _server_turn(self, connection: int) -> None:
        if connection != self._connection or not self._outbound:
            return
        if self._is_cut:
            self._cut_turns.append(self._server_turn)
            return
        if not self._zookeeper._serves(self):
            # The servers have dropped this connection; the client will learn it.
            self._outbound.clear()
            return
        call = self._outbound.popleft()
        self._zookeeper.noted(self._name, True, call.name, call.path)
        self._serve(call)
        if self._is_killed and not self._outbound:
            self._zookeeper._left(self, self._session_id)

    def _serve(self, call: _Call) -> None:
        if call.is_write and self._write_late_s:
            self._zookeeper._hold_back(call.execute, self._write_late_s)
            self._write_late_s = 0.0
            self._outbound.clear()
            self._receive(self._broken)
            return
        if call.is_write and self._lose_request:
            self._lose_request = False
            self._outbound.clear()
            self._receive(self._broken)
            return
        result: Any
        try:
            result = call.execute()
        except ZooKeeperError as error:
            result = Failure(error)
        if call.is_write and self._lose_reply:
            self._lose_reply = False
            self._outbound.clear()
            self._receive(self._broken)
            return
        self._receive(self._answered, call, result)

    def _receive(self, event: Callable[..., None], *args: Any) -> None:
        if self._is_killed:
            return
        self._inbound.append((event, args))
        self._reactor.callLater(self._zookeeper._delay() + self.slower_s, self._client_turn, self._connection)

    def _client_turn(self, connection: int) -> None:
        if connection != self._connection or not self._inbound:
            return
        if self._is_cut:
            self._cut_turns.append(self._client_turn)
            return
        if self._is_paused:
            self._held += 1
            return
        event, args = self._inbound.popleft()
        event(*args)

    def _answered(self, call: _Call, result: Any) -> None:
        how = result.type.__name__ if isinstance(result, Failure) else "done"
        self._zookeeper.noted(self._name, False, f"{call.name} {how}:", call.path)
        self._pending.popleft()
        self._last_reply_at = max(self._last_reply_at, call.sent_at)
        if call.handle is not None and not isinstance(result, Failure):
            call.handle.is_armed = True
            self._armed.append(call.handle)
        call.deferred.callback(result)

    def _fired(self, handle: WatchHandle) -> None:
        if handle.is_armed:
            handle.is_armed = False
            self._armed.remove(handle)
            self._zookeeper.noted(self._name, False, "watch", handle.path)
            handle.watch()

    def _ping(self) -> None:
        """The real client asks every sixth of its timeout: the last such moment was answered if the session stands."""
        if not self._zookeeper._knows(self._session_id, self):
            return
        period_s = self._timeout_s / PINGS_PER_TIMEOUT
        periods = (self._clock.monotonic() - self._asks_since) // period_s
        if periods >= 1:
            self._last_reply_at = max(self._last_reply_at, self._asks_since + periods * period_s)

    def _broken(self) -> None:
        if not self._is_connected:
            return
        if not self._is_paused and not self._is_cut:
            self._ping()
        self._is_connected = False
        self._connection += 1
        self._held = 0
        self._cut_turns.clear()
        self._uncut()
        self._inbound.clear()
        self._outbound.clear()
        self._zookeeper._left(self, self._session_id)
        self._fail_pending(ConnectionLossError)
        self._tell(SessionState.SUSPENDED)
        armed, self._armed = self._armed, []
        for handle in armed:
            handle.is_armed = False
            if not self._is_stopped:
                handle.watch()
        self._connect_later()

    def _fail_pending(self, kind: type[ZooKeeperError]) -> None:
        pending, self._pending = self._pending, deque()
        for call in pending:
            call.deferred.errback(Failure(kind(call.path)))

    def _connect_later(self) -> None:
        if self._is_started and not self._is_connected:
            self._connection += 1
            self._reactor.callLater(2 * self._zookeeper._delay(), self._connect, self._connection)

    def _connect(self, connection: int) -> None:
        if connection != self._connection or self._is_stopped or self._is_connected:
            return
        if not self._is_reachable or not self._zookeeper.is_serving:
            return
        old_id = self._session_id if not self._is_expired else 0
        opened = self._zookeeper._open(self, old_id, self._password, self._timeout_s)
        if not opened:
            self._is_expired = True
            self._tell(SessionState.EXPIRED)
            self._session_id = 0
            self._connect_later()
            return
        self._session_id = opened
        self._password = self._zookeeper._password(opened)
        self._is_expired = False
        self._is_connected = True
        self._asks_since = self._clock.monotonic()
        self._last_reply_at = max(self._last_reply_at, self._asks_since)
        self._tell(SessionState.RECONNECTED if opened == old_id else SessionState.CONNECTED)

    def _tell(self, state: SessionState) -> None:
        self._zookeeper.noted(self._name, False, "session", state.value)
        for listener in list(self._listeners):
            if not self._is_stopped:
                listener(state)

    def _uncut(self) -> None:
        self._is_cut = False
        turns, self._cut_turns = self._cut_turns, []
        for turn in turns:
            reactor = self._reactor if turn == self._client_turn else self._zookeeper._reactor
            reactor.callLater(0, turn, self._connection)
        if self._notices is not None and self._notices.active():
            self._notices.cancel()
        self._notices = None

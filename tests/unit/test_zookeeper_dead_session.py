"""A server that keeps the connection of a session which the ensemble has expired.

ZooKeeper 3.8 does so when a connection moves to a server just while its session is closed there: reads and pings are
answered, every write with "session expired". Seen under ``bin/zkbroker-torture``: the broker never registered again.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from twisted.internet.defer import Deferred

from tests.harness.zookeeper_worlds import PumpReactor, RealClock
from zkbroker.zookeeper.client import ConnectionLossError, Create, SessionExpiredError, SessionState, SetData
from zkbroker.zookeeper.session import KazooSession

SESSION_EXPIRED = -112
RUNTIME_INCONSISTENCY = -2
CREATE, EXISTS, MULTI, CLOSE = 1, 3, 14, -11
STAT = bytes(68)


class ExpiringServer:
    """Speaks as much of ZooKeeper's protocol as a session needs. The first session is dead in all but its connection:
    it cannot write, and cannot be opened again."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sessions = 0
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for connection in [self._listener, *self._connections]:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection.makefile("rb") as stream:
                session_id = self._open(_frame(stream.read))
                password = b"p" * 16 if session_id else bytes(16)
                timeout_ms = 6000 if session_id else 0
                _send(connection, struct.pack(">iiqi", 0, timeout_ms, session_id, 16) + password + b"\0")
                while session_id:
                    self._answer(connection, _frame(stream.read), session_id)
        except (OSError, struct.error, ValueError):
            connection.close()

    def _open(self, request: bytes) -> int:
        """The id of the session; 0 tells the client that the one it asks for has expired."""
        (asked_for,) = struct.unpack_from(">q", request, 16)
        if asked_for == 1:
            return 0
        self._sessions += 1
        return self._sessions

    def _answer(self, connection: socket.socket, request: bytes, session_id: int) -> None:
        xid, kind = struct.unpack_from(">ii", request)
        error, body = 0, b""
        if kind == EXISTS:
            body = STAT
        elif kind == CREATE:
            path = _path(request)
            error, body = (SESSION_EXPIRED, b"") if session_id == 1 else (0, struct.pack(">i", len(path)) + path)
        elif kind == MULTI:
            body = _expired_multi() if session_id == 1 else _done_multi(request)
        _send(connection, struct.pack(">iqi", xid, 7, error) + body)
        if kind == CLOSE:
            raise ValueError("closed")


def _expired_multi() -> bytes:
    """Such an error is told by operation: the first failed, the second was not tried."""
    results = b"".join(
        struct.pack(">i?ii", -1, False, error, error) for error in (SESSION_EXPIRED, RUNTIME_INCONSISTENCY)
    )
    return results + struct.pack(">i?i", -1, True, -1)


def _done_multi(request: bytes) -> bytes:
    (length,) = struct.unpack_from(">i", request, 8 + 9)
    path = request[8 + 13 : 8 + 13 + length]
    created = struct.pack(">i?i", CREATE, False, 0) + struct.pack(">i", length) + path
    return created + struct.pack(">i?i", 5, False, 0) + STAT + struct.pack(">i?i", -1, True, -1)


def _path(request: bytes) -> bytes:
    (length,) = struct.unpack_from(">i", request, 8)
    return request[12 : 12 + length]


def _frame(read: Callable[[int], bytes]) -> bytes:
    (length,) = struct.unpack(">i", read(4))
    return read(length)


def _send(connection: socket.socket, payload: bytes) -> None:
    connection.sendall(struct.pack(">i", len(payload)) + payload)


@pytest.fixture
def server() -> Iterator[ExpiringServer]:
    made = ExpiringServer()
    yield made
    made.close()


def _create(session: KazooSession) -> Deferred[str]:
    return session.create("/controller", b"")


def _register(session: KazooSession) -> Deferred[object]:
    return session.multi([Create("/brokers/ids/1", b"", ephemeral=True), SetData("/brokers/ids/1", b"{}", 0)])


@pytest.mark.parametrize("write", [_create, _register])
def test_a_write_refused_as_expired_ends_the_session(
    server: ExpiringServer, write: Callable[[KazooSession], Deferred[object]]
) -> None:
    reactor, states, lines = PumpReactor(), list[SessionState](), list[str]()
    session = KazooSession(
        server.address,
        session_timeout_ms=6000,
        connection_timeout_ms=6000,
        clock=RealClock(),
        reactor=reactor,
        log=lines.append,
    )
    session.listen(states.append)
    session.start()
    assert reactor.run_until(lambda: states == [SessionState.CONNECTED], 10)
    outcomes: list[object] = []
    write(session).addBoth(outcomes.append)
    assert reactor.run_until(lambda: bool(outcomes), 10)
    failure = outcomes[0]
    assert failure.check(ConnectionLossError, SessionExpiredError)  # type: ignore[attr-defined]
    assert reactor.run_until(lambda: len(states) == 4, 10), states
    assert states[1:] == [SessionState.SUSPENDED, SessionState.EXPIRED, SessionState.CONNECTED]
    assert any("session 0x1 expired" in line for line in lines)
    again: list[object] = []
    write(session).addCallback(again.append)
    assert reactor.run_until(lambda: bool(again), 10)
    stopped: list[object] = []
    session.stop().addCallback(stopped.append)
    assert reactor.run_until(lambda: bool(stopped), 10)

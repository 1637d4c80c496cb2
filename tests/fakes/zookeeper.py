"""A ZooKeeper ensemble in memory: one thread, no time of its own, no randomness; the same run gives the same events.

Requests and answers of a session travel in order, each way ``latency`` after ``callLater``. The real client passes
the same contract tests (tests/contract/test_zookeeper_contract.py), and what those hold is all that this promises.

Faults, besides those of the network of a session (``disconnect``, ``reconnect``, ``lose_next_reply``,
``lose_next_request``): ``pause``/``resume`` stop a process, ``kill`` ends it, ``FakeZooKeeper.expire`` ends a session,
``FakeZooKeeper.stop``/``start`` take the ensemble away and bring it back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from tests.fakes.znode_tree import WatchKind, Znode, ZnodeTree
from tests.fakes.zookeeper_connection import FakeConnection, Timers, WatchHandle
from tests.fakes.zookeeper_session import FakeSession
from zkbroker.model.clock import Clock
from zkbroker.zookeeper.client import Delete, MultiResult, Op, Stat, ZooKeeperError

__all__ = ["FakeSession", "FakeZooKeeper"]

SESSION_ID_FIRST = 0x1000_0000_0000_0001


class _SessionRecord:
    """What the ensemble knows of a session."""

    __slots__ = ("client", "expiry", "password", "timeout_s")

    def __init__(self, password: bytes, timeout_s: float) -> None:
        self.password = password
        self.timeout_s = timeout_s
        self.client: FakeConnection | None = None
        """Who is connected with it."""
        self.expiry: Any = None
        """Runs while nobody is heard."""


class FakeZooKeeper:
    """The ensemble. ``latency`` gives the seconds that a message takes one way, asked for each message."""

    def __init__(self, reactor: Timers, clock: Clock, *, latency: Callable[[], float] | float = 0.0) -> None:
        self._reactor = reactor
        self._clock = clock
        self._latency = latency
        self.tree = ZnodeTree()
        self.committed: Callable[[Sequence[Op], Sequence[MultiResult], int], None] = lambda ops, results, session: None
        """Told of each transaction that was done, with its results and the session it came from (0: no session)."""
        self.noted: Callable[[str, bool, str, str], None] = lambda session, at_server, what, path: None
        """Told of each request that is served and of each answer, watch and state that a client gets, by its name."""
        self._under_way: list[Callable[[], Any]] = []
        """Writes that were taken and are seen by nobody yet."""
        self.expiry_late_s: Callable[[], float] = lambda: 0.0
        """How much later than its timeout a session is expired."""
        self.is_serving = True
        self._sessions: dict[int, _SessionRecord] = {}
        self._clients: list[FakeSession] = []
        self._watches: dict[tuple[WatchKind, str], list[WatchHandle]] = {}
        self._next_session_id = SESSION_ID_FIRST

    def __repr__(self) -> str:
        return f"FakeZooKeeper({self.tree!r}, sessions={[hex(number) for number in sorted(self._sessions)]})"

    def session(
        self,
        *,
        session_timeout_s: float = 6.0,
        session: tuple[int, bytes] | None = None,
        name: str = "",
        reactor: Timers | None = None,
        clock: Clock | None = None,
    ) -> FakeSession:
        """A client, not yet started; ``session`` (id, password) reopens an old one. ``reactor`` and ``clock`` are those
        of its process, where that has its own."""
        client = FakeSession(self, reactor or self._reactor, clock or self._clock, session_timeout_s, session, name)
        self._clients.append(client)
        return client

    # What a person with zkCli does, at once and without a session.

    def data(self, path: str) -> bytes | None:
        znode = self.tree.znodes.get(path)
        return None if znode is None else znode.data

    def stat(self, path: str) -> Stat | None:
        znode = self.tree.znodes.get(path)
        return None if znode is None else znode.stat

    def children(self, path: str) -> list[str]:
        return sorted(self.tree.find(path).children)

    def write(self, *ops: Op) -> list[MultiResult]:
        """Do the ops, all or nothing, and let watches fire. Raises MultiError."""
        return self._transact(ops, 0)

    def listing(self) -> list[str]:
        """``path data`` of every znode, sorted, for logs and scenarios."""
        return [f"{path} {znode.data.decode('utf-8', 'replace')}".rstrip() for path, znode in sorted(self._znodes())]

    def _znodes(self) -> list[tuple[str, Znode]]:
        return [(path, znode) for path, znode in self.tree.znodes.items() if path != "/"]

    # Faults.

    def stop(self) -> None:
        """The ensemble is away: every connection breaks; no session expires meanwhile."""
        self.is_serving = False
        for record in self._sessions.values():
            _cancel(record.expiry)
            record.expiry = None
            record.client = None
        for client in list(self._clients):
            self._drop_watches(client)
            client._receive(client._broken)

    def start(self) -> None:
        """The ensemble is back; sessions have their whole timeout to come back."""
        self.is_serving = True
        for session_id, record in self._sessions.items():
            if record.client is None:
                self._unheard(session_id)
        for client in list(self._clients):
            client._connect_later()

    def expire(self, session_id: int) -> None:
        """End a session now: its ephemerals go, its client's connection breaks."""
        self._arrive()
        record = self._sessions.pop(session_id, None)
        if record is None:
            return
        _cancel(record.expiry)
        for path in self.tree.owned_by(session_id):
            self._transact([Delete(path)], session_id)
        if record.client is not None:
            client, record.client = record.client, None
            self._drop_watches(client)
            client._receive(client._broken)

    def close_session(self, session_id: int, password: bytes) -> Deferred[bool]:
        """As ``zkbroker.zookeeper.leftover.close_session``: True if the session was there and is closed now."""
        result: Deferred[bool] = Deferred()

        def close() -> None:
            record = self._sessions.get(session_id)
            was_there = self.is_serving and record is not None and record.password == password
            if was_there:
                self.expire(session_id)
            result.callback(was_there)

        self._reactor.callLater(self._delay(), close)
        return result

    # The servers' side of a session.

    def _delay(self) -> float:
        return self._latency() if callable(self._latency) else self._latency

    def _open(self, client: FakeConnection, session_id: int, password: bytes, timeout_s: float) -> int:
        """The id of the session that ``client`` has now; 0 if the one it asks for is gone."""
        if session_id:
            record = self._sessions.get(session_id)
            if record is None or record.password != password:
                return 0
            if record.client is not None and record.client is not client:
                mover, record.client = record.client, None
                self._drop_watches(mover)
                mover._receive(mover._broken)
        else:
            session_id = self._next_session_id
            self._next_session_id += 1
            record = self._sessions[session_id] = _SessionRecord(session_id.to_bytes(16, "big"), timeout_s)
        _cancel(record.expiry)
        record.expiry = None
        record.client = client
        return session_id

    def _password(self, session_id: int) -> bytes:
        return self._sessions[session_id].password

    def _left(self, client: FakeConnection, session_id: int) -> None:
        """The connection of ``client`` is gone, or it answers no pings."""
        self._drop_watches(client)
        record = self._sessions.get(session_id)
        if record is not None and record.client is client:
            record.client = None
            if self.is_serving:
                self._unheard(session_id)

    def _unheard(self, session_id: int) -> None:
        record = self._sessions.get(session_id)
        if record is not None and record.expiry is None:
            record.expiry = self._reactor.callLater(record.timeout_s + self.expiry_late_s(), self.expire, session_id)

    def _serves(self, client: FakeConnection) -> bool:
        """Whether the connection that ``client`` believes in is one for the servers too."""
        record = self._sessions.get(client.session_id)
        return self.is_serving and record is not None and record.client is client

    def _heard(self, session_id: int, client: FakeConnection) -> None:
        record = self._sessions.get(session_id)
        if record is not None and record.client is client:
            _cancel(record.expiry)
            record.expiry = None

    def _knows(self, session_id: int, client: FakeConnection) -> bool:
        """Whether a ping of this client would be answered."""
        record = self._sessions.get(session_id)
        return self.is_serving and record is not None and record.client is client

    def _hold_back(self, execute: Callable[[], Any], seconds: float) -> None:
        """A write is on its way through the ensemble: no read sees it for ``seconds``, but nothing that is written
        later overtakes it."""
        self._under_way.append(execute)
        self._reactor.callLater(seconds, self._arrive)

    def _arrive(self) -> None:
        under_way, self._under_way = self._under_way, []
        for execute in under_way:
            try:
                execute()
            except ZooKeeperError:
                pass  # nobody is there to be told

    def _transact(self, ops: Sequence[Op], session_id: int) -> list[MultiResult]:
        self._arrive()
        results, changes = self.tree.transact(ops, session_id, self._clock.wall_ms())
        self.committed(ops, results, session_id)
        for change in changes:
            for handle in self._watches.pop((change.kind, change.path), []):
                handle.session._receive(handle.session._fired, handle)
        return results

    def _leave_watch(self, kind: WatchKind, path: str, handle: WatchHandle | None) -> None:
        if handle is not None:
            self._watches.setdefault((kind, path), []).append(handle)

    def _drop_watches(self, client: FakeConnection) -> None:
        for key, handles in list(self._watches.items()):
            kept = [handle for handle in handles if handle.session is not client]
            if kept:
                self._watches[key] = kept
            else:
                del self._watches[key]


def _cancel(call: Any) -> None:
    if call is not None and call.active():
        call.cancel()

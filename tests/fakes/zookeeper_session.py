"""A session with the ensemble in memory of zookeeper.py: its requests, and the faults of its process and network."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed

from tests.fakes.znode_tree import WatchKind
from tests.fakes.zookeeper_connection import FakeConnection, WatchHandle
from zkbroker.zookeeper.client import (
    ANY_VERSION,
    ConnectionLossError,
    Create,
    Delete,
    MultiError,
    MultiResult,
    Op,
    SetData,
    Stat,
    Watch,
)


class FakeSession(FakeConnection):
    """Fills ``zkbroker.zookeeper.client.ZooKeeperClient``; make it with ``FakeZooKeeper.session``."""

    def stop(self) -> Deferred[None]:
        if self._is_stopped:
            return succeed(None)
        done: Deferred[None] = Deferred()
        was_connected, session_id = self._is_connected, self._session_id
        self._is_stopped = True
        self._is_connected = False
        self._connection += 1
        self._zookeeper._clients.remove(self)
        self._armed.clear()
        self._inbound.clear()
        self._outbound.clear()
        self._fail_pending(ConnectionLossError)

        def closed() -> None:
            if was_connected and self._zookeeper.is_serving:
                self._zookeeper.expire(session_id)
            done.callback(None)

        self._zookeeper._left(self, session_id)
        self._reactor.callLater(self._zookeeper._delay(), closed)
        return done

    def get(self, path: str, watch: Watch | None = None) -> Deferred[tuple[bytes, Stat]]:
        handle = self._handle(path, watch)

        def execute() -> tuple[bytes, Stat]:
            znode = self._zookeeper.tree.find(path)
            self._zookeeper._leave_watch(WatchKind.DATA, path, handle)
            return znode.data, znode.stat

        return self._call("get", path, execute, handle=handle)

    def exists(self, path: str, watch: Watch | None = None) -> Deferred[Stat | None]:
        handle = self._handle(path, watch)

        def execute() -> Stat | None:
            self._zookeeper._leave_watch(WatchKind.DATA, path, handle)
            return self._zookeeper.stat(path)

        return self._call("exists", path, execute, handle=handle)

    def children(self, path: str, watch: Watch | None = None) -> Deferred[list[str]]:
        handle = self._handle(path, watch)

        def execute() -> list[str]:
            names = self._zookeeper.children(path)
            self._zookeeper._leave_watch(WatchKind.CHILDREN, path, handle)
            return names

        return self._call("children", path, execute, handle=handle)

    def create(
        self, path: str, data: bytes, *, ephemeral: bool = False, sequential: bool = False, make_parents: bool = False
    ) -> Deferred[str]:
        def execute() -> str:
            if make_parents:
                self._make_parents(path)
            return str(self._single(Create(path, data, ephemeral, sequential)))

        return self._call("create", path, execute, is_write=True)

    def _make_parents(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if parent and parent not in self._zookeeper.tree.znodes:
            self._make_parents(parent)
            self._single(Create(parent, b""))

    def set(self, path: str, data: bytes, version: int = ANY_VERSION) -> Deferred[Stat]:
        return self._call("set", path, lambda: self._single(SetData(path, data, version)), is_write=True)

    def delete(self, path: str, version: int = ANY_VERSION) -> Deferred[None]:
        def execute() -> None:
            self._single(Delete(path, version))

        return self._call("delete", path, execute, is_write=True)

    def multi(self, ops: Sequence[Op]) -> Deferred[list[MultiResult]]:
        ops = tuple(ops)
        path = ops[0].path if ops else ""
        return self._call("multi", path, lambda: self._zookeeper._transact(ops, self._session_id), is_write=True)

    def _single(self, op: Op) -> MultiResult:
        try:
            return self._zookeeper._transact([op], self._session_id)[0]
        except MultiError as failed:
            raise failed.error from failed

    def _handle(self, path: str, watch: Watch | None) -> WatchHandle | None:
        return None if watch is None else WatchHandle(self, path, watch)

    # Faults.

    def disconnect(self) -> None:
        """The network is gone: the connection breaks, and stays away until ``reconnect``."""
        self._is_reachable = False
        self._broken()

    def cut(self) -> None:
        """The network is gone without a word: nothing arrives in either direction until ``reconnect``, and the client
        notices when it has heard nothing for half its timeout."""
        self._is_reachable = False
        if not self._is_connected or self._is_cut:
            return
        if not self._is_paused:
            self._ping()
        self._is_cut = True
        self._zookeeper._unheard(self._session_id)
        self._notices = self._reactor.callLater(self._timeout_s / 2, self._broken)

    def reconnect(self) -> None:
        """The network is back; after ``cut`` what was held arrives if neither side has given up."""
        self._is_reachable = True
        if not self._is_cut:
            self._connect_later()
            return
        self._uncut()
        # While it was cut off it asked in vain.
        self._asks_since = self._clock.monotonic()
        if not self._is_paused:
            self._zookeeper._heard(self._session_id, self)

    def lose_next_reply(self) -> None:
        """The next write is done, but the connection breaks before the answer; a new one follows at once."""
        self._lose_reply = True

    def delay_next_write(self, seconds: float) -> None:
        """The connection breaks while the next write is under way through the ensemble; a new one follows at once, to
        a server that does not have the write for ``seconds`` more."""
        self._write_late_s = seconds

    def lose_next_request(self) -> None:
        """The next write never arrives: the connection breaks before; a new one follows at once."""
        self._lose_request = True

    def pause(self) -> None:
        """The process is stopped: nothing is received, no ping is answered; its session will expire."""
        if self._is_connected and not self._is_cut:
            self._ping()
        self._is_paused = True
        if self._is_connected:
            self._zookeeper._unheard(self._session_id)

    def resume(self) -> None:
        """The process goes on, first with what was sent to it meanwhile."""
        self._is_paused = False
        # While it stood still it asked nothing.
        self._asks_since = self._clock.monotonic()
        if not self._is_cut:
            self._zookeeper._heard(self._session_id, self)
        held, self._held = self._held, 0
        for _ in range(held):
            self._reactor.callLater(0, self._client_turn, self._connection)

    def kill(self) -> None:
        """The process is gone: it hears and says nothing more; the session expires in its time.

        What it sent before is under way and still done, unless the network is gone too."""
        self._is_stopped = True
        self._is_killed = True
        self._is_connected = False
        self._inbound.clear()
        self._pending.clear()
        if self in self._zookeeper._clients:
            self._zookeeper._clients.remove(self)
        if self._is_cut or not self._outbound:
            self._connection += 1
            self._zookeeper._left(self, self._session_id)

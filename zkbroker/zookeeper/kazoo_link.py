"""One kazoo client from its start to its end: the only file that imports kazoo, and where its weaknesses end.

What is done here and in session.py besides translating (measured with kazoo 2.11 and ZooKeeper 3.8):

- kazoo runs answers and watches in two worker threads, so that a read may overtake the event which announced what it
  shows. Here all of a connection's events run in its one thread, in the order received, and from there only hop to
  the reactor with ``callFromThread``.
- Any request suppresses its pings, and a server that hangs goes unnoticed: session.py asks every sixth of the session
  timeout, whatever else is sent; without an answer for half of it the socket is shut, and kazoo moves on.
- Connecting to one host may take it the whole session timeout: a third of it divided by the hosts, doubling with
  every round without success.
- It queues calls while it has no connection and may send them in the next session: ``is_open`` is false by then.
- ``commit()`` of a transaction never fails: its list of results is searched for the one that did.
- A server may keep the connection of a session that has expired, answer its reads, and refuse its writes one by one:
  such an answer ends the connection, and the next one tells that the session is gone.
- A thread of kazoo that dies of an exception stays dead: ``is_dead``, and a new client takes the session over.
"""

from __future__ import annotations

import logging
import math
import socket
import threading
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Protocol

from kazoo import exceptions as kazoo_errors
from kazoo.client import KazooClient
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.hosts import collect_hosts
from kazoo.protocol import serialization
from kazoo.protocol.connection import ConnectionHandler
from kazoo.protocol.states import EventType, KazooState, KeeperState
from kazoo.retry import KazooRetry
from kazoo.security import OPEN_ACL_UNSAFE
from twisted.internet.defer import Deferred

from zkbroker.model.clock import Clock
from zkbroker.zookeeper.client import (
    BadVersionError,
    ConnectionLossError,
    Create,
    Delete,
    MultiError,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    Op,
    SessionExpiredError,
    SetData,
    Stat,
    ZooKeeperError,
)

CONNECT_TIMEOUT_S_MIN = 0.25

STOP_TIMEOUT_S = 1.0
"""How long ``stop`` waits for the ensemble to close the session."""

AsyncResult = Any
"""kazoo's promise of a result: ``rawlink``, ``exception``, ``value``."""

Watcher = Callable[[Any], None]


class Reactor(Protocol):
    """What is asked of Twisted's reactor."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> Any: ...  # noqa: A002

    def callFromThread(self, callable: Callable[..., object], *args: object) -> None: ...  # noqa: A002


class LinkEvent(Enum):
    CONNECTED = "connected"
    """There is a connection; its session may be the same as before or another."""
    LOST = "lost"
    EXPIRED = "expired"


CONNECTION_ERRORS = (
    kazoo_errors.ConnectionLoss,
    kazoo_errors.ConnectionClosedError,
    kazoo_errors.ConnectionDropped,
    kazoo_errors.SessionExpiredError,
    kazoo_errors.AuthFailedError,
)
"""What a call fails with without any answer from a server."""

_ERRORS: tuple[tuple[type[Exception], type[ZooKeeperError]], ...] = (
    (kazoo_errors.NoNodeError, NoNodeError),
    (kazoo_errors.NodeExistsError, NodeExistsError),
    (kazoo_errors.BadVersionError, BadVersionError),
    (kazoo_errors.NotEmptyError, NotEmptyError),
    (kazoo_errors.NoAuthError, NoAuthError),
    (kazoo_errors.SessionExpiredError, SessionExpiredError),
    (kazoo_errors.ConnectionLoss, ConnectionLossError),
)


class _Socket(socket.socket):
    """kazoo's thread closes it, the reactor's may shut it: never at the same moment, or it could hit another file."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__(connected.family, connected.type, connected.proto, fileno=connected.detach())
        self._closing = threading.Lock()

    def close(self) -> None:
        with self._closing:
            super().close()

    def shut(self) -> None:
        with self._closing:
            try:
                self.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class _DirectHandler(SequentialThreadingHandler):  # type: ignore[misc]
    """Runs every callback in the thread of the connection; there are no worker threads to start or stop."""

    running = False

    def __init__(self, connect_timeout_s: Callable[[], float], died: Callable[[Exception], None]) -> None:
        super().__init__()
        self._connect_timeout_s = connect_timeout_s
        self._died = died
        self.socket_now: _Socket | None = None
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""

    def dispatch_callback(self, callback: Any) -> None:
        callback.func(*callback.args)

    def spawn(self, func: Callable[..., object], *args: object, **kwargs: object) -> threading.Thread:
        def run() -> None:
            try:
                func(*args, **kwargs)
            except Exception as error:
                self._died(error)

        self.thread = threading.Thread(target=run, name="zookeeper", daemon=True)
        self.thread.start()
        return self.thread

    def create_connection(self, *args: Any, **kwargs: Any) -> _Socket:
        kwargs["timeout"] = self._connect_timeout_s()
        self.socket_now = _Socket(super().create_connection(*args, **kwargs))
        return self.socket_now


class _Connection(ConnectionHandler):  # type: ignore[misc]
    """kazoo's, with a bounded handshake, and telling what session timeout the ensemble agreed to."""

    connect_timeout_s: Callable[[], float]
    agreed_timeout_s: float | None = None

    def _invoke(self, timeout: float, request: Any, xid: int | None = None) -> Any:
        result = super()._invoke(min(timeout, self.connect_timeout_s()), request, xid)
        if isinstance(request, serialization.Connect) and result[0].time_out > 0:
            self.agreed_timeout_s = result[0].time_out / 1000
        return result


class _LastWarning(logging.Handler):
    """Keeps the last line that kazoo logged, to be told when it matters: while the ensemble is away it repeats."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


class Link:
    """One KazooClient from its start to its end. Its methods say which thread calls them."""

    def __init__(
        self,
        hosts: str,
        timeout_s: float,
        connection_timeout_s: float,
        clock: Clock,
        session: tuple[int, bytes] | None,
        changed: Callable[[Link, LinkEvent, int, tuple[int, bytes] | None], None],
    ) -> None:
        self._hosts_count = hosts.count(",") + 1
        self._timeout_s = timeout_s
        self._connection_timeout_s = connection_timeout_s
        self._clock = clock
        self._changed = changed
        self._attempts = 0
        self.lock = threading.Lock()
        self.is_open = False
        """Calls may be handed over. Opened by the reactor, closed by kazoo's thread the moment the connection ends."""
        self.number = 0
        """Counts changes of state, so that news of an old connection does not open a newer one."""
        self.heard_at = -math.inf
        """When anything last came from a server."""
        self.asked_at = -math.inf
        """When the newest call was sent that a server has answered."""
        self.warning = _LastWarning()
        logger = logging.Logger("zookeeper", logging.WARNING)
        logger.addHandler(self.warning)
        retry = KazooRetry(max_tries=-1, delay=0.1, backoff=2, max_jitter=0.4, max_delay=0.7)
        self.handler = _DirectHandler(self._next_connect_timeout_s, self._died)
        self.client: Any = KazooClient(
            hosts=hosts,
            timeout=timeout_s,
            client_id=session,
            handler=self.handler,
            connection_retry=retry,
            logger=logger,
        )
        self.connection = _Connection(self.client, self.client._conn_retry.copy(), logger=logger)
        self.connection.connect_timeout_s = self.connect_timeout_s
        self.client._connection = self.connection
        self.client.add_listener(self._state_changed)

    def start(self) -> None:
        """Reactor: begin connecting; does not wait."""
        self.client.start_async()

    def connect_timeout_s(self) -> float:
        """kazoo's thread: what one host may take, longer with every round in vain (an ensemble may just be slow)."""
        host_share_s = self._timeout_s / self._hosts_count
        rounds: int = min(self._attempts // self._hosts_count, 4)
        patience_s = min(host_share_s / 3 * (1 << rounds), host_share_s, self._connection_timeout_s)
        return max(patience_s, CONNECT_TIMEOUT_S_MIN)

    def _next_connect_timeout_s(self) -> float:
        timeout_s = self.connect_timeout_s()
        self._attempts += 1
        return timeout_s

    def _state_changed(self, state: KazooState) -> None:
        """kazoo's thread."""
        with self.lock:
            self.is_open = False
            self.number += 1
        if state == KazooState.CONNECTED:
            self._attempts = 0
            self.heard_at = self._clock.monotonic()
            self._changed(self, LinkEvent.CONNECTED, self.number, self.client.client_id)
        elif state == KazooState.LOST and self.client.client_state == KeeperState.EXPIRED_SESSION:
            self._changed(self, LinkEvent.EXPIRED, self.number, None)
        else:
            self._changed(self, LinkEvent.LOST, self.number, None)

    def _died(self, error: Exception) -> None:
        """kazoo's thread, at its end."""
        self.warning.text = repr(error)

    @property
    def is_dead(self) -> bool:
        """Reactor: kazoo's thread has ended."""
        return self.handler.thread is not None and not self.handler.thread.is_alive()

    @property
    def agreed_timeout_s(self) -> float:
        agreed_s = self.connection.agreed_timeout_s
        return self._timeout_s if agreed_s is None else agreed_s

    def shut(self) -> None:
        """Any thread: break the connection; kazoo goes to another server."""
        connected = self.handler.socket_now
        if connected is not None:
            connected.shut()

    def answered(self, sent_at: float, result: AsyncResult) -> bool:
        """kazoo's thread: a call has its result. False when that is only that the connection, or the session, is gone.

        A server may say that the session has expired and keep its connection open: then it is shut, so that kazoo
        asks for the session once more and learns its end as it learns every other.
        """
        is_expired = _tells_expiry(result)
        if is_expired or isinstance(result.exception, CONNECTION_ERRORS):
            with self.lock:
                self.is_open = False
            if is_expired:
                self.shut()
            return False
        self.heard_at = self._clock.monotonic()
        self.asked_at = max(self.asked_at, sent_at)
        return True

    def close(self) -> None:
        """A thread of its own, or the reactor if ``is_dead``: close the session and all else; may take long."""
        try:
            self.client.stop()
            self.client.close()
        except Exception as error:
            self.warning.text = f"closing failed: {error!r}"

    # Requests, with paths from the root; the reactor calls them under ``lock`` while ``is_open``.

    def get(self, path: str, watcher: Watcher | None) -> AsyncResult:
        return self.client.get_async(path, watcher)

    def exists(self, path: str, watcher: Watcher | None = None) -> AsyncResult:
        return self.client.exists_async(path, watcher)

    def children(self, path: str, watcher: Watcher | None) -> AsyncResult:
        return self.client.get_children_async(path, watcher)

    def create(self, path: str, data: bytes, ephemeral: bool = False, sequential: bool = False) -> AsyncResult:
        return self.client.create_async(path, data or None, ephemeral=ephemeral, sequence=sequential)

    def set(self, path: str, data: bytes, version: int) -> AsyncResult:
        return self.client.set_async(path, data or None, version)

    def delete(self, path: str, version: int) -> AsyncResult:
        return self.client.delete_async(path, version)

    def multi(self, ops: Sequence[Op]) -> AsyncResult:
        transaction = self.client.transaction()
        transaction.operations.extend(_request(op) for op in ops)
        return transaction.commit_async()


def split_connect_string(connect_string: str) -> tuple[str, str]:
    """(hosts, chroot) of ``host:port,…/chroot``; the chroot is empty or begins, and does not end, with a slash.

    Raises ValueError for what is no list of hosts.
    """
    hosts, _, chroot = connect_string.strip().partition("/")
    try:
        collect_hosts(hosts)
    except ValueError as error:
        raise ValueError(f"not a list of host:port: {hosts!r} ({error})") from error
    names = [name for name in chroot.split("/") if name]
    return hosts, "".join(f"/{name}" for name in names)


def close_link(link: Link, reactor: Reactor) -> Deferred[None]:
    """Close in a thread; fires when that is done, or after STOP_TIMEOUT_S at the latest."""
    done: Deferred[None] = Deferred()

    def finished() -> None:
        if timer.active():
            timer.cancel()
            done.callback(None)

    def give_up() -> None:
        link.shut()
        done.callback(None)

    def close() -> None:
        link.close()
        reactor.callFromThread(finished)

    timer = reactor.callLater(STOP_TIMEOUT_S, give_up)
    threading.Thread(target=close, name="zookeeper-close", daemon=True).start()
    return done


def _tells_expiry(result: AsyncResult) -> bool:
    """A multi that failed tells the error of each of its operations."""
    answers = result.value if result.exception is None and isinstance(result.value, list) else [result.exception]
    return any(isinstance(answer, kazoo_errors.SessionExpiredError) for answer in answers)


def event_is_loss(event: Any) -> bool:
    """Whether a watch was called because the connection is gone, not because something happened to the znode."""
    return bool(event.type == EventType.NONE)


def _request(op: Op) -> Any:
    if isinstance(op, Create):
        flags = int(op.ephemeral) + 2 * int(op.sequential)
        return serialization.Create(op.path, op.data or None, OPEN_ACL_UNSAFE, flags)
    if isinstance(op, SetData):
        return serialization.SetData(op.path, op.data or None, op.version)
    if isinstance(op, Delete):
        return serialization.Delete(op.path, op.version)
    return serialization.CheckVersion(op.path, op.version)


def multi_results(ops: Sequence[Op], results: Sequence[Any]) -> list[str | Stat | bool]:
    """What a multi gave, paths from the root. Raises MultiError when an op failed."""
    for index, result in enumerate(results):
        # Before the op that failed all were rolled back, after it none was tried.
        if isinstance(result, Exception) and not isinstance(
            result, kazoo_errors.RolledBackError | kazoo_errors.RuntimeInconsistency
        ):
            raise MultiError(index, to_error(result, ops[index].path))
    if len(results) != len(ops) or any(isinstance(result, Exception) for result in results):
        raise ZooKeeperError(ops[0].path if ops else "")
    return [result if result is True or isinstance(result, str) else to_stat(result) for result in results]


def to_stat(stat: Any) -> Stat:
    return Stat(stat.czxid, stat.mzxid, stat.version, stat.ephemeralOwner, stat.numChildren, stat.cversion, stat.mtime)


def to_error(error: Exception, path: str) -> ZooKeeperError:
    for theirs, ours in _ERRORS:
        if isinstance(error, theirs):
            return ours(path)
    return ZooKeeperError(f"{path} ({type(error).__name__})")

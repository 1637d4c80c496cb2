"""What the rest of zkbroker asks of ZooKeeper: one narrow interface that kazoo and the simulator's fake both fill.

Every call returns a Deferred that fires on the reactor thread. A watch is only a hint to look again: it fires at
most once per registration, carries nothing, and also fires when the connection is lost. After each
``CONNECTED`` its owner reads everything it watches again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

Watch = Callable[[], None]

ANY_VERSION = -1
"""A write that is not conditional on the znode's version."""


class SessionState(Enum):
    """What happened to the session, told to every listener in this order of possibility."""

    CONNECTED = "connected"
    """A new session was made (the first one, or after EXPIRED)."""
    RECONNECTED = "reconnected"
    """The same session has a connection again; watches were lost: read everything again."""
    SUSPENDED = "suspended"
    """The connection is gone; calls under way fail with ConnectionLossError, their outcome unknown."""
    EXPIRED = "expired"
    """The session is over and its ephemerals are gone. CONNECTED follows when a new one is made."""


class Stat(NamedTuple):
    """The part of a znode's stat that zkbroker uses."""

    czxid: int
    mzxid: int
    version: int
    ephemeral_owner: int
    """Session id of the owner, 0 for a persistent znode."""
    children_count: int = 0
    children_version: int = 0
    modified_ms: int = 0


class Create(NamedTuple):
    path: str
    data: bytes
    ephemeral: bool = False
    sequential: bool = False


class SetData(NamedTuple):
    path: str
    data: bytes
    version: int = ANY_VERSION


class Delete(NamedTuple):
    path: str
    version: int = ANY_VERSION


class Check(NamedTuple):
    path: str
    version: int


Op = Create | SetData | Delete | Check


class ZooKeeperError(Exception):
    """Base of what a call may fail with; ``path`` may be empty."""

    def __init__(self, path: str = "") -> None:
        super().__init__(f"{type(self).__name__}: {path}")
        self.path = path


class NoNodeError(ZooKeeperError): ...


class NodeExistsError(ZooKeeperError): ...


class BadVersionError(ZooKeeperError): ...


class NotEmptyError(ZooKeeperError): ...


class NoAuthError(ZooKeeperError): ...


class ConnectionLossError(ZooKeeperError):
    """The connection broke before the answer came: whether a write happened is not known."""


class SessionExpiredError(ZooKeeperError): ...


class MultiError(ZooKeeperError):
    """A multi of which nothing happened. ``index`` is the op that failed, ``error`` its reason."""

    def __init__(self, index: int, error: ZooKeeperError) -> None:
        super().__init__(error.path)
        self.index = index
        self.error = error

    def __str__(self) -> str:
        return f"multi failed at op {self.index}: {self.error}"


MultiResult = str | Stat | bool
"""Per op of a multi: the created path, the new Stat of a SetData, True for Delete and Check."""


class ZooKeeperClient(Protocol):
    """A session with the ensemble. Paths are relative to the chroot. Only the reactor thread calls it."""

    @property
    def session_id(self) -> int:
        """The id of the current session, 0 when there is none."""
        ...

    @property
    def session_password(self) -> bytes:
        """What, together with the id, lets a later process reopen the session."""
        ...

    @property
    def is_connected(self) -> bool: ...

    @property
    def last_reply_at(self) -> float:
        """Monotonic seconds: the session was alive then, at the ensemble; minus infinity before the first reply.

        It is when the newest answered call was *sent*. A reply can lie in a buffer while this process is stopped, so
        the time of its receipt would say too much.
        """
        ...

    @property
    def agreed_timeout_s(self) -> float:
        """The session timeout in force, seconds: the ensemble has limits of its own and may not grant the one asked."""
        ...

    def listen(self, listener: Callable[[SessionState], None]) -> None:
        """Tell every later change of the session's state to ``listener``, on the reactor thread."""
        ...

    def start(self) -> None:
        """Begin connecting; returns at once. CONNECTED tells when there is a session."""
        ...

    def stop(self) -> Deferred[None]:
        """Close the session, so that its ephemerals go at once; fires when that is done or after 1 s."""
        ...

    def get(self, path: str, watch: Watch | None = None) -> Deferred[tuple[bytes, Stat]]:
        """Data and stat. Fails with NoNodeError (then no watch is left)."""
        ...

    def exists(self, path: str, watch: Watch | None = None) -> Deferred[Stat | None]:
        """The stat or None; the watch also fires when the znode is created."""
        ...

    def children(self, path: str, watch: Watch | None = None) -> Deferred[list[str]]:
        """The names of the children, sorted. Fails with NoNodeError."""
        ...

    def create(
        self, path: str, data: bytes, *, ephemeral: bool = False, sequential: bool = False, make_parents: bool = False
    ) -> Deferred[str]:
        """The path created, with its number for a sequential one. Fails with NodeExistsError, NoNodeError."""
        ...

    def set(self, path: str, data: bytes, version: int = ANY_VERSION) -> Deferred[Stat]: ...

    def delete(self, path: str, version: int = ANY_VERSION) -> Deferred[None]: ...

    def multi(self, ops: Sequence[Op]) -> Deferred[list[MultiResult]]:
        """All or nothing. Fails with MultiError, or with ConnectionLossError when the outcome is unknown."""
        ...

"""This broker's ephemeral znode ``/brokers/ids/N``: made, kept, lost and made again.

Its czxid is the broker epoch, which tells this incarnation from every other. The multi has the shape of Kafka's
``KafkaZkClient.registerBroker``; the handling of a stale znode is zkbroker's own (KAFKA-13407's family of bugs).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from zkbroker.model.clock import Clock
from zkbroker.model.cluster import BrokerRegistration
from zkbroker.model.errors import StartError
from zkbroker.zookeeper.client import (
    BadVersionError,
    Create,
    MultiError,
    MultiResult,
    NodeExistsError,
    NoNodeError,
    Op,
    SessionState,
    SetData,
    Stat,
    ZooKeeperClient,
    ZooKeeperError,
)
from zkbroker.zookeeper.znodes import brokers as znode

RETRY_S = 0.2
"""Pause before a registration that failed is tried again."""

FOREIGN_OWNER_TICKS = 2
"""Besides the session timeout, ZooKeeper may need so many of its ticks to expire a dead owner's session."""


class RegistrationState(Enum):
    UNREGISTERED = "unregistered"
    REGISTERING = "registering"
    REGISTERED = "registered"
    STOPPED = "stopped"


class RegistrationSettings(NamedTuple):
    session_timeout_s: float
    tick_s: float = 2.0
    """ZooKeeper's tickTime, which clients cannot ask for; 2 s is its usual value."""


class Registration:
    """Holds the broker's place in ``/brokers/ids`` as long as the process runs.

    ``registered(epoch)`` and ``lost(reason)`` tell the broker; after ``lost`` it obeys nothing of the old epoch.
    ``failed`` is called when another process owns the place and keeps it.
    """

    def __init__(
        self,
        *,
        zk: ZooKeeperClient,
        reactor: Any,
        clock: Clock,
        settings: RegistrationSettings,
        describe: Callable[[], BrokerRegistration],
        previous_session_id: int,
        registered: Callable[[int], None],
        lost: Callable[[str], None],
        failed: Callable[[StartError], None],
        log: Callable[[str], None],
    ) -> None:
        self._zk = zk
        self._reactor = reactor
        self._clock = clock
        self._settings = settings
        self._describe = describe
        self._path = znode.broker_path(describe().broker_id)
        self._own_sessions = {previous_session_id} if previous_session_id else set()
        """Ids of sessions that were this broker's: a znode of theirs is our own stale one."""
        self._registered = registered
        self._lost = lost
        self._failed = failed
        self._log = log
        self.state = RegistrationState.UNREGISTERED
        self.broker_epoch = -1
        """czxid of the znode; -1 while unregistered."""
        self._attempt = 0
        self._retry: Any = None
        self._foreign: tuple[int, float] | None = None
        """The session that holds the place, and since when it is waited for."""
        self._complaint = ""
        """What was logged last about failing, so that it is not said five times a second."""
        self._is_outdated = False
        """The znode does not say yet what ``describe`` says."""

    def __repr__(self) -> str:
        return f"Registration({self._path} {self.state.value} epoch={self.broker_epoch})"

    def start(self) -> None:
        """Register now (the session is connected) and after every expiry."""
        self._zk.listen(self._session_changed)
        self._register()

    def stop(self) -> None:
        """Register no more; the znode goes with the session."""
        self.state = RegistrationState.STOPPED
        self._attempt += 1
        self._cancel_retry()

    def update(self) -> None:
        """What ``describe`` says has changed: write it, in the same broker epoch. Tried until it is written."""
        self._is_outdated = self.state is not RegistrationState.REGISTERED
        if not self._is_outdated:
            self._zk.get(self._path).addCallback(self._update_if_mine, self.broker_epoch).addErrback(self._not_updated)

    def _update_if_mine(self, found: tuple[bytes, Stat], epoch: int) -> Deferred[Any] | None:
        if self.state is not RegistrationState.REGISTERED or not found[1].czxid == epoch == self.broker_epoch:
            return None  # the next registration says it
        data = znode.encode(self._describe(), timestamp_ms=self._clock.wall_ms())
        return self._zk.set(self._path, data, found[1].version)

    def _not_updated(self, failure: Failure) -> None:
        failure.trap(ZooKeeperError)
        self._is_outdated = True
        if self.state is RegistrationState.REGISTERED and self._zk.is_connected:
            self._cancel_retry()
            self._retry = self._reactor.callLater(RETRY_S, self.update)

    def remove(self) -> Deferred[None]:
        """Delete the own znode, so that peers know at once, and register no more. Never fails.

        What is not known to be ours is left alone: it may be another process's, or goes with the session."""
        was_registered = self.state is RegistrationState.REGISTERED
        self.stop()
        self.broker_epoch = -1
        return self._zk.delete(self._path).addErrback(lambda _: None) if was_registered else succeed(None)

    def _session_changed(self, state: SessionState) -> None:
        if self.state is RegistrationState.STOPPED:
            return
        # An ensemble that was away counts every session's timeout from its return.
        self._foreign = None
        if state is SessionState.EXPIRED:
            self._own_sessions.add(self._zk.session_id)
            self._drop("the ZooKeeper session expired")
        elif state in (SessionState.CONNECTED, SessionState.RECONNECTED):
            if self.state is RegistrationState.REGISTERED:
                self._look()
                if self._is_outdated:
                    self.update()
            else:
                self._register()

    def _drop(self, reason: str) -> None:
        was_registered = self.state is RegistrationState.REGISTERED
        self.state = RegistrationState.UNREGISTERED
        self.broker_epoch = -1
        self._attempt += 1
        if was_registered:
            self._log(f"no longer registered: {reason}")
            self._lost(reason)

    def _register(self) -> None:
        if self.state is RegistrationState.STOPPED:
            return
        self._cancel_retry()
        self.state = RegistrationState.REGISTERING
        self._attempt += 1
        attempt = self._attempt
        data = znode.encode(self._describe(), timestamp_ms=self._clock.wall_ms())
        self._is_outdated = False
        if self._zk.session_id:
            self._own_sessions.add(self._zk.session_id)
        # Only SetData returns a stat (with the czxid); created by the same multi, the znode is at version 0.
        ops: list[Op] = [Create(self._path, b"", ephemeral=True), SetData(self._path, data, 0)]
        self._zk.multi(ops).addCallbacks(
            self._created, self._not_created, callbackArgs=(attempt,), errbackArgs=(attempt,)
        )

    def _created(self, results: list[MultiResult], attempt: int) -> None:
        if attempt != self._attempt:
            return
        stat = results[1]
        if not isinstance(stat, Stat):
            raise TypeError(f"SetData of a multi gave {stat!r}, not a stat")
        self._hold(stat.czxid)

    def _not_created(self, failure: Failure, attempt: int) -> None:
        if attempt != self._attempt:
            return
        error = failure.value
        if isinstance(error, MultiError) and isinstance(error.error, NodeExistsError):
            self._zk.exists(self._path).addCallbacks(
                self._found, self._retry_later, callbackArgs=(attempt,), errbackArgs=(attempt,)
            )
            return
        self._retry_later(failure, attempt)

    def _found(self, stat: Stat | None, attempt: int) -> None:
        if attempt != self._attempt:
            return
        if stat is None:
            self._register()
        elif stat.ephemeral_owner == self._zk.session_id:
            # Our multi went through although its answer was lost (or we look a second time): the place is ours. What
            # that attempt wrote may be old by now.
            self._is_outdated = True
            self._hold(stat.czxid)
        elif stat.ephemeral_owner in self._own_sessions:
            self._log(f"{self._path} is left from this broker's previous session: removing it")
            self._zk.delete(self._path, stat.version).addCallbacks(
                lambda _: self._register_if(attempt), self._delete_failed, errbackArgs=(attempt,)
            )
        else:
            self._wait_for_owner(stat, attempt)

    def _register_if(self, attempt: int) -> None:
        if attempt == self._attempt:
            self._register()

    def _delete_failed(self, failure: Failure, attempt: int) -> None:
        if failure.check(NoNodeError, BadVersionError) is not None:
            self._register_if(attempt)
        else:
            self._retry_later(failure, attempt)

    def _wait_for_owner(self, stat: Stat, attempt: int) -> None:
        now = self._clock.monotonic()
        owner = stat.ephemeral_owner
        shown = f"0x{owner & (2**64 - 1):x}"
        if not owner:
            self._give_up(f"{self._path} is a persistent znode, which no broker makes: delete it")
            return
        if self._foreign is None or self._foreign[0] != owner:
            self._foreign = owner, now
            self._log(f"{self._path} is held by session {shown}: waiting for it to expire")
        limit_s = self._settings.session_timeout_s + FOREIGN_OWNER_TICKS * self._settings.tick_s
        if now - self._foreign[1] > limit_s:
            broker_id = self._describe().broker_id
            self._give_up(
                f"broker.id {broker_id} is in use: {self._path} belongs to the live session {shown} of another process"
            )
            return
        self._retry = self._reactor.callLater(RETRY_S, self._register_if, attempt)

    def _give_up(self, reason: str) -> None:
        self.stop()
        self._failed(StartError(reason))

    def _hold(self, czxid: int) -> None:
        self._foreign = None
        self._complaint = ""
        self.state = RegistrationState.REGISTERED
        self.broker_epoch = czxid
        self._log(f"registered as {self._path}, broker epoch {czxid}")
        self._registered(czxid)
        self._look()
        if self._is_outdated:
            self.update()

    def _look(self) -> None:
        """Is the znode still there, and mine? An admin, or a fencing controller, may have deleted it. A look that fails
        lost its connection: the next one begins with another look."""
        epoch = self.broker_epoch
        self._zk.exists(self._path, self._look_again).addCallbacks(
            self._seen, lambda failure: None, callbackArgs=(epoch,)
        )

    def _look_again(self) -> None:
        if self.state is RegistrationState.REGISTERED and self._zk.is_connected:
            self._look()

    def _seen(self, stat: Stat | None, epoch: int) -> None:
        if self.state is not RegistrationState.REGISTERED or epoch != self.broker_epoch:
            return
        if stat is not None and stat.czxid == epoch:
            return
        self._drop("its znode was deleted" if stat is None else "its znode was replaced")
        self._register()

    def _retry_later(self, failure: Failure, attempt: int) -> None:
        if attempt != self._attempt or self.state is RegistrationState.STOPPED:
            return
        complaint = failure.getErrorMessage()
        if complaint != self._complaint:
            self._complaint = complaint
            self._log(f"registering failed, trying again: {complaint}")
        self.state = RegistrationState.UNREGISTERED
        if self._zk.is_connected:
            self._cancel_retry()
            self._retry = self._reactor.callLater(RETRY_S, self._register_if, attempt)

    def _cancel_retry(self) -> None:
        retry, self._retry = self._retry, None
        if retry is not None and retry.active():
            retry.cancel()

"""The requests of a session on their way through kazoo and back to the reactor, and the watches they leave."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from zkbroker.model.clock import Clock
from zkbroker.zookeeper.client import Watch, ZooKeeperError
from zkbroker.zookeeper.kazoo_link import (
    AsyncResult,
    Link,
    Reactor,
    Watcher,
    event_is_loss,
    to_error,
)

CALLS_UNDER_WAY_MAX = 64
"""Calls handed to kazoo at a time. It wakes its thread by a byte a call in a socket pair, which blocks at ~270."""


class WatchHandle:
    """One watch: two may be of the same function."""

    __slots__ = ("watch",)

    def __init__(self, watch: Watch) -> None:
        self.watch = watch


class Call:
    """One request: ``begin`` hands it to kazoo, ``finish`` makes the result of its answer."""

    __slots__ = ("begin", "deferred", "finish", "handle", "path", "sent_at")

    def __init__(
        self,
        path: str,
        begin: Callable[[Link], AsyncResult],
        finish: Callable[[Any], Any],
        handle: WatchHandle | None,
    ) -> None:
        self.deferred: Deferred[Any] = Deferred()
        self.path = path
        self.begin = begin
        self.finish = finish
        self.handle = handle
        self.sent_at = -math.inf


class Calls:
    """Those under way, in order, over whatever ``link`` the session has; on the reactor thread."""

    def __init__(self, clock: Clock, reactor: Reactor, link: Callable[[], Link | None]) -> None:
        self._clock = clock
        self._reactor = reactor
        self._link = link
        self._under_way: dict[Call, None] = {}
        """Handed to kazoo, oldest first."""
        self._waiting: deque[Call] = deque()
        self._armed: dict[WatchHandle, None] = {}
        """Watches whose read was answered, oldest first."""

    def watcher(self, handle: WatchHandle | None) -> Watcher | None:
        if handle is None:
            return None

        def watch_fired(event: Any) -> None:
            # A loss of the connection is told by the session, for all watches and in order.
            if not event_is_loss(event):
                self._reactor.callFromThread(self._fired, handle)

        return watch_fired

    def submit(self, call: Call) -> Deferred[Any]:
        if len(self._under_way) < CALLS_UNDER_WAY_MAX:
            self._hand_over(call)
        else:
            self._waiting.append(call)
        return call.deferred

    def _hand_over(self, call: Call) -> None:
        link = self._link()
        call.sent_at = self._clock.monotonic()
        self._under_way[call] = None
        if link is None:
            return
        with link.lock:
            # If kazoo's thread has closed it, the news is on its way here and will fail this call too.
            result = call.begin(link) if link.is_open else None
        if result is not None:
            result.rawlink(partial(self._answered, link, call))

    def _answered(self, link: Link, call: Call, result: AsyncResult) -> None:
        """kazoo's thread."""
        # Without one it is failed by the session, with all others, when the news of the broken connection is here.
        if link.answered(call.sent_at, result):
            self._reactor.callFromThread(self._finish, call, result)

    def _finish(self, call: Call, result: AsyncResult) -> None:
        if call not in self._under_way:
            return  # stale
        error = result.exception
        del self._under_way[call]
        if self._waiting:
            self._hand_over(self._waiting.popleft())
        if error is not None:
            call.deferred.errback(Failure(to_error(error, call.path)))
            return
        if call.handle is not None:
            self._armed[call.handle] = None
        try:
            value = call.finish(result.value)
        except ZooKeeperError as failed:
            call.deferred.errback(Failure(failed))
            return
        call.deferred.callback(value)

    def _fired(self, handle: WatchHandle) -> None:
        if handle in self._armed:
            del self._armed[handle]
            handle.watch()

    def disarm(self) -> list[WatchHandle]:
        """No watch is armed any more. Returns those that were, oldest first."""
        armed, self._armed = list(self._armed), {}
        return armed

    def fail(self, error: type[ZooKeeperError]) -> None:
        """All of them, with that error."""
        calls = [*self._under_way, *self._waiting]
        self._under_way.clear()
        self._waiting.clear()
        for call in calls:
            call.deferred.errback(Failure(error(call.path)))


def watch_handle(watch: Watch | None) -> WatchHandle | None:
    return None if watch is None else WatchHandle(watch)

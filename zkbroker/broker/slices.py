"""Long work on the reactor thread, a little of it in each turn, so that nobody waits for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred

from zkbroker.model.clock import Clock

SLICE_S = 0.001
"""Of one turn of the reactor, for all the work together."""

Steps = Generator[Deferred[Any] | None, None, None]
"""Yields every tenth of a millisecond or so: None to go on, or a Deferred to go on when that fires, with whatever
result. It catches what it expects; anything else that it raises is told to ``failed``."""


class Work:
    """One long work under way."""

    __slots__ = ("is_over", "steps")

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.is_over = False

    def cancel(self) -> None:
        """It is not gone on with. May be called from within a step, and at any time again."""
        self.is_over = True


class Slices:
    """Works in turn, the one begun first first."""

    def __init__(self, reactor: Any, clock: Clock, failed: Callable[[BaseException], None]) -> None:
        self._reactor = reactor
        self._clock = clock
        self._failed = failed
        self._ready: deque[Work] = deque()
        self._call: Any = None
        self._is_stopped = False

    def __repr__(self) -> str:
        return f"Slices({len(self._ready)} ready)"

    def start(self, steps: Steps) -> Work:
        work = Work(steps)
        self._go_on(None, work)
        return work

    def stop(self) -> None:
        """Nothing is gone on with any more."""
        self._is_stopped = True
        self._ready.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _go_on(self, _: object, work: Work) -> None:
        if self._is_stopped:
            return
        self._ready.append(work)
        if self._call is None:
            self._call = self._reactor.callLater(0, self._run)

    def _run(self) -> None:
        self._call = None
        until = self._clock.monotonic() + SLICE_S
        for _ in range(len(self._ready)):
            work = self._ready.popleft()
            self._slice(work, until)
            if self._clock.monotonic() >= until:
                break
        if self._ready and self._call is None and not self._is_stopped:
            self._call = self._reactor.callLater(0, self._run)

    def _slice(self, work: Work, until: float) -> None:
        """Up to the end of the slice, of the work, or of what can be done without waiting."""
        while not work.is_over:
            try:
                wait = next(work.steps)
            except StopIteration:
                work.is_over = True
                return
            except Exception as error:
                work.is_over = True
                self._failed(error)
                return
            if wait is not None:
                wait.addBoth(self._go_on, work)
                return
            if self._clock.monotonic() >= until:
                self._ready.append(work)
                return

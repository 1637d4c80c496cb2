"""One timer for many deadlines, so that no request needs a ``callLater`` of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zkbroker.model.clock import Clock

SOONEST_S = 0.001
"""A ring is never asked for sooner: a deadline that has just passed must not spin the reactor."""


class Alarm:
    """Rings at the earliest moment asked for. Whoever hears it looks at all its deadlines and asks for the next."""

    def __init__(self, reactor: Any, clock: Clock, ring: Callable[[float], None]) -> None:
        self._reactor = reactor
        self._clock = clock
        self._ring = ring
        self._call: Any = None
        self._at = 0.0

    def at_latest(self, when: float) -> None:
        """Ring at that monotonic time or before. Costs a comparison when an earlier ring is already set."""
        if self._call is not None:
            if self._at <= when:
                return
            self._call.cancel()
        self._at = when
        self._call = self._reactor.callLater(max(SOONEST_S, when - self._clock.monotonic()), self._rung)

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _rung(self) -> None:
        self._call = None
        self._ring(self._clock.monotonic())


class Soon:
    """Runs something once at the end of the reactor's turn, however often it is asked to within the turn."""

    def __init__(self, reactor: Any, run: Callable[[], None]) -> None:
        self._reactor = reactor
        self._run = run
        self._call: Any = None

    def ask(self) -> None:
        if self._call is None:
            self._call = self._reactor.callLater(0, self._now)

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _now(self) -> None:
        self._call = None
        self._run()

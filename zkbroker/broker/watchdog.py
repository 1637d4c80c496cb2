"""Ends a process whose reactor has stopped turning.

kazoo keeps its session alive from a thread of its own, so a broker whose reactor hangs would hold its
registration, and its leaderships, for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

LOOKS_PER_SESSION = 10
"""The watchdog looks this often in one session timeout, and gives up after as many looks without a tick."""

LATE_LOOK_FACTOR = 2.5
"""A look that comes later than this many periods was itself stopped (SIGSTOP, a paused VM): counting starts anew."""


class Watchdog:
    """Counts its own looks between two ticks of the reactor; ``gave_up`` is called in the watchdog's thread.

    Only looks that came in time count, so that a stop of the whole process resets the count instead of ending a
    broker that could not have ticked.
    """

    def __init__(self, *, session_timeout_s: float, monotonic: Callable[[], float], gave_up: Callable[[str], None]):
        self._period_s = session_timeout_s / LOOKS_PER_SESSION
        self._monotonic = monotonic
        self._gave_up = gave_up
        self._ticked = False
        self._looks_without_tick = 0
        self._looked_at = monotonic()
        self._stopped = threading.Event()

    def tick(self) -> None:
        """The reactor turned. Called by the reactor several times in a period."""
        self._ticked = True

    def look(self) -> bool:
        """One look; False when the reactor is given up. Split from the thread so that it can be tested."""
        now = self._monotonic()
        late = now - self._looked_at > self._period_s * LATE_LOOK_FACTOR
        self._looked_at = now
        if self._ticked or late:
            self._ticked = False
            self._looks_without_tick = 0
            return True
        self._looks_without_tick += 1
        if self._looks_without_tick < LOOKS_PER_SESSION:
            return True
        self._gave_up(f"the reactor has not turned for {self._period_s * LOOKS_PER_SESSION:.1f} s")
        return False

    def start(self) -> None:
        """Look from now on, in a thread of its own."""
        self._looked_at = self._monotonic()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Look no more; it can't be started again."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._period_s):
            if not self.look():
                return

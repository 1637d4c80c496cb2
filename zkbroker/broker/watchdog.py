"""Ends a process whose reactor has stopped turning.

kazoo keeps its session alive from a thread of its own, so a broker whose reactor hangs would hold its
registration, and its leaderships, for ever.

A reactor that hangs in a call to the disk is given up sooner, after ``log.dir.stall.ms``: appends go to the page cache
on the reactor thread, and when the disk hangs the kernel stops that thread sooner or later. It cannot speak for itself
any more, and whether its disk comes back in a minute or never is nobody's to know; what can be done is to let others
lead. The thread that hangs may be beyond the reach of signals, and while it is the kernel keeps the process's sockets
open: whoever is told to give up must shut them down itself (``shut_sockets``), and first of all.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
import threading
from collections.abc import Callable
from types import FrameType

LOOKS_PER_SESSION = 10
"""The watchdog looks at least this often in one session timeout, and in one ``log.dir.stall.ms``."""

PERIOD_S_MIN = 0.05

FRAMES_IN_DISK_MAX = 4
"""A disk call's own frame is the innermost or has at most a helper or two of the standard library above it."""

LATE_LOOK_FACTOR = 2.5
"""A look that comes later than this many periods was itself stopped (SIGSTOP, a paused VM): counting starts anew."""


class Watchdog:
    """Counts its own looks between two ticks of the reactor; ``gave_up`` is called in the watchdog's thread.

    Only looks that came in time count, so that a stop of the whole process resets the count instead of ending a
    broker that could not have ticked. ``in_disk_call(thread)``: whether that thread, the one that called ``start``, is
    in a call to the disk at this moment.
    """

    def __init__(
        self,
        *,
        session_timeout_s: float,
        monotonic: Callable[[], float],
        gave_up: Callable[[str], None],
        stall_s: float = float("inf"),
        in_disk_call: Callable[[int], bool] = lambda thread: False,
    ) -> None:
        self._period_s = max(PERIOD_S_MIN, min(session_timeout_s, stall_s) / LOOKS_PER_SESSION)
        self._looks_max = round(session_timeout_s / self._period_s)
        self._disk_looks_max = stall_s / self._period_s
        self._monotonic = monotonic
        self._gave_up = gave_up
        self._in_disk_call = in_disk_call
        self._reactor_thread = 0
        self._ticked = False
        self._looks_without_tick = 0
        self._looks_in_disk = 0
        """Of these, the last ones that found the reactor in a call to the disk."""
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
            self._looks_without_tick = self._looks_in_disk = 0
            return True
        self._looks_without_tick += 1
        self._looks_in_disk = self._looks_in_disk + 1 if self._in_disk_call(self._reactor_thread) else 0
        if self._looks_in_disk > self._disk_looks_max:
            # The first of these looks may have come in the moment in which the wait began.
            waited_s = (self._looks_in_disk - 1) * self._period_s
            self._gave_up(f"the reactor has waited for the disk for {waited_s:.1f} s")
            return False
        if self._looks_without_tick < self._looks_max:
            return True
        self._gave_up(f"the reactor has not turned for {self._period_s * self._looks_without_tick:.1f} s")
        return False

    def start(self) -> None:
        """Look from now on, in a thread of its own. Called by the reactor thread."""
        self._reactor_thread = threading.get_ident()
        self._looked_at = self._monotonic()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Look no more; it can't be started again."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._period_s):
            if not self.look():
                return


def is_in_file(path: str) -> Callable[[int], bool]:
    """Whether a thread is in a function of that source file, or in one that such a function called a moment ago.

    Asked from outside, so that the calls themselves, many on the hot paths, need to note nothing."""

    def look(thread: int) -> bool:
        frame: FrameType | None = sys._current_frames().get(thread)
        for _ in range(FRAMES_IN_DISK_MAX):
            if frame is None:
                return False
            if frame.f_code.co_filename == path:
                return True
            frame = frame.f_back
        return False

    return look


def shut_sockets() -> int:
    """Shut every socket of this process down, from any thread: peers see their connections end, and connecting to its
    listeners is refused from now on. Returns how many. What the process does with them afterwards fails."""
    try:
        handles = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # not Linux
        handles = list(range(3, 1024))
    count = 0
    for handle in handles:
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(handle).st_mode):
                one = socket.socket(fileno=os.dup(handle))
                with one:
                    one.shutdown(socket.SHUT_RDWR)
                count += 1
    return count

"""Deadlines of many things, most of which are put off again and again before they are due."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import NamedTuple


class MemberTimer(NamedTuple):
    """A member, or a member id that was given out, is to be heard of until then."""

    group_id: str
    member_id: str


class JoinTimer(NamedTuple):
    """The time to join is over."""

    group_id: str
    member_id: None = None
    """No member is called so: tuples of two kinds with the same content would be one key."""
    kind: str = "join"


class SyncTimer(NamedTuple):
    """All members should have asked for their assignment."""

    group_id: str
    member_id: None = None
    kind: str = "sync"


Timer = MemberTimer | JoinTimer | SyncTimer


class Timers:
    """To put a deadline off costs a dictionary's entry: its place in the queue is mended when it comes up there.

    Invariants: each key with a deadline has an entry in the queue, not later than its deadline, at the time that
    ``_queued`` says; other entries are left over, and fewer than the keys and SLACK.
    """

    SLACK = 64

    def __init__(self) -> None:
        self._deadlines: dict[Timer, float] = {}
        self._queued: dict[Timer, float] = {}
        self._queue: list[tuple[float, int, Timer]] = []
        self._order = 0
        """Breaks ties: what was queued first is due first."""
        self._firing: set[Timer] = set()

    def __len__(self) -> int:
        return len(self._deadlines)

    def set(self, timer: Timer, deadline: float) -> None:
        self._firing.discard(timer)
        self._deadlines[timer] = deadline
        queued = self._queued.get(timer)
        if queued is None or deadline < queued:
            self._push(timer, deadline)

    def cancel(self, timer: Timer) -> None:
        self._firing.discard(timer)
        if self._deadlines.pop(timer, None) is not None:
            del self._queued[timer]

    def clear(self) -> None:
        self._firing.clear()
        self._deadlines.clear()
        self._queued.clear()
        self._queue.clear()

    def deadline(self, timer: Timer) -> float | None:
        return self._deadlines.get(timer)

    def next_deadline(self) -> float | None:
        """When to call ``due``: at the latest when the first is due, perhaps before."""
        queue = self._queue
        while queue:
            at, _, timer = queue[0]
            if self._queued.get(timer) == at:
                return at
            heapq.heappop(queue)
        return None

    def due(self, now: float) -> Iterator[Timer]:
        """Each timer that is due, unless it is cancelled or set again before its turn. What is set meanwhile, however
        early, has to wait for the next call: so this ends."""
        fired = []
        while self._queue and self._queue[0][0] <= now:
            at, _, timer = heapq.heappop(self._queue)
            if self._queued.get(timer) != at:
                continue
            deadline = self._deadlines[timer]
            if deadline > now:
                self._push(timer, deadline)
            else:
                del self._deadlines[timer], self._queued[timer]
                fired.append(timer)
        self._firing.update(fired)
        for timer in fired:
            if timer in self._firing:
                self._firing.discard(timer)
                yield timer

    def _push(self, timer: Timer, at: float) -> None:
        self._queued[timer] = at
        self._order += 1
        heapq.heappush(self._queue, (at, self._order, timer))
        if len(self._queue) > 2 * len(self._queued) + self.SLACK:
            self._queue = [entry for entry in self._queue if self._queued.get(entry[2]) == entry[0]]
            heapq.heapify(self._queue)

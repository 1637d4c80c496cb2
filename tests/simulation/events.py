"""The one queue of a simulated world: everything that happens is an event here, in simulated seconds."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.error import AlreadyCalled, AlreadyCancelled


class Owner(Protocol):
    """A process to which events belong: they go with it, and wait while it is stopped or busy."""

    is_alive: bool
    is_paused: bool
    busy_until: float
    held: list[Event]


class Event:
    """One thing that will happen; a Twisted delayed call too."""

    __slots__ = ("args", "call", "is_done", "kind", "number", "owner", "queue", "text", "time")

    def __init__(
        self,
        queue: EventQueue,
        time: float,
        number: int,
        owner: Owner | None,
        kind: str,
        text: str,
        call: Callable[..., object] | None,
        args: tuple[Any, ...],
    ) -> None:
        self.queue = queue
        self.time = time
        self.number = number
        self.owner = owner
        self.kind = kind
        self.text = text
        self.call = call
        """None once it ran or was cancelled."""
        self.args = args
        self.is_done = False

    def __repr__(self) -> str:
        return f"Event({self.time:.6f} {self.kind} {self.text})"

    # IDelayedCall

    def active(self) -> bool:
        return self.call is not None

    def getTime(self) -> float:
        return self.time

    def cancel(self) -> None:
        """Raises AlreadyCalled or AlreadyCancelled as Twisted's does."""
        if self.call is None:
            raise AlreadyCalled if self.is_done else AlreadyCancelled
        self.call = None
        self.args = ()

    def reset(self, secondsFromNow: float) -> None:
        self._again_at(self.queue.now + secondsFromNow)

    def delay(self, secondsLater: float) -> None:
        self._again_at(self.time + secondsLater)

    def _again_at(self, time: float) -> None:
        if self.call is None:
            raise AlreadyCalled if self.is_done else AlreadyCancelled
        self.time = time
        # The old entry of the queue is passed over because its time is another.
        self.queue.push(self)


class EventQueue:
    """Events by time, and by the order they came in where times are equal."""

    def __init__(self) -> None:
        self.now = 0.0
        """True seconds since the world began."""
        self._heap: list[tuple[float, int, Event]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(
        self, time: float, owner: Owner | None, kind: str, text: str, call: Callable[..., object], *args: Any
    ) -> Event:
        """``call(*args)`` at ``time``, if ``owner`` is then alive; ``kind`` and ``text`` are for the trace."""
        number = self._number = self._number + 1
        event = Event(self, time, number, owner, kind, text, call, args)
        heapq.heappush(self._heap, (time, number, event))
        return event

    def push(self, event: Event) -> None:
        self._number += 1
        event.number = self._number
        heapq.heappush(self._heap, (event.time, event.number, event))

    def release(self, events: list[Event]) -> None:
        """Events that a stopped process kept back happen now, in their order."""
        for event in events:
            if event.call is not None:
                event.time = self.now
                self.push(event)

    def next_time(self) -> float:
        """When the next event comes; infinity if none is left."""
        heap = self._heap
        while heap:
            time, number, event = heap[0]
            if self._is_due(time, number, event):
                return time
            heapq.heappop(heap)
        return float("inf")

    def pop(self) -> Event | None:
        """The next event, which is due now: time has moved to it. None if there is none."""
        heap = self._heap
        while heap:
            time, number, event = heapq.heappop(heap)
            if self._is_due(time, number, event):
                if time > self.now:
                    self.now = time
                return event
        return None

    def _is_due(self, time: float, number: int, event: Event) -> bool:
        """Whether the first entry is an event that really comes then; else it has been put where it belongs."""
        if event.call is None or event.number != number:
            return False
        owner = event.owner
        if owner is None:
            return True
        if not owner.is_alive:
            event.call = None
            return False
        if owner.is_paused:
            owner.held.append(event)
            return False
        if owner.busy_until > time:
            # Before what comes later by itself, and in order.
            event.time = owner.busy_until
            self.push(event)
            return False
        return True

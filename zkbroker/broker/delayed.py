"""What waits: requests parked until an offset is committed, their deadlines, and the wake-ups of one reactor turn.

No Deferred and no timer per request: waiters are tuples in a heap, deadlines fall into buckets of 50 ms that one timer
sweeps, and whatever moved in a turn of the reactor is looked at once, right after it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from zkbroker.kafka.ports import CurrentLeader, ProducedRow
from zkbroker.model.clock import Clock
from zkbroker.model.errors import ErrorCode

SWEEP_SECONDS = 0.05
"""Width of a bucket of deadlines: a request may wait this much longer than it asked for."""

_PRUNE_LENGTH_MIN = 1024
"""Below this many waiters those that timed out are simply left until their offset is reached."""


class Expirable(Protocol):
    bucket: int
    """Where its deadline lies; -1 when it has none. Only Deadlines writes it."""

    def expired(self) -> None: ...


class Deadlines:
    """Deadlines of parked requests: added and dropped in O(1), swept by one timer that runs while there are any."""

    def __init__(self, reactor: Any, clock: Clock) -> None:
        self._reactor = reactor
        self._clock = clock
        self._buckets: dict[int, dict[Expirable, None]] = {}
        self._order: list[int] = []
        """Heap of bucket numbers; one that was emptied stays until the sweep passes it."""
        self._timer: Any = None
        self._timer_bucket = -1

    def __repr__(self) -> str:
        return f"Deadlines({sum(map(len, self._buckets.values()))})"

    def add(self, parked: Expirable, seconds: float) -> None:
        """Call ``parked.expired()`` in ``seconds`` or up to SWEEP_SECONDS later."""
        bucket = int((self._clock.monotonic() + max(0.0, seconds)) / SWEEP_SECONDS) + 1
        members = self._buckets.get(bucket)
        if members is None:
            members = self._buckets[bucket] = {}
            heapq.heappush(self._order, bucket)
        members[parked] = None
        parked.bucket = bucket
        if self._timer is None or bucket < self._timer_bucket:
            self._set_timer(bucket)

    def drop(self, parked: Expirable) -> None:
        """Forget its deadline, if it has one."""
        members = self._buckets.get(parked.bucket)
        if members is not None:
            members.pop(parked, None)
        parked.bucket = -1

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._buckets.clear()
        self._order.clear()

    def _set_timer(self, bucket: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_bucket = bucket
        seconds = bucket * SWEEP_SECONDS - self._clock.monotonic()
        self._timer = self._reactor.callLater(max(0.0, seconds), self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        # The timer's clock may run ahead of ours by a rounding: what it was set for is due.
        due = max(self._timer_bucket, int(self._clock.monotonic() / SWEEP_SECONDS))
        while self._order and self._order[0] <= due:
            for parked in self._buckets.pop(heapq.heappop(self._order), {}):
                parked.bucket = -1
                parked.expired()
        if self._order and self._timer is None:
            self._set_timer(self._order[0])


class ParkedProduce:
    """A produce request that waits until each of its rows is committed (acks=all) or on disk (flush policy)."""

    __slots__ = ("_answers", "_deadlines", "_done", "_is_parked", "_pending", "bucket")

    def __init__(
        self, deadlines: Deadlines, done: Callable[[list[ProducedRow]], None], answers: list[ProducedRow]
    ) -> None:
        """``answers`` is filled by the caller, up to each row before that is waited for: what is answered when all
        goes well."""
        self._deadlines = deadlines
        self._done: Callable[[list[ProducedRow]], None] | None = done
        self._answers = answers
        self._is_parked = False
        self._pending: set[int] = set()
        self.bucket = -1

    @property
    def is_finished(self) -> bool:
        return self._done is None

    def wait_for(self, index: int) -> None:
        """The row ``index`` must be settled before the request can be answered."""
        self._pending.add(index)

    def park(self, seconds: float) -> None:
        """All rows are there: begin to wait. A folder that failed under a later row may have settled the earlier."""
        self._is_parked = True
        if self._pending:
            self._deadlines.add(self, seconds)
        else:
            self._finish()

    def settle(self, index: int, error: ErrorCode, leader: CurrentLeader | None = None) -> None:
        """The row's wait is over. With the last one the request is answered."""
        if self._done is None or index not in self._pending:
            return
        self._pending.discard(index)
        if error is not ErrorCode.NONE:
            self._answers[index] = self._answers[index]._replace(error=error, current_leader=leader)
        if self._is_parked and not self._pending:
            self._finish()

    def expired(self) -> None:
        for index in sorted(self._pending):
            self._answers[index] = self._answers[index]._replace(error=ErrorCode.REQUEST_TIMED_OUT)
        self._finish()

    def cancel(self) -> None:
        """The client is gone: what was appended stays, nobody is told."""
        self._done = None
        self._deadlines.drop(self)
        self._answers = []

    def _finish(self) -> None:
        done, answers = self._done, self._answers
        self.cancel()
        if done is not None:
            done(answers)


class OffsetWaiters:
    """Rows of produce requests that wait for an offset of one partition, the lowest first."""

    __slots__ = ("_heap", "_number", "_prune_length")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, ParkedProduce, int]] = []
        self._number = 0
        self._prune_length = _PRUNE_LENGTH_MIN

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, offset: int, parked: ParkedProduce, index: int) -> None:
        """Row ``index`` of ``parked`` waits until the mark is at ``offset``."""
        if len(self._heap) >= self._prune_length:
            # While nothing is committed, clients time out and try again: those that gave up are let go.
            self._heap = [waiter for waiter in self._heap if not waiter[2].is_finished]
            heapq.heapify(self._heap)
            self._prune_length = max(_PRUNE_LENGTH_MIN, 2 * len(self._heap))
        self._number += 1
        heapq.heappush(self._heap, (offset, self._number, parked, index))

    def take_up_to(self, mark: int) -> list[tuple[ParkedProduce, int]]:
        """Remove and return those that waited for an offset up to ``mark``."""
        heap = self._heap
        taken = []
        while heap and heap[0][0] <= mark:
            _, _, parked, index = heapq.heappop(heap)
            taken.append((parked, index))
        return taken

    def take_all(self) -> list[tuple[ParkedProduce, int]]:
        taken = [(parked, index) for _, _, parked, index in sorted(self._heap, key=lambda waiter: waiter[:2])]
        self._heap.clear()
        return taken


Woken = TypeVar("Woken")


class Turn(Generic[Woken]):
    """Things to look at again, each once, in the order they were told, ``seconds`` after the first of them
    (0: right after the reactor's present turn)."""

    def __init__(self, reactor: Any, look: Callable[[list[Woken]], None], seconds: float = 0.0) -> None:
        self._reactor = reactor
        self._look = look
        self._seconds = seconds
        self._told: dict[Woken, None] = {}
        self._call: Any = None

    def tell(self, thing: Woken) -> None:
        self._told[thing] = None
        if self._call is None:
            self._call = self._reactor.callLater(self._seconds, self._run)

    def forget(self, thing: Woken) -> None:
        self._told.pop(thing, None)

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._told.clear()

    def look_now(self) -> None:
        """Without waiting for the turn's end."""
        if self._call is not None:
            self._call.cancel()
            self._run()

    def _run(self) -> None:
        self._call = None
        told = list(self._told)
        self._told.clear()
        self._look(told)

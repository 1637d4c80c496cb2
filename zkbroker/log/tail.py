"""The newest batches of a log in memory: followers and consumers at the tail are answered without a read."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

from zkbroker.records.batch import cut

CHUNKS_MAX = 64
LOG_BYTES_MAX = 1024 * 1024
"""Of one log: what a follower in sync takes in one fetch (replica.fetch.max.bytes)."""
TOTAL_BYTES_MAX = 32 * 1024 * 1024
"""Of all logs of a broker. The log that appended longest ago gives way first."""


class Chunk(NamedTuple):
    """What one append wrote: one or more whole batches in their own bytes."""

    base_offset: int
    next_offset: int
    data: bytes | memoryview


class TailBudget:
    """Shared by all logs of a broker."""

    def __init__(self, bytes_max: int = TOTAL_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.bytes_used = 0
        self._tails: OrderedDict[int, Tail] = OrderedDict()

    def used(self, tail: Tail, change: int) -> None:
        """``tail`` grew or shrank and is the most recent one now."""
        self.bytes_used += change
        tails = self._tails
        tails[id(tail)] = tail
        tails.move_to_end(id(tail))
        while self.bytes_used > self.bytes_max and len(tails) > 1:
            _, oldest = tails.popitem(last=False)
            self.bytes_used -= oldest.bytes_used
            oldest.forget()

    def shrank(self, change: int) -> None:
        """Some tail did; which one appended last is as before."""
        self.bytes_used += change

    def emptied(self, tail: Tail) -> None:
        if self._tails.pop(id(tail), None) is not None:
            self.bytes_used -= tail.bytes_used


class Tail:
    """The last appended chunks of one log, contiguous up to its log end offset."""

    __slots__ = ("_budget", "_chunks", "bytes_used")

    def __init__(self, budget: TailBudget) -> None:
        self._budget = budget
        self._chunks: deque[Chunk] = deque()
        self.bytes_used = 0

    def __len__(self) -> int:
        return len(self._chunks)

    def append(self, chunk: Chunk) -> None:
        size = len(chunk.data)
        if size > LOG_BYTES_MAX:
            self.clear()
            return
        chunks = self._chunks
        change = size
        chunks.append(chunk)
        while len(chunks) > CHUNKS_MAX or self.bytes_used + change > LOG_BYTES_MAX:
            change -= len(chunks.popleft().data)
        self.bytes_used += change
        self._budget.used(self, change)

    def clear(self) -> None:
        """After a truncation, or when the log closes."""
        if self._chunks:
            self._budget.emptied(self)
            self.forget()

    def forget_below(self, offset: int) -> None:
        """After a compaction up to there: on the disk are fewer records now."""
        chunks = self._chunks
        if chunks and chunks[-1].base_offset < offset:
            self.clear()
            return
        change = 0
        while chunks and chunks[0].base_offset < offset:
            change -= len(chunks.popleft().data)
        if change:
            self.bytes_used += change
            self._budget.shrank(change)

    def forget(self) -> None:
        """Drop all without telling the budget, which asks for it."""
        self._chunks.clear()
        self.bytes_used = 0

    def read(
        self, offset: int, max_bytes: int, limit_offset: int, min_one_batch: bool
    ) -> tuple[list[bytes | memoryview], int, int, int] | None:
        """(chunks, size, first base offset, next offset), or None if ``offset`` is older than what is kept."""
        chunks = self._chunks
        if not chunks or offset < chunks[0].base_offset:
            return None
        found: list[bytes | memoryview] = []
        size = 0
        first = next_offset = offset
        # From the newest backwards: readers of the tail want the last chunk or two.
        index = len(chunks) - 1
        while chunks[index].base_offset > offset:
            index -= 1
        if chunks[index].next_offset <= offset and index + 1 < len(chunks):
            index += 1
        for place in range(index, len(chunks)):
            base_offset, after, data = chunks[place]
            room = max_bytes - size
            if after <= limit_offset and base_offset >= next_offset and len(data) <= room:
                if not found:
                    first = base_offset
                found.append(data)
                size += len(data)
                next_offset = after
                continue
            start, end, part_first, part_next = cut(
                data, max(offset, next_offset), room, limit_offset, min_one_batch and not found
            )
            if end > start:
                if not found:
                    first = part_first
                found.append(data if end - start == len(data) else memoryview(data)[start:end])
                size += end - start
                next_offset = part_next
            if next_offset < after:
                break
        return found, size, first, next_offset

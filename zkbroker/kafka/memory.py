"""The memory that requests of all connections take together: ``queued.max.request.bytes``. No I/O.

The same count, a second time, is kept of answers that clients do not read fast enough; only a Fetch waits for that.

A connection claims a frame's size when the frame begins and gives it back with the answer. Claims are granted while
less than the limit is taken, so that the whole is never above the limit by more than one frame; whoever is refused
stops reading until it is told. Inside a frame nobody is stopped: what was claimed can always be finished.
"""

from __future__ import annotations

from typing import Protocol


class Claimant(Protocol):
    def memory_freed(self) -> None:
        """Claim again: there is room."""
        ...


class RequestMemory:
    """A count of bytes and a line of those who wait, first come first served."""

    __slots__ = ("_is_granting", "limit_bytes", "used_bytes", "waiting")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.waiting: dict[Claimant, None] = {}
        self._is_granting = False

    def __repr__(self) -> str:
        return f"RequestMemory({self.used_bytes}/{self.limit_bytes}, waiting={len(self.waiting)})"

    def claim(self, claimant: Claimant, size: int) -> bool:
        """True: taken. False: ``memory_freed`` will be called."""
        if self.used_bytes >= self.limit_bytes or (self.waiting and not self._is_granting):
            self.waiting[claimant] = None
            return False
        self.used_bytes += size
        return True

    def add(self, size: int) -> None:
        """Count what is there already, whether or not there is room."""
        self.used_bytes += size

    def release(self, size: int) -> None:
        self.used_bytes -= size
        if self.waiting and not self._is_granting:
            self._grant()

    def forget(self, claimant: Claimant) -> None:
        """Its connection is gone."""
        self.waiting.pop(claimant, None)

    def _grant(self) -> None:
        self._is_granting = True
        try:
            while self.waiting and self.used_bytes < self.limit_bytes:
                claimant = next(iter(self.waiting))
                del self.waiting[claimant]
                claimant.memory_freed()
        finally:
            self._is_granting = False

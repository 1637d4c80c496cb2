"""The memory that requests of all connections take together: ``queued.max.request.bytes``. No I/O.

The same count, a second time, is kept of answers that clients do not read fast enough; only a Fetch waits for that.

A connection claims the first bytes of a frame when it begins, more as they arrive, and gives all back with the answer:
who only announces a large frame holds next to nothing. Claims are granted while less than the limit is taken; whoever
is refused stops reading until it is told. So that frames begun by many cannot keep each other from being finished, one
connection at a time, the elder, may go on past the limit: the whole is above it by no more than two frames.
"""

from __future__ import annotations

from typing import Protocol


class Claimant(Protocol):
    def memory_freed(self) -> None:
        """Claim again: there is room."""
        ...


class RequestMemory:
    """A count of bytes and a line of those who wait, first come first served."""

    __slots__ = ("_is_granting", "elder", "limit_bytes", "used_bytes", "waiting")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.waiting: dict[Claimant, bool] = {}
        """Who was refused, in order; True for those inside a frame."""
        self.elder: Claimant | None = None
        self._is_granting = False

    def __repr__(self) -> str:
        return f"RequestMemory({self.used_bytes}/{self.limit_bytes}, waiting={len(self.waiting)})"

    def claim(self, claimant: Claimant, size: int, is_inside: bool = False) -> bool:
        """True: taken. False: ``memory_freed`` will be called. ``is_inside``: it holds part of a frame already."""
        if claimant is not self.elder and (
            self.used_bytes >= self.limit_bytes or (self.waiting and not self._is_granting)
        ):
            if not is_inside or self.elder is not None:
                self.waiting[claimant] = is_inside
                return False
            self.elder = claimant
        self.used_bytes += size
        return True

    def frame_ended(self, claimant: Claimant) -> None:
        """Its frame is whole: another may be the elder."""
        if claimant is self.elder:
            self.elder = None
            self._choose_elder()

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
        self.frame_ended(claimant)

    def _choose_elder(self) -> None:
        claimant = next((one for one, is_inside in self.waiting.items() if is_inside), None)
        if claimant is not None:
            del self.waiting[claimant]
            claimant.memory_freed()  # which claims again, and finds no elder

    def _grant(self) -> None:
        self._is_granting = True
        try:
            while self.waiting and self.used_bytes < self.limit_bytes:
                claimant = next(iter(self.waiting))
                del self.waiting[claimant]
                claimant.memory_freed()
        finally:
            self._is_granting = False

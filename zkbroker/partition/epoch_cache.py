"""Which leader epoch began at which offset in one log (KIP-101): what divergence between replicas is judged by.

Pure. Its file form is ``leader-epoch-checkpoint``, which ``log/`` writes behind.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import pairwise

from zkbroker.model.errors import InvariantViolation


class EpochCache:
    """(epoch, start offset) entries; both columns rise strictly."""

    __slots__ = ("_epochs", "_starts", "highest_seen", "version")

    def __init__(self, entries: Iterable[tuple[int, int]] = ()) -> None:
        self._epochs: list[int] = []
        self._starts: list[int] = []
        self.version = 0
        """Rises with each change, so that whoever keeps the file knows when it is behind."""
        self.highest_seen = -1
        """The largest epoch that ever had an entry, also one that is forgotten since: what this replica wrote in it may
        have been lost by a crash, but not by the others."""
        for epoch, start in entries:
            self.assign(epoch, start)

    def __repr__(self) -> str:
        return f"EpochCache({', '.join(f'{e}@{s}' for e, s in zip(self._epochs, self._starts, strict=True))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EpochCache) and self.entries == other.entries

    __hash__ = None  # type: ignore[assignment]

    @property
    def entries(self) -> tuple[tuple[int, int], ...]:
        return tuple(zip(self._epochs, self._starts, strict=True))

    @property
    def latest_epoch(self) -> int:
        """The last entry's epoch, -1 for an empty cache: a follower's last fetched epoch."""
        return self._epochs[-1] if self._epochs else -1

    def assign(self, epoch: int, start_offset: int) -> bool:
        """``epoch`` begins at ``start_offset``. Later or equal entries that contradict it are dropped, as they were
        appended by a leader that lost them. False if nothing changed. Raises InvariantViolation below 0."""
        if epoch < 0 or start_offset < 0:
            raise InvariantViolation(f"leader epoch {epoch} cannot begin at offset {start_offset}")
        epochs, starts = self._epochs, self._starts
        if epoch > self.highest_seen:
            self.highest_seen = epoch
        if epochs and epochs[-1] == epoch and starts[-1] <= start_offset:
            return False
        while epochs and (epochs[-1] >= epoch or starts[-1] >= start_offset):
            epochs.pop()
            starts.pop()
        epochs.append(epoch)
        starts.append(start_offset)
        self.version += 1
        return True

    def end_offset_for(self, epoch: int, log_end_offset: int) -> tuple[int, int] | None:
        """Where ``epoch`` ends in this log, as (epoch, end offset); None if it is not known here.

        The epoch of the answer is the largest one not above the asked one. OffsetForLeaderEpoch and the divergence
        check of a fetch both rest on it (KIP-101, KIP-279).
        """
        epochs = self._epochs
        if epoch < 0 or not epochs or epoch > epochs[-1]:
            return None
        if epoch == epochs[-1]:
            return epoch, log_end_offset
        higher = bisect_right(epochs, epoch)
        if higher == 0:
            return epoch, self._starts[0]
        return epochs[higher - 1], self._starts[higher]

    def epoch_of(self, offset: int) -> int:
        """Epoch of the record at ``offset``; -1 before the first entry."""
        index = bisect_right(self._starts, offset)
        return self._epochs[index - 1] if index else -1

    def truncate_from_end(self, end_offset: int) -> bool:
        """Forget entries that start at or after ``end_offset``. True if there were any."""
        keep = bisect_left(self._starts, end_offset)
        if keep == len(self._starts):
            return False
        del self._epochs[keep:]
        del self._starts[keep:]
        self.version += 1
        return True

    def truncate_from_start(self, start_offset: int) -> bool:
        """The log now starts at ``start_offset``: the epoch it lies in begins there, older ones are forgotten."""
        covering = bisect_right(self._starts, start_offset) - 1
        if covering < 0 or (covering == 0 and self._starts[0] == start_offset):
            return False
        del self._epochs[:covering]
        del self._starts[:covering]
        self._starts[0] = start_offset
        self.version += 1
        return True

    def clear(self) -> None:
        if self._epochs:
            self._epochs.clear()
            self._starts.clear()
            self.version += 1

    def check(self) -> None:
        """Raises InvariantViolation unless both columns rise strictly."""
        for column in (self._epochs, self._starts):
            if any(later <= earlier for earlier, later in pairwise(column)):
                raise InvariantViolation(f"{self!r} does not rise")

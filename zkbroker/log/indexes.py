"""The sparse indexes of a segment, in Kafka's formats: offset → position, timestamp → offset, aborted transactions.

Entries are kept in arrays, loaded when first needed, and appended to the files in groups, at the latest before the
segment's next flush: after a crash whatever is missing is rebuilt from the log.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from zkbroker.log.disk import Disk
from zkbroker.partition.producer_state import CompletedTransaction

OFFSET_ENTRY_BYTES = 8
TIME_ENTRY_BYTES = 12
TRANSACTION_ENTRY_BYTES = 34
RELATIVE_OFFSET_MAX = 2**31 - 1
_TIME_ENTRY = struct.Struct(">qi")
_TRANSACTION_ENTRY = struct.Struct(">hqqqq")


class OffsetIndex:
    """``.index``: (last offset of a batch less the segment's base, position of that batch), 4 bytes each."""

    __slots__ = ("_disk", "_offsets", "_positions", "_written", "base_offset", "is_unsynced", "path")

    def __init__(self, disk: Disk, path: str, base_offset: int) -> None:
        self._disk = disk
        self.path = path
        self.base_offset = base_offset
        self._offsets: array[int] | None = None
        self._positions: array[int] = array("I")
        self._written = 0
        """Entries that the file holds."""
        self.is_unsynced = False

    def __len__(self) -> int:
        return len(self._load())

    def _load(self) -> array[int]:
        if self._offsets is None:
            try:
                data = self._disk.read_file(self.path)
            except FileNotFoundError:
                data = b""
            whole = array("I", data[: len(data) // OFFSET_ENTRY_BYTES * OFFSET_ENTRY_BYTES])
            if sys.byteorder == "little":
                whole.byteswap()
            self._offsets, self._positions = whole[::2], whole[1::2]
            self._drop_padding()
            if not (_rises(self._offsets) and _rises(self._positions)):
                # Damaged since it was written: a scan from the segment's beginning finds everything too.
                self._offsets, self._positions = array("I"), array("I")
            self._written = len(self._offsets)
        return self._offsets

    def _drop_padding(self) -> None:
        # A Kafka that was killed leaves its active index at full size, padded with zeros.
        offsets, positions = self._offsets, self._positions
        while offsets and len(offsets) > 1 and offsets[-1] == 0 and positions[-1] == 0:
            offsets.pop()
            positions.pop()
        if offsets and len(offsets) == 1 and offsets[0] == 0 and positions[0] == 0:
            offsets.pop()
            positions.pop()

    def append(self, offset: int, position: int) -> None:
        self._load().append(offset - self.base_offset)
        self._positions.append(position)

    def lookup(self, offset: int) -> int:
        """Position from which a scan finds ``offset``: that of the last entry at or below it, else 0."""
        index = bisect_right(self._load(), offset - self.base_offset) - 1
        return self._positions[index] if index >= 0 else 0

    def last(self) -> tuple[int, int] | None:
        """(offset, position) of the last entry."""
        offsets = self._load()
        return (offsets[-1] + self.base_offset, self._positions[-1]) if offsets else None

    def entries(self) -> list[tuple[int, int]]:
        return [(o + self.base_offset, p) for o, p in zip(self._load(), self._positions, strict=True)]

    def is_sane(self, log_bytes: int) -> bool:
        """Whether both columns rise and stay inside the log file; an insane one is rebuilt."""
        offsets, positions = self._load(), self._positions
        if not offsets:
            # Nothing usable: right for an empty file (or one of padding), not for one whose entries were refused.
            try:
                return not any(self._disk.read_file_end(self.path, OFFSET_ENTRY_BYTES))
            except FileNotFoundError:
                return False
        return positions[-1] < log_bytes and offsets[-1] <= RELATIVE_OFFSET_MAX

    def truncate(self, offset: int) -> None:
        """Forget entries at or after ``offset``, also in the file."""
        keep = bisect_left(self._load(), max(0, offset - self.base_offset))
        if keep < len(self._positions):
            del self._load()[keep:]
            del self._positions[keep:]
        if self._written > keep:
            self._written = keep
            self.is_unsynced = True
            _cut_file(self._disk, self.path, keep * OFFSET_ENTRY_BYTES)

    def distrust(self) -> None:
        """It led to no batch: from now on scans begin at the segment's beginning. The file stays."""
        self._load()
        self._offsets, self._positions, self._written = array("I"), array("I"), 0

    def reset(self) -> None:
        """Begin anew with an empty file: the index is rebuilt."""
        self._offsets, self._positions, self._written = array("I"), array("I"), 0
        self.is_unsynced = True
        self._disk.write_file(self.path, b"")

    def write(self) -> None:
        """Bring the file up to date."""
        if self._offsets is None or self._written == len(self._offsets):
            return
        fresh: array[int] = array("I")
        for index in range(self._written, len(self._offsets)):
            fresh.append(self._offsets[index])
            fresh.append(self._positions[index])
        if sys.byteorder == "little":
            fresh.byteswap()
        self.is_unsynced = True
        _append_to_file(self._disk, self.path, self._written * OFFSET_ENTRY_BYTES, fresh.tobytes())
        self._written = len(self._offsets)

    def unload(self) -> None:
        """Give the memory back; it is loaded again when needed."""
        self.write()
        self._offsets, self._positions = None, array("I")


def _rises(column: array[int]) -> bool:
    """Strictly. Sorting what is sorted is the fastest look at all of it: 1 ms for a full index."""
    return len(set(column)) == len(column) and column.tolist() == sorted(column)


class TimeIndex:
    """``.timeindex``: (largest timestamp so far, relative last offset of its batch), 8 and 4 bytes."""

    __slots__ = ("_disk", "_is_loaded", "_offsets", "_timestamps", "_written", "base_offset", "is_unsynced", "path")

    def __init__(self, disk: Disk, path: str, base_offset: int) -> None:
        self._disk = disk
        self.path = path
        self.base_offset = base_offset
        self._timestamps: array[int] = array("q")
        self._offsets: array[int] = array("I")
        self._is_loaded = False
        self._written = 0
        self.is_unsynced = False

    def __len__(self) -> int:
        self._load()
        return len(self._timestamps)

    def _load(self) -> None:
        if self._is_loaded:
            return
        self._is_loaded = True
        try:
            data = self._disk.read_file(self.path)
        except FileNotFoundError:
            data = b""
        whole = data[: len(data) // TIME_ENTRY_BYTES * TIME_ENTRY_BYTES]
        for timestamp, offset in _TIME_ENTRY.iter_unpack(whole):
            if timestamp == 0 and offset == 0 and self._timestamps:
                break
            self._timestamps.append(timestamp)
            self._offsets.append(offset & 0xFFFFFFFF)
        if len(self._timestamps) == 1 and self._timestamps[0] == 0 and self._offsets[0] == 0 and len(whole) > 12:
            self._timestamps.pop()
            self._offsets.pop()
        self._written = len(self._timestamps)

    def maybe_append(self, timestamp: int, offset: int) -> None:
        """Add an entry unless its timestamp or offset does not rise."""
        self._load()
        if timestamp < 0:
            return
        relative = offset - self.base_offset
        if self._timestamps and (timestamp <= self._timestamps[-1] or relative <= self._offsets[-1]):
            return
        self._timestamps.append(timestamp)
        self._offsets.append(relative)

    def last(self) -> tuple[int, int] | None:
        """(timestamp, offset) of the last entry."""
        self._load()
        return (self._timestamps[-1], self._offsets[-1] + self.base_offset) if self._timestamps else None

    def last_in_file(self) -> tuple[int, int] | None:
        """The same without loading it; None also for what may be padding."""
        if self._is_loaded:
            return self.last()
        try:
            data = self._disk.read_file_end(self.path, TIME_ENTRY_BYTES)
        except FileNotFoundError:
            return None
        if len(data) < TIME_ENTRY_BYTES:
            return None
        timestamp, offset = _TIME_ENTRY.unpack(data)
        return (timestamp, (offset & 0xFFFFFFFF) + self.base_offset) if timestamp > 0 else None

    def lookup(self, timestamp: int) -> int:
        """Offset from which a scan finds the first record at or after ``timestamp``."""
        self._load()
        index = bisect_left(self._timestamps, timestamp) - 1
        return self._offsets[index] + self.base_offset if index >= 0 else self.base_offset

    def entries(self) -> list[tuple[int, int]]:
        self._load()
        return [(t, o + self.base_offset) for t, o in zip(self._timestamps, self._offsets, strict=True)]

    def is_sane(self) -> bool:
        self._load()
        stamps, offsets = self._timestamps, self._offsets
        return all(stamps[i] < stamps[i + 1] and offsets[i] <= offsets[i + 1] for i in range(len(stamps) - 1))

    def truncate(self, offset: int) -> None:
        """Forget entries at or after ``offset``, also in the file."""
        self._load()
        keep = bisect_left(self._offsets, max(0, offset - self.base_offset))
        del self._timestamps[keep:]
        del self._offsets[keep:]
        if self._written > keep:
            self._written = keep
            self.is_unsynced = True
            _cut_file(self._disk, self.path, keep * TIME_ENTRY_BYTES)

    def reset(self) -> None:
        self._is_loaded = True
        self._timestamps, self._offsets, self._written = array("q"), array("I"), 0
        self.is_unsynced = True
        self._disk.write_file(self.path, b"")

    def write(self) -> None:
        """Bring the file up to date."""
        if not self._is_loaded or self._written == len(self._timestamps):
            return
        fresh = b"".join(
            _TIME_ENTRY.pack(self._timestamps[i], self._offsets[i]) for i in range(self._written, len(self._timestamps))
        )
        self.is_unsynced = True
        _append_to_file(self._disk, self.path, self._written * TIME_ENTRY_BYTES, fresh)
        self._written = len(self._timestamps)

    def unload(self) -> None:
        self.write()
        self._timestamps, self._offsets, self._is_loaded = array("q"), array("I"), False


class TransactionIndex:
    """``.txnindex``: the transactions whose abort marker lies in the segment. The file exists only with an entry."""

    __slots__ = ("_disk", "_entries", "is_unsynced", "path")

    def __init__(self, disk: Disk, path: str, exists: bool) -> None:
        self._disk = disk
        self.path = path
        self._entries: list[CompletedTransaction] | None = None if exists else []
        self.is_unsynced = False
        """Entries were added that may not be on the disk."""

    def entries(self) -> Sequence[CompletedTransaction]:
        """By the offset of their markers. Raises OSError."""
        if self._entries is None:
            data = self._disk.read_file(self.path)
            whole = data[: len(data) // TRANSACTION_ENTRY_BYTES * TRANSACTION_ENTRY_BYTES]
            entries: list[CompletedTransaction] = []
            for version, producer_id, first, last, last_stable in _TRANSACTION_ENTRY.iter_unpack(whole):
                if version != 0 or not 0 <= first < last or (entries and last <= entries[-1].last_offset):
                    # Torn by a loss of power: what follows is found again in the batches.
                    break
                entries.append(CompletedTransaction(producer_id, first, last, True, last_stable))
            self._entries = entries
        return self._entries

    def append(self, aborted: CompletedTransaction) -> None:
        position = len(self.entries()) * TRANSACTION_ENTRY_BYTES
        self.is_unsynced = True
        _append_to_file(self._disk, self.path, position, _encode_aborted(aborted))
        if self._entries is not None:
            self._entries.append(aborted)

    def truncate(self, offset: int) -> None:
        """Forget transactions whose marker is at or after ``offset``."""
        entries = list(self.entries())
        kept = [entry for entry in entries if entry.last_offset < offset]
        if len(kept) < len(entries):
            self._entries = kept
            self.is_unsynced = True
            _cut_file(self._disk, self.path, len(kept) * TRANSACTION_ENTRY_BYTES)

    def reset(self) -> None:
        self._entries = []
        self._disk.unlink(self.path)


def _encode_aborted(entry: CompletedTransaction) -> bytes:
    return _TRANSACTION_ENTRY.pack(
        0, entry.producer_id, entry.first_offset, entry.last_offset, entry.last_stable_offset
    )


def _append_to_file(disk: Disk, path: str, position: int, data: bytes) -> None:
    handle = disk.open_data(path, create=True)
    try:
        disk.write(handle, position, data)
        disk.truncate(handle, position + len(data))
    finally:
        disk.close(handle)


def _cut_file(disk: Disk, path: str, size: int) -> None:
    handle = disk.open_data(path, create=True)
    try:
        disk.truncate(handle, size)
    finally:
        disk.close(handle)

"""One segment of a log: its ``.log`` file and indexes."""

from __future__ import annotations

import errno
import os

from zkbroker.log.disk import Disk, Handle
from zkbroker.log.files import OldFiles, OpenFile
from zkbroker.log.indexes import RELATIVE_OFFSET_MAX, OffsetIndex, TimeIndex, TransactionIndex
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.records.batch import HEADER_BYTES, BatchHeader, cut, read_header

FILE_NAME_DIGITS = 20
DELETED_SUFFIX = ".deleted"
SCAN_BYTES = 1024 * 1024
_SUFFIXES = (".log", ".index", ".timeindex", ".txnindex")


def file_name(offset: int, suffix: str) -> str:
    """Kafka's name of a file of the segment that begins at ``offset``."""
    return f"{offset:0{FILE_NAME_DIGITS}d}{suffix}"


class Segment:
    """Batches from ``base_offset`` on. Only the active one holds its file open; others borrow it from OldFiles."""

    __slots__ = (
        "_bytes_since_index",
        "_disk",
        "_file",
        "_old_files",
        "_stem",
        "base_offset",
        "created_at_ms",
        "first_timestamp",
        "index",
        "max_timestamp",
        "max_timestamp_offset",
        "path",
        "size",
        "time_index",
        "transactions",
    )

    def __init__(
        self,
        disk: Disk,
        old_files: OldFiles,
        folder: str,
        base_offset: int,
        *,
        size: int = 0,
        has_aborted: bool = False,
        suffix: str = "",
    ) -> None:
        self._disk = disk
        self._old_files = old_files
        self.base_offset = base_offset
        stem = self._stem = os.path.join(folder, file_name(base_offset, ""))
        # A suffix while the segment is being made, and no part of the log yet.
        self.path = f"{stem}.log{suffix}"
        self.index = OffsetIndex(disk, f"{stem}.index{suffix}", base_offset)
        self.time_index = TimeIndex(disk, f"{stem}.timeindex{suffix}", base_offset)
        self.transactions = TransactionIndex(disk, f"{stem}.txnindex{suffix}", has_aborted)
        self.size = size
        """Bytes of whole batches: the next append's position."""
        self.max_timestamp = -1
        self.max_timestamp_offset = base_offset
        self.first_timestamp: int | None = None
        """Largest timestamp of the first batch (Kafka's rolling base), None until known."""
        self.created_at_ms = 0
        self._bytes_since_index = 0
        self._file: OpenFile | None = None

    def __repr__(self) -> str:
        return f"Segment({self.base_offset}, {self.size} bytes)"

    # -- files

    def warm(self, *, create: bool = False) -> None:
        """Open the file for appends, and find what appends need to know. Raises OSError."""
        if self._file is None:
            self._old_files.close(self.path)
            self._old_files.index_left(self.index)
            self._file = OpenFile(self._disk, self.path, create=create)
        if create:
            if self._disk.size(self._file.handle):
                # Not an empty file: ext4 writes all of a truncated file to the disk when it is closed.
                self._disk.truncate(self._file.handle, 0)
            self.index.reset()
            self.time_index.reset()
            self.transactions.reset()
            return
        last = self.index.last()
        self._bytes_since_index = self.size - last[1] if last is not None else self.size
        self.reload_max_timestamp()

    def largest_timestamp(self) -> int:
        """-1 without one. For an old segment from its time index, whose last entry is final: nothing of it is kept in
        memory, as retention and queries by time ask every segment."""
        if self.max_timestamp < 0 and self.size and self._file is None:
            last = self.time_index.last_in_file()
            if last is not None:
                self.max_timestamp, self.max_timestamp_offset = last
            else:
                self.reload_max_timestamp()
                self.index.unload()
                self.time_index.unload()
        return self.max_timestamp

    def finish(self) -> None:
        """At a clean shutdown: the time index gets its last entry."""
        if self.size:
            self.largest_timestamp()
        self.write_indexes(is_final=True)

    def file(self) -> OpenFile:
        return self._file if self._file is not None else self._old_files.get(self.path)

    def deactivate(self) -> None:
        """It becomes an old segment: last entry of the time index, index files brought up to date."""
        self.write_indexes(is_final=True)
        self.index.unload()
        self.time_index.unload()
        if self._file is not None:
            self._old_files.keep(self._file)
            self._file = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._old_files.close(self.path)
        self._old_files.index_left(self.index)

    def write_indexes(self, *, is_final: bool = False) -> None:
        if is_final and self.max_timestamp >= 0:
            self.time_index.maybe_append(self.max_timestamp, self.max_timestamp_offset)
        self.index.write()
        self.time_index.write()

    def take_unsynced(self) -> list[str]:
        """Paths of the indexes that were written since they were last synced, which the caller sees to."""
        paths = []
        for index in (self.index, self.time_index, self.transactions):
            if index.is_unsynced:
                index.is_unsynced = False
                paths.append(index.path)
        return paths

    def delete_files(self, suffix: str = "") -> None:
        for ending in _SUFFIXES:
            self._disk.unlink(self._stem + ending + suffix)

    def mark_deleted(self) -> None:
        """Rename to ``.deleted``: gone for everyone; the bytes follow later (Kafka's two steps)."""
        self.close()
        for ending in _SUFFIXES:
            path = self._stem + ending
            if ending in (".log", ".index", ".timeindex") or self._disk.exists(path):
                try:
                    self._disk.rename(path, path + DELETED_SUFFIX)
                except FileNotFoundError:
                    continue

    def moved(self, folder: str) -> None:
        """The log's folder was renamed."""
        stem = self._stem = os.path.join(folder, file_name(self.base_offset, ""))
        self._old_files.close(self.path)
        self.path = stem + ".log"
        self.index.path = stem + ".index"
        self.time_index.path = stem + ".timeindex"
        self.transactions.path = stem + ".txnindex"

    # -- writing

    def append(self, data: bytes | memoryview) -> int:
        """Write whole batches; the position they went to. On OSError nothing of them counts: the size stays."""
        position = self.size
        file = self._file
        if file is None:
            raise OSError(f"{self.path} is not open for appends")
        self._disk.write(file.handle, position, data)
        self.size = position + len(data)
        return position

    def cut_back(self) -> None:
        """After a failed append: drop what was written past the end."""
        if self._file is not None:
            self._disk.truncate(self._file.handle, self.size)

    def begin_rebuild(self) -> None:
        """Forget what is known of the batches: they are noted again one by one."""
        self.max_timestamp, self.max_timestamp_offset = -1, self.base_offset
        self.first_timestamp = None
        self._bytes_since_index = 0

    def note_batch(
        self, last_offset: int, position: int, size: int, max_timestamp: int, index_interval_bytes: int
    ) -> None:
        """Account for a batch written at ``position``: timestamps, and an index entry each interval."""
        if position == 0:
            self.first_timestamp = max_timestamp
        if max_timestamp > self.max_timestamp:
            self.max_timestamp = max_timestamp
            self.max_timestamp_offset = last_offset
        if self._bytes_since_index > index_interval_bytes:
            self.index.append(last_offset, position)
            self.time_index.maybe_append(self.max_timestamp, self.max_timestamp_offset)
            self._bytes_since_index = 0
        self._bytes_since_index += size

    def should_roll(
        self, size: int, max_timestamp: int, last_offset: int, now_ms: int, *, segment_bytes: int, segment_ms: int,
        index_bytes: int
    ) -> bool:  # fmt: skip
        """Whether a batch of that size, time and last offset must go to a new segment."""
        if last_offset - self.base_offset > RELATIVE_OFFSET_MAX:
            # Also an empty one: after a gap (the leader compacted) the offset may be out of the indexes' reach.
            return True
        if self.size == 0:
            return False
        if self.size + size > segment_bytes:
            return True
        first = self.rolling_base()
        waited = max_timestamp - first if first >= 0 and max_timestamp >= 0 else now_ms - self.created_at_ms
        if waited > segment_ms:
            return True
        # 12-byte entries of the time index fill first; one entry of each is kept for the roll itself.
        return (len(self.index) + 1) * 12 > index_bytes and self._bytes_since_index > 0

    def rolling_base(self) -> int:
        """Largest timestamp of the first batch, -1 without one."""
        if self.first_timestamp is None:
            data = self._disk.read(self.file().handle, 0, HEADER_BYTES)
            self.first_timestamp = read_header(data).max_timestamp if len(data) == HEADER_BYTES else -1
        return self.first_timestamp

    def truncate(self, offset: int) -> int:
        """Drop the batch that contains ``offset`` and all after it. The segment's new next offset."""
        position, next_offset = self.position_of(offset)
        file = self.file()
        self.index.truncate(next_offset)
        self.time_index.truncate(next_offset)
        self.transactions.truncate(next_offset)
        self._disk.truncate(file.handle, position)
        self.size = position
        if position == 0:
            self.first_timestamp = None
        last = self.index.last()
        self._bytes_since_index = position - last[1] if last is not None else position
        self.reload_max_timestamp()
        return next_offset

    # -- reading

    def lookup(self, offset: int) -> int:
        """Position of a batch at or before ``offset``, from the index; 0 if the index points past the file's end."""
        position = self.index.lookup(offset)
        if self._file is None:
            self._old_files.index_used(self.index)
        return position if position < self.size else 0

    def position_of(self, offset: int) -> tuple[int, int]:
        """(position, base offset) of the batch that contains ``offset`` or is the next one; at the end (size, its
        next offset). Reads headers from the index entry before it on."""
        position = self.lookup(offset)
        next_offset = self.base_offset
        handle = self.file().handle
        while position + HEADER_BYTES <= self.size:
            header = read_header(self._disk.read(handle, position, HEADER_BYTES))
            if header.size < HEADER_BYTES:
                raise OSError(errno.EIO, f"no record batch at byte {position} of {self.path}")
            if header.next_offset > offset:
                return position, max(next_offset, min(header.base_offset, offset))
            next_offset = header.next_offset
            position += header.size
        return self.size, next_offset

    def headers_of(self, path: str) -> list[tuple[int, BatchHeader]]:
        """As ``headers``, of the file at ``path`` that may become this segment's."""
        handle = self._disk.open_data(path)
        try:
            return self._headers(handle, 0)
        finally:
            self._disk.close(handle)

    def headers(self, position: int = 0) -> list[tuple[int, BatchHeader]]:
        """(position, header) of all batches from ``position`` on, read in large pieces."""
        return self._headers(self.file().handle, position)

    def _headers(self, handle: Handle, position: int) -> list[tuple[int, BatchHeader]]:
        found: list[tuple[int, BatchHeader]] = []
        data, start = b"", position
        while position + HEADER_BYTES <= self.size:
            if position < start or position + HEADER_BYTES > start + len(data):
                data, start = self._disk.read(handle, position, min(SCAN_BYTES, self.size - position)), position
                if len(data) < HEADER_BYTES:
                    break
            header = read_header(data, position - start)
            if header.size < HEADER_BYTES:
                break
            found.append((position, header))
            position += header.size
        return found

    def read_at(
        self, data: bytes | memoryview, offset: int, max_bytes: int, limit_offset: int, min_one_batch: bool
    ) -> tuple[int, int, int, int, int]:
        """``cut`` of what was read, and how many bytes are needed if those did not tell: 0 when they did, also when
        the wanted batch must not be sent. The segment has no such batch if HEADER_BYTES more are needed than it has.
        Raises BrokerError for what is no batch."""
        start, end, first, next_offset = cut(data, offset, max_bytes, limit_offset, min_one_batch)
        if end > start:
            return start, end, first, next_offset, 0
        place = needed = 0
        while place + HEADER_BYTES <= len(data):
            header = read_header(data, place)
            if header.size < HEADER_BYTES:
                raise BrokerError(ErrorCode.CORRUPT_MESSAGE, f"no record batch where one should begin in {self.path}")
            if header.next_offset > offset:
                fits = min_one_batch or header.size <= max_bytes
                needed = place + header.size if fits and header.next_offset <= limit_offset else 0
                return 0, 0, offset, offset, needed
            place += header.size
        return 0, 0, offset, offset, place + HEADER_BYTES

    def reload_max_timestamp(self) -> None:
        """Largest timestamp from the time index's last entry and the batches after it."""
        last = self.time_index.last()
        self.max_timestamp, self.max_timestamp_offset = last if last is not None else (-1, self.base_offset)
        position = self.index.lookup(self.max_timestamp_offset) if last is not None else 0
        indexed = self.index.last()
        if indexed is not None and indexed[1] > position:
            position = indexed[1]
        for _, header in self.headers(position):
            if header.max_timestamp > self.max_timestamp:
                self.max_timestamp = header.max_timestamp
                self.max_timestamp_offset = header.last_offset

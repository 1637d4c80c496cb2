"""Compaction of one log (``cleanup.policy=compact``): of each key only the last record stays.

``clean`` is the work itself: a frozen job in, new files out. It reads segments that nobody writes any more and makes
only ``.cleaned`` files, so it runs in a child process beside the broker (``cleaner_child``), or in a test's own.
What it made takes the place of the old segments on the reactor thread (``cleaner_swap``), if the log is still the one
that the job was made for.

Two walks. The first notes the last offset of every key between the dirty offset and the job's end, as far as the map
has room; the second goes over all segments from the log's beginning and drops what the map knows to be superseded. So
a key's old record is gone before, or together with, the record that superseded it could be: segments are replaced from
the oldest on, and the next is not touched before the replacement of the last is on the disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NamedTuple

from zkbroker.log.checkpoints import MalformedFile, decode_snapshot
from zkbroker.log.cleaner_batches import BatchCleaner, LastWritten, plain_records
from zkbroker.log.cleaner_map import OffsetMap
from zkbroker.log.cleaner_transactions import CleanedTransactions
from zkbroker.log.disk import Disk
from zkbroker.log.files import OldFiles
from zkbroker.log.indexes import RELATIVE_OFFSET_MAX
from zkbroker.log.segment import Segment, file_name
from zkbroker.partition.producer_state import CompletedTransaction
from zkbroker.records.batch import HEADER_BYTES, BatchHeader, check_batch, corrupt, read_header

CLEANED_SUFFIX = ".cleaned"
IO_BYTES_MIN = 64 * 1024
"""Of a read or a write, however small ``log.cleaner.io.buffer.size`` is."""


class OldSegment(NamedTuple):
    """One that the job may replace."""

    base_offset: int
    size: int
    end_offset: int
    """Base offset of the next one."""


class CleanerJob(NamedTuple):
    """Everything that a compaction goes by."""

    folder: str
    segments: tuple[OldSegment, ...]
    """All from the log's beginning to where it may be compacted, in order."""
    dirty_offset: int
    """Below it the last compaction left one record of each key."""
    now_ms: int
    delete_retention_ms: int
    segment_bytes: int
    segment_index_bytes: int
    index_interval_bytes: int
    producers: tuple[tuple[int, int, int], ...]
    """(producer id, epoch, last offset of a batch of records or -1) of those that the log remembers."""
    aborted: tuple[tuple[int, int, int, bool, int], ...]
    """The transaction indexes' entries: ``CompletedTransaction``."""
    map_bytes: int
    map_load_factor: float
    io_bytes: int
    io_bytes_per_second: float = float("inf")

    @property
    def end_offset(self) -> int:
        """Nothing at or above it is looked at."""
        return self.segments[-1].end_offset

    def to_json(self) -> bytes:
        return json.dumps(self._asdict()).encode()

    @classmethod
    def from_json(cls, data: bytes) -> CleanerJob:
        fields = json.loads(data)
        fields["segments"] = tuple(OldSegment(*one) for one in fields["segments"])
        for name in ("producers", "aborted"):
            fields[name] = tuple(tuple(one) for one in fields[name])
        return cls(**fields)


class CleanedSegment(NamedTuple):
    """A new segment, whole and on the disk under its ``.cleaned`` names, and those whose place it takes."""

    base_offset: int
    size: int
    has_aborted: bool
    replaced: tuple[int, ...]
    """Base offsets, neighbours in the log; the first is its own."""


class CleanSummary(NamedTuple):
    """What a whole job did."""

    end_offset: int
    """Up to where the log is clean now: below the job's end if there were more keys than the map has room for."""
    bytes_before: int
    bytes_after: int
    records_dropped: int
    keys: int
    """In the map."""


Pay = Callable[[int], None]
"""Called with each number of bytes read or written; may wait (``log.cleaner.io.max.bytes.per.second``)."""


def free(_: int) -> None:
    """Work as fast as it goes."""


def clean(job: CleanerJob, disk: Disk, pay: Pay = free) -> Generator[CleanedSegment, None, CleanSummary]:
    """Yields each new segment when it is on the disk; is to be resumed when it took its place there, durably.

    Raises OSError, and BrokerError CORRUPT_MESSAGE or INVALID_RECORD for a batch that is damaged: the caller drops what
    was made.
    """
    aborted = [CompletedTransaction(*entry) for entry in job.aborted]
    offsets = OffsetMap(job.map_bytes, job.map_load_factor)
    fill_map(job, disk, offsets, aborted, pay)
    batches = BatchCleaner(
        offsets,
        CleanedTransactions(aborted),
        last_written(job, disk, pay),
        dirty_offset=job.dirty_offset,
        now_ms=job.now_ms,
        delete_retention_ms=job.delete_retention_ms,
    )
    before = after = 0
    for entry in disk.list_dir(job.folder):
        if entry.name.endswith(CLEANED_SUFFIX):
            # Of a job that was ended.
            disk.unlink(os.path.join(job.folder, entry.name))
    sizes = {entry.name: entry.size for entry in disk.list_dir(job.folder)}
    for group in groups(job, sizes, offsets.latest_offset + 1):
        cleaned, is_changed = _clean_group(job, disk, group, batches, pay)
        before += sum(segment.size for segment in group)
        after += cleaned.size
        if is_changed or len(group) > 1:
            yield cleaned
        else:
            remove_cleaned(disk, job.folder, cleaned.base_offset)
    return CleanSummary(offsets.latest_offset + 1, before, after, batches.records_dropped, offsets.size)


def remove_cleaned(disk: Disk, folder: str, base_offset: int) -> None:
    """Drop what a compaction made for that offset, if anything."""
    for ending in (".log", ".index", ".timeindex", ".txnindex"):
        disk.unlink(os.path.join(folder, file_name(base_offset, ending) + CLEANED_SUFFIX))


def last_written(job: CleanerJob, disk: Disk, pay: Pay = free) -> dict[int, LastWritten]:
    """By active producer. What it wrote behind the job's end may be lost in a crash: then its last batch before that
    end is what tells of it. The producer snapshot there knows which that is."""
    found = {}
    for producer_id, epoch, last_offset in job.producers:
        found[producer_id] = LastWritten()
        found[producer_id].add(epoch, last_offset)
    if not found:
        return found
    path = os.path.join(job.folder, file_name(job.end_offset, ".snapshot"))
    try:
        earlier = {one.producer_id: (one.epoch, one.last_offset) for one in decode_snapshot(disk.read_file(path))}
    except (FileNotFoundError, MalformedFile):
        earlier = _last_by_scan(job, disk, pay)
    for producer_id, last in found.items():
        if producer_id in earlier:
            last.add(*earlier[producer_id])
    return found


def _last_by_scan(job: CleanerJob, disk: Disk, pay: Pay) -> dict[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    for segment in job.segments:
        for header, _ in _batches(disk, job, segment, -1, pay):
            if header.producer_id >= 0 and not header.is_control:
                found[header.producer_id] = header.producer_epoch, header.last_offset
            elif header.producer_id >= 0:
                known = found.get(header.producer_id)
                if known is None or known[0] != header.producer_epoch:
                    found[header.producer_id] = header.producer_epoch, -1
    return found


def fill_map(
    job: CleanerJob, disk: Disk, offsets: OffsetMap, aborted: Sequence[CompletedTransaction], pay: Pay = free
) -> None:
    """Note the last offset of every key from the dirty offset on, until the map is full."""
    start = job.dirty_offset
    transactions = CleanedTransactions(entry for entry in aborted if entry.last_offset >= start)
    offsets.latest_offset = start - 1
    for segment in job.segments:
        if segment.end_offset <= start:
            continue
        for header, batch in _batches(disk, job, segment, start, pay):
            if header.is_control:
                transactions.met_control(batch, header)
            elif not transactions.met_data(header):
                _, records = plain_records(batch, header)
                for record in records:
                    offset = header.base_offset + record.offset_delta
                    if offset < start:
                        continue
                    if record.key is not None and not offsets.put(record.key, offset):
                        # The rest is for the next time: this one cleans up to here.
                        return
                    offsets.latest_offset = offset
            offsets.latest_offset = max(offsets.latest_offset, header.last_offset)
        offsets.latest_offset = max(offsets.latest_offset, segment.end_offset - 1)


def groups(job: CleanerJob, file_sizes: dict[str, int], end_offset: int) -> list[list[OldSegment]]:
    """Which neighbours become one segment: no larger than segment.bytes, with indexes no larger than
    segment.index.bytes, and offsets within the reach of an index."""
    found: list[list[OldSegment]] = []
    size = index = time_index = 0
    for segment in job.segments:
        if segment.base_offset >= end_offset:
            break
        own_index = file_sizes.get(file_name(segment.base_offset, ".index"), 0)
        own_time_index = file_sizes.get(file_name(segment.base_offset, ".timeindex"), 0)
        size, index, time_index = size + segment.size, index + own_index, time_index + own_time_index
        if (
            found
            and size <= job.segment_bytes
            and index <= job.segment_index_bytes
            and time_index <= job.segment_index_bytes
            and segment.end_offset - 1 - found[-1][0].base_offset <= RELATIVE_OFFSET_MAX
        ):
            found[-1].append(segment)
        else:
            found.append([segment])
            size, index, time_index = segment.size, own_index, own_time_index
    # One without a batch has nothing to clean; between others it goes with them.
    return [group for group in found if any(segment.size for segment in group)]


def _clean_group(
    job: CleanerJob, disk: Disk, group: Sequence[OldSegment], batches: BatchCleaner, pay: Pay
) -> tuple[CleanedSegment, bool]:
    base = group[0].base_offset
    remove_cleaned(disk, job.folder, base)
    made = Segment(disk, OldFiles(disk), job.folder, base, suffix=CLEANED_SUFFIX)
    try:
        made.warm(create=True)
        is_changed = _fill(job, disk, made, group, batches, pay)
        made.write_indexes(is_final=True)
        aborted, batches.transactions.kept = batches.transactions.kept, []
        for entry in aborted:
            made.transactions.append(entry)
        disk.sync(made.file().handle)
        for path in (made.index.path, made.time_index.path, made.transactions.path):
            disk.sync_path(path)
        disk.sync_dir(job.folder)
    except BaseException:
        # Of a full disk it may be the last free part, which the broker needs for what is produced.
        made.close()
        remove_cleaned(disk, job.folder, base)
        raise
    made.close()
    return CleanedSegment(base, made.size, bool(aborted), tuple(old.base_offset for old in group)), is_changed


def _fill(
    job: CleanerJob, disk: Disk, made: Segment, group: Sequence[OldSegment], batches: BatchCleaner, pay: Pay
) -> bool:
    """Write what is left of the group's batches. Whether that is anything but what there was."""
    is_changed = False
    waiting: list[bytes] = []
    waiting_bytes = 0
    newest = max(segment.base_offset for segment in group if segment.size)
    for segment in group:
        place = 0
        for header, batch in _batches(disk, job, segment, -1, pay):
            place += header.size
            is_last = segment.base_offset == newest and place == segment.size
            kept = batches.clean(batch, header, is_last=is_last)
            is_changed = is_changed or kept is not batch
            if kept is None:
                continue
            left = read_header(kept)
            made.note_batch(
                left.last_offset, made.size + waiting_bytes, left.size, left.max_timestamp, job.index_interval_bytes
            )
            waiting.append(kept)
            waiting_bytes += len(kept)
            if waiting_bytes >= max(job.io_bytes, IO_BYTES_MIN):
                pay(waiting_bytes)
                made.append(b"".join(waiting))
                waiting, waiting_bytes = [], 0
    if waiting:
        pay(waiting_bytes)
        made.append(b"".join(waiting))
    return is_changed


def _batches(
    disk: Disk, job: CleanerJob, segment: OldSegment, start: int, pay: Pay
) -> Iterator[tuple[BatchHeader, bytes]]:
    """The batches of a segment that end behind ``start``, each checked. Raises BrokerError CORRUPT_MESSAGE."""
    path = os.path.join(job.folder, file_name(segment.base_offset, ".log"))
    size = max(job.io_bytes, IO_BYTES_MIN)
    handle = disk.open_data(path)
    try:
        position = begin = 0
        data = b""
        while position < segment.size:
            left = begin + len(data) - position
            wanted = read_header(data, position - begin).size if left >= HEADER_BYTES else 0
            if left < HEADER_BYTES or left < wanted:
                data, begin = disk.read(handle, position, min(max(size, wanted), segment.size - position)), position
                pay(len(data))
                if len(data) == left:
                    raise corrupt(f"{path} ends in the middle of a batch at byte {position}")
                continue
            if wanted < HEADER_BYTES:
                raise corrupt(f"no record batch at byte {position} of {path}")
            place = position - begin
            position += wanted
            header = check_batch(data, place, place + wanted)
            if header.last_offset >= start:
                yield header, data[place : place + wanted]
    finally:
        disk.close(handle)

"""Reads that go to the segments: by offset, by time, and the aborted transactions in a range."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from zkbroker.log.disk import Disk
from zkbroker.log.files import OpenFile
from zkbroker.log.segment import Segment
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.records.batch import HEADER_BYTES, read_header
from zkbroker.records.record import records_of

if TYPE_CHECKING:
    from zkbroker.log.log import Log

READ_SLACK_BYTES = 8192
"""A read begins at an index entry: about this much may lie between it and the wanted batch."""


class LogRead(NamedTuple):
    """Whole batches, the first of which contains the asked offset (or follows it, after a compaction)."""

    chunks: Sequence[bytes | memoryview]
    size: int
    first_offset: int
    """Base offset of the first batch; the asked offset when there is none."""
    next_offset: int


def read_failed(log: Log, error: OSError) -> BrokerError:
    """What the reader is told. The folder goes offline, unless it is this process that has too many files open."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return BrokerError(ErrorCode.KAFKA_STORAGE_ERROR, f"cannot read {log.partition} now: {error.strerror}")
    log.failed("cannot read", error)
    return log.offline_error()


def read_segments(
    log: Log, offset: int, max_bytes: int, limit_offset: int, min_one_batch: bool, *, cached_only: bool
) -> LogRead | None:
    """``Log.read`` past the tail in memory. None if ``cached_only`` and it would wait. Raises OSError."""
    for segment in log.segments[log.segment_of(offset) :]:
        found = _read_segment(log, segment, offset, max_bytes, limit_offset, min_one_batch, cached_only)
        if found is None:
            return None
        if found is not _PAST:
            return found
    return LogRead((), 0, offset, offset)


_PAST = LogRead((), 0, -1, -1)
"""The segment holds no batch that ends behind the wanted offset: it lies in the next one. Nothing else may lead there,
or a reader loses the rest of this segment."""


def _read_segment(
    log: Log, segment: Segment, offset: int, max_bytes: int, limit_offset: int, min_one_batch: bool, cached_only: bool
) -> LogRead | None:
    disk = log.context.disk
    handle = segment.file().handle
    position = segment.lookup(offset)
    size = max_bytes + READ_SLACK_BYTES
    while True:
        left = segment.size - position
        size = min(size, left)
        if size <= 0:
            return _PAST
        data: bytes | memoryview | None
        data = disk.read_cached(handle, position, size) if cached_only else disk.read(handle, position, size)
        if data is None:
            return None
        if position and len(data) >= HEADER_BYTES:
            head = read_header(data)
            if head.magic != 2 or head.size < HEADER_BYTES or not segment.base_offset <= head.base_offset <= offset:
                # The index was damaged in a way that cannot be seen in itself.
                segment.index.distrust()
                position = 0
                size = max_bytes + READ_SLACK_BYTES
                continue
        start, end, first, next_offset, needed = segment.read_at(data, offset, max_bytes, limit_offset, min_one_batch)
        if end > start:
            chunk = data if end - start == len(data) else memoryview(data)[start:end]
            return LogRead((chunk,), end - start, first, next_offset)
        if needed == 0:
            return LogRead((), 0, offset, offset)
        if needed == left + HEADER_BYTES:
            return _PAST
        if len(data) < size:
            # Fewer bytes than there are: the rest is not in the page cache.
            if cached_only:
                return None
            raise OSError(errno.EIO, f"{segment.path} ends at byte {position + len(data)}, not {segment.size}")
        if needed > left:
            raise BrokerError(ErrorCode.CORRUPT_MESSAGE, f"the last record batch of {segment.path} is not whole")
        size = needed + max_bytes


class _ReadJob(NamedTuple):
    """Frozen for the thread."""

    file: OpenFile
    position: int
    size: int
    size_max: int
    """No batch is larger: what the segment holds from there on."""


def read_later(log: Log, offset: int, max_bytes: int, limit_offset: int, min_one_batch: bool) -> Deferred[LogRead]:
    """The thread only brings the bytes into the page cache; the reactor reads them from there.

    So nothing that the thread saw is trusted after a truncation, and there is one way to read.
    """
    try:
        quick = log.read(offset, max_bytes, limit_offset, min_one_batch)
        if quick is not None:
            return succeed(quick)
        segment = log.segments[log.segment_of(offset)]
        position = segment.lookup(offset)
        file = segment.file().use()
    except BrokerError as error:
        return fail(error)
    except OSError as error:
        return fail(read_failed(log, error))
    left = segment.size - position
    job = _ReadJob(file, position, min(max_bytes + READ_SLACK_BYTES, left), left)
    done: Deferred[bytes] = log.context.lanes.run(log.log_dir, _read_job, log.context.disk, job)

    def finished(result: object) -> object:
        file.release()
        return result

    def again(_: object) -> LogRead:
        # Evicted again, or one batch larger than the request: then this one read waits.
        found = log.read(offset, max_bytes, limit_offset, min_one_batch, may_wait=True)
        if found is None:
            raise log.offline_error()
        return found

    def failed(failure: Failure) -> Failure:
        if isinstance(failure.value, OSError):
            raise read_failed(log, failure.value)
        return failure

    done.addBoth(finished)
    return done.addCallbacks(again, failed)


def _read_job(disk: Disk, job: _ReadJob) -> None:
    data = disk.read(job.file.handle, job.position, job.size)
    if len(data) >= HEADER_BYTES:
        # The first batch may be larger than the whole request.
        size = read_header(data).size
        if len(data) < size <= job.size_max:
            disk.read(job.file.handle, job.position, size)


def aborted_transactions(log: Log, offset: int, end_offset: int) -> list[tuple[int, int]]:
    """(producer id, first offset) of aborted transactions that overlap [offset, end_offset). Raises OSError."""
    found = []
    for segment in log.segments[log.segment_of(offset) :]:
        for entry in segment.transactions.entries():
            if entry.last_offset >= offset and entry.first_offset < end_offset:
                found.append((entry.producer_id, entry.first_offset))
            if entry.last_stable_offset >= end_offset:
                # Everything that begins below this marker's stable offset has ended: no later entry concerns us.
                return found
    return found


class _FindJob(NamedTuple):
    """Frozen for the thread: scan one segment from ``position`` for the first record at or after ``timestamp``."""

    file: OpenFile
    position: int
    size: int
    timestamp: int
    log_start: int


def offset_for_timestamp(log: Log, timestamp_ms: int, first: int = 0) -> Deferred[tuple[int, int, int] | None]:
    """See ``Log.offset_for_timestamp``; ``first`` is the index of the segment to begin with."""
    try:
        for index in range(first, len(log.segments)):
            segment = log.segments[index]
            end = log.bases[index + 1] if index + 1 < len(log.bases) else log.log_end_offset
            if segment.size and end > log.log_start_offset and segment.largest_timestamp() >= timestamp_ms:
                position = segment.lookup(segment.time_index.lookup(timestamp_ms))
                if segment is not log.active:
                    segment.time_index.unload()
                job = _FindJob(segment.file().use(), position, segment.size, timestamp_ms, log.log_start_offset)
                return _find_later(log, job, timestamp_ms, index + 1)
    except OSError as error:
        return fail(read_failed(log, error))
    return succeed(None)


def offset_of_max_timestamp(log: Log) -> Deferred[tuple[int, int, int] | None]:
    """See ``Log.offset_of_max_timestamp``."""
    try:
        largest = max((segment.largest_timestamp() for segment in log.segments), default=-1)
    except OSError as error:
        return fail(read_failed(log, error))
    return succeed(None) if largest < 0 else offset_for_timestamp(log, largest)


def _find_later(log: Log, job: _FindJob, timestamp_ms: int, following: int) -> Deferred[tuple[int, int, int] | None]:
    generation = log.generation
    done: Deferred[tuple[int, int, int] | None] = log.context.lanes.run(log.log_dir, _find_job, log.context.disk, job)

    def finished(result: object) -> object:
        job.file.release()
        if log.generation != generation:
            if log.is_offline:
                raise log.offline_error()
            return offset_for_timestamp(log, timestamp_ms)
        if isinstance(result, Failure) and isinstance(result.value, OSError):
            raise read_failed(log, result.value)
        if result is None:
            # The record that the time index tells of was deleted (log start) or compacted away.
            return offset_for_timestamp(log, timestamp_ms, following)
        return result

    return done.addBoth(finished)


def _find_job(disk: Disk, job: _FindJob) -> tuple[int, int, int] | None:
    position = job.position
    handle = job.file.handle
    while position + HEADER_BYTES <= job.size:
        header = read_header(disk.read(handle, position, HEADER_BYTES))
        if header.size < HEADER_BYTES:
            raise OSError(errno.EIO, f"no record batch at byte {position} of {job.file.path}")
        if header.max_timestamp >= job.timestamp and header.last_offset >= job.log_start:
            batch = disk.read(handle, position, header.size)
            for record in records_of(batch, header):
                if record.timestamp >= job.timestamp and record.offset >= job.log_start:
                    return record.timestamp, record.offset, header.leader_epoch
        position += header.size
    return None

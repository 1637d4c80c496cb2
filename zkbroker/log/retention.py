"""Which old segments go: by time, by bytes, and below the log start. Never at or above the high watermark."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from zkbroker.log.segment import DELETED_SUFFIX, Segment, file_name

if TYPE_CHECKING:
    from zkbroker.log.log import Log


def delete_old_segments(log: Log, high_watermark: int, now_ms: int) -> int:
    """Rename them away at once, unlink them after file.delete.delay.ms. The number deleted. Raises OSError."""
    doomed = _by_log_start(log, high_watermark)
    if "delete" in log.config.cleanup_policy:
        doomed = max(doomed, _by_time(log, high_watermark, now_ms), _by_size(log, high_watermark))
    if doomed == 0:
        return 0
    if doomed == len(log.segments):
        if log.active.size == 0:
            doomed -= 1
            if doomed == 0:
                return 0
        else:
            log.roll()
    wanted = doomed
    # Only what is on the disk, with the snapshot of its producers and the name of the segment behind it: a
    # loss of power must not leave a log that knows nothing of them, or an empty folder and offset 0 again.
    while doomed and log.bases[doomed] > min(log.flushed_end_offset, log.durability.named_base):
        doomed -= 1
    if doomed < wanted:
        log.durability.flush_soon()
    if doomed == 0:
        return 0
    gone = log.segments[:doomed]
    for segment in gone:
        _delete(log, segment)
    del log.segments[:doomed], log.bases[:doomed]
    log.generation += 1
    log.log_start_offset = max(log.log_start_offset, log.bases[0])
    log.epochs.truncate_from_start(log.log_start_offset)
    _drop_snapshots(log)
    log.check()
    return doomed


def _end_of(log: Log, index: int) -> int:
    return log.bases[index + 1] if index + 1 < len(log.bases) else log.log_end_offset


def _by_time(log: Log, high_watermark: int, now_ms: int) -> int:
    retention_ms = log.config.retention_ms
    if retention_ms < 0:
        return 0
    count = 0
    for index, segment in enumerate(log.segments):
        if _end_of(log, index) > high_watermark:
            break
        largest = segment.largest_timestamp()
        if segment.size and (largest < 0 or now_ms - largest <= retention_ms):
            # Without any timestamp nobody can say how old it is: kept, until the size or the log start says so.
            break
        count += 1
    return count


def _by_size(log: Log, high_watermark: int) -> int:
    if log.config.retention_bytes < 0:
        return 0
    excess = log.size - log.config.retention_bytes
    count = 0
    for index, segment in enumerate(log.segments):
        if _end_of(log, index) > high_watermark or excess - segment.size < 0:
            break
        excess -= segment.size
        count += 1
    return count


def _by_log_start(log: Log, high_watermark: int) -> int:
    count = 0
    for index in range(len(log.segments) - 1):
        if _end_of(log, index) > min(log.log_start_offset, high_watermark):
            break
        count += 1
    return count


def _delete(log: Log, segment: Segment) -> None:
    segment.mark_deleted()
    delay_ms = log.config.file_delete_delay_ms
    log.context.delete_later(log.log_dir, delay_ms, lambda: segment.delete_files(DELETED_SUFFIX))


def _drop_snapshots(log: Log) -> None:
    while len(log.snapshots) > 1 and log.snapshots[0] < log.bases[0]:
        log.context.disk.unlink(os.path.join(log.folder, file_name(log.snapshots.pop(0), ".snapshot")))

"""Cutting a log back to where it and its leader agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zkbroker.log.producers import delete_snapshots, rebuild_producers
from zkbroker.log.segment import Segment
from zkbroker.records.batch import HEADER_BYTES, check_batch, read_header

if TYPE_CHECKING:
    from zkbroker.log.log import Log


def overlap(log: Log, records: bytes | memoryview, leader_epoch_limit: int) -> int | None:
    """Where the first fetched batch begins, if that is below the log end and yet nothing of it is here. The leader's
    log start lies within it (DeleteRecords) and this log was begun there; or the log was cut back within a hole that a
    compaction left here, but not at the leader. Raises BrokerError CORRUPT_MESSAGE or KAFKA_STORAGE_ERROR."""
    if len(records) < HEADER_BYTES or read_header(records).base_offset >= log.log_end_offset:
        return None
    header = check_batch(records, 0, len(records))
    if header.last_offset < log.log_end_offset or header.leader_epoch > leader_epoch_limit:
        return None
    segment = log.active
    if segment.size == 0:
        return header.base_offset if len(log.segments) == 1 else None
    if header.base_offset < segment.base_offset:
        return None
    try:
        position, _ = segment.position_of(header.base_offset)
    except OSError as error:
        log.failed("cannot read", error)
        raise log.offline_error() from None
    return header.base_offset if position == segment.size else None


def truncate_to(log: Log, offset: int) -> None:
    """See ``Log.truncate_to``. Raises OSError."""
    log.epochs.truncate_from_end(offset)
    if offset >= log.log_end_offset:
        return
    if offset < log.bases[0]:
        truncate_fully_and_start_at(log, offset)
        return
    log.generation += 1
    log.tail.clear()
    last = log.segment_of(offset)
    doomed = log.segments[last + 1 :]
    log.flushed_end_offset = min(log.flushed_end_offset, offset)
    if doomed:
        # A loss of power may bring them back: then what lies before them must be checked too.
        log.context.lower_recovery_point(log)
    # From the end, so that a crash in between leaves a log without a hole.
    for segment in reversed(doomed):
        segment.close()
        segment.delete_files()
    del log.segments[last + 1 :], log.bases[last + 1 :]
    log.log_end_offset = log.active.truncate(offset)
    log.is_warm = False
    log.durability.names_changed |= bool(doomed)
    log.durability.names_dropped(log.bases[-1])
    log.durability.is_truncation_unsynced = True
    log.epochs.truncate_from_end(log.log_end_offset)
    log.flushed_end_offset = min(log.flushed_end_offset, log.log_end_offset)
    log.log_start_offset = min(log.log_start_offset, log.log_end_offset)
    rebuild_producers(log, after_truncation=True)


def truncate_fully_and_start_at(log: Log, offset: int) -> None:
    """See ``Log.truncate_fully_and_start_at``. Raises OSError."""
    log.generation += 1
    log.tail.clear()
    log.durability.names_changed = log.durability.began_anew = True
    log.durability.names_dropped(-1)
    log.context.lower_recovery_point(log)
    for segment in reversed(log.segments):
        segment.close()
        segment.delete_files()
    delete_snapshots(log)
    segment = Segment(log.context.disk, log.context.old_files, log.folder, offset)
    segment.created_at_ms = log.context.clock.wall_ms()
    segment.warm(create=True)
    log.segments = [segment]
    log.bases = [offset]
    log.is_warm = True
    log.epochs.clear()
    log.producers.clear()
    log.producers.end_offset = offset
    log.log_start_offset = log.log_end_offset = log.flushed_end_offset = offset
    log.doubtful_start = None

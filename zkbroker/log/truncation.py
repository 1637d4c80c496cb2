"""Cutting a log back to where it and its leader agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zkbroker.log.producers import delete_snapshots, rebuild_producers
from zkbroker.log.segment import Segment

if TYPE_CHECKING:
    from zkbroker.log.log import Log


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

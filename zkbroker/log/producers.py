"""Producer states of a log on disk: snapshots, and rebuilding from the newest of them and the batches behind it."""

from __future__ import annotations

import os
import re
from bisect import insort
from typing import TYPE_CHECKING

from zkbroker.log.checkpoints import MalformedFile, decode_snapshot, encode_snapshot
from zkbroker.log.segment import Segment, file_name
from zkbroker.model.errors import InvariantViolation
from zkbroker.partition.producer_state import ProducerStates
from zkbroker.records.batch import CONTROL_BIT, TRANSACTIONAL_BIT, BatchHeader
from zkbroker.records.record import end_transaction_of

if TYPE_CHECKING:
    from zkbroker.log.log import Log

SNAPSHOT_SUFFIX = ".snapshot"
_SNAPSHOT_FILE = re.compile(r"[0-9]{20}\.snapshot")


def take_batch(
    producers: ProducerStates,
    segment: Segment,
    data: bytes | memoryview,
    place: int,
    header: BatchHeader,
    base_offset: int,
    timestamp: int,
) -> None:
    """A batch of a producer was appended (or is read again): bring the states up to it. Raises OSError."""
    if header.attributes & CONTROL_BIT:
        marker = end_transaction_of(data, header, place)
        if marker is not None:
            completed = producers.transaction_ended(
                header.producer_id,
                header.producer_epoch,
                marker.coordinator_epoch,
                marker.committed,
                base_offset,
                timestamp,
            )
            if completed is not None and completed.is_aborted:
                known = segment.transactions.entries()
                if not known or known[-1].last_offset < completed.last_offset:
                    segment.transactions.append(completed)
        return
    producers.appended(
        header.producer_id,
        header.producer_epoch,
        header.last_sequence,
        base_offset,
        base_offset + header.last_offset_delta,
        timestamp,
        header.attributes & TRANSACTIONAL_BIT != 0,
    )


def rebuild_producers(log: Log, *, after_truncation: bool = False) -> None:
    """The states at the log end, from the newest valid snapshot and the batches behind it. Raises OSError."""
    producers = log.producers
    if after_truncation and len(producers) == 0:
        forget_snapshots(log, log.log_end_offset)
        producers.end_offset = log.log_end_offset
        return
    forget_snapshots(log, log.log_end_offset)
    disk = log.context.disk
    producers.clear()
    producers.end_offset = log.bases[0]
    for offset in reversed(log.snapshots):
        path = os.path.join(log.folder, file_name(offset, SNAPSHOT_SUFFIX))
        try:
            producers.load(decode_snapshot(disk.read_file(path)), offset)
            break
        except (MalformedFile, InvariantViolation, FileNotFoundError):
            disk.unlink(path)
            log.snapshots.remove(offset)
    begin = max(producers.end_offset, log.bases[0])
    if begin < log.log_end_offset:
        for segment in log.segments[log.segment_of(begin) :]:
            if segment.base_offset > begin:
                # Should what lies before it be deleted, only a snapshot tells of it.
                write_snapshot(log, segment.base_offset)
            _take_segment(log, segment, begin)
    producers.end_offset = log.log_end_offset
    producers.expire(log.context.clock.wall_ms(), log.context.producer_id_expiration_ms)


def _take_segment(log: Log, segment: Segment, begin: int) -> None:
    position = segment.index.lookup(begin)
    for place, header in segment.headers(position):
        if header.next_offset <= begin or header.producer_id < 0:
            continue
        data = b""
        if header.attributes & CONTROL_BIT:
            data = log.context.disk.read(segment.file().handle, place, header.size)
        take_batch(log.producers, segment, data, 0, header, header.base_offset, header.max_timestamp)


def write_snapshot(log: Log, offset: int) -> None:
    """``%020d.snapshot`` at ``offset``, the log end. Not waited for: a torn one fails its CRC and is not used."""
    if offset in log.snapshots:
        return
    path = os.path.join(log.folder, file_name(offset, SNAPSHOT_SUFFIX))
    log.context.disk.write_file(path, encode_snapshot(log.producers.snapshot()))
    log.durability.must_sync((path,))
    log.durability.names_changed = True
    insort(log.snapshots, offset)


def find_snapshots(log: Log, names: dict[str, int]) -> None:
    log.snapshots = sorted(int(name[: -len(SNAPSHOT_SUFFIX)]) for name in names if _SNAPSHOT_FILE.fullmatch(name))


def remove_stray_snapshots(log: Log) -> None:
    """Keep the newest and those at the beginning of a segment: each clean shutdown leaves one somewhere else."""
    for offset in log.snapshots[:-1]:
        if offset not in log.bases:
            log.context.disk.unlink(os.path.join(log.folder, file_name(offset, SNAPSHOT_SUFFIX)))
    log.snapshots = [offset for offset in log.snapshots[:-1] if offset in log.bases] + log.snapshots[-1:]


def forget_snapshots(log: Log, end_offset: int) -> None:
    """Remove those above ``end_offset``."""
    while log.snapshots and log.snapshots[-1] > end_offset:
        log.durability.names_changed = True
        log.context.disk.unlink(os.path.join(log.folder, file_name(log.snapshots.pop(), SNAPSHOT_SUFFIX)))


def delete_snapshots(log: Log) -> None:
    """All of them: the log begins anew."""
    forget_snapshots(log, -1)

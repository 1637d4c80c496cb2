"""Which log is compacted next, and how far: the rules of Kafka's LogCleanerManager."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from zkbroker.log.cleaner import CleanerJob, OldSegment
from zkbroker.log.log import Log
from zkbroker.partition.producer_state import CompletedTransaction

_NEVER_MS = 2**63 - 1
MAP_BYTES_MAX = 2**31 - 1
"""Of one job, as in Kafka: 80 million keys at once."""


class CleanerSettings(NamedTuple):
    """The broker's ``log.cleaner.*`` keys; memory and bytes per second are over all jobs at once."""

    is_enabled: bool = True
    threads: int = 1
    """How many logs are compacted at once."""
    backoff_s: float = 15.0
    dedupe_buffer_bytes: int = 134_217_728
    io_buffer_bytes: int = 524_288
    load_factor: float = 0.9
    io_bytes_per_second: float = float("inf")


class Dirt(NamedTuple):
    """What there is to compact in one log."""

    log: Log
    dirty_offset: int
    """Below it is clean."""
    end_offset: int
    """Base offset of the first segment that must be left alone."""
    clean_bytes: int
    dirty_bytes: int
    is_due: bool
    """max.compaction.lag.ms is over, whatever the ratio."""

    @property
    def ratio(self) -> float:
        total = self.clean_bytes + self.dirty_bytes
        return self.dirty_bytes / total if total else 0.0

    @property
    def is_enough(self) -> bool:
        is_dirty = self.ratio > self.log.config.min_cleanable_dirty_ratio
        return self.dirty_bytes > 0 and (self.is_due or is_dirty)


def dirt_of(log: Log, high_watermark: int, cleaned_offset: int, now_ms: int) -> Dirt:
    """What a compaction could do to ``log``. Raises OSError.

    Left alone are: the active segment; what is not below the last stable offset (and so the high watermark); what is
    not on the disk, for the record that supersedes another, or the marker that commits it, must not be lost after the
    other is gone; and from the first segment on with a record younger than min.compaction.lag.ms.
    """
    dirty = cleaned_offset
    if not log.log_start_offset <= dirty <= log.log_end_offset:
        dirty = log.log_start_offset
    limit = min(high_watermark, log.active.base_offset)
    durable = min(log.flushed_end_offset, log.durability.named_base)
    if durable < limit:
        log.durability.flush_soon()
    undecided = log.producers.first_unstable_offset(min(high_watermark, log.flushed_end_offset))
    limit = min(limit, durable) if undecided is None else min(limit, durable, undecided)
    old = log.segment_of(limit) if limit >= log.bases[0] else 0
    first_dirty = log.segment_of(dirty)
    lag_ms = log.config.min_compaction_lag_ms
    if lag_ms > 0:
        for index in range(first_dirty, old):
            if log.segments[index].largest_timestamp() > now_ms - lag_ms:
                old = index
                break
    first_dirty = min(first_dirty, old)
    sizes = [segment.size for segment in log.segments[:old]]
    clean_bytes, dirty_bytes = sum(sizes[:first_dirty]), sum(sizes[first_dirty:])
    return Dirt(log, dirty, log.bases[old], clean_bytes, dirty_bytes, _is_due(log, first_dirty, now_ms))


def _is_due(log: Log, first_dirty: int, now_ms: int) -> bool:
    lag_ms = log.config.max_compaction_lag_ms
    if lag_ms == _NEVER_MS:
        return False
    firsts = [segment.rolling_base() for segment in log.segments[first_dirty:-1] if segment.size]
    return any(0 < first < now_ms - max(lag_ms, 0) for first in firsts)


def dirtiest(found: Iterable[Dirt]) -> Dirt | None:
    """The one to compact next, None if there is not enough in any."""
    enough = [dirt for dirt in found if dirt.is_enough]
    return max(enough, key=lambda dirt: dirt.ratio, default=None)


def job_for(dirt: Dirt, settings: CleanerSettings, now_ms: int) -> CleanerJob:
    """Frozen, for a child process. Raises OSError."""
    log, config = dirt.log, dirt.log.config
    count = log.bases.index(dirt.end_offset)
    ends = log.bases[1 : count + 1]
    sizes = [segment.size for segment in log.segments[:count]]
    aborted: list[CompletedTransaction] = []
    for segment in log.segments:
        # Also of transactions whose marker lies behind what is compacted.
        aborted += [entry for entry in segment.transactions.entries() if entry.first_offset < dirt.end_offset]
    threads = max(1, settings.threads)
    return CleanerJob(
        folder=log.folder,
        segments=tuple(map(OldSegment, log.bases[:count], sizes, ends)),
        dirty_offset=dirt.dirty_offset,
        now_ms=now_ms,
        delete_retention_ms=config.delete_retention_ms,
        segment_bytes=config.segment_bytes,
        segment_index_bytes=config.segment_index_bytes,
        index_interval_bytes=config.index_interval_bytes,
        producers=tuple((one.producer_id, one.epoch, one.last_offset) for one in log.producers.snapshot()),
        aborted=tuple(aborted),
        map_bytes=min(settings.dedupe_buffer_bytes // threads, MAP_BYTES_MAX),
        map_load_factor=settings.load_factor,
        io_bytes=settings.io_buffer_bytes // threads // 2,
        io_bytes_per_second=settings.io_bytes_per_second / threads,
    )

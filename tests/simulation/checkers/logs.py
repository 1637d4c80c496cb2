"""Invariants 7 (one content per epoch and offset), 8 (order of offsets), 9 (epoch cache), 13 (producer sequences) and
16 (what is rebuilt is what was), as far as one replica's files and memory show them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from tests.simulation.checkers.batches import Batch, is_intact
from tests.simulation.checkers.ghost import Ghost, View
from tests.simulation.checkers.observer import Fingerprint, LogChange
from tests.simulation.violation import Violation


class LogChecker:
    def __init__(self, ghost: Ghost) -> None:
        self._ghost = ghost
        self.truncations_with_bytes_count = 0

    def log_changed(self, view: View, change: LogChange) -> None:
        if change.dropped:
            self.truncations_with_bytes_count += 1
            if not change.is_first_look:
                self._ghost.trace(
                    f"{view!r} dropped {len(change.dropped)} batches from offset {change.dropped[0].base} on"
                )
        content = view.content
        log = view.replica.log
        entries = log.epochs.entries
        first = len(content.batches) - len(change.appended)
        previous = content.batches[first - 1] if first > 0 else None
        for batch in change.appended:
            self._check_place(view, batch, previous)
            self._check_bytes(view, batch)
            self._check_sequence(view, batch, is_history=change.is_first_look)
            self._check_epoch(view, batch, entries)
            previous = batch
        if change.is_first_look or change.was_cut:
            self.check_rebuilt(view)

    def changed(self, view: View, before: Fingerprint | None, after: Fingerprint) -> None:
        if before is None or before.epochs_version != after.epochs_version:
            self._check_epoch_cache(view)
        if before is not None and before.generation != after.generation and after.leader is None:
            entries = view.replica.log.epochs.entries
            if entries and entries[-1][1] >= after.log_end > 0 and not view.replica.log.is_offline:
                raise Violation(9, f"{view!r} was truncated, its epoch cache goes on: {list(entries)}")
        if after.leader is not None and (before is None or before.leader is not after.leader):
            self._check_leader_entry(view, after.leader.leader_epoch)
        self._check_offsets(view, before, after)

    def at_end(self, view: View) -> None:
        if not view.replica.log.is_offline:
            self.check_rebuilt(view)

    # 7

    def _check_place(self, view: View, batch: Batch, previous: Batch | None) -> None:
        if batch.end <= batch.base:
            raise Violation(7, f"{view!r}: a batch from {batch.base} to {batch.end}")
        if previous is not None and (batch.base != previous.end or batch.epoch < previous.epoch):
            raise Violation(
                7,
                f"{view!r}: batch at {batch.base} of epoch {batch.epoch} follows one that ends at {previous.end} "
                f"in epoch {previous.epoch}",
            )

    def _check_bytes(self, view: View, batch: Batch) -> None:
        partition = view.partition
        known = partition.seen_bytes.get((batch.epoch, batch.base))
        if known is None:
            if batch.base < partition.ends.get(batch.epoch, 0) and is_intact(batch.data):
                raise Violation(
                    7,
                    f"{view!r}: a batch of epoch {batch.epoch} begins at {batch.base}, inside of what was seen in "
                    f"that epoch up to {partition.ends[batch.epoch]}",
                )
            partition.seen_bytes[batch.epoch, batch.base] = batch.data
            partition.ends[batch.epoch] = max(batch.end, partition.ends.get(batch.epoch, 0))
        elif known != batch.data and is_intact(batch.data):
            raise Violation(
                7,
                f"{view!r}: epoch {batch.epoch} offset {batch.base} held {_shown(known)}, now it is "
                f"{_shown(batch.data)}",
            )

    # 8

    def _check_offsets(self, view: View, before: Fingerprint | None, after: Fingerprint) -> None:
        replica = view.replica
        high = after.high_watermark
        stable = replica.last_stable_offset
        if not after.log_start <= stable <= high <= after.log_end:
            raise Violation(
                8,
                f"{view!r}: log start {after.log_start}, last stable {stable}, high watermark {high}, "
                f"end {after.log_end} are out of order",
            )
        leader = after.leader
        if leader is None:
            return
        if leader.high_watermark != high:
            raise Violation(8, f"{view!r}: its leader's high watermark is {leader.high_watermark}, its own {high}")
        if before is None or before.leader is not leader:
            return
        if high < before.high_watermark:
            raise Violation(8, f"{view!r}: the leader's high watermark fell from {before.high_watermark} to {high}")
        if high > before.high_watermark:
            # By the assignment that the leader was told: of a larger one it may not have heard yet.
            least = view.partition.effective_min_isr
            if after.state is not None:
                least = min(least, len(after.state.replicas))
            isr = after.isr.isr
            if len(isr) < least and len(before.isr.isr) < least:
                raise Violation(
                    8,
                    f"{view!r}: the high watermark rose to {high} with ISR {list(isr)}, below the minimum of {least}",
                )

    # 9

    def _check_epoch(self, view: View, batch: Batch, entries: tuple[tuple[int, int], ...]) -> None:
        found = -1
        for epoch, start in reversed(entries):
            if start <= batch.base:
                found = epoch
                break
        if found != batch.epoch and batch.end > view.content.start:
            raise Violation(
                9,
                f"{view!r}: the batch at {batch.base} has epoch {batch.epoch}, the epoch cache says {found}: "
                f"{list(entries)}",
            )

    def _check_leader_entry(self, view: View, epoch: int) -> None:
        """A leader's epoch is in its cache before anything is appended in it (KAFKA-7415)."""
        entries = view.replica.log.epochs.entries
        if not entries or entries[-1][0] != epoch:
            raise Violation(9, f"{view!r} leads in epoch {epoch}, which its epoch cache lacks: {list(entries)}")

    def _check_epoch_cache(self, view: View) -> None:
        entries = view.replica.log.epochs.entries
        for earlier, later in pairwise(entries):
            if earlier[0] >= later[0] or earlier[1] >= later[1]:
                raise Violation(9, f"{view!r}: the epoch cache does not rise: {list(entries)}")
        content = view.content
        for epoch, start in entries:
            # The batch before the entry is of a lower epoch, the one at it is not.
            index = content.index_of(start)
            if index < len(content.batches) and content.batches[index].epoch < epoch:
                raise Violation(
                    9, f"{view!r}: epoch {epoch} from {start} on, but the batch there is {content.batches[index].epoch}"
                )
            if 0 < index <= len(content.batches):
                batch = content.batches[index - 1]
                if batch.epoch >= epoch and batch.end > content.start:
                    raise Violation(
                        9, f"{view!r}: epoch {epoch} from {start} on, but the batch at {batch.base} is {batch.epoch}"
                    )

    # 13

    def _check_sequence(self, view: View, batch: Batch, *, is_history: bool) -> None:
        pid = batch.producer_id
        if pid < 0:
            return
        producers = view.content.producers
        known = producers.get(pid)
        if known is not None:
            epoch, last = known
            expected = (last + 1) & 0x7FFFFFFF if batch.producer_epoch == epoch else 0
            if batch.producer_epoch < epoch or batch.sequence != expected:
                raise Violation(
                    13,
                    f"{view!r}: producer {pid} epoch {batch.producer_epoch} has sequence {batch.sequence} at offset "
                    f"{batch.base} after epoch {epoch} sequence {last}",
                )
        producers[pid] = (batch.producer_epoch, batch.last_sequence)

    # 16

    def check_rebuilt(self, view: View) -> None:
        """Producers, epochs and indexes in memory are what a scan of the files gives."""
        content, log = view.content, view.replica.log
        self._check_producers(view, log)
        entries = log.epochs.entries
        self._check_epoch_cache(view)
        for batch in content.batches:
            self._check_epoch(view, batch, entries)
        self._check_indexes(view, log)

    def _check_producers(self, view: View, log: Any) -> None:
        scanned: dict[int, list[Batch]] = {}
        for batch in view.content.batches:
            if batch.producer_id >= 0:
                mine = scanned.setdefault(batch.producer_id, [])
                if mine and mine[-1].producer_epoch != batch.producer_epoch:
                    mine.clear()
                mine.append(batch)
        held = log.producers._producers
        for pid, batches in scanned.items():
            producer = held.get(pid)
            last = batches[-1]
            if producer is None or not producer.batches:
                raise Violation(
                    16, f"{view!r}: producer {pid} wrote sequence {last.last_sequence}, but the log does not know it"
                )
            newest = producer.batches[-1]
            if (producer.epoch, newest.last_sequence, newest.last_offset) != (
                last.producer_epoch,
                last.last_sequence,
                last.end - 1,
            ):
                raise Violation(
                    16,
                    f"{view!r}: producer {pid} is at epoch {last.producer_epoch} sequence {last.last_sequence} offset "
                    f"{last.end - 1}; the log holds epoch {producer.epoch} sequence {newest.last_sequence} offset "
                    f"{newest.last_offset}",
                )
            ends = {batch.end - 1: batch.last_sequence for batch in batches}
            for kept in producer.batches:
                if kept.last_offset >= batches[0].base and ends.get(kept.last_offset) != kept.last_sequence:
                    raise Violation(
                        16,
                        f"{view!r}: producer {pid} is said to have sequence {kept.last_sequence} at offset "
                        f"{kept.last_offset}",
                    )
        if view.content.start == 0 and (not view.content.batches or view.content.batches[0].base == 0):
            for pid, producer in held.items():
                if pid not in scanned and producer.batches:
                    raise Violation(16, f"{view!r}: the log knows producer {pid}, which never wrote what it holds")

    def _check_indexes(self, view: View, log: Any) -> None:
        ends = {batch.end - 1: batch.position for batch in view.content.batches}
        times = {batch.end - 1: batch.timestamp for batch in view.content.batches}
        for segment in log.segments:
            index = segment.index
            # A flipped bit is noticed by the read that it misleads, not when the index is loaded.
            if index._offsets is not None and not _is_flipped(index):
                for offset, position in zip(index._offsets, index._positions, strict=True):
                    if ends.get(offset + index.base_offset) != position:
                        raise Violation(
                            16, f"{view!r}: index entry {offset + index.base_offset} at byte {position} is no batch"
                        )
            for timestamp, offset in _times_in_memory(segment.time_index):
                if times.get(offset) != timestamp:
                    raise Violation(16, f"{view!r}: time index entry {timestamp} at offset {offset} is no batch")


def _is_flipped(index: Any) -> bool:
    """Whether a fault has changed a bit of its file."""
    disk = getattr(index, "_disk", None)
    return disk is not None and index.path in disk.flipped


def _times_in_memory(index: Any) -> list[tuple[int, int]]:
    if index._timestamps is None:
        return []
    return [
        (timestamp, offset + index.base_offset)
        for timestamp, offset in zip(index._timestamps, index._offsets, strict=True)
    ]


def _shown(data: bytes) -> str:
    return f"{len(data)} bytes ending in {data[-24:]!r}"

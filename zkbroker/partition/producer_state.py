"""What one log knows of its idempotent and transactional producers (KIP-98). Pure.

It is rebuilt from the batches alone, so every replica holds the same; the leader also judges what clients send by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from zkbroker.model.errors import BrokerError, ErrorCode, InvariantViolation

BATCHES_KEPT = 5
"""Duplicates are known among a producer's last five batches: as many as it may have in flight."""
SEQUENCE_MAX = 2**31 - 1
_NO_TRANSACTION = -1


class AppendedBatch(NamedTuple):
    """One remembered batch of a producer."""

    last_sequence: int
    last_offset: int
    offset_delta: int
    """Last offset less base offset."""
    timestamp: int

    @property
    def base_offset(self) -> int:
        return self.last_offset - self.offset_delta

    @property
    def base_sequence(self) -> int:
        first = self.last_sequence - self.offset_delta
        return first if first >= 0 else first + SEQUENCE_MAX + 1


class ProducerEntry(NamedTuple):
    """One producer as the ``.snapshot`` file keeps it: of its batches only the last."""

    producer_id: int
    epoch: int
    last_sequence: int
    last_offset: int
    offset_delta: int
    timestamp: int
    coordinator_epoch: int
    transaction_start: int
    """First offset of its open transaction, -1 without one."""


class CompletedTransaction(NamedTuple):
    """A transaction whose marker lies in the log."""

    producer_id: int
    first_offset: int
    last_offset: int
    """Offset of the marker."""
    is_aborted: bool
    last_stable_offset: int
    """The last stable offset right after it, which the ``.txnindex`` keeps with each aborted transaction."""


class _Producer:
    __slots__ = ("batches", "coordinator_epoch", "epoch", "timestamp", "transaction_start")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.batches: list[AppendedBatch] = []
        self.timestamp = -1
        self.coordinator_epoch = -1
        self.transaction_start = _NO_TRANSACTION

    def as_tuple(self) -> tuple[object, ...]:
        return (self.epoch, tuple(self.batches), self.timestamp, self.coordinator_epoch, self.transaction_start)


class ProducerStates:
    """All producers of one log, by producer id."""

    __slots__ = ("_open", "_producers", "_unreplicated", "end_offset")

    def __init__(self) -> None:
        self._producers: dict[int, _Producer] = {}
        self._open: dict[int, int] = {}
        """Producer id → first offset of its open transaction, in the order they were opened (so offsets rise)."""
        self._unreplicated: list[CompletedTransaction] = []
        """Ended transactions whose marker may be above the high watermark: they hold the last stable offset back."""
        self.end_offset = 0
        """All batches below this offset are taken in."""

    def __repr__(self) -> str:
        return f"ProducerStates({len(self._producers)} producers, {len(self._open)} open, end={self.end_offset})"

    def __len__(self) -> int:
        return len(self._producers)

    def __contains__(self, producer_id: object) -> bool:
        return producer_id in self._producers

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ProducerStates):
            return NotImplemented
        return (
            self._open == other._open
            and self._producers.keys() == other._producers.keys()
            and all(p.as_tuple() == other._producers[i].as_tuple() for i, p in self._producers.items())
        )

    __hash__ = None  # type: ignore[assignment]

    def check(
        self, producer_id: int, epoch: int, base_sequence: int, last_sequence: int, *, is_transactional: bool = False
    ) -> AppendedBatch | None:
        """Judge a client's batch at the leader. The batch it duplicates, or None when it is the next one.

        Raises BrokerError: INVALID_PRODUCER_EPOCH (fenced), OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_TXN_STATE.
        """
        producer = self._producers.get(producer_id)
        if producer is None:
            # Nothing known (expired, or deleted with its segments): any sequence begins anew, as in Kafka since 2.5.
            return None
        if epoch < producer.epoch:
            raise BrokerError(
                ErrorCode.INVALID_PRODUCER_EPOCH,
                f"producer {producer_id} has epoch {epoch}, the log knows {producer.epoch}",
            )
        batches = producer.batches
        if epoch == producer.epoch:
            for batch in reversed(batches):
                if batch.last_sequence == last_sequence and batch.base_sequence == base_sequence:
                    return batch
            last = batches[-1].last_sequence if batches else -1
            expected = last + 1 if last < SEQUENCE_MAX else 0
        else:
            expected = 0
        if base_sequence != expected:
            raise BrokerError(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"producer {producer_id} epoch {epoch} sent sequence {base_sequence}, expected {expected}",
            )
        if producer.transaction_start >= 0 and not is_transactional:
            raise BrokerError(
                ErrorCode.INVALID_TXN_STATE, f"producer {producer_id} wrote outside of its open transaction"
            )
        return None

    def check_marker(self, producer_id: int, epoch: int, coordinator_epoch: int) -> None:
        """Judge an end-of-transaction marker at the leader.

        Raises BrokerError: INVALID_PRODUCER_EPOCH, TRANSACTION_COORDINATOR_FENCED.
        """
        producer = self._producers.get(producer_id)
        if producer is None:
            return
        if epoch < producer.epoch:
            raise BrokerError(
                ErrorCode.INVALID_PRODUCER_EPOCH,
                f"marker for producer {producer_id} has epoch {epoch}, the log knows {producer.epoch}",
            )
        if coordinator_epoch < producer.coordinator_epoch:
            raise BrokerError(
                ErrorCode.TRANSACTION_COORDINATOR_FENCED,
                f"marker of coordinator epoch {coordinator_epoch}, the log knows {producer.coordinator_epoch}",
            )

    def appended(
        self,
        producer_id: int,
        epoch: int,
        last_sequence: int,
        base_offset: int,
        last_offset: int,
        timestamp: int,
        is_transactional: bool,
    ) -> None:
        """A batch with a producer id was appended, by whatever role: it is history now and is not judged."""
        producer = self._take(producer_id, epoch)
        batches = producer.batches
        if len(batches) == BATCHES_KEPT:
            del batches[0]
        batches.append(AppendedBatch(last_sequence, last_offset, last_offset - base_offset, timestamp))
        producer.timestamp = timestamp
        if is_transactional and producer.transaction_start < 0:
            producer.transaction_start = base_offset
            self._open[producer_id] = base_offset
        self.end_offset = last_offset + 1

    def transaction_ended(
        self, producer_id: int, epoch: int, coordinator_epoch: int, committed: bool, offset: int, timestamp: int
    ) -> CompletedTransaction | None:
        """A marker was appended at ``offset``. The transaction it ends, or None if that had no records here."""
        producer = self._take(producer_id, epoch)
        producer.coordinator_epoch = coordinator_epoch
        producer.timestamp = timestamp
        self.end_offset = offset + 1
        first = self._open.pop(producer_id, None)
        producer.transaction_start = _NO_TRANSACTION
        if first is None:
            return None
        last_stable = min(self._open.values(), default=offset + 1)
        completed = CompletedTransaction(producer_id, first, offset, not committed, last_stable)
        self._unreplicated.append(completed)
        return completed

    def first_unstable_offset(self, high_watermark: int) -> int | None:
        """First offset of any transaction that is open or whose marker is not below ``high_watermark``; None without.

        The last stable offset is the smaller of it and the high watermark.
        """
        pending = self._unreplicated
        if pending:
            while pending and pending[0].last_offset < high_watermark:
                del pending[0]
        elif not self._open:
            return None
        starts = [completed.first_offset for completed in pending]
        starts.extend(self._open.values())
        return min(starts, default=None)

    def expire(self, now_ms: int, expiration_ms: int) -> int:
        """Forget producers that wrote nothing for ``expiration_ms`` (``producer.id.expiration.ms``), except those with
        an open transaction. The number forgotten."""
        gone = [
            producer_id
            for producer_id, producer in self._producers.items()
            if producer.transaction_start < 0 and now_ms - producer.timestamp >= expiration_ms
        ]
        for producer_id in gone:
            del self._producers[producer_id]
        return len(gone)

    def snapshot(self) -> list[ProducerEntry]:
        """What the ``.snapshot`` file holds, by producer id."""
        entries = []
        for producer_id in sorted(self._producers):
            producer = self._producers[producer_id]
            last = producer.batches[-1] if producer.batches else AppendedBatch(-1, -1, 0, producer.timestamp)
            entries.append(
                ProducerEntry(
                    producer_id,
                    producer.epoch,
                    last.last_sequence,
                    last.last_offset,
                    last.offset_delta,
                    producer.timestamp,
                    producer.coordinator_epoch,
                    producer.transaction_start,
                )
            )
        return entries

    def load(self, entries: Iterable[ProducerEntry], end_offset: int) -> None:
        """Begin again with a snapshot that was taken at ``end_offset``. Raises InvariantViolation for a producer id
        below 0."""
        self.clear()
        self.end_offset = end_offset
        opened: list[tuple[int, int]] = []
        for entry in entries:
            if entry.producer_id < 0:
                raise InvariantViolation(f"a snapshot with producer id {entry.producer_id}")
            producer = _Producer(entry.epoch)
            producer.timestamp = entry.timestamp
            producer.coordinator_epoch = entry.coordinator_epoch
            if entry.last_offset >= 0:
                producer.batches.append(
                    AppendedBatch(entry.last_sequence, entry.last_offset, entry.offset_delta, entry.timestamp)
                )
            if entry.transaction_start >= 0:
                producer.transaction_start = entry.transaction_start
                opened.append((entry.transaction_start, entry.producer_id))
            self._producers[entry.producer_id] = producer
        for start, producer_id in sorted(opened):
            self._open[producer_id] = start

    def clear(self) -> None:
        self._producers.clear()
        self._open.clear()
        self._unreplicated.clear()
        self.end_offset = 0

    def _take(self, producer_id: int, epoch: int) -> _Producer:
        producer = self._producers.get(producer_id)
        if producer is None:
            producer = self._producers[producer_id] = _Producer(epoch)
        elif producer.epoch != epoch:
            producer.epoch = epoch
            producer.batches.clear()
        return producer

"""Batches of idempotent producers that were refused a moment ago, so that a gap which they leave is not held against
those sent behind them.

A producer has up to five requests under way. Becoming leader (or the ISR growing) between two of them refuses the first
with an error that says "try again", and would refuse the second with OUT_OF_ORDER_SEQUENCE_NUMBER, which says "your
sequence is broken". librdkafka then raises its producer epoch and numbers the unanswered records of *all* partitions
anew, also those that a dead leader stored and could not acknowledge: they are stored twice. Kafka has this race.

A producer whose first batches these are is worse off in Kafka: a log takes any first sequence of a producer that it
does not know, so the second batch would be stored before the first, which could never be.
"""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from zkbroker.model.clock import Clock
from zkbroker.model.errors import ErrorCode
from zkbroker.records.batch import HEADER_BYTES, read_header

REFUSAL_SECONDS_MAX = 2.0
"""What was sent behind a refused batch arrives within the producer's round trip; a later gap is a real one."""

REFUSALS_MAX = 10_000
"""Producers and partitions remembered at a time; the oldest refusal is forgotten first."""

TRY_AGAIN = frozenset(
    (
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.KAFKA_STORAGE_ERROR,
    )
)
"""Errors after which a producer sends the same batch again; nothing was appended."""


class _Refusal(NamedTuple):
    producer_epoch: int
    base_sequence: int
    error: ErrorCode
    at: float
    """Monotonic seconds."""


class Refusals:
    """By (topic, partition, producer id) the first batch that is still to come again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._refused: dict[tuple[str, int, int], _Refusal] = {}

    def __repr__(self) -> str:
        return f"Refusals({len(self._refused)})"

    def __len__(self) -> int:
        return len(self._refused)

    def note(self, topic: str, partition: int, records: bytes | memoryview | None, error: ErrorCode) -> None:
        """This batch was refused with ``error`` before anything was appended."""
        if error not in TRY_AGAIN or records is None or len(records) < HEADER_BYTES:
            return
        header = read_header(records, 0)
        if header.magic != 2 or header.producer_id < 0:
            return
        key = (topic, partition, header.producer_id)
        known = self._refused.pop(key, None)
        now = self._clock.monotonic()
        base_sequence = header.base_sequence
        if known is not None and known.producer_epoch == header.producer_epoch and self._is_fresh(known, now):
            # Those behind the first are refused too: the first is the one that closes the gap.
            base_sequence = min(base_sequence, known.base_sequence)
        self._refused[key] = _Refusal(header.producer_epoch, base_sequence, error, now)
        if len(self._refused) > REFUSALS_MAX:
            del self._refused[next(iter(self._refused))]

    def instead_of_gap(
        self, topic: str, partition: int, records: bytes | memoryview, known: Container[int] = ()
    ) -> ErrorCode | None:
        """For a batch that came out of order: the error of the refused one before it, or None when the gap is real, or
        when its producer is among ``known``."""
        if len(records) < HEADER_BYTES:
            return None
        header = read_header(records, 0)
        if header.producer_id in known:
            return None
        refusal = self._refused.get((topic, partition, header.producer_id))
        if refusal is None or refusal.producer_epoch != header.producer_epoch:
            return None
        if refusal.base_sequence >= header.base_sequence or not self._is_fresh(refusal, self._clock.monotonic()):
            return None
        return refusal.error

    def appended(self, topic: str, partition: int, records: bytes | memoryview) -> None:
        """A batch was taken: if it is the refused one, the gap is closed. What is over is dropped: else a broker that
        refused a producer which went elsewhere would look at every later batch twice."""
        now = self._clock.monotonic()
        for known in list(self._refused):  # the oldest refusal first
            if self._is_fresh(self._refused[known], now):
                break
            del self._refused[known]
        header = read_header(records, 0)
        key = (topic, partition, header.producer_id)
        refusal = self._refused.get(key)
        if refusal is not None and (
            header.producer_epoch != refusal.producer_epoch or header.base_sequence >= refusal.base_sequence
        ):
            del self._refused[key]

    def _is_fresh(self, refusal: _Refusal, now: float) -> bool:
        return now - refusal.at < REFUSAL_SECONDS_MAX

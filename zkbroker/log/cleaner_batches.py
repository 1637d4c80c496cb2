"""What a compaction leaves of one batch. Offsets, sequences, epochs and codec stay; only records go.

Records are taken over byte for byte: the batch keeps its base offset and base timestamp, so their deltas still hold.
Only where the delete horizon (KIP-534) takes the place of the base timestamp the time deltas are written anew.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from zkbroker.log.cleaner_map import OffsetMap
from zkbroker.log.cleaner_transactions import CleanedTransactions
from zkbroker.records.batch import (
    CODEC_MASK,
    DELETE_HORIZON_BIT,
    HEADER_BYTES,
    LENGTH_OVERHEAD_BYTES,
    BatchHeader,
    corrupt,
    with_crc,
)
from zkbroker.records.codecs import compress, decompress
from zkbroker.records.record import DECOMPRESSED_BYTES_MAX, read_varint, write_varint

_HEADER = struct.Struct(">qiibIhiqqqhii")
_NO_TIMESTAMP = -1


class RawRecord(NamedTuple):
    """Where a record lies in the plain records of its batch, and what decides on it."""

    start: int
    end: int
    deltas_start: int
    """Behind the attributes byte: the timestamp delta."""
    offset_start: int
    """Behind the timestamp delta."""
    timestamp_delta: int
    offset_delta: int
    key: bytes | None
    has_value: bool


class LastWritten:
    """The batches of one producer by which its next is judged: the newest, and the newest of those that no crash takes.
    They stay, if need be without records."""

    __slots__ = ("_last_offsets", "_marker_epochs")

    def __init__(self) -> None:
        self._last_offsets: set[int] = set()
        self._marker_epochs: set[int] = set()

    def add(self, epoch: int, last_offset: int) -> None:
        """``last_offset`` -1: nothing but a marker is known."""
        if last_offset >= 0:
            self._last_offsets.add(last_offset)
        else:
            self._marker_epochs.add(epoch)

    def has(self, header: BatchHeader) -> bool:
        """Whether it is one of them."""
        if header.is_control:
            return header.producer_epoch in self._marker_epochs
        return header.last_offset in self._last_offsets


def split_records(body: bytes, count: int, base_offset: int) -> list[RawRecord]:
    """The records of a batch without their values and headers. Raises BrokerError CORRUPT_MESSAGE."""
    found: list[RawRecord] = []
    place = 0
    try:
        for _ in range(count):
            start = place
            # Most numbers have one byte: a call for each would take as long as all the rest.
            size, place = (body[place] >> 1, place + 1) if body[place] & 0x81 == 0 else read_varint(body, place)
            end = place + size
            if size < 1 or end > len(body):
                raise corrupt(f"a record of {size} bytes in the batch at {base_offset}")
            deltas_start = place + 1
            if body[deltas_start] & 0x81 == 0:
                timestamp_delta, offset_start = body[deltas_start] >> 1, deltas_start + 1
            else:
                timestamp_delta, offset_start = read_varint(body, deltas_start)
            if body[offset_start] & 0x81 == 0:
                offset_delta, place = body[offset_start] >> 1, offset_start + 1
            else:
                offset_delta, place = read_varint(body, offset_start)
            key_size, place = (body[place] >> 1, place + 1) if body[place] & 0x81 == 0 else read_varint(body, place)
            key = None
            if key_size >= 0:
                key = body[place : place + key_size]
                place += key_size
            value_size, place = read_varint(body, place)
            if place + max(value_size, 0) > end:
                raise corrupt(f"a field behind its record's end in the batch at {base_offset}")
            found.append(
                RawRecord(start, end, deltas_start, offset_start, timestamp_delta, offset_delta, key, value_size >= 0)
            )
            place = end
    except (IndexError, ValueError) as error:
        raise corrupt(f"a record of the batch at {base_offset} is malformed: {error}") from None
    if place != len(body):
        raise corrupt(f"{len(body) - place} bytes after the last record of the batch at {base_offset}")
    return found


def plain_records(batch: bytes, header: BatchHeader) -> tuple[bytes, list[RawRecord]]:
    """The records of a batch as plain bytes, and where each lies. Raises BrokerError."""
    body = decompress(header.codec, memoryview(batch)[HEADER_BYTES:], DECOMPRESSED_BYTES_MAX)
    return body, split_records(body, header.records_count, header.base_offset)


class BatchCleaner:
    """Decides on the batches of one log, met in order."""

    __slots__ = (
        "_delete_retention_ms",
        "_dirty_offset",
        "_map",
        "_now_ms",
        "_producers",
        "records_dropped",
        "transactions",
    )

    def __init__(
        self,
        offsets: OffsetMap,
        transactions: CleanedTransactions,
        producers: Mapping[int, LastWritten],
        *,
        dirty_offset: int,
        now_ms: int,
        delete_retention_ms: int,
    ) -> None:
        self._dirty_offset = dirty_offset
        self._map = offsets
        self.transactions = transactions
        self._producers = producers
        self._now_ms = now_ms
        self._delete_retention_ms = delete_retention_ms
        self.records_dropped = 0

    def clean(self, batch: bytes, header: BatchHeader, *, is_last: bool) -> bytes | None:
        """What is left of the batch: itself, a smaller one, or None.

        ``is_last``: of the segment that is made. It stays, if need be without a record, so that no segment ends before
        the next one begins: the log's end, and where a truncation cuts, must not depend on what was compacted.
        Raises BrokerError for a batch that cannot be read.
        """
        horizon = header.base_timestamp if header.attributes & DELETE_HORIZON_BIT else None
        if header.is_control:
            is_useless = self.transactions.met_control(batch, header)
            if not (is_useless and horizon is not None and horizon <= self._now_ms):
                if is_useless and horizon is None and header.records_count:
                    return self._rewrite(header, *plain_records(batch, header), self._new_horizon())
                if header.records_count or is_last or self._is_last_of_producer(header):
                    return batch
                return None
            kept: list[RawRecord] = []
            body, count = b"", header.records_count
        elif self.transactions.met_data(header):
            body, kept, count = b"", [], header.records_count
        else:
            if header.base_offset > self._map.latest_offset:
                return batch
            body, records = plain_records(batch, header)
            kept = [record for record in records if self._is_kept(record, header.base_offset, horizon)]
            count = len(records)
        self.records_dropped += count - len(kept)
        if not kept:
            if not (is_last or self._is_last_of_producer(header)):
                return None
            return batch if header.records_count == 0 else _empty(header)
        new_horizon = None
        # It may come from the leader with a horizon that is over, while what it deletes could be read here until now.
        is_over = horizon is not None and horizon <= self._now_ms and header.last_offset >= self._dirty_offset
        if (
            (horizon is None or is_over)
            # Not before all of the batch was compared: only then whatever these keys had before is gone.
            and header.last_offset <= self._map.latest_offset
            and not all(record.has_value for record in kept)
        ):
            new_horizon = self._new_horizon()
        if len(kept) == count and new_horizon is None:
            return batch
        return self._rewrite(header, body, kept, new_horizon)

    def _is_kept(self, record: RawRecord, base_offset: int, horizon: int | None) -> bool:
        offset = base_offset + record.offset_delta
        if offset > self._map.latest_offset:
            return True
        if record.key is None or offset < self._map.get(record.key):
            return False
        return record.has_value or horizon is None or self._now_ms < horizon or offset >= self._dirty_offset

    def _is_last_of_producer(self, header: BatchHeader) -> bool:
        """Its sequence, or for a marker its epoch, is what the producer's next batch is judged by."""
        last = self._producers.get(header.producer_id) if header.producer_id >= 0 else None
        return last is not None and last.has(header)

    def _new_horizon(self) -> int:
        return self._now_ms + self._delete_retention_ms

    def _rewrite(self, header: BatchHeader, body: bytes, kept: list[RawRecord], new_horizon: int | None) -> bytes:
        attributes, base_timestamp = header.attributes, header.base_timestamp
        largest = max(base_timestamp + record.timestamp_delta for record in kept)
        if new_horizon is None:
            payload = b"".join([body[record.start : record.end] for record in kept])
        else:
            shift = base_timestamp - new_horizon
            payload = _with_time_shifted(body, kept, shift)
            attributes |= DELETE_HORIZON_BIT
            base_timestamp = new_horizon
        if header.is_log_append_time:
            largest = header.max_timestamp
        return _pack(header, attributes, base_timestamp, largest, len(kept), compress(header.codec, payload))


def _with_time_shifted(body: bytes, records: list[RawRecord], shift: int) -> bytes:
    out = bytearray()
    for record in records:
        changed = bytearray()
        write_varint(record.timestamp_delta + shift, changed)
        attributes, rest = record.deltas_start - 1, body[record.offset_start : record.end]
        write_varint(1 + len(changed) + len(rest), out)
        out.append(body[attributes])
        out += changed
        out += rest
    return bytes(out)


def _empty(header: BatchHeader) -> bytes:
    """A batch without records: offsets, sequences, epochs and the largest timestamp, as Kafka keeps them."""
    attributes = header.attributes & ~(CODEC_MASK | DELETE_HORIZON_BIT)
    return _pack(header, attributes, _NO_TIMESTAMP, header.max_timestamp, 0, b"")


def _pack(
    header: BatchHeader, attributes: int, base_timestamp: int, max_timestamp: int, count: int, payload: bytes
) -> bytes:
    size = HEADER_BYTES + len(payload)
    batch = bytearray(size)
    _HEADER.pack_into(
        batch,
        0,
        header.base_offset,
        size - LENGTH_OVERHEAD_BYTES,
        header.leader_epoch,
        2,
        0,
        attributes,
        header.last_offset_delta,
        base_timestamp,
        max_timestamp,
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
        count,
    )
    batch[HEADER_BYTES:] = payload
    return with_crc(batch)

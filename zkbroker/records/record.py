"""Records inside a batch: built for tests, tools and internal topics; walked where a topic asks for it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.records.batch import (
    CONTROL_BIT,
    HEADER_BYTES,
    LENGTH_OVERHEAD_BYTES,
    LOG_APPEND_TIME_BIT,
    TRANSACTIONAL_BIT,
    BatchHeader,
    corrupt,
    with_crc,
)
from zkbroker.records.codecs import compress, decompress

DECOMPRESSED_BYTES_MAX = 256 * 1024 * 1024
"""What one batch may grow to when its records are walked: far above any sane batch, far below a machine's memory."""

_HEADER = struct.Struct(">qiibIhiqqqhii")
_END_TXN_KEY = struct.Struct(">hh")
_END_TXN_VALUE = struct.Struct(">hi")


class Record(NamedTuple):
    """One record. ``timestamp`` is in milliseconds since 1970."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class EndTransaction(NamedTuple):
    """A control batch's marker: how a transaction of its producer ended, and the coordinator's epoch."""

    committed: bool
    coordinator_epoch: int


def write_varint(value: int, out: bytearray) -> None:
    """Append ``value`` as Kafka's zig-zag variable-length integer (up to 64 bits)."""
    zigzag = (value << 1) ^ (value >> 63)
    while zigzag > 0x7F:
        out.append((zigzag & 0x7F) | 0x80)
        zigzag >>= 7
    out.append(zigzag)


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """(value, next position). Raises IndexError past the end, ValueError beyond 64 bits."""
    shift = result = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (result >> 1) ^ -(result & 1), position
        shift += 7
        if shift > 63:
            raise ValueError("a variable-length integer of more than ten bytes")


def build_batch(
    records: Sequence[Record],
    *,
    codec: int = 0,
    leader_epoch: int = -1,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    transactional: bool = False,
    control: bool = False,
    last_offset: int | None = None,
    level: int | None = None,
) -> bytes:
    """A batch of ``records`` at their own offsets, which rise; ``last_offset`` may lie beyond the last one's.

    Raises ValueError without records.
    """
    if not records:
        raise ValueError("a record batch has at least one record")
    base = records[0].offset
    base_timestamp = records[0].timestamp
    body = bytearray()
    for record in records:
        _write_record(record, record.offset - base, record.timestamp - base_timestamp, body)
    payload = compress(codec, bytes(body), level)
    attributes = codec | (TRANSACTIONAL_BIT if transactional else 0) | (CONTROL_BIT if control else 0)
    last = records[-1].offset if last_offset is None else last_offset
    max_timestamp = max(record.timestamp for record in records)
    size = HEADER_BYTES + len(payload)
    batch = bytearray(size)
    _HEADER.pack_into(
        batch,
        0,
        base,
        size - LENGTH_OVERHEAD_BYTES,
        leader_epoch,
        2,
        0,
        attributes,
        last - base,
        base_timestamp,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        len(records),
    )
    batch[HEADER_BYTES:] = payload
    return with_crc(batch)


def build_end_transaction(
    offset: int, timestamp: int, producer_id: int, producer_epoch: int, marker: EndTransaction
) -> bytes:
    """The control batch with which a transaction coordinator ends a transaction in one partition."""
    record = Record(
        offset,
        timestamp,
        _END_TXN_KEY.pack(0, 1 if marker.committed else 0),
        _END_TXN_VALUE.pack(0, marker.coordinator_epoch),
    )
    return build_batch(
        [record], producer_id=producer_id, producer_epoch=producer_epoch, transactional=True, control=True
    )


def records_of(batch: bytes | memoryview, header: BatchHeader, position: int = 0) -> Iterator[Record]:
    """The records of the batch at ``position``, with its codec undone.

    Raises BrokerError: CORRUPT_MESSAGE or INVALID_RECORD where the bytes are no records, MESSAGE_TOO_LARGE if they
    grow beyond DECOMPRESSED_BYTES_MAX.
    """
    yield from records_in(plain_body(batch, header, position), header)


def plain_body(batch: bytes | memoryview, header: BatchHeader, position: int = 0) -> bytes:
    """What lies behind the header of the batch at ``position``, with its codec undone. Raises as ``records_of``."""
    payload = memoryview(batch)[position + HEADER_BYTES : position + header.length + LENGTH_OVERHEAD_BYTES]
    return decompress(header.attributes & 0x07, payload, DECOMPRESSED_BYTES_MAX)


def records_in(body: bytes, header: BatchHeader) -> Iterator[Record]:
    """The records of a ``plain_body``. Raises as ``records_of``."""
    append_time = header.max_timestamp if header.attributes & LOG_APPEND_TIME_BIT else None
    place = 0
    for _ in range(header.records_count):
        try:
            record, place = _read_record(body, place, header, append_time)
        except (IndexError, ValueError) as error:
            raise BrokerError(
                ErrorCode.INVALID_RECORD, f"a record of the batch at {header.base_offset} is malformed: {error}"
            ) from None
        yield record
    if place != len(body):
        raise corrupt(f"{len(body) - place} bytes after the last record of the batch at {header.base_offset}")


def end_transaction_of(batch: bytes | memoryview, header: BatchHeader, position: int = 0) -> EndTransaction | None:
    """The marker of a control batch; None for a control record of another kind, and for a batch that a compaction
    emptied, as the whole transaction is gone. Raises as ``records_of``."""
    for record in records_of(batch, header, position):
        key, value = record.key, record.value
        if key is None or len(key) < 4 or value is None:
            raise corrupt(f"the control batch at {header.base_offset} has no marker")
        kind = _END_TXN_KEY.unpack_from(key)[1]
        if kind not in (0, 1):
            return None
        if len(value) < 6:
            raise corrupt(f"the marker at {header.base_offset} is too short")
        return EndTransaction(kind == 1, _END_TXN_VALUE.unpack_from(value)[1])
    return None


def _write_record(record: Record, offset_delta: int, timestamp_delta: int, out: bytearray) -> None:
    body = bytearray(b"\x00")
    write_varint(timestamp_delta, body)
    write_varint(offset_delta, body)
    for field in (record.key, record.value):
        if field is None:
            write_varint(-1, body)
        else:
            write_varint(len(field), body)
            body += field
    write_varint(len(record.headers), body)
    for name, content in record.headers:
        encoded = name.encode()
        write_varint(len(encoded), body)
        body += encoded
        if content is None:
            write_varint(-1, body)
        else:
            write_varint(len(content), body)
            body += content
    write_varint(len(body), out)
    out += body


def _read_record(body: bytes, place: int, header: BatchHeader, append_time: int | None) -> tuple[Record, int]:
    size, place = read_varint(body, place)
    end = place + size
    if size < RECORD_BODY_BYTES_MIN or end > len(body):
        raise ValueError(f"a size of {size}")
    place += 1
    timestamp_delta, place = read_varint(body, place)
    offset_delta, place = read_varint(body, place)
    key, place = _read_bytes(body, place, end)
    value, place = _read_bytes(body, place, end)
    header_count, place = read_varint(body, place)
    if header_count < 0 or header_count > end - place:
        raise ValueError(f"{header_count} headers")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(header_count):
        name, place = _read_bytes(body, place, end)
        if name is None:
            raise ValueError("a header without a name")
        content, place = _read_bytes(body, place, end)
        headers.append((name.decode("utf-8", "replace"), content))
    if place != end:
        raise ValueError("its size and its fields differ")
    timestamp = append_time if append_time is not None else header.base_timestamp + timestamp_delta
    return Record(header.base_offset + offset_delta, timestamp, key, value, tuple(headers)), end


RECORD_BODY_BYTES_MIN = 6
"""A record's size field counts what follows it: RECORD_BYTES_MIN less its own byte."""


def _read_bytes(body: bytes, place: int, end: int) -> tuple[bytes | None, int]:
    size, place = read_varint(body, place)
    if size < 0:
        return None, place
    if place + size > end:
        raise ValueError(f"a field of {size} bytes")
    return body[place : place + size], place + size

"""Produced records looked at one by one, where a topic asks for it (compaction, a codec of its own, full validation).

This runs on the reactor: no record becomes an object, and what one batch may hold is bounded.
"""

from __future__ import annotations

import struct

from zkbroker.model.errors import BadRecord, BrokerError, ErrorCode, RecordsRefused
from zkbroker.records.batch import (
    CODEC_MASK,
    HEADER_BYTES,
    LENGTH_OVERHEAD_BYTES,
    BatchHeader,
    corrupt,
    with_crc,
)
from zkbroker.records.codecs import compress, decompress
from zkbroker.records.record import RECORD_BODY_BYTES_MIN, read_varint

UNPACKED_BYTES_MAX = 64 * 1024 * 1024
"""What a batch that is looked at may grow to: 60 times as much as a batch of the default max.message.bytes."""

RECORDS_MAX = 500_000
"""Records that it may hold: about a second of work. A batch of the default max.message.bytes holds 150,000 of the
smallest when it is not compressed."""

_TIMESTAMP_MAX = 2**63 - 1
_LENGTH = struct.Struct(">i")
_ATTRIBUTES = struct.Struct(">h")
_MAX_TIMESTAMP = struct.Struct(">q")


def unpack(batch: bytes, header: BatchHeader) -> bytes:
    """The records of the batch as plain bytes.

    Raises BrokerError: CORRUPT_MESSAGE, MESSAGE_TOO_LARGE, UNSUPPORTED_COMPRESSION_TYPE.
    """
    if header.records_count > RECORDS_MAX:
        raise BrokerError(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"a batch of {header.records_count} records; where each is looked at there may be {RECORDS_MAX}",
        )
    payload = memoryview(batch)[HEADER_BYTES : header.length + LENGTH_OVERHEAD_BYTES]
    return decompress(header.attributes & CODEC_MASK, payload, UNPACKED_BYTES_MAX)


def scan(body: bytes, header: BatchHeader, *, keys_required: bool) -> int:
    """Check that ``body`` is exactly the header's number of whole records, with offsets that count up from its base
    and, where they are required, with keys. The largest timestamp among them.

    Raises BrokerError: INVALID_RECORD (RecordsRefused where keys are missing), CORRUPT_MESSAGE.
    """
    place = 0
    index = 0
    largest = -1
    base_timestamp = header.base_timestamp
    keyless: list[BadRecord] = []
    try:
        for index in range(header.records_count):
            byte = body[place]
            if byte < 128:
                size, place = (byte >> 1) ^ -(byte & 1), place + 1
            else:
                size, place = read_varint(body, place)
            end = place + size
            if size < RECORD_BODY_BYTES_MIN or end > len(body):
                raise ValueError(f"a size of {size}")
            place += 1  # its attributes: nothing is defined
            byte = body[place]
            if byte < 128:
                delta, place = (byte >> 1) ^ -(byte & 1), place + 1
            else:
                delta, place = read_varint(body, place)
            if base_timestamp + delta > largest:
                largest = base_timestamp + delta
            delta, place = read_varint(body, place)
            if delta != index:
                raise ValueError(f"its offset delta is {delta}")
            size, place = read_varint(body, place)
            if size >= 0:
                place += size
            elif keys_required:
                keyless.append(BadRecord(index, "a compacted topic needs a key in every record"))
            size, place = read_varint(body, place)
            if size > 0:
                place += size
            if place >= end:
                raise ValueError("a field is longer than the record")
            count, place = (body[place] >> 1, place + 1) if body[place] in (0, 2) else read_varint(body, place)
            if count:
                place = _past_headers(body, place, count, end)
            if place != end:
                raise ValueError("its size and its fields differ")
    except (IndexError, ValueError) as error:
        raise BrokerError(ErrorCode.INVALID_RECORD, f"record {index} of the batch is malformed: {error}") from None
    if place != len(body):
        raise corrupt(f"{len(body) - place} bytes after the last record of the batch")
    if largest > _TIMESTAMP_MAX:
        raise BrokerError(ErrorCode.INVALID_RECORD, f"a timestamp of {largest}")
    if keyless:
        raise RecordsRefused(ErrorCode.INVALID_RECORD, keyless)
    return largest


def _past_headers(body: bytes, place: int, count: int, end: int) -> int:
    if count < 0 or count > end - place:
        raise ValueError(f"{count} headers")
    for _ in range(count):
        size, place = read_varint(body, place)
        if size < 0:
            raise ValueError("a header without a name")
        place += size
        size, place = read_varint(body, place)
        if size > 0:
            place += size
        if place > end:
            raise ValueError("a header is longer than the record")
    return place


def with_max_timestamp(batch: bytes, timestamp_ms: int) -> bytes:
    """The batch with what really is the largest timestamp of its records: some clients do not tell it right."""
    changed = bytearray(batch)
    _MAX_TIMESTAMP.pack_into(changed, 35, timestamp_ms)
    return with_crc(changed)


def repacked(
    batch: bytes, header: BatchHeader, body: bytes, codec: int, level: int | None, max_timestamp: int
) -> bytes:
    """The batch with its ``body`` in another codec (``compression.type`` other than producer)."""
    payload = compress(codec, body, level)
    changed = bytearray(batch[:HEADER_BYTES])
    changed += payload
    _LENGTH.pack_into(changed, 8, len(changed) - LENGTH_OVERHEAD_BYTES)
    _ATTRIBUTES.pack_into(changed, 21, header.attributes & ~CODEC_MASK | codec)
    _MAX_TIMESTAMP.pack_into(changed, 35, max_timestamp)
    return with_crc(changed)

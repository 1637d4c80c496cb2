"""Record batches as the checkers read them: their own walker over raw bytes, from the format's description alone.

Fields of a batch, big-endian, by byte: base offset 0 (8), length of what follows it 8 (4), leader epoch 12 (4), magic
16 (1), CRC-32C 17 (4) of everything from 21, attributes 21 (2), last offset delta 23 (4), timestamps 27 (8) and 35 (8),
producer id 43 (8), producer epoch 51 (2), base sequence 53 (4), number of records 57 (4), records from 61.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from crc32c import crc32c

_FIELDS = struct.Struct(">qiibIhiqqqhii")
_BATCH_MIN = _FIELDS.size


class Batch(NamedTuple):
    base: int
    """Offset of its first record."""
    end: int
    """Offset behind its last record."""
    epoch: int
    position: int
    """Of its first byte in the file."""
    producer_id: int
    producer_epoch: int
    sequence: int
    """Of its first record, -1 without an idempotent producer."""
    timestamp: int
    """The largest of its records."""
    data: bytes

    @property
    def last_sequence(self) -> int:
        if self.sequence < 0:
            return -1
        return (self.sequence + self.end - self.base - 1) & 0x7FFFFFFF


def walk(content: bytes | bytearray, position: int = 0) -> Iterator[Batch]:
    """The whole batches from ``position`` on; stops at the first byte that begins none."""
    size = len(content)
    while position + _BATCH_MIN <= size:
        base, length, epoch, magic, _, _, delta, _, timestamp, pid, producer_epoch, sequence, _ = _FIELDS.unpack_from(
            content, position
        )
        after = position + 12 + length
        if magic != 2 or length < _BATCH_MIN - 12 or after > size:
            return
        yield Batch(
            base,
            base + delta + 1,
            epoch,
            position,
            pid,
            producer_epoch,
            sequence,
            timestamp,
            bytes(content[position:after]),
        )
        position = after


def is_intact(data: bytes) -> bool:
    """Whether the CRC of one batch is that of its bytes."""
    return bool(crc32c(data[21:]) == int.from_bytes(data[17:21], "big"))


def same_content(one: bytes, other: bytes) -> bool:
    """Whether two batches differ at most in what a leader stamps: base offset and leader epoch."""
    return one[16:] == other[16:] and one[8:12] == other[8:12]


def values_of(data: bytes) -> list[bytes]:
    """The value of each record of an uncompressed batch."""
    (count,) = struct.unpack_from(">i", data, 57)
    position = _BATCH_MIN
    values = []
    for _ in range(count):
        size, position = _varint(data, position)
        after = position + size
        position += 1
        for _ in range(2):
            _, position = _varint(data, position)
        key, position = _varint(data, position)
        position += max(key, 0)
        value, position = _varint(data, position)
        values.append(data[position : position + max(value, 0)])
        position = after
    return values


def _varint(data: bytes, position: int) -> tuple[int, int]:
    found = shift = 0
    while True:
        byte = data[position]
        position += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (found >> 1) ^ -(found & 1), position
        shift += 7

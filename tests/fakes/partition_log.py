"""The record batches of one partition in memory, as they came."""

from __future__ import annotations

import struct

from zkbroker.model.errors import BrokerError, ErrorCode


def batches_of(records: bytes | memoryview) -> list[bytearray]:
    """Cut a produce field into its record batches."""
    found = []
    position = 0
    while position + 61 <= len(records):
        (length,) = struct.unpack_from(">i", records, position + 8)
        if length < 49:
            raise BrokerError(ErrorCode.CORRUPT_MESSAGE, "a batch is shorter than its header")
        found.append(bytearray(records[position : position + 12 + length]))
        position += 12 + length
    if position != len(records):
        raise BrokerError(ErrorCode.CORRUPT_MESSAGE, "bytes after the last batch")
    return found


class FakeLog:
    """Batches of one partition: (base offset, next offset, max timestamp, bytes)."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int, int, bytes]] = []
        self.end = 0

    def append(self, records: bytes | memoryview) -> int:
        base = self.end
        for batch in batches_of(records):
            (delta,) = struct.unpack_from(">i", batch, 23)
            (timestamp,) = struct.unpack_from(">q", batch, 35)
            struct.pack_into(">q", batch, 0, self.end)
            struct.pack_into(">i", batch, 12, 0)
            self.batches.append((self.end, self.end + delta + 1, timestamp, bytes(batch)))
            self.end += delta + 1
        return base

    def read(self, offset: int, max_bytes: int) -> list[bytes]:
        found: list[bytes] = []
        size = 0
        for _, after, _, batch in self.batches:
            if after <= offset:
                continue
            if found and size + len(batch) > max_bytes:
                break
            found.append(batch)
            size += len(batch)
        return found

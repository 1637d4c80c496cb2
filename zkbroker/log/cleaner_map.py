"""The last offset of each key while a log is compacted, in memory whose size is fixed beforehand."""

from __future__ import annotations

import mmap
import struct
from hashlib import blake2b

SLOT_BYTES = 24
"""A 16-byte digest of the key and its last offset: as large as a slot of Kafka's map."""
_SLOT_WORDS = 3
_DIGEST = struct.Struct("=QQ")


class OffsetMap:
    """Open addressing over one block of anonymous memory: pages that are never touched are never there.

    Keys are known by their digest only (Kafka's way too, with MD5): of two keys with the same digest one would be lost,
    so the digest is one for which nobody can find such a pair.
    """

    __slots__ = ("_cells", "_slots", "capacity", "latest_offset", "size")

    def __init__(self, bytes_max: int, load_factor: float) -> None:
        self._slots = max(2, bytes_max // SLOT_BYTES)
        self.capacity = max(1, min(int(self._slots * load_factor), self._slots - 1))
        """How many keys it takes; one slot stays empty, so that every search ends."""
        memory = mmap.mmap(-1, self._slots * SLOT_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._cells = memoryview(memory).cast("Q")
        self.size = 0
        self.latest_offset = -1
        """All keys up to and with this offset, from where the map began, are in it."""

    def __repr__(self) -> str:
        return f"OffsetMap({self.size} of {self.capacity} keys, up to {self.latest_offset})"

    def put(self, key: bytes, offset: int) -> bool:
        """Note the key's newest offset; offsets rise from call to call. False if there is no room for a new key."""
        place, is_known = self._find(key)
        if not is_known:
            if self.size >= self.capacity:
                return False
            self.size += 1
        # An empty slot is one whose last word is 0.
        self._cells[place + 2] = offset + 1
        return True

    def get(self, key: bytes) -> int:
        """The key's newest offset, -1 if it is not in the map."""
        place, is_known = self._find(key)
        return self._cells[place + 2] - 1 if is_known else -1

    def _find(self, key: bytes) -> tuple[int, bool]:
        """The slot with that key; or the empty one where it belongs, its digest filled in."""
        first, second = _DIGEST.unpack(blake2b(key, digest_size=16).digest())
        cells = self._cells
        slot = first % self._slots
        while True:
            place = slot * _SLOT_WORDS
            if cells[place + 2] == 0:
                cells[place], cells[place + 1] = first, second
                return place, False
            if cells[place] == first and cells[place + 1] == second:
                return place, True
            slot = slot + 1 if slot + 1 < self._slots else 0

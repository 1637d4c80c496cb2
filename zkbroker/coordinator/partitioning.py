"""Which partition of ``__consumer_offsets`` a group belongs to."""

from __future__ import annotations

import functools
import struct

from zkbroker.coordinator.fields import STRING_BYTES_MAX

CACHED_GROUPS_MAX = 4_096
CACHED_NAME_LENGTH_MAX = 256
"""Hashes of names up to this length are kept, of so many (a megabyte): each heartbeat of each member asks for one, and
a fifth of its cost was this."""


def java_hash(text: str) -> int:
    """``String.hashCode()``: over UTF-16 units, in 32 bits with a sign."""
    encoded = text.encode("utf-16-be", "surrogatepass")
    total = 0
    for unit in struct.unpack(f">{len(encoded) // 2}H", encoded):
        total = (total * 31 + unit) & 0xFFFFFFFF
    return total - (1 << 32) if total >= 1 << 31 else total


def partition_for(group_id: str, partitions: int) -> int:
    """Kafka's ``Utils.abs(groupId.hashCode) % partitions``, where the abs of the smallest integer is 0."""
    if len(group_id) <= CACHED_NAME_LENGTH_MAX:
        hashed = _cached_hash(group_id)
    else:
        # No longer id is ever stored: wherever it goes, it is refused. Hashing megabytes would hold up the reactor.
        hashed = java_hash(group_id[:STRING_BYTES_MAX])
    return (0 if hashed == -(1 << 31) else abs(hashed)) % partitions


_cached_hash = functools.lru_cache(CACHED_GROUPS_MAX)(java_hash)

"""Which partition of ``__consumer_offsets`` a group belongs to."""

from __future__ import annotations

import struct

from zkbroker.coordinator.fields import STRING_BYTES_MAX


def java_hash(text: str) -> int:
    """``String.hashCode()``: over UTF-16 units, in 32 bits with a sign."""
    encoded = text.encode("utf-16-be", "surrogatepass")
    total = 0
    for unit in struct.unpack(f">{len(encoded) // 2}H", encoded):
        total = (total * 31 + unit) & 0xFFFFFFFF
    return total - (1 << 32) if total >= 1 << 31 else total


def partition_for(group_id: str, partitions: int) -> int:
    """Kafka's ``Utils.abs(groupId.hashCode) % partitions``, where the abs of the smallest integer is 0."""
    # No longer id is ever stored: wherever it goes, it is refused there. Hashing megabytes would hold up the reactor.
    hashed = java_hash(group_id[:STRING_BYTES_MAX])
    return (0 if hashed == -(1 << 31) else abs(hashed)) % partitions

"""The topics a consumer subscribed to, out of the metadata that it sends with JoinGroup.

To the coordinator this is opaque, except that offsets of a subscribed topic neither expire nor may be deleted. It is a
ConsumerProtocolSubscription: a version, an array of topic names, and more in later versions, each of which begins as
version 0 does.
"""

from __future__ import annotations

import struct

from zkbroker.coordinator.fields import FieldReader

PROTOCOL_TYPE = "consumer"


def subscribed_topics(metadata: bytes) -> tuple[str, ...] | None:
    """None where the metadata is of another kind."""
    try:
        reader = FieldReader(metadata)
        if reader.i16() < 0:
            return None
        return tuple(reader.string() for _ in range(reader.array_length()))
    except (struct.error, IndexError, ValueError):
        return None

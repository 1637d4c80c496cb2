"""KIP-951: along with NOT_LEADER_OR_FOLLOWER a response names the new leader and how to reach it, as tagged fields."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from zkbroker.kafka.ports import CurrentLeader
from zkbroker.kafka.request import Services
from zkbroker.kafka.wire import encode_string, encode_uvarint

_LEADER = struct.Struct(">iib")
_I32 = struct.Struct(">i")


def encode_current_leader(tag: int, leader: CurrentLeader) -> bytes:
    """One tagged field ``CurrentLeader``: id, epoch, no tags of its own."""
    return encode_uvarint(tag) + b"\x09" + _LEADER.pack(leader.leader, leader.leader_epoch, 0)


def encode_node_endpoints(leaders: Sequence[CurrentLeader], services: Services | None) -> bytes:
    """The last bytes of a flexible response: the tagged field ``NodeEndpoints`` (tag 0), or no tags."""
    if not leaders or services is None:
        return b"\x00"
    wanted = {leader.leader for leader in leaders}
    views = [view for view in services.metadata.brokers(services.listener) if view.broker_id in wanted]
    if not views:
        return b"\x00"
    value = bytearray(encode_uvarint(len(views) + 1))
    for view in views:
        value += _I32.pack(view.broker_id) + encode_string(view.host, True)
        value += _I32.pack(view.port) + encode_string(view.rack, True) + b"\x00"
    return b"\x01\x00" + encode_uvarint(len(value)) + bytes(value)

"""``/controller``: the ephemeral znode of the broker in office; ``/controller_epoch``: how often it changed hands.

Examples::

    {"version":2,"brokerid":3,"timestamp":"1795337085697","kraftControllerEpoch":-1}

and the plain text ``1``. Versions 1 and 2 of the first are read.
"""

from __future__ import annotations

from typing import NamedTuple

from zkbroker.zookeeper.znodes.codec import dump, load, load_text, parse_int

PATH = "/controller"
EPOCH_PATH = "/controller_epoch"

VERSION = 2

EPOCH_INITIAL = 0
"""What ``/controller_epoch`` is created with; the first election makes it 1."""


class ControllerInfo(NamedTuple):
    broker_id: int
    timestamp_ms: int = 0
    """When the office was won, by the winner's clock; 0 if the znode has no such number."""
    kraft_controller_epoch: int = -1
    """Not negative while a KRaft quorum holds the office to migrate the cluster away from ZooKeeper."""


def encode(broker_id: int, *, timestamp_ms: int, kraft_controller_epoch: int = -1) -> bytes:
    return dump(
        {
            "version": VERSION,
            "brokerid": broker_id,
            "timestamp": str(timestamp_ms),
            "kraftControllerEpoch": kraft_controller_epoch,
        }
    )


def decode(data: bytes) -> ControllerInfo:
    """Raises ZnodeError."""
    fields = load(PATH, data)
    timestamp = fields.values.get("timestamp")
    known = isinstance(timestamp, str) and timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 19
    return ControllerInfo(
        fields.number("brokerid", minimum=-1),
        int(str(timestamp)) if known else 0,
        fields.number("kraftControllerEpoch", -1, minimum=-1),
    )


def encode_epoch(epoch: int) -> bytes:
    return str(epoch).encode("ascii")


def decode_epoch(data: bytes) -> int:
    """Raises ZnodeError."""
    return parse_int(EPOCH_PATH, "the controller epoch", load_text(EPOCH_PATH, data))

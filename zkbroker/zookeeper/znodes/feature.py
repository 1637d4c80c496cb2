"""``/feature``: finalized feature levels of the cluster; written by the controller, none in a ZooKeeper cluster.

Example::

    {"features":{},"version":2,"status":1}

A feature's value is ``{"max_version_level":n}``; version 1 had a ``min_version_level`` besides, which is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from zkbroker.zookeeper.znodes.codec import Fields, dump, load

PATH = "/feature"

VERSION = 2

DISABLED = 0
ENABLED = 1


class FeatureLevels(NamedTuple):
    is_enabled: bool = True
    levels: Mapping[str, int] = {}
    """Feature → finalized maximal version level."""


def encode(features: FeatureLevels) -> bytes:
    levels = {name: {"max_version_level": level} for name, level in features.levels.items()}
    return dump({"features": levels, "version": VERSION, "status": ENABLED if features.is_enabled else DISABLED})


def decode(data: bytes) -> FeatureLevels:
    """Raises ZnodeError."""
    fields = load(PATH, data)
    fields.number("version", minimum=1, maximum=VERSION)
    status = fields.number("status", maximum=ENABLED)
    levels = {}
    for name, value in fields.object("features").items():
        if not isinstance(value, dict):
            raise fields.fail(f"feature {name!r} is not an object")
        levels[name] = Fields(PATH, value).number("max_version_level", maximum=2**15 - 1)
    return FeatureLevels(status == ENABLED, levels)

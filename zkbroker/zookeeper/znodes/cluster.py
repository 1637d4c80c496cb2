"""``/cluster/id``: the id that every log folder of the cluster carries too; written once, by the first broker.

Example (the version is a string)::

    {"version":"1","id":"EvpHDamLThiPwyNw91Kx0w"}
"""

from __future__ import annotations

from zkbroker.zookeeper.znodes.codec import dump, load

PATH = "/cluster/id"


def encode(cluster_id: str) -> bytes:
    return dump({"version": "1", "id": cluster_id})


def decode(data: bytes) -> str:
    """Raises ZnodeError."""
    fields = load(PATH, data)
    cluster_id = fields.text("id")
    if not cluster_id:
        raise fields.fail("'id' is empty")
    return cluster_id

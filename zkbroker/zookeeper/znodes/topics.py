"""``/brokers/topics/T``: which brokers hold the replicas of a topic's partitions.

Example (``adding_replicas`` and ``removing_replicas`` are keyed like ``partitions``)::

    {"partitions":{"0":[1,2,3],"1":[2,3,1]},"topic_id":"HUZdS2QlRPWWZBLZPv1EaQ",
     "adding_replicas":{},"removing_replicas":{},"version":3}

Version 1 has partitions only, 2 the adding and removing ones, 3 the topic id. Like Kafka, a decode looks at what is
there, not at the version. Below it are ``partitions`` and ``partitions/P`` (both empty) and ``partitions/P/state``,
which is in states.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from zkbroker.model.topics import topic_id_from_uuid, topic_id_to_uuid
from zkbroker.zookeeper.znodes.codec import Fields, dump, load, parse_int

TOPICS_PATH = "/brokers/topics"

VERSION = 3

_TOPIC_ID = re.compile(r"[A-Za-z0-9_-]{22}(==)?\Z", re.ASCII)


class TopicAssignment(NamedTuple):
    """The content of a topic's znode. Partition ids can have gaps, as in Kafka."""

    topic_id: str
    """22 characters; empty for a znode of version 1 or 2, until the controller gives it one."""
    partitions: Mapping[int, tuple[int, ...]]
    """Partition → replicas, the adding and removing ones among them; ascending by partition."""
    adding: Mapping[int, tuple[int, ...]] = {}
    """Partition → replicas being added; only those that have some."""
    removing: Mapping[int, tuple[int, ...]] = {}


def topic_path(topic: str) -> str:
    return f"{TOPICS_PATH}/{topic}"


def partitions_path(topic: str) -> str:
    return f"{TOPICS_PATH}/{topic}/partitions"


def partition_path(topic: str, partition: int) -> str:
    return f"{TOPICS_PATH}/{topic}/partitions/{partition}"


def encode(assignment: TopicAssignment) -> bytes:
    value: dict[str, Any] = {"partitions": _by_name(assignment.partitions)}
    if assignment.topic_id:
        value["topic_id"] = assignment.topic_id
    value["adding_replicas"] = _by_name({partition: some for partition, some in assignment.adding.items() if some})
    value["removing_replicas"] = _by_name({partition: some for partition, some in assignment.removing.items() if some})
    value["version"] = VERSION if assignment.topic_id else 2
    return dump(value)


def decode(path: str, data: bytes) -> TopicAssignment:
    """Raises ZnodeError, also for a partition without replicas and for adding or removing what is no replica."""
    fields = load(path, data)
    topic_id = ""
    if fields.has("topic_id"):
        topic_id = fields.text("topic_id")
        if not _TOPIC_ID.match(topic_id):
            raise fields.fail(f"'topic_id' is {topic_id[:40]!r}, not 22 characters of base64url")
        topic_id = topic_id_from_uuid(topic_id_to_uuid(topic_id[:22]))
    partitions = _by_partition(fields, "partitions")
    for partition, replicas in partitions.items():
        if not replicas:
            raise fields.fail(f"partition {partition} has no replicas")
    adding = _changing(fields, "adding_replicas", partitions)
    removing = _changing(fields, "removing_replicas", partitions)
    return TopicAssignment(topic_id, partitions, adding, removing)


def _by_name(replicas: Mapping[int, tuple[int, ...]]) -> dict[str, list[int]]:
    return {str(partition): list(replicas[partition]) for partition in sorted(replicas)}


def _by_partition(fields: Fields, key: str) -> dict[int, tuple[int, ...]]:
    found = {}
    for name, value in fields.object(key, required=False).items():
        partition = parse_int(fields.path, f"a partition of {key!r}", name)
        found[partition] = fields.as_numbers(key, value)
    return dict(sorted(found.items()))


def _changing(fields: Fields, key: str, partitions: Mapping[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    changing = {}
    for partition, replicas in _by_partition(fields, key).items():
        # Kafka looks these up by the partitions that exist, and so never sees the others.
        if partition not in partitions or not replicas:
            continue
        strangers = [replica for replica in replicas if replica not in partitions[partition]]
        if strangers:
            raise fields.fail(f"{key!r} of partition {partition} names {strangers}, which are not among its replicas")
        changing[partition] = replicas
    return changing

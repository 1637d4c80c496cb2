"""``/admin``: what tools ask the controller for. It removes each when it has taken it up.

- ``/admin/delete_topics/T``: empty; delete topic T.
- ``/admin/reassign_partitions``:
  ``{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[1,2]}]}``
- ``/admin/preferred_replica_election``: ``{"version":1,"partitions":[{"topic":"t","partition":0}]}``
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from zkbroker.model.topics import TopicPartition
from zkbroker.zookeeper.znodes.codec import Fields, dump, load

DELETE_TOPICS_PATH = "/admin/delete_topics"
REASSIGN_PARTITIONS_PATH = "/admin/reassign_partitions"
PREFERRED_ELECTION_PATH = "/admin/preferred_replica_election"

VERSION = 1


def delete_topic_path(topic: str) -> str:
    return f"{DELETE_TOPICS_PATH}/{topic}"


def encode_reassignment(reassignment: Mapping[TopicPartition, tuple[int, ...]]) -> bytes:
    partitions = [
        {"topic": partition.topic, "partition": partition.partition, "replicas": list(replicas)}
        for partition, replicas in reassignment.items()
    ]
    return dump({"version": VERSION, "partitions": partitions})


def decode_reassignment(data: bytes) -> dict[TopicPartition, tuple[int, ...]]:
    """Partition → wanted replicas; of two entries for one partition the later counts. Raises ZnodeError."""
    fields = load(REASSIGN_PARTITIONS_PATH, data)
    return {partition_of(entry): entry.numbers("replicas") for entry in _entries(fields)}


def encode_preferred_election(partitions: Iterable[TopicPartition]) -> bytes:
    return dump({"version": VERSION, "partitions": [encode_partition(partition) for partition in partitions]})


def decode_preferred_election(data: bytes) -> tuple[TopicPartition, ...]:
    """Each partition once, in order. Raises ZnodeError."""
    fields = load(PREFERRED_ELECTION_PATH, data)
    return tuple(dict.fromkeys(partition_of(entry) for entry in _entries(fields)))


def encode_partition(partition: TopicPartition) -> dict[str, str | int]:
    """One entry of a ``partitions`` list."""
    return {"topic": partition.topic, "partition": partition.partition}


def partition_of(entry: Fields) -> TopicPartition:
    """The partition that one entry of a ``partitions`` list names. Raises ZnodeError."""
    return TopicPartition(entry.text("topic"), entry.number("partition"))


def _entries(fields: Fields) -> list[Fields]:
    # Kafka takes a document without the list for an empty one.
    return fields.objects("partitions") if fields.has("partitions") else []

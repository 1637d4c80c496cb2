"""What administrators may ask: requests for topics and partitions checked against the image, with Kafka's errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from zkbroker.controller.assignment import Assignment, assign_replicas, extend_assignment
from zkbroker.controller.cluster_image import ClusterImage
from zkbroker.controller.reassignment import is_moving
from zkbroker.model.channel import NewTopic
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topics import topic_name_error

KEYED_TOPICS = frozenset(("__consumer_offsets", "__transaction_state"))
"""What coordinators keep lies where the hash of its key modulo the number of partitions says: with another number it
would be looked for elsewhere. (Kafka allows it, and forgets the offsets of most groups.)"""

RandomBelow = Callable[[int], int]
"""A random integer from 0 up to, not including, the argument."""


class TopicDefaults(NamedTuple):
    """What a topic gets that doesn't say: ``num.partitions`` and ``default.replication.factor``."""

    partitions: int = 1
    replication_factor: int = 1


def plan_topic(image: ClusterImage, topic: NewTopic, defaults: TopicDefaults, random_below: RandomBelow) -> Assignment:
    """The assignment of a topic to create. Raises BrokerError with the code and message that Kafka gives."""
    if topic.name in image.topics:
        raise BrokerError(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{topic.name}' already exists.")
    if topic.assignment and (topic.partitions != -1 or topic.replication_factor != -1):
        raise BrokerError(
            ErrorCode.INVALID_REQUEST,
            "Both numPartitions or replicationFactor and replicasAssignments were set. "
            "Both cannot be used at the same time.",
        )
    problem = topic_name_error(topic.name)
    if problem is not None:
        raise BrokerError(ErrorCode.INVALID_TOPIC_EXCEPTION, problem)
    colliding = [name for name in image.topics if collides(name, topic.name)]
    if colliding:
        raise BrokerError(
            ErrorCode.INVALID_TOPIC_EXCEPTION,
            f"Topic '{topic.name}' collides with existing topics: {', '.join(sorted(colliding))}",
        )
    if topic.assignment:
        return _checked_assignment(image, topic.assignment)
    brokers = image.usable_brokers()
    return assign_replicas(
        brokers,
        defaults.partitions if topic.partitions == -1 else topic.partitions,
        defaults.replication_factor if topic.replication_factor == -1 else topic.replication_factor,
        start_index=random_below(len(brokers)) if brokers else 0,
        shift=random_below(len(brokers)) if brokers else 0,
    )


def plan_partitions(
    image: ClusterImage, name: str, total: int, assignments: Sequence[tuple[int, ...]] | None
) -> Assignment:
    """The replicas of the partitions to add. Raises BrokerError with the code and message that Kafka gives."""
    topic = image.topics.get(name)
    if topic is None:
        raise BrokerError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")
    if name in KEYED_TOPICS:
        raise BrokerError(ErrorCode.INVALID_PARTITIONS, f"The number of partitions of '{name}' cannot be changed.")
    if any(is_moving(placement) for placement in topic.partitions.values()):
        raise BrokerError(
            ErrorCode.REASSIGNMENT_IN_PROGRESS,
            f"A partition reassignment is in progress for the topic '{name}'.",
        )
    count = len(topic.partitions)
    if total == count:
        raise BrokerError(ErrorCode.INVALID_PARTITIONS, f"Topic already has {count} partitions.")
    if total < count:
        raise BrokerError(
            ErrorCode.INVALID_PARTITIONS,
            f"Topic currently has {count} partitions, which is higher than the requested {total}.",
        )
    existing = {number: placement.replicas for number, placement in topic.partitions.items()}
    if sorted(existing) != list(range(count)):
        raise BrokerError(ErrorCode.INVALID_PARTITIONS, f"The partitions of topic '{name}' are not 0 to {count - 1}.")
    if assignments is None:
        return extend_assignment(image.usable_brokers(), existing, total)
    if len(assignments) != total - count:
        raise BrokerError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            f"Increasing the number of partitions by {total - count} but {len(assignments)} assignments provided.",
        )
    added = tuple((count + position, tuple(replicas)) for position, replicas in enumerate(assignments))
    factor = len(existing[0])
    for number, replicas in added:
        if len(replicas) != factor:
            raise BrokerError(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"Inconsistent replication factor between partitions, partition 0 has {factor} "
                f"while partition {number} has {len(replicas)}.",
            )
    return _checked_replicas(image, added)


def collides(one: str, other: str) -> bool:
    """Names that differ only in '.' and '_' would share a metric name, so Kafka refuses the second."""
    return one.replace(".", "_") == other.replace(".", "_")


def _checked_assignment(image: ClusterImage, rows: Sequence[tuple[int, tuple[int, ...]]]) -> Assignment:
    numbers = sorted(number for number, _ in rows)
    if numbers != list(range(len(numbers))):
        raise BrokerError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT, "partitions should be a consecutive 0-based integer sequence"
        )
    if len({len(replicas) for _, replicas in rows}) > 1:
        raise BrokerError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT, "All partitions should have the same number of replicas"
        )
    return _checked_replicas(image, rows)


def _checked_replicas(image: ClusterImage, rows: Sequence[tuple[int, tuple[int, ...]]]) -> Assignment:
    brokers = image.usable_brokers()
    for number, replicas in rows:
        if not replicas:
            raise BrokerError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"Partition {number} has no replica.")
        if len(set(replicas)) < len(replicas):
            raise BrokerError(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"Duplicate brokers in the replica assignment of partition {number}: {list(replicas)}.",
            )
        unknown = [str(broker) for broker in replicas if broker not in brokers]
        if unknown:
            raise BrokerError(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"Unknown broker(s) in replica assignment: {', '.join(unknown)}."
            )
    return {number: tuple(replicas) for number, replicas in sorted(rows)}

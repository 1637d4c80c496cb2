"""Topics and partitions: names, ids and the replicated state of one partition.

The words are Kafka's: see ``DECISIONS.md`` for where zkbroker differs on purpose.
"""

from __future__ import annotations

import base64
import re
import uuid
from typing import NamedTuple

NO_LEADER = -1
"""The leader of a partition that has none (Kafka: ``LeaderAndIsr.NoLeader``)."""

TOPIC_NAME_LENGTH_MAX = 249
"""Kafka's ``Topic.MAX_NAME_LENGTH``: with ``-<partition>`` and ``-stray`` a folder name stays below 255 bytes."""

_LEGAL_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]+\Z")


class TopicPartition(NamedTuple):
    """One partition of a topic by name. Prints as Kafka prints it: ``topic-0``."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class PartitionState(NamedTuple):
    """Who replicates and leads one partition: its assignment and the content of its ``state`` znode.

    ``partition_epoch`` is the znode version of ``/brokers/topics/T/partitions/P/state``; ``leader_epoch``
    rises with every change made by the controller, while an ISR change proposed by the leader keeps it.
    """

    topic_id: str
    """22 characters of base64url, as in ``/brokers/topics/T``; what tells a recreated topic from its predecessor."""
    replicas: tuple[int, ...]
    """The assignment (AR) in order; the first is the preferred leader."""
    leader: int
    """Broker id, or NO_LEADER."""
    leader_epoch: int
    isr: tuple[int, ...]
    partition_epoch: int
    controller_epoch: int
    """Epoch of the controller that wrote the state."""
    adding: tuple[int, ...] = ()
    removing: tuple[int, ...] = ()
    recovering: bool = False
    """``leader_recovery_state`` 1: elected uncleanly and not yet confirmed by the leader."""
    elr: tuple[int, ...] = ()
    """Eligible leader replicas (KIP-966), an extra key of the znode: they may lead when nobody of the ISR can."""
    reason: str = ""
    """Why this state was written, for people; an extra key of the znode."""
    leader_reason: str = ""
    """Why the leader changed last; an extra key of the znode where ``reason`` tells of a later change of the ISR. The
    controller's alone: brokers are not told."""
    removed: tuple[int, ...] = ()
    """Brokers that were replicas before a reassignment and may still hold their data; an extra key of the znode, so
    that a later controller has it deleted too. The controller's alone."""


def topic_name_error(name: str) -> str | None:
    """Why ``name`` is not a legal topic name (Kafka's ``Topic.validate``), or None when it is."""
    if not name:
        return "the topic name is empty"
    if name in (".", ".."):
        return f"the topic name cannot be {name!r}"
    if len(name) > TOPIC_NAME_LENGTH_MAX:
        return f"the topic name is longer than {TOPIC_NAME_LENGTH_MAX} characters"
    if not _LEGAL_TOPIC_NAME.match(name):
        return f"the topic name {name!r} has a character other than ASCII letters, digits, '.', '_' and '-'"
    return None


def topic_id_to_uuid(topic_id: str) -> uuid.UUID:
    """The 16-byte form of a 22-character topic id. Raises ValueError if it is not one."""
    raw = base64.urlsafe_b64decode(topic_id + "==")
    if len(raw) != 16:
        raise ValueError(f"not a topic id: {topic_id!r}")
    return uuid.UUID(bytes=raw)


def topic_id_from_uuid(value: uuid.UUID) -> str:
    """The 22-character base64url form that Kafka keeps in znodes and ``partition.metadata``."""
    return base64.urlsafe_b64encode(value.bytes).rstrip(b"=").decode("ascii")

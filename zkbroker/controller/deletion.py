"""Deleting topics: every replica's data first, then the znodes. A replica that is away is waited for."""

from __future__ import annotations

from enum import Enum

from zkbroker.model.errors import InvariantViolation
from zkbroker.model.topics import TopicPartition

Replica = tuple[TopicPartition, int]
"""A partition and the broker that holds it."""


class DeletionStage(Enum):
    """Where the deletion of one topic stands. The only transitions are those of ``TopicDeletion``'s methods."""

    QUEUED = "queued"
    """Asked for, but a partition is being reassigned: the topic still serves."""
    STARTED = "started"
    """Gone from metadata; replicas are being deleted."""
    CLEARING = "clearing"
    """No replica is left; the znodes are being removed."""


class TopicDeletion:
    """One topic on its way out."""

    __slots__ = ("awaited", "stage", "topic", "topic_id")

    def __init__(self, topic: str, topic_id: str) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.stage = DeletionStage.QUEUED
        self.awaited: dict[Replica, None] = {}
        """Replicas that have not yet said that their data is gone, online or not."""

    def __repr__(self) -> str:
        return f"TopicDeletion({self.topic}, {self.stage.value}, awaited={len(self.awaited)})"

    def start(self, replicas: list[Replica]) -> None:
        """The topic is no longer served; each of ``replicas`` has to be deleted."""
        self._leave(DeletionStage.QUEUED)
        self.stage = DeletionStage.STARTED
        self.awaited = dict.fromkeys(replicas)

    def replica_deleted(self, replica: Replica) -> bool:
        """A broker deleted its data. True if that was the last one: the znodes may go."""
        if self.stage is not DeletionStage.STARTED:
            return False
        self.awaited.pop(replica, None)
        return not self.awaited

    def clear(self) -> None:
        """Nothing is awaited any more: the znodes are being removed."""
        self._leave(DeletionStage.STARTED)
        if self.awaited:
            raise InvariantViolation(f"replicas are still there: {self}")
        self.stage = DeletionStage.CLEARING

    def awaited_of(self, broker_id: int) -> list[TopicPartition]:
        """What this broker has still to delete."""
        if self.stage is not DeletionStage.STARTED:
            return []
        return [partition for partition, broker in self.awaited if broker == broker_id]

    def _leave(self, stage: DeletionStage) -> None:
        if self.stage is not stage:
            raise InvariantViolation(f"{self} is not {stage.value}")

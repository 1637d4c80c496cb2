"""The replicas of this broker by partition, and how a request finds the one that may serve it."""

from __future__ import annotations

from zkbroker.broker.replica import Replica, Shared
from zkbroker.kafka.ports import CurrentLeader
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import TopicPartition
from zkbroker.partition.leader import LeaderState

ANY_EPOCH = -1
"""A client that does not say which leader epoch it knows."""


class ReplicaTable:
    """Replicas by partition, and those whose log folder failed."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.replicas: dict[tuple[str, int], Replica] = {}
        self.offline: dict[tuple[str, int], str] = {}
        """Why a replica that is assigned here cannot be served."""

    def led(self, topic: str, partition: int, current_leader_epoch: int = ANY_EPOCH) -> Replica | ErrorCode:
        """The replica, if this broker leads it and the client's leader epoch (KIP-320) is the present one; else why
        not, in Kafka's order: first the epoch, then the role."""
        replica = self.replicas.get((topic, partition))
        if replica is None:
            return self._why_not(topic, partition)
        if current_leader_epoch >= 0 and replica.state is not None:
            known = replica.state.leader_epoch
            if current_leader_epoch != known:
                if current_leader_epoch < known:
                    return ErrorCode.FENCED_LEADER_EPOCH
                return ErrorCode.UNKNOWN_LEADER_EPOCH
        return ErrorCode.NOT_LEADER_OR_FOLLOWER if replica.leader is None else replica

    def has_fresh_contact(self, leader: LeaderState) -> bool:
        """The contact rule, at this moment: may this leader answer acks ≤ 1 and reads?"""
        shared = self.shared
        return leader.has_fresh_contact(
            shared.clock.monotonic(), shared.contact_age(), shared.settings.contact_seconds_max
        )

    def is_in_contact(self) -> bool:
        """May every leader here answer, whatever its followers do? (The contact rule, as far as it is one for all.)"""
        return self.shared.contact_age() < self.shared.settings.contact_seconds_max

    def hint(self, error: ErrorCode, topic: str, partition: int) -> CurrentLeader | None:
        """The leader to name in an answer with ``error`` (KIP-951)."""
        if error is not ErrorCode.NOT_LEADER_OR_FOLLOWER and error is not ErrorCode.FENCED_LEADER_EPOCH:
            return None
        replica = self.replicas.get((topic, partition))
        known = self.shared.metadata_leader(TopicPartition(topic, partition))
        if replica is not None and replica.state is not None:
            state = replica.state
            if known is None or state.leader_epoch >= known.leader_epoch:
                known = CurrentLeader(state.leader, state.leader_epoch)
        if known is None or known.leader < 0:
            return None
        if known.leader == self.shared.broker_id and (
            replica is None or replica.leader is None or not self.has_fresh_contact(replica.leader)
        ):
            return None
        return known

    def _why_not(self, topic: str, partition: int) -> ErrorCode:
        if (topic, partition) in self.offline:
            return ErrorCode.KAFKA_STORAGE_ERROR
        if self.shared.metadata_leader(TopicPartition(topic, partition)) is not None:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

"""What the APIs of reassignments and elections need of a broker; see ``ports.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from zkbroker.model.reassignments import ElectionKind, OngoingMove, PartitionOutcome
from zkbroker.model.topics import TopicPartition


class PartitionAdminPort(Protocol):
    """Only the controller's broker does these. Fail with BrokerError: NOT_CONTROLLER, REQUEST_TIMED_OUT."""

    def alter_reassignments(
        self, wanted: Mapping[TopicPartition, tuple[int, ...] | None], timeout_ms: int
    ) -> Deferred[Mapping[TopicPartition, PartitionOutcome]]:
        """Move each to these replicas; None: back to where it came from. Fires when that is begun, not when done."""
        ...

    def list_reassignments(
        self, partitions: Sequence[TopicPartition] | None, timeout_ms: int
    ) -> Deferred[list[OngoingMove]]:
        """The moves under way, of these partitions or (None) of all."""
        ...

    def elect_leaders(
        self, kind: ElectionKind, partitions: Sequence[TopicPartition] | None, timeout_ms: int
    ) -> Deferred[Mapping[TopicPartition, PartitionOutcome]]:
        """Of these partitions or (None) of all; of all only those are told of where an election was needed."""
        ...

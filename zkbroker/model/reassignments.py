"""Moving partitions and electing leaders on request: what administrators ask of the controller, and what it answers."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import TopicPartition


class ElectionKind(Enum):
    """What ElectLeaders (API key 43, KIP-460) may ask for; values are Kafka's."""

    PREFERRED = 0
    """The first replica of the assignment, if it is in the ISR."""
    UNCLEAN = 1
    """Any replica, where nobody of the ISR is left: it loses what it lacks."""


class PartitionOutcome(NamedTuple):
    """How a request ended for one partition."""

    error: ErrorCode
    message: str | None = None


DONE = PartitionOutcome(ErrorCode.NONE)


class OngoingMove(NamedTuple):
    """One row of ListPartitionReassignments (API key 46): a partition on its way to other brokers."""

    partition: TopicPartition
    replicas: tuple[int, ...]
    """All of this moment, those that come and those that go among them."""
    adding: tuple[int, ...]
    removing: tuple[int, ...]

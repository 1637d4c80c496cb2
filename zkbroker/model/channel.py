"""What brokers and the controller say to each other besides snapshots and deltas.

The same values travel in memory (the controller's own broker) and over the line protocol.
"""

from __future__ import annotations

from typing import NamedTuple

from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import PartitionState, TopicPartition

UNREGISTERED = "the registration of this broker is gone"
"""Why a controller ends a subscription when the subscriber's registration has gone. The subscriber acts on it: it may
hear so from the controller long before it hears it from ZooKeeper."""


class IsrProposal(NamedTuple):
    """A leader's wish to change its ISR (KIP-497), fenced by every epoch it was decided under."""

    topic: str
    partition: int
    topic_id: str
    proposal_id: int
    """Rises with each proposal of this leader; an answer to another id is stale."""
    leader_epoch: int
    partition_epoch: int
    isr: tuple[tuple[int, int], ...]
    """(broker id, broker epoch) of each proposed member, the leader's own included."""
    recovering: bool = False


class AlterPartitionRequest(NamedTuple):
    broker_id: int
    broker_epoch: int
    proposals: tuple[IsrProposal, ...]


class IsrAnswer(NamedTuple):
    """The controller's answer to one proposal: with NONE, ``state`` is the committed state."""

    topic: str
    partition: int
    topic_id: str
    proposal_id: int
    error: ErrorCode
    state: PartitionState | None = None


class AlterPartitionResponse(NamedTuple):
    error: ErrorCode
    """NONE, or why nothing was looked at: NOT_CONTROLLER, STALE_BROKER_EPOCH."""
    answers: tuple[IsrAnswer, ...] = ()


class Applied(NamedTuple):
    """A broker's receipt for the delta ``number`` of ``controller_epoch``."""

    controller_epoch: int
    number: int
    failures: tuple[tuple[TopicPartition, str], ...] = ()
    """Replicas this broker could not bring up, with the reason; for example an offline log folder."""


class NewTopic(NamedTuple):
    """A topic to create: by counts, or by a manual ``assignment`` (partition → replicas)."""

    name: str
    partitions: int = -1
    """-1: ``num.partitions``."""
    replication_factor: int = -1
    """-1: ``default.replication.factor``."""
    assignment: tuple[tuple[int, tuple[int, ...]], ...] = ()
    configs: tuple[tuple[str, str], ...] = ()


class TopicResult(NamedTuple):
    """How creating, deleting or enlarging one topic ended."""

    name: str
    error: ErrorCode
    message: str | None = None
    topic_id: str = ""
    partitions: int = -1
    replication_factor: int = -1


class FollowerContact:
    """When one session of one follower broker last fetched: shared by all partitions of the session.

    The line-protocol server owns it and writes the times; leaders of partitions read them (contact rule, time spent
    caught up), so an idle partition costs nothing per fetch.
    """

    __slots__ = ("broker_epoch", "broker_id", "last_fetch_at", "proven_at")

    def __init__(self, broker_id: int, broker_epoch: int, now: float) -> None:
        self.broker_id = broker_id
        self.broker_epoch = broker_epoch
        self.last_fetch_at = now
        """Monotonic seconds of the last FETCH of this session."""
        self.proven_at = float("-inf")
        """The follower certainly fetched after this moment: then the answer was sent that its last FETCH followed. When
        a FETCH is read says nothing: while this process stood still it lay in the socket."""

    def __repr__(self) -> str:
        return f"FollowerContact({self.broker_id}, epoch={self.broker_epoch})"

"""Consumer groups in nouns: what clients ask of a group's coordinator, and what it answers.

Fields and defaults are those of Kafka's JoinGroup (API 11), SyncGroup (14), Heartbeat (12), LeaveGroup (13),
OffsetCommit (8), OffsetFetch (9), DescribeGroups (15), ListGroups (16), DeleteGroups (42) and OffsetDelete (47), all
versions in one shape: a field that a version lacks holds its default. ``kafka/`` makes and takes them, ``coordinator/``
decides, ``broker/`` carries them between the two.
"""

from __future__ import annotations

from typing import NamedTuple

from zkbroker.model.errors import ErrorCode

NO_GENERATION = -1
"""OffsetCommit from a consumer that is no member of the group (simple consumers, administrators)."""
NO_MEMBER = ""


class Client(NamedTuple):
    """Who sent a request, as DescribeGroups shows it."""

    client_id: str
    host: str
    """With the leading slash of Kafka's answers: ``/127.0.0.1``."""


class Protocol(NamedTuple):
    """An assignor that a member supports (JoinGroup) and the metadata that it sends to the group's leader."""

    name: str
    metadata: bytes


class JoinGroup(NamedTuple):
    group_id: str
    member_id: str
    client: Client
    session_timeout_ms: int
    rebalance_timeout_ms: int
    """Version 0 has none: the session timeout."""
    protocol_type: str
    protocols: tuple[Protocol, ...]
    """In the member's order of preference."""
    group_instance_id: str | None = None
    """Static membership (KIP-345)."""
    requires_known_member_id: bool = False
    """From version 4 on a new member is given its id and asked to join again with it (KIP-394)."""
    supports_skipping_assignment: bool = False
    """From version 9 on (KIP-814)."""
    reason: str | None = None


class JoinedMember(NamedTuple):
    """A row for the group's leader, who assigns."""

    member_id: str
    group_instance_id: str | None
    metadata: bytes


class JoinAnswer(NamedTuple):
    error: ErrorCode
    member_id: str = NO_MEMBER
    generation: int = NO_GENERATION
    protocol_type: str | None = None
    protocol_name: str | None = None
    """None before a generation exists; versions below 7 send an empty string."""
    leader_id: str = NO_MEMBER
    members: tuple[JoinedMember, ...] = ()
    """Only for the leader."""
    skip_assignment: bool = False


class SyncGroup(NamedTuple):
    group_id: str
    member_id: str
    generation: int
    group_instance_id: str | None = None
    protocol_type: str | None = None
    """None below version 5: not compared."""
    protocol_name: str | None = None
    assignments: tuple[tuple[str, bytes], ...] = ()
    """(member id, assignment), from the leader only."""


class SyncAnswer(NamedTuple):
    error: ErrorCode
    protocol_type: str | None = None
    protocol_name: str | None = None
    assignment: bytes = b""


class Heartbeat(NamedTuple):
    group_id: str
    member_id: str
    generation: int
    group_instance_id: str | None = None


class LeavingMember(NamedTuple):
    member_id: str
    group_instance_id: str | None = None
    reason: str | None = None


class LeaveGroup(NamedTuple):
    group_id: str
    members: tuple[LeavingMember, ...]


class LeftMember(NamedTuple):
    member_id: str
    group_instance_id: str | None
    error: ErrorCode


class LeaveAnswer(NamedTuple):
    error: ErrorCode
    """Of the whole request; versions below 3 send the one member's error here."""
    members: tuple[LeftMember, ...] = ()


class OffsetToCommit(NamedTuple):
    topic: str
    partition: int
    offset: int
    leader_epoch: int = -1
    metadata: str | None = ""
    commit_timestamp_ms: int = -1
    """Version 1 only; -1 is the time of arrival."""


class CommitOffsets(NamedTuple):
    group_id: str
    member_id: str
    generation: int
    group_instance_id: str | None
    retention_ms: int
    """Versions 2 to 4; -1 is the broker's ``offsets.retention.minutes``."""
    offsets: tuple[OffsetToCommit, ...]


class PartitionError(NamedTuple):
    """An answer row of OffsetCommit and OffsetDelete."""

    topic: str
    partition: int
    error: ErrorCode


class CommitAnswer(NamedTuple):
    rows: tuple[PartitionError, ...]
    """In the order of the request."""


class FetchOffsets(NamedTuple):
    """One group of an OffsetFetch."""

    group_id: str
    partitions: tuple[tuple[str, int], ...] | None
    """(topic, partition); None asks for all that the group committed."""
    require_stable: bool = False
    """UNSTABLE_OFFSET_COMMIT while a transaction that commits offsets is open (KIP-447)."""
    member_id: str | None = None
    member_epoch: int = -1


class FetchedOffset(NamedTuple):
    topic: str
    partition: int
    offset: int = -1
    leader_epoch: int = -1
    metadata: str | None = ""
    error: ErrorCode = ErrorCode.NONE


class FetchOffsetsAnswer(NamedTuple):
    group_id: str
    error: ErrorCode
    rows: tuple[FetchedOffset, ...] = ()


class DescribeGroup(NamedTuple):
    """One group of a DescribeGroups."""

    group_id: str


class DescribedMember(NamedTuple):
    member_id: str
    group_instance_id: str | None
    client_id: str
    host: str
    metadata: bytes
    """Of the chosen assignor; empty unless the group is Stable."""
    assignment: bytes


class DescribedGroup(NamedTuple):
    group_id: str
    error: ErrorCode
    state: str = ""
    """Kafka's words: PreparingRebalance, CompletingRebalance, Stable, Empty, Dead."""
    protocol_type: str = ""
    protocol_name: str = ""
    members: tuple[DescribedMember, ...] = ()


class ListedGroup(NamedTuple):
    group_id: str
    protocol_type: str
    state: str
    group_type: str = "classic"


class ListedGroups(NamedTuple):
    error: ErrorCode
    """COORDINATOR_LOAD_IN_PROGRESS when some of the groups here are not known yet: the rest is listed."""
    groups: tuple[ListedGroup, ...] = ()


class DeleteGroup(NamedTuple):
    """One group of a DeleteGroups."""

    group_id: str


class GroupError(NamedTuple):
    """An answer row of DeleteGroups."""

    group_id: str
    error: ErrorCode


class DeleteOffsets(NamedTuple):
    group_id: str
    partitions: tuple[tuple[str, int], ...]


class DeleteOffsetsAnswer(NamedTuple):
    error: ErrorCode
    """Of the whole request: GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP …"""
    rows: tuple[PartitionError, ...] = ()
    """GROUP_SUBSCRIBED_TO_TOPIC for a topic that the group's members consume (KIP-496)."""

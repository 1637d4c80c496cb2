"""A follower's end of one fetch session: what was asked, what is to be asked, and which answers still count."""

from __future__ import annotations

from enum import Enum

from zkbroker.model.topics import TopicPartition
from zkbroker.replication.ports import FetchRow

IN_SYNC_SESSION = 1
"""Number of the session of partitions that keep up."""

CATCH_UP_SESSION = 2
"""Number of the session of partitions that are behind: their cold reads must not delay the others."""


class FollowState(Enum):
    """Where one followed partition stands with its leader."""

    TO_ASK = "to ask"
    """Its row must be sent, changed or not."""
    ASKED = "asked"
    """Its row stands at the leader."""
    APPLYING = "applying"
    """The leader's answer is with the replica, which says when the position changed."""
    BACKING_OFF = "backing off"
    """The leader answered an error: asked again after a pause, or when the position changes."""


class Followed:
    """One partition that is fetched."""

    __slots__ = ("leader", "partition", "retry_at", "row", "seq", "session", "state")

    def __init__(self, partition: TopicPartition, leader: int) -> None:
        self.partition = partition
        self.leader = leader
        self.session: FollowSession | None = None
        """Which session holds it at the leader; None before the first FETCH."""
        self.state = FollowState.TO_ASK
        self.row: FetchRow | None = None
        """The row sent last."""
        self.seq = -1
        """The FETCH of its session that carried the row: answers to an earlier one are stale."""
        self.retry_at = 0.0
        """In APPLYING and BACKING_OFF: monotonic time after which it is asked again."""

    def __repr__(self) -> str:
        number = None if self.session is None else self.session.number
        return f"Followed({self.partition}, leader={self.leader}, {self.state.value}, session={number}, seq={self.seq})"

    def is_answered_by(self, session: FollowSession, seq: int) -> bool:
        """True if an answer to that FETCH answers the latest row: the session's answers come in order, and each knows
        all rows up to its own FETCH. Comparing offsets instead would be fooled by truncate-and-append (ABA)."""
        return self.state is FollowState.ASKED and self.session is session and seq >= self.seq


class FollowSession:
    """One of the two sessions with one leader."""

    def __init__(self, number: int, max_bytes: int) -> None:
        self.number = number
        self.max_bytes = max_bytes
        self.next_seq = 0
        self.unanswered: dict[int, int] = {}
        """Correlation number → seq of the FETCHes under way, oldest first."""
        self.members: dict[TopicPartition, Followed] = {}
        """The partitions that the leader's end of the session holds."""
        self.to_forget: dict[TopicPartition, None] = {}
        """Those it holds no longer, as soon as the next FETCH tells it."""
        self.restarted_at = float("-inf")

    def __repr__(self) -> str:
        return (
            f"FollowSession({self.number}, next_seq={self.next_seq}, members={len(self.members)},"
            f" unanswered={list(self.unanswered.values())})"
        )

    def remove(self, followed: Followed) -> None:
        """The partition leaves the session. The leader is told with the next FETCH; until then answers are stale."""
        if self.members.pop(followed.partition, None) is not None:
            self.to_forget[followed.partition] = None
        followed.session = None
        followed.state = FollowState.TO_ASK

    def restart(self) -> list[Followed]:
        """Forget what was sent: the next FETCH begins the session anew. Returns the partitions to ask again."""
        orphans = list(self.members.values())
        self.members.clear()
        self.to_forget.clear()
        self.unanswered.clear()
        self.next_seq = 0
        for followed in orphans:
            followed.session = None
            followed.state = FollowState.TO_ASK
        return orphans

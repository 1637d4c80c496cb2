"""How far each follower is, and when it was last heard, as its leader knows it."""

from __future__ import annotations

from zkbroker.model.channel import FollowerContact

UNKNOWN_OFFSET = -1
"""The end of a follower that has not fetched from this leader yet: it holds the high watermark where it is."""

NEVER = float("-inf")


class FollowerProgress:
    """What a leader knows of one follower in the current leader epoch."""

    __slots__ = (
        "broker_epoch",
        "broker_id",
        "contact",
        "last_caught_up_at",
        "last_fetch_at",
        "last_proven_at",
        "leader_end_at_last_fetch",
        "log_end_offset",
        "log_start_offset",
    )

    def __init__(self, broker_id: int) -> None:
        self.broker_id = broker_id
        self.broker_epoch = -1
        """Incarnation of its latest fetch; an older one's fetch is refused."""
        self.contact: FollowerContact | None = None
        """Its session, from its first row in this leader epoch until it leaves."""
        self.log_end_offset = UNKNOWN_OFFSET
        """What it holds, by its latest row. Never above the leader's log end."""
        self.log_start_offset = UNKNOWN_OFFSET
        self.last_caught_up_at = NEVER
        """The latest time at which it is known to have held all that the leader held."""
        self.last_fetch_at = NEVER
        """Arrival of its latest row."""
        self.last_proven_at = NEVER
        """``FollowerContact.proven_at`` when its latest row came."""
        self.leader_end_at_last_fetch = 0

    def __repr__(self) -> str:
        return f"Follower({self.broker_id} end={self.log_end_offset})"

    def heard_at(self) -> float:
        """When it last fetched in this leader epoch. An unchanged row is not sent again: its session speaks for it."""
        contact = self.contact
        return self.last_fetch_at if contact is None else max(self.last_fetch_at, contact.last_fetch_at)

    def proven_at(self) -> float:
        """A moment after which it certainly fetched: see ``FollowerContact.proven_at``."""
        contact = self.contact
        return self.last_proven_at if contact is None else max(self.last_proven_at, contact.proven_at)

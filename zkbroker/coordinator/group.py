"""One group: its state, generation, members and offsets, and what can be said of them without anybody being answered.

Costs: what comes with every heartbeat or commit is O(1); what a rebalance does once is O(members).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from zkbroker.coordinator.fields import shown
from zkbroker.coordinator.members import Member, loaded_member
from zkbroker.coordinator.offsets import GroupOffsets
from zkbroker.coordinator.records import NO_TIMESTAMP, StoredGroup
from zkbroker.coordinator.states import DEAD, EMPTY, PREPARING, STABLE, GroupEvent, after
from zkbroker.coordinator.subscription import PROTOCOL_TYPE, subscribed_topics
from zkbroker.model.errors import ErrorCode, InvariantViolation
from zkbroker.model.groups import DescribedGroup, JoinedMember, ListedGroup

GENERATION_MAX = 2**31 - 1
"""The field's largest number; no group lives so long, but a record may say so."""


class InitialDelay(NamedTuple):
    """A group that was empty waits for more members than the first, and again while more come."""

    delay_ms: int
    remaining_ms: int
    """How much longer it may be put off after this delay."""


class Group:
    """Invariants: Empty means no members, CompletingRebalance and Stable some; the leader is a member;
    ``awaiting_join`` counts the parked JoinGroups; each protocol's support counts its members; each static id names a
    member."""

    def __init__(self, group_id: str, state_timestamp_ms: int = NO_TIMESTAMP) -> None:
        self.group_id = group_id
        self.state = EMPTY
        self.state_timestamp_ms = state_timestamp_ms
        """Wall clock: since when it is in its state; -1 if that was stored by a Kafka too old to say."""
        self.protocol_type: str | None = None
        """None: only offsets were ever committed."""
        self.protocol_name: str | None = None
        """The assignor of this generation."""
        self.generation = 0
        self.leader_id: str | None = None
        self.members: dict[str, Member] = {}
        self.static_ids: dict[str, str] = {}
        """``group.instance.id`` → member id"""
        self.pending: dict[str, None] = {}
        """Member ids that were given out and not used yet, oldest first (KIP-394)."""
        self.pending_sync: set[str] = set()
        """Members who were told of this generation and have not asked for their assignment yet."""
        self.awaiting_join = 0
        self.initial_delay: InitialDelay | None = None
        self.is_put_off_again = False
        """A member came during the initial delay of the first generation (Kafka: ``newMemberAdded``)."""
        self.storing_generation = -1
        """The generation whose assignment is being written."""
        self.is_stored = False
        """The log may hold a record of this group, which needs a tombstone."""
        self.subscribed_topics: frozenset[str] | None = None
        """By this generation's members; None if unknown. Only of groups of consumers."""
        self.offsets = GroupOffsets()
        self._support: dict[str, int] = {}

    @classmethod
    def loaded(cls, group_id: str, stored: StoredGroup) -> Group:
        """As it was when that record was written: without members Empty, else Stable. Members that contradict each
        other or the record are left out; they will join anew."""
        group = cls(group_id, stored.state_timestamp_ms)
        group.protocol_type = stored.protocol_type or None
        group.protocol_name = stored.protocol_name
        group.generation = stored.generation
        group.is_stored = True
        if stored.protocol_name is not None:
            for row in stored.members:
                if row.member_id in group.members or row.group_instance_id in group.static_ids:
                    continue
                group._put(loaded_member(row, stored.protocol_name))
        if group.members:
            group.state = STABLE
            known = stored.leader_id in group.members
            group.leader_id = stored.leader_id if known else next(iter(group.members))
        group.subscribed_topics = group._subscriptions()
        return group

    def step(self, event: GroupEvent, now_ms: int) -> None:
        """Raises InvariantViolation where the state knows no such step."""
        self.state = after(self.state, event)
        self.state_timestamp_ms = now_ms

    # --- members ---

    def add(self, member: Member, ticket: int) -> None:
        if not self.members:
            self.leader_id = member.member_id
        self._put(member)
        self.pending.pop(member.member_id, None)
        self.park_join(member, ticket)

    def remove(self, member_id: str) -> Member | None:
        """A member, whose tickets are the caller's to answer, or a member id that was not used yet (None)."""
        self.pending.pop(member_id, None)
        self.pending_sync.discard(member_id)
        member = self.members.pop(member_id, None)
        if member is None:
            return None
        self._count(member.protocols, -1)
        if member.join_ticket is not None:
            self.awaiting_join -= 1
        if member.group_instance_id is not None:
            del self.static_ids[member.group_instance_id]
        if self.leader_id == member_id:
            self.leader_id = next(iter(self.members), None)
        return member

    def rename(self, member: Member, member_id: str) -> None:
        """A static member goes on under another member id, all else unchanged."""
        former = member.member_id
        del self.members[former]
        member.member_id = member_id
        self.members[member_id] = member
        if member.group_instance_id is not None:
            self.static_ids[member.group_instance_id] = member_id
        if self.leader_id == former:
            self.leader_id = member_id
        if former in self.pending_sync:
            self.pending_sync.discard(former)
            self.pending_sync.add(member_id)

    def update(self, member: Member, protocols: Mapping[str, bytes], rebalance_ms: int, session_ms: int) -> None:
        self._count(member.protocols, -1)
        member.protocols = protocols
        self._count(protocols, 1)
        member.rebalance_timeout_ms = rebalance_ms
        member.session_timeout_ms = session_ms

    def park_join(self, member: Member, ticket: int) -> None:
        """The caller has answered the one parked before, if there was one."""
        if member.join_ticket is None:
            self.awaiting_join += 1
        member.join_ticket = ticket

    def take_join(self, member: Member) -> int | None:
        """Its parked JoinGroup, which is parked no more."""
        ticket = member.join_ticket
        if ticket is not None:
            member.join_ticket = None
            self.awaiting_join -= 1
        return ticket

    def refusal(self, member_id: str, group_instance_id: str | None) -> ErrorCode:
        """NONE for a member who is who it says."""
        if group_instance_id is not None:
            current = self.static_ids.get(group_instance_id)
            if current is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if current != member_id:
                return ErrorCode.FENCED_INSTANCE_ID  # another process has taken its place
        return ErrorCode.NONE if member_id in self.members else ErrorCode.UNKNOWN_MEMBER_ID

    @property
    def rebalance_timeout_ms(self) -> int:
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)

    @property
    def has_all_joined(self) -> bool:
        return self.awaiting_join == len(self.members) and not self.pending

    def not_joined(self) -> list[Member]:
        return [member for member in self.members.values() if member.join_ticket is None]

    # --- generations ---

    def supports(self, protocol_type: str, protocols: Collection[str]) -> bool:
        """Whether a member with these could join: all others must support one of them."""
        if self.state is EMPTY:
            return bool(protocol_type) and bool(protocols)
        count = len(self.members)
        return self.protocol_type == protocol_type and any(self._support.get(name, 0) == count for name in protocols)

    def chosen_protocol(self) -> str | None:
        """The one that most members prefer among those that all support; of equals the one named first."""
        count = len(self.members)
        candidates = {name for name, supporters in self._support.items() if supporters == count}
        votes: dict[str, int] = {}
        for member in self.members.values():
            name = member.vote(candidates)
            if name is not None:
                votes[name] = votes.get(name, 0) + 1
        return max(votes, key=votes.__getitem__, default=None)

    def elect_joined_leader(self) -> bool:
        """Make sure that the leader is somebody who has joined; False if nobody has."""
        if self.leader_id is not None and self.members[self.leader_id].join_ticket is not None:
            return True
        joined = next((member for member in self.members.values() if member.join_ticket is not None), None)
        if joined is None:
            return False
        self.leader_id = joined.member_id
        return True

    def begin_generation(self, now_ms: int) -> None:
        self.generation = self.generation + 1 if self.generation < GENERATION_MAX else 1
        if self.members:
            self.protocol_name = self.chosen_protocol()
            if self.protocol_name is None:
                raise InvariantViolation(f"the members of group {shown(self.group_id)} have no protocol in common")
            self.step(GroupEvent.GENERATION_BEGAN, now_ms)
        else:
            self.protocol_name = None
            self.step(GroupEvent.EMPTIED, now_ms)
        self.subscribed_topics = self._subscriptions()

    def joined_members(self) -> tuple[JoinedMember, ...]:
        """For the leader, who assigns."""
        return tuple(member.joined(self.protocol_name) for member in self.members.values())

    def stored(self, assignments: Mapping[str, bytes]) -> StoredGroup:
        return StoredGroup(
            self.protocol_type or "",
            self.generation,
            self.protocol_name,
            self.leader_id,
            self.state_timestamp_ms,
            tuple(
                member.stored(self.protocol_name, assignments.get(member_id, b""))
                for member_id, member in self.members.items()
            ),
        )

    # --- what is told of it ---

    @property
    def is_consumers(self) -> bool:
        return self.protocol_type == PROTOCOL_TYPE

    def is_subscribed(self, topic: str) -> bool:
        """To be on the safe side, also where that is not known."""
        return self.subscribed_topics is None or topic in self.subscribed_topics

    @property
    def is_hollow(self) -> bool:
        """Nothing of it is in the log or to be remembered."""
        return (
            self.state is EMPTY
            and not self.is_stored
            and not self.pending
            and not self.offsets.has_any
            and not self.offsets.in_flight
        )

    def described(self) -> DescribedGroup:
        protocol_name = self.protocol_name if self.state is STABLE else None
        return DescribedGroup(
            self.group_id,
            ErrorCode.NONE,
            self.state.value,
            self.protocol_type or "",
            protocol_name or "",
            tuple(member.described(protocol_name) for member in self.members.values()),
        )

    def listed(self) -> ListedGroup:
        return ListedGroup(self.group_id, self.protocol_type or "", self.state.value)

    def check(self) -> None:
        """The invariants that cost nothing to look at; tests have the others."""
        count = len(self.members)
        wrong = (
            (self.state is EMPTY and count > 0)
            or (count == 0 and self.state not in (EMPTY, PREPARING, DEAD))
            or (self.leader_id not in self.members if count else self.leader_id is not None)
            or not 0 <= self.awaiting_join <= count
            or len(self.pending_sync) > count
        )
        if wrong:
            raise InvariantViolation(f"impossible: {self!r}")

    def __repr__(self) -> str:
        members = ", ".join(self._shown_members())
        pending = f" pending={list(self.pending)}" if self.pending else ""
        return f"{self.group_id}: {self.state.value} generation={self.generation} [{members}]{pending}"

    def _shown_members(self) -> Iterator[str]:
        for member_id, member in self.members.items():
            yield f"{'*' if member_id == self.leader_id else ''}{member!r}"

    def _put(self, member: Member) -> None:
        if member.group_instance_id is not None:
            self.static_ids[member.group_instance_id] = member.member_id
        self.members[member.member_id] = member
        self._count(member.protocols, 1)

    def _count(self, protocols: Collection[str], change: int) -> None:
        for name in protocols:
            count = self._support.get(name, 0) + change
            if count:
                self._support[name] = count
            else:
                del self._support[name]

    def _subscriptions(self) -> frozenset[str] | None:
        if not self.is_consumers:
            return None
        found: set[str] = set()
        for member in self.members.values():
            topics = subscribed_topics(member.metadata(self.protocol_name))
            if topics is None:
                return None
            found.update(topics)
        return frozenset(found)

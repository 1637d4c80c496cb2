"""What the parts of a shard share: its groups, its timers, the moment, and the effects of the call being served."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from zkbroker.coordinator.effects import Answer, Effect, Effects, GroupAnswer, Log, Now, Write
from zkbroker.coordinator.fields import shown
from zkbroker.coordinator.group import Group
from zkbroker.coordinator.members import Member
from zkbroker.coordinator.records import GroupRecord, group_key, group_value
from zkbroker.coordinator.settings import GroupSettings
from zkbroker.coordinator.timers import MemberTimer, Timers
from zkbroker.model.errors import ErrorCode

Outcome = Callable[[ErrorCode, int], None]
"""Told once how a write ended: the error of the append, or NONE when it is replicated; and the write's id."""


class ShardContext:
    def __init__(self, settings: GroupSettings, new_uuid: Callable[[], str]) -> None:
        self.settings = settings
        self.new_uuid = new_uuid
        self.groups: dict[str, Group] = {}
        self.timers = Timers()
        self.now = Now(0.0, 0)
        self.open_transactions: dict[int, set[str]] = {}
        """Producer id → the groups whose offsets its open transaction commits."""
        self.order = 0
        """Of the record replayed, or the write made, last: what is in the log comes in this order."""
        self._effects: list[Effect] = []
        self._outcomes: dict[int, Outcome] = {}
        self.is_closed = False

    # --- effects ---

    def answer(self, ticket: int | None, answer: GroupAnswer) -> None:
        if ticket is not None:
            self._effects.append(Answer(ticket, answer))

    def log(self, line: str) -> None:
        self._effects.append(Log(line))

    def write(self, records: Iterable[GroupRecord], outcome: Outcome) -> int:
        """Its place in the order. The outcome is told later."""
        if not self.is_closed:
            self.order += 1
            self._outcomes[self.order] = outcome
            self._effects.append(Write(self.order, tuple(records)))
        return self.order

    def written(self, write_id: int, error: ErrorCode) -> None:
        outcome = self._outcomes.pop(write_id, None)
        if outcome is not None:
            outcome(error, write_id)

    def close(self) -> None:
        """Nothing more is written; what is being written fails, as far as those who wait for it are concerned."""
        self.is_closed = True
        while self._outcomes:
            self.written(next(iter(self._outcomes)), ErrorCode.NOT_LEADER_OR_FOLLOWER)

    def take_effects(self) -> Effects:
        effects = tuple(self._effects)
        self._effects.clear()
        return effects

    # --- timers ---

    def expect(self, group: Group, member: Member) -> None:
        """The member was heard of: its session begins anew."""
        self.expect_within(group, member.member_id, member.session_timeout_ms)

    def expect_within(self, group: Group, member_id: str, timeout_ms: int) -> None:
        self.timers.set(MemberTimer(group.group_id, member_id), self.deadline(timeout_ms))

    def expect_no_more(self, group: Group, member_id: str) -> None:
        self.timers.cancel(MemberTimer(group.group_id, member_id))

    def deadline(self, timeout_ms: int) -> float:
        return self.now.monotonic + max(timeout_ms, 0) / 1000

    # --- groups ---

    def create(self, group_id: str) -> Group:
        group = self.groups[group_id] = Group(group_id, self.now.wall_ms)
        return group

    def drop_if_hollow(self, group_id: str) -> None:
        """A group that was made for a request which came to nothing."""
        group = self.groups.get(group_id)
        if group is not None and group.is_hollow:
            del self.groups[group_id]

    def store(self, group: Group, assignments: dict[str, bytes], outcome: Outcome) -> None:
        """Write the group's record as it is now, with these assignments by member id."""
        group.is_stored = True
        record = GroupRecord(group_key(group.group_id), group_value(group.stored(assignments)))
        self.write((record,), outcome)


def said(group: Group) -> str:
    """The group in a log line."""
    return f"group {shown(group.group_id)}"

"""A rebalance, from the wish for one to the new generation; and who is left out of it because time is up."""

from __future__ import annotations

from zkbroker.coordinator.context import ShardContext, said
from zkbroker.coordinator.fields import shown
from zkbroker.coordinator.group import Group, InitialDelay
from zkbroker.coordinator.members import Member
from zkbroker.coordinator.states import COMPLETING, EMPTY, PREPARING, STABLE, TRANSITIONS, GroupEvent
from zkbroker.coordinator.timers import JoinTimer, SyncTimer
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import JoinAnswer, SyncAnswer

RETRY_MS_MIN = 1_000
"""When nobody has joined in time: how often is looked again at least, whatever rebalance timeouts members ask for."""


class Rebalances:
    def __init__(self, context: ShardContext) -> None:
        self._context = context

    def want(self, group: Group, reason: str) -> None:
        """Unless one is under way, or the group is dead."""
        if (group.state, GroupEvent.REBALANCE_WANTED) in TRANSITIONS:
            self._prepare(group, reason)

    def _prepare(self, group: Group, reason: str) -> None:
        context = self._context
        if group.state is COMPLETING:
            self.refuse_assignment(group, ErrorCode.REBALANCE_IN_PROGRESS)
        group.pending_sync.clear()
        context.timers.cancel(SyncTimer(group.group_id))
        context.log(f"{said(group)} rebalances after generation {group.generation}: {reason}")
        was_empty = group.state is EMPTY
        group.step(GroupEvent.REBALANCE_WANTED, context.now.wall_ms)
        if was_empty:
            delay_ms = context.settings.initial_rebalance_delay_ms
            group.is_put_off_again = False
            group.initial_delay = InitialDelay(delay_ms, max(group.rebalance_timeout_ms - delay_ms, 0))
            context.timers.set(JoinTimer(group.group_id), context.deadline(delay_ms))
        else:
            context.timers.set(JoinTimer(group.group_id), context.deadline(group.rebalance_timeout_ms))
            self.complete_if_joined(group)

    def complete_if_joined(self, group: Group) -> None:
        """After the initial delay nobody is waited for who has not asked to join."""
        if group.state is PREPARING and group.initial_delay is None and group.has_all_joined:
            self._complete(group)

    def join_time_is_up(self, group: Group) -> None:
        if group.state is not PREPARING:
            return
        initial = group.initial_delay
        if initial is None or not group.is_put_off_again or initial.remaining_ms == 0:
            self._complete(group)
            return
        group.is_put_off_again = False
        delay_ms = min(self._context.settings.initial_rebalance_delay_ms, initial.remaining_ms)
        group.initial_delay = InitialDelay(delay_ms, max(initial.remaining_ms - initial.delay_ms, 0))
        self._context.timers.set(JoinTimer(group.group_id), self._context.deadline(delay_ms))

    def _complete(self, group: Group) -> None:
        context = self._context
        group.initial_delay = None
        context.timers.cancel(JoinTimer(group.group_id))
        for member in group.not_joined():
            if member.group_instance_id is None:
                context.log(f"{said(group)} goes on without {shown(member.member_id)}, who did not join in time")
                self._forget(group, member)
        if not group.elect_joined_leader() and group.members:
            # Only static members are left, and none has joined: their sessions decide.
            timeout_ms = max(group.rebalance_timeout_ms, RETRY_MS_MIN)
            context.timers.set(JoinTimer(group.group_id), context.deadline(timeout_ms))
            return
        group.begin_generation(context.now.wall_ms)
        if group.state is EMPTY:
            context.log(f"{said(group)} is empty in generation {group.generation}")
            # Nobody waits for this. Were it lost, the next coordinator would take the members of the generation before
            # for alive, and give them up when their sessions end.
            context.store(group, {}, lambda error, _: self._empty_stored(group, error))
            return
        context.log(
            f"{said(group)} has generation {group.generation} of {len(group.members)} members with protocol "
            f"{shown(group.protocol_name or '')}, led by {shown(group.leader_id or '')}"
        )
        for member in group.members.values():
            context.answer(group.take_join(member), self.current(group, member))
            context.expect(group, member)
            member.is_new = False
        group.pending_sync.update(group.members)
        context.timers.set(SyncTimer(group.group_id), context.deadline(group.rebalance_timeout_ms))

    def _empty_stored(self, group: Group, error: ErrorCode) -> None:
        if error:
            self._context.log(f"{said(group)}: its record without members could not be written: {error.name}")

    def sync_time_is_up(self, group: Group) -> None:
        """Who was told of the generation and never asked for an assignment is not there."""
        if group.state not in (COMPLETING, STABLE) or not group.pending_sync:
            return
        gone = sorted(group.pending_sync)
        for member_id in gone:
            self._forget(group, group.members[member_id])
        self.want(group, f"no SyncGroup came from {', '.join(map(shown, gone[:10]))}")

    def synced(self, group: Group, member: Member) -> None:
        group.pending_sync.discard(member.member_id)
        if not group.pending_sync:
            self._context.timers.cancel(SyncTimer(group.group_id))

    def member_time_is_up(self, group: Group, member_id: str) -> None:
        member = group.members.get(member_id)
        if member is None:
            group.remove(member_id)
            self.complete_if_joined(group)
        elif member.is_new or not member.is_waiting:
            self.remove(group, member, f"{shown(member_id)} was not heard of for its session timeout")

    def remove(self, group: Group, member: Member, reason: str) -> None:
        """The member left, or is taken for dead."""
        self._forget(group, member)
        if group.state is PREPARING:
            self._context.log(f"{said(group)}: {reason}")
        self.want(group, reason)
        self.complete_if_joined(group)

    def _forget(self, group: Group, member: Member) -> None:
        """If it is alive after all, it is told to join anew."""
        group.remove(member.member_id)
        self._context.expect_no_more(group, member.member_id)
        self._context.answer(member.join_ticket, JoinAnswer(ErrorCode.UNKNOWN_MEMBER_ID))
        self._context.answer(member.sync_ticket, SyncAnswer(ErrorCode.UNKNOWN_MEMBER_ID))
        member.join_ticket = member.sync_ticket = None

    def current(self, group: Group, member: Member, *, with_members: bool = True) -> JoinAnswer:
        """What a member is told of this generation; the leader also who the members are."""
        is_leader = group.leader_id == member.member_id
        return JoinAnswer(
            ErrorCode.NONE,
            member.member_id,
            group.generation,
            group.protocol_type,
            group.protocol_name,
            group.leader_id or "",
            group.joined_members() if is_leader and with_members else (),
        )

    def assign(self, group: Group) -> None:
        """Everybody who waits for an assignment gets it."""
        for member in group.members.values():
            answer = SyncAnswer(ErrorCode.NONE, group.protocol_type, group.protocol_name, member.assignment)
            self._answer_sync(group, member, answer)

    def refuse_assignment(self, group: Group, error: ErrorCode) -> None:
        """There is none in this generation."""
        for member in group.members.values():
            member.assignment = b""
            self._answer_sync(group, member, SyncAnswer(error))

    def _answer_sync(self, group: Group, member: Member, answer: SyncAnswer) -> None:
        if member.sync_ticket is not None:
            self._context.answer(member.sync_ticket, answer)
            member.sync_ticket = None
            self._context.expect(group, member)  # its session may have ended while it waited, which did not count

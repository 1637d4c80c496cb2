"""SyncGroup, Heartbeat and LeaveGroup: what members of a group ask for once they have joined."""

from __future__ import annotations

from zkbroker.coordinator.context import ShardContext
from zkbroker.coordinator.fields import shown
from zkbroker.coordinator.group import Group
from zkbroker.coordinator.members import Member
from zkbroker.coordinator.rebalance import Rebalances
from zkbroker.coordinator.states import COMPLETING, DEAD, HEARTBEAT, STORE_GROUP_ERRORS, SYNC, GroupEvent, Step
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    Heartbeat,
    LeaveAnswer,
    LeaveGroup,
    LeavingMember,
    LeftMember,
    SyncAnswer,
    SyncGroup,
)


class Membership:
    def __init__(self, context: ShardContext, rebalances: Rebalances) -> None:
        self._context = context
        self._rebalances = rebalances

    # --- SyncGroup ---

    def sync(self, ticket: int, request: SyncGroup) -> None:
        group = self._context.groups.get(request.group_id)
        if group is None:
            self._context.answer(ticket, SyncAnswer(ErrorCode.UNKNOWN_MEMBER_ID))
            return
        error = self._sync_error(group, request)
        if error:
            self._context.answer(ticket, SyncAnswer(error))
            return
        member = group.members[request.member_id]
        self._rebalances.synced(group, member)
        if SYNC[group.state] is Step.TELL_CURRENT:
            self._context.expect(group, member)
            answer = SyncAnswer(ErrorCode.NONE, group.protocol_type, group.protocol_name, member.assignment)
            self._context.answer(ticket, answer)
            return
        # One connection asks once at a time: the client that sent the older request has given it up.
        self._context.answer(member.sync_ticket, SyncAnswer(ErrorCode.REBALANCE_IN_PROGRESS))
        member.sync_ticket = ticket
        # The leader may ask again while its first answer is being stored. That one counts: were a second written as
        # well, the next coordinator would go by another assignment than the members.
        if group.leader_id == member.member_id and group.storing_generation != group.generation:
            self._store_assignment(group, request)

    def _sync_error(self, group: Group, request: SyncGroup) -> ErrorCode:
        step = SYNC[group.state]
        if group.state is DEAD and isinstance(step, ErrorCode):
            return step
        error = group.refusal(request.member_id, request.group_instance_id)
        if error:
            return error
        if request.generation != group.generation:
            return ErrorCode.ILLEGAL_GENERATION
        if request.protocol_type is not None and request.protocol_type != group.protocol_type:
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        if request.protocol_name is not None and request.protocol_name != group.protocol_name:
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        return step if isinstance(step, ErrorCode) else ErrorCode.NONE

    def _store_assignment(self, group: Group, request: SyncGroup) -> None:
        """Members that the leader forgot get nothing; whom it made up, neither."""
        assignments = {name: assignment for name, assignment in request.assignments if name in group.members}
        generation = group.storing_generation = group.generation

        def stored(error: ErrorCode, _: int) -> None:
            if group.storing_generation == generation:
                group.storing_generation = -1
            if group.state is not COMPLETING or group.generation != generation:
                return  # a rebalance began meanwhile, and refused what was parked
            if error:
                told = STORE_GROUP_ERRORS.get(error, error)
                self._rebalances.refuse_assignment(group, told)
                self._rebalances.want(group, f"the assignment could not be stored: {error.name}")
                return
            for member_id, member in group.members.items():
                member.assignment = assignments.get(member_id, b"")
            group.step(GroupEvent.ASSIGNMENT_STORED, self._context.now.wall_ms)
            self._rebalances.assign(group)

        self._context.store(group, assignments, stored)

    # --- Heartbeat ---

    def heartbeat(self, ticket: int, request: Heartbeat) -> None:
        self._context.answer(ticket, self._heartbeat(request))

    def _heartbeat(self, request: Heartbeat) -> ErrorCode:
        group = self._context.groups.get(request.group_id)
        if group is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if group.state is DEAD:
            return HEARTBEAT[DEAD]
        error = group.refusal(request.member_id, request.group_instance_id)
        if error:
            return error
        if request.generation != group.generation:
            return ErrorCode.ILLEGAL_GENERATION
        self._context.expect(group, group.members[request.member_id])
        return HEARTBEAT[group.state]

    # --- LeaveGroup ---

    def leave(self, ticket: int, request: LeaveGroup) -> None:
        group = self._context.groups.get(request.group_id)
        if group is not None and group.state is DEAD:
            self._context.answer(ticket, LeaveAnswer(ErrorCode.COORDINATOR_NOT_AVAILABLE))
            return
        rows = tuple(
            LeftMember(
                leaving.member_id,
                leaving.group_instance_id,
                ErrorCode.UNKNOWN_MEMBER_ID if group is None else self._leave(group, leaving),
            )
            for leaving in request.members
        )
        self._context.answer(ticket, LeaveAnswer(ErrorCode.NONE, rows))

    def _leave(self, group: Group, leaving: LeavingMember) -> ErrorCode:
        member_id, instance_id = leaving.member_id, leaving.group_instance_id
        if not member_id:  # an administrator removes a static member, whoever it is by now
            found = group.static_ids.get(instance_id) if instance_id is not None else None
            if found is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            self._remove(group, group.members[found], leaving.reason)
            return ErrorCode.NONE
        if member_id in group.pending:
            group.remove(member_id)
            self._context.expect_no_more(group, member_id)
            self._rebalances.complete_if_joined(group)
            return ErrorCode.NONE
        error = group.refusal(member_id, instance_id)
        if not error:
            self._remove(group, group.members[member_id], leaving.reason)
        return error

    def _remove(self, group: Group, member: Member, reason: str | None) -> None:
        why = f" ({shown(reason)})" if reason else ""
        self._rebalances.remove(group, member, f"{shown(member.member_id)} left{why}")

"""JoinGroup: who becomes a member, under which id, and whether all must rebalance for it."""

from __future__ import annotations

from collections import deque

from zkbroker.coordinator.context import ShardContext
from zkbroker.coordinator.fields import fits, shown
from zkbroker.coordinator.group import Group
from zkbroker.coordinator.members import Member, member_of, protocols_of
from zkbroker.coordinator.rebalance import Rebalances
from zkbroker.coordinator.states import (
    COMPLETING,
    CURRENT_JOIN,
    DEAD,
    PREPARING,
    STABLE,
    STATIC_JOIN,
    STORE_GROUP_ERRORS,
    Step,
)
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import NO_MEMBER, JoinAnswer, JoinGroup, SyncAnswer
from zkbroker.model.limits import GROUP_MEMBER_NAME_LENGTH_MAX, GROUP_PENDING_MEMBERS_MAX

NEW_MEMBER_TIMEOUT_MS = 5 * 60 * 1000
"""A new member's JoinGroup is parked while it does not know its id and cannot send heartbeats. If its client is gone
(and perhaps asks again as somebody else), it is given up after this; a living one would ask again."""


class Joins:
    def __init__(self, context: ShardContext, rebalances: Rebalances) -> None:
        self._context = context
        self._rebalances = rebalances
        self._given_out: deque[tuple[str, str]] = deque()
        """The last (group id, member id) of those that members were given to join with."""

    def join(self, ticket: int, request: JoinGroup) -> None:
        context, settings = self._context, self._context.settings
        if not settings.session_timeout_ms_min <= request.session_timeout_ms <= settings.session_timeout_ms_max:
            self._refuse(ticket, ErrorCode.INVALID_SESSION_TIMEOUT, request.member_id)
            return
        if not _is_storable(request):
            self._refuse(ticket, ErrorCode.INVALID_REQUEST, request.member_id)
            return
        group = context.groups.get(request.group_id)
        if group is None:
            if request.member_id:
                self._refuse(ticket, ErrorCode.UNKNOWN_MEMBER_ID, request.member_id)
                return
            group = context.create(request.group_id)
        if group.state is DEAD:
            self._refuse(ticket, ErrorCode.COORDINATOR_NOT_AVAILABLE, request.member_id)
            return
        if not self._has_room(group, request):
            if request.member_id:
                group.remove(request.member_id)
                context.expect_no_more(group, request.member_id)
            self._refuse(ticket, ErrorCode.GROUP_MAX_SIZE_REACHED)
        elif not group.supports(request.protocol_type, {protocol.name for protocol in request.protocols}):
            self._refuse(ticket, ErrorCode.INCONSISTENT_GROUP_PROTOCOL, request.member_id)
        elif request.member_id:
            self._join_known(group, ticket, request)
        else:
            self._join_new(group, ticket, request)
        self._rebalances.complete_if_joined(group)

    def _has_room(self, group: Group, request: JoinGroup) -> bool:
        """While a group rebalances, those who joined count: the last to join are left out if it has become too large
        (``group.max.size`` was lowered). Else all members count, for they have all joined. A static member that comes
        back takes no more room than before (in Kafka it has to wait for its own session to end)."""
        limit = self._context.settings.members_max
        member_id: str | None = request.member_id
        if not member_id and request.group_instance_id is not None:
            member_id = group.static_ids.get(request.group_instance_id)
        member = group.members.get(member_id) if member_id is not None else None
        if group.state is PREPARING:
            return (member is not None and member.join_ticket is not None) or group.awaiting_join < limit
        if group.state in (COMPLETING, STABLE):
            return member is not None or len(group.members) < limit
        return True

    def _join_new(self, group: Group, ticket: int, request: JoinGroup) -> None:
        context = self._context
        instance_id = request.group_instance_id
        named_after = request.client.client_id if instance_id is None else instance_id
        member_id = f"{named_after[:GROUP_MEMBER_NAME_LENGTH_MAX]}-{context.new_uuid()}"
        if instance_id is not None and instance_id in group.static_ids:
            self._replace(group, ticket, request, instance_id, member_id)
        elif instance_id is None and request.requires_known_member_id:
            group.pending[member_id] = None
            context.expect_within(group, member_id, request.session_timeout_ms)
            self._refuse(ticket, ErrorCode.MEMBER_ID_REQUIRED, member_id)
            self._given_out.append((group.group_id, member_id))
            if len(self._given_out) > GROUP_PENDING_MEMBERS_MAX:
                self._take_back(*self._given_out.popleft())
        else:
            self._add(group, ticket, request, member_id)

    def _take_back(self, group_id: str, member_id: str) -> None:
        """Unless it was used."""
        group = self._context.groups.get(group_id)
        if group is not None and member_id in group.pending:
            group.remove(member_id)
            self._context.expect_no_more(group, member_id)
            self._rebalances.complete_if_joined(group)
            self._context.drop_if_hollow(group_id)

    def _join_known(self, group: Group, ticket: int, request: JoinGroup) -> None:
        if request.member_id in group.pending and request.group_instance_id is None:
            self._add(group, ticket, request, request.member_id)
            return
        error = group.refusal(request.member_id, request.group_instance_id)
        steps = CURRENT_JOIN[group.state]
        if not error and isinstance(steps, ErrorCode):
            error = steps
        if error or isinstance(steps, ErrorCode):
            self._refuse(ticket, error, request.member_id)
            return
        member = group.members[request.member_id]
        protocols = protocols_of(request.protocols)
        is_changed = list(protocols.items()) != list(member.protocols.items())
        is_leader = group.leader_id == member.member_id
        if steps[2 if is_changed else int(is_leader)] is Step.TELL_CURRENT:
            self._context.answer(ticket, self._rebalances.current(group, member))
            return
        group.update(member, *_offered(request))
        # One connection asks once at a time: the client that sent the older request has given it up.
        self._context.answer(member.join_ticket, JoinAnswer(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, member.member_id))
        group.park_join(member, ticket)
        what = "changed its protocols" if is_changed else "asked for it"
        self._rebalances.want(group, f"{shown(member.member_id)} {what}{_reason(request)}")

    def _add(self, group: Group, ticket: int, request: JoinGroup, member_id: str) -> None:
        member = member_of(request, member_id)
        member.is_new = True
        if group.state is PREPARING and group.generation == 0:
            group.is_put_off_again = True
        if not group.members:
            group.protocol_type = request.protocol_type
        group.add(member, ticket)
        self._context.expect_within(group, member_id, NEW_MEMBER_TIMEOUT_MS)
        self._rebalances.want(group, f"{shown(member_id)} is new{_reason(request)}")

    def _replace(self, group: Group, ticket: int, request: JoinGroup, instance_id: str, member_id: str) -> None:
        """A static member's process was started again: it takes the place of the one before (KIP-345)."""
        context = self._context
        former_id = group.static_ids[instance_id]
        member = group.members[former_id]
        former_leader = group.leader_id or ""
        former = (member.protocols, member.rebalance_timeout_ms, member.session_timeout_ms)
        context.answer(group.take_join(member), JoinAnswer(ErrorCode.FENCED_INSTANCE_ID, former_id))
        context.answer(member.sync_ticket, SyncAnswer(ErrorCode.FENCED_INSTANCE_ID))
        member.sync_ticket = None
        self._rename(group, member, member_id)
        group.update(member, *_offered(request))
        group.park_join(member, ticket)
        context.expect_within(group, member_id, NEW_MEMBER_TIMEOUT_MS if member.is_new else member.session_timeout_ms)
        step = STATIC_JOIN[group.state]
        if step is Step.STORE and group.chosen_protocol() == group.protocol_name:
            generation = group.generation

            def stored(error: ErrorCode, _: int) -> None:
                if member.join_ticket != ticket:
                    return  # answered meanwhile: a rebalance completed, or it was replaced or removed
                if group.state is not STABLE or group.generation != generation:
                    return  # it has joined the rebalance that is under way
                group.take_join(member)
                if error:
                    group.update(member, *former)
                    self._rename(group, member, former_id)
                    answer = self._not_replaced(group, former_leader, error)
                else:
                    answer = self._replaced(group, member, former_leader, request)
                context.expect(group, member)
                context.answer(ticket, answer)

            context.store(group, {each.member_id: each.assignment for each in group.members.values()}, stored)
        elif step is not Step.PARK:
            self._rebalances.want(group, f"static member {shown(instance_id)} came back{_reason(request)}")

    def _replaced(self, group: Group, member: Member, former_leader: str, request: JoinGroup) -> JoinAnswer:
        """A leader that came back must not assign: nobody waits for it. From version 9 on it can be told so (KIP-814);
        before, it is told that its former self leads."""
        if not request.supports_skipping_assignment:
            return self._rebalances.current(group, member, with_members=False)._replace(leader_id=former_leader)
        current = self._rebalances.current(group, member)
        return current._replace(skip_assignment=group.leader_id == member.member_id)

    def _not_replaced(self, group: Group, former_leader: str, error: ErrorCode) -> JoinAnswer:
        return JoinAnswer(
            STORE_GROUP_ERRORS.get(error, error),
            NO_MEMBER,
            group.generation,
            group.protocol_type,
            group.protocol_name,
            former_leader,
        )

    def _rename(self, group: Group, member: Member, member_id: str) -> None:
        self._context.expect_no_more(group, member.member_id)
        group.rename(member, member_id)

    def _refuse(self, ticket: int, error: ErrorCode, member_id: str = NO_MEMBER) -> None:
        self._context.answer(ticket, JoinAnswer(error, member_id))


def _is_storable(request: JoinGroup) -> bool:
    """Whether the group's record can hold it: flexible versions allow longer strings."""
    instance = () if request.group_instance_id is None else (request.group_instance_id,)
    names = (request.client.client_id, request.client.host, request.protocol_type, *instance)
    return all(map(fits, names)) and all(fits(protocol.name) for protocol in request.protocols)


def _offered(request: JoinGroup) -> tuple[dict[str, bytes], int, int]:
    return protocols_of(request.protocols), request.rebalance_timeout_ms, request.session_timeout_ms


def _reason(request: JoinGroup) -> str:
    """What the client says (KIP-800)."""
    return f" ({shown(request.reason)})" if request.reason else ""

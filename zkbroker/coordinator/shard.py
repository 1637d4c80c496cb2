"""The coordinator of all groups of one partition of ``__consumer_offsets``, during one leader epoch.

How the shell drives it:

1. The broker becomes leader of the partition: make a shard. Until it is loaded it answers every request by itself, as
   Kafka does (COORDINATOR_LOAD_IN_PROGRESS, a heartbeat NONE).
2. Give it every record of the log in order: ``replay(key, value, producer_id)``, the producer id only for records of
   transactional batches, and ``transaction_ended`` for their markers. In slices as long as it likes. No bytes make it
   raise: what is not understood is passed over and counted. Then ``take_up``, again and again until it says True, in
   slices as well; when all of it may be shown ``expect_members``, likewise; then ``loaded``, once (it does what is
   left).
3. Every request goes to ``handle`` with a ticket of the shell's choice, unique for the life of the shard. It returns
   effects in order: ``Answer`` (now, or by a later call: joins, syncs and whatever waits for a write), ``Write``, and
   ``Log`` lines. A request whose client is gone needs no word: drop the answer.
4. Append each ``Write`` as one batch with ``offsets.commit.required.acks``, in the order given, even when several are
   under way. Tell the outcome of each, once, with ``written``: NONE when it is replicated, REQUEST_TIMED_OUT after
   ``offsets.commit.timeout.ms``, else the error of the append. Successes come in the order of the writes (the high
   watermark rises in that order); failures at any time. Before the answers in its effects are sent, the shell makes
   sure that this broker still is the leader in the shard's epoch, else it unloads.
5. After every call look at ``next_deadline`` and call ``tick`` then (a little late does no harm, early is harmless).
6. Every ``offsets.retention.check.interval.ms``: ``expire_offsets`` for each of ``group_ids``, in slices. When topics
   were deleted: note the ``point``, then ``forget_topics``, likewise.
7. The broker is no longer leader: ``unload`` gives the answers for all that is parked. Whatever is called after that
   returns nothing; throw the shard away.

Without a shard for a group's partition the answer is ``refused(request, NOT_COORDINATOR)``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from zkbroker.coordinator.answers import is_legal_group_id, refused, refused_while_loading
from zkbroker.coordinator.committing import Commits
from zkbroker.coordinator.context import ShardContext
from zkbroker.coordinator.effects import Answer, Effects, GroupRequest, Now
from zkbroker.coordinator.group import Group
from zkbroker.coordinator.joining import Joins
from zkbroker.coordinator.loading import Loading
from zkbroker.coordinator.membership import Membership
from zkbroker.coordinator.rebalance import Rebalances
from zkbroker.coordinator.settings import GroupSettings
from zkbroker.coordinator.states import GroupEvent
from zkbroker.coordinator.timers import JoinTimer, MemberTimer, SyncTimer
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    CommitOffsets,
    DeleteGroup,
    DeleteOffsets,
    DescribedGroup,
    DescribeGroup,
    FetchOffsets,
    Heartbeat,
    JoinAnswer,
    JoinGroup,
    LeaveGroup,
    ListedGroup,
    SyncAnswer,
    SyncGroup,
)

GROUPS_TAKEN_UP_AT_ONCE = 5
"""By one call of ``take_up``: of ten members each, a quarter of a millisecond."""
MEMBERS_EXPECTED_AT_ONCE = 50
"""By one call of ``expect_members``, or those of one group: a quarter of a millisecond."""
GROUP_TYPE = "classic"
DEAD_GROUP = "Dead"


class GroupShard:
    """See the top of this file."""

    def __init__(self, settings: GroupSettings, new_uuid: Callable[[], str]) -> None:
        """``new_uuid`` makes what tells member ids apart: ``str(uuid.uuid4())``."""
        self._context = ShardContext(settings, new_uuid)
        self._rebalances = Rebalances(self._context)
        self._joins = Joins(self._context, self._rebalances)
        self._membership = Membership(self._context, self._rebalances)
        self._commits = Commits(self._context)
        self._loading: Loading | None = Loading()
        self._taken_up: list[Group] = []
        """Those with members, whose sessions did not begin yet."""
        self._too_large: list[Group] = []
        self.malformed = 0
        """Records that were passed over while loading, because they could not be understood."""
        self.foreign = 0
        """… because later Kafkas write them for other purposes."""

    @property
    def settings(self) -> GroupSettings:
        return self._context.settings

    @settings.setter
    def settings(self, settings: GroupSettings) -> None:
        """At any time; what is under way goes on as it began."""
        self._context.settings = settings

    # --- loading ---

    def replay(self, key: bytes | None, value: bytes | None, producer_id: int = -1) -> None:
        """One record, in the order of the log."""
        if self._loading is not None:
            self._context.order += 1
            self._loading.replay(key, value, producer_id, self._context.order)

    def transaction_ended(self, producer_id: int, *, is_committed: bool) -> None:
        """The marker of a transaction, also of one that ends after loading: its offsets count from now on, or never."""
        if self._loading is not None:
            self._loading.transaction_ended(producer_id, is_committed=is_committed)
        for group_id in self._context.open_transactions.pop(producer_id, ()):
            group = self._context.groups.get(group_id)
            if group is not None:
                group.offsets.transaction_ended(producer_id, is_committed=is_committed)

    def take_up(self) -> bool:
        """Make groups of what was replayed, some at a time. True when all are made."""
        context = self._context
        if self._loading is not None:
            for _ in range(GROUPS_TAKEN_UP_AT_ONCE):
                group = self._loading.take()
                if group is None:
                    return True
                context.groups[group.group_id] = group
                if group.members:
                    self._taken_up.append(group)
                for producer_id in group.offsets.transactional:
                    context.open_transactions.setdefault(producer_id, set()).add(group.group_id)
        return self._loading is None

    def expect_members(self, now: Now) -> bool:
        """Members have their session timeout, from now, to be heard of: those of some groups at a time. True when all
        are expected."""
        context = self._context
        context.now = now
        count = 0
        while self._taken_up and count < MEMBERS_EXPECTED_AT_ONCE:
            group = self._taken_up.pop()
            count += len(group.members)
            for member in group.members.values():
                context.expect(group, member)
            if len(group.members) > context.settings.members_max:
                self._too_large.append(group)
        return not self._taken_up

    def loaded(self, now: Now) -> Effects:
        """All is replayed: requests are served."""
        context, loading = self._context, self._loading
        if loading is None:
            return ()
        while not self.take_up() or not self.expect_members(now):
            pass
        self._loading = None
        self.malformed, self.foreign = loading.malformed, loading.foreign
        if loading.malformed:
            context.log(f"{loading.malformed} records of groups were passed over; the first: {loading.complaint}")
        context.now = now
        for group in self._too_large:
            self._rebalances.want(group, "it is larger than group.max.size")
        self._too_large.clear()
        return context.take_effects()

    @property
    def is_loaded(self) -> bool:
        return self._loading is None

    # --- serving ---

    def handle(self, ticket: int, request: GroupRequest, now: Now) -> Effects:
        """Answers at once or later."""
        context = self._context
        if context.is_closed:
            return ()
        if not is_legal_group_id(request):
            return (Answer(ticket, refused(request, ErrorCode.INVALID_GROUP_ID)),)
        if self._loading is not None:
            return (Answer(ticket, refused_while_loading(request)),)
        context.now = now
        self._serve(ticket, request)
        return self._settled(request.group_id)

    def _serve(self, ticket: int, request: GroupRequest) -> None:
        match request:
            case Heartbeat():
                self._membership.heartbeat(ticket, request)
            case CommitOffsets():
                self._commits.commit(ticket, request)
            case FetchOffsets():
                self._commits.fetch(ticket, request)
            case JoinGroup():
                self._joins.join(ticket, request)
            case SyncGroup():
                self._membership.sync(ticket, request)
            case LeaveGroup():
                self._membership.leave(ticket, request)
            case DescribeGroup():
                self._context.answer(ticket, self._described(request.group_id))
            case DeleteOffsets():
                self._commits.delete_offsets(ticket, request)
            case DeleteGroup():
                self._commits.delete_group(ticket, request)

    def _described(self, group_id: str) -> DescribedGroup:
        group = self._context.groups.get(group_id)
        return DescribedGroup(group_id, ErrorCode.NONE, DEAD_GROUP) if group is None else group.described()

    def written(self, write_id: int, error: ErrorCode, now: Now) -> Effects:
        """The outcome of a Write: releases what waited for it."""
        if self._context.is_closed:
            return ()
        self._context.now = now
        self._context.written(write_id, error)
        return self._context.take_effects()

    def next_deadline(self) -> float | None:
        """When to ``tick``, in monotonic seconds; None while there is nothing to wait for. Costs nothing to ask."""
        return self._context.timers.next_deadline()

    def tick(self, now: Now) -> Effects:
        """Sessions, rebalances and memberships whose time is up."""
        context = self._context
        if context.is_closed or self._loading is not None:
            return ()
        context.now = now
        for timer in context.timers.due(now.monotonic):
            group = context.groups.get(timer.group_id)
            if group is None:
                continue
            match timer:
                case MemberTimer():
                    self._rebalances.member_time_is_up(group, timer.member_id)
                case JoinTimer():
                    self._rebalances.join_time_is_up(group)
                case SyncTimer():
                    self._rebalances.sync_time_is_up(group)
            group.check()
            context.drop_if_hollow(timer.group_id)
        return context.take_effects()

    def list_groups(self, states: Collection[str] = (), types: Collection[str] = ()) -> tuple[ListedGroup, ...]:
        """Of the states and types named, in any case; all without names. Every group here is of type ``classic``."""
        if types and GROUP_TYPE not in {name.lower() for name in types}:
            return ()
        wanted = {state.lower() for state in states}
        groups = self._context.groups.values()
        return tuple(group.listed() for group in groups if not wanted or group.state.value.lower() in wanted)

    def group_ids(self) -> tuple[str, ...]:
        """Every group, for ``expire_offsets`` and ``forget_topics``."""
        return tuple(self._context.groups)

    def expire_offsets(self, group_id: str, now: Now) -> Effects:
        """Forget the group's offsets that are due (KIP-211), and the group when it has neither these nor members."""
        group = self._group_at(group_id, now)
        if group is None:
            return ()
        self._commits.expire(group)
        return self._context.take_effects()

    @property
    def point(self) -> int:
        """This moment, in the order of the log."""
        return self._context.order

    def forget_topics(self, topics: Mapping[str, int], group_id: str, now: Now) -> Effects:
        """Forget the group's offsets of topics that were deleted: which, and at what ``point``. What was committed
        since then is for the topic that was made anew under the name."""
        group = self._group_at(group_id, now)
        if group is None:
            return ()
        self._commits.forget_topics(group, topics)
        return self._context.take_effects()

    def _group_at(self, group_id: str, now: Now) -> Group | None:
        """The group, unless this shard loads or is unloaded."""
        if self._context.is_closed or self._loading is not None:
            return None
        self._context.now = now
        return self._context.groups.get(group_id)

    def unload(self) -> Effects:
        """Answers all that is parked with NOT_COORDINATOR; the shard is dead then."""
        context = self._context
        for group in context.groups.values():
            for member in group.members.values():
                join_ticket = group.take_join(member)
                context.answer(join_ticket, JoinAnswer(ErrorCode.NOT_COORDINATOR, member.member_id))
                context.answer(member.sync_ticket, SyncAnswer(ErrorCode.NOT_COORDINATOR))
                member.sync_ticket = None
            group.step(GroupEvent.UNLOADED, group.state_timestamp_ms)
        context.close()
        context.groups.clear()
        context.timers.clear()
        self._loading = None
        return context.take_effects()

    def _settled(self, group_id: str) -> Effects:
        group = self._context.groups.get(group_id)
        if group is not None:
            group.check()
            self._context.drop_if_hollow(group_id)
        return self._context.take_effects()

"""Whatever clients, time, disks and elections do: what was acknowledged stays, and what was asked is answered once.

The log here is what the next leader may have: every write that was told to have succeeded; of those under way or timed
out, any number of the first. A write that was refused is not in it.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.coordinator_scene import Scene, check_members
from zkbroker.coordinator.effects import Answer, Effects, Write
from zkbroker.coordinator.group import Group
from zkbroker.coordinator.records import (
    GroupKey,
    OffsetKey,
    group_key,
    read_group_value,
    read_key,
    read_offset_value,
)
from zkbroker.coordinator.states import COMPLETING, PREPARING, STABLE
from zkbroker.coordinator.timers import JoinTimer, MemberTimer, SyncTimer
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    CommitAnswer,
    CommitOffsets,
    JoinAnswer,
    JoinGroup,
    LeaveGroup,
    LeavingMember,
    SyncAnswer,
    SyncGroup,
)

CLIENTS = ("a", "b", "c", "d", "s0", "s1")
GROUPS = ("g", "h")
PLACES = (("t", 0), ("t", 1), ("u", 0))
PROTOCOLS = ({"range": b"1"}, {"range": b"2", "sticky": b"2"}, {"sticky": b"3", "range": b"3"}, {"other": b"4"})
REFUSALS = (ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.NOT_LEADER_OR_FOLLOWER)
REMOVED = None

clients = st.sampled_from(CLIENTS)
groups = st.sampled_from(GROUPS)


def home(client: str) -> str:
    """The group that it wants to be in."""
    return "h" if client == "d" else "g"


def instance(client: str) -> str | None:
    return f"instance-{client}" if client.startswith("s") else None


class History(Scene):
    """A scene that checks every effect against what was told before."""

    def __init__(self) -> None:
        self.in_log: dict[int, Write] = {}
        """Write id of this shard's life → what the log holds of it, in order."""
        self.older: list[Any] = []
        """The records of the lives before."""
        self.life = 0
        self.done: set[int] = set()
        """Writes of this life that succeeded."""
        self.applied: dict[tuple[str, tuple[str, int]], tuple[int, int | None]] = {}
        """(group, place) → order and offset of the last change that succeeded."""
        self.assigned: dict[tuple[str, int, str], bytes] = {}
        """(group, generation, member) → what SyncGroup told."""
        self.joined: dict[str, int] = {}
        """Group → the last generation told in this life."""
        self.synced: dict[str, int] = {}
        """… with an assignment, ever."""
        super().__init__(members_max=5)

    def took(self, effects: Effects) -> None:
        for effect in effects:
            if isinstance(effect, Write):
                self.in_log[effect.write_id] = effect
            elif isinstance(effect, Answer):
                client, request = self.asked[effect.ticket]
                answer = effect.answer
                if isinstance(request, JoinGroup) and isinstance(answer, JoinAnswer):
                    self.told_generation(request, answer)
                elif isinstance(request, SyncGroup) and isinstance(answer, SyncAnswer) and not answer.error:
                    self.told_assignment(request, answer)
                elif isinstance(request, CommitOffsets) and isinstance(answer, CommitAnswer):
                    assert len(answer.rows) == len(request.offsets)
                del client
        super().took(effects)

    def told_generation(self, request: JoinGroup, answer: JoinAnswer) -> None:
        if answer.error:
            return
        last = max(self.joined.get(request.group_id, 0), self.synced.get(request.group_id, 0))
        assert answer.generation >= last, f"generation {answer.generation} after {last}"
        self.joined[request.group_id] = answer.generation
        group = self.shard._context.groups[request.group_id]
        assert answer.member_id in group.members
        if answer.leader_id == answer.member_id:
            assert [row.member_id for row in answer.members] == list(group.members)
        else:
            assert not answer.members

    def told_assignment(self, request: SyncGroup, answer: SyncAnswer) -> None:
        key = (request.group_id, request.generation, request.member_id)
        assert self.assigned.setdefault(key, answer.assignment) == answer.assignment, f"two assignments for {key}"
        assert request.generation >= self.synced.get(request.group_id, 0)
        self.synced[request.group_id] = request.generation

    def outcome(self, write_id: int, error: ErrorCode) -> None:
        write = self.in_log[write_id]
        if not error:
            self.done.add(write_id)
            for record in write.records:
                self.apply(record.key, record.value, write_id)
        elif error is not ErrorCode.REQUEST_TIMED_OUT:
            del self.in_log[write_id]
        self.written(error, write_id)
        self.forget_what_is_gone()

    def apply(self, key: bytes, value: bytes | None, order: int) -> None:
        found = read_key(key)
        if isinstance(found, OffsetKey):
            place = (found.group_id, (found.topic, found.partition))
            if place not in self.applied or self.applied[place][0] < order:
                offset = REMOVED if value is None else read_offset_value(value).offset
                self.applied[place] = (order, offset)

    def forget_what_is_gone(self) -> None:
        """A group that was deleted begins anew with generation 1."""
        for group_id in GROUPS:
            if group_id not in self.shard.group_ids():
                self.joined.pop(group_id, None)
                self.synced.pop(group_id, None)
                for key in [key for key in self.assigned if key[0] == group_id]:
                    del self.assigned[key]

    def elect(self, kept: int) -> None:
        """The next leader has the writes that succeeded, and those before; and ``kept`` of the others."""
        surely = max(self.done, default=0)
        perhaps = [write_id for write_id in self.in_log if write_id > surely]
        survivors = [write_id for write_id in self.in_log if write_id <= surely] + perhaps[:kept]
        self.older += [record for write_id in survivors for record in self.in_log[write_id].records]
        self.took(self.shard.unload())
        assert set(self.asked) == set(self.answers), "somebody waits for ever"
        self.in_log.clear()
        self.done.clear()
        self.applied.clear()
        self.joined.clear()
        self.log = list(self.older)
        self.life += 1
        for order, record in enumerate(self.older):
            self.apply(record.key, record.value, order - len(self.older))
        self.load()
        self.forget_what_is_gone()
        assert self.shard.next_deadline() is None or self.shard.next_deadline() > self.time  # type: ignore[operator]

    def check(self) -> None:
        context = self.shard._context
        timers = set(context.timers._deadlines)
        for group in context.groups.values():
            check_members(group)
            timers -= self.check_timers(group)
        assert not timers, f"timers of nobody: {timers}"
        for group_id in GROUPS:
            expected = {
                place: offset
                for (owner, place), (_, offset) in self.applied.items()
                if owner == group_id and offset is not REMOVED
            }
            assert self.committed(group_id) == expected

    def check_timers(self, group: Group) -> set[Any]:
        deadline = self.shard._context.timers.deadline
        wanted: set[Any] = {MemberTimer(group.group_id, member_id) for member_id in group.pending}
        for member in group.members.values():
            timer = MemberTimer(group.group_id, member.member_id)
            if member.is_new or not member.is_waiting or deadline(timer) is not None:
                wanted.add(timer)
        if group.state is PREPARING:
            wanted.add(JoinTimer(group.group_id))
        if group.state in (COMPLETING, STABLE) and group.pending_sync:
            wanted.add(SyncTimer(group.group_id))
        for timer in wanted:
            assert deadline(timer) is not None, f"no {timer}: {group!r}"
        return wanted


class Groups(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.it = History()

    @rule(client=clients, protocols=st.sampled_from(PROTOCOLS), known=st.booleans(), fresh=st.booleans())
    def join(self, client: str, protocols: dict[str, bytes], known: bool, fresh: bool) -> None:
        self.ask_to_join(client, protocols, known=known, fresh=fresh)

    def ask_to_join(
        self, client: str, protocols: dict[str, bytes], *, known: bool = False, fresh: bool = False
    ) -> None:
        who = instance(client)
        self.it.join(
            client,
            home(client),
            protocols=protocols,
            member_id="" if fresh else None,
            known=known and who is None,
            instance=who,
            skip=fresh,
        )

    @rule(client=clients, content=st.binary(min_size=1, max_size=2), generation=st.sampled_from((None, None, None, 1)))
    def sync(self, client: str, content: bytes, generation: int | None) -> None:
        assign = {name: content + name.encode() for name in CLIENTS}
        self.it.sync(client, home(client), assign, generation=generation, instance=instance(client))

    @rule(members=st.sets(clients, min_size=1), content=st.binary(min_size=1, max_size=2), synced=st.booleans())
    def settle(self, members: set[str], content: bytes, synced: bool) -> None:
        """These do what a client does, until they have joined, or asked for an assignment."""
        for client in sorted(members):
            self.ask_to_join(client, PROTOCOLS[0])
            if self.it.ids.get(client) == "":
                self.ask_to_join(client, PROTOCOLS[0])
        self.it.wait(7)
        for client in sorted(members) if synced else ():
            self.sync(client, content, None)
        self.it.forget_what_is_gone()

    @rule(client=clients)
    def beat(self, client: str) -> None:
        self.it.beat(client, home(client), instance=instance(client))

    @rule(client=clients, by_instance=st.booleans())
    def leave(self, client: str, by_instance: bool) -> None:
        member_id = "" if by_instance else self.it.ids.get(client, "")
        self.it.ask(client, LeaveGroup(home(client), (LeavingMember(member_id, instance(client)),)))

    @rule(
        client=clients,
        offsets=st.dictionaries(st.sampled_from(PLACES), st.integers(0, 99), min_size=1),
        simple=st.sampled_from((None, None, "g", "h")),
    )
    def commit(self, client: str, offsets: dict[tuple[str, int], int], simple: str | None) -> None:
        if simple is None:
            self.it.commit(client, offsets, home(client))
        else:
            self.it.commit(client, offsets, simple, generation=-1)

    @rule(group=groups, place=st.sampled_from(PLACES))
    def delete_offset(self, group: str, place: tuple[str, int]) -> None:
        self.it.delete_offsets(place, group=group)

    @rule(group=groups)
    def delete_group(self, group: str) -> None:
        self.it.delete(group)
        self.it.forget_what_is_gone()

    @rule(group=groups, later_ms=st.sampled_from((0, 8 * 24 * 3600 * 1000)))
    def expire(self, group: str, later_ms: int) -> None:
        now = self.it.now._replace(wall_ms=self.it.now.wall_ms + later_ms)
        self.it.took(self.it.shard.expire_offsets(group, now))
        self.it.forget_what_is_gone()

    @rule(group=groups)
    def forget(self, group: str) -> None:
        self.it.took(self.it.shard.forget_topics({"t": self.it.shard.point}, group, self.it.now))

    @rule(seconds=st.sampled_from((0.1, 1.0, 3.0, 6.0, 6.0, 60.0, 400.0)))
    def wait(self, seconds: float) -> None:
        self.it.wait(seconds)
        self.it.forget_what_is_gone()

    @precondition(lambda self: self.it.outstanding)
    @rule(count=st.integers(1, 5))
    def succeed(self, count: int) -> None:
        for _ in range(min(count, len(self.it.outstanding))):
            self.it.outcome(min(self.it.outstanding), ErrorCode.NONE)

    @precondition(lambda self: self.it.outstanding)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        write_id = data.draw(st.sampled_from(sorted(self.it.outstanding)))
        self.it.outcome(write_id, data.draw(st.sampled_from((*REFUSALS, ErrorCode.REQUEST_TIMED_OUT))))

    @rule(kept=st.integers(0, 4))
    def elect(self, kept: int) -> None:
        self.it.elect(kept)

    @invariant()
    def holds(self) -> None:
        self.it.check()

    def teardown(self) -> None:
        """When all goes well again, everybody who is there is soon assigned."""
        it = self.it
        it.wait(700)
        while it.outstanding:
            it.outcome(min(it.outstanding), ErrorCode.NONE)
            it.wait(0)
        it.wait(700)
        it.ids.clear()
        for client in CLIENTS[:3]:
            it.join(client, member_id="", instance=instance(client))
        it.wait(6)
        for client in CLIENTS[:3]:
            it.sync(client, assign=dict.fromkeys(CLIENTS[:3], b"x"))
        while it.outstanding:
            it.outcome(min(it.outstanding), ErrorCode.NONE)
        described: Any = it.described()
        assert described.state == "Stable"
        assert {member.member_id for member in described.members} == {it.ids[client] for client in CLIENTS[:3]}
        assert all(member.assignment == b"x" for member in described.members)
        it.check()
        it.elect(0)
        assert it.described() == described
        (stored,) = [record for record in it.log if record.key == group_key("g")][-1:]
        assert read_group_value(stored.value or b"").generation == it.generations["a"]
        assert isinstance(read_key(stored.key), GroupKey)


Groups.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestGroups = Groups.TestCase

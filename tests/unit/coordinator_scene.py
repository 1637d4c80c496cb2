"""A ``GroupShard``, clients with names, a clock that is moved by hand, and a log that keeps what is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from zkbroker.coordinator.effects import Answer, Effects, GroupAnswer, GroupRequest, Log, Now, Write
from zkbroker.coordinator.group import Group
from zkbroker.coordinator.records import GroupRecord
from zkbroker.coordinator.settings import GroupSettings
from zkbroker.coordinator.shard import GroupShard
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    Client,
    CommitOffsets,
    DeleteGroup,
    DeleteOffsets,
    DescribeGroup,
    FetchOffsets,
    Heartbeat,
    JoinAnswer,
    JoinGroup,
    LeaveGroup,
    LeavingMember,
    OffsetToCommit,
    Protocol,
    SyncGroup,
)

NONE = ErrorCode.NONE
START_MS = 1_000_000


class Scene:
    """Clients are known by name: ``ids`` and ``generations`` hold what the last answer told each."""

    def __init__(self, **settings: int) -> None:
        self.settings = GroupSettings(**settings)
        self.time = 0.0
        self.ids: dict[str, str] = {}
        self.generations: dict[str, int] = {}
        self.asked: dict[int, tuple[str, GroupRequest]] = {}
        """Ticket → client and request."""
        self.answers: dict[int, GroupAnswer] = {}
        self.outstanding: dict[int, Write] = {}
        self.log: list[GroupRecord] = []
        self.lines: list[str] = []
        self.effects: list[Answer | Write | Log] = []
        """Of the last call."""
        self._uuids = 0
        self.shard = self.new_shard()
        self.load()

    def new_shard(self) -> GroupShard:
        return GroupShard(self.settings, self._new_uuid)

    def _new_uuid(self) -> str:
        self._uuids += 1
        return str(self._uuids)

    @property
    def now(self) -> Now:
        return Now(self.time, START_MS + int(self.time * 1000))

    def took(self, effects: Effects) -> None:
        self.effects = list(effects)
        for effect in effects:
            if isinstance(effect, Answer):
                assert effect.ticket in self.asked, f"{effect} answers nobody"
                assert effect.ticket not in self.answers, f"{effect} answers again"
                self.answers[effect.ticket] = effect.answer
                if isinstance(effect.answer, JoinAnswer):
                    self.told(self.asked[effect.ticket][0], effect.answer)
            elif isinstance(effect, Write):
                assert effect.write_id > max(self.outstanding, default=0)
                self.outstanding[effect.write_id] = effect
                self.log += effect.records
            else:
                self.lines.append(effect.line)

    def told(self, client: str, answer: JoinAnswer) -> None:
        """What a client makes of it."""
        if answer.error in (NONE, ErrorCode.MEMBER_ID_REQUIRED):
            self.ids[client] = answer.member_id
            self.generations[client] = answer.generation
        elif answer.error in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID):
            self.ids[client] = ""

    def load(self) -> None:
        """Of what is in the log: a new shard."""
        self.outstanding.clear()
        self.shard = self.new_shard()
        for record in self.log:
            self.shard.replay(record.key, record.value)
        self.took(self.shard.loaded(self.now))

    def ask(self, client: str, request: GroupRequest) -> int:
        ticket = len(self.asked) + 1
        self.asked[ticket] = (client, request)
        self.took(self.shard.handle(ticket, request, self.now))
        return ticket

    def answer(self, client: str, request: GroupRequest) -> GroupAnswer | None:
        """None: it is parked."""
        return self.answers.get(self.ask(client, request))

    def written(self, error: ErrorCode = NONE, write_id: int | None = None) -> None:
        """The oldest write that is outstanding, or that one."""
        if write_id is None:
            write_id = min(self.outstanding)
        del self.outstanding[write_id]
        self.took(self.shard.written(write_id, error, self.now))

    def all_written(self) -> None:
        while self.outstanding:
            self.written()

    def wait(self, seconds: float) -> None:
        """Ticks whenever the shard wants, as its shell does."""
        until = self.time + seconds
        effects: list[Answer | Write | Log] = []
        while (deadline := self.shard.next_deadline()) is not None and deadline <= until:
            self.time = max(self.time, deadline)
            self.took(self.shard.tick(self.now))
            effects += self.effects
        self.time = until
        self.effects = effects

    # --- requests ---

    def join_request(
        self,
        client: str,
        group: str = "g",
        *,
        protocols: Mapping[str, bytes] | None = None,
        member_id: str | None = None,
        session_ms: int = 10_000,
        rebalance_ms: int = 60_000,
        protocol_type: str = "consumer",
        instance: str | None = None,
        known: bool = False,
        skip: bool = False,
        reason: str | None = None,
    ) -> JoinGroup:
        offered = {"range": b"meta"} if protocols is None else protocols
        return JoinGroup(
            group,
            self.ids.get(client, "") if member_id is None else member_id,
            Client(client, "/127.0.0.1"),
            session_ms,
            rebalance_ms,
            protocol_type,
            tuple(Protocol(name, metadata) for name, metadata in offered.items()),
            instance,
            known,
            skip,
            reason,
        )

    def join(self, client: str, group: str = "g", **how: object) -> int:
        return self.ask(client, self.join_request(client, group, **how))  # type: ignore[arg-type]

    def sync_request(
        self,
        client: str,
        group: str = "g",
        assign: Mapping[str, bytes] | None = None,
        *,
        generation: int | None = None,
        instance: str | None = None,
        protocol_type: str | None = None,
        protocol_name: str | None = None,
    ) -> SyncGroup:
        assignments = tuple((self.ids.get(name, name), content) for name, content in (assign or {}).items())
        generation = self.generations.get(client, -1) if generation is None else generation
        return SyncGroup(
            group, self.ids.get(client, ""), generation, instance, protocol_type, protocol_name, assignments
        )

    def sync(self, client: str, group: str = "g", assign: Mapping[str, bytes] | None = None, **how: object) -> int:
        return self.ask(client, self.sync_request(client, group, assign, **how))  # type: ignore[arg-type]

    def beat(self, client: str, group: str = "g", generation: int | None = None, instance: str | None = None) -> object:
        generation = self.generations.get(client, -1) if generation is None else generation
        return self.answer(client, Heartbeat(group, self.ids.get(client, ""), generation, instance))

    def leave(self, *clients: str, group: str = "g") -> object:
        members = tuple(LeavingMember(self.ids.get(client, client)) for client in clients)
        return self.answer(clients[0], LeaveGroup(group, members))

    def commit(
        self,
        client: str,
        offsets: Mapping[tuple[str, int], int] | Iterable[OffsetToCommit],
        group: str = "g",
        *,
        generation: int | None = None,
        instance: str | None = None,
        retention_ms: int = -1,
    ) -> int:
        if isinstance(offsets, Mapping):
            offsets = [OffsetToCommit(topic, partition, at) for (topic, partition), at in offsets.items()]
        generation = self.generations.get(client, -1) if generation is None else generation
        member_id = self.ids.get(client, "") if generation >= 0 else ""
        return self.ask(client, CommitOffsets(group, member_id, generation, instance, retention_ms, tuple(offsets)))

    def fetch(self, *places: tuple[str, int], group: str = "g", stable: bool = False) -> object:
        return self.answer("", FetchOffsets(group, places or None, stable))

    def committed(self, group: str = "g") -> dict[tuple[str, int], int]:
        return {(row.topic, row.partition): row.offset for row in self.fetch(group=group).rows}  # type: ignore[attr-defined]

    def delete(self, group: str = "g") -> int:
        return self.ask("", DeleteGroup(group))

    def delete_offsets(self, *places: tuple[str, int], group: str = "g") -> int:
        return self.ask("", DeleteOffsets(group, places))

    def described(self, group: str = "g") -> object:
        return self.answer("", DescribeGroup(group))

    def state(self, group: str = "g") -> str:
        return self.described(group).state  # type: ignore[attr-defined,no-any-return]

    # --- short cuts ---

    def stable(self, *clients: str, group: str = "g", **how: object) -> None:
        """These clients become members, and the group Stable; the first leads."""
        for client in clients:
            self.join(client, group, **how)
        self.wait(6)
        for client in clients:
            self.sync(client, group, {name: name.encode() for name in clients})
        self.all_written()
        assert self.state(group) == "Stable"


def check_members(group: Group) -> None:
    """The invariants that take a look at every member."""
    group.check()
    support: dict[str, int] = {}
    for member_id, member in group.members.items():
        assert member.member_id == member_id
        for name in member.protocols:
            support[name] = support.get(name, 0) + 1
    assert support == group._support
    statics = {each.group_instance_id: each.member_id for each in group.members.values() if each.group_instance_id}
    assert statics == group.static_ids
    assert group.pending_sync <= group.members.keys()
    assert not group.pending.keys() & group.members.keys()
    assert group.awaiting_join == sum(member.join_ticket is not None for member in group.members.values())

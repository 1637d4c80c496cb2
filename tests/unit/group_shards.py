"""A shard that does what a test says, on real replicas: what the shell of consumer groups makes of its effects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.unit.replica_cluster import Network
from zkbroker.broker.groups import Groups, GroupsSettings
from zkbroker.broker.offsets_topic import OFFSETS_TOPIC
from zkbroker.coordinator.answers import refused, refused_while_loading
from zkbroker.coordinator.effects import Answer, Effects, GroupRequest, Now, Write
from zkbroker.coordinator.records import GroupRecord
from zkbroker.coordinator.settings import GroupSettings
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    CommitAnswer,
    CommitOffsets,
    Heartbeat,
    JoinGroup,
    ListedGroup,
    OffsetToCommit,
    PartitionError,
)
from zkbroker.model.topics import TopicPartition
from zkbroker.records.batch import batches
from zkbroker.records.record import Record, records_of

PARTITION = TopicPartition(OFFSETS_TOPIC, 0)


class FakeShard:
    """Commits are written, heartbeats answered, joins parked until ``deadline``."""

    def __init__(self, settings: GroupSettings, new_uuid: Callable[[], str]) -> None:
        self.new_uuid = new_uuid
        self.malformed = 0
        self.foreign = 0
        self.replayed: list[tuple[Any, ...]] = []
        self.told: list[tuple[Any, ...]] = []
        self.is_loaded = False
        self.deadline: float | None = None
        self.parked: dict[int, GroupRequest] = {}
        self.writes: dict[int, tuple[int, CommitOffsets]] = {}
        self.is_dead = False

    def replay(self, key: bytes | None, value: bytes | None, producer_id: int = -1) -> None:
        assert not self.is_loaded
        self.replayed.append((key, value) if producer_id < 0 else (key, value, producer_id))

    def transaction_ended(self, producer_id: int, *, is_committed: bool) -> None:
        self.replayed.append((producer_id, is_committed))

    def take_up(self) -> bool:
        return True

    def expect_members(self, now: Now) -> bool:
        return True

    def loaded(self, now: Now) -> Effects:
        self.is_loaded = True
        return ()

    def handle(self, ticket: int, request: GroupRequest, now: Now) -> Effects:
        if not self.is_loaded:
            return (Answer(ticket, refused_while_loading(request)),)
        if isinstance(request, CommitOffsets):
            number = len(self.writes) + 1
            self.writes[number] = ticket, request
            records = tuple(GroupRecord(row.topic.encode(), str(row.offset).encode()) for row in request.offsets)
            return (Write(number, records),)
        if isinstance(request, JoinGroup):
            self.parked[ticket] = request
            return ()
        return (Answer(ticket, ErrorCode.NONE),)

    def written(self, write_id: int, error: ErrorCode, now: Now) -> Effects:
        if self.is_dead:
            return ()
        self.told.append(("written", write_id, error))
        ticket, request = self.writes[write_id]
        rows = tuple(PartitionError(row.topic, row.partition, error) for row in request.offsets)
        return (Answer(ticket, CommitAnswer(rows)),)

    def next_deadline(self) -> float | None:
        return self.deadline

    def tick(self, now: Now) -> Effects:
        self.told.append(("tick", now.monotonic))
        self.deadline = None
        parked, self.parked = self.parked, {}
        return tuple(Answer(ticket, refused(request, ErrorCode.NONE)) for ticket, request in parked.items())

    def list_groups(self, states: Any = (), types: Any = ()) -> tuple[ListedGroup, ...]:
        return (ListedGroup("g", "consumer", "Stable"),)

    def group_ids(self) -> tuple[str, ...]:
        return ("g", "h")

    def expire_offsets(self, group_id: str, now: Now) -> Effects:
        self.told.append(("expire", group_id))
        return ()

    point = 7

    def forget_topics(self, topics: Any, group_id: str, now: Now) -> Effects:
        self.told.append(("forget", group_id, topics))
        return ()

    def unload(self) -> Effects:
        self.is_dead = True
        parked, self.parked = self.parked, {}
        return tuple(Answer(ticket, refused(request, ErrorCode.NOT_COORDINATOR)) for ticket, request in parked.items())


class OnePartition:
    """Stands in for OffsetsTopic."""

    def partition_of(self, group_id: str) -> int:
        return 0


class Bits:
    def getrandbits(self, count: int, /) -> int:
        return 5


class Coordinators:
    """Groups on every broker of a Network whose PARTITION is __consumer_offsets-0."""

    def __init__(self, network: Network, **settings: Any) -> None:
        self.network = network
        self.shards: list[FakeShard] = []
        self.lines: list[str] = []
        self.groups: dict[int, Groups] = {}
        self.settings = GroupsSettings(**settings)
        for broker_id in network.replicas:
            self.start(broker_id)

    def start(self, broker_id: int) -> Groups:
        network = self.network
        replicas = network.replicas[broker_id]
        groups = self.groups[broker_id] = Groups(
            reactor=network.reactor,
            clock=network.time,
            random=Bits(),
            coordinator_log=replicas.coordinator_log,
            topic=OnePartition(),  # type: ignore[arg-type]
            settings=self.settings,
            log=self.lines.append,
            fatal=lambda event, error: network.fatal.append((event, error)),
            make_shard=self._make,  # type: ignore[arg-type]
        )
        replicas.leadership_changed = groups.leadership_changed
        groups.start()
        return groups

    def _make(self, settings: GroupSettings, new_uuid: Callable[[], str]) -> FakeShard:
        self.shards.append(FakeShard(settings, new_uuid))
        return self.shards[-1]

    @property
    def shard(self) -> FakeShard:
        return self.shards[-1]

    def heartbeat(self, broker_id: int = 1) -> list[ErrorCode]:
        answers: list[ErrorCode] = []
        self.groups[broker_id].heartbeat(Heartbeat("g", "m", 1), answers.append)
        return answers

    def commit(self, offset: int, broker_id: int = 1, topic: str = "t") -> list[CommitAnswer]:
        answers: list[CommitAnswer] = []
        request = CommitOffsets("g", "", -1, None, -1, (OffsetToCommit(topic, 0, offset),))
        self.groups[broker_id].commit(request, answers.append)
        return answers

    def stored(self, broker_id: int = 1) -> list[list[Record]]:
        """The records of each batch of the log."""
        log = self.network.logs[broker_id].logs[PARTITION]
        read = log.read(0, 10_000_000, log.log_end_offset)
        assert read is not None
        return [list(records_of(chunk, header, place)) for chunk in read.chunks for place, header in batches(chunk)]


def errors(answers: list[CommitAnswer]) -> list[ErrorCode]:
    return [row.error for answer in answers for row in answer.rows]

"""A coordinator in memory, filling ``kafka/group_ports.py`` for tests: it remembers what it is asked, and answers with
what the test has set, or by its own small sense."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.fakes.broker import FakeCall
from zkbroker.kafka.group_ports import Coordinator
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    CommitAnswer,
    CommitOffsets,
    DeleteOffsets,
    DeleteOffsetsAnswer,
    DescribedGroup,
    FetchedOffset,
    FetchOffsets,
    FetchOffsetsAnswer,
    GroupError,
    Heartbeat,
    JoinAnswer,
    JoinGroup,
    LeaveAnswer,
    LeaveGroup,
    LeftMember,
    ListedGroups,
    PartitionError,
    SyncAnswer,
    SyncGroup,
)


class FakeGroups:
    """GroupPort and CoordinatorPort."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answer: Any = None
        """Of the next requests, instead of what is made up."""
        self.raises: BaseException | None = None
        self.holds = False
        self.held: list[FakeCall] = []
        self.coordinators: dict[str, Coordinator] = {}

    def _reply(self, asked: Any, done: Callable[[Any], None], made_up: Any) -> FakeCall | None:
        if self.raises is not None:
            raise self.raises
        self.asked.append(asked)
        answer = made_up if self.answer is None else self.answer
        if self.holds:
            call = FakeCall(lambda: done(answer))
            self.held.append(call)
            return call
        done(answer)
        return None

    def join(self, asked: JoinGroup, done: Callable[[JoinAnswer], None]) -> FakeCall | None:
        return self._reply(asked, done, JoinAnswer(ErrorCode.NONE, "m", 1, "consumer", "range", "m"))

    def sync(self, asked: SyncGroup, done: Callable[[SyncAnswer], None]) -> FakeCall | None:
        return self._reply(asked, done, SyncAnswer(ErrorCode.NONE, "consumer", "range", b"assignment"))

    def heartbeat(self, asked: Heartbeat, done: Callable[[ErrorCode], None]) -> FakeCall | None:
        return self._reply(asked, done, ErrorCode.NONE)

    def leave(self, asked: LeaveGroup, done: Callable[[LeaveAnswer], None]) -> FakeCall | None:
        rows = tuple(LeftMember(row.member_id, row.group_instance_id, ErrorCode.NONE) for row in asked.members)
        return self._reply(asked, done, LeaveAnswer(ErrorCode.NONE, rows))

    def commit(self, asked: CommitOffsets, done: Callable[[CommitAnswer], None]) -> FakeCall | None:
        rows = tuple(PartitionError(row.topic, row.partition, ErrorCode.NONE) for row in asked.offsets)
        return self._reply(asked, done, CommitAnswer(rows))

    def fetch_offsets(
        self, asked: Sequence[FetchOffsets], done: Callable[[list[FetchOffsetsAnswer]], None]
    ) -> FakeCall | None:
        answers = [
            FetchOffsetsAnswer(
                one.group_id,
                ErrorCode.NONE,
                tuple(FetchedOffset(topic, partition, 5, 2, "note") for topic, partition in one.partitions or ()),
            )
            for one in asked
        ]
        return self._reply(asked, done, answers)

    def delete_offsets(self, asked: DeleteOffsets, done: Callable[[DeleteOffsetsAnswer], None]) -> FakeCall | None:
        rows = tuple(PartitionError(topic, partition, ErrorCode.NONE) for topic, partition in asked.partitions)
        return self._reply(asked, done, DeleteOffsetsAnswer(ErrorCode.NONE, rows))

    def describe(self, group_ids: Sequence[str], done: Callable[[list[DescribedGroup]], None]) -> FakeCall | None:
        return self._reply(group_ids, done, [DescribedGroup(name, ErrorCode.NONE, "Dead") for name in group_ids])

    def list_groups(
        self, states: frozenset[str], types: frozenset[str], done: Callable[[ListedGroups], None]
    ) -> FakeCall | None:
        return self._reply((states, types), done, ListedGroups(ErrorCode.NONE))

    def delete(self, group_ids: Sequence[str], done: Callable[[list[GroupError]], None]) -> FakeCall | None:
        return self._reply(group_ids, done, [GroupError(name, ErrorCode.NONE) for name in group_ids])

    def find(self, key_type: int, key: str) -> Coordinator:
        self.asked.append((key_type, key))
        return self.coordinators.get(key, Coordinator(ErrorCode.COORDINATOR_NOT_AVAILABLE, -1, "nowhere"))

"""What a ``GroupShard`` is given and gives: the time, requests, writes and answers."""

from __future__ import annotations

from typing import NamedTuple

from zkbroker.coordinator.records import GroupRecord
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    CommitAnswer,
    CommitOffsets,
    DeleteGroup,
    DeleteOffsets,
    DeleteOffsetsAnswer,
    DescribedGroup,
    DescribeGroup,
    FetchOffsets,
    FetchOffsetsAnswer,
    GroupError,
    Heartbeat,
    JoinAnswer,
    JoinGroup,
    LeaveAnswer,
    LeaveGroup,
    SyncAnswer,
    SyncGroup,
)

GroupRequest = (
    JoinGroup
    | SyncGroup
    | Heartbeat
    | LeaveGroup
    | CommitOffsets
    | FetchOffsets
    | DeleteOffsets
    | DescribeGroup
    | DeleteGroup
)
GroupAnswer = (
    JoinAnswer
    | SyncAnswer
    | ErrorCode
    | LeaveAnswer
    | CommitAnswer
    | FetchOffsetsAnswer
    | DeleteOffsetsAnswer
    | DescribedGroup
    | GroupError
)
"""In the order of GroupRequest; Heartbeat's is the bare ErrorCode."""


class Now(NamedTuple):
    monotonic: float
    """Seconds: for every timer."""
    wall_ms: int
    """Milliseconds since 1970: commit timestamps, the expiry of offsets, and nothing else."""


class Write(NamedTuple):
    """Append the records as one batch, after those of every smaller ``write_id``; tell the outcome with ``written``
    once it is replicated, or will surely or perhaps never be."""

    write_id: int
    records: tuple[GroupRecord, ...]


class Answer(NamedTuple):
    """Whoever asked with ``ticket`` gets this. Each ticket gets exactly one."""

    ticket: int
    answer: GroupAnswer


class Log(NamedTuple):
    """One line for people."""

    line: str


Effect = Write | Answer | Log
Effects = tuple[Effect, ...]

"""Answers that need no group: refusals of every kind of request, by whoever cannot or will not serve it."""

from __future__ import annotations

from zkbroker.coordinator.effects import GroupAnswer, GroupRequest
from zkbroker.coordinator.fields import fits
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
    PartitionError,
    SyncAnswer,
    SyncGroup,
)


def is_legal_group_id(request: GroupRequest) -> bool:
    """The empty id is one for offsets alone (and for looking at and deleting them), never for members."""
    if request.group_id:
        return fits(request.group_id)
    return isinstance(request, CommitOffsets | FetchOffsets | DescribeGroup | DeleteGroup)


def refused(request: GroupRequest, error: ErrorCode) -> GroupAnswer:
    """The request's answer with ``error``: NOT_COORDINATOR where this broker does not lead the group's partition,
    COORDINATOR_NOT_AVAILABLE while it stops …"""
    match request:
        case JoinGroup():
            return JoinAnswer(error, request.member_id)
        case SyncGroup():
            return SyncAnswer(error)
        case Heartbeat():
            return error
        case CommitOffsets():
            rows = (PartitionError(row.topic, row.partition, error) for row in request.offsets)
            return CommitAnswer(tuple(rows))
        case FetchOffsets():
            return FetchOffsetsAnswer(request.group_id, error)
        case DeleteOffsets():
            return DeleteOffsetsAnswer(error)
        case DescribeGroup():
            return DescribedGroup(request.group_id, error)
        case DeleteGroup():
            return GroupError(request.group_id, error)
    return LeaveAnswer(error)


def refused_while_loading(request: GroupRequest) -> GroupAnswer:
    """COORDINATOR_LOAD_IN_PROGRESS, save where older clients do not expect it."""
    if isinstance(request, Heartbeat):
        return ErrorCode.NONE  # the member may well be in order, and must not leave for this
    if isinstance(request, SyncGroup):
        return SyncAnswer(ErrorCode.REBALANCE_IN_PROGRESS)  # the rebalance was lost with the old coordinator
    return refused(request, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)

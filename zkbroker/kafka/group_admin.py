"""DescribeGroups, ListGroups and DeleteGroups: what administrators ask about groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zkbroker.kafka.in_turns import InTurns
from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.request import Api, Request, Services, guarded
from zkbroker.kafka.versions import DELETE_GROUPS, DESCRIBE_GROUPS, LIST_GROUPS
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import DescribedGroup, GroupError, ListedGroup, ListedGroups

OPERATIONS_OF_GROUP = 328
"""All that can be done with a group (KIP-430), as bits: without an authorizer everybody may."""

_NOT_ASKED = -(2**31)


# DescribeGroups


class DescribeMessage:
    """Which groups, and whether their authorized operations are wanted (from version 3 on)."""

    __slots__ = ("group_ids", "wants_operations")

    def __init__(self, group_ids: list[str], wants_operations: bool) -> None:
        self.group_ids = group_ids
        self.wants_operations = wants_operations


def decode_describe(request: Request) -> DescribeMessage:
    message = decode_request(DESCRIBE_GROUPS, request.version, request.reader())
    return DescribeMessage(message.groups, getattr(message, "include_authorized_operations", False))


def serve_describe(services: Services, request: Request, message: DescribeMessage) -> None:
    def row(group: DescribedGroup) -> dict[str, Any]:
        return _described(group, message.wants_operations)

    InTurns(services, request, message, message.group_ids, services.groups.describe, row, "groups", 1).start()


def _described(group: DescribedGroup, wants_operations: bool) -> dict[str, Any]:
    return {
        "error_code": group.error,
        "group_id": group.group_id,
        "group_state": group.state,
        "protocol_type": group.protocol_type,
        "protocol_data": group.protocol_name,
        "members": [
            {
                "member_id": member.member_id,
                "group_instance_id": member.group_instance_id,
                "client_id": member.client_id,
                "client_host": member.host,
                "member_metadata": member.metadata,
                "member_assignment": member.assignment,
            }
            for member in group.members
        ],
        "authorized_operations": OPERATIONS_OF_GROUP
        if wants_operations and group.error == ErrorCode.NONE
        else _NOT_ASKED,
    }


def refuse_describe(request: Request, message: DescribeMessage, error: ErrorCode, text: str | None) -> None:
    rows = [_described(DescribedGroup(group_id, error), False) for group_id in message.group_ids]
    request.answer(encode_response(DESCRIBE_GROUPS, request.version, {"groups": rows}))


# ListGroups


def decode_list(request: Request) -> tuple[frozenset[str], frozenset[str]]:
    """States and types, in lower case since Kafka compares them so; empty: all."""
    message = decode_request(LIST_GROUPS, request.version, request.reader())
    states = getattr(message, "states_filter", ())
    types = getattr(message, "types_filter", ())
    return frozenset(map(str.lower, states)), frozenset(map(str.lower, types))


def serve_list(services: Services, request: Request, message: tuple[frozenset[str], frozenset[str]]) -> None:
    def done(listed: ListedGroups) -> None:
        # They are all known: it is the encoding that takes its time.
        InTurns(services, request, message, listed.groups, _as_they_are, _listed, "groups", 1, listed.error).start()

    waiting = services.groups.list_groups(*message, guarded(request, message, done))
    if waiting is not None:
        request.waits_for(waiting)


def _as_they_are(groups: Sequence[ListedGroup], done: Callable[[Sequence[ListedGroup]], None]) -> None:
    done(groups)


def _listed(group: ListedGroup) -> dict[str, Any]:
    return {
        "group_id": group.group_id,
        "protocol_type": group.protocol_type,
        "group_state": group.state,
        "group_type": group.group_type,
    }


def refuse_list(request: Request, message: object, error: ErrorCode, text: str | None) -> None:
    request.answer(encode_response(LIST_GROUPS, request.version, {"error_code": error, "groups": []}))


# DeleteGroups


def decode_delete(request: Request) -> list[str]:
    """Group ids, each once."""
    message = decode_request(DELETE_GROUPS, request.version, request.reader())
    return list(dict.fromkeys(message.groups_names))


def serve_delete(services: Services, request: Request, message: list[str]) -> None:
    InTurns(services, request, message, message, services.groups.delete, _deleted, "results", 0).start()


def _deleted(result: GroupError) -> dict[str, Any]:
    return {"group_id": result.group_id, "error_code": result.error}


def refuse_delete(request: Request, message: list[str], error: ErrorCode, text: str | None) -> None:
    rows = [{"group_id": group_id, "error_code": error} for group_id in message]
    request.answer(encode_response(DELETE_GROUPS, request.version, {"results": rows}))


DESCRIBE_GROUPS_API = Api(decode_describe, serve_describe, refuse_describe)
LIST_GROUPS_API = Api(decode_list, serve_list, refuse_list)
DELETE_GROUPS_API = Api(decode_delete, serve_delete, refuse_delete)

"""JoinGroup, SyncGroup, Heartbeat and LeaveGroup: what a group's members ask of its coordinator."""

from __future__ import annotations

from typing import Any

from zkbroker.kafka.messages import decode_request, encode_response
from zkbroker.kafka.request import Api, Request, Services, guarded
from zkbroker.kafka.versions import HEARTBEAT, JOIN_GROUP, LEAVE_GROUP, SYNC_GROUP
from zkbroker.kafka.wire import MalformedRequest
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    NO_MEMBER,
    Client,
    Heartbeat,
    JoinAnswer,
    JoinGroup,
    LeaveAnswer,
    LeaveGroup,
    LeavingMember,
    Protocol,
    SyncAnswer,
    SyncGroup,
)

_REBALANCE_TIMEOUT_FROM = 1
_KNOWN_MEMBER_ID_FROM = 4
"""KIP-394"""
_PROTOCOL_NAME_NULLABLE_FROM = 7
_SKIP_ASSIGNMENT_FROM = 9
"""KIP-814"""
_SYNC_NAMES_PROTOCOL_FROM = 5
"""KIP-559"""
_INSTANCE_OF_HEARTBEAT_FROM = 3
_LEAVING_MEMBERS_FROM = 3
"""KIP-345: several members of one group leave with one request."""


def _bytes(value: memoryview | None) -> bytes:
    """A copy: what a group keeps must not keep a request's frame."""
    if value is None:
        raise MalformedRequest("null for bytes that may not be null")
    return bytes(value)


# JoinGroup


def decode_join(request: Request) -> JoinGroup:
    version = request.version
    message = decode_request(JOIN_GROUP, version, request.reader())
    instance_id = getattr(message, "group_instance_id", None)
    return JoinGroup(
        message.group_id,
        message.member_id,
        Client(request.client_id or "", request.connection.client_host),
        message.session_timeout,
        message.rebalance_timeout if version >= _REBALANCE_TIMEOUT_FROM else message.session_timeout,
        message.protocol_type,
        tuple(Protocol(row.name, _bytes(row.metadata)) for row in message.protocols),
        instance_id,
        version >= _KNOWN_MEMBER_ID_FROM and message.member_id == NO_MEMBER and instance_id is None,
        version >= _SKIP_ASSIGNMENT_FROM,
        getattr(message, "reason", None),
    )


def serve_join(services: Services, request: Request, message: JoinGroup) -> None:
    def done(answer: JoinAnswer) -> None:
        _answer_join(request, answer)

    request.waits_for(services.groups.join(message, guarded(request, message, done)))


def _answer_join(request: Request, answer: JoinAnswer) -> None:
    name = answer.protocol_name or None
    fields = {
        "error_code": answer.error,
        "generation_id": answer.generation,
        "protocol_type": answer.protocol_type,
        "protocol_name": name if request.version >= _PROTOCOL_NAME_NULLABLE_FROM else name or "",
        "leader": answer.leader_id,
        "skip_assignment": answer.skip_assignment,
        "member_id": answer.member_id,
        "members": [member._asdict() for member in answer.members],
    }
    request.answer(encode_response(JOIN_GROUP, request.version, fields))


def refuse_join(request: Request, message: JoinGroup, error: ErrorCode, text: str | None) -> None:
    _answer_join(request, JoinAnswer(error))


# SyncGroup


def decode_sync(request: Request) -> SyncGroup:
    message = decode_request(SYNC_GROUP, request.version, request.reader())
    return SyncGroup(
        message.group_id,
        message.member_id,
        message.generation_id,
        getattr(message, "group_instance_id", None),
        getattr(message, "protocol_type", None),
        getattr(message, "protocol_name", None),
        tuple((row.member_id, _bytes(row.assignment)) for row in message.assignments),
    )


def serve_sync(services: Services, request: Request, message: SyncGroup) -> None:
    if request.version >= _SYNC_NAMES_PROTOCOL_FROM and None in (message.protocol_type, message.protocol_name):
        refuse_sync(request, message, ErrorCode.INCONSISTENT_GROUP_PROTOCOL, None)
        return

    def done(answer: SyncAnswer) -> None:
        _answer_sync(request, answer)

    request.waits_for(services.groups.sync(message, guarded(request, message, done)))


def _answer_sync(request: Request, answer: SyncAnswer) -> None:
    fields: dict[str, Any] = {
        "error_code": answer.error,
        "protocol_type": answer.protocol_type,
        "protocol_name": answer.protocol_name,
        "assignment": answer.assignment,
    }
    request.answer(encode_response(SYNC_GROUP, request.version, fields))


def refuse_sync(request: Request, message: SyncGroup, error: ErrorCode, text: str | None) -> None:
    _answer_sync(request, SyncAnswer(error))


# Heartbeat


# (Read by hand, and each answer is encoded once: hundreds come each second from members that do nothing.)

_heartbeat_answers: dict[tuple[int, ErrorCode], bytes] = {}


def decode_heartbeat(request: Request) -> Heartbeat:
    reader, flexible = request.reader(), request.flexible
    group_id = reader.string(flexible)
    generation = reader.int32()
    member_id = reader.string(flexible)
    instance_id = reader.nullable_string(flexible) if request.version >= _INSTANCE_OF_HEARTBEAT_FROM else None
    if flexible:
        reader.skip_tags()
    return Heartbeat(group_id, member_id, generation, instance_id)


def serve_heartbeat(services: Services, request: Request, message: Heartbeat) -> None:
    def done(error: ErrorCode) -> None:
        refuse_heartbeat(request, message, error, None)

    request.waits_for(services.groups.heartbeat(message, guarded(request, message, done)))


def refuse_heartbeat(request: Request, message: Heartbeat, error: ErrorCode, text: str | None) -> None:
    body = _heartbeat_answers.get((request.version, error))
    if body is None:
        body = encode_response(HEARTBEAT, request.version, {"error_code": error})
        _heartbeat_answers[request.version, error] = body
    request.answer(body)


# LeaveGroup


def decode_leave(request: Request) -> LeaveGroup:
    message = decode_request(LEAVE_GROUP, request.version, request.reader())
    if request.version < _LEAVING_MEMBERS_FROM:
        return LeaveGroup(message.group_id, (LeavingMember(message.member_id),))
    members = (
        LeavingMember(row.member_id, row.group_instance_id, getattr(row, "reason", None)) for row in message.members
    )
    return LeaveGroup(message.group_id, tuple(members))


def serve_leave(services: Services, request: Request, message: LeaveGroup) -> None:
    def done(answer: LeaveAnswer) -> None:
        _answer_leave(request, answer)

    request.waits_for(services.groups.leave(message, guarded(request, message, done)))


def _answer_leave(request: Request, answer: LeaveAnswer) -> None:
    error = answer.error
    if request.version < _LEAVING_MEMBERS_FROM and error == ErrorCode.NONE and answer.members:
        error = answer.members[0].error
    members = [
        {"member_id": row.member_id, "group_instance_id": row.group_instance_id, "error_code": row.error}
        for row in answer.members
    ]
    fields = {"error_code": error, "members": members if error == ErrorCode.NONE else []}
    request.answer(encode_response(LEAVE_GROUP, request.version, fields))


def refuse_leave(request: Request, message: LeaveGroup, error: ErrorCode, text: str | None) -> None:
    _answer_leave(request, LeaveAnswer(error))


JOIN_GROUP_API = Api(decode_join, serve_join, refuse_join)
SYNC_GROUP_API = Api(decode_sync, serve_sync, refuse_sync)
HEARTBEAT_API = Api(decode_heartbeat, serve_heartbeat, refuse_heartbeat)
LEAVE_GROUP_API = Api(decode_leave, serve_leave, refuse_leave)

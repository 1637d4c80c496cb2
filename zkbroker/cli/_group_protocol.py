"""Consumer groups on the wire, as the benchmark's members speak it: requests encoded, answers read. Sans-I/O.

FindCoordinator 1, JoinGroup 5, SyncGroup 3, Heartbeat 3, OffsetCommit 3, OffsetFetch 3: versions without flexible
fields that real clients use, and that every Kafka from 2.3 on serves as well.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from zkbroker.kafka.wire import Reader, encode_string
from zkbroker.model.errors import ErrorCode

FIND_COORDINATOR, JOIN_GROUP, SYNC_GROUP, HEARTBEAT, OFFSET_COMMIT, OFFSET_FETCH = 10, 11, 14, 12, 8, 9
VERSIONS = {FIND_COORDINATOR: 1, JOIN_GROUP: 5, SYNC_GROUP: 3, HEARTBEAT: 3, OFFSET_COMMIT: 3, OFFSET_FETCH: 3}
CLIENT_ID = "zkbroker-bench"
_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")
_NULL = _I16.pack(-1)


class Coordinator(NamedTuple):
    error: ErrorCode
    broker_id: int
    host: str
    port: int


class Joined(NamedTuple):
    error: ErrorCode
    generation: int
    leader_id: str
    member_id: str
    members: tuple[str, ...]
    """Member ids, for the leader."""


def frame(key: int, correlation: int, body: bytes) -> bytes:
    message = struct.pack(">hhi", key, VERSIONS[key], correlation) + encode_string(CLIENT_ID, False) + body
    return _I32.pack(len(message)) + message


def find_coordinator(group: str) -> bytes:
    return encode_string(group, False) + b"\x00"


def read_coordinator(answer: bytes) -> Coordinator:
    reader = Reader(answer, 8)
    error = ErrorCode(reader.int16())
    reader.nullable_string(False)
    return Coordinator(error, reader.int32(), reader.string(False), reader.int32())


def join_group(group: str, member_id: str, session_timeout_ms: int, metadata: bytes) -> bytes:
    return b"".join(
        (
            encode_string(group, False),
            struct.pack(">ii", session_timeout_ms, 60_000),
            encode_string(member_id, False),
            _NULL,
            encode_string("consumer", False),
            _I32.pack(1),
            encode_string("range", False),
            _I32.pack(len(metadata)),
            metadata,
        )
    )


def read_joined(answer: bytes) -> Joined:
    reader = Reader(answer, 8)
    error, generation = ErrorCode(reader.int16()), reader.int32()
    reader.string(False)
    leader_id, member_id = reader.string(False), reader.string(False)
    members = []
    for _ in range(reader.array_size(False)):
        members.append(reader.string(False))
        reader.nullable_string(False)
        reader.nullable_bytes(False)
    return Joined(error, generation, leader_id, member_id, tuple(members))


def sync_group(group: str, generation: int, member_id: str, assignments: Mapping[str, bytes]) -> bytes:
    rows = [
        encode_string(member, False) + _I32.pack(len(assignment)) + assignment
        for member, assignment in assignments.items()
    ]
    return b"".join((*_membership(group, generation, member_id), _I32.pack(len(rows)), *rows))


def heartbeat(group: str, generation: int, member_id: str) -> bytes:
    return b"".join(_membership(group, generation, member_id))


def read_error(answer: bytes) -> ErrorCode:
    """Of a SyncGroup or a Heartbeat."""
    return ErrorCode(Reader(answer, 8).int16())


def offset_commit(group: str, generation: int, member_id: str, topic: str, partition: int, offset: int) -> bytes:
    return b"".join(
        (
            *_membership(group, generation, member_id)[:3],
            struct.pack(">qi", -1, 1),
            encode_string(topic, False),
            struct.pack(">iiqh", 1, partition, offset, 0),
        )
    )


def read_committed(answer: bytes) -> ErrorCode:
    """Of the only partition."""
    reader = Reader(answer, 12)
    reader.string(False)
    reader.take(8)
    return ErrorCode(reader.int16())


def offset_fetch(group: str, topic: str, partitions: Sequence[int]) -> bytes:
    return b"".join(
        (
            encode_string(group, False),
            _I32.pack(1),
            encode_string(topic, False),
            _I32.pack(len(partitions)),
            *map(_I32.pack, partitions),
        )
    )


def read_offsets(answer: bytes) -> tuple[ErrorCode, dict[int, int]]:
    """The first error, and partition → offset."""
    reader = Reader(answer, 8)
    offsets = {}
    error = ErrorCode.NONE
    for _ in range(reader.array_size(False)):
        reader.string(False)
        for _ in range(reader.array_size(False)):
            partition, offset = reader.int32(), reader.int64()
            reader.nullable_string(False)
            error = error or ErrorCode(reader.int16())
            offsets[partition] = offset
    return error or ErrorCode(reader.int16()), offsets


def _membership(group: str, generation: int, member_id: str) -> tuple[bytes, bytes, bytes, bytes]:
    return encode_string(group, False), _I32.pack(generation), encode_string(member_id, False), _NULL

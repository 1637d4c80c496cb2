"""The records of ``__consumer_offsets`` (Kafka's OffsetCommitKey/Value and GroupMetadataKey/Value), read and written.

A key and a value each begin with their version, two bytes. Keys of version 0 and 1 are an offset's, of version 2 a
group's; what later versions mean (KIP-848 and others) is not ours to know: such records are left alone. A value of
None deletes. Written as Kafka 3.9 writes them, so that older brokers and tools read them as well: an offset in version
3 (1 with an expiry of its own, from OffsetCommit 2 to 4), a group in version 3. Read in all versions up to the flexible
4.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from zkbroker.coordinator.fields import FieldReader, put_bytes, put_nullable_string, put_string

OFFSET_KEY_VERSION = 1
GROUP_KEY_VERSION = 2
OFFSET_VALUE_VERSION = 3
EXPIRING_OFFSET_VALUE_VERSION = 1
GROUP_VALUE_VERSION = 3
FLEXIBLE_VERSION = 4
NO_TIMESTAMP = -1

_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")
_I64 = struct.Struct(">q")
_MALFORMED = (struct.error, IndexError, ValueError)


class GroupRecord(NamedTuple):
    """A record to be written."""

    key: bytes
    value: bytes | None


class OffsetKey(NamedTuple):
    group_id: str
    topic: str
    partition: int


class GroupKey(NamedTuple):
    group_id: str


class UnknownKey(NamedTuple):
    version: int


class StoredOffset(NamedTuple):
    offset: int
    leader_epoch: int = -1
    """-1: the consumer did not say."""
    metadata: str = ""
    commit_timestamp_ms: int = NO_TIMESTAMP
    expire_timestamp_ms: int = NO_TIMESTAMP
    """-1: it lives as long as ``offsets.retention.minutes`` says."""


class StoredMember(NamedTuple):
    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    subscription: bytes
    """The member's metadata for the chosen protocol."""
    assignment: bytes


class StoredGroup(NamedTuple):
    protocol_type: str
    generation: int
    protocol_name: str | None
    leader_id: str | None
    state_timestamp_ms: int
    """Since when the group is in its state; -1 before version 2."""
    members: tuple[StoredMember, ...]


class MalformedRecord(ValueError):
    """Bytes that are no record of ``__consumer_offsets``, or one of a version that is not known."""


def offset_key(group_id: str, topic: str, partition: int) -> bytes:
    """Raises ValueError for a name of more than STRING_BYTES_MAX bytes, as all writers here."""
    out = bytearray(_I16.pack(OFFSET_KEY_VERSION))
    put_string(out, group_id)
    put_string(out, topic)
    out += _I32.pack(partition)
    return bytes(out)


def group_key(group_id: str) -> bytes:
    out = bytearray(_I16.pack(GROUP_KEY_VERSION))
    put_string(out, group_id)
    return bytes(out)


def offset_value(stored: StoredOffset) -> bytes:
    is_expiring = stored.expire_timestamp_ms != NO_TIMESTAMP
    out = bytearray(_I16.pack(EXPIRING_OFFSET_VALUE_VERSION if is_expiring else OFFSET_VALUE_VERSION))
    out += _I64.pack(stored.offset)
    if not is_expiring:
        out += _I32.pack(stored.leader_epoch)
    put_string(out, stored.metadata)
    out += _I64.pack(stored.commit_timestamp_ms)
    if is_expiring:
        out += _I64.pack(stored.expire_timestamp_ms)
    return bytes(out)


def group_value(stored: StoredGroup) -> bytes:
    out = bytearray(_I16.pack(GROUP_VALUE_VERSION))
    put_string(out, stored.protocol_type)
    out += _I32.pack(stored.generation)
    put_nullable_string(out, stored.protocol_name)
    put_nullable_string(out, stored.leader_id)
    out += _I64.pack(stored.state_timestamp_ms)
    out += _I32.pack(len(stored.members))
    for member in stored.members:
        put_string(out, member.member_id)
        put_nullable_string(out, member.group_instance_id)
        put_string(out, member.client_id)
        put_string(out, member.client_host)
        out += _I32.pack(member.rebalance_timeout_ms)
        out += _I32.pack(member.session_timeout_ms)
        put_bytes(out, member.subscription)
        put_bytes(out, member.assignment)
    return bytes(out)


def read_key(key: bytes) -> OffsetKey | GroupKey | UnknownKey:
    """Raises MalformedRecord, as all readers here. Trailing bytes are ignored, as by Kafka."""
    try:
        reader = FieldReader(key)
        version = reader.i16()
        if version in (0, 1):
            return OffsetKey(reader.string(), reader.string(), reader.i32())
        if version == GROUP_KEY_VERSION:
            return GroupKey(reader.string())
        return UnknownKey(version)
    except _MALFORMED as error:
        raise MalformedRecord(f"a key is malformed: {error}") from None


def read_offset_value(value: bytes) -> StoredOffset:
    try:
        reader = FieldReader(value)
        version = _known_version(reader)
        offset = reader.i64()
        leader_epoch = reader.i32() if version >= 3 else -1
        metadata = reader.string()
        commit_timestamp_ms = reader.i64()
        expire_timestamp_ms = reader.i64() if version == EXPIRING_OFFSET_VALUE_VERSION else NO_TIMESTAMP
        reader.end_of_struct()
    except _MALFORMED as error:
        raise MalformedRecord(f"an offset is malformed: {error}") from None
    return StoredOffset(offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms)


def read_group_value(value: bytes) -> StoredGroup:
    try:
        reader = FieldReader(value)
        version = _known_version(reader)
        protocol_type = reader.string()
        generation = reader.i32()
        protocol_name = reader.nullable_string()
        leader_id = reader.nullable_string()
        state_timestamp_ms = reader.i64() if version >= 2 else NO_TIMESTAMP
        members = tuple(_read_member(reader, version) for _ in range(reader.array_length()))
        reader.end_of_struct()
    except _MALFORMED as error:
        raise MalformedRecord(f"a group is malformed: {error}") from None
    return StoredGroup(protocol_type, generation, protocol_name, leader_id, state_timestamp_ms, members)


def _known_version(reader: FieldReader) -> int:
    version = reader.i16()
    if not 0 <= version <= FLEXIBLE_VERSION:
        raise ValueError(f"version {version}")
    reader.is_flexible = version >= FLEXIBLE_VERSION
    return version


def _read_member(reader: FieldReader, version: int) -> StoredMember:
    member_id = reader.string()
    group_instance_id = reader.nullable_string() if version >= 3 else None
    client_id = reader.string()
    client_host = reader.string()
    rebalance_timeout_ms = reader.i32() if version >= 1 else -1
    session_timeout_ms = reader.i32()
    subscription = reader.blob()
    assignment = reader.blob()
    reader.end_of_struct()
    if version == 0:
        rebalance_timeout_ms = session_timeout_ms
    return StoredMember(
        member_id,
        group_instance_id,
        client_id,
        client_host,
        rebalance_timeout_ms,
        session_timeout_ms,
        subscription,
        assignment,
    )

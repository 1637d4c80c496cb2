"""The codec of Fetch: hot path, our own. Record batches go from the log to the transport in the pieces they came in.

Versions from 13 on name topics by id. How requests are served is in ``fetch_serving.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from zkbroker.kafka.endpoints import encode_current_leader, encode_node_endpoints
from zkbroker.kafka.ports import ConsumedRow, ConsumeRow, CurrentLeader
from zkbroker.kafka.request import Services
from zkbroker.kafka.versions import BY_KEY, FETCH
from zkbroker.kafka.wire import MalformedRequest, Reader, encode_size, encode_uvarint
from zkbroker.model.errors import ErrorCode

_HEAD_V4 = struct.Struct(">iiib")
_SESSION = struct.Struct(">ii")
_PARTITION_V0 = struct.Struct(">iqi")
_PARTITION_V5 = struct.Struct(">iqqi")
_PARTITION_V9 = struct.Struct(">iiqqi")
_PARTITION_V12 = struct.Struct(">iiqiqi")
_ROW_V0 = struct.Struct(">ihq")
_ROW_V4 = struct.Struct(">ihqq")
_ROW_V5 = struct.Struct(">ihqqq")
_ABORTED = struct.Struct(">qq")
_DIVERGING = struct.Struct(">iqb")
_I32 = struct.Struct(">i")
_TOP = struct.Struct(">ihi")
_NO_PREFERRED_REPLICA = b"\xff\xff\xff\xff"

_FLEXIBLE_FROM = BY_KEY[FETCH].flexible_from
TOPIC_IDS_FROM = 13

Chunk = bytes | memoryview


class FetchTopic(NamedTuple):
    encoded: bytes
    """Its name, or from version 13 its id, as encoded on the wire: the response repeats it."""
    name: str
    """Empty when the request holds an id."""
    size: int
    """Number of its rows."""


class FetchMessage(NamedTuple):
    replica_id: int
    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    isolation_level: int
    session_id: int
    session_epoch: int
    topics: list[FetchTopic]
    rows: list[ConsumeRow]
    """In the order of the topics; with topic ids their names are still empty."""
    forgotten: list[tuple[FetchTopic, list[int]]]
    """What the session need not hold any more: partitions by topic."""
    body: bytes = b""
    """All of it as it came, for a client that may repeat it; empty for a small one."""


def decode_body(reader: Reader, version: int) -> FetchMessage:
    flexible = version >= _FLEXIBLE_FROM
    replica_id = reader.int32() if version < 15 else -1
    max_bytes, isolation_level, session_id, session_epoch = 2**31 - 1, 0, 0, -1
    if version >= 4:
        max_wait_ms, min_bytes, max_bytes, isolation_level = _HEAD_V4.unpack_from(reader.data, reader.offset)
        reader.offset += 13
    else:
        max_wait_ms, min_bytes = _SESSION.unpack_from(reader.data, reader.offset)
        reader.offset += 8
        if version == 3:
            max_bytes = reader.int32()
    if version >= 7:
        session_id, session_epoch = _SESSION.unpack_from(reader.data, reader.offset)
        reader.offset += 8
    topics: list[FetchTopic] = []
    rows: list[ConsumeRow] = []
    for _ in range(reader.array_size(flexible)):
        start = reader.offset
        if version >= TOPIC_IDS_FROM:
            reader.take(16)
            name = ""
        else:
            name = reader.string(flexible)
        encoded = reader.data[start : reader.offset]
        count = reader.array_size(flexible)
        if count < 0:
            raise MalformedRequest("null for an array of partitions")
        topics.append(FetchTopic(encoded, name, count))
        for _ in range(count):
            rows.append(_decode_partition(reader, name, version))
            if flexible:
                reader.skip_tags()
        if flexible:
            reader.skip_tags()
    forgotten = _decode_forgotten(reader, version, flexible) if version >= 7 else []
    if version >= 11:
        reader.string(flexible)  # the consumer's rack: there is no fetching from followers
    if flexible:
        replica_id = _read_tags(reader, version, replica_id)
    return FetchMessage(
        replica_id,
        max_wait_ms,
        min_bytes,
        max_bytes,
        isolation_level,
        session_id,
        session_epoch,
        topics,
        rows,
        forgotten,
    )


def _decode_partition(reader: Reader, name: str, version: int) -> ConsumeRow:
    data, offset = reader.data, reader.offset
    leader_epoch, last_fetched_epoch = -1, -1
    if version >= 12:
        partition, leader_epoch, fetch_offset, last_fetched_epoch, _, max_bytes = _PARTITION_V12.unpack_from(
            data, offset
        )
        reader.offset = offset + 32
    elif version >= 9:
        partition, leader_epoch, fetch_offset, _, max_bytes = _PARTITION_V9.unpack_from(data, offset)
        reader.offset = offset + 28
    elif version >= 5:
        partition, fetch_offset, _, max_bytes = _PARTITION_V5.unpack_from(data, offset)
        reader.offset = offset + 24
    else:
        partition, fetch_offset, max_bytes = _PARTITION_V0.unpack_from(data, offset)
        reader.offset = offset + 16
    return ConsumeRow(name, partition, fetch_offset, max_bytes, leader_epoch, last_fetched_epoch)


def _decode_forgotten(reader: Reader, version: int, flexible: bool) -> list[tuple[FetchTopic, list[int]]]:
    forgotten = []
    for _ in range(reader.array_size(flexible)):
        start = reader.offset
        name = ""
        if version >= TOPIC_IDS_FROM:
            reader.take(16)
        else:
            name = reader.string(flexible)
        encoded = reader.data[start : reader.offset]
        count = reader.array_size(flexible)
        if count < 0:
            raise MalformedRequest("null for an array of partitions")
        forgotten.append((FetchTopic(encoded, name, count), [reader.int32() for _ in range(count)]))
        if flexible:
            reader.skip_tags()
    return forgotten


def _read_tags(reader: Reader, version: int, replica_id: int) -> int:
    """From version 15 a follower's id is tag 1; everything else is passed over."""
    for _ in range(reader.uvarint()):
        tag = reader.uvarint()
        size = reader.uvarint()
        start = reader.take(size)
        if tag == 1 and version >= 15:
            (replica_id,) = _I32.unpack_from(reader.data, start)
    return replica_id


def encode_body(
    version: int,
    topics: Sequence[FetchTopic],
    rows: Sequence[ConsumedRow],
    services: Services | None,
    error: ErrorCode = ErrorCode.NONE,
    session_id: int = 0,
) -> tuple[list[Chunk], int]:
    """The response as pieces and their total size; the records are the pieces that the rows hold."""
    flexible = version >= _FLEXIBLE_FROM
    chunks: list[Chunk] = []
    size = 0
    if version >= 7:
        out = bytearray(_TOP.pack(0, error, session_id))
    elif version >= 1:
        out = bytearray(4)
    else:
        out = bytearray()
    leaders: list[CurrentLeader] = []
    out += encode_size(len(topics), flexible)
    position = 0
    for topic in topics:
        out += topic.encoded
        out += encode_size(topic.size, flexible)
        for row in rows[position : position + topic.size]:
            _encode_row_head(out, row, version, flexible)
            records_size = 0
            for chunk in row.records:
                records_size += len(chunk)
            out += encode_size(records_size, flexible)
            if records_size:
                chunks.append(bytes(out))
                chunks.extend(row.records)
                size += len(out) + records_size
                out = bytearray()
            if flexible:
                _encode_row_tags(out, row, leaders)
        position += topic.size
        if flexible:
            out += b"\x00"
    if flexible:
        out += encode_node_endpoints(leaders if version >= 16 else (), services)
    chunks.append(bytes(out))
    return chunks, size + len(out)


def _encode_row_head(out: bytearray, row: ConsumedRow, version: int, flexible: bool) -> None:
    """All of a partition's answer before the length of its records."""
    if version >= 5:
        out += _ROW_V5.pack(row.partition, row.error, row.high_watermark, row.last_stable_offset, row.log_start)
    elif version == 4:
        out += _ROW_V4.pack(row.partition, row.error, row.high_watermark, row.last_stable_offset)
    else:
        out += _ROW_V0.pack(row.partition, row.error, row.high_watermark)
        return
    aborted = row.aborted
    if aborted is None:
        out += b"\x00" if flexible else b"\xff\xff\xff\xff"
    else:
        out += encode_size(len(aborted), flexible)
        for producer_id, first_offset in aborted:
            out += _ABORTED.pack(producer_id, first_offset)
            if flexible:
                out += b"\x00"
    if version >= 11:
        out += _NO_PREFERRED_REPLICA


def _encode_row_tags(out: bytearray, row: ConsumedRow, leaders: list[CurrentLeader]) -> None:
    leader = row.current_leader
    diverging = row.diverging_epoch >= 0
    if leader is None and not diverging:
        out += b"\x00"
        return
    out += encode_uvarint(diverging + (leader is not None))
    if diverging:
        out += b"\x00\x0d" + _DIVERGING.pack(row.diverging_epoch, row.diverging_end, 0)
    if leader is not None:
        leaders.append(leader)
        out += encode_current_leader(1, leader)

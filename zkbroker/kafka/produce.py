"""Produce: hot path, own codec. Costs per partition row, never per record; the records are views over the frame."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from zkbroker.kafka.endpoints import encode_current_leader, encode_node_endpoints
from zkbroker.kafka.ports import CurrentLeader, ProducedRow, ProduceRow
from zkbroker.kafka.request import Api, Request, Services, guarded
from zkbroker.kafka.versions import BY_KEY, PRODUCE
from zkbroker.kafka.wire import MalformedRequest, Reader, encode_size, encode_string
from zkbroker.model.errors import ErrorCode

_ACKS_TIMEOUT = struct.Struct(">hi")
_INDEX = struct.Struct(">i")
_ROW_V0 = struct.Struct(">ihq")
_ROW_V2 = struct.Struct(">ihqq")
_ROW_V5 = struct.Struct(">ihqqq")
_NO_THROTTLE = bytes(4)

_MAGIC_AT = 16
_ATTRIBUTES_AT = 22
"""The low byte of a record batch's attributes: codec, and whether it is transactional."""
_CODEC_MASK, _ZSTD, _TRANSACTIONAL_BIT = 0x07, 4, 0x10
_ZSTD_FROM = 7
"""KIP-110: who speaks less may not know what it sends."""

_FLEXIBLE_FROM = BY_KEY[PRODUCE].flexible_from
_LOWEST = BY_KEY[PRODUCE].lowest


class ProduceMessage(NamedTuple):
    transactional_id: str | None
    acks: int
    timeout_ms: int
    topics: list[tuple[bytes, int]]
    """(the name as it is encoded on the wire, number of partitions): the response repeats both."""
    rows: list[ProduceRow]


def decode(request: Request) -> ProduceMessage:
    return decode_body(request.reader(), request.version)


def decode_body(reader: Reader, version: int) -> ProduceMessage:
    flexible = version >= _FLEXIBLE_FROM
    transactional_id = reader.nullable_string(flexible) if version >= 3 else None
    data = reader.data
    acks, timeout_ms = _ACKS_TIMEOUT.unpack_from(data, reader.offset)
    reader.offset += 6
    topics: list[tuple[bytes, int]] = []
    rows: list[ProduceRow] = []
    unpack_index = _INDEX.unpack_from
    for _ in range(reader.array_size(flexible)):
        start = reader.offset
        topic = reader.string(flexible)
        encoded = data[start : reader.offset]
        count = reader.array_size(flexible)
        if count < 0:
            raise MalformedRequest("null for an array of partitions")
        topics.append((encoded, count))
        for _ in range(count):
            (partition,) = unpack_index(data, reader.offset)
            reader.offset += 4
            rows.append(ProduceRow(topic, partition, reader.nullable_bytes(flexible)))
            if flexible:
                reader.skip_tags()
        if flexible:
            reader.skip_tags()
    if flexible:
        reader.skip_tags()
    return ProduceMessage(transactional_id, acks, timeout_ms, topics, rows)


def serve(services: Services, request: Request, message: ProduceMessage) -> None:
    if request.version < _LOWEST:
        refuse(request, message, ErrorCode.UNSUPPORTED_VERSION, None)
        return
    if message.acks not in (-1, 0, 1):
        refuse(request, message, ErrorCode.INVALID_REQUIRED_ACKS, None)
        return
    problem = _problem(request.version, message)
    if problem is not None:
        refuse(request, message, *problem)
        return

    def done(rows: list[ProducedRow]) -> None:
        if message.acks == 0:
            _answer_unacknowledged(request, rows)
            return
        body = encode_body(request.version, message.topics, rows, services)
        request.answer(body)

    cancellable = services.data.produce(
        message.acks, message.timeout_ms, message.transactional_id, message.rows, guarded(request, message, done)
    )
    if not request.is_done:
        request.cancellable = cancellable


def _problem(version: int, message: ProduceMessage) -> tuple[ErrorCode, str] | None:
    """Why nothing of this request may be appended, as far as the attributes of its batches tell."""
    for row in message.rows:
        records = row.records
        if records is None or len(records) <= _ATTRIBUTES_AT or records[_MAGIC_AT] != 2:
            continue
        attributes = records[_ATTRIBUTES_AT]
        if attributes & _TRANSACTIONAL_BIT:
            # Nobody could end the transaction, and consumers would wait for its end for ever.
            if message.transactional_id is None:
                return ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "no transactional id is given"
            return ErrorCode.INVALID_TXN_STATE, "there is no such transaction"
        if attributes & _CODEC_MASK == _ZSTD and version < _ZSTD_FROM:
            return ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, f"zstd needs Produce version {_ZSTD_FROM}"
    return None


def _answer_unacknowledged(request: Request, rows: Iterable[ProducedRow]) -> None:
    """With acks=0 a failure cannot be told: the closed connection makes the client look for the leader again."""
    if any(row.error for row in rows):
        request.close()
    else:
        request.answer_nothing()


def refuse(request: Request, message: ProduceMessage, error: ErrorCode, text: str | None) -> None:
    rows = [ProducedRow(row.topic, row.partition, error, message=text) for row in message.rows]
    if message.acks == 0:
        request.close()
    else:
        request.answer(encode_body(request.version, message.topics, rows, None))


def encode_body(
    version: int, topics: Sequence[tuple[bytes, int]], rows: Sequence[ProducedRow], services: Services | None
) -> bytes:
    """The response; ``rows`` in the order of the request. From version 10 a row may name the leader (KIP-951), and
    with ``services`` the response says where those leaders are."""
    flexible = version >= _FLEXIBLE_FROM
    out = bytearray(encode_size(len(topics), flexible))
    position = 0
    leaders: list[CurrentLeader] = []
    for encoded, count in topics:
        out += encoded
        out += encode_size(count, flexible)
        for row in rows[position : position + count]:
            if version >= 5:
                out += _ROW_V5.pack(row.partition, row.error, row.base_offset, row.log_append_time_ms, row.log_start)
            elif version >= 2:
                out += _ROW_V2.pack(row.partition, row.error, row.base_offset, row.log_append_time_ms)
            else:
                out += _ROW_V0.pack(row.partition, row.error, row.base_offset)
            if version >= 8:
                out += encode_size(len(row.bad_records), flexible)
                for bad in row.bad_records:
                    out += _INDEX.pack(bad.place) + encode_string(bad.message, flexible)
                    if flexible:
                        out += b"\x00"
                out += encode_string(row.message, flexible)
            if flexible:
                leader = row.current_leader
                if leader is not None and version >= 10:
                    leaders.append(leader)
                    out += b"\x01" + encode_current_leader(0, leader)
                else:
                    out += b"\x00"
        position += count
        if flexible:
            out += b"\x00"
    if version >= 1:
        out += _NO_THROTTLE
    if flexible:
        out += encode_node_endpoints(leaders, services)
    return bytes(out)


API = Api(decode, serve, refuse)

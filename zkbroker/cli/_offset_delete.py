"""OffsetDelete (API 47, KIP-496), which confluent-kafka's admin client does not have."""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection
from itertools import groupby

from zkbroker.kafka.wire import Reader, encode_string
from zkbroker.model.errors import ErrorCode

_API_KEY = 47
_CLIENT_ID = "zkbroker-consumer-groups"

Partition = tuple[str, int]


def ask_offset_delete(
    address: tuple[str, int], group_id: str, partitions: Collection[Partition], timeout_s: float
) -> tuple[str | None, dict[Partition, str | None]]:
    """Ask the group's coordinator at (host, port). Returns names of errors, None for none: that of the whole request
    and that of each partition. Raises OSError when the coordinator does not answer."""
    body = _encode(group_id, sorted(partitions))
    with socket.create_connection(address, timeout_s) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        (size,) = struct.unpack(">i", _receive(connection, 4))
        answer = Reader(_receive(connection, size), 4)
    error = answer.int16()
    answer.int32()
    rows: dict[Partition, str | None] = {}
    for _ in range(answer.array_size(False)):
        topic = answer.string(False)
        for _ in range(answer.array_size(False)):
            partition, refusal = answer.int32(), answer.int16()
            rows[topic, partition] = _name(refusal)
    return _name(error), rows


def _name(code: int) -> str | None:
    return None if code == ErrorCode.NONE else ErrorCode(code).name


def _encode(group_id: str, partitions: list[Partition]) -> bytes:
    topics = [(topic, [number for _, number in rows]) for topic, rows in groupby(partitions, lambda row: row[0])]
    out = bytearray(struct.pack(">hhi", _API_KEY, 0, 0))
    out += encode_string(_CLIENT_ID, False) + encode_string(group_id, False)
    out += struct.pack(">i", len(topics))
    for topic, numbers in topics:
        out += encode_string(topic, False) + struct.pack(f">i{len(numbers)}i", len(numbers), *numbers)
    return bytes(out)


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        data = connection.recv(size - len(received))
        if not data:
            raise ConnectionError("the group's coordinator closed the connection")
        received += data
    return received

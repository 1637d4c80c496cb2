"""The same raw requests to two brokers, and what must differ in their answers taken out of the way.

A ``Peer`` is one broker as its client's socket sees it. Requests are given as plain mappings with kio's field names and
encoded by kio's schemas; answers come back as plain mappings in which ids, ports, producer ids and times of the wall
clock have become words, so that the answers of two brokers can be compared.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import re
import socket
import struct
import time
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any

import crc32c
from kio.index import load_request_schema

from tests.fakes.kafka_client import frame, request_bytes, response_of

__all__ = ["CLOSED", "T0", "Accepted", "Comparison", "Peer", "batch", "differences", "frame", "now_ms", "record"]

ANSWER_TIMEOUT_S = 60.0
NOW = "now"
"""What an answer's time becomes that is a time of the wall clock: those that tests send lie far in the past."""


class Accepted(typing.NamedTuple):
    """A difference that is meant to be: patterns of the cases and of the lines that show it, and why."""

    case: str
    line: str
    reason: str


CLOSED = "closed"
"""The answer of a broker that ends the connection instead."""
_EARLIEST_NOW_MS = 1_750_000_000_000


def now_ms() -> int:
    return int(time.time() * 1000)


def _built(annotation: Any, metadata: Mapping[str, Any], value: Any) -> Any:
    arguments = typing.get_args(annotation)
    if NoneType in arguments:
        annotation = next(argument for argument in arguments if argument is not NoneType)
    if value is None:
        return None
    if typing.get_origin(annotation) is tuple:
        of = typing.get_args(annotation)[0]
        return tuple(_built(of, metadata, one) for one in value)
    if dataclasses.is_dataclass(annotation):
        return build(annotation, value)
    kind = metadata.get("kafka_type", "")
    if kind.startswith("timedelta"):
        return datetime.timedelta(milliseconds=value)
    if kind.startswith("datetime"):
        return value
    return value


_EMPTY: dict[str, Any] = {"string": "", "bool": False, "uuid": None, "records": None, "bytes": b""}


def build(schema: Any, fields: Mapping[str, Any]) -> Any:
    """An entity of kio's; what is not given is empty, what the version does not have is left out."""
    values = {}
    for field in dataclasses.fields(schema):
        if field.name in fields:
            values[field.name] = _built(field.type, field.metadata, fields[field.name])
        elif field.default is dataclasses.MISSING:
            kind = field.metadata.get("kafka_type", "")
            if typing.get_origin(field.type) is tuple:
                values[field.name] = ()
            elif kind.startswith("timedelta"):
                values[field.name] = datetime.timedelta(milliseconds=30_000)
            else:
                values[field.name] = _EMPTY.get(kind, 0)
    return schema(**values)


_WITHOUT_ORDER = {3, 19, 20, 21, 32, 37}
"""Metadata, Create-/DeleteTopics, DeleteRecords, DescribeConfigs, CreatePartitions: Kafka answers in the order of a
hash table."""


def _in_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _in_order(one) for name, one in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        names = [name for name in ("name", "topic", "resource_name", "partition_index") if name in value[0]]
        return sorted(map(_in_order, value), key=lambda one: [str(one[name]) for name in names])
    return value


class Peer:
    """One of the two brokers, and the names that its ids have in what is compared."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.words: dict[Any, str] = {}
        """What is said instead of an id."""
        self.ids: dict[str, Any] = {}
        """Topic ids by name, for requests that name topics so."""
        self.timeout_s = ANSWER_TIMEOUT_S
        self._connection: socket.socket | None = None

    def __repr__(self) -> str:
        return f"Peer({self.name}, {self.port})"

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), self.timeout_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def ask(self, key: int, version: int, /, **fields: Any) -> Any:
        """The answer as plain values; CLOSED when the broker closes the connection instead."""
        answer = self.plain(self.ask_exactly(key, version, **fields))
        return _in_order(answer) if key in _WITHOUT_ORDER else answer

    def ask_exactly(self, key: int, version: int, /, **fields: Any) -> Any:
        """The same with the ids as they are: kio's entity."""
        message = build(load_request_schema(key, version), fields)
        data = self.exchange(request_bytes(message))
        return CLOSED if data is None else response_of(message, data)[1]

    def send_raw(self, data: bytes, answers_count: int = 1) -> list[bytes | str]:
        """What comes back for these bytes on a connection of their own: frames, then CLOSED if it ends."""
        found: list[bytes | str] = []
        with self.connect() as connection:
            try:
                connection.sendall(data)
                while len(found) < answers_count:
                    answer = read_frame(connection)
                    found.append(CLOSED if answer is None else answer)
                    if answer is None:
                        break
            except ConnectionError:
                found.append(CLOSED)
        return found

    def exchange(self, request: bytes) -> bytes | None:
        """One frame there, one frame back (without its length), over the one connection; None when it is closed."""
        if self._connection is None:
            self._connection = self.connect()
        try:
            self._connection.sendall(request)
            answer = read_frame(self._connection)
        except ConnectionError:
            answer = None
        if answer is None:
            self.close()
        return answer

    def plain(self, value: Any) -> Any:
        """Entities as mappings; what must differ between brokers as words."""
        if dataclasses.is_dataclass(value):
            return {
                field.name: self._field(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)
            }
        if isinstance(value, enum.Enum):
            return value.name
        if isinstance(value, tuple | list):
            return [self.plain(one) for one in value]
        if isinstance(value, datetime.timedelta):
            return round(value.total_seconds() * 1000)
        if isinstance(value, datetime.datetime):
            return self.plain(round(value.timestamp() * 1000))
        if isinstance(value, uuid.UUID):
            return self.words.get(value, "<unknown id>")
        if isinstance(value, memoryview | bytearray):
            return bytes(value)
        if isinstance(value, int) and not isinstance(value, bool) and value > _EARLIEST_NOW_MS and value < 2**50:
            return NOW
        return value

    def _field(self, name: str, value: Any) -> Any:
        if name == "throttle_time":
            return 0
        if name == "session_id":
            return "<session>" if value else 0
        if name == "cluster_id":
            return value if value is None else "<cluster id>"
        if name in ("error_message", "batch_index_error_message"):
            return value if value is None else "<text>"
        if name == "port" and value == self.port:
            return "<port>"
        if name == "producer_id" and value != -1:
            return "<producer id>"
        return self.plain(value)


class Comparison:
    """Asks both brokers and keeps in what they differ, but for what is accepted."""

    def __init__(self, peers: tuple[Peer, Peer], accepted: Sequence[Accepted]) -> None:
        self.peers = peers
        self._accepted = accepted
        self.found: list[str] = []
        self.asked_count = 0

    def ask(self, case: str, key: int, version: int, /, **fields: Any) -> None:
        """The same request to both."""
        self.both(f"{case} v{version}", lambda peer: peer.ask(key, version, **fields))

    def both(self, case: str, answer_of: Callable[[Peer], Any]) -> None:
        """``answer_of`` each."""
        answers = []
        for peer in self.peers:
            try:
                answers.append(answer_of(peer))
            except TimeoutError:
                peer.close()
                answers.append("no answer")
        self.asked_count += 1
        for line in differences(*answers):
            if not any(re.search(one.case, case) and re.search(one.line, line) for one in self._accepted):
                self.found.append(f"{case}: {line}")

    def check(self) -> None:
        """Fails with every difference that nobody accepted."""
        first, second = self.peers
        assert self.asked_count > 0
        assert not self.found, f"{len(self.found)} differences ({first.name} | {second.name}):\n" + "\n".join(
            self.found
        )


def read_frame(connection: socket.socket) -> bytes | None:
    """One answer without its length; None at the end of the connection."""
    head = _read(connection, 4)
    return None if head is None else _read(connection, struct.unpack(">i", head)[0])


def _read(connection: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            return None
        data += part
    return data


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """``place: one | other`` for every value in which two answers differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            line
            for name in [*one, *(name for name in other if name not in one)]
            for line in differences(one.get(name, "<nothing>"), other.get(name, "<nothing>"), f"{place}.{name}")
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            line
            for index, (left, right) in enumerate(zip(one, other, strict=True))
            for line in differences(left, right, f"{place}[{index}]")
        ]
    return [] if one == other else [f"{place.lstrip('.')}: {one!r} | {other!r}"]


# Record batches as a client may send them, right or wrong

T0 = 1_700_000_000_000
"""The time of the records that tests send."""


def varint(value: int) -> bytes:
    value = value << 1 ^ value >> 63
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def record(value: bytes | None, key: bytes | None = None, delta: int = 0, time_delta: int = 0) -> bytes:
    body = b"\x00" + varint(time_delta) + varint(delta)
    for part in (key, value):
        body += varint(-1) if part is None else varint(len(part)) + part
    body += varint(0)
    return varint(len(body)) + body


def batch(*values: bytes | None, **fields: Any) -> bytes:
    """A record batch of format 2. ``fields`` override what its header says, after which its CRC is right unless
    ``crc`` is given; ``payload`` replaces the records' bytes, ``keys`` gives each record that key."""
    key = fields.pop("key", None)
    step = fields.pop("step", 1)
    payload = b"".join(record(value, key, index, index * step) for index, value in enumerate(values))
    payload = fields.pop("payload", payload)
    count = len(values)
    first = fields.pop("first_timestamp", T0)
    head = {
        "base_offset": 0,
        "length": 49 + len(payload),
        "epoch": -1,
        "magic": 2,
        "crc": None,
        "attributes": 0,
        "last_delta": count - 1,
        "first_timestamp": first,
        "max_timestamp": first + max(0, count - 1) * step,
        "producer_id": -1,
        "producer_epoch": -1,
        "sequence": -1,
        "count": count,
        **fields,
    }
    tail = struct.pack(
        ">hiqqqhii",
        *(head[name] for name in ("attributes", "last_delta", "first_timestamp", "max_timestamp")),
        *(head[name] for name in ("producer_id", "producer_epoch", "sequence", "count")),
    )
    crc = crc32c.crc32c(tail + payload) if head["crc"] is None else head["crc"]
    return (
        struct.pack(">qiibI", head["base_offset"], head["length"], head["epoch"], head["magic"], crc) + tail + payload
    )

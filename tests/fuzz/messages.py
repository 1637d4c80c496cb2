"""Requests of every API and version that is advertised, with random values in every field, from kio's schemas.

Written here and not with kio's writers, so that each length and count on the way is known by its place: those are what
mutations aim at. Tagged fields that no schema knows are put in as KIP-482 allows; they must be passed over.
"""

from __future__ import annotations

import dataclasses
import random
import struct
import typing
import uuid
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, NamedTuple

from kio.index import load_request_schema

from tests.harness.differential import batch
from zkbroker.kafka.versions import RANGES
from zkbroker.kafka.wire import encode_uvarint

TOPICS = ("fuzz", "fuzz-2", "nowhere", "", "a" * 250, "bad/name", "..", "__consumer_offsets", "ключ")
GROUPS = ("group", "group-2", "", "g" * 300)
BLOBS = (b"", b"\0\0", b"\0\1\0\0\0\1\0\4fuzz\xff\xff\xff\xff")
"""The last one is a subscription to a topic."""
SMALL = (0, 1, 2, 3, 5, 10, -1)
TEXTS = (
    "",
    "x",
    "consumer",
    "range",
    "1",
    "retention.ms",
    "cleanup.policy",
    "compact",
    "1000",
    "bytes",
    "ключ",
    "y" * 500,
)
EDGES = {
    1: (0, 1, 2, 16, 127, -1, -128),
    2: (0, 1, 2, -1, -2, 32767, -32768),
    4: (0, 1, 2, 100, -1, -2, 2**31 - 1, -(2**31)),
    8: (0, 1, 1000, -1, -2, -3, 2**63 - 1, -(2**63), 1_700_000_000_000),
}
BYTES_OF = {
    "int8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "error_code": 2,
    "timedelta_i32": 4,
    "timedelta_i64": 8,
    "datetime_i64": 8,
}
BROKER_FIELDS = ("replica_id", "broker_ids", "replicas", "broker_id")
SEEN_TOPIC_ID = uuid.UUID(int=0x1234567890ABCDEF1234567890ABCDEF)
topic_ids: list[bytes] = [SEEN_TOPIC_ID.bytes]
"""Ids that topics may have; a siege puts in those that its broker tells."""


class Joint(NamedTuple):
    """A length or count in a message: bytes ``start`` to ``end``, as a varint or not."""

    start: int
    end: int
    is_varint: bool


class Message(NamedTuple):
    """A request without its frame's length."""

    key: int
    version: int
    data: bytes
    joints: tuple[Joint, ...]
    client_waits: bool = True
    """False: acks=0, no answer comes."""


def advertised() -> list[tuple[int, int]]:
    return [(api.key, version) for api in RANGES for version in range(api.minimum, api.maximum + 1)]


class _Writer:
    def __init__(self, dice: random.Random, flexible: bool) -> None:
        self.dice = dice
        self.flexible = flexible
        self.out = bytearray()
        self.joints: list[Joint] = []
        self.acks: int | None = None
        self.elements_left = 200
        self.heavy: int | None = None
        """How many elements the next array has, whatever the dice say."""

    def size(self, size: int, form: str) -> None:
        """A length or count; -1 for null."""
        start = len(self.out)
        self.out += encode_uvarint(size + 1) if self.flexible else struct.pack(form, size)
        self.joints.append(Joint(start, len(self.out), self.flexible))

    def string(self, text: str | None) -> None:
        raw = b"" if text is None else text.encode()
        self.size(-1 if text is None else len(raw), ">h")
        self.out += raw

    def blob(self, data: bytes | None) -> None:
        self.size(-1 if data is None else len(data), ">i")
        self.out += data or b""

    def tags(self, rows: Sequence[tuple[int, Callable[[_Writer], None]]]) -> None:
        found = []
        for tag, write in rows:
            inner = _Writer(self.dice, True)
            inner.elements_left = self.elements_left
            write(inner)
            found.append((tag, bytes(inner.out)))
        if self.dice.random() < 0.1:
            found.append((self.dice.choice((7, 99, 100_000)), self.dice.randbytes(self.dice.choice((0, 1, 40)))))
        start = len(self.out)
        self.out += encode_uvarint(len(found))
        self.joints.append(Joint(start, len(self.out), True))
        for tag, data in found:
            self.out += encode_uvarint(tag)
            start = len(self.out)
            self.out += encode_uvarint(len(data))
            self.joints.append(Joint(start, len(self.out), True))
            self.out += data


def _records(dice: random.Random) -> bytes | None:
    """Mostly a batch that is right; else one with something wrong in its header, or no batch at all."""
    kind = dice.random()
    if kind < 0.05:
        return dice.choice((None, b"", b"\0" * 70, dice.randbytes(90)))
    values = [dice.choice((b"v", None, b"x" * 200)) for _ in range(dice.choice((1, 1, 3)))]
    fields: dict[str, Any] = {}
    if kind < 0.5:
        name = dice.choice(("length", "magic", "crc", "attributes", "last_delta", "count", "producer_id", "sequence"))
        fields[name] = dice.choice(EDGES[1])
    if fields.get("crc", 0) < 0:
        fields["crc"] = 1
    data = batch(*values, key=dice.choice((None, b"k")), **fields)
    return data + data if kind > 0.95 else data


def _text(field: str, dice: random.Random) -> str:
    if "topic" in field or field == "name":
        return dice.choice(TOPICS)
    if "group" in field:
        return dice.choice(GROUPS)
    return dice.choice((*TEXTS, *TOPICS[:2], *GROUPS[:2]))


def _number(field: str, kind: str, dice: random.Random) -> int:
    if kind.startswith("timedelta") or "timeout" in field or "wait" in field:
        return dice.choice((0, 1, 20, -1, 100))  # whoever waits long is not wrong, and holds the connection
    if "partition" in field or field in BROKER_FIELDS or "epoch" in field or field == "acks":
        return dice.choice(SMALL)
    return dice.choice(EDGES[BYTES_OF[kind]])


def _write_primitive(writer: _Writer, field: dataclasses.Field[Any], is_nullable: bool) -> None:
    dice = writer.dice
    kind = field.metadata["kafka_type"]
    is_null = is_nullable and dice.random() < 0.2
    if kind == "string":
        writer.string(None if is_null else _text(field.name, dice))
    elif kind == "records":
        writer.blob(_records(dice))
    elif kind == "bytes":
        writer.blob(None if is_null else dice.choice((*BLOBS, dice.randbytes(30))))
    elif kind == "uuid":
        writer.out += dice.choice((bytes(16), *topic_ids, b"\0" * 15 + b"\1"))
    elif kind == "bool":
        writer.out.append(dice.choice((0, 1, 1, 2)))
    elif kind == "float64":
        writer.out += struct.pack(">d", dice.choice((0.0, 1.5, float("nan"), float("inf"))))
    else:
        number = _number(field.name, kind, dice)
        if field.name == "acks":
            writer.acks = number = dice.choice((-1, 0, 1, 1, 2))
        size = BYTES_OF[kind]
        writer.out += (number & (1 << 8 * size) - 1).to_bytes(size, "big")


def _write_field(writer: _Writer, field: dataclasses.Field[Any]) -> None:
    annotation: Any = field.type
    arguments = typing.get_args(annotation)
    is_nullable = NoneType in arguments
    if is_nullable:
        annotation = next(one for one in arguments if one is not NoneType)
    if typing.get_origin(annotation) is not tuple:
        if dataclasses.is_dataclass(annotation):
            _write_entity(writer, annotation)
        else:
            _write_primitive(writer, field, is_nullable)
        return
    if is_nullable and writer.heavy is None and writer.dice.random() < 0.15:
        writer.size(-1, ">i")
        return
    if writer.heavy is None:
        count = min(writer.dice.choice((0, 1, 1, 1, 2, 3)), writer.elements_left)
        writer.elements_left -= count
    else:
        count, writer.heavy = writer.heavy, 1
    writer.size(count, ">i")
    of = typing.get_args(annotation)[0]
    for _ in range(count):
        if dataclasses.is_dataclass(of):
            _write_entity(writer, of)
        else:
            _write_primitive(writer, field, False)


def _write_entity(writer: _Writer, schema: Any) -> None:
    tagged: list[tuple[int, Callable[[_Writer], None]]] = []
    for field in dataclasses.fields(schema):
        tag = field.metadata.get("tag")
        if tag is None:
            _write_field(writer, field)
        elif writer.dice.random() < 0.5:
            tagged.append((tag, lambda inner, field=field: _write_field(inner, field)))  # type: ignore[misc]
    if schema.__flexible__:
        writer.tags(tagged)


def header(key: int, version: int, correlation_id: int, client_id: bytes | None = b"fuzz") -> bytes:
    head = struct.pack(">hhi", key, version, correlation_id)
    return head + (b"\xff\xff" if client_id is None else struct.pack(">h", len(client_id)) + client_id)


def make_message(key: int, version: int, seed: int, correlation_id: int = 1, heavy: int | None = None) -> Message:
    """One that is right by its schema, whatever it asks for. What kio no longer knows gets a random body. ``heavy``:
    its first array has so many elements, and those inside that one each."""
    dice = random.Random(seed)
    try:
        schema: Any = load_request_schema(key, version)
    except Exception:
        body = header(key, version, correlation_id) + dice.randbytes(dice.choice((0, 4, 60)))
        return Message(key, version, body, (), False)
    writer = _Writer(dice, schema.__flexible__)
    writer.heavy = heavy
    writer.out += header(key, version, correlation_id, dice.choice((b"fuzz", b"", None, b"\xff\xfe")))
    if schema.__flexible__:
        writer.tags(())
    _write_entity(writer, schema)
    return Message(key, version, bytes(writer.out), tuple(writer.joints), writer.acks != 0)

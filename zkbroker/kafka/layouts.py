"""Where in a request or response the rows stand that it is about, without decoding them: what is before an array,
its elements, and what is behind. From kio's schemas, as ``messages.py``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from zkbroker.kafka.messages import schema_of, shape_of
from zkbroker.kafka.wire import MalformedRequest, Reader

STRING_BYTES_MAX = 0x7FFF
"""Kafka refuses longer ones, also where their length is a varint."""

Skip = Callable[[Reader], None]

_WIDTHS = {
    "int8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "float64": 8,
    "bool": 1,
    "error_code": 2,
    "timedelta_i32": 4,
    "timedelta_i64": 8,
    "datetime_i64": 8,
    "uuid": 16,
}


class Level(NamedTuple):
    """What holds an array of the path: the message itself first, then an element of the array above."""

    head: Skip
    tail: Skip


class Layout(NamedTuple):
    """The way to the rows."""

    levels: tuple[Level, ...]
    row: Skip
    flexible: bool


def layout(key: int, version: int, side: str, path: Sequence[str]) -> Layout:
    """``path`` names the arrays one inside the other, the rows' last. ``side`` is "request" or "response"."""
    schema = schema_of(key, version, side)
    flexible: bool = schema.__flexible__  # type: ignore[attr-defined]
    levels: list[Level] = []
    row: Skip = _nothing
    entity: type = schema
    for name in path:
        fields = [field for field in dataclasses.fields(entity) if field.metadata.get("tag") is None]
        at = next(position for position, field in enumerate(fields) if field.name == name)
        head = _sequence([_field(field, flexible) for field in fields[:at]])
        tail = _sequence([_field(field, flexible) for field in fields[at + 1 :]] + [Reader.skip_tags] * flexible)
        levels.append(Level(head, tail))
        inner = shape_of(fields[at].type).entity
        if inner is None:
            row = _primitive(fields[at].metadata["kafka_type"], flexible)
        else:
            entity = inner
            row = _entity(inner, flexible)
    return Layout(tuple(levels), row, flexible)


def offset_commit_v1() -> Layout:
    """Which kio does not know: group, generation, member; topics of rows with a time of commit each."""
    string = _primitive("string", False)
    head = _sequence([string, _fixed(4), string])
    return Layout((Level(head, _nothing), Level(string, _nothing)), _sequence([_fixed(20), string]), False)


def _nothing(reader: Reader) -> None:
    pass


def _fixed(width: int) -> Skip:
    def skip(reader: Reader) -> None:
        reader.take(width)

    return skip


def _sequence(skips: list[Skip]) -> Skip:
    if len(skips) == 1:
        return skips[0]

    def skip_all(reader: Reader) -> None:
        for skip in skips:
            skip(reader)

    return skip_all


def _primitive(kind: str, flexible: bool) -> Skip:
    width = _WIDTHS.get(kind)
    if width is not None:
        return _fixed(width)
    size_max = STRING_BYTES_MAX if kind == "string" else 2**31 - 1
    read_size = Reader.int32 if kind in ("bytes", "records") else Reader.int16

    def skip(reader: Reader) -> None:
        size = reader.uvarint() - 1 if flexible else read_size(reader)
        if not -1 <= size <= size_max:
            raise MalformedRequest(f"a length of {size}")
        reader.take(max(size, 0))

    return skip


def _field(field: dataclasses.Field[Any], flexible: bool) -> Skip:
    shape = shape_of(field.type)
    one = _entity(shape.entity, flexible) if shape.entity else _primitive(field.metadata["kafka_type"], flexible)
    if not shape.is_array:
        return one

    def skip_array(reader: Reader) -> None:
        for _ in range(reader.array_size(flexible)):
            one(reader)

    return skip_array


def _entity(schema: type, flexible: bool) -> Skip:
    fields = [field for field in dataclasses.fields(schema) if field.metadata.get("tag") is None]
    skips: list[Skip] = []
    width = 0
    for field in fields:
        fixed = 0 if shape_of(field.type).is_array else _WIDTHS.get(field.metadata.get("kafka_type", ""), 0)
        width += fixed
        if not fixed:
            skips += [_fixed(width)] * bool(width) + [_field(field, flexible)]
            width = 0
    return _sequence(skips + [_fixed(width)] * bool(width) + [Reader.skip_tags] * flexible)

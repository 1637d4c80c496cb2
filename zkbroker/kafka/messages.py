"""Messages off the hot path, read and written by kio's schemas. The only place that knows kio.

kio's classes say which fields a message of each version has, their types, nullability and tags; reading and writing
along them is done here, for two reasons. kio's native reader reserves memory for whatever array length it is told
(2**31 elements abort the process: one packet of a stranger would kill a broker), and it raises on a tagged field
that its schema does not know, which KIP-482 says to skip. A schema is imported and compiled when first needed.

Decoded messages are plain namespaces with kio's field names; times in milliseconds, topic ids in their 22-character
form (None for the zero id). To encode, give a mapping that holds at least the version's fields; more do no harm, so
that one mapping serves all versions.
"""

from __future__ import annotations

import dataclasses
import importlib
import struct
import typing
from collections.abc import Callable, Mapping
from types import NoneType, SimpleNamespace
from typing import Any
from uuid import UUID

from zkbroker.kafka.versions import BY_KEY
from zkbroker.kafka.wire import MalformedRequest, Reader, encode_size, encode_string, encode_uvarint
from zkbroker.model.topics import topic_id_from_uuid, topic_id_to_uuid

ZERO_UUID = bytes(16)

Decode = Callable[[Reader], Any]
Encode = Callable[[bytearray, Any], None]

_decoders: dict[tuple[int, int], Decode] = {}
_encoders: dict[tuple[int, int], Encode] = {}
_request_encoders: dict[tuple[int, int], Encode] = {}
_response_decoders: dict[tuple[int, int], Decode] = {}


def topic_id_from_bytes(raw: bytes) -> str | None:
    return None if raw == ZERO_UUID else topic_id_from_uuid(UUID(bytes=bytes(raw)))


def topic_id_to_bytes(topic_id: str | None) -> bytes:
    """16 bytes; zeros for none and for what is not a topic id (a znode may hold anything)."""
    if not topic_id:
        return ZERO_UUID
    try:
        return topic_id_to_uuid(topic_id).bytes
    except ValueError:
        return ZERO_UUID


def decode_request(key: int, version: int, reader: Reader) -> SimpleNamespace:
    """One request body. Raises one of ``wire.DECODE_ERRORS`` where the bytes do not fit."""
    decode = _decoders.get((key, version))
    if decode is None:
        decode = _decoders[key, version] = _entity_decoder(schema_of(key, version, "request"))
    message: SimpleNamespace = decode(reader)
    return message


def encode_response(key: int, version: int, fields: Mapping[str, Any]) -> bytes:
    """One response body, without its header."""
    encode = _encoders.get((key, version))
    if encode is None:
        encode = _encoders[key, version] = _entity_encoder(schema_of(key, version, "response"))
    out = bytearray()
    encode(out, fields)
    return bytes(out)


def encode_request(key: int, version: int, fields: Mapping[str, Any]) -> bytes:
    """One request body, for a client."""
    encode = _request_encoders.get((key, version))
    if encode is None:
        encode = _request_encoders[key, version] = _entity_encoder(schema_of(key, version, "request"))
    out = bytearray()
    encode(out, fields)
    return bytes(out)


def decode_response(key: int, version: int, reader: Reader) -> SimpleNamespace:
    """One response body, for a client. Raises one of ``wire.DECODE_ERRORS`` where the bytes do not fit."""
    decode = _response_decoders.get((key, version))
    if decode is None:
        decode = _response_decoders[key, version] = _entity_decoder(schema_of(key, version, "response"))
    reader.elements_left = reader.end  # our own broker's, not a stranger's: a cluster may be large
    message: SimpleNamespace = decode(reader)
    return message


def preload(key: int, versions: range) -> None:
    """Import and compile the schemas of these versions now, so that no client waits for it."""
    for version in versions:
        if (key, version) not in _decoders:
            _decoders[key, version] = _entity_decoder(schema_of(key, version, "request"))
        if (key, version) not in _encoders:
            _encoders[key, version] = _entity_encoder(schema_of(key, version, "response"))


def schema_of(key: int, version: int, side: str) -> type:
    name = BY_KEY[key].name
    module = importlib.import_module(f"kio.schema.{name}.v{version}.{side}")
    class_name = "".join(part.capitalize() for part in name.split("_")) + side.capitalize()
    schema: type = getattr(module, class_name)
    return schema


class _Shape(typing.NamedTuple):
    """What a field's annotation says: an array or not, nullable or not, a primitive or another entity."""

    is_array: bool
    is_nullable: bool
    entity: type | None


def shape_of(annotation: Any) -> _Shape:
    arguments = typing.get_args(annotation)
    is_nullable = NoneType in arguments
    if is_nullable:
        annotation = next(argument for argument in arguments if argument is not NoneType)
    is_array = typing.get_origin(annotation) is tuple
    if is_array:
        annotation = typing.get_args(annotation)[0]
    return _Shape(is_array, is_nullable, annotation if dataclasses.is_dataclass(annotation) else None)  # type: ignore[arg-type]


def _field_decoder(field: dataclasses.Field[Any], flexible: bool) -> Decode:
    shape = shape_of(field.type)
    one = _entity_decoder(shape.entity) if shape.entity else _primitive_decoder(field, shape, flexible)
    if not shape.is_array:
        return one

    def decode_array(reader: Reader) -> list[Any] | None:
        size = reader.array_size(flexible)
        if size < 0:
            if not shape.is_nullable:
                raise MalformedRequest(f"null for the array {field.name}")
            return None
        return [one(reader) for _ in range(size)]

    return decode_array


def _primitive_decoder(field: dataclasses.Field[Any], shape: _Shape, flexible: bool) -> Decode:
    kind = field.metadata["kafka_type"]
    if kind == "string":
        if shape.is_nullable and not shape.is_array:
            return lambda reader: reader.nullable_string(flexible)
        return lambda reader: reader.string(flexible)
    if kind in ("bytes", "records"):
        return lambda reader: reader.nullable_bytes(flexible)
    if kind == "uuid":
        return lambda reader: topic_id_from_bytes(reader.uuid_bytes())
    plain: dict[str, Decode] = {
        "int8": Reader.int8,
        "int16": Reader.int16,
        "uint16": Reader.uint16,
        "int32": Reader.int32,
        "uint32": Reader.uint32,
        "int64": Reader.int64,
        "float64": Reader.float64,
        "bool": Reader.boolean,
        "error_code": Reader.int16,
        "timedelta_i32": Reader.int32,
        "timedelta_i64": Reader.int64,
        "datetime_i64": Reader.int64,
    }
    return plain[kind]


def _entity_decoder(schema: type) -> Decode:
    flexible: bool = schema.__flexible__  # type: ignore[attr-defined]
    plain: list[tuple[str, Decode]] = []
    tagged: dict[int, tuple[str, Decode]] = {}
    defaults: dict[str, Any] = {}
    for field in dataclasses.fields(schema):
        decode = _field_decoder(field, flexible)
        tag = field.metadata.get("tag")
        if tag is None:
            plain.append((field.name, decode))
        else:
            tagged[tag] = (field.name, decode)
            defaults[field.name] = None if field.default is dataclasses.MISSING else field.default

    def decode_entity(reader: Reader) -> SimpleNamespace:
        values = dict(defaults)
        for name, decode in plain:
            values[name] = decode(reader)
        if flexible:
            for _ in range(reader.uvarint()):
                tag = reader.uvarint()
                size = reader.uvarint()
                start = reader.take(size)
                if tag in tagged:
                    name, decode = tagged[tag]
                    reader.offset = start
                    values[name] = decode(reader)
                    reader.offset = start + size
        return SimpleNamespace(**values)

    return decode_entity


_PACKS: dict[str, Callable[[Any], bytes]] = {
    "int8": struct.Struct(">b").pack,
    "int16": struct.Struct(">h").pack,
    "uint16": struct.Struct(">H").pack,
    "int32": struct.Struct(">i").pack,
    "uint32": struct.Struct(">I").pack,
    "int64": struct.Struct(">q").pack,
    "float64": struct.Struct(">d").pack,
    "bool": struct.Struct(">?").pack,
    "error_code": struct.Struct(">h").pack,
    "timedelta_i32": struct.Struct(">i").pack,
    "timedelta_i64": struct.Struct(">q").pack,
    "datetime_i64": struct.Struct(">q").pack,
    "uuid": topic_id_to_bytes,
}


def _primitive_encoder(field: dataclasses.Field[Any], flexible: bool) -> Encode:
    kind = field.metadata["kafka_type"]
    if kind == "string":
        return lambda out, value: out.extend(encode_string(value, flexible))
    if kind in ("bytes", "records"):

        def encode_bytes(out: bytearray, value: bytes | None) -> None:
            out += encode_size(-1 if value is None else len(value), flexible)
            out += value or b""

        return encode_bytes
    pack = _PACKS[kind]
    return lambda out, value: out.extend(pack(value))


def _field_encoder(field: dataclasses.Field[Any], flexible: bool) -> Encode:
    shape = shape_of(field.type)
    one = _entity_encoder(shape.entity) if shape.entity else _primitive_encoder(field, flexible)
    if not shape.is_array:
        return one

    def encode_array(out: bytearray, values: Any) -> None:
        if values is None:
            out += encode_size(-1, flexible)
            return
        out += encode_size(len(values), flexible)
        for value in values:
            one(out, value)

    return encode_array


def _default(field: dataclasses.Field[Any]) -> Any:
    """What a response holds where nothing was given; MISSING where leaving it out is a mistake of ours."""
    if field.metadata.get("kafka_type") in ("timedelta_i32", "timedelta_i64"):
        return 0
    return field.default


def _entity_encoder(schema: type) -> Encode:
    flexible: bool = schema.__flexible__  # type: ignore[attr-defined]
    plain: list[tuple[str, Encode, Any]] = []
    tagged: list[tuple[int, str, Encode, Any]] = []
    for field in dataclasses.fields(schema):
        encode = _field_encoder(field, flexible)
        tag = field.metadata.get("tag")
        if tag is None:
            plain.append((field.name, encode, _default(field)))
        else:
            tagged.append((tag, field.name, encode, _default(field)))
    tagged.sort(key=lambda row: row[0])

    def encode_entity(out: bytearray, fields: Mapping[str, Any]) -> None:
        for name, encode, default in plain:
            value = fields.get(name, default)
            if value is dataclasses.MISSING:
                raise KeyError(f"{schema.__name__}.{name}")
            encode(out, value)
        if not flexible:
            return
        rows = [row for row in tagged if row[1] in fields and fields[row[1]] != row[3]]
        out += encode_uvarint(len(rows))
        for tag, name, encode, _ in rows:
            value_bytes = bytearray()
            encode(value_bytes, fields[name])
            out += encode_uvarint(tag) + encode_uvarint(len(value_bytes)) + value_bytes

    return encode_entity

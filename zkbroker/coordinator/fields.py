"""Kafka's primitive fields, as the records of ``__consumer_offsets`` and the consumer protocol use them.

Versions before the flexible ones (KIP-482): lengths of two bytes before strings, of four before bytes and arrays, -1
for null. Flexible ones: an unsigned varint of the length plus one, 0 for null, and tagged fields after each struct.
"""

from __future__ import annotations

import struct

STRING_BYTES_MAX = 32_767
"""The longest string, in UTF-8, that a length of two bytes can announce."""

SHOWN_LENGTH_MAX = 200
"""Characters of a client's text in a log line."""

_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")
_I64 = struct.Struct(">q")


def utf8(text: str) -> bytes:
    """Never raises: half a surrogate pair becomes a question mark, as in Java."""
    return text.encode("utf-8", "replace")


def fits(text: str) -> bool:
    """Whether it can be stored as a string."""
    length = len(text)
    if length * 4 <= STRING_BYTES_MAX:
        return True
    return length <= STRING_BYTES_MAX and len(utf8(text)) <= STRING_BYTES_MAX


def shown(text: str) -> str:
    """What a client sent, fit for a log line: no line breaks or such, and not without end."""
    cut = text if len(text) <= SHOWN_LENGTH_MAX else text[:SHOWN_LENGTH_MAX] + "…"
    return cut if cut.isprintable() else ascii(cut)


def put_string(out: bytearray, text: str) -> None:
    """Raises ValueError when it is longer than STRING_BYTES_MAX."""
    encoded = utf8(text)
    if len(encoded) > STRING_BYTES_MAX:
        raise ValueError(f"a string of {len(encoded)} bytes")
    out += _I16.pack(len(encoded))
    out += encoded


def put_nullable_string(out: bytearray, text: str | None) -> None:
    if text is None:
        out += _I16.pack(-1)
    else:
        put_string(out, text)


def put_bytes(out: bytearray, content: bytes) -> None:
    out += _I32.pack(len(content))
    out += content


class FieldReader:
    """Reads one field after the other. Raises struct.error, IndexError or ValueError where the bytes do not fit."""

    __slots__ = ("_data", "_place", "is_flexible")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0
        self.is_flexible = False

    def i16(self) -> int:
        return self._number(_I16)

    def i32(self) -> int:
        return self._number(_I32)

    def i64(self) -> int:
        return self._number(_I64)

    def string(self) -> str:
        found = self.nullable_string()
        if found is None:
            raise ValueError("null where a string must be")
        return found

    def nullable_string(self) -> str | None:
        length = self._varint() - 1 if self.is_flexible else self.i16()
        if length < 0:
            return None
        return self._take(length).decode("utf-8", "replace")

    def blob(self) -> bytes:
        length = self._varint() - 1 if self.is_flexible else self.i32()
        if length < 0:
            raise ValueError("null where bytes must be")
        return self._take(length)

    def array_length(self) -> int:
        """At most as many as bytes are left: what a wrong length asks for is not made room for."""
        length = self._varint() - 1 if self.is_flexible else self.i32()
        if not 0 <= length <= len(self._data) - self._place:
            raise ValueError(f"an array of {length}")
        return length

    def end_of_struct(self) -> None:
        """Skip the tagged fields of a flexible version: none is known."""
        if not self.is_flexible:
            return
        for _ in range(self._varint()):
            self._varint()
            self._take(self._varint())

    def _number(self, layout: struct.Struct) -> int:
        found: int = layout.unpack_from(self._data, self._place)[0]
        self._place += layout.size
        return found

    def _take(self, length: int) -> bytes:
        end = self._place + length
        if end > len(self._data):
            raise ValueError(f"a field of {length} bytes")
        taken = self._data[self._place : end]
        self._place = end
        return taken

    def _varint(self) -> int:
        total = shift = 0
        while True:
            byte = self._data[self._place]
            self._place += 1
            total |= (byte & 0x7F) << shift
            if byte < 0x80:
                return total
            shift += 7
            if shift > 28:
                raise ValueError("a varint of more than five bytes")

"""The primitives of Kafka's wire protocol: a bounds-checked reader and small encoders. No I/O.

The reader takes whatever a stranger sends: every length is compared with the bytes that are really there before
anything is allocated. (kio's native reader trusts array lengths: a compact length of 2**31 aborts the whole process,
so it never sees a request; see ``messages.py``.)
"""

from __future__ import annotations

import struct

ARRAY_ELEMENTS_MAX = 100_000
"""Elements of all arrays in one request: some bytes on the wire become hundreds in memory and 10 to 20 µs of work, most
of it in one turn of the reactor. Half a million kept it until the watchdog ended the broker."""

_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")
_I64 = struct.Struct(">q")
_F64 = struct.Struct(">d")


class MalformedRequest(Exception):
    """The bytes are not a request of that API and version; the connection is closed (Kafka does the same)."""


DECODE_ERRORS = (MalformedRequest, struct.error, IndexError, UnicodeDecodeError)
"""What reading garbage can raise: every one means MalformedRequest."""


class Reader:
    """Reads one frame from ``offset`` on. Raises one of DECODE_ERRORS where the bytes do not fit."""

    __slots__ = ("data", "elements_left", "end", "offset")

    def __init__(self, data: bytes, offset: int = 0) -> None:
        self.data = data
        self.offset = offset
        self.end = len(data)
        self.elements_left = ARRAY_ELEMENTS_MAX

    def __repr__(self) -> str:
        return f"Reader({self.offset}/{self.end})"

    def take(self, size: int) -> int:
        """Claim ``size`` bytes; returns where they begin."""
        start = self.offset
        if size < 0 or start + size > self.end:
            raise MalformedRequest(f"a length of {size} at byte {start} of {self.end}")
        self.offset = start + size
        return start

    def int8(self) -> int:
        value = self.data[self.offset]
        self.offset += 1
        return value - 256 if value > 127 else value

    def boolean(self) -> bool:
        value = self.data[self.offset]
        self.offset += 1
        return value != 0

    def int16(self) -> int:
        (value,) = _I16.unpack_from(self.data, self.offset)
        self.offset += 2
        return value  # type: ignore[no-any-return]

    def uint16(self) -> int:
        return self.int16() & 0xFFFF

    def int32(self) -> int:
        (value,) = _I32.unpack_from(self.data, self.offset)
        self.offset += 4
        return value  # type: ignore[no-any-return]

    def uint32(self) -> int:
        return self.int32() & 0xFFFFFFFF

    def int64(self) -> int:
        (value,) = _I64.unpack_from(self.data, self.offset)
        self.offset += 8
        return value  # type: ignore[no-any-return]

    def float64(self) -> float:
        (value,) = _F64.unpack_from(self.data, self.offset)
        self.offset += 8
        return value  # type: ignore[no-any-return]

    def uuid_bytes(self) -> bytes:
        start = self.take(16)
        return self.data[start : start + 16]

    def uvarint(self) -> int:
        data = self.data
        offset = self.offset
        byte = data[offset]
        offset += 1
        if byte < 128:
            self.offset = offset
            return byte
        value = byte & 127
        shift = 7
        while True:
            byte = data[offset]
            offset += 1
            value |= (byte & 127) << shift
            if byte < 128:
                break
            shift += 7
            if shift > 28:
                raise MalformedRequest("an unsigned varint of more than 5 bytes")
        self.offset = offset
        return value

    def skip_tags(self) -> None:
        """Pass over tagged fields (KIP-482): what is not known is not an error."""
        count = self.uvarint()
        while count:
            self.uvarint()
            self.take(self.uvarint())
            count -= 1

    def string(self, flexible: bool) -> str:
        value = self.nullable_string(flexible)
        if value is None:
            raise MalformedRequest(f"null for a string before byte {self.offset}")
        return value

    def nullable_string(self, flexible: bool) -> str | None:
        size = self.uvarint() - 1 if flexible else self.int16()
        if size < 0:
            if size != -1:
                raise MalformedRequest(f"a string length of {size}")
            return None
        start = self.take(size)
        return self.data[start : start + size].decode("utf-8")

    def client_id(self) -> str | None:
        """Of a request header, which people may set to anything: like Kafka, take it though it is not UTF-8."""
        size = self.int16()
        if size < 0:
            return None
        start = self.take(size)
        return self.data[start : start + size].decode("utf-8", "replace")

    def nullable_bytes(self, flexible: bool) -> memoryview | None:
        """A view over the frame: nothing is copied, and the frame lives as long as the view."""
        size = self.uvarint() - 1 if flexible else self.int32()
        if size < 0:
            if size != -1:
                raise MalformedRequest(f"a bytes length of {size}")
            return None
        start = self.take(size)
        return memoryview(self.data)[start : start + size]

    def array_size(self, flexible: bool) -> int:
        """The number of elements, -1 for a null array. An element takes a byte at least."""
        size = self.uvarint() - 1 if flexible else self.int32()
        if size <= 0:
            if size < -1:
                raise MalformedRequest(f"an array length of {size}")
            return size
        self.elements_left -= size
        if size > self.end - self.offset or self.elements_left < 0:
            raise MalformedRequest(f"an array length of {size} with {self.end - self.offset} bytes left")
        return size


def encode_uvarint(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_string(value: str | None, flexible: bool) -> bytes:
    """Also for nullable ones. A legacy string has at most 32,767 bytes: longer messages for people are cut."""
    if value is None:
        return b"\x00" if flexible else b"\xff\xff"
    raw = value.encode("utf-8")
    if flexible:
        return encode_uvarint(len(raw) + 1) + raw
    if len(raw) > 32_767:
        raw = raw[:32_767].decode("utf-8", "ignore").encode("utf-8")
    return _I16.pack(len(raw)) + raw


def encode_size(size: int, flexible: bool) -> bytes:
    """The length before an array or bytes field; -1 for null."""
    return encode_uvarint(size + 1) if flexible else _I32.pack(size)

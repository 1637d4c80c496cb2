"""Framing of the line protocol: bytes in, messages out; a message in, bytes out. Pure: no socket, no clock.

The grammar is in PROTOCOL.md. In short: one line of words, of which ``body=N`` promises N raw bytes after the line.
What the words of each verb mean is in ``messages.py``, ``deltas.py`` and ``requests.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.limits import LINE_BYTES_MAX, MESSAGE_TEXT_LENGTH_MAX

NO_CORRELATION = 0
"""What a request without a correlation number is answered with: people need not type one."""

INTEGER_MAX = 2**63 - 1
"""Every number of the protocol is a signed 64-bit one: what does not fit would only fail later, in a log or znode."""

_BARE = re.compile(r"[!#-\[\]-~]+\Z")
_NEEDS_ESCAPE = re.compile(r'["\\\x00-\x1f\x7f\ud800-\udfff]')
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_TOKEN = re.compile(r'(?:([^ ="]+)=)?(?:"((?:[^"\\]|\\.)*)"|([^ "]*))(?: +|\Z)', re.DOTALL)
_ESCAPED = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
_UNESCAPED = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}


class FramingError(BrokerError):
    """The stream is not the line protocol, or passes a limit: ERR is sent and the connection closed."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.INVALID_REQUEST, message)


class Words(NamedTuple):
    """The words of a line: those without ``=`` in their order, and the others by key."""

    arguments: list[str]
    values: dict[str, str]


class Message(NamedTuple):
    """One request, answer or push."""

    verb: str
    """In capitals. Of an answer: OK, ERR or PUSH."""
    correlation: int
    arguments: list[str]
    values: dict[str, str]
    body: bytes | bytearray = b""

    def integer(self, key: str, default: int | None = None) -> int:
        """The number under that key. Raises BrokerError when it is not one, or is missing and has no default."""
        return integer(self.values, key, default)

    def text(self, key: str) -> str:
        """The value under that key. Raises BrokerError when it is missing."""
        return text(self.values, key)


class MessageReader:
    """Takes bytes as they arrive and yields whole messages; refuses what is past its limits before storing it."""

    __slots__ = ("_at", "_body", "_body_bytes_max", "_body_missing", "_buffer", "_header", "_line_bytes_max")

    def __init__(self, body_bytes_max: int, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self._body_bytes_max = body_bytes_max
        self._line_bytes_max = line_bytes_max
        self._buffer = b""
        """Bytes received and not yet part of a message, from ``_at`` on. Empty while a body is awaited."""
        self._at = 0
        self._header: Message | None = None
        """The message whose body is being received."""
        self._body = bytearray()
        self._body_missing = 0

    def receive(self, data: bytes) -> None:
        """Take what the transport gave; then ask ``next_message`` until it returns None."""
        if self._header is not None and self._body_missing:
            taken = min(self._body_missing, len(data))
            self._body += data if taken == len(data) else data[:taken]
            self._body_missing -= taken
            if taken == len(data):
                return
            self._buffer, self._at = data, taken
        elif self._at == len(self._buffer):
            self._buffer, self._at = data, 0
        else:
            self._buffer, self._at = self._buffer[self._at :] + data, 0

    def next_message(self) -> Message | None:
        """The next whole message, or None until more arrives. Raises FramingError, after which the stream is over."""
        if self._header is not None:
            if self._body_missing:
                return None
            message = self._header._replace(body=self._body)
            self._header, self._body = None, bytearray()
            return message
        while True:
            end = self._buffer.find(b"\n", self._at)
            if end < 0:
                if len(self._buffer) - self._at > self._line_bytes_max:
                    raise FramingError(f"a line is longer than {self._line_bytes_max} bytes")
                return None
            line = self._buffer[self._at : end]
            if len(line) > self._line_bytes_max:
                raise FramingError(f"a line is longer than {self._line_bytes_max} bytes")
            self._at = end + 1
            parsed = parse_line(line)
            if parsed is not None:
                return self._with_body(parsed)

    def _with_body(self, message: Message) -> Message | None:
        if "body" not in message.values:
            return message
        try:
            size = integer(message.values, "body")
        except BrokerError as error:
            raise FramingError(str(error)) from None
        if not 0 <= size <= self._body_bytes_max:
            raise FramingError(f"a body of {size} bytes: the limit is {self._body_bytes_max}")
        end = self._at + size
        if end <= len(self._buffer):
            body = self._buffer[self._at : end]
            self._at = end
            return message._replace(body=body)
        self._header = message
        self._body = bytearray(memoryview(self._buffer)[self._at :])
        self._body_missing = size - len(self._body)
        self._buffer, self._at = b"", 0
        return None


def parse_line(line: bytes) -> Message | None:
    """The message that a line begins; None for a blank one. Raises FramingError."""
    try:
        decoded = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FramingError("a line is not UTF-8") from error
    arguments, values = parse_words(decoded.rstrip("\r"))
    if not arguments:
        if values:
            raise FramingError("a line begins with a verb")
        return None
    verb = arguments.pop(0).upper()
    correlation = NO_CORRELATION
    if arguments and arguments[0].isdecimal() and arguments[0].isascii() and len(arguments[0]) < 19:
        correlation = int(arguments.pop(0))
    return Message(verb, correlation, arguments, values)


def parse_words(line: str) -> Words:
    """The words of a header line or row. Raises FramingError for quotes that do not match."""
    arguments: list[str] = []
    values: dict[str, str] = {}
    if '"' not in line:
        for word in line.split(" "):
            key, equals, value = word.partition("=")
            if equals and key:
                values[key] = value
            elif word:
                arguments.append(word)
        return Words(arguments, values)
    at, end = len(line) - len(line.lstrip(" ")), len(line)
    while at < end:
        match = _TOKEN.match(line, at)
        if match is None:
            raise FramingError(f"quotes that do not match in {line[at : at + 40]!r}")
        key, quoted, bare = match.groups()
        value = bare if quoted is None else unquote(quoted)
        if key:
            values[key] = value
        else:
            arguments.append(value)
        at = match.end()
    return Words(arguments, values)


def quote(value: str) -> str:
    """A value as it stands after ``key=``: itself if it is plain ASCII without blanks, else in double quotes."""
    if _BARE.match(value):
        return value
    return f'"{_NEEDS_ESCAPE.sub(_escape, value)}"'


def quote_argument(value: str) -> str:
    """A value as it stands alone: quoted also when it could be read as ``key=value``."""
    if "=" in value and _BARE.match(value):
        return f'"{value}"'
    return quote(value)


def unquote(quoted: str) -> str:
    """What stands between the quotes, its escapes resolved."""
    return _ESCAPE.sub(_unescape, quoted) if "\\" in quoted else quoted


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    if character in _ESCAPED:
        return _ESCAPED[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _unescape(match: re.Match[str]) -> str:
    two, four, single = match.groups()
    if two or four:
        return chr(int(two or four, 16))
    return _UNESCAPED.get(single, single)


def words(values: Mapping[str, str | int | None]) -> str:
    """``key=value`` words, each after a blank, in the order given; None is left out."""
    return "".join(
        f" {key}={value if isinstance(value, int) else quote(value)}"
        for key, value in values.items()
        if value is not None
    )


def encode_line(start: str, values: Mapping[str, str | int | None] | None = None, body: bytes = b"") -> bytes:
    """A header line that begins with ``start``, and its body."""
    line = f"{start}{words(values)}" if values else start
    return f"{line} body={len(body)}\n".encode() + body if body else f"{line}\n".encode()


def encode_request(
    verb: str, correlation: int, values: Mapping[str, str | int | None] | None = None, body: bytes = b""
) -> bytes:
    """A request with its body."""
    return encode_line(f"{verb} {correlation}", values, body)


def encode_ok(correlation: int, values: Mapping[str, str | int | None] | None = None, body: bytes = b"") -> bytes:
    """An answer that things went well."""
    return encode_line(f"OK {correlation}", values, body)


def encode_error(
    correlation: int, error: ErrorCode, message: str = "", values: Mapping[str, str | int | None] | None = None
) -> bytes:
    """``ERR 5 FENCED_LEADER_EPOCH current=4 message="…"``."""
    told = message[:MESSAGE_TEXT_LENGTH_MAX] or None
    return encode_line(f"ERR {correlation} {error.name}", {**(values or {}), "message": told})


def encode_push(
    correlation: int, name: str, values: Mapping[str, str | int | None] | None = None, body: bytes = b""
) -> bytes:
    """``PUSH 3 DELTA …``: what a subscriber is told without asking; the number is its subscription's."""
    return encode_line(f"PUSH {correlation} {name}", values, body)


def encode_text(correlation: int, lines: Iterable[str]) -> bytes:
    """An answer for people: OK, and lines of text as its body."""
    body = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
    return encode_line(f"OK {correlation}" if correlation else "OK", None, body)


def decode_error(message: Message) -> BrokerError:
    """The exception that an ERR stands for; a name from a newer broker becomes UNKNOWN_SERVER_ERROR."""
    name = message.arguments[0] if message.arguments else ""
    told = message.values.get("message", name)
    try:
        return BrokerError(ErrorCode[name], told)
    except KeyError:
        return BrokerError(ErrorCode.UNKNOWN_SERVER_ERROR, f"{name}: {told}")


def integer(values: Mapping[str, str], key: str, default: int | None = None) -> int:
    """The number under a key. Raises BrokerError INVALID_REQUEST when missing without default, or not a number."""
    value = values.get(key)
    if value is None:
        if default is None:
            raise BrokerError(ErrorCode.INVALID_REQUEST, f"{key}= is missing")
        return default
    try:
        number = int(value)
    except ValueError:
        raise BrokerError(ErrorCode.INVALID_REQUEST, f"{key}={value[:40]} is not a number") from None
    if not -INTEGER_MAX <= number <= INTEGER_MAX:
        raise BrokerError(ErrorCode.INVALID_REQUEST, f"{key}={value[:40]} is not a 64-bit number")
    return number


def text(values: Mapping[str, str], key: str) -> str:
    """The value under a key. Raises BrokerError INVALID_REQUEST when missing."""
    value = values.get(key)
    if value is None:
        raise BrokerError(ErrorCode.INVALID_REQUEST, f"{key}= is missing")
    return value


def integers(values: Mapping[str, str], key: str) -> tuple[int, ...]:
    """Numbers with commas between them; missing or empty is none."""
    value = values.get(key)
    if not value:
        return ()
    try:
        return tuple([int(number) for number in value.split(",")])
    except ValueError:
        raise BrokerError(ErrorCode.INVALID_REQUEST, f"{key}={value[:40]} are not numbers") from None


def error_code(values: Mapping[str, str], key: str = "error") -> ErrorCode:
    """An error by its name; one that this version does not know is UNKNOWN_SERVER_ERROR, a missing one NONE."""
    name = values.get(key, "NONE")
    if name == "NONE":
        return ErrorCode.NONE
    try:
        return ErrorCode[name]
    except KeyError:
        return ErrorCode.UNKNOWN_SERVER_ERROR


def row_partition(row: Words) -> tuple[str, int]:
    """Topic and partition with which a row begins. Raises BrokerError."""
    if len(row.arguments) < 2:
        raise BrokerError(ErrorCode.INVALID_REQUEST, "a row begins with topic and partition")
    try:
        partition = int(row.arguments[1])
    except ValueError:
        partition = -1
    if not 0 <= partition < 2**31:
        raise BrokerError(ErrorCode.INVALID_REQUEST, f"{row.arguments[1][:40]!r} is not a partition")
    return row.arguments[0], partition


def body_rows(body: bytes | bytearray) -> list[Words]:
    """The lines of a body without raw bytes. Raises BrokerError."""
    try:
        lines = body.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise BrokerError(ErrorCode.INVALID_REQUEST, "the body is not UTF-8") from None
    return [parse_words(line.rstrip("\r")) for line in lines if line]

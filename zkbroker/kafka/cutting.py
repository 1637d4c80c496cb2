"""Cuts a request between its rows, and puts the rows of the answers together again. Bytes in, bytes out; no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from zkbroker.kafka.layouts import Layout
from zkbroker.kafka.wire import Reader, encode_size

Chunk = bytes | tuple[int, int]
"""Bytes, or where in the frame they stand."""


class Part(NamedTuple):
    """Elements of the outermost array, with these rows in them."""

    elements: int
    chunks: list[Chunk]


def cut(reader: Reader, asked: Layout, rows: int, once: bool) -> Iterator[Part]:
    """From the outermost array on. Raises one of DECODE_ERRORS."""
    seen: set[bytes] | None = set() if once else None
    for count, chunks, _ in _cut_array(reader, asked, 0, rows, seen):
        yield Part(count, chunks)


def _cut_array(
    reader: Reader, asked: Layout, depth: int, rows: int, seen: set[bytes] | None
) -> Iterator[tuple[int, list[Chunk], int]]:
    """(elements, chunks, rows) of each piece. One piece at least, and only the first may be empty."""
    if depth == len(asked.levels) - 1:
        yield from _cut_rows(reader, asked, rows, seen)
        return
    flexible = asked.flexible
    size = reader.array_size(flexible)
    count, weight = 0, 0
    chunks: list[Chunk] = []
    inner = asked.levels[depth + 1]
    for _ in range(size):
        start = reader.offset
        inner.head(reader)
        head = (start, reader.offset)
        pieces = _cut_array(reader, asked, depth + 1, rows, seen)
        first = next(pieces)
        second = next(pieces, None)
        if second is None:
            inner.tail(reader)
            more = max(1, first[2])
            if count and weight + more > rows:
                yield count, chunks, weight
                count, chunks, weight = 0, [], 0
            count += 1
            _add_range(chunks, start, reader.offset)
            weight += more
            continue
        if count:
            yield count, chunks, weight
            count, chunks, weight = 0, [], 0
        for piece in (first, second):
            yield _wrapped(piece, head, flexible)
        for piece in pieces:
            yield _wrapped(piece, head, flexible)
        inner.tail(reader)
    if count or size <= 0:
        yield count, chunks, weight


def _cut_rows(
    reader: Reader, asked: Layout, rows: int, seen: set[bytes] | None
) -> Iterator[tuple[int, list[Chunk], int]]:
    size = reader.array_size(asked.flexible)
    row = asked.row
    count = 0
    chunks: list[Chunk] = []
    is_empty = True
    for _ in range(size):
        if count == rows:
            yield count, chunks, count
            count, chunks, is_empty = 0, [], False
        start = reader.offset
        row(reader)
        if seen is not None:
            content = reader.data[start : reader.offset]
            if content in seen:
                continue
            seen.add(content)
        _add_range(chunks, start, reader.offset)
        count += 1
    if count or is_empty:
        yield count, chunks, count


def _add_range(chunks: list[Chunk], start: int, end: int) -> None:
    if chunks and type(chunks[-1]) is tuple and chunks[-1][1] == start:
        chunks[-1] = (chunks[-1][0], end)
    else:
        chunks.append((start, end))


def _wrapped(piece: tuple[int, list[Chunk], int], head: Chunk, flexible: bool) -> tuple[int, list[Chunk], int]:
    """An element with some of its rows. Tagged fields, of which Kafka knows none there, are left away."""
    count, chunks, weight = piece
    return 1, [head, encode_size(count, flexible), *chunks, b"\x00" if flexible else b""], weight


# Answers


class Element:
    """One whose rows may go on in the next answer."""

    __slots__ = ("head", "rows", "tail")

    def __init__(self, head: bytes, rows: Rows, tail: bytes) -> None:
        self.head = head
        self.rows = rows
        self.tail = tail


class Rows:
    """An array of an answer: bytes of whole elements; the first and the last one apart, where they hold arrays."""

    __slots__ = ("count", "pieces")

    def __init__(self) -> None:
        self.count = 0
        self.pieces: list[bytes | Element] = []

    def take(self, other: Rows) -> None:
        """Put those of the next answer behind these."""
        self.count += other.count
        pieces = other.pieces
        if self.pieces and pieces:
            last, first = self.pieces[-1], pieces[0]
            if isinstance(last, Element) and isinstance(first, Element) and last.head == first.head:
                last.rows.take(first.rows)
                last.tail = max(last.tail, first.tail)
                self.count -= 1
                pieces = pieces[1:]
        self.pieces += pieces

    def chunks(self, flexible: bool) -> Iterator[bytes]:
        yield encode_size(self.count, flexible)
        for piece in self.pieces:
            if isinstance(piece, Element):
                yield piece.head
                yield from piece.rows.chunks(flexible)
                yield piece.tail
            else:
                yield piece


class Answers:
    """The answers so far. Where they differ before or behind the rows, what tells of an error counts: its code is
    larger than NONE, also as bytes."""

    def __init__(self, answered: Layout) -> None:
        self._layout = answered
        self._head = b""
        self._tail = b""
        self._rows = Rows()
        self.size = 0
        zeros = Reader(bytes(64))
        answered.levels[0].tail(zeros)
        self._tail_size = zeros.offset
        """Of responses with one array: what is behind it has no strings, and no tagged fields of ours."""

    def add(self, body: bytes) -> None:
        self.size += len(body)
        reader = Reader(body)
        reader.elements_left = len(body)  # our own
        top = self._layout.levels[0]
        top.head(reader)
        self._head = max(self._head, body[: reader.offset])
        if len(self._layout.levels) == 1:  # rows can be large (Metadata): they are not gone through
            end = len(body) - self._tail_size
            rows = Rows()
            rows.count = max(0, reader.array_size(self._layout.flexible))
            rows.pieces = [body[reader.offset : end]] * bool(rows.count)
            reader.offset = end
        else:
            rows = self._read(reader, 0)
        self._rows.take(rows)
        self._tail = max(self._tail, body[reader.offset :])

    def _read(self, reader: Reader, depth: int) -> Rows:
        found = Rows()
        found.count = count = max(0, reader.array_size(self._layout.flexible))
        data = reader.data
        if depth == len(self._layout.levels) - 1:
            start = reader.offset
            for _ in range(count):
                self._layout.row(reader)
            found.pieces = [data[start : reader.offset]] * bool(count)
            return found
        for index in range(count):
            start = reader.offset
            if index in (0, count - 1):
                found.pieces.append(self._element(reader, depth + 1))
                continue
            self._skip(reader, depth + 1)
            piece, last = data[start : reader.offset], found.pieces[-1]
            if isinstance(last, bytes):
                found.pieces[-1] = last + piece
            else:
                found.pieces.append(piece)
        return found

    def _element(self, reader: Reader, depth: int) -> Element:
        level = self._layout.levels[depth]
        start = reader.offset
        level.head(reader)
        head = reader.data[start : reader.offset]
        rows = self._read(reader, depth)
        start = reader.offset
        level.tail(reader)
        return Element(head, rows, reader.data[start : reader.offset])

    def _skip(self, reader: Reader, depth: int) -> None:
        level = self._layout.levels[depth]
        level.head(reader)
        for _ in range(reader.array_size(self._layout.flexible)):
            if depth == len(self._layout.levels) - 1:
                self._layout.row(reader)
            else:
                self._skip(reader, depth + 1)
        level.tail(reader)

    def chunks(self) -> list[bytes]:
        return [self._head, *self._rows.chunks(self._layout.flexible), self._tail]

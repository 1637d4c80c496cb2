"""Kafka's framing: a signed 32-bit length, then that many bytes. No I/O.

A frame is handed out as one ``bytes`` object of its own, so that what keeps a view of its records keeps no
neighbour alive. What arrives in pieces is gathered in a list and joined once (an 8 MiB frame in 64 KiB pieces costs
one copy); tiny pieces are folded together, so that a frame sent byte by byte takes no more memory than its bytes.
"""

from __future__ import annotations

import struct

_SIZE = struct.Struct(">i")

FOLD_BELOW_BYTES = 4096
"""Pieces smaller than this are appended to their predecessor."""


class FrameError(Exception):
    """A length that is negative or above the limit: the connection cannot be understood any more."""


class Frames:
    """Cuts a stream of bytes into frames of at most ``size_max`` bytes. ``feed``, then ``next_frame`` until None."""

    __slots__ = ("_pieces", "_pieces_bytes", "_rest", "_rest_offset", "_size", "size_max")

    def __init__(self, size_max: int) -> None:
        self.size_max = size_max
        self._rest = b""
        self._rest_offset = 0
        self._size = -1
        self._pieces: list[bytes | bytearray] = []
        self._pieces_bytes = 0

    def __repr__(self) -> str:
        return f"Frames(size={self._size}, have={self._pieces_bytes}, rest={len(self._rest) - self._rest_offset})"

    @property
    def is_inside_frame(self) -> bool:
        """True while a frame was begun (``frame_size`` is known) but not handed out."""
        return self._size >= 0

    @property
    def frame_size(self) -> int:
        """Bytes of the frame begun, -1 between frames."""
        return self._size

    @property
    def arrived_bytes(self) -> int:
        """How many bytes of the frame begun are here."""
        return self._pieces_bytes + min(len(self._rest) - self._rest_offset, self._size - self._pieces_bytes)

    def feed(self, data: bytes) -> None:
        """Take bytes from the network. Call ``next_frame`` until it has no more before feeding again, or the
        remainder is copied."""
        size = self._size
        if size >= 0 and self._rest_offset >= len(self._rest):
            missing = size - self._pieces_bytes
            if len(data) <= missing:
                self._keep(data)
                return
            self._keep(data[:missing])
            self._rest = data
            self._rest_offset = missing
            return
        if self._rest_offset < len(self._rest):
            data = self._rest[self._rest_offset :] + data
        self._rest = data
        self._rest_offset = 0

    def begin_frame(self) -> bool:
        """Read the next length where one is there. True when inside a frame. Raises FrameError."""
        if self._size >= 0:
            return True
        offset = self._rest_offset
        if len(self._rest) - offset < 4:
            return False
        (size,) = _SIZE.unpack_from(self._rest, offset)
        if not 0 <= size <= self.size_max:
            raise FrameError(f"a frame of {size} bytes; the limit (socket.request.max.bytes) is {self.size_max}")
        self._size = size
        self._rest_offset = offset + 4
        return True

    def next_frame(self) -> bytes | None:
        """The next whole frame, without its length, or None until more is fed. Raises FrameError."""
        if not self.begin_frame():
            return None
        size = self._size
        rest = self._rest
        offset = self._rest_offset
        missing = size - self._pieces_bytes
        if missing:
            if len(rest) - offset < missing:
                if offset < len(rest):
                    self._keep(rest[offset:])
                    self._forget_rest()
                return None
            end = offset + missing
            self._rest_offset = end
            if not self._pieces:
                frame = rest[offset:end]
                self._size = -1
                if end == len(rest):
                    self._forget_rest()
                return frame
            self._keep(rest[offset:end])
        frame = b"".join(self._pieces)
        self._pieces = []
        self._pieces_bytes = 0
        self._size = -1
        if self._rest_offset >= len(self._rest):
            self._forget_rest()
        return frame

    def _forget_rest(self) -> None:
        self._rest = b""
        self._rest_offset = 0

    def _keep(self, piece: bytes) -> None:
        self._pieces_bytes += len(piece)
        pieces = self._pieces
        if len(piece) < FOLD_BELOW_BYTES and pieces:
            last = pieces[-1]
            if isinstance(last, bytearray):
                last += piece
                if len(last) >= 16 * FOLD_BELOW_BYTES:
                    pieces[-1] = bytes(last)
                return
            piece_or_fold: bytes | bytearray = bytearray(piece)
            pieces.append(piece_or_fold)
            return
        pieces.append(piece)

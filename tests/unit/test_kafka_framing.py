"""Frames: whole, byte by byte, several at once, with trailing bytes; lengths that cannot be."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkbroker.kafka.framing import FrameError, Frames


def framed(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def drain(frames: Frames) -> list[bytes]:
    found = []
    while (body := frames.next_frame()) is not None:
        found.append(body)
    return found


def test_whole_frames_in_one_piece() -> None:
    frames = Frames(100)
    frames.feed(framed(b"one") + framed(b"") + framed(b"three"))
    assert drain(frames) == [b"one", b"", b"three"]
    assert not frames.is_inside_frame


def test_byte_by_byte() -> None:
    frames = Frames(100)
    found = []
    for byte in framed(b"one") + framed(b"two"):
        frames.feed(bytes((byte,)))
        found += drain(frames)
    assert found == [b"one", b"two"]


def test_trailing_bytes_wait_for_the_rest() -> None:
    frames = Frames(100)
    frames.feed(framed(b"one") + framed(b"two")[:5])
    assert drain(frames) == [b"one"]
    assert frames.is_inside_frame
    assert frames.frame_size == 3
    frames.feed(b"wo")
    assert drain(frames) == [b"two"]


@given(st.lists(st.binary(max_size=12_000), max_size=6), st.lists(st.integers(1, 9000), min_size=1, max_size=5))
@settings(max_examples=150, deadline=None)
def test_any_cut_gives_the_same_frames(bodies: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(map(framed, bodies))
    frames = Frames(20_000)
    found: list[bytes] = []
    position = turn = 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        frames.feed(stream[position : position + size])
        if turn % 3:  # sometimes more is fed before anything is taken
            found += drain(frames)
        position += size
        turn += 1
    found += drain(frames)
    assert found == bodies
    assert all(type(body) is bytes for body in found)


@pytest.mark.parametrize("size", [-1, -(2**31), 101, 2**31 - 1])
def test_an_impossible_length_raises_at_once(size: int) -> None:
    frames = Frames(100)
    frames.feed(struct.pack(">i", size))
    with pytest.raises(FrameError, match=r"socket\.request\.max\.bytes"):
        frames.next_frame()


def test_tiny_pieces_are_folded() -> None:
    frames = Frames(1_000_000)
    frames.feed(struct.pack(">i", 100_000))
    for _ in range(99_999):
        frames.feed(b"x")
        assert frames.next_frame() is None
    assert len(frames._pieces) < 10
    frames.feed(b"y")
    assert frames.next_frame() == b"x" * 99_999 + b"y"

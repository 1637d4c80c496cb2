"""What is done to a right request to make a wrong one. A mutation is a name and two numbers, so that one that was found
can be written down and Hypothesis can shrink it."""

from __future__ import annotations

import random
import struct
from typing import NamedTuple

from tests.fuzz.messages import Message, advertised, make_message
from zkbroker.kafka.versions import DELETE_GROUPS, DELETE_TOPICS

KINDS = ("cut", "extend", "joint", "flip", "delete", "insert", "bad text", "version", "key", "frame", "nothing")
_VARINTS = (
    *(b"\x00", b"\x01", b"\x02", b"\x7f", b"\xff\x7f", b"\xff\xff\x7f", b"\xff\xff\xff\x7f"),
    *(b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x7f", b"\xff" * 9 + b"\x01", b"\xff" * 20, b"\x80" * 5),
)
_NUMBERS = (-1, -2, 0, 1, 2, 255, 32767, -32768, 1_000_000, 499_999, 2**31 - 1, -(2**31), 2**24)
_FRAMES = (-1, -(2**31), 2**31 - 1, 0, 3, 1 << 20, 104_857_600, 104_857_601)


_DESTRUCTIVE = (DELETE_TOPICS, DELETE_GROUPS)
"""Rare in a random run, or nothing lives long enough to be attacked."""


class Mutation(NamedTuple):
    kind: str
    place: float
    """Where, from 0 to 1."""
    value: int
    """What, as an index into what the kind knows."""


def _at(place: float, count: int) -> int:
    return min(int(place * count), max(0, count - 1))


def mutate(message: Message, mutations: list[Mutation]) -> bytes:
    """The whole frame. Its length is right unless the mutation is about that."""
    data = bytearray(message.data)
    frame_size: int | None = None
    for kind, place, value in mutations:
        at = _at(place, len(data))
        if kind == "cut":
            del data[at:]
        elif kind == "extend":
            data += random.Random(value).randbytes(value % 64 + 1)
        elif kind == "joint" and message.joints:
            start, end, is_varint = message.joints[_at(place, len(message.joints))]
            if is_varint:
                data[start:end] = _VARINTS[value % len(_VARINTS)]
            else:
                size = end - start
                number = _NUMBERS[value % len(_NUMBERS)]
                data[start:end] = (number & (1 << 8 * size) - 1).to_bytes(size, "big")
        elif kind == "flip" and data:
            data[at] ^= 1 << value % 8
        elif kind == "delete":
            del data[at : at + value % 8 + 1]
        elif kind == "insert":
            data[at:at] = random.Random(value).randbytes(value % 8 + 1)
        elif kind == "bad text":
            data[at : at + 2] = b"\xc3\x28" if value % 2 else b"\xff\x00"
        elif kind == "version" and len(data) >= 4:
            data[2:4] = struct.pack(">h", (-1, 99, 32767, -32768, value % 20)[value % 5])
        elif kind == "key" and len(data) >= 2:
            data[0:2] = struct.pack(">h", (-1, 4, 7, 1000, 32767, value % 90)[value % 6])
        elif kind == "frame":
            frame_size = _FRAMES[value % len(_FRAMES)] if value % 3 else len(data) + value % 9 - 4
    return struct.pack(">i", len(data) if frame_size is None else frame_size) + bytes(data)


class Case(NamedTuple):
    """One hostile request, from numbers alone: it can be printed and made again."""

    key: int
    version: int
    seed: int
    mutations: tuple[Mutation, ...]

    def message(self, correlation_id: int = 1) -> Message:
        return make_message(self.key, self.version, self.seed, correlation_id)

    def frame(self, correlation_id: int = 1) -> bytes:
        return mutate(self.message(correlation_id), list(self.mutations))

    @property
    def is_right(self) -> bool:
        return not self.mutations


def random_case(dice: random.Random) -> Case:
    """A third of them right, so that state is made that wrong ones meet."""
    key, version = dice.choice(advertised())
    if key in _DESTRUCTIVE and dice.random() < 0.8:
        key, version = dice.choice(advertised())
    count = dice.choice((0, 0, 1, 1, 1, 3))
    mutations = tuple(Mutation(dice.choice(KINDS), dice.random(), dice.randrange(1 << 16)) for _ in range(count))
    return Case(key, version, dice.randrange(1 << 32), mutations)

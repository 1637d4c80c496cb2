"""Consumers that poll partitions in which nothing happens, for ``zkbroker-bench idle``: each has a connection and a
fetch session (KIP-227) with every leader of its partitions, as Java's client has, and asks again once it is answered.

They speak Fetch 11, whose answers to a request within a session hold nothing but a head while nothing happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Mapping, Sequence

from zkbroker.cli._group_members import CONNECT_TIMEOUT_S
from zkbroker.kafka.wire import encode_string
from zkbroker.model.errors import ErrorCode

MAX_WAIT_MS = 500
"""Java's fetch.max.wait.ms."""
MAX_BYTES = 50 * 1024 * 1024
PARTITION_MAX_BYTES = 1024 * 1024
_HEAD = struct.Struct(">iihi")
"""Correlation id, throttle time, error, session id."""


class IdleConsumer:
    """Polls the partitions that one leader has for it, until cancelled."""

    def __init__(self, address: tuple[str, int], topic: str, partitions: Sequence[int], with_sessions: bool) -> None:
        self._address = address
        self._topic = topic
        self._partitions = partitions
        self._with_sessions = with_sessions
        self.answers_count = 0
        self.unexpected: list[str] = []

    async def run(self) -> None:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(*self._address)
        session_id, epoch = 0, 0 if self._with_sessions else -1
        try:
            while True:
                writer.write(self._request(session_id, epoch))
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                answer = await reader.readexactly(size)
                _, _, error, session_id = _HEAD.unpack_from(answer)
                self.answers_count += 1
                if error:
                    self.unexpected.append(f"fetch: {ErrorCode(error).name}")
                    await asyncio.sleep(0.5)
                    session_id, epoch = 0, min(epoch, 0)
                elif self._with_sessions:
                    epoch = epoch + 1 if session_id else 0
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _request(self, session_id: int, epoch: int) -> bytes:
        is_whole = epoch <= 0
        parts = [
            struct.pack(">hhi", 1, 11, 0),
            encode_string("zkbroker-bench", False),
            struct.pack(">iiiibii", -1, MAX_WAIT_MS, 1, MAX_BYTES, 0, session_id, epoch),
            struct.pack(">i", 1 if is_whole else 0),
        ]
        if is_whole:
            parts += [encode_string(self._topic, False), struct.pack(">i", len(self._partitions))]
            parts += [struct.pack(">iiqqi", one, -1, 0, -1, PARTITION_MAX_BYTES) for one in self._partitions]
        body = b"".join((*parts, struct.pack(">i", 0), encode_string("", False)))
        return struct.pack(">i", len(body)) + body


def make_consumers(
    leaders: Mapping[int, int], addresses: Mapping[int, tuple[str, int]], topic: str, count: int, with_sessions: bool
) -> list[IdleConsumer]:
    """``count`` consumers share the partitions of ``leaders`` (partition → broker), each has some of every leader's."""
    made = []
    for broker, address in addresses.items():
        led = [partition for partition, leader in leaders.items() if leader == broker]
        for number in range(count):
            part = led[number::count]
            if part:
                made.append(IdleConsumer(address, topic, part, with_sessions))
    return made

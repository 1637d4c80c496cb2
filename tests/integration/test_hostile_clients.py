"""A real broker among clients that mean it no good: a thousand connections of which half are silent or read slowly, and
requests that no client would send."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from kio.index import load_request_schema

from tests.fakes.kafka_client import request_bytes, response_of
from tests.fuzz.__main__ import SETTINGS
from tests.fuzz.siege import Siege, complaints, resident_bytes
from tests.harness.brokers import Cluster
from tests.harness.differential import batch, build
from zkbroker.kafka.versions import FETCH, METADATA, PRODUCE

pytestmark = pytest.mark.timeout(300)
MEMORY_BYTES = 64 << 20
"""queued.max.request.bytes: of requests, and once more of answers that are not read."""
GOOD, BAD, ROUNDS = 500, 500, 3
ANSWER_TIMEOUT_S = 60.0
"""No judgement of speed: whoever is kept waiting by the others waits for good or until they are thrown out."""


def _produce(value: bytes) -> Any:
    data = [{"name": "t", "partition_data": [{"index": 0, "records": batch(value)}]}]
    return build(load_request_schema(PRODUCE, 9), {"acks": 1, "timeout": 30_000, "topic_data": data})


def _fetch(topic: str, max_bytes: int) -> Any:
    row = {"partition": 0, "fetch_offset": 0, "partition_max_bytes": max_bytes, "current_leader_epoch": -1}
    fields = {"replica_id": -1, "max_wait": 100, "min_bytes": 1, "max_bytes": max_bytes, "session_epoch": -1}
    topics = [{"topic": topic, "partitions": [row]}]
    return build(load_request_schema(FETCH, 11), {**fields, "topics": topics})


def _metadata() -> Any:
    return build(load_request_schema(METADATA, 9), {"topics": [{"name": "t"}]})


class Good:
    """Writes, reads and asks for topics, each time one after the other, and looks at what it is told."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._offsets: list[int] = []

    async def run(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for turn in range(ROUNDS):
                answer = await self._ask(reader, writer, _metadata())
                assert [topic.name for topic in answer.topics] == ["t"]
                answer = await self._ask(reader, writer, _produce(b"%d-%d" % (self._number, turn)))
                [row] = answer.responses[0].partition_responses
                assert row.error_code == 0
                self._offsets.append(row.base_offset)
                answer = await self._ask(reader, writer, _fetch("t", 10_000))
                [part] = answer.responses[0].partitions
                assert part.error_code == 0
                assert part.records
                assert part.high_watermark > row.base_offset
            assert self._offsets == sorted(set(self._offsets))
        finally:
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: Any) -> Any:
        writer.write(request_bytes(message, self._number))
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            (size,) = struct.unpack(">i", await reader.readexactly(4))
            correlation_id, answer = response_of(message, await reader.readexactly(size))
        assert correlation_id == self._number
        return answer


def _connect(port: int, receive_bytes: int | None = None) -> socket.socket:
    connection = socket.socket()
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.connect(("127.0.0.1", port))
    return connection


def _bad(port: int) -> list[socket.socket]:
    """In equal parts: silent ones; ones that announce 60 MB and stop; ones that stop in the middle of a request of 400
    KB; ones that ask for 50 MB and read nothing; and such as read a little (the caller makes them)."""
    half = request_bytes(_produce(b"v" * 400_000))[:200_000]
    greedy = request_bytes(_fetch("big", 50_000_000))
    kinds: list[Callable[[socket.socket], object]] = [
        lambda _: None,
        lambda connection: connection.sendall(struct.pack(">i", 60_000_000) + b"\0"),
        lambda connection: connection.sendall(half),
        lambda connection: connection.sendall(greedy),
        lambda connection: connection.sendall(greedy),
    ]
    found = []
    for number in range(BAD):
        connection = _connect(port, 8192)
        kinds[number % len(kinds)](connection)
        found.append(connection)
    return found


async def _read_a_little(connections: list[socket.socket]) -> None:
    """A kilobyte each now and then, until cancelled."""
    while True:
        for connection in connections:
            try:
                connection.recv(1024, socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass
            except OSError:
                continue  # thrown out
        await asyncio.sleep(0.2)


async def _all_good(port: int, slow: list[socket.socket]) -> None:
    reading = asyncio.create_task(_read_a_little(slow))
    try:
        await asyncio.gather(*(Good(number).run(port) for number in range(GOOD)))
    finally:
        reading.cancel()


def test_a_thousand_connections_of_which_half_are_silent_or_slow(make_cluster: Callable[..., Cluster]) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    settings = {
        "queued.max.request.bytes": MEMORY_BYTES,
        "socket.request.max.bytes": MEMORY_BYTES,
        "min.insync.replicas": 1,
    }
    cluster = make_cluster(1, settings)
    cluster.create_topic("t", 1, 1)
    cluster.create_topic("big", 1, 1)
    cluster.produce("big", [b"%d" % number * 50_000 for number in range(400)], compression_type="none")
    broker = cluster.brokers[1]
    asyncio.run(_all_good(broker.port, []))  # code paths are warm, their memory is there
    before = resident_bytes(broker.pid)
    enemies = _bad(broker.port)
    try:
        asyncio.run(_all_good(broker.port, enemies[4::5]))
        grown = resident_bytes(broker.pid) - before
        stored = cluster.produce("t", [b"librdkafka"] * 50)
        assert [record.offset for record in stored] == list(range(2 * GOOD * ROUNDS, 2 * GOOD * ROUNDS + 50))
        assert len(cluster.consume("t")) == 2 * GOOD * ROUNDS + 50
        assert grown < 3 * MEMORY_BYTES, f"{grown >> 20} MiB"
    finally:
        for enemy in enemies:
            enemy.close()
    assert broker.is_running
    assert not complaints(broker.log_text())
    # What they held is given back: as many may come again.
    cluster.wait_for(lambda: _connections_count(broker.pid) < 50, "the broker has let them go")


def _connections_count(pid: int) -> int:
    return sum(os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:") for name in os.listdir(f"/proc/{pid}/fd"))


def test_requests_that_no_client_would_send(make_cluster: Callable[..., Cluster]) -> None:
    """The long version is ``python -m tests.fuzz``."""
    cluster = make_cluster(1, SETTINGS)
    cluster.create_topic("fuzz", 3, 1)
    broker = cluster.brokers[1]
    with Siege("127.0.0.1", broker.port, 20, broker.pid) as siege:
        siege.strike_heavily(5_000)
        tally = siege.run(seconds=60, requests_max=1000)
    assert tally.answers > 150, tally
    assert tally.closed > 150, tally
    assert tally.grown_bytes < 100 << 20, tally
    assert broker.is_running
    assert not complaints(broker.log_text())

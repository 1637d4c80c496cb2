"""``zkbroker-bench idle``: requests that a broker understands, parts that make a whole, processor time that passes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import time

import pytest

from tests.fakes.kafka_client import Listener, frames_of
from zkbroker.cli._idle_consumers import IdleConsumer, make_consumers
from zkbroker.cli.bench_idle import Figure, cpu_seconds, make_parser
from zkbroker.kafka.fetch import decode_body
from zkbroker.kafka.wire import Reader

ADDRESSES = {1: ("host-1", 9092), 2: ("host-2", 9092)}


def test_every_partition_is_polled_once_at_its_leader() -> None:
    leaders = {partition: 1 + partition % 2 for partition in range(25)}
    consumers = make_consumers(leaders, ADDRESSES, "t", 3, True)
    assert len(consumers) == 6
    polled = [(consumer._address, partition) for consumer in consumers for partition in consumer._partitions]
    assert sorted(polled) == sorted((ADDRESSES[leader], partition) for partition, leader in leaders.items())
    assert len(make_consumers({0: 1}, ADDRESSES, "t", 3, True)) == 1


@pytest.mark.parametrize("with_sessions", [True, False])
def test_its_requests_are_what_they_are_meant_to_be(with_sessions: bool) -> None:
    consumer = IdleConsumer(ADDRESSES[1], "t", [3, 4], with_sessions)
    first, later = (
        decode_body(Reader(consumer._request(session, epoch), 4 + 8 + 2 + len("zkbroker-bench")), 11)
        for session, epoch in ((0, 0), (7, 5))
    )
    assert [row.partition for row in first.rows] == [3, 4]
    assert (first.session_id, first.session_epoch, first.max_wait_ms) == (0, 0, 500)
    assert (later.rows, later.session_id, later.session_epoch) == ([], 7, 5)


def test_it_goes_on_within_its_session() -> None:
    """Against a listener in memory: the second request names no partition and is answered without any."""
    listener = Listener()
    listener.broker.add_topic("t", 5)
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection, transport = listener.connect()
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(4)
                asked.append(await reader.readexactly(struct.unpack(">i", head)[0]))
                connection.dataReceived(head + asked[-1])
                listener.clock.advance(1)
                [answer] = frames_of(transport.take())
                writer.write(struct.pack(">i", len(answer)) + answer)
                await asyncio.sleep(0)

    async def run() -> IdleConsumer:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        consumer = IdleConsumer(server.sockets[0].getsockname(), "t", range(5), True)
        task = asyncio.create_task(consumer.run())
        while consumer.answers_count < 4:
            await asyncio.sleep(0.001)
            assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()
        return consumer

    consumer = asyncio.run(run())
    assert not consumer.unexpected
    assert len(asked[0]) > len(asked[1]) == len(asked[2])


def test_processor_time_of_a_process() -> None:
    before = cpu_seconds(os.getpid())
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert 0.03 <= cpu_seconds(os.getpid()) - before < 5
    figure = Figure("idle", 10.0, {1: 0.0123, 2: 0.5}, 20.0)
    assert "broker 1  1.23 %  broker 2 50.00 %" in figure.line()
    assert make_parser().parse_args([]).members == 500

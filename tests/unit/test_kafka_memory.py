"""Memory that clients share: frames that are announced and never come, frames that cannot all be finished at once,
answers that nobody reads."""

from __future__ import annotations

import random
import struct

import pytest

from tests.fakes.kafka_client import Listener, Transport, frames_of, request_bytes, response_of
from tests.unit.test_kafka_connection import batch, correlations, fetch_request, produce_request
from zkbroker.kafka.connection import FRAME_CLAIM_BYTES, KafkaConnection
from zkbroker.kafka.listener import ANSWER_BYTES_MIN, ELDER_S


def make_listener(limit_bytes: int) -> Listener:
    listener = Listener(queued_max_request_bytes=limit_bytes)
    listener.broker.add_topic("t")
    return listener


def produce(size: int, correlation_id: int = 1) -> bytes:
    return request_bytes(produce_request(records=batch(b"v" * size)), correlation_id)


def test_frames_that_are_only_announced_keep_nobody_waiting() -> None:
    listener = make_listener(1_000_000)
    for _ in range(50):
        connection, _ = listener.connect()
        connection.dataReceived(struct.pack(">i", 100_000_000) + b"x")
    assert listener.factory.memory.used_bytes == 50 * FRAME_CLAIM_BYTES
    connection, transport = listener.connect()
    connection.dataReceived(produce(150_000))
    assert correlations(transport.take()) == [1]


def test_a_frame_claims_no_more_than_twice_what_has_come() -> None:
    listener = make_listener(10_000_000)
    connection, transport = listener.connect()
    request = produce(1_000_000)
    for start in range(0, len(request), 50_000):
        connection.dataReceived(request[start : start + 50_000])
        assert listener.factory.memory.used_bytes <= max(FRAME_CLAIM_BYTES, 2 * (start + 50_000))
    assert correlations(transport.take()) == [1]
    assert listener.factory.memory.used_bytes == 0


def test_frames_that_fill_the_memory_together_are_finished_one_after_the_other() -> None:
    listener = make_listener(50_000)
    request = produce(200_000)
    ends: list[tuple[KafkaConnection, Transport]] = [listener.connect() for _ in range(3)]
    for start, end in ((0, 5_000), (5_000, 20_000), (20_000, 50_000)):
        for connection, transport in ends:
            if not transport.is_paused:
                connection.dataReceived(request[start:end])
    [elder] = [one for one in ends if one[0] is listener.factory.memory.elder]
    others = [one for waiting in listener.factory.memory.waiting for one in ends if one[0] is waiting]
    assert len(others) == 2
    arrived = {one: one[0].frames.arrived_bytes for one in ends}
    assert not elder[1].is_paused
    assert all(transport.is_paused for _, transport in others)
    # The elder goes away half done: the next one goes on.
    elder[0].dataReceived(request[50_000:100_000])
    elder[0].connectionLost(None)
    for one in others:
        connection, transport = one
        assert not transport.is_paused
        connection.dataReceived(request[arrived[one] + 4 :])
        assert correlations(transport.take()) == [1]
    memory = listener.factory.memory
    assert (memory.used_bytes, memory.elder, len(memory.waiting)) == (0, None, 0)


@pytest.mark.parametrize("seed", range(12))
def test_everything_is_answered_within_the_limit_and_two_frames(seed: int) -> None:
    dice = random.Random(seed)
    limit, largest, piece_max = 100_000, 80_000, 30_000
    listener = make_listener(limit)
    streams = {}
    for _ in range(10):
        sizes = [dice.choice((1, 500, 20_000, largest)) for _ in range(dice.randrange(1, 6))]
        streams[listener.connect()] = [b"".join(produce(size, number) for number, size in enumerate(sizes)), len(sizes)]
    answered = dict.fromkeys(streams, 0)
    while any(stream for stream, _ in streams.values()):
        ready = [end for end, (stream, _) in streams.items() if stream and not end[1].is_paused]
        assert ready, "everybody waits for everybody"
        end = dice.choice(ready)
        size = dice.randrange(1, piece_max)
        stream = streams[end][0]
        streams[end][0] = stream[size:]
        end[0].dataReceived(stream[:size])
        assert listener.factory.memory.used_bytes <= limit + 2 * (largest + piece_max)
        for each in streams:
            answered[each] += len(frames_of(each[1].take()))
    assert [answered[end] for end in streams] == [count for _, count in streams.values()]
    assert listener.factory.memory.used_bytes == 0


def test_hundreds_who_stop_reading_leave_room_for_the_others() -> None:
    """Each asks for 50 MB of a log that has them, and reads nothing: the next who asks is answered."""
    listener = make_listener(20_000_000)
    for _ in range(100):
        listener.ask(produce_request(records=batch(b"v" * 100_000)))
    for _ in range(300):
        connection, transport = listener.connect()
        transport_write = transport.writeSequence

        def full(pieces: object, connection: KafkaConnection = connection, write: object = transport_write) -> None:
            write(pieces)  # type: ignore[operator]
            connection.pauseProducing()

        transport.writeSequence = full  # type: ignore[method-assign]
        connection.dataReceived(request_bytes(fetch_request(), 1))
    assert listener.factory.unsent_memory.used_bytes < listener.factory.unsent_memory.limit_bytes
    connection, transport = listener.connect()
    connection.dataReceived(request_bytes(fetch_request(), 7))
    [answer] = frames_of(transport.take())
    [partition] = response_of(fetch_request(), answer)[1].responses[0].partitions
    assert len(partition.records) >= 100_000, "the first batch, whatever else there is no room for"


def test_what_an_answer_may_take() -> None:
    listener = make_listener(100_000_000)
    limits = listener.factory.limits
    listener.connect()
    assert listener.factory.answer_bytes_max() == limits.fetch_max_bytes
    for _ in range(399):
        listener.connect()
    assert listener.factory.answer_bytes_max() == 100_000_000 // 101
    listener.factory.unsent_memory.add(99_000_000)
    assert listener.factory.answer_bytes_max() == ANSWER_BYTES_MIN


def test_a_request_that_trickles_in_holds_up_the_others_for_a_minute_at_most() -> None:
    listener = make_listener(20_000)
    elder, elder_transport = listener.connect()
    elder.dataReceived(produce(200_000)[:60_000])
    elder.dataReceived(b"x" * 60_000)
    assert listener.factory.memory.elder is elder
    other, transport = listener.connect()
    other.dataReceived(produce(10))
    for _ in range(int(ELDER_S / 5)):
        elder.dataReceived(b"x")
        assert not elder_transport.is_closed
        listener.clock.advance(5)
    listener.clock.pump([5, 5])
    assert elder_transport.is_closed
    elder.connectionLost(None)
    assert correlations(transport.take()) == [1]

"""What a Kafka connection may take: requests in flight, memory, unread answers, idle time, connections."""

from __future__ import annotations

import struct
from typing import Any

from tests.fakes.kafka_client import Listener, frames_of, request_bytes, response_of
from tests.unit.test_kafka_apis import metadata
from tests.unit.test_kafka_connection import (
    api_versions_request,
    batch,
    correlations,
    fetch_request,
    produce_request,
)
from zkbroker.kafka.connection import REQUESTS_IN_FLIGHT_MAX
from zkbroker.kafka.listener import STALL_S
from zkbroker.kafka.memory import RequestMemory


def test_at_most_so_many_requests_are_in_flight() -> None:
    listener = Listener()
    listener.broker.add_topic("t")
    listener.broker.hold_produces = True
    connection, transport = listener.connect()
    connection.dataReceived(b"".join(request_bytes(produce_request(), n) for n in range(150)))
    assert len(listener.broker.held) == REQUESTS_IN_FLIGHT_MAX
    assert transport.is_paused
    listener.broker.release()
    assert len(listener.broker.held) == REQUESTS_IN_FLIGHT_MAX
    while listener.broker.held:
        listener.broker.release()
    assert correlations(transport.take()) == list(range(150))
    assert not transport.is_paused


def test_a_second_fetch_waits_until_the_first_is_written() -> None:
    listener = Listener()
    listener.broker.add_topic("t")
    listener.broker.hold_fetches = True
    connection, transport = listener.connect()
    connection.dataReceived(request_bytes(fetch_request(), 1) + request_bytes(fetch_request(), 2))
    assert len(listener.broker.held) == 1
    listener.broker.release()
    assert correlations(transport.take()) == [1]
    assert len(listener.broker.held) == 1
    listener.broker.release()
    assert correlations(transport.take()) == [2]


def test_a_client_that_does_not_read_is_not_read() -> None:
    listener = Listener()
    listener.broker.add_topic("t")
    connection, transport = listener.connect()
    connection.pauseProducing()  # what the transport does when its buffer is full
    connection.dataReceived(request_bytes(produce_request(), 1))
    assert not listener.broker.produced
    assert transport.is_paused
    connection.resumeProducing()
    assert correlations(transport.take()) == [1]
    assert not transport.is_paused


def test_a_large_answer_leaves_in_slices_as_the_client_reads() -> None:
    listener = Listener(queued_max_request_bytes=400_000)
    listener.broker.add_topic("t")
    listener.ask(produce_request(records=batch(b"b" * 900_000)))
    records = b"".join(stored[3] for stored in listener.broker.logs["t", 0].batches)
    slow, slow_transport = listener.connect()
    transport_write = slow_transport.writeSequence

    def full_after_each_write(pieces: Any) -> None:
        transport_write(pieces)
        slow.pauseProducing()

    slow_transport.writeSequence = full_after_each_write  # type: ignore[method-assign]
    slow.dataReceived(request_bytes(fetch_request(), 1) + request_bytes(api_versions_request(), 2))
    other, other_transport = listener.connect()
    other.dataReceived(request_bytes(fetch_request(), 5))
    assert other_transport.take() == b"", "a Fetch waits while so much is unsent"
    received = slow_transport.take()
    assert 0 < len(received) < 800_000
    turns = 0
    while len(received) < len(records):
        slow.resumeProducing()
        received += slow_transport.take()
        turns += 1
    for _ in range(2):
        slow.resumeProducing()
        received += slow_transport.take()
    assert turns >= 2
    answer, second = frames_of(received)
    assert response_of(fetch_request(), answer)[1].responses[0].partitions[0].records == records
    assert struct.unpack_from(">i", second) == (2,)
    assert correlations(other_transport.take()) == [5]
    assert listener.factory.unsent_memory.used_bytes == 0


def test_an_answer_that_is_never_read_gives_way() -> None:
    listener = Listener(queued_max_request_bytes=100_000)
    listener.broker.add_topic("t")
    listener.ask(produce_request(records=batch(b"a" * 900_000)))
    deaf, deaf_transport = listener.connect()
    transport_write = deaf_transport.writeSequence

    def full(pieces: Any) -> None:
        transport_write(pieces)
        deaf.pauseProducing()

    deaf_transport.writeSequence = full  # type: ignore[method-assign]
    deaf.dataReceived(request_bytes(fetch_request(), 1))
    other, other_transport = listener.connect()
    other.dataReceived(request_bytes(fetch_request(), 2))
    listener.clock.pump([5] * int(STALL_S / 5 + 2))
    assert deaf_transport.is_closed
    deaf.connectionLost(None)
    assert correlations(other_transport.take()) == [2]


def test_idle_connections_are_closed_and_busy_ones_not() -> None:
    listener = Listener(connections_max_idle_ms=60_000)
    listener.broker.add_topic("t")
    listener.broker.hold_produces = True
    _, idle = listener.connect()
    connection, busy = listener.connect()
    connection.dataReceived(request_bytes(produce_request(), 1))
    listener.clock.pump([5] * 14)
    assert idle.is_closed
    assert not busy.is_closed


def test_max_connections() -> None:
    listener = Listener(max_connections=1)
    connection, _ = listener.connect()
    assert listener.factory.buildProtocol(None) is None
    connection.connectionLost(None)
    assert listener.factory.buildProtocol(None) is not None


def test_memory_over_the_limit_stops_reading_but_not_inside_a_frame() -> None:
    request = request_bytes(produce_request(), 1)
    listener = Listener(queued_max_request_bytes=2 * len(request))
    listener.broker.add_topic("t")
    listener.broker.hold_produces = True
    first, first_transport = listener.connect()
    second, second_transport = listener.connect()
    second.dataReceived(request[:10])  # inside a frame: claimed
    first.dataReceived(request * 5)
    memory = listener.factory.memory
    assert first_transport.is_paused
    assert memory.used_bytes <= memory.limit_bytes + len(request)
    assert not second_transport.is_paused
    second.dataReceived(request[10:])
    third, third_transport = listener.connect()
    third.dataReceived(request)
    assert third_transport.is_paused
    while listener.broker.held:
        listener.broker.release()
    assert len(correlations(first_transport.take())) == 5
    assert len(correlations(second_transport.take())) == 1
    assert len(correlations(third_transport.take())) == 1
    assert not first_transport.is_paused
    assert (memory.used_bytes, len(memory.waiting)) == (0, 0)


def test_a_frame_that_stands_still_gives_way_to_those_who_wait() -> None:
    listener = Listener(queued_max_request_bytes=1000)
    listener.broker.add_topic("t")
    greedy, greedy_transport = listener.connect()
    greedy.dataReceived(struct.pack(">i", 50_000_000) + b"x")
    other, transport = listener.connect()
    other.dataReceived(request_bytes(produce_request(), 1))
    assert transport.take() == b""
    listener.clock.pump([5] * int(STALL_S / 5 + 2))
    assert greedy_transport.is_closed
    greedy.connectionLost(None)
    assert correlations(transport.take()) == [1]


def test_memory_is_given_in_order() -> None:
    memory = RequestMemory(10)
    served: list[str] = []

    class Waiter:
        def __init__(self, name: str) -> None:
            self.name = name

        def memory_freed(self) -> None:
            if memory.claim(self, 10):
                served.append(self.name)

    assert memory.claim(Waiter("first"), 12)
    waiters = [Waiter("a"), Waiter("b")]
    for waiter in waiters:
        assert not memory.claim(waiter, 10)
    memory.release(12)
    assert served == ["a"]
    memory.forget(waiters[1])
    memory.release(10)
    assert (served, memory.used_bytes) == (["a"], 0)


def test_views_of_the_log_reach_the_transport() -> None:
    listener = Listener()
    listener.broker.add_topic("t")
    listener.ask(produce_request(records=batch(b"a" * 1000)))
    log = listener.broker.logs["t", 0]
    log.batches = [(*row[:3], memoryview(row[3])) for row in log.batches]  # type: ignore[misc]
    for request in (fetch_request(), fetch_request()):
        (row,) = listener.ask(request).responses[0].partitions
        assert row.records == log.batches[0][3]


def test_a_broker_that_is_cut_off_tells_nobody_who_leads() -> None:
    """librdkafka, connected to such a broker alone, asked it for two minutes (torture, seed 12)."""
    listener = Listener()
    states = listener.broker.add_topic("t").partitions
    states[0] = states[0]._replace(replicas=(1, 2))
    connection, transport = listener.connect()
    listener.broker.doubted.add(listener.broker.broker_id)
    connection.dataReceived(request_bytes(metadata(12, ("t",)), 7))
    assert transport.is_closed and transport.take() == b""
    listener.broker.doubted.clear()
    (topic,) = listener.ask(metadata(12, ("t",))).topics
    assert topic.name == "t" and topic.partitions[0].leader_id == 1


def test_a_broker_that_is_cut_off_still_tells_of_what_nobody_else_can_lead() -> None:
    """Its topics with one replica go on without ZooKeeper (contact rule), and no other broker may be left to ask."""
    listener = Listener()
    listener.broker.add_topic("alone")
    states = listener.broker.add_topic("shared").partitions
    states[0] = states[0]._replace(replicas=(1, 2))
    listener.broker.doubted.add(listener.broker.broker_id)
    (topic,) = listener.ask(metadata(12, ("alone",))).topics
    assert topic.partitions[0].leader_id == 1
    for names in (("alone", "shared"), ("alone", "unknown"), (), None):
        connection, transport = listener.connect()
        connection.dataReceived(request_bytes(metadata(12, names), 7))
        assert transport.is_closed, names

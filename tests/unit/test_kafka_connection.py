"""A connection of the Kafka listener: order, limits, garbage, slow readers, readiness, and what ends it."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.kafka_client import (
    Listener,
    frame,
    frames_of,
    milliseconds,
    request_bytes,
    request_schemas,
    response_of,
)
from zkbroker.kafka.versions import API_VERSIONS, FETCH, METADATA, PRODUCE, RANGES
from zkbroker.model.errors import InvariantViolation


def batch(payload: bytes = b"x" * 20) -> bytes:
    """A record batch as far as the fake broker looks: length, one record."""
    out = bytearray(61) + payload
    struct.pack_into(">i", out, 8, len(out) - 12)
    out[16] = 2
    return bytes(out)


def produce_request(topic: str = "t", acks: int = -1, records: bytes | None = None, version: int = 9) -> Any:
    s = request_schemas(PRODUCE, version)
    rows = (s.PartitionProduceData(index=0, records=batch() if records is None else records),)
    return s.ProduceRequest(
        transactional_id=None,
        acks=acks,
        timeout=milliseconds(1000),
        topic_data=(s.TopicProduceData(name=topic, partition_data=rows),),
    )


def fetch_request(topic: str = "t", version: int = 12, min_bytes: int = 1, max_wait_ms: int = 500) -> Any:
    s = request_schemas(FETCH, version)
    rows = (s.FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=10_000_000),)
    return s.FetchRequest(
        max_wait=milliseconds(max_wait_ms),
        min_bytes=min_bytes,
        topics=(s.FetchTopic(topic=topic, partitions=rows),),
        forgotten_topics_data=(),
    )


def api_versions_request(version: int = 0) -> Any:
    s = request_schemas(API_VERSIONS, version)
    if version < 3:
        return s.ApiVersionsRequest()
    return s.ApiVersionsRequest(client_software_name="tests", client_software_version="1")


def correlations(data: bytes) -> list[int]:
    return [struct.unpack_from(">i", body)[0] for body in frames_of(data)]


def test_byte_by_byte_is_answered_as_in_one_piece() -> None:
    listener = Listener()
    listener.broker.add_topic("t")
    request = produce_request()
    _, whole = (pair := listener.connect())
    pair[0].dataReceived(request_bytes(request, 3))
    connection, transport = listener.connect()
    for byte in request_bytes(request, 3):
        connection.dataReceived(bytes((byte,)))
    (first,), (second,) = frames_of(whole.take()), frames_of(transport.take())
    assert response_of(request, first)[1].responses[0].partition_responses[0].base_offset == 0
    assert response_of(request, second)[1].responses[0].partition_responses[0].base_offset == 1


def test_many_requests_in_one_piece_are_answered_in_order() -> None:
    listener = Listener()
    listener.broker.add_topic("t")
    connection, transport = listener.connect()
    connection.dataReceived(b"".join(request_bytes(produce_request(), n) for n in range(20)))
    assert correlations(transport.take()) == list(range(20))
    assert listener.factory.memory.used_bytes == 0


def test_a_later_answer_waits_for_the_earlier_one() -> None:
    listener = Listener()
    listener.broker.add_topic("t")
    listener.broker.hold_produces = True
    connection, transport = listener.connect()
    connection.dataReceived(request_bytes(produce_request(), 1) + request_bytes(produce_request(), 2))
    connection.dataReceived(request_bytes(api_versions_request(), 3))
    listener.broker.release(1)
    assert transport.take() == b""
    listener.broker.release(0)
    assert correlations(transport.take()) == [1, 2, 3]


def test_an_error_with_acks_0_closes_after_what_came_before() -> None:
    listener = Listener()
    listener.broker.add_topic("t")
    listener.broker.hold_produces = True
    connection, transport = listener.connect()
    connection.dataReceived(request_bytes(produce_request(), 1) + request_bytes(produce_request("u", acks=0), 2))
    listener.broker.release(1)
    assert not transport.is_closed
    listener.broker.release(0)
    assert correlations(transport.take()) == [1]
    assert transport.is_closed


@pytest.mark.parametrize("size", [-1, 10_001, 2**31 - 1])
def test_an_impossible_frame_closes_the_connection_with_one_line(size: int) -> None:
    listener = Listener(socket_request_max_bytes=10_000)
    connection, transport = listener.connect()
    other, other_transport = listener.connect()
    connection.dataReceived(struct.pack(">i", size) + b"x" * 50)
    assert transport.is_closed
    assert len(listener.events) == 1
    other.dataReceived(request_bytes(api_versions_request(), 5))
    assert correlations(other_transport.take()) == [5]


def test_lines_about_garbage_are_few() -> None:
    listener = Listener()
    for _ in range(50):
        connection, transport = listener.connect()
        connection.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        assert transport.is_closed
    assert len(listener.events) == 1
    listener.clock.advance(2)
    connection, _ = listener.connect()
    connection.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
    assert len(listener.events) == 2
    assert "49 more" in listener.events[1]["more"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        struct.pack(">hhi", 9999, 0, 1) + b"\xff\xff",  # unknown API
        struct.pack(">hhi", METADATA, 99, 1) + b"\xff\xff",  # unsupported version
        struct.pack(">hhi", METADATA, -1, 1) + b"\xff\xff",
        struct.pack(">hhi", METADATA, 1, 1) + b"\x7f\xff",  # client id longer than the frame
        struct.pack(">hhi", METADATA, 1, 1) + b"\xff\xff" + struct.pack(">i", 2**31 - 1),
        struct.pack(">hhi", METADATA, 12, 1) + b"\xff\xff\x00\xff\xff\xff\xff\x0f",
    ],
)
def test_a_malformed_request_closes_the_connection(body: bytes) -> None:
    listener = Listener()
    connection, transport = listener.connect()
    connection.dataReceived(frame(body))
    assert transport.is_closed
    assert transport.take() == b""
    assert len(listener.events) == 1


def test_what_follows_garbage_is_not_looked_at() -> None:
    listener = Listener()
    listener.broker.add_topic("t")
    connection, _ = listener.connect()
    connection.dataReceived(frame(b"\x00") + request_bytes(produce_request()))
    connection.dataReceived(request_bytes(produce_request()))
    assert listener.broker.produced == []


@pytest.mark.parametrize("version", [5, 99, -1])
def test_an_unknown_version_of_api_versions_gets_ours(version: int) -> None:
    listener = Listener()
    connection, transport = listener.connect()
    connection.dataReceived(frame(struct.pack(">hhi", API_VERSIONS, version, 77) + b"\xff\xff\x00\x02a\x02b\x00"))
    (data,) = frames_of(transport.take())
    own = next(api for api in RANGES if api.key == API_VERSIONS)
    assert data == struct.pack(">ihihhh", 77, 35, 1, API_VERSIONS, own.minimum, own.maximum)
    connection.dataReceived(request_bytes(api_versions_request(3), 78))
    assert correlations(transport.take()) == [78]


def test_acks_0_gets_no_answer() -> None:
    listener = Listener()
    listener.broker.add_topic("t")
    connection, transport = listener.connect()
    connection.dataReceived(request_bytes(produce_request(acks=0), 1) + request_bytes(produce_request(acks=1), 2))
    assert correlations(transport.take()) == [2]
    assert len(listener.broker.produced) == 2
    assert listener.factory.memory.used_bytes == 0


def test_acks_0_with_an_error_closes_the_connection() -> None:
    listener = Listener()
    connection, transport = listener.connect()
    connection.dataReceived(request_bytes(produce_request("unknown", acks=0), 1))
    assert transport.is_closed
    assert transport.take() == b""


def test_requests_wait_until_the_broker_is_ready() -> None:
    listener = Listener()
    listener.broker.add_topic("t")
    listener.broker.is_ready = False
    connection, transport = listener.connect()
    connection.dataReceived(request_bytes(api_versions_request(), 1))
    assert correlations(transport.take()) == [1]
    connection.dataReceived(request_bytes(produce_request(), 2) + request_bytes(api_versions_request(), 3))
    assert transport.take() == b""
    assert transport.is_paused
    listener.broker.is_ready = True
    listener.clock.advance(0.1)
    assert correlations(transport.take()) == [2, 3]
    assert not transport.is_paused


def test_became_ready_serves_at_once() -> None:
    listener = Listener()
    listener.broker.add_topic("t")
    listener.broker.is_ready = False
    connection, transport = listener.connect()
    connection.dataReceived(request_bytes(produce_request(), 2))
    listener.broker.is_ready = True
    listener.factory.became_ready()
    assert correlations(transport.take()) == [2]


def test_waiting_for_readiness_ends() -> None:
    listener = Listener(request_timeout_ms=1000)
    listener.broker.is_ready = False
    connection, transport = listener.connect()
    connection.dataReceived(request_bytes(produce_request(), 2))
    listener.clock.pump([0.1] * 12)
    assert transport.is_closed


def test_a_lost_connection_cancels_and_frees() -> None:
    listener = Listener()
    listener.broker.add_topic("t")
    listener.broker.hold_fetches = True
    connection, transport = listener.connect()
    connection.dataReceived(request_bytes(fetch_request(), 1) + request_bytes(fetch_request(), 2)[:30])
    assert listener.factory.memory.used_bytes > 0
    connection.connectionLost(None)
    assert listener.broker.held[0].is_cancelled
    assert listener.factory.memory.used_bytes == 0
    listener.broker.release()
    assert transport.take() == b""


def test_an_error_of_ours_is_answered_and_logged() -> None:
    listener = Listener()
    listener.broker.add_topic("t")
    listener.broker.raises = ZeroDivisionError("ours")
    for request in (produce_request(), fetch_request()):
        response = listener.ask(request)
        row = response.responses[0]
        rows = getattr(row, "partition_responses", None) or row.partitions
        assert rows[0].error_code.value == -1
    assert [event["log_failure"].type for event in listener.events] == [ZeroDivisionError] * 2
    assert listener.fatal == []


def test_a_broken_invariant_is_fatal() -> None:
    listener = Listener()
    listener.broker.raises = InvariantViolation("high watermark above log end")
    connection, transport = listener.connect()
    connection.dataReceived(request_bytes(produce_request(), 1))
    ((where, error),) = listener.fatal
    assert "Request(key=0" in where
    assert error is listener.broker.raises
    assert transport.take() == b""


def test_closing_all() -> None:
    listener = Listener()
    transports = [listener.connect()[1] for _ in range(3)]
    listener.factory.close_connections()
    assert all(transport.is_closed for transport in transports)
    listener.factory.doStop()
    assert listener.clock.getDelayedCalls() == []


@given(st.binary(max_size=200), st.sampled_from([(api.key, v) for api in RANGES for v in range(api.maximum + 1)]))
@settings(max_examples=200, deadline=None)
def test_garbage_in_a_frame_never_raises(garbage: bytes, api: tuple[int, int]) -> None:
    listener = Listener()
    connection, transport = listener.connect()
    connection.dataReceived(frame(struct.pack(">hhi", *api, 1) + b"\xff\xff\x00" + garbage))
    connection.dataReceived(request_bytes(api_versions_request(), 2))
    assert transport.is_closed or correlations(transport.take())[-1] == 2
    assert not any("log_failure" in event for event in listener.events), listener.events


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_garbage_never_raises(garbage: bytes) -> None:
    listener = Listener(socket_request_max_bytes=200)
    connection, transport = listener.connect()
    connection.dataReceived(garbage)
    assert transport.is_closed or not listener.events
    connection.connectionLost(None)
    assert listener.factory.memory.used_bytes == 0


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_request_with_bytes_changed_never_raises(data: st.DataObject) -> None:
    listener = Listener()
    listener.broker.add_topic("t")
    raw = bytearray(request_bytes(data.draw(st.sampled_from([produce_request(), fetch_request()])), 1))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(4, len(raw) - 1))] = data.draw(st.integers(0, 255))
    connection, transport = listener.connect()
    connection.dataReceived(bytes(raw))
    listener.clock.advance(1000)
    assert not any("log_failure" in event for event in listener.events), listener.events
    assert transport.is_closed or listener.factory.memory.used_bytes == 0 or not connection.is_idle

"""Requests right and wrong, of every API and version, against a listener in memory: an answer that its schema reads, or
a closed connection; nothing logged as our fault, no memory kept."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kio.index import load_response_schema
from kio.serial import entity_reader

from tests.fakes.kafka_client import Listener, Transport, decode, frames_of
from tests.fuzz.messages import SEEN_TOPIC_ID, advertised
from tests.fuzz.mutations import KINDS, Case, Mutation
from zkbroker.kafka.versions import API_VERSIONS, BY_KEY, METADATA
from zkbroker.model.topics import topic_id_from_uuid

mutations = st.builds(
    Mutation, st.sampled_from(KINDS), st.floats(0, 1, exclude_max=True), st.integers(0, (1 << 16) - 1)
)
cases = st.builds(
    lambda place, seed, wrong: Case(*place, seed, tuple(wrong)),
    st.sampled_from(advertised()),
    st.integers(0, (1 << 32) - 1),
    st.lists(mutations, max_size=3),
)


def make_listener() -> Listener:
    listener = Listener(socket_request_max_bytes=1 << 20, queued_max_request_bytes=4 << 20, auto_create_topics=False)
    listener.broker.add_topic("fuzz", 3)
    view = listener.broker.add_topic("fuzz-2")
    listener.broker.by_name["fuzz-2"] = view._replace(topic_id=topic_id_from_uuid(SEEN_TOPIC_ID))
    return listener


def failures(listener: Listener) -> list[str]:
    """What the listener takes for its own mistakes: errors with a traceback."""
    found = [event["log_failure"] for event in listener.events if event.get("log_failure")]
    return [f"{failure.value}\n{failure.getTraceback()}" for failure in found]


def answers(transport: Transport) -> list[bytes]:
    return frames_of(transport.take())


def check_answer(case: Case, data: bytes) -> None:
    """Of a right request: it reads whole by the schema of its version."""
    schema = load_response_schema(case.key, case.version)
    reader: Any = entity_reader(schema.__header_schema__)
    _, size = reader(data, 0)
    decode(schema, data[size:])


def probe(listener: Listener) -> None:
    """The others are served as ever."""
    for key in (API_VERSIONS, METADATA):
        connection, transport = listener.connect()
        connection.dataReceived(Case(key, 0, 0, ()).frame(77))
        [answer] = answers(transport)
        assert struct.unpack_from(">i", answer) == (77,)
        connection.connectionLost(None)


@given(st.lists(cases, min_size=1, max_size=4), st.integers(1, 400))
@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@example([Case(METADATA, 12, 0, (Mutation("joint", 0.0, 7),))], 100)
def test_anything_gets_an_answer_or_the_end_of_its_connection(sent: list[Case], piece: int) -> None:
    listener = make_listener()
    connection, transport = listener.connect()
    stream = b"".join(case.frame(number) for number, case in enumerate(sent))
    for start in range(0, len(stream), piece):
        if transport.is_closed:
            break
        connection.dataReceived(stream[start : start + piece])
    listener.clock.pump([0.05] * 20)
    answers(transport)  # each is a whole frame
    probe(listener)
    connection.connectionLost(None)
    assert listener.factory.memory.used_bytes == 0
    assert listener.factory.unsent_memory.used_bytes == 0
    assert not listener.factory.connections
    assert not failures(listener), failures(listener)
    assert not listener.fatal


@pytest.mark.parametrize("place", advertised(), ids=lambda place: f"{BY_KEY[place[0]].name}-v{place[1]}")
def test_right_requests_are_answered_as_their_schema_says(place: tuple[int, int]) -> None:
    key, version = place
    if version < BY_KEY[key].lowest:
        pytest.skip("advertised for old clients, answered with an error")
    for seed in range(8):
        case = Case(key, version, seed, ())
        message = case.message(5)
        listener = make_listener()
        connection, transport = listener.connect()
        connection.dataReceived(case.frame(5))
        listener.clock.pump([0.05] * 10)
        assert not failures(listener), (case, failures(listener))
        if transport.is_closed:
            assert not message.client_waits, f"{case}: the connection was closed"
            continue
        for data in answers(transport):
            check_answer(case, data)

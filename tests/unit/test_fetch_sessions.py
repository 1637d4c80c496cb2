"""Fetch sessions as clients see them (KIP-227): ids, epochs, what an answer names, and who gives way."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from tests.fakes.kafka_client import (
    Listener,
    frames_of,
    milliseconds,
    request_bytes,
    request_schemas,
    response_of,
)
from tests.unit.test_kafka_connection import produce_request
from zkbroker.kafka import versions as v
from zkbroker.kafka.fetch_sessions import EVICTION_S, FetchSessions, Session, next_epoch
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import topic_id_to_uuid


class Data:
    """A session's partitions: only their number counts here."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.is_closed = False

    def update(self, rows: Any, forgotten: Any) -> None: ...

    def fetch(self, options: Any, done: Any) -> None: ...

    def close(self) -> None:
        self.is_closed = True


class Time:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return 0


class Cache:
    """Sessions with ids 1, 2, 3 … and a clock to move."""

    def __init__(self, slots: int, partitions_max: int = 1000) -> None:
        self.time = Time()
        self.next_id = 0
        self.sessions = FetchSessions(slots, self.time, self._draw, partitions_max)

    def _draw(self, first: int, last: int) -> int:
        assert (first, last) == (1, 2**31 - 1)
        self.next_id += 1
        return self.next_id

    def begin(self, size: int, uses_ids: bool = False) -> Session | None:
        session = Session(Data(size), uses_ids)
        return session if self.sessions.begin(session) else None

    def use(self, session: Session | None) -> bool:
        """A request of the session."""
        assert session is not None
        found = self.sessions.find(session.id, session.epoch, session.uses_ids)
        return found is session and self.sessions.go_on(session)


def test_a_request_must_carry_the_next_epoch_and_name_topics_as_before() -> None:
    cache = Cache(5)
    session = cache.begin(3)
    assert session is not None and (session.id, session.epoch) == (1, 1)
    find = cache.sessions.find
    assert find(2, 1, False) is ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    assert find(1, 2, False) is ErrorCode.INVALID_FETCH_SESSION_EPOCH
    assert find(1, 2, True) is ErrorCode.INVALID_FETCH_SESSION_EPOCH
    assert find(1, 1, True) is ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR
    assert cache.use(session) and session.epoch == 2
    assert find(1, 1, False) is ErrorCode.INVALID_FETCH_SESSION_EPOCH, "an answer was lost"
    cache.sessions.end(1)
    assert find(1, 2, False) is ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    assert (cache.sessions.partitions, len(cache.sessions)) == (0, 0)


def test_epochs_wrap_to_one() -> None:
    assert [next_epoch(epoch) for epoch in (0, 1, 2**31 - 2, 2**31 - 1)] == [1, 2, 2**31 - 1, 1]


def test_an_id_is_never_given_twice() -> None:
    cache = Cache(5)
    first = cache.begin(1)
    cache.next_id = 0
    second = cache.begin(1)
    assert first is not None and second is not None
    assert (first.id, second.id) == (1, 2)


def test_a_stale_session_gives_way_to_any() -> None:
    cache = Cache(2)
    old, used = cache.begin(500), cache.begin(400)
    cache.time.now += EVICTION_S
    assert cache.use(used)
    assert cache.begin(1) is None, "nobody is stale yet, nobody is smaller"
    cache.time.now += 0.1
    assert cache.begin(1) is not None
    assert old is not None and old.data.is_closed  # type: ignore[attr-defined]
    assert cache.use(used) and not cache.use(old)


def test_a_larger_session_takes_the_place_of_the_smallest_that_is_not_young() -> None:
    cache = Cache(2)
    small, large = cache.begin(10), cache.begin(20)
    assert cache.begin(100) is None, "both are young"
    cache.time.now += EVICTION_S / 2
    assert cache.use(small) and cache.use(large)
    cache.time.now += EVICTION_S / 2 + 1
    assert cache.use(small) and cache.use(large)
    assert cache.begin(10) is None, "it must be larger"
    assert cache.begin(11) is not None
    assert cache.use(large) and not cache.use(small)
    assert cache.sessions.partitions == 31


def test_no_slots_no_sessions() -> None:
    cache = Cache(0)
    assert cache.begin(5) is None
    assert len(cache.sessions) == 0


def test_all_sessions_together_hold_a_bounded_number_of_partitions() -> None:
    cache = Cache(10, partitions_max=100)
    first, second = cache.begin(60), cache.begin(40)
    assert cache.begin(1) is None
    assert first is not None and second is not None
    first.data.size = 61  # type: ignore[misc]
    assert not cache.use(first), "it has grown"
    cache.sessions.end(first.id)
    third = cache.begin(60)
    assert cache.use(second) and third is not None
    cache.time.now += EVICTION_S
    assert cache.use(second) and cache.begin(1) is None
    cache.time.now += 1
    assert cache.begin(60) is not None, "the third was not used for so long"
    assert cache.use(second) and not cache.use(third)
    second.data.size = 41  # type: ignore[misc]
    assert not cache.use(second), "nobody else is stale"


# Over the wire


@pytest.fixture
def listener() -> Listener:
    listener = Listener()
    for name in ("a", "b"):
        listener.broker.add_topic(name, 2)
    return listener


class Client:
    """A client with a session, on one connection."""

    def __init__(self, listener: Listener, version: int) -> None:
        self.listener = listener
        self.version = version
        self.connection, self.transport = listener.connect()
        self.session_id, self.epoch = 0, 0

    def id_of(self, name: str) -> Any:
        if self.version < 13:
            return name
        view = self.listener.broker.by_name.get(name)
        return topic_id_to_uuid(view.topic_id) if view else UUID(int=len(name))

    def request(self, *rows: tuple[str, int, int], forget: tuple[tuple[str, int], ...] = (), wait_ms: int = 0) -> Any:
        """A Fetch of (topic, partition, offset) in the present session."""
        s = request_schemas(v.FETCH, self.version)
        key = "topic_id" if self.version >= 13 else "topic"
        topics = tuple(
            s.FetchTopic(
                **{key: self.id_of(topic)},
                partitions=(s.FetchPartition(partition=number, fetch_offset=offset, partition_max_bytes=10_000),),
            )
            for topic, number, offset in rows
        )
        forgotten = tuple(s.ForgottenTopic(**{key: self.id_of(name)}, partitions=(number,)) for name, number in forget)
        fields = {"replica_id": -1} if self.version < 15 else {}
        return s.FetchRequest(
            max_wait=milliseconds(wait_ms),
            min_bytes=1 if wait_ms else 0,
            topics=topics,
            forgotten_topics_data=forgotten,
            session_id=self.session_id,
            session_epoch=self.epoch,
            **fields,
        )

    def send(self, request: Any) -> None:
        self.connection.dataReceived(request_bytes(request, 1))

    def answer(self, request: Any) -> Any:
        (data,) = frames_of(self.transport.take())
        return response_of(request, data)[1]

    def fetch(self, *rows: tuple[str, int, int], **fields: Any) -> tuple[ErrorCode, list[tuple[str, int, int, int]]]:
        """(error of the answer, its rows: topic, partition, error, number of bytes), going on with its session."""
        request = self.request(*rows, **fields)
        self.send(request)
        answer = self.answer(request)
        self.session_id = answer.session_id
        self.epoch = next_epoch(self.epoch) if answer.session_id else 0
        names = {self.id_of(name): name for name in (*self.listener.broker.by_name, "gone")}
        return ErrorCode(answer.error_code.value), [
            (
                names[topic.topic_id if self.version >= 13 else topic.topic],
                row.partition_index,
                int(row.error_code),
                len(row.records or b""),
            )
            for topic in answer.responses
            for row in topic.partitions
        ]


SESSION_VERSIONS = range(7, v.BY_KEY[v.FETCH].maximum + 1)


@pytest.mark.parametrize("version", SESSION_VERSIONS)
def test_a_session_names_only_what_is_new(listener: Listener, version: int) -> None:
    client = Client(listener, version)
    whole = client.fetch(("a", 0, 0), ("b", 0, 0), ("a", 1, 0))
    assert whole == (ErrorCode.NONE, [("a", 0, 0, 0), ("a", 1, 0, 0), ("b", 0, 0, 0)])
    assert client.session_id > 0
    assert client.fetch() == (ErrorCode.NONE, [])
    listener.ask(produce_request("b"))
    error, rows = client.fetch()
    assert (error, [row[:2] for row in rows]) == (ErrorCode.NONE, [("b", 0)])
    assert rows[0][3] > 0
    assert client.fetch(("b", 0, 1)) == (ErrorCode.NONE, [])
    assert client.fetch(("b", 1, 0), forget=(("a", 0), ("a", 1))) == (ErrorCode.NONE, [("b", 1, 0, 0)])
    listener.ask(produce_request("a"))
    assert client.fetch() == (ErrorCode.NONE, []), "forgotten"


def test_an_epoch_that_is_not_the_next_ends_nothing(listener: Listener) -> None:
    client = Client(listener, 12)
    client.fetch(("a", 0, 0))
    session_id = client.session_id
    client.epoch = 2
    assert client.fetch() == (ErrorCode.INVALID_FETCH_SESSION_EPOCH, [])
    assert client.session_id == 0
    client.session_id, client.epoch = session_id, 1
    assert client.fetch() == (ErrorCode.NONE, [])


def test_names_and_ids_are_not_mixed_in_a_session(listener: Listener) -> None:
    client = Client(listener, 12)
    client.fetch(("a", 0, 0))
    client.version = 13
    assert client.fetch() == (ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR, [])


@pytest.mark.parametrize("epoch", [0, -1])
def test_a_whole_request_ends_the_session_that_it_names(listener: Listener, epoch: int) -> None:
    client = Client(listener, 12)
    client.fetch(("a", 0, 0))
    old = client.session_id
    client.epoch = epoch
    assert client.fetch(("b", 0, 0)) == (ErrorCode.NONE, [("b", 0, 0, 0)])
    assert (client.session_id > 0) == (epoch == 0)
    client.session_id, client.epoch = old, 1
    assert client.fetch() == (ErrorCode.FETCH_SESSION_ID_NOT_FOUND, [])


def test_a_session_that_forgets_all_is_over(listener: Listener) -> None:
    client = Client(listener, 12)
    client.fetch(("a", 0, 0))
    assert client.fetch(forget=(("a", 0),)) == (ErrorCode.NONE, [])
    assert client.session_id == 0
    assert len(listener.factory.services.fetch_sessions) == 0


def test_a_session_outlives_its_connection(listener: Listener) -> None:
    client, other = Client(listener, 12), Client(listener, 12)
    client.fetch(("a", 0, 0))
    client.connection.connectionLost()
    other.session_id, other.epoch = client.session_id, client.epoch
    assert other.fetch() == (ErrorCode.NONE, [])


def test_a_topic_id_may_become_known_later_and_unknown_again(listener: Listener) -> None:
    client = Client(listener, 13)
    client.listener.broker.add_topic("late")
    known = client.id_of("late")
    view = listener.broker.by_name.pop("late")
    client.id_of = lambda name: known if name == "gone" else UUID(int=len(name))  # type: ignore[method-assign]
    unknown = [("gone", 0, int(ErrorCode.UNKNOWN_TOPIC_ID), 0)]
    assert client.fetch(("gone", 0, 0)) == (ErrorCode.NONE, unknown)
    assert client.session_id > 0
    assert client.fetch() == (ErrorCode.NONE, unknown), "errors are told each time"
    listener.broker.by_name["late"] = view
    assert client.fetch() == (ErrorCode.NONE, [("gone", 0, 0, 0)])
    assert client.fetch() == (ErrorCode.NONE, [])
    del listener.broker.by_name["late"]
    assert client.fetch(("gone", 0, 1)) == (ErrorCode.NONE, unknown)
    assert client.fetch(forget=(("gone", 0),)) == (ErrorCode.NONE, [])
    assert client.session_id == 0


def test_a_request_that_is_overtaken_is_told_so(listener: Listener) -> None:
    """Two connections use one session: both get an answer."""
    first, second = Client(listener, 12), Client(listener, 12)
    first.fetch(("a", 0, 0))
    waiting = first.request(wait_ms=500)
    first.send(waiting)
    assert first.transport.take() == b""
    # Another of its requests stands behind the one that waits.
    first.epoch = 3
    behind = first.request(wait_ms=0)
    first.send(behind)
    second.session_id, second.epoch = first.session_id, 2
    assert second.fetch() == (ErrorCode.NONE, [])
    answers = frames_of(first.transport.take())
    overtaken = response_of(waiting, answers[0])[1]
    assert (overtaken.error_code, overtaken.session_id) == (ErrorCode.INVALID_FETCH_SESSION_EPOCH, first.session_id)
    assert response_of(behind, answers[1])[1].error_code == ErrorCode.NONE
    assert listener.factory.services.fetch_sessions.find(first.session_id, 4, False).waiting is None  # type: ignore[union-attr]


def test_a_client_that_goes_away_while_its_session_begins_leaves_none(listener: Listener) -> None:
    client = Client(listener, 12)
    client.send(client.request(("a", 0, 0), wait_ms=500))
    client.connection.connectionLost()
    listener.clock.advance(1)
    assert len(listener.factory.services.fetch_sessions) == 0


def test_a_session_that_is_ended_tells_who_waits(listener: Listener) -> None:
    client = Client(listener, 12)
    client.fetch(("a", 0, 0))
    request = client.request(wait_ms=500)
    client.send(request)
    listener.factory.services.fetch_sessions.end(client.session_id)
    assert client.answer(request).error_code == ErrorCode.INVALID_FETCH_SESSION_EPOCH
    client.epoch += 1
    assert client.fetch() == (ErrorCode.FETCH_SESSION_ID_NOT_FOUND, [])


def test_without_room_there_is_no_session(listener: Listener) -> None:
    listener = Listener(fetch_sessions_max=1)
    listener.broker.add_topic("a")
    first, second = Client(listener, 12), Client(listener, 12)
    assert first.fetch(("a", 0, 0)) == second.fetch(("a", 0, 0)) == (ErrorCode.NONE, [("a", 0, 0, 0)])
    assert first.session_id > 0 and second.session_id == 0

"""Clients without fetch sessions repeat a request while nothing comes: it is read, looked up and encoded once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.kafka_client import Listener, frames_of, milliseconds, request_bytes, request_schemas, response_of
from tests.unit.replica_cluster import batch, clusters
from tests.unit.test_fetch_sessions_data import COUNT, Broker, looks, values
from tests.unit.test_fetch_sessions_random import World
from tests.unit.test_kafka_connection import produce_request
from zkbroker.kafka import fetch_serving
from zkbroker.kafka import versions as v
from zkbroker.kafka.ports import ConsumedRow, ConsumeOptions, ConsumeRow

__all__ = ["looks"]
WAIT = ConsumeOptions(500, 1, 1_000_000)
AT_ONCE = ConsumeOptions(0, 1, 1_000_000)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with clusters(tmp_path) as make:
        yield Broker(make(1, 2))


def rows_at(offset: int = 0) -> list[ConsumeRow]:
    return [ConsumeRow("t", number, offset, 1_000_000) for number in range(COUNT)]


def test_what_is_idle_is_not_looked_at_again(broker: Broker, looks: list[int]) -> None:
    repeated = broker.replicas.open_repeated(rows_at())
    answers: list[list[ConsumedRow]] = []
    for _ in range(3):
        repeated.fetch(WAIT, answers.append)
        broker.network.run(0.6)
    assert looks == list(range(COUNT))
    assert len(answers) == 3 and answers[0] is answers[1] is answers[2]
    assert [row.partition for row in answers[0]] == list(range(COUNT))


def test_another_order_is_the_same_request(broker: Broker, looks: list[int]) -> None:
    repeated = broker.replicas.open_repeated(rows_at())
    answers: list[list[ConsumedRow]] = []
    repeated.fetch(AT_ONCE, answers.append)
    looks.clear()
    turned = [*rows_at()[3:], *rows_at()[:3]]
    assert repeated.renew(turned)
    repeated.fetch(AT_ONCE, answers.append)
    assert looks == []
    assert answers[1] == [*answers[0][3:], *answers[0][:3]]
    assert not repeated.renew(turned[1:]) and not repeated.renew([*turned[1:], turned[1]])
    assert not repeated.renew([turned[0]._replace(topic_id="A"), *turned[1:]])
    assert not repeated.renew([turned[0]._replace(topic="u"), *turned[1:]])
    twice = broker.replicas.open_repeated([turned[0], *turned])
    assert not twice.renew([turned[0], *turned]), "one row in two places"
    twice.fetch(AT_ONCE, answers.append)
    assert len(answers[2]) == COUNT + 1


def test_another_isolation_level_is_another_request(broker: Broker, looks: list[int]) -> None:
    repeated = broker.replicas.open_repeated(rows_at())
    repeated.fetch(AT_ONCE, lambda rows: None)
    looks.clear()
    repeated.renew(rows_at())
    repeated.fetch(AT_ONCE._replace(read_committed=True), lambda rows: None)
    assert looks == list(range(COUNT))


def test_news_between_two_of_them_are_in_the_next(broker: Broker) -> None:
    repeated = broker.replicas.open_repeated(rows_at())
    answers: list[list[ConsumedRow]] = []
    repeated.fetch(AT_ONCE, answers.append)
    broker.produce(3, batch(b"x"))
    repeated.fetch(WAIT, answers.append)
    assert [values(row) > 0 for row in answers[1]] == [number == 3 for number in range(COUNT)]
    repeated.close()
    assert broker.watchers() == 0


def test_who_goes_on_in_one_partition_costs_nothing_for_the_others(broker: Broker, looks: list[int]) -> None:
    repeated = broker.replicas.open_repeated(rows_at())
    answers: list[list[ConsumedRow]] = []
    repeated.fetch(AT_ONCE, answers.append)
    broker.produce(3, batch(b"x"))
    repeated.fetch(AT_ONCE, answers.append)
    looks.clear()
    rows = rows_at()
    rows[3] = rows[3]._replace(offset=1)
    assert repeated.renew(rows)
    repeated.fetch(AT_ONCE, answers.append)
    assert looks == [3]
    assert [row.high_watermark for row in answers[2]] == [int(number == 3) for number in range(COUNT)]
    assert not any(row.records for row in answers[2])


def test_little_room_serves_all_in_turn(broker: Broker) -> None:
    one = batch(b"x" * 100)
    for number in range(COUNT):
        for _ in range(3):
            broker.produce(number, one)
    rows = rows_at()
    repeated = broker.replicas.open_repeated(rows)
    served = []
    for _ in range(COUNT + 2):
        answers: list[list[ConsumedRow]] = []
        repeated.fetch(ConsumeOptions(0, 1, len(one)), answers.append)
        (number,) = [row.partition for row in answers[0] if row.records]
        served.append(number)
        rows[number] = rows[number]._replace(offset=rows[number].offset + 1)
        assert repeated.renew(rows)
    assert served == [*range(COUNT), 0, 1]


def test_a_lost_leadership_is_told_to_who_waits(broker: Broker) -> None:
    repeated = broker.replicas.open_repeated(rows_at())
    answers: list[list[ConsumedRow]] = []
    repeated.fetch(AT_ONCE, answers.append)
    repeated.fetch(WAIT, answers.append)
    broker.lead(2, epoch=1, leader=2)
    assert [row.partition for row in answers[1] if row.error] == [2]


@pytest.mark.parametrize("seed", range(6))
def test_it_is_answered_as_if_it_came_for_the_first_time(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with clusters(tmp_path) as make:
        world = World(make(1, 2), rng)
        kept = 0
        repeated, rows = None, rows_at()
        for _ in range(150):
            if repeated is None or rng.random() < 0.3:
                if repeated is not None:
                    repeated.close()
                found_here = [(row, world.replicas._table.replicas.get(("t", row.partition))) for row in rows_at()]
                rows = [
                    row._replace(offset=replica.high_watermark)
                    for row, replica in found_here
                    if replica is not None and replica.leader is not None
                ]
                repeated = world.replicas.open_repeated(rows)
            else:
                kept += 1
            answers: list[list[ConsumedRow]] = []
            repeated.fetch(rng.choice((AT_ONCE, WAIT)), answers.append)
            if rng.random() < 0.7:
                world.happen()
            world.network.run(rng.choice((0.05, 0.6)))
            if not answers:
                fresh: list[ConsumedRow] = []
                world.replicas.consume(AT_ONCE, rows, fresh.extend)
                assert not any(row.error or row.records for row in fresh)
                world.network.run(0.6)
            if rng.random() < 0.5:
                rng.shuffle(rows)
                rows = [row._replace(offset=rng.randrange(3)) if rng.random() < 0.2 else row for row in rows]
                assert repeated.renew(rows) or not rows
            again: list[list[ConsumedRow]] = []
            repeated.fetch(AT_ONCE, again.append)
            fresh = []
            world.replicas.consume(AT_ONCE, rows, fresh.extend)
            (found,) = again
            assert [row._replace(records=b"".join(row.records)) for row in found] == [
                row._replace(records=b"".join(row.records)) for row in fresh
            ]
        assert kept > 20


# Over the wire


def request(version: int, count: int = 100, offset: int = 0) -> Any:
    s = request_schemas(v.FETCH, version)
    partition = [
        s.FetchPartition(partition=number, fetch_offset=offset, partition_max_bytes=1000) for number in range(count)
    ]
    fields: dict[str, Any] = {"forgotten_topics_data": ()} if version >= 7 else {}
    topic = s.FetchTopic(topic="t", partitions=tuple(partition))
    return s.FetchRequest(replica_id=-1, max_wait=milliseconds(100), min_bytes=1, topics=(topic,), **fields)


@pytest.mark.parametrize("version", [7, 11, 12])
def test_a_repeated_request_is_read_once(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener()
    listener.broker.add_topic("t", 100)
    connection, transport = listener.connect()
    decoded: list[int] = []
    original = fetch_serving.decode_body
    monkeypatch.setattr(fetch_serving, "decode_body", lambda *a: (decoded.append(1), original(*a))[1])

    def ask(message: Any, correlation_id: int) -> Any:
        connection.dataReceived(request_bytes(message, correlation_id))
        listener.clock.advance(0.2)
        (data,) = frames_of(transport.take())
        answered_id, response = response_of(message, data)
        assert answered_id == correlation_id
        return response

    first = ask(request(version), 1)
    assert len(first.responses[0].partitions) == 100
    assert ask(request(version), 2) == ask(request(version), 3) == first
    assert decoded == [1]
    repeated = listener.broker.repeated
    assert repeated is not None and not repeated.is_closed
    assert ask(request(version, count=99), 4) != first
    assert decoded == [1, 1] and repeated.is_closed
    listener.ask(produce_request("t"))
    news = ask(request(version, count=99), 5)
    assert sum(len(row.records) > 0 for row in news.responses[0].partitions) == 1
    assert connection.repeated is not None and connection.repeated.chunks == [], "records are not kept"
    ask(request(version), 6)
    before = listener.broker.repeated
    ask(request(version, offset=1), 7)
    assert listener.broker.repeated is before, "the same partitions"
    last = listener.broker.repeated
    connection.connectionLost()
    assert last.is_closed and connection.repeated is None
    small = ask_small(listener, version)
    assert listener.broker.repeated is last, small


def ask_small(listener: Listener, version: int) -> Any:
    """A request of few partitions is not remembered."""
    connection, transport = listener.connect()
    connection.dataReceived(request_bytes(request(version, count=2), 1))
    listener.clock.advance(0.2)
    return frames_of(transport.take())

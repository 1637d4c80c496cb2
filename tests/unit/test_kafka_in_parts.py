"""Requests of very many rows: answered as in one piece, and never more than a few rows in one turn of the reactor."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from tests.fakes.kafka_client import Listener, Transport, frames_of, request_bytes, response_of
from tests.unit.kafka_group_tools import request, served
from zkbroker.kafka import in_parts
from zkbroker.kafka import versions as v
from zkbroker.kafka.connection import KafkaConnection
from zkbroker.kafka.request import Request
from zkbroker.kafka.shares import SLICE_S, Shares
from zkbroker.model.groups import CommitOffsets

ROW_S = 0.000_02
"""What a row costs on the clock of these tests."""
MANY = 2_500


class WorkClock:
    """Time goes on by work, and by nothing else."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return 0


def topics(name: str, rows: Callable[[int], Any], count: int = MANY) -> list[dict[str, Any]]:
    """One topic with most of the rows, a few with one each, and one without any."""
    few = [{"name": f"few-{number}", "partitions": [rows(number)]} for number in range(7)]
    all_topics = [*few, {"name": "t", "partitions": [rows(number) for number in range(count)]}, *few]
    all_topics.append({"name": "none", "partitions": []})
    return [{name if key == "name" else key: value for key, value in topic.items()} for topic in all_topics]


def indexes(count: int = MANY) -> list[dict[str, Any]]:
    rows = topics("name", lambda number: number, count)
    return [{"name": topic["name"], "partition_indexes": topic["partitions"]} for topic in rows]


def commit_row(number: int) -> dict[str, Any]:
    return {"partition_index": number, "committed_offset": number, "committed_metadata": "x" * (number % 5)}


def some(key: int, lowest: int = 0) -> list[int]:
    """The first version, the last one, and the first that is flexible."""
    versions = served(key, lowest)
    return sorted({versions[0], versions[-1], max(versions[0], min(versions[-1], v.BY_KEY[key].flexible_from))})


def large_requests() -> list[Any]:
    listed = topics("name", lambda number: {"partition_index": number, "timestamp": -1})
    ended = topics("topic", lambda number: {"partition": number, "leader_epoch": 1})
    deleted = topics("name", lambda number: {"partition_index": number, "offset": 0})
    named = [{"name": f"topic-{number}"} for number in range(MANY)] + [{"name": "t"}] * 50
    configs = [
        {"resource_type": 2, "resource_name": f"topic-{number}", "configuration_keys": ["a", "b"] * (number % 2)}
        for number in range(MANY // 4)
    ]
    found = [request(v.LIST_OFFSETS, version, topics=listed) for version in some(v.LIST_OFFSETS, 1)]
    found += [request(v.OFFSET_FOR_LEADER_EPOCH, version, topics=ended) for version in some(v.OFFSET_FOR_LEADER_EPOCH)]
    found += [request(v.DELETE_RECORDS, version, topics=deleted) for version in some(v.DELETE_RECORDS)]
    found += [request(v.METADATA, version, topics=named) for version in some(v.METADATA, 1)]
    found += [request(v.DESCRIBE_CONFIGS, version, resources=configs) for version in some(v.DESCRIBE_CONFIGS, 1)]
    found += [request(v.DESCRIBE_PRODUCERS, 0, topics=indexes())]
    found += [
        request(v.OFFSET_COMMIT, version, group_id="g", member_id="m", topics=topics("name", commit_row))
        for version in some(v.OFFSET_COMMIT, 2)
    ]
    found += [request(v.OFFSET_FETCH, version, group_id="g", topics=indexes()) for version in (1, 2, 6, 7)]
    members = [{"member_id": f"m{number}", "group_instance_id": None} for number in range(MANY)]
    found += [request(v.LEAVE_GROUP, version, group_id="g", members=members) for version in some(v.LEAVE_GROUP, 3)]
    groups: list[dict[str, Any]] = [{"group_id": f"g{number}", "topics": indexes(600)} for number in range(4)]
    groups += [{"group_id": "all", "topics": None}, {"group_id": "none", "topics": []}]
    found += [request(v.OFFSET_FETCH, version, groups=groups) for version in some(v.OFFSET_FETCH, 8)]
    return found


def named(message: Any) -> str:
    return f"{v.BY_KEY[int(message.__api_key__)].name}-{int(message.__version__)}"


LARGE = large_requests()


@pytest.fixture
def listener() -> Listener:
    listener = Listener()
    listener.broker.add_topic("t", MANY)
    return listener


def turns(listener: Listener, data: bytes, work: WorkClock, monkeypatch: pytest.MonkeyPatch) -> tuple[Transport, int]:
    """Rows that the longest turn of the reactor worked on. (The clock of the listener runs what is due in one go.)"""
    ends = [0.0]
    next_turn = Shares._next_turn

    def one_turn(self: Shares) -> None:
        ends.append(work.now)
        next_turn(self)

    monkeypatch.setattr(Shares, "_next_turn", one_turn)
    connection, transport = listener.connect()
    connection.dataReceived(data)
    listener.clock.advance(0)
    ends.append(work.now)
    assert len(ends) > 3
    return transport, round(max(after - before for before, after in pairwise(ends)) / ROW_S)


@pytest.fixture
def work(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> WorkClock:
    """Each part that is served costs its rows' time."""
    clock = WorkClock()
    listener.factory.shares._clock = clock
    serve = in_parts.InParts._serve

    def counted(self: in_parts.InParts, part: Any) -> None:
        serve(self, part)
        clock.now += self._route.plan.rows * ROW_S

    monkeypatch.setattr(in_parts.InParts, "_serve", counted)
    return clock


def normalized(answer: Any) -> Any:
    """Topics by name: whether one that is named at several places is answered once or often is no matter."""
    if hasattr(answer, "groups"):
        return [(group.group_id, normalized(group)) for group in answer.groups]
    if not hasattr(answer, "topics") or not hasattr(answer.topics[0] if answer.topics else None, "partitions"):
        return answer
    if hasattr(answer, "brokers"):
        return answer
    rows: dict[Any, list[Any]] = {}
    for topic in answer.topics:
        rows.setdefault(getattr(topic, "name", None) or getattr(topic, "topic", None), []).extend(topic.partitions)
    return rows


@pytest.mark.parametrize("message", LARGE, ids=named)
def test_in_parts_as_in_one_piece(
    listener: Listener, work: WorkClock, message: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = request_bytes(message)
    assert len(data) >= in_parts.LARGE_BYTES
    transport, most = turns(listener, data, work, monkeypatch)
    (answer,) = frames_of(transport.take())
    assert most <= SLICE_S / ROW_S + 200
    monkeypatch.setattr("zkbroker.kafka.in_parts.LARGE_BYTES", 2**31)
    another = Listener()
    another.broker.add_topic("t", MANY)
    connection, whole_transport = another.connect()
    connection.dataReceived(data)
    (whole,) = frames_of(whole_transport.take())
    assert normalized(response_of(message, answer)[1]) == normalized(response_of(message, whole)[1])


def commit(count: int, group_id: str = "g") -> Any:
    rows = topics("name", commit_row, count)
    return request(v.OFFSET_COMMIT, 7, group_id=group_id, member_id="m", topics=rows)


def committed(listener: Listener) -> list[CommitOffsets]:
    return [one for one in listener.groups.asked if isinstance(one, CommitOffsets)]


def test_nothing_comes_between_the_parts(listener: Listener) -> None:
    listener.groups.holds = True
    connection, transport = listener.connect()
    connection.dataReceived(request_bytes(commit(1_000), 1) + request_bytes(commit(1, "later"), 2))
    served = 0
    while committed(listener)[-1].group_id == "g":
        assert len(listener.groups.held) == served + 1, "one after the other"
        assert transport.take() == b""
        listener.groups.held[served].run()
        served += 1
    assert served == 5
    assert [int.from_bytes(frame[:4], "big") for frame in frames_of(transport.take())] == [1]
    listener.groups.held[-1].run()
    assert [int.from_bytes(frame[:4], "big") for frame in frames_of(transport.take())] == [2]


def test_a_client_that_goes_away_ends_it(listener: Listener) -> None:
    listener.groups.holds = True
    connection, _ = listener.connect()
    connection.dataReceived(request_bytes(commit(1_000)))
    asked = len(listener.groups.asked)
    connection.connectionLost()
    assert [call.is_cancelled for call in listener.groups.held] == [True]
    listener.clock.advance(1)
    assert len(listener.groups.asked) == asked
    assert listener.factory.memory.used_bytes == 0


def test_a_malformed_end_closes_before_anything_is_served(listener: Listener) -> None:
    data = request_bytes(commit(1_000))
    broken = data[:4] + data[4:-2]
    broken = (len(broken) - 4).to_bytes(4, "big") + broken[4:]
    connection, transport = listener.connect()
    connection.dataReceived(broken)
    listener.clock.advance(0)
    assert transport.is_closed
    assert not listener.groups.asked


def test_an_error_of_ours_is_told_in_its_rows(listener: Listener) -> None:
    listener.groups.raises = RuntimeError("of ours")
    message = commit(1_000)
    answer = listener.ask(message)
    codes = {row.error_code.value for topic in answer.topics for row in topic.partitions}
    assert codes == {3, -1}, "unknown topics, and UNKNOWN_SERVER_ERROR"


def test_an_error_of_the_whole_counts(listener: Listener) -> None:
    """OffsetFetch tells it behind the rows."""
    groups = listener.groups
    listener.groups.raises = RuntimeError("of ours")
    answer = listener.ask(request(v.OFFSET_FETCH, 7, group_id="g", topics=indexes()))
    assert answer.error_code.value == -1
    assert not groups.asked


def test_a_small_request_is_served_at_once(listener: Listener) -> None:
    small = Request(None, bytes(in_parts.LARGE_BYTES - 1), v.LIST_OFFSETS, 7, 1, None, True, 8)  # type: ignore[arg-type]
    large = Request(None, bytes(in_parts.LARGE_BYTES), v.LIST_OFFSETS, 7, 1, None, True, 8)  # type: ignore[arg-type]
    assert in_parts.route_of(small) is None
    assert in_parts.route_of(large) is not None


def test_a_crowd_of_heartbeats_is_served_in_many_turns(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """What each took counts: those who come behind find the slice used up."""
    clock = WorkClock()
    listener.factory.shares._clock = clock
    heartbeat = listener.groups.heartbeat

    def costly(*arguments: Any) -> Any:
        clock.now += SLICE_S / 10
        return heartbeat(*arguments)

    monkeypatch.setattr(listener.groups, "heartbeat", costly)
    data = request_bytes(request(v.HEARTBEAT, 3, group_id="g", member_id="m"))
    connections: list[tuple[KafkaConnection, Transport]] = [listener.connect() for _ in range(100)]
    for connection, _ in connections:
        connection.dataReceived(data)
    assert len(listener.groups.asked) <= 11
    for _ in range(20):
        listener.clock.advance(0)
    assert len(listener.groups.asked) == 100
    assert all(transport.value() for _, transport in connections)


def test_what_is_worked_on_in_one_turn_names_less(listener: Listener) -> None:
    """Twenty thousand tiny batches for one partition are appended at once; a hundred thousand would take seconds."""
    closed = []
    for count in (19_999, 20_000):  # and one topic
        rows = b"".join(number.to_bytes(4, "big") + b"\0\0\0\0" for number in range(count))
        body = b"\0\1\0\0\0\0\0\0\0\1\0\1x" + count.to_bytes(4, "big") + rows
        data = b"\0\0\0\2\0\0\0\1\xff\xff" + body
        connection, transport = listener.connect()
        connection.dataReceived(len(data).to_bytes(4, "big") + data)
        closed.append(transport.is_closed)
    assert closed == [False, True]


def test_too_many_topics_are_refused_before_anything_is_planned(listener: Listener) -> None:
    for count, error in ((10_000, 0), (10_001, 44)):
        rows = [{"name": f"new-{number}", "num_partitions": 0, "replication_factor": 1} for number in range(count)]
        answer = listener.ask(request(v.CREATE_TOPICS, 2, topics=rows, timeout=1000))
        assert {row.error_code.value == 44 for row in answer.topics} == {error == 44}

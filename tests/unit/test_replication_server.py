"""The REPLICATION listener by hand: what a follower, a stranger and a person at a terminal are answered."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.replication import TOPIC_ID, identity
from tests.fakes.wire import BUFFER_BYTES
from tests.unit.replication_bench import Bench
from zkbroker.model.channel import FollowerContact
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import TopicPartition
from zkbroker.replication.codec import Message, parse_line
from zkbroker.replication.messages import decode_fetched, encode_hello
from zkbroker.replication.ports import FetchedRow
from zkbroker.replication.server import ReplicationConnection

DEMO = TopicPartition("demo", 0)
OTHER = TopicPartition("other", 1)


def row(offset: int, partition: TopicPartition = DEMO, epoch: int = 3, named: bool = True) -> str:
    topic_id = f"topic_id={TOPIC_ID} " if named else ""
    stands = f"leader_epoch={epoch} offset={offset} last_epoch=-1 log_start=0"
    return f"{partition.topic} {partition.partition} {topic_id}{stands}"


def rows(message: Message) -> list[FetchedRow]:
    return decode_fetched(message, lambda partition: TOPIC_ID)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_people_get_readable_answers_without_hello(bench: Bench) -> None:
    assert bench.say(b"ping\r\n") == b"OK body=5\nPONG\n"
    assert bench.say(b"STATUS\n") == b"OK body=34\nbroker 1 of cluster\ncontroller: 1\n"
    assert bench.say(b"PARTITIONS\r\n") == b"OK body=16\ndemo-0 leader=1\n"
    assert bench.say(b"PARTITIONS 4 orders\n") == b"OK 4 body=18\norders-0 leader=1\n"
    assert b"PARTITIONS [topic]" in bench.say(b"Help\n")
    assert bench.say(b"\r\n") == b""


def test_unknown_verbs_are_refused_and_the_connection_lives(bench: Bench) -> None:
    assert bench.say(b"GET / HTTP/1.1\n").startswith(b"ERR 0 INVALID_REQUEST")
    assert bench.say(b"PROBE 7 broker=3 body=2\nxx").startswith(b"ERR 7 INVALID_REQUEST")
    assert bench.say(b"PING 8\n") == b"OK 8 body=5\nPONG\n"


def test_hello_comes_first(bench: Bench) -> None:
    (answer,) = bench.fetch(2, 0)
    assert answer.arguments == ["INVALID_REQUEST"]
    assert answer.values["message"] == "HELLO comes first"


@pytest.mark.parametrize(
    ("hello", "error"),
    [
        (b"HELLO 1 version=1 cluster=else broker=2 epoch=1\n", "INCONSISTENT_CLUSTER_ID"),
        (b"HELLO 1 version=0 cluster=cluster broker=2 epoch=1\n", "UNSUPPORTED_VERSION"),
        (b"HELLO 1 version=1 cluster=cluster broker=2 epoch=1 to=3\n", "BROKER_ID_NOT_REGISTERED"),
        (b"HELLO 1 version=1 cluster=cluster\n", "INVALID_REQUEST"),
        (b"HELLO 1 version=one cluster=cluster broker=2 epoch=1\n", "INVALID_REQUEST"),
    ],
)
def test_hello_is_refused_by_name(bench: Bench, hello: bytes, error: str) -> None:
    (answer,) = bench.ask(hello)
    assert (answer.verb, answer.arguments) == ("ERR", [error])


def test_hello_from_the_future_speaks_the_lower_version(bench: Bench) -> None:
    (answer,) = bench.ask(b"HELLO 1 version=7 cluster=cluster broker=2 epoch=1 colour=blue\n")
    assert answer.values == {
        "version": "1",
        "cluster": "cluster",
        "broker": "1",
        "epoch": "101",
        "incarnation": "incarnation1",
    }


def test_a_fetch_is_answered_as_it_stands_in_the_protocol(bench: Bench) -> None:
    bench.leader.append(DEMO, b"0123456789")
    bench.hello()
    body = row(4).encode() + b"\n"
    line = b"FETCH 2 session=1 seq=0 max_wait_ms=500 min_bytes=1 max_bytes=100 body=%d\n" % len(body)
    answer = bench.say(line + body)
    expected = b"demo 0 error=NONE leader_epoch=3 high_watermark=4 log_start=0 bytes=6\n456789"
    assert answer == b"OK 2 session=1 seq=0 partitions=1 body=%d\n" % len(expected) + expected
    contact = bench.leader.contacts[DEMO]
    assert (contact.broker_id, contact.broker_epoch) == (2, 102)


def test_a_held_fetch_is_answered_when_bytes_arrive(bench: Bench) -> None:
    bench.hello()
    assert bench.fetch(2, 0, row(0), seconds=0.3) != []  # the high watermark, which a new session is told
    assert bench.fetch(3, 1, seconds=0.3) == []
    bench.leader.append(DEMO, b"abc")
    bench.leader.append(DEMO, b"def")
    (answer,) = bench.ask(b"")
    assert [got.records for got in rows(answer)] == [b"abcdef"]


def test_a_held_fetch_ends_when_its_time_is_over(bench: Bench) -> None:
    bench.hello()
    bench.fetch(2, 0, row(0), seconds=0.1)
    assert bench.fetch(3, 1, seconds=0.49) == []
    (answer,) = bench.ask(b"", 0.02)
    assert (answer.correlation, answer.integer("partitions"), answer.body) == (3, 0, b"")
    assert bench.leader.contacts[DEMO].last_fetch_at == pytest.approx(0.1)


def test_a_fetch_proves_only_that_an_answer_before_it_came(bench: Bench) -> None:
    """A FETCH may lie in the socket while the leader's process stands still: when it is read proves nothing."""
    bench.hello()
    never = float("-inf")
    bench.fetch(2, 0, row(0), seconds=1.0)  # answered at 0.0: the high watermark, which a new session is told
    contact = bench.leader.contacts[DEMO]
    assert contact.proven_at == never
    bench.fetch(3, 1, seconds=1.0)  # held until 1.5
    assert contact.proven_at == never, "it may have been sent before the first answer came"
    bench.fetch(4, 2, seconds=3.0)  # held until 2.5
    assert (contact.last_fetch_at, contact.proven_at) == pytest.approx((2.0, 0.0), abs=0.05)
    bench.fetch(5, 3, seconds=0.1)
    bench.fetch(6, 4, seconds=0.1)  # the second under way: what is held follows the answer at 2.5
    assert (contact.last_fetch_at, contact.proven_at) == pytest.approx((5.1, 2.5), abs=0.05)


def test_a_session_is_incremental(bench: Bench) -> None:
    bench.leader.append(DEMO, b"abc")
    bench.leader.append(OTHER, b"xyz")
    bench.hello()
    (answer,) = bench.fetch(2, 0, row(0), row(0, OTHER))
    assert {(got.topic, got.records) for got in rows(answer)} == {("demo", b"abc"), ("other", b"xyz")}
    bench.leader.append(OTHER, b"!")
    (answer,) = bench.fetch(3, 1, row(3, OTHER, named=False))
    assert [(got.topic, got.records) for got in rows(answer)] == [("other", b"!")]


def test_a_spent_row_is_not_answered_twice(bench: Bench) -> None:
    bench.leader.append(DEMO, b"abc")
    bench.hello()
    bench.fetch(2, 0, row(0))
    reads = bench.leader.reads
    bench.leader.append(DEMO, b"d")
    (answer,) = bench.fetch(3, 1, seconds=0.6)
    assert answer.integer("partitions") == 0
    assert bench.leader.reads == reads
    (answer,) = bench.fetch(4, 2, row(3, named=False))
    assert [got.records for got in rows(answer)] == [b"d"]


def test_a_forgotten_partition_tells_no_more(bench: Bench) -> None:
    bench.hello()
    bench.fetch(2, 0, row(0), row(0, OTHER), seconds=0.1)
    bench.fetch(3, 1, "demo 0 forget=1")
    bench.leader.append(DEMO, b"abc")
    assert bench.ask(b"", 0.1) == []
    assert bench.leader.listeners[DEMO] == {}


def test_a_high_watermark_alone_waits_a_moment_for_bytes(bench: Bench) -> None:
    bench.leader.append(DEMO, b"abc")
    bench.hello()
    bench.fetch(2, 0, row(3), seconds=0.1)
    bench.fetch(3, 1)
    bench.leader.high_watermarks[DEMO] = 4
    bench.leader.changed(DEMO)
    assert bench.ask(b"", 0.004) == []
    (answer,) = bench.ask(b"", 0.002)
    assert [(got.high_watermark, got.records) for got in rows(answer)] == [(4, b"")]
    # The row goes on standing: bytes need no new one.
    bench.fetch(4, 2)
    bench.leader.append(DEMO, b"d")
    (answer,) = bench.ask(b"")
    assert [(got.high_watermark, got.records) for got in rows(answer)] == [(4, b"d")]


def test_min_bytes_are_waited_for(bench: Bench) -> None:
    bench.leader.append(DEMO, b"abc")
    bench.hello()
    assert bench.fetch(2, 0, row(0), more="max_bytes=100 min_bytes=5") == []
    bench.leader.append(DEMO, b"de")
    (answer,) = bench.ask(b"")
    assert [got.records for got in rows(answer)] == [b"abcde"]
    assert bench.fetch(3, 1, row(5, named=False), more="max_bytes=100 min_bytes=5", seconds=0.1) != []


def test_errors_and_divergence_are_answered_at_once(bench: Bench) -> None:
    bench.leader.errors[OTHER] = ErrorCode.NOT_LEADER_OR_FOLLOWER
    bench.leader.diverging[DEMO] = (2, 7)
    bench.hello()
    (answer,) = bench.fetch(2, 0, row(9), row(0, OTHER))
    got = {each.topic: each for each in rows(answer)}
    assert got["other"].error is ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert (got["demo"].diverging_epoch, got["demo"].diverging_end) == (2, 7)


def test_bytes_on_disk_are_left_out_until_they_are_read(bench: Bench) -> None:
    bench.leader.append(DEMO, b"abc")
    bench.leader.append(OTHER, b"xyz")
    bench.leader.on_disk.add(DEMO)
    bench.hello()
    (answer,) = bench.fetch(2, 0, row(0), row(0, OTHER))
    assert [got.topic for got in rows(answer)] == ["other"]
    bench.fetch(3, 1)
    bench.leader.on_disk.clear()
    bench.leader.changed(DEMO)
    (answer,) = bench.ask(b"")
    assert [got.records for got in rows(answer)] == [b"abc"]


def test_a_full_answer_leaves_the_rest_for_the_next(bench: Bench) -> None:
    partitions = [TopicPartition("demo", number) for number in range(4)]
    for partition in partitions:
        bench.leader.append(partition, b"0123456789")
    bench.hello()
    served: list[int] = []
    (answer,) = bench.fetch(2, 0, *[row(0, partition) for partition in partitions], more="max_bytes=20")
    served += [got.partition for got in rows(answer)]
    (answer,) = bench.fetch(3, 1, row(5, partitions[0]), row(5, partitions[1]), more="max_bytes=20")
    served += [got.partition for got in rows(answer)]
    assert served == [0, 1, 2, 3]


def test_one_partition_gives_no_more_than_its_share(bench: Bench) -> None:
    bench.leader.append(DEMO, b"0123456789")
    bench.hello()
    (answer,) = bench.fetch(2, 0, row(0), more="max_bytes=100 partition_max_bytes=4")
    assert [got.records for got in rows(answer)] == [b"0123"]


@pytest.mark.parametrize("seq", [1, 2, 5])
def test_a_session_out_of_step_ends(bench: Bench, seq: int) -> None:
    bench.hello()
    bench.fetch(2, 0, row(0), seconds=0.1)
    bench.fetch(3, 1)
    if seq == 2:
        bench.fetch(4, 2)
        bench.fetch(5, 3)
    (*_, answer) = bench.fetch(9, seq)
    assert answer.arguments == ["INVALID_FETCH_SESSION_EPOCH"]
    assert bench.leader.listeners[DEMO] == {}
    (answer,) = bench.fetch(10, seq + 1)
    assert answer.arguments == ["FETCH_SESSION_ID_NOT_FOUND"]
    bench.leader.append(DEMO, b"abc")
    (answer,) = bench.fetch(11, 0, row(0))
    assert [got.records for got in rows(answer)] == [b"abc"]


def test_a_newer_fetch_releases_the_held_one(bench: Bench) -> None:
    bench.hello()
    bench.fetch(2, 0, row(0), seconds=0.1)
    assert bench.fetch(3, 1) == []
    bench.leader.append(OTHER, b"xyz")
    first, second = bench.fetch(4, 2, row(0, OTHER))
    assert (first.correlation, first.integer("partitions")) == (3, 0)
    assert (second.correlation, [got.records for got in rows(second)]) == (4, [b"xyz"])


def test_two_sessions_do_not_wait_for_each_other(bench: Bench) -> None:
    bench.leader.append(DEMO, b"abc")
    bench.hello()
    assert bench.fetch(2, 0, row(3), seconds=0.1) != []
    bench.fetch(3, 1)
    body = f"{row(0, OTHER)}\n".encode()
    bench.leader.append(OTHER, b"xyz")
    (answer,) = bench.ask(b"FETCH 4 session=2 seq=0 max_wait_ms=500 max_bytes=100 body=%d\n" % len(body) + body)
    assert (answer.correlation, answer.integer("session")) == (4, 2)
    bench.leader.append(DEMO, b"d")
    (answer,) = bench.ask(b"")
    assert (answer.correlation, answer.integer("session")) == (3, 1)


def test_a_follower_that_does_not_read_gets_no_second_answer(bench: Bench) -> None:
    bench.leader.append(DEMO, b"x" * 4 * BUFFER_BYTES)
    bench.hello()
    bench.end.reads = False
    more = f"max_bytes={2 * BUFFER_BYTES}"
    bench.fetch(2, 0, row(0), more=more)
    unsent = len(bench.end.other.unsent)  # type: ignore[union-attr]
    assert 2 * BUFFER_BYTES < unsent < 3 * BUFFER_BYTES
    reads = bench.leader.reads
    bench.fetch(3, 1, row(2 * BUFFER_BYTES, named=False), more=more, seconds=1.0)
    assert len(bench.end.other.unsent) == unsent  # type: ignore[union-attr]
    assert bench.leader.reads == reads
    assert bench.leader.high_watermarks[DEMO] == 2 * BUFFER_BYTES  # its row counts all the same
    bench.end.reads = True
    answers = bench.ask(b"")
    assert [(each.correlation, len(rows(each)[0].records)) for each in answers] == [
        (2, 2 * BUFFER_BYTES),
        (3, 2 * BUFFER_BYTES),
    ]


def test_a_caller_that_asks_and_never_reads_is_dropped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zkbroker.replication.connection.PUSH_BACKLOG_BYTES_MAX", 10_000)
    bench.end.reads = False
    bench.end.write(b"PING\n" * 10_000)
    bench.wire.run()
    assert bench.typist.is_over
    assert not bench.server.connections


def test_more_unanswered_fetches_than_allowed_end_the_session(bench: Bench) -> None:
    bench.leader.append(DEMO, b"x" * 2 * BUFFER_BYTES)
    bench.hello()
    bench.end.reads = False
    bench.fetch(2, 0, row(0), more=f"max_bytes={2 * BUFFER_BYTES}")
    for number in (3, 4, 5):
        bench.fetch(number, number - 2)
    bench.end.reads = True
    assert [answer.verb for answer in bench.ask(b"")] == ["OK", "ERR"]


def test_limits_close_the_connection(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zkbroker.replication.server.FETCH_PARTITIONS_MAX", 1)
    bench.hello()
    (answer,) = bench.fetch(2, 0, row(0), row(0, OTHER))
    assert "the limit is 1" in answer.values["message"]
    assert bench.typist.is_over


@pytest.mark.parametrize("data", [b"x" * 20_000, b"PING body=99999999999\n", b"\xff\n"])
def test_what_is_no_protocol_closes_the_connection(bench: Bench, data: bytes) -> None:
    assert bench.say(data).startswith(b"ERR 0 INVALID_REQUEST")
    assert bench.typist.is_over


def test_too_many_sessions_close_the_connection(bench: Bench) -> None:
    bench.hello()
    for number in range(4):
        bench.ask(b"FETCH 2 session=%d seq=0 max_wait_ms=0 max_bytes=1\n" % number)
    assert bench.say(b"FETCH 2 session=9 seq=0 max_wait_ms=0 max_bytes=1\n").startswith(b"ERR")
    assert bench.typist.is_over


def test_too_many_connections_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zkbroker.replication.server.REPLICATION_CONNECTIONS_MAX", 1)
    assert bench.server.buildProtocol(None) is None


def test_a_lost_connection_is_forgotten_by_the_leader(bench: Bench) -> None:
    bench.hello()
    bench.fetch(2, 0, row(0))
    assert len(bench.leader.listeners[DEMO]) == 1
    bench.end.abortConnection()
    bench.wire.run(1.0)
    assert bench.leader.listeners[DEMO] == {}
    bench.leader.append(DEMO, b"abc")
    bench.wire.run(1.0)


def test_a_second_hello_begins_anew_under_its_epoch(bench: Bench) -> None:
    bench.hello()
    bench.fetch(2, 0, row(0), seconds=0.1)
    bench.ask(encode_hello(3, identity(2, 999), 1))
    assert bench.leader.listeners[DEMO] == {}
    bench.fetch(4, 0, row(0))
    contact: FollowerContact = bench.leader.contacts[DEMO]
    assert contact.broker_epoch == 999


def test_bye_is_told_and_closes(bench: Bench) -> None:
    bench.hello()
    bench.say(b"BYE 2\n")
    assert bench.peers.byes == [identity(2)]
    assert bench.typist.is_over


def test_a_stopping_broker_says_bye(bench: Bench) -> None:
    bench.server.say_bye()
    assert bench.say(b"") == b"PUSH 0 BYE\n"
    assert bench.typist.is_over


def test_not_the_controller(bench: Bench) -> None:
    bench.hello()
    assert bench.say(b"SUBSCRIBE 2\n").startswith(b"ERR 2 NOT_CONTROLLER")


WORDS = (
    b"HELLO FETCH PING SUBSCRIBE APPLIED BYE 1 session=1 seq=0 seq=1 max_bytes=9 max_wait_ms=0 body=5 body=0 body=-4"
    b' body=x version=1 cluster=cluster broker=2 epoch=3 to=1 demo 99999999999999999999 " = \xff \x00'
).split(b" ")
WORD = st.sampled_from([*WORDS, b"demo 0 topic_id=a leader_epoch=3 offset=0"])


@given(st.lists(st.tuples(WORD, st.sampled_from([b" ", b" ", b"\n", b""])), max_size=60), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_no_bytes_raise_out_of_the_listener(pieces: list[tuple[bytes, bytes]], step: int) -> None:
    bench = Bench()
    bench.wire.read_bytes = step
    bench.hello()
    bench.end.write(b"".join(word + blank for word, blank in pieces) + b"\n")
    bench.wire.run(0.1, step=0.05)
    bench.wire.run()
    if not bench.typist.is_over:
        bench.wire.read_bytes = 65_536
        bench.end.write(b"x" * 40 + b"\nPING 77\n")
        bench.wire.run()
    assert bench.typist.is_over or b"PONG" in bench.typist.data


def test_the_specification_names_every_verb_and_its_examples_can_be_read(bench: Bench) -> None:
    specification = resources.files("zkbroker.replication").joinpath("PROTOCOL.md").read_text("utf-8")
    connection = ReplicationConnection(bench.server)
    for verb in (
        *connection.people,
        *connection.channel.verbs,
        *connection.peers.verbs,
        "HELLO",
        "FETCH",
        "BYE",
        "SNAPSHOT",
        "DELTA",
    ):
        assert re.search(rf"\b{verb}\b", specification), verb
    blocks = re.findall(r"```\n(→.*?)```", specification, re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        lines = [line.split("   ")[0] for line in block.splitlines()]
        while lines:
            message = parse_line(lines.pop(0)[2:].encode())
            assert message is not None and message.correlation > 0
            size = message.integer("body", 0)
            while size > 0:
                line = lines.pop(0)[2:]
                raw = re.match(r"<(\d+) raw bytes", line)
                size -= int(raw.group(1)) if raw else len(line.encode()) + 1
            assert size == 0, message


def test_an_answer_has_a_bounded_number_of_rows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zkbroker.replication.fetch_session.FETCH_PARTITIONS_SENT", 2)
    partitions = [TopicPartition("demo", number) for number in range(5)]
    for partition in partitions:
        bench.leader.append(partition, b"a")
    bench.hello()
    counts = [bench.fetch(2, 0, *[row(0, partition) for partition in partitions])[0].integer("partitions")]
    counts += [bench.fetch(seq + 2, seq)[0].integer("partitions") for seq in (1, 2)]
    assert counts == [2, 2, 1]

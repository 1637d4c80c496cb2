"""The line protocol's framing and rows: whole, byte by byte, with trailing bytes, with garbage, round trip."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkbroker.model.channel import (
    AlterPartitionRequest,
    AlterPartitionResponse,
    Applied,
    IsrAnswer,
    IsrProposal,
    NewTopic,
    TopicResult,
)
from zkbroker.model.cluster import BrokerRegistration, ClusterDelta, DeletedReplica, Endpoint
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.replication import messages, requests
from zkbroker.replication.codec import (
    FramingError,
    Message,
    MessageReader,
    decode_error,
    encode_error,
    encode_request,
    parse_line,
    parse_words,
    quote,
    quote_argument,
)
from zkbroker.replication.deltas import decode_delta, encode_delta
from zkbroker.replication.ports import FetchedRow, FetchRow, Identity

TEXT = st.text(max_size=40) | st.sampled_from(['a"b', "a=b", "=", "\\", "\\x41", " ", "", "\r", "\n", "\ud800", "é"])
NUMBER = st.integers(-1, 2**63 - 1)
PARTITION = st.builds(TopicPartition, TEXT, st.integers(0, 2**31 - 1))
BROKERS = st.lists(st.integers(0, 9), max_size=3).map(tuple)
TOPIC_ID = st.text("abcXYZ-_019", min_size=1, max_size=22)
STATE = st.builds(
    PartitionState,
    TOPIC_ID,
    BROKERS,
    NUMBER,
    NUMBER,
    BROKERS,
    NUMBER,
    NUMBER,
    BROKERS,
    BROKERS,
    st.booleans(),
    BROKERS,
    TEXT,
    leader_reason=st.just(""),  # the controller's alone, as the next
    removed=st.just(()),
)
ERROR = st.sampled_from(list(ErrorCode))


def read_all(data: bytes, step: int = 0, body_bytes_max: int = 1 << 20) -> list[Message]:
    """What a reader makes of the bytes, given whole or in steps."""
    reader = MessageReader(body_bytes_max)
    got = []
    for at in range(0, len(data), step or len(data) or 1):
        reader.receive(data[at : at + step] if step else data)
        while (message := reader.next_message()) is not None:
            got.append(message._replace(body=bytes(message.body)))
    return got


def one(data: bytes) -> Message:
    (message,) = read_all(data)
    return message


STREAM = (
    b"HELLO 1 version=1 cluster=NPAfr5k_TFuz broker=2 epoch=8589934602 incarnation=6f1c\n"
    b'FETCH 2 session=7 body=5\n\n\x00=" ERR 5 NOT_CONTROLLER message="say \\"who\\" \\x07"\n'
    b"\r\nping\r\nPUSH 3 DELTA body=0\nOK body=3\nabcSTATUS 9 last\n"
)
EXPECTED = [
    Message(
        "HELLO",
        1,
        [],
        {"version": "1", "cluster": "NPAfr5k_TFuz", "broker": "2", "epoch": "8589934602", "incarnation": "6f1c"},
    ),
    Message("FETCH", 2, [], {"session": "7", "body": "5"}, b'\n\x00=" '),
    Message("ERR", 5, ["NOT_CONTROLLER"], {"message": 'say "who" \x07'}),
    Message("PING", 0, [], {}),
    Message("PUSH", 3, ["DELTA"], {"body": "0"}),
    Message("OK", 0, [], {"body": "3"}, b"abc"),
    Message("STATUS", 9, ["last"], {}),
]


@pytest.mark.parametrize("step", [0, *range(1, 10), 64])
def test_a_stream_is_read_alike_however_it_is_cut(step: int) -> None:
    assert read_all(STREAM, step) == EXPECTED


def test_trailing_bytes_wait_for_the_rest() -> None:
    reader = MessageReader(100)
    reader.receive(b"PING 1\nFETCH 2 body=4\nab")
    assert reader.next_message() == Message("PING", 1, [], {})
    assert reader.next_message() is None
    reader.receive(b"cdPI")
    message = reader.next_message()
    assert message is not None and bytes(message.body) == b"abcd"
    assert reader.next_message() is None
    reader.receive(b"NG\n")
    assert reader.next_message() == Message("PING", 0, [], {})


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 20_000,
        b"x" * 20_000 + b"\n",
        b"PING 1 body=1048577\n",
        b"PING 1 body=-1\n",
        b"\xff\xfe\n",
        b'PING "\n',
        b'PING a"b\n',
        b'PING "a"b\n',
        b"key=value\n",
        b"PING 1 body=ten\n",
    ],
)
def test_what_is_not_the_protocol_or_past_a_limit_is_refused(data: bytes) -> None:
    with pytest.raises(FramingError):
        read_all(data)


def test_a_long_line_is_refused_before_it_ends() -> None:
    reader = MessageReader(100, line_bytes_max=50)
    reader.receive(b"x" * 51)
    with pytest.raises(FramingError, match="longer than 50"):
        reader.next_message()


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_garbage_is_a_message_or_refused(data: bytes) -> None:
    try:
        for message in read_all(data + b"\n"):
            assert message.verb == message.verb.upper()
    except BrokerError as error:
        assert error.error is ErrorCode.INVALID_REQUEST


@given(TEXT, TEXT)
def test_any_value_and_argument_survives(argument: str, value: str) -> None:
    line = f"VERB {quote_argument(argument)} key={quote(value)} last"
    assert "\n" not in line
    parsed = parse_line(line.encode())
    assert parsed is not None
    numbers = [str(parsed.correlation)] if parsed.correlation or argument == "0" else []
    assert parsed.values == {"key": value}
    assert [*numbers, *parsed.arguments] == [argument, "last"]


def test_words_without_a_quote_and_with_one_are_read_alike() -> None:
    plain = "  a  k=v=w  =x b "
    assert parse_words(plain) == (["a", "=x", "b"], {"k": "v=w"})
    assert parse_words(plain + '"q r"') == (["a", "=x", "b", "q r"], {"k": "v=w"})


def test_an_error_travels_by_name() -> None:
    data = encode_error(5, ErrorCode.FENCED_LEADER_EPOCH, "stale", {"current": 4})
    assert data == b"ERR 5 FENCED_LEADER_EPOCH current=4 message=stale\n"
    error = decode_error(one(data))
    assert (error.error, str(error)) == (ErrorCode.FENCED_LEADER_EPOCH, "stale")


def test_an_error_of_a_newer_version_is_unknown() -> None:
    error = decode_error(one(b"ERR 5 FROM_THE_FUTURE message=hm\n"))
    assert error.error is ErrorCode.UNKNOWN_SERVER_ERROR
    assert "FROM_THE_FUTURE" in str(error)


def test_hello_round_trip_and_versions() -> None:
    identity = Identity("NPAfr 5k", 2, 8589934602, "6f1c")
    message = one(messages.encode_hello(1, identity, 3))
    assert messages.decode_identity(message) == identity
    assert message.integer("to") == 3
    assert messages.negotiate(message) == 1
    assert messages.negotiate(message._replace(values={"version": "9"})) == 1
    with pytest.raises(BrokerError, match="version 0"):
        messages.negotiate(message._replace(values={"version": "0"}))


ROW = st.builds(
    FetchRow, TEXT, st.integers(0, 2**31 - 1), TOPIC_ID, NUMBER, st.integers(0, 2**63 - 1), NUMBER, NUMBER, NUMBER
)


@given(st.lists(st.tuples(ROW, st.booleans()), max_size=4), st.lists(PARTITION, max_size=2))
@settings(max_examples=60)
def test_fetch_round_trip(rows: list[tuple[FetchRow, bool]], forgotten: list[TopicPartition]) -> None:
    fetch = messages.Fetch(7, 12, 500, 1, 10485760, 1048576)
    message = one(messages.encode_fetch(2, fetch, rows, forgotten))
    assert messages.decode_fetch(message) == fetch
    decoded = messages.decode_fetch_rows(message, lambda partition: "known")
    expected: list[tuple[TopicPartition, FetchRow | None]] = [
        (TopicPartition(row.topic, row.partition), row if named else row._replace(topic_id="known"))
        for row, named in rows
    ]
    assert decoded == expected + [(partition, None) for partition in forgotten]


def test_a_row_without_topic_id_of_a_new_partition_is_refused() -> None:
    message = one(b"FETCH 2 session=1 seq=0 max_bytes=1 body=31\ndemo 0 leader_epoch=3 offset=1\n")
    with pytest.raises(BrokerError, match="topic_id= is missing"):
        messages.decode_fetch_rows(message, lambda partition: None)


@given(
    st.lists(
        st.tuples(
            st.builds(
                FetchedRow,
                TEXT,
                st.integers(0, 9),
                TOPIC_ID,
                ERROR,
                NUMBER,
                NUMBER,
                NUMBER,
                NUMBER,
                NUMBER,
                NUMBER,
                st.binary(),
            ),
            st.booleans(),
        ),
        max_size=4,
    )
)
@settings(max_examples=60)
def test_fetched_round_trip(rows: list[tuple[FetchedRow, bool]]) -> None:
    fetch = messages.Fetch(7, 12, 500, 1, 10485760, 1048576)
    message = one(b"".join(messages.encode_fetched(2, fetch, rows)))
    assert (message.verb, message.correlation, message.integer("partitions")) == ("OK", 2, len(rows))
    decoded = messages.decode_fetched(message, lambda partition: "known")
    assert decoded == [row if named else row._replace(topic_id="known") for row, named in rows]


def test_a_payload_that_fills_its_body_is_not_copied_and_a_small_one_does_not_keep_the_body_alive() -> None:
    fetch = messages.Fetch(1, 0, 500, 1, 1 << 20, 1 << 20)
    large = FetchedRow("demo", 0, "known", ErrorCode.NONE, 3, records=b"x" * 100_000)
    small = large._replace(partition=1, records=b"y" * 1000)
    message = one(b"".join(messages.encode_fetched(7, fetch, [(large, False), (small, False)])))
    decoded = messages.decode_fetched(message, lambda partition: "known")
    assert decoded == [large, small]
    assert [type(row.records) for row in decoded] == [memoryview, bytes]


@pytest.mark.parametrize(
    "body", [b"demo 0", b"demo 0 bytes=5\nabc", b"demo x bytes=0\n", b"demo\n", b"\xff 0\n", b"d 0 bytes=-1\n"]
)
def test_a_broken_answer_is_refused(body: bytes) -> None:
    with pytest.raises(BrokerError):
        messages.decode_fetched(Message("OK", 1, [], {}, body), lambda partition: "")


ENDPOINT = st.builds(
    Endpoint,
    st.sampled_from(["PLAINTEXT", "REPLICATION"]),
    st.sampled_from(["h", "10.0.0.1", "::1"]),
    st.integers(0, 65535),
)
BROKER = st.builds(
    BrokerRegistration,
    st.integers(0, 99),
    NUMBER,
    st.lists(ENDPOINT, max_size=3).map(tuple),
    st.just((("PLAINTEXT", "PLAINTEXT"), ("REPLICATION", "SSL"))) | st.just(()),
    st.none() | TEXT,
    st.just(()),
)
DELTA = st.builds(
    ClusterDelta,
    st.integers(0, 9),
    NUMBER,
    NUMBER,
    st.booleans(),
    st.lists(BROKER, max_size=3).map(tuple),
    BROKERS,
    st.lists(st.tuples(PARTITION, STATE), max_size=4).map(tuple),
    st.lists(st.tuples(TEXT, TOPIC_ID), max_size=2).map(tuple),
    st.lists(st.builds(DeletedReplica, TEXT, st.integers(0, 9), TOPIC_ID), max_size=2).map(tuple),
)


@given(DELTA)
@settings(max_examples=100)
def test_delta_round_trip(delta: ClusterDelta) -> None:
    assert decode_delta(one(encode_delta(3, delta))) == delta


def test_a_snapshot_names_the_topics_that_cannot_be_read() -> None:
    delta = ClusterDelta(1, 2, 0, is_snapshot=True, unreadable_topics=("a topic", "b"))
    assert decode_delta(one(encode_delta(3, delta))) == delta


def test_rows_of_a_newer_version_are_skipped() -> None:
    message = one(b"PUSH 3 DELTA controller=1 controller_epoch=2 number=3 body=23\nQUOTA x=1\nGONE 4 why=no\n")
    assert decode_delta(message) == ClusterDelta(1, 2, 3, removed_brokers=(4,))


def test_a_snapshot_of_a_thousand_partitions_is_cheap() -> None:
    """The budget is 20 ms on an idle machine; shared runners get four times that."""
    state = PartitionState("vX7sTBNpQpmL0ZpGhB2cYw", (1, 2, 3), 1, 4, (1, 2, 3), 9, 2)
    delta = ClusterDelta(
        1, 2, 0, True, partitions=tuple((TopicPartition(f"topic-{n // 10}", n % 10), state) for n in range(1000))
    )
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        decoded = decode_delta(one(encode_delta(3, delta)))
        taken.append(time.perf_counter() - begun)
        assert decoded == delta
    assert min(taken) < 0.08


@given(st.lists(st.tuples(PARTITION, TEXT), max_size=3), NUMBER, NUMBER)
def test_applied_round_trip(failures: list[tuple[TopicPartition, str]], epoch: int, number: int) -> None:
    applied = Applied(epoch, number, tuple(failures))
    assert requests.decode_applied(one(requests.encode_applied(4, applied))) == applied


@given(PARTITION, TOPIC_ID, TEXT, st.lists(PARTITION, max_size=3))
def test_deleted_offline_and_remaining_round_trip(
    partition: TopicPartition, topic_id: str, log_dir: str, partitions: list[TopicPartition]
) -> None:
    assert requests.decode_deleted(one(requests.encode_deleted(4, partition, topic_id))) == (partition, topic_id)
    offline = one(requests.encode_offline(4, log_dir, partitions))
    assert requests.decode_offline(offline) == (log_dir, tuple(partitions))
    assert requests.decode_partition_rows(one(requests.encode_remaining(4, partitions))) == tuple(partitions)


PROPOSAL = st.builds(
    IsrProposal,
    TEXT,
    st.integers(0, 9),
    TOPIC_ID,
    NUMBER,
    NUMBER,
    NUMBER,
    st.lists(st.tuples(st.integers(0, 9), NUMBER), max_size=3).map(tuple),
    st.booleans(),
)
ISR_ANSWER = st.builds(IsrAnswer, TEXT, st.integers(0, 9), TOPIC_ID, NUMBER, ERROR, st.none() | STATE)


@given(st.lists(PROPOSAL, max_size=3), st.lists(ISR_ANSWER, max_size=3), ERROR)
@settings(max_examples=60)
def test_alter_partition_round_trip(proposals: list[IsrProposal], answers: list[IsrAnswer], error: ErrorCode) -> None:
    request = AlterPartitionRequest(2, 8589934602, tuple(proposals))
    assert requests.decode_alter_partition(one(requests.encode_alter_partition(5, request))) == request
    response = AlterPartitionResponse(error, tuple(answers))
    answer = one(requests.encode_alter_partition_answer(5, response))
    assert requests.decode_alter_partition_answer(answer) == response


@given(TEXT, st.lists(st.tuples(TEXT, TEXT), max_size=2), ERROR, st.none() | TEXT)
@settings(max_examples=60)
def test_create_topic_round_trip(name: str, configs: list[tuple[str, str]], error: ErrorCode, told: str | None) -> None:
    topic = NewTopic(name, 3, -1, ((0, (1, 2)), (1, (2, 3))), tuple(configs))
    assert requests.decode_create_topic(one(requests.encode_create_topic(6, topic))) == topic
    result = TopicResult(name, error, told, "vX7s", 3, 2)
    assert requests.decode_topic_result(one(requests.encode_topic_result(6, result))) == result


@given(
    st.sampled_from(["FETCH", "APPLIED", "ALTER_PARTITION", "CREATE_TOPIC", "OFFLINE", "DELTA"]), st.text(max_size=80)
)
@settings(max_examples=300)
def test_foreign_rows_never_raise_but_broker_error(verb: str, rows: str) -> None:
    decoders = {
        "FETCH": lambda message: messages.decode_fetch_rows(message, lambda partition: "id"),
        "APPLIED": requests.decode_applied,
        "ALTER_PARTITION": requests.decode_alter_partition,
        "CREATE_TOPIC": requests.decode_create_topic,
        "OFFLINE": requests.decode_offline,
        "DELTA": decode_delta,
    }
    values: dict[str, str | int | None] = {"controller": 1, "controller_epoch": 1, "number": 1, "name": "n", "dir": "d"}
    values |= {"broker": 1, "epoch": 1}
    message = one(encode_request(verb, 1, values, rows.encode("utf-8", "replace")))
    try:
        assert decoders[verb](message) is not None
    except BrokerError as error:
        assert error.error is ErrorCode.INVALID_REQUEST

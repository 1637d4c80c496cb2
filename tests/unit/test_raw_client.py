"""The benchmark's raw client against the listener's own codecs, over a socket pair."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from zkbroker.cli import _raw_client
from zkbroker.cli._raw_client import RawClient, ReadBack, encode_records
from zkbroker.kafka import fetch, produce
from zkbroker.kafka.ports import ConsumedRow, ProducedRow
from zkbroker.kafka.wire import Reader
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.records.batch import read_header, stamp

Answer = Callable[[Reader], bytes]


class Peer:
    """The broker's end: answers each request with what ``answer`` makes of its body."""

    def __init__(self) -> None:
        self.near, self._far = socket.socketpair()
        self.frames: list[bytes] = []
        self.answer: Answer = lambda reader: b""

    def serve(self) -> None:
        stream = self._far.makefile("rb")
        while len(size := stream.read(4)) == 4:
            frame = stream.read(*struct.unpack(">i", size))
            self.frames.append(frame)
            key, version, correlation = struct.unpack_from(">hhi", frame)
            reader = Reader(frame, 8)
            assert reader.nullable_string(False) == "zkbroker-bench"
            flexible = (key, version) == (0, 9)
            if flexible:
                reader.skip_tags()
            body = struct.pack(">i", correlation) + (b"\x00" if flexible else b"") + self.answer(reader)
            self._far.sendall(struct.pack(">i", len(body)) + body)
        stream.close()
        self._far.close()


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    made = Peer()
    monkeypatch.setattr(_raw_client.socket, "create_connection", lambda address, timeout: made.near)
    monkeypatch.setattr(_raw_client.socket, "TCP_NODELAY", socket.SO_REUSEADDR)
    monkeypatch.setattr(_raw_client.socket, "IPPROTO_TCP", socket.SOL_SOCKET)
    thread = threading.Thread(target=made.serve)
    thread.start()
    yield made
    made.near.close()
    thread.join(10)


def acknowledge(peer: Peer, batches: list[bytes], error: ErrorCode = ErrorCode.NONE) -> Answer:
    def answer(reader: Reader) -> bytes:
        message = produce.decode_body(reader, 9)
        (row,) = message.rows
        assert (row.topic, row.partition, message.acks) == ("demo", 3, -1)
        batches.append(bytes(row.records or b""))
        return produce.encode_body(9, message.topics, [ProducedRow("demo", 3, error)], None)

    return answer


def test_each_request_carries_the_batch_and_each_answer_is_timed(peer: Peer) -> None:
    batches: list[bytes] = []
    peer.answer = acknowledge(peer, batches)
    batch = encode_records(2, 100)
    took = RawClient("broker", 9092, "demo", 3).produce(batch, -1, 7, 3)
    assert len(took) == 7 and all(seconds > 0 for seconds in took)
    assert batches == [batch] * 7
    assert read_header(batch).records_count == 2


def test_an_error_ends_a_run(peer: Peer) -> None:
    peer.answer = acknowledge(peer, [], ErrorCode.NOT_ENOUGH_REPLICAS)
    with pytest.raises(BrokerError) as raised:
        RawClient("broker", 9092, "demo", 3).produce(encode_records(1, 10), -1, 1, 1)
    assert raised.value.error is ErrorCode.NOT_ENOUGH_REPLICAS


def fetches(log: list[bytes]) -> Answer:
    def answer(reader: Reader) -> bytes:
        message = fetch.decode_body(reader, 11)
        (row,) = message.rows
        # A batch at a time, and the beginning of the next one, as a broker may cut it.
        place = next(place for place, batch in enumerate(log) if read_header(batch).next_offset > row.offset)
        torn = log[place + 1][:80] if place + 1 < len(log) else b""
        answer = ConsumedRow("demo", 3, ErrorCode.NONE, 10, 10, 0, None, [log[place], torn])
        chunks, _ = fetch.encode_body(11, message.topics, [answer], None)
        return b"".join(chunks)

    return answer


def log_of(count: int, gap: int = 0) -> list[bytes]:
    batch = encode_records(2, 50)
    return [stamp(batch, 0, read_header(batch), number * (2 + gap), 0) for number in range(count)]


def test_all_is_read_back_and_counted(peer: Peer) -> None:
    log = log_of(3)
    peer.answer = fetches(log)
    client = RawClient("broker", 9092, "demo", 3)
    assert client.read_all(6, check=True) == ReadBack(6, sum(map(len, log)), 3)
    assert client.read_all(6, check=False) == ReadBack(6, sum(map(len, log)), 3)


def test_a_gap_in_the_offsets_is_told(peer: Peer) -> None:
    peer.answer = fetches(log_of(3, gap=1))
    with pytest.raises(BrokerError, match="offset 3 follows 1"):
        RawClient("broker", 9092, "demo", 3).read_all(6, check=True)


def test_a_wrong_crc_is_told(peer: Peer) -> None:
    log = log_of(1)
    log[0] = log[0][:-1] + b"?"
    peer.answer = fetches(log)
    with pytest.raises(BrokerError, match="CRC"):
        RawClient("broker", 9092, "demo", 3).read_all(2, check=True)

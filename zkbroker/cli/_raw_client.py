"""A client of one partition that costs next to nothing: produce requests encoded once and sent again and again, and
fetches of which only the batch headers are looked at. For benchmarks: what is measured is the broker.

It speaks Produce 9 and Fetch 11 to the partition's leader, which it is told, and gives up at the first error.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import NamedTuple

from zkbroker.kafka.wire import encode_string, encode_uvarint
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.records.batch import check_batch
from zkbroker.records.record import Record, build_batch

_SIZE = struct.Struct(">i")
_CLIENT_ID = "zkbroker-bench"
_PRODUCE_HEADER = struct.pack(">hhi", 0, 9, 0)
_FETCH_HEADER = struct.pack(">hhi", 1, 11, 0)
_FETCH_BYTES_MAX = 1024 * 1024
_RECEIVE_BYTES = 256 * 1024
_PIPELINED_BYTES_MAX = 16 * 1024
"""Requests up to this size are sent several at once, as a client's batching of system calls would."""


class ReadBack(NamedTuple):
    """What was read of a partition from its beginning."""

    records_count: int
    bytes_count: int
    """Of whole batches."""
    requests_count: int


def encode_records(count: int, size: int) -> bytes:
    """A batch of ``count`` records with values of ``size`` bytes."""
    now_ms = time.time_ns() // 1_000_000
    return build_batch([Record(offset, now_ms, None, b"x" * size) for offset in range(count)])


class RawClient:
    """One connection to the leader of ``topic``-``partition``."""

    def __init__(self, host: str, port: int, topic: str, partition: int, timeout_s: float = 60) -> None:
        self._topic = topic
        self._partition = partition
        self._socket = socket.create_connection((host, port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()

    def close(self) -> None:
        self._socket.close()

    def produce(self, batch: bytes, acks: int, count: int, in_flight: int) -> list[float]:
        """Send the batch ``count`` times with ``in_flight`` unanswered requests; seconds that each answer took, in the
        order of the requests. Raises BrokerError with the first error."""
        request = self._produce_request(batch, acks)
        at_once_max = max(1, _PIPELINED_BYTES_MAX // len(request))
        sent_at: list[float] = []
        took: list[float] = []
        while len(took) < count:
            room = min(in_flight - (len(sent_at) - len(took)), count - len(sent_at))
            while room > 0:
                at_once = min(room, at_once_max)
                sent_at.extend([time.perf_counter()] * at_once)
                self._socket.sendall(request * at_once if at_once > 1 else request)
                room -= at_once
            answers = self._answers()
            now = time.perf_counter()
            for answer in answers:
                self._check_produced(answer)
                took.append(now - sent_at[len(took)])
        return took

    def read_all(self, end_offset: int, *, check: bool, patience_s: float = 30) -> ReadBack:
        """Everything below ``end_offset``. With ``check`` every CRC is computed and offsets must follow each other
        without a gap. Raises BrokerError, also when nothing more comes for ``patience_s``."""
        offset = records = size = requests = 0
        last_s = time.monotonic()
        while offset < end_offset:
            if time.monotonic() - last_s > patience_s:
                raise BrokerError(ErrorCode.REQUEST_TIMED_OUT, f"{self._topic} ends at {offset}, not {end_offset}")
            self._socket.sendall(self._fetch_request(offset))
            requests += 1
            answer = self._answers()[0]
            records_at, end = self._fetched(answer)
            position = records_at
            while position + 61 <= end:
                base, length = struct.unpack_from(">qi", answer, position)
                if position + 12 + length > end:
                    break
                if check:
                    check_batch(answer, position, end)
                    if base != offset:
                        raise BrokerError(ErrorCode.CORRUPT_MESSAGE, f"offset {base} follows {offset - 1}")
                (last_delta,) = _SIZE.unpack_from(answer, position + 23)
                records += last_delta + 1
                offset = base + last_delta + 1
                position += 12 + length
            if position > records_at:
                size += position - records_at
                last_s = time.monotonic()
        return ReadBack(records, size, requests)

    def _produce_request(self, batch: bytes, acks: int) -> bytes:
        message = b"".join(
            (
                _PRODUCE_HEADER,
                encode_string(_CLIENT_ID, False),
                b"\x00\x00",  # no tags; no transactional id
                struct.pack(">hi", acks, 30_000),
                b"\x02",
                encode_string(self._topic, True),
                b"\x02",
                _SIZE.pack(self._partition),
                encode_uvarint(len(batch) + 1),
                batch,
                b"\x00\x00\x00",
            )
        )
        return _SIZE.pack(len(message)) + message

    def _check_produced(self, answer: bytes) -> None:
        # Correlation and tags, one topic with its name, one partition and its index; then the error.
        (error,) = struct.unpack_from(">h", answer, 4 + 1 + 1 + 1 + len(self._topic.encode()) + 1 + 4)
        if error:
            raise BrokerError(ErrorCode(error), f"{ErrorCode(error).name}: produce to {self._topic}-{self._partition}")

    def _fetch_request(self, offset: int) -> bytes:
        message = b"".join(
            (
                _FETCH_HEADER,
                encode_string(_CLIENT_ID, False),
                struct.pack(">iiiibiii", -1, 500, 1, 50 * _FETCH_BYTES_MAX, 0, 0, -1, 1),
                encode_string(self._topic, False),
                struct.pack(">iiiqqi", 1, self._partition, -1, offset, -1, _FETCH_BYTES_MAX),
                struct.pack(">ih", 0, 0),
            )
        )
        return _SIZE.pack(len(message)) + message

    def _fetched(self, answer: bytes) -> tuple[int, int]:
        """Where the records begin and end."""
        # Correlation, throttle, error, session, one topic with its name, one partition.
        position = 4 + 4 + 2 + 4 + 4 + 2 + len(self._topic.encode()) + 4
        _, error, _, _, _, aborted, _, size = struct.unpack_from(">ihqqqiii", answer, position)
        if error:
            raise BrokerError(ErrorCode(error), f"{ErrorCode(error).name}: fetch of {self._topic}-{self._partition}")
        if aborted > 0:
            raise BrokerError(ErrorCode.UNKNOWN_SERVER_ERROR, "aborted transactions in an answer to read_uncommitted")
        start = position + 42
        return start, start + max(0, size)

    def _answers(self) -> list[bytes]:
        """The answers that are there, at least one. Raises ConnectionError when the broker closes."""
        received = self._received
        while True:
            found = []
            position = 0
            while len(received) - position >= 4:
                (size,) = _SIZE.unpack_from(received, position)
                if len(received) - position - 4 < size:
                    break
                found.append(bytes(memoryview(received)[position + 4 : position + 4 + size]))
                position += 4 + size
            if found:
                del received[:position]
                return found
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                raise ConnectionError(f"the leader of {self._topic}-{self._partition} closed the connection")
            received += data

"""A broker under fire: hostile requests on many connections at once, cut into pieces, some never read. Now and then a
friend asks for versions and topics, and is answered as ever."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from pathlib import Path
from typing import Any, NamedTuple

from kio.index import load_response_schema
from kio.serial import entity_reader

from tests.fuzz.messages import header, make_message, topic_ids
from tests.fuzz.mutations import Case, random_case
from tests.harness.differential import Peer, read_frame
from zkbroker.kafka.versions import API_VERSIONS, BY_KEY, METADATA, RANGES

CONNECTIONS = 12
FRIEND_PATIENCE_S = 30.0
FRIEND_EVERY = 100
"""Hostile requests between two questions of the friend."""


class Found(Exception):
    """The broker did what it must not; the text holds the cases that led there."""


class Tally(NamedTuple):
    requests: int
    answers: int
    closed: int
    silent: int
    """Neither answered nor closed within a moment."""
    grown_bytes: int
    """Of the broker's memory since the first look, at its most."""


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def ask_as_friend(host: str, port: int, patience_s: float = FRIEND_PATIENCE_S) -> float:
    """Seconds that it took to be told versions and topics on a new connection."""
    began = time.monotonic()
    with socket.create_connection((host, port), patience_s) as connection:
        for key in (API_VERSIONS, METADATA):
            body = header(key, 0, 42) + (struct.pack(">i", 0) if key == METADATA else b"")
            connection.sendall(struct.pack(">i", len(body)) + body)
            answer = read_frame(connection)
            if answer is None or answer[:4] != struct.pack(">i", 42):
                raise Found(f"a friend's request {key} was answered with {answer!r}")
    return time.monotonic() - began


class Siege:
    def __init__(self, host: str, port: int, seed: int, pid: int | None = None) -> None:
        self._address = (host, port)
        self._dice = random.Random(seed)
        self._pid = pid
        self._connections: list[socket.socket] = []
        self._last: list[Case] = []
        self._counts = dict.fromkeys(("requests", "answers", "closed", "silent"), 0)
        self._first_bytes = 0
        self._most_bytes = 0

    def __enter__(self) -> Siege:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()

    def run(self, seconds: float, requests_max: int | None = None) -> Tally:
        """Raises Found."""
        ask_as_friend(*self._address)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._counts["requests"] != requests_max:
            self._strike(random_case(self._dice))
            if self._counts["requests"] % FRIEND_EVERY == 0:
                self._look()
        self._look()
        return Tally(**self._counts, grown_bytes=self._most_bytes - self._first_bytes)

    def strike_heavily(self, elements: int) -> float:
        """A request of every API whose first array has so many elements; the longest that a friend waited beside one.
        Raises Found."""
        longest = 0.0
        for api in RANGES:
            data = make_message(api.key, api.maximum, 3, heavy=elements).data
            with socket.create_connection(self._address, FRIEND_PATIENCE_S) as connection:
                connection.settimeout(FRIEND_PATIENCE_S)
                with contextlib.suppress(ConnectionError):
                    connection.sendall(struct.pack(">i", len(data)) + data)
                try:
                    longest = max(longest, ask_as_friend(*self._address))
                except OSError as error:
                    raise Found(
                        f"a friend was not served beside {elements} elements of {api.name}: {error!r}"
                    ) from error
                with contextlib.suppress(ConnectionError):
                    read_frame(connection)
        return longest

    def _look(self) -> None:
        try:
            ask_as_friend(*self._address)
            self._learn()
        except OSError as error:
            raise Found(f"a friend was not served: {error!r}; before it:\n{self.told()}") from error
        if self._pid is not None:
            size = resident_bytes(self._pid)
            self._most_bytes = max(self._most_bytes, size)
            if not self._first_bytes and self._counts["requests"] >= 5 * FRIEND_EVERY:
                self._first_bytes = size  # by then the schemas of most APIs are loaded

    def _learn(self) -> None:
        """The topics' ids, so that requests find them."""
        peer = Peer("besieged", self._address[1])
        try:
            answer = peer.ask_exactly(METADATA, 12, topics=None)
        finally:
            peer.close()
        found = [topic.topic_id.bytes for topic in answer.topics if topic.topic_id is not None]
        topic_ids[:] = found[:8] or topic_ids

    def told(self) -> str:
        return "\n".join(map(repr, self._last[-30:]))

    def _strike(self, case: Case) -> None:
        dice = self._dice
        self._last = [*self._last[-40:], case]
        self._counts["requests"] += 1
        if len(self._connections) < CONNECTIONS or dice.random() < 0.02:
            connection = socket.create_connection(self._address, FRIEND_PATIENCE_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.append(connection)
        place = dice.randrange(len(self._connections))
        connection = self._connections[place]
        is_over = False
        frame = case.frame(self._counts["requests"])
        try:
            connection.settimeout(FRIEND_PATIENCE_S)
            if dice.random() < 0.3:
                cut = dice.randrange(len(frame) + 1)
                connection.sendall(frame[:cut])
                if dice.random() < 0.2:
                    is_over = True  # the rest never comes
                else:
                    connection.sendall(frame[cut:])
            else:
                connection.sendall(frame)
            if not is_over and dice.random() < 0.9:
                is_over = self._read(connection, case)
        except OSError:
            self._counts["closed"] += 1
            is_over = True
        if is_over or len(self._connections) > 3 * CONNECTIONS:
            self._connections.pop(place)
            connection.close()

    def _read(self, connection: socket.socket, case: Case) -> bool:
        """True when the connection is over, or is of no more use."""
        connection.settimeout(0.25 if case.is_right else 0.02)
        try:
            answer = read_frame(connection)
        except TimeoutError:
            self._counts["silent"] += 1
            return case.is_right or self._dice.random() < 0.5
        if answer is None:
            self._counts["closed"] += 1
            return True
        self._counts["answers"] += 1
        (correlation_id,) = struct.unpack_from(">i", answer)
        if case.is_right and correlation_id == self._counts["requests"] and case.version >= BY_KEY[case.key].lowest:
            self._check(case, answer)
        return False

    def _check(self, case: Case, answer: bytes) -> None:
        """An answer to a right request reads whole by its schema."""
        schema: Any = load_response_schema(case.key, case.version)
        header_reader: Any = entity_reader(schema.__header_schema__)
        reader: Any = entity_reader(schema)
        try:
            _, head = header_reader(answer, 0)
            _, size = reader(answer[head:], 0)
        except Exception as error:
            raise Found(f"{case}: an answer that no client reads: {error!r} {answer[:200]!r}") from error
        if head + size != len(answer):
            raise Found(f"{case}: {len(answer) - head - size} bytes after the answer")


def complaints(log: str) -> list[str]:
    """Lines of a broker's log that say that something of ours was raised."""
    with contextlib.suppress(ValueError):
        log = log[log.index("started") :]
    return [line for line in log.splitlines() if "Traceback" in line or "an error " in line or "FATAL" in line]

"""Requests that librdkafka's admin client does not have, sent to the broker that has to answer them: one at a time,
over plain connections."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from zkbroker.cli._common import DEFAULT_TIMEOUT_S, CommandError, client_config, read_properties
from zkbroker.kafka.messages import decode_response, encode_request
from zkbroker.kafka.versions import API_VERSIONS, BY_KEY, METADATA
from zkbroker.kafka.wire import DECODE_ERRORS, Reader, encode_string
from zkbroker.model.errors import ErrorCode

_CLIENT_ID = "zkbroker-tools"
_ANSWER_BYTES_MAX = 256 * 1024 * 1024
_RETRY_S = 0.2
_ALL_TOPICS = {
    "topics": None,
    "allow_auto_topic_creation": False,
    "include_cluster_authorized_operations": False,
    "include_topic_authorized_operations": False,
}


class BrokerConnection:
    """One connection. Versions are the newest that both sides know."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self._socket = socket.create_connection((host, port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._name = f"{host}:{port}"
        self._correlation = 0
        self._ranges: dict[int, tuple[int, int]] = {}
        self._ranges = {
            row.api_key: (row.min_version, row.max_version) for row in self.ask(API_VERSIONS, {}, version=0).api_keys
        }

    def close(self) -> None:
        self._socket.close()

    def ask(self, key: int, fields: Mapping[str, Any], version: int | None = None) -> SimpleNamespace:
        """The answer. Raises OSError when none comes, CommandError when the broker does not know the API."""
        if version is None:
            version = self._version(key)
        flexible = version >= BY_KEY[key].flexible_from
        self._correlation += 1
        head = struct.pack(">hhi", key, version, self._correlation) + encode_string(_CLIENT_ID, False)
        message = head + (b"\x00" if flexible else b"") + encode_request(key, version, fields)
        self._socket.sendall(struct.pack(">i", len(message)) + message)
        (size,) = struct.unpack(">i", self._receive(4))
        if not 4 <= size <= _ANSWER_BYTES_MAX:
            raise CommandError(f"{self._name} does not speak Kafka's protocol")
        reader = Reader(self._receive(size))
        try:
            if reader.int32() != self._correlation:
                raise CommandError(f"{self._name} answers another request")
            if flexible and key != API_VERSIONS:
                reader.skip_tags()
            return decode_response(key, version, reader)
        except DECODE_ERRORS:
            raise CommandError(f"{self._name} sent an answer that cannot be read") from None

    def _version(self, key: int) -> int:
        api = BY_KEY[key]
        lowest, highest = self._ranges.get(key, (1, 0))
        version = min(highest, api.maximum)
        if version < max(lowest, api.lowest):
            raise CommandError(f"{self._name} does not support the request ({api.name})")
        return version

    def _receive(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            data = self._socket.recv(min(size - len(received), 1024 * 1024))
            if not data:
                raise ConnectionError(f"{self._name} closed the connection")
            received += data
        return bytes(received)


class Brokers:
    """The brokers of a cluster, connected to when they are first asked."""

    def __init__(
        self, bootstrap_server: str, command_config: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        """Raises CommandError when no broker of ``bootstrap_server`` answers."""
        config = client_config(bootstrap_server, read_properties(command_config), defaults={})
        protocol = str(config.get("security.protocol", "plaintext"))
        if protocol.lower() != "plaintext":
            raise CommandError(f"security.protocol is {protocol}: only PLAINTEXT is supported yet")
        self._timeout_s = timeout_s
        self._open: dict[int, BrokerConnection] = {}
        self._first = self._bootstrap(bootstrap_server)
        self.addresses: dict[int, tuple[str, int]] = {}
        """Of the live brokers, by id."""
        self.topics: list[str] = []
        """All topics, by name."""
        self.controller_id = -1
        self._look()

    def __enter__(self) -> Brokers:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in {id(one): one for one in (self._first, *self._open.values())}.values():
            connection.close()

    def any(self, key: int, fields: Mapping[str, Any]) -> SimpleNamespace:
        """The answer of the broker that was reached first."""
        return self._first.ask(key, fields)

    def of(self, broker_id: int, key: int, fields: Mapping[str, Any]) -> SimpleNamespace:
        """The answer of this broker. Raises CommandError when there is no such broker, OSError without an answer."""
        try:
            return self._ask(broker_id, key, fields)
        except OSError as error:
            host, port = self.addresses[broker_id]
            raise ConnectionError(f"broker {broker_id} at {host}:{port}: {error.strerror or error}") from error

    def _ask(self, broker_id: int, key: int, fields: Mapping[str, Any]) -> SimpleNamespace:
        connection = self._open.get(broker_id)
        if connection is None:
            if broker_id not in self.addresses:
                known = ", ".join(map(str, sorted(self.addresses)))
                raise CommandError(f"there is no broker {broker_id}; there are {known}")
            connection = self._open[broker_id] = BrokerConnection(*self.addresses[broker_id], self._timeout_s)
        return connection.ask(key, fields)

    def controller(self, key: int, fields: Mapping[str, Any]) -> SimpleNamespace:
        """The answer of the broker that is controller. Raises CommandError while there is none."""
        give_up_at = time.monotonic() + self._timeout_s
        while self.controller_id not in self.addresses:
            if time.monotonic() >= give_up_at:
                raise CommandError("there is no controller")
            time.sleep(_RETRY_S)
            self._look()
        return self.of(self.controller_id, key, fields)

    def _bootstrap(self, servers: str) -> BrokerConnection:
        failure = "no server is named"
        for server in servers.split(","):
            host, _, port = server.strip().rpartition(":")
            try:
                return BrokerConnection(host.strip("[]"), int(port), self._timeout_s)
            except ValueError:
                raise CommandError(f"{server} is not host:port") from None
            except OSError as error:
                failure = f"{server.strip()}: {error.strerror or error}"
        raise CommandError(f"no broker answered ({failure})")

    def _look(self) -> None:
        answer = self._first.ask(METADATA, _ALL_TOPICS)
        self.addresses = {row.node_id: (row.host, row.port) for row in answer.brokers}
        self.topics = sorted(row.name for row in answer.topics if row.error_code == ErrorCode.NONE and row.name)
        self.controller_id = answer.controller_id


def error_text(code: int, message: str | None) -> str:
    """The broker's words, or the error's name."""
    return message or (ErrorCode(code).name if code in set(ErrorCode) else f"error {code}")

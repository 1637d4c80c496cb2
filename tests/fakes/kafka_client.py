"""The client's side of Kafka's protocol, by kio's own classes: what the listener's codecs are held against."""

from __future__ import annotations

import datetime
import io
import struct
from typing import Any

from kio.index import load_payload_module, load_request_schema, load_response_schema
from kio.serial import entity_reader, entity_writer
from kio.static.constants import EntityType
from twisted.internet import task
from twisted.internet.testing import StringTransport
from twisted.logger import Logger

from tests.fakes.broker import LIMITS, FakeBroker, MonotonicClock
from tests.fakes.groups import FakeGroups
from zkbroker.kafka.connection import KafkaConnection
from zkbroker.kafka.listener import KafkaFactory
from zkbroker.kafka.ports import ListenerLimits


def milliseconds(value: int) -> Any:
    return datetime.timedelta(milliseconds=value)


def encode(entity: Any) -> bytes:
    out = io.BytesIO()
    entity_writer(type(entity))(out, entity)
    return out.getvalue()


def decode(schema: type, data: bytes) -> Any:
    """One entity that fills ``data`` exactly."""
    entity, size = entity_reader(schema)(bytes(data), 0)
    assert size == len(data), f"{size} of {len(data)} bytes read as {schema}"
    return entity


def request_schemas(key: int, version: int) -> Any:
    """The module with the request's classes."""
    return load_payload_module(key, version, EntityType.request)


def response_schemas(key: int, version: int) -> Any:
    return load_payload_module(key, version, EntityType.response)


def frame(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def request_bytes(message: Any, correlation_id: int = 1, client_id: str | None = "tests") -> bytes:
    """A whole frame: length, header, body."""
    schema = type(message)
    header = schema.__header_schema__(
        request_api_key=schema.__api_key__,
        request_api_version=schema.__version__,
        correlation_id=correlation_id,
        client_id=client_id,
    )
    return frame(encode(header) + encode(message))


def frames_of(data: bytes) -> list[bytes]:
    found = []
    while data:
        (size,) = struct.unpack_from(">i", data)
        assert len(data) >= 4 + size, "a response is cut off"
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def response_of(message: Any, data: bytes) -> tuple[int, Any]:
    """(correlation id, response) of one response frame to ``message``."""
    request = type(message)
    schema = load_response_schema(request.__api_key__, request.__version__)
    header, size = entity_reader(schema.__header_schema__)(data, 0)
    return header.correlation_id, decode(schema, data[size:])


def request_schema(key: int, version: int) -> Any:
    return load_request_schema(key, version)


class Transport(StringTransport):
    """Remembers that it was aborted or closed, and hands out what was written."""

    def writeSequence(self, data: Any) -> None:
        for piece in data:
            self.write(piece)  # which takes bytes only, as real transports do

    def take(self) -> bytes:
        data = self.value()
        self.clear()
        return data

    @property
    def is_paused(self) -> bool:
        return self.producerState == "paused"

    @property
    def is_closed(self) -> bool:
        return self.disconnecting or self.disconnected


class Listener:
    """A listener on a fake broker and a ``task.Clock``."""

    def __init__(self, **limits: Any) -> None:
        self.clock = task.Clock()
        self.broker = FakeBroker(reactor=self.clock)
        self.groups = FakeGroups()
        self.events: list[dict[str, Any]] = []
        self.fatal: list[tuple[str, BaseException]] = []
        self.limits: ListenerLimits = LIMITS._replace(**limits)
        self.factory = KafkaFactory(
            listener_name="PLAINTEXT",
            data=self.broker,
            metadata=self.broker,
            admin=self.broker,
            producer_ids=self.broker,
            limits=self.limits,
            clock=MonotonicClock(self.clock),
            reactor=self.clock,
            log=Logger("test", observer=self.events.append),
            fatal=lambda where, error: self.fatal.append((where, error)),
            groups=self.groups,
            coordinators=self.groups,
        )
        self.factory.doStart()

    def connect(self) -> tuple[KafkaConnection, Transport]:
        connection = self.factory.buildProtocol(None)
        assert isinstance(connection, KafkaConnection)
        transport = Transport()
        connection.makeConnection(transport)
        return connection, transport

    def ask(self, message: Any, correlation_id: int = 7) -> Any:
        """The response to one request on a connection of its own."""
        connection, transport = self.connect()
        connection.dataReceived(request_bytes(message, correlation_id))
        (data,) = frames_of(transport.take())
        answered_id, response = response_of(message, data)
        assert answered_id == correlation_id
        return response

"""One request on its way through the listener, and what the API files have at hand to answer it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from zkbroker.kafka.fetch_sessions import FetchSessions
from zkbroker.kafka.group_ports import CoordinatorPort, GroupPort
from zkbroker.kafka.ports import AdminPort, Cancellable, DataPort, ListenerLimits, MetadataPort, ProducerIdPort
from zkbroker.kafka.versions import (
    ALTER_CONFIGS,
    API_VERSIONS,
    CREATE_PARTITIONS,
    CREATE_TOPICS,
    DELETE_TOPICS,
    FETCH,
    INCREMENTAL_ALTER_CONFIGS,
    PRODUCE,
)
from zkbroker.kafka.wire import ARRAY_ELEMENTS_MAX, Reader
from zkbroker.model.errors import BrokerError, ErrorCode

R = TypeVar("R")

_PREFIX = struct.Struct(">ii")

_ELEMENTS_MAX = {
    PRODUCE: 20_000,
    FETCH: 60_000,
    CREATE_TOPICS: 45_000,
    **dict.fromkeys((DELETE_TOPICS, CREATE_PARTITIONS, ALTER_CONFIGS, INCREMENTAL_ALTER_CONFIGS), 30_000),
}
"""Elements of all arrays of requests that are worked on in one turn of the reactor, where ARRAY_ELEMENTS_MAX would keep
it for a second or more. A Produce appends some 40 µs long for each (1 MiB, what Java's client sends at most by default,
has no room for more); ten thousand partitions that are created, the most there may be, have four each."""

Chunks = Sequence[bytes | memoryview]


class Connection(Protocol):
    """The connection as a request sees it."""

    repeated: Any
    """The last Fetch, if its client may send it again word for word (``fetch_serving.Repeated``), or None."""

    def repeat(self, repeated: Any) -> None:
        """Keep this instead; what was kept before is closed."""
        ...

    @property
    def client_host(self) -> str:
        """The client's address as Kafka writes it, ``/127.0.0.1``."""
        ...

    def answered(self, request: Request) -> None:
        """``request.response`` is there (or nothing is to be sent): write what is next in order."""
        ...

    def request_failed(self, request: Request, message: Any, failure: Failure) -> None:
        """Something of ours raised while the request was worked on."""
        ...


class Services(NamedTuple):
    """What the API files call: the ports of the broker, and this listener's own things."""

    data: DataPort
    metadata: MetadataPort
    admin: AdminPort
    producer_ids: ProducerIdPort
    limits: ListenerLimits
    listener: str
    metadata_parts: dict[Any, Any]
    """Encoded parts of Metadata answers, kept while ``metadata.version`` stays; see metadata.py."""
    groups: GroupPort
    coordinators: CoordinatorPort
    fetch_sessions: FetchSessions
    answer_bytes_max: Callable[[], int]
    """How much a Fetch may be answered with now."""
    call_later: Callable[[float, Callable[[], None]], Any]
    """The reactor's: long work goes on in a later turn."""


class Request:
    """A request with its place in the order of answers. The API files call ``answer``, ``answer_nothing`` or ``close``
    exactly once."""

    __slots__ = (
        "body_offset",
        "cancellable",
        "client_id",
        "connection",
        "correlation_id",
        "flexible",
        "frame",
        "is_done",
        "key",
        "must_close",
        "response",
        "response_size",
        "size",
        "version",
    )

    def __init__(
        self,
        connection: Connection,
        frame: bytes,
        key: int,
        version: int,
        correlation_id: int,
        client_id: str | None,
        flexible: bool,
        body_offset: int,
    ) -> None:
        self.connection = connection
        self.frame: bytes | None = frame
        self.size = len(frame)
        self.key = key
        self.version = version
        self.correlation_id = correlation_id
        self.client_id = client_id
        self.flexible = flexible
        self.body_offset = body_offset
        self.is_done = False
        self.must_close = False
        self.response: list[bytes | memoryview] = []
        self.response_size = 0
        self.cancellable: Cancellable | None = None
        """Set while a port works on it: cancelled when the client goes away."""

    def __repr__(self) -> str:
        return f"Request(key={self.key}, v{self.version}, correlation={self.correlation_id}, done={self.is_done})"

    def reader(self) -> Reader:
        """A reader at the beginning of the body; afterwards the request itself holds the frame no more."""
        frame = self.frame
        self.frame = None
        reader = Reader(frame or b"", self.body_offset)
        reader.elements_left = _ELEMENTS_MAX.get(self.key, ARRAY_ELEMENTS_MAX)
        return reader

    def answer(self, body: bytes) -> None:
        """Send a response body; its header is put before it."""
        self.answer_chunks((body,), len(body))

    def answer_chunks(self, chunks: Chunks, size: int) -> None:
        """The same for a body in pieces of together ``size`` bytes, which are not joined."""
        if self.is_done:
            return
        if self.flexible and self.key != API_VERSIONS:  # KIP-511: its response header never has tags
            header = _PREFIX.pack(size + 5, self.correlation_id) + b"\x00"
        else:
            header = _PREFIX.pack(size + 4, self.correlation_id)
        self.response = [header, *chunks]
        self.response_size = size + len(header)
        self.finish()

    def waits_for(self, cancellable: Cancellable | None) -> None:
        """A port that parked this request is told when the client goes away."""
        if not self.is_done:
            self.cancellable = cancellable

    def answer_nothing(self) -> None:
        """acks=0: the client waits for no response."""
        self.finish()

    def close(self) -> None:
        """Close the connection once what came before is answered (acks=0 with an error)."""
        self.must_close = True
        self.finish()

    def finish(self) -> None:
        if self.is_done:
            return
        self.is_done = True
        self.cancellable = None
        self.connection.answered(self)


class Api(NamedTuple):
    """How one API is served. ``decode`` raises one of ``wire.DECODE_ERRORS`` for garbage; ``serve`` answers now or
    later; ``refuse`` answers a decoded request with one error for everything in it."""

    decode: Callable[[Request], Any]
    serve: Callable[[Services, Request, Any], None]
    refuse: Callable[[Request, Any, ErrorCode, str | None], None]


def guarded(request: Request, message: Any, answer: Callable[[R], None]) -> Callable[[R], None]:
    """A callback for a port: what our encoding raises is our connection's matter, never the port's."""

    def done(result: R) -> None:
        try:
            answer(result)
        except Exception:
            request.connection.request_failed(request, message, Failure())

    return done


def when_done(
    request: Request,
    message: Any,
    deferred: Deferred[Any],
    answer: Callable[[Any], None],
    refuse: Callable[[Request, Any, ErrorCode, str | None], None],
) -> None:
    """Answer with the result; a BrokerError refuses the request; anything else is our fault and is told so."""

    def failed(failure: Failure) -> None:
        error = failure.value
        if isinstance(error, BrokerError):
            refuse(request, message, error.error, str(error))
        else:
            request.connection.request_failed(request, message, failure)

    deferred.addCallback(answer).addErrback(failed)

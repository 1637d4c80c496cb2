"""One client's connection: frames in, requests dispatched, answers out in the order of the requests."""

from __future__ import annotations

import ipaddress
import struct
from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer  # type: ignore[import-untyped]

from zkbroker.kafka.api_versions import encode_unsupported
from zkbroker.kafka.apis import APIS
from zkbroker.kafka.framing import FrameError, Frames
from zkbroker.kafka.in_parts import InParts, route_of
from zkbroker.kafka.request import Request
from zkbroker.kafka.versions import (
    API_VERSIONS,
    BY_KEY,
    DESCRIBE_GROUPS,
    FETCH,
    FIND_COORDINATOR,
    HEARTBEAT,
    JOIN_GROUP,
    LEAVE_GROUP,
    OFFSET_COMMIT,
    OFFSET_FETCH,
    SYNC_GROUP,
)
from zkbroker.kafka.wire import DECODE_ERRORS, MalformedRequest, Reader
from zkbroker.model.errors import ErrorCode, InvariantViolation

if TYPE_CHECKING:
    from zkbroker.kafka.listener import KafkaFactory

REQUESTS_IN_FLIGHT_MAX = 100
"""Requests of one connection that are begun and not answered; past it the connection is not read."""

FRAME_CLAIM_BYTES = 16_384
"""Memory that a frame claims when its length is known and the rest is not here yet."""

WRITE_SLICE_BYTES = 262_144
"""A larger answer is given to the transport in such slices, so that the client's progress is seen and no more than a
slice is copied at once."""

_HEADER = struct.Struct(">hhi")

_SHARED = frozenset(
    (FIND_COORDINATOR, JOIN_GROUP, SYNC_GROUP, HEARTBEAT, LEAVE_GROUP, OFFSET_COMMIT, OFFSET_FETCH, DESCRIBE_GROUPS)
)
"""What many clients ask at once; see shares.py."""


@implementer(IPushProducer)
class KafkaConnection(Protocol):
    """Registered as the transport's producer, so that a client that does not read its answers stops being read."""

    def __init__(self, factory: KafkaFactory) -> None:
        self.factory: KafkaFactory = factory
        self.frames = Frames(factory.limits.socket_request_max_bytes)
        self.last_received_at = factory.clock.monotonic()
        self.peer = "?"
        self._requests: deque[Request] = deque()
        """Begun and not written yet, oldest first."""
        self._held: Request | None = None
        """Read but not begun: waits for the broker to be ready, or for the Fetch before it to be written."""
        self._fetch: Request | None = None
        """The one Fetch that is begun: its answer can be large, so the next one waits until it is written."""
        self._parked: Request | None = None
        """A JoinGroup or SyncGroup without an answer."""
        self._large: Request | None = None
        """One that is worked on in parts: nothing comes between them."""
        self.repeated: Any = None
        self._unsent: deque[bytes | memoryview] = deque()
        """Pieces of large answers that the transport has no room for yet."""
        self._unsent_bytes = 0
        self.last_sent_at = self.last_received_at
        self._close_when_sent = False
        self._claimed_bytes = 0
        self._frame_claimed_bytes = 0
        """Of the frame begun; 0 between frames."""
        self._is_write_paused = False
        self._is_reading = True
        self._is_working = False
        self.is_closed = False

    def __repr__(self) -> str:
        return f"KafkaConnection({self.peer}, in_flight={len(self._requests)}, closed={self.is_closed})"

    # What the transport calls

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self.peer = _peer_text(transport)
        for option in ("setTcpNoDelay", "setTcpKeepAlive"):  # as Kafka sets them; not every transport is TCP
            if hasattr(transport, option):
                getattr(transport, option)(True)
        transport.registerProducer(self, True)
        self.factory.connection_opened(self)

    def dataReceived(self, data: bytes) -> None:
        if self.is_closed:
            return
        self.last_received_at = self.factory.clock.monotonic()
        self.frames.feed(data)
        self._work()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.is_closed = True
        factory = self.factory
        factory.connection_closed(self)
        factory.memory.forget(self)
        factory.unsent_memory.forget(self)
        factory.shares.forget(self)
        for request in self._requests:
            request.is_done = True
            if request.cancellable is not None:
                request.cancellable.cancel()
                request.cancellable = None
        self._requests.clear()
        self.repeat(None)
        self._held = None
        self._fetch = None
        self._parked = None
        self._large = None
        claimed, self._claimed_bytes = self._claimed_bytes, 0
        factory.memory.release(claimed)
        self._unsent.clear()
        unsent, self._unsent_bytes = self._unsent_bytes, 0
        factory.unsent_memory.release(unsent)

    def pauseProducing(self) -> None:
        """The client is slow to read: begin no more requests until what was written is gone."""
        self._is_write_paused = True

    def resumeProducing(self) -> None:
        self._is_write_paused = False
        if self._unsent:
            self._send_unsent()
        self._work()

    def stopProducing(self) -> None:
        self._is_write_paused = True

    # What the factory calls

    @property
    def is_idle(self) -> bool:
        """No request is being worked on: nothing happens unless the client reads or writes."""
        return not self._requests and (self._held is None or self._is_write_paused)

    @property
    def is_inside_frame(self) -> bool:
        """The rest of a frame is awaited, for which memory is claimed already."""
        return self._frame_claimed_bytes > 0 and self._is_reading

    @property
    def has_unsent(self) -> bool:
        """A large answer waits for the client to read."""
        return self._unsent_bytes > 0

    @property
    def client_host(self) -> str:
        """The client's address as Java writes it: after a slash, IPv6 in full without leading zeros."""
        transport: Any = self.transport
        host = getattr(transport.getPeer(), "host", "")
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return f"/{host}"
        if address.version == 4:
            return f"/{address}"
        if address.ipv4_mapped is not None:
            return f"/{address.ipv4_mapped}"
        return "/" + ":".join(f"{int(part, 16):x}" for part in address.exploded.split(":"))

    def memory_freed(self) -> None:
        self._work()

    def share_came(self) -> None:
        self._work()

    def became_ready(self) -> None:
        """The broker knows the cluster now: begin what was held."""
        self._work()

    def close(self, reason: str | None = None) -> None:
        """End the connection at once. With a ``reason`` a line is logged, at a bounded rate."""
        if reason is not None and not self.is_closed:
            self.factory.complain(self.peer, reason)
        self.is_closed = True
        transport: Any = self.transport
        transport.abortConnection()

    # Requests in

    def _work(self) -> None:
        """Begin every request that may begin now, then read on or stop reading."""
        if self._is_working or self.is_closed:
            return
        self._is_working = True
        try:
            wants_more = self._begin_requests()
        except (FrameError, *DECODE_ERRORS) as error:
            self.close(f"{type(error).__name__}: {error}")
            return
        except InvariantViolation as violation:
            self.factory.fatal(f"working on {self!r}", violation)
            return
        except Exception:
            self.factory.log.failure("an error in the Kafka listener closes the connection from {peer}", peer=self.peer)
            self.close()
            return
        finally:
            self._is_working = False
        if wants_more != self._is_reading and not self.is_closed:
            self._is_reading = wants_more
            transport: Any = self.transport
            if wants_more:
                transport.resumeProducing()
            else:
                transport.pauseProducing()

    def _begin_requests(self) -> bool:
        """True when only more bytes from the network can lead further."""
        frames = self.frames
        while not self.is_closed:
            if self._is_write_paused or self._unsent or len(self._requests) >= REQUESTS_IN_FLIGHT_MAX:
                return False
            request = self._held
            if request is None:
                if not frames.begin_frame():
                    return True
                if not self._claim_frame():
                    return False
                frame = frames.next_frame()
                if frame is None:
                    return True
                self._frame_claimed_bytes = 0
                self.factory.memory.frame_ended(self)
                request = self._parse(frame)
            if not self._may_begin(request):
                self._held = request
                return False
            self._held = None
            self._begin(request)
        return False

    def _claim_frame(self) -> bool:
        """Claim memory for what is here of the frame begun and as much again, FRAME_CLAIM_BYTES at first."""
        size, claimed, arrived = self.frames.frame_size, self._frame_claimed_bytes, self.frames.arrived_bytes
        if claimed and (arrived < claimed or claimed == size):
            return True
        wanted = min(size, max(FRAME_CLAIM_BYTES, 2 * arrived)) - claimed
        if not self.factory.memory.claim(self, wanted, claimed > 0):
            return False
        self._claimed_bytes += wanted
        self._frame_claimed_bytes = claimed + wanted
        return True

    def _parse(self, frame: bytes) -> Request:
        """The request header, version 1 or 2. Raises one of DECODE_ERRORS, also for APIs that are not served."""
        key, version, correlation_id = _HEADER.unpack_from(frame, 0)
        api = BY_KEY.get(key)
        if api is None:
            raise MalformedRequest(f"unknown API key {key} (version {version})")
        if not api.minimum <= version <= api.maximum:
            if key != API_VERSIONS:
                raise MalformedRequest(f"unsupported version {version} of {api.name}")
            return Request(self, frame, key, version, correlation_id, None, False, len(frame))
        flexible = version >= api.flexible_from
        reader = Reader(frame, 8)
        client_id = reader.client_id()
        if flexible:
            reader.skip_tags()
        return Request(self, frame, key, version, correlation_id, client_id, flexible, reader.offset)

    def _may_begin(self, request: Request) -> bool:
        if request.key == API_VERSIONS:
            return True
        if not self.factory.services.metadata.is_ready:
            self.factory.wait_until_ready(self)
            return False
        if self._large is not None:
            return False
        key = request.key
        if self._parked is not None and key != LEAVE_GROUP:
            # Kafka works on one request of a connection at a time. A second JoinGroup of the member would take the
            # place of the first, whose answer would never come. To leave ends the wait.
            return False
        if key in _SHARED:
            if key == OFFSET_FETCH and any(one.key == OFFSET_COMMIT and not one.is_done for one in self._requests):
                return False  # it sees what was committed before it
            return self.factory.shares.claim(self)
        if key != FETCH:
            return True
        return self._fetch is None and self.factory.unsent_memory.claim(self, 0)

    def _begin(self, request: Request) -> None:
        self._requests.append(request)
        if request.key == FETCH:
            self._fetch = request
        elif request.key in (JOIN_GROUP, SYNC_GROUP):
            self._parked = request
        elif request.key == API_VERSIONS and not 0 <= request.version <= BY_KEY[API_VERSIONS].maximum:
            request.answer(encode_unsupported())
            return
        api = APIS[request.key]
        route = route_of(request)
        if route is not None:
            self._large = request
            InParts(lambda: self.factory.services, self.factory.shares, self, request, api, route).start()
            return
        message = api.decode(request)
        try:
            api.serve(self.factory.services, request, message)
        except Exception:
            self.request_failed(request, message, Failure())
        if request.key in _SHARED:
            self.factory.shares.ended()

    def repeat(self, repeated: Any) -> None:
        """Connection: a Fetch that may come again."""
        kept, self.repeated = self.repeated, repeated
        if kept is not None and kept is not repeated:
            kept.close()

    # Answers out

    def answered(self, request: Request) -> None:
        requests = self._requests
        if self.is_closed or not requests or requests[0] is not request:
            return
        transport: Any = self.transport
        released = 0
        while requests and requests[0].is_done:
            first = requests.popleft()
            if first is self._fetch:
                self._fetch = None
            elif first is self._parked:
                self._parked = None
            elif first is self._large:
                self._large = None
            released += first.size
            if first.must_close:
                self.is_closed = True
                self._close_when_sent = True
                break
            if first.response_size <= WRITE_SLICE_BYTES and not self._unsent:
                if first.response:
                    transport.writeSequence(_as_bytes(first.response))
            else:
                self._unsent.extend(first.response)
                self._unsent_bytes += first.response_size
                self.factory.unsent_memory.add(first.response_size)
        if self._unsent or self._close_when_sent:
            self._send_unsent()
        self._claimed_bytes -= released
        self.factory.memory.release(released)
        if not self._is_working:
            self._work()

    def _send_unsent(self) -> None:
        """Give the transport what it has room for; it says ``pauseProducing`` when it has enough."""
        transport: Any = self.transport
        unsent = self._unsent
        while unsent and not self._is_write_paused:
            pieces: list[bytes | memoryview] = []
            size = 0
            while unsent and size < WRITE_SLICE_BYTES:
                piece = unsent.popleft()
                if size + len(piece) > 2 * WRITE_SLICE_BYTES:
                    view = memoryview(piece)
                    unsent.appendleft(view[WRITE_SLICE_BYTES:])
                    piece = view[:WRITE_SLICE_BYTES]
                pieces.append(piece)
                size += len(piece)
            self._unsent_bytes -= size
            self.last_sent_at = self.factory.clock.monotonic()
            transport.writeSequence(_as_bytes(pieces))
            self.factory.unsent_memory.release(size)
        if self._close_when_sent and not unsent:
            transport.unregisterProducer()
            transport.loseConnection()

    def request_failed(self, request: Request, message: Any, failure: Failure) -> None:
        """Something of ours raised. The client gets UNKNOWN_SERVER_ERROR; a broken invariant ends the process."""
        factory = self.factory
        if failure.check(InvariantViolation):
            factory.fatal(f"serving {request!r} of {self.peer}", failure.value)  # type: ignore[arg-type]
            return
        factory.log.failure("an error while serving {request} of {peer}", failure, request=request, peer=self.peer)
        if request.is_done:
            self.close()
            return
        try:
            APIS[request.key].refuse(request, message, ErrorCode.UNKNOWN_SERVER_ERROR, None)
        except Exception:
            factory.log.failure("no answer can be formed for {request} of {peer}", request=request, peer=self.peer)
            self.close()


def _as_bytes(pieces: list[bytes | memoryview]) -> list[bytes]:
    """Twisted takes no views: those are copied, what is bytes already is not."""
    return [piece if type(piece) is bytes else bytes(piece) for piece in pieces]


def _peer_text(transport: Any) -> str:
    address = transport.getPeer()
    host = getattr(address, "host", None)
    return f"{host}:{getattr(address, 'port', '?')}" if host is not None else str(address)

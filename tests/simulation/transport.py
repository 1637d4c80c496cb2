"""What a process of a simulated world holds of the network: listening ports, connectors, and the ends of connections as
Twisted transports."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from tests.simulation.events import Event

if TYPE_CHECKING:
    from tests.simulation.network import Network
    from tests.simulation.process import Process


class End(Enum):
    """How a pipe ends for its reader."""

    FIN = "FIN"
    RST = "RST"


class Listener:
    """A port on which a process accepts; what ``adoptStreamPort`` returns."""

    def __init__(self, network: Network, process: Process, port: int, factory: Any) -> None:
        self.network = network
        self.process = process
        self.port = port
        self.factory = factory
        factory.doStart()

    def __repr__(self) -> str:
        return f"Listener({self.process} port {self.port})"

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", self.process.node.host, self.port)

    def stopListening(self) -> Deferred[None]:
        if self.network.remove_listener(self):
            self.factory.doStop()
        return succeed(None)


class Pipe:
    """Bytes on their way from one end of a connection to the other."""

    __slots__ = ("chunks", "end", "event", "is_blackhole", "reader", "size", "writer")

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self.size = 0
        self.end: End | None = None
        """Comes behind the bytes."""
        self.event: Event | None = None
        """The next delivery; None when nothing is under way, or it waits for something else than time."""
        self.is_blackhole = False
        """The reader's machine is gone without a word, or came back and knows nothing of this connection."""
        self.writer: Transport
        self.reader: Transport

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        chunks = self.chunks
        if size >= self.size:
            data = chunks.popleft() if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
            self.size = 0
            return data
        parts = []
        self.size -= size
        while size:
            chunk = chunks.popleft()
            if len(chunk) > size:
                chunks.appendleft(chunk[size:])
                chunk = chunk[:size]
            parts.append(chunk)
            size -= len(chunk)
        return b"".join(parts)

    def keep_only(self, size: int) -> None:
        """What is behind the first ``size`` bytes never arrives."""
        if size < self.size:
            kept = self.take(size)
            self.chunks.clear()
            self.chunks.append(kept)
            self.size = size


class Transport:
    """One end of a connection, as a Twisted protocol sees it."""

    def __init__(self, network: Network, process: Process, own: IPv4Address, peer: IPv4Address, limit: int) -> None:
        self._network = network
        self.process = process
        self._own = own
        self._peer = peer
        self._limit = limit
        """With more than this under way the producer is paused."""
        self.protocol: Any = None
        self.connector: Connector | None = None
        self.outgoing: Pipe
        self.incoming: Pipe
        self.connected = False
        self.disconnecting = False
        self.is_gone = False
        """connectionLost was said, or there is nobody to say it to."""
        self.is_reading = True
        self._producer: Any = None
        self._is_producer_paused = False

    def __repr__(self) -> str:
        return f"Transport({self._own.host}:{self._own.port} to {self._peer.host}:{self._peer.port})"

    @property
    def other(self) -> Transport:
        return self.outgoing.reader

    # What protocols call

    def write(self, data: bytes) -> None:
        if self.disconnecting or not self.process.is_alive or not data:
            return
        if not isinstance(data, bytes):
            raise TypeError(f"a transport takes bytes, not {type(data).__name__}")
        pipe = self.outgoing
        pipe.chunks.append(data)
        pipe.size += len(data)
        if pipe.event is None:
            self._network.carry(pipe)
        if pipe.size > self._limit and self._producer is not None and not self._is_producer_paused:
            self._is_producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, pieces: Sequence[bytes]) -> None:
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:
        """Close; the kernel sends what was written."""
        if self.disconnecting or not self.process.is_alive:
            return
        self.disconnecting = True
        self._network.close(self)
        self._network.lost_later(self, error.ConnectionDone())

    def abortConnection(self) -> None:
        if not self.process.is_alive or self.is_gone:
            return
        self.disconnecting = True
        self._network.reset(self)
        self._network.lost_later(self, error.ConnectionDone())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        self.is_reading = False

    def resumeProducing(self) -> None:
        if not self.is_reading and not self.disconnecting:
            self.is_reading = True
            self._network.carry_again(self.incoming)

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> IPv4Address:
        return self._peer

    def getHost(self) -> IPv4Address:
        return self._own

    def setTcpNoDelay(self, enabled: bool) -> None:
        """It makes no difference here."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """It makes no difference here: hours do not pass."""

    # What the network calls

    def made(self, factory: Any) -> None:
        """The process learns of the connection."""
        if self.is_gone:
            return
        protocol = factory.buildProtocol(self._peer)
        if protocol is None:
            self.abortConnection()
            return
        self.connected = True
        self.protocol = protocol
        protocol.makeConnection(self)
        self._network.carry_again(self.incoming)

    def writable(self) -> None:
        """There is room for more."""
        if self._is_producer_paused and not self.disconnecting:
            self._is_producer_paused = False
            if self._producer is not None:
                self._producer.resumeProducing()

    def room_made(self) -> None:
        if self._is_producer_paused and not self.is_gone:
            self._network.soon(self.process, "writable", self.writable)

    def lost(self, reason: error.ConnectionClosed) -> None:
        """The process learns that the connection is over."""
        if self.is_gone:
            return
        self.is_gone = True
        self.connected = False
        self.disconnecting = True
        self.process.connections.pop(self, None)
        protocol, self._producer = self.protocol, None
        failure = Failure(reason)
        if protocol is not None:
            protocol.connectionLost(failure)
        connector = self.connector
        if connector is not None:
            connector.factory.clientConnectionLost(connector, failure)
            connector.factory.doStop()


class Connector:
    """What ``connectTCP`` returns."""

    def __init__(self, network: Network, process: Process, host: str, port: int, factory: Any, timeout: float) -> None:
        self._network = network
        self.process = process
        self.host = host
        self.port = port
        self.factory = factory
        self.transport: Transport | None = None
        self.is_over = False
        """Answered in either way."""
        factory.doStart()
        factory.startedConnecting(self)
        self._timer = process.reactor.callLater(timeout, self.fail, error.TimeoutError())

    def __repr__(self) -> str:
        return f"Connector({self.process} to {self.host}:{self.port})"

    def getDestination(self) -> IPv4Address:
        return IPv4Address("TCP", self.host, self.port)

    def disconnect(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()
        else:
            self.stopConnecting()

    def stopConnecting(self) -> None:
        if not self.is_over:
            self._network.soon(self.process, "connect", self.fail, error.UserError())

    def fail(self, reason: Exception) -> None:
        if self.is_over:
            return
        self._settled()
        self.factory.clientConnectionFailed(self, Failure(reason))
        self.factory.doStop()

    def made(self, transport: Transport) -> None:
        if self.is_over or not self.process.is_alive:
            self._network.reset(transport)
            transport.is_gone = True
            self.process.connections.pop(transport, None)
            return
        if transport.is_gone:
            # Reset before the caller heard that it is connected.
            self.fail(error.ConnectError(errno.ECONNRESET))
            return
        self._settled()
        self.transport = transport
        transport.connector = self
        transport.made(self.factory)

    def _settled(self) -> None:
        self.is_over = True
        if self._timer.active():
            self._timer.cancel()

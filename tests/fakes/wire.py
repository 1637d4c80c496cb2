"""TCP in memory: one object is reactor and clock of several brokers, and moves bytes when it is told to."""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.internet.task import Clock
from twisted.python.failure import Failure

BUFFER_BYTES = 65_536
"""What a transport holds before it pauses its producer, as Twisted's do."""


class WireTransport:
    """One end of a connection."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.other: WireTransport | None = None
        self.protocol: Any = None
        self.unsent = bytearray()
        self.sent = bytearray()
        """All that was ever delivered to the other end."""
        self.reads = True
        """False: this end does not read, so that the other's bytes stay where they are."""
        self.disconnecting = False
        self.is_lost = False
        self._producer: Any = None
        self._producer_paused = False

    def write(self, data: bytes) -> None:
        if type(data) is not bytes:
            raise TypeError("a transport takes bytes only")
        if not self.is_lost and not self.disconnecting:
            self.unsent += data
            if len(self.unsent) > BUFFER_BYTES and self._producer is not None and not self._producer_paused:
                self._producer_paused = True
                self._producer.pauseProducing()

    def writeSequence(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.unsent.clear()
        self.disconnecting = True
        self._wire.cut(self)

    def getPeer(self) -> str:
        return "peer"

    def getHost(self) -> str:
        return "host"

    def deliver(self, size: int) -> bool:
        """Hand up to ``size`` bytes to the other end. True if anything happened."""
        other = self.other
        if other is None or self.is_lost:
            return False
        happened = False
        if self.unsent and other.reads and not other.is_lost:
            data = bytes(self.unsent[:size])
            del self.unsent[:size]
            self.sent += data
            other.protocol.dataReceived(data)
            happened = True
        if not self.unsent and self._producer_paused:
            self._producer_paused = False
            happened = True
            if self._producer is not None:
                self._producer.resumeProducing()
        if not self.unsent and self.disconnecting and not self.is_lost:
            self._wire.cut(self)
            happened = True
        return happened


class Wire(Clock):
    """The reactor and the clock (``monotonic``, ``wall_ms``) of every broker on it."""

    def __init__(self, read_bytes: int = 65_536) -> None:
        super().__init__()
        self.read_bytes = read_bytes
        self.listeners: dict[tuple[str, int], Any] = {}
        self.transports: list[WireTransport] = []
        self.is_refusing = False

    def monotonic(self) -> float:
        return self.seconds()

    def wall_ms(self) -> int:
        return int(self.seconds() * 1000)

    def listen(self, host: str, port: int, factory: Any) -> None:
        self.listeners[host, port] = factory

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> None:
        self.callLater(0, self._connect, host, port, factory)

    def _connect(self, host: str, port: int, factory: Any) -> None:
        listener = self.listeners.get((host, port))
        server_protocol = None if listener is None or self.is_refusing else listener.buildProtocol(None)
        if server_protocol is None:
            factory.clientConnectionFailed(None, Failure(error.ConnectionRefusedError()))
            return
        client_protocol = factory.buildProtocol(None)
        if client_protocol is not None:
            self.join(client_protocol, server_protocol)

    def join(self, client_protocol: Any, server_protocol: Any) -> WireTransport:
        """Connect two protocols. Returns the client's end."""
        client, server = WireTransport(self), WireTransport(self)
        client.other, server.other = server, client
        client.protocol, server.protocol = client_protocol, server_protocol
        self.transports += [client, server]
        server_protocol.makeConnection(server)
        client_protocol.makeConnection(client)
        return client

    def cut(self, end: WireTransport) -> None:
        """The connection is over for both ends."""
        for each in (end, end.other):
            if each is not None and not each.is_lost:
                each.is_lost = True
                self.callLater(0, each.protocol.connectionLost, Failure(error.ConnectionDone()))
        self.transports = [each for each in self.transports if not each.is_lost]

    def forget(self, end: WireTransport) -> None:
        """The network gave this end up; the other never hears of it."""
        end.is_lost = True
        self.callLater(0, end.protocol.connectionLost, Failure(error.TimeoutError()))
        self.transports = [each for each in self.transports if not each.is_lost]

    def run(self, seconds: float = 0.0, step: float = 0.001) -> None:
        """Deliver everything and run what is due, while that much time passes."""
        end = self.seconds() + seconds
        while True:
            for _ in range(10_000):
                self.advance(0)
                happened = [each.deliver(self.read_bytes) for each in list(self.transports)]
                if not any(happened) and not self._due():
                    break
            else:
                raise AssertionError("the wire does not come to rest")
            if self.seconds() >= end - 1e-9:
                return
            self.advance(min(step, end - self.seconds()))

    def _due(self) -> bool:
        return any(call.getTime() <= self.seconds() for call in self.getDelayedCalls())

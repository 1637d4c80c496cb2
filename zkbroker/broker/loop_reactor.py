"""Twisted's reactor on uvloop, with uvloop's own sockets under Twisted's protocols.

Twisted's asyncio reactor drives sockets itself: each write registers the descriptor with epoll, waits for the next
turn, joins (copies) what is queued, sends it and unregisters again. uvloop's transports send a list of pieces in one
writev without a copy, and register for writing only when the socket is full. DECISIONS.md has the figures.

Only what brokers use is replaced: TCP without TLS, and ``callLater(0, …)``. All else stays Twisted's.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

import uvloop
from twisted.internet import asyncioreactor, error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

WRITE_AT_ONCE_BYTES = 64 * 1024
"""Smaller writes of one turn go out together after it: 50 answers to 50 pipelined requests are one system call."""

WRITE_BUFFER_BYTES = 128 * 1024
"""With more than this not taken by the socket, the protocol's producer is paused."""

BACKLOG = 1024

_GIVEN_UP = frozenset((errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN))
"""The network gave a connection up; what it last heard of the way there is the error. The other end said nothing."""


class LoopReactor(asyncioreactor.AsyncioSelectorReactor):
    """To be installed before anything imports ``twisted.internet.reactor``."""

    def __init__(self) -> None:
        self.loop: Any = uvloop.new_event_loop()
        super().__init__(self.loop)

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: A002
        """With delay 0 straight to the loop: Twisted's heap of timers costs ten times as much."""
        # While stopping, Twisted waits for its own queue to run: it calls this with 0 to have it run.
        if delay or self._stopped:
            return super().callLater(delay, callable, *args, **kwargs)  # type: ignore[no-untyped-call]
        return _SoonCall(self.loop, callable, args, kwargs)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> _ListeningPort:
        listening = socket.socket(addressFamily, socket.SOCK_STREAM, fileno=os.dup(fileDescriptor))
        return _ListeningPort(self.loop, listening, factory)

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        return _Connector(self.loop, host, port, factory, timeout, bindAddress)


class _SoonCall:
    """What ``callLater(0, …)`` returns: as much of IDelayedCall as makes sense for a call that is due."""

    __slots__ = ("_args", "_called", "_handle", "_kwargs", "_time")

    def __init__(self, loop: Any, called: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._called = called
        self._args = args
        self._kwargs = kwargs
        self._time = loop.time()
        self._handle: Any = loop.call_soon(self._run)

    def _run(self) -> None:
        self._handle = None
        self._called(*self._args, **self._kwargs)

    def getTime(self) -> float:
        return float(self._time)

    def active(self) -> bool:
        return self._handle is not None

    def cancel(self) -> None:
        """Raises AlreadyCalled or AlreadyCancelled as Twisted's does."""
        if self._handle is None:
            raise error.AlreadyCalled
        self._handle.cancel()
        self._handle = None


class _Transport(asyncio.Protocol):
    """One connection: asyncio's protocol towards uvloop, Twisted's transport towards the protocol."""

    def __init__(self, loop: Any, factory: Any, lost: Callable[[Failure], None] | None = None) -> None:
        self._loop = loop
        self._factory = factory
        self._lost = lost
        self._socket: Any = None
        """uvloop's transport."""
        self._protocol: Any = None
        self._producer: Any = None
        self._unwritten: list[bytes] = []
        self._unwritten_bytes = 0
        self._is_receiving = False
        """The protocol works on bytes that came: what it writes goes out right after."""
        self.connected = False
        self.disconnecting = False

    # What uvloop calls

    def connection_made(self, transport: Any) -> None:
        self._socket = transport
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES, low=0)
        self._protocol = self._factory.buildProtocol(self.getPeer())
        if self._protocol is None:
            self.abortConnection()
            return
        self.connected = True
        self._protocol.makeConnection(self)

    def data_received(self, data: bytes) -> None:
        if self.disconnecting:
            return
        # A request that is answered at once costs no further turn: of a heartbeat that was a good part.
        self._is_receiving = not self._unwritten
        try:
            self._protocol.dataReceived(data)
        finally:
            if self._is_receiving:
                self._is_receiving = False
                self._write_out()

    def pause_writing(self) -> None:
        if self._producer is not None:
            self._producer.pauseProducing()

    def resume_writing(self) -> None:
        if self._producer is not None and not self.disconnecting:
            self._producer.resumeProducing()

    def eof_received(self) -> None:
        # connection_lost comes a turn later: what was read in this one would be answered without knowing.
        told = getattr(self._protocol, "readConnectionLost", None)
        if told is not None and not self.disconnecting:
            told()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.connected = False
        self.disconnecting = True
        self._unwritten.clear()
        reason = Failure(_why_lost(exc))
        protocol, self._protocol, self._producer = self._protocol, None, None
        if protocol is not None:
            protocol.connectionLost(reason)
        if self._lost is not None:
            self._lost(reason)

    # What protocols call

    def write(self, data: bytes) -> None:
        self.writeSequence((data,))

    def writeSequence(self, data: Sequence[bytes]) -> None:
        if self.disconnecting:
            return
        unwritten = self._unwritten
        if not unwritten and not self._is_receiving:
            self._loop.call_soon(self._write_out)
        unwritten.extend(data)
        self._unwritten_bytes += sum(map(len, data))
        if self._unwritten_bytes >= WRITE_AT_ONCE_BYTES:
            self._write_out()

    def _write_out(self) -> None:
        unwritten = self._unwritten
        if unwritten:
            self._unwritten = []
            self._unwritten_bytes = 0
            self._socket.writelines(unwritten)

    def loseConnection(self) -> None:
        """Close when what was written is sent."""
        if not self.disconnecting:
            self._write_out()
            self.disconnecting = True
            self._socket.close()

    def abortConnection(self) -> None:
        self._unwritten.clear()
        self.disconnecting = True
        self._socket.abort()

    def resetOnClose(self) -> None:
        """From now on the end of the connection is an RST, and the kernel forgets what it has not delivered. (Twisted's
        own transports do so when they are aborted.)"""
        self.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Only push producers: ``streaming`` is true."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        if not self.disconnecting:
            self._socket.pause_reading()

    def resumeProducing(self) -> None:
        if not self.disconnecting:
            self._socket.resume_reading()

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> IPv4Address | IPv6Address:
        return _address(self._socket.get_extra_info("peername"))

    def getHost(self) -> IPv4Address | IPv6Address:
        return _address(self._socket.get_extra_info("sockname"))

    def getHandle(self) -> Any:
        return self._socket.get_extra_info("socket")

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.getHandle().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(enabled))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(enabled))


def _why_lost(exc: BaseException | None) -> Exception:
    if exc is None:
        return error.ConnectionDone()
    given_up = isinstance(exc, TimeoutError) or (isinstance(exc, OSError) and exc.errno in _GIVEN_UP)
    return error.TimeoutError(str(exc)) if given_up else error.ConnectionLost(str(exc))


def _address(name: tuple[Any, ...] | None) -> IPv4Address | IPv6Address:
    # None: the other end was gone before it was asked for.
    host, port = name[:2] if name else ("?", 0)
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


class _ListeningPort:
    """What ``adoptStreamPort`` returns."""

    def __init__(self, loop: Any, listening: socket.socket, factory: Any) -> None:
        self._listening = listening
        self._factory = factory
        self._address = _address(listening.getsockname())
        factory.doStart()
        # The socket listens already; connections are accepted as soon as the loop turns.
        self._server: asyncio.Task[Any] | None = loop.create_task(self._serve(loop))

    async def _serve(self, loop: Any) -> Any:
        return await loop.create_server(lambda: _Transport(loop, self._factory), sock=self._listening, backlog=BACKLOG)

    def getHost(self) -> IPv4Address | IPv6Address:
        return self._address

    def stopListening(self) -> Deferred[None]:
        server, self._server = self._server, None
        if server is not None:
            if server.done():
                server.result().close()
            else:
                server.cancel()
                self._listening.close()
            self._factory.doStop()
        return succeed(None)


class _Connector:
    """What ``connectTCP`` returns."""

    def __init__(self, loop: Any, host: str, port: int, factory: Any, timeout_s: float, local: Any) -> None:
        self._loop = loop
        self._host = host
        self._port = port
        self._factory = factory
        self._timeout_s = timeout_s
        self._local = local
        self._transport: _Transport | None = None
        factory.doStart()
        factory.startedConnecting(self)
        self._attempt: asyncio.Task[None] = loop.create_task(self._connect())
        self._attempt.add_done_callback(self._attempted)

    def getDestination(self) -> IPv4Address:
        return IPv4Address("TCP", self._host, self._port)

    def disconnect(self) -> None:
        if self._transport is not None:
            self._transport.loseConnection()
        else:
            self.stopConnecting()

    def stopConnecting(self) -> None:
        self._attempt.cancel()

    async def _connect(self) -> None:
        async with asyncio.timeout(self._timeout_s):
            await self._loop.create_connection(self._made, self._host, self._port, local_addr=self._local)

    def _attempted(self, attempt: asyncio.Task[None]) -> None:
        failed: Exception
        if attempt.cancelled():
            failed = error.UserError()
        elif (reason := attempt.exception()) is None:
            return
        elif isinstance(reason, TimeoutError):
            failed = error.TimeoutError()
        else:
            failed = error.getConnectError(reason)
        self._factory.clientConnectionFailed(self, Failure(failed))
        self._factory.doStop()

    def _made(self) -> _Transport:
        self._transport = _Transport(self._loop, self._factory, self._lost)
        return self._transport

    def _lost(self, reason: Failure) -> None:
        self._factory.clientConnectionLost(self, reason)
        self._factory.doStop()

"""What both ends of a line-protocol connection share: bytes to messages, and an end to a connection that misbehaves."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet.error import TimeoutError as TimedOutError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from zkbroker.model.limits import PUSH_BACKLOG_BYTES_MAX
from zkbroker.replication.codec import NO_CORRELATION, FramingError, Message, MessageReader, encode_error

log = Logger("zkbroker.replication")

KEEP_ALIVE_OPTIONS = {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 120}
"""Seconds, seconds, attempts. The kernel tries a connection that is silent for a second: what the network refuses by
now (a firewall's RST) ends at once, and does not stand for its broker's life until somebody speaks on it. Where the
network swallows everything the broker's own limits come first, all of them sooner than so many attempts."""


class LineConnection(Protocol):
    """One end of a connection. It knows when the transport is full (``is_full``) and bounds what is written then."""

    def __init__(self, body_bytes_max: int) -> None:
        self._reader = MessageReader(body_bytes_max)
        self._is_closing = False
        self._backlog_bytes = 0
        """Bytes written while the transport was full; what the peer does not read grows it."""
        self.is_full = False
        self.timed_out = False
        """Valid in ``closed``: the network gave the connection up, no FIN or RST came."""
        self.transport: Any = None

    def connectionMade(self) -> None:
        for option in ("setTcpNoDelay", "setTcpKeepAlive"):
            set_option = getattr(self.transport, option, None)
            if set_option is not None:
                set_option(True)
        get_handle = getattr(self.transport, "getHandle", None)
        if get_handle is not None:
            for name, value in KEEP_ALIVE_OPTIONS.items():
                if hasattr(socket, name):
                    get_handle().setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self.transport.registerProducer(self, True)
        self.opened()

    def dataReceived(self, data: bytes) -> None:
        reader = self._reader
        reader.receive(data)
        try:
            while not self._is_closing:
                message = reader.next_message()
                if message is None:
                    return
                self.message_received(message)
        except FramingError as error:
            log.info("closing the connection of {peer}: {reason}", peer=self.peer(), reason=str(error))
            self.send(encode_error(NO_CORRELATION, error.error, str(error)))
            self.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_closing = True
        self.timed_out = reason.check(TimedOutError) is not None
        self.closed(reason.getErrorMessage())

    def send(self, data: bytes) -> None:
        """Write; past PUSH_BACKLOG_BYTES_MAX on a full transport the peer is dropped: it does not read."""
        if self._is_closing:
            return
        if self.is_full and not self._room_for(len(data)):
            return
        self.transport.write(data)

    def send_pieces(self, pieces: Sequence[bytes]) -> None:
        """Write pieces one after the other without joining them here."""
        if not self._is_closing:
            self.transport.writeSequence(pieces)

    def _room_for(self, size: int) -> bool:
        self._backlog_bytes += size
        if self._backlog_bytes <= PUSH_BACKLOG_BYTES_MAX:
            return True
        log.warn("dropping the connection of {peer}: it does not read", peer=self.peer())
        self.abort()
        return False

    def close(self) -> None:
        """End the connection when what was written is sent."""
        if self._is_closing:
            return
        if self.is_full:
            self.abort()
            return
        self._is_closing = True
        # A paused producer would keep the transport from ever closing.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def abort(self) -> None:
        """End the connection at once: its peer does not read, or does not answer. Where the network was cut the kernel
        would go on for a while, and tell the peer old news when it is whole again."""
        self._is_closing = True
        reset_on_close = getattr(self.transport, "resetOnClose", None)
        if reset_on_close is not None:
            reset_on_close()
        self.transport.abortConnection()

    @property
    def is_closing(self) -> bool:
        return self._is_closing

    def peer(self) -> str:
        """Whom to name in the log."""
        return str(self.transport.getPeer())

    def pauseProducing(self) -> None:
        self.is_full = True

    def resumeProducing(self) -> None:
        self.is_full = False
        self._backlog_bytes = 0
        if not self._is_closing:
            self.drained()

    def stopProducing(self) -> None:
        """IPushProducer: the transport is lost; connectionLost follows."""

    def opened(self) -> None:
        """The connection is there."""

    def message_received(self, message: Message) -> None:
        """A whole message arrived. May raise FramingError to end the connection."""
        raise NotImplementedError

    def drained(self) -> None:
        """The transport takes bytes again."""

    def closed(self, reason: str) -> None:
        """The connection is gone; comes once."""

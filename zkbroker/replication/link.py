"""One connection to another broker, kept up: connect, HELLO, and again with back-off when it breaks."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple, Protocol

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from zkbroker.model.clock import Clock
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.limits import ANSWER_BODY_BYTES_MAX
from zkbroker.replication.codec import Message, decode_error, encode_request
from zkbroker.replication.connection import LineConnection, log
from zkbroker.replication.messages import VERSION_MAX, VERSION_MIN, decode_identity, encode_hello
from zkbroker.replication.ports import Identity, IdentitySource

STABLE_AFTER_S = 1.0
"""A connection that lived so long was a good one: the next back-off begins at the bottom again."""


class LinkEnd(Enum):
    """How a connection ended."""

    OWN = "own"
    """This end closed it, for a reason of its own."""
    SILENT = "silent"
    """This end closed it because the peer said nothing any more."""
    CUT = "cut"
    """FIN or RST came."""
    TIMED_OUT = "timed out"
    """The network gave up on it."""
    BYE = "bye"
    """The peer said that it stops."""


class LinkSettings(NamedTuple):
    """How connections to other brokers are made."""

    connect_timeout_s: float = 2.0
    """For the connection, and again for the answer to HELLO."""
    backoff_s: float = 0.05
    backoff_max_s: float = 1.0
    context_factory: Any = None
    """TLS: a Twisted client context factory; None is cleartext."""


class Shell(NamedTuple):
    """What the composition root passes to everything that connects."""

    reactor: Any
    clock: Clock
    random: Callable[[], float]
    """Uniform in [0, 1)."""
    identity: IdentitySource


class LinkOwner(Protocol):
    """Who uses a link."""

    def link_up(self) -> None:
        """HELLO is answered: send."""
        ...

    def link_lost(self, reason: str) -> None:
        """What was sent and not answered never will be. Comes once after each ``link_up``."""
        ...

    def message_received(self, message: Message) -> None:
        """May raise BrokerError: the peer talks nonsense, and the connection is dropped."""
        ...


class BrokerLink:
    """Connects to one broker from ``start`` to ``stop``."""

    def __init__(
        self, shell: Shell, settings: LinkSettings, owner: LinkOwner, broker_id: int, host: str, port: int
    ) -> None:
        self._shell = shell
        self._settings = settings
        self._owner = owner
        self.broker_id = broker_id
        self.host = host
        self.port = port
        self.peer: Identity | None = None
        """Who answered HELLO; None while the link is down."""
        self._said: Identity | None = None
        """Who this broker said it is in the last HELLO."""
        self._is_started = False
        self._connection: LinkConnection | None = None
        self._factory: Any = None
        self._timer: Any = None
        """Either the back-off, or how long HELLO may take."""
        self._failures = 0
        self._up_at = 0.0
        self._told_reason = ""
        self._correlation = 0
        self.last_end = LinkEnd.OWN
        """How the last connection ended; valid in ``link_lost``."""

    def __repr__(self) -> str:
        state = "up" if self.is_up else "down"
        return f"BrokerLink(broker={self.broker_id} at {self.host}:{self.port}, {state})"

    @property
    def is_up(self) -> bool:
        return self.peer is not None

    def start(self) -> None:
        self._is_started = True
        self._connect()

    def stop(self, bye: bool = False) -> None:
        """Drop the connection for good, saying BYE if this broker stops. The owner is not told."""
        self._is_started = False
        connection, was_up = self._drop()
        if connection is not None:
            if bye and was_up:
                connection.send(encode_request("BYE", self.next_correlation()))
            connection.close()

    def reconnect(self, reason: str, at_once: bool = True, end: LinkEnd = LinkEnd.OWN) -> None:
        """Drop the connection and make a new one: the peer moved, this broker's identity did, it talks nonsense or
        nothing."""
        if not self._is_started:
            return
        self.last_end = end
        self._reconnect(reason, at_once)

    def _reconnect(self, reason: str, at_once: bool) -> None:
        connection, was_up = self._drop()
        if connection is not None:
            connection.abort()
        if was_up:
            self._owner.link_lost(reason)
        if self._is_started and self._connection is None:
            self._connect() if at_once else self._back_off(reason)

    def is_outdated(self) -> bool:
        """True if this broker registered anew since HELLO: what it says here would be judged by its old epoch."""
        return self.is_up and self._said is not None and self._said.broker_epoch != self._shell.identity().broker_epoch

    def next_correlation(self) -> int:
        self._correlation += 1
        return self._correlation

    def send(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.send(data)

    def _drop(self) -> tuple[LinkConnection | None, bool]:
        connection, was_up = self._connection, self.is_up
        self._connection, self.peer = None, None
        self._cancel_timer()
        if connection is not None:
            connection.link = None
        if self._factory is not None:
            factory, self._factory = self._factory, None
            factory.link = None
        return connection, was_up

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _connect(self) -> None:
        self._cancel_timer()
        factory = self._factory = _LinkFactory(self)
        settings = self._settings
        reactor = self._shell.reactor
        if settings.context_factory is None:
            reactor.connectTCP(self.host, self.port, factory, settings.connect_timeout_s)
        else:
            reactor.connectSSL(self.host, self.port, factory, settings.context_factory, settings.connect_timeout_s)

    def _back_off(self, reason: str) -> None:
        settings = self._settings
        delay_s = min(settings.backoff_max_s, settings.backoff_s * 2 ** min(self._failures, 10))
        self._failures += 1
        if reason != self._told_reason:
            self._told_reason = reason
            log.info(
                "no connection to broker {broker} at {host}:{port}: {reason}",
                broker=self.broker_id,
                host=self.host,
                port=self.port,
                reason=reason,
            )
        self._cancel_timer()
        self._timer = self._shell.reactor.callLater(delay_s * (0.8 + 0.4 * self._shell.random()), self._retry)

    def _retry(self) -> None:
        self._timer = None
        self._connect()

    def connect_failed(self, reason: str) -> None:
        self._factory = None
        self._back_off(reason)

    def connected(self, connection: LinkConnection) -> None:
        self._connection = connection
        self._correlation = 0
        self._said = self._shell.identity()
        hello = encode_hello(self.next_correlation(), self._said, self.broker_id)
        self._timer = self._shell.reactor.callLater(self._settings.connect_timeout_s, self._hello_timed_out)
        connection.send(hello)

    def _hello_timed_out(self) -> None:
        self._timer = None
        self.reconnect("HELLO is not answered", at_once=False)

    def received(self, message: Message) -> None:
        try:
            if self.peer is None:
                self._greeted(message)
            elif message.verb == "PUSH" and "BYE" in message.arguments:
                self.last_end = LinkEnd.BYE
                self._reconnect("it says BYE", at_once=False)
            else:
                self._owner.message_received(message)
        except BrokerError as error:
            self.reconnect(f"{error.error.name}: {error}", at_once=False)

    def _greeted(self, message: Message) -> None:
        if message.verb == "ERR":
            raise decode_error(message)
        if message.verb != "OK":
            raise BrokerError(ErrorCode.INVALID_REQUEST, f"HELLO is answered {message.verb[:40]}")
        if not VERSION_MIN <= message.integer("version") <= VERSION_MAX:
            raise BrokerError(ErrorCode.UNSUPPORTED_VERSION, f"version {message.values['version']} is not spoken here")
        peer = decode_identity(message)
        own = self._shell.identity()
        if peer.cluster_id != own.cluster_id:
            raise BrokerError(ErrorCode.INCONSISTENT_CLUSTER_ID, f"it is of cluster {peer.cluster_id}")
        if peer.broker_id != self.broker_id:
            raise BrokerError(ErrorCode.BROKER_ID_NOT_REGISTERED, f"broker {peer.broker_id} answers there")
        self._cancel_timer()
        self.peer = peer
        self._up_at = self._shell.clock.monotonic()
        self._told_reason = ""
        self._owner.link_up()

    def lost(self, reason: str, end: LinkEnd) -> None:
        self.last_end = end
        if self.is_up and self._shell.clock.monotonic() - self._up_at >= STABLE_AFTER_S:
            self._failures = 0
        _, was_up = self._drop()
        if was_up:
            self._owner.link_lost(reason)
        if self._is_started and self._connection is None and self._factory is None:
            self._back_off(reason)


class LinkConnection(LineConnection):
    """The calling end of a connection."""

    def __init__(self, link: BrokerLink) -> None:
        super().__init__(ANSWER_BODY_BYTES_MAX)
        self.link: BrokerLink | None = link
        """None when the link has let go of it."""

    def opened(self) -> None:
        if self.link is not None:
            self.link.connected(self)
        else:
            self.abort()

    def message_received(self, message: Message) -> None:
        if self.link is not None:
            self.link.received(message)

    def readConnectionLost(self) -> None:
        """FIN came (on reactors that tell it): nothing is answered any more. Known before what else was read in the
        same turn is served, no client is sent to a broker that is gone."""
        self._is_closing = True
        self.closed("Connection was closed cleanly.")

    def closed(self, reason: str) -> None:
        if self.link is not None:
            self.link.lost(reason, LinkEnd.TIMED_OUT if self.timed_out else LinkEnd.CUT)


class _LinkFactory(ClientFactory):
    noisy = False

    def __init__(self, link: BrokerLink) -> None:
        self.link: BrokerLink | None = link

    def buildProtocol(self, addr: IAddress | None) -> LinkConnection | None:
        return None if self.link is None else LinkConnection(self.link)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        if self.link is not None:
            self.link.connect_failed(reason.getErrorMessage())

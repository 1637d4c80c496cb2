"""The sockets of LoopReactor under Twisted's protocols, on 127.0.0.1 and a loop of each test's own."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.protocol import ClientFactory, Protocol, ServerFactory

from zkbroker.replication.connection import KEEP_ALIVE_OPTIONS, LineConnection

loop_reactor = pytest.importorskip("zkbroker.broker.loop_reactor")


class Seen(Protocol):
    """Notes what it is told."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.received = b""
        self.lost: Any = None
        self.events: list[str] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = reason

    def pauseProducing(self) -> None:
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.events.append("resume")

    def stopProducing(self) -> None:
        self.events.append("stop")


class Server(ServerFactory):
    noisy = False

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.connections: list[Seen] = []
        self.is_full = False
        self.is_stopped = False

    def buildProtocol(self, addr: Any) -> Seen | None:
        if self.is_full:
            return None
        self.connections.append(Seen(self.reactor))
        return self.connections[-1]

    def stopFactory(self) -> None:
        self.is_stopped = True


class Client(ClientFactory):
    noisy = False

    def __init__(self, reactor: Any) -> None:
        self.protocol_seen = Seen(reactor)
        self.failed: Any = None
        self.lost: Any = None

    def buildProtocol(self, addr: Any) -> Seen:
        return self.protocol_seen

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.failed = reason

    def clientConnectionLost(self, connector: Any, reason: Any) -> None:
        self.lost = reason


class World:
    """A reactor whose loop is turned by hand, and one listening port."""

    def __init__(self) -> None:
        self.reactor = loop_reactor.LoopReactor()
        self.reactor._stopped = False  # as while it runs
        self.server = Server(self.reactor)
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        bound.setblocking(False)
        self.port = self.reactor.adoptStreamPort(bound.fileno(), bound.family, self.server)
        bound.close()

    @property
    def number(self) -> int:
        return int(self.port.getHost().port)

    def turn_until(self, condition: Callable[[], Any], turns: int = 5000) -> None:
        loop = self.reactor.loop
        for _ in range(turns):
            if condition():
                return
            loop.call_later(0.001, loop.stop)
            loop.run_forever()
        raise AssertionError("it did not come about")

    def connect(self) -> tuple[Client, Any, Seen]:
        client = Client(self.reactor)
        connector = self.reactor.connectTCP("127.0.0.1", self.number, client, 5)
        count = len(self.server.connections)
        self.turn_until(lambda: len(self.server.connections) > count and client.protocol_seen.connected)
        return client, connector, self.server.connections[-1]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.port.stopListening()
    loop = made.reactor.loop
    loop.call_later(0.005, loop.stop)
    loop.run_forever()


def test_pieces_arrive_in_order_in_both_directions(world: World) -> None:
    client, _, served = world.connect()
    client.protocol_seen.transport.write(b"a")
    client.protocol_seen.transport.writeSequence([b"b" * 200_000, b"c"])
    client.protocol_seen.transport.write(b"d")
    served.transport.writeSequence([b"x", b"y"])
    whole = b"a" + b"b" * 200_000 + b"cd"
    world.turn_until(lambda: len(served.received) == len(whole) and client.protocol_seen.received == b"xy")
    assert served.received == whole
    assert served.transport.getPeer().host == "127.0.0.1"
    assert served.transport.getHost().port == world.number


def test_small_writes_of_a_turn_go_out_together(world: World) -> None:
    client, _, served = world.connect()
    written: list[list[bytes]] = []
    transport: Any = client.protocol_seen.transport
    real = transport._socket

    class Recording:
        def writelines(self, pieces: list[bytes]) -> None:
            written.append(list(pieces))
            real.writelines(pieces)

    transport._socket = Recording()
    for number in range(3):
        transport.write(b"%d" % number)
    assert written == []
    world.turn_until(lambda: served.received == b"012")
    assert written == [[b"0", b"1", b"2"]]
    transport._socket = real


def test_a_reader_that_does_not_read_pauses_the_producer_until_it_reads(world: World) -> None:
    client, _, served = world.connect()
    served.transport.registerProducer(served, True)
    client.protocol_seen.transport.pauseProducing()
    sent = 0
    while not served.events:
        served.transport.write(b"z" * 262_144)
        sent += 262_144
        assert sent < 200_000_000
    assert served.events == ["pause"]
    client.protocol_seen.transport.resumeProducing()
    world.turn_until(lambda: len(client.protocol_seen.received) == sent)
    world.turn_until(lambda: served.events == ["pause", "resume"])
    assert client.protocol_seen.received == b"z" * sent


def test_losing_the_connection_sends_what_was_written_first(world: World) -> None:
    client, _, served = world.connect()
    served.transport.registerProducer(served, True)
    served.transport.unregisterProducer()
    served.transport.write(b"last words")
    served.transport.loseConnection()
    served.transport.write(b"too late")
    world.turn_until(lambda: client.lost is not None and served.lost is not None)
    assert client.protocol_seen.received == b"last words"
    assert client.lost.check(error.ConnectionDone) and client.protocol_seen.lost.check(error.ConnectionDone)


def test_aborting_drops_what_was_written_and_hears_nothing_more(world: World) -> None:
    client, _, served = world.connect()
    client.protocol_seen.transport.write(b"unheard")
    served.transport.write(b"dropped")
    served.transport.abortConnection()
    world.turn_until(lambda: client.lost is not None and served.lost is not None)
    assert client.protocol_seen.received == b""
    assert served.received == b""


def test_a_broker_that_gives_a_connection_up_takes_back_what_did_not_arrive(world: World) -> None:
    """Torture: complaints from before a cut reached the controller when it had healed, and it believed them."""
    client, _, served = world.connect()
    given_up = LineConnection(1000)
    given_up.transport = served.transport
    given_up.abort()
    world.turn_until(lambda: client.lost is not None and served.lost is not None)
    assert client.lost.check(error.ConnectionLost), "a FIN would be ConnectionDone, and come after all that was sent"


def test_a_producer_is_stopped_with_its_connection(world: World) -> None:
    client, connector, served = world.connect()
    served.transport.registerProducer(served, True)
    connector.disconnect()
    world.turn_until(lambda: served.lost is not None and client.lost is not None)
    assert served.lost.check(error.ConnectionDone)
    assert not served.transport.connected


def test_a_refused_connection_is_told_as_such(world: World) -> None:
    number = world.number
    world.port.stopListening()
    assert world.server.is_stopped
    client = Client(world.reactor)
    world.turn_until(lambda: True)
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))  # bound and not listening: refused
    world.reactor.connectTCP("127.0.0.1", probe.getsockname()[1], client, 5)
    world.turn_until(lambda: client.failed is not None)
    assert client.failed.check(error.ConnectionRefusedError)
    probe.close()
    assert number > 0


def test_an_attempt_that_is_given_up_fails_once(world: World) -> None:
    client = Client(world.reactor)
    connector = world.reactor.connectTCP("127.0.0.1", world.number, client, 5)
    connector.stopConnecting()
    world.turn_until(lambda: client.failed is not None)
    assert client.failed.check(error.UserError)


def test_a_factory_may_refuse_a_connection(world: World) -> None:
    world.server.is_full = True
    client = Client(world.reactor)
    world.reactor.connectTCP("127.0.0.1", world.number, client, 5)
    world.turn_until(lambda: client.lost is not None)
    assert world.server.connections == []


def test_calls_without_delay_run_in_order_and_can_be_cancelled(world: World) -> None:
    ran: list[int] = []
    calls = [world.reactor.callLater(0, ran.append, number) for number in range(3)]
    assert all(call.active() for call in calls)
    calls[1].cancel()
    world.turn_until(lambda: len(ran) == 2)
    assert ran == [0, 2]
    assert not any(call.active() for call in calls)
    with pytest.raises(error.AlreadyCalled):
        calls[0].cancel()


def test_options_are_set_on_the_socket(world: World) -> None:
    _, _, served = world.connect()
    served.transport.setTcpNoDelay(True)
    served.transport.setTcpKeepAlive(True)
    handle = served.transport.getHandle()
    assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_silent_line_connection_is_tried_by_the_kernel(world: World) -> None:
    """Else a connection that a firewall would refuse by now stood for the life of whom it leads to."""
    _, _, served = world.connect()
    line = LineConnection(1000)
    line.opened = lambda: None  # type: ignore[method-assign]
    line.makeConnection(served.transport)
    handle = served.transport.getHandle()
    assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    for name, value in KEEP_ALIVE_OPTIONS.items():
        if hasattr(socket, name):
            assert handle.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ETIMEDOUT, error.TimeoutError),
        (errno.EHOSTUNREACH, error.TimeoutError),
        (errno.ECONNRESET, error.ConnectionLost),
        (errno.EPIPE, error.ConnectionLost),
    ],
)
def test_a_connection_that_the_network_gave_up_was_closed_by_nobody(number: int, kind: type[Exception]) -> None:
    """Linux names a host that cannot be reached instead of the time that is up; no peer said that it dies."""
    assert type(loop_reactor._why_lost(OSError(number, os.strerror(number)))) is kind


def test_an_answer_given_at_once_costs_no_further_turn() -> None:
    """All of what was answered while bytes came is sent in one go; what is written later waits for the turn's end."""

    class Sockets:
        def __init__(self) -> None:
            self.later: list[Any] = []
            self.sent: list[list[bytes]] = []

        def call_soon(self, call: Any) -> None:
            self.later.append(call)

        def writelines(self, pieces: list[bytes]) -> None:
            self.sent.append(list(pieces))

    class Echo:
        def dataReceived(self, data: bytes) -> None:
            transport.write(data)
            transport.write(data)

    sockets = Sockets()
    transport = loop_reactor._Transport(sockets, None)
    transport._socket, transport._protocol = sockets, Echo()
    transport.data_received(b"a")
    assert (sockets.sent, sockets.later) == ([[b"a", b"a"]], [])
    transport.write(b"b")
    assert len(sockets.sent) == 1
    transport.data_received(b"c")
    assert (len(sockets.sent), len(sockets.later)) == (1, 1)
    sockets.later[0]()
    assert sockets.sent[1:] == [[b"b", b"c", b"c"]]

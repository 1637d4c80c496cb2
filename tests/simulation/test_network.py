"""Connections between simulated processes: bytes in order, and what each kind of end looks like to the other side."""

from __future__ import annotations

import pytest
from twisted.internet import error
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.python.failure import Failure

from tests.simulation.network import HostState
from tests.simulation.settings import WorldSettings
from tests.simulation.transport import Connector
from tests.simulation.world import World

PORT = 7777
"""Of a listener that these tests add to a broker's process."""


class Talker(Protocol):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.data = b""
        self.pieces = 0
        self.lost: type[BaseException] | None = None
        self.paused = 0
        self.resumed = 0

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.pieces += 1

    def connectionLost(self, reason: Failure = Failure(error.ConnectionDone())) -> None:
        assert self.lost is None
        self.lost = reason.type

    # IPushProducer

    def pauseProducing(self) -> None:
        self.paused += 1

    def resumeProducing(self) -> None:
        self.resumed += 1

    def stopProducing(self) -> None: ...


class Caller(ClientFactory):
    noisy = False

    def __init__(self) -> None:
        self.made: list[Talker] = []
        self.failed: type[BaseException] | None = None
        self.lost: type[BaseException] | None = None

    def buildProtocol(self, addr: object) -> Talker:
        self.made.append(Talker())
        return self.made[-1]

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self.failed = reason.type

    def clientConnectionLost(self, connector: object, reason: Failure) -> None:
        self.lost = reason.type


class Callee(Factory):
    noisy = False

    def __init__(self) -> None:
        self.made: list[Talker] = []

    def buildProtocol(self, addr: object) -> Talker:
        self.made.append(Talker())
        return self.made[-1]


class Pair:
    """Two brokers' processes, of which the second listens; the first may be connected to it."""

    def __init__(self, seed: int = 1, **settings: float) -> None:
        # The brokers themselves wait for a ZooKeeper that is not there.
        self.world = World(seed, WorldSettings(brokers=2, **settings))  # type: ignore[arg-type]
        self.world.zk_away()
        self.world.start_all()
        self.callee = Callee()
        self.listen()

    def listen(self) -> None:
        process = self.world.nodes[2].process
        assert process is not None
        self.world.network.add_listener(process, PORT, self.callee)

    def call(self, timeout: float = 2.0) -> tuple[Caller, Connector]:
        process = self.world.nodes[1].process
        assert process is not None
        caller = Caller()
        return caller, process.reactor.connectTCP("broker-2", PORT, caller, timeout)

    def outcome(self, timeout: float = 2.0) -> type[BaseException] | None:
        """Of a call: what it failed with, None if it was connected."""
        caller, _ = self.call(timeout)
        assert self.world.run_until(lambda: caller.made or caller.failed, 30.0)
        return caller.failed

    def connected(self) -> tuple[Talker, Talker]:
        """Both ends of a new connection."""
        caller, _ = self.call()
        count = len(self.callee.made)
        assert self.world.run_until(lambda: caller.made and len(self.callee.made) > count, 2.0)
        return caller.made[0], self.callee.made[-1]


def write(talker: Talker, data: bytes) -> None:
    assert talker.transport is not None
    talker.transport.write(data)


def test_bytes_arrive_in_order_in_pieces_that_nobody_chose() -> None:
    pair = Pair(split_share=0.5)
    one, other = pair.connected()
    sent = b"".join(b"%d," % number for number in range(500))
    for start in range(0, len(sent), 100):
        write(one, sent[start : start + 100])
        pair.world.run_for(0.001)
    assert pair.world.run_until(lambda: len(other.data) == len(sent), 2.0)
    assert other.data == sent
    assert 3 < other.pieces < len(sent)
    write(other, b"back")
    assert pair.world.run_until(lambda: one.data == b"back", 1.0)


def test_connections_overtake_one_another() -> None:
    pair = Pair(late_share=0.5)
    ends = [pair.connected() for _ in range(10)]
    arrived: list[int] = []
    for number, (one, other) in enumerate(ends):
        other.dataReceived = lambda data, number=number: arrived.append(number)  # type: ignore[method-assign,misc]
        write(one, b"x")
    pair.world.run_for(1.0)
    assert sorted(arrived) == list(range(10)) != arrived


def test_who_writes_more_than_is_read_is_paused_until_there_is_room() -> None:
    pair = Pair(send_buffer_bytes_min=1000, send_buffer_bytes_max=1000)
    one, other = pair.connected()
    assert one.transport is not None and other.transport is not None
    one.transport.registerProducer(one, True)
    other.transport.pauseProducing()
    write(one, bytes(999))
    assert one.paused == 0
    write(one, bytes(2))
    assert one.paused == 1
    pair.world.run_for(1.0)
    assert (other.data, one.resumed) == (b"", 0)
    other.transport.resumeProducing()
    assert pair.world.run_until(lambda: one.resumed == 1, 1.0)
    assert pair.world.run_until(lambda: len(other.data) == 1001, 1.0)


def test_a_close_comes_behind_what_was_written_and_an_abort_may_come_before() -> None:
    pair = Pair()
    one, other = pair.connected()
    write(one, b"last words")
    one.transport.loseConnection()  # type: ignore[union-attr]
    assert pair.world.run_until(lambda: other.lost and one.lost, 1.0)
    assert (other.data, other.lost, one.lost) == (b"last words", error.ConnectionDone, error.ConnectionDone)
    lengths = set()
    for _ in range(20):
        one, other = pair.connected()
        write(one, b"last words")
        one.transport.abortConnection()  # type: ignore[union-attr]
        assert pair.world.run_until(lambda end=other: end.lost, 1.0)  # type: ignore[misc]
        assert other.lost is error.ConnectionLost
        assert b"last words".startswith(other.data)
        lengths.add(len(other.data))
    assert len(lengths) > 3


@pytest.mark.parametrize("host", list(HostState))
def test_a_killed_process_is_known_by_how_its_machine_answers(host: HostState) -> None:
    pair = Pair()
    one, other = pair.connected()
    write(other, b"sent before")
    pair.world.kill(2, host=host)
    write(other, b"never sent")
    assert pair.world.run_until(lambda: one.lost, 0.5)
    # Its kernel sent what was written, and FIN.
    assert (one.data, one.lost) == (b"sent before", error.ConnectionDone)
    assert other.lost is None
    assert (
        pair.outcome()
        is {
            HostState.UP: error.ConnectionRefusedError,
            HostState.REJECTS: error.ConnectionRefusedError,
            HostState.SILENT: error.TimeoutError,
            HostState.UNREACHABLE: error.NoRouteError,
            HostState.NAME_GONE: error.DNSLookupError,
        }[host]
    )


def test_a_killed_process_that_had_unread_bytes_may_reset() -> None:
    ends = set()
    for seed in range(20):
        pair = Pair(seed)
        one, _ = pair.connected()
        write(one, b"on its way")
        pair.world.kill(2)
        assert pair.world.run_until(lambda end=one: end.lost, 0.5)  # type: ignore[misc]
        ends.add(one.lost)
    assert ends == {error.ConnectionDone, error.ConnectionLost}


def test_of_a_machine_that_goes_silently_nobody_hears_until_it_is_back() -> None:
    pair = Pair()
    one, _ = pair.connected()
    idle, _ = pair.connected()
    pair.world.kill(2, host=HostState.SILENT, silently=True)
    write(one, b"anybody there?")
    pair.world.run_for(5.0)
    assert one.lost is None
    assert pair.outcome() is error.TimeoutError
    pair.world.start(2)
    assert pair.world.run_until(lambda: one.lost, 1.0)
    assert (one.lost, idle.lost) == (error.ConnectionLost, None)
    write(idle, b"hello")
    assert pair.world.run_until(lambda: idle.lost, 1.0)


def test_a_stopped_process_accepts_and_is_silent_and_answers_when_it_goes_on() -> None:
    pair = Pair()
    pair.world.pause(2)
    caller, _ = pair.call()
    assert pair.world.run_until(lambda: caller.made, 1.0)
    write(caller.made[0], b"hello")
    pair.world.run_for(5.0)
    assert (pair.callee.made, caller.made[0].lost) == ([], None)
    pair.world.resume(2)
    assert pair.world.run_until(lambda: pair.callee.made and pair.callee.made[0].data == b"hello", 1.0)


def test_a_falsely_suspected_process_lives_behind_resets_and_refusals() -> None:
    pair = Pair()
    one, other = pair.connected()
    pair.world.suspect_falsely(2, 1.0)
    assert pair.world.run_until(lambda: one.lost and other.lost, 0.5)
    assert one.lost is other.lost is error.ConnectionLost
    assert pair.outcome() is error.ConnectionRefusedError
    assert pair.world.nodes[2].is_running
    pair.world.run_for(1.0)
    assert pair.outcome() is None


def test_what_is_cut_is_held_and_comes_when_the_link_heals() -> None:
    pair = Pair()
    one, other = pair.connected()
    pair.world.cut(1, 2, one_way=True)
    write(one, b"held ")
    write(other, b"through")
    pair.world.run_for(1.0)
    assert (one.data, other.data) == (b"through", b"")
    assert pair.outcome() is error.TimeoutError
    write(one, b"longer")
    one.transport.loseConnection()  # type: ignore[union-attr]
    pair.world.run_for(1.0)
    assert other.lost is None
    pair.world.heal_link(1, 2)
    assert pair.world.run_until(lambda: other.lost, 1.0)
    assert other.data == b"held longer"
    assert pair.outcome() is None


def test_a_connect_that_starts_during_a_cut_succeeds_when_it_heals_in_time() -> None:
    pair = Pair()
    pair.world.cut(2, 1, one_way=True)
    caller, _ = pair.call(timeout=5.0)
    pair.world.run_for(0.5)
    pair.world.heal_link(1, 2)
    assert pair.world.run_until(lambda: caller.made, 2.0)


@pytest.mark.parametrize("seed", range(10))
def test_a_connection_that_is_reset_while_it_is_made_is_made_and_lost(seed: int) -> None:
    """Else a process would wait for ever for what came of its connect."""
    pair = Pair(seed)
    caller, _ = pair.call()
    connections = pair.world.nodes[2].process.connections  # type: ignore[union-attr]
    assert pair.world.run_until(lambda: connections, 1.0)
    pair.world.reset_connections(1, 2)
    assert pair.world.run_until(lambda: caller.failed or caller.lost, 1.0)
    assert pair.world.run_until(lambda: not connections, 1.0)


def test_a_connect_can_be_given_up() -> None:
    pair = Pair()
    pair.world.cut(1, 2)
    caller, connector = pair.call()
    connector.stopConnecting()
    assert pair.world.run_until(lambda: caller.failed, 0.1)
    assert caller.failed is error.UserError
    pair.world.heal_all()
    pair.world.run_for(3.0)
    assert (caller.made, pair.callee.made) == ([], [])


def test_a_slow_link_is_slow() -> None:
    pair = Pair()
    one, other = pair.connected()
    pair.world.slow_link(1, 2, 0.5)
    write(one, b"x")
    pair.world.run_for(0.45)
    assert other.data == b""
    assert pair.world.run_until(lambda: other.data, 0.2)


def test_a_link_may_be_slow_one_way_only() -> None:
    pair = Pair()
    one, other = pair.connected()
    pair.world.slow_link(1, 2, 0.5, one_way=True)
    write(one, b"x")
    write(other, b"y")
    pair.world.run_for(0.45)
    assert (one.data, other.data) == (b"y", b"")
    pair.world.slow_link(1, 2, 0.0, one_way=True)
    assert pair.world.run_until(lambda: other.data, 0.2)


def test_nothing_listens_any_more_when_a_port_is_closed() -> None:
    pair = Pair()
    process = pair.world.nodes[2].process
    assert process is not None
    process.listeners[-1].stopListening()
    assert pair.outcome() is error.ConnectionRefusedError


def test_a_connection_that_is_reset_before_the_caller_hears_of_it_failed() -> None:
    for seed in range(20):
        pair = Pair(seed, late_share=0.5, late_s_max=0.5)
        caller, _ = pair.call()
        assert pair.world.run_until(lambda callee=pair.callee: callee.made, 1.0)
        if not caller.made:
            pair.world.reset_connections(2)
            assert pair.world.run_until(lambda caller=caller: caller.failed or caller.lost, 3.0)

"""The faults of the ensemble in memory; what it has in common with a real one is in tests/contract."""

from __future__ import annotations

import pytest

from tests.fakes.zookeeper import FakeSession
from tests.harness.zookeeper_worlds import FakeWorld, connect, wait
from zkbroker.zookeeper.client import ConnectionLossError, Create, MultiError, SessionState, SetData

CONNECTED, RECONNECTED = SessionState.CONNECTED, SessionState.RECONNECTED
SUSPENDED, EXPIRED = SessionState.SUSPENDED, SessionState.EXPIRED


def _connected(world: FakeWorld) -> tuple[FakeSession, list[SessionState]]:
    client = world.session()
    states = connect(world, client)
    wait(world, client.create("/e", b"", ephemeral=True, make_parents=True))
    return client, states


def test_a_disconnected_session_expires_in_its_time() -> None:
    world = FakeWorld()
    client, states = _connected(world)
    client.disconnect()
    assert states == [CONNECTED, SUSPENDED]
    world.reactor.advance(1.99)
    assert world.zookeeper.data("/e") == b""
    world.reactor.advance(0.02)
    assert world.zookeeper.data("/e") is None
    assert states == [CONNECTED, SUSPENDED]
    client.reconnect()
    world.until(lambda: client.is_connected)
    assert states == [CONNECTED, SUSPENDED, EXPIRED, CONNECTED]


def test_a_paused_process_learns_of_its_expiry_when_it_goes_on() -> None:
    world = FakeWorld()
    client, states = _connected(world)
    before = client.last_reply_at
    client.pause()
    world.reactor.advance(5.0)
    assert world.zookeeper.data("/e") is None
    assert (states, client.is_connected) == ([CONNECTED], True)
    # What the zombie believes is old, and shows it.
    assert client.last_reply_at == before
    client.resume()
    world.until(lambda: len(states) == 4)
    assert states == [CONNECTED, SUSPENDED, EXPIRED, CONNECTED]


def test_what_happened_during_a_pause_is_no_sign_of_life_when_the_process_goes_on() -> None:
    world = FakeWorld()
    client, _ = _connected(world)
    before = client.last_reply_at
    client.pause()
    world.reactor.advance(5.0)
    client.resume()
    assert client.is_connected and client.last_reply_at == before
    short, _ = _connected(world)
    before = short.last_reply_at
    short.pause()
    world.reactor.advance(1.5)
    short.resume()
    assert short.last_reply_at == before
    world.reactor.advance(0.5)
    assert short.last_reply_at > before


def test_a_short_pause_loses_nothing() -> None:
    world = FakeWorld()
    client, states = _connected(world)
    fired: list[str] = []
    wait(world, client.get("/e", lambda: fired.append("watch")))
    client.pause()
    world.zookeeper.write(SetData("/e", b"1"))
    world.reactor.advance(1.0)
    assert fired == []
    client.resume()
    world.until(lambda: fired == ["watch"])
    world.reactor.advance(10.0)
    assert states == [CONNECTED]


def test_a_killed_process_hears_nothing_more() -> None:
    world = FakeWorld()
    client, states = _connected(world)
    client.kill()
    world.reactor.advance(2.1)
    assert world.zookeeper.data("/e") is None
    assert states == [CONNECTED]


def test_with_the_ensemble_away_no_session_expires() -> None:
    world = FakeWorld()
    client, states = _connected(world)
    world.zookeeper.stop()
    world.reactor.advance(60.0)
    with pytest.raises(ConnectionLossError):
        wait(world, client.get("/e"))
    world.zookeeper.start()
    world.until(lambda: client.is_connected)
    assert states == [CONNECTED, SUSPENDED, RECONNECTED]
    assert wait(world, client.get("/e"))[1].ephemeral_owner == client.session_id


def test_a_write_by_hand_is_all_or_nothing() -> None:
    world = FakeWorld()
    with pytest.raises(MultiError):
        world.zookeeper.write(Create("/a", b""), Create("/a", b""))
    assert world.zookeeper.listing() == []
    world.zookeeper.write(Create("/a", b"x"), SetData("/a", b"y"))
    assert world.zookeeper.listing() == ["/a y"]


def test_messages_of_a_session_keep_their_order_whatever_each_takes() -> None:
    world = FakeWorld()
    delays = iter([0.001] * 4 + [0.5, 0.001, 0.3, 0.002, 0.1, 0.001, 0.2] * 20)
    client, _ = _connected(world)
    world.zookeeper._latency = lambda: next(delays)
    answers: list[int] = []
    for number in range(20):
        client.set("/e", b"%d" % number).addCallback(lambda stat: answers.append(stat.version))
    world.until(lambda: len(answers) == 20)
    assert answers == list(range(1, 21))


def test_the_same_run_gives_the_same_events() -> None:
    def run() -> list[str]:
        world = FakeWorld()
        events: list[str] = []
        clients = [world.session() for _ in range(3)]
        for number, client in enumerate(clients):
            connect(world, client)
            client.listen(lambda state, number=number: events.append(f"{number} {state.value}"))  # type: ignore[misc]
            client.children("/", lambda number=number: events.append(f"{number} watch"))  # type: ignore[misc]
            client.create(f"/{number}", b"", ephemeral=True)
        clients[0].lose_next_reply()
        clients[0].set("/0", b"").addErrback(lambda failure: events.append(failure.type.__name__))
        world.reactor.advance(0.0005)
        clients[1].disconnect()
        world.until(lambda: world.reactor.seconds() > 3)
        return [*events, repr(world.zookeeper), *world.zookeeper.listing()]

    first = run()
    assert first == run()
    assert "0 reconnected" in first
    assert "1 suspended" in first


def test_a_short_cut_holds_what_travels_and_loses_nothing() -> None:
    world = FakeWorld()
    client, states = _connected(world)
    fired: list[str] = []
    wait(world, client.get("/e", lambda: fired.append("watch")))
    client.cut()
    answers: list[int] = []
    client.set("/e", b"mine").addCallback(lambda stat: answers.append(stat.version))
    before = client.last_reply_at
    world.reactor.advance(0.5)
    assert (world.zookeeper.data("/e"), answers, fired, client.is_connected) == (b"", [], [], True)
    assert client.last_reply_at == before
    client.reconnect()
    world.until(lambda: bool(answers))
    assert (world.zookeeper.data("/e"), fired, states) == (b"mine", ["watch"], [CONNECTED])
    world.reactor.advance(3.0)
    assert world.zookeeper.data("/e") == b"mine"


def test_a_long_cut_is_noticed_by_the_client_after_half_the_timeout_and_by_the_servers_after_all_of_it() -> None:
    world = FakeWorld()
    client, states = _connected(world)
    client.cut()
    failures: list[object] = []
    client.set("/e", b"lost").addErrback(lambda failure: failures.append(failure.type))
    world.reactor.advance(0.99)
    assert states == [CONNECTED]
    world.reactor.advance(0.02)
    assert (states, failures) == ([CONNECTED, SUSPENDED], [ConnectionLossError])
    world.reactor.advance(0.98)
    assert world.zookeeper.data("/e") == b""
    world.reactor.advance(0.02)
    assert world.zookeeper.data("/e") is None
    client.reconnect()
    world.until(lambda: client.is_connected)
    assert states == [CONNECTED, SUSPENDED, EXPIRED, CONNECTED]


def test_what_a_killed_process_has_sent_is_still_done() -> None:
    world = FakeWorld()
    client, _ = _connected(world)
    client.set("/e", b"1")
    client.set("/e", b"2")
    client.kill()
    world.reactor.advance(0.01)
    assert world.zookeeper.data("/e") == b"2"
    world.reactor.advance(2.1)
    assert world.zookeeper.data("/e") is None


def test_what_a_session_sent_before_it_expired_is_not_done_after() -> None:
    world = FakeWorld()
    client, states = _connected(world)
    failed = client.create("/late", b"", ephemeral=True)
    world.zookeeper.expire(client.session_id)
    with pytest.raises(ConnectionLossError):
        wait(world, failed)
    assert world.zookeeper.data("/late") is None
    world.until(lambda: client.is_connected)
    assert states == [CONNECTED, SUSPENDED, EXPIRED, CONNECTED]


def test_a_process_that_is_paused_while_the_ensemble_is_away_expires_when_it_is_back() -> None:
    world = FakeWorld()
    client, states = _connected(world)
    client.pause()
    world.zookeeper.stop()
    world.reactor.advance(5.0)
    assert states == [CONNECTED]
    world.zookeeper.start()
    world.reactor.advance(1.9)
    assert world.zookeeper.data("/e") == b""
    world.reactor.advance(0.2)
    assert world.zookeeper.data("/e") is None
    client.resume()
    world.until(lambda: len(states) == 4)
    assert states == [CONNECTED, SUSPENDED, EXPIRED, CONNECTED]


def test_every_commit_is_told_with_its_session() -> None:
    world = FakeWorld()
    told: list[tuple[object, object, int]] = []
    world.zookeeper.committed = lambda ops, results, session: told.append((tuple(ops), tuple(results), session))
    client, _ = _connected(world)
    world.zookeeper.write(Create("/hand", b""))
    with pytest.raises(MultiError):
        world.zookeeper.write(Create("/hand", b""))
    assert told == [
        ((Create("/e", b"", ephemeral=True),), ("/e",), client.session_id),
        ((Create("/hand", b""),), ("/hand",), 0),
    ]

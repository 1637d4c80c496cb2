"""Requests that come by the hundred: a slice of each turn of the reactor, first come first served."""

from __future__ import annotations

from typing import Any

from tests.fakes.kafka_client import Listener, frames_of, request_bytes
from tests.unit.kafka_group_tools import request
from zkbroker.kafka import versions as v
from zkbroker.kafka.shares import PAUSE_S, SLICE_S, Shares


class World:
    """A reactor whose every turn runs what was there at its beginning, and a clock moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[Any] = []
        self.begun: list[str] = []
        self.shares = Shares(self, self)  # type: ignore[arg-type]

    def monotonic(self) -> float:
        return self.now

    def callLater(self, seconds: float, call: Any) -> World:
        assert seconds == 0
        self.calls.append(call)
        return self

    def cancel(self) -> None:
        self.calls.clear()

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Client:
    def __init__(self, world: World, name: str, cost_s: float = SLICE_S / 2) -> None:
        self.world = world
        self.name = name
        self.cost_s = cost_s
        self.share_came()

    def share_came(self) -> None:
        if self.world.shares.claim(self):
            self.world.begun.append(self.name)
            self.world.now += self.cost_s
            self.world.shares.ended()


def test_each_turn_has_a_slice_and_who_came_first_is_first() -> None:
    world = World()
    for name in "abcde":
        Client(world, name)
    assert world.begun == ["a", "b"]
    Client(world, "late")
    world.turn()
    assert world.begun == ["a", "b", "c", "d"]
    world.turn()
    assert world.begun == ["a", "b", "c", "d", "e", "late"]
    world.turn()
    assert world.calls == []


def test_a_newcomer_waits_behind_the_line_though_time_is_left() -> None:
    world = World()
    Client(world, "long", 2 * SLICE_S)
    Client(world, "waiting")
    world.now += 1.0
    Client(world, "newcomer")
    assert world.begun == ["long"]
    world.turn()
    assert world.begun == ["long", "waiting", "newcomer"]


def test_requests_that_come_one_by_one_need_no_turn_of_their_own() -> None:
    world = World()
    for name in "abc":
        Client(world, name, 2 * SLICE_S)
        world.now += PAUSE_S
    assert world.begun == ["a", "b", "c"]
    assert world.calls == []


def test_whoever_has_gone_is_forgotten() -> None:
    world = World()
    Client(world, "long", 2 * SLICE_S)
    gone = Client(world, "gone")
    Client(world, "next")
    world.shares.forget(gone)
    world.turn()
    assert world.begun == ["long", "next"]


def test_a_connection_waits_for_its_turn_with_what_comes_behind_and_loses_nothing() -> None:
    listener = Listener()
    shares = listener.factory.shares
    connection, transport = listener.connect()
    shares.ended()
    for number in range(3):
        connection.dataReceived(request_bytes(request(v.HEARTBEAT, 4, group_id="g", member_id="m"), number))
    connection.dataReceived(request_bytes(request(v.METADATA, 4, topics=[]), 3))
    assert frames_of(transport.take()) == []
    listener.clock.advance(0)
    answers = frames_of(transport.take())
    assert [int.from_bytes(answer[:4], "big") for answer in answers] == [0, 1, 2, 3]


def test_a_lost_connection_is_not_waited_for() -> None:
    listener = Listener()
    shares = listener.factory.shares
    connection, _ = listener.connect()
    shares.ended()
    connection.dataReceived(request_bytes(request(v.HEARTBEAT, 4, group_id="g", member_id="m"), 1))
    connection.connectionLost()
    assert repr(shares) == "Shares(0 waiting)"

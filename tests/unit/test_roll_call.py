"""Answers about leaders wait for a sign of life of all peers: not for ever, and for none older than the question."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from zkbroker.broker.roll_call import CALL_S, RollCall


class Peers:
    def __init__(self, *connected: int) -> None:
        self.connected = list(connected)
        self.clock = Clock()
        self.pings = 0
        self.said: list[str] = []
        self.roll_call = RollCall(self.clock, self._call)

    def _call(self) -> dict[int, int]:
        self.pings += 1
        return {broker_id: 10 * self.pings + broker_id for broker_id in self.connected}

    def ask(self, name: str) -> None:
        self.roll_call.ask(lambda: self.said.append(name))


def test_without_peers_the_answer_comes_at_once() -> None:
    peers = Peers()
    peers.ask("a")
    peers.ask("b")
    assert peers.said == ["a", "b"] and peers.clock.getDelayedCalls() == []


def test_all_connected_peers_are_waited_for() -> None:
    peers = Peers(1, 2)
    peers.ask("a")
    peers.roll_call.heard(1, 11)
    assert peers.said == []
    peers.roll_call.heard(2, 11)  # an answer to something older than the PING
    assert peers.said == []
    peers.roll_call.heard(2, 12)
    assert peers.said == ["a"] and peers.clock.getDelayedCalls() == []


def test_a_question_that_comes_during_a_round_waits_for_the_next() -> None:
    """The PONG under way may be from before the leader's death."""
    peers = Peers(1)
    peers.ask("a")
    peers.ask("b")
    peers.ask("c")
    assert peers.pings == 1
    peers.roll_call.heard(1, 11)
    assert (peers.said, peers.pings) == (["a"], 2)
    peers.roll_call.heard(1, 11)
    assert peers.said == ["a"]
    peers.roll_call.heard(1, 21)
    assert (peers.said, peers.pings) == (["a", "b", "c"], 2)


def test_a_broken_connection_is_an_answer_and_silence_becomes_one() -> None:
    peers = Peers(1, 2)
    peers.ask("a")
    peers.roll_call.heard(1, 11)
    peers.roll_call.gone(2)
    assert peers.said == ["a"]
    peers.ask("b")
    peers.clock.advance(CALL_S - 0.001)
    assert peers.said == ["a"]
    peers.clock.advance(0.002)
    assert peers.said == ["a", "b"]
    peers.roll_call.gone(1)  # later news of an old round
    peers.roll_call.heard(2, 99)
    assert peers.said == ["a", "b"]


@pytest.mark.parametrize("asked", [1, 3])
def test_a_stop_leaves_nobody_waiting(asked: int) -> None:
    peers = Peers(1)
    for number in range(asked):
        peers.ask(str(number))
    peers.roll_call.stop()
    assert peers.said == [str(number) for number in range(asked)]
    assert peers.clock.getDelayedCalls() == []


def test_an_answer_that_asks_again_is_served_in_the_next_round() -> None:
    peers = Peers(1)
    peers.roll_call.ask(lambda: peers.ask("again"))
    peers.roll_call.heard(1, 11)
    assert (peers.said, peers.pings) == ([], 2)
    peers.roll_call.heard(1, 21)
    assert peers.said == ["again"]


def test_whoever_let_a_round_wait_is_not_waited_for_again_until_it_speaks() -> None:
    """A peer that was stopped would cost every client 50 ms for seconds."""
    peers = Peers(1, 2)
    peers.ask("a")
    peers.roll_call.heard(1, 11)
    peers.clock.advance(CALL_S)
    assert peers.said == ["a"]
    peers.ask("b")
    assert peers.said == ["a"]
    peers.roll_call.heard(1, 21)
    assert peers.said == ["a", "b"]
    peers.roll_call.heard(2, 12)  # it goes on
    peers.ask("c")
    peers.roll_call.heard(1, 31)
    assert peers.said == ["a", "b"]
    peers.roll_call.heard(2, 32)
    assert peers.said == ["a", "b", "c"]
    # One that comes back on another connection is waited for, too.
    peers.ask("d")
    peers.roll_call.heard(1, 41)
    peers.clock.advance(CALL_S)
    peers.roll_call.gone(2)
    peers.ask("e")
    peers.roll_call.heard(1, 51)
    assert peers.said == ["a", "b", "c", "d"]

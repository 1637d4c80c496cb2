"""Controlled shutdown, the broker's side: asked until nothing remains, nobody is there, or time is up."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed

from tests.harness.zookeeper_worlds import FakeWorld
from zkbroker.broker.handover import CLIENTS_TOLD_S, hand_over
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topics import TopicPartition

Answer = Callable[[], Deferred[tuple[TopicPartition, ...]]]
LED = (TopicPartition("t", 0), TopicPartition("t", 1))


class Shutdown:
    def __init__(self, *answers: Answer, others: int = 1, has_clients: bool = False) -> None:
        self.world = FakeWorld()
        self.answers = list(answers)
        self.asked = 0
        self.others = others
        self.lines: list[str] = []
        self.ended_at = -1.0
        self.moved_at: list[float] = []
        self.done = hand_over(
            ask=self._ask,
            somebody_else=lambda: self.others > 0,
            has_clients=lambda: has_clients,
            moved=lambda: self.moved_at.append(self.world.reactor.seconds()),
            seconds_max=1.0,
            clock=self.world.clock,
            reactor=self.world.reactor,
            log=self.lines.append,
        )
        self.done.addCallback(lambda _: setattr(self, "ended_at", self.world.reactor.seconds()))

    def _ask(self) -> Deferred[tuple[TopicPartition, ...]]:
        self.asked += 1
        return (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])()

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.01)):
            self.world.reactor.advance(0.01)


def test_it_ends_when_no_leadership_remains() -> None:
    shutdown = Shutdown(lambda: succeed(LED), lambda: succeed(()))
    shutdown.pass_time(0.3)
    assert (shutdown.asked, shutdown.lines) == (2, ["all leaderships have moved"])
    assert 0.1 <= shutdown.ended_at < 0.2


def test_clients_are_answered_for_a_while_after_the_leaderships_have_moved() -> None:
    """librdkafka, whose connection closes while it waits for nothing, looks for the new leader only a second later."""
    shutdown = Shutdown(lambda: succeed(()), has_clients=True)
    shutdown.pass_time(CLIENTS_TOLD_S - 0.01)
    assert shutdown.ended_at == -1.0
    assert shutdown.moved_at == [0.0]
    shutdown.pass_time(0.02)
    assert CLIENTS_TOLD_S <= shutdown.ended_at <= CLIENTS_TOLD_S + 0.01


def test_what_nobody_can_take_does_not_hold_it_up_for_longer_than_allowed() -> None:
    shutdown = Shutdown(lambda: succeed(LED))
    shutdown.pass_time(1.5)
    assert (shutdown.lines, shutdown.moved_at) == (["2 leaderships could not move"], [])
    assert 1.0 <= shutdown.ended_at < 1.2


def test_without_another_broker_nobody_is_asked() -> None:
    shutdown = Shutdown(lambda: succeed(()), others=0)
    assert (shutdown.asked, shutdown.ended_at) == (0, 0.0)


def test_a_controller_that_goes_is_asked_again_and_complained_of_once() -> None:
    gone = BrokerError(ErrorCode.NOT_CONTROLLER, "no controller is known")
    shutdown = Shutdown(lambda: fail(gone), lambda: fail(gone), lambda: fail(gone), lambda: succeed(()))
    shutdown.pass_time(0.5)
    assert shutdown.lines == ["controlled shutdown: no controller is known", "all leaderships have moved"]


def test_a_controller_that_never_answers_is_left() -> None:
    shutdown = Shutdown(Deferred)
    shutdown.pass_time(1.5)
    assert (shutdown.asked, shutdown.lines) == (1, ["controlled shutdown: TimeoutError"])
    assert 1.0 <= shutdown.ended_at < 1.2


def test_it_stops_asking_when_the_others_are_gone_too() -> None:
    shutdown = Shutdown(lambda: succeed(LED))
    shutdown.pass_time(0.25)
    shutdown.others = 0
    shutdown.pass_time(0.25)
    assert 0.2 < shutdown.ended_at < 0.5

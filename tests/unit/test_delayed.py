"""Parked requests, their deadlines and wake-ups."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from zkbroker.broker.delayed import SWEEP_SECONDS, Deadlines, OffsetWaiters, ParkedProduce, Turn
from zkbroker.kafka.ports import CurrentLeader, ProducedRow
from zkbroker.model.errors import ErrorCode


class Time:
    def __init__(self, reactor: Clock) -> None:
        self.reactor = reactor

    def monotonic(self) -> float:
        return 50.0 + self.reactor.seconds()

    def wall_ms(self) -> int:
        return 0


class Parked:
    def __init__(self, name: str, told: list[str]) -> None:
        self.bucket = -1
        self.name = name
        self.told = told

    def expired(self) -> None:
        self.told.append(self.name)


def produce(deadlines: Deadlines, answers: list[Any], rows: int = 1, seconds: float = 1.0) -> ParkedProduce:
    rows_asked = [ProducedRow("t", index, ErrorCode.NONE, 5) for index in range(rows)]
    parked = ParkedProduce(deadlines, answers.append, rows_asked)
    for index in range(rows):
        parked.wait_for(index)
    parked.park(seconds)
    return parked


def test_deadlines_come_never_early_and_at_most_a_sweep_late() -> None:
    reactor = Clock()
    deadlines = Deadlines(reactor, Time(reactor))
    told: list[str] = []
    for name, seconds in (("late", 0.93), ("soon", 0.11), ("now", 0.0)):
        deadlines.add(Parked(name, told), seconds)
    for millisecond in range(1, 1001):
        reactor.advance(0.001)
        due = [n for n, s in (("now", 0.0), ("soon", 0.11), ("late", 0.93)) if s + SWEEP_SECONDS < millisecond / 1000]
        assert told[: len(due)] == due
        assert len(told) <= sum(s <= millisecond / 1000 for s in (0.0, 0.11, 0.93))
    assert told == ["now", "soon", "late"]
    assert reactor.getDelayedCalls() == []


def test_a_dropped_deadline_does_not_come() -> None:
    reactor = Clock()
    deadlines = Deadlines(reactor, Time(reactor))
    told: list[str] = []
    dropped, kept = Parked("dropped", told), Parked("kept", told)
    deadlines.add(dropped, 0.1)
    deadlines.add(kept, 0.1)
    deadlines.drop(dropped)
    reactor.pump([0.05] * 10)
    assert told == ["kept"]


def test_one_timer_serves_all() -> None:
    reactor = Clock()
    deadlines = Deadlines(reactor, Time(reactor))
    for number in range(100):
        deadlines.add(Parked("x", []), number / 10)
    assert len(reactor.getDelayedCalls()) == 1


def test_a_request_is_answered_with_its_last_row() -> None:
    reactor = Clock()
    answers: list[Any] = []
    parked = produce(Deadlines(reactor, Time(reactor)), answers, rows=2)
    parked.settle(1, ErrorCode.NOT_LEADER_OR_FOLLOWER, CurrentLeader(3, 4))
    parked.settle(1, ErrorCode.NONE)
    assert answers == []
    parked.settle(0, ErrorCode.NONE)
    ((first, second),) = answers
    assert (first.error, first.base_offset) == (ErrorCode.NONE, 5)
    assert (second.error, second.current_leader) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, CurrentLeader(3, 4))
    reactor.pump([0.1] * 20)
    assert len(answers) == 1


def test_what_is_not_settled_in_time_timed_out() -> None:
    reactor = Clock()
    answers: list[Any] = []
    parked = produce(Deadlines(reactor, Time(reactor)), answers, rows=2)
    parked.settle(0, ErrorCode.NONE)
    reactor.pump([0.1] * 12)
    assert [row.error for row in answers[0]] == [ErrorCode.NONE, ErrorCode.REQUEST_TIMED_OUT]
    assert parked.is_finished


def test_waiters_come_by_offset_then_by_age() -> None:
    reactor = Clock()
    deadlines = Deadlines(reactor, Time(reactor))
    waiters = OffsetWaiters()
    requests = [produce(deadlines, []) for _ in range(4)]
    for offset, request in zip((7, 3, 7, 5), requests, strict=True):
        waiters.add(offset, request, 0)
    assert [parked for parked, _ in waiters.take_up_to(6)] == [requests[1], requests[3]]
    assert waiters.take_up_to(6) == []
    assert [parked for parked, _ in waiters.take_all()] == [requests[0], requests[2]]
    assert len(waiters) == 0


def test_waiters_that_gave_up_do_not_pile_up() -> None:
    reactor = Clock()
    deadlines = Deadlines(reactor, Time(reactor))
    waiters = OffsetWaiters()
    for number in range(5000):
        request = produce(deadlines, [])
        waiters.add(number, request, 0)
        request.cancel()
    assert len(waiters) <= 1025


def test_a_turn_looks_once_at_each_thing() -> None:
    reactor = Clock()
    looked: list[list[str]] = []
    turn = Turn(reactor, looked.append)
    for name in ("a", "b", "a", "c"):
        turn.tell(name)
    turn.forget("c")
    assert looked == []
    reactor.advance(0)
    assert looked == [["a", "b"]]

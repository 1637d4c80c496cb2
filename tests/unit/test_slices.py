"""Long work in slices: in turn, bounded, waiting for Deferreds, cancelled, failed."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail

from zkbroker.broker.slices import SLICE_S, Slices, Steps


class OneTurn:
    """A reactor whose every turn runs what was there at its beginning."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def callLater(self, seconds: float, call: Any) -> OneTurn:
        assert seconds == 0
        self.calls.append(call)
        return self

    def cancel(self) -> None:
        self.calls.clear()

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class World:
    def __init__(self) -> None:
        self.reactor = OneTurn()
        self.now = 0.0
        self.done: list[Any] = []
        self.failures: list[BaseException] = []
        self.slices = Slices(self.reactor, self, self.failures.append)  # type: ignore[arg-type]

    def monotonic(self) -> float:
        return self.now

    def work(self, name: str, count: int, cost_s: float = SLICE_S / 4) -> Steps:
        for index in range(count):
            self.done.append(f"{name}{index}")
            self.now += cost_s
            yield None


def test_a_turn_takes_no_longer_than_a_slice_and_works_take_turns() -> None:
    world = World()
    world.slices.start(world.work("a", 6))
    world.slices.start(world.work("b", 2))
    assert world.done == []
    world.reactor.turn()
    assert world.done == ["a0", "a1", "a2", "a3"]
    world.reactor.turn()
    assert world.done[4:] == ["b0", "b1", "a4", "a5"]
    world.reactor.turn()
    assert world.reactor.calls == []


def test_a_work_waits_for_a_deferred_whatever_comes_of_it() -> None:
    world = World()
    waited: Deferred[None] = Deferred()

    def steps() -> Steps:
        yield waited
        yield fail(OSError("no matter"))
        world.done.append("went on")

    world.slices.start(steps())
    world.reactor.turn()
    assert world.reactor.calls == []
    waited.callback(None)
    world.reactor.turn()
    world.reactor.turn()
    assert world.done == ["went on"]
    assert world.failures == []


def test_a_cancelled_work_does_no_more_and_others_go_on() -> None:
    world = World()
    first = world.slices.start(world.work("a", 9))
    world.slices.start(world.work("b", 1))
    world.reactor.turn()
    first.cancel()
    world.reactor.turn()
    world.reactor.turn()
    assert world.done == ["a0", "a1", "a2", "a3", "b0"]


def test_what_a_work_raises_is_told_and_the_others_go_on() -> None:
    world = World()

    def broken() -> Steps:
        yield None
        raise ValueError("broken")

    world.slices.start(broken())
    world.slices.start(world.work("b", 1))
    world.reactor.turn()
    world.reactor.turn()
    assert [str(error) for error in world.failures] == ["broken"]
    assert world.done == ["b0"]


def test_after_stop_nothing_goes_on() -> None:
    world = World()
    waited: Deferred[None] = Deferred()

    def steps() -> Steps:
        yield waited
        world.done.append("went on")

    world.slices.start(steps())
    world.reactor.turn()
    world.slices.start(world.work("b", 1))
    world.slices.stop()
    waited.callback(None)
    world.reactor.turn()
    assert world.done == []
    assert world.reactor.calls == []

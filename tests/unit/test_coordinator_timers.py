"""Many deadlines, put off all the time."""

from __future__ import annotations

import random

from zkbroker.coordinator.timers import JoinTimer, MemberTimer, SyncTimer, Timer, Timers


def fired(timers: Timers, now: float) -> list[Timer]:
    return list(timers.due(now))


A, B, C = (MemberTimer("g", name) for name in "abc")


def test_due_in_order_and_once() -> None:
    timers = Timers()
    timers.set(B, 2.0)
    timers.set(A, 1.0)
    timers.set(C, 2.0)
    assert timers.next_deadline() == 1.0
    assert fired(timers, 0.9) == []
    assert fired(timers, 2.0) == [A, B, C]
    assert fired(timers, 9.0) == []
    assert (timers.next_deadline(), len(timers)) == (None, 0)


def test_kinds_are_apart() -> None:
    """A group's two timers, and that of a member whose id looks like one."""
    timers = Timers()
    for number, timer in enumerate(
        (JoinTimer("g"), SyncTimer("g"), MemberTimer("g", "join"), MemberTimer("g", "sync"))
    ):
        timers.set(timer, number)
    timers.cancel(SyncTimer("g"))
    assert fired(timers, 9.0) == [JoinTimer("g"), MemberTimer("g", "join"), MemberTimer("g", "sync")]
    assert len(timers) == 0


def test_put_off_and_brought_forward() -> None:
    timers = Timers()
    timers.set(A, 10.0)
    timers.set(A, 20.0)
    assert timers.next_deadline() == 10.0, "early is allowed, and costs nothing to know"
    assert fired(timers, 15.0) == []
    assert timers.next_deadline() == 20.0
    timers.set(A, 16.0)
    assert fired(timers, 16.0) == [A]
    assert fired(timers, 99.0) == []


def test_cancelled() -> None:
    timers = Timers()
    timers.set(A, 1.0)
    timers.set(B, 2.0)
    timers.cancel(A)
    timers.cancel(C)
    assert timers.next_deadline() == 2.0
    assert fired(timers, 9.0) == [B]


def test_what_is_due_can_be_cancelled_or_put_off_by_what_was_due_before() -> None:
    timers = Timers()
    for timer in (A, B, C):
        timers.set(timer, 1.0)
    found = []
    for timer in timers.due(1.0):
        found.append(timer)
        timers.cancel(B)
        timers.set(C, 5.0)
    assert found == [A]
    assert fired(timers, 5.0) == [C]


def test_set_while_it_fires_waits_for_the_next_call() -> None:
    timers = Timers()
    timers.set(A, 1.0)
    for timer in timers.due(1.0):
        timers.set(timer, 0.0)
    assert timers.next_deadline() == 0.0
    assert fired(timers, 1.0) == [A]


def test_as_a_simple_one_would_and_in_bounds() -> None:
    chance = random.Random(5)
    timers = Timers()
    simple: dict[Timer, float] = {}
    keys = [MemberTimer("g", str(number)) for number in range(50)]
    now = 0.0
    for _ in range(8_000):
        key = chance.choice(keys)
        what = chance.random()
        if what < 0.7:
            simple[key] = now + chance.random() * 100
            timers.set(key, simple[key])
        elif what < 0.9:
            simple.pop(key, None)
            timers.cancel(key)
        else:
            now += chance.random()
            expected = {timer for timer, deadline in simple.items() if deadline <= now}
            assert set(timers.due(now)) == expected
            for timer in expected:
                del simple[timer]
        assert len(timers._queue) <= 2 * len(keys) + Timers.SLACK
        if what < 0.8:
            continue
        first = timers.next_deadline()
        assert (first is None) == (not simple)
        assert first is None or first <= min(simple.values())
        assert len(timers._queue) <= 2 * len(keys) + Timers.SLACK

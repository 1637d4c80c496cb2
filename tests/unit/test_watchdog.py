"""The watchdog ends a hung reactor, and never a process that was itself stopped."""

from __future__ import annotations

from zkbroker.broker.watchdog import LOOKS_PER_SESSION, Watchdog

PERIOD_S = 0.6


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.reasons: list[str] = []

    def watchdog(self) -> Watchdog:
        return Watchdog(
            session_timeout_s=PERIOD_S * LOOKS_PER_SESSION, monotonic=lambda: self.now, gave_up=self.reasons.append
        )


def test_gives_up_after_ten_looks_without_a_tick() -> None:
    hand = Hand()
    watchdog = hand.watchdog()
    for _ in range(LOOKS_PER_SESSION - 1):
        hand.now += PERIOD_S
        assert watchdog.look()
    hand.now += PERIOD_S
    assert not watchdog.look()
    assert hand.reasons == ["the reactor has not turned for 6.0 s"]


def test_a_tick_between_looks_resets_the_count() -> None:
    hand = Hand()
    watchdog = hand.watchdog()
    for round_number in range(LOOKS_PER_SESSION * 3):
        hand.now += PERIOD_S
        if round_number % (LOOKS_PER_SESSION - 1) == 0:
            watchdog.tick()
        assert watchdog.look()
    assert hand.reasons == []


def test_a_stop_of_the_whole_process_resets_the_count() -> None:
    hand = Hand()
    watchdog = hand.watchdog()
    for _ in range(LOOKS_PER_SESSION - 1):
        hand.now += PERIOD_S
        assert watchdog.look()
    hand.now += 30.0
    assert watchdog.look()
    for _ in range(LOOKS_PER_SESSION - 1):
        hand.now += PERIOD_S
        assert watchdog.look()
    assert hand.reasons == []

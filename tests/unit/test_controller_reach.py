"""A controller that hears too few of the others gives its office up, and not again and again."""

from __future__ import annotations

import pytest

from zkbroker.controller.reach import DOUBLINGS_MAX, FORGOTTEN_AFTER_S, OfficeReach

TIMEOUT_S = 6.0


class Office:
    """One broker's view, looked at as often as it asks to be."""

    def __init__(self, *others: int) -> None:
        self.now = 100.0
        self.others = others
        self.reach = OfficeReach(TIMEOUT_S)
        self.reach.term_began(self.now)

    def passes(self, seconds: float, *, hearing: tuple[int, ...] = ()) -> str | None:
        """Look until the time is over, or there is a reason to step down."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now += self.reach.period_s
            for other in hearing:
                self.reach.heard(other, self.now)
            reason = self.reach.look(self.others, self.now)
            if reason is not None:
                return reason
        return None

    def steps_down(self, *, followed: bool) -> None:
        self.reach.stepped_down(self.now)
        if followed:
            self.reach.another_holds()
        self.now += self.reach.aside_s(self.now)
        self.reach.term_began(self.now)


def test_hearing_neither_of_two_it_steps_down_in_half_the_timeout() -> None:
    office = Office(2, 3)
    assert office.passes(3.0) is None
    reason = office.passes(0.6)
    assert reason == "2 of 2 other brokers (2,3) were not heard for 3 s"


@pytest.mark.parametrize(
    ("others", "hearing", "stays"),
    [
        ((), (), True),
        ((2,), (), True),
        ((2, 3), (3,), True),
        ((2, 3, 4), (3,), True),
        ((2, 3, 4), (), False),
        ((2, 3, 4, 5), (2, 3), True),
        ((2, 3, 4, 5), (2,), False),
    ],
)
def test_the_smaller_side_steps_down_and_halves_stay(
    others: tuple[int, ...], hearing: tuple[int, ...], stays: bool
) -> None:
    assert (Office(*others).passes(20.0, hearing=hearing) is None) is stays


def test_a_broker_that_has_just_registered_has_time_to_be_heard() -> None:
    office = Office()
    assert office.passes(10.0) is None
    office.others = (2, 3)
    assert office.passes(2.9) is None
    assert office.passes(0.6) is not None


def test_after_a_stop_of_the_process_it_listens_first() -> None:
    office = Office(2, 3)
    office.now += 50.0
    assert office.reach.look((2, 3), office.now) is None
    assert office.passes(2.6) is None
    assert office.passes(0.6) is not None


def test_others_go_first_and_longer_each_time() -> None:
    office = Office(2, 3)
    assert office.reach.aside_s(office.now) == 0.0
    waits = []
    for _ in range(4):
        assert office.passes(100.0) is not None
        office.reach.stepped_down(office.now)
        office.reach.another_holds()
        waits.append(office.reach.aside_s(office.now))
        office.now += 20.0
        office.reach.term_began(office.now)
    assert waits == [1.0, 2.0, 2.0, 2.0]
    office.now += FORGOTTEN_AFTER_S + 1
    assert office.reach.aside_s(office.now) == 0.0


def test_whoever_hears_the_greater_side_again_is_as_good_a_controller_as_any() -> None:
    """Torture: controllers cut off one after the other, each time for twice as long, at last for a minute."""
    office = Office(2, 3, 4, 5)
    assert office.passes(10.0) is not None
    office.steps_down(followed=True)

    def answers(seconds: float, *peers: int) -> None:
        for _ in range(round(seconds)):
            office.now += 1.0
            for peer in peers:
                office.reach.peer_answered(peer, (2, 3, 4, 5), office.now)

    answers(60.0, 2)
    assert office.reach.aside_s(office.now) == 1.0, "one of four is not the greater side"
    answers(6.0, 2, 3)
    office.now += 3.0
    answers(6.0, 2, 3)
    assert office.reach.aside_s(office.now) == 1.0, "nobody answered for a while in between"
    answers(1.0, 2, 3)
    assert office.reach.aside_s(office.now) == 0.0
    office.reach.term_began(office.now)
    assert office.passes(3.5) is not None


@pytest.mark.parametrize("times", [1, 2, 5])
def test_whoever_made_the_office_vacant_lets_all_others_go_first(times: int) -> None:
    """Also those who stepped down themselves lately, however often."""
    healthy, cut_off = Office(2, 3), Office(1, 3)
    for _ in range(times):
        healthy.reach.stepped_down(healthy.now)
        healthy.reach.another_holds()
    cut_off.reach.stepped_down(cut_off.now)
    assert cut_off.reach.aside_s(cut_off.now) == 3.0
    assert healthy.reach.aside_s(healthy.now) <= 2.0


def test_when_everybody_is_away_it_steps_down_once_and_stays_until_somebody_is_heard() -> None:
    office = Office(2, 3)
    assert office.passes(10.0) is not None
    office.steps_down(followed=False)
    assert office.passes(60.0) is None
    office.reach.heard(3, office.now)
    assert office.passes(12.0) is not None


def test_nobody_stays_unheard_for_ever() -> None:
    """Those who were away may be back, and still be cut off from here."""
    office = Office(2, 3)
    assert office.passes(10.0) is not None
    office.steps_down(followed=False)
    assert office.passes(3.0 * 2**DOUBLINGS_MAX - 1) is None
    assert office.passes(2.0) is not None


def test_when_another_had_the_office_meanwhile_it_steps_down_again() -> None:
    office = Office(2, 3)
    assert office.passes(10.0) is not None
    office.steps_down(followed=True)
    assert office.passes(5.9) is None
    assert office.passes(1.0) is not None

"""How long a broker that failed in office does not stand again."""

from __future__ import annotations

from zkbroker.controller.back_off import BACK_OFF_S_MAX, STABLE_TERM_S, BackOff
from zkbroker.controller.office import TopicFailed


def test_each_failure_doubles_the_time_until_a_term_was_stable() -> None:
    back_off = BackOff()
    assert back_off.stand_at < 0.0
    now = 100.0
    waits = []
    for _ in range(8):
        back_off.term_began(now)
        waits.append(back_off.term_failed(ValueError("x"), now + 1.0))
        now += 1.0
        assert back_off.stand_at == now + waits[-1]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, BACK_OFF_S_MAX, BACK_OFF_S_MAX]
    back_off.term_began(now)
    assert back_off.term_failed(ValueError("x"), now + STABLE_TERM_S) == BACK_OFF_S_MAX
    back_off.term_began(now)
    assert back_off.term_failed(ValueError("x"), now + STABLE_TERM_S + 0.1) == 1.0


def test_a_topic_that_failed_twice_is_quarantined() -> None:
    back_off = BackOff()
    back_off.term_failed(TopicFailed("bad", ValueError("x")), 1.0)
    back_off.term_failed(TopicFailed("other", ValueError("x")), 2.0)
    assert back_off.quarantined() == []
    back_off.term_failed(TopicFailed("bad", ValueError("x")), 3.0)
    assert back_off.quarantined() == ["bad"]

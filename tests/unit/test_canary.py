"""How late a canary woke, within a stretch of time with its edges."""

from __future__ import annotations

import time
from pathlib import Path

from zkbroker.cli._canary import Canary, delay_between


def test_a_sleep_that_reaches_into_the_stretch_counts() -> None:
    """The machine stood still from 9 to 12: whoever looks at 10 to 11 must hear of it."""
    samples = [(8.0, 0.0), (12.0, 3.0), (12.5, 0.001)]
    stood = delay_between(samples, 10.0, 11.0)
    assert (stood.max_ms, stood.p99_ms, stood.is_quiet) == (3000, 3000, False)
    assert delay_between(samples, 12.2, 13.0).max_ms == 1
    assert delay_between(samples, 12.2, 13.0).is_quiet
    assert delay_between(samples, 20.0, 21.0).max_ms == 1000  # it has not woken since


def test_a_canary_lives(tmp_path: Path) -> None:
    since = time.monotonic()
    with Canary(tmp_path) as canary:
        delay = canary.delay(since, time.monotonic())
    assert 0 <= delay.p99_ms <= delay.max_ms

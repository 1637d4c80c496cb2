"""What the benchmarks compute from times, against a dumb version and by hand."""

from __future__ import annotations

import itertools
import random

import pytest

from zkbroker.cli._figures import Gap, is_steady, longest_gap, percentile, summarize


def test_percentiles_by_nearest_rank() -> None:
    twenty = [float(number) for number in range(1, 21)]
    random.Random(1).shuffle(twenty)
    assert percentile(twenty, 0.95) == 19  # "the 19th of 20"
    assert percentile(twenty, 0.5) == 10
    assert percentile(twenty, 0.99) == 20
    assert percentile(twenty, 0) == 1
    assert percentile([7.0], 0.95) == percentile([7.0], 0.01) == 7
    with pytest.raises(ValueError):
        percentile([], 0.5)
    assert summarize(twenty) == (20, 10, 19, 20)
    assert summarize([]) is None


@pytest.mark.parametrize(
    ("acknowledged", "since", "until", "gap"),
    [
        ([1, 2, 3, 4], 2.5, 3.5, Gap(1, 2, True)),
        ([1, 2, 9, 10], 2.5, 9.5, Gap(7, 2, True)),  # from the last acknowledgement before the fault
        ([1, 2, 9, 10], 2, 9.5, Gap(7, 2, True)),  # that came at the very moment
        ([1, 2, 9, 10], 2.5, 5, Gap(7, 2, True)),  # measured whole, though it ends after the look
        ([0, 5, 6, 7, 8], 6.5, 8, Gap(1, 6, True)),  # what was before the fault does not count
        ([5, 6, 20], 5.5, 7, Gap(14, 6, True)),
        ([5, 6], 5.5, 9, Gap(3, 6, False)),  # still going on
        ([], 5, 9, Gap(4, 5, False)),
        ([8], 5, 9, Gap(3, 5, True)),  # none before: counted from the fault
    ],
)
def test_gaps_by_hand(acknowledged: list[float], since: float, until: float, gap: Gap) -> None:
    assert longest_gap(acknowledged, since, until) == gap


def test_gaps_against_a_dumb_version() -> None:
    dice = random.Random(4)
    for _ in range(2000):
        times = sorted(dice.randrange(100) / 10 for _ in range(dice.randrange(1, 15)))
        since = times[0] + dice.random() * 5
        until = since + dice.random() * 5
        overlapping = [b - a for a, b in itertools.pairwise(times) if b > since and a < until]
        if times[-1] < until:
            overlapping.append(until - times[-1])
        assert longest_gap(times, since, until).seconds == pytest.approx(max(overlapping, default=0.0))


def test_steady_means_that_no_pause_lasts_either() -> None:
    assert is_steady([1.0, 1.1, 1.2, 1.3], 1.0, 1.35, 0.15)
    assert not is_steady([1.0, 1.1, 1.3, 1.4], 1.0, 1.45, 0.15)
    assert not is_steady([1.0, 1.1, 1.2], 1.0, 1.5, 0.15)
    assert not is_steady([], 1.0, 2.0, 0.5)

"""What the benchmarks compute from times: percentiles, and the longest time without an acknowledgement. Pure."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import NamedTuple


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of them do not exceed (nearest rank): 0.95 of 20 is the 19th."""
    if not values:
        raise ValueError("a percentile of nothing")
    # Rounded first: 0.95 * 20 must be 19, not a hair more.
    rank = math.ceil(round(share * len(values), 9))
    return sorted(values)[min(len(values), max(1, rank)) - 1]


class Gap(NamedTuple):
    """A time without an acknowledgement."""

    seconds: float
    start_s: float
    """When the last acknowledgement before it came, or ``since_s`` where there was none."""
    is_over: bool
    """False: none came before the end of the stretch, so it was at least this long."""


def longest_gap(acknowledged_s: Sequence[float], since_s: float, until_s: float) -> Gap:
    """The longest time between two consecutive acknowledgements of which any part lies in that stretch.

    ``acknowledged_s`` rises. The acknowledgement before ``since_s`` and the one after ``until_s`` count as edges: a gap
    that the fault cut in two, or that the end of looking would, is measured whole. The first of equal ones is told.
    """
    first = max(0, bisect.bisect_right(acknowledged_s, since_s) - 1)
    longest = Gap(0.0, since_s, True)
    previous = since_s if not acknowledged_s or acknowledged_s[0] > since_s else acknowledged_s[first]
    for moment in acknowledged_s[first:]:
        if moment - previous > longest.seconds:
            longest = Gap(moment - previous, previous, True)
        previous = moment
        if moment >= until_s:
            return longest
    if until_s - previous > longest.seconds:
        longest = Gap(until_s - previous, previous, False)
    return longest


def is_steady(acknowledged_s: Sequence[float], since_s: float, now_s: float, pause_s_max: float) -> bool:
    """Since ``since_s`` no pause was longer than that; neither is the one that lasts now."""
    gap = longest_gap(acknowledged_s, since_s, now_s)
    return gap.seconds <= pause_s_max


class Summary(NamedTuple):
    """Of some rounds."""

    rounds: int
    median: float
    high: float
    """The 95th percentile by nearest rank: the 19th of 20."""
    worst: float


def summarize(values: Sequence[float]) -> Summary | None:
    if not values:
        return None
    return Summary(len(values), percentile(values, 0.5), percentile(values, 0.95), max(values))

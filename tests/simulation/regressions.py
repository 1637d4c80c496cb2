"""Runs that failed once, each with the bug that it showed: they stay clean. ``test_campaign`` runs them all."""

from __future__ import annotations

from typing import NamedTuple

from tests.simulation.mutant_results import Caught


class Regression(NamedTuple):
    """A run that a bug made fail."""

    seed: int
    profile: str
    steps: int
    why: str


REGRESSIONS: tuple[Regression, ...] = (
    Regression(
        8026, "default", 2000, "bytes that a second read found in the page cache woke nobody: never fetched again"
    ),
    Regression(102, "network", 2000, "a torn partition.metadata, a clean stop before the controller spoke: no start"),
    Regression(7, "crashes", 2000, "a broker fenced early waited for ever for partitions that were settled already"),
    Regression(
        1_000_069, "elections", 2000, "the checker: a leadership that ended in the step that raised its high mark"
    ),
    Regression(
        252, "crashes", 2000, "the checker: who refused when a verdict fell was known to have restarted a moment later"
    ),
)

NOTICED: dict[str, Caught] = {}

UNNOTICED: dict[str, str] = {}

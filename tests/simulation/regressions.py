"""Runs that failed once, each with the bug that it showed: they stay clean. ``test_campaign`` runs them all."""

from __future__ import annotations

from typing import NamedTuple


class Regression(NamedTuple):
    """A run that a bug made fail."""

    seed: int
    profile: str
    steps: int
    why: str


REGRESSIONS: tuple[Regression, ...] = ()

"""Where each mutant fell: found with ``--hunt``, run again by ``test_campaign`` as far as its time allows, all of them
with ``--check-mutants``."""

from __future__ import annotations

from typing import NamedTuple


class Caught(NamedTuple):
    """A run that noticed a missing rule."""

    seed: int
    profile: str
    steps: int
    """Of the run."""
    step: int
    """Of the violation."""
    invariant: int
    """Of kafka-semantics.md §7; 0 for an exception in a broker."""


RESULTS: dict[str, Caught] = {}

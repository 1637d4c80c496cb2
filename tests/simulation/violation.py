"""What a checker raises."""

from __future__ import annotations


class Violation(Exception):
    """An invariant of the simulated cluster does not hold. ``invariant`` is its number in the list of
    ``checkers/__init__.py``; 0 for an exception in a broker that must not happen."""

    def __init__(self, invariant: int, text: str) -> None:
        super().__init__(f"invariant {invariant}: {text}")
        self.invariant = invariant
        self.text = text

"""What is kept of a bug that was found: see ``bugs``."""

from __future__ import annotations

from typing import NamedTuple

from tests.simulation.mutation import Edit, Mutant


class Bug(NamedTuple):
    """Something the product did wrong."""

    name: str
    what: str
    """What happened."""
    mended: str
    """How the subject of the commit that mended it begins."""
    found: str
    """Who found it; profiles and seeds are those of that day."""
    edits: tuple[Edit, ...]
    """What brings it back."""
    test: str
    """A test that fails then, as pytest names it, below ``tests``."""
    profile: str = "default"
    """Under which faults it is hunted."""

    @property
    def mutant(self) -> Mutant:
        return Mutant(self.name, self.what, self.edits, self.profile)

"""A compacted log that loses its end: what is written there anew is compared again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cleaner_tools import Place, compacted, put, values


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path, compacted())
    yield made
    made.dirs.abandon()


def test_nothing_above_the_new_end_counts_as_compacted(place: Place) -> None:
    """A truncation drops all of the batch that it cuts: the log ends below the offset that was asked for."""
    log = place.log
    put(log, (b"k", b"old"))
    put(log, (b"a", b"1"), (b"b", b"1"), (b"c", b"1"))
    place.compact()
    assert place.dirs.cleaned.get(log) == 4
    log.truncate_to(3)
    assert log.log_end_offset == 1
    assert place.dirs.cleaned.get(log) == 1
    put(log, (b"k", None), (b"b", b"2"), (b"c", b"2"))
    place.compact()
    assert values(log) == [(1, b"k", None), (2, b"b", b"2"), (3, b"c", b"2")]

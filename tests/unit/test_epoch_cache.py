"""EpochCache against a dumb model, and Kafka's own cases of endOffsetFor."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkbroker.model.errors import InvariantViolation
from zkbroker.partition.epoch_cache import EpochCache


def test_end_offset_for_every_case() -> None:
    cache = EpochCache([(2, 10), (4, 20), (5, 35)])
    assert cache.end_offset_for(5, 50) == (5, 50)  # the latest: the log end
    assert cache.end_offset_for(6, 50) is None  # none higher: unknown
    assert cache.end_offset_for(1, 50) == (1, 10)  # none at or below: the first entry's start
    assert cache.end_offset_for(3, 50) == (2, 20)  # the one below it
    assert cache.end_offset_for(4, 50) == (4, 35)
    assert cache.end_offset_for(-1, 50) is None
    assert EpochCache().end_offset_for(0, 50) is None


def test_assign_drops_what_contradicts() -> None:
    cache = EpochCache([(0, 0), (2, 10), (3, 20)])
    assert cache.assign(4, 10)
    assert cache.entries == ((0, 0), (4, 10))
    assert not cache.assign(4, 15), "an epoch begins once"
    assert cache.assign(4, 7), "an earlier start of the same epoch counts"
    assert cache.entries == ((0, 0), (4, 7))
    with pytest.raises(InvariantViolation):
        cache.assign(-1, 3)


def test_truncate_from_start_keeps_the_epoch_it_cuts() -> None:
    cache = EpochCache([(0, 0), (1, 524)])
    assert cache.truncate_from_start(500)
    assert cache.entries == ((0, 500), (1, 524))
    assert not cache.truncate_from_start(400)
    assert cache.epoch_of(499) == -1
    assert cache.epoch_of(523) == 0
    assert cache.epoch_of(524) == 1


def test_version_rises_only_with_changes() -> None:
    cache = EpochCache([(0, 0)])
    version = cache.version
    assert not cache.truncate_from_end(1)
    assert cache.version == version
    assert cache.truncate_from_end(0)
    assert cache.version == version + 1
    assert repr(EpochCache([(0, 0), (2, 5)])) == "EpochCache(0@0, 2@5)"


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 3), st.integers(1, 5)),
        st.tuples(st.just("end"), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("start"), st.integers(0, 40), st.just(0)),
    ),
    max_size=20,
)


@settings(max_examples=200, deadline=None)
@given(_steps)
def test_like_a_list_of_the_epoch_of_every_offset(steps: list[tuple[str, int, int]]) -> None:
    """The model holds the epoch of each offset; appends raise the epoch by 0 to 3."""
    cache = EpochCache()
    model: dict[int, int] = {}
    start = end = epoch = 0
    for step, number, count in steps:
        if step == "append":
            epoch += number
            cache.assign(epoch, end)
            for _ in range(count):
                model[end] = epoch
                end += 1
        elif step == "end" and start <= number <= end:
            end = number
            cache.truncate_from_end(end)
            model = {offset: e for offset, e in model.items() if offset < end}
        elif step == "start" and start <= number < end:
            start = number
            cache.truncate_from_start(start)
            model = {offset: e for offset, e in model.items() if offset >= start}
        cache.check()
        assert [cache.epoch_of(offset) for offset in range(start, end)] == [model[o] for o in range(start, end)]
        for asked in set(model.values()):
            last = max(offset for offset, e in model.items() if e == asked)
            answer = cache.end_offset_for(asked, end)
            assert answer is not None
            assert answer == (asked, last + 1)

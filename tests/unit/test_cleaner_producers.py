"""Compaction and producers: what tells of them stays, transactions go when nobody needs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cleaner_tools import (
    Place,
    compact,
    compacted,
    headers,
    last_values,
    put,
    stored,
    values,
)
from tests.unit.log_tools import NOW_MS
from zkbroker.records.batch import DELETE_HORIZON_BIT
from zkbroker.records.record import EndTransaction, build_end_transaction


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path, compacted())
    yield made
    made.dirs.abandon()


def test_the_last_batch_of_a_producer_stays_without_records(place: Place) -> None:
    log = place.log
    put(log, (b"a", b"1"), (b"a", b"2"), producer_id=9, producer_epoch=3, base_sequence=0)
    put(log, (b"b", b"1"), producer_id=9, producer_epoch=3, base_sequence=2)
    put(log, (b"a", b"3"), (b"b", b"2"))
    place.compact()
    put(log, (b"c", b"1"))
    place.compact()
    assert [(header.base_offset, header.records_count) for header in headers(log)] == [(2, 0), (3, 2), (5, 1)]
    kept = headers(log)[0]
    assert (kept.producer_id, kept.producer_epoch, kept.last_sequence, kept.codec) == (9, 3, 2, 0)
    for path in Path(log.folder).glob("*.snapshot"):
        path.unlink()
    log = place.again(is_clean=False)
    assert [(one.producer_id, one.epoch, one.last_sequence, one.last_offset) for one in log.producers.snapshot()] == [
        (9, 3, 2, 2)
    ]
    # The next batch of that producer is in order, and a repeated one is known.
    put(log, (b"b", b"1"), producer_id=9, producer_epoch=3, base_sequence=2)
    assert log.log_end_offset == 6
    put(log, (b"b", b"9"), producer_id=9, producer_epoch=3, base_sequence=3)


def test_the_last_batch_below_the_compacted_end_stays_when_the_producer_went_on(place: Place) -> None:
    """What it wrote since is in the active segment, and a loss of power may take it."""
    log = place.log
    for sequence in range(3):
        put(log, (b"a", b"%d" % sequence), producer_id=9, producer_epoch=0, base_sequence=sequence)
    put(log, (b"a", b"last"), (b"b", b"last"))
    log.roll()
    put(log, (b"a", b"3"), producer_id=9, producer_epoch=0, base_sequence=3)
    log.flush_later()
    for has_snapshot in (True, False):
        if not has_snapshot:
            Path(log.folder, f"{log.active.base_offset:020d}.snapshot").unlink()
        assert compact(place.dirs, log, roll=False) is not None
        assert [(header.base_offset, header.records_count) for header in headers(log)] == [(2, 0), (3, 2), (5, 1)]
        place.dirs.cleaned.truncated(log, 0)


def test_the_last_batch_of_a_segment_stays_so_that_the_log_ends_where_it_did(place: Place) -> None:
    log = place.log
    put(log, (b"a", b"1"))
    put(log, (b"a", b"2"), (b"b", b"1"))
    log.roll()
    put(log, (b"a", b"3"), (b"b", b"2"))
    log.roll()
    log.flush_later()
    log.config = compacted(segment_bytes=10)
    compact(place.dirs, log, roll=False)
    assert [(header.base_offset, header.records_count) for header in headers(log)] == [(1, 0), (3, 2)]
    # A loss of power took the name of the active segment and of the one before it: the log ends where that began.
    for base in (3, 5):
        for path in Path(log.folder).glob(f"{base:020d}.*"):
            path.unlink()
    log = place.again(is_clean=False)
    assert log.log_end_offset == 3


def test_aborted_transactions_go_and_their_markers_when_nothing_needs_them(place: Place) -> None:
    log, clock = place.log, place.world.clock
    put(log, (b"a", b"1"))
    put(log, (b"a", b"2"), producer_id=7, producer_epoch=0, base_sequence=0, transactional=True)
    log.append_as_leader(build_end_transaction(0, NOW_MS, 7, 0, EndTransaction(False, 1)), 0, origin_client=False)
    put(log, (b"b", b"1"), producer_id=8, producer_epoch=0, base_sequence=0, transactional=True)
    log.append_as_leader(build_end_transaction(0, NOW_MS, 8, 0, EndTransaction(True, 1)), 0, origin_client=False)
    log.roll()
    put(log, (b"b", b"2"), producer_id=8, producer_epoch=0, base_sequence=1, transactional=True)
    log.append_as_leader(build_end_transaction(0, NOW_MS, 8, 0, EndTransaction(True, 1)), 0, origin_client=False)
    put(log, (b"z", b"1"), producer_id=7, producer_epoch=0, base_sequence=1)
    stable = log.log_end_offset
    assert log.aborted_transactions(0, stable) == [(7, 1)]
    compact(place.dirs, log)
    kinds = [(header.base_offset, header.is_control, header.records_count) for header in headers(log)]
    # The aborted record is gone, and its batch; the markers stay: they were met with batches.
    assert kinds == [(0, False, 1), (2, True, 1), (4, True, 1), (5, False, 1), (6, True, 1), (7, False, 1)]
    put(log, (b"c", b"1"))
    compact(place.dirs, log)
    marked = [header.base_offset for header in headers(log) if header.attributes & DELETE_HORIZON_BIT]
    assert marked == [2, 4]
    assert log.aborted_transactions(0, stable) == []
    clock.now_ms += 1001
    put(log, (b"d", b"1"))
    compact(place.dirs, log)
    assert [header.base_offset for header in headers(log) if header.is_control] == [6]
    for path in Path(log.folder).glob("*.snapshot"):
        path.unlink()
    log = place.again(is_clean=False)
    assert log.producers.first_unstable_offset(log.log_end_offset) is None
    assert last_values(stored(log))[b"b"] == b"2"


def test_an_aborted_value_does_not_supersede(place: Place) -> None:
    log = place.log
    put(log, (b"a", b"1"))
    put(log, (b"a", b"2"), producer_id=7, producer_epoch=0, base_sequence=0, transactional=True)
    log.append_as_leader(build_end_transaction(0, NOW_MS, 7, 0, EndTransaction(False, 1)), 0, origin_client=False)
    place.compact()
    assert (0, b"a", b"1") in values(log)

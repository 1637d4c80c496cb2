"""Offsets by time where the records that a segment's time index tells of are gone: deleted or compacted."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred

from tests.unit.cleaner_tools import Place, compacted, put
from tests.unit.log_tools import NOW_MS
from zkbroker.model.topic_config import TopicConfig


def found(search: Deferred[tuple[int, int, int] | None]) -> tuple[int, int, int] | None:
    results: list[tuple[int, int, int] | None] = []
    search.addCallback(results.append)
    return results[0]


def test_the_search_goes_on_behind_a_segment_whose_newest_records_were_deleted(tmp_path: Path) -> None:
    place = Place(tmp_path, TopicConfig())
    log = place.log
    put(log, (None, b"a"), timestamp=NOW_MS + 50)
    put(log, (None, b"b"), timestamp=NOW_MS)
    log.roll()
    put(log, (None, b"c"), timestamp=NOW_MS + 10)
    put(log, (None, b"d"), timestamp=NOW_MS + 60)
    log.advance_log_start(1)
    assert found(log.offset_for_timestamp(NOW_MS + 5)) == (NOW_MS + 10, 2, 0)
    assert found(log.offset_for_timestamp(NOW_MS + 55)) == (NOW_MS + 60, 3, 0)
    assert found(log.offset_for_timestamp(NOW_MS + 61)) is None
    place.dirs.abandon()


def test_an_emptied_batch_at_a_segments_end_hides_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path, compacted(segment_bytes=160))
    log = place.log
    put(log, (b"a", b"1"), timestamp=NOW_MS)
    put(log, (b"k", b"1"), timestamp=NOW_MS + 50)
    log.roll()
    put(log, (b"k", b"2"), timestamp=NOW_MS + 20)
    place.compact()
    assert found(log.offset_for_timestamp(NOW_MS + 10)) == (NOW_MS + 20, 2, 0)
    place.dirs.abandon()

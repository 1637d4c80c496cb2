"""Compaction of a log on a real disk, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cleaner_tools import (
    SETTINGS,
    Place,
    compact,
    compacted,
    dirt,
    headers,
    keyed,
    last_values,
    put,
    stored,
    values,
)
from tests.unit.log_tools import NOW_MS, T0, TOPIC_ID
from zkbroker.model.topic_config import TopicConfig
from zkbroker.records.batch import DELETE_HORIZON_BIT


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path, compacted())
    yield made
    made.dirs.abandon()


def test_the_last_value_of_each_key_stays_at_its_offset(place: Place) -> None:
    log = place.log
    put(log, (b"a", b"1"), (b"b", b"1"))
    put(log, (b"a", b"2"))
    put(log, (b"c", b"1"), (b"a", b"3"))
    summary = place.compact()
    left = [(1, b"b", b"1"), (3, b"c", b"1"), (4, b"a", b"3")]
    assert values(log) == left
    assert (summary.end_offset, summary.records_dropped, summary.keys) == (5, 2, 3)
    assert place.dirs.cleaned.get(log) == 5
    assert log.log_end_offset == 5
    for is_clean in (False, True):
        log = place.again(is_clean=is_clean)
        assert values(log) == left
        assert log.log_end_offset == 5
        assert place.dirs.cleaned.get(log) == 5


def test_offsets_sequences_epochs_codec_and_times_of_a_batch_stay(place: Place) -> None:
    log = place.log
    for codec in range(5):
        put(log, (b"k", b"0"), (b"%d" % codec, b"v" * 50), (b"k", b"1"), epoch=codec, codec=codec, producer_id=4,
            producer_epoch=2, base_sequence=3 * codec, timestamp=NOW_MS + 1000 * codec)  # fmt: skip
    before = headers(log)
    place.compact()
    after = headers(log)
    assert len(after) == 5
    for old, new, codec in zip(before, after, range(5), strict=True):
        changed = {"length", "crc", "records_count", "max_timestamp"}
        same = [name for name in old._fields if name not in changed]
        assert [getattr(old, name) for name in same] == [getattr(new, name) for name in same]
        assert new.codec == codec
        assert new.max_timestamp == NOW_MS + 1000 * codec + (2 if codec == 4 else 1)
    assert [(r.offset, r.timestamp - NOW_MS, r.key) for r in stored(log)] == [
        (1, 1, b"0"), (4, 1001, b"1"), (7, 2001, b"2"), (10, 3001, b"3"), (13, 4001, b"4"), (14, 4002, b"k"),
    ]  # fmt: skip


def test_a_tombstone_stays_until_its_horizon(place: Place) -> None:
    log, clock = place.log, place.world.clock
    put(log, (b"a", b"1"), (b"b", b"1"), timestamp=NOW_MS - 500_000)
    put(log, (b"a", None), timestamp=NOW_MS - 400_000)
    clock.now_ms += 10
    place.compact()
    assert values(log) == [(1, b"b", b"1"), (2, b"a", None)]
    marked = [header for header in headers(log) if header.attributes & DELETE_HORIZON_BIT]
    assert [(header.base_offset, header.base_timestamp) for header in marked] == [(2, NOW_MS + 10 + 1000)]
    assert [record.timestamp for record in stored(log)] == [NOW_MS - 500_000 + 1, NOW_MS - 400_000]
    put(log, (b"c", b"1"))
    clock.now_ms = NOW_MS + 10 + 999
    place.compact()
    assert [header.base_timestamp for header in headers(log) if header.attributes & DELETE_HORIZON_BIT] == [
        NOW_MS + 10 + 1000
    ]
    assert (2, b"a", None) in values(log)
    put(log, (b"d", b"1"))
    clock.now_ms += 1
    place.compact()
    assert values(log) == [(1, b"b", b"1"), (3, b"c", b"1"), (4, b"d", b"1")]


def test_a_horizon_that_came_with_the_batch_begins_anew_where_the_value_was_still_there(tmp_path: Path) -> None:
    """1. The leader compacted: the tombstone has a horizon, its value is gone. 2. This follower still had the value
    when it copied the tombstone, later than the horizon. Whoever read it here must have time to see it deleted."""
    leader = Place(tmp_path / "leader", compacted())
    put(leader.log, (b"a", b"1"))
    put(leader.log, (b"a", None))
    first = leader.log.read(0, 1, 2, may_wait=True)
    assert first is not None
    value = b"".join(map(bytes, first.chunks))
    leader.compact()
    leader.log.tail.clear()
    second = leader.log.read(1, 1, 2, may_wait=True)
    assert second is not None
    place = Place(tmp_path / "follower", compacted())
    log, clock = place.log, place.world.clock
    log.append_as_follower(value, 0)
    log.append_as_follower(b"".join(map(bytes, second.chunks)), 0)
    clock.now_ms += 5000
    place.compact()
    assert values(log) == [(1, b"a", None)]
    assert headers(log)[0].base_timestamp == NOW_MS + 5000 + 1000
    assert stored(log)[0].timestamp == NOW_MS
    clock.now_ms += 1000
    put(log, (b"b", b"1"))
    place.compact()
    assert values(log) == [(2, b"b", b"1")]
    place.dirs.abandon()
    leader.dirs.abandon()


def test_a_tombstone_is_superseded_by_a_value(place: Place) -> None:
    log = place.log
    put(log, (b"a", b"1"))
    put(log, (b"a", None))
    put(log, (b"a", b"2"))
    place.compact()
    assert values(log) == [(2, b"a", b"2")]


def test_what_the_active_segment_and_the_last_stable_offset_hold_is_left_alone(place: Place) -> None:
    log = place.log
    put(log, (b"a", b"1"))
    put(log, (b"a", b"2"))
    log.roll()
    put(log, (b"a", b"3"))
    log.roll()
    put(log, (b"a", b"4"))
    log.flush_later()
    assert dirt(place.dirs, log, mark=4).end_offset == 3
    # The segment with the last stable offset as a whole.
    assert dirt(place.dirs, log, mark=2).end_offset == 2
    assert dirt(place.dirs, log, mark=1).dirty_bytes == 0
    compact(place.dirs, log, mark=2, roll=False)
    assert [value for _, _, value in values(log)] == [b"2", b"3", b"4"]


def test_what_is_not_on_the_disk_is_left_alone(place: Place) -> None:
    log = place.log
    put(log, (b"a", b"1"))
    log.flush_later()
    log.flushed_end_offset = 0
    log.roll()
    log.flushed_end_offset = 0
    assert dirt(place.dirs, log).dirty_bytes == 0


def test_min_compaction_lag_leaves_young_segments_alone(tmp_path: Path) -> None:
    place = Place(tmp_path, compacted(min_compaction_lag_ms=1000))
    log, clock = place.log, place.world.clock
    put(log, (b"a", b"1"), (b"a", b"2"))
    log.roll()
    put(log, (b"a", b"3"), timestamp=NOW_MS + 600)
    log.roll()
    log.flush_later()
    clock.now_ms += 1001
    assert dirt(place.dirs, log).end_offset == 2
    clock.now_ms += 600
    assert dirt(place.dirs, log).end_offset == 3
    place.dirs.abandon()


def test_max_compaction_lag_makes_a_log_due_and_rolls_its_active_segment(tmp_path: Path) -> None:
    place = Place(tmp_path, compacted(max_compaction_lag_ms=1000, min_cleanable_dirty_ratio=1.0))
    log, clock = place.log, place.world.clock
    put(log, (b"a", b"1"))
    clock.now_ms += 1001
    log.maybe_roll(clock.now_ms)
    log.flush_later()
    assert log.bases == [0, 1]
    assert dirt(place.dirs, log).is_enough
    clock.now_ms -= 1
    assert not dirt(place.dirs, log).is_enough
    place.dirs.abandon()


def test_the_dirty_ratio_decides(tmp_path: Path) -> None:
    place = Place(tmp_path, compacted(min_cleanable_dirty_ratio=0.5))
    log = place.log
    put(log, (b"a", b"1" * 1000))
    assert not dirt(place.dirs, log).is_enough
    place.compact()
    put(log, (b"b", b"1" * 500))
    log.roll()
    log.flush_later()
    found = dirt(place.dirs, log)
    assert not found.is_enough
    assert 0.3 < found.ratio < 0.5
    put(log, (b"b", b"1" * 1000))
    log.roll()
    log.flush_later()
    assert dirt(place.dirs, log).is_enough
    place.dirs.abandon()


def test_a_full_map_takes_several_passes(place: Place) -> None:
    log = place.log
    for turn in range(3):
        for number in range(20):
            put(log, (b"k%d" % number, b"%d" % turn), (b"k%d" % (number + 20), b"%d" % turn))
    small = SETTINGS._replace(dedupe_buffer_bytes=24 * 10, load_factor=0.9)
    ends = []
    while (summary := compact(place.dirs, log, small, roll=not ends)) is not None:
        assert summary.keys <= 9
        ends.append(summary.end_offset)
    assert ends == sorted(set(ends))
    assert len(ends) > 5
    assert ends[-1] == 120
    assert last_values(stored(log)) == {b"k%d" % number: b"2" for number in range(40)}
    assert len(stored(log)) == 40


def test_small_segments_become_one(tmp_path: Path) -> None:
    place = Place(tmp_path, compacted(segment_bytes=2000))
    log = place.log
    for number in range(40):
        put(log, (b"key%d" % (number % 7), b"v" * 300))
    snapshots = list(log.snapshots)
    assert len(log.bases) > 6
    place.compact()
    # Grouped by what they were before: five of 3 × 370 bytes do not fit into one.
    assert len(log.bases) <= 1 + (len(snapshots) + 1)
    put(log, (b"x", b"y"))
    place.compact()
    assert len(log.bases) <= 4
    assert len(stored(log)) == 8
    assert set(log.snapshots[:-1]) <= set(log.bases)
    place.dirs.abandon()


def test_a_record_without_a_key_goes(place: Place) -> None:
    """From when the topic was not compacted."""
    log = place.log
    log.set_config(TopicConfig())
    put(log, (None, b"1"), (b"a", b"1"))
    log.set_config(compacted())
    put(log, (b"b", b"1"))
    place.compact()
    assert values(log) == [(1, b"a", b"1"), (2, b"b", b"1")]


def test_readers_of_old_files_go_on(place: Place) -> None:
    log = place.log
    put(log, (b"a", b"1"))
    put(log, (b"a", b"2"))
    log.roll()
    file = log.segments[0].file().use()
    size = log.segments[0].size
    put(log, (b"b", b"1"))
    place.compact()
    assert len(log.context.disk.read(file.handle, 0, size)) == size
    file.release()
    assert [name.name for name in Path(log.folder).glob("*.deleted")]
    place.world.reactor.advance(61)
    assert not list(Path(log.folder).glob("*.deleted"))


def test_a_walk_that_changes_nothing_replaces_nothing(place: Place) -> None:
    log = place.log
    put(log, (b"a", b"1"), (b"b", b"1"))
    log.roll()
    first = log.segments[0]
    place.compact()
    assert log.segments[0] is first
    assert place.dirs.cleaned.get(log) == 2
    assert not list(Path(log.folder).glob("*.cleaned"))


def test_a_new_log_of_the_same_name_is_dirty(place: Place) -> None:
    put(place.log, (b"a", b"1"), (b"a", b"2"))
    place.compact()
    place.dirs.delete(T0, TOPIC_ID)
    place.log = place.dirs.create(T0, "AAAAAAAAAAAAAAAAAAAAAQ")
    assert place.dirs.cleaned.get(place.log) == 0
    assert "t 0" not in Path(place.world.folders[0], "cleaner-offset-checkpoint").read_text()


def test_a_truncation_lowers_the_checkpoint_first(place: Place) -> None:
    log = place.log
    for number in range(4):
        put(log, (b"a", b"%d" % number))
    place.compact()
    stopped: list[bool] = []
    log.stop_cleaning = lambda: stopped.append(True)
    log.truncate_to(2)
    assert stopped
    assert place.dirs.cleaned.get(log) == 2
    assert Path(place.world.folders[0], "cleaner-offset-checkpoint").read_text() == "0\n1\nt 0 2\n"


def test_a_checkpoint_beyond_the_log_end_counts_for_nothing(place: Place) -> None:
    put(place.log, (b"a", b"1"))
    path = Path(place.world.folders[0], "cleaner-offset-checkpoint")
    place.dirs.abandon()
    path.write_text("0\n2\nt 0 2\nother 1 5\n")
    place.dirs = place.world.open()
    assert place.dirs.cleaned.get(place.dirs.logs[T0]) == 0
    assert path.read_text() == "0\n0\n"


def test_reads_by_offset_and_time_go_over_the_holes(place: Place) -> None:
    log = place.log
    for number in range(30):
        put(log, (b"k%d" % (number % 3 if number < 25 else number), b"%d" % number), timestamp=NOW_MS + number)
    place.compact()
    offsets = [record.offset for record in stored(log)]
    assert offsets == [22, 23, 24, 25, 26, 27, 28, 29]
    for start in range(30):
        read = log.read(start, 1, 30, may_wait=True)
        assert read is not None
        assert read.first_offset == max(start, 22)
    found: list[object] = []
    log.offset_for_timestamp(NOW_MS + 3).addCallback(found.append)
    log.offset_for_timestamp(NOW_MS + 27).addCallback(found.append)
    assert found == [(NOW_MS + 22, 22, 0), (NOW_MS + 27, 27, 0)]


def test_truncation_inside_a_hole(place: Place) -> None:
    """To where a leader's epoch ends, though no record is left there."""
    log = place.log
    put(log, (b"a", b"0"))
    for number in range(10):
        put(log, (b"b", b"%d" % number), epoch=number // 5)
    put(log, (b"c", b"0"), epoch=2)
    place.compact()
    assert [record.offset for record in stored(log)] == [0, 10, 11]
    log.truncate_to(6)
    assert log.log_end_offset == 6
    assert log.epochs.entries == ((0, 0),)
    assert log.append_as_leader(keyed([(b"x", b"y")]), 3).base_offset == 6
    log = place.again(is_clean=False)
    assert [record.offset for record in stored(log)] == [0, 6]


def test_compact_and_delete(tmp_path: Path) -> None:
    """Old segments go by time whatever their keys, the rest is compacted from where the log begins then."""
    place = Place(tmp_path, compacted(cleanup_policy=("compact", "delete"), retention_ms=10_000))
    log, clock = place.log, place.world.clock
    for number in range(4):
        put(log, (b"k", b"%d" % number), (b"only%d" % number, b"v"), timestamp=clock.now_ms)
        log.roll()
        clock.now_ms += 4000
        place.compact()
    # All that was compacted became one segment, as young as its newest record.
    assert [offset for offset, _, _ in values(log)] == [1, 3, 5, 6, 7]
    assert log.delete_old_segments(log.log_end_offset, clock.now_ms) == 0
    clock.now_ms += 7000
    put(log, (b"k", b"new"), (b"k", b"newest"), timestamp=clock.now_ms)
    log.roll()
    log.flush_later()
    assert log.delete_old_segments(log.log_end_offset, clock.now_ms) == 1
    assert (log.log_start_offset, log.log_end_offset) == (8, 10)
    place.compact()
    assert values(log) == [(9, b"k", b"newest")]
    place.dirs.abandon()


def test_what_lies_below_the_log_start_is_not_compared(place: Place) -> None:
    """DeleteRecords on a topic that is deleted from too: the log start lies inside of a segment."""
    log = place.log
    for number in range(6):
        put(log, (b"k%d" % (number % 2), b"%d" % number))
    log.advance_log_start(3)
    found = dirt(place.dirs, log)
    assert found.dirty_offset == 3
    place.compact()
    assert [offset for offset, _, _ in values(log)] == [4, 5]
    assert place.dirs.cleaned.get(log) == 6
    assert log.log_start_offset == 3

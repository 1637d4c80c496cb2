"""Logs that Kafka 3.9.1 wrote are compacted: group offsets, and transactions in every codec."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.unit.cleaner_tools import compact, compacted, headers, last_values, put, stored
from tests.unit.log_tools import TOPIC_ID, World
from tests.unit.test_cleaner_crash import read_committed
from zkbroker.log.dirs import LogDirs
from zkbroker.log.log import Log
from zkbroker.model.topics import TopicPartition
from zkbroker.records.record import Record

DATA = Path(__file__).parent.parent / "data" / "kafka-3.9.1"
OFFSETS = TopicPartition("__consumer_offsets", 0)
GOLDEN = TopicPartition("golden", 0)


def offsets_log(folder: Path, number: int) -> tuple[LogDirs, Log]:
    """A log of group offsets as Kafka left it."""
    place = folder / "__consumer_offsets-0"
    place.mkdir()
    shutil.copy(DATA / "consumer_offsets" / f"{number}.log", place / "00000000000000000000.log")
    (place / "partition.metadata").write_text(f"version: 0\ntopic_id: {TOPIC_ID}")
    world = World(folder, config=compacted())
    dirs = world.open()
    return dirs, dirs.logs[OFFSETS]


@pytest.mark.parametrize("number", range(4))
def test_group_offsets_that_kafka_wrote(tmp_path: Path, number: int) -> None:
    dirs, log = offsets_log(tmp_path, number)
    before = last_values(_records(log))
    end = log.log_end_offset
    assert end > 0
    summary = compact(dirs, log)
    assert summary is not None and summary.end_offset == end
    after = _records(log)
    assert last_values(after) == before
    keys = [record.key for record in after]
    assert len(keys) == len(set(keys)) == summary.keys
    assert log.log_end_offset == end
    # The marks of what was deleted go in their time, and nothing else.
    log.context.clock.now_ms += 1001  # type: ignore[attr-defined]
    put(log, (b"x", b"y"))
    compact(dirs, log)
    assert last_values(_records(log)) == {**before, b"x": b"y"}
    assert all(record.value is not None for record in stored(log))
    dirs.abandon()


def test_transactions_that_kafka_wrote(tmp_path: Path) -> None:
    shutil.copytree(DATA / "data", tmp_path / "data")
    world = World(tmp_path / "data", config=compacted())
    world.clock.now_ms = 1_795_337_101_292
    dirs = world.open()
    log = dirs.logs[GOLDEN]
    end, epochs = log.log_end_offset, log.epochs.entries
    producers = log.producers.snapshot()
    records = len(stored(log))
    expected = _keyed_committed(log)
    for turn in range(4):
        world.clock.now_ms += 1001
        summary = compact(dirs, log)
        assert summary is not None
        assert _keyed_committed(log) == {**expected, **{b"turn%d" % i: b"x" for i in range(turn)}}
        put(log, (b"turn%d" % turn, b"x"), epoch=log.epochs.latest_epoch)
    assert len(stored(log)) < records
    # Of the aborted ones only that is left whose batch, without records, is its producer's last.
    assert log.aborted_transactions(0, end) == [(2000, 518)]
    assert [header.records_count for header in headers(log) if header.producer_id == 2000] == [0, 1]
    assert log.epochs.entries == epochs
    dirs.abandon()
    # Without any snapshot: what is left of the batches tells of every producer.
    for path in (tmp_path / "data" / "golden-0").glob("*.snapshot"):
        path.unlink()
    dirs = world.open()
    log = dirs.logs[GOLDEN]
    assert log.log_end_offset == end + 4
    left = {one.producer_id: (one.epoch, one.last_sequence) for one in log.producers.snapshot()}
    for one in producers:
        if one.last_offset >= 0:
            assert left[one.producer_id] == (one.epoch, one.last_sequence)
    assert log.producers.first_unstable_offset(log.log_end_offset) is None
    assert all(header.last_offset < end + 4 for header in headers(log))
    dirs.abandon()


def _records(log: Log) -> list[Record]:
    """Without the markers of transactions, whose keys have four bytes."""
    return [record for record in stored(log) if len(record.key or b"") != 4]


def _keyed_committed(log: Log) -> dict[bytes, bytes]:
    return read_committed(log, any_key=True)

"""A data folder that Kafka 3.9.1 wrote is opened and read whole; what the files say is what Kafka's tool printed."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import pytest

from tests.unit.log_tools import TOPIC_ID, World, read_all
from zkbroker.cli.dump_log import main
from zkbroker.log.dirs import LogDirs
from zkbroker.model.topics import TopicPartition
from zkbroker.records.record import Record

DATA = Path(__file__).parent.parent / "data" / "kafka-3.9.1"
GOLDEN = TopicPartition("golden", 0)
_RECORD = re.compile(
    r"\| offset: (\d+) CreateTime: (\d+) keySize: (-?\d+) valueSize: (-?\d+) sequence: -?\d+ headerKeys: \[(.*?)\]"
    r"(?: key: (\S+))?(?: payload: (.*))?"
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    shutil.copytree(DATA / "data", tmp_path / "data")
    world = World(tmp_path / "data")
    # The snapshots' producers with a transaction were active then; the others had expired.
    world.clock.now_ms = 1_795_337_101_292
    return world


def dumped() -> list[tuple[int, int, str | None, str, str]]:
    found = []
    for line in (DATA / "golden-0.dump.txt").read_text().splitlines():
        match = _RECORD.match(line)
        if match and "endTxnMarker" not in line:
            offset, timestamp, _, _, headers, key, payload = match.groups()
            found.append((int(offset), int(timestamp), key, payload, headers))
    return found


def as_dumped(records: list[Record]) -> list[tuple[int, int, str | None, str, str]]:
    return [
        (
            record.offset,
            record.timestamp,
            None if record.key is None else record.key.decode(),
            (record.value or b"").decode(),
            ",".join(name for name, _ in record.headers),
        )
        for record in records
        if len(record.key or b"") != 4  # control records
    ]


def check_golden(dirs: LogDirs, start: int) -> None:
    log = dirs.logs[GOLDEN]
    assert (log.log_start_offset, log.log_end_offset) == (start, 574)
    assert as_dumped(read_all(log)) == [row for row in dumped() if row[0] >= start]
    assert log.topic_id == TOPIC_ID
    assert log.epochs.entries == ((0, start), (1, 524))
    assert log.aborted_transactions(start, 574) == [(2000, 506), (2000, 518)]
    assert log.aborted_transactions(512, 518) == []
    assert log.aborted_transactions(511, 512) == [(2000, 506)]
    assert log.producers.first_unstable_offset(574) is None
    (entry,) = [entry for entry in log.producers.snapshot() if entry.producer_id == 2000]
    assert (entry.last_sequence, entry.last_offset, entry.offset_delta, entry.coordinator_epoch) == (19, 522, 4, 0)


def test_a_clean_folder_is_read_from_its_log_start(world: World) -> None:
    dirs = world.open()
    check_golden(dirs, 500)
    assert dirs.high_watermarks == {GOLDEN: 574, TopicPartition("golden", 1): 500}
    assert dirs.clean_broker_epochs == {world.folders[0]: -1}
    assert not (Path(world.folders[0]) / ".kafka_cleanshutdown").exists()
    dirs.close(12)
    again = world.open()
    assert again.clean_broker_epochs == {world.folders[0]: 12}
    check_golden(again, 500)
    again.abandon()


def test_everything_is_recovered_without_indexes_checkpoints_and_snapshots(world: World) -> None:
    folder = Path(world.folders[0])
    for path in [*folder.glob("golden-*/*"), *folder.glob("*checkpoint"), folder / ".kafka_cleanshutdown"]:
        if path.suffix != ".log" and path.name != "partition.metadata":
            path.unlink()
    dirs = world.open()
    check_golden(dirs, 0)
    # Rebuilt as Kafka had written them.
    for name in ("00000000000000000000.index", "00000000000000000000.timeindex", "00000000000000000500.txnindex"):
        assert (folder / "golden-0" / name).read_bytes() == (DATA / "data" / "golden-0" / name).read_bytes(), name
    dirs.abandon()


def test_after_an_unclean_stop_the_recovery_point_spares_the_old_segment(world: World) -> None:
    folder = Path(world.folders[0])
    (folder / ".kafka_cleanshutdown").unlink()
    dirs = world.open()
    check_golden(dirs, 500)
    dirs.abandon()


def test_a_missing_index_is_rebuilt_after_a_clean_stop(world: World) -> None:
    index = Path(world.folders[0]) / "golden-0" / "00000000000000000000.index"
    before = index.read_bytes()
    index.unlink()
    dirs = world.open()
    check_golden(dirs, 500)
    assert index.read_bytes() == before
    dirs.abandon()


def test_old_records_are_found_by_time(world: World) -> None:
    dirs = world.open()
    log = dirs.logs[GOLDEN]
    found: list[object] = []
    log.offset_for_timestamp(1_700_000_000_000).addCallback(found.append)
    log.offset_for_timestamp(1_795_337_101_170).addCallback(found.append)
    log.offset_for_timestamp(1_795_337_101_293).addCallback(found.append)
    log.offset_of_max_timestamp().addCallback(found.append)
    assert found == [
        (1_795_337_100_138, 500, 0),
        (1_795_337_101_170, 518, 0),
        None,
        (1_795_337_101_292, 523, 0),
    ]
    dirs.abandon()


def dump(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.chdir(DATA)
    out = io.StringIO()
    return main(arguments, out), out.getvalue()


def test_dump_log_prints_what_kafka_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    files = "data/golden-0/00000000000000000000.log,data/golden-0/00000000000000000500.log"
    status, text = dump(monkeypatch, "--print-data-log", "--files", files)
    assert status == 0
    expected = (DATA / "golden-0.dump.txt").read_text()
    assert text == expected
    status, text = dump(monkeypatch, "--files", files)
    assert status == 0
    assert text.splitlines() == [line for line in expected.splitlines() if not line.startswith("|")]


def test_dump_log_prints_indexes_and_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("00000000000000000000.index", "00000000000000000500.timeindex", "00000000000000000500.txnindex")
    status, text = dump(monkeypatch, "--files", ",".join(f"data/golden-0/{name}" for name in names))
    assert status == 0
    assert [line for line in text.splitlines() if not line.startswith("Dumping")] == [
        "offset: 299 position: 5242",
        "timestamp: 1795337101292 offset: 523",
        "version: 0 producerId: 2000 firstOffset: 506 lastOffset: 511 lastStableOffset: 512",
        "version: 0 producerId: 2000 firstOffset: 518 lastOffset: 523 lastStableOffset: 524",
    ]
    status, text = dump(monkeypatch, "--files", "data/golden-0/00000000000000000574.snapshot")
    assert text.splitlines()[1] == (
        "producerId: 2000 producerEpoch: 0 coordinatorEpoch: 0 currentTxnFirstOffset: OptionalLong.empty "
        "lastTimestamp: 1795337101292 firstSequence: 15 lastSequence: 19 lastOffset: 522 offsetDelta: 4 "
        "timestamp: 1795337101292"
    )


def test_dump_log_tells_damage_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = (DATA / "data" / "golden-0" / "00000000000000000000.log").read_bytes()
    path = tmp_path / "00000000000000000000.log"
    path.write_bytes(source[:100] + b"?" + source[101:5000])
    assert main(["--files", str(path)], io.StringIO()) == 1
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"{path}: the CRC of the batch at position 0 does not match",
        f"{path}: 1054 bytes at position 3946 are no record batch",
    ]
    assert main(["--files", str(tmp_path / "00000000000000000007.log")], io.StringIO()) == 1
    assert capsys.readouterr().err == f"{tmp_path / '00000000000000000007.log'}: No such file or directory\n"
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 2

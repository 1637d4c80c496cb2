"""Kafka's own DumpLogSegments reads files that zkbroker wrote: logs, indexes, aborted transactions, snapshots."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.log_tools import NOW_MS, T0, TOPIC_ID, World, batch
from zkbroker.model.topic_config import TopicConfig
from zkbroker.records.record import EndTransaction, build_end_transaction

LIBS = os.environ.get("ZKBROKER_KAFKA_LIBS", "")
pytestmark = [
    pytest.mark.skipif(not LIBS, reason="ZKBROKER_KAFKA_LIBS names no folder with Kafka 3.9's jars"),
    pytest.mark.skipif(shutil.which("java") is None, reason="no java to run Kafka's tools with"),
]


def kafka_dump(*arguments: str) -> str:
    done = subprocess.run(
        ["java", "-cp", f"{LIBS}/*", "kafka.tools.DumpLogSegments", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Exception" not in done.stderr, done.stderr
    return done.stdout


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A partition's folder after a clean shutdown: several segments, every codec, an aborted transaction."""
    world = World(tmp_path, config=TopicConfig(segment_bytes=2000, index_interval_bytes=300))
    dirs = world.open()
    log = dirs.create(T0, TOPIC_ID)
    for number in range(40):
        data = batch(5, value=b"value %d" % number, key=b"k", timestamp=NOW_MS + number, codec=number % 5)
        log.append_as_leader(data, number // 10)
    for number in range(4):
        data = batch(2, timestamp=NOW_MS + 50, producer_id=77, producer_epoch=3, base_sequence=2 * number)
        log.append_as_leader(data, 4)
    transaction = batch(2, timestamp=NOW_MS + 60, producer_id=78, producer_epoch=0, base_sequence=0, transactional=True)
    log.append_as_leader(transaction, 4)
    marker = build_end_transaction(0, NOW_MS + 61, 78, 0, EndTransaction(False, 5))
    log.append_as_leader(marker, 4, origin_client=False)
    assert len(log.segments) > 2
    dirs.write_checkpoints_now({T0: log.log_end_offset})
    dirs.close(1)
    return tmp_path / "t-0"


def test_kafka_reads_logs(written: Path) -> None:
    logs = sorted(written.glob("*.log"))
    text = kafka_dump("--print-data-log", "--files", ",".join(map(str, logs)))
    lines = text.splitlines()
    batches = [line for line in lines if line.startswith("baseOffset")]
    assert len(batches) == 46
    assert all(line.endswith("isvalid: true") for line in batches)
    assert "invalid bytes" not in text
    offsets = [int(line.split()[2]) for line in lines if line.startswith("| offset")]
    assert offsets == list(range(200 + 8 + 3))
    assert lines[-1].endswith("endTxnMarker: ABORT coordinatorEpoch: 5")


def test_kafka_finds_nothing_wrong_with_the_indexes(written: Path) -> None:
    for suffix in ("index", "timeindex"):
        files = sorted(written.glob(f"*.{suffix}"))
        assert files
        text = kafka_dump("--files", ",".join(map(str, files)))
        assert "Mismatches" not in text and "Found" not in text and "Error" not in text
        assert len([line for line in text.splitlines() if "offset: " in line]) >= len(files) - 1
        text = kafka_dump("--index-sanity-check", "--files", ",".join(map(str, files)))
        assert text.count("passed sanity check") == len(files)


def test_kafka_reads_aborted_transactions_and_snapshots(written: Path) -> None:
    aborted = kafka_dump("--files", ",".join(map(str, written.glob("*.txnindex"))))
    assert "version: 0 producerId: 78 firstOffset: 208 lastOffset: 210 lastStableOffset: 211" in aborted
    newest = max(written.glob("*.snapshot"))
    text = kafka_dump("--files", str(newest))
    assert (
        "producerId: 77 producerEpoch: 3 coordinatorEpoch: -1 currentTxnFirstOffset: OptionalLong.empty "
        f"lastTimestamp: {NOW_MS + 50} firstSequence: 6 lastSequence: 7 lastOffset: 207 offsetDelta: 1 "
        f"timestamp: {NOW_MS + 50}"
    ) in text
    assert "producerId: 78 producerEpoch: 0 coordinatorEpoch: 5" in text

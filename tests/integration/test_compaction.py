"""Compaction in running brokers: a child process does it, clients and followers read what is left of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer

from tests.harness.brokers import Cluster
from tests.harness.zookeeper import ZooKeeperEnsemble
from tests.unit.cleaner_tools import compact, compacted
from tests.unit.log_tools import TOPIC_ID, World
from zkbroker.records.batch import batches
from zkbroker.records.record import records_of

pytestmark = pytest.mark.timeout(300)
LIBS = os.environ.get("ZKBROKER_KAFKA_LIBS", "")
DATA = Path(__file__).parent.parent / "data" / "kafka-3.9.1"
KEYS = 20
SETTINGS = {
    "log.cleaner.backoff.ms": 200,
    "log.cleaner.dedupe.buffer.size": 1_000_000,
    "log.retention.check.interval.ms": 500,
    "log.segment.delete.delay.ms": 200,
    "replica.lag.time.max.ms": 2000,
}
TOPIC = {
    "cleanup.policy": "compact",
    "segment.bytes": "20000",
    "min.cleanable.dirty.ratio": "0.01",
    "delete.retention.ms": "100",
    "segment.ms": "3000",
}


@pytest.fixture(scope="module")
def shared_cluster(ensemble: ZooKeeperEnsemble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(ensemble.connect_string, tmp_path_factory.mktemp("compaction"), overrides=SETTINGS) as running:
        yield running


def produce(cluster: Cluster, topic: str, pairs: list[tuple[str, str | None]], **config: object) -> None:
    problems: list[str] = []
    producer: Producer = cluster.producer(**{"linger.ms": 5, "batch.num.messages": 60, **config})
    for key, value in pairs:
        producer.produce(
            topic, key=key.encode(), value=None if value is None else value.encode(), partition=0,
            on_delivery=lambda error, _: problems.append(str(error)) if error else None,
        )  # fmt: skip
    assert producer.flush(30) == 0
    assert problems == []


def until(what: str, is_true: Callable[[], bool], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
        time.sleep(0.1)


def logs(cluster: Cluster, topic: str, broker: int) -> list[Path]:
    return sorted(Path(cluster.brokers[broker].data_dir, f"{topic}-0").glob("*.log"))


def stored(cluster: Cluster, topic: str, broker: int) -> list[tuple[int, str, str | None]]:
    """(offset, key, value) of all records on that broker's disk, as long as nothing is replaced meanwhile."""
    found = []
    for path in logs(cluster, topic, broker):
        data = path.read_bytes()
        for position, header in batches(data):
            for record in records_of(data, header, position):
                value = None if record.value is None else record.value.decode()
                found.append((record.offset, (record.key or b"").decode(), value))
    return found


def is_compacted(cluster: Cluster, topic: str, broker: int, below: int) -> bool:
    try:
        kept = [key for offset, key, _ in stored(cluster, topic, broker) if offset < below]
    except FileNotFoundError:
        return False
    return len(kept) == len(set(kept)) <= KEYS


def read_map(cluster: Cluster, topic: str, end: int) -> dict[str, str]:
    """What a consumer that reads from the beginning believes."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({
        "bootstrap.servers": cluster.bootstrap, "group.id": "reader", "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    })  # fmt: skip
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: dict[str, str] = {}
    last = -1
    try:
        deadline = time.monotonic() + 30
        while last < end - 1:
            assert time.monotonic() < deadline, f"read up to {last} of {end}"
            message = consumer.poll(1)
            if message is None or message.error():
                continue
            offset, key, value = message.offset(), message.key(), message.value()
            assert offset is not None and offset > last and key is not None
            last = offset
            found.pop(key.decode(), None)
            if value is not None:
                found[key.decode()] = value.decode()
    finally:
        consumer.close()
    return found


def kafka_dump(*arguments: str) -> str:
    """What Kafka's own tool says."""
    done = subprocess.run(
        ["java", "-cp", f"{LIBS}/*", "kafka.tools.DumpLogSegments", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Exception" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.skipif(not LIBS, reason="ZKBROKER_KAFKA_LIBS names no folder with Kafka 3.9's jars")
def test_kafka_reads_what_was_compacted(tmp_path: Path) -> None:
    """Its own logs after our compaction: batches, indexes, aborted transactions, the records of groups."""
    shutil.copytree(DATA / "data", tmp_path / "data")
    place = tmp_path / "data" / "__consumer_offsets-0"
    place.mkdir()
    shutil.copy(DATA / "consumer_offsets" / "1.log", place / "00000000000000000000.log")
    (place / "partition.metadata").write_text(f"version: 0\ntopic_id: {TOPIC_ID}")
    world = World(tmp_path / "data", config=compacted(index_interval_bytes=100))
    dirs = world.open()
    for log in dirs.logs.values():
        assert compact(dirs, log) is not None or log.log_start_offset == log.log_end_offset
    dirs.close(1)
    files = [path for path in (tmp_path / "data").glob("golden-*/*") if path.suffix in (".log", ".index", ".timeindex")]
    files += (tmp_path / "data").glob("golden-*/*.txnindex")
    text = kafka_dump("--deep-iteration", "--files", ",".join(str(path) for path in files if path.stat().st_size))
    assert text.count("isvalid: true") == text.count("baseOffset: ") > 10
    assert "Mismatch" not in text and "Found" not in text and "invalid bytes" not in text
    text = kafka_dump("--offsets-decoder", "--files", ",".join(str(path) for path in place.glob("*.log")))
    keys = [line.partition("key: ")[2].partition(" payload:")[0] for line in text.splitlines() if " key: " in line]
    assert len(keys) == len(set(keys)) > 3


def test_a_compacted_topic_through_its_life(cluster: Cluster, ensemble: ZooKeeperEnsemble) -> None:
    topic = "compacted"
    cluster.create_topic(topic, 1, 3, config=TOPIC)
    expected: dict[str, str] = {}
    pairs: list[tuple[str, str | None]] = []
    for turn in range(60):
        for number in range(KEYS):
            key = f"key-{number}"
            value = None if number == 3 and turn > 50 else f"{turn}".ljust(60, ".")
            pairs.append((key, value))
            expected.pop(key, None)
            if value is not None:
                expected[key] = value
    for place, codec in enumerate(("none", "gzip", "snappy", "lz4", "zstd")):
        share = len(pairs) // 5
        produce(cluster, topic, pairs[share * place : share * (place + 1)], **{"compression.type": codec})
    produce(cluster, topic, [("end", "x")])
    end = len(pairs) + 1
    # Every replica compacts on its own, all but the active segment.
    for broker in cluster.brokers:
        until(
            f"compacted on broker {broker}",
            lambda broker=broker: (  # type: ignore[misc]
                len(logs(cluster, topic, broker)) <= 3 and is_compacted(cluster, topic, broker, end - 1)
            ),
        )
    checkpoint = Path(cluster.brokers[1].data_dir, "cleaner-offset-checkpoint").read_text().splitlines()
    assert checkpoint[0] == "0" and any(line.startswith(f"{topic} 0 ") for line in checkpoint[2:])
    found = read_map(cluster, topic, end)
    assert found.pop("end") == "x"
    assert found == expected
    # A follower whose data is gone copies what is left, over the holes.
    broker = cluster.brokers[2]
    broker.kill()
    shutil.rmtree(Path(broker.data_dir, f"{topic}-0"))
    cluster.start()
    until("the copy is whole", lambda: _is_copy(cluster, topic, end), 60)
    if LIBS and shutil.which("java"):
        files = ",".join(str(path) for path in logs(cluster, topic, 2))
        done = subprocess.run(
            ["java", "-cp", f"{LIBS}/*", "kafka.tools.DumpLogSegments", "--print-data-log", "--files", files],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("isvalid: true") == done.stdout.count("baseOffset: ") > 0


def _is_copy(cluster: Cluster, topic: str, end: int) -> bool:
    try:
        offsets = [offset for offset, _, _ in stored(cluster, topic, 2)]
    except FileNotFoundError:
        return False
    return bool(offsets) and offsets[-1] == end - 1


def test_a_record_without_a_key_is_refused(cluster: Cluster) -> None:
    topic = "keys-needed"
    cluster.create_topic(topic, 1, 1, config=TOPIC)
    problems: list[object] = []
    producer = cluster.producer()
    producer.produce(topic, value=b"v", partition=0, on_delivery=lambda error, _: problems.append(error))
    producer.flush(30)
    assert len(problems) == 1 and problems[0] is not None
    error = problems[0]
    assert getattr(error, "name", lambda: "")() == "INVALID_RECORD", str(error)


def test_kill_while_it_compacts(make_cluster: Callable[..., Cluster]) -> None:
    """Kills at moments that nothing chose; what was acknowledged is there each time."""
    one = make_cluster(1, {**SETTINGS, "log.cleaner.io.max.bytes.per.second": 60_000.0})
    topic = "killed"
    one.create_topic(topic, 1, 1, config=TOPIC)
    expected: dict[str, str] = {}
    count = 0
    for turn in range(3):
        pairs: list[tuple[str, str | None]] = [
            (f"k{number % KEYS}", f"{turn}-{number}".ljust(100, ".")) for number in range(600)
        ]
        produce(one, topic, pairs)
        expected.update({key: value for key, value in pairs if value is not None})
        count += len(pairs)
        time.sleep(0.3 + 0.2 * turn)
        one.brokers[1].kill()
        one.start()
        assert read_map(one, topic, count) == expected
    folder = Path(one.brokers[1].data_dir, f"{topic}-0")
    assert not list(folder.glob("*.swap"))
    until("no child of a killed broker is left", lambda: not _children_of_nobody())


def _children_of_nobody() -> list[str]:
    """Cleaners whose broker is gone."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
            parent = (entry / "status").read_text().partition("PPid:\t")[2].partition("\n")[0]
        except OSError:
            continue
        if b"zkbroker.log.cleaner_child" in command and parent == "1":
            found.append(entry.name)
    return found


def test_delete_records_of_a_compacted_topic_is_refused(cluster: Cluster) -> None:
    from confluent_kafka import TopicPartition

    topic = "not-deleted"
    cluster.create_topic(topic, 1, 1, config=TOPIC)
    produce(cluster, topic, [("a", "1")])
    admin = cluster.admin()
    with pytest.raises(KafkaException) as refused:
        for future in admin.delete_records([TopicPartition(topic, 0, 1)]).values():
            future.result(30)
    assert refused.value.args[0].name() == "POLICY_VIOLATION"

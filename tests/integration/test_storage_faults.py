"""Disks that fail, folders that vanish or come from elsewhere, torn files, topics deleted behind a broker's back."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from kazoo.exceptions import NoNodeError

from tests.harness.brokers import Cluster, LocalBroker, SteadyWriter
from tests.harness.zookeeper import ZooKeeperEnsemble

pytestmark = pytest.mark.timeout(400)

SETTINGS = {
    "replica.high.watermark.checkpoint.interval.ms": 500,
    "log.segment.delete.delay.ms": 200,
    "log.index.interval.bytes": 512,
    "min.insync.replicas": 1,
}
ANYBODY = [1, 2, 3]


@pytest.fixture(scope="module")
def shared_cluster(ensemble: ZooKeeperEnsemble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two log folders each, ``data`` and ``data-2``."""
    made = Cluster(ensemble.connect_string, tmp_path_factory.mktemp("storage"), overrides=SETTINGS)
    for broker in made.brokers.values():
        broker.settings["log.dirs"] = ",".join(map(str, log_dirs(broker)))
    with made:
        yield made


def log_dirs(broker: LocalBroker) -> list[Path]:
    return [broker.data_dir, broker.data_dir.with_name("data-2")]


def replica_dir(broker: LocalBroker, topic: str, partition: int = 0) -> Path:
    """Where the replica lies, in whichever folder."""
    [found] = [path for folder in log_dirs(broker) if (path := folder / f"{topic}-{partition}").is_dir()]
    return found


def folders(broker: LocalBroker, pattern: str) -> list[Path]:
    return sorted(path for folder in log_dirs(broker) for path in folder.glob(pattern))


def log_bytes(broker: LocalBroker, topic: str, partition: int = 0) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(replica_dir(broker, topic, partition).glob("*.log")))


def wait_equal(cluster: Cluster, topic: str, partitions: Sequence[int] = (0,)) -> None:
    """The replicas' logs hold the same bytes."""
    for partition in partitions:
        cluster.wait_for(
            lambda p=partition: len({log_bytes(broker, topic, p) for broker in cluster.brokers.values()}) == 1,  # type: ignore[misc]
            f"all replicas of {topic}-{partition} hold the same bytes",
        )


def values(count: int, prefix: str = "v", size: int = 0) -> list[bytes]:
    return [f"{prefix}-{number}".encode().ljust(size, b".") for number in range(count)]


def read_values(cluster: Cluster, topic: str, partition: int = 0) -> list[bytes]:
    return [value for _, value in cluster.consume(topic, partition)]


def prefer(cluster: Cluster, topic: str, partitions: Sequence[int], leader: int) -> None:
    """Make the first of the assignment, ``leader``, lead these partitions."""
    names = [{"topic": topic, "partition": number} for number in partitions]
    body = json.dumps({"version": 1, "partitions": names}).encode()
    cluster.zookeeper.create("/admin/preferred_replica_election", body)
    cluster.wait_for(
        lambda: all(cluster.leader(topic, number) == leader for number in partitions), f"{leader} leads {topic}"
    )


def produce_each(cluster: Cluster, topic: str, partitions: Sequence[int], prefix: str, count: int) -> None:
    """``count`` records of 300 bytes to each, in batches that fit into small segments; all must be acknowledged."""
    producer = cluster.producer(batch_num_messages=10)
    failures: list[object] = []
    for number in partitions:
        for value in values(count, f"{prefix}{number}", 300):
            producer.produce(
                topic, value, partition=number, on_delivery=lambda error, _: failures.append(error) if error else None
            )
    assert (producer.flush(60), failures) == (0, [])


# A folder that fails


def too_large(broker: LocalBroker, folder: Path) -> Callable[[], None]:
    """No file of the process may grow past the largest that lies in ``folder``: appends to that one fail with EFBIG."""
    largest = max(path.stat().st_size for path in folder.glob("*/*.log"))
    resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    return lambda: None  # the limit ends with the process


def full(broker: LocalBroker, folder: Path) -> Callable[[], None]:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 4096):
            pass
    return filler.unlink


def removed(broker: LocalBroker, folder: Path) -> Callable[[], None]:
    # The running broker may write a file into a folder that was just emptied: remove it again.
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
    return lambda: None


@pytest.fixture
def small_disk(cluster: Cluster) -> Iterator[LocalBroker]:
    """Broker 3 with ``data-2`` on a file system of its own, of 4 MiB."""
    broker = cluster.brokers[3]
    broker.stop()
    folder = log_dirs(broker)[1]
    shutil.rmtree(folder)
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    mounted = subprocess.run(["mount", *options], capture_output=True, check=False)
    cluster.restart(3)
    if mounted.returncode != 0:
        pytest.skip(f"this user may not mount a small file system: {mounted.stderr.decode().strip()}")
    yield broker
    broker.kill()
    subprocess.run(["umount", str(folder)], check=True)


def check_failed_folder(cluster: Cluster, broker: LocalBroker, folder: Path, name: str, break_: Callable) -> None:  # type: ignore[type-arg]
    """Break ``folder`` under a writer, and see all that must and must not happen, until the broker is back."""
    topic = f"on-{name}"
    others = [other for other in ANYBODY if other != broker.broker_id]
    cluster.create_topic(topic, assignment=[[broker.broker_id, *others]] * 6)
    cluster.wait_isr(topic, ANYBODY)
    writer = SteadyWriter(cluster, name, topic, range(6), per_second=300)
    writer.start()
    cluster.wait_for(lambda: len(writer.acknowledged) > 300, "records in every partition")
    here = [number for number in range(6) if (folder / f"{topic}-{number}").is_dir()]
    assert 0 < len(here) < 6, "the partitions are spread over both folders"
    repair = break_(broker, folder)
    for number in range(6):
        if number in here:
            cluster.wait_leader(topic, number, other_than=broker.broker_id)
            cluster.wait_for(
                lambda number=number: broker.broker_id not in cluster.isr(topic, number),  # type: ignore[misc]
                f"broker {broker.broker_id} is out of the ISR of {topic}-{number}",
            )
    taken = len(writer.acknowledged)
    cluster.wait_for(lambda: len(writer.acknowledged) > taken + 200, "writing goes on")
    assert broker.is_running
    for number in range(6):
        if number not in here:
            assert cluster.leader(topic, number) == broker.broker_id
            assert sorted(cluster.isr(topic, number)) == ANYBODY
    # Its own line; as controller it also says which replicas broker N cannot serve.
    assert len(re.findall(rf"^\S+ \S+ log folder {folder} is offline: \S", broker.log_text(), re.MULTILINE)) == 1
    assert "Traceback" not in broker.log_text()
    broker.kill()
    repair()
    cluster.restart(broker.broker_id)
    cluster.wait_isr(topic, ANYBODY)
    writer.stop()
    assert writer.failures == []
    for number in range(6):
        assert read_values(cluster, topic, number) == writer.sent[number]
    wait_equal(cluster, topic, range(6))


@pytest.mark.parametrize("break_", [too_large, removed])
def test_a_folder_that_fails_costs_its_replicas_only(cluster: Cluster, break_: Callable) -> None:  # type: ignore[type-arg]
    broker = cluster.brokers[2]
    if break_ is too_large:
        # One partition beside the others that is by far the largest file: only its folder will fail.
        cluster.create_topic("largest", assignment=[ANYBODY])
        cluster.wait_isr("largest", ANYBODY)
        cluster.produce("largest", values(500, size=4000))
        folder = replica_dir(broker, "largest").parent

        def limit_and_write(broker: LocalBroker, folder: Path) -> Callable[[], None]:
            repair = too_large(broker, folder)
            cluster.produce("largest", values(10, "more", 4000))
            return repair

        check_failed_folder(cluster, broker, folder, "too-large", limit_and_write)
        wait_equal(cluster, "largest")
        assert read_values(cluster, "largest") == values(500, size=4000) + values(10, "more", 4000)
    else:
        check_failed_folder(cluster, broker, log_dirs(broker)[1], break_.__name__, break_)


def test_a_full_disk_is_named_as_such(cluster: Cluster, small_disk: LocalBroker) -> None:
    folder = log_dirs(small_disk)[1]
    check_failed_folder(cluster, small_disk, folder, "full", full)


def test_the_last_folder_ends_the_process_with_one_line(cluster: Cluster) -> None:
    broker = cluster.brokers[2]
    cluster.create_topic("last-folder", assignment=[[2, 1, 3]] * 2)
    cluster.wait_isr("last-folder", ANYBODY)
    written = cluster.produce("last-folder", values(100))
    for folder in log_dirs(broker):
        folder.rename(folder.with_name(f"{folder.name}-away"))
        folder.write_bytes(b"")
    broker.wait(90)
    assert broker.exit_status == 1
    lines = [line for line in broker.log_text().splitlines() if "all log folders failed" in line]
    assert len(lines) == 1
    assert "Traceback" not in broker.log_text()
    assert cluster.wait_leader("last-folder", other_than=2) in (1, 3)
    more = cluster.produce("last-folder", values(100, "more"))
    # A folder that is a file is no reason to make another: one line, and nothing is touched.
    broker.start()
    assert broker.wait(90) == 1
    assert "Traceback" not in broker.log_text() and "log.dirs: " in broker.log_text().splitlines()[-1]
    for folder in log_dirs(broker):
        folder.unlink()
        folder.with_name(f"{folder.name}-away").rename(folder)
    cluster.restart(2)
    cluster.wait_isr("last-folder", ANYBODY)
    assert read_values(cluster, "last-folder") == [record.value for record in written + more]
    wait_equal(cluster, "last-folder", range(2))


# What a broker finds at its start


def test_torn_and_damaged_files_are_mended(cluster: Cluster) -> None:
    """Every partition another damage, all on one killed broker; afterwards it leads, and has everything."""
    victim = cluster.brokers[3]
    damages: list[Callable[[Path], object]] = [
        lambda log: log.open("ab").write(b"\0\0\0\0\0\0\1\0torn"),
        lambda log: os.truncate(log, log.stat().st_size - 7),
        lambda log: _flip(log, -3),
        lambda log: [log.with_suffix(suffix).unlink() for suffix in (".index", ".timeindex")],
        lambda log: [log.with_suffix(suffix).write_bytes(b"\xff" * 24) for suffix in (".index", ".timeindex")],
        lambda log: (log.parent / "leader-epoch-checkpoint").unlink(),
        lambda log: (log.parent / "leader-epoch-checkpoint").write_bytes(b"garbage"),
        lambda log: [snapshot.write_bytes(b"garbage") for snapshot in log.parent.glob("*.snapshot")],
        lambda log: log.write_bytes(b""),
    ]
    numbers = range(len(damages))
    cluster.create_topic("damaged", assignment=[[3, 1, 2]] * len(damages), config={"segment.bytes": "20000"})
    cluster.wait_isr("damaged", ANYBODY)
    produce_each(cluster, "damaged", numbers, "p", 150)
    victim.kill()
    for number, damage in zip(numbers, damages, strict=True):
        damage(sorted(replica_dir(victim, "damaged", number).glob("*.log"))[-1])
    for folder in log_dirs(victim):
        (folder / "recovery-point-offset-checkpoint").write_bytes(b"not a checkpoint")
    for number in numbers:
        cluster.wait_leader("damaged", number, other_than=3)
    produce_each(cluster, "damaged", numbers, "after", 20)
    cluster.restart(3)
    cluster.wait_isr("damaged", ANYBODY)
    wait_equal(cluster, "damaged", numbers)
    prefer(cluster, "damaged", numbers, 3)
    for number in numbers:
        expected = values(150, f"p{number}", 300) + values(20, f"after{number}", 300)
        assert read_values(cluster, "damaged", number) == expected
    produce_each(cluster, "damaged", numbers, "on", 1)
    assert "Traceback" not in victim.log_text()


def _flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x40
    path.write_bytes(data)


def test_indexes_deleted_after_a_clean_stop_are_built_again(cluster: Cluster) -> None:
    cluster.create_topic("unindexed", assignment=[[3, 1, 2]], config={"segment.bytes": "20000"})
    cluster.wait_isr("unindexed", ANYBODY)
    produce_each(cluster, "unindexed", [0], "p", 300)
    victim = cluster.brokers[3]
    victim.stop()
    folder = replica_dir(victim, "unindexed")
    indexes = [*folder.glob("*.index"), *folder.glob("*.timeindex")]
    sizes = {path: path.stat().st_size for path in indexes}
    assert len(indexes) > 4
    for path in indexes:
        path.unlink()
    cluster.restart(3)
    cluster.wait_isr("unindexed", ANYBODY)
    assert all(path.exists() for path in indexes)
    assert any(path.stat().st_size for path in indexes) and any(sizes.values())
    prefer(cluster, "unindexed", [0], 3)
    assert read_values(cluster, "unindexed") == values(300, "p0", 300)


def test_an_emptied_follower_is_filled_again(cluster: Cluster) -> None:
    cluster.create_topic("emptied", partitions=4, config={"segment.bytes": "20000"})
    cluster.wait_isr("emptied", ANYBODY)
    produce_each(cluster, "emptied", range(4), "p", 200)
    victim = cluster.brokers[1]
    victim.kill()
    for folder in log_dirs(victim):
        shutil.rmtree(folder)
    cluster.restart(1)
    cluster.wait_isr("emptied", ANYBODY)
    wait_equal(cluster, "emptied", range(4))
    for number in range(4):
        assert read_values(cluster, "emptied", number) == values(200, f"p{number}", 300)


def test_folders_of_unknown_topics_become_strays_and_stay(cluster: Cluster) -> None:
    cluster.create_topic("known", assignment=[[1, 2]])
    cluster.wait_isr("known", [1, 2])
    cluster.produce("known", values(50))
    broker = cluster.brokers[1]
    broker.stop()
    source = replica_dir(broker, "known")
    ghost = source.with_name("ghost-0")
    shutil.copytree(source, ghost)
    (ghost / "partition.metadata").write_text("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ\n")
    content = {path.name: path.read_bytes() for path in ghost.glob("*.log")}
    # The same name as a topic that is assigned here, under another id: the old one is set aside, the new one filled.
    (source / "partition.metadata").write_text("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAg\n")
    cluster.restart(1)
    cluster.wait_isr("known", [1, 2])
    for is_first in (True, False):
        strays = folders(broker, "*-stray")
        assert sorted(path.name.split(".")[0] for path in strays) == ["ghost-0", "known-0"]
        assert not ghost.exists()
        assert all({path.name: path.read_bytes() for path in stray.glob("*.log")} == content for stray in strays)
        for stray in strays:
            assert str(stray) in broker.log_text()
        assert "-stray" not in str(replica_dir(broker, "known"))
        if is_first:
            broker.stop()
            cluster.restart(1)
    cluster.wait_isr("known", [1, 2])
    assert read_values(cluster, "known") == values(50)


# Topics deleted and made again while a broker is away


def test_a_deletion_is_finished_when_the_last_replica_is_back(cluster: Cluster) -> None:
    cluster.create_topic("doomed", partitions=2, config={"retention.ms": "3600000"})
    cluster.wait_isr("doomed", ANYBODY)
    cluster.produce("doomed", values(50))
    cluster.brokers[3].kill()
    cluster.wait_for(lambda: 3 not in cluster.live_ids(), "broker 3 is gone")
    cluster.delete_topic("doomed")
    for alive in (1, 2):
        broker = cluster.brokers[alive]
        cluster.wait_for(lambda broker=broker: not folders(broker, "doomed-*"), f"{broker.name} has deleted it")  # type: ignore[misc]
    assert "doomed" in cluster.topics()
    assert len(folders(cluster.brokers[3], "doomed-*")) == 2
    assert "doomed" not in cluster.admin().list_topics(timeout=60).topics
    cluster.zookeeper.delete("/controller")  # the next controller goes on with it
    cluster.restart(3)
    cluster.wait_for(lambda: "doomed" not in cluster.topics(), "its znodes are gone")
    cluster.wait_for(lambda: not folders(cluster.brokers[3], "doomed-*"), "its data on broker 3 is gone")
    for path in ("/config/topics/doomed", "/admin/delete_topics/doomed"):
        cluster.wait_for(lambda path=path: cluster.zookeeper.exists(path) is None, f"{path} is gone")  # type: ignore[misc]


def test_a_topic_made_again_keeps_nothing(cluster: Cluster) -> None:
    first_ids = set()
    for round_ in range(3):
        cluster.create_topic("again", partitions=2, config={"retention.ms": "3600000"} if round_ == 0 else None)
        cluster.wait_isr("again", ANYBODY)
        first_ids.add(cluster.read_json("/brokers/topics/again")["topic_id"])
        assert read_values(cluster, "again", 1) == []
        assert cluster.produce("again", values(20, f"r{round_}"), 1)[0].offset == 0
        assert read_values(cluster, "again", 1) == values(20, f"r{round_}")
        wait_equal(cluster, "again", [1])
        cluster.delete_topic("again")
        cluster.wait_for(lambda: "again" not in cluster.topics(), "the topic is gone")
    assert len(first_ids) == 3
    assert cluster.zookeeper.exists("/config/topics/again") is None


def test_a_topic_replaced_behind_a_brokers_back_is_not_mixed_with_the_old_one(cluster: Cluster) -> None:
    """Its znodes are removed by hand, which deletes no data, and it is made anew while one broker is away."""
    cluster.create_topic("replaced-topic", assignment=[[1, 2, 3]])
    cluster.wait_isr("replaced-topic", ANYBODY)
    cluster.produce("replaced-topic", values(100, "old"))
    cluster.brokers[3].kill()
    cluster.wait_for(lambda: cluster.isr("replaced-topic") and 3 not in cluster.isr("replaced-topic"), "3 has left")
    try:
        cluster.zookeeper.delete("/brokers/topics/replaced-topic", recursive=True)
    except NoNodeError:
        pass
    cluster.wait_for(
        lambda: "replaced-topic" not in cluster.admin().list_topics(timeout=60).topics, "nobody knows it any more"
    )
    znode = {"version": 1, "partitions": {"0": [2, 3, 1]}}
    cluster.zookeeper.create("/brokers/topics/replaced-topic", json.dumps(znode).encode())
    cluster.wait_leader("replaced-topic")
    written = cluster.produce("replaced-topic", values(5, "new"))
    cluster.restart(3)
    cluster.wait_isr("replaced-topic", ANYBODY)
    assert written[0].offset == 0
    wait_equal(cluster, "replaced-topic")
    assert read_values(cluster, "replaced-topic") == values(5, "new")
    strays = [path for broker in cluster.brokers.values() for path in folders(broker, "replaced-topic-0*-stray")]
    assert strays and all(b"old-99" in b"".join(log.read_bytes() for log in stray.glob("*.log")) for stray in strays)

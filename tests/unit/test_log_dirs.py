"""Log folders: whose they are, what a start finds in them, what is set aside."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from tests.unit.log_tools import CLUSTER_ID, T0, TOPIC_ID, HeldThreads, World, batch, read_all
from zkbroker.log.dirs import LogDirs
from zkbroker.log.log import Log
from zkbroker.model.errors import BrokerError, ErrorCode, StartError
from zkbroker.model.topic_config import TopicConfig
from zkbroker.model.topics import TopicPartition
from zkbroker.records.batch import read_header


def opened(tmp_path: Path, config: TopicConfig | None = None, world: World | None = None) -> tuple[World, LogDirs, Log]:
    world = world or World(tmp_path, config=config)
    dirs = world.open()
    return world, dirs, dirs.create(T0, TOPIC_ID)


def result_of(deferred: Deferred[object]) -> object:
    found: list[object] = []
    deferred.addBoth(found.append)
    assert found, "not fired"
    return found[0]


def test_one_failed_folder_of_two(tmp_path: Path) -> None:
    world = World(tmp_path / "a", tmp_path / "b")
    dirs = world.open()
    logs = [dirs.create(TopicPartition("t", number), TOPIC_ID) for number in range(4)]
    assert [log.log_dir for log in logs] == [str(tmp_path / name) for name in "abab"]
    dirs.fail_dir(str(tmp_path / "a"), "unplugged")
    assert sorted(dirs.logs) == [("t", 1), ("t", 3)]
    logs[1].append_as_leader(batch(1), 0)
    assert dirs.create(TopicPartition("t", 9), TOPIC_ID).log_dir == str(tmp_path / "b")


def test_folders_are_claimed(tmp_path: Path) -> None:
    world, dirs, _ = opened(tmp_path)
    with pytest.raises(StartError, match="locked by another process"):
        World(tmp_path).open()
    dirs.close(1)
    with pytest.raises(StartError, match=f"belongs to cluster {CLUSTER_ID}"):
        World(tmp_path).open("another-cluster")
    with pytest.raises(StartError, match=r"belongs to broker 1, broker\.id is 2"):
        World(tmp_path, broker_id=2).open()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StartError, match="cannot use"):
        World(tmp_path / "file").open()
    world.open().abandon()


def test_deleted_and_stray_folders(tmp_path: Path) -> None:
    world, dirs, log = opened(tmp_path)
    other = dirs.create(TopicPartition("t", 1), TOPIC_ID)
    log.append_as_leader(batch(1), 0)
    with pytest.raises(BrokerError) as raised:
        dirs.delete(T0, "A" * 22)
    assert raised.value.error == ErrorCode.INCONSISTENT_TOPIC_ID
    dirs.delete(T0, TOPIC_ID)
    dirs.delete(T0, TOPIC_ID)
    stray = dirs.make_stray(other.partition)
    assert stray is not None and stray.endswith("-stray")
    names = sorted(path.name for path in tmp_path.glob("t-*"))
    assert len(names) == 2 and names[0].startswith("t-0.") and names[0].endswith("-delete")
    world.reactor.advance(61)
    assert [path.name for path in tmp_path.glob("t-*")] == [Path(stray).name]
    dirs.close(1)
    assert world.open().logs == {}
    assert Path(stray).exists()


def test_a_duplicate_partition_and_unreadable_metadata_stop_the_start(tmp_path: Path) -> None:
    for name in "ab":
        dirs = World(tmp_path / name).open()
        dirs.create(T0, TOPIC_ID)
        dirs.abandon()
    with pytest.raises(StartError, match="t-0 is in"):
        World(tmp_path / "a", tmp_path / "b").open()
    (tmp_path / "a" / "t-0" / "partition.metadata").write_bytes(b"?")
    with pytest.raises(StartError, match=r"partition\.metadata"):
        World(tmp_path / "a").open()


@pytest.mark.parametrize("obstacle", ["another broker's folder", "a partition twice", "unreadable metadata"])
def test_an_unusable_folder_costs_the_others_no_clean_mark(tmp_path: Path, obstacle: str) -> None:
    world = World(tmp_path / "a", tmp_path / "b")
    dirs = world.open()
    for number in range(2):
        dirs.create(TopicPartition("t", number), TOPIC_ID).append_as_leader(batch(1), 0)
    dirs.close(7)
    foreign = tmp_path / "b" / "meta.properties"
    own = foreign.read_bytes()
    metadata = tmp_path / "b" / "t-1" / "partition.metadata"
    topic_id = metadata.read_bytes()
    if obstacle == "another broker's folder":
        foreign.write_bytes(own.replace(b"broker.id=1", b"broker.id=9"))
    elif obstacle == "a partition twice":
        (tmp_path / "b" / "t-0").mkdir()
    else:
        metadata.write_bytes(b"?")
    with pytest.raises(StartError):
        world.open()
    foreign.write_bytes(own)
    metadata.write_bytes(topic_id)
    if obstacle == "a partition twice":
        for path in (tmp_path / "b" / "t-0").iterdir():
            path.unlink()
        (tmp_path / "b" / "t-0").rmdir()
    dirs = world.open()
    assert dirs.clean_broker_epochs == {str(tmp_path / "a"): 7, str(tmp_path / "b"): 7}
    assert not list(tmp_path.glob("*/.kafka_cleanshutdown")), "used up by the start that succeeded"


@pytest.mark.parametrize("is_listed", [False, True])
def test_records_that_lost_their_topic_id_are_inherited_by_no_topic(tmp_path: Path, is_listed: bool) -> None:
    """Except from a Kafka before 2.8, which had no topic ids: its recovery points list the log."""
    world, dirs, log = opened(tmp_path)
    log.append_as_leader(batch(1), 0)
    dirs.abandon()
    (tmp_path / "t-0" / "partition.metadata").unlink()
    if is_listed:
        (tmp_path / "recovery-point-offset-checkpoint").write_bytes(b"0\n1\nt 0 0\n")
    dirs = world.open()
    assert (T0 in dirs.logs) is is_listed
    assert len(list(tmp_path.glob("t-0.*-stray"))) == (not is_listed)
    assert dirs.create(T0, "A" * 22).log_end_offset == is_listed


def test_a_clean_stop_before_the_topic_id_is_known_again_lets_the_next_start_be(tmp_path: Path) -> None:
    """What the simulator found: killed while it made a log, started, and stopped before the controller was heard."""
    world, dirs, _ = opened(tmp_path)
    dirs.abandon()
    (tmp_path / "t-0" / "partition.metadata").write_bytes(b"")
    dirs = world.open()
    assert dirs.logs[T0].topic_id == ""
    dirs.close(1)
    dirs = world.open()
    assert dirs.create(T0, TOPIC_ID).topic_id == TOPIC_ID


def test_recovery_points_list_logs_whose_topic_id_is_on_disk(tmp_path: Path) -> None:
    world = World(tmp_path)
    threads = world.threads = HeldThreads()
    dirs = world.open()
    dirs.create(T0, TOPIC_ID).append_as_leader(batch(1), 0)
    # Nothing was flushed yet.
    dirs.write_checkpoints_now({T0: 0})
    points = tmp_path / "recovery-point-offset-checkpoint"
    assert points.read_text() == "0\n0\n"
    dirs.logs[T0].durability.write_epochs_soon()
    threads.run()
    dirs.write_checkpoints_now({T0: 0})
    assert points.read_text() == "0\n1\nt 0 0\n"
    dirs.abandon()


def test_the_header_of_what_lies_on_disk(tmp_path: Path) -> None:
    _, _, log = opened(tmp_path)
    log.append_as_leader(batch(1), 9)
    header = read_header((tmp_path / "t-0" / "00000000000000000000.log").read_bytes())
    assert (header.base_offset, header.leader_epoch, header.magic) == (0, 9, 2)
    assert (tmp_path / "t-0" / "partition.metadata").read_text() == f"version: 0\ntopic_id: {TOPIC_ID}"


def test_a_folder_is_closed_cleanly_while_a_thread_is_late_with_its_epoch_checkpoint(tmp_path: Path) -> None:
    world = World(tmp_path)
    threads = world.threads = HeldThreads()
    _, dirs, log = opened(tmp_path, world=world)
    log.append_as_leader(batch(2), 1)
    assert threads.jobs, "the epoch's write waits for its thread"
    log.assign_epoch(2, 2)
    dirs.close(5)
    assert (tmp_path / ".kafka_cleanshutdown").exists()
    before = (tmp_path / "t-0" / "leader-epoch-checkpoint").read_bytes()
    assert before == b"0\n2\n1 0\n2 2\n"
    threads.run()
    assert (tmp_path / "t-0" / "leader-epoch-checkpoint").read_bytes() == before, "what was late replaces nothing"
    log = world.open().logs[T0]
    assert (log.log_end_offset, log.epochs.entries) == (2, ((1, 0),))


def test_snapshots_of_clean_shutdowns_do_not_pile_up(tmp_path: Path) -> None:
    world, dirs, log = opened(tmp_path)
    for number in range(4):
        log.append_as_leader(batch(1, producer_id=3, producer_epoch=0, base_sequence=number), 0)
        dirs.close(1)
        dirs = world.open()
        log = dirs.logs[T0]
    assert len(list((tmp_path / "t-0").glob("*.snapshot"))) == 1
    assert log.snapshots == [4]


def test_after_a_kill_a_flush_policy_waits_for_the_disk_and_others_do_not(tmp_path: Path) -> None:
    for policy in (1, 2**63 - 1):
        world = World(tmp_path / str(policy), config=TopicConfig(flush_messages=policy))
        threads = world.threads = HeldThreads()
        _, dirs, log = opened(tmp_path, world=world)
        log.append_as_leader(batch(2), 1)
        dirs.abandon()
        threads.jobs.clear()
        log = world.open().logs[T0]
        assert (log.flushed_end_offset, log.log_end_offset) == (2 if policy == 1 else 0, 2)
        threads.run()
        assert log.flushed_end_offset == 2


def test_waiting_for_a_flush_ends_when_the_log_closes_under_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    threads = world.threads = HeldThreads()
    _, dirs, log = opened(tmp_path, world=world)
    log.append_as_leader(batch(2), 1)
    waiting = log.flush_later()
    while not threads.jobs[-1][2][1].files:  # until the job that fsyncs is under way
        threads.run()
    dirs.delete(T0, TOPIC_ID)
    threads.run()
    assert getattr(result_of(waiting), "value").error == ErrorCode.KAFKA_STORAGE_ERROR  # noqa: B009
    assert threads.run() == 0


@pytest.mark.parametrize("damage", [bytes(range(1, 65)), b"\xff" * 16, b"\x00\x00\x00\x01\x7f\xff\xff\xff"])
@pytest.mark.parametrize("is_clean", [True, False])
def test_a_damaged_index_misleads_nobody(tmp_path: Path, damage: bytes, is_clean: bool) -> None:
    world, dirs, log = opened(tmp_path, TopicConfig(segment_bytes=400, index_interval_bytes=0))
    for _ in range(10):
        log.append_as_leader(batch(2), 0)
    dirs.write_checkpoints_now({})
    if is_clean:
        dirs.close(1)
    else:
        log.flush_later()
        dirs.abandon()
    for path in sorted((tmp_path / "t-0").glob("*.index")):
        path.write_bytes(damage)
    dirs = world.open()
    assert [record.offset for record in read_all(dirs.logs[T0])] == list(range(20))
    dirs.logs[T0].append_as_leader(batch(2), 0)
    dirs.close(1)
    assert len(read_all(world.open().logs[T0])) == 22


@pytest.mark.parametrize("removed", [0, 1, 3])
def test_a_compaction_that_a_crash_interrupted_is_completed(tmp_path: Path, removed: int) -> None:
    world, dirs, log = opened(tmp_path, TopicConfig(segment_bytes=160))
    for _ in range(8):
        log.append_as_leader(batch(2), 0)
    assert log.bases == [0, 4, 8, 12]
    dirs.abandon()
    folder = tmp_path / "t-0"
    logs = sorted(folder.glob("*.log"))
    # Three segments became one, in which the batch at 2 is gone.
    merged = logs[0].read_bytes()[: len(batch(2))] + logs[1].read_bytes() + logs[2].read_bytes()
    (folder / "00000000000000000000.log.swap").write_bytes(merged)
    (folder / "00000000000000000000.index.swap").write_bytes(b"")
    for path in logs[:removed]:
        path.rename(f"{path}.deleted")
    log = world.open().logs[T0]
    assert log.bases == [0, 12]
    assert [record.offset for record in read_all(log)] == [0, 1, *range(4, 16)]
    assert not list(folder.glob("*.swap")) and not list(folder.glob("*.deleted"))

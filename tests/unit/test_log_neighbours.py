"""What became of one log, segment or folder must not come back to haunt another."""

from __future__ import annotations

import errno
from random import Random

import pytest
from twisted.internet.defer import maybeDeferred

from tests.fakes.crash_disk import CrashDisk
from tests.unit.log_tools import T0, TOPIC_ID, HeldThreads, World, batch
from zkbroker.log.checkpoints import HIGH_WATERMARK_FILE, LOG_START_FILE, decode_offsets, encode_offsets
from zkbroker.log.dirs import LogDirs
from zkbroker.log.files import OLD_INDEXES_MAX
from zkbroker.log.indexes import OffsetIndex
from zkbroker.log.lanes import JOBS_AT_ONCE
from zkbroker.log.log import Log
from zkbroker.model.topic_config import TopicConfig
from zkbroker.model.topics import TopicPartition

T1 = TopicPartition("t", 1)
INDEXED = TopicConfig(index_interval_bytes=0, segment_bytes=400)


def restarted(world: World) -> LogDirs:
    """After a kill: no log is warm, no batch in memory."""
    assert isinstance(world.disk, CrashDisk)
    world.disk = world.disk.killed()
    return world.open()


def read_cold(log: Log, offset: int) -> None:
    log.tail.clear()
    assert log.read(offset, 50, log.log_end_offset, may_wait=True) is not None


def read_many_old_segments(log: Log) -> None:
    assert len(log.segments) > OLD_INDEXES_MAX
    for base in log.bases[:-1]:
        read_cold(log, base)


def two_logs(*folders: str) -> tuple[World, Log, Log]:
    """A short one whose index was used while it was cold and has entries that are not written; and a long one."""
    world = World(*folders, config=INDEXED)
    world.disk = CrashDisk()
    dirs = world.open()
    short, long = dirs.create(T0, TOPIC_ID), dirs.create(T1, TOPIC_ID)
    short.append_as_leader(batch(), 1)
    while len(long.segments) <= OLD_INDEXES_MAX + 1:
        long.append_as_leader(batch(), 1)
    dirs = restarted(world)
    short, long = dirs.logs[T0], dirs.logs[T1]
    read_cold(short, 0)
    for _ in range(3):
        short.append_as_leader(batch(), 1)
    return world, short, long


def test_the_index_of_a_deleted_log_fails_no_reader_of_another() -> None:
    world, short, long = two_logs("/data")
    dirs = short.context
    assert dirs is long.context
    short.close()
    world.disk.remove_dir(short.folder)
    read_many_old_segments(long)
    assert world.failures == []
    assert not world.disk.exists(short.folder)


def test_the_index_of_a_failed_folder_fails_no_reader_of_another() -> None:
    world, short, long = two_logs("/a", "/b")
    assert isinstance(world.disk, CrashDisk)

    def fail(operation: str, path: str) -> None:
        if path.startswith("/a"):
            raise OSError(errno.EIO, "Input/output error", path)

    assert (short.log_dir, long.log_dir) == ("/a", "/b")
    world.disk.fail = fail
    short.failed("cannot append", OSError(errno.EIO, "Input/output error"))
    read_many_old_segments(long)
    assert [folder for folder, _, _ in world.failures] == ["/a"]


def test_the_index_of_a_truncated_segment_writes_nothing_into_its_successor() -> None:
    world, short, long = two_logs("/data")
    short.truncate_fully_and_start_at(0)
    for _ in range(4):
        short.append_as_leader(batch(2), 2)
    short.flush_later()
    read_many_old_segments(long)
    found = OffsetIndex(world.disk, short.active.index.path, 0)
    assert found.entries() == short.active.index.entries()
    assert found.entries()


def test_deleting_on_a_disk_that_hangs_leaves_threads_to_the_others() -> None:
    world = World("/a", "/b")
    world.disk = CrashDisk()
    dirs = world.open()
    for number in range(4 * JOBS_AT_ONCE):
        dirs.create(TopicPartition("t", number), TOPIC_ID)
    threads = world.threads = HeldThreads()
    doomed = [partition for partition, log in dirs.logs.items() if log.log_dir == "/a"]
    assert len(doomed) > JOBS_AT_ONCE
    for partition in doomed:
        dirs.delete(partition, TOPIC_ID)
    world.reactor.advance(world.config.file_delete_delay_ms / 1000)
    assert len(threads.jobs) == JOBS_AT_ONCE
    while threads.run():
        pass
    assert not [entry.name for entry in world.disk.list_dir("/a") if entry.is_dir]


@pytest.mark.parametrize("target", [3, 1])
def test_a_log_start_that_was_truncated_away_does_not_come_back_after_a_kill(target: int) -> None:
    """An unclean leader ended before it: what it wrote since is history, and nobody may throw it away."""
    world = World("/data")
    world.disk = CrashDisk()
    dirs = world.open()
    log = dirs.create(T0, TOPIC_ID)
    if target == 1:
        log.truncate_fully_and_start_at(2)
    log.append_as_leader(batch(8), 1)
    for _ in range(2):
        log.append_as_leader(batch(1), 1)
    log.advance_log_start(log.log_end_offset)
    dirs.write_checkpoints({})
    seen: list[CrashDisk] = []
    assert isinstance(world.disk, CrashDisk)
    disk = world.disk
    disk.before_change = lambda operation: seen.append(disk.killed())
    log.truncate_to(target)
    disk.before_change = lambda operation: None
    begin = log.log_end_offset
    assert seen
    for image in seen:
        other = World("/data")
        other.disk = image
        found = other.open().logs[T0]
        assert found.size or found.log_end_offset <= begin, "nothing is left, and it claims to stand where it stood"
    for _ in range(2):
        log.append_as_leader(batch(1), 2)
    log = restarted(world).logs[T0]
    assert log.log_end_offset == begin + 2
    assert log.log_start_offset <= begin


def with_records() -> tuple[World, CrashDisk, LogDirs, Log]:
    """A log with five, on a disk that can fail."""
    world = World("/data")
    world.disk = disk = CrashDisk()
    dirs = world.open()
    dirs.losses.add([])
    log = dirs.create(T0, TOPIC_ID)
    log.append_as_leader(batch(5), 1)
    return world, disk, dirs, log


@pytest.mark.parametrize("at_close", [False, True])
def test_an_fsync_that_finds_the_disk_full_loses_what_it_was_to_write(at_close: bool) -> None:
    """A thin volume or a quota is found full when the pages are written back: the kernel drops them all the same."""
    world, disk, dirs, log = with_records()

    def fail(operation: str, path: str) -> None:
        if operation == "sync":
            raise OSError(errno.ENOSPC, "No space left on device", path)

    disk.fail = fail
    if at_close:
        dirs.close(1)
    else:
        log.flush_later().addErrback(lambda _: None)
        assert "full" in world.failures[0][1]
        dirs.abandon()
    disk.fail = lambda operation, path: None
    assert list(restarted(world).losses.replicas) == [T0]


def test_a_write_that_finds_the_disk_full_loses_nothing() -> None:
    world, disk, _, log = with_records()
    disk.is_full = True
    with pytest.raises(Exception, match="offline"):
        log.append_as_leader(batch(5), 1)
    disk.is_full = False
    found = restarted(world)
    assert (list(found.losses.replicas), found.logs[T0].log_end_offset) == ([], 5)


@pytest.mark.parametrize("seed", range(10))
def test_a_truncation_that_is_not_on_the_disk_holds_back_the_mark_of_a_clean_stop(seed: int) -> None:
    world = World("/data")
    world.disk = disk = CrashDisk()
    dirs = world.open()
    log = dirs.create(T0, TOPIC_ID)
    log.append_as_leader(batch(5), 1)
    log.roll()
    dirs.close(1)
    dirs = world.open()
    log = dirs.logs[T0]
    log.append_as_leader(batch(5), 1)
    # written back by the kernel on its own
    disk.sync_path(log.active.path)
    world.threads = HeldThreads()
    log.truncate_to(5)
    dirs.close(1)
    world.disk, world.threads = disk.power_lost(Random(seed)), maybeDeferred
    assert world.open().logs[T0].log_end_offset == 5


def test_a_kill_while_logs_are_loaded_leaves_the_checkpoints_of_those_that_are_not() -> None:
    """The first log begins anew, as what was not flushed is gone: its recovery point on the disk is too high then."""
    world = World("/data")
    world.disk = disk = CrashDisk()
    dirs = world.open()
    logs = [dirs.create(partition, TOPIC_ID) for partition in (T0, T1)]
    for log in logs:
        log.append_as_leader(batch(5), 1)
        log.flush_later()
    logs[0].append_as_leader(batch(5), 1)
    logs[0].advance_log_start(10)
    logs[1].advance_log_start(5)
    logs[1].append_as_leader(batch(1), 1)
    dirs.write_checkpoints({T0: 10, T1: 5})
    # Nothing behind the last flush survives but the checkpoints.
    world.disk = disk = disk.power_lost(Random(0))
    handle = disk.open_data(f"/data/t-0/{0:020d}.log")
    disk.truncate(handle, logs[1].segments[0].position_of(5)[0])
    seen: list[CrashDisk] = []
    disk.before_change = lambda operation: seen.append(disk.killed())
    log = world.open().logs[T0]
    assert (log.log_start_offset, log.log_end_offset) == (10, 10)
    assert seen
    for image in seen:
        world.disk = image
        log = world.open().logs[T1]
        assert log.log_start_offset == 5
        assert image.exists("/data/t-1")


def test_checkpoints_of_a_folder_go_on_while_another_hangs() -> None:
    world = World("/a", "/b")
    world.disk = disk = CrashDisk()
    dirs = world.open()
    for partition in (T0, T1):
        dirs.create(partition, TOPIC_ID).append_as_leader(batch(9), 1)
    threads = world.threads = HeldThreads()
    for mark in (4, 7):
        dirs.write_checkpoints({T0: mark, T1: mark})
        # the first thread hangs for good
        hanging, threads.jobs = threads.jobs[:1], threads.jobs[1:]
        threads.run()
        threads.jobs = hanging
    path = f"/b/{HIGH_WATERMARK_FILE}"
    assert decode_offsets(disk.read_file(path)) == {T1: 7}
    assert not disk.exists(f"/a/{HIGH_WATERMARK_FILE}")
    threads.run()
    dirs.write_checkpoints({T0: 8, T1: 8})
    threads.run()
    assert decode_offsets(disk.read_file(f"/a/{HIGH_WATERMARK_FILE}")) == {T0: 8}


def test_checkpoints_of_a_folder_are_written_though_those_of_another_overtake_a_thread() -> None:
    world = World("/a", "/b")
    world.disk = disk = CrashDisk()
    dirs = world.open()
    logs = [dirs.create(partition, TOPIC_ID) for partition in (T0, T1)]
    for log in logs:
        log.append_as_leader(batch(9), 1)
        log.flush_later()
        log.advance_log_start(9)
    threads = world.threads = HeldThreads()
    dirs.write_checkpoints({T0: 9, T1: 9})
    logs[0].truncate_to(0)  # waits for the log start in its own folder
    threads.run()
    assert decode_offsets(disk.read_file(f"/b/{HIGH_WATERMARK_FILE}")) == {T1: 9}
    assert decode_offsets(disk.read_file(f"/a/{LOG_START_FILE}")) == {}, "what was late replaces nothing"


def test_a_log_does_not_begin_where_one_of_before_the_start_began() -> None:
    """The checkpoints name it still: they were written while the logs were loaded, as the first one began anew."""
    world = World("/data")
    world.disk = disk = CrashDisk()
    dirs = world.open()
    log = dirs.create(T0, TOPIC_ID)
    log.append_as_leader(batch(5), 1)
    log.flush_later()
    dirs.write_checkpoints({})
    disk.write_file(f"/data/{LOG_START_FILE}", encode_offsets({T0: 10, T1: 7}))
    dirs = restarted(world)
    assert dirs.logs[T0].log_start_offset == 10
    dirs.create(T1, TOPIC_ID).append_as_leader(batch(3), 1)
    log = restarted(world).logs[T1]
    assert (log.log_start_offset, log.log_end_offset) == (0, 3)

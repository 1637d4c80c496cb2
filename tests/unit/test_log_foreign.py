"""What others left in a log's folder: people, older Kafkas, a disk that lost something."""

from __future__ import annotations

import errno
import zlib
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from tests.fakes.crash_disk import CrashDisk, OpenedFile
from tests.unit.log_tools import NOW_MS, T0, TOPIC_ID, World, batch, read_all
from zkbroker.log.dirs import LogDirs
from zkbroker.log.files import OLD_INDEXES_MAX
from zkbroker.model.errors import BrokerError, ErrorCode, StartError
from zkbroker.model.topic_config import TopicConfig
from zkbroker.model.topics import TopicPartition


def filled(folder: Path, batches: int = 4, config: TopicConfig | None = None) -> tuple[World, LogDirs]:
    world = World(folder, config=config)
    dirs = world.open()
    log = dirs.create(T0, TOPIC_ID)
    for number in range(batches):
        log.append_as_leader(batch(2, timestamp=NOW_MS + number), 3)
    return world, dirs


def stopped(dirs: LogDirs, *, is_clean: bool) -> None:
    if is_clean:
        dirs.write_checkpoints_now({})
        dirs.close(1)
    else:
        dirs.abandon()


@pytest.mark.parametrize("is_clean", [True, False])
def test_files_and_folders_of_people_are_left_alone(tmp_path: Path, is_clean: bool) -> None:
    world, dirs = filled(tmp_path)
    stopped(dirs, is_clean=is_clean)
    folder = tmp_path / "t-0"
    names = [
        "5.log",
        "\u00b2.log",
        "123456789012345678901234.log",
        "5.snapshot",
        "\u0664.snapshot",
        "x.log.swap",
        "notes",
    ]
    for name in names:
        (folder / name).write_bytes(b"mine")
    (folder / "backup.tmp").mkdir()
    (folder / "00000000000000000009.log").mkdir()
    dirs = world.open()
    assert len(read_all(dirs.logs[T0])) == 8
    stopped(dirs, is_clean=is_clean)
    left = {path.name for path in folder.iterdir()}
    assert left >= {*names, "backup.tmp"} - {"x.log.swap"}


def message_of_magic_1(offset: int) -> bytes:
    body = b"\x01\x00" + NOW_MS.to_bytes(8, "big") + b"\xff\xff\xff\xff" + b"\x00\x00\x00\x05value"
    size = 4 + len(body)
    return offset.to_bytes(8, "big") + size.to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + body


@pytest.mark.parametrize("is_clean", [True, False])
def test_messages_from_before_kafka_0_11_are_refused_and_not_touched(tmp_path: Path, is_clean: bool) -> None:
    world, dirs = filled(tmp_path)
    stopped(dirs, is_clean=is_clean)
    path = tmp_path / "t-0" / "00000000000000000000.log"
    old = b"".join(message_of_magic_1(offset) for offset in range(5))
    path.write_bytes(old)
    with pytest.raises(StartError, match=r"magic 1, from before Kafka 0\.11"):
        world.open()
    assert path.read_bytes() == old


@pytest.mark.parametrize("is_clean", [True, False])
@pytest.mark.parametrize("roll", [True, False])
def test_a_missing_epoch_checkpoint_is_rebuilt(tmp_path: Path, is_clean: bool, roll: bool) -> None:
    world, dirs = filled(tmp_path)
    if roll:
        dirs.logs[T0].roll()
    stopped(dirs, is_clean=is_clean)
    (tmp_path / "t-0" / "leader-epoch-checkpoint").unlink()
    assert world.open().logs[T0].epochs.entries == ((3, 0),)


@pytest.mark.parametrize("offset", [2**62, 2**33])
def test_a_batch_with_an_impossible_offset_is_cut_off(tmp_path: Path, offset: int) -> None:
    world, dirs = filled(tmp_path, config=TopicConfig(index_interval_bytes=0))
    stopped(dirs, is_clean=False)
    path = tmp_path / "t-0" / "00000000000000000000.log"
    data = bytearray(path.read_bytes())
    last = len(data) // 4 * 3
    # The CRC does not cover the base offset.
    data[last : last + 8] = offset.to_bytes(8, "big")
    path.write_bytes(data)
    assert len(read_all(world.open().logs[T0])) == 6


def test_a_follower_of_a_compacted_leader_rolls_before_an_offset_out_of_reach(tmp_path: Path) -> None:
    _, dirs = filled(tmp_path, 0)
    log = dirs.logs[T0]
    far = 3 * 2**31
    log.append_as_follower(far.to_bytes(8, "big") + batch(2, leader_epoch=1)[8:], 1)
    assert (log.bases, log.log_end_offset) == ([0, far], far + 2)
    assert [record.offset for record in read_all(log, far)] == [far, far + 1]


def test_reading_old_segments_and_asking_for_times_keeps_little_in_memory(tmp_path: Path) -> None:
    config = TopicConfig(segment_bytes=170, index_interval_bytes=0)
    world, dirs = filled(tmp_path, 120, config)
    log = dirs.logs[T0]
    log.tail.clear()
    assert len(log.segments) > OLD_INDEXES_MAX + 10
    assert len(read_all(log)) == 240
    loaded = [segment for segment in log.segments if segment.index._offsets is not None]
    assert len(loaded) <= OLD_INDEXES_MAX + 1
    stopped(dirs, is_clean=True)
    log = world.open().logs[T0]
    found: list[object] = []
    asked: Deferred[object] = log.offset_for_timestamp(NOW_MS + 100)  # type: ignore[assignment]
    asked.addCallback(found.append)
    assert found == [(NOW_MS + 100, 200, 3)]
    assert sum(segment.time_index._is_loaded for segment in log.segments) <= 1


def test_too_many_open_files_fail_a_read_and_an_append_but_no_folder() -> None:
    world = World("/mount/logs", config=TopicConfig(segment_bytes=170))
    disk = world.disk = CrashDisk()
    dirs = world.open()
    log = dirs.create(T0, TOPIC_ID)
    for _ in range(8):
        log.append_as_leader(batch(2), 0)
    stopped(dirs, is_clean=True)
    log = world.open().logs[T0]

    def no_descriptors(operation: str, path: str) -> None:
        if operation == "open" and path.endswith(".log"):
            raise OSError(errno.EMFILE, "Too many open files")

    disk.fail = no_descriptors
    with pytest.raises(BrokerError) as raised:
        log.read(2, 100, 16, may_wait=True)
    assert raised.value.error == ErrorCode.KAFKA_STORAGE_ERROR
    assert not world.failures
    disk.fail = lambda operation, path: None
    assert len(read_all(log)) == 16


def test_a_name_too_long_for_the_file_system_costs_the_topic_only() -> None:
    world = World("/mount/logs")
    disk = world.disk = CrashDisk()

    def short_names(operation: str, path: str) -> None:
        if len(path.rpartition("/")[2]) > 143:
            raise OSError(errno.ENAMETOOLONG, "File name too long")

    disk.fail = short_names
    dirs = world.open()
    with pytest.raises(BrokerError):
        dirs.create(TopicPartition("t" * 200, 0), TOPIC_ID)
    assert not world.failures
    assert dirs.create(T0, TOPIC_ID).log_end_offset == 0


def test_a_log_of_the_longest_name_lives_and_is_set_aside(tmp_path: Path) -> None:
    world = World(tmp_path)
    partition = TopicPartition("t" * 249, 99999)
    dirs = world.open()
    dirs.create(partition, TOPIC_ID).append_as_leader(batch(2), 0)
    stopped(dirs, is_clean=True)
    dirs = world.open()
    assert len(read_all(dirs.logs[partition])) == 2
    assert dirs.make_stray(partition) is not None
    (tmp_path / "t-00").mkdir()
    stopped(dirs, is_clean=True)
    assert world.open().logs == {}


def test_an_epoch_whose_records_a_loss_of_power_took_is_remembered(tmp_path: Path) -> None:
    world, dirs = filled(tmp_path, 1)
    log = dirs.logs[T0]
    log.assign_epoch(5, 2)
    stopped(dirs, is_clean=False)
    log = world.open().logs[T0]
    assert (log.epochs.latest_epoch, log.epochs.highest_seen) == (3, 5)


class FullDisk(CrashDisk):
    """While ``is_full`` half of a write goes through, and cutting it off again fails too."""

    is_full = False

    def write(self, handle: OpenedFile, position: int, data: bytes | memoryview) -> None:  # type: ignore[override]
        if self.is_full:
            super().write(handle, position, memoryview(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(handle, position, data)

    def truncate(self, handle: OpenedFile, size: int) -> None:  # type: ignore[override]
        if self.is_full:
            raise OSError(errno.EIO, "Input/output error")
        super().truncate(handle, size)


def test_a_full_disk_on_which_even_the_cut_fails_costs_nothing_that_was_there() -> None:
    world = World("/mount/logs")
    disk = world.disk = FullDisk()
    dirs = world.open()
    log = dirs.create(T0, TOPIC_ID)
    log.append_as_leader(batch(2), 0)
    disk.is_full = True
    with pytest.raises(BrokerError):
        log.append_as_leader(batch(3), 0)
    assert "the disk is full" in world.failures[0][1]
    disk.is_full = False
    stopped(dirs, is_clean=True)
    assert not disk.exists("/mount/logs/.kafka_cleanshutdown"), "a folder that failed is recovered"
    assert disk.open_handles == 0
    log = world.open().logs[T0]
    assert [record.offset for record in read_all(log)] == [0, 1]

"""One log: what it refuses, what it answers, how it meets a failing disk."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from tests.unit.log_tools import NOW_MS, T0, TOPIC_ID, HeldThreads, UnsyncedDisk, World, batch, read_all
from zkbroker.log.dirs import LogDirs
from zkbroker.log.log import Log
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topic_config import TopicConfig
from zkbroker.records.batch import check_batch, with_log_append_time
from zkbroker.records.record import EndTransaction, build_end_transaction, records_of


class FailingDisk(UnsyncedDisk):
    """Fails the named operation with ``error`` while it is set."""

    def __init__(self) -> None:
        self.failing = ""
        self.error = errno.EIO
        self.short_bytes = 0

    def _check(self, operation: str) -> None:
        if self.failing == operation:
            raise OSError(self.error, "as the test wants")

    def write(self, handle: int, position: int, data: bytes | memoryview) -> None:
        if self.failing == "write" and self.short_bytes:
            super().write(handle, position, memoryview(data)[: self.short_bytes])
        self._check("write")
        super().write(handle, position, data)

    def read(self, handle: int, position: int, size: int) -> bytes:
        self._check("read")
        return super().read(handle, position, size)

    def sync(self, handle: int) -> None:
        self._check("sync")


class UncachedDisk(UnsyncedDisk):
    """Nothing is in the page cache until a thread has read."""

    def __init__(self) -> None:
        self.is_cached = False

    def can_read_cached(self, folder: str) -> bool:
        return True

    def read_cached(self, handle: int, position: int, size: int) -> bytes | None:
        return self.read(handle, position, size) if self.is_cached else None


def opened(tmp_path: Path, config: TopicConfig | None = None, world: World | None = None) -> tuple[World, LogDirs, Log]:
    world = world or World(tmp_path, config=config)
    dirs = world.open()
    return world, dirs, dirs.create(T0, TOPIC_ID)


def refused(log: Log, data: bytes, *, epoch: int = 0) -> ErrorCode:
    before = log.log_end_offset
    with pytest.raises(BrokerError) as raised:
        log.append_as_leader(data, epoch)
    assert log.log_end_offset == before
    return raised.value.error


def result_of(deferred: Deferred[object]) -> object:
    found: list[object] = []
    deferred.addBoth(found.append)
    assert found, "not fired"
    return found[0]


def test_an_append_is_stamped_and_read_back_at_once(tmp_path: Path) -> None:
    _, _, log = opened(tmp_path)
    data = batch(3)
    info = log.append_as_leader(memoryview(data), 4)
    assert info == (0, 2, -1, False, 3)
    log.append_as_leader(data, 4)
    read = log.read(4, 1, log.log_end_offset)
    assert read is not None
    assert (read.first_offset, read.next_offset, read.size) == (3, 6, len(data))
    header = check_batch(bytes(read.chunks[0]), 0, read.size)
    assert (header.base_offset, header.leader_epoch) == (3, 4)
    assert log.epochs.entries == ((4, 0),)


def test_reads_end_at_the_limit_and_at_max_bytes(tmp_path: Path) -> None:
    for in_memory in (True, False):
        _, dirs, log = opened(tmp_path / str(in_memory))
        for _ in range(5):
            log.append_as_leader(batch(2), 0)
        if not in_memory:
            log.tail.clear()
        size = len(batch(2))
        read = log.read(0, 10_000, 7)
        assert read is not None and (read.size, read.next_offset) == (3 * size, 6)
        read = log.read(2, 2 * size + 1, 10)
        assert read is not None and (read.first_offset, read.next_offset) == (2, 6)
        read = log.read(2, size - 1, 10, min_one_batch=False)
        assert read is not None and (read.size, read.next_offset) == (0, 2)
        for offset, limit in ((10, 10), (8, 8), (0, 1)):
            read = log.read(offset, 10_000, limit)
            assert read is not None and (read.size, read.next_offset) == (0, offset)
        for offset in (-1, 11):
            with pytest.raises(BrokerError) as raised:
                log.read(offset, 100, 10)
            assert raised.value.error == ErrorCode.OFFSET_OUT_OF_RANGE
        dirs.abandon()


def test_what_a_client_may_not_send(tmp_path: Path) -> None:
    _, _, log = opened(tmp_path, TopicConfig(max_message_bytes=300, segment_bytes=250))
    good = batch(2)
    assert refused(log, b"") == ErrorCode.INVALID_RECORD
    assert refused(log, good[:10]) == ErrorCode.INVALID_RECORD
    assert refused(log, good[:40]) == ErrorCode.INVALID_RECORD
    assert refused(log, good[:-1]) == ErrorCode.INVALID_RECORD
    assert refused(log, bytes(100)) == ErrorCode.CORRUPT_MESSAGE
    assert refused(log, b"\xff" * 100) == ErrorCode.CORRUPT_MESSAGE
    assert refused(log, good[:8] + b"\x00\x00\x00\x1e" + good[12:]) == ErrorCode.CORRUPT_MESSAGE
    assert refused(log, good[:-1] + b"x") == ErrorCode.CORRUPT_MESSAGE
    assert refused(log, good + good) == ErrorCode.INVALID_RECORD
    assert refused(log, batch(1, value=b"v" * 400)) == ErrorCode.MESSAGE_TOO_LARGE
    assert refused(log, batch(1, value=b"v" * 200)) == ErrorCode.RECORD_LIST_TOO_LARGE
    assert refused(log, good[:16] + b"\x01" + good[17:]) == ErrorCode.INVALID_RECORD
    assert refused(log, good[:16] + b"\x03" + good[17:]) == ErrorCode.CORRUPT_MESSAGE
    assert refused(log, good[:7] + b"\x05" + good[8:]) == ErrorCode.INVALID_RECORD
    assert refused(log, with_log_append_time(good, 5)) == ErrorCode.INVALID_TIMESTAMP
    assert refused(log, batch(1, control=True)) == ErrorCode.INVALID_RECORD
    assert refused(log, batch(1, transactional=True)) == ErrorCode.INVALID_RECORD
    assert refused(log, batch(2, last_offset=5)) == ErrorCode.INVALID_RECORD
    assert refused(log, batch(1, producer_id=3, producer_epoch=-1, base_sequence=0)) == ErrorCode.INVALID_RECORD


def test_an_idempotent_producer(tmp_path: Path) -> None:
    _, _, log = opened(tmp_path)
    more = {"producer_id": 3, "producer_epoch": 0}
    log.append_as_leader(batch(1), 0)
    assert log.append_as_leader(batch(2, base_sequence=0, **more), 0)[:2] == (1, 2)
    again = log.append_as_leader(batch(2, base_sequence=0, **more), 0)
    assert (again.base_offset, again.last_offset, again.is_duplicate) == (1, 2, True)
    assert refused(log, batch(2, base_sequence=3, **more)) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    log.truncate_to(1)
    assert log.append_as_leader(batch(2, base_sequence=0, **more), 1)[:3] == (1, 2, -1)


def test_log_append_time_and_timestamp_bounds(tmp_path: Path) -> None:
    world, _, log = opened(tmp_path, TopicConfig(message_timestamp_type="LogAppendTime"))
    info = log.append_as_leader(batch(1, timestamp=5), 0)
    assert info.log_append_time_ms == world.clock.now_ms
    (record,) = read_all(log)
    assert record.timestamp == world.clock.now_ms
    log.set_config(TopicConfig(message_timestamp_after_max_ms=10, message_timestamp_before_max_ms=10))
    assert refused(log, batch(1, timestamp=NOW_MS + 11)) == ErrorCode.INVALID_TIMESTAMP
    assert refused(log, batch(1, timestamp=NOW_MS - 11)) == ErrorCode.INVALID_TIMESTAMP
    log.append_as_leader(batch(1, timestamp=NOW_MS + 10), 0)


def test_records_are_walked_where_the_topic_asks(tmp_path: Path) -> None:
    _, _, log = opened(tmp_path, TopicConfig(compression_type="zstd"))
    log.append_as_leader(batch(50, codec=1), 0)
    read = log.read(0, 1000, 50)
    assert read is not None
    data = bytes(read.chunks[0])
    header = check_batch(data, 0, len(data))
    assert header.codec == 4
    assert [record.offset for record in records_of(data, header)] == list(range(50))
    log.set_config(TopicConfig(compression_type="zstd", compression_zstd_level=-1000))
    log.append_as_leader(batch(50, codec=1), 0)
    worse = log.read(50, 10_000, 100)
    assert worse is not None and worse.size > read.size
    log.set_config(TopicConfig(cleanup_policy=("compact",)))
    assert refused(log, batch(1)) == ErrorCode.INVALID_RECORD
    log.append_as_leader(batch(1, key=b"k"), 0)


def test_a_follower_appends_bytes_as_they_are(tmp_path: Path) -> None:
    _, _, leader = opened(tmp_path / "leader")
    _, _, follower = opened(tmp_path / "follower", TopicConfig(segment_bytes=300))
    for epoch in (1, 1, 1, 3, 5):
        leader.append_as_leader(batch(2, producer_id=4, producer_epoch=epoch, base_sequence=0), epoch) if epoch != 1 \
            else leader.append_as_leader(batch(2), epoch)  # fmt: skip
    read = leader.read(0, 10_000, 10)
    assert read is not None
    data = b"".join(read.chunks)
    info = follower.append_as_follower(data, 3)
    assert info is not None
    assert info[:2] == (0, 7), "stops before epoch 5 (KAFKA-18723)"
    assert follower.epochs.entries == ((1, 0), (3, 6))
    assert read_all(follower) == read_all(leader)[:8]
    assert len(follower.segments) == 2
    rest = leader.read(8, 10_000, 10)
    assert rest is not None
    assert follower.append_as_follower(bytes(rest.chunks[0]), 3) is None
    with pytest.raises(BrokerError):
        follower.append_as_follower(data, 5)  # below its log end
    with pytest.raises(BrokerError):
        follower.append_as_follower(bytes(rest.chunks[0])[:-1] + b"?", 5)
    follower.append_as_follower(bytes(rest.chunks[0]), 5)
    assert follower.epochs == leader.epochs
    assert follower.producers == leader.producers


def test_markers_end_transactions_on_leader_and_follower(tmp_path: Path) -> None:
    _, dirs, log = opened(tmp_path)
    log.append_as_leader(batch(2, producer_id=4, producer_epoch=0, base_sequence=0, transactional=True), 0)
    assert log.producers.first_unstable_offset(2) == 0
    log.append_as_leader(build_end_transaction(0, NOW_MS, 4, 0, EndTransaction(False, 1)), 0, origin_client=False)
    assert log.producers.first_unstable_offset(3) is None
    assert log.aborted_transactions(0, 3) == [(4, 0)]
    dirs.abandon()
    log = World(tmp_path).open().logs[T0]
    assert log.aborted_transactions(0, 3) == [(4, 0)]
    log.truncate_to(2)
    assert log.aborted_transactions(0, 2) == []
    assert log.producers.first_unstable_offset(2) == 0


def test_cold_bytes_are_read_in_a_thread(tmp_path: Path) -> None:
    world = World(tmp_path)
    disk = world.disk = UncachedDisk()
    threads = world.threads = HeldThreads()
    _, _, log = opened(tmp_path, world=world)
    for _ in range(3):
        log.append_as_leader(batch(2), 0)
    log.tail.clear()
    assert log.read(2, 100, 6) is None
    read = log.read_later(2, 100, 6)
    assert not read.called
    disk.is_cached = True
    threads.run()
    found = result_of(read)
    assert isinstance(found, tuple) and found[2:] == (2, 4)
    disk.is_cached = False
    late = log.read_later(4, 100, 6)
    log.truncate_to(2)
    threads.run()
    failure = result_of(late)
    assert getattr(failure, "value").error == ErrorCode.OFFSET_OUT_OF_RANGE  # noqa: B009


def test_one_fsync_serves_all_who_wait(tmp_path: Path) -> None:
    world = World(tmp_path)
    threads = world.threads = HeldThreads()
    _, _, log = opened(tmp_path, world=world)
    threads.run()
    log.append_as_leader(batch(1), 0)
    threads.run()
    first = log.flush_later()
    log.append_as_leader(batch(1), 0)
    second, third = log.flush_later(), log.flush_later()
    assert threads.run() == 1
    assert result_of(first) == 1
    assert not second.called
    assert threads.run() == 1
    assert (result_of(second), result_of(third), log.flushed_end_offset) == (2, 2, 2)


def test_a_flush_that_a_truncation_overtook_counts_for_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    threads = world.threads = HeldThreads()
    _, _, log = opened(tmp_path, world=world)
    log.append_as_leader(batch(3), 0)
    threads.run()
    waiting = log.flush_later()
    log.truncate_to(0)
    log.append_as_leader(batch(1), 1)
    threads.run()
    assert not waiting.called
    assert log.flushed_end_offset == 0
    threads.run()
    assert result_of(waiting) == 1


def test_flush_messages_and_flush_ms(tmp_path: Path) -> None:
    world, dirs, log = opened(tmp_path, TopicConfig(flush_messages=3, flush_ms=1000))
    log.append_as_leader(batch(2), 0)
    assert log.flushed_end_offset == 0
    log.append_as_leader(batch(1), 0)
    assert log.flushed_end_offset == 3
    log.append_as_leader(batch(1), 0)
    dirs.flush_due()
    assert log.flushed_end_offset == 3
    world.clock.now_ms += 1000
    dirs.flush_due()
    assert log.flushed_end_offset == 4


@pytest.mark.parametrize(("error", "told"), [(errno.ENOSPC, "the disk is full"), (errno.EIO, "Input/output error")])
def test_a_failed_append_leaves_nothing_behind_and_takes_the_folder_offline(
    tmp_path: Path, error: int, told: str
) -> None:
    world = World(tmp_path)
    disk = world.disk = FailingDisk()
    _, dirs, log = opened(tmp_path, world=world)
    log.append_as_leader(batch(2), 0)
    size = (tmp_path / "t-0" / "00000000000000000000.log").stat().st_size
    disk.failing, disk.error, disk.short_bytes = "write", error, 30
    assert refused(log, batch(2)) == ErrorCode.KAFKA_STORAGE_ERROR
    assert (tmp_path / "t-0" / "00000000000000000000.log").stat().st_size == size
    ((folder, reason, partitions),) = world.failures
    assert (folder, partitions) == (str(tmp_path), [T0])
    assert told in reason
    assert dirs.get(T0) is None
    with pytest.raises(BrokerError) as raised:
        dirs.create(T0, TOPIC_ID)
    assert raised.value.error == ErrorCode.KAFKA_STORAGE_ERROR
    with pytest.raises(BrokerError):
        log.read(0, 10, 2)
    dirs.abandon()
    disk.failing = ""
    assert len(read_all(world.open().logs[T0])) == 2


def test_a_failed_fsync_is_never_retried(tmp_path: Path) -> None:
    world = World(tmp_path)
    disk = world.disk = FailingDisk()
    _, _, log = opened(tmp_path, world=world)
    log.append_as_leader(batch(2), 0)
    disk.failing = "sync"
    failure = result_of(log.flush_later())
    assert getattr(failure, "value").error == ErrorCode.KAFKA_STORAGE_ERROR  # noqa: B009
    assert log.is_offline
    assert log.flushed_end_offset == 0
    disk.failing = ""
    assert getattr(result_of(log.flush_later()), "value").error == ErrorCode.KAFKA_STORAGE_ERROR  # noqa: B009


def test_rolls_by_time_and_retention_by_time_size_and_start(tmp_path: Path) -> None:
    config = TopicConfig(segment_ms=1000, retention_ms=5000, index_interval_bytes=0)
    world, _, log = opened(tmp_path, config)
    for number in range(6):
        log.append_as_leader(batch(2, timestamp=NOW_MS + number * 700), 0)
    assert log.bases == [0, 4, 8]
    assert log.delete_old_segments(12, NOW_MS + 5000 + 700) == 0
    assert log.delete_old_segments(3, NOW_MS + 5000 + 701) == 0, "never at or above the high watermark"
    assert log.delete_old_segments(4, NOW_MS + 5000 + 701) == 1
    assert (log.log_start_offset, log.epochs.entries) == (4, ((0, 4),))
    assert (tmp_path / "t-0" / "00000000000000000000.log.deleted").exists()
    world.reactor.advance(61)
    assert not (tmp_path / "t-0" / "00000000000000000000.log.deleted").exists()
    log.advance_log_start(8)
    assert log.delete_old_segments(12, NOW_MS) == 1
    log.set_config(TopicConfig(retention_bytes=0, retention_ms=-1))
    assert log.delete_old_segments(12, NOW_MS) == 1
    assert (log.log_start_offset, log.log_end_offset, log.size) == (12, 12, 0)
    log.append_as_leader(batch(1), 0)
    assert [record.offset for record in read_all(log)] == [12]


def test_starting_over_behind_a_leader_that_deleted_more(tmp_path: Path) -> None:
    world, dirs, log = opened(tmp_path)
    log.append_as_leader(batch(5), 0)
    log.truncate_fully_and_start_at(100)
    assert (log.log_start_offset, log.log_end_offset, log.epochs.entries) == (100, 100, ())
    log.append_as_leader(batch(1), 2)
    dirs.write_checkpoints_now({T0: 101})
    dirs.close(1)
    log = world.open().logs[T0]
    assert [record.offset for record in read_all(log)] == [100]


def test_becoming_leader_writes_the_epoch_behind(tmp_path: Path) -> None:
    world = World(tmp_path)
    threads = world.threads = HeldThreads()
    _, _, log = opened(tmp_path, world=world)
    path = tmp_path / "t-0" / "leader-epoch-checkpoint"
    for epoch in range(3):
        log.assign_epoch(epoch, epoch)
    assert not path.exists()
    while threads.run():
        pass
    assert path.read_text() == "0\n3\n0 0\n1 1\n2 2\n"

"""Reads that go to the segments: what is not there yet, or does not fit, is never skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.log_tools import T0, TOPIC_ID, UnsyncedDisk, World, batch
from zkbroker.log.log import Log
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topic_config import TopicConfig

BATCHES_PER_SEGMENT = 8
SEGMENTS = 3


class ShortDisk(UnsyncedDisk):
    """Its page cache holds the first bytes of what is asked only: the rest was evicted, or is being read ahead."""

    def __init__(self) -> None:
        self.cached_bytes = 1 << 30
        self.file_bytes = 1 << 30

    def can_read_cached(self, folder: str) -> bool:
        return True

    def read_cached(self, handle: int, position: int, size: int) -> bytes | None:
        return self.read(handle, position, min(size, self.cached_bytes)) or None

    def read(self, handle: int, position: int, size: int) -> bytes:
        return super().read(handle, position, min(size, max(0, self.file_bytes - position)))


def cold_log(folder: Path, disk: ShortDisk, index_interval_bytes: int) -> tuple[Log, int]:
    """Three full segments of equal batches of one record each, nothing of them in memory; and a batch's size."""
    data = batch(value=b"x" * 40)
    segment_bytes = len(data) * BATCHES_PER_SEGMENT
    config = TopicConfig(segment_bytes=segment_bytes, index_interval_bytes=index_interval_bytes)
    world = World(folder, config=config)
    world.disk = disk
    log = world.open().create(T0, TOPIC_ID)
    for _ in range(BATCHES_PER_SEGMENT * SEGMENTS):
        log.append_as_leader(data, 0)
    log.tail.clear()
    assert len(log.segments) == SEGMENTS
    return log, len(data)


@pytest.mark.parametrize("index_interval_bytes", [0, 250, 1_000_000])
def test_a_read_of_half_cached_bytes_waits_and_skips_nothing(tmp_path: Path, index_interval_bytes: int) -> None:
    """The page cache gave the batch before the wanted one and not the next header: a consumer was sent on to the next
    segment, and never saw the rest of this one (torture, seed 6: five such gaps in 350 s)."""
    disk = ShortDisk()
    log, size = cold_log(tmp_path, disk, index_interval_bytes)
    end = log.log_end_offset
    answers = set()
    for disk.cached_bytes in range(1, size * (BATCHES_PER_SEGMENT + 1)):
        for offset in range(end):
            read = log.read(offset, 10 * size, end)
            answers.add(read is None)
            assert read is None or (read.first_offset, read.size > 0) == (offset, True)
    assert answers == {True, False}


def test_what_does_not_fit_is_not_skipped(tmp_path: Path) -> None:
    """A later partition of a Fetch gets what room is left: nothing, if its next batch is larger."""
    log, size = cold_log(tmp_path, ShortDisk(), 250)
    small = batch(value=b"")
    log.append_as_leader(small, 0)
    log.tail.clear()
    last = log.log_end_offset - 1
    assert log.segments[-1].base_offset == last
    for may_wait in (False, True):
        for offset in range(last):
            read = log.read(offset, len(small), log.log_end_offset, min_one_batch=False, may_wait=may_wait)
            assert read is not None and (read.size, read.next_offset) == (0, offset)
        read = log.read(last, len(small), log.log_end_offset, min_one_batch=False, may_wait=may_wait)
        assert read is not None and read.size == len(small)
    assert size > len(small)


def test_a_file_that_lost_its_end_is_an_error_and_not_the_end_of_a_segment(tmp_path: Path) -> None:
    disk = ShortDisk()
    log, size = cold_log(tmp_path, disk, 250)
    disk.file_bytes = 3 * size + 10
    read = log.read(2, 1, log.log_end_offset, may_wait=True)
    assert read is not None and read.first_offset == 2
    with pytest.raises(BrokerError) as raised:
        log.read(3, 10 * size, log.log_end_offset, may_wait=True)
    assert raised.value.error == ErrorCode.KAFKA_STORAGE_ERROR


def test_damage_in_the_middle_is_told_and_not_skipped(tmp_path: Path) -> None:
    """As Kafka tells it; the folder stays."""
    log, size = cold_log(tmp_path, ShortDisk(), 1_000_000)
    segment = Path(log.segments[0].path)
    content = bytearray(segment.read_bytes())
    content[2 * size + 8 : 2 * size + 12] = bytes(4)
    segment.write_bytes(content)
    read = log.read(0, 10 * size, log.log_end_offset, may_wait=True)
    assert read is not None and (read.first_offset, read.next_offset) == (0, 2)
    for may_wait in (False, True):
        with pytest.raises(BrokerError) as raised:
            log.read(2, 10 * size, log.log_end_offset, may_wait=may_wait)
        assert raised.value.error == ErrorCode.CORRUPT_MESSAGE
    assert not log.is_offline

"""The log against a dumb model: a list of batches. Appends, truncations, reads, clean and torn restarts."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.log_tools import NOW_MS, T0, TOPIC_ID, World, batch, read_all
from zkbroker.log.log import Log
from zkbroker.log.producers import rebuild_producers
from zkbroker.model.topic_config import TopicConfig
from zkbroker.records.batch import check_batch

PRODUCER = 9


class LogMachine(RuleBasedStateMachine):
    """``batches``: (base offset, bytes) of every batch that must be there, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="zkbroker-log-"))
        self.batches: list[tuple[int, bytes]] = []
        self.epoch = 0
        self.sequence = 0
        self.number = 0
        self.start = 0
        self.synced_end = 0

    @initialize(config=st.sampled_from([
        TopicConfig(segment_bytes=700, index_interval_bytes=0),
        TopicConfig(segment_bytes=1 << 30, index_interval_bytes=200),
        TopicConfig(segment_bytes=500, index_interval_bytes=4096, flush_messages=1),
    ]), in_memory=st.booleans())  # fmt: skip
    def begin(self, config: TopicConfig, in_memory: bool) -> None:
        self.world = World(self.folder, config=config)
        self.in_memory = in_memory
        self.open()
        self.dirs.create(T0, TOPIC_ID)

    def open(self) -> None:
        self.dirs = self.world.open()

    @property
    def log(self) -> Log:
        log = self.dirs.logs[T0]
        if not self.in_memory:
            log.tail.clear()
        return log

    @property
    def end(self) -> int:
        return self.log.log_end_offset

    @rule(count=st.integers(1, 4), size=st.integers(0, 90), raise_epoch=st.booleans(), idempotent=st.booleans())
    def append(self, count: int, size: int, raise_epoch: bool, idempotent: bool) -> None:
        self.epoch += raise_epoch
        self.number += 1
        more = {}
        if idempotent:
            more = {"producer_id": PRODUCER, "producer_epoch": self.number, "base_sequence": 0}
        data = batch(count, value=bytes([self.number % 256]) * size, timestamp=NOW_MS + self.number, **more)
        before = self.end
        info = self.log.append_as_leader(data, self.epoch)
        assert (info.base_offset, info.last_offset) == (before, before + count - 1)
        stamped = before.to_bytes(8, "big") + data[8:12] + self.epoch.to_bytes(4, "big") + data[16:]
        self.batches.append((before, stamped))

    @rule(share=st.floats(0, 1))
    def truncate(self, share: float) -> None:
        end = self.end
        target = self.start + round((end - self.start) * share)
        self.log.truncate_to(target)
        self.batches = [(base, data) for base, data in self.batches if base + last_delta(data) < target]
        self.start = min(self.start, self.end)
        self.epoch = max([self.log.epochs.latest_epoch, self.epoch])

    @rule(share=st.floats(0, 1))
    def advance_start_and_delete(self, share: float) -> None:
        self.start += round((self.end - self.start) * share)
        self.log.advance_log_start(self.start)
        self.log.delete_old_segments(self.end, self.world.clock.now_ms)
        self.world.reactor.advance(100)

    @rule()
    def flush_and_checkpoint(self) -> None:
        self.log.flush_later()
        assert self.log.flushed_end_offset == self.end
        self.dirs.write_checkpoints({T0: self.end})

    @rule()
    def restart_cleanly(self) -> None:
        producers = self.log.producers.snapshot()
        self.dirs.write_checkpoints_now({T0: self.end})
        self.dirs.close(1)
        self.open()
        assert self.log.producers.snapshot() == producers
        assert self.log.flushed_end_offset == self.end

    @rule()
    def kill(self) -> None:
        """Everything written stays: the page cache outlives the process."""
        self.dirs.abandon()
        self.open()
        self.start = self.log.log_start_offset

    @precondition(lambda self: self.batches)
    @rule(share=st.floats(0, 1), garbage=st.binary(max_size=80))
    def tear(self, share: float, garbage: bytes) -> None:
        """Lose the last file's end at any byte behind what was flushed, with garbage in its place."""
        flushed = self.log.flushed_end_offset
        active = self.log.active
        kept = 0
        for base, data in self.batches:
            if base >= active.base_offset and base < flushed:
                kept += len(data)
        self.dirs.write_checkpoints({T0: 0})
        path, size = Path(active.path), active.size
        self.dirs.abandon()
        cut = kept + round((size - kept) * share)
        with open(path, "r+b") as file:
            file.truncate(cut)
            file.seek(cut)
            file.write(garbage)
        position = 0
        survivors = []
        for base, data in self.batches:
            if base < active.base_offset:
                survivors.append((base, data))
                continue
            if position + len(data) > cut:
                break
            survivors.append((base, data))
            position += len(data)
        self.batches = survivors
        self.open()
        self.start = self.log.log_start_offset
        expected = survivors[-1][0] + last_delta(survivors[-1][1]) + 1 if survivors else active.base_offset
        assert self.end == max(expected, self.log.bases[0])

    @invariant()
    def same_as_the_model(self) -> None:
        if not hasattr(self, "dirs"):
            return
        log = self.log
        log.check()
        log.epochs.check()
        expected = [
            (base, data) for base, data in self.batches if base + last_delta(data) >= max(self.start, log.bases[0])
        ]
        found = []
        offset = log.log_start_offset
        while offset < log.log_end_offset:
            read = log.read(offset, 250, log.log_end_offset, may_wait=True)
            assert read is not None and read.size
            data = b"".join(bytes(chunk) for chunk in read.chunks)
            position = 0
            while position < len(data):
                header = check_batch(data, position, len(data))
                found.append((header.base_offset, data[position : position + header.size]))
                position += header.size
            offset = read.next_offset
        assert found == expected
        for base, data in expected:
            assert log.epochs.epoch_of(max(base, log.log_start_offset)) == int.from_bytes(data[12:16], "big")
        assert not self.world.failures
        in_memory = log.producers.snapshot()
        rebuild_producers(log)
        assert log.producers.snapshot() == in_memory

    def teardown(self) -> None:
        if hasattr(self, "dirs"):
            self.dirs.abandon()
        shutil.rmtree(self.folder)


def last_delta(data: bytes) -> int:
    return int.from_bytes(data[23:27], "big")


LogMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
TestLogModel = LogMachine.TestCase


def test_read_all_reads_what_was_appended(tmp_path: Path) -> None:
    world = World(tmp_path)
    log = world.open().create(T0, TOPIC_ID)
    for number in range(10):
        log.append_as_leader(batch(3, value=b"%d" % number), 0)
    assert [record.offset for record in read_all(log)] == list(range(30))

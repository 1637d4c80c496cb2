"""A log crashes at every moment of a random life, in many ways; each time it is opened again and must hold its word."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from random import Random
from typing import NamedTuple

import pytest

from tests.fakes.crash_disk import CrashDisk
from tests.unit.log_tools import NOW_MS, T0, TOPIC_ID, HeldThreads, World, batch
from zkbroker.log.dirs import LogDirs
from zkbroker.log.log import Log
from zkbroker.model.topic_config import TopicConfig
from zkbroker.partition.producer_state import ProducerEntry, ProducerStates
from zkbroker.records.batch import BatchHeader, check_batch, read_header
from zkbroker.records.record import EndTransaction, build_end_transaction, end_transaction_of

FOLDER = "/mount/logs"
STEPS = 120
SHARE = 0.1
"""Of the moments at which a crash is tried: raise it, and the number of seeds, to search."""
TOPIC_IDS = [TOPIC_ID, "AAAAAAAAAAAAAAAAAAAAAQ", "AAAAAAAAAAAAAAAAAAAAAg", "AAAAAAAAAAAAAAAAAAAAAw"]


class Timeline(NamedTuple):
    """Batches that were in the log together, in order, from offset 0 on or where it was begun anew."""

    batches: tuple[bytes, ...]

    @property
    def end(self) -> int:
        return read_header(self.batches[-1]).next_offset if self.batches else 0

    def cut(self, offset: int) -> Timeline:
        return Timeline(tuple(data for data in self.batches if read_header(data).next_offset <= offset))


class Life:
    """A scripted run of one partition, and what may be expected after a crash at this moment."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.disk = CrashDisk()
        self.config = TopicConfig(
            segment_bytes=self.random.choice((400, 900)),
            index_interval_bytes=self.random.choice((0, 150)),
            flush_messages=self.random.choice((1, 4, 2**63 - 1)),
        )
        self.world = World(FOLDER, config=self.config)
        self.world.disk = self.disk
        self.threads = self.world.threads = HeldThreads()
        self.current = Timeline(())
        self.pending: Timeline | None = None
        self.timelines = [self.current]
        self.incarnation = 0
        self.epoch = 0
        self.start = 0
        self.sequences: dict[int, int] = {}
        self.open_transactions: list[int] = []
        self.dirs: LogDirs | None = None
        self.cut_to = 2**63
        self.promised = 0
        """What was flushed when no log is open."""

    def log(self) -> Log | None:
        return None if self.dirs is None else self.dirs.get(T0)

    @property
    def guaranteed(self) -> int:
        """Below this offset a loss of power takes nothing."""
        log = self.log()
        return min(self.promised if log is None else log.flushed_end_offset, self.cut_to, self.current.end)

    # -- the steps

    def live(self, steps: int, is_over: Callable[[], bool]) -> None:
        self.reopen()
        for _ in range(steps):
            if is_over():
                return
            self.random.choices(
                (
                    self.append, self.transaction, self.raise_epoch, self.truncate, self.retain, self.checkpoint,
                    self.flush, self.run_threads, self.restart, self.kill, self.recreate,
                ),
                weights=(30, 6, 3, 4, 4, 4, 4, 20, 1, 1, 1),
            )[0]()  # fmt: skip

    def reopen(self) -> None:
        self.dirs = self.world.open()
        log = self.dirs.create(T0, TOPIC_IDS[self.incarnation])
        self.start = log.log_start_offset

    def _append(self, data: bytes, *, origin_client: bool = True) -> None:
        log = self.log()
        assert log is not None
        base = log.log_end_offset
        stamped = base.to_bytes(8, "big") + data[8:12] + self.epoch.to_bytes(4, "big") + data[16:]
        self.pending = Timeline((*self.current.batches, stamped))
        log.append_as_leader(data, self.epoch, origin_client=origin_client)
        self.current, self.pending = self.pending, None
        self.timelines[-1] = self.current

    def append(self) -> None:
        size = self.random.choice((5, 5, 5, 60))
        value = bytes([self.random.randrange(256)]) * size
        if self.random.random() < 0.5:
            self._append(batch(self.random.randint(1, 3), value=value))
            return
        producer = self.random.choice((7, 8))
        if producer in self.open_transactions:
            return
        count = self.random.randint(1, 3)
        sequence = self.sequences.get(producer, 0)
        self._append(batch(count, value=value, producer_id=producer, producer_epoch=0, base_sequence=sequence))
        self.sequences[producer] = sequence + count

    def transaction(self) -> None:
        producer = self.random.choice((11, 12))
        if producer in self.open_transactions:
            marker = EndTransaction(self.random.random() < 0.3, 0)
            self._append(build_end_transaction(0, NOW_MS, producer, 0, marker), origin_client=False)
            self.open_transactions.remove(producer)
            return
        sequence = self.sequences.get(producer, 0)
        self._append(batch(2, producer_id=producer, producer_epoch=0, base_sequence=sequence, transactional=True))
        self.sequences[producer] = sequence + 2
        self.open_transactions.append(producer)

    def raise_epoch(self) -> None:
        log = self.log()
        assert log is not None
        self.epoch += 1
        log.assign_epoch(self.epoch, log.log_end_offset)

    def truncate(self) -> None:
        log = self.log()
        assert log is not None
        end = log.log_end_offset
        target = self.random.randint(max(self.start, end - 12), end)
        if self.current.cut(target).end < self.start:
            return
        self.cut_to = target
        self.pending = self.current.cut(target)
        log.truncate_to(target)
        self.cut_to = 2**63
        self.current, self.pending = self.pending, None
        self.timelines.append(self.current)
        self.start = min(self.start, log.log_start_offset)
        self.epoch += 1
        log.assign_epoch(self.epoch, log.log_end_offset)
        self._forget_producers()

    def _forget_producers(self) -> None:
        log = self.log()
        assert log is not None
        self.sequences = {entry.producer_id: entry.last_sequence + 1 for entry in log.producers.snapshot()}
        self.open_transactions = [e.producer_id for e in log.producers.snapshot() if e.transaction_start >= 0]

    def retain(self) -> None:
        log = self.log()
        assert log is not None
        self.start = self.random.randint(self.start, log.log_end_offset)
        log.advance_log_start(self.start)
        log.delete_old_segments(log.log_end_offset, self.world.clock.now_ms)
        self.start = log.log_start_offset
        self.world.reactor.advance(61)

    def checkpoint(self) -> None:
        assert self.dirs is not None
        log = self.log()
        assert log is not None
        self.dirs.write_checkpoints({T0: log.log_end_offset})

    def flush(self) -> None:
        log = self.log()
        assert log is not None
        log.flush_later().addErrback(lambda _: None)

    def run_threads(self) -> None:
        self.threads.run()

    def restart(self) -> None:
        """A clean stop; threads that had not begun end with the process, or run late."""
        assert self.dirs is not None
        log = self.log()
        assert log is not None
        before = (log.log_end_offset, log.producers.snapshot())
        late = self.random.random() < 0.5
        self.dirs.write_checkpoints_now({T0: log.log_end_offset})
        self.dirs.close(1)
        if late:
            self.threads.run()
        self.threads.jobs.clear()
        self.promised, self.dirs = log.log_end_offset, None
        self.reopen()
        log = self.log()
        assert log is not None
        assert (log.log_end_offset, log.producers.snapshot()) == before

    def kill(self) -> None:
        log = self.log()
        assert self.dirs is not None and log is not None
        self.promised = log.flushed_end_offset
        self.dirs.abandon()
        self.threads.jobs.clear()
        self.dirs = None
        self.reopen()
        self._forget_producers()

    def recreate(self) -> None:
        """The topic is deleted and made again: nothing of the old one may come back in the new."""
        if self.incarnation + 1 == len(TOPIC_IDS):
            return
        assert self.dirs is not None
        self.promised = self.epoch = self.start = 0
        self.incarnation += 1
        self.current = Timeline(())
        self.timelines = [self.current]
        self.dirs.delete(T0, TOPIC_IDS[self.incarnation - 1])
        if self.random.random() < 0.5:
            self.threads.run()
        self.sequences, self.open_transactions = {}, []
        self.dirs.create(T0, TOPIC_IDS[self.incarnation])

    # -- a crash at this moment

    def check(self, image: CrashDisk, *, is_kill: bool) -> None:
        world = World(FOLDER, config=self.config)
        world.disk = image
        threads = world.threads = HeldThreads()
        dirs = world.open()
        log = dirs.get(T0)
        if log is None or (log.topic_id and log.topic_id != TOPIC_IDS[self.incarnation]):
            assert self.guaranteed == 0 and not (is_kill and self.current.batches), "the log is gone"
            dirs.abandon()
            return
        batches = read_batches(log)
        end = log.log_end_offset
        candidates = [*self.timelines[::-1], Timeline(())]
        if self.pending is not None:
            candidates.insert(1 if self.pending.end < self.current.end else 0, self.pending)
        fitting = [t.cut(end) for t in candidates if batches == visible(t.cut(end), log)]
        assert fitting, f"{log!r} never looked so: {[describe(b) for b in batches]}"
        # Several histories may look alike from the log start on: what lies below it tells which it is.
        held = held_batches(log)
        history = next((t for t in fitting if held == [b for b in t.batches if in_segments(b, log)]), fitting[0])
        if is_kill:
            lacking = f"{log!r} lacks or has more than {describe_all(self)}"
            if self.cut_to < self.current.end:
                assert history.cut(self.cut_to) == self.pending and history == self.current.cut(end), lacking
            else:
                assert history in (self.current, self.pending), lacking
        assert end >= self.guaranteed, f"{log!r} was flushed to {self.guaranteed}"
        assert history.cut(self.guaranteed) == self.current.cut(self.guaranteed), "flushed batches are others"
        check_epochs(log, batches)
        check_producers(log, history)
        if not log.topic_id:
            dirs.create(T0, TOPIC_IDS[self.incarnation])
        # Life goes on, and the next loss of power finds what was flushed.
        log.append_as_leader(batch(1, value=b"after"), self.epoch + 1)
        flushed = log.flush_later()
        while not flushed.called:
            threads.run()
        expected = read_batches(log)
        dirs.write_checkpoints({T0: 0})
        threads.run()
        dirs.abandon()
        assert image.open_handles == 0, "files were left open"
        assert not world.failures
        world.disk = image.power_lost(self.random)
        again = world.open().get(T0)
        assert again is not None, "the folder of a flushed log is gone"
        assert read_batches(again) == expected, "what was flushed after the recovery is lost"


def read_batches(log: Log) -> list[bytes]:
    """By reads from the log start to the end; offsets follow each other without a hole."""
    log.tail.clear()
    found = []
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        read = log.read(offset, 200, log.log_end_offset, may_wait=True)
        assert read is not None and read.size, f"nothing at {offset} of {log!r} {log.segments!r}"
        data = b"".join(bytes(chunk) for chunk in read.chunks)
        position = 0
        while position < len(data):
            header = check_batch(data, position, len(data))
            assert header.base_offset <= offset, f"a hole at {offset} of {log!r}"
            found.append(data[position : position + header.size])
            offset = header.next_offset
            position += header.size
    return found


def held_batches(log: Log) -> list[bytes]:
    """All that the segments hold, also what lies below the log start."""
    found = []
    for segment in log.segments:
        data = log.context.disk.read_file(segment.path)
        position = 0
        while position < segment.size:
            size = read_header(data, position).size
            found.append(data[position : position + size])
            position += size
    return found


def in_segments(data: bytes, log: Log) -> bool:
    return read_header(data).base_offset >= log.bases[0]


def visible(timeline: Timeline, log: Log) -> list[bytes]:
    return [data for data in timeline.batches if read_header(data).next_offset > log.log_start_offset]


def check_epochs(log: Log, batches: list[bytes]) -> None:
    log.epochs.check()
    for data in batches:
        header = read_header(data)
        found = log.epochs.epoch_of(max(header.base_offset, log.log_start_offset))
        assert found == header.leader_epoch, f"{log.epochs!r} for {describe(data)}"
    assert all(start <= log.log_end_offset for _, start in log.epochs.entries)


def check_producers(log: Log, history: Timeline) -> None:
    """As if rebuilt from every batch there ever was; of producers whose batches are all deleted it may know nothing."""
    rebuilt = ProducerStates()
    aborted = []
    for data in history.batches:
        header: BatchHeader = read_header(data)
        if header.producer_id < 0:
            continue
        if header.is_control:
            marker = end_transaction_of(data, header)
            assert marker is not None
            ended = rebuilt.transaction_ended(
                header.producer_id, 0, 0, marker.committed, header.base_offset, header.max_timestamp
            )
            if ended is not None and ended.is_aborted:
                aborted.append((ended.producer_id, ended.first_offset, ended.last_offset))
        else:
            rebuilt.appended(
                header.producer_id, 0, header.last_sequence, header.base_offset, header.last_offset,
                header.max_timestamp, header.is_transactional,
            )  # fmt: skip

    def known(entries: list[ProducerEntry]) -> list[ProducerEntry]:
        return [entry for entry in entries if entry.last_offset >= log.bases[0]]

    assert known(log.producers.snapshot()) == known(rebuilt.snapshot())
    found = [(e.producer_id, e.first_offset, e.last_offset) for s in log.segments for e in s.transactions.entries()]
    found = [entry for entry in found if entry[1] >= log.bases[0]]
    aborted = [entry for entry in aborted if entry[1] >= log.bases[0]]
    assert found == aborted, f"aborted transactions {found}, not {aborted}"


def describe(data: bytes) -> str:
    header = read_header(data)
    return f"{header.base_offset}-{header.last_offset}@{header.leader_epoch}"


def describe_all(life: Life) -> str:
    return " ".join(describe(data) for data in life.current.batches)


@pytest.mark.parametrize(
    ("seed", "share"),
    [
        *((seed, SHARE) for seed in (0, 1, 9, 113, 122, 127, 140, 212)),
        (392, 0.15),  # a log whose topic id was lost is the deleted topic's, come back
        (393, 0.15),  # a truncation removes a segment, the next one of its place has no durable name yet
        (624, 0.15),  # a segment was truncated to nothing, filled anew and rolled
        (19, 0.15),
        (761, 0.15),  # killed, recovered for its epochs' sake from below the recovery point, then a loss of power
    ],
)
def test_a_crash_at_any_moment(seed: int, share: float) -> None:
    life = Life(seed)
    dice = Random(seed + 1_000_000)
    moments = 0

    def crash(operation: str) -> None:
        nonlocal moments
        moments += 1
        if problems or dice.random() > share:
            return
        for image, is_kill in ((life.disk.killed(), True), (life.disk.power_lost(dice), False)):
            try:
                life.check(image, is_kill=is_kill)
            except Exception as error:
                kind = "kill" if is_kill else "loss of power"
                where = "".join(traceback.format_exc())
                problems.append(f"seed {seed}, {kind} at moment {moments} before {operation}: {error!r}\n{where}")
                return

    problems: list[str] = []
    life.disk.before_change = crash
    life.live(STEPS, lambda: bool(problems))
    assert not problems, problems[0]
    assert moments > 80

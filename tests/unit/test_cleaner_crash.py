"""A compacted log crashes at every change of its disk; each time it is opened again and must hold its word.

The word: whoever reads all of it, as a read_committed consumer does, believes of each key what the records that were
appended say, up to the log's end; nothing below the flushed end is missing; offsets rise; producers are remembered.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from random import Random
from typing import NamedTuple

import pytest

from tests.fakes.crash_disk import CrashDisk
from tests.unit.cleaner_tools import compacted, dirt, keyed
from tests.unit.log_tools import NOW_MS, T0, TOPIC_ID, HeldThreads, World
from zkbroker.log.cleaner import CleanSummary, clean
from zkbroker.log.cleaner_choice import CleanerSettings, job_for
from zkbroker.log.cleaner_swap import swap_in
from zkbroker.log.dirs import LogDirs
from zkbroker.log.log import Log
from zkbroker.model.topic_config import TopicConfig
from zkbroker.partition.producer_state import ProducerStates
from zkbroker.records.batch import batches
from zkbroker.records.record import EndTransaction, build_end_transaction, end_transaction_of, records_of

FOLDER = "/mount/logs"
SHARE = 0.04
"""Of the moments outside of compactions at which a crash is tried."""
SHARE_COMPACTING = 0.2
"""And of those inside. Raise both, and the number of seeds, to search."""


class Written(NamedTuple):
    """One batch that was appended."""

    base_offset: int
    next_offset: int
    pairs: tuple[tuple[bytes, bytes | None], ...]
    producer_id: int
    last_sequence: int
    marker: bool | None
    """Whether it commits, for a marker."""
    transactional: bool = False


def believed(history: list[Written], end: int) -> dict[bytes, bytes]:
    """By keys, what the batches below ``end`` say to a read_committed reader. Slow and plain."""
    written = [one for one in history if one.next_offset <= end]
    fate: dict[int, bool] = {}
    stable = end
    for place, one in enumerate(written):
        if one.transactional:
            ends = [later.marker for later in written[place:] if later.producer_id == one.producer_id]
            marker = next((marker for marker in ends if marker is not None), None)
            if marker is None:
                stable = min(stable, one.base_offset)
            fate[one.base_offset] = bool(marker)
    found: dict[bytes, bytes] = {}
    for one in written:
        if one.base_offset < stable and fate.get(one.base_offset, True):
            for key, value in one.pairs:
                found.pop(key, None)
                if value is not None:
                    found[key] = value
    return found


def read_committed(log: Log, *, any_key: bool = False) -> dict[bytes, bytes]:
    """The same from the log itself, by what its indexes say of transactions. ``any_key``: records may have none."""
    log.tail.clear()
    end = log.log_end_offset
    undecided = log.producers.first_unstable_offset(end)
    stable = end if undecided is None else undecided
    waiting = sorted((first, pid) for pid, first in log.aborted_transactions(log.log_start_offset, end))
    aborted: set[int] = set()
    found: dict[bytes, bytes] = {}
    offset, last = log.log_start_offset, -1
    while offset < stable:
        read = log.read(offset, 500, stable, may_wait=True)
        assert read is not None
        if not read.size:
            break
        data = b"".join(bytes(chunk) for chunk in read.chunks)
        for position, header in batches(data):
            assert header.base_offset > last, f"offset {header.base_offset} after {last}"
            last = header.last_offset
            while waiting and waiting[0][0] <= header.last_offset:
                aborted.add(waiting.pop(0)[1])
            if header.is_control:
                if header.records_count and end_transaction_of(data, header, position):
                    aborted.discard(header.producer_id)
                continue
            if header.is_transactional and header.producer_id in aborted:
                continue
            for record in records_of(data, header, position):
                if record.key is None:
                    assert any_key
                    continue
                found.pop(record.key, None)
                if record.value is not None:
                    found[record.key] = record.value
        offset = read.next_offset
    return found


class Life:
    """A scripted run of one compacted partition."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.disk = CrashDisk()
        self.config: TopicConfig = compacted(
            segment_bytes=self.random.choice((400, 900)),
            flush_messages=self.random.choice((1, 2**63 - 1)),
            delete_retention_ms=self.random.choice((0, 300)),
            index_interval_bytes=self.random.choice((0, 150)),
        )
        self.world = World(FOLDER, config=self.config)
        self.world.disk = self.disk
        self.threads = self.world.threads = HeldThreads()
        self.history: list[Written] = []
        self.pending: Written | None = None
        self.sequences: dict[int, int] = {}
        self.open: list[int] = []
        self.is_compacting = False
        self.flushed = 0
        self.dirs: LogDirs | None = self.world.open()
        self.log = self.dirs.create(T0, TOPIC_ID)
        self.log.flush_later()
        self.threads.run()
        self.compactions = 0

    @property
    def guaranteed(self) -> int:
        return self.flushed if self.dirs is None else max(self.flushed, self.log.flushed_end_offset)

    def live(self, steps: int, is_over: Callable[[], bool]) -> None:
        acts = (self.append, self.transaction, self.compact, self.flush, self.wait, self.restart, self.kill)
        for _ in range(steps):
            if is_over():
                return
            self.random.choices(acts, weights=(30, 8, 6, 6, 3, 1, 1))[0]()

    def _append(self, data: bytes, written: Written, *, origin_client: bool = True) -> None:
        self.pending = written
        self.log.append_as_leader(data, 0, origin_client=origin_client)
        self.history.append(written)
        self.pending = None

    def _pairs(self) -> tuple[tuple[bytes, bytes | None], ...]:
        random = self.random
        return tuple(
            (b"k%d" % random.randrange(6), None if random.random() < 0.25 else b"%d" % random.randrange(1000))
            for _ in range(random.randint(1, 4))
        )

    def _produce(self, producer: int, *, transactional: bool = False) -> None:
        pairs, base = self._pairs(), self.log.log_end_offset
        sequence = self.sequences.get(producer, 0) if producer >= 0 else -1
        data = keyed(
            pairs, codec=self.random.randrange(5), producer_id=producer, producer_epoch=0 if producer >= 0 else -1,
            base_sequence=sequence, transactional=transactional, timestamp=self.world.clock.now_ms
        )  # fmt: skip
        last = sequence + len(pairs) - 1 if producer >= 0 else -1
        self._append(data, Written(base, base + len(pairs), pairs, producer, last, None, transactional))
        if producer >= 0:
            self.sequences[producer] = last + 1

    def append(self) -> None:
        self._produce(self.random.choice((-1, -1, 7, 8)))

    def transaction(self) -> None:
        producer = self.random.choice((11, 12))
        if producer in self.open:
            commits, base = self.random.random() < 0.5, self.log.log_end_offset
            marker = build_end_transaction(0, self.world.clock.now_ms, producer, 0, EndTransaction(commits, 0))
            written = Written(base, base + 1, (), producer, self.sequences[producer] - 1, commits)
            self._append(marker, written, origin_client=False)
            self.open.remove(producer)
        else:
            self._produce(producer, transactional=True)
            self.open.append(producer)

    def flush(self) -> None:
        self.log.flush_later()
        while self.threads.run():
            pass

    def wait(self) -> None:
        self.world.clock.now_ms += self.random.choice((50, 301))
        self.world.reactor.advance(61)
        self.threads.run()

    def compact(self) -> None:
        """As the broker has it done, with other things happening between the steps."""
        if self.random.random() < 0.7:
            self.log.roll()
        self.flush()
        dirs, log = self.dirs, self.log
        assert dirs is not None
        found = dirt(dirs, log)
        if not found.dirty_bytes:
            return
        settings = CleanerSettings(dedupe_buffer_bytes=24 * self.random.choice((4, 100)), io_buffer_bytes=1)
        work = clean(job_for(found, settings, self.world.clock.now_ms), self.disk)
        while True:
            self.is_compacting = True
            try:
                cleaned = next(work)
            except StopIteration as done:
                summary: CleanSummary = done.value
                dirs.cleaned.cleaned(log, summary.end_offset)
                self.threads.run()
                self.compactions += 1
                self.is_compacting = False
                return
            swap_in(log, cleaned)
            self.disk.sync_dir(log.folder)
            self.is_compacting = False
            if self.random.random() < 0.3:
                self.append()
            if self.random.random() < 0.05:
                # The process is killed; what was made stays where it is.
                work.close()
                self.kill()
                return

    def _reopen(self) -> None:
        self.dirs = self.world.open()
        self.log = self.dirs.create(T0, TOPIC_ID)

    def restart(self) -> None:
        assert self.dirs is not None
        self.dirs.close(1)
        self.flushed = self.log.log_end_offset
        self.dirs = None
        self.threads.jobs.clear()
        self._reopen()

    def kill(self) -> None:
        assert self.dirs is not None
        self.flushed = self.guaranteed
        self.dirs.abandon()
        self.dirs = None
        self.threads.jobs.clear()
        self._reopen()


class Crashes:
    """Takes images at the moments of crashes and opens them."""

    def __init__(self, life: Life, seed: int) -> None:
        self.life = life
        self.random = Random(f"{seed} crashes")
        self.is_nested = False
        self.tried = 0
        self.problem = ""

    def before_change(self, operation: str) -> None:
        life = self.life
        share = SHARE_COMPACTING if life.is_compacting else SHARE
        if self.is_nested or self.problem or self.random.random() >= share:
            return
        self.is_nested = True
        try:
            for power in (False, True):
                image = life.disk.power_lost(self.random) if power else life.disk.killed()
                self.tried += 1
                try:
                    self._check(image, power)
                except Exception:
                    self.problem = f"{'power lost' if power else 'killed'} before {operation}: {traceback.format_exc()}"
                    return
        finally:
            self.is_nested = False

    def _check(self, image: CrashDisk, power: bool) -> None:
        life = self.life
        world = World(FOLDER, config=life.config)
        world.disk, world.clock = image, life.world.clock
        world.boot_id = f"boot-{image.boots}"
        dirs = world.open()
        log = dirs.get(T0)
        assert log is not None
        history = life.history + ([life.pending] if life.pending is not None else [])
        for turn in range(3):
            end = log.log_end_offset
            ends = {0, *(one.next_offset for one in history)}
            assert end in ends, f"the log ends at {end}, inside of a batch"
            least = life.guaranteed if power else (life.history[-1].next_offset if life.history else 0)
            assert end >= least, f"the log ends at {end}, {least} is on the disk"
            assert read_committed(log) == believed(history, end)
            assert dirs.cleaned.get(log) <= end
            self._check_producers(log, history)
            if turn == 0:
                # It goes on as before: with another compaction, to which nothing is different.
                self._compact(dirs, log)
            elif turn == 1:
                dirs.abandon()
                dirs = world.open()
                log = dirs.logs[T0]
        dirs.abandon()
        assert image.open_handles == 0
        left = [entry.name for entry in image.list_dir(log.folder) if entry.name.endswith((".cleaned", ".swap"))]
        assert left == []

    def _check_producers(self, log: Log, history: list[Written]) -> None:
        expected: dict[int, int] = {}
        for one in history:
            if one.next_offset <= log.log_end_offset and one.producer_id >= 0:
                expected[one.producer_id] = one.last_sequence
        found = ProducerStates()
        found.load(log.producers.snapshot(), log.log_end_offset)
        known = {entry.producer_id: entry.last_sequence for entry in found.snapshot()}
        # Of a producer whose transaction was aborted and compacted away only its epoch may be left.
        for producer, sequence in expected.items():
            if producer in (7, 8):
                assert known.get(producer) == sequence, f"producer {producer}: {known.get(producer)}, not {sequence}"

    def _compact(self, dirs: LogDirs, log: Log) -> None:
        log.roll()
        log.flush_later()
        found = dirt(dirs, log)
        if not found.dirty_bytes:
            return
        disk = log.context.disk
        work = clean(job_for(found, CleanerSettings(dedupe_buffer_bytes=2400), NOW_MS), disk)
        while True:
            try:
                cleaned = next(work)
            except StopIteration as done:
                dirs.cleaned.cleaned(log, done.value.end_offset)
                return
            swap_in(log, cleaned)
            disk.sync_dir(log.folder)


@pytest.mark.parametrize("seed", range(6))
def test_a_compacted_log_crashes_at_any_moment(seed: int) -> None:
    life = Life(seed)
    crashes = Crashes(life, seed)
    life.disk.before_change = crashes.before_change
    life.live(80, lambda: bool(crashes.problem))
    assert not crashes.problem, f"seed {seed}, {life.log!r}: {crashes.problem}"
    assert life.compactions > 0
    assert crashes.tried > 30
    assert read_committed(life.log) == believed(life.history, life.log.log_end_offset)


def test_every_beginning_of_the_renames_is_completed() -> None:
    """Also where an aborted transaction is known from the index alone."""
    world = World(FOLDER, config=compacted(segment_bytes=10_000))
    disk = world.disk = CrashDisk()
    dirs = world.open()
    log = dirs.create(T0, TOPIC_ID)
    history: list[Written] = []
    for number, (producer, commits) in enumerate([(-1, None), (7, False), (8, True), (-1, None), (7, False)]):
        base = log.log_end_offset
        pairs: tuple[tuple[bytes, bytes | None], ...] = ((b"k", b"%d" % number), (b"k%d" % number, b"v"))
        sequence = sum(one.producer_id == producer >= 0 and one.marker is None for one in history) * 2
        idempotent = {"producer_id": producer, "producer_epoch": 0, "base_sequence": sequence, "transactional": True}
        log.append_as_leader(keyed(pairs, **(idempotent if producer >= 0 else {})), 0)
        history.append(Written(base, base + 2, pairs, producer, sequence + 1, None, producer >= 0))
        if commits is not None:
            marker = build_end_transaction(0, NOW_MS, producer, 0, EndTransaction(commits, 0))
            log.append_as_leader(marker, 0, origin_client=False)
            history.append(Written(base + 2, base + 3, (), producer, sequence + 1, commits))
        if number % 2:
            log.roll()
    log.roll()
    log.flush_later()
    end = log.log_end_offset
    # So that no start looks for them in the batches again.
    dirs.write_checkpoints_now({T0: end})
    work = clean(job_for(dirt(dirs, log), CleanerSettings(), NOW_MS), disk)
    cleaned = next(work)
    assert cleaned.has_aborted and len(cleaned.replaced) > 1
    aborted = [log.aborted_transactions(0, end)]
    images: list[CrashDisk] = []
    disk.before_change = lambda _: images.append(disk.killed())
    swap_in(log, cleaned)
    disk.before_change = lambda _: None
    images.append(disk.killed())
    aborted.append(log.aborted_transactions(0, end))
    assert [] not in aborted
    assert len(images) > 10
    for image in images:
        again = World(FOLDER, config=world.config)
        again.disk = image
        # Twice: the first start may be killed as well, and has completed nothing that the second undoes.
        for _ in range(2):
            opened = again.open()
            found = opened.logs[T0]
            assert read_committed(found) == believed(history, end)
            assert found.aborted_transactions(0, end) in aborted
            assert found.log_end_offset == end
            opened.abandon()
    dirs.abandon()

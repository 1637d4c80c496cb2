"""When which log is compacted, and that nothing takes its place that was made from another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail

from tests.fakes.cleaner import SteppedCleaner, start_stepped
from tests.unit.cleaner_tools import compacted, last_values, put, stored, values
from tests.unit.log_tools import TOPIC_ID, HeldThreads, World
from zkbroker.broker.cleaner_process import CleanerEnded
from zkbroker.broker.cleaning import RETRY_S, Cleaning
from zkbroker.log.cleaner import CleanerJob
from zkbroker.log.cleaner_choice import CleanerSettings
from zkbroker.log.log import RETENTION_WAIT_S, Log
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topic_config import TopicConfig
from zkbroker.model.topics import TopicPartition


class Room:
    """Logs, and the compaction of them in steps that the test makes."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder, config=compacted(min_cleanable_dirty_ratio=0.5))
        self.dirs = self.world.open()
        self.steps = HeldThreads()
        self.works: list[SteppedCleaner] = []
        self.settings = CleanerSettings(dedupe_buffer_bytes=24_000, backoff_s=10.0)
        self.marks: dict[TopicPartition, int] = {}
        self.reports: list[str] = []
        self.fatal: list[BaseException] = []
        self.fails: Exception | None = None
        self.cleaning = Cleaning(
            reactor=self.world.reactor,
            clock=self.world.clock,
            logs=self.dirs,
            candidates=lambda: [(log, self.marks.get(p, log.log_end_offset)) for p, log in self.dirs.logs.items()],
            settings=lambda: self.settings,
            start_cleaner=self._start,
            fatal=lambda event, error: self.fatal.append(error),
            report=self.reports.append,
        )
        self.cleaning.start()

    def _start(self, job: CleanerJob) -> SteppedCleaner:
        run: Callable[..., Deferred[Any]] = self.steps
        if self.fails is not None:
            error = self.fails
            run = lambda function, *arguments: fail(error)  # noqa: E731
        work = start_stepped(self.world.disk, run)(job)
        assert isinstance(work, SteppedCleaner)
        self.works.append(work)
        return work

    def log(self, number: int = 0) -> Log:
        return self.dirs.create(TopicPartition("t", number), TOPIC_ID)

    def dirty(self, number: int = 0, count: int = 3) -> Log:
        """A log in which ``count`` segments hold a value of one key each."""
        log = self.log(number)
        for turn in range(count):
            put(log, (b"k", b"%d" % turn))
            log.roll()
        log.flush_later()
        return log

    def finish(self) -> None:
        while self.steps.run() or self.steps.jobs:
            self.world.reactor.advance(0)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.cleaning.stop()
    made.finish()
    made.dirs.abandon()
    assert made.fatal == []
    timers = [str(call.func) for call in made.world.reactor.getDelayedCalls()]
    assert not [timer for timer in timers if "Cleaning" in timer]


def test_a_dirty_log_is_compacted_after_the_back_off(room: Room) -> None:
    log = room.dirty()
    room.world.reactor.advance(9.9)
    assert not room.works
    room.world.reactor.advance(0.2)
    assert "compaction: at t-0" in room.cleaning.status_lines()[0]
    room.finish()
    assert values(log) == [(2, b"k", b"2")]
    assert room.dirs.cleaned.get(log) == 3
    assert len(room.works) == 1, "what is clean is left alone"
    assert "compacted t-0 up to offset 3: 2 records fewer" in room.reports[0]
    assert room.cleaning.status_lines()[0].startswith("compaction: at rest; 1 compactions")


def test_the_dirtiest_comes_first_and_the_next_at_once(room: Room) -> None:
    small = room.dirty(0, 2)
    room.cleaning.look()
    room.finish()
    put(small, (b"other", b"1" * 40), (b"more", b"1" * 120))
    small.roll()
    small.flush_later()
    fresh = room.dirty(1, 4)
    room.works.clear()
    room.cleaning.look()
    assert [work.job.folder for work in room.works] == [fresh.folder]
    room.finish()
    assert [work.job.folder for work in room.works] == [fresh.folder, small.folder]


def test_as_many_at_once_as_there_are_threads(room: Room) -> None:
    for number in range(3):
        room.dirty(number)
    room.settings = room.settings._replace(threads=2)
    room.cleaning.look()
    assert len(room.works) == 2
    assert {work.job.map_bytes for work in room.works} == {12_000}
    room.finish()
    assert len(room.works) == 3


def test_nothing_is_compacted_when_it_is_switched_off(room: Room) -> None:
    room.dirty()
    room.settings = room.settings._replace(is_enabled=False)
    room.world.reactor.advance(10.1)
    assert not room.works
    room.settings = room.settings._replace(is_enabled=True)
    room.world.reactor.advance(10.1)
    assert room.works


def test_a_topic_without_the_policy_is_left_alone(room: Room) -> None:
    log = room.dirty()
    log.set_config(TopicConfig())
    room.cleaning.look()
    assert not room.works


def test_nothing_above_the_last_stable_offset_is_touched(room: Room) -> None:
    log = room.dirty(0, 4)
    room.marks[log.partition] = 2
    room.cleaning.look()
    room.finish()
    assert [offset for offset, _, _ in values(log)] == [1, 2, 3]


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_truncation_ends_it(room: Room, steps: int) -> None:
    """1. A job is under way. 2. An unclean election: the log is truncated, other records come. 3. Nothing of what the
    job makes from the old ones comes into the log."""
    log = room.dirty(0, 6)
    log.set_config(compacted(min_cleanable_dirty_ratio=0.5, segment_bytes=200))
    room.cleaning.look()
    for _ in range(steps):
        room.steps.run()
    log.truncate_to(1)
    for turn in range(3):
        put(log, (b"k", b"new%d" % turn), epoch=5)
        log.roll()
    log.flush_later()
    expected = values(log)
    room.steps.run()
    assert values(log) == expected
    room.finish()
    assert last_values(stored(log)) == {b"k": b"new2"}


def test_a_deleted_log_ends_it_and_its_successor_waits(room: Room) -> None:
    log = room.dirty()
    room.cleaning.look()
    room.dirs.delete(log.partition, TOPIC_ID)
    successor = room.dirs.create(log.partition, "AAAAAAAAAAAAAAAAAAAAAQ")
    for turn in range(2):
        put(successor, (b"k", b"%d" % turn))
        successor.roll()
    successor.flush_later()
    room.cleaning.look()
    assert len(room.works) == 1, "two processes in one folder"
    room.finish()
    assert len(room.works) == 2
    assert values(successor) == [(1, b"k", b"1")]


def test_retention_waits_for_it_but_not_for_ever(room: Room) -> None:
    """Else a compaction that takes longer than the pauses of retention would begin anew for ever."""
    log = room.dirty()
    log.set_config(compacted(cleanup_policy=("compact", "delete"), retention_bytes=50))
    room.cleaning.look()
    assert log.delete_old_segments(log.log_end_offset, room.world.clock.now_ms) == 0
    room.finish()
    assert values(log) == [(2, b"k", b"2")]
    put(log, (b"k", b"3"))
    log.roll()
    log.flush_later()
    room.cleaning.look()
    room.world.clock.now_ms += RETENTION_WAIT_S * 1000
    assert log.delete_old_segments(log.log_end_offset, room.world.clock.now_ms) == 1
    expected = values(log)
    room.steps.run()
    assert values(log) == expected == [(3, b"k", b"3")]


def test_a_policy_that_changed_ends_it(room: Room) -> None:
    log = room.dirty()
    room.cleaning.look()
    log.set_config(TopicConfig())
    room.finish()
    assert len(values(log)) == 3


def test_a_stop_ends_it(room: Room) -> None:
    log = room.dirty()
    room.cleaning.look()
    room.cleaning.stop()
    room.finish()
    assert len(values(log)) == 3
    room.world.reactor.advance(100)
    assert len(room.works) == 1


def test_a_damaged_log_is_told_of_and_left_alone(room: Room) -> None:
    log, other = room.dirty(0), room.dirty(1)
    with open(log.segments[0].path, "r+b") as file:
        file.seek(64)
        file.write(b"\xff\xff")
    room.cleaning.look()
    room.finish()
    assert len(values(other)) == 1
    assert "the CRC does not match" in room.cleaning.problems()[0]
    for _ in range(10):
        room.world.reactor.advance(10.1)
        room.finish()
    assert len(room.works) == 2
    room.dirs.delete(log.partition, TOPIC_ID)
    assert room.cleaning.problems() == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), CleanerEnded("killed")])
def test_what_may_pass_is_tried_again_later(room: Room, error: Exception) -> None:
    log = room.dirty()
    room.fails = error
    room.cleaning.look()
    room.fails = None
    room.world.clock.now_ms += int(RETRY_S * 1000) - 1
    room.cleaning.look()
    assert len(room.works) == 1
    room.world.clock.now_ms += 1
    room.cleaning.look()
    room.finish()
    assert len(values(log)) == 1
    assert not log.is_offline
    assert "is not compacted now" in room.reports[0]


def test_a_rename_that_fails_takes_the_folder_offline(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    log = room.dirty()

    def rename(old: str, new: str) -> None:
        raise OSError(5, "Input/output error")

    room.cleaning.look()
    monkeypatch.setattr(room.world.disk, "rename", rename)
    room.finish()
    assert log.is_offline
    assert [failure[0] for failure in room.world.failures] == room.world.folders


def test_a_failed_sync_takes_the_folder_offline(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    log = room.dirty()
    room.cleaning.look()
    room.steps.run()
    assert len(log.segments) == 2

    def sync_dir(path: str) -> None:
        raise OSError(5, "Input/output error")

    put(log, (b"k", b"9"))
    log.roll()
    log.flush_later()
    room.finish()
    monkeypatch.setattr(room.world.disk, "sync_dir", sync_dir)
    put(log, (b"k", b"9"))
    log.context.delete_later = lambda *_: None
    # The next sync is the flush's or the cleaning's: either way the folder is not trusted any more.
    room.cleaning.sync(log).addErrback(lambda failure: log.failed("fsync failed", failure.value))
    assert log.is_offline


def test_no_process_to_be_had(room: Room) -> None:
    room.dirty()

    def refuse(job: CleanerJob) -> SteppedCleaner:
        raise OSError(11, "Resource temporarily unavailable")

    room.cleaning._start_cleaner = refuse
    room.cleaning.look()
    assert room.reports == ["t-0 is not compacted now: [Errno 11] Resource temporarily unavailable"]


def test_an_error_of_a_log_that_needs_no_more_is_not_told(room: Room) -> None:
    log = room.dirty()
    room.fails = BrokerError(ErrorCode.CORRUPT_MESSAGE, "no")
    room.dirs.delete(log.partition, TOPIC_ID)
    room.cleaning.look()
    assert room.reports == []

"""A broker looks at its leaders and its disks, and tells the controller as long as something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from tests.unit.log_tools import T0, TOPIC_ID, HeldThreads, World, batch
from zkbroker.broker.complaining import Complaining, SilenceWatch, StallWatch
from zkbroker.log.dirs import LogDirs
from zkbroker.model.complaints import StalledDir, Unreachable, Word
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topic_config import TopicConfig
from zkbroker.model.topics import TopicPartition

T1 = TopicPartition("t", 1)
STALL_S = 5.0


class Folders:
    """Two folders with two logs each, and threads that do a job when a test says so."""

    def __init__(self, tmp_path: Path, *, flush_messages: int = 1) -> None:
        self.world = World(tmp_path / "a", tmp_path / "b", config=TopicConfig(flush_messages=flush_messages))
        self.dirs: LogDirs = self.world.open()
        for number in range(4):
            self.dirs.create(TopicPartition("t", number), TOPIC_ID)
        self.threads = HeldThreads()
        self.world.threads = self.threads
        self.watch = StallWatch(self.dirs, stall_s=STALL_S)
        self.now = 0.0

    def append(self, partition: TopicPartition) -> None:
        log = self.dirs.logs[partition]
        log.append_as_follower(batch(base=log.log_end_offset), 0)
        log.flush_later().addErrback(lambda _: None)

    def look_for(self, seconds: float) -> tuple[StalledDir, ...]:
        found: tuple[StalledDir, ...] = ()
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now += 0.5
            found = self.watch.look(self.now)
        return found


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def test_a_folder_whose_appends_wait_is_stalled_until_they_complete(folders: Folders) -> None:
    folders.append(T0)
    assert folders.look_for(5.0) == ()
    (stalled,) = folders.look_for(0.5)
    assert stalled.log_dir == folders.dirs.logs[T0].log_dir
    assert stalled.seconds == pytest.approx(5.0)
    assert stalled.waiting == (T0,)
    assert stalled.replicas == tuple(
        sorted(p for p, log in folders.dirs.logs.items() if log.log_dir == stalled.log_dir)
    )
    assert len(stalled.replicas) == 2
    # new logs go elsewhere, though the other folder holds more by then
    for number in range(4, 7):
        assert folders.dirs.create(TopicPartition("t", number), TOPIC_ID).log_dir != stalled.log_dir
    while folders.threads.run():
        pass
    assert folders.look_for(0.5) == ()
    assert folders.dirs.create(TopicPartition("t", 7), TOPIC_ID).log_dir == stalled.log_dir


def test_flushes_that_end_and_begin_again_are_no_stall(folders: Folders) -> None:
    for _ in range(20):
        folders.append(T0)
        assert folders.look_for(1.0) == ()
        folders.threads.run()


def test_an_append_that_waits_behind_another_job_of_its_log_counts(folders: Folders) -> None:
    log = folders.dirs.logs[T0]
    log.assign_epoch(3, log.log_end_offset)
    assert log.durability.running_job is not None and log.durability.running_job.end_offset < 0
    assert folders.look_for(10.0) == ()
    folders.append(T0)
    (stalled,) = folders.look_for(5.5)
    assert stalled.waiting == (T0,)


def test_a_flush_that_nobody_waits_for_is_no_stall(tmp_path: Path) -> None:
    folders = Folders(tmp_path, flush_messages=1000)
    folders.append(T0)
    assert folders.dirs.logs[T0].durability.running_job is not None
    assert folders.look_for(20.0) == ()


class Followers:
    """What a leader hears of broker 2, which may register anew."""

    def __init__(self) -> None:
        self.heard = {2: 0.0}
        self.epochs = {2: 20}
        self.watch = SilenceWatch(lambda: self.heard, broker_epoch=self.epochs.get, silent_s=2.0, fetch_wait_s=0.5)


def test_a_follower_that_stops_fetching_is_complained_of_until_it_fetches() -> None:
    followers = Followers()
    assert followers.watch.look(0.0) == ()
    assert followers.watch.look(2.4) == ()
    assert followers.watch.look(2.6) == (Unreachable(2, 20, pytest.approx(2.1)),)
    followers.heard[2] = 2.7
    assert followers.watch.look(2.8) == ()


def test_a_follower_is_given_time_from_when_it_is_first_expected_to_fetch() -> None:
    followers = Followers()
    assert followers.watch.look(100.0) == ()
    assert followers.watch.look(102.4) == ()
    assert len(followers.watch.look(102.5)) == 1
    followers.epochs[2] = 21
    assert followers.watch.look(102.6) == ()
    assert [one.broker_epoch for one in followers.watch.look(105.2)] == [21]
    followers.epochs.clear()
    assert followers.watch.look(105.3) == ()


def test_a_new_leader_epoch_does_not_make_a_follower_silent() -> None:
    """Torture: silent "for 15.1 s", a moment after it had fetched."""
    followers = Followers()
    followers.watch.look(0.0)
    followers.heard[2] = 15.0
    assert followers.watch.look(15.1) == ()
    followers.heard[2] = float("-inf")
    assert followers.watch.look(15.4) == ()
    assert followers.watch.look(17.6) == (Unreachable(2, 20, pytest.approx(2.1)),)


class Mouth:
    """Complaining with what is wrong set by hand, and what it said."""

    def __init__(self) -> None:
        self.reactor = Clock()
        self.unreachable: tuple[Unreachable, ...] = ()
        self.stalled: tuple[StalledDir, ...] = ()
        self.silent: tuple[Unreachable, ...] = ()
        self.said: list[Word] = []
        self.answer: Deferred[None] | None = None
        self.lines: list[str] = []
        self.complaining = Complaining(
            reactor=self.reactor,
            clock=self,
            session_timeout_s=6.0,
            unreachable=lambda now: self.unreachable,
            stalled=lambda now: self.stalled,
            silent=lambda now: self.silent,
            say=self.say,
            log=self.lines.append,
        )
        self.complaining.start()

    def monotonic(self) -> float:
        return float(self.reactor.seconds())

    def wall_ms(self) -> int:
        return 0

    def say(self, word: Word) -> Deferred[None]:
        self.said.append(word)
        return succeed(None) if self.answer is None else self.answer

    def passes(self, seconds: float) -> int:
        """How many words were said meanwhile."""
        before = len(self.said)
        self.reactor.pump([0.1] * round(seconds / 0.1))
        return len(self.said) - before


def test_it_says_nothing_while_nothing_is_wrong() -> None:
    assert Mouth().passes(20.0) == 0


def test_it_says_so_again_and_again_and_once_that_it_is_over() -> None:
    mouth = Mouth()
    mouth.unreachable = (Unreachable(1, 10, 2.0),)
    assert 9 <= mouth.passes(6.0) <= 10
    assert set(mouth.said) == {Word(mouth.unreachable)}
    mouth.unreachable = ()
    assert mouth.passes(6.0) == 1
    assert mouth.said[-1] == Word()
    assert mouth.lines == [
        "leader 1 has not answered for 2.0 s: telling the controller",
        "no more complaint that leader 1 has not answered",
    ]


def test_both_kinds_of_complaint_go_in_one_word_and_are_shown_to_people() -> None:
    mouth = Mouth()
    mouth.unreachable = (Unreachable(3, 30, 2.5),)
    mouth.stalled = (StalledDir("/d", 5.2, (T0, T1), (T0,)),)
    mouth.passes(0.6)
    assert mouth.said == [Word(mouth.unreachable, mouth.stalled)]
    assert mouth.complaining.problems() == [
        "broker 3 has not answered for 2.5 s",
        "log folder /d has stalled for 5.2 s",
    ]
    mouth.stalled = ()
    mouth.passes(0.6)
    assert mouth.lines[-1] == "appends in log folder /d complete again"


def test_a_word_that_does_not_arrive_is_said_again() -> None:
    mouth = Mouth()
    mouth.unreachable = (Unreachable(1, 10, 2.0),)
    mouth.answer = fail(BrokerError(ErrorCode.NETWORK_EXCEPTION, "there is no connection to the controller"))
    mouth.passes(0.6)
    mouth.answer = None
    assert mouth.passes(0.6) == 1


def test_after_a_stop_of_the_process_it_looks_once_more_before_it_judges() -> None:
    mouth = Mouth()
    mouth.unreachable = (Unreachable(1, 10, 30.0),)
    mouth.reactor.advance(30.0)
    assert mouth.said == []
    assert mouth.passes(0.7) == 1


def test_a_stopped_one_says_nothing() -> None:
    mouth = Mouth()
    mouth.unreachable = (Unreachable(1, 10, 30.0),)
    mouth.complaining.stop()
    assert mouth.passes(10.0) == 0
    assert mouth.reactor.getDelayedCalls() == []

"""The process that compacts: what it says, when it goes on, that it never outlives the broker; and the broker's end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import task
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.python.failure import Failure

from tests.unit.cleaner_tools import SETTINGS, compacted, dirt, put, values
from tests.unit.log_tools import T0, TOPIC_ID, World
from zkbroker.broker.cleaner_process import ChildCleaner, CleanerEnded
from zkbroker.log.cleaner import CleanedSegment, CleanerJob, CleanSummary
from zkbroker.log.cleaner_child import Throttle
from zkbroker.log.cleaner_choice import job_for
from zkbroker.log.cleaner_swap import swap_in
from zkbroker.log.dirs import LogDirs
from zkbroker.log.log import Log
from zkbroker.model.errors import BrokerError, ErrorCode


@pytest.fixture
def dirs(tmp_path: Path) -> Iterator[LogDirs]:
    world = World(tmp_path, config=compacted())
    made = world.open()
    yield made
    made.abandon()


@pytest.fixture
def log(dirs: LogDirs) -> Log:
    made = dirs.create(T0, TOPIC_ID)
    for number in range(6):
        put(made, (b"k", b"%d" % number), (b"other%d" % number, b"v"))
        if number % 2:
            made.roll()
    made.flush_later()
    made.config = compacted(segment_bytes=100)
    return made


def job(dirs: LogDirs, log: Log) -> CleanerJob:
    return job_for(dirt(dirs, log), SETTINGS, log.context.clock.wall_ms())


class Child:
    """The real process."""

    def __init__(self, made: CleanerJob) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "zkbroker.log.cleaner_child"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.tell(made.to_json() + b"\n")

    def tell(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def go_on(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        self.tell(b"\n")
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self, *, is_done: bool = True) -> int:
        assert self.process.stdin is not None
        if is_done:
            self.process.wait(20)
        self.process.stdin.close()
        status = self.process.wait(20)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return status


def test_a_job_survives_the_way_into_the_process(dirs: LogDirs, log: Log) -> None:
    made = job(dirs, log)._replace(producers=((1, 2, 3),), aborted=((7, 1, 2, True, 3),))
    assert CleanerJob.from_json(made.to_json()) == made
    assert CleanerJob.from_json(made.to_json()).io_bytes_per_second == float("inf")


def test_it_makes_one_segment_after_the_other(dirs: LogDirs, log: Log) -> None:
    child = Child(job(dirs, log))
    for base in (0, 4, 8):
        said = child.go_on()["cleaned"]
        assert said[0] == base
        assert [path.name for path in Path(log.folder).glob("*.log.cleaned")] == [f"{base:020d}.log.cleaned"]
        swap_in(log, CleanedSegment(said[0], said[1], said[2], tuple(said[3])))
    done = CleanSummary(*child.go_on()["done"])
    assert (done.end_offset, done.records_dropped, done.keys) == (12, 5, 7)
    assert child.close() == 0
    assert [offset for offset, _, _ in values(log)] == [1, 3, 5, 7, 9, 10, 11]


def test_it_ends_with_its_broker(dirs: LogDirs, log: Log) -> None:
    child = Child(job(dirs, log))
    child.go_on()
    assert child.close(is_done=False) == 2


def test_it_says_what_is_damaged(dirs: LogDirs, log: Log) -> None:
    with open(log.segments[1].path, "r+b") as file:
        file.seek(70)
        file.write(b"\xff\xff")
    child = Child(job(dirs, log))
    said = child.go_on()
    assert said["error"] == ErrorCode.CORRUPT_MESSAGE
    assert "CRC" in said["damaged"]
    assert child.close() == 1


def test_it_says_which_call_failed(dirs: LogDirs, log: Log) -> None:
    made = job(dirs, log)
    Path(log.segments[0].path).unlink()
    child = Child(made)
    assert child.go_on() == {"errno": 2, "failed": f"No such file or directory: {log.segments[0].path}"}
    assert child.close() == 1


def test_the_throttle_spreads_what_is_read_and_written() -> None:
    clock = [100.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    throttle = Throttle(1000.0, lambda: clock[0], sleep)
    throttle.pay(500)
    assert sum(slept) == pytest.approx(0.5)
    clock[0] += 10
    slept.clear()
    throttle.pay(2500)
    assert sum(slept) == pytest.approx(2.5)
    assert max(slept) <= 1.0
    slept.clear()
    Throttle(float("inf"), lambda: clock[0], sleep).pay(10**12)
    assert slept == []


class FakeProcess:
    pid = 4711

    def __init__(self) -> None:
        self.written = b""
        self.signals: list[str] = []
        self.has_ended = False

    def write(self, data: bytes) -> None:
        self.written += data

    def signalProcess(self, name: str) -> None:
        if self.has_ended:
            raise ProcessExitedAlready
        self.signals.append(name)

    def reapProcess(self) -> None:
        pass


class FakeReactor(task.Clock):
    def __init__(self) -> None:
        super().__init__()
        self.process = FakeProcess()

    def spawnProcess(self, protocol: Any, executable: str, arguments: list[str], env: dict[str, str]) -> FakeProcess:
        assert arguments[1:] == ["-m", "zkbroker.log.cleaner_child"]
        assert env["PYTHONPATH"]
        return self.process


@pytest.fixture
def child(dirs: LogDirs, log: Log) -> ChildCleaner:
    return ChildCleaner(FakeReactor(), job(dirs, log))


def test_answers_come_in_pieces(child: ChildCleaner) -> None:
    found: list[object] = []
    child.resume().addCallback(found.append)
    for byte in b'{"cleaned": [0, 70, false, [0, 4]]}\n':
        child.outReceived(bytes([byte]))
    child.resume().addCallback(found.append)
    child.outReceived(b'{"done": [12, 200, 100, 5, 7]}\n')
    assert found == [CleanedSegment(0, 70, False, (0, 4)), CleanSummary(12, 200, 100, 5, 7)]


def test_its_reasons_are_errors(child: ChildCleaner) -> None:
    failed: list[Any] = []
    child.resume().addErrback(failed.append)
    child.outReceived(b'{"damaged": "the CRC", "error": 2}\n')
    child.processEnded(Failure(ProcessDone(1)))
    assert isinstance(failed[0].value, BrokerError)
    assert failed[0].value.error is ErrorCode.CORRUPT_MESSAGE
    assert child.pid is None
    child.resume().addErrback(failed.append)
    assert isinstance(failed[1].value, BrokerError)


def test_an_error_of_the_disk(child: ChildCleaner) -> None:
    failed: list[Any] = []
    child.resume().addErrback(failed.append)
    child.outReceived(b'{"errno": 28, "failed": "No space left on device: x"}\n')
    child.processEnded(Failure(ProcessDone(1)))
    assert isinstance(failed[0].value, OSError)
    assert failed[0].value.errno == 28


def test_an_end_without_a_word(child: ChildCleaner) -> None:
    failed: list[Any] = []
    child.resume().addErrback(failed.append)
    child.errReceived(b"Traceback ...\nImportError: no such thing\n")
    child.processEnded(Failure(ProcessDone(1)))
    assert isinstance(failed[0].value, CleanerEnded)
    assert str(failed[0].value) == "ImportError: no such thing"


def test_a_stop_waits_for_the_end(child: ChildCleaner) -> None:
    found: list[object] = []
    child.resume().addBoth(found.append)
    gone: list[None] = []
    child.stop().addCallback(gone.append)
    assert child._process.signals == ["KILL"]
    assert gone == []
    child.processEnded(Failure(ProcessDone(0)))
    assert gone == [None]
    assert found == [], "whoever stopped it hears nothing more"
    child.stop().addCallback(gone.append)
    assert gone == [None, None]


def test_a_stop_of_what_has_just_ended(child: ChildCleaner) -> None:
    child._process.has_ended = True
    gone: list[None] = []
    child.stop().addCallback(gone.append)
    child.processEnded(Failure(ProcessDone(0)))
    assert gone == [None]


def test_it_is_asked_for_until_it_has_ended(child: ChildCleaner) -> None:
    asked: list[None] = []
    child._process.reapProcess = lambda: asked.append(None)
    child.childConnectionLost(1)
    child._reactor.advance(0.06)
    assert len(asked) == 2
    child.processEnded(Failure(ProcessDone(0)))
    child._reactor.advance(1)
    assert len(asked) == 2
    assert child._reactor.getDelayedCalls() == []

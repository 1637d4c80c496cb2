"""A folder whose jobs do not end keeps the threads of its own lane, and no others."""

from __future__ import annotations

from tests.unit.log_tools import HeldThreads
from zkbroker.log.lanes import JOBS_AT_ONCE, Lanes


def test_one_folder_takes_no_more_than_its_threads_and_others_go_on() -> None:
    threads = HeldThreads()
    lanes = Lanes(threads)
    done: list[int] = []
    for number in range(JOBS_AT_ONCE + 5):
        lanes.run("/hangs", lambda n: n, number).addCallback(done.append)
    assert len(threads.jobs) == JOBS_AT_ONCE
    well: list[str] = []
    lanes.run("/well", lambda: "well").addCallback(well.append)
    assert len(threads.jobs) == JOBS_AT_ONCE + 1
    assert threads.run() == JOBS_AT_ONCE + 1
    assert (well, done) == (["well"], list(range(JOBS_AT_ONCE)))
    # those that waited, in their order
    assert threads.run() == 5
    assert done == list(range(JOBS_AT_ONCE + 5))


def test_a_job_that_fails_makes_room_too_and_its_failure_is_its_own() -> None:
    threads = HeldThreads()
    lanes = Lanes(threads)

    def fail() -> None:
        raise OSError("no")

    failures: list[str] = []
    for _ in range(JOBS_AT_ONCE):
        lanes.run("/d", fail).addErrback(lambda failure: failures.append(failure.getErrorMessage()))
    ended: list[None] = []
    lanes.run("/d", lambda: None).addCallback(ended.append)
    threads.run()
    assert failures == ["no"] * JOBS_AT_ONCE
    assert ended == []
    threads.run()
    assert ended == [None]

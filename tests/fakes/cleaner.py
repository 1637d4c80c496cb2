"""Compaction without a process: each step is a job of ``run_in_thread``, on whatever disk there is."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred, succeed

from zkbroker.broker.cleaner_process import StartCleaner
from zkbroker.log.cleaner import CleanedSegment, CleanerJob, CleanSummary, clean
from zkbroker.log.disk import Disk


class SteppedCleaner:
    """A ``CleanerWork``."""

    def __init__(self, job: CleanerJob, disk: Disk, run_in_thread: Callable[..., Deferred[Any]]) -> None:
        self.job = job
        self._work: Generator[CleanedSegment, None, CleanSummary] = clean(job, disk)
        self._run_in_thread = run_in_thread
        self._running: Deferred[Any] | None = None
        self._is_stopped = False
        self._gone: Deferred[None] = Deferred()

    def resume(self) -> Deferred[CleanedSegment | CleanSummary]:
        answer: Deferred[CleanedSegment | CleanSummary] = Deferred()

        def ended(result: Any) -> None:
            self._running = None
            if self._is_stopped:
                self._work.close()
                self._gone.callback(None)
            elif hasattr(result, "check"):
                answer.errback(result)
            else:
                answer.callback(result)

        self._running = self._run_in_thread(self._step)
        self._running.addBoth(ended)
        return answer

    def _step(self) -> CleanedSegment | CleanSummary:
        try:
            return next(self._work)
        except StopIteration as done:
            summary: CleanSummary = done.value
            return summary

    def stop(self) -> Deferred[None]:
        self._is_stopped = True
        if self._running is None:
            self._work.close()
            return succeed(None)
        return self._gone


def start_stepped(disk: Disk, run_in_thread: Callable[..., Deferred[Any]]) -> StartCleaner:
    """Jobs with their settings as they are, on ``disk``."""
    return lambda job: SteppedCleaner(job, disk, run_in_thread)

"""Grouped fsync of one log: one job in a thread serves everyone who waited when it began."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from zkbroker.log.disk import Disk
from zkbroker.log.files import OpenFile
from zkbroker.model.errors import BrokerError, ErrorCode


class FlushJob(NamedTuple):
    """Frozen for the thread: what must be on the disk before the flushed end may pass ``end_offset``."""

    generation: int
    end_offset: int
    files: tuple[OpenFile, ...]
    small_files: tuple[tuple[str, bytes], ...]
    """(path, content) to replace durably first, such as the epoch checkpoint."""
    folders: tuple[str, ...]
    """Folders in which names were added."""


class Flusher:
    """Runs one job at a time; whoever asks meanwhile is served by the next."""

    def __init__(
        self,
        disk: Disk,
        run_in_thread: Callable[..., Deferred[None]],
        prepare: Callable[[bool], FlushJob],
        flushed: Callable[[FlushJob], bool],
        failed: Callable[[str, BaseException], None],
    ) -> None:
        self._disk = disk
        self._run_in_thread = run_in_thread
        self._prepare = prepare
        self._flushed = flushed
        self._failed = failed
        self._waiters: list[Deferred[int]] = []
        self._is_running = False
        self.is_writing_small_files = False
        """A thread is replacing the epoch checkpoint at this moment."""
        self._is_wanted = False
        self._is_small_wanted = False
        self._closed_reason = ""

    def flush(self) -> Deferred[int]:
        """Fires with the flushed end when all that is appended now is on the disk; KAFKA_STORAGE_ERROR if it fails."""
        if self._closed_reason:
            return fail(BrokerError(ErrorCode.KAFKA_STORAGE_ERROR, self._closed_reason))
        waiter: Deferred[int] = Deferred()
        self._waiters.append(waiter)
        self.request()
        return waiter

    def request(self) -> None:
        """Flush soon, for nobody in particular."""
        self._is_wanted = True
        if not self._is_running and not self._closed_reason:
            self._start()

    def request_small_files(self) -> None:
        """Write the epoch checkpoint soon. Through here too, so that two threads never write the same file."""
        self._is_small_wanted = True
        if not self._is_running and not self._closed_reason:
            self._start()

    def abandon(self, reason: str) -> None:
        """The log is offline or closed, for good: whoever waits fails, also for the job that runs now."""
        self._closed_reason = reason
        self._is_wanted = self._is_small_wanted = False
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.errback(BrokerError(ErrorCode.KAFKA_STORAGE_ERROR, reason))

    def _start(self) -> None:
        is_full = self._is_wanted or bool(self._waiters)
        self._is_wanted = self._is_small_wanted = False
        served, self._waiters = self._waiters, []
        try:
            job = self._prepare(is_full)
        except OSError as error:
            self._waiters = served
            self._failed("cannot write an index", error)
            return
        self._is_running = True
        self.is_writing_small_files = bool(job.small_files)
        done = self._run_in_thread(sync_job, self._disk, job)
        done.addBoth(self._done, job, served)

    def _done(self, result: object, job: FlushJob, served: list[Deferred[int]]) -> None:
        self._is_running = self.is_writing_small_files = False
        for file in job.files:
            file.release()
        if self._closed_reason:
            self._waiters = served + self._waiters
            self.abandon(self._closed_reason)
            return
        if isinstance(result, Failure):
            self._waiters = served + self._waiters
            # Never retried: after a failed fsync the kernel may have dropped the dirty pages and report success.
            self._failed("fsync failed", result.value or OSError("unknown"))
            return
        if self._flushed(job):
            for waiter in served:
                waiter.callback(job.end_offset)
        else:
            # The log was truncated meanwhile: what was synced may not be what lies there now.
            self._waiters = served + self._waiters
            self._is_wanted = self._is_wanted or bool(self._waiters)
        if (self._is_wanted or self._is_small_wanted) and not self._is_running:
            self._start()


def sync_job(disk: Disk, job: FlushJob) -> None:
    """Runs in a thread: touches nothing but the job."""
    for path, content in job.small_files:
        disk.replace_file(path, content)
    for file in job.files:
        disk.sync(file.handle)
    for folder in job.folders:
        disk.sync_dir(folder)


def file_set(files: Sequence[OpenFile]) -> tuple[OpenFile, ...]:
    """Mark each as used for a job; the Flusher releases them."""
    return tuple(file.use() for file in files)

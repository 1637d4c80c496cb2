"""Grouped fsync of one log: one job in a thread serves everyone who waited when it began."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from threading import Lock
from typing import NamedTuple

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from zkbroker.log.disk import Disk
from zkbroker.log.files import OpenFile
from zkbroker.model.errors import BrokerError, ErrorCode


class Gate:
    """Between a thread that replaces small files and the reactor: once closed, nothing gets its final name any more.

    Without it a job of a deleted log would write into the folder of its successor of the same name, and a checkpoint
    that was late would replace the last one.
    """

    __slots__ = ("_lock", "has_failed", "is_closed")

    def __init__(self) -> None:
        self._lock = Lock()
        self.is_closed = False
        self.has_failed = False
        """The job met an OSError, which the reactor may not have heard of yet."""

    def close(self) -> None:
        """Waits for a rename at most, never for an fsync."""
        with self._lock:
            self.is_closed = True

    def replace_files(self, disk: Disk, files: Sequence[tuple[str, bytes]]) -> bool:
        """Replace each (path, content) durably. False if the gate was closed before the last."""
        for path, content in files:
            if self.is_closed:
                return False
            temporary = disk.write_temporary(path, content)
            with self._lock:
                if self.is_closed:
                    disk.unlink(temporary)
                    return False
                disk.rename(temporary, path)
            disk.sync_dir(os.path.dirname(path))
        return True


class LostWrites(OSError):
    """An fsync failed: the kernel may have dropped what it could not write, whatever the reason. A disk that is full is
    none that keeps the rest, if it is found full only now (a thin volume, a quota on a network)."""


class FlushJob(NamedTuple):
    """Frozen for the thread: what must be on the disk before the flushed end may pass ``end_offset``."""

    gate: Gate
    generation: int
    end_offset: int
    newest_base: int
    """Base offset of the newest segment that is there: its name is on the disk afterwards."""
    files: tuple[OpenFile, ...]
    small_files: tuple[tuple[str, bytes], ...]
    """(path, content) to replace durably first, such as the epoch checkpoint."""
    paths: tuple[str, ...]
    """Indexes and snapshots that are final: no flush looks at them again."""
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
        self.running_job: FlushJob | None = None
        """What a thread does at this moment, or will do when there is one."""
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
        self.running_job = job
        done = self._run_in_thread(sync_job, self._disk, job)
        done.addBoth(self._done, job, served)

    def _done(self, result: object, job: FlushJob, served: list[Deferred[int]]) -> None:
        self._is_running = False
        self.running_job = None
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
    try:
        if not job.gate.replace_files(disk, job.small_files):
            return
        sync_files(disk, job.files, job.paths, job.folders)
    except OSError:
        job.gate.has_failed = True
        raise


def sync_files(disk: Disk, files: Sequence[OpenFile], paths: Sequence[str], folders: Sequence[str]) -> None:
    """Wait until all of that is on the disk. Raises LostWrites."""
    try:
        for file in files:
            disk.sync(file.handle)
        for path in paths:
            disk.sync_path(path)
        for folder in folders:
            disk.sync_dir(folder)
    except OSError as error:
        raise LostWrites(error.errno, error.strerror) from error


def file_set(files: Sequence[OpenFile]) -> tuple[OpenFile, ...]:
    """Mark each as used for a job; the Flusher releases them."""
    return tuple(file.use() for file in files)

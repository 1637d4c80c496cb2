"""What of a log is on the disk: its flushed end, its epoch checkpoint, its names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from zkbroker.log.checkpoints import (
    EPOCH_FILE,
    FLUSH_POLICY_FILE,
    METADATA_FILE,
    encode_epochs,
    encode_partition_metadata,
)
from zkbroker.log.disk import Disk
from zkbroker.log.files import OpenFile
from zkbroker.log.flush import Flusher, FlushJob, Gate, file_set, sync_files, sync_job
from zkbroker.log.segment import Segment

if TYPE_CHECKING:
    from zkbroker.log.log import Log


class Durability:
    """Prepares the flush jobs of one log and applies what they did.

    Small files go through the same jobs, so that two threads never write one file, and so that the epochs of what is
    flushed are on the disk before the flushed end passes them.
    """

    __slots__ = (
        "_epochs_version_on_disk",
        "_flusher",
        "_gate",
        "_log",
        "_unsynced",
        "began_anew",
        "flush_started_at_ms",
        "has_policy_file",
        "is_folder_new",
        "is_identity_durable",
        "is_metadata_on_disk",
        "is_truncation_unsynced",
        "named_base",
        "names_changed",
        "uncovered_end",
    )

    def __init__(self, log: Log) -> None:
        self._log = log
        run_in_thread = partial(log.context.lanes.run, log.log_dir)
        self._flusher = Flusher(log.context.disk, run_in_thread, self._prepare, self._flushed, log.failed)
        self._epochs_version_on_disk = 0
        self.is_metadata_on_disk = False
        self.is_identity_durable = False
        """No loss of power takes ``partition.metadata``: the recovery point checkpoint lists the log from then on."""
        self.names_changed = False
        """Files were created or removed since the folder was last synced."""
        self.is_folder_new = False
        """The folder's own name may not be on the disk."""
        self.began_anew = False
        """Everything was thrown away, and a loss of power may still bring it back: then all of it must be checked."""
        self.is_truncation_unsynced = False
        """A loss of power may bring back what was truncated."""
        self.named_base = -1
        """The names of the segments up to the one with this base offset are on the disk."""
        self.has_policy_file = False
        """``flush-policy`` is there, or on its way: a loss of power takes nothing that counted."""
        self.uncovered_end = 0
        """The log's end when the flush policy was switched on: below it records may count that are not on the disk."""
        self._unsynced: dict[str, None] = {}
        self._gate = Gate()
        self.flush_started_at_ms = log.context.clock.wall_ms()

    @property
    def is_state_behind(self) -> bool:
        """Whether anything but records waits to be written."""
        return (
            self._epochs_version_on_disk != self._log.epochs.version
            or self.names_changed
            or not self.is_metadata_on_disk
            or self._is_policy_file_due
            or bool(self._unsynced)
            or self.is_truncation_unsynced
        )

    @property
    def _is_policy_file_due(self) -> bool:
        log = self._log
        return (
            log.config.flush_messages == 1
            and not self.has_policy_file
            and log.flushed_end_offset >= min(self.uncovered_end, log.log_end_offset)
        )

    def flush_policy_set(self, before: int, after: int) -> None:
        """``flush.messages`` was one value and is another; only 1 makes acknowledgements wait for the disk. Switching
        it off waits for the disk itself: from then on records count that are not there."""
        if before != 1 and after == 1:
            self.uncovered_end = self._log.log_end_offset
        elif after != 1 and self.has_policy_file:
            self.overtake()
            try:
                self.remove_policy_file()
            except OSError as error:
                self._log.failed("cannot remove the mark of a flush policy", error)

    def remove_policy_file(self) -> None:
        """Raises OSError."""
        self.has_policy_file = False
        disk, path = self._log.context.disk, os.path.join(self._log.folder, FLUSH_POLICY_FILE)
        if disk.exists(path):
            disk.unlink(path)
            disk.sync_dir(self._log.folder)

    def mark_flush_policy(self) -> None:
        """At the end of the start, when what a policy covers is flushed; it may be new. Raises OSError."""
        if self._log.config.flush_messages != 1:
            if self.has_policy_file:
                self.remove_policy_file()
        elif not self.has_policy_file:
            self._flusher.request_small_files()

    @property
    def has_failed(self) -> bool:
        """A thread met an OSError that the reactor may not have heard of yet."""
        return self._gate.has_failed

    @property
    def running_job(self) -> FlushJob | None:
        """What a thread does for this log at this moment, or will do when there is one."""
        return self._flusher.running_job

    def must_sync(self, paths: Sequence[str]) -> None:
        """Files that have their final content: the next flush brings them to the disk before the flushed end passes."""
        self._unsynced.update(dict.fromkeys(paths))

    def flush(self) -> Deferred[int]:
        return self._flusher.flush()

    def flush_soon(self) -> None:
        self._flusher.request()

    def prepare(self) -> FlushJob:
        """For a caller that runs the job itself: then ``finished``. A job that a thread has not finished is done again,
        and cannot replace what this one writes."""
        return self._prepare(True)

    def overtake(self) -> None:
        """What a thread is about to write counts for nothing: all of it waits to be written again."""
        job = self.running_job
        if job is None:
            return
        has_failed = self._gate.has_failed
        self._gate.close()
        self._gate = Gate()
        self._gate.has_failed = has_failed or job.gate.has_failed
        if job.small_files:
            self._epochs_version_on_disk = -1
            self.is_metadata_on_disk = False
            self.has_policy_file &= all(not path.endswith(FLUSH_POLICY_FILE) for path, _ in job.small_files)
        self.names_changed |= bool(job.folders)
        self.is_folder_new |= bool(job.folders)
        self.must_sync(job.paths)

    def finished(self, job: FlushJob) -> None:
        for file in job.files:
            file.release()
        self._flushed(job)

    def abandon(self, reason: str) -> None:
        self._gate.close()
        self._flusher.abandon(reason)

    def write_epochs_soon(self) -> None:
        """Behind, in a thread: becoming leader waits for no disk."""
        if not self._log.is_offline and self._epochs_version_on_disk != self._log.epochs.version:
            self._flusher.request_small_files()

    def write_metadata_soon(self) -> None:
        self.is_metadata_on_disk = False
        self._flusher.request_small_files()

    def before_roll(self, active: Segment) -> None:
        """A new segment must not come to lie behind old data that a loss of power brings back. Waits for the disk only
        after a truncation, and rarely then: a flush follows each at once. Raises OSError."""
        self._log.context.lower_recovery_point(self._log)
        if self.is_truncation_unsynced:
            indexes = [index.path for index in (active.index, active.time_index, active.transactions)]
            sync_files(self._log.context.disk, (active.file(),), indexes, (self._log.folder,))
            self.is_truncation_unsynced = False

    def epochs_are_on_disk(self) -> None:
        """The cache was just read from its file."""
        self._epochs_version_on_disk = self._log.epochs.version

    def _prepare(self, is_full: bool) -> FlushJob:
        log = self._log
        files: tuple[OpenFile, ...] = ()
        small: list[tuple[str, bytes]] = []
        paths: tuple[str, ...] = ()
        folders: tuple[str, ...] = ()
        end_offset = -1
        if is_full:
            end_offset = log.log_end_offset
            self.flush_started_at_ms = log.context.clock.wall_ms()
            log.active.write_indexes()
            first = log.segment_of(log.flushed_end_offset)
            dirty = log.segments[first:]
            # Also an active segment that was truncated to nothing.
            is_cut = self.is_truncation_unsynced
            files = file_set([s.file() for s in dirty if is_cut or s.base_offset < end_offset])
            for segment in dirty:
                if segment.transactions.is_unsynced:
                    segment.transactions.is_unsynced = False
                    self._unsynced[segment.transactions.path] = None
            paths, self._unsynced = tuple(self._unsynced), {}
            if self.is_folder_new:
                folders = (log.folder, log.log_dir)
            elif self.names_changed:
                folders = (log.folder,)
            self.names_changed = self.is_folder_new = False
        if not self.is_metadata_on_disk and log.topic_id:
            small.append((os.path.join(log.folder, METADATA_FILE), encode_partition_metadata(log.topic_id)))
        self.is_metadata_on_disk = True
        if self._epochs_version_on_disk != log.epochs.version:
            self._epochs_version_on_disk = log.epochs.version
            small.append((os.path.join(log.folder, EPOCH_FILE), encode_epochs(log.epochs.entries)))
        if self._is_policy_file_due:
            # All that counts is on the disk already, and nothing more counts before this job is done.
            self.has_policy_file = True
            small.append((os.path.join(log.folder, FLUSH_POLICY_FILE), b"version: 0\n"))
        return FlushJob(self._gate, log.generation, end_offset, log.bases[-1], files, tuple(small), paths, folders)

    def names_dropped(self, newest_base: int) -> None:
        """The segments behind that one were removed: the next one to begin there has no name on the disk yet, even if
        its predecessor had."""
        self.named_base = min(self.named_base, newest_base)

    def _flushed(self, job: FlushJob) -> bool:
        log = self._log
        if not job.gate.is_closed:
            # This job or one before it wrote the metadata.
            self.is_identity_durable = True
        if job.end_offset < 0:
            return True
        if job.generation != log.generation or job.gate.is_closed:
            return False
        log.flushed_end_offset = max(log.flushed_end_offset, min(job.end_offset, log.log_end_offset))
        self.began_anew = False
        self.is_truncation_unsynced = False
        self.named_base = job.newest_base
        return True


def flush_together(disk: Disk, logs: Sequence[Log], *, is_final: bool = False) -> None:
    """Bring these logs to the disk before anything else happens. Raises OSError."""
    prepared = [(log, job) for log in logs if (job := log.flush_job(is_final=is_final)) is not None]
    try:
        disk.run_all([partial(sync_job, disk, job) for _, job in prepared])
    except OSError:
        for _, job in prepared:
            for file in job.files:
                file.release()
        raise
    for log, job in prepared:
        log.durability.finished(job)

"""All log folders of a broker: opened, locked and checked at start, checkpointed while it runs, closed at the end."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from zkbroker.log.checkpoints import (
    CLEAN_SHUTDOWN_FILE,
    encode_clean_shutdown,
)
from zkbroker.log.cleaner_checkpoint import CleanedOffsets
from zkbroker.log.context import PRODUCER_ID_EXPIRATION_MS, LogContext
from zkbroker.log.disk import Disk
from zkbroker.log.durability import flush_together
from zkbroker.log.files import OldFiles
from zkbroker.log.folders import DELETE_SUFFIX, STRAY_SUFFIX, renamed_folder
from zkbroker.log.loading import FolderLoader
from zkbroker.log.log import Log
from zkbroker.log.losses import Losses
from zkbroker.log.offset_checkpoints import OffsetCheckpoints
from zkbroker.log.space import DiskSpaces
from zkbroker.log.tail import TailBudget
from zkbroker.model.clock import Clock
from zkbroker.model.errors import BrokerError, ErrorCode, StartError
from zkbroker.model.topic_config import TopicConfig
from zkbroker.model.topics import TopicPartition

logger = logging.getLogger(__name__)

NO_FLUSH_POLICY = 2**63 - 1
"""``flush.messages`` of a topic that leaves flushing to the operating system."""


class LogDirs:
    """The logs of a broker over all of ``log.dirs``. All methods run on the reactor thread.

    ``topic_config`` gives a topic's settings; ``dir_failed(folder, reason, partitions)`` is told of a folder that went
    offline, after its logs did.
    """

    def __init__(
        self,
        *,
        disk: Disk,
        clock: Clock,
        reactor: IReactorTime,
        run_in_thread: Callable[..., Deferred[Any]],
        log_dirs: Sequence[str],
        broker_id: int,
        topic_config: Callable[[str], TopicConfig],
        dir_failed: Callable[[str, str, list[TopicPartition]], None],
        producer_id_expiration_ms: int = PRODUCER_ID_EXPIRATION_MS,
        tail_bytes_max: int | None = None,
        boot_id: str | None = None,
    ) -> None:
        self._disk = disk
        self._clock = clock
        self._reactor = reactor
        self._run_in_thread = run_in_thread
        self.log_dirs = [os.path.abspath(folder) for folder in log_dirs]
        self.offline_dirs: dict[str, str] = {}
        """Folder → why it is offline."""
        self.stalled_dirs: frozenset[str] = frozenset()
        """Folders whose disk hangs, as whoever watches says: new logs go elsewhere, if there is another."""
        self._topic_config = topic_config
        self._dir_failed = dir_failed
        self.logs: dict[TopicPartition, Log] = {}
        self._checkpoints = OffsetCheckpoints(
            disk, reactor, run_in_thread, self._logs_of, self._online_dirs, self._log_failed
        )
        self.high_watermarks = self._checkpoints.high_watermarks
        """As read at start from ``replication-offset-checkpoint``, inside each log's bounds."""
        self.clean_broker_epochs: dict[str, int] = {}
        """Folder → broker epoch of the clean shutdown it was left by; a folder without one is missing."""
        self.offline_partitions: dict[TopicPartition, str] = {}
        """Partitions whose folder failed → that folder."""
        self.losses = Losses(disk, run_in_thread, boot_id, self._online_dirs)
        """Replicas that may lack records which they are counted for."""
        self.cleaned = CleanedOffsets(disk, run_in_thread, self._log_failed)
        """Up to where each log is compacted."""
        self._renames = 0
        tails = TailBudget() if tail_bytes_max is None else TailBudget(tail_bytes_max)
        self._context = LogContext(
            disk,
            clock,
            run_in_thread,
            self._log_failed,
            self._delete_later,
            self._checkpoints.lower_recovery_point,
            self._checkpoints.recovery_point_fell,
            OldFiles(disk),
            tails,
            producer_id_expiration_ms,
            log_start_falls=self._checkpoints.log_start_falls,
            about_to_cut=self.losses.about_to_cut,
            cleaned_offset=self.cleaned.get,
            log_truncated=self.cleaned.truncated,
        )
        self.spaces = DiskSpaces(disk, self._context.lanes, reactor)
        self._loader = FolderLoader(
            context=self._context,
            broker_id=broker_id,
            topic_config=topic_config,
            checkpoints=self._checkpoints,
            losses=self.losses,
            logs=self.logs,
            clean_broker_epochs=self.clean_broker_epochs,
            set_aside=lambda log: self._set_aside(log, STRAY_SUFFIX),
            remove_soon=self._remove_soon,
        )

    def __repr__(self) -> str:
        return f"LogDirs({len(self.logs)} logs in {len(self.log_dirs)} folders, {len(self.offline_dirs)} offline)"

    @property
    def is_all_offline(self) -> bool:
        """No folder is left: the broker has to end."""
        return len(self.offline_dirs) == len(self.log_dirs)

    # -- start and stop

    def open(self, cluster_id: str) -> None:
        """Lock the folders, check whose they are, load every log; recover what an unclean stop left.

        Raises StartError with one line: a folder that is not writable, locked by another process, of another cluster
        or broker, or holding a partition twice.
        """
        try:
            for folder in self.log_dirs:
                self._loader.claim(folder, cluster_id)
            for folder in self.log_dirs:
                self._load(folder)
            self._settle_losses()
            # Only now: what hinders one folder's start must not cost another the scan of all its logs.
            for folder in self.log_dirs:
                if folder in self.clean_broker_epochs:
                    self._consume_mark(folder)
                else:
                    self._flush_recovered(folder)
                self._mark_flush_policies(folder)
        except BaseException:
            self.abandon()
            raise

    def _load(self, folder: str) -> None:
        try:
            self.cleaned.read(folder)
            self._loader.load(folder)
            self.cleaned.loaded(folder, self._logs_of(folder))
        except OSError as error:
            raise StartError(f"log.dirs: cannot use {folder}: {error.strerror or error}") from None

    def _settle_losses(self) -> None:
        """Known for good before the marks of clean stops are used up, and before anybody hears of this broker."""
        try:
            self.losses.all_loaded(self.logs)
        except OSError as error:
            raise StartError(f"log.dirs: cannot write what was lost: {error.strerror or error}") from None

    def _consume_mark(self, folder: str) -> None:
        """Gone and known to be gone before anything is appended: a crash from now on is a crash."""
        try:
            self._disk.unlink(os.path.join(folder, CLEAN_SHUTDOWN_FILE))
            self._disk.sync_dir(folder)
        except OSError as error:
            raise StartError(f"log.dirs: cannot write {folder}: {error.strerror or error}") from None

    def _flush_recovered(self, folder: str) -> None:
        """What lay behind the recovery points counts as flushed only when it is: at once where acknowledged means on
        disk (a flush policy), behind elsewhere, so that a start after a kill does not wait for the disk."""
        logs = [log for log in self._logs_of(folder) if log.flushed_end_offset < log.log_end_offset]
        try:
            flush_together(self._disk, [log for log in logs if log.config.flush_messages != NO_FLUSH_POLICY])
        except OSError as error:
            self.losses.distrust(folder, error)
            raise StartError(f"log.dirs: cannot write {folder}: {error.strerror or error}") from None
        for log in logs:
            if log.flushed_end_offset < log.log_end_offset:
                log.durability.flush_soon()

    def _mark_flush_policies(self, folder: str) -> None:
        try:
            for log in self._logs_of(folder):
                log.durability.mark_flush_policy()
        except OSError as error:
            raise StartError(f"log.dirs: cannot write {folder}: {error.strerror or error}") from None

    def close(self, broker_epoch: int) -> None:
        """A clean shutdown: flush, producer snapshots, checkpoints, and the mark that spares the next start a scan.

        ``self.high_watermarks`` must hold the final ones (see ``write_checkpoints_now``). A folder that fails gets no
        mark.
        """
        for folder in self.log_dirs:
            if folder in self.offline_dirs:
                continue
            try:
                logs = self._logs_of(folder)
                flush_together(self._disk, logs, is_final=True)
                self.cleaned.finish(folder)
                if self.losses.is_searched:
                    # before that the old ones may be all that knows of a log that is missing
                    self._checkpoints.write_now(folder)
                if any(log.durability.has_failed for log in logs):
                    logger.error("%s: a flush failed; the next start checks its logs", folder)
                    self.losses.distrust(folder, OSError("a flush failed"))
                    continue
                self.losses.closing(folder)
                self._disk.replace_file(os.path.join(folder, CLEAN_SHUTDOWN_FILE), encode_clean_shutdown(broker_epoch))
            except OSError as error:
                logger.error("%s was not closed cleanly and will be recovered: %s", folder, error)
                self.losses.distrust(folder, error)
        self.losses.closed()
        self.abandon()

    def abandon(self) -> None:
        """Let go of everything as it is: files and locks. What a kill would leave."""
        self._checkpoints.stop()
        self.cleaned.stop()
        for log in self.logs.values():
            log.close()
        self._context.old_files.close_all()
        self._loader.release()

    # -- logs

    def get(self, partition: TopicPartition) -> Log | None:
        """The log of a partition; None when there is none or its folder is offline."""
        return self.logs.get(partition)

    def create(self, partition: TopicPartition, topic_id: str) -> Log:
        """The log of a partition, made in the online folder with the fewest logs if it does not exist.

        Raises BrokerError: INCONSISTENT_TOPIC_ID if there is one of another topic of that name, KAFKA_STORAGE_ERROR
        if its folder, or every folder, is offline.
        """
        log = self.logs.get(partition)
        if log is not None:
            if not log.topic_id:
                log.set_topic_id(topic_id)
            if log.topic_id != topic_id:
                raise BrokerError(
                    ErrorCode.INCONSISTENT_TOPIC_ID, f"{log.folder} belongs to topic id {log.topic_id}, not {topic_id}"
                )
            return log
        if partition in self.offline_partitions:
            raise BrokerError(
                ErrorCode.KAFKA_STORAGE_ERROR, f"{partition} lies in {self.offline_partitions[partition]}, offline"
            )
        online = self._online_dirs()
        counts = {folder: 0 for folder in online if folder not in self.stalled_dirs} or dict.fromkeys(online, 0)
        if not counts:
            raise BrokerError(ErrorCode.KAFKA_STORAGE_ERROR, "every log folder is offline")
        for other in self.logs.values():
            if other.log_dir in counts:
                counts[other.log_dir] += 1
        log_dir = min(counts, key=lambda folder: counts[folder])
        folder = os.path.join(log_dir, str(partition))
        config = self._topic_config(partition.topic)
        log = Log(self._context, partition, topic_id, log_dir, folder, config)
        try:
            self._checkpoints.forget_predecessor(log_dir, partition)
            self.cleaned.about_to_make(log_dir, partition)
            log.create_files()
            self.losses.made(log)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise BrokerError(
                    ErrorCode.INVALID_TOPIC_EXCEPTION, f"{folder}: too long for this file system"
                ) from None
            self._log_failed(log_dir, f"cannot create {folder}", error)
            raise BrokerError(ErrorCode.KAFKA_STORAGE_ERROR, f"cannot create {folder}: {error}") from None
        self.logs[partition] = log
        if config.flush_messages == 1:
            log.durability.flush_soon()  # its name too: what has no record yet is to be there after a loss of power
        return log

    def delete(self, partition: TopicPartition, topic_id: str) -> None:
        """Delete a replica's data: renamed now, unlinked after file.delete.delay.ms. Unknown ones are no error.

        Raises BrokerError: INCONSISTENT_TOPIC_ID if the data is another topic's, KAFKA_STORAGE_ERROR.
        """
        log = self.logs.get(partition)
        if log is None:
            return
        if log.topic_id and log.topic_id != topic_id:
            raise BrokerError(
                ErrorCode.INCONSISTENT_TOPIC_ID, f"{log.folder} belongs to topic id {log.topic_id}, not {topic_id}"
            )
        path = self._set_aside(log, DELETE_SUFFIX)
        self._delete_later(log.log_dir, log.config.file_delete_delay_ms, lambda: self._disk.remove_dir(path))

    def make_stray(self, partition: TopicPartition) -> str | None:
        """Set a log aside whose topic id nobody knows: its data stays until a person removes it. The new path."""
        log = self.logs.get(partition)
        if log is None:
            return None
        path = self._set_aside(log, STRAY_SUFFIX)
        logger.warning("%s belongs to no known topic: its data stays in %s until you remove it", partition, path)
        return path

    def _set_aside(self, log: Log, suffix: str) -> str:
        self._renames += 1
        unique = f"{self._clock.wall_ms():016x}{self._renames:016x}"
        path = os.path.join(log.log_dir, renamed_folder(log.partition, unique, suffix))
        log.close()
        try:
            self._disk.rename(log.folder, path)
        except OSError as error:
            self._log_failed(log.log_dir, f"cannot rename {log.folder}", error)
            raise BrokerError(ErrorCode.KAFKA_STORAGE_ERROR, f"cannot rename {log.folder}: {error}") from None
        log.moved(path)
        del self.logs[log.partition]
        self.high_watermarks.pop(log.partition, None)
        self.cleaned.forget(log.log_dir, log.partition)
        return path

    # -- while running

    def forget_producers_after(self, expiration_ms: int) -> None:
        """``producer.id.expiration.ms`` is another one."""
        self._context.producer_id_expiration_ms = expiration_ms

    def write_checkpoints(self, high_watermarks: Mapping[TopicPartition, int]) -> Deferred[None]:
        """High watermarks, recovery points and log starts of every folder, in threads. Fires when they are written, but
        for folders of which the last round is under way. A failure takes the folder offline and fires all the same."""
        self.high_watermarks.update(high_watermarks)
        return self._checkpoints.write()

    def write_checkpoints_now(self, high_watermarks: Mapping[TopicPartition, int]) -> None:
        """The same on this thread, before ``close``."""
        self.high_watermarks.update(high_watermarks)
        for folder in self._online_dirs():
            try:
                self._checkpoints.write_now(folder)
            except OSError as error:
                self._log_failed(folder, "cannot write a checkpoint", error)

    def delete_old_segments(self, high_watermarks: Mapping[TopicPartition, int]) -> int:
        """Retention over all logs (log.retention.check.interval.ms); rolls by time and flushes by flush.ms too."""
        now_ms = self._clock.wall_ms()
        deleted = 0
        for partition, log in list(self.logs.items()):
            log.maybe_roll(now_ms)
            high_watermark = high_watermarks.get(partition)
            if high_watermark is not None:
                deleted += log.delete_old_segments(high_watermark, now_ms)
        return deleted

    def flush_due(self) -> None:
        """flush.ms over all logs (log.flush.scheduler.interval.ms)."""
        now_ms = self._clock.wall_ms()
        for log in list(self.logs.values()):
            log.maybe_flush(now_ms)

    def fail_dir(self, folder: str, reason: str) -> None:
        """Take a folder offline: its logs are closed and leave ``logs``, then ``dir_failed`` is called."""
        if folder in self.offline_dirs:
            return
        self.offline_dirs[folder] = reason
        gone = [partition for partition, log in self.logs.items() if log.log_dir == folder]
        logger.error("log folder %s is offline: %s. It holds %d partitions", folder, reason, len(gone))
        for partition in gone:
            self.logs.pop(partition).taken_offline()
            self.offline_partitions[partition] = folder
        self._dir_failed(folder, reason, gone)

    def _logs_of(self, folder: str) -> list[Log]:
        return [log for log in self.logs.values() if log.log_dir == folder]

    def _online_dirs(self) -> list[str]:
        return [folder for folder in self.log_dirs if folder not in self.offline_dirs]

    def _log_failed(self, folder: str, what: str, error: BaseException) -> None:
        reason = f"{what}: {os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error}"
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            reason = f"the disk is full ({what})"
        if folder not in self.offline_dirs:
            self.losses.distrust(folder, error)
        self.fail_dir(folder, reason)

    def _delete_later(self, log_dir: str, delay_ms: int, job: Callable[[], None]) -> None:
        # zope's interface confuses mypy: it takes the method for a plain function.
        call_later: Callable[..., object] = self._reactor.callLater
        call_later(delay_ms / 1000, self._delete_now, log_dir, job)

    def _delete_now(self, log_dir: str, job: Callable[[], None]) -> None:
        done = self._context.lanes.run(log_dir, job)
        done.addErrback(lambda failure: logger.warning("cannot unlink deleted data: %s", failure.value))

    def _remove_soon(self, path: str) -> None:
        self._delete_later(os.path.dirname(path), 0, lambda: self._disk.remove_dir(path))

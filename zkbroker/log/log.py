"""One partition's log: segments on disk, the newest batches in memory, the pure states beside them."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed

from zkbroker.log import lookups, producers, retention, truncation
from zkbroker.log.appending import Appender, AppendInfo
from zkbroker.log.checkpoints import METADATA_FILE, encode_partition_metadata
from zkbroker.log.context import LogContext
from zkbroker.log.durability import Durability
from zkbroker.log.flush import FlushJob
from zkbroker.log.lookups import LogRead
from zkbroker.log.segment import Segment
from zkbroker.log.tail import Tail
from zkbroker.model.errors import BrokerError, ErrorCode, InvariantViolation
from zkbroker.model.topic_config import TopicConfig
from zkbroker.model.topics import TopicPartition
from zkbroker.partition.epoch_cache import EpochCache
from zkbroker.partition.producer_state import ProducerStates

__all__ = ["AppendInfo", "Log", "LogRead"]

RETENTION_WAIT_S = 3600
"""Retention waits so long at most for a compaction under way (Kafka: as long as it takes): each deletion ends it, and
one that takes longer than the pauses between them would never come to its end."""


def _nothing_to_stop() -> None:
    pass


class Log:
    """See ``LogDirs`` for how it comes to be. All methods run on the reactor thread.

    An OSError of its files takes the whole folder offline: calls then raise BrokerError KAFKA_STORAGE_ERROR.
    """

    def __init__(
        self, context: LogContext, partition: TopicPartition, topic_id: str, log_dir: str, folder: str,
        config: TopicConfig
    ) -> None:  # fmt: skip
        self.context = context
        self.partition = partition
        self.topic_id = topic_id
        self.log_dir = log_dir
        self.folder = folder
        self.config = config
        self.log_start_offset = 0
        self.log_end_offset = 0
        self.flushed_end_offset = 0
        """All below is on the disk: Kafka's recovery point."""
        self.generation = 0
        """Rises with truncation and deletion: results of threads begun before are dropped."""
        self.is_offline = False
        self.epochs = EpochCache()
        self.producers = ProducerStates()
        self.segments: list[Segment] = []
        self.bases: list[int] = []
        """Base offsets of ``segments``, for bisection."""
        self.snapshots: list[int] = []
        """Offsets of the producer snapshots in the folder."""
        self.epochs_need_rebuild = False
        """While loading: the epoch checkpoint was unreadable."""
        self.tail = Tail(context.tails)
        self.is_warm = False
        self.doubtful_start: int | None = None
        """Up to where all was known to be on disk when a loss of power left a log that begins above that: its first
        segments may have been taken. None where nothing is in doubt. The leader knows; until it has told, the recovery
        point stays there."""
        self.stop_cleaning: Callable[[], None] = _nothing_to_stop
        """Called when the segments are no more what a compaction began with."""
        self.cleaning_since: float | None = None
        """Monotonic; None while nothing compacts it."""
        self.durability = Durability(self)
        self._appender = Appender(self)
        self._reads_cached = context.cached_reads.get(log_dir, False)
        self.set_config(config)

    def __repr__(self) -> str:
        state = " offline" if self.is_offline else ""
        return f"Log({self.partition} [{self.log_start_offset}, {self.log_end_offset}){state})"

    def set_config(self, config: TopicConfig) -> None:
        """The topic's settings changed; they hold from the next append on."""
        before, self.config = self.config, config
        self.durability.flush_policy_set(before.flush_messages, config.flush_messages)
        self._appender.config_changed(config)

    @property
    def recovery_point(self) -> int:
        """From where on batches must be checked after an unclean stop."""
        if self.durability.began_anew:
            return 0
        return self.flushed_end_offset if self.doubtful_start is None else self.doubtful_start

    @property
    def active(self) -> Segment:
        return self.segments[-1]

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in self.segments)

    def create_files(self) -> None:
        """A new log: its folder and first segment. The rest is written behind. Raises OSError."""
        disk = self.context.disk
        disk.make_dirs(self.folder)
        # Before any data, as Kafka does, but not waited for: it is durable before the recovery point rises.
        disk.write_file(os.path.join(self.folder, METADATA_FILE), encode_partition_metadata(self.topic_id))
        segment = Segment(disk, self.context.old_files, self.folder, 0)
        segment.created_at_ms = self.context.clock.wall_ms()
        segment.warm(create=True)
        self.segments = [segment]
        self.bases = [0]
        self.is_warm = True
        self.durability.names_changed = self.durability.is_folder_new = True

    def set_topic_id(self, topic_id: str) -> None:
        """A log of a Kafka before 2.8 had none."""
        self.topic_id = topic_id
        self.durability.write_metadata_soon()

    # -- appending

    def append_as_leader(
        self, records: bytes | memoryview, leader_epoch: int, *, origin_client: bool = True
    ) -> AppendInfo:
        """Check, stamp and append what a client (or an internal writer) produced.

        Raises BrokerError: CORRUPT_MESSAGE, INVALID_RECORD, MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE,
        UNSUPPORTED_COMPRESSION_TYPE, INVALID_TIMESTAMP, OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH,
        INVALID_TXN_STATE, TRANSACTION_COORDINATOR_FENCED, KAFKA_STORAGE_ERROR. Nothing is appended then.
        """
        self._check_online()
        return self._appender.append_as_leader(records, leader_epoch, origin_client)

    def append_as_follower(self, records: bytes | memoryview, leader_epoch_limit: int) -> AppendInfo | None:
        """Append batches exactly as fetched. None if there was nothing to append.

        Stops before a batch of an epoch above ``leader_epoch_limit``, the epoch the fetch was made in: those bytes
        were rewritten after the leader judged the fetch (KAFKA-18723). Raises BrokerError CORRUPT_MESSAGE (a CRC, an
        offset below the log end) with nothing appended, or KAFKA_STORAGE_ERROR. A gap in offsets is legal: the leader
        may have compacted.
        """
        self._check_online()
        base_offset = truncation.overlap(self, records, leader_epoch_limit)
        if base_offset is not None:
            self.truncate_to(base_offset)
        return self._appender.append_as_follower(records, leader_epoch_limit)

    def roll(self, base_offset: int | None = None) -> Segment:
        """Begin a new segment at the log end (or at ``base_offset`` beyond it, after a gap). Raises OSError."""
        base = self.log_end_offset if base_offset is None else base_offset
        old = self.segments[-1]
        if old.size == 0 and old.base_offset == base:
            return old
        if base <= old.base_offset:
            raise InvariantViolation(f"{self!r} cannot roll to {base} after {old!r}")
        self.durability.before_roll(old)
        producers.write_snapshot(self, base)
        old.deactivate()
        self.durability.must_sync(old.take_unsynced())
        segment = Segment(self.context.disk, self.context.old_files, self.folder, base)
        segment.created_at_ms = self.context.clock.wall_ms()
        segment.warm(create=True)
        self.segments.append(segment)
        self.bases.append(base)
        self.durability.names_changed = True
        self.is_warm = True
        # As Kafka does: what was rolled goes to the disk now, so that a recovery never scans more than one segment.
        self.durability.flush_soon()
        return segment

    def maybe_roll(self, now_ms: int) -> None:
        """Roll an active segment whose time is over though nothing more is appended. For the periodic retention."""
        segment = self.active
        if self.is_offline or segment.size == 0:
            return
        try:
            first, roll_ms = segment.rolling_base(), self._appender.roll_ms
            if first >= 0 and now_ms - first > roll_ms and segment.created_at_ms + roll_ms < now_ms:
                self.roll()
        except OSError as error:
            self.failed("cannot roll", error)

    # -- reading

    def read(
        self, offset: int, max_bytes: int, limit_offset: int, min_one_batch: bool = True, *, may_wait: bool = False
    ) -> LogRead | None:
        """Whole batches from the one that contains ``offset``, those that end at or below ``limit_offset``.

        None if they are not in the page cache (and not ``may_wait``): use ``read_later``. With ``min_one_batch`` the
        first is returned however large. Raises BrokerError OFFSET_OUT_OF_RANGE outside [log start, log end],
        KAFKA_STORAGE_ERROR.
        """
        if not self.log_start_offset <= offset <= self.log_end_offset:
            raise self._range_error(offset)
        if self.is_offline:
            raise self.offline_error()
        if offset >= limit_offset or offset == self.log_end_offset:
            return LogRead((), 0, offset, offset)
        found = self.tail.read(offset, max_bytes, limit_offset, min_one_batch)
        if found is not None:
            return LogRead(*found)
        try:
            return lookups.read_segments(
                self, offset, max_bytes, limit_offset, min_one_batch, cached_only=self._reads_cached and not may_wait
            )
        except OSError as error:
            raise lookups.read_failed(self, error) from None

    def read_later(
        self, offset: int, max_bytes: int, limit_offset: int, min_one_batch: bool = True
    ) -> Deferred[LogRead]:
        """The same with the waiting done in a thread; begun anew if the log was truncated meanwhile."""
        return lookups.read_later(self, offset, max_bytes, limit_offset, min_one_batch)

    def segment_of(self, offset: int) -> int:
        """Index of the segment that holds ``offset``."""
        return max(0, bisect_right(self.bases, offset) - 1)

    def offset_for_timestamp(self, timestamp_ms: int) -> Deferred[tuple[int, int, int] | None]:
        """(timestamp, offset, leader epoch) of the first record at or after that time, None without one."""
        return lookups.offset_for_timestamp(self, timestamp_ms)

    def offset_of_max_timestamp(self) -> Deferred[tuple[int, int, int] | None]:
        """(timestamp, offset, leader epoch) of the first record with the largest timestamp (ListOffsets -3)."""
        return lookups.offset_of_max_timestamp(self)

    def aborted_transactions(self, offset: int, end_offset: int) -> list[tuple[int, int]]:
        """(producer id, first offset) of aborted transactions with records in [offset, end_offset)."""
        try:
            return lookups.aborted_transactions(self, offset, end_offset)
        except OSError as error:
            self.failed("cannot read a transaction index", error)
            raise self.offline_error() from None

    # -- truncating

    def truncate_to(self, offset: int) -> None:
        """Drop the batch that contains ``offset`` and everything after it, and what the epoch cache says of it.

        Raises BrokerError KAFKA_STORAGE_ERROR.
        """
        self._truncate(truncation.truncate_to, offset)

    def truncate_fully_and_start_at(self, offset: int) -> None:
        """Throw everything away and begin at ``offset``: this replica is too far behind its leader's log start."""
        self._truncate(truncation.truncate_fully_and_start_at, offset)

    def _truncate(self, cut: Callable[[Log, int], None], offset: int) -> None:
        self._check_online()
        start = self.log_start_offset
        self.stop_cleaning()
        try:
            self.context.log_truncated(self, offset)
            if offset < start:
                # What the disk says may be too low afterwards, for a while, and at no moment too high.
                self.log_start_offset = self.bases[self.segment_of(offset)] if offset >= self.bases[0] else offset
                self.context.log_start_falls(self)
            cut(self, offset)
            # All of the batch that was cut went: a compaction must not count what is written there anew as compacted.
            self.context.log_truncated(self, self.log_end_offset)
            if offset < start:
                self.log_start_offset = min(start, self.log_end_offset)
        except OSError as error:
            self.failed("cannot truncate", error)
            raise self.offline_error() from None
        self.context.recovery_point_fell(self)
        self.durability.flush_soon()
        self.check()

    def advance_log_start(self, offset: int) -> None:
        """Records below ``offset`` count as deleted (DeleteRecords, or the leader's log start); never goes back.

        Raises BrokerError OFFSET_OUT_OF_RANGE beyond the log end.
        """
        if offset > self.log_end_offset:
            raise self._range_error(offset)
        if offset > self.log_start_offset:
            self.log_start_offset = offset
            if self.epochs.truncate_from_start(offset):
                self.durability.write_epochs_soon()

    def delete_old_segments(self, high_watermark: int, now_ms: int) -> int:
        """Retention by time, bytes and log start, only below the high watermark. The number of segments deleted."""
        if self.is_offline:
            return 0
        since = self.cleaning_since
        is_waiting = since is not None and self.context.clock.monotonic() - since < RETENTION_WAIT_S
        try:
            deleted = 0 if is_waiting else retention.delete_old_segments(self, high_watermark, now_ms)
        except OSError as error:
            self.failed("cannot delete old segments", error)
            return 0
        if deleted:
            self.stop_cleaning()
            self.durability.names_changed = True
            self.durability.write_epochs_soon()
        self.producers.expire(now_ms, self.context.producer_id_expiration_ms)
        return deleted

    # -- the disk

    def flush_later(self) -> Deferred[int]:
        """fsync in a thread; fires with the flushed end. A failure takes the folder offline and is never retried."""
        if self.is_offline:
            return fail(self.offline_error())
        if self.flushed_end_offset == self.log_end_offset and not self.durability.is_state_behind:
            return succeed(self.flushed_end_offset)
        return self.durability.flush()

    def maybe_flush(self, now_ms: int) -> None:
        """flush.ms: begin a flush if something has been unflushed for so long. For a periodic call."""
        is_due = now_ms - self.durability.flush_started_at_ms >= self.config.flush_ms
        if is_due and not self.is_offline and self.flushed_end_offset < self.log_end_offset:
            self.durability.flush_soon()

    def assign_epoch(self, epoch: int, start_offset: int) -> None:
        """A leader epoch begins: also with nothing appended, when this broker becomes leader (KAFKA-7415). Waits for no
        disk: the checkpoint is written behind."""
        if self.epochs.assign(epoch, start_offset):
            self.durability.write_epochs_soon()

    def flush_job(self, *, is_final: bool = False) -> FlushJob | None:
        """For ``LogDirs``, which runs the jobs of many logs side by side; None if there is nothing to do.

        Raises OSError.
        """
        if self.is_offline:
            return None
        self.durability.overtake()
        if is_final:
            self.active.finish()
            self.durability.must_sync(self.active.take_unsynced())
            producers.write_snapshot(self, self.log_end_offset)
        if self.flushed_end_offset == self.log_end_offset and not self.durability.is_state_behind:
            return None
        return self.durability.prepare()

    def close(self) -> None:
        """Close the files as they are. Whoever waits for a flush fails."""
        self.stop_cleaning()
        self.generation += 1
        self.is_offline = True
        self.tail.clear()
        self.durability.abandon(f"{self.partition} is closed")
        for segment in self.segments:
            segment.close()

    def moved(self, folder: str) -> None:
        """Its folder was renamed, to be deleted or set aside."""
        self.folder = folder
        for segment in self.segments:
            segment.moved(folder)

    def failed(self, what: str, error: BaseException) -> None:
        """An I/O error: the folder goes offline with all its logs."""
        self.context.failed(self.log_dir, f"{self.partition}: {what}", error)

    def taken_offline(self) -> None:
        """The folder is offline: nothing is read or written any more."""
        if not self.is_offline:
            self.close()

    def check(self) -> None:
        """Raises InvariantViolation if the offsets contradict each other."""
        if not (self.bases[0] <= self.log_end_offset and self.log_start_offset <= self.log_end_offset):
            raise InvariantViolation(f"{self!r} with segments {self.segments!r}")
        if self.flushed_end_offset > self.log_end_offset:
            raise InvariantViolation(f"{self!r} flushed to {self.flushed_end_offset}")

    def _check_online(self) -> None:
        if self.is_offline:
            raise self.offline_error()

    def offline_error(self) -> BrokerError:
        return BrokerError(ErrorCode.KAFKA_STORAGE_ERROR, f"the log of {self.partition} in {self.log_dir} is offline")

    def _range_error(self, offset: int) -> BrokerError:
        return BrokerError(
            ErrorCode.OFFSET_OUT_OF_RANGE,
            f"offset {offset} of {self.partition} is outside [{self.log_start_offset}, {self.log_end_offset}]",
        )

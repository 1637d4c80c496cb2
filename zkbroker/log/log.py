"""One partition's log: segments on disk, the newest batches in memory, the pure states beside them."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

from twisted.internet.defer import Deferred, fail, succeed

from zkbroker.log import lookups, producers, retention, truncation
from zkbroker.log.checkpoints import METADATA_FILE, encode_partition_metadata
from zkbroker.log.context import LogContext
from zkbroker.log.durability import Durability
from zkbroker.log.flush import FlushJob
from zkbroker.log.lookups import LogRead
from zkbroker.log.segment import Segment
from zkbroker.log.tail import Chunk, Tail
from zkbroker.log.validation import PlacedBatch, check_timestamps, checks_timestamps, split_fetched, walk, walks_records
from zkbroker.model.errors import BrokerError, ErrorCode, InvariantViolation
from zkbroker.model.topic_config import TopicConfig
from zkbroker.model.topics import TopicPartition
from zkbroker.partition.epoch_cache import EpochCache
from zkbroker.partition.producer_state import ProducerStates
from zkbroker.records.batch import BatchHeader, check_produced, stamp, with_log_append_time
from zkbroker.records.record import end_transaction_of

__all__ = ["AppendInfo", "Log", "LogRead"]


class AppendInfo(NamedTuple):
    """What an append did. For a duplicate the offsets are those of the original batch."""

    base_offset: int
    last_offset: int
    log_append_time_ms: int
    """The broker's time with LogAppendTime, else -1."""
    is_duplicate: bool
    records_count: int


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
        self.durability = Durability(self)
        self._reads_cached = context.cached_reads.get(log_dir, False)
        self.set_config(config)

    def __repr__(self) -> str:
        state = " offline" if self.is_offline else ""
        return f"Log({self.partition} [{self.log_start_offset}, {self.log_end_offset}){state})"

    def set_config(self, config: TopicConfig) -> None:
        """The topic's settings changed; they hold from the next append on."""
        before, self.config = self.config, config
        self.durability.flush_policy_set(before.flush_messages, config.flush_messages)
        self._walks = walks_records(config)
        self._checks_timestamps = checks_timestamps(config)
        self._stamps_time = config.message_timestamp_type == "LogAppendTime"
        # Spread by partition, so that all logs of a topic do not roll in the same second (segment.jitter.ms).
        jitter = config.segment_jitter_ms * (self.partition.partition * 7919 % 1000) // 1000
        self._roll_ms = config.segment_ms - min(jitter, config.segment_ms)

    @property
    def recovery_point(self) -> int:
        """From where on batches must be checked after an unclean stop."""
        return 0 if self.durability.began_anew else self.flushed_end_offset

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
        if self.is_offline:
            raise self.offline_error()
        config = self.config
        header = check_produced(records, config.max_message_bytes, origin_client=origin_client)
        if origin_client or header.size == len(records):
            return self._append_produced(records, 0, header, leader_epoch, origin_client)
        # Everything is checked before anything is appended: an internal write is whole or not at all.
        found = []
        position = 0
        while position < len(records):
            header = check_produced(records, config.max_message_bytes, origin_client=False, position=position)
            found.append((position, header))
            position += header.size
        infos = [self._append_produced(records, place, header, leader_epoch, False) for place, header in found]
        return AppendInfo(
            infos[0].base_offset,
            infos[-1].last_offset,
            infos[-1].log_append_time_ms,
            False,
            sum(info.records_count for info in infos),
        )

    def _append_produced(
        self, records: bytes | memoryview, position: int, header: BatchHeader, leader_epoch: int, origin_client: bool
    ) -> AppendInfo:
        if header.producer_id >= 0:
            if origin_client:
                duplicate = self.producers.check(
                    header.producer_id,
                    header.producer_epoch,
                    header.base_sequence,
                    header.last_sequence,
                    is_transactional=header.is_transactional,
                )
                if duplicate is not None:
                    stamped = duplicate.timestamp if self._stamps_time else -1
                    return AppendInfo(duplicate.base_offset, duplicate.last_offset, stamped, True, header.records_count)
            elif header.is_control:
                marker = end_transaction_of(records, header, position)
                if marker is not None:
                    self.producers.check_marker(header.producer_id, header.producer_epoch, marker.coordinator_epoch)
        now_ms = self.context.clock.wall_ms()
        if self._checks_timestamps and origin_client:
            check_timestamps(header, self.config, now_ms)
        if self._walks and origin_client:
            records, header = walk(records, position, header, self.config)
            position = 0
        if header.size > self.config.segment_bytes:
            raise BrokerError(
                ErrorCode.RECORD_LIST_TOO_LARGE, f"{header.size} bytes: segment.bytes is {self.config.segment_bytes}"
            )
        base_offset = self.log_end_offset
        data = stamp(records, position, header, base_offset, leader_epoch)
        max_timestamp = header.max_timestamp
        append_time = -1
        if self._stamps_time:
            append_time = max_timestamp = now_ms
            data = with_log_append_time(data, now_ms)
        last_offset = base_offset + header.last_offset_delta
        self._write(data, [(0, header, base_offset)], last_offset, max_timestamp, now_ms, leader_epoch)
        return AppendInfo(base_offset, last_offset, append_time, False, header.records_count)

    def append_as_follower(self, records: bytes | memoryview, leader_epoch_limit: int) -> AppendInfo | None:
        """Append batches exactly as fetched. None if there was nothing to append.

        Stops before a batch of an epoch above ``leader_epoch_limit``, the epoch the fetch was made in: those bytes
        were rewritten after the leader judged the fetch (KAFKA-18723). Raises BrokerError CORRUPT_MESSAGE (a CRC, an
        offset below the log end) with nothing appended, or KAFKA_STORAGE_ERROR. A gap in offsets is legal: the leader
        may have compacted.
        """
        if self.is_offline:
            raise self.offline_error()
        pieces = split_fetched(records, self.log_end_offset, leader_epoch_limit, self.config.segment_bytes)
        if not pieces:
            return None
        now_ms = self.context.clock.wall_ms()
        for data, batches, timestamp in pieces:
            self._write(data, batches, batches[-1][1].last_offset, timestamp, now_ms, -1)
        count = sum(header.records_count for piece in pieces for _, header, _ in piece.batches)
        return AppendInfo(pieces[0].batches[0][2], self.log_end_offset - 1, -1, False, count)

    def _write(
        self, data: bytes | memoryview, batches: list[PlacedBatch], last_offset: int, max_timestamp: int,
        now_ms: int, stamped_epoch: int
    ) -> None:  # fmt: skip
        """``batches``: (place in ``data``, header, base offset) of each; ``stamped_epoch`` -1 takes the headers'."""
        config = self.config
        base_offset = batches[0][2]
        try:
            if not self.is_warm:
                self._warm()
            segment = self.segments[-1]
            if segment.should_roll(
                len(data), max_timestamp, last_offset, now_ms, segment_bytes=config.segment_bytes,
                segment_ms=self._roll_ms, index_bytes=config.segment_index_bytes
            ):  # fmt: skip
                segment = self.roll(base_offset)
            position = segment.append(data)
        except OSError as error:
            self._append_failed(error)
            raise self.offline_error() from None
        for place, header, offset in batches:
            epoch = stamped_epoch if stamped_epoch >= 0 else header.leader_epoch
            if epoch > self.epochs.latest_epoch:
                self.assign_epoch(epoch, offset)
            timestamp = max_timestamp if stamped_epoch >= 0 else header.max_timestamp
            last = offset + header.last_offset_delta
            segment.note_batch(last, position + place, header.size, timestamp, config.index_interval_bytes)
            if header.producer_id >= 0:
                self._note_producer(data, place, header, offset, timestamp)
        self.log_end_offset = last_offset + 1
        self.tail.append(Chunk(base_offset, last_offset + 1, data))
        if self.log_end_offset - self.flushed_end_offset >= config.flush_messages:
            self.durability.flush_soon()

    def _note_producer(
        self, data: bytes | memoryview, place: int, header: BatchHeader, base_offset: int, timestamp: int
    ) -> None:
        try:
            producers.take_batch(self.producers, self.segments[-1], data, place, header, base_offset, timestamp)
        except OSError as error:
            self.failed("cannot write a transaction index", error)
            raise self.offline_error() from None

    def _append_failed(self, error: OSError) -> None:
        try:
            self.segments[-1].cut_back()
        except OSError:
            # The torn tail is found by its CRC when the folder is recovered: nothing else can be done here.
            pass
        self.is_warm = False
        self.failed("cannot append", error)

    def _warm(self) -> None:
        """Before the first append: open the active segment, find its largest timestamp. Idle logs never pay this."""
        self.active.warm()
        self.is_warm = True

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
            first = segment.rolling_base()
            if first >= 0 and now_ms - first > self._roll_ms and segment.created_at_ms + self._roll_ms < now_ms:
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
        try:
            cut(self, offset)
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
        try:
            deleted = retention.delete_old_segments(self, high_watermark, now_ms)
        except OSError as error:
            self.failed("cannot delete old segments", error)
            return 0
        if deleted:
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

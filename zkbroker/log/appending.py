"""Appending to a log: as leader, checked and stamped; as follower, byte for byte what was fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from zkbroker.log import producers
from zkbroker.log.indexes import RELATIVE_OFFSET_MAX
from zkbroker.log.tail import Chunk
from zkbroker.log.validation import PlacedBatch, check_timestamps, checks_timestamps, split_fetched, walk, walks_records
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topic_config import TopicConfig
from zkbroker.records.batch import BatchHeader, check_produced, stamp, with_log_append_time
from zkbroker.records.record import end_transaction_of

if TYPE_CHECKING:
    from zkbroker.log.log import Log


class AppendInfo(NamedTuple):
    """What an append did. For a duplicate the offsets are those of the original batch."""

    base_offset: int
    last_offset: int
    log_append_time_ms: int
    """The broker's time with LogAppendTime, else -1."""
    is_duplicate: bool
    records_count: int


class Appender:
    """Writes at the end of one log, which has seen to it that its folder is online."""

    __slots__ = ("_checks_timestamps", "_log", "_stamps_time", "_walks", "roll_ms")

    def __init__(self, log: Log) -> None:
        self._log = log
        self.config_changed(log.config)

    def config_changed(self, config: TopicConfig) -> None:
        """What follows from the topic's settings, once for all appends."""
        self._walks = walks_records(config)
        self._checks_timestamps = checks_timestamps(config)
        self._stamps_time = config.message_timestamp_type == "LogAppendTime"
        # Spread by partition, so that all logs of a topic do not roll in the same second (segment.jitter.ms).
        jitter = config.segment_jitter_ms * (self._log.partition.partition * 7919 % 1000) // 1000
        segment_ms = config.segment_ms
        if "compact" in config.cleanup_policy and config.max_compaction_lag_ms > 0:
            # An active segment is never compacted: it must not be one for longer.
            segment_ms = min(segment_ms, config.max_compaction_lag_ms)
        self.roll_ms = segment_ms - min(jitter, segment_ms)
        """An active segment whose first record is so old is rolled."""

    def append_as_leader(self, records: bytes | memoryview, leader_epoch: int, origin_client: bool) -> AppendInfo:
        """See ``Log.append_as_leader``."""
        config = self._log.config
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
        log = self._log
        if header.producer_id >= 0:
            if origin_client:
                duplicate = log.producers.check(
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
                    log.producers.check_marker(header.producer_id, header.producer_epoch, marker.coordinator_epoch)
        now_ms = log.context.clock.wall_ms()
        if self._checks_timestamps and origin_client:
            check_timestamps(records, position, header, log.config, now_ms)
        if self._walks and origin_client:
            records, header = walk(records, position, header, log.config)
            position = 0
        if header.size > log.config.segment_bytes:
            raise BrokerError(
                ErrorCode.RECORD_LIST_TOO_LARGE, f"{header.size} bytes: segment.bytes is {log.config.segment_bytes}"
            )
        base_offset = log.log_end_offset
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
        """See ``Log.append_as_follower``."""
        log = self._log
        pieces = split_fetched(records, log.log_end_offset, leader_epoch_limit, log.config.segment_bytes)
        if not pieces:
            return None
        now_ms = log.context.clock.wall_ms()
        for data, batches, timestamp in pieces:
            self._write(data, batches, batches[-1][1].last_offset, timestamp, now_ms, -1)
        count = sum(header.records_count for piece in pieces for _, header, _ in piece.batches)
        return AppendInfo(pieces[0].batches[0][2], log.log_end_offset - 1, -1, False, count)

    def _write(
        self, data: bytes | memoryview, batches: list[PlacedBatch], last_offset: int, max_timestamp: int,
        now_ms: int, stamped_epoch: int
    ) -> None:  # fmt: skip
        """``batches``: (place in ``data``, header, base offset) of each; ``stamped_epoch`` -1 takes the headers'."""
        log = self._log
        config = log.config
        base_offset = batches[0][2]
        try:
            if not log.is_warm:
                self._warm()
            segment = log.segments[-1]
            if segment.should_roll(
                len(data), max_timestamp, last_offset, now_ms, segment_bytes=config.segment_bytes,
                segment_ms=self.roll_ms, index_bytes=config.segment_index_bytes
            ):  # fmt: skip
                # At the log end also after a gap (the leader compacted), so that no hole is between two segments: it
                # would look like one that a crash left. Unless an index does not reach so far.
                is_in_reach = last_offset - log.log_end_offset <= RELATIVE_OFFSET_MAX
                segment = log.roll(None if is_in_reach else base_offset)
            position = segment.append(data)
        except OSError as error:
            self._append_failed(error)
            raise log.offline_error() from None
        for place, header, offset in batches:
            epoch = stamped_epoch if stamped_epoch >= 0 else header.leader_epoch
            if epoch > log.epochs.latest_epoch:
                log.assign_epoch(epoch, offset)
            timestamp = max_timestamp if stamped_epoch >= 0 else header.max_timestamp
            last = offset + header.last_offset_delta
            segment.note_batch(last, position + place, header.size, timestamp, config.index_interval_bytes)
            if header.producer_id >= 0:
                self._note_producer(data, place, header, offset, timestamp)
        log.log_end_offset = last_offset + 1
        log.tail.append(Chunk(base_offset, last_offset + 1, data))
        if log.log_end_offset - log.flushed_end_offset >= config.flush_messages:
            log.durability.flush_soon()

    def _note_producer(
        self, data: bytes | memoryview, place: int, header: BatchHeader, base_offset: int, timestamp: int
    ) -> None:
        log = self._log
        try:
            producers.take_batch(log.producers, log.segments[-1], data, place, header, base_offset, timestamp)
        except OSError as error:
            log.failed("cannot write a transaction index", error)
            raise log.offline_error() from None

    def _append_failed(self, error: OSError) -> None:
        log = self._log
        try:
            log.segments[-1].cut_back()
        except OSError:
            # The torn tail is found by its CRC when the folder is recovered: nothing else can be done here.
            pass
        log.is_warm = False
        log.failed("cannot append", error)

    def _warm(self) -> None:
        """Before the first append: open the active segment, find its largest timestamp. Idle logs never pay this."""
        log = self._log
        log.active.warm()
        log.is_warm = True

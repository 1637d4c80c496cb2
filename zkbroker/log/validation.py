"""What a leader does to a produced batch between the header checks and the append, where the topic asks for it."""

from __future__ import annotations

from typing import NamedTuple

from zkbroker.model.errors import BadRecord, BrokerError, ErrorCode, RecordsRefused
from zkbroker.model.topic_config import TopicConfig
from zkbroker.records.batch import BatchHeader, check_batch, corrupt, read_header
from zkbroker.records.codecs import codec_number
from zkbroker.records.record import records_of
from zkbroker.records.scan import repacked, scan, unpack, with_max_timestamp

_UNBOUNDED_MS = 2**63 - 1

PlacedBatch = tuple[int, BatchHeader, int]
"""(place in the bytes, header, base offset to append at)."""


class Piece(NamedTuple):
    """Fetched batches that go to one segment in one write."""

    data: bytes | memoryview
    batches: list[PlacedBatch]
    max_timestamp: int


def walks_records(config: TopicConfig) -> bool:
    """Whether every record of a produced batch is looked at: off the fast path."""
    return (
        config.record_validation == "full"
        or config.compression_type != "producer"
        or "compact" in config.cleanup_policy
    )


def checks_timestamps(config: TopicConfig) -> bool:
    return config.message_timestamp_type == "CreateTime" and (
        config.message_timestamp_before_max_ms != _UNBOUNDED_MS
        or config.message_timestamp_after_max_ms != _UNBOUNDED_MS
    )


def check_timestamps(
    records: bytes | memoryview, position: int, header: BatchHeader, config: TopicConfig, now_ms: int
) -> None:
    """The bounds of message.timestamp.before/after.max.ms (KIP-937) on what the header tells: its first and largest.
    Only when those are out of bounds the records are looked at, to name the ones that are.

    Raises RecordsRefused INVALID_TIMESTAMP, or as ``records_of``.
    """
    newest = now_ms + config.message_timestamp_after_max_ms
    oldest = now_ms - config.message_timestamp_before_max_ms
    first = min(header.base_timestamp, header.max_timestamp)
    if header.max_timestamp <= newest and (first < 0 or first >= oldest):
        return
    bad = []
    for index, record in enumerate(records_of(records, header, position)):
        if record.timestamp > newest:
            bad.append(BadRecord(index, f"timestamp {record.timestamp} is too far ahead of {now_ms}"))
        elif 0 <= record.timestamp < oldest:
            bad.append(BadRecord(index, f"timestamp {record.timestamp} is too far behind {now_ms}"))
    if not bad:  # the header says what no record does
        bad.append(BadRecord(0, f"timestamps {first} to {header.max_timestamp} are not all near {now_ms}"))
    raise RecordsRefused(ErrorCode.INVALID_TIMESTAMP, bad)


def walk(
    records: bytes | memoryview, position: int, header: BatchHeader, config: TopicConfig
) -> tuple[bytes, BatchHeader]:
    """Check every record and bring the batch into the topic's codec. The batch and its header.

    Raises BrokerError: INVALID_RECORD, CORRUPT_MESSAGE, MESSAGE_TOO_LARGE.
    """
    batch = bytes(memoryview(records)[position : position + header.size])
    body = unpack(batch, header)
    largest = scan(body, header, keys_required="compact" in config.cleanup_policy and not header.is_control)
    codec = header.codec
    if config.compression_type != "producer" and not header.is_control:
        codec = codec_number(config.compression_type)
    if codec == header.codec:
        if largest == header.max_timestamp:
            return batch, header
        return with_max_timestamp(batch, largest), header._replace(max_timestamp=largest)
    batch = repacked(batch, header, body, codec, config.compression_level, largest)
    if len(batch) > config.max_message_bytes:
        raise BrokerError(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"the batch takes {len(batch)} bytes as {config.compression_type}: "
            f"max.message.bytes is {config.max_message_bytes}",
        )
    return batch, read_header(batch)


def split_fetched(
    records: bytes | memoryview, log_end_offset: int, leader_epoch_limit: int, segment_bytes: int
) -> list[Piece]:
    """Check what a follower fetched, up to the first batch of an epoch above ``leader_epoch_limit``.

    In pieces no larger than a segment. Raises BrokerError CORRUPT_MESSAGE.
    """
    end = len(records)
    position = start = 0
    next_offset = log_end_offset
    pieces: list[Piece] = []
    run: list[PlacedBatch] = []
    largest = -1
    while position < end:
        header = check_batch(records, position, end)
        if header.leader_epoch > leader_epoch_limit:
            break
        if header.base_offset < next_offset:
            raise corrupt(f"fetched offset {header.base_offset} where the log ends at {next_offset}")
        size = header.size
        if run and position + size - start > segment_bytes:
            pieces.append(Piece(records[start:position], run, largest))
            run, start, largest = [], position, -1
        run.append((position - start, header, header.base_offset))
        if header.max_timestamp > largest:
            largest = header.max_timestamp
        next_offset = header.next_offset
        position += size
    if run:
        pieces.append(Piece(records if start == 0 and position == end else records[start:position], run, largest))
    return pieces

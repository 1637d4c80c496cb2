"""Damaged record batches: refused with an error that clients understand, and nothing of them is stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_log import opened
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topic_config import TopicConfig
from zkbroker.records.batch import HEADER_BYTES, batches, check_batch, read_header, with_crc
from zkbroker.records.codecs import compress
from zkbroker.records.record import Record, build_batch, records_of
from zkbroker.records.scan import RECORDS_MAX, UNPACKED_BYTES_MAX, scan, unpack

REFUSALS = {
    ErrorCode.CORRUPT_MESSAGE,
    ErrorCode.INVALID_RECORD,
    ErrorCode.INVALID_TIMESTAMP,
    ErrorCode.MESSAGE_TOO_LARGE,
    ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
}
LEADER_EPOCH = range(12, 16)
"""Outside the CRC; a leader writes it anew."""
RECORDS = [Record(0, 5, b"k", b"value"), Record(1, 7, b"l", None, (("h", b"x"), ("g", None)))]
WALKED = TopicConfig(record_validation="full", max_message_bytes=10_000)


@pytest.mark.parametrize("codec", range(5))
def test_no_flipped_bit_gets_into_the_log(tmp_path: Path, codec: int) -> None:
    _, _, log = opened(tmp_path)
    whole = build_batch(RECORDS, codec=codec, producer_id=7, producer_epoch=0, base_sequence=0)
    for bit in range(8 * len(whole)):
        if bit // 8 in LEADER_EPOCH:
            continue
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BrokerError) as refused:
            log.append_as_leader(bytes(damaged), 0)
        assert refused.value.error in REFUSALS, bit
    assert (log.log_end_offset, log.size, len(log.producers)) == (0, 0, 0)


def test_the_quick_look_finds_what_reading_finds() -> None:
    """Every flipped bit of plain records, and of two records with long fields: the scan and the reader agree."""
    long = [Record(0, 5, b"k" * 200, b"v" * 300, (("h" * 70, b"x" * 80),)), Record(1, 2, None, b"", (("", None),))]
    for records in (RECORDS, long):
        whole = build_batch(records)
        for bit in range(8 * HEADER_BYTES, 8 * len(whole)):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            batch = with_crc(damaged)
            header = read_header(batch)
            found = read = None
            try:
                found = list(records_of(batch, header))
                if [record.offset for record in found] == [0, 1]:
                    read = max(-1, *(record.timestamp for record in found))
            except BrokerError:
                pass
            try:
                scanned = scan(unpack(batch, header), header, keys_required=False)
            except BrokerError:
                scanned = None
            assert scanned == read, (bit, found)


def test_what_is_looked_at_is_bounded(tmp_path: Path) -> None:
    _, _, log = opened(tmp_path, TopicConfig(compression_type="gzip", max_message_bytes=1 << 20))
    bomb = bytearray(build_batch(RECORDS, codec=4)[:HEADER_BYTES] + compress(4, bytes(UNPACKED_BYTES_MAX + 1)))
    bomb[8:12] = (len(bomb) - 12).to_bytes(4, "big")
    assert len(bomb) < 1 << 14
    many = bytearray(build_batch(RECORDS, codec=4))
    many[23:27], many[57:61] = (RECORDS_MAX).to_bytes(4, "big"), (RECORDS_MAX + 1).to_bytes(4, "big")
    for damaged in (bomb, many):
        with pytest.raises(BrokerError) as refused:
            log.append_as_leader(with_crc(damaged), 0)
        assert refused.value.error is ErrorCode.MESSAGE_TOO_LARGE


def test_a_largest_timestamp_that_is_wrong_is_set_right_where_records_are_looked_at(tmp_path: Path) -> None:
    """As Kafka does: some clients write the first one's."""
    for codec, config in ((0, WALKED), (1, WALKED), (1, TopicConfig(compression_type="zstd"))):
        _, _, log = opened(tmp_path / f"{codec}{config.compression_type}", config)
        wrong = bytearray(build_batch(RECORDS, codec=codec))
        wrong[35:43] = (5).to_bytes(8, "big")
        log.append_as_leader(with_crc(wrong), 0)
        read = log.read(0, 1 << 20, log.log_end_offset)
        assert read is not None
        header = check_batch(bytes(read.chunks[0]), 0, read.size)
        assert header.max_timestamp == 7 == log.active.largest_timestamp()


@pytest.mark.parametrize("codec", range(5))
def test_no_torn_and_no_lengthened_batch_gets_into_the_log(tmp_path: Path, codec: int) -> None:
    _, _, log = opened(tmp_path)
    whole = build_batch(RECORDS, codec=codec)
    for data in (*(whole[:size] for size in range(len(whole))), whole + b"\0", whole + whole, whole + whole[:30]):
        with pytest.raises(BrokerError) as refused:
            log.append_as_leader(data, 0)
        assert refused.value.error in REFUSALS, len(data)
    assert (log.log_end_offset, log.size) == (0, 0)


@pytest.mark.parametrize("codec", range(5))
def test_no_nonsense_under_a_right_crc_gets_into_a_log_that_looks_at_records(tmp_path: Path, codec: int) -> None:
    """What is stored reads back as two records, however their bytes were changed."""
    _, _, log = opened(tmp_path, WALKED)
    whole = build_batch(RECORDS, codec=codec)
    stored = 0
    for bit in range(8 * HEADER_BYTES, 8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            log.append_as_leader(with_crc(damaged), 0)
            stored += 1
        except BrokerError as refused:
            assert refused.error in REFUSALS, bit
    assert log.log_end_offset == 2 * stored
    if stored:
        read = log.read(0, 1 << 20, log.log_end_offset)
        assert read is not None
        data = b"".join(read.chunks)
        found = [record for place, head in batches(data) for record in records_of(data, head, place)]
        assert [record.offset for record in found] == list(range(2 * stored))

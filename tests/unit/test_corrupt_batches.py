"""Damaged record batches: refused with an error that clients understand, and nothing of them is stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_log import opened
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topic_config import TopicConfig
from zkbroker.records.batch import HEADER_BYTES, batches, with_crc
from zkbroker.records.record import Record, build_batch, records_of

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

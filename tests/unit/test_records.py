"""Record batches: headers, codecs, records; damaged ones end as an error and nothing else."""

from __future__ import annotations

import struct
from pathlib import Path

import cramjam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.records.batch import batches, check_batch, check_produced, cut, read_header, stamp, with_log_append_time
from zkbroker.records.codecs import compress, decompress
from zkbroker.records.record import (
    EndTransaction,
    Record,
    build_batch,
    build_end_transaction,
    end_transaction_of,
    read_varint,
    records_of,
    write_varint,
)
from zkbroker.records.scan import scan, unpack

GOLDEN = Path(__file__).parent.parent / "data" / "kafka-3.9.1" / "data" / "golden-0" / "00000000000000000000.log"

_bytes = st.none() | st.binary(max_size=30)
_records = st.lists(
    st.tuples(
        st.integers(0, 2**41), _bytes, _bytes, st.lists(st.tuples(st.text(max_size=5), _bytes), max_size=3).map(tuple)
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(_records, st.integers(0, 4), st.integers(0, 2**40))
def test_what_is_built_is_read_back(
    rows: list[tuple[int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]], codec: int, base: int
) -> None:
    records = [Record(base + index, *row) for index, row in enumerate(rows)]
    batch = build_batch(records, codec=codec)
    header = check_produced(batch, 1 << 20, origin_client=base == 0)
    assert header == check_batch(batch, 0, len(batch))
    assert list(records_of(batch, header)) == records
    assert scan(unpack(batch, header), header, keys_required=False) == max(record.timestamp for record in records)
    stamped = stamp(b"xx" + batch, 2, header, 77, 5)
    again = check_batch(stamped, 0, len(stamped))
    assert (again.base_offset, again.leader_epoch, again.next_offset) == (77, 5, 77 + len(records))
    assert [record.value for record in records_of(stamped, again)] == [record.value for record in records]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 200), st.integers(0, 255), st.integers(0, 4))
def test_a_changed_byte_is_an_error_or_harmless(place: int, value: int, codec: int) -> None:
    batch = bytearray(build_batch([Record(i, 5, b"k", b"value" * 3) for i in range(6)], codec=codec))
    place %= len(batch)
    is_changed = batch[place] != value
    batch[place] = value
    try:
        check_produced(bytes(batch), 1 << 20, origin_client=True)
    except BrokerError:
        assert is_changed
    else:
        # The leader epoch is the leader's to write, and not under the CRC.
        assert not is_changed or 12 <= place < 16


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 7), st.integers(-3, 1000))
def test_garbage_under_a_valid_crc_is_an_error(body: bytes, codec: int, count: int) -> None:
    head = struct.pack(">hiqqqhii", codec, count - 1, 0, 0, -1, -1, -1, count)
    payload = head + body
    from crc32c import crc32c

    batch = struct.pack(">qiibI", 0, 9 + len(payload), -1, 2, crc32c(payload)) + payload
    try:
        header = check_produced(batch, 1 << 20, origin_client=True)
        scan(unpack(batch, header), header, keys_required=True)
        list(records_of(batch, header))
    except BrokerError as error:
        assert error.error in {
            ErrorCode.CORRUPT_MESSAGE,
            ErrorCode.INVALID_RECORD,
            ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
            ErrorCode.MESSAGE_TOO_LARGE,
        }


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 4))
def test_codecs_undo_each_other(payload: bytes, codec: int) -> None:
    payload = payload * 700
    packed = compress(codec, payload)
    assert decompress(codec, packed, len(payload)) == payload
    if payload:
        with pytest.raises(BrokerError):
            decompress(codec, packed[: len(packed) // 2], len(payload)) if codec else decompress(9, packed, 10)


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_a_bomb_is_refused(codec: int) -> None:
    packed = compress(codec, bytes(1_000_000))
    assert len(packed) < 100_000
    with pytest.raises(BrokerError) as raised:
        decompress(codec, packed, 999_999)
    assert raised.value.error == ErrorCode.MESSAGE_TOO_LARGE


def test_frames_that_others_write() -> None:
    assert decompress(3, bytes(cramjam.lz4.compress(b"abc" * 100)), 1000) == b"abc" * 100
    assert decompress(2, bytes(cramjam.snappy.compress_raw(b"abc" * 100)), 1000) == b"abc" * 100
    with pytest.raises(BrokerError):
        decompress(2, compress(2, b"abc")[:-1], 1000)


def test_kafkas_own_batches() -> None:
    data = GOLDEN.read_bytes()
    found = list(batches(data))
    assert [header.codec for _, header in found] == [0, 1, 2, 3, 4]
    for position, header in found:
        assert check_batch(data, position, len(data)) == header
        assert [record.offset for record in records_of(data, header, position)] == list(
            range(header.base_offset, header.next_offset)
        )


def test_cut_gives_whole_batches_from_the_one_that_holds_the_offset() -> None:
    data = GOLDEN.read_bytes()
    size = len(data)
    assert cut(data, 150, size, 500, True) == (3946, size, 100, 500)
    assert cut(data, 150, 1296 + 1726, 500, True) == (3946, 6968, 100, 300)
    assert cut(data, 150, size, 399, True) == (3946, 6968, 100, 300)
    assert cut(data, 0, 10, 500, True) == (0, 3946, 0, 100)
    assert cut(data, 0, 10, 500, False) == (0, 0, 0, 0)
    assert cut(data[:3000], 0, 10, 500, True) == (0, 0, 0, 0)
    assert cut(data, 500, size, 600, True)[:2] == (0, 0)


def test_the_brokers_time() -> None:
    batch = with_log_append_time(build_batch([Record(0, 5, None, b"v"), Record(1, 9, None, b"w")]), 1234)
    header = check_batch(batch, 0, len(batch))
    assert header.is_log_append_time and header.max_timestamp == 1234
    assert [record.timestamp for record in records_of(batch, header)] == [1234, 1234]


def test_markers() -> None:
    for committed in (True, False):
        batch = build_end_transaction(7, 99, 1000, 3, EndTransaction(committed, 12))
        header = check_batch(batch, 0, len(batch))
        assert (header.is_control, header.is_transactional, header.size) == (True, True, 78)
        assert end_transaction_of(batch, header) == EndTransaction(committed, 12)


def test_a_sequence_wraps_inside_a_batch() -> None:
    records = [Record(i, 1, None, b"") for i in range(3)]
    header = read_header(build_batch(records, producer_id=1, producer_epoch=0, base_sequence=2**31 - 2))
    assert header.last_sequence == 0


@given(st.integers(-(2**63), 2**63 - 1))
@settings(max_examples=100, deadline=None)
def test_varints(value: int) -> None:
    out = bytearray()
    write_varint(value, out)
    assert read_varint(bytes(out), 0) == (value, len(out))
    with pytest.raises(IndexError):
        read_varint(bytes(out[:-1]), 0)


@pytest.mark.parametrize(("codec", "levels"), [(1, (1, -1, 9)), (3, (9, 10, 12, 17)), (4, (-100, 3, 22))])
def test_levels_of_compression(codec: int, levels: tuple[int, ...]) -> None:
    """Every level is read back, and the levels of ``compression.*.level`` differ in what they cost and bring."""
    payload = b"".join(b"%d %d %d;" % (number % 7, number % 11, number * 37 % 1000) for number in range(20_000))
    packed = {level: compress(codec, payload, level) for level in levels}
    for data in packed.values():
        assert decompress(codec, data, len(payload)) == payload
    assert compress(codec, payload) == packed[levels[1] if codec != 3 else 9]
    assert len(packed[levels[-1]]) < len(packed[levels[0]])
    if codec == 1:
        assert packed[-1] == compress(codec, payload, 6)

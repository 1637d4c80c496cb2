"""Whatever is written, and however often it is compacted: the last value of each key is what the model says."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.crash_disk import CrashDisk
from tests.unit.cleaner_tools import SETTINGS, compact, compacted, headers, last_values, put, stored
from tests.unit.log_tools import T0, TOPIC_ID, World
from zkbroker.log.cleaner_batches import split_records
from zkbroker.log.cleaner_map import OffsetMap
from zkbroker.log.log import Log
from zkbroker.model.errors import BrokerError
from zkbroker.records.batch import read_header
from zkbroker.records.record import Record, build_batch, records_of

KEYS = st.sampled_from([b"", b"a", b"b", b"c", b"d" * 300])
VALUES = st.one_of(st.none(), st.binary(max_size=20))
BATCHES = st.tuples(
    st.just("put"),
    st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=5),
    st.integers(0, 4),
    st.sampled_from([-1, 5]),
    st.integers(-1000, 1000),
)
STEPS = st.lists(
    st.one_of(
        BATCHES,
        BATCHES,
        BATCHES,
        st.tuples(st.just("compact"), st.integers(1, 6)),
        st.tuples(st.just("wait"), st.sampled_from([1, 1001])),
        st.tuples(st.just("kill")),
        st.tuples(st.just("restart")),
        st.tuples(st.just("epoch")),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.sampled_from([200, 600, 10_000]))
def test_the_last_value_of_each_key_is_there_after_anything(steps: list[Any], segment_bytes: int) -> None:
    world = World("/mount/logs", config=compacted(segment_bytes=segment_bytes, max_message_bytes=10_000))
    world.disk = CrashDisk()
    dirs = world.open()
    log = dirs.create(T0, TOPIC_ID)
    written: list[Record] = []
    epoch = sequence = 0
    for kind, *more in steps:
        if kind == "put":
            pairs, codec, producer, shift = more
            fields: dict[str, Any] = {"codec": codec, "timestamp": world.clock.now_ms + shift, "epoch": epoch}
            if producer >= 0:
                fields |= {"producer_id": producer, "producer_epoch": 0, "base_sequence": sequence}
                sequence += len(pairs)
            try:
                base = put(log, *pairs, **fields)
            except BrokerError:
                # Larger than a segment.
                sequence -= len(pairs) if producer >= 0 else 0
                continue
            written += [
                Record(base + i, world.clock.now_ms + shift + i, key, value) for i, (key, value) in enumerate(pairs)
            ]
        elif kind == "compact":
            before = log.log_end_offset, log.log_start_offset, log.epochs.entries
            compact(dirs, log, SETTINGS._replace(dedupe_buffer_bytes=24 * more[0]))
            assert before == (log.log_end_offset, log.log_start_offset, log.epochs.entries)
        elif kind == "wait":
            world.clock.now_ms += more[0]
        elif kind == "epoch":
            epoch += 1
            log.assign_epoch(epoch, log.log_end_offset)
        else:
            dirs.close(1) if kind == "restart" else dirs.abandon()
            dirs = world.open()
            log = dirs.logs[T0]
        check(log, written, sequence)
    dirs.abandon()


def check(log: Log, written: list[Record], sequence: int) -> None:
    left = stored(log)
    assert last_values(left) == last_values(written)
    by_offset = {record.offset: record for record in written}
    offsets = [record.offset for record in left]
    assert offsets == sorted(set(offsets))
    assert all(by_offset[record.offset] == record for record in left), "a record is not what was written"
    assert log.log_end_offset == (written[-1].offset + 1 if written else 0)
    ends = [header.next_offset for header in headers(log)]
    assert ends == sorted(ends)
    assert all(header.base_offset >= end for header, end in zip(headers(log)[1:], ends, strict=False))
    last = {one.producer_id: one.last_sequence for one in log.producers.snapshot()}
    assert last == ({5: sequence - 1} if sequence else {})


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.one_of(st.none(), st.binary(max_size=200)), st.one_of(st.none(), st.binary(max_size=200)),
                       st.integers(-(2**40), 2**40)), min_size=1, max_size=8)
)  # fmt: skip
def test_records_are_found_in_the_bytes_as_the_slow_walk_finds_them(fields: list[Any]) -> None:
    batch = build_batch([Record(7 + i, 10**12 + at, key, value) for i, (key, value, at) in enumerate(fields)])
    header = read_header(batch)
    slow = list(records_of(batch, header))
    fast = split_records(batch[61:], header.records_count, header.base_offset)
    assert [(record.offset - 7, record.timestamp - header.base_timestamp, record.key, record.value is not None)
            for record in slow] == [(one.offset_delta, one.timestamp_delta, one.key, one.has_value)
                                    for one in fast]  # fmt: skip
    assert [fast[0].start, fast[-1].end] == [0, len(batch) - 61]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 5))
def test_bytes_that_are_no_records_are_refused_and_nothing_else(body: bytes, count: int) -> None:
    try:
        found = split_records(body, count, 0)
    except BrokerError:
        return
    assert len(found) == count
    assert all(0 <= one.start < one.end <= len(body) for one in found)


@given(st.lists(st.tuples(st.binary(max_size=3), st.integers(0, 1000)), max_size=60), st.integers(1, 40))
def test_the_map_is_a_dictionary_until_it_is_full(puts: list[tuple[bytes, int]], slots: int) -> None:
    offsets, known = OffsetMap(slots * 24, 0.9), dict[bytes, int]()
    for key, offset in puts:
        if offsets.put(key, offset):
            known[key] = offset
        else:
            assert key not in known and len(known) == offsets.capacity
    assert offsets.size == len(known) <= offsets.capacity
    assert all(offsets.get(key) == known.get(key, -1) for key, _ in puts)

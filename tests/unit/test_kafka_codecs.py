"""The listener's codecs against kio's: equal bytes and equal values in every version, and no trust in lengths."""

from __future__ import annotations

import struct
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kio.schema.errors import ErrorCode as KioError

from tests.fakes.broker import FakeBroker
from tests.fakes.kafka_client import Listener, decode, encode, milliseconds, request_schemas, response_schemas
from zkbroker.kafka import api_versions, fetch, group_offsets, metadata, produce
from zkbroker.kafka.messages import decode_request, encode_response, topic_id_to_bytes
from zkbroker.kafka.ports import BrokerView, ConsumedRow, CurrentLeader, ProducedRow
from zkbroker.kafka.versions import FETCH, LIST_OFFSETS, METADATA, OFFSET_COMMIT, PRODUCE, RANGES
from zkbroker.kafka.wire import DECODE_ERRORS, MalformedRequest, Reader, encode_uvarint
from zkbroker.model.errors import BadRecord, ErrorCode
from zkbroker.model.topics import PartitionState, topic_id_from_uuid

names = st.text("abc.-_", min_size=1, max_size=20)
int8s = st.integers(-(2**7), 2**7 - 1)
int16s = st.integers(-(2**15), 2**15 - 1)
int32s = st.integers(-(2**31), 2**31 - 1)
int64s = st.integers(-(2**63), 2**63 - 1)
errors = st.sampled_from([ErrorCode.NONE, ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.UNKNOWN_SERVER_ERROR])
leaders = st.none() | st.builds(CurrentLeader, st.integers(0, 5), st.integers(0, 100))
fast = settings(max_examples=80, deadline=None)

PRODUCE_VERSIONS = range(3, 12)
FETCH_VERSIONS = range(4, 18)


# Produce


@given(st.data(), st.sampled_from(PRODUCE_VERSIONS))
@fast
def test_produce_requests_are_read_as_kio_wrote_them(data: st.DataObject, version: int) -> None:
    s = request_schemas(PRODUCE, version)
    records = st.none() | st.binary(max_size=300)
    partition = st.builds(s.PartitionProduceData, index=int32s, records=records)
    topic = st.builds(s.TopicProduceData, name=names, partition_data=st.lists(partition, max_size=3).map(tuple))
    message = data.draw(
        st.builds(
            s.ProduceRequest,
            transactional_id=st.none() | names,
            acks=int16s,
            timeout=st.integers(0, 2**31 - 1).map(milliseconds),
            topic_data=st.lists(topic, max_size=3).map(tuple),
        )
    )
    raw = encode(message)
    found = produce.decode_body(Reader(raw), version)
    assert found.transactional_id == message.transactional_id
    assert found.acks == message.acks
    assert milliseconds(found.timeout_ms) == message.timeout
    rows = [(t.name, p.index, p.records) for t in message.topic_data for p in t.partition_data]
    assert [(row.topic, row.partition, row.records) for row in found.rows] == rows
    assert [size for _, size in found.topics] == [len(t.partition_data) for t in message.topic_data]
    for cut in range(0, len(raw), 7):
        with pytest.raises(DECODE_ERRORS):
            produce.decode_body(Reader(raw[:cut]), version)


produced_rows = st.builds(
    ProducedRow,
    names,
    int32s,
    errors,
    int64s,
    st.integers(-1, 2**40),
    int64s,
    st.none() | names,
    leaders,
    st.lists(st.builds(BadRecord, int32s, names), max_size=3),
)


def topic_prefix(name: str, flexible: bool) -> bytes:
    raw = name.encode()
    return (encode_uvarint(len(raw) + 1) if flexible else struct.pack(">h", len(raw))) + raw


@given(st.lists(st.tuples(names, st.lists(produced_rows, max_size=3)), max_size=3), st.sampled_from(PRODUCE_VERSIONS))
@fast
def test_produce_responses_are_kios_bytes(topics: list[tuple[str, list[ProducedRow]]], version: int) -> None:
    s = response_schemas(PRODUCE, version)
    services = Listener().factory.services
    services.metadata.views["PLAINTEXT"] = [BrokerView(3, "h3", 93, "r"), BrokerView(4, "h4", 94, None)]  # type: ignore[attr-defined]
    ours = produce.encode_body(
        version,
        [(topic_prefix(name, version >= 9), len(rows)) for name, rows in topics],
        [row for _, rows in topics for row in rows],
        services,
    )
    found = decode(s.ProduceResponse, ours)
    assert [(t.name, len(t.partition_responses)) for t in found.responses] == [(n, len(r)) for n, r in topics]
    flat = [p for t in found.responses for p in t.partition_responses]
    named = []
    for row, sent in zip([row for _, rows in topics for row in rows], flat, strict=True):
        assert (sent.index, sent.error_code.value, sent.base_offset) == (row.partition, row.error, row.base_offset)
        if version >= 5:
            assert sent.log_start_offset == row.log_start
        if version >= 8:
            assert sent.error_message == row.message
            told = [(bad.batch_index, bad.batch_index_error_message) for bad in sent.record_errors]
            assert told == list(row.bad_records)
        if version >= 10 and row.current_leader is not None:
            assert (sent.current_leader.leader_id, sent.current_leader.leader_epoch) == row.current_leader
            named.append(row.current_leader.leader)
    if version >= 10:
        assert [n.node_id for n in found.node_endpoints] == sorted({3, 4}.intersection(named))
    assert encode(found) == ours


# Fetch


def fetch_request(s: Any, version: int) -> st.SearchStrategy[Any]:
    partition: dict[str, Any] = {"partition": int32s, "fetch_offset": int64s, "partition_max_bytes": int32s}
    if version >= 9:
        partition["current_leader_epoch"] = int32s
    if version >= 12:
        partition["last_fetched_epoch"] = int32s
    partitions = st.lists(st.builds(s.FetchPartition, **partition), max_size=3).map(tuple)
    topic = {"topic_id": st.uuids()} if version >= 13 else {"topic": names}
    fields: dict[str, Any] = {
        "max_wait": st.integers(0, 2**31 - 1).map(milliseconds),
        "min_bytes": int32s,
        "max_bytes": int32s,
        "isolation_level": int8s,
        "topics": st.lists(st.builds(s.FetchTopic, **topic, partitions=partitions), max_size=3).map(tuple),
    }
    if version >= 7:
        fields["session_id"] = int32s
        fields["session_epoch"] = int32s
        forgotten = st.builds(s.ForgottenTopic, **topic, partitions=st.lists(int32s, max_size=3).map(tuple))
        fields["forgotten_topics_data"] = st.lists(forgotten, max_size=2).map(tuple)
    if version >= 11:
        fields["rack_id"] = names
    if version >= 12:
        fields["cluster_id"] = st.none() | names
    if version >= 15:
        fields["replica_state"] = st.builds(s.ReplicaState, replica_id=int32s, replica_epoch=int64s)
    else:
        fields["replica_id"] = int32s
    return st.builds(s.FetchRequest, **fields)


@given(st.data(), st.sampled_from(FETCH_VERSIONS))
@fast
def test_fetch_requests_are_read_as_kio_wrote_them(data: st.DataObject, version: int) -> None:
    message = data.draw(fetch_request(request_schemas(FETCH, version), version))
    raw = encode(message)
    reader = Reader(raw)
    found = fetch.decode_body(reader, version)
    assert reader.offset == len(raw)
    replica_id = message.replica_state.replica_id if version >= 15 else message.replica_id
    assert found.replica_id == replica_id
    assert milliseconds(found.max_wait_ms) == message.max_wait
    assert found[2:5] == (message.min_bytes, message.max_bytes, message.isolation_level)
    if version >= 7:
        assert (found.session_id, found.session_epoch) == (message.session_id, message.session_epoch)
    if version >= 13:
        assert [t.encoded for t in found.topics] == [t.topic_id.bytes for t in message.topics]
    else:
        assert [t.name for t in found.topics] == [t.topic for t in message.topics]
    rows = [p for t in message.topics for p in t.partitions]
    assert [(row.partition, row.offset, row.max_bytes) for row in found.rows] == [
        (p.partition, p.fetch_offset, p.partition_max_bytes) for p in rows
    ]
    if version >= 12:
        assert [(row.current_leader_epoch, row.last_fetched_epoch) for row in found.rows] == [
            (p.current_leader_epoch, p.last_fetched_epoch) for p in rows
        ]


consumed_rows = st.builds(
    ConsumedRow,
    st.just(""),
    int32s,
    errors,
    int64s,
    int64s,
    int64s,
    st.none() | st.lists(st.tuples(int64s, int64s), max_size=2).map(tuple),
    st.lists(st.binary(min_size=1, max_size=200), max_size=3),
    st.integers(-1, 9),
    st.integers(0, 99),
    leaders,
)


@given(st.lists(st.lists(consumed_rows, max_size=3), max_size=3), st.sampled_from(FETCH_VERSIONS))
@fast
def test_fetch_responses_are_kios_bytes(topics: list[list[ConsumedRow]], version: int) -> None:
    s = response_schemas(FETCH, version)
    services = Listener().factory.services
    services.metadata.views["PLAINTEXT"] = [BrokerView(3, "h3", 93, "r"), BrokerView(4, "h4", 94, None)]  # type: ignore[attr-defined]
    identity = UUID(int=7).bytes if version >= 13 else topic_prefix("t", version >= 12)
    rows = [row for topic in topics for row in topic]
    chunks, size = fetch.encode_body(
        version, [fetch.FetchTopic(identity, "t", len(topic)) for topic in topics], rows, services
    )
    ours = b"".join(chunks)
    assert size == len(ours)
    found = decode(s.FetchResponse, ours)
    flat = [p for t in found.responses for p in t.partitions]
    for row, sent in zip(rows, flat, strict=True):
        assert (sent.partition_index, sent.error_code.value) == (row.partition, row.error)
        assert (sent.high_watermark, sent.last_stable_offset) == (row.high_watermark, row.last_stable_offset)
        assert sent.records == b"".join(row.records)
        aborted = sent.aborted_transactions
        pairs = None if aborted is None else tuple((a.producer_id, a.first_offset) for a in aborted)
        assert pairs == row.aborted
        if version >= 12:
            diverging = (row.diverging_epoch, row.diverging_end) if row.diverging_epoch >= 0 else (-1, -1)
            assert (sent.diverging_epoch.epoch, sent.diverging_epoch.end_offset) == diverging
            assert (sent.current_leader.leader_id, sent.current_leader.leader_epoch) == (row.current_leader or (-1, -1))
    if version >= 16:
        named = [row.current_leader.leader for row in rows if row.current_leader]
        assert [n.node_id for n in found.node_endpoints] == sorted({3, 4}.intersection(named))
    assert encode(found) == ours


def test_records_are_not_joined() -> None:
    pieces = [b"a" * 1000, memoryview(b"b" * 1000)]
    row = ConsumedRow("t", 0, ErrorCode.NONE, 1, 1, 0, None, pieces)
    chunks, _ = fetch.encode_body(12, [fetch.FetchTopic(b"\x02t", "t", 1)], [row], None)
    assert [chunk for chunk in chunks if len(chunk) == 1000] == pieces
    assert any(chunk is pieces[0] for chunk in chunks)


# Metadata

states = st.builds(
    lambda replicas, leader, epoch: PartitionState("x", tuple(replicas), leader, epoch, tuple(replicas[:1]), 0, 1),
    st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True),
    st.integers(-1, 4),
    st.integers(0, 99),
)


@given(st.dictionaries(st.integers(0, 20), states, max_size=5), st.integers(0, 12), st.booleans())
@fast
def test_metadata_topics_are_kios_bytes(partitions: dict[int, PartitionState], version: int, internal: bool) -> None:
    broker = FakeBroker()
    broker.views["PLAINTEXT"] = [BrokerView(1, "h", 1, None), BrokerView(2, "h", 2, None)]
    view = broker.add_topic("topic", 1, internal)._replace(partitions=partitions)
    ours = metadata.encode_topic(broker, "PLAINTEXT", version, view)
    found = decode(response_schemas(METADATA, version).MetadataResponseTopic, ours)
    assert found.name == "topic"
    assert encode(found) == ours
    if version >= 10:
        assert topic_id_from_uuid(found.topic_id) == view.topic_id
    assert [p.partition_index for p in found.partitions] == sorted(partitions)
    for row in found.partitions:
        state = partitions[row.partition_index]
        reachable = state.leader in (1, 2)
        assert row.leader_id == (state.leader if reachable else -1)
        assert row.error_code is (KioError.none if reachable else KioError.leader_not_available)
        assert row.replica_nodes == state.replicas
        assert row.isr_nodes == state.isr
        if version >= 5:
            assert row.offline_replicas == tuple(r for r in state.replicas if r not in (1, 2))


@given(st.none() | st.lists(st.tuples(st.none() | names, st.none() | st.uuids())), st.booleans(), st.integers(0, 12))
@fast
def test_metadata_requests_are_read_as_kio_wrote_them(
    asked: list[tuple[str | None, UUID | None]] | None, allow: bool, version: int
) -> None:
    s = request_schemas(METADATA, version)
    if asked is None and version == 0:
        asked = []
    if version < 10 and asked is not None:
        asked = [(name or "x", None) for name, _ in asked]
    rows = None
    if asked is not None:
        rows = tuple(
            s.MetadataRequestTopic(name=name, **({"topic_id": topic_id} if version >= 10 else {}))
            for name, topic_id in asked
        )
    fields: dict[str, Any] = {"allow_auto_topic_creation": allow} if version >= 4 else {}
    if version >= 8:
        fields["include_topic_authorized_operations"] = True
    if 8 <= version <= 10:
        fields["include_cluster_authorized_operations"] = False
    raw = encode(s.MetadataRequest(topics=rows, **fields))
    reader = Reader(raw)
    found = metadata.decode_body(reader, version)
    assert reader.offset == len(raw)
    assert found.allow_auto_topic_creation is (allow or version < 4)
    expected = None
    if asked is not None:
        ids = [topic_id_from_uuid(i) if i is not None and i.int else None for _, i in asked]
        expected = list(dict.fromkeys(zip((name for name, _ in asked), ids, strict=True)))
    assert found.topics == expected


# The rest


@pytest.mark.parametrize("version", range(5))
def test_api_versions_are_kios_bytes(version: int) -> None:
    ours = api_versions.encode_body(version, ErrorCode.NONE, RANGES)
    found = decode(response_schemas(18, version).ApiVersionsResponse, ours)
    assert [(row.api_key, row.min_version, row.max_version) for row in found.api_keys] == [
        (api.key, api.minimum, api.maximum) for api in RANGES
    ]
    assert encode(found) == ours


def test_every_advertised_version_is_one_that_kio_knows() -> None:
    for api in RANGES:
        for version in range(api.lowest, api.maximum + 1):
            if (api.key, version) == (OFFSET_COMMIT, 1):
                continue  # read by hand: kio has what Kafka 4 kept
            schema = next(
                value
                for name, value in vars(request_schemas(api.key, version)).items()
                if name.endswith("Request") and getattr(value, "__api_key__", None) == api.key
            )
            assert schema.__flexible__ is (version >= api.flexible_from), (api.name, version)


def test_unknown_tagged_fields_are_passed_over() -> None:
    tags = b"\x02\x63\x03abc\xc8\x01\x00"  # tags 99 and 200
    body = b"\x00\x00\x00\x01\x01\x01" + tags  # ListOffsets 9: replica 1, isolation 1, no topics
    reader = Reader(body)
    message = decode_request(LIST_OFFSETS, 9, reader)
    assert (message.replica_id, message.isolation_level, message.topics) == (1, 1, [])
    assert reader.offset == len(body)
    request = b"\x00\x00\x01\x00\x00\x00\x09\x02\x02t\x02\x00\x00\x00\x05\x03xy" + tags + tags + tags
    found = produce.decode_body(Reader(request), 9)
    assert [(row.topic, row.partition, bytes(row.records or b"")) for row in found.rows] == [("t", 5, b"xy")]


@pytest.mark.parametrize("size", [2**31 - 1, 2**27, 100_000])
def test_a_huge_array_length_is_refused_before_anything_is_allocated(size: int) -> None:
    with pytest.raises(MalformedRequest):
        decode_request(LIST_OFFSETS, 1, Reader(b"\xff\xff\xff\xff" + struct.pack(">i", size) + b"x" * 20))
    with pytest.raises(MalformedRequest):
        produce.decode_body(Reader(b"\x00\x00\x01\x00\x00\x00\x09" + encode_uvarint(size) + b"x" * 20), 9)
    with pytest.raises(MalformedRequest):
        fetch.decode_body(Reader(bytes(21) + encode_uvarint(size) + b"x" * 20), 16)


def test_too_many_elements_are_refused() -> None:
    many = 600_000
    body = struct.pack(">i", many) + bytes(2 * many)
    with pytest.raises(MalformedRequest, match="array length"):
        metadata.decode_body(Reader(body), 1)


@given(
    st.binary(max_size=80), st.sampled_from([(api.key, v) for api in RANGES for v in range(api.lowest, api.maximum)])
)
@settings(max_examples=300, deadline=None)
def test_garbage_raises_nothing_but_decode_errors(garbage: bytes, api: tuple[int, int]) -> None:
    key, version = api
    try:
        if key == PRODUCE:
            produce.decode_body(Reader(garbage), version)
        elif key == FETCH:
            fetch.decode_body(Reader(garbage), version)
        elif key == METADATA:
            metadata.decode_body(Reader(garbage), version)
        elif api == (OFFSET_COMMIT, 1):
            group_offsets._decode_commit_v1(Reader(garbage))
        else:
            decode_request(key, version, Reader(garbage))
    except DECODE_ERRORS as error:
        assert str(error)


@given(st.integers(0, 2**32 - 1))
@fast
def test_uvarints_round_trip(value: int) -> None:
    assert Reader(encode_uvarint(value)).uvarint() == value


def test_an_endless_uvarint_is_refused() -> None:
    with pytest.raises(MalformedRequest):
        Reader(b"\xff" * 10).uvarint()


def test_a_topic_id_that_is_none_becomes_zeros() -> None:
    assert topic_id_to_bytes("not an id") == bytes(16)
    assert topic_id_to_bytes(None) == bytes(16)


def test_a_field_that_is_forgotten_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError, match="topics"):
        encode_response(LIST_OFFSETS, 9, {})

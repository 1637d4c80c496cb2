"""The records of ``__consumer_offsets``, beside those that a Kafka 3.9.1 broker wrote and what its own
``DumpLogSegments --offsets-decoder`` reads in them (``tests/data/kafka-3.9.1/consumer_offsets``, four partitions).

There are members of consumer groups (dynamic, static with a restart, cooperative), offsets with and without leader
epochs, notes and expiries, deleted offsets, deleted groups, and transactions, one of them aborted.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkbroker.coordinator.effects import Now
from zkbroker.coordinator.fields import fits
from zkbroker.coordinator.partitioning import java_hash, partition_for
from zkbroker.coordinator.records import (
    GroupKey,
    MalformedRecord,
    OffsetKey,
    StoredGroup,
    StoredMember,
    StoredOffset,
    UnknownKey,
    group_key,
    group_value,
    offset_key,
    offset_value,
    read_group_value,
    read_key,
    read_offset_value,
)
from zkbroker.coordinator.settings import GroupSettings
from zkbroker.coordinator.shard import GroupShard
from zkbroker.coordinator.subscription import subscribed_topics
from zkbroker.model.groups import DescribeGroup, FetchOffsets
from zkbroker.records.batch import batches
from zkbroker.records.record import Record, end_transaction_of, records_of

DATA = Path(__file__).parent.parent / "data" / "kafka-3.9.1" / "consumer_offsets"
PARTITIONS = 4
LINE = re.compile(r"\| offset: (\d+) .* key: (\{.*?\}\}) payload: (.*)")


def kafka_records(partition: int) -> Iterator[Record]:
    data = (DATA / f"{partition}.log").read_bytes()
    for place, header in batches(data):
        if not header.is_control:
            yield from records_of(data, header, place)


def kafka_reads() -> dict[tuple[int, int], tuple[Any, Any]]:
    """(partition, offset) → the key and value that DumpLogSegments prints."""
    found: dict[tuple[int, int], tuple[Any, Any]] = {}
    partition = -1
    for line in (DATA / "dump.txt").read_text().splitlines():
        if line.startswith("#"):
            partition = int(line[1:])
        elif match := LINE.match(line):
            value = match[3]
            found[partition, int(match[1])] = json.loads(match[2]), json.loads(value) if value[0] == "{" else None
    return found


RECORDS = [(partition, record) for partition in range(PARTITIONS) for record in kafka_records(partition)]


def test_there_is_something_of_each_kind() -> None:
    keys = [read_key(record.key or b"") for _, record in RECORDS]
    assert [(partition, record.offset) for partition, record in RECORDS] == list(kafka_reads())
    assert {type(key) for key in keys} == {OffsetKey, GroupKey}
    assert {record.value is None for _, record in RECORDS} == {True, False}


@pytest.mark.parametrize(("partition", "record"), RECORDS, ids=lambda value: getattr(value, "offset", value))
def test_read_as_kafka_reads_and_written_as_kafka_writes(partition: int, record: Record) -> None:
    key, value = kafka_reads()[partition, record.offset]
    assert record.key is not None
    found = read_key(record.key)
    assert partition_for(found.group_id, PARTITIONS) == partition  # type: ignore[union-attr]
    if isinstance(found, OffsetKey):
        assert key == {
            "type": "1",
            "data": {"group": found.group_id, "topic": found.topic, "partition": found.partition},
        }
        assert offset_key(*found) == record.key
    else:
        assert isinstance(found, GroupKey)
        assert key == {"type": "2", "data": {"group": found.group_id}}
        assert group_key(found.group_id) == record.key
    if record.value is None:
        assert value is None
    elif isinstance(found, OffsetKey):
        offset = read_offset_value(record.value)
        assert offset_json(offset) == value
        assert offset_value(offset) == record.value
    else:
        group = read_group_value(record.value)
        for member in value["data"]["members"]:
            # It looks into these two; that their bytes are kept shows in what is written.
            member["topics"] = member.pop("subscription")["topics"]
            del member["assignment"]
        assert group_json(group) == value
        assert group_value(group) == record.value


def offset_json(stored: StoredOffset) -> Any:
    fields: dict[str, Any] = {"offset": stored.offset}
    if stored.expire_timestamp_ms == -1:
        fields["leaderEpoch"] = stored.leader_epoch
    fields |= {"metadata": stored.metadata, "commitTimestamp": stored.commit_timestamp_ms}
    if stored.expire_timestamp_ms != -1:
        fields["expireTimestamp"] = stored.expire_timestamp_ms
    return {"version": "1" if "expireTimestamp" in fields else "3", "data": fields}


def group_json(stored: StoredGroup) -> Any:
    members = [
        {
            "memberId": member.member_id,
            "groupInstanceId": member.group_instance_id,
            "clientId": member.client_id,
            "clientHost": member.client_host,
            "rebalanceTimeout": member.rebalance_timeout_ms,
            "sessionTimeout": member.session_timeout_ms,
            "topics": list(subscribed_topics(member.subscription) or ()),
        }
        for member in stored.members
    ]
    fields = {
        "protocolType": stored.protocol_type,
        "generation": stored.generation,
        "protocol": stored.protocol_name,
        "leader": stored.leader_id,
        "currentStateTimestamp": stored.state_timestamp_ms,
        "members": members,
    }
    return {"version": "3", "data": fields}


def test_a_shard_loaded_with_what_kafka_wrote() -> None:
    shard = GroupShard(GroupSettings(), lambda: "x")
    now = Now(0.0, 1_795_386_182_000)
    for partition in range(PARTITIONS):
        data = (DATA / f"{partition}.log").read_bytes()
        for place, header in batches(data):
            if header.is_control:
                marker = end_transaction_of(data, header, place)
                assert marker is not None
                shard.transaction_ended(header.producer_id, is_committed=marker.committed)
                continue
            for record in records_of(data, header, place):
                shard.replay(record.key, record.value, header.producer_id if header.is_transactional else -1)
    while not shard.take_up():
        pass
    assert not shard.is_loaded
    shard.loaded(now)
    assert (shard.malformed, shard.foreign) == (0, 0)
    listed = {group.group_id: (group.state, group.protocol_type) for group in shard.list_groups()}
    assert listed == {
        "expiring": ("Empty", ""),
        "golden-group": ("Empty", "consumer"),
        "cooperative": ("Empty", "consumer"),
        "statisch-ü-😀": ("Stable", "consumer"),
        "simple": ("Empty", ""),
        "transactional": ("Empty", ""),
    }
    committed = {}
    for group_id in listed:
        (answer,) = shard.handle(1, FetchOffsets(group_id, None), now)
        committed[group_id] = {row[:2]: row.offset for row in answer.answer.rows}  # type: ignore[union-attr]
    assert committed == {
        "expiring": {("t", 2): 6},
        "golden-group": {("t", 0): 3, ("t", 1): 4},
        "cooperative": {("t", 0): 10, ("t", 1): 10, ("t", 2): 10},
        "statisch-ü-😀": {("t", 0): 10, ("t", 1): 10, ("t", 2): 10},
        "simple": {("t", 0): 9, ("u", 0): 1},
        "transactional": {("t", 1): 5},
    }
    (described,) = shard.handle(2, DescribeGroup("statisch-ü-😀"), now)
    (member,) = described.answer.members  # type: ignore[union-attr]
    assert member.group_instance_id == "instance-1"
    assert member.member_id == "instance-1-24520e63-5c7b-450a-96ad-730eb79ec8ba"
    assert subscribed_topics(member.metadata) == ("t",)
    assert member.assignment[6:9] == b"\x00\x01t"


# --- versions that Kafka 3.9 does not write, by hand from its message definitions ---

STRING_T = b"\x00\x01t"
MEMBER = StoredMember("m", None, "c", "/h", 7, 5, b"S", b"A")


def test_offset_values_of_every_version() -> None:
    offset, time = struct.pack(">q", 9), struct.pack(">q", 1000)
    versions = {
        b"\x00\x00" + offset + STRING_T + time: StoredOffset(9, -1, "t", 1000),
        b"\x00\x01" + offset + STRING_T + time + struct.pack(">q", 2000): StoredOffset(9, -1, "t", 1000, 2000),
        b"\x00\x02" + offset + STRING_T + time: StoredOffset(9, -1, "t", 1000),
        b"\x00\x03" + offset + b"\x00\x00\x00\x05" + STRING_T + time: StoredOffset(9, 5, "t", 1000),
        # A compact string, and a tagged field that nobody knows.
        b"\x00\x04" + offset + b"\x00\x00\x00\x05\x02t" + time + b"\x01\x07\x02xy": StoredOffset(9, 5, "t", 1000),
    }
    assert [read_offset_value(value) for value in versions] == list(versions.values())


@pytest.mark.parametrize("version", range(5))
def test_group_values_of_every_version(version: int) -> None:
    flexible = version == 4

    def string(text: str) -> bytes:
        return bytes([len(text) + 1] if flexible else [0, len(text)]) + text.encode()

    def blob(content: bytes) -> bytes:
        return (bytes([len(content) + 1]) if flexible else struct.pack(">i", len(content))) + content

    value = struct.pack(">h", version) + string("consumer") + struct.pack(">i", 3) + string("range") + string("m")
    if version >= 2:
        value += struct.pack(">q", 1234)
    value += b"\x02" if flexible else b"\x00\x00\x00\x01"
    value += string("m")
    if version >= 3:
        value += b"\x00" if flexible else b"\xff\xff"
    value += string("c") + string("/h")
    if version >= 1:
        value += struct.pack(">i", 7)
    value += struct.pack(">i", 5) + blob(b"S") + blob(b"A")
    if flexible:
        value += b"\x00\x00"
    expected = StoredGroup(
        "consumer",
        3,
        "range",
        "m",
        1234 if version >= 2 else -1,
        (MEMBER if version else MEMBER._replace(rebalance_timeout_ms=5),),
    )
    assert read_group_value(value) == expected
    assert read_group_value(value + b"trailing") == expected


def test_keys_of_every_version() -> None:
    assert read_key(b"\x00\x00" + STRING_T + STRING_T + b"\x00\x00\x00\x04") == OffsetKey("t", "t", 4)
    assert read_key(offset_key("g", "t", 4)) == OffsetKey("g", "t", 4)
    assert read_key(b"\x00\x02" + STRING_T) == GroupKey("t")
    assert read_key(b"\x00\x03" + STRING_T) == UnknownKey(3)
    assert read_key(b"\xff\xff") == UnknownKey(-1)


MALFORMED = (b"", b"\x00", b"\x00\x01", b"\x00\x01\x00\x05ab", b"\x00\x02\xff\xff", b"\x00\x02\x80\x00")


@pytest.mark.parametrize("key", MALFORMED, ids=repr)
def test_malformed_keys(key: bytes) -> None:
    with pytest.raises(MalformedRecord):
        read_key(key)


@given(st.binary(max_size=60), st.none() | st.binary(max_size=80), st.integers(-1, 2))
def test_no_bytes_make_a_shard_raise(key: bytes, value: bytes | None, producer_id: int) -> None:
    shard = GroupShard(GroupSettings(), lambda: "x")
    for version in range(6):
        for inner in range(6):
            prefix = struct.pack(">h", inner)
            shard.replay(struct.pack(">h", version) + key, None if value is None else prefix + value, producer_id)
    shard.replay(group_key("g"), value, producer_id)
    shard.replay(None, value)
    shard.transaction_ended(producer_id, is_committed=True)
    shard.loaded(Now(0.0, 0))
    assert shard.is_loaded
    for group_id in shard.group_ids():
        shard.handle(1, DescribeGroup(group_id), Now(0.0, 0))
        shard.expire_offsets(group_id, Now(0.0, 2**62))


def test_members_that_contradict_each_other_are_left_out() -> None:
    twin, other = MEMBER._replace(subscription=b"T"), MEMBER._replace(member_id="n")
    static = MEMBER._replace(member_id="s", group_instance_id="i")
    rows = (MEMBER, twin, other, static, static._replace(member_id="s2"))
    shard = GroupShard(GroupSettings(), lambda: "x")
    shard.replay(group_key("g"), group_value(StoredGroup("consumer", 2**31 - 1, "range", "nobody", -1, rows)))
    shard.replay(group_key("h"), group_value(StoredGroup("consumer", 3, None, "m", -1, (MEMBER,))))
    shard.loaded(Now(0.0, 0))
    members = {}
    for group_id in shard.group_ids():
        (answer,) = shard.handle(1, DescribeGroup(group_id), Now(0.0, 0))
        members[group_id] = [(member.member_id, member.metadata) for member in answer.answer.members]  # type: ignore[union-attr]
    assert members == {"g": [("m", b"S"), ("n", b"S"), ("s", b"S")], "h": []}


def test_the_log_says_what_was_passed_over() -> None:
    shard = GroupShard(GroupSettings(), lambda: "x")
    shard.replay(b"\x00\x01\x00", b"")
    shard.replay(group_key("g\n"), b"\x00\x07")
    shard.replay(b"\x00\x08anything", b"")
    effects = shard.loaded(Now(0.0, 0))
    assert (shard.malformed, shard.foreign) == (2, 1)
    (line,) = [effect.line for effect in effects]  # type: ignore[union-attr]
    assert line.startswith("2 records of groups were passed over; the first: a key is malformed: ")


def test_java_hash() -> None:
    # As Java's String.hashCode() says; the last is Integer.MIN_VALUE.
    assert java_hash("") == 0
    assert java_hash("a") == 97
    assert java_hash("console-consumer-12345") == 158455506
    assert java_hash("ü-😀") == 9323476
    assert java_hash("zzzzzzzz") < 0
    assert java_hash("polygenelubricants") == -(2**31)
    assert partition_for("polygenelubricants", 50) == 0
    assert partition_for("zzzzzzzz", 50) == -java_hash("zzzzzzzz") % 50, "the abs, not the bits without the sign"
    assert partition_for("console-consumer-12345", 50) == 6
    assert java_hash("\ud800") == 0xD800, "half a pair does not raise"


def test_what_can_be_stored() -> None:
    assert fits("x" * 32_767)
    assert not fits("x" * 32_768)
    assert fits("ü" * 16_383)
    assert not fits("ü" * 16_384)
    assert offset_key("\ud800", "t", 0) == offset_key("?", "t", 0)
    with pytest.raises(ValueError, match="a string of 32768 bytes"):
        offset_key("x" * 32_768, "t", 0)


@pytest.mark.parametrize(
    ("metadata", "topics"),
    [
        (b"\x00\x00\x00\x00\x00\x02\x00\x01t\x00\x01u\xff\xff\xff\xff", ("t", "u")),
        (b"\x00\x09\x00\x00\x00\x00whatever comes later", ()),
        (b"\xff\xff\x00\x00\x00\x00", None),
        (b"", None),
        (b"\x00\x00\x7f\xff\xff\xff", None),
        (b"\x00\x00\x00\x00\x00\x01\xff\xff", None),
        (b"\x00\x00\x00\x00\x00\x01\x00\x05t", None),
    ],
)
def test_subscriptions(metadata: bytes, topics: tuple[str, ...] | None) -> None:
    assert subscribed_topics(metadata) == topics

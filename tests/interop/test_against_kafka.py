"""The same raw requests to a Kafka 3.9.1 broker and to zkbroker: every API and version that zkbroker advertises.

A difference fails unless it stands in ``tests/harness/kafka_differences.py`` with its reason; what is normalised
``tests/harness/differential.py`` says. Needs ZKBROKER_KAFKA_LIBS.
"""

from __future__ import annotations

import gzip
import os
import struct
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kio.index import load_request_schema

from tests.fakes.kafka_client import request_bytes
from tests.harness.brokers import wait_until
from tests.harness.differential import T0, Comparison, Peer, batch, build, frame, now_ms, record
from tests.harness.kafka_differences import ACCEPTED, can_create, create, gives_ids, new_name, produce, served
from zkbroker.kafka import versions as v

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif("ZKBROKER_KAFKA_LIBS" not in os.environ, reason="ZKBROKER_KAFKA_LIBS is not set"),
]
EPOCHS = ("current_leader_epoch", "last_fetched_epoch")


@pytest.fixture(scope="module")
def peers(kafka_and_ours: tuple[int, int]) -> Iterator[tuple[Peer, Peer]]:
    kafka, ours = Peer("kafka", kafka_and_ours[0]), Peer("zkbroker", kafka_and_ours[1])
    for peer in (kafka, ours):
        wait_until(lambda peer=peer: can_create(peer), f"{peer} has a controller", 90)  # type: ignore[misc]
    yield kafka, ours
    kafka.close()
    ours.close()


@pytest.fixture
def run(peers: tuple[Peer, Peer]) -> Comparison:
    return Comparison(peers, ACCEPTED)


@pytest.fixture(scope="module")
def written(peers: tuple[Peer, Peer]) -> tuple[str, str]:
    """A topic of five batches of three records each, and an empty one."""
    run = Comparison(peers, ACCEPTED)
    t, empty = create(run), create(run)
    for number in range(5):
        produce(run, "to be fetched", t, batch(*[b"%d" % number] * 3))
    run.check()
    return t, empty


@pytest.mark.parametrize("version", served(v.PRODUCE))
def test_produce(run: Comparison, version: int) -> None:
    t, timed, small = (
        create(run),
        create(run, message_timestamp_type="LogAppendTime"),
        create(run, max_message_bytes="200"),
    )
    one = batch(b"v")
    for acks in (-1, 0, 1, 2, -2):
        if acks:
            produce(run, f"acks {acks}", t, one, version, acks=acks)
    produce(run, "three", t, batch(b"a", None, b"c", key=b"k"), version)
    produce(run, "LogAppendTime", timed, one, version)
    produce(run, "unknown topic", "nowhere", one, version)
    produce(run, "unknown partition", t, one, version, 7)
    produce(run, "negative partition", t, one, version, -1)
    produce(run, "no records", t, b"", version)
    produce(run, "two batches", t, one + one, version)
    produce(run, "large", small, batch(b"v" * 300), version)
    produce(run, "gzip", t, batch(b"v", attributes=1, payload=gzip.compress(record(b"v"))), version)
    produce(run, "no topics", t, None, version, topic_data=[])
    produce(run, "no partitions", t, None, version, topic_data=[{"name": t}])
    transactional = batch(b"v", attributes=16, producer_id=4000, producer_epoch=0, sequence=0)
    produce(run, "transactional without id", t, transactional, version)
    produce(run, "not transactional with id", t, one, version, transactional_id="tx")
    run.check()


def test_produce_null_records(run: Comparison) -> None:
    topic = create(run)
    kafka, _ = run.peers
    usual_s, kafka.timeout_s = kafka.timeout_s, 1.0
    kafka.close()
    try:
        produce(run, "null records", topic, None)
    finally:
        kafka.close()
        kafka.timeout_s = usual_s
    run.check()


def test_batches_that_are_refused(run: Comparison) -> None:
    """Each to a topic of its own partition, so that what one broker took does not shift the next answer."""
    plain = batch(b"v")
    zipped = {"attributes": 1, "payload": gzip.compress(record(b"v") + record(b"w", delta=1))}
    cases = {
        "no record": batch(),
        "count 0": batch(b"v", count=0),
        "count -1": batch(b"v", count=-1),
        "count 2 of 1": batch(b"v", count=2),
        "count and delta of 2 in 1": batch(b"v", count=2, last_delta=1),
        "delta -1": batch(b"v", last_delta=-1),
        "delta 100": batch(b"v", last_delta=100),
        "bad CRC": batch(b"v", crc=1),
        **{f"magic {magic}": batch(b"v", magic=magic) for magic in (0, 1, 3, -1)},
        **{f"length {length}": batch(b"v", length=length) for length in (-1, 0, 13, 14, 30, 48, 55, 1000, 2**31 - 1)},
        **{f"cut to {size}": plain[:size] for size in (5, 11, 12, 16, 17, 40, 60, len(plain) - 1)},
        "zeros": bytes(100),
        **{f"codec {codec}": batch(b"v", attributes=codec) for codec in (5, 6, 7)},
        "LogAppendTime claimed": batch(b"v", attributes=8),
        "control": batch(b"\0" * 6, attributes=0x20, key=b"\0\0\0\1"),
        "control of a transaction": batch(b"\0" * 6, attributes=0x30, key=b"\0\0\0\1", producer_id=5, producer_epoch=0),
        "transaction without producer": batch(b"v", attributes=16),
        "base offset 5": batch(b"v", base_offset=5),
        "above message.max.bytes": batch(b"v" * 200_000),
        "time -1": batch(b"v", first_timestamp=-1),
        "largest time wrong": batch(b"v", b"w", max_timestamp=T0 - 100),
        "bytes after it": plain + plain[:40],
        "opaque gzip of fewer": batch(b"v", b"w", b"x", **zipped),
        "opaque garbage": batch(b"v", attributes=1, payload=b"no gzip at all"),
        "opaque record of a bad length": batch(b"v", payload=b"\x7f" + record(b"v")[1:]),
        "producer without sequence": batch(b"v", producer_id=4001, producer_epoch=0),
        "producer without epoch": batch(b"v", producer_id=4001, sequence=0),
        "producer -2": batch(b"v", producer_id=-2),
        "sequence without any": batch(b"v", sequence=0),
    }
    t = create(run, partitions=len(cases))
    for partition, (case, records) in enumerate(cases.items()):
        for version in (3, 11):
            produce(run, case, t, records, version, partition)
    run.check()


def test_what_topics_ask_of_records(run: Comparison) -> None:
    bounded = create(run, message_timestamp_before_max_ms="3600000", message_timestamp_after_max_ms="3600000")
    for case, time_ms in {"old": T0, "ahead": now_ms() + 7_200_000, "near": now_ms() + 1000, "none": -1}.items():
        produce(run, f"time {case}", bounded, batch(b"v", first_timestamp=time_ms), 11)
    compact = create(run, cleanup_policy="compact")
    produce(run, "compact without key", compact, batch(b"v"))
    produce(run, "compact tombstone", compact, batch(None, key=b"k"))
    produce(run, "compressed by the broker", create(run, compression_type="gzip"), batch(b"v"))
    produce(run, "above segment.bytes", create(run, segment_bytes="1000"), batch(b"v" * 2000))
    produce(
        run,
        "LogAppendTime claimed of it",
        create(run, message_timestamp_type="LogAppendTime"),
        batch(b"v", attributes=8),
    )
    few = create(run, min_insync_replicas="2")
    for acks in (-1, 1):
        produce(run, f"below min.insync.replicas, acks {acks}", few, batch(b"v"), 9, acks=acks)
    run.check()


def test_idempotent_producers(run: Comparison) -> None:
    top = 2**31 - 1
    cases: dict[str, list[tuple[int, int, int]]] = {
        # (first sequence, number of records, epoch) of each batch
        "a duplicate": [(0, 1, 0), (1, 1, 0), (2, 1, 0), (1, 1, 0), (0, 1, 0), (2, 1, 0)],
        "a duplicate of the last five": [*((n, 1, 0) for n in range(7)), (2, 1, 0), (1, 1, 0), (0, 1, 0)],
        "a newer epoch": [(0, 1, 0), (0, 1, 1), (1, 1, 1), (0, 1, 0), (1, 1, 2)],
        "out of order": [(0, 1, 0), (2, 1, 0), (1, 1, 0), (3, 1, 0)],
        "an unknown producer": [(5, 1, 0), (6, 1, 0)],
        "overlapping": [(0, 3, 0), (1, 2, 0), (1, 3, 0), (0, 2, 0)],
        "wrapping": [(top - 1, 2, 0), (0, 1, 0), (1, 1, 0)],
        "wrapping inside": [(top - 1, 4, 0), (2, 1, 0)],
        "the last epoch": [(0, 1, 32767), (1, 1, 32767)],
    }
    t = create(run, partitions=len(cases))
    for partition, (case, batches) in enumerate(cases.items()):
        for sequence, count, epoch in batches:
            fields = {"producer_id": 9000, "producer_epoch": epoch, "sequence": sequence}
            produce(run, case, t, batch(*[b"v"] * count, **fields), 9, partition)
    t = create(run)
    fields = {"producer_id": 9001, "producer_epoch": 0, "sequence": 0, "attributes": 16}
    produce(run, "id of a transaction nobody began", t, batch(b"v", **fields), 9, transactional_id="tx")
    run.check()


def test_acks_0(run: Comparison) -> None:
    t = create(run)

    def answers(peer: Peer, topic: str, records: bytes) -> list[Any]:
        data = [{"name": topic, "partition_data": [{"index": 0, "records": records}]}]
        request = build(load_request_schema(v.PRODUCE, 9), {"acks": 0, "topic_data": data})
        follow_up = build(load_request_schema(v.API_VERSIONS, 0), {})
        found = peer.send_raw(request_bytes(request) + request_bytes(follow_up, 5))
        return [answer if isinstance(answer, str) else answer[:4] for answer in found]

    for topic, records in ((t, batch(b"v")), (t, batch(b"v", crc=1)), (t, b""), ("nowhere", batch(b"v"))):
        run.both(f"acks=0 {records[:20]!r}", lambda peer, topic=topic, records=records: answers(peer, topic, records))  # type: ignore[misc]
    run.check()


@pytest.mark.parametrize("version", served(v.FETCH))
def test_fetch(run: Comparison, written: tuple[str, str], version: int) -> None:
    t, empty = written
    size = len(batch(*[b"0"] * 3))

    def fetch(case: str, topic: str = t, topic_id: uuid.UUID | None = None, **fields: Any) -> None:
        row = {"partition": 0, "fetch_offset": 0, "partition_max_bytes": 10**6}
        row.update({name: fields.pop(name) for name in [*fields] if name in (*row, *EPOCHS)})
        rows = fields.pop("rows", [row])
        fields = {"replica_id": -1, "max_wait": 20, "min_bytes": 1, "max_bytes": 10**7, "session_epoch": -1, **fields}

        def answer(peer: Peer) -> Any:
            name = {"topic_id": topic_id or peer.ids.get(topic)} if version >= 13 else {"topic": topic}
            return peer.ask(v.FETCH, version, topics=[{**name, "partitions": rows}], **fields)

        run.both(f"fetch {case} v{version}", answer)

    for offset in (0, 4, 14, 15, 16, -1, -5):
        fetch(f"at {offset}", fetch_offset=offset)
    fetch("empty", empty)
    fetch("beyond empty", empty, fetch_offset=1)
    for limit in (0, 1):
        fetch(f"max bytes {limit}", max_bytes=limit)
        fetch(f"partition max bytes {limit}", partition_max_bytes=limit)
    fetch("negative bytes", max_bytes=-1)
    fetch("negative bytes of a partition", partition_max_bytes=-1)
    fetch("two batches", partition_max_bytes=2 * size)
    fetch("two batches and a bit", partition_max_bytes=2 * size + 5)
    fetch("two batches and a bit of all", max_bytes=2 * size + 5)
    fetch("less than min bytes", min_bytes=10**6)
    fetch("no wait", min_bytes=10**6, max_wait=0)
    fetch("unknown partition", partition=9)
    fetch("negative partition", partition=-1)
    fetch("unknown topic", "nowhere", uuid.UUID(int=9))
    for isolation in (1, 2):
        fetch(f"isolation {isolation}", isolation_level=isolation)
    for epoch in (0, 5) if version >= 9 else ():
        fetch(f"current epoch {epoch}", current_leader_epoch=epoch)
    for epoch, offset in ((0, 4), (5, 4), (0, 99), (5, 99)) if version >= 12 else ():
        fetch(f"last epoch {epoch} at {offset}", last_fetched_epoch=epoch, fetch_offset=offset)
    good, bad = {"partition": 0, "partition_max_bytes": 1000}, {"partition": 5, "partition_max_bytes": 100}
    fetch("a good and a bad partition", rows=[good, bad])
    for session_id, epoch in ((0, 0), (123, 1), (123, -1), (0, 5), (0, -7)) if version >= 7 else ():
        fetch(f"session {session_id} {epoch}", session_id=session_id, session_epoch=epoch)
    fetch("a follower", **({"replica_id": 7} if version < 15 else {"replica_state": {"replica_id": 7}}))
    run.ask("fetch nothing", v.FETCH, version, max_wait=0, session_epoch=-1, topics=[])
    run.check()


def test_list_offsets(run: Comparison) -> None:
    t, empty, untimed = create(run), create(run), create(run)
    for first, step in ((T0, 1000), (T0 + 10_000, 1000), (T0 + 30_000, -1000)):
        last = max(first, first + 2 * step)
        produce(run, "timed", t, batch(b"1", b"2", b"3", first_timestamp=first, step=step, max_timestamp=last))
    produce(run, "untimed", untimed, batch(b"1", first_timestamp=-1))
    times = [0, *(T0 + after for after in (-1, 0, 1, 1000, 1999, 2000, 2001, 10_000, 28_500, 30_000, 30_001)), 2**62]
    for version in served(v.LIST_OFFSETS):

        def ask(case: str, *rows: dict[str, Any], topic: str = t, version: int = version, **fields: Any) -> None:
            wanted = [{"partition_index": 0, "current_leader_epoch": -1, **row} for row in rows]
            fields = {"replica_id": -1, "topics": [{"name": topic, "partitions": wanted}], **fields}
            run.ask(f"offsets {case}", v.LIST_OFFSETS, version, **fields)

        for time_ms in (-1, -2, -3, -4, -5, -6, *times):
            ask(f"at {time_ms}", {"timestamp": time_ms})
        for time_ms in (-1, -2, -3, -4, -5, 0, T0):
            ask(f"empty {time_ms}", {"timestamp": time_ms}, topic=empty)
            ask(f"untimed {time_ms}", {"timestamp": time_ms}, topic=untimed)
        ask("unknown topic", {"timestamp": -1}, topic="nowhere")
        ask("unknown partition", {"timestamp": -1, "partition_index": 5})
        ask("negative partition", {"timestamp": -1, "partition_index": -1})
        ask("twice", {"timestamp": -1}, {"timestamp": -2})
        for isolation in (1, 2):
            ask(f"isolation {isolation}", {"timestamp": -1}, isolation_level=isolation)
        for epoch in (0, 9) if version >= 4 else ():
            ask(f"current epoch {epoch}", {"timestamp": -1, "current_leader_epoch": epoch})
    for version in served(v.OFFSET_FOR_LEADER_EPOCH):
        for case, topic, row in (
            *((f"{epoch}", t, {"leader_epoch": epoch}) for epoch in (-1, 0, 1, 5, -5)),
            *((f"of empty {epoch}", empty, {"leader_epoch": epoch}) for epoch in (-1, 0, 1)),
            *((f"current {epoch}", t, {"leader_epoch": 0, "current_leader_epoch": epoch}) for epoch in (0, 5, -3)),
            ("unknown topic", "nowhere", {"leader_epoch": 0}),
            ("unknown partition", t, {"leader_epoch": 0, "partition": 5}),
        ):
            rows = [{"partition": 0, "current_leader_epoch": -1, **row}]
            topics = [{"topic": topic, "partitions": rows}]
            run.ask(f"epochs {case}", v.OFFSET_FOR_LEADER_EPOCH, version, replica_id=-1, topics=topics)
    run.check()


@pytest.mark.parametrize("version", served(v.METADATA))
def test_metadata(run: Comparison, written: tuple[str, str], version: int) -> None:
    t, three = written[0], create(run, partitions=3)
    flags = {"include_cluster_authorized_operations": True, "include_topic_authorized_operations": True}

    def ask(case: str, *topics: tuple[str | None, str | uuid.UUID | None], **fields: Any) -> None:
        def answer(peer: Peer) -> Any:
            rows = [{"name": name, "topic_id": peer.ids.get(wish, wish)} for name, wish in topics]
            return peer.ask(v.METADATA, version, topics=rows, **{"allow_auto_topic_creation": False, **fields})

        run.both(f"metadata {case} v{version}", answer)

    ask("of two", (three, None), (t, None))
    ask("of one twice", (t, None), (t, None))
    ask("with operations", (t, None), **flags)
    if version:
        ask("of none")
    for name in ("nowhere", "", ".", "..", "a b", "a/b", "x" * 249, "x" * 250) if version >= 4 else ():
        ask(f"of {name[:9]!r}", (name, None))
    for wish in (t, uuid.UUID(int=5)) if version >= 10 else ():
        ask(f"by id {wish}", (None, wish))
        ask(f"id over name {wish}", (three, wish))
    if version >= 10:
        ask("id and name in two rows", (None, t), (three, None))
        ask("nothing to go by", (None, None))
    if version:
        name = new_name()
        ask("a new one", (name, None), allow_auto_topic_creation=True)
        ask("an impossible one", ("a b", None), allow_auto_topic_creation=True)
    run.check()


@pytest.mark.parametrize("version", served(v.CREATE_TOPICS))
def test_create_topics(run: Comparison, version: int) -> None:
    old = create(run)

    def ask(case: str, *topics: dict[str, Any], **fields: Any) -> None:
        rows = [{"name": new_name(), "num_partitions": 1, "replication_factor": 1, **topic} for topic in topics]
        run.ask(f"create {case}", v.CREATE_TOPICS, version, topics=rows, **{"timeout": 10_000, **fields})

    def config(*pairs: tuple[str, str | None]) -> dict[str, Any]:
        return {"configs": [{"name": name, "value": value} for name, value in pairs]}

    def assigned(*rows: tuple[int, list[int]], **fields: int) -> dict[str, Any]:
        wanted = [{"partition_index": number, "broker_ids": brokers} for number, brokers in rows]
        return {"num_partitions": -1, "replication_factor": -1, "assignments": wanted, **fields}

    ask("one", {})
    ask("defaults", {"num_partitions": -1, "replication_factor": -1})
    ask("three, only validated", {"num_partitions": 3}, validate_only=True)
    for count in (0, -2):
        ask(f"{count} partitions", {"num_partitions": count})
        ask(f"{count} replicas", {"replication_factor": count})
    for name in (old, "", ".", "..", "a b", "a/b", "x" * 250):
        ask(f"name {name[:9]!r}", {"name": name})
    ask("two replicas", {"replication_factor": 2}, validate_only=True)
    ask("a dot", {"name": f"dots.{version}"})
    ask("a collision", {"name": f"dots_{version}"})
    ask("named twice", {"name": f"twice{version}"}, {"name": f"twice{version}"})
    ask("in no time (timeout)", {}, timeout=0)
    for pairs in (
        [("retention.ms", "1000"), ("cleanup.policy", "compact,delete")],
        *([pair] for pair in (("retention.ms", "abc"), ("retention.ms", ""), ("retention.ms", None), ("a.b", "1"))),
        *(
            [pair]
            for pair in (("segment.bytes", "1"), ("cleanup.policy", "x"), ("min.insync.replicas", "0"), ("", "1"))
        ),
        *([pair] for pair in (("retention.ms", " 5 "), ("leader.replication.throttled.replicas", "x"))),
        [("compression.gzip.level", "99")],
        [("local.retention.ms", "100"), ("retention.ms", "5")],
        [("retention.ms", "1"), ("retention.ms", "2")],
    ):
        ask(f"with {pairs}", config(*pairs))
    ask("assigned", assigned((1, [1]), (0, [1])))
    ask("assigned and counted", assigned((0, [1]), num_partitions=1))
    ask("assigned and replicated", assigned((0, [1]), replication_factor=1))
    ask("assigned with a gap", assigned((0, [1]), (2, [1])))
    ask("assigned unevenly", assigned((0, [1]), (1, [1, 9])))
    ask("assigned to one twice", assigned((0, [1, 1])))
    for rows in ([(0, [9])], [(-1, [1])]):
        ask(f"bad assignment {rows}", assigned(*rows), validate_only=True)
    run.check()


def test_partitions_and_deletion(run: Comparison) -> None:
    for version in served(v.CREATE_PARTITIONS):
        t = create(run, partitions=2)
        for name, count, brokers in (
            *((t, count, None) for count in (1, 2, 0, -1)),
            *((name, 3, None) for name in ("nowhere", "a b", "")),
            *((t, 3, brokers) for brokers in ([[1], [1]], [], [[9]], [[1, 1]], [[1, 2]], [[]], [[-1]])),
            (t, 4, [[1]]),
            (t, 3, None),
            (t, 4, [[1]]),
        ):
            wish = None if brokers is None else [{"broker_ids": one} for one in brokers]
            topics = [{"name": name, "count": count, "assignments": wish}]
            for validate_only in (True, False):
                fields = {"topics": topics, "timeout": 10_000, "validate_only": validate_only}
                case = f"partitions of {name!r} {count} {brokers}"
                run.ask(case, v.CREATE_PARTITIONS, version, **fields)
        topics = [{"name": t, "count": count, "assignments": None} for count in (5, 6)]
        run.ask("partitions named twice", v.CREATE_PARTITIONS, version, topics=topics)
    for version in served(v.DELETE_TOPICS):
        t, u = create(run), create(run)
        wishes: list[list[tuple[str | None, str | uuid.UUID | None]]]
        wishes = [[("nowhere", None)], [("a b", None)], [], [(t, None), (t, None)], [(t, None)]]
        if version >= 6:
            wishes += [[(None, uuid.UUID(int=7))], [(u, u)], [(None, None)], [(None, u)], [(None, u)]]
        for wish in wishes:

            def delete(peer: Peer, wish: Any = wish, version: int = version) -> Any:
                rows = [{"name": name, "topic_id": peer.ids.get(one, one)} for name, one in wish]
                names = [name for name, _ in wish]
                return peer.ask(v.DELETE_TOPICS, version, topics=rows, topic_names=names, timeout=10_000)

            case = "neither" if (None, None) in wish else str(wish)
            run.both(f"delete {case} v{version}", delete)
    run.check()


def test_descriptions_and_producer_ids(run: Comparison) -> None:
    t = create(run, retention_ms="1000")
    for version in served(v.DESCRIBE_CONFIGS):
        for kind, name, keys in (
            *((2, name, None) for name in (t, "nowhere", "a b", "")),
            *((2, t, keys) for keys in ([], ["retention.ms", "a.b"])),
            *((4, name, None) for name in ("9", "x", "")),
            (4, "1", ["log.retention.ms", "min.insync.replicas", "ssl.key.password"]),
            *((kind, "1", None) for kind in (0, 16, 32, 99)),
            (8, "2", None),
        ):
            rows = [{"resource_type": kind, "resource_name": name, "configuration_keys": keys}]
            run.ask(f"configs {kind} {name} {keys}", v.DESCRIBE_CONFIGS, version, resources=rows, include_synonyms=True)
    for version in served(v.DESCRIBE_CLUSTER):
        for fields in ({}, {"include_cluster_authorized_operations": True}, {"endpoint_type": 2}, {"endpoint_type": 3}):
            run.ask(f"cluster {fields}", v.DESCRIBE_CLUSTER, version, **fields)
    for peer in run.peers:
        wait_until(lambda peer=peer: gives_ids(peer), f"{peer} gives ids", 10)  # type: ignore[misc]
    for version in served(v.INIT_PRODUCER_ID):
        for transactional_id, producer_id, epoch in (
            *((None, *pair) for pair in ((-1, -1), (5, 3), (5, -1), (-1, 3))),
            ("", -1, -1),
        ):
            fields = {"producer_id": producer_id, "producer_epoch": epoch, "transaction_timeout": 1000}
            case = f"producer id {transactional_id!r} {producer_id} {epoch}"
            run.ask(case, v.INIT_PRODUCER_ID, version, transactional_id=transactional_id, **fields)
    run.check()


def test_frames(run: Comparison) -> None:
    def head(key: int, version: int, client: bytes = b"c") -> bytes:
        return struct.pack(">hhih", key, version, 7, len(client)) + client

    for case, data in {
        "unknown key": frame(head(999, 0)),
        "unknown version": frame(head(v.METADATA, 99)),
        "negative version": frame(head(v.METADATA, -1)),
        "cut request": frame(head(v.METADATA, 1) + b"\0\0"),
        "new ApiVersions": frame(head(v.API_VERSIONS, 5) + b"\0\1\1\0"),
        "empty frame": frame(b""),
        "negative frame": struct.pack(">i", -1),
        "endless frame": struct.pack(">i", 2**31 - 1),
        "frame without a header": frame(b"\0\3\0\1"),
        "a browser": b"GET / HTTP/1.0\r\n\r\n",
        "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
        "unserved SASL": frame(head(17, 1) + b"\0\5PLAIN"),
    }.items():
        run.both(f"raw {case}", lambda peer, data=data: peer.send_raw(data))  # type: ignore[misc]
    for case, data in {
        "trailing bytes": frame(head(v.METADATA, 1) + b"\0\0\0\0" + b"xyz"),
        "no client id": frame(struct.pack(">hhih", v.METADATA, 1, 7, -1) + b"\0\0\0\0"),
        "a client id in no UTF-8": frame(head(v.METADATA, 1, b"\xff\xfe") + b"\0\0\0\0"),
        "a pipeline": b"".join(frame(struct.pack(">hhih", 18, 0, number, -1)) for number in range(20)),
    }.items():

        def ids(peer: Peer, data: bytes = data) -> list[bytes | str]:
            answers = peer.send_raw(data, 20 if len(data) > 100 else 1)
            return [answer if isinstance(answer, str) else answer[:4] for answer in answers]

        run.both(f"raw {case}", ids)
    for name in ("a-1", "", "a b"):

        def error(peer: Peer, name: str = name) -> Any:
            answer = peer.ask(v.API_VERSIONS, 3, client_software_name=name, client_software_version="1")
            return answer["error_code"], bool(answer["api_keys"])

        run.both(f"software {name!r}", error)
    run.check()

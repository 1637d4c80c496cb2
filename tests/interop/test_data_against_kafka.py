"""The data APIs at length, against a Kafka 3.9.1 broker: fetch sessions, deleted records, and what a broker changes in
the batches that it is given. See test_against_kafka.py."""

from __future__ import annotations

import gzip
import os
from typing import Any

import pytest

from tests.harness.differential import T0, Comparison, Peer, batch, record
from tests.harness.kafka_differences import create, produce, served
from tests.interop.test_against_kafka import peers, run
from zkbroker.kafka import versions as v
from zkbroker.records.batch import batches
from zkbroker.records.record import records_of

__all__ = ["peers", "run"]
pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif("ZKBROKER_KAFKA_LIBS" not in os.environ, reason="ZKBROKER_KAFKA_LIBS is not set"),
]
CODECS = ("uncompressed", "gzip", "snappy", "lz4", "zstd", "producer")


class Sessions:
    """A client's fetch session at each of the two brokers, used alike."""

    def __init__(self, run: Comparison, version: int) -> None:
        self.run = run
        self.version = version
        self.ids = dict.fromkeys(run.peers, 0)
        self.epoch = 0

    def fetch(
        self, case: str, *rows: tuple[str, int, int], forget: tuple[tuple[str, int], ...] = (), **fields: Any
    ) -> None:
        """(topic, partition, offset) to add or change, in the present session and epoch."""

        def named(peer: Peer, topic: str) -> dict[str, Any]:
            return {"topic_id": peer.ids[topic]} if self.version >= 13 else {"topic": topic}

        def answer(peer: Peer) -> Any:
            topics = [
                {**named(peer, topic), "partitions": [{"partition": number, "fetch_offset": offset, **ROW}]}
                for topic, number, offset in rows
            ]
            forgotten = [{**named(peer, topic), "partitions": [number]} for topic, number in forget]
            wanted = {"session_id": self.ids[peer], "session_epoch": self.epoch, "min_bytes": 1, "max_bytes": 10**7}
            wanted |= {"replica_id": -1, "max_wait": 20, "topics": topics, "forgotten_topics_data": forgotten, **fields}
            found = peer.ask_exactly(v.FETCH, self.version, **wanted)
            if found.error_code.name == "none" and "session_id" not in fields:
                self.ids[peer] = found.session_id
            return peer.plain(found)

        self.run.both(f"fetch in a session: {case} v{self.version}", answer)
        self.epoch += 1


ROW = {"partition_max_bytes": 10**6, "current_leader_epoch": -1, "last_fetched_epoch": -1, "log_start_offset": -1}


@pytest.mark.parametrize("version", [one for one in served(v.FETCH) if one >= 7])
def test_fetch_sessions(run: Comparison, version: int) -> None:
    t, other = create(run, partitions=3), create(run)
    for number in (0, 0, 1):
        produce(run, "for a session", t, batch(b"v"), partition=number)
    client = Sessions(run, version)
    client.fetch("begins", (t, 0, 0), (t, 1, 0), (t, 2, 0))
    client.fetch("goes on with the same offsets")
    client.fetch("has read", (t, 0, 2), (t, 1, 1))
    client.fetch("is idle")
    produce(run, "for a session", t, batch(b"w"), partition=2)
    client.fetch("has news of one")
    client.fetch("changes one and adds another", (t, 2, 1), (other, 0, 0))
    client.fetch("is out of range", (t, 2, 5))
    client.fetch("is still out of range")
    client.fetch("is in range again", (t, 2, 1))
    client.fetch("adds what is not there", (t, 9, 0))
    client.fetch("has an error each time")
    client.fetch("forgets it", forget=((t, 9), (other, 0), (t, 77)))
    produce(run, "for a session", other, batch(b"w"))
    client.fetch("hears nothing of what it forgot")
    client.epoch += 1
    client.fetch("skips an epoch")
    client.epoch -= 2
    client.fetch("goes on as if nothing had been")
    client.fetch("adds and forgets", (other, 0, 0), forget=((other, 0),))
    client.fetch("of an unknown id", session_id=77)
    client.epoch -= 1
    client.fetch("forgets all", forget=((t, 0), (t, 1), (t, 2)))
    client.fetch("is gone")
    client.epoch = 0
    client.fetch("begins without partitions")
    client.fetch("goes on without partitions")
    client.epoch, client.ids = 0, dict.fromkeys(run.peers, 0)
    client.fetch("begins anew", (t, 0, 0))
    client.epoch = -1
    client.fetch("ends", (t, 0, 2))
    client.epoch = 1
    client.fetch("has ended")
    run.check()


def test_zstd_for_clients_that_do_not_know_it(run: Comparison) -> None:
    packed, plain = create(run, compression_type="zstd"), create(run)
    for topic in (packed, plain):
        produce(run, "to be packed", topic, batch(b"v"))
    for version in served(v.FETCH):
        for topic in (packed, plain):

            def answer(peer: Peer, topic: str = topic, version: int = version) -> Any:
                named = {"topic_id": peer.ids[topic]} if version >= 13 else {"topic": topic}
                topics = [{**named, "partitions": [{"partition": 0, "fetch_offset": 0, **ROW}]}]
                fields = {"replica_id": -1, "max_wait": 20, "min_bytes": 1, "max_bytes": 10**6, "session_epoch": -1}
                found = peer.ask(v.FETCH, version, topics=topics, **fields)
                row = found["responses"][0]["partitions"][0]
                return row["error_code"], bool(row["records"])

            run.both(f"fetch zstd {topic} v{version}", answer)
    run.check()


def test_names_and_ids_in_one_session(run: Comparison) -> None:
    t = create(run)
    for first, then in ((12, 13), (13, 12)):
        client = Sessions(run, first)
        client.fetch("begins", (t, 0, 0))
        client.version = then
        client.fetch(f"of version {first} goes on", (t, 0, 0))
    run.check()


def test_delete_records(run: Comparison) -> None:
    for version in served(v.DELETE_RECORDS):
        t, compact, both = create(run, partitions=2), create(run, cleanup_policy="compact"), create(run)
        for number in range(5):
            produce(run, "to be deleted", t, batch(b"%d" % number))

        def delete(case: str, *rows: tuple[str, int, int], version: int = version, timeout: int = 5000) -> None:
            topics = [
                {"name": name, "partitions": [{"partition_index": number, "offset": offset}]}
                for name, number, offset in rows
            ]
            run.ask(f"delete records {case}", v.DELETE_RECORDS, version, topics=topics, timeout=timeout)

        def look(case: str, version: int = version, t: str = t) -> None:
            for time_ms in (-1, -2, -3, 0, T0 + 1):
                rows = [{"partition_index": 0, "current_leader_epoch": -1, "timestamp": time_ms}]
                fields = {"replica_id": -1, "topics": [{"name": t, "partitions": rows}]}
                run.ask(f"offsets at {time_ms} (after a deletion: {case}, {version})", v.LIST_OFFSETS, 7, **fields)

        delete("up to 2", (t, 0, 2))
        look("after 2")
        delete("below the log start", (t, 0, 1))
        delete("above the high watermark", (t, 0, 6))
        delete("up to -2", (t, 0, -2))
        delete("of an empty one", (t, 1, -1))
        delete("of one named twice", (t, 1, 0), (t, 1, -1))
        delete("unknown", (t, 7, 0), ("nowhere", 0, 0), ("a b", 0, 0))
        delete("compacted", (compact, 0, 0))
        delete("nothing")
        delete("in no time", (t, 0, 3), timeout=0)
        delete("all", (t, 0, -1))
        look("after all")
        produce(run, "after a deletion", t, batch(b"x"))
        look("and one more")
        produce(run, "both", both, batch(b"x"))
    run.check()


def stored(peer: Peer, topic: str) -> list[Any]:
    """What lies in a topic's first partition, batch by batch, with its codec undone."""
    data, offset = b"", 0
    while True:  # Kafka answers from one segment at a time
        row = {"partition": 0, "fetch_offset": offset, **ROW}
        fields = {"max_wait": 20, "min_bytes": 1, "max_bytes": 10**7, "session_epoch": -1, "replica_id": -1}
        found = peer.ask(v.FETCH, 12, topics=[{"topic": topic, "partitions": [row]}], **fields)
        more = found["responses"][0]["partitions"][0]["records"]
        if not more:
            break
        data += more
        offset = [head.next_offset for _, head in batches(more)][-1]
    return [
        {
            "first": head.base_offset,
            "delta": head.last_offset_delta,
            "attributes": head.attributes,
            "times": [peer.plain(head.base_timestamp), peer.plain(head.max_timestamp)],
            "producer": head[9:12],
            "records": [one._replace(timestamp=peer.plain(one.timestamp)) for one in records_of(data, head, place)],
        }
        for place, head in batches(data)
    ]


def zipped(*values: bytes) -> bytes:
    payload = b"".join(record(value, b"k", index, index) for index, value in enumerate(values))
    return batch(*values, attributes=1, payload=gzip.compress(payload))


@pytest.mark.parametrize("time_type", ["CreateTime", "LogAppendTime"])
@pytest.mark.parametrize("codec", CODECS)
def test_what_a_broker_makes_of_batches(run: Comparison, codec: str, time_type: str) -> None:
    t = create(run, compression_type=codec, message_timestamp_type=time_type)
    for case, data in {
        "plain": batch(b"a", None, b"c", key=b"k"),
        "zipped": zipped(b"a", b"b" * 1000),
        "of a producer": batch(b"a", b"b", producer_id=9100, producer_epoch=0, sequence=0),
        "with falling times": batch(b"a", b"b", step=-5, max_timestamp=T0),
        "without a time": batch(b"a", first_timestamp=-1, step=0),
    }.items():
        produce(run, f"{case} to {codec} {time_type}", t, data)
    run.both(f"stored {codec} {time_type}", lambda peer: stored(peer, t))
    for time_ms in (-1, -2, -3, T0 - 1, T0, T0 + 1):
        rows = [{"partition_index": 0, "current_leader_epoch": -1, "timestamp": time_ms}]
        fields = {"replica_id": -1, "topics": [{"name": t, "partitions": rows}]}
        run.ask(f"offsets {codec} {time_type} at {time_ms}", v.LIST_OFFSETS, 7, **fields)
    run.check()


def test_sizes(run: Comparison) -> None:
    """max.message.bytes and segment.bytes, before and after the broker compresses."""
    for codec in CODECS:
        small = create(run, compression_type=codec, max_message_bytes="300")
        segments = create(run, compression_type=codec, segment_bytes="1000", max_message_bytes="100000")
        for case, data in {
            "of zeros": batch(b"0" * 280),
            "of many zeros": batch(b"0" * 1000),
            "that unpacks to more": zipped(b"0" * 900),
            "at the limit": batch(b"0" * 231),
        }.items():
            produce(run, f"size {len(data)} {case} to {codec}", small, data)
            produce(run, f"size {len(data)} {case} to {codec} segments", segments, data)
        run.both(f"stored small {codec}", lambda peer, small=small: stored(peer, small))  # type: ignore[misc]
        run.both(f"stored in segments {codec}", lambda peer, segments=segments: stored(peer, segments))  # type: ignore[misc]
    run.check()


def test_every_byte_of_a_batch_damaged(run: Comparison) -> None:
    """One bit of each byte at a time: what is refused, and as what; nothing of it is stored."""
    whole = batch(b"value", b"w", key=b"k", producer_id=9200, producer_epoch=0, sequence=0)
    t = create(run)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        if place not in LEADER_EPOCH:
            produce(run, f"a batch with a damaged byte {place}", t, bytes(damaged))
    run.both("stored of damaged batches", lambda peer: stored(peer, t))
    run.check()


LEADER_EPOCH = range(12, 16)
"""Not part of what the CRC covers, and written anew by the leader."""


@pytest.mark.parametrize("source", ["plain", "zipped"])
def test_every_byte_of_its_records_damaged_under_a_right_crc(run: Comparison, source: str) -> None:
    """A topic whose broker unpacks what it is given: a client that writes nonsense is refused."""
    payload = record(b"value", b"k") + record(None, b"l", delta=1, time_delta=1)
    if source == "zipped":
        payload = gzip.compress(payload, mtime=0)
    fields = {"attributes": 1 if source == "zipped" else 0}
    t = create(run, compression_type="lz4")
    for place in range(len(payload)):
        damaged = bytearray(payload)
        damaged[place] ^= 1 << place % 8
        data = batch(b"a", b"b", payload=bytes(damaged), **fields)
        produce(run, f"nonsense in byte {place} {source}", t, data)
    run.check()

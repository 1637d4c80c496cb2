"""DeleteRecords (KIP-107): at the leader, at its followers, and over the wire."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.kafka_client import Listener, milliseconds, request_schemas
from tests.unit.replica_cluster import PARTITION, Network, batch, clusters
from zkbroker.kafka import versions as v
from zkbroker.kafka.ports import ConsumeOptions, ConsumeRow, DeletedRow, DeleteRow
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topic_config import TopicConfig

NONE = ErrorCode.NONE


@pytest.fixture
def networks(tmp_path: Path) -> Iterator[Any]:
    with clusters(tmp_path) as make:
        yield make


def start(network: Network, broker_id: int) -> int:
    return network.logs[broker_id].logs[PARTITION].log_start_offset


def delete(network: Network, *offsets: int, timeout_ms: int = 10_000, partition: int = 0) -> list[DeletedRow]:
    """The answers come into the returned list, at once or later."""
    answers: list[DeletedRow] = []
    rows = [DeleteRow("t", partition, offset) for offset in offsets]
    network.replicas[1].delete_records(timeout_ms, rows, answers.extend)
    return answers


def results(answers: list[DeletedRow]) -> list[tuple[ErrorCode, int]]:
    return [(row.error, row.low_watermark) for row in answers]


@pytest.fixture
def pair(networks: Any) -> Network:
    """Broker 1 leads, 2 follows, five records are committed."""
    network: Network = networks(1, 2)
    network.elect(1, 0)
    for value in b"abcde":
        network.produce(1, batch(bytes([value])))
    network.run()
    return network


def test_the_leader_waits_for_its_followers_log_start(pair: Network) -> None:
    answers = delete(pair, 3)
    assert (answers, start(pair, 1), start(pair, 2)) == ([], 3, 0)
    pair.run()
    assert results(answers) == [(NONE, 3)]
    assert start(pair, 2) == 3
    assert pair.consume(1, 2)[0].error is ErrorCode.OFFSET_OUT_OF_RANGE
    assert pair.consume(1, 3)[0].error is NONE
    assert results(delete(pair, 1)) == [(NONE, 3)], "below the log start there is nothing to wait for"
    all_of_it = delete(pair, -1)
    pair.run()
    assert results(all_of_it) == [(NONE, 5)]


def test_clients_in_a_session_are_told(pair: Network) -> None:
    session = pair.replicas[1].open_session()
    session.update([ConsumeRow("t", 0, 5, 1000)], [])
    told: list[int] = []

    def fetch() -> list[int]:
        session.fetch(ConsumeOptions(0, 1, 1000), lambda rows: told.extend(row.log_start for row in rows))
        return told

    assert fetch() == fetch() == [0]
    delete(pair, 3)
    assert fetch() == [0, 3]


def test_only_what_is_committed_can_be_deleted(pair: Network) -> None:
    pair.cut.add(2)
    pair.produce(1, batch(b"f"), acks=1)
    assert pair.end(1) == 6
    assert results(delete(pair, 6, -2)) == [(ErrorCode.OFFSET_OUT_OF_RANGE, -1)] * 2
    assert start(pair, 1) == 0
    assert results(delete(pair, 0, partition=7)) == [(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1)]


def test_a_time_out_tells_how_far_it_came(pair: Network) -> None:
    pair.cut.add(2)
    answers = delete(pair, 3, timeout_ms=200)
    pair.run(0.15)
    assert answers == []
    pair.run(0.15)
    assert results(answers) == [(ErrorCode.REQUEST_TIMED_OUT, 0)]
    assert results(delete(pair, 3, timeout_ms=0)) == [(ErrorCode.REQUEST_TIMED_OUT, 0)]


def test_a_follower_that_is_gone_is_not_waited_for(pair: Network) -> None:
    pair.cut.add(2)
    answers = delete(pair, 3)
    pair.live.discard(2)
    pair.replicas[1].brokers_changed()
    assert results(answers) == [(NONE, 3)]


def test_who_leads_no_more_says_so(pair: Network) -> None:
    pair.cut.add(2)
    answers = delete(pair, 3)
    pair.elect(2, 1, to=(1,))
    assert results(answers) == [(ErrorCode.NOT_LEADER_OR_FOLLOWER, -1)]
    assert results(delete(pair, 3)) == [(ErrorCode.NOT_LEADER_OR_FOLLOWER, -1)]
    assert pair.replicas[1]._table.replicas[PARTITION].deletions == {}


def test_a_client_that_goes_away_leaves_nothing_behind(pair: Network) -> None:
    pair.cut.add(2)
    answers: list[DeletedRow] = []
    parked = pair.replicas[1].delete_records(100, [DeleteRow("t", 0, 3)], answers.extend)
    assert parked is not None
    parked.cancel()
    pair.run(0.3)
    assert (answers, pair.replicas[1]._table.replicas[PARTITION].deletions) == ([], {})


@pytest.mark.parametrize("policy", [("compact",), ("compact", "delete")])
def test_a_topic_that_is_only_compacted_keeps_its_records(networks: Any, policy: tuple[str, ...]) -> None:
    network: Network = networks(1)
    network.config = TopicConfig(cleanup_policy=policy)
    network.elect(1, 0)
    error = NONE if "delete" in policy else ErrorCode.POLICY_VIOLATION
    assert [row.error for row in delete(network, 0)] == [error]


def test_the_log_start_outlives_a_restart(pair: Network) -> None:
    delete(pair, 3)
    pair.run()
    pair.logs[2].write_checkpoints(pair.replicas[2].high_watermarks())
    pair.run()
    pair.crash(2)
    pair.start(2)
    assert start(pair, 2) == 3


# Over the wire


@pytest.mark.parametrize("version", range(3))
def test_delete_records(version: int) -> None:
    listener = Listener()
    listener.broker.add_topic("t", 2)
    listener.broker.add_topic("__consumer_offsets", 1, is_internal=True)
    s = request_schemas(v.DELETE_RECORDS, version)

    def topic(name: str, *rows: tuple[int, int]) -> Any:
        partitions = tuple(s.DeleteRecordsPartition(partition_index=number, offset=offset) for number, offset in rows)
        return s.DeleteRecordsTopic(name=name, partitions=partitions)

    topics = (
        topic("t", (0, -1), (5, 2), (1, 0)),
        topic("__consumer_offsets", (0, 0), (9, 0)),
        topic("nowhere", (0, 0)),
    )
    answer = listener.ask(s.DeleteRecordsRequest(topics=topics, timeout=milliseconds(1234)))
    found = [
        (topic.name, row.partition_index, ErrorCode(row.error_code.value), row.low_watermark)
        for topic in answer.topics
        for row in topic.partitions
    ]
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert found == [
        ("t", 0, NONE, 0),
        ("t", 5, unknown, -1),
        ("t", 1, NONE, 0),
        ("__consumer_offsets", 0, ErrorCode.INVALID_TOPIC_EXCEPTION, -1),
        ("__consumer_offsets", 9, unknown, -1),
        ("nowhere", 0, unknown, -1),
    ]
    assert listener.broker.deletions[0][0] == 1234
    assert listener.ask(s.DeleteRecordsRequest(topics=(), timeout=milliseconds(1))).topics == ()

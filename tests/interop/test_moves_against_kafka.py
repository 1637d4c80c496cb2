"""Reassignments and elections: the same requests to a Kafka 3.9.1 broker and to zkbroker. One broker each, so that most
of them are refused; what moves is looked at in tests/integration/test_reassignment.py. See test_against_kafka.py."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.harness.differential import Comparison, Peer
from tests.harness.kafka_differences import ACCEPTED, create, served
from tests.interop.test_against_kafka import peers
from zkbroker.kafka import versions as v

__all__ = ["peers"]
pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif("ZKBROKER_KAFKA_LIBS" not in os.environ, reason="ZKBROKER_KAFKA_LIBS is not set"),
]


@pytest.fixture
def run(peers: tuple[Peer, Peer]) -> Comparison:
    return Comparison(peers, ACCEPTED)


def by_topic(rows: list[dict[str, Any]], name: str, below: str, index: str) -> list[dict[str, Any]]:
    """Kafka answers in the order of a hash table."""
    for row in rows:
        row[below] = sorted(row[below], key=lambda one: int(one[index]))
    return sorted(rows, key=lambda row: str(row[name]))


def test_reassignments(run: Comparison) -> None:
    t = create(run, partitions=2)

    def alter(case: str, *wanted: tuple[str, int, list[int] | None]) -> None:
        topics = [
            {"name": name, "partitions": [{"partition_index": number, "replicas": replicas}]}
            for name, number, replicas in wanted
        ]

        def answer(peer: Peer) -> Any:
            found = peer.ask(v.ALTER_PARTITION_REASSIGNMENTS, 0, timeout=10_000, topics=topics)
            return {**found, "responses": by_topic(found["responses"], "name", "partitions", "partition_index")}

        run.both(f"reassign {case}", answer)

    def listed(case: str, topics: list[dict[str, Any]] | None) -> None:
        run.ask(f"moves of {case}", v.LIST_PARTITION_REASSIGNMENTS, 0, timeout=10_000, topics=topics)

    for replicas in ([], [1, 1], [-1], [9], [1, 9], None, [1]):
        alter(f"to {replicas}", (t, 0, replicas))
    for name, number in ((t, 7), (t, -1), ("nowhere", 0), ("a b", 0), ("", 0)):
        for wish in ([1], [9], None):
            alter(f"{name!r} {number} to {wish}", (name, number, wish))
    alter("two", (t, 0, [1]), ("nowhere", 1, None))
    alter("nothing")
    listed("all", None)
    listed("none", [])
    for name in (t, "nowhere", ""):
        listed(repr(name), [{"name": name, "partition_indexes": [0, 7]}])
    run.check()


@pytest.mark.parametrize("version", served(v.ELECT_LEADERS))
def test_elections(run: Comparison, version: int) -> None:
    t = create(run, partitions=2)

    def elect(case: str, kind: int, topics: list[tuple[str, list[int]]] | None) -> None:
        rows = None if topics is None else [{"topic": name, "partitions": numbers} for name, numbers in topics]

        def answer(peer: Peer) -> Any:
            found = peer.ask(v.ELECT_LEADERS, version, election_type=kind, topic_partitions=rows, timeout=10_000)
            results = by_topic(found["replica_election_results"], "topic", "partition_result", "partition_id")
            return {**found, "replica_election_results": results}

        run.both(f"elect {case} v{version}", answer)

    for kind in (0, 1) if version else (0,):
        elect(f"{kind} what leads", kind, [(t, [0, 1])])
        elect(f"{kind} others", kind, [(t, [0, 7]), ("nowhere", [0]), ("", [0])])
        elect(f"{kind} all", kind, None)
        elect(f"{kind} none", kind, [])
    run.check()

"""STATUS and PARTITIONS: what a person reads is what is the case at that moment."""

from __future__ import annotations

from tests.harness.zookeeper_worlds import FakeWorld
from zkbroker import __version__
from zkbroker.broker.metadata import ClusterMetadata
from zkbroker.broker.status import Status
from zkbroker.model.cluster import BrokerRegistration, ClusterDelta, Endpoint
from zkbroker.model.topics import PartitionState, TopicPartition


def partition(number: int, leader: int, isr: tuple[int, ...]) -> tuple[TopicPartition, PartitionState]:
    return TopicPartition("t", number), PartitionState("id", (1, 2), leader, 0, isr, 0, 1)


def test_every_line_is_a_name_and_what_is_true_now() -> None:
    world = FakeWorld()
    metadata = ClusterMetadata("c", 1)
    problems: list[str] = []
    epoch = 7
    status = Status(
        metadata=metadata,
        clock=world.clock,
        broker_epoch=lambda: epoch,
        session=lambda: "session 0x1 connected",
        controller=lambda: "2 epoch 5",
        replica_lines=lambda topic: [f"replicas of {topic}"],
        peers=lambda: ["peer: 2 up"],
        problems=lambda: problems,
    )
    before = status.status_lines()
    assert "brokers: " in before
    assert before[-2:] == ["under-replicated: 0", "peer: 2 up"]
    brokers = tuple(BrokerRegistration(number, 9, (Endpoint("REPLICATION", "h", 1),)) for number in (2, 1))
    partitions = (partition(0, 1, (1, 2)), partition(1, 2, (2,)), partition(2, -1, (1,)))
    metadata.apply(ClusterDelta(2, 5, 0, is_snapshot=True, brokers=brokers, partitions=partitions))
    problems.append("log folder /d is offline: the disk is full")
    epoch = 8
    world.reactor.advance(12.34)
    assert status.status_lines() == [
        f"zkbroker: {__version__}",
        "broker: 1 epoch 8",
        "cluster: c",
        "up: 12.3 s",
        "zookeeper: session 0x1 connected",
        "controller: 2 epoch 5",
        "brokers: 1 2",
        "topics: 1",
        "partitions: 3",
        "led here: 1",
        "without leader: 1",
        "under-replicated: 2",
        "peer: 2 up",
        "problem: log folder /d is offline: the disk is full",
    ]


def test_partitions_are_those_of_the_replicas() -> None:
    status = Status(
        metadata=ClusterMetadata("c", 1),
        clock=FakeWorld().clock,
        broker_epoch=lambda: 1,
        session=str,
        controller=str,
        replica_lines=lambda topic: [f"replicas of {topic}"],
        peers=list,
        problems=list,
    )
    assert status.partition_lines("t") == ["replicas of t"]
    assert status.partition_lines(None) == ["replicas of None"]

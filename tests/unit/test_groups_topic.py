"""Who coordinates a group: the topic's own number of partitions, and the topic made at the first need."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from zkbroker.broker.metadata import ClusterMetadata, Doubt
from zkbroker.broker.offsets_topic import OFFSETS_TOPIC, OffsetsTopic, OffsetsTopicSettings
from zkbroker.kafka.group_ports import KEY_OF_GROUP, KEY_OF_TRANSACTION
from zkbroker.model.channel import NewTopic, TopicResult
from zkbroker.model.cluster import BrokerRegistration, ClusterDelta
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.zookeeper.client import ConnectionLossError, Stat
from zkbroker.zookeeper.znodes import topics as topic_znode

TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"
OTHER_ID = "AAAAAAAAAAAAAAAAAAAAAQ"


class World:
    """A cluster picture, a znode, and a controller that is asked for the topic."""

    def __init__(self, *brokers: int) -> None:
        self.metadata = ClusterMetadata("c", 1)
        self.number = 0
        self.lines: list[str] = []
        self.asked: list[tuple[NewTopic, Deferred[TopicResult]]] = []
        self.reads: list[Deferred[tuple[bytes, Stat]]] = []
        self.topic = OffsetsTopic(
            metadata=self.metadata,
            zk=self,  # type: ignore[arg-type]
            create_topic=self.create_topic,
            settings=OffsetsTopicSettings(partitions=4, replication_factor=3, segment_bytes=1000),
            log=self.lines.append,
        )
        self.tell(is_snapshot=True, brokers=tuple(BrokerRegistration(one, 10 + one, (), ()) for one in brokers))

    def tell(self, **fields: Any) -> None:
        self.number += 1
        self.metadata.apply(ClusterDelta(1, 1, self.number, **fields))
        self.topic.look()

    def tell_partitions(self, *leaders: int, topic_id: str = TOPIC_ID) -> None:
        states = [
            (TopicPartition(OFFSETS_TOPIC, index), PartitionState(topic_id, (1, 2, 3), leader, 0, (1, 2, 3), 0, 1))
            for index, leader in enumerate(leaders)
        ]
        self.tell(partitions=tuple(states))

    def create_topic(self, topic: NewTopic) -> Deferred[TopicResult]:
        self.asked.append((topic, Deferred()))
        return self.asked[-1][1]

    def get(self, path: str) -> Deferred[tuple[bytes, Stat]]:
        assert path == f"/brokers/topics/{OFFSETS_TOPIC}"
        self.reads.append(Deferred())
        return self.reads[-1]

    def answer_read(self, count: int, topic_id: str = TOPIC_ID) -> None:
        assignment = topic_znode.TopicAssignment(topic_id, dict.fromkeys(range(count), (1, 2, 3)))
        self.reads.pop().callback((topic_znode.encode(assignment), Stat(1, 1, 0, 0)))

    def find(self, group: str) -> tuple[ErrorCode, int]:
        found = self.topic.find(KEY_OF_GROUP, group)
        return found.error, found.broker_id


NOT_YET = (ErrorCode.COORDINATOR_NOT_AVAILABLE, -1)


def test_the_topic_is_made_at_the_first_need_and_asked_for_once() -> None:
    world = World(1, 2, 3)
    assert [world.find("g") for _ in range(3)] == [NOT_YET] * 3
    ((topic, asked),) = world.asked
    assert (topic.name, topic.partitions, topic.replication_factor) == (OFFSETS_TOPIC, 4, 3)
    assert dict(topic.configs) == {
        "cleanup.policy": "compact",
        "compression.type": "producer",
        "segment.bytes": "1000",
    }
    asked.callback(TopicResult(OFFSETS_TOPIC, ErrorCode.NONE))
    world.tell_partitions(1, 2, 3, 1)
    world.answer_read(4)
    assert world.find("a") == (ErrorCode.NONE, [1, 2, 3, 1][97 % 4])
    assert world.lines == []


def test_with_too_few_brokers_it_is_not_made_and_that_is_said_once() -> None:
    world = World(1, 2)
    assert [world.find("g") for _ in range(3)] == [NOT_YET] * 3
    assert world.asked == []
    (line,) = world.lines
    assert "INVALID_REPLICATION_FACTOR" in line
    assert "2 brokers are alive" in line
    world.tell(brokers=(BrokerRegistration(3, 13, (), ()),))
    world.find("g")
    assert len(world.asked) == 1


def test_what_keeps_it_from_being_made_is_said_once_and_it_is_tried_again() -> None:
    world = World(1, 2, 3)
    for _ in range(2):
        world.find("g")
        world.asked[-1][1].callback(TopicResult(OFFSETS_TOPIC, ErrorCode.INVALID_REPLICATION_FACTOR, "why"))
    world.find("g")
    world.asked[-1][1].errback(Failure(ConnectionLossError("")))
    assert len(world.asked) == 3
    assert [line.rpartition(": ")[2] for line in world.lines] == [
        "INVALID_REPLICATION_FACTOR why",
        "ConnectionLossError: ".rpartition(": ")[2],
    ]


def test_half_a_topic_is_not_taken_for_a_small_one() -> None:
    world = World(1, 2, 3)
    world.tell_partitions(1, 2)
    assert world.find("a") == NOT_YET
    world.answer_read(4)
    assert world.topic.partition_of("a") == 97 % 4
    assert world.find("c") == NOT_YET  # 99 % 4 = 3, which is not known yet
    world.tell_partitions(1, 2, 3, 3)
    assert world.find("c") == (ErrorCode.NONE, 3)
    assert world.reads == []


def test_a_failed_read_is_repeated_by_whoever_asks_next() -> None:
    world = World(1, 2, 3)
    world.tell_partitions(1, 2, 3, 1)
    world.reads.pop().errback(Failure(ConnectionLossError("")))
    assert world.find("a") == NOT_YET
    world.answer_read(4)
    assert world.find("a")[0] is ErrorCode.NONE


def test_a_topic_made_anew_is_counted_anew() -> None:
    world = World(1, 2, 3)
    world.tell_partitions(1, 1, 1, 1)
    world.answer_read(4)
    world.tell_partitions(2, 2, topic_id=OTHER_ID)
    assert world.topic.partition_of("a") is None
    world.answer_read(2, OTHER_ID)
    assert world.topic.partition_of("a") == 97 % 2


def test_a_leader_that_is_gone_or_doubted_is_nobody() -> None:
    world = World(1, 2, 3)
    world.tell_partitions(1, 2, 3, -1)
    world.answer_read(4)
    assert world.find("c") == NOT_YET
    assert world.find("a") == (ErrorCode.NONE, 2)
    world.metadata.doubt(Doubt.BROKE_OFF, 2, True)
    assert world.find("a") == NOT_YET
    world.metadata.doubt(Doubt.BROKE_OFF, 2, False)
    world.tell(removed_brokers=(2,))
    assert world.find("a") == NOT_YET


def test_transactions_have_no_coordinator() -> None:
    found = World(1, 2, 3).topic.find(KEY_OF_TRANSACTION, "t")
    assert (found.error, found.broker_id) == NOT_YET

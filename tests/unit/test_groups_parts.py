"""Consumer groups among a broker's parts: settings, deleted topics, the topic as a client's Metadata asks for it."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from zkbroker.broker.group_parts import GroupParts, groups_settings
from zkbroker.broker.metadata import ClusterMetadata
from zkbroker.coordinator.settings import GroupSettings
from zkbroker.model.channel import NewTopic, TopicResult
from zkbroker.model.cluster import ClusterDelta
from zkbroker.model.config.broker import BrokerConfig, Setting
from zkbroker.model.config.build import build_broker_config
from zkbroker.model.topics import PartitionState, TopicPartition


def config(**settings: str) -> BrokerConfig:
    values = {"broker.id": "1", "zookeeper.connect": "h:1", "log.dirs": "/d", "listeners": "PLAINTEXT://:9092"}
    values.update({name.replace("_", "."): text for name, text in settings.items()})
    return build_broker_config([Setting(name, text, "test") for name, text in values.items()])


class World:
    """A picture of the cluster that deltas change; stands in for the replicas, which lead nothing."""

    coordinator_log: Any = None
    leadership_changed: Any = None

    def __init__(self, **settings: str) -> None:
        self.metadata = ClusterMetadata("c", 1)
        self.deleted: list[set[str]] = []
        self.parts = GroupParts(
            config=config(**settings),
            reactor=Clock(),
            clock=self,  # type: ignore[arg-type]
            source=random.Random(1),
            zk=self,  # type: ignore[arg-type]
            metadata=self.metadata,
            replicas=self,  # type: ignore[arg-type]
            create_topic=lambda topic: Deferred[TopicResult](),
            log=lambda line: None,
            fatal=lambda event, error: None,
        )
        self.parts.groups.topics_deleted = lambda topics: self.deleted.append(set(topics))  # type: ignore[method-assign]

    def tell(self, *topics: str, is_snapshot: bool = False, **fields: Any) -> None:
        states = [
            (TopicPartition(name.partition("/")[0], 0), PartitionState(name, (1,), 1, 0, (1,), 0, 1)) for name in topics
        ]
        delta = ClusterDelta(1, 1, 1, is_snapshot=is_snapshot, partitions=tuple(states), **fields)
        self.metadata.apply(delta)
        self.parts.told(delta)


def test_deleted_topics_are_told_whether_by_a_delta_or_missed_and_seen_in_a_snapshot() -> None:
    world = World()
    world.tell("a", "b", "c", is_snapshot=True)
    world.tell("d")
    world.tell(deleted_topics=(("a", "a"),))
    world.tell("b", "d", is_snapshot=True)
    world.tell("b", is_snapshot=True, unreadable_topics=("d",))
    assert world.deleted == [set(), set(), {"a"}, {"c"}, set()]


def test_a_topic_made_anew_in_the_same_delta_is_not_deleted() -> None:
    world = World()
    world.tell("a", is_snapshot=True)
    world.tell("a/2", deleted_topics=(("a", "a"),))
    assert world.deleted == [set(), set()]


def test_what_a_client_asks_into_being() -> None:
    world = World(offsets_topic_num_partitions="7", offsets_topic_replication_factor="2")
    made = world.parts.new_topic("__consumer_offsets")
    assert (made.partitions, made.replication_factor, dict(made.configs)["cleanup.policy"]) == (7, 2, "compact")
    assert world.parts.new_topic("t") == NewTopic("t")


def test_settings_are_those_of_the_configuration() -> None:
    settings = groups_settings(
        config(
            **{
                "group.min.session.timeout.ms": "1",
                "group.max.session.timeout.ms": "2",
                "group.max.size": "3",
                "group.initial.rebalance.delay.ms": "4",
                "offset.metadata.max.bytes": "5",
                "offsets.retention.minutes": "6",
                "offsets.load.buffer.size": "7",
                "offsets.commit.timeout.ms": "8",
                "offsets.topic.compression.codec": "2",
                "offsets.retention.check.interval.ms": "10",
            }
        )
    )
    assert settings.groups == GroupSettings(1, 2, 3, 4, 5, 360_000)
    assert settings[1:] == (7, 0.008, 2, 0.01)
    assert groups_settings(config()) == type(settings)()

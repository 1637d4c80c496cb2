"""Consumer groups among the parts of a broker: made, connected to what they need, told what happens around them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from zkbroker.broker.groups import Groups, GroupsSettings
from zkbroker.broker.metadata import ClusterMetadata
from zkbroker.broker.offsets_topic import OFFSETS_TOPIC, OffsetsTopic, OffsetsTopicSettings
from zkbroker.broker.replicas import Replicas
from zkbroker.coordinator.settings import GroupSettings
from zkbroker.model.channel import NewTopic, TopicResult
from zkbroker.model.clock import Clock
from zkbroker.model.cluster import ClusterDelta
from zkbroker.model.config import BrokerConfig
from zkbroker.zookeeper.client import ZooKeeperClient


class GroupParts:
    """``groups`` and ``topic`` fill the ports of ``kafka.group_ports``."""

    def __init__(
        self,
        *,
        config: BrokerConfig,
        reactor: Any,
        clock: Clock,
        source: random.Random,
        zk: ZooKeeperClient,
        metadata: ClusterMetadata,
        replicas: Replicas,
        create_topic: Callable[[NewTopic], Deferred[TopicResult]],
        log: Callable[[str], None],
        fatal: Callable[[str, BaseException], None],
    ) -> None:
        self._metadata = metadata
        self._offsets_topic = offsets_topic_settings(config)
        self._known_topics: set[str] = set()
        """Names that the controller told, never iterated."""
        self.topic = OffsetsTopic(
            metadata=metadata, zk=zk, create_topic=create_topic, settings=self._offsets_topic, log=log
        )
        self.groups = Groups(
            reactor=reactor,
            clock=clock,
            random=source,
            coordinator_log=replicas.coordinator_log,
            topic=self.topic,
            settings=groups_settings(config),
            log=log,
            fatal=fatal,
        )
        replicas.leadership_changed = self.groups.leadership_changed

    def __repr__(self) -> str:
        return f"GroupParts({self.groups!r}, {self.topic!r})"

    def new_topic(self, name: str) -> NewTopic:
        """A topic that a client's Metadata asks into being; the internal one is as it would be made otherwise."""
        return self._offsets_topic.new_topic() if name == OFFSETS_TOPIC else NewTopic(name)

    def told(self, delta: ClusterDelta) -> None:
        """After a snapshot or delta was taken."""
        self.topic.look()
        if delta.is_snapshot:
            now = {view.name for view in self._metadata.topics()}
            gone, self._known_topics = self._known_topics - now, now
            self.groups.topics_deleted(gone)
        else:
            self._known_topics.update([partition.topic for partition, _ in delta.partitions])
            gone = {name for name, _ in delta.deleted_topics if self._metadata.topic(name) is None}
            self._known_topics -= gone
            self.groups.topics_deleted(gone)


def offsets_topic_settings(config: BrokerConfig) -> OffsetsTopicSettings:
    return OffsetsTopicSettings(
        partitions=config.get_int("offsets.topic.num.partitions"),
        replication_factor=config.get_int("offsets.topic.replication.factor"),
        segment_bytes=config.get_int("offsets.topic.segment.bytes"),
    )


def groups_settings(config: BrokerConfig) -> GroupsSettings:
    return GroupsSettings(
        groups=GroupSettings(
            session_timeout_ms_min=config.get_int("group.min.session.timeout.ms"),
            session_timeout_ms_max=config.get_int("group.max.session.timeout.ms"),
            members_max=config.get_int("group.max.size"),
            initial_rebalance_delay_ms=config.get_int("group.initial.rebalance.delay.ms"),
            metadata_length_max=config.get_int("offset.metadata.max.bytes"),
            retention_ms=config.get_int("offsets.retention.minutes") * 60_000,
        ),
        load_buffer_bytes=config.get_int("offsets.load.buffer.size"),
        commit_timeout_s=config.get_int("offsets.commit.timeout.ms") / 1000,
        codec=config.get_int("offsets.topic.compression.codec"),
        expiry_check_s=config.get_int("offsets.retention.check.interval.ms") / 1000,
    )

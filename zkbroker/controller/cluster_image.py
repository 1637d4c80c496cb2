"""What the controller knows of the cluster: only what is committed in ZooKeeper, plus who said what about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from zkbroker.model.cluster import BrokerRegistration
from zkbroker.model.topics import PartitionState, TopicPartition


class Placement(NamedTuple):
    """One partition's row in ``/brokers/topics/T``."""

    replicas: tuple[int, ...]
    adding: tuple[int, ...] = ()
    """Replicas that a reassignment under way brings in; part of ``replicas``."""
    removing: tuple[int, ...] = ()
    """Replicas that a reassignment under way takes out; still part of ``replicas``."""


class TopicImage(NamedTuple):
    """A topic as its znode says; replaced as a whole when the znode changes."""

    name: str
    topic_id: str
    partitions: Mapping[int, Placement]

    def __repr__(self) -> str:
        return f"TopicImage({self.name}, {self.topic_id}, partitions={len(self.partitions)})"


FoundStates = Mapping[TopicPartition, tuple[PartitionState, int]]
"""States as read, with the mzxid of their znodes."""


class TopicRules(NamedTuple):
    """The topic settings that elections and reassignments depend on; None where the topic doesn't override."""

    min_insync_replicas: int | None = None
    unclean: bool | None = None


class ClusterImage:
    """Brokers, topics and partition states. Events change it; nothing in it is ahead of ZooKeeper."""

    __slots__ = ("brokers", "offline_replicas", "rules", "shutting_down", "states", "suspects", "topics")

    def __init__(self) -> None:
        self.brokers: dict[int, BrokerRegistration] = {}
        """Live brokers by id, Kafka's own among them (they are shown, never assigned to or elected)."""
        self.shutting_down: dict[int, int] = {}
        """Broker id → the epoch in which it said that it is going; dropped when that incarnation is gone."""
        self.offline_replicas: dict[int, dict[TopicPartition, str]] = {}
        """Per live broker: replicas that it cannot serve, with the reason; dropped when it registers again."""
        self.topics: dict[str, TopicImage] = {}
        self.states: dict[TopicPartition, PartitionState] = {}
        """Committed states; a partition without one is new and waits for a replica online."""
        self.suspects: dict[TopicPartition, tuple[int, ...]] = {}
        """ISR members that registered after the state was written: they restarted while nobody looked."""
        self.rules: dict[str, TopicRules] = {}

    def __repr__(self) -> str:
        brokers = ",".join(str(broker) for broker in sorted(self.brokers))
        return f"ClusterImage(brokers=[{brokers}], topics={len(self.topics)}, partitions={len(self.states)})"

    def broker_epoch(self, broker_id: int) -> int | None:
        """The epoch of the live incarnation, None when the broker is not there."""
        broker = self.brokers.get(broker_id)
        return None if broker is None else broker.epoch

    def settled_epoch(self, broker_id: int) -> int | None:
        """The epoch in which a broker may be told the cluster: None also while a state still counts it in from before
        its restart. Told such a state, it would lead on in an epoch of a log that it may have lost since."""
        if any(broker_id in members for members in self.suspects.values()):
            return None
        return self.broker_epoch(broker_id)

    def suspect_restarted(self, partition: TopicPartition, mzxid: int) -> None:
        """Members of its ISR that registered after its state was written (at ``mzxid``) have restarted since."""
        isr = self.states[partition].isr
        restarted = tuple(member for member in isr if (self.broker_epoch(member) or 0) > mzxid)
        if restarted:
            self.suspects[partition] = restarted

    def is_alive(self, broker_id: int, partition: TopicPartition) -> bool:
        """Registered, one of ours, and its log folder for this partition works."""
        broker = self.brokers.get(broker_id)
        if broker is None or broker.is_kafka:
            return False
        failed = self.offline_replicas.get(broker_id)
        return failed is None or partition not in failed

    def is_online(self, broker_id: int, partition: TopicPartition) -> bool:
        """Alive and not about to shut down: may be elected and may join an ISR."""
        return broker_id not in self.shutting_down and self.is_alive(broker_id, partition)

    def usable_brokers(self) -> dict[int, str | None]:
        """Id → rack of those that new replicas may be placed on, by id."""
        return {
            broker_id: self.brokers[broker_id].rack
            for broker_id in sorted(self.brokers)
            if not self.brokers[broker_id].is_kafka
        }

    def placement(self, partition: TopicPartition) -> Placement | None:
        topic = self.topics.get(partition.topic)
        return None if topic is None else topic.partitions.get(partition.partition)

    def partitions(self, topic: str) -> list[TopicPartition]:
        """All partitions of a topic, in order, with or without a state."""
        image = self.topics.get(topic)
        return [] if image is None else [TopicPartition(topic, number) for number in sorted(image.partitions)]

    def partitions_of(self, broker_id: int) -> list[TopicPartition]:
        """All partitions that have a replica on the broker (O(partitions): brokers seldom come and go)."""
        return [
            TopicPartition(topic.name, number)
            for topic in self.topics.values()
            for number, placement in topic.partitions.items()
            if broker_id in placement.replicas
        ]

    def unclean(self, topic: str, default: bool) -> bool:
        """Whether an unclean election is allowed for this topic."""
        rules = self.rules.get(topic)
        return default if rules is None or rules.unclean is None else rules.unclean

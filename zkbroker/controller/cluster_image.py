"""What the controller knows of the cluster: only what is committed in ZooKeeper, plus who said what about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from zkbroker.controller.fencing import Fenced
from zkbroker.model.cluster import ALL_LOSSY, BrokerRegistration, LossyReplica
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
    mzxid: int = -1
    """The transaction that wrote its znode last, -1 where that is not known: what was read before is older news. (A
    version would begin anew if somebody puts the same znode there once more.)"""

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

    __slots__ = (
        "_losses",
        "brokers",
        "fenced",
        "min_insync_replicas_default",
        "offline_replicas",
        "rules",
        "shutting_down",
        "states",
        "suspects",
        "topics",
    )

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
        self.fenced: dict[int, Fenced] = {}
        """Broker id → why it counts as dead, though registered (until the fence is written) or in a session that may
        live on. Dropped when it registers again, and when its session is over for sure."""
        self.min_insync_replicas_default = 1
        """``min.insync.replicas`` of topics that do not override it."""
        self._losses: dict[int, tuple[BrokerRegistration, dict[TopicPartition, LossyReplica]]] = {}
        """Broker id → the registration that was indexed, and its lossy replicas; see ``loss``."""

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
        if broker is None or broker.is_kafka or broker_id in self.fenced:
            return False
        failed = self.offline_replicas.get(broker_id)
        return failed is None or partition not in failed

    def is_online(self, broker_id: int, partition: TopicPartition) -> bool:
        """Alive and not about to shut down: may be elected and may join an ISR."""
        return broker_id not in self.shutting_down and self.is_alive(broker_id, partition)

    def loss(self, broker_id: int, partition: TopicPartition) -> LossyReplica | None:
        """What the live broker says of a replica that came back without records it was counted for; None while the
        replica is as good as its word. As long as its registration says so it is neither elected nor let into an ISR:
        the broker takes the mark away only when it is known to be out of the ISR and the ELR."""
        broker = self.brokers.get(broker_id)
        if broker is None or not broker.lossy:
            return None
        indexed = self._losses.get(broker_id)
        if indexed is None or indexed[0] is not broker:
            losses = {TopicPartition(lossy.topic, lossy.partition): lossy for lossy in broker.lossy}
            indexed = self._losses[broker_id] = broker, losses
        if ALL_LOSSY in broker.lossy:
            return ALL_LOSSY
        lossy = indexed[1].get(partition)
        if lossy is None:
            return None
        topic = self.topics.get(partition.topic)
        # of a topic that was deleted and created again the replica never held anything
        return lossy if topic is None or lossy.topic_id in ("", topic.topic_id) else None

    def is_electable(self, broker_id: int, partition: TopicPartition) -> bool:
        """Online, and its replica lost nothing that it is counted for."""
        return self.is_online(broker_id, partition) and self.loss(broker_id, partition) is None

    def min_insync_replicas(self, topic: str) -> int:
        """The topic's ``min.insync.replicas``; a partition with fewer replicas needs only those."""
        rules = self.rules.get(topic)
        return (
            self.min_insync_replicas_default
            if rules is None or rules.min_insync_replicas is None
            else (rules.min_insync_replicas)
        )

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

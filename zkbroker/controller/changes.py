"""What changed since brokers were last told: gathered over one turn, sent as one delta."""

from __future__ import annotations

from collections.abc import Callable

from zkbroker.controller.cluster_image import ClusterImage
from zkbroker.model.cluster import ClusterDelta, DeletedReplica
from zkbroker.model.topics import TopicPartition


class Changes:
    """Keys only: the values are taken from the image when the delta is made, so the last one counts."""

    __slots__ = ("_brokers", "_deleted_topics", "_held_back", "_orders", "_partitions", "_removed_brokers")

    def __init__(self) -> None:
        self._brokers: dict[int, None] = {}
        self._removed_brokers: dict[int, None] = {}
        self._partitions: dict[TopicPartition, None] = {}
        self._held_back: dict[TopicPartition, None] = {}
        """Not told while a member is suspected to have restarted: it would lead on in the old epoch."""
        self._deleted_topics: dict[tuple[str, str], None] = {}
        self._orders: dict[int, list[DeletedReplica]] = {}

    def __bool__(self) -> bool:
        return bool(self._brokers or self._removed_brokers or self._partitions or self._deleted_topics or self._orders)

    def clear(self) -> None:
        """Nothing is left to tell."""
        for kept in (self._brokers, self._removed_brokers, self._partitions, self._deleted_topics, self._orders):
            kept.clear()

    def broker(self, broker_id: int) -> None:
        """It is new, or its registration changed."""
        self._brokers[broker_id] = None

    def broker_gone(self, broker_id: int) -> None:
        self._removed_brokers[broker_id] = None

    def partition(self, partition: TopicPartition) -> None:
        self._held_back.pop(partition, None)
        self._partitions[partition] = None

    def unsuspected(self, partition: TopicPartition) -> None:
        """Its state turned out to be right as it is: told now, if it was held back."""
        if partition in self._held_back:
            del self._held_back[partition]
            self._partitions[partition] = None

    def topic_gone(self, topic: str, topic_id: str) -> None:
        self._deleted_topics[topic, topic_id] = None

    def order(self, broker_id: int, replica: DeletedReplica) -> None:
        """That broker must delete the replica's data."""
        self._orders.setdefault(broker_id, []).append(replica)

    def unorder(self, broker_id: int, replica: DeletedReplica) -> None:
        """It is to keep the data after all: an order that it was not given yet is none."""
        orders = self._orders.get(broker_id, [])
        if replica in orders:
            orders.remove(replica)
            if not orders:
                del self._orders[broker_id]

    def take(
        self, image: ClusterImage, controller_id: int, controller_epoch: int, hides: Callable[[str], bool]
    ) -> tuple[ClusterDelta, tuple[tuple[int, tuple[DeletedReplica, ...]], ...]]:
        """The delta (without a number) and the deletion orders per broker; nothing is left. Topics that
        ``hides`` names are being deleted and not told of."""
        brokers = tuple(image.brokers[broker] for broker in sorted(self._brokers) if broker in image.brokers)
        removed = tuple(broker for broker in sorted(self._removed_brokers) if broker not in image.brokers)
        partitions = tuple(
            (partition, image.states[partition])
            for partition in sorted(self._partitions)
            if partition in image.states and partition not in image.suspects and not hides(partition.topic)
        )
        held_back = [partition for partition in self._partitions if partition in image.suspects]
        delta = ClusterDelta(
            controller_id,
            controller_epoch,
            0,
            brokers=brokers,
            removed_brokers=removed,
            partitions=partitions,
            deleted_topics=tuple(self._deleted_topics),
        )
        orders = tuple((broker, tuple(self._orders[broker])) for broker in sorted(self._orders))
        self.clear()
        self._held_back.update(dict.fromkeys(held_back))
        return delta, orders

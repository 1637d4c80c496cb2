"""Data that reassignments left behind: replicas that are none any more and have still to be deleted.

Which ones the state's znode says (``PartitionState.removed``), so that a broker that was away, or a controller that was
killed in between, changes nothing: the order is given again with each snapshot until the broker says that it is done.
A broker that is a replica again by then is not ordered to delete anything.
"""

from __future__ import annotations

from zkbroker.controller.changes import Changes
from zkbroker.controller.cluster_image import ClusterImage
from zkbroker.model.cluster import DeletedReplica
from zkbroker.model.topics import PartitionState, TopicPartition


class Removals:
    """Part of the controller: tells ``changes`` what brokers must hear."""

    __slots__ = ("_changes", "_image", "_pending")

    def __init__(self, image: ClusterImage, changes: Changes) -> None:
        self._image = image
        self._changes = changes
        self._pending: dict[TopicPartition, tuple[str, tuple[int, ...]]] = {}
        """Partition → its topic id, and the brokers that have not said yet that its data is gone."""

    def __repr__(self) -> str:
        return f"Removals({len(self._pending)})"

    def noted(self, partition: TopicPartition, state: PartitionState) -> None:
        """``state`` is committed: order what is new in it, take back what is a replica again."""
        _, known = self._pending.pop(partition, ("", ()))
        brokers = tuple(broker for broker in state.removed if broker not in state.replicas)
        for broker in known:
            if broker not in brokers:
                self._changes.unorder(broker, _order(partition, state.topic_id))
        if not brokers:
            return
        self._pending[partition] = state.topic_id, brokers
        for broker in brokers:
            if broker not in known:
                self._changes.order(broker, _order(partition, state.topic_id))

    def deleted(self, broker_id: int, partition: TopicPartition, topic_id: str) -> None:
        """That broker has nothing of it any more. The next state that is written says so."""
        known_id, brokers = self._pending.get(partition, ("", ()))
        if known_id != topic_id or broker_id not in brokers:
            return
        left = tuple(broker for broker in brokers if broker != broker_id)
        if left:
            self._pending[partition] = topic_id, left
        else:
            del self._pending[partition]
        state = self._image.states.get(partition)
        if state is not None and state.topic_id == topic_id:
            self._image.states[partition] = state._replace(removed=left)

    def forget(self, partition: TopicPartition) -> None:
        """Its topic is gone."""
        self._pending.pop(partition, None)

    def orders_for(self, broker_id: int) -> tuple[DeletedReplica, ...]:
        """What this broker has still to delete."""
        return tuple(
            _order(partition, topic_id)
            for partition, (topic_id, brokers) in sorted(self._pending.items())
            if broker_id in brokers
        )


def _order(partition: TopicPartition, topic_id: str) -> DeletedReplica:
    return DeletedReplica(partition.topic, partition.partition, topic_id)

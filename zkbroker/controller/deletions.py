"""All topics on their way out, and who waits for that."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zkbroker.controller.changes import Changes
from zkbroker.controller.cluster_image import ClusterImage, TopicImage
from zkbroker.controller.deletion import DeletionStage, TopicDeletion
from zkbroker.controller.effects import Answer, DeleteTopicNodes, DropDeletionMarker, Effect
from zkbroker.controller.reassignment import is_moving
from zkbroker.model.cluster import ClusterDelta, DeletedReplica
from zkbroker.model.topics import TopicPartition


class Deletions:
    """Part of the controller: decides about deletions, tells ``changes`` what brokers must hear."""

    __slots__ = ("_by_topic", "_changes", "_image", "_is_allowed", "_tokens")

    def __init__(self, image: ClusterImage, changes: Changes, *, is_allowed: bool) -> None:
        """``is_allowed``: ``delete.topic.enable``."""
        self._image = image
        self._changes = changes
        self._is_allowed = is_allowed
        self._by_topic: dict[str, TopicDeletion] = {}
        self._tokens: dict[str, list[int]] = {}

    def __repr__(self) -> str:
        return f"Deletions({[self._by_topic[topic] for topic in sorted(self._by_topic)]})"

    def __len__(self) -> int:
        return len(self._by_topic)

    def __contains__(self, topic: str) -> bool:
        return topic in self._by_topic

    def hides(self, topic: str) -> bool:
        """True once the deletion has started: the topic is gone from metadata, its states are not touched."""
        deletion = self._by_topic.get(topic)
        return deletion is not None and deletion.stage is not DeletionStage.QUEUED

    def is_clearing(self, topic: str) -> bool:
        """True while the topic's znodes are being removed."""
        deletion = self._by_topic.get(topic)
        return deletion is not None and deletion.stage is DeletionStage.CLEARING

    def hidden_topics(self) -> tuple[tuple[str, str], ...]:
        """(topic, topic id) of all that ``hides`` is true of."""
        return tuple((topic, self._by_topic[topic].topic_id) for topic in sorted(self._by_topic) if self.hides(topic))

    def orders_for(self, broker_id: int) -> tuple[DeletedReplica, ...]:
        """What this broker has still to delete."""
        return tuple(
            DeletedReplica(topic, partition.partition, self._by_topic[topic].topic_id)
            for topic in sorted(self._by_topic)
            for partition in self._by_topic[topic].awaited_of(broker_id)
        )

    def requested(
        self, topics: Sequence[str], is_being_moved: Callable[[str], bool] = lambda topic: False
    ) -> list[Effect]:
        """Someone wants these gone. A topic with a reassignment under way waits for its end, also one that is only
        being written (``is_being_moved``): whoever takes over would find a move that waits for deleted replicas."""
        effects: list[Effect] = []
        for topic in sorted(topics):
            image = self._image.topics.get(topic)
            if topic in self._by_topic:
                continue
            if image is None:
                effects.append(DropDeletionMarker(topic, "there is no such topic"))
            elif not self._is_allowed:
                effects.append(DropDeletionMarker(topic, "delete.topic.enable is false"))
            else:
                deletion = TopicDeletion(topic, image.topic_id)
                self._by_topic[topic] = deletion
                if not any(is_moving(row) for row in image.partitions.values()) and not is_being_moved(topic):
                    effects += self._start(deletion, image)
        return effects

    def awaited(self, token: int, topic: str) -> list[Effect]:
        """``token`` is answered when the topic is gone, or only replicas on dead brokers are left to delete."""
        if topic not in self._image.topics:
            return [Answer(token, None)]
        self._tokens.setdefault(topic, []).append(token)
        return self._answer_if_only_dead_are_awaited(topic)

    def replica_deleted(self, broker_id: int, partition: TopicPartition, topic_id: str) -> list[Effect]:
        """A live broker has no data of this replica any more."""
        deletion = self._by_topic.get(partition.topic)
        if deletion is None or deletion.topic_id != topic_id:
            return []
        if deletion.replica_deleted((partition, broker_id)):
            return self._clear(deletion)
        return self._answer_if_only_dead_are_awaited(partition.topic)

    def broker_gone(self) -> list[Effect]:
        """A broker died: it may be the last that somebody waited for."""
        return [effect for topic in list(self._tokens) for effect in self._answer_if_only_dead_are_awaited(topic)]

    def moved(self, topic: str) -> list[Effect]:
        """A reassignment ended: a deletion may have waited for it."""
        deletion, image = self._by_topic.get(topic), self._image.topics.get(topic)
        if deletion is None or image is None or deletion.stage is not DeletionStage.QUEUED:
            return []
        if any(is_moving(placement) for placement in image.partitions.values()):
            return []
        return self._start(deletion, image)

    def finished(self, topic: str) -> list[Effect]:
        """The topic is gone from ZooKeeper, however that came about."""
        self._by_topic.pop(topic, None)
        return self._answer(topic)

    def _start(self, deletion: TopicDeletion, image: TopicImage) -> list[Effect]:
        replicas = [
            (partition, broker)
            for partition in self._image.partitions(image.name)
            for broker in image.partitions[partition.partition].replicas
        ]
        deletion.start(replicas)
        self._changes.topic_gone(image.name, image.topic_id)
        for partition, broker in replicas:
            self._changes.order(broker, DeletedReplica(partition.topic, partition.partition, image.topic_id))
        return [] if replicas else self._clear(deletion)

    def _clear(self, deletion: TopicDeletion) -> list[Effect]:
        deletion.clear()
        return [DeleteTopicNodes(deletion.topic)]

    def _answer_if_only_dead_are_awaited(self, topic: str) -> list[Effect]:
        deletion = self._by_topic.get(topic)
        if deletion is None or deletion.stage is not DeletionStage.STARTED:
            return []
        if any(broker in self._image.brokers for _, broker in deletion.awaited):
            return []
        return self._answer(topic)

    def _answer(self, topic: str) -> list[Effect]:
        return [Answer(token, None) for token in self._tokens.pop(topic, ())]


def full_snapshot(
    image: ClusterImage, controller_id: int, controller_epoch: int, deletions: Deletions, broker_id: int
) -> ClusterDelta:
    """All that this broker must know: every live broker, every partition that is not being deleted, its orders."""
    return ClusterDelta(
        controller_id,
        controller_epoch,
        0,
        is_snapshot=True,
        brokers=tuple(image.brokers[broker] for broker in sorted(image.brokers)),
        partitions=tuple(
            (partition, image.states[partition])
            for partition in sorted(image.states)
            if not deletions.hides(partition.topic)
        ),
        deleted_topics=deletions.hidden_topics(),
        deleted_replicas=deletions.orders_for(broker_id),
    )

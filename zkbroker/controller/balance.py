"""Leaders back to the preferred replicas, where a broker has lost more than the allowed share of them."""

from __future__ import annotations

from zkbroker.controller.cluster_image import ClusterImage
from zkbroker.controller.elections import elect_preferred
from zkbroker.model.topics import TopicPartition


def misplaced_leaders(image: ClusterImage, percentage_max: int) -> list[TopicPartition]:
    """Partitions to elect the preferred leader for, in order.

    Per broker: of the partitions that prefer it, those led by another; if their share is above
    ``percentage_max`` (``leader.imbalance.per.broker.percentage``), all of them that can move.
    """
    preferring: dict[int, list[TopicPartition]] = {}
    for partition, state in image.states.items():
        if state.replicas:
            preferring.setdefault(state.replicas[0], []).append(partition)
    found: list[TopicPartition] = []
    for broker in sorted(preferring):
        misplaced = [partition for partition in preferring[broker] if image.states[partition].leader != broker]
        if len(misplaced) * 100 > percentage_max * len(preferring[broker]):
            found += [partition for partition in misplaced if can_move(image, partition)]
    return sorted(found)


def can_move(image: ClusterImage, partition: TopicPartition) -> bool:
    """``can_lead_preferred``, and not being reassigned: that moves its leader itself."""
    state = image.states.get(partition)
    return state is not None and not (state.adding or state.removing) and can_lead_preferred(image, partition)


def can_lead_preferred(image: ClusterImage, partition: TopicPartition) -> bool:
    """Not led by its preferred replica, though that one is online and in the ISR."""
    state = image.states.get(partition)
    if state is None or not state.replicas or state.leader == state.replicas[0]:
        return False
    election = elect_preferred(state.replicas, state.isr, lambda broker: image.is_electable(broker, partition))
    return election is not None

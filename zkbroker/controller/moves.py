"""The moves of one term of office: what was asked for, and what of ``/admin/reassign_partitions`` is still to be done.

A move that is under way needs no entry here: the topic's znode says that it is, and settling takes the next step.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import NamedTuple

from zkbroker.controller.cluster_image import ClusterImage, Placement
from zkbroker.controller.complaints import Complaints
from zkbroker.controller.effects import EditReassignments
from zkbroker.controller.fencing import involved
from zkbroker.controller.reassignment import (
    Circumstances,
    is_moving,
    origin_of,
    reassigned_state,
    settled_placement,
    target_of,
    towards,
)
from zkbroker.model.errors import ErrorCode
from zkbroker.model.reassignments import OngoingMove, PartitionOutcome
from zkbroker.model.topics import PartitionState, TopicPartition

REPLICAS_COUNT_MAX = 1000
"""More brokers than any cluster has: a list of 100,000 keeps the reactor for minutes."""


class Wish(NamedTuple):
    """A move that was asked for and is not begun yet."""

    target: tuple[int, ...] | None
    """None: back to where it came from."""


class Step(NamedTuple):
    """What to write for a partition's move: its row in the topic's znode, and its state if it has one."""

    placement: Placement
    state: PartitionState | None
    wish: Wish | None
    """The request that this fulfils; if it could not be written it is still to be done."""


class Moves:
    """Part of settling."""

    def __init__(self, image: ClusterImage, complaints: Complaints, controller_epoch: int) -> None:
        self._image = image
        self._complaints = complaints
        self._controller_epoch = controller_epoch
        self.wishes: dict[TopicPartition, Wish] = {}
        self.by_znode: dict[TopicPartition, tuple[int, ...]] = {}
        """What ``/admin/reassign_partitions`` asks for, and is neither done nor refused."""

        self.unreadable: dict[str, None] = {}
        """Topics whose znode cannot be written, since it does not decode or grows too large: left alone until read."""
        self._being_edited: dict[tuple[TopicPartition, tuple[int, ...]], None] = {}
        """Entries on their way out of the znode: whoever reads it meanwhile sees them still."""

    def __repr__(self) -> str:
        return f"Moves(wishes={len(self.wishes)}, by_znode={len(self.by_znode)})"

    def wish(self, partition: TopicPartition, target: tuple[int, ...] | None) -> None:
        """Asked for last counts. A cancellation also of what is not begun yet."""
        self.wishes[partition] = Wish(target)

    def is_moving(self, partition: TopicPartition, written: Placement | None) -> bool:
        """Under way, or about to be; ``written``: the row that is being written at this moment."""
        placement = written or self._image.placement(partition)
        wish = self.wishes.get(partition)
        return (wish is not None and wish.target is not None) or (placement is not None and is_moving(placement))

    def ongoing(self, wanted: Mapping[TopicPartition, None] | None) -> list[OngoingMove]:
        """The moves under way, of these partitions or of all, in order."""
        found = []
        for name in sorted(self._image.topics):
            for number, placement in sorted(self._image.topics[name].partitions.items()):
                partition = TopicPartition(name, number)
                if is_moving(placement) and (wanted is None or partition in wanted):
                    found.append(OngoingMove(partition, *placement))
        return found

    def refusal(
        self, partition: TopicPartition, target: tuple[int, ...], brokers: Container[int]
    ) -> PartitionOutcome | None:
        """Why nothing may move there, in Kafka's words; None if it may, should the partition exist. ``brokers``: who
        may be added."""
        if not target:
            return _invalid("Empty replica list specified in partition reassignment.")
        if len(target) > REPLICAS_COUNT_MAX:
            return _invalid(f"{len(target)} replicas for one partition: at most {REPLICAS_COUNT_MAX} are possible")
        if len(set(target)) < len(target):
            return _invalid(f"Duplicate replica ids in partition reassignment replica list: {list(target)}")
        if any(broker < 0 for broker in target):
            return _invalid(f"Invalid broker id in replica list: {list(target)}")
        placement = self._image.placement(partition)
        moving = towards(placement or Placement(()), target)
        state = self._image.states.get(partition)
        if state is not None and _is_without(state, moving):
            return _invalid(f"Nobody of ISR {list(state.isr)} is among the replicas: {list(moving.replicas)}")
        adding = moving.adding
        absent = [broker for broker in adding if broker in target and broker not in brokers]
        if absent:
            return _invalid(
                f"Replica assignment has brokers that are not alive. Replica list: {absent}, "
                f"live broker list: {list(self._image.usable_brokers())}"
            )
        return None

    def step(self, partition: TopicPartition, placement: Placement, state: PartitionState | None) -> Step | None:
        """The next write of a partition whose state is right otherwise; None if its move can only go on waiting."""
        if not (self.wishes or is_moving(placement)) or partition.topic in self.unreadable:
            return None
        if partition in self._image.suspects or (state is not None and involved(state, self._image.fenced)):
            return None  # who is there is being found out: settled again when it is known
        wish = self.wishes.pop(partition, None)
        asked = placement
        if wish is not None:
            asked = towards(placement, origin_of(placement) if wish.target is None else wish.target)
        if state is None:
            # nothing was ever written: there is nothing to catch up with
            return None if asked == placement else Step(asked, None, wish)
        now = Circumstances(
            electable=lambda broker: self._image.is_electable(broker, partition),
            loss=lambda broker: self._image.loss(broker, partition),
            min_insync_replicas=self._image.min_insync_replicas(partition.topic),
            controller_epoch=self._controller_epoch,
        )
        after = settled_placement(asked, state, now)
        if after == placement or _is_without(state, after):
            return None
        written = reassigned_state(placement, after, state, now)
        if written.leader != state.leader:
            written = self._complaints.trusted(partition, written)
        return Step(after, written, wish)

    def finished(self, busy: Mapping[TopicPartition, object]) -> list[EditReassignments]:
        """What of the znode's entries is over, one way or another: they are to be taken out of it. ``busy``: partitions
        with a write under way."""
        over = tuple(
            (partition, target)
            for partition, target in self.by_znode.items()
            if partition not in self.wishes and partition not in busy and not self._is_on_its_way(partition, target)
        )
        return [self.dropped(over)] if over else []

    def dropped(self, entries: tuple[tuple[TopicPartition, tuple[int, ...]], ...]) -> EditReassignments:
        """These entries of the znode are done, refused or overridden."""
        for entry in entries:
            self.by_znode.pop(entry[0], None)
            self._being_edited[entry] = None
        return EditReassignments(entries)

    def edited(self, entries: tuple[tuple[TopicPartition, tuple[int, ...]], ...]) -> None:
        """They are gone from the znode."""
        for entry in entries:
            self._being_edited.pop(entry, None)

    def is_being_edited(self, partition: TopicPartition, target: tuple[int, ...]) -> bool:
        """It stands in the znode only until that is written."""
        return (partition, target) in self._being_edited

    def _is_on_its_way(self, partition: TopicPartition, target: tuple[int, ...]) -> bool:
        placement = self._image.placement(partition)
        return placement is not None and is_moving(placement) and target_of(placement) == target


def _is_without(state: PartitionState, placement: Placement) -> bool:
    """Would nobody there have the records? Only where people edited the topic's znode."""
    return not any(member in placement.replicas for member in state.isr)


def _invalid(message: str) -> PartitionOutcome:
    return PartitionOutcome(ErrorCode.INVALID_REPLICA_ASSIGNMENT, message)

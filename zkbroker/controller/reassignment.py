"""Moving a partition to other brokers (KIP-455): the sets that a move is made of, and its steps.

A move from ``origin`` to ``target`` begins with the assignment target ++ origin, so that the new replicas catch up and
join the ISR like any follower. When all of the target is in the ISR it ends: one write makes the target the
assignment, takes the others out of the ISR and, where the leader is among those, moves the leadership within the ISR.
Kafka writes the topic's znode and the state one after the other; here one multi holds both, so that whoever takes over
finds either all of a step or nothing, and goes on from there.

A move that is overridden or cancelled leaves replicas behind that neither the origin nor the new target has. They are
dropped at once if the rest can do without them (``_can_spare``); else they stay, adding *and* removing in one, until
it can. Kafka drops them in any case, also when nobody else holds what was acknowledged.
"""

from __future__ import annotations

from typing import NamedTuple

from zkbroker.controller.cluster_image import Placement
from zkbroker.controller.elections import Loss, Presence, check_state, elect_reassigned
from zkbroker.controller.eligible import eligible_after
from zkbroker.model.topics import NO_LEADER, PartitionState


class Reassignment(NamedTuple):
    """A move from ``origin`` to ``target``; while it lasts the assignment is the target followed by the rest."""

    origin: tuple[int, ...]
    target: tuple[int, ...]

    @property
    def replicas(self) -> tuple[int, ...]:
        """The assignment while moving: target ++ origin, each broker once."""
        return tuple(dict.fromkeys(self.target + self.origin))

    @property
    def adding(self) -> tuple[int, ...]:
        return tuple(replica for replica in self.target if replica not in self.origin)

    @property
    def removing(self) -> tuple[int, ...]:
        return tuple(replica for replica in self.replicas if replica not in self.target)

    def placement(self) -> Placement:
        """The partition's row in ``/brokers/topics/T`` while the move lasts."""
        return Placement(self.replicas, self.adding, self.removing)


class Circumstances(NamedTuple):
    """What the steps of one partition's move depend on besides its state."""

    electable: Presence
    loss: Loss
    min_insync_replicas: int
    controller_epoch: int


def is_moving(placement: Placement) -> bool:
    """True while a reassignment of this partition is under way."""
    return bool(placement.adding or placement.removing)


def origin_of(placement: Placement) -> tuple[int, ...]:
    """Where a move goes back to when it is cancelled; of a partition at rest its replicas."""
    return tuple(replica for replica in placement.replicas if replica not in placement.adding)


def target_of(placement: Placement) -> tuple[int, ...]:
    """Where a partition moves to; of one at rest its replicas."""
    return tuple(replica for replica in placement.replicas if replica not in placement.removing)


def move_of(placement: Placement) -> Reassignment | None:
    """The move that a topic znode describes, or None when the partition is at rest."""
    return Reassignment(origin_of(placement), target_of(placement)) if is_moving(placement) else None


def towards(placement: Placement, target: tuple[int, ...]) -> Placement:
    """The row of a partition that moves to ``target`` from now on, wherever it moved until now."""
    begun = Reassignment(origin_of(placement), target).placement()
    superseded = tuple(replica for replica in placement.adding if replica not in target)
    return Placement(begun.replicas + superseded, begun.adding + superseded, begun.removing + superseded)


def settled_placement(placement: Placement, state: PartitionState, now: Circumstances) -> Placement:
    """The row after what can be ended now has been ended; ``placement`` itself where nothing can."""
    target = target_of(placement)
    if not is_moving(placement):
        return placement
    if all(replica in state.isr for replica in target) and _can_lead(state, target, now.electable):
        return Placement(target)
    superseded = tuple(replica for replica in placement.adding if replica in placement.removing)
    if not superseded:
        return placement
    rest = Placement(*(tuple(replica for replica in row if replica not in superseded) for row in placement))
    return rest if _can_spare(state, superseded, rest.replicas, now) else placement


def reassigned_state(
    before: Placement, placement: Placement, state: PartitionState, now: Circumstances
) -> PartitionState:
    """The state to write together with that row: who is no replica any more leaves ISR and ELR, and does not lead.

    The leader epoch rises with every step, so that whoever led and is gone is fenced. Raises InvariantViolation.
    """
    isr = tuple(member for member in state.isr if member in placement.replicas)
    leader = state.leader
    if leader not in (*placement.replicas, NO_LEADER):
        election = elect_reassigned(target_of(placement), isr, now.electable) or elect_reassigned(
            placement.replicas, isr, now.electable
        )
        leader = NO_LEADER if election is None else election.leader
    gone = tuple(replica for replica in (*state.removed, *before.replicas) if replica not in placement.replicas)
    reason = _reason(before, placement)
    after = state._replace(
        replicas=placement.replicas,
        adding=placement.adding,
        removing=placement.removing,
        leader=leader,
        leader_epoch=state.leader_epoch + 1,
        isr=isr,
        partition_epoch=state.partition_epoch + 1,
        controller_epoch=now.controller_epoch,
        elr=eligible_after(
            state._replace(replicas=placement.replicas),
            leader,
            isr,
            state.recovering,
            now.min_insync_replicas,
            lambda replica: now.loss(replica) is not None,
        ),
        removed=tuple(dict.fromkeys(gone)),
        reason=reason,
        leader_reason=state.leader_reason if leader == state.leader else reason,
    )
    check_state(after)
    return after


def _can_lead(state: PartitionState, members: tuple[int, ...], electable: Presence) -> bool:
    return state.leader in members or elect_reassigned(members, state.isr, electable) is not None


def _can_spare(
    state: PartitionState, superseded: tuple[int, ...], replicas: tuple[int, ...], now: Circumstances
) -> bool:
    """May these go? Yes, if they are counted nowhere; or if enough others hold all that was acknowledged, and one of
    them leads."""
    if not any(replica in (*state.isr, *state.elr) for replica in superseded):
        return True
    left = tuple(member for member in state.isr if member not in superseded)
    is_enough = len(left) >= min(now.min_insync_replicas, len(replicas))
    return is_enough and bool(left) and _can_lead(state, left, now.electable)


def _reason(before: Placement, after: Placement) -> str:
    def named(ids: tuple[int, ...]) -> str:
        return ",".join(map(str, ids))

    if is_moving(after):
        return f"being reassigned to {named(target_of(after))}"
    if set(after.replicas) == set(origin_of(before)) and before.adding:
        return f"reassignment cancelled: back on {named(after.replicas)}"
    return f"reassigned to {named(after.replicas)}"

"""Moving partitions to other brokers: the sets that a move is made of. Carrying one out is not built yet.

A move that Kafka left unfinished in the znodes is kept as it is: its replicas replicate, its topic cannot be
deleted, nothing of it is lost.
"""

from __future__ import annotations

from typing import NamedTuple

from zkbroker.controller.cluster_image import Placement


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
        return tuple(replica for replica in self.origin if replica not in self.target)

    def placement(self) -> Placement:
        """The partition's row in ``/brokers/topics/T`` while the move lasts."""
        return Placement(self.replicas, self.adding, self.removing)


def is_moving(placement: Placement) -> bool:
    """True while a reassignment of this partition is under way."""
    return bool(placement.adding or placement.removing)


def move_of(placement: Placement) -> Reassignment | None:
    """The move that a topic znode describes, or None when the partition is at rest."""
    if not is_moving(placement):
        return None
    return Reassignment(
        origin=tuple(replica for replica in placement.replicas if replica not in placement.adding),
        target=tuple(replica for replica in placement.replicas if replica not in placement.removing),
    )

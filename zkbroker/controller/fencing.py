"""Fencing a broker before its session ends, and what that must not do (architecture.md, fast failover, rules 2, 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from zkbroker.controller.eligible import effective_min_isr
from zkbroker.model.topics import NO_LEADER, PartitionState


class Fenced(NamedTuple):
    """A broker that counts as dead although its session may live on."""

    broker_epoch: int
    reason: str
    """The evidence, as the states tell it to people."""
    held_until: float
    """Monotonic seconds. Its session is over by then, whatever became of the broker: what was not moved is settled as
    after any death."""
    is_certain: bool
    """Proven dead: nothing waits for its session."""


def involved(state: PartitionState, fenced: Mapping[int, Fenced]) -> tuple[int, ...]:
    """Those fenced early whom the state still counts on."""
    return tuple(member for member in (*state.isr, *state.elr) if member in fenced)


def is_better(before: PartitionState, after: PartitionState, min_insync_replicas: int) -> bool:
    """Rule 2, for a partition that counts on a broker fenced early: somebody leads, who was counted too, and acks=all
    goes on. Otherwise the partition waits for the session's end: it has nothing to gain, and if the suspicion is false
    it has something to lose."""
    if after.leader == NO_LEADER or (after.recovering and not before.recovering):
        return False
    return len(after.isr) >= effective_min_isr(before, min_insync_replicas)

"""Eligible leader replicas, the ELR (KIP-966, which Kafka's ZooKeeper mode never got): who besides the ISR may lead.

A member that leaves the ISR while that falls below ``min.insync.replicas`` stays eligible: no acks=all record is
acknowledged without it, because the high watermark is frozen. It leaves the ELR when it is in the ISR again, when the
ISR is large enough again (all leave), when it comes back without records, when it is no replica any more, and with an
unclean election, after which nobody's log is what was acknowledged.

When ``min.insync.replicas`` is lowered so that the ISR suffices, the controller empties the ELR, and the leader's high
watermark moves on when it is told. When it is raised nobody becomes eligible who was not: only those who leave from
then on. Until leader and controller know the same value the leader goes by what it was told: it counts the ELR whatever
the setting. Without a leader the ELR stays whatever the setting: nothing is acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable

from zkbroker.model.topics import NO_LEADER, PartitionState

Lossy = Callable[[int], bool]


def effective_min_isr(state: PartitionState, min_insync_replicas: int) -> int:
    """``min.insync.replicas``, but no more than there are replicas."""
    return min(min_insync_replicas, len(state.replicas))


def eligible_after(
    state: PartitionState, leader: int, isr: tuple[int, ...], recovering: bool, min_insync_replicas: int, lossy: Lossy
) -> tuple[int, ...]:
    """The ELR when ``state`` becomes led by ``leader`` with that ISR; by the order of the assignment."""
    if recovering or (leader != NO_LEADER and len(isr) >= effective_min_isr(state, min_insync_replicas)):
        return ()
    return tuple(
        replica
        for replica in state.replicas
        if (replica in state.isr or replica in state.elr) and replica not in isr and not lossy(replica)
    )


def standing_members(state: PartitionState, lossy: Lossy) -> tuple[int, ...]:
    """The ISR without members that lost something. If that is everyone: the ELR without such, whose members hold as
    much and, with no leader in the ISR, take its place. If that is everyone too: the ISR as it is, since it must not be
    empty; then nobody is elected cleanly."""
    standing = tuple(member for member in state.isr if not lossy(member))
    if standing:
        return standing
    eligible = tuple(replica for replica in state.replicas if replica in state.elr and not lossy(replica))
    return eligible or state.isr

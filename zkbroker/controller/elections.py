"""The four elections, and what a partition's state should become after brokers came or went.

Every function is a plain calculation over one partition: the state it has, who is there, what the configuration
allows. None means: leave the state alone. Whatever changes raises the leader epoch by one, because brokers ignore
an equal leader epoch for their role.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from zkbroker.model.errors import InvariantViolation
from zkbroker.model.topics import NO_LEADER, PartitionState

Presence = Callable[[int], bool]


class Election(NamedTuple):
    """Who leads, and who is in sync, once the state is written."""

    leader: int
    isr: tuple[int, ...]
    recovering: bool = False
    """True after an unclean election: the leader may lack acknowledged records."""


def elect_offline(
    replicas: tuple[int, ...], isr: tuple[int, ...], online: Presence, *, unclean: bool
) -> Election | None:
    """A leader for a partition whose leader is gone: the first assigned replica that is online and in the ISR.

    With ``unclean`` and no ISR member online: the first assigned replica that is online, alone.
    """
    for replica in replicas:
        if replica in isr and online(replica):
            return Election(replica, tuple(member for member in isr if online(member)))
    if unclean:
        for replica in replicas:
            if online(replica):
                return Election(replica, (replica,), recovering=True)
    return None


def elect_preferred(replicas: tuple[int, ...], isr: tuple[int, ...], online: Presence) -> Election | None:
    """The first replica of the assignment, if it is online and in the ISR."""
    if replicas and replicas[0] in isr and online(replicas[0]):
        return Election(replicas[0], isr)
    return None


def elect_reassigned(target: tuple[int, ...], isr: tuple[int, ...], online: Presence) -> Election | None:
    """A leader among the replicas that a reassignment moves to."""
    for replica in target:
        if replica in isr and online(replica):
            return Election(replica, isr)
    return None


def elect_for_shutdown(
    replicas: tuple[int, ...], isr: tuple[int, ...], alive: Presence, shutting_down: Presence
) -> Election | None:
    """A leader that stays, for a partition led by a broker that is shutting down; the ISR keeps only who stays."""
    for replica in replicas:
        if replica in isr and alive(replica) and not shutting_down(replica):
            return Election(replica, tuple(member for member in isr if not shutting_down(member)))
    return None


def first_state(
    topic_id: str,
    replicas: tuple[int, ...],
    controller_epoch: int,
    online: Presence,
    *,
    adding: tuple[int, ...] = (),
    removing: tuple[int, ...] = (),
) -> PartitionState | None:
    """The state of a new partition: led by its first replica online; None while none is."""
    isr = tuple(replica for replica in replicas if online(replica))
    if not isr:
        return None
    return PartitionState(
        topic_id, replicas, isr[0], 0, isr, 0, controller_epoch, adding=adding, removing=removing, reason="created"
    )


def settled_state(
    state: PartitionState, *, controller_epoch: int, alive: Presence, shutting_down: Presence, unclean: bool
) -> PartitionState | None:
    """What the state has to become now that ``alive`` and ``shutting_down`` say who is there; None if it is right.

    ``alive``: registered and the replica's log folder works. A leader that is shutting down keeps leading while
    nobody else can. When no ISR member is there the ISR stays as it is, all of it: they died together, and each
    of them holds every acknowledged record.
    """

    def online(replica: int) -> bool:
        return alive(replica) and not shutting_down(replica)

    leader, isr = state.leader, state.isr
    if leader in isr and online(leader):
        left = tuple(member for member in isr if not online(member))
        if not left:
            return None
        kept = Election(leader, tuple(member for member in isr if online(member)), state.recovering)
        return elected(state, kept, controller_epoch, f"{_brokers(left)} left the ISR")
    if leader in isr and alive(leader):
        election = elect_for_shutdown(state.replicas, isr, alive, shutting_down)
        if election is not None:
            here = tuple(member for member in election.isr if alive(member))
            moved = Election(election.leader, here, state.recovering)
            return elected(state, moved, controller_epoch, f"broker {leader} is shutting down")
        left = tuple(member for member in isr if member != leader and not online(member))
        if not left:
            return None
        kept = Election(leader, tuple(member for member in isr if member not in left), state.recovering)
        return elected(state, kept, controller_epoch, f"{_brokers(left)} left the ISR")
    election = elect_offline(state.replicas, isr, online, unclean=unclean and not any(alive(member) for member in isr))
    if election is not None:
        if election.recovering:
            reason = f"unclean: no member of ISR {','.join(map(str, isr))} is online"
        else:
            reason = "elected: a member of the ISR is back" if leader == NO_LEADER else f"broker {leader} is offline"
        recovering = election.recovering or (state.recovering and election.isr == isr)
        return elected(state, election._replace(recovering=recovering), controller_epoch, reason)
    if leader == NO_LEADER:
        return None
    gone = Election(NO_LEADER, isr, state.recovering)
    return elected(state, gone, controller_epoch, f"broker {leader} is offline, no member of the ISR is online")


def elected(state: PartitionState, election: Election, controller_epoch: int, reason: str) -> PartitionState:
    """``state`` after ``election``: leader epoch and partition epoch each one higher.

    Raises InvariantViolation for an election that breaks the rules of a state (kafka-semantics, invariant 3).
    """
    after = state._replace(
        leader=election.leader,
        leader_epoch=state.leader_epoch + 1,
        isr=election.isr,
        partition_epoch=state.partition_epoch + 1,
        controller_epoch=controller_epoch,
        recovering=election.recovering,
        reason=reason,
    )
    check_state(after)
    return after


def check_state(state: PartitionState) -> None:
    """ISR not empty, leader in the ISR or none, recovering alone. Raises InvariantViolation.

    An ISR outside the assignment is not checked here: it can come from a znode that people edited.
    """
    if not state.isr:
        raise InvariantViolation(f"empty ISR: {state}")
    if state.leader != NO_LEADER and state.leader not in state.isr:
        raise InvariantViolation(f"the leader is outside the ISR: {state}")
    if state.recovering and len(state.isr) > 1:
        raise InvariantViolation(f"recovering with more than one ISR member: {state}")


def _brokers(ids: tuple[int, ...]) -> str:
    return f"broker{'s' if len(ids) > 1 else ''} {','.join(map(str, ids))}"


def is_same_write(written: PartitionState, found: PartitionState) -> bool:
    """Whether what was found is what was written: nobody else gives the same epochs to another content."""
    return (
        found.leader == written.leader
        and found.leader_epoch == written.leader_epoch
        and found.isr == written.isr
        and found.partition_epoch == written.partition_epoch
        and found.controller_epoch == written.controller_epoch
        and found.recovering == written.recovering
    )

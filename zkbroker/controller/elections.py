"""The four elections, and what a partition's state should become after brokers came or went.

Every function is a plain calculation over one partition: the state it has, who is there, what the configuration
allows. None means: leave the state alone. An election raises the leader epoch by one, because brokers ignore an equal
leader epoch for their role; a change of the ELR alone keeps it.

Why a member of the ISR or the ELR may lead (the last replica standing, ``eligible.py``). Let C be the highest high
watermark that any leader ever reached; nothing at or above it was acknowledged with acks=all.

1. A leader raises the high watermark only to what every member of its maximal ISR *and of its ELR* reported in its
   leader epoch. What it counts contains the ISR and the ELR of the znode: a member leaves the znode's sets first, and
   is counted until the leader was told so; a joiner is counted before it is proposed.
2. An election takes the new ISR and ELR out of the old ones. So whoever is in them was counted by the leader before,
   and by each older leader that does not know yet that it is deposed: it holds everything below C, if it lost nothing.
3. A replica that joins an ISR later holds the new leader's log up to where its epoch began, which is C or more (the
   leader of step 2 held C, a deposed one gets no more of its fetches, so C rises only through the new leader).
4. So each member that lost nothing may lead without losing a record below C, and followers truncate to it only above C.

This asks nothing of ``min.insync.replicas``: that the leader and the controller may know different values for a while
costs time, never records. An unclean election breaks 2 and therefore empties the ELR. A member that did lose something
(``loss``) leaves both sets; the ISR, which must not be empty, keeps lossy members only while nobody else is left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from zkbroker.controller.eligible import eligible_after, standing_members
from zkbroker.model.cluster import LossyReplica
from zkbroker.model.errors import InvariantViolation
from zkbroker.model.topics import NO_LEADER, PartitionState

Presence = Callable[[int], bool]
Loss = Callable[[int], LossyReplica | None]
"""What a live replica lost, None for one that lost nothing (or is not there)."""


def nothing_lost(_: int) -> None:
    """The ``Loss`` of a cluster in which nobody lost anything."""


class Election(NamedTuple):
    """Who leads, and who is in sync, once the state is written."""

    leader: int
    isr: tuple[int, ...]
    recovering: bool = False
    """True after an unclean election: the leader may lack acknowledged records."""
    elr: tuple[int, ...] | None = None
    """None: whoever is eligible stays so, without those in ``isr``; after an unclean election nobody is."""


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
        topic_id,
        replicas,
        isr[0],
        0,
        isr,
        0,
        controller_epoch,
        adding=adding,
        removing=removing,
        reason="created",
        leader_reason="created",
    )


def elect_eligible(replicas: tuple[int, ...], elr: tuple[int, ...], online: Presence) -> Election | None:
    """With nobody of the ISR left: the first assigned replica that is online and in the ELR, alone."""
    for replica in replicas:
        if replica in elr and online(replica):
            return Election(replica, (replica,))
    return None


def elect_lossy(replicas: tuple[int, ...], online: Presence, loss: Loss) -> Election | None:
    """An unclean election that loses least: of those that came back with a loss, the one with the newest epoch and then
    the longest log, whether it left the ISR on its return or is its last member. One whose log is gone is no better
    than any other replica."""
    found: tuple[int, LossyReplica] | None = None
    for replica in replicas:
        lossy = loss(replica)
        if lossy is None or lossy.is_gone or not online(replica):
            continue
        if found is None or lossy[3:] > found[1][3:]:
            found = replica, lossy
    return None if found is None else Election(found[0], (found[0],), recovering=True)


def settled_state(
    state: PartitionState,
    *,
    controller_epoch: int,
    alive: Presence,
    shutting_down: Presence,
    unclean: bool,
    loss: Loss = nothing_lost,
    min_insync_replicas: int = 1,
) -> PartitionState | None:
    """What the state has to become now that ``alive`` and ``shutting_down`` say who is there; None if it is right.

    ``alive``: registered and the replica's log folder works. A leader that is shutting down keeps leading while
    nobody else can. When no ISR member is there the ISR stays as it is, all of it: they died together, and each
    of them holds every acknowledged record, unless it comes back with a ``loss``. A leader that was elected uncleanly
    (``recovering``) leads with what is left, though its broker may not have settled its loss yet.
    """

    def lost(replica: int) -> LossyReplica | None:
        return None if state.recovering and replica == state.leader else loss(replica)

    def online(replica: int) -> bool:
        return alive(replica) and not shutting_down(replica)

    def electable(replica: int) -> bool:
        return online(replica) and lost(replica) is None

    def has_log(replica: int) -> bool:
        lossy = lost(replica)
        return online(replica) and (lossy is None or not lossy.is_gone)

    def settled(election: Election, reason: str) -> PartitionState:
        elr = eligible_after(
            state,
            election.leader,
            election.isr,
            election.recovering,
            min_insync_replicas,
            lambda r: lost(r) is not None,
        )
        return elected(state, election._replace(elr=elr), controller_epoch, reason)

    leader = state.leader
    isr = standing_members(state, lambda replica: lost(replica) is not None)
    if leader in isr and electable(leader):
        kept = tuple(member for member in isr if electable(member))
        if kept != state.isr:
            return settled(Election(leader, kept, state.recovering), _left(state.isr, kept, lost))
        elr = eligible_after(
            state, leader, kept, state.recovering, min_insync_replicas, lambda replica: lost(replica) is not None
        )
        return None if elr == state.elr else _with_elr(state, elr, controller_epoch, _left_elr(state.elr, elr, lost))
    if leader in isr and alive(leader) and lost(leader) is None:
        election = elect_for_shutdown(state.replicas, isr, lambda r: alive(r) and lost(r) is None, shutting_down)
        if election is not None:
            here = tuple(member for member in election.isr if electable(member))
            return settled(Election(election.leader, here, state.recovering), f"broker {leader} is shutting down")
        election = elect_eligible(state.replicas, state.elr, electable)
        if election is not None:
            return settled(election, f"broker {leader} is shutting down, broker {election.leader} is in the ELR")
        kept = tuple(member for member in isr if member == leader or electable(member))
        if kept == state.isr:
            return None
        return settled(Election(leader, kept, state.recovering), _left(state.isr, kept, lost))
    election = elect_offline(state.replicas, isr, electable, unclean=False)
    if election is not None:
        reason = "elected: a member of the ISR is back" if leader == NO_LEADER else _lost_leader(leader, lost)
        recovering = state.recovering and election.isr == state.isr
        return settled(election._replace(recovering=recovering), reason)
    election = elect_eligible(state.replicas, state.elr, electable)
    if election is not None:
        return settled(
            election, f"broker {election.leader} is in the ELR, no member of ISR {_ids(state.isr)} is online"
        )
    if unclean and not any(alive(member) and lost(member) is None for member in (*isr, *state.elr)):
        election = (
            elect_lossy(state.replicas, online, lost)
            or elect_offline(state.replicas, (), has_log, unclean=True)
            or elect_offline(state.replicas, (), online, unclean=True)
        )
        if election is not None:
            return settled(election, f"unclean: no member of ISR {_ids(state.isr)} is online")
    if len(state.replicas) == 1:
        # nobody else holds, or ever will hold, more than what is left
        election = elect_lossy(state.replicas, online, lost)
        if election is not None:
            return settled(
                election, f"the only replica came back without what broker {election.leader} had not flushed"
            )
    reason = state.reason
    if all(lost(member) is not None for member in isr):
        reason = (
            f"{named_brokers(isr)} came back without unflushed data and nobody else has it: only an unclean election "
            "(unclean.leader.election.enable=true for the topic) brings the partition back, with what is left"
        )
    elif leader != NO_LEADER:
        reason = f"{_lost_leader(leader, lost)}, no member of the ISR is online"
    elif isr != state.isr:
        reason = f"{_left(state.isr, isr, lost)}, no member of the ISR is online"
    if leader != NO_LEADER or isr != state.isr:
        return settled(Election(NO_LEADER, isr, state.recovering), reason)
    elr = eligible_after(
        state, leader, isr, state.recovering, min_insync_replicas, lambda replica: lost(replica) is not None
    )
    if elr != state.elr and reason == state.reason:
        reason = f"{_left_elr(state.elr, elr, lost)}, no member of the ISR is online"
    elif reason == state.reason:
        return None
    return _with_elr(state, elr, controller_epoch, reason)


def _with_elr(state: PartitionState, elr: tuple[int, ...], controller_epoch: int, reason: str) -> PartitionState:
    """Nobody's role changes: the leader hears of it like of any ISR change."""
    return state._replace(
        elr=elr, partition_epoch=state.partition_epoch + 1, controller_epoch=controller_epoch, reason=reason
    )


def elected(state: PartitionState, election: Election, controller_epoch: int, reason: str) -> PartitionState:
    """``state`` after ``election``: leader epoch and partition epoch each one higher.

    Raises InvariantViolation for an election that breaks the rules of a state (kafka-semantics, invariant 3).
    """
    elr = election.elr
    if elr is None:
        elr = () if election.recovering else tuple(member for member in state.elr if member not in election.isr)
    after = state._replace(
        leader=election.leader,
        leader_epoch=state.leader_epoch + 1,
        isr=election.isr,
        partition_epoch=state.partition_epoch + 1,
        controller_epoch=controller_epoch,
        recovering=election.recovering,
        elr=elr,
        reason=reason,
        leader_reason=reason,
    )
    check_state(after)
    return after


def check_state(state: PartitionState) -> None:
    """ISR not empty, leader in the ISR or none, recovering alone, nobody in ISR and ELR. Raises InvariantViolation.

    An ISR outside the assignment is not checked here: it can come from a znode that people edited.
    """
    if not state.isr:
        raise InvariantViolation(f"empty ISR: {state}")
    if state.leader != NO_LEADER and state.leader not in state.isr:
        raise InvariantViolation(f"the leader is outside the ISR: {state}")
    if state.recovering and len(state.isr) > 1:
        raise InvariantViolation(f"recovering with more than one ISR member: {state}")
    if any(member in state.isr for member in state.elr):
        raise InvariantViolation(f"in the ISR and in the ELR: {state}")


def _ids(ids: tuple[int, ...]) -> str:
    return ",".join(map(str, ids))


def named_brokers(ids: tuple[int, ...]) -> str:
    return f"broker{'s' if len(ids) > 1 else ''} {_ids(ids)}"


def _left(before: tuple[int, ...], after: tuple[int, ...], loss: Loss) -> str:
    left = tuple(member for member in before if member not in after)
    if any(loss(member) is not None for member in left):
        return f"{named_brokers(left)} left the ISR: back without unflushed data"
    return f"{named_brokers(left)} left the ISR"


def _left_elr(before: tuple[int, ...], after: tuple[int, ...], loss: Loss) -> str:
    left = tuple(member for member in before if member not in after)
    if any(loss(member) is not None for member in left):
        return f"{named_brokers(left)} left the ELR: back without unflushed data"
    return f"{named_brokers(left)} left the ELR: the ISR suffices for min.insync.replicas"


def _lost_leader(leader: int, loss: Loss) -> str:
    return f"broker {leader} is offline" if loss(leader) is None else f"broker {leader} lost its unflushed data"


def is_same_write(written: PartitionState, found: PartitionState) -> bool:
    """Whether what was found is what was written: nobody else gives the same epochs to another content."""
    return (
        found.leader == written.leader
        and found.leader_epoch == written.leader_epoch
        and found.isr == written.isr
        and found.partition_epoch == written.partition_epoch
        and found.controller_epoch == written.controller_epoch
        and found.recovering == written.recovering
        and found.elr == written.elr
    )

"""Invariants 2, 4 and 12 as far as they are about the roles that replicas took; 14: data goes only with its topic."""

from __future__ import annotations

from typing import Any

from tests.simulation.checkers.ghost import Ghost, View
from tests.simulation.checkers.observer import Commit, Fingerprint, LogChange
from tests.simulation.violation import Violation

REGISTRATION_GRACE_S = 4.0
"""A leader may know a registration for so long after it is gone: the session of its controller ends by then."""


class RoleChecker:
    def __init__(self, ghost: Ghost, disk_of: Any) -> None:
        self._ghost = ghost
        self._disk_of = disk_of
        """Broker → the disk of its running process, or None."""
        self._heard: dict[tuple[int, tuple[str, int]], tuple[Any, dict[int, int]]] = {}
        """(broker, partition) → its leadership, and the broker epochs that its followers fetched in."""

    def committed(self, commit: Commit) -> None:
        if commit.path.endswith("/state") and commit.op != "delete":
            _, _, _, topic, _, number, _ = commit.path.split("/")
            partition = self._ghost.find(topic, int(number))
            if partition is not None and partition.state is not None:
                view = partition.views.get(partition.state.leader)
                if view is not None:
                    self._check_maximal(view)

    def log_changed(self, view: View, change: LogChange) -> None:
        """7: a follower appends only what its leader has."""
        follower = view.replica.follower
        if follower is None or not change.appended or change.is_first_look or change.role_changed:
            return
        his = view.partition.views.get(follower.leader)
        if his is None or his.replica.leader is None or his.replica.leader.leader_epoch != follower.leader_epoch:
            return
        batches = his.content.batches
        index = his.content.index_of(change.appended[0].base)
        for batch in change.appended:
            other = batches[index] if index < len(batches) else None
            if other is None or (other.base, other.epoch, other.data) != (batch.base, batch.epoch, batch.data):
                raise Violation(
                    7,
                    f"{view!r} appended offset {batch.base} of epoch {batch.epoch} as follower of {his.broker_id} in "
                    f"leader epoch {follower.leader_epoch}, which has there "
                    f"{None if other is None else (other.base, other.epoch)}",
                )
            index += 1

    def changed(self, view: View, before: Fingerprint | None, after: Fingerprint) -> None:
        if after.state is not None and after.state.topic_id != view.partition.key[0]:
            raise Violation(14, f"{view!r} is the data of another topic: its state is of {after.state.topic_id}")
        leader = after.leader
        if leader is None:
            return
        self._check_followers(view, leader)
        if before is None or before.leader is not leader:
            self._check_leader(view, leader)
        if before is None or before.isr != after.isr or before.leader is not leader:
            self._check_maximal(view)
            for joiner in after.isr.maximal:
                if joiner not in after.isr.isr:
                    self._check_joiner(view, leader, joiner)

    def vanished(self, view: View) -> None:
        """14: a running broker has a replica no more; its data must still be there, or be meant to go. A replica that a
        reassignment took out may have come back meanwhile: until it is counted again, what it had may go."""
        disk = self._disk_of(view.broker_id)
        partition = view.partition
        if disk is None or partition.deleting or partition.state is None:
            return
        if view.broker_id not in partition.state.members:
            return
        if self._ghost.topics.get(partition.topic) == partition.key[0] and not disk.exists(view.folder):
            raise Violation(14, f"{view!r}: its data is gone, but it is assigned there")

    # 2

    def _check_leader(self, view: View, leader: Any) -> None:
        partition, epoch = view.partition, leader.leader_epoch
        partition.epoch_starts.setdefault(epoch, view.content.end)
        named = partition.leaders.get(epoch)
        if named != view.broker_id:
            raise Violation(2, f"{view!r} leads in leader epoch {epoch}, whose leader is {named}")
        led_by = partition.led_by.setdefault(epoch, (view.broker_id, view.incarnation))
        if led_by != (view.broker_id, view.incarnation) and epoch in partition.ends:
            # A process that died before it appended anything in the epoch left no name that could be given again.
            raise Violation(
                2, f"{view!r}: process {view.incarnation} leads in leader epoch {epoch}, as process {led_by[1]} did"
            )

    # 12

    def _check_followers(self, view: View, leader: Any) -> None:
        """Whom a leader heard in its leader epoch knows of that epoch; of its incarnations the latest counts."""
        known = self._heard.get((view.broker_id, view.partition.key))
        if known is None or known[0] is not leader:
            known = self._heard[view.broker_id, view.partition.key] = (leader, {})
        for broker_id, follower in leader.followers.items():
            if follower.broker_epoch < known[1].get(broker_id, -1):
                raise Violation(
                    12,
                    f"{view!r} counts broker epoch {follower.broker_epoch} of broker {broker_id}, which has fetched "
                    f"in {known[1][broker_id]}",
                )
            known[1][broker_id] = follower.broker_epoch
            his = view.partition.views.get(broker_id)
            if follower.contact is None or his is None or his.replica.state is None:
                continue
            if his.replica.state.leader_epoch < leader.leader_epoch and self._is_incarnation(
                his, follower.broker_epoch
            ):
                raise Violation(
                    12,
                    f"{view!r} counts a fetch of broker {broker_id} in leader epoch {leader.leader_epoch}; it knows of "
                    f"{his.replica.state.leader_epoch} only",
                )

    # 4

    def _check_maximal(self, view: View) -> None:
        partition = view.partition
        state, leader = partition.state, view.replica.leader
        if state is None or leader is None or leader.leader_epoch != state.leader_epoch:
            return
        if len(state.isr) < partition.effective_min_isr:
            return
        # The ELR counts too, whatever the leader's minimum is by now.
        maximal = (*leader.isr.state.maximal, *leader.elr)
        for member in state.members:
            if member not in maximal:
                raise Violation(
                    4,
                    f"{view!r}: the leader counts {list(maximal)}, ZooKeeper has ISR {list(state.isr)} "
                    f"ELR {list(state.elr)} in leader epoch {state.leader_epoch}",
                )

    # 12

    def _check_joiner(self, view: View, leader: Any, joiner: int) -> None:
        """The leader counts a new member from now on: it must have fetched in its registered incarnation, and hold
        what is committed."""
        partition, ghost = view.partition, self._ghost
        epoch = leader.followers[joiner].broker_epoch
        registered = ghost.registered.get(joiner)
        if registered is None or registered[0] != epoch:
            # Perhaps the one before the last: a leader that stood still meanwhile finds old fetches in its sockets.
            gone_at = ghost.gone_at.get((joiner, epoch))
            if gone_at is None or ghost.now - gone_at > REGISTRATION_GRACE_S:
                raise Violation(
                    12,
                    f"{view!r}: broker {joiner} joins with broker epoch {epoch}, gone at {gone_at}; registered is "
                    f"{registered}",
                )
        believed = leader.followers[joiner].log_end_offset
        start = partition.epoch_starts.get(leader.leader_epoch, 0)
        if believed < start:
            raise Violation(
                12,
                f"{view!r}: broker {joiner} joins with an end of {believed}, the epoch began at {start}: older leaders "
                f"may have committed what it lacks",
            )
        his = partition.views.get(joiner)
        if his is not None and self._is_incarnation(his, epoch):
            self._check_position(view, leader, his)

    def _is_incarnation(self, view: View, epoch: int) -> bool:
        """Whether the process that is seen is the one that registered with ``epoch``."""
        registered = self._ghost.registered.get(view.broker_id)
        return registered is not None and registered[0] == epoch

    def _check_position(self, view: View, leader: Any, his: View) -> None:
        """What the leader believes of a follower's end is not more than it has, unless it truncated for a later
        leader since."""
        follower = his.replica.follower
        if follower is None or follower.leader_epoch != leader.leader_epoch:
            return
        believed = leader.followers[his.broker_id].log_end_offset
        if believed > his.content.end:
            raise Violation(
                12, f"{view!r} believes that broker {his.broker_id} ends at {believed}: it ends at {his.content.end}"
            )
        at = max(min(view.content.agreed, his.content.agreed), view.content.start, his.content.start)
        mine, other = view.content, his.content
        here, there = mine.index_of(at), other.index_of(at)
        while here < len(mine.batches) and mine.batches[here].base < believed:
            one = mine.batches[here]
            two = other.batches[there] if there < len(other.batches) else None
            if two is None or (one.base, one.epoch, one.data) != (two.base, two.epoch, two.data):
                raise Violation(
                    12,
                    f"{view!r} lets broker {his.broker_id} join, whose log differs at offset {one.base}: "
                    f"{one.epoch} here, {None if two is None else (two.base, two.epoch)} there",
                )
            here += 1
            there += 1

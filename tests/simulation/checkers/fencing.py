"""Invariant 15: a broker that was fenced falls silent.

Its answers to acks ≤ 1 and to reads end within a session timeout of the last evidence that it could have had: after
that, who reads from it would miss what another leader took.
"""

from __future__ import annotations

from tests.simulation.checkers.ghost import Ghost, Partition, View
from tests.simulation.checkers.observer import Fingerprint
from tests.simulation.violation import Violation

SLACK_S = 0.5
"""News on its way: of the registration that is gone, of the epoch that is over."""


class FencingChecker:
    def __init__(self, ghost: Ghost, session_timeout_s: float) -> None:
        self._ghost = ghost
        self._session_timeout_s = session_timeout_s
        self._followed_until: dict[tuple[str, int, int, int], float] = {}
        """(topic id, partition, leader epoch, follower) → true time until which it may have fetched in that epoch."""

    def changed(self, view: View, before: Fingerprint | None, after: Fingerprint) -> None:
        was = None if before is None else before.follower
        if was is not None and after.follower is not was:
            self._stopped(view, was.leader_epoch)

    def vanished(self, view: View) -> None:
        follower = view.seen[2] if view.seen else None
        if follower is not None:
            self._stopped(view, follower.leader_epoch)

    def _stopped(self, view: View, epoch: int) -> None:
        self._followed_until[(*view.partition.key, epoch, view.broker_id)] = self._ghost.now

    def answered(self, view: View, leader_epoch: int, broker_epoch: int, what: str, rate: float = 1.0) -> None:
        """The broker answered a request without error that needs the contact rule; ``rate``: of its clock."""
        partition, ghost = view.partition, self._ghost
        state = partition.state
        if state is None or state.leader_epoch <= leader_epoch or state.leader in (-1, view.broker_id):
            return
        fenced_at = self._fenced_at(view.broker_id, broker_epoch)
        if fenced_at is None:
            return
        evidence = max(fenced_at, self._last_follower(partition, leader_epoch, view.broker_id))
        late = ghost.now - evidence
        if late > self._session_timeout_s / min(rate, 1.0) + SLACK_S:
            raise Violation(
                15,
                f"{view!r} answered {what} in leader epoch {leader_epoch}, {late:.3f} s after the last evidence "
                f"that it counts; the leader is {state.leader} in epoch {state.leader_epoch}",
            )

    def _fenced_at(self, broker_id: int, broker_epoch: int) -> float | None:
        registered = self._ghost.registered.get(broker_id)
        if registered is not None and registered[0] == broker_epoch:
            return None
        gone = self._ghost.unregistered.get(broker_id)
        return gone[1] if gone is not None and gone[0] == broker_epoch else None

    def _last_follower(self, partition: Partition, leader_epoch: int, leader: int) -> float:
        latest = 0.0
        for follower in partition.replicas:
            if follower == leader:
                continue
            view = partition.views.get(follower)
            role = None if view is None else view.replica.follower
            if role is not None and role.leader_epoch == leader_epoch:
                return self._ghost.now
            latest = max(latest, self._followed_until.get((*partition.key, leader_epoch, follower), 0.0))
        return latest

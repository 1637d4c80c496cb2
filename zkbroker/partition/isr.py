"""The in-sync replicas of one partition as its leader sees them, and the one change of them under way (KIP-497).

A leader never changes its ISR by itself: it proposes, the controller writes the ``state`` znode, the answer (or a newer
state from the controller) commits. All states, and the one table of transitions between them, are in this file::

                 expand wanted                        shrink wanted
    PendingExpand <----------- Committed(isr, epoch) -----------> PendingShrink
          |  confirmed, reverted, replaced ^  ^ confirmed, reverted, replaced |
          +--------------------------------+  +-------------------------------+

While the outcome of a proposal is not known, the leader must count whoever *may* be in the ISR by now: the maximal ISR.
Were a joiner not counted before the answer, it could be elected without records that were acknowledged meanwhile; were
a leaver dropped before the answer, the same. So an unknown outcome is asked for again for ever and never reverted.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from zkbroker.model.channel import IsrAnswer, IsrProposal
from zkbroker.model.errors import ErrorCode, InvariantViolation
from zkbroker.model.topics import PartitionState, TopicPartition


class Committed(NamedTuple):
    """No change is under way."""

    isr: tuple[int, ...]
    partition_epoch: int

    @property
    def maximal(self) -> tuple[int, ...]:
        return self.isr

    @property
    def proposal(self) -> IsrProposal | None:
        return None

    def __repr__(self) -> str:
        return f"Committed(isr={list(self.isr)} epoch={self.partition_epoch})"


class PendingExpand(NamedTuple):
    """A follower asked to join: it is counted from now on."""

    isr: tuple[int, ...]
    """The committed ISR."""
    partition_epoch: int
    maximal: tuple[int, ...]
    """The committed ISR and the joiner."""
    proposal: IsrProposal

    def __repr__(self) -> str:
        return f"PendingExpand(isr={list(self.isr)} maximal={list(self.maximal)} epoch={self.partition_epoch})"


class PendingShrink(NamedTuple):
    """Followers are to leave: they are counted until the controller has confirmed it."""

    isr: tuple[int, ...]
    """The committed ISR, with those who are to leave."""
    partition_epoch: int
    proposal: IsrProposal

    @property
    def maximal(self) -> tuple[int, ...]:
        return self.isr

    def __repr__(self) -> str:
        proposed = [member for member, _ in self.proposal.isr]
        return f"PendingShrink(isr={list(self.isr)} proposed={proposed} epoch={self.partition_epoch})"


IsrState = Committed | PendingExpand | PendingShrink


class IsrEvent(Enum):
    EXPAND_WANTED = "expand wanted"
    SHRINK_WANTED = "shrink wanted"
    CONFIRMED = "confirmed"
    REVERTED = "reverted"
    REPLACED = "replaced"
    """A newer state came from the controller: whatever was proposed against the old one cannot be written any more."""


TRANSITIONS: dict[tuple[type, IsrEvent], type] = {
    (Committed, IsrEvent.EXPAND_WANTED): PendingExpand,
    (Committed, IsrEvent.SHRINK_WANTED): PendingShrink,
    (Committed, IsrEvent.REPLACED): Committed,
    (PendingExpand, IsrEvent.CONFIRMED): Committed,
    (PendingExpand, IsrEvent.REVERTED): Committed,
    (PendingExpand, IsrEvent.REPLACED): Committed,
    (PendingShrink, IsrEvent.CONFIRMED): Committed,
    (PendingShrink, IsrEvent.REVERTED): Committed,
    (PendingShrink, IsrEvent.REPLACED): Committed,
}
"""Every legal step; any other is a broken invariant."""


class Outcome(Enum):
    """What the answer to a proposal means for it."""

    IGNORED = "ignored"
    """It answers another proposal, leader epoch or partition epoch: nothing changed."""
    COMMITTED = "committed"
    REVERTED = "reverted"
    """Surely not written: the committed ISR stands, and a new proposal may be made."""
    RETRY = "retry"
    """Unknown, or refused for now: send the same proposal again."""
    STUCK = "stuck"
    """Refused because this leader's view is old: it stays pending until the controller's newer state arrives."""


_SURELY_NOT_WRITTEN = frozenset((ErrorCode.INELIGIBLE_REPLICA, ErrorCode.OPERATION_NOT_ATTEMPTED))

# UNKNOWN_TOPIC_OR_PARTITION is not among them: a topic whose znode was garbled for a while comes back with the state
# that this leader has already, which is no news to it. A deleted one ends the leadership.
_VIEW_IS_OLD = frozenset(
    (
        ErrorCode.FENCED_LEADER_EPOCH,
        ErrorCode.INVALID_UPDATE_VERSION,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.NEW_LEADER_ELECTED,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.INCONSISTENT_TOPIC_ID,
    )
)


class InSyncReplicas:
    """The ISR of a partition during one leader epoch of its leader.

    ``state`` is one of the three states above; ``broker_epoch_of`` gives the incarnation a member is proposed with, -1
    where it is unknown; ``next_proposal_id`` must never give the same number twice in one process.
    """

    __slots__ = ("_broker_epoch_of", "_next_proposal_id", "leader_epoch", "partition", "state", "topic_id")

    def __init__(
        self,
        partition: TopicPartition,
        state: PartitionState,
        *,
        broker_epoch_of: Callable[[int], int],
        next_proposal_id: Callable[[], int],
    ) -> None:
        self.partition = partition
        self.topic_id = state.topic_id
        self.leader_epoch = state.leader_epoch
        self.state: IsrState = Committed(state.isr, state.partition_epoch)
        self._broker_epoch_of = broker_epoch_of
        self._next_proposal_id = next_proposal_id

    def __repr__(self) -> str:
        return repr(self.state)

    def expand(self, joiner: int) -> IsrProposal:
        """Count ``joiner`` from now on and propose it. Raises InvariantViolation when a proposal is under way."""
        isr = (*self.state.isr, joiner)
        proposal = self._proposal(isr)
        self._step(
            IsrEvent.EXPAND_WANTED, PendingExpand(self.state.isr, self.state.partition_epoch, isr, proposal), joiner
        )
        return proposal

    def shrink(self, leavers: tuple[int, ...]) -> IsrProposal:
        """Propose the ISR without ``leavers``, who are counted until it is confirmed."""
        proposal = self._proposal(tuple(member for member in self.state.isr if member not in leavers))
        self._step(IsrEvent.SHRINK_WANTED, PendingShrink(self.state.isr, self.state.partition_epoch, proposal), leavers)
        return proposal

    def answered(self, answer: IsrAnswer) -> Outcome:
        """Take the controller's answer to a proposal."""
        pending = self.state.proposal
        if pending is None or answer.proposal_id != pending.proposal_id or answer.topic_id != self.topic_id:
            return Outcome.IGNORED
        if answer.error is ErrorCode.NONE:
            state = answer.state
            if (
                state is None
                or state.leader_epoch != self.leader_epoch
                or state.partition_epoch < self.state.partition_epoch
            ):
                return Outcome.IGNORED
            self._step(IsrEvent.CONFIRMED, Committed(state.isr, state.partition_epoch), answer)
            return Outcome.COMMITTED
        if answer.error in _SURELY_NOT_WRITTEN:
            self._step(IsrEvent.REVERTED, Committed(self.state.isr, self.state.partition_epoch), answer)
            return Outcome.REVERTED
        return Outcome.STUCK if answer.error in _VIEW_IS_OLD else Outcome.RETRY

    def replaced(self, state: PartitionState) -> bool:
        """Take a state that the controller tells for the same leader epoch; False when it is not newer."""
        if state.partition_epoch <= self.state.partition_epoch:
            return False
        self._step(IsrEvent.REPLACED, Committed(state.isr, state.partition_epoch), state)
        return True

    def _proposal(self, isr: tuple[int, ...]) -> IsrProposal:
        # The recovery after an unclean election ends with the leader's first proposal, whatever it proposes.
        return IsrProposal(
            self.partition.topic,
            self.partition.partition,
            self.topic_id,
            self._next_proposal_id(),
            self.leader_epoch,
            self.state.partition_epoch,
            tuple((member, self._broker_epoch_of(member)) for member in isr),
            recovering=False,
        )

    def _step(self, event: IsrEvent, new: IsrState, cause: object) -> None:
        if TRANSITIONS.get((type(self.state), event)) is not type(new):
            raise InvariantViolation(f"{self.partition}: {event.value} ({cause}) cannot happen in {self.state}")
        if not new.isr or len(set(new.maximal)) != len(new.maximal):
            raise InvariantViolation(f"{self.partition}: {event.value} ({cause}) makes an illegal ISR: {new}")
        self.state = new

"""Who waits for what: requests that are answered when partitions are settled, proposals in their queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from zkbroker.controller.moves import Step
from zkbroker.model.channel import AlterPartitionResponse, IsrAnswer, IsrProposal
from zkbroker.model.errors import ErrorCode
from zkbroker.model.reassignments import ElectionKind, PartitionOutcome
from zkbroker.model.topics import PartitionState, TopicPartition


class WaitKind(Enum):
    RETURN = "return"
    """A bounced broker comes back when its old incarnation is out of every state; ``token`` is its id."""
    SHUTDOWN = "shutdown"
    CREATED = "created"
    """Partitions must have a state, not merely be settled."""
    MOVED = "moved"
    """Reassignments are begun, cancelled, or at once done: none of them is still to be written."""
    ELECTED = "elected"


class Wait:
    """Finished when every partition it asked for is settled."""

    __slots__ = ("asked", "broker_id", "election", "kind", "missing", "outcomes", "token")

    def __init__(
        self,
        kind: WaitKind,
        token: int,
        partitions: Iterable[TopicPartition],
        broker_id: int = -1,
        outcomes: Mapping[TopicPartition, PartitionOutcome] | None = None,
        election: ElectionKind | None = None,
    ) -> None:
        """``outcomes``: what is known already of a request that asks for partitions one by one."""
        self.kind = kind
        self.outcomes = dict(outcomes or {})
        self.election = election
        self.token = token
        self.asked = tuple(partitions)
        self.missing = dict.fromkeys(self.asked)
        self.broker_id = broker_id

    def __repr__(self) -> str:
        return f"Wait({self.kind.value}, {self.token}, missing={len(self.missing)})"


class Waits:
    """All waits of a term, in the order in which they came."""

    __slots__ = ("_waits",)

    def __init__(self) -> None:
        self._waits: list[Wait] = []

    def add(self, wait: Wait) -> None:
        self._waits.append(wait)

    def settled(self, partition: TopicPartition, has_state: bool, has_wish: bool = False) -> None:
        """The partition needs no write now. ``has_wish``: a reassignment was asked for and cannot be begun yet."""
        for wait in self._waits:
            if (wait.kind is WaitKind.CREATED and not has_state) or (wait.kind is WaitKind.MOVED and has_wish):
                continue
            wait.missing.pop(partition, None)

    def removed(self, partition: TopicPartition) -> None:
        """The partition is no more: nobody waits for it."""
        for wait in self._waits:
            wait.missing.pop(partition, None)

    def refused(self, partition: TopicPartition, outcome: PartitionOutcome) -> None:
        """The partition is not reassigned: whoever asked for it is told why."""
        for wait in self._waits:
            if wait.kind is WaitKind.MOVED and partition in wait.missing:
                wait.outcomes[partition] = outcome

    def take_finished(self) -> list[Wait]:
        finished = [wait for wait in self._waits if not wait.missing]
        if finished:
            self._waits = [wait for wait in self._waits if wait.missing]
        return finished


class AlterWait:
    """One AlterPartition request until each of its proposals is decided."""

    __slots__ = ("answers", "broker_epoch", "broker_id", "token")

    def __init__(self, token: int, broker_id: int, broker_epoch: int, count: int) -> None:
        self.token = token
        self.broker_id = broker_id
        self.broker_epoch = broker_epoch
        self.answers: list[IsrAnswer | None] = [None] * count


class QueuedProposal(NamedTuple):
    """One proposal of a request, waiting to be judged or written."""

    wait: AlterWait
    position: int
    proposal: IsrProposal

    def answer(self, error: ErrorCode, state: PartitionState | None) -> AlterPartitionResponse | None:
        """Note the decision; the whole response when it was the last one."""
        asked = self.proposal
        self.wait.answers[self.position] = IsrAnswer(
            asked.topic, asked.partition, asked.topic_id, asked.proposal_id, error, state
        )
        answers = tuple(answer for answer in self.wait.answers if answer is not None)
        return AlterPartitionResponse(ErrorCode.NONE, answers) if len(answers) == len(self.wait.answers) else None


class StateWriting(NamedTuple):
    """A state that is being written, and the proposal or the step of a move that it fulfils, if any."""

    state: PartitionState | None
    """None: only a row of the topic's znode, for a partition that has no state yet."""
    proposal: QueuedProposal | None
    move: Step | None = None

    def names(self, broker_id: int) -> bool:
        """Does it count that broker in?"""
        return self.state is not None and broker_id in self.state.isr

"""Who waits for what: requests that are answered when partitions are settled, proposals in their queue."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from zkbroker.model.channel import AlterPartitionResponse, IsrAnswer, IsrProposal
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import PartitionState, TopicPartition


class WaitKind(Enum):
    RETURN = "return"
    """A bounced broker comes back when its old incarnation is out of every state; ``token`` is its id."""
    SHUTDOWN = "shutdown"
    CREATED = "created"
    """Partitions must have a state, not merely be settled."""


class Wait:
    """Finished when every partition it asked for is settled."""

    __slots__ = ("asked", "broker_id", "kind", "missing", "token")

    def __init__(self, kind: WaitKind, token: int, partitions: Iterable[TopicPartition], broker_id: int = -1) -> None:
        self.kind = kind
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

    def settled(self, partition: TopicPartition, has_state: bool) -> None:
        """The partition needs no write now."""
        for wait in self._waits:
            if wait.kind is not WaitKind.CREATED or has_state:
                wait.missing.pop(partition, None)

    def removed(self, partition: TopicPartition) -> None:
        """The partition is no more: nobody waits for it."""
        for wait in self._waits:
            wait.missing.pop(partition, None)

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
    """A state that is being written, and the proposal that it fulfils, if any."""

    state: PartitionState
    proposal: QueuedProposal | None

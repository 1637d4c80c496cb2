"""How a broker proposes ISR changes: all of a reactor turn in one request, one request at a time, until answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from zkbroker.model.channel import AlterPartitionRequest, AlterPartitionResponse, IsrAnswer, IsrProposal
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import TopicPartition

RETRY_SECONDS = 0.1
"""Pause after a request that failed: the controller may just be moving."""

ANSWER_SECONDS_MAX = 10.0
"""A request without an answer for so long has failed: proposals must not wait behind it for ever."""

PROPOSALS_MAX = 1000
"""In one request, so that a broker with very many partitions does not exceed the line protocol's body."""

Send = Callable[[AlterPartitionRequest], Deferred[AlterPartitionResponse]]


class IsrProposals:
    """Proposals that await the controller's answer, the newest of each partition.

    ``answered`` gets each answer and says whether that proposal must be sent again. A proposal is kept until it is
    answered for good or withdrawn: an unknown outcome is asked for again for ever.
    """

    def __init__(
        self, reactor: Any, *, broker_id: int, broker_epoch: Callable[[], int], answered: Callable[[IsrAnswer], bool]
    ) -> None:
        self._reactor = reactor
        self._broker_id = broker_id
        self._broker_epoch = broker_epoch
        self._answered = answered
        self.send: Send | None = None
        """The channel to the controller, set once there is one."""
        self._waiting: dict[TopicPartition, IsrProposal] = {}
        self._in_flight: dict[TopicPartition, IsrProposal] = {}
        self._is_sending = False
        self._call: Any = None

    def __repr__(self) -> str:
        return f"IsrProposals(waiting={len(self._waiting)} in_flight={len(self._in_flight)})"

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_flight)

    def submit(self, proposal: IsrProposal) -> None:
        """Send ``proposal``, together with what else comes in this turn."""
        self._waiting[TopicPartition(proposal.topic, proposal.partition)] = proposal
        self._call_in(0.0)

    def withdraw(self, partition: TopicPartition) -> None:
        """Ask no more for it: the leadership is over, or the controller told a newer state."""
        self._waiting.pop(partition, None)
        self._in_flight.pop(partition, None)

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._waiting.clear()
        self._in_flight.clear()

    def _call_in(self, seconds: float) -> None:
        if self._call is None and not self._is_sending:
            self._call = self._reactor.callLater(seconds, self._send)

    def _send(self) -> None:
        self._call = None
        if not self._waiting:
            return
        if self.send is None:
            self._call_in(RETRY_SECONDS)
            return
        batch = dict(list(self._waiting.items())[:PROPOSALS_MAX])
        for partition in batch:
            del self._waiting[partition]
        self._in_flight = dict(batch)
        self._is_sending = True
        request = AlterPartitionRequest(self._broker_id, self._broker_epoch(), tuple(batch.values()))
        try:
            answer = self.send(request)
        except Exception:
            self._failed(Failure(), batch)
            return
        answer.addTimeout(ANSWER_SECONDS_MAX, self._reactor)
        answer.addCallbacks(self._came, self._failed, callbackArgs=(batch,), errbackArgs=(batch,))

    def _came(self, response: AlterPartitionResponse, batch: dict[TopicPartition, IsrProposal]) -> None:
        if response.error is not ErrorCode.NONE:
            self._again(batch, RETRY_SECONDS)
            return
        left = dict(batch)
        for answer in response.answers:
            partition = TopicPartition(answer.topic, answer.partition)
            sent = left.get(partition)
            if sent is None or sent.proposal_id != answer.proposal_id:
                continue
            if not self._answered(answer):
                del left[partition]
        self._again(left, RETRY_SECONDS if left else 0.0)

    def _failed(self, _: Failure, batch: dict[TopicPartition, IsrProposal]) -> None:
        self._again(batch, RETRY_SECONDS)

    def _again(self, batch: dict[TopicPartition, IsrProposal], seconds: float) -> None:
        """Put back what is neither withdrawn nor superseded meanwhile."""
        for partition, proposal in batch.items():
            if self._in_flight.get(partition) is proposal and partition not in self._waiting:
                self._waiting[partition] = proposal
        self._in_flight = {}
        self._is_sending = False
        if self._waiting:
            self._call_in(seconds)

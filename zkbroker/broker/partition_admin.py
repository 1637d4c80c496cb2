"""Reassignments and elections on request: done by the term in office."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from zkbroker.broker.controller_term import Term
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.reassignments import ElectionKind, OngoingMove, PartitionOutcome
from zkbroker.model.topics import TopicPartition


class PartitionAdmin:
    """Fills ``kafka.partition_ports.PartitionAdminPort``, for whoever may be in office (``OfficePort``)."""

    _reactor: Any

    def _serving(self) -> Term:
        """The term, if it may decide now. Raises BrokerError NOT_CONTROLLER."""
        raise NotImplementedError

    def alter_reassignments(
        self, wanted: Mapping[TopicPartition, tuple[int, ...] | None], timeout_ms: int
    ) -> Deferred[Mapping[TopicPartition, PartitionOutcome]]:
        return self._in_office(
            timeout_ms,
            lambda term: term.ask(lambda token: term.controller.reassignments_requested(token, wanted)),
        )

    def list_reassignments(
        self, partitions: Sequence[TopicPartition] | None, timeout_ms: int
    ) -> Deferred[list[OngoingMove]]:
        wanted = None if partitions is None else dict.fromkeys(partitions)
        return self._in_office(timeout_ms, lambda term: term.controller.settling.moves.ongoing(wanted))

    def elect_leaders(
        self, kind: ElectionKind, partitions: Sequence[TopicPartition] | None, timeout_ms: int
    ) -> Deferred[Mapping[TopicPartition, PartitionOutcome]]:
        return self._in_office(
            timeout_ms,
            lambda term: term.ask(lambda token: term.controller.elections_requested(token, kind, partitions)),
        )

    def _in_office(self, timeout_ms: int, ask: Callable[[Term], Any]) -> Deferred[Any]:
        """What ``ask`` gives once the cluster is read, or the refusal. What takes too long goes on."""
        answer: Deferred[Any] = Deferred()
        try:
            term = self._serving()
        except BrokerError as error:
            answer.errback(error)
            return answer
        timer = self._reactor.callLater(max(0.0, timeout_ms / 1000), _time_out, answer)

        def done(result: Any) -> None:
            if timer.active():
                timer.cancel()
                answer.callback(result)

        term.when_ready().addCallback(lambda _: ask(term)).addBoth(done)
        return answer


def _time_out(answer: Deferred[Any]) -> None:
    answer.errback(BrokerError(ErrorCode.REQUEST_TIMED_OUT, "not done in time; it goes on"))

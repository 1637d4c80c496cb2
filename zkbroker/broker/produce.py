"""Produce requests: appended at once, answered when ``acks`` is satisfied."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zkbroker.broker.delayed import ParkedProduce
from zkbroker.broker.metadata import INTERNAL_TOPICS
from zkbroker.broker.refusals import Refusals
from zkbroker.broker.replica import Replica
from zkbroker.broker.replica_table import ReplicaTable
from zkbroker.kafka.ports import Cancellable, ProducedRow, ProduceRow
from zkbroker.log.log import AppendInfo
from zkbroker.model.errors import BrokerError, ErrorCode, InvariantViolation, RecordsRefused

ACKS_ALL = -1

BEHIND_A_REFUSED = "the batch before this one was refused"


class Produces:
    """Fills ``DataPort.produce``."""

    def __init__(self, table: ReplicaTable) -> None:
        self._table = table
        self._refusals = Refusals(table.shared.clock)

    def produce(
        self, acks: int, timeout_ms: int, rows: Sequence[ProduceRow], done: Callable[[list[ProducedRow]], None]
    ) -> Cancellable | None:
        shared = self._table.shared
        now = shared.clock.monotonic()
        parked: ParkedProduce | None = None
        answers: list[ProducedRow] = []
        for index, row in enumerate(rows):
            if row.topic in INTERNAL_TOPICS:
                text = f"Cannot append to internal topic {row.topic}"
                answers.append(self._answer(row, ErrorCode.INVALID_TOPIC_EXCEPTION, text))
                continue
            replica = self._table.led(row.topic, row.partition)
            if isinstance(replica, ErrorCode):
                answers.append(self._refused(row, replica))
                continue
            try:
                refused = self._refusal(replica, acks)
                if refused is not None:
                    answers.append(self._refused(row, refused))
                    continue
                info = self._append(replica, row, now)
            except BrokerError as error:
                answers.append(self._not_appended(row, error))
                continue
            except InvariantViolation as error:
                shared.fatal(f"append to {replica!r}", error)
                answers.append(self._refused(row, ErrorCode.UNKNOWN_SERVER_ERROR))
                continue
            start = replica.log.log_start_offset
            answer = ProducedRow(
                row.topic, row.partition, ErrorCode.NONE, info.base_offset, info.log_append_time_ms, start
            )
            answers.append(answer)
            if acks == 0:
                continue
            needed = info.last_offset + 1
            if acks == ACKS_ALL:
                if needed <= replica.high_watermark and replica.leader is not None:
                    outcome = replica.leader.acks_all_outcome()
                    if outcome is not ErrorCode.NONE:
                        answers[-1] = answer._replace(error=outcome)
                    continue
                waiters = replica.produce_waiters
            elif needed > replica.counted_end:
                waiters = replica.flush_waiters
            else:
                continue
            if parked is None:
                parked = ParkedProduce(shared.deadlines, done, answers)
            parked.wait_for(index)
            waiters.add(needed, parked, index)
        if parked is None:
            done(answers)
            return None
        parked.park(timeout_ms / 1000)
        return parked

    def _refusal(self, replica: Replica, acks: int) -> ErrorCode | None:
        leader = replica.leader
        if leader is None:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER
        refused = leader.append_refusal(acks)
        if refused is None and not self._table.has_fresh_contact(leader):
            # Another leader may be elected by now, which would never have these records (contact rule). With acks=all
            # that would be safe, since nobody would acknowledge them: but the client is better sent elsewhere at once.
            return ErrorCode.NOT_LEADER_OR_FOLLOWER
        return refused

    def _append(self, replica: Replica, row: ProduceRow, now: float) -> AppendInfo:
        leader = replica.leader
        if row.records is None or leader is None:
            raise BrokerError(ErrorCode.INVALID_RECORD, "a produce request must carry a record batch per partition")
        if self._refusals:
            # A log takes any first sequence of a producer that it does not know.
            instead = self._refusals.instead_of_gap(row.topic, row.partition, row.records, replica.log.producers)
            if instead is not None:
                raise BrokerError(instead, BEHIND_A_REFUSED)
        info = replica.log.append_as_leader(row.records, leader.leader_epoch)
        if self._refusals:
            self._refusals.appended(row.topic, row.partition, row.records)
        if not info.is_duplicate:
            replica.appended(now)
        return info

    def _not_appended(self, row: ProduceRow, error: BrokerError) -> ProducedRow:
        if error.error is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER and row.records is not None:
            instead = self._refusals.instead_of_gap(row.topic, row.partition, row.records)
            if instead is not None:
                return self._answer(row, instead, BEHIND_A_REFUSED)
        answer = self._refused(row, error.error, str(error))
        return answer._replace(bad_records=error.records) if isinstance(error, RecordsRefused) else answer

    def _refused(self, row: ProduceRow, error: ErrorCode, message: str | None = None) -> ProducedRow:
        self._refusals.note(row.topic, row.partition, row.records, error)
        return self._answer(row, error, message)

    def _answer(self, row: ProduceRow, error: ErrorCode, message: str | None) -> ProducedRow:
        hint = self._table.hint(error, row.topic, row.partition)
        return ProducedRow(row.topic, row.partition, error, message=message, current_leader=hint)

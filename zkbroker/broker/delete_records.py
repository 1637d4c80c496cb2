"""DeleteRecords (API 21, KIP-107): the log start moves at the leader, and the request waits for its followers' to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zkbroker.broker.delayed import Deadlines
from zkbroker.broker.replica import Replica
from zkbroker.broker.replica_table import ReplicaTable
from zkbroker.kafka.ports import Cancellable, DeletedRow, DeleteRow
from zkbroker.model.errors import BrokerError, ErrorCode

HIGH_WATERMARK = -1
"""As an offset: all that is committed."""


class RecordDeletions:
    """Fills ``DataPort.delete_records``."""

    def __init__(self, table: ReplicaTable) -> None:
        self._table = table

    def delete_records(
        self, timeout_ms: int, rows: Sequence[DeleteRow], done: Callable[[list[DeletedRow]], None]
    ) -> Cancellable | None:
        parked = ParkedDeletion(self._table.shared.deadlines, done)
        for row in rows:
            self._delete(row, parked)
        parked.park(timeout_ms / 1000)
        return None if parked.is_finished else parked

    def _delete(self, row: DeleteRow, parked: ParkedDeletion) -> None:
        table = self._table
        replica = table.led(row.topic, row.partition)
        if isinstance(replica, ErrorCode):
            parked.answered(DeletedRow(row.topic, row.partition, replica))
            return
        leader = replica.leader
        if leader is None or not table.has_fresh_contact(leader):
            parked.answered(DeletedRow(row.topic, row.partition, ErrorCode.NOT_LEADER_OR_FOLLOWER))
            return
        try:
            offset = _checked(replica, row.offset)
            if offset > replica.log.log_start_offset:
                replica.log.advance_log_start(offset)
                replica.tell_followers()
                replica.tell_consumers()
        except BrokerError as error:
            parked.answered(DeletedRow(row.topic, row.partition, error.error))
            return
        low = leader.low_watermark(replica.log.log_start_offset)
        parked.answered(DeletedRow(row.topic, row.partition, ErrorCode.NONE, low))
        if low < offset:
            parked.wait_for(replica, offset)


def _checked(replica: Replica, offset: int) -> int:
    """The offset up to which records may go. Raises BrokerError: POLICY_VIOLATION, OFFSET_OUT_OF_RANGE."""
    if "delete" not in replica.log.config.cleanup_policy:
        raise BrokerError(ErrorCode.POLICY_VIOLATION, "cleanup.policy does not allow to delete records")
    if offset == HIGH_WATERMARK:
        return replica.high_watermark
    if not 0 <= offset <= replica.high_watermark:
        raise BrokerError(ErrorCode.OFFSET_OUT_OF_RANGE, f"offset {offset} is above {replica.high_watermark}")
    return offset


class ParkedDeletion:
    """A request that waits until no live replica begins below what it deleted."""

    __slots__ = ("_answers", "_deadlines", "_done", "_pending", "bucket")

    def __init__(self, deadlines: Deadlines, done: Callable[[list[DeletedRow]], None]) -> None:
        self._deadlines = deadlines
        self._done: Callable[[list[DeletedRow]], None] | None = done
        self._answers: list[DeletedRow] = []
        self._pending: dict[int, tuple[Replica, int]] = {}
        """By place in the answers: the replica, and the offset that its low watermark must reach."""
        self.bucket = -1

    @property
    def is_finished(self) -> bool:
        return self._done is None

    def answered(self, row: DeletedRow) -> None:
        """The next row's answer, as it is so far."""
        self._answers.append(row)

    def wait_for(self, replica: Replica, offset: int) -> None:
        """The row that was answered last is not over before all begin at ``offset``."""
        self._pending[len(self._answers) - 1] = replica, offset
        replica.deletions[self] = None

    def park(self, seconds: float) -> None:
        """All rows are there."""
        if self._pending and seconds > 0:
            self._deadlines.add(self, seconds)
        else:
            self.expired()

    def look(self, replica: Replica) -> None:
        """A log start moved, a follower is gone, or the replica leads no more."""
        if self._done is None:
            return
        leader, log = replica.leader, replica.log
        low = -1 if leader is None else leader.low_watermark(log.log_start_offset)
        for index, (waited_for, offset) in list(self._pending.items()):
            if waited_for is not replica:
                continue
            if leader is None:
                error = ErrorCode.KAFKA_STORAGE_ERROR if log.is_offline else ErrorCode.NOT_LEADER_OR_FOLLOWER
                self._settle(index, error, -1)
            elif low >= offset:
                self._settle(index, ErrorCode.NONE, low)
        if all(waited_for is not replica for waited_for, _ in self._pending.values()):
            replica.deletions.pop(self, None)
        if not self._pending:
            self._finish()

    def expired(self) -> None:
        for index in list(self._pending):
            self._settle(index, ErrorCode.REQUEST_TIMED_OUT, self._answers[index].low_watermark)
        self._finish()

    def cancel(self) -> None:
        """The client is gone: what was deleted stays so, nobody is told."""
        self._done = None
        self._deadlines.drop(self)
        for replica, _ in self._pending.values():
            replica.deletions.pop(self, None)
        self._pending.clear()

    def _settle(self, index: int, error: ErrorCode, low_watermark: int) -> None:
        replica, _ = self._pending.pop(index)
        if all(other is not replica for other, _ in self._pending.values()):
            replica.deletions.pop(self, None)
        self._answers[index] = self._answers[index]._replace(error=error, low_watermark=low_watermark)

    def _finish(self) -> None:
        done, answers = self._done, self._answers
        self.cancel()
        if done is not None:
            done(answers)

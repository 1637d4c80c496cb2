"""ListOffsets and OffsetForLeaderEpoch at the leader."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.python.failure import Failure

from zkbroker.broker.replica import Replica
from zkbroker.broker.replica_table import ReplicaTable
from zkbroker.kafka.ports import EpochAnswer, EpochRow, OffsetAnswer, OffsetRow
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.partition.leader import LeaderState

LATEST = -1
EARLIEST = -2
MAX_TIMESTAMP = -3
EARLIEST_LOCAL = -4
LATEST_TIERED = -5

Found = tuple[int, int, int]
"""(timestamp, offset, leader epoch)"""


class OffsetQueries:
    """Fills ``DataPort.list_offsets`` and ``offsets_for_leader_epochs``."""

    def __init__(self, table: ReplicaTable) -> None:
        self._table = table

    def list_offsets(
        self, read_committed: bool, rows: Sequence[OffsetRow], done: Callable[[list[OffsetAnswer]], None]
    ) -> None:
        """``done`` is called when the last row is answered; searches by time are read in a thread."""
        _OffsetList(self._table, read_committed, rows, done).start()

    def offsets_for_leader_epochs(self, rows: Sequence[EpochRow]) -> list[EpochAnswer]:
        """Where each asked leader epoch ends in this leader's log; -1, -1 where it is not known (KIP-101, KIP-320)."""
        answers = []
        for row in rows:
            replica = self._table.led(row.topic, row.partition, row.current_leader_epoch)
            if isinstance(replica, ErrorCode):
                answers.append(EpochAnswer(row.topic, row.partition, replica))
                continue
            leader = replica.leader
            if leader is None or not self._table.has_fresh_contact(leader):
                answers.append(EpochAnswer(row.topic, row.partition, ErrorCode.NOT_LEADER_OR_FOLLOWER))
                continue
            end = replica.log.epochs.end_offset_for(row.leader_epoch, replica.log.log_end_offset) or (-1, -1)
            answers.append(EpochAnswer(row.topic, row.partition, ErrorCode.NONE, end[0], end[1]))
        return answers


class _OffsetList:
    """One ListOffsets request."""

    def __init__(
        self,
        table: ReplicaTable,
        read_committed: bool,
        rows: Sequence[OffsetRow],
        done: Callable[[list[OffsetAnswer]], None],
    ) -> None:
        self._table = table
        self._read_committed = read_committed
        self._rows = rows
        self._done = done
        self._answers: dict[int, OffsetAnswer] = {}

    def start(self) -> None:
        if not self._rows:
            self._done([])
        for index, row in enumerate(self._rows):
            replica = self._table.led(row.topic, row.partition, row.current_leader_epoch)
            if isinstance(replica, ErrorCode):
                self._answer(index, replica)
            elif replica.leader is None or not self._table.has_fresh_contact(replica.leader):
                self._answer(index, ErrorCode.NOT_LEADER_OR_FOLLOWER)
            else:
                self._ask(index, row.timestamp_ms, replica, replica.leader)

    def _ask(self, index: int, timestamp_ms: int, replica: Replica, leader: LeaderState) -> None:
        log = replica.log
        if timestamp_ms == LATEST:
            if self._is_behind(replica, leader):
                self._answer(index, ErrorCode.OFFSET_NOT_AVAILABLE)
            else:
                self._answer(index, ErrorCode.NONE, (-1, self._limit(replica), leader.leader_epoch))
        elif timestamp_ms in (EARLIEST, EARLIEST_LOCAL):
            start = log.log_start_offset
            self._answer(index, ErrorCode.NONE, (-1, start, log.epochs.epoch_of(start)))
        elif timestamp_ms == LATEST_TIERED:
            self._answer(index, ErrorCode.NONE)
        elif timestamp_ms < MAX_TIMESTAMP:
            self._answer(index, ErrorCode.UNSUPPORTED_VERSION)
        else:
            if timestamp_ms == MAX_TIMESTAMP:
                search = log.offset_of_max_timestamp()
            else:
                search = log.offset_for_timestamp(timestamp_ms)
            search.addCallbacks(
                self._found, self._search_failed, callbackArgs=(index, replica, leader), errbackArgs=(index,)
            )

    def _found(self, found: Found | None, index: int, replica: Replica, leader: LeaderState) -> None:
        if replica.leader is not leader or not self._table.has_fresh_contact(leader):
            self._answer(index, ErrorCode.NOT_LEADER_OR_FOLLOWER)
        elif found is not None and found[1] < self._limit(replica):
            self._answer(index, ErrorCode.NONE, found)
        elif self._is_behind(replica, leader):
            self._answer(index, ErrorCode.OFFSET_NOT_AVAILABLE)
        else:
            self._answer(index, ErrorCode.NONE)

    def _search_failed(self, failure: Failure, index: int) -> None:
        error = failure.value.error if isinstance(failure.value, BrokerError) else ErrorCode.KAFKA_STORAGE_ERROR
        self._answer(index, error)

    def _limit(self, replica: Replica) -> int:
        return replica.last_stable_offset if self._read_committed else replica.high_watermark

    @staticmethod
    def _is_behind(replica: Replica, leader: LeaderState) -> bool:
        """A new leader's high watermark lags at first: an answer from it would let "latest" go back (KIP-207)."""
        return leader.epoch_start_offset > replica.high_watermark

    def _answer(self, index: int, error: ErrorCode, found: Found = (-1, -1, -1)) -> None:
        row = self._rows[index]
        self._answers[index] = OffsetAnswer(row.topic, row.partition, error, found[0], found[1], found[2])
        if len(self._answers) == len(self._rows):
            self._done([self._answers[index] for index in range(len(self._rows))])

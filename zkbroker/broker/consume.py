"""Clients' Fetch requests: read up to the high watermark, and wait while there is less than asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.python.failure import Failure

from zkbroker.broker.replica import Replica
from zkbroker.broker.replica_table import ReplicaTable
from zkbroker.kafka.ports import Cancellable, ConsumedRow, ConsumeOptions, ConsumeRow
from zkbroker.log.log import LogRead
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.partition.leader import LeaderState


class Consumes:
    """Fills ``DataPort.consume``."""

    def __init__(self, table: ReplicaTable) -> None:
        self._table = table

    def consume(
        self, options: ConsumeOptions, rows: Sequence[ConsumeRow], done: Callable[[list[ConsumedRow]], None]
    ) -> Cancellable | None:
        request = _Consume(self._table, options, rows, done)
        request.start()
        return None if request.is_finished else request


class _Mark:
    """The limit and marks of one row, taken once before its read, so that the answer is of one moment (KAFKA-9807)."""

    __slots__ = ("high_watermark", "last_stable_offset", "leader", "limit", "log_start", "replica")

    def __init__(self, replica: Replica, leader: LeaderState, read_committed: bool) -> None:
        self.replica = replica
        self.leader = leader
        self.high_watermark = replica.high_watermark
        self.last_stable_offset = replica.last_stable_offset
        self.log_start = replica.log.log_start_offset
        self.limit = self.last_stable_offset if read_committed else self.high_watermark


class _Consume:
    """One Fetch: attempts to read all its rows until there is enough, an error, or no time left.

    An attempt walks the rows in order, since what one returns lowers what the next may. A row whose bytes are not in
    memory suspends the attempt until a thread has read them.
    """

    __slots__ = (
        "_answers",
        "_done",
        "_index",
        "_is_expired",
        "_is_parked",
        "_is_reading",
        "_is_woken",
        "_must_answer",
        "_options",
        "_rows",
        "_size",
        "_table",
        "bucket",
    )

    def __init__(
        self,
        table: ReplicaTable,
        options: ConsumeOptions,
        rows: Sequence[ConsumeRow],
        done: Callable[[list[ConsumedRow]], None],
    ) -> None:
        self._table = table
        self._options = options
        self._rows = rows
        self._done: Callable[[list[ConsumedRow]], None] | None = done
        self._answers: list[ConsumedRow] = []
        self._index = 0
        self._size = 0
        self._must_answer = False
        """A row has an error or diverged: nothing more is waited for."""
        self._is_expired = options.max_wait_ms <= 0 or not rows
        self._is_parked = False
        self._is_reading = False
        self._is_woken = False
        self.bucket = -1

    @property
    def is_finished(self) -> bool:
        return self._done is None

    def start(self) -> None:
        self._attempt()

    def woken(self) -> None:
        """A high watermark moved, or a role changed."""
        if self._is_reading:
            self._is_woken = True
        elif self._done is not None:
            self._attempt()

    def expired(self) -> None:
        self._is_expired = True
        if not self._is_reading and self._done is not None:
            self._attempt()

    def cancel(self) -> None:
        self._done = None
        self._answers = []
        self._table.shared.deadlines.drop(self)
        if self._is_parked:
            self._is_parked = False
            for row in self._rows:
                replica = self._table.replicas.get((row.topic, row.partition))
                if replica is not None:
                    replica.consumers.pop(self, None)

    def _attempt(self) -> None:
        self._answers = []
        self._index = 0
        self._size = 0
        self._must_answer = False
        self._is_woken = False
        self._go_on()

    def _go_on(self) -> None:
        rows = self._rows
        while self._index < len(rows):
            row = rows[self._index]
            answer = self._row(row)
            if answer is None:
                return
            self._take(answer)
        self._attempted()

    def _take(self, answer: ConsumedRow) -> None:
        self._answers.append(answer)
        self._index += 1
        if answer.error is not ErrorCode.NONE or answer.diverging_epoch >= 0:
            self._must_answer = True

    def _attempted(self) -> None:
        if self._must_answer or self._is_expired or self._size >= self._options.min_bytes:
            done, answers = self._done, self._answers
            self.cancel()
            if done is not None:
                done(answers)
        elif self._is_woken:
            self._attempt()
        else:
            self._answers = []
            self._park()

    def _park(self) -> None:
        """From now on ``woken`` and ``expired`` come. A first attempt that reads in a thread must hear them, too: what
        is committed meanwhile would wait for the next record, and the time would not count."""
        if self._is_parked:
            return
        self._is_parked = True
        for row in self._rows:
            replica = self._table.replicas.get((row.topic, row.partition))
            if replica is not None:
                replica.consumers[self] = None
        self._table.shared.deadlines.add(self, self._options.max_wait_ms / 1000)

    def _row(self, row: ConsumeRow) -> ConsumedRow | None:
        """The answer for one row; None when a thread reads it and ``_go_on`` is called later."""
        table = self._table
        replica = table.led(row.topic, row.partition, row.current_leader_epoch)
        if isinstance(replica, ErrorCode):
            return self._refused(row, replica)
        leader = replica.leader
        if leader is None or not table.has_fresh_contact(leader):
            return self._refused(row, ErrorCode.NOT_LEADER_OR_FOLLOWER)
        log = replica.log
        mark = _Mark(replica, leader, self._options.read_committed)
        if row.last_fetched_epoch >= 0:
            end = log.epochs.end_offset_for(row.last_fetched_epoch, log.log_end_offset)
            if end is None:
                return self._refused(row, ErrorCode.OFFSET_OUT_OF_RANGE, mark)
            if end[0] < row.last_fetched_epoch or end[1] < row.offset:
                return self._empty(row, mark)._replace(diverging_epoch=end[0], diverging_end=end[1])
        if not mark.log_start <= row.offset <= log.log_end_offset:
            return self._refused(row, ErrorCode.OFFSET_OUT_OF_RANGE, mark)
        room = min(row.max_bytes, self._options.max_bytes - self._size)
        if row.offset >= mark.limit or (room <= 0 and self._size > 0):
            return self._empty(row, mark)
        try:
            read = log.read(row.offset, max(room, 0), mark.limit, self._size == 0)
            if read is None:
                self._is_reading = True
                if not self._is_expired:
                    self._park()
                later = log.read_later(row.offset, max(room, 0), mark.limit, self._size == 0)
                later.addCallbacks(self._read, self._read_failed, callbackArgs=(mark,))
                return None
        except BrokerError as error:
            return self._refused(row, error.error, mark)
        return self._full(row, mark, read)

    def _read(self, read: LogRead, mark: _Mark) -> None:
        self._is_reading = False
        if self._done is None:
            return
        row = self._rows[self._index]
        if mark.replica.leader is not mark.leader or not self._table.has_fresh_contact(mark.leader):
            # The log may have been truncated meanwhile by another leader's word: these bytes may not be those.
            self._take(self._refused(row, ErrorCode.NOT_LEADER_OR_FOLLOWER))
        else:
            self._take(self._full(row, mark, read))
        self._go_on()

    def _read_failed(self, failure: Failure) -> None:
        self._is_reading = False
        if self._done is None:
            return
        error = failure.value.error if isinstance(failure.value, BrokerError) else ErrorCode.KAFKA_STORAGE_ERROR
        self._take(self._refused(self._rows[self._index], error))
        self._go_on()

    def _full(self, row: ConsumeRow, mark: _Mark, read: LogRead) -> ConsumedRow:
        aborted: tuple[tuple[int, int], ...] | None = None
        if self._options.read_committed:
            try:
                aborted = tuple(mark.replica.log.aborted_transactions(row.offset, read.next_offset))
            except BrokerError as error:
                return self._refused(row, error.error, mark)
        self._size += read.size
        return ConsumedRow(
            row.topic,
            row.partition,
            ErrorCode.NONE,
            mark.high_watermark,
            mark.last_stable_offset,
            mark.log_start,
            aborted,
            read.chunks,
        )

    def _empty(self, row: ConsumeRow, mark: _Mark) -> ConsumedRow:
        return ConsumedRow(
            row.topic,
            row.partition,
            ErrorCode.NONE,
            mark.high_watermark,
            mark.last_stable_offset,
            mark.log_start,
            () if self._options.read_committed else None,
        )

    def _refused(self, row: ConsumeRow, error: ErrorCode, mark: _Mark | None = None) -> ConsumedRow:
        hint = self._table.hint(error, row.topic, row.partition)
        if mark is None:
            return ConsumedRow(row.topic, row.partition, error, current_leader=hint)
        return ConsumedRow(
            row.topic,
            row.partition,
            error,
            mark.high_watermark,
            mark.last_stable_offset,
            mark.log_start,
            current_leader=hint,
        )

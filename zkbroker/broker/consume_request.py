"""One Fetch of a client: read up to the high watermark, and wait while there is less than asked for."""

from __future__ import annotations

from collections.abc import Callable

from twisted.python.failure import Failure

from zkbroker.broker.replica import Replica
from zkbroker.broker.replica_table import ReplicaTable
from zkbroker.broker.watches import Watch, Watches
from zkbroker.kafka.ports import ConsumedRow, ConsumeOptions, ConsumeRow
from zkbroker.log.log import LogRead
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.partition.leader import LeaderState


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


class ConsumeRequest:
    """One Fetch: attempts to read its rows until there is enough, an error, or no time left.

    An attempt walks what changed since the last one in order, since what one row returns lowers what the next may. A
    row whose bytes are not in memory suspends the attempt until a thread has read them.
    """

    __slots__ = (
        "_done",
        "_index",
        "_is_expired",
        "_is_kept",
        "_is_looking",
        "_is_parked",
        "_is_whole",
        "_is_woken",
        "_must_answer",
        "_options",
        "_queue",
        "_size",
        "_table",
        "_watches",
        "bucket",
        "has_looked",
    )

    def __init__(
        self,
        table: ReplicaTable,
        options: ConsumeOptions,
        watches: Watches,
        done: Callable[[list[ConsumedRow]], None],
        *,
        is_whole: bool,
        is_kept: bool = False,
    ) -> None:
        """``is_whole``: without a session; every row is answered, and unless it ``is_kept`` the watches end with the
        request."""
        self._table = table
        self._options = options
        self._watches = watches
        self._done: Callable[[list[ConsumedRow]], None] | None = done
        self._is_whole = is_whole
        self._is_kept = is_kept
        self.has_looked = False
        """At one row at least: its answer may differ from what it was before this request."""
        self._queue: list[Watch] = []
        """What this attempt looks at."""
        self._index = 0
        self._size = 0
        self._must_answer = False
        """A row has an error or diverged: nothing more is waited for."""
        self._is_expired = options.max_wait_ms <= 0 or not watches.all
        self._is_parked = False
        self._is_looking = False
        """An attempt is under way, perhaps in a thread."""
        self._is_woken = False
        self.bucket = -1

    @property
    def is_finished(self) -> bool:
        return self._done is None

    def start(self) -> None:
        self._watches.waiting = self
        self._attempt()

    def woken(self) -> None:
        """A high watermark or a log start moved, or a role changed."""
        if self._is_looking:
            self._is_woken = True
        elif self._done is not None:
            self._attempt()

    def expired(self) -> None:
        self._is_expired = True
        if not self._is_looking and self._done is not None:
            self._attempt()

    def cancel(self) -> None:
        if self._done is None:
            return
        self._done = None
        if not self._is_kept:
            for watch in self._queue:
                watch.answer = None
        self._queue = []
        self._table.shared.deadlines.drop(self)
        watches = self._watches
        if watches.waiting is self:
            watches.waiting = None
        if self._is_whole and not self._is_kept:
            watches.drop_all()

    def _attempt(self) -> None:
        self._queue = list(self._watches.changed)
        self.has_looked |= bool(self._queue)
        self._index = 0
        self._size = 0
        self._must_answer = False
        self._is_woken = False
        self._is_looking = True
        self._go_on()

    def _go_on(self) -> None:
        queue = self._queue
        while self._index < len(queue):
            watch = queue[self._index]
            watch.is_told = False
            answer = self._look(watch)
            if answer is None:
                return
            self._take(watch, answer)
            if self._done is None:
                return
        self._is_looking = False
        self._attempted()

    def _take(self, watch: Watch, answer: ConsumedRow) -> None:
        self._index += 1
        watch.answer = answer
        if answer.error or answer.diverging_epoch >= 0:
            self._must_answer = True
            watch.is_at_end = False
        if self._is_whole:
            self._watches.rest(watch)
        elif watch.is_at_end and not watch.has_news:
            watch.answer = None
            self._watches.rest(watch)

    def _attempted(self) -> None:
        if self._must_answer or self._is_expired or self._size >= self._options.min_bytes:
            if len(self._queue) < len(self._watches) and not self._table.is_in_contact():
                # What nothing was heard of may have another leader by now: each is asked (contact rule).
                self._watches.look_at_all()
                self._attempt()
            else:
                self._finish()
        elif self._is_woken:
            self._attempt()
        else:
            for watch in self._queue:
                if not (self._is_whole and watch.is_at_end):
                    watch.answer = None
            self._park()
            self._queue = []

    def _finish(self) -> None:
        done, watches = self._done, self._watches
        rows: list[ConsumedRow] = []
        if self._is_kept:
            pass  # whoever keeps the watches finds their answers there
        elif self._is_whole:
            rows = [watch.answer for watch in watches.all if watch.answer is not None]
        else:
            rows = watches.answered(self._queue)
        self.cancel()
        if done is not None:
            done(rows)

    def _park(self) -> None:
        """From now on ``woken`` and ``expired`` come. A first attempt that reads in a thread must hear them, too: what
        is committed meanwhile would wait for the next record, and the time would not count."""
        if self._is_parked:
            return
        self._is_parked = True
        if self._is_whole and not self._is_kept:
            replicas = self._table.replicas
            for watch in self._watches.all:
                watch.register(replicas.get((watch.row.topic, watch.row.partition)))
        self._table.shared.deadlines.add(self, self._options.max_wait_ms / 1000)

    def _look(self, watch: Watch) -> ConsumedRow | None:
        """The answer for one row; None when a thread reads it and ``_go_on`` is called later."""
        row = watch.row
        table = self._table
        watch.is_at_end = False
        replica = table.led(row.topic, row.partition, row.current_leader_epoch)
        if isinstance(replica, ErrorCode):
            watch.register(None)
            return self._refused(row, replica)
        leader = replica.leader
        if leader is None or not table.has_fresh_contact(leader):
            return self._refused(row, ErrorCode.NOT_LEADER_OR_FOLLOWER)
        log = replica.log
        if row.topic_id and row.topic_id != log.topic_id:
            return self._refused(row, ErrorCode.INCONSISTENT_TOPIC_ID)
        if not self._options.knows_zstd and log.config.compression_type == "zstd":
            return self._refused(row, ErrorCode.UNSUPPORTED_COMPRESSION_TYPE)
        if watch.replica is not replica and (self._is_kept or not self._is_whole):
            watch.register(replica)
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
        watch.is_at_end = row.offset >= mark.limit
        if watch.is_at_end or (room <= 0 and self._size > 0):
            return self._empty(row, mark)
        try:
            read = log.read(row.offset, max(room, 0), mark.limit, self._size == 0)
            if read is None:
                if not self._is_expired:
                    self._park()
                later = log.read_later(row.offset, max(room, 0), mark.limit, self._size == 0)
                later.addCallbacks(
                    self._read, self._read_failed, callbackArgs=(watch, row, mark), errbackArgs=(watch, row)
                )
                return None
        except BrokerError as error:
            return self._refused(row, error.error, mark)
        return self._full(row, mark, read)

    def _read(self, read: LogRead, watch: Watch, row: ConsumeRow, mark: _Mark) -> None:
        if self._done is None:
            return
        if mark.replica.leader is not mark.leader or not self._table.has_fresh_contact(mark.leader):
            # The log may have been truncated meanwhile by another leader's word: these bytes may not be those.
            self._take(watch, self._refused(row, ErrorCode.NOT_LEADER_OR_FOLLOWER))
        else:
            self._take(watch, self._full(row, mark, read))
        self._go_on()

    def _read_failed(self, failure: Failure, watch: Watch, row: ConsumeRow) -> None:
        if self._done is None:
            return
        error = failure.value.error if isinstance(failure.value, BrokerError) else ErrorCode.KAFKA_STORAGE_ERROR
        self._take(watch, self._refused(row, error))
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
            topic_id=row.topic_id,
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
            topic_id=row.topic_id,
        )

    def _refused(self, row: ConsumeRow, error: ErrorCode, mark: _Mark | None = None) -> ConsumedRow:
        hint = self._table.hint(error, row.topic, row.partition)
        if mark is None:
            return ConsumedRow(row.topic, row.partition, error, current_leader=hint, topic_id=row.topic_id)
        return ConsumedRow(
            row.topic,
            row.partition,
            error,
            mark.high_watermark,
            mark.last_stable_offset,
            mark.log_start,
            current_leader=hint,
            topic_id=row.topic_id,
        )

"""One partition of ``__consumer_offsets`` that this broker leads: runs what its ``GroupShard`` decides."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from zkbroker.broker.coordinator_log import CoordinatorLog
from zkbroker.broker.delayed import Turn
from zkbroker.broker.group_loading import GroupLoading
from zkbroker.broker.replica import Tenure
from zkbroker.broker.slices import Work
from zkbroker.coordinator.answers import refused
from zkbroker.coordinator.effects import Answer, Effects, GroupRequest, Now, Write
from zkbroker.coordinator.shard import GroupShard
from zkbroker.model.clock import Clock
from zkbroker.model.errors import ErrorCode
from zkbroker.records.record import Record, build_batch

BATCH_BYTES_MAX = 128 * 1024
"""Writes of one turn of the reactor go into one record batch up to about this size, or a write's own: what is far below
``max.message.bytes`` cannot be refused for the company it is in."""

RECORD_OVERHEAD_BYTES = 24
"""About what a record takes besides its key and value, at most."""

ANSWERS_AT_ONCE = 50
"""Of those that one event releases: when a rebalance of a thousand members ends, others are served meanwhile."""

Done = Callable[[Any], None]


@dataclass(slots=True)
class Coordination:
    """What all partitions share."""

    coordinator_log: CoordinatorLog
    clock: Clock
    commit_timeout_s: float
    """``offsets.commit.timeout.ms``"""
    codec: int
    """``offsets.topic.compression.codec``"""
    to_write: Turn[GroupPartition]
    to_answer: Turn[GroupPartition]
    deadline_changed: Callable[[GroupPartition], None]
    log: Callable[[str], None]
    fatal: Callable[[str, BaseException], None]
    """Ends the process. Not for what a request is refused with: that is its connection's matter."""

    def now(self) -> Now:
        return Now(self.clock.monotonic(), self.clock.wall_ms())


class _Ticket:
    """Fills ``kafka.ports.Cancellable``: whoever asked may lose interest, the request is worked on all the same."""

    __slots__ = ("done", "request")

    def __init__(self, request: GroupRequest, done: Done) -> None:
        self.request = request
        self.done: Done | None = done

    def cancel(self) -> None:
        self.done = None


class GroupPartition:
    """Of one tenure. Every answer leaves through ``_answer``, which looks whether this broker still coordinates."""

    def __init__(self, partition: int, tenure: Tenure, shard: GroupShard, shared: Coordination) -> None:
        self.partition = partition
        self.tenure = tenure
        self.shard = shard
        self.loading: GroupLoading | None = None
        self.work: Work | None = None
        """The loading, as long as it is under way."""
        self.forgotten: dict[str, int] = {}
        """Deleted topics whose offsets are still to be removed, and when that was in the order of the log."""
        self._shared = shared
        self._tickets: dict[int, _Ticket] = {}
        self._last_ticket = 0
        self._to_write: list[Write] = []
        self._to_answer: deque[Answer] = deque()
        """Decided, and left for the next turns."""

    def __repr__(self) -> str:
        state = "loaded" if self.shard.is_loaded else repr(self.loading)
        return f"GroupPartition({self.partition} {state} {len(self._tickets)} waiting)"

    def ask(self, request: GroupRequest, done: Done) -> _Ticket | None:
        """Only while this broker may answer: what is answered at once is not asked about again."""
        self._last_ticket = number = self._last_ticket + 1
        ticket = self._tickets[number] = _Ticket(request, done)
        try:
            effects = self.shard.handle(number, request, self._shared.now())
        except Exception:
            del self._tickets[number]
            raise
        self.run(effects, is_sure=True)
        return ticket if number in self._tickets else None

    def tick(self) -> None:
        self._act("time was up", partial(self.shard.tick, self._shared.now()))

    def topics_deleted(self, topics: Collection[str]) -> None:
        self.forgotten.update(dict.fromkeys(topics, self.shard.point))

    def loaded(self) -> None:
        self.loading = self.work = None
        # Whatever was loaded was written before.
        self.topics_deleted(self.forgotten)
        self._act("loaded", partial(self.shard.loaded, self._shared.now()))

    def unload(self) -> None:
        """The tenure is over: all who wait are sent elsewhere, and nothing is written any more."""
        if self.work is not None:
            self.work.cancel()
        self._to_write.clear()
        self._shared.to_write.forget(self)
        self._act("unloaded", self.shard.unload)
        for number in list(self._tickets):
            ticket = self._tickets.pop(number)
            self._send(ticket, refused(ticket.request, ErrorCode.NOT_COORDINATOR))
        self._to_answer.clear()
        self._shared.to_answer.forget(self)

    def _act(self, event: str, decide: Callable[[], Effects]) -> None:
        try:
            effects = decide()
        except Exception as error:
            self._shared.fatal(f"{event}: {self!r}", error)
            return
        self.run(effects)

    def run(self, effects: Effects, *, is_sure: bool = False) -> None:
        """Writes are put in line before the first answer is given: that may bring the client's next request at once,
        whose own writes come after these."""
        answers: list[Answer] = []
        for effect in effects:
            if isinstance(effect, Answer):
                answers.append(effect)
            elif isinstance(effect, Write):
                self._to_write.append(effect)
                self._shared.to_write.tell(self)
            else:
                self._shared.log(effect.line)
        self._shared.deadline_changed(self)
        if len(answers) > ANSWERS_AT_ONCE:
            self._to_answer.extend(answers[ANSWERS_AT_ONCE:])
            self._shared.to_answer.tell(self)
            del answers[ANSWERS_AT_ONCE:]
        for answer in answers:
            self._answer(answer, is_sure)
            is_sure = False  # whatever that brought about

    def answer_more(self) -> None:
        """What the turn before left."""
        waiting = self._to_answer
        for _ in range(min(ANSWERS_AT_ONCE, len(waiting))):
            if waiting:  # an answer may bring about that this broker stops to coordinate
                self._answer(waiting.popleft(), is_sure=False)
        if waiting:
            self._shared.to_answer.tell(self)

    def _answer(self, effect: Answer, is_sure: bool) -> None:
        ticket = self._tickets.pop(effect.ticket, None)
        if ticket is None:
            return
        answer = effect.answer
        if ticket.done is not None and not is_sure and not self._shared.coordinator_log.may_answer(self.tenure):
            # Another may coordinate by now, and know better.
            answer = refused(ticket.request, ErrorCode.NOT_COORDINATOR)
        self._send(ticket, answer)

    @staticmethod
    def _send(ticket: _Ticket, answer: Any) -> None:
        done, ticket.done = ticket.done, None
        if done is not None:
            done(answer)

    # Writing

    def write(self) -> None:
        """Append what was put in line, as few batches as that makes."""
        waiting, self._to_write = self._to_write, []
        size_max = min(BATCH_BYTES_MAX, self.tenure.replica.log.config.max_message_bytes // 2)
        batch: list[Write] = []
        size = 0
        for write in waiting:
            more = sum(len(record.key) + len(record.value or b"") + RECORD_OVERHEAD_BYTES for record in write.records)
            if batch and size + more > size_max:
                self._append(batch)
                batch, size = [], 0
            batch.append(write)
            size += more
        if batch:
            self._append(batch)

    def _append(self, writes: list[Write]) -> None:
        shared = self._shared
        now_ms = shared.clock.wall_ms()
        records = [record for write in writes for record in write.records]
        rows = [Record(offset, now_ms, record.key, record.value) for offset, record in enumerate(records)]
        shared.coordinator_log.append(
            self.tenure,
            build_batch(rows, codec=shared.codec),
            shared.commit_timeout_s,
            lambda error: self._written(writes, error),
        )

    def _written(self, writes: Sequence[Write], error: ErrorCode) -> None:
        for write in writes:
            self._act("written", partial(self.shard.written, write.write_id, error, self._shared.now()))

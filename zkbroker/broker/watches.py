"""The partitions of a client's Fetch requests, each watched so that only those are looked at that may have news.

A thousand idle partitions cost nothing while a request waits: the replica tells its watches when its high watermark,
log start or role changes, and ``changed`` holds what is to be looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from zkbroker.broker.replica import Replica
from zkbroker.kafka.ports import ConsumedRow, ConsumeRow

UNTOLD = -1


class Waiting(Protocol):
    """The request that waits for its partitions."""

    def woken(self) -> None: ...


class Watch:
    """One partition of a session, or one row of a request without a session."""

    __slots__ = ("_watches", "answer", "high_watermark", "is_at_end", "is_told", "log_start", "replica", "row")

    def __init__(self, watches: Watches, row: ConsumeRow) -> None:
        self._watches = watches
        self.row = row
        self.replica: Replica | None = None
        """Where it is registered."""
        self.answer: ConsumedRow | None = None
        """What the last look found, for the answer of the present request."""
        self.is_told = False
        """The replica told of a change after that look began."""
        self.is_at_end = False
        """That look found nothing to read: there will be nothing until the replica tells."""
        self.high_watermark = UNTOLD
        """What the client was told last; UNTOLD also after an error or a divergence, so that their end is told."""
        self.log_start = UNTOLD

    def __repr__(self) -> str:
        return f"Watch({self.row.topic}-{self.row.partition}@{self.row.offset})"

    def woken(self) -> None:
        """ParkedRead: the replica has news."""
        self.is_told = True
        watches = self._watches
        watches.changed[self] = None
        if watches.waiting is None or (self.replica is not None and self.replica.leader is None):
            # It will be looked at again in any case, and finds who leads then: a client that does not come back must
            # not cost something with each batch, and a replica may be deleted now.
            self.register(None)
        if watches.waiting is not None:
            watches.waiting.woken()

    def register(self, replica: Replica | None) -> None:
        """Be told by this replica, and by no other."""
        if self.replica is not replica:
            if self.replica is not None:
                self.replica.consumers.pop(self, None)
            self.replica = replica
        if replica is not None:
            replica.consumers[self] = None

    @property
    def has_news(self) -> bool:
        """Is there anything in the answer that the client does not know?"""
        answer = self.answer
        if answer is None:
            return False
        return bool(
            answer.records
            or answer.error
            or answer.diverging_epoch >= 0
            or answer.high_watermark != self.high_watermark
            or answer.log_start != self.log_start
        )


class Watches:
    """Watches in an order, and those among them that must be looked at, those that waited longest first."""

    __slots__ = ("_by_name", "all", "changed", "waiting")

    def __init__(self) -> None:
        self.all: dict[Watch, None] = {}
        self.changed: dict[Watch, None] = {}
        self.waiting: Waiting | None = None
        self._by_name: dict[tuple[str, int], Watch] = {}

    def __repr__(self) -> str:
        return f"Watches({len(self.all)} changed={len(self.changed)})"

    def __len__(self) -> int:
        return len(self.all)

    def add_rows(self, rows: Sequence[ConsumeRow]) -> None:
        """A watch for each row, also if two are of one partition: for a request without a session."""
        self.all = dict.fromkeys([Watch(self, row) for row in rows])
        self.changed = self.all.copy()

    def put(self, row: ConsumeRow) -> None:
        """Add the partition, or take its new row."""
        key = row.topic_id or row.topic, row.partition
        watch = self._by_name.get(key)
        if watch is None:
            watch = self._by_name[key] = Watch(self, row)
            self.all[watch] = None
        else:
            watch.row = row
        self.changed[watch] = None

    def drop(self, row: ConsumeRow) -> None:
        watch = self._by_name.pop((row.topic_id or row.topic, row.partition), None)
        if watch is not None:
            watch.register(None)
            del self.all[watch]
            self.changed.pop(watch, None)

    def drop_all(self) -> None:
        for watch in self.all:
            watch.register(None)
        self.all.clear()
        self.changed.clear()
        self._by_name.clear()

    def look_at_all(self) -> None:
        for watch in self.all:
            self.changed[watch] = None

    def rest(self, watch: Watch) -> None:
        """Look at it no more, unless it has told of a change since its last look began, or has more to give."""
        if watch.is_at_end and not watch.is_told:
            self.changed.pop(watch, None)

    def answered(self, watches: Iterable[Watch]) -> list[ConsumedRow]:
        """The news among these, which the client is told now. Whoever had records goes to the end of the line, so that
        a request with little room serves all in turn."""
        rows = []
        for watch in watches:
            answer = watch.answer
            if answer is None:
                continue
            if watch.has_news:
                rows.append(answer)
                self._told(watch, answer)
            watch.answer = None
        return rows

    def _told(self, watch: Watch, answer: ConsumedRow) -> None:
        if answer.error or answer.diverging_epoch >= 0:
            watch.high_watermark = UNTOLD
            return
        watch.high_watermark = answer.high_watermark
        watch.log_start = answer.log_start
        if answer.records:
            self.changed.pop(watch, None)
            self.changed[watch] = None
        else:
            self.rest(watch)

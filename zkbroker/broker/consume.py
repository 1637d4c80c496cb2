"""Clients' Fetch requests: without a session, repeated word for word, or within a session."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zkbroker.broker.consume_request import ConsumeRequest
from zkbroker.broker.replica_table import ReplicaTable
from zkbroker.broker.watches import Watch, Watches
from zkbroker.kafka.ports import Cancellable, ConsumedRow, ConsumeOptions, ConsumeRow


class Consumes:
    """Fills ``DataPort.consume``, ``open_repeated`` and ``open_session``."""

    def __init__(self, table: ReplicaTable) -> None:
        self._table = table

    def consume(
        self, options: ConsumeOptions, rows: Sequence[ConsumeRow], done: Callable[[list[ConsumedRow]], None]
    ) -> Cancellable | None:
        watches = Watches()
        watches.add_rows(rows)
        request = ConsumeRequest(self._table, options, watches, done, is_whole=True)
        request.start()
        return None if request.is_finished else request

    def open_repeated(self, rows: Sequence[ConsumeRow]) -> RepeatedRequest:
        return RepeatedRequest(self._table, rows)

    def open_session(self) -> ConsumerSession:
        return ConsumerSession(self._table)


class RepeatedRequest:
    """Fills ``RepeatedConsume``: the watches stay, and with them the answers of all rows that are at their ends."""

    def __init__(self, table: ReplicaTable, rows: Sequence[ConsumeRow]) -> None:
        self._table = table
        self._watches = Watches()
        self._watches.add_rows(rows)
        self._order = list(self._watches.all)
        """In which the rows were asked for, and are answered."""
        self._by_place: dict[tuple[str, int], Watch] = {}
        """By topic and partition, from the first repetition on."""
        self._answers: list[ConsumedRow] | None = None
        self._read_committed = False
        self._request: ConsumeRequest | None = None

    def __repr__(self) -> str:
        return f"RepeatedRequest({self._watches!r})"

    def renew(self, rows: Sequence[ConsumeRow]) -> bool:
        watches = self._by_place
        if not watches:
            watches = self._by_place = {(watch.row.topic, watch.row.partition): watch for watch in self._order}
        count = len(self._order)
        if len(rows) != count or len(watches) != count:
            return False
        order = []
        for row in rows:
            watch = watches.get((row.topic, row.partition))
            if watch is None or watch.row.topic_id != row.topic_id:
                return False
            order.append(watch)
        if len(dict.fromkeys(order)) != count:
            return False
        for watch, row in zip(order, rows, strict=True):
            if watch.row != row:
                watch.row = row
                self._watches.changed[watch] = None
        self._order, self._answers = order, None
        return True

    def fetch(self, options: ConsumeOptions, done: Callable[[list[ConsumedRow]], None]) -> Cancellable | None:
        if options.read_committed != self._read_committed:
            self._read_committed = options.read_committed
            self._watches.look_at_all()

        def answered(_: list[ConsumedRow]) -> None:
            rows = self._answers
            if rows is None or request.has_looked:
                rows = [watch.answer for watch in self._order if watch.answer is not None]
            changed = self._watches.changed
            self._answers = None if changed else rows
            for watch in list(changed):
                # It is looked at again in any case. Whoever had records comes last then, so that a request with little
                # room serves all in turn.
                if watch.answer is not None and watch.answer.records:
                    del changed[watch]
                    changed[watch] = None
                watch.answer = None
            done(rows)

        request = self._request = ConsumeRequest(
            self._table, options, self._watches, answered, is_whole=True, is_kept=True
        )
        request.start()
        return None if request.is_finished else request

    def close(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            request.cancel()
        self._watches.drop_all()


class ConsumerSession:
    """Fills ``ConsumeSession``: the watches stay from one request to the next, and only those are looked at that may
    have news."""

    def __init__(self, table: ReplicaTable) -> None:
        self._table = table
        self._watches = Watches()
        self._request: ConsumeRequest | None = None
        self._read_committed = False

    def __repr__(self) -> str:
        return f"ConsumerSession({self._watches!r})"

    @property
    def size(self) -> int:
        return len(self._watches)

    def update(self, rows: Sequence[ConsumeRow], forgotten: Sequence[ConsumeRow]) -> None:
        watches = self._watches
        for row in rows:
            watches.put(row)
        for row in forgotten:
            watches.drop(row)

    def fetch(self, options: ConsumeOptions, done: Callable[[list[ConsumedRow]], None]) -> Cancellable | None:
        self._give_up()
        watches = self._watches
        if options.read_committed != self._read_committed:
            # What ended at the last stable offset may go on, and the other way round.
            self._read_committed = options.read_committed
            watches.look_at_all()
        request = self._request = ConsumeRequest(self._table, options, watches, done, is_whole=False)
        request.start()
        return None if request.is_finished else request

    def close(self) -> None:
        self._give_up()
        self._watches.drop_all()

    def _give_up(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            request.cancel()

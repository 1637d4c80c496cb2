"""What a fake broker keeps between a client's fetches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from zkbroker.kafka.ports import ConsumedRow, ConsumeOptions, ConsumeRow


class FakeCall:
    """A request that is held back; ``cancel`` is the listener's."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.run = run
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Consumes(Protocol):
    """The broker whose ``consume`` does the work."""

    def consume(
        self, options: ConsumeOptions, rows: Sequence[ConsumeRow], done: Callable[[list[ConsumedRow]], None]
    ) -> FakeCall | None: ...


class FakeConsumeSession:
    """ConsumeSession: remembers rows, and what of each was told."""

    def __init__(self, broker: Consumes) -> None:
        self.broker = broker
        self.rows: dict[tuple[str, int], ConsumeRow] = {}
        self.told: dict[tuple[str, int], int] = {}
        self.is_closed = False

    @property
    def size(self) -> int:
        return len(self.rows)

    def update(self, rows: Sequence[ConsumeRow], forgotten: Sequence[ConsumeRow]) -> None:
        self.rows.update({(row.topic_id or row.topic, row.partition): row for row in rows})
        for row in forgotten:
            self.rows.pop((row.topic_id or row.topic, row.partition), None)

    def fetch(self, options: ConsumeOptions, done: Callable[[list[ConsumedRow]], None]) -> FakeCall | None:
        keys = list(self.rows)

        def answer(found: list[ConsumedRow]) -> None:
            news = []
            for key, row in zip(keys, found, strict=True):
                if row.error or row.records or self.told.get(key) != row.high_watermark:
                    self.told[key] = row.high_watermark
                    news.append(row._replace(topic_id=self.rows[key].topic_id))
            done(news)

        return self.broker.consume(options, list(self.rows.values()), answer)

    def close(self) -> None:
        self.is_closed = True


class FakeRepeated:
    """RepeatedConsume: of the same partitions as long as their number is the same."""

    def __init__(self, broker: Consumes, rows: Sequence[ConsumeRow]) -> None:
        self.broker = broker
        self.rows = rows
        self.answers: list[ConsumedRow] = []
        self.is_closed = False

    def renew(self, rows: Sequence[ConsumeRow]) -> bool:
        if {row[:2] for row in rows} != {row[:2] for row in self.rows}:
            return False
        self.rows, self.answers = rows, []
        return True

    def fetch(self, options: ConsumeOptions, done: Callable[[list[ConsumedRow]], None]) -> FakeCall | None:
        def answer(found: list[ConsumedRow]) -> None:
            if found != self.answers:
                self.answers = found
            done(self.answers)

        return self.broker.consume(options, self.rows, answer)

    def close(self) -> None:
        self.is_closed = True

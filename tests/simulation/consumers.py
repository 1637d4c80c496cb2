"""Simulated consumers: they follow the high watermark from the beginning, and read again from anywhere."""

from __future__ import annotations

from typing import Any

from tests.simulation.checkers.batches import walk
from tests.simulation.clients import MOVED, Client
from tests.simulation.links import Answered
from zkbroker.kafka.ports import ConsumeOptions, ConsumeRow, OffsetRow
from zkbroker.model.errors import ErrorCode

EARLIEST = -2


class Consumer(Client):
    """``again_share``: of its fetches, from an offset that it has read already."""

    def __init__(self, *args: Any, topics: tuple[str, ...], again_share: float, **kwargs: Any) -> None:
        self.topics = topics
        self.again_share = again_share
        self.positions: dict[tuple[str, int], int] = {}
        self.starts: dict[tuple[str, int], int] = {}
        """Earliest offsets as last heard."""
        self._waiting: dict[tuple[str, int], None] = {}
        self.records_count = 0
        super().__init__(*args, **kwargs)

    def act(self) -> None:
        if not self.partition_counts or self.random.random() < 0.02:
            self.refresh()
        for topic in self.topics:
            for number in range(self.partition_counts.get(topic, 0)):
                if (topic, number) not in self._waiting and self.random.random() < 0.7:
                    self.fetch(topic, number)

    def fetch(self, topic: str, number: int) -> None:
        link = self.leader_link(topic, number)
        if link is None:
            return
        place = topic, number
        position = self.positions.setdefault(place, 0)
        start = self.starts.get(place, 0)
        is_again = position > start and self.random.random() < self.again_share
        offset = self.random.randrange(start, position) if is_again else position
        max_bytes = self.random.choice((1, 300, 2_000, 20_000))
        wait_ms = 0 if is_again else self.random.choice((0, 50, 300))
        epoch = self.leaders[place][1] if self.random.random() < 0.5 else -1
        self._waiting[place] = None
        process, history = link.process, self.history
        what = f"{self.name} fetch {topic}-{number} from {offset}"

        def run(answer: Answered) -> Any:
            parts = process.broker._parts
            if parts is None:
                return None
            view = history.view_of(process, topic, number)

            def done(rows: list[Any]) -> None:
                row = rows[0]
                if row.error is ErrorCode.NONE and view is not None and history.view_of(process, topic, number) is view:
                    history.broker_answered(process, view, what, 1, -1, b"", row.records, offset)
                answer((row, b"".join(bytes(chunk) for chunk in row.records)))

            options = ConsumeOptions(wait_ms, 1, max_bytes)
            return parts.replicas.consume(options, [ConsumeRow(topic, number, offset, max_bytes, epoch)], done)

        def answered(answer: Any) -> None:
            self._waiting.pop(place, None)
            if answer is not None:
                self._answered(place, is_again, *answer)

        self.send(link, what, run, answered)

    def _answered(self, place: tuple[str, int], is_again: bool, row: Any, data: bytes) -> None:
        error = row.error
        if error is ErrorCode.NONE:
            if row.log_start >= 0:
                self.starts[place] = row.log_start
            batches = list(walk(data))
            self.records_count += sum(batch.end - batch.base for batch in batches)
            self.read(place, data)
            if batches and not is_again:
                self.positions[place] = max(self.positions[place], batches[-1].end)
        elif error is ErrorCode.OFFSET_OUT_OF_RANGE:
            # The topic was made anew, old segments went, or records were lost as the rules permit.
            self._find_start(*place)
        elif error in MOVED:
            self.moved(*place, row)

    def read(self, place: tuple[str, int], data: bytes) -> None:
        """It got these batches."""

    def _find_start(self, topic: str, number: int) -> None:
        link = self.leader_link(topic, number)
        if link is None:
            return
        process = link.process
        place = topic, number
        self._waiting[place] = None

        def run(answer: Answered) -> None:
            parts = process.broker._parts
            if parts is not None:
                parts.replicas.list_offsets(False, [OffsetRow(topic, number, EARLIEST)], answer)

        def answered(answer: Any) -> None:
            self._waiting.pop(place, None)
            if answer is not None and answer[0].error is ErrorCode.NONE:
                self.positions[place] = self.starts[place] = answer[0].offset

        self.send(link, f"{self.name} earliest {topic}-{number}", run, answered)

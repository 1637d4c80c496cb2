"""Simulated producers: acks 0, 1 and all, plain ones and idempotent ones that behave as Java's and librdkafka's do."""

from __future__ import annotations

from typing import Any

from tests.simulation.clients import MOVED, Client
from tests.simulation.history import ALL, Attempt
from tests.simulation.links import Answered, Link
from tests.simulation.process import WALL_BASE_S
from zkbroker.kafka.ports import ProduceRow
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.records.record import Record, build_batch

IN_FLIGHT_MAX = 5
UNSENT_MAX = 3
RECORDS_MAX = 3
VALUE_PADDING_MAX = 120
BACKOFF_S_MAX = 0.1
DELIVERY_TIMEOUT_S = 30.0
"""After so long a producer gives a batch up and tells nobody where it is."""
PRODUCER_EPOCH_MAX = 32_000

SURELY_NOT_STORED = frozenset(
    (
        ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorCode.INVALID_PRODUCER_EPOCH,
        ErrorCode.LEADER_NOT_AVAILABLE,
    )
)
"""Errors of an attempt that appended nothing. (NOT_LEADER_OR_FOLLOWER also ends a wait for replication.)"""

SEQUENCE_BROKEN = frozenset((ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode.INVALID_PRODUCER_EPOCH))


class ProducedBatch:
    __slots__ = (
        "born_at",
        "data",
        "is_in_flight",
        "link",
        "may_be_stored",
        "not_before",
        "sequence",
        "tries",
        "values",
    )

    def __init__(self, values: list[bytes], born_at: float) -> None:
        self.values = values
        self.born_at = born_at
        self.sequence = -1
        self.data = b""
        """As it was sent; sent again it is the same bytes, unless its sequence was given up."""
        self.is_in_flight = False
        self.link: Link | None = None
        """On which it was sent last."""
        self.may_be_stored = False
        """Some attempt ended without a word, or with an error that may come after the append."""
        self.not_before = 0.0
        self.tries = 0


class Queue:
    """What one producer has for one partition, oldest first: batches sent and not settled, then new ones."""

    __slots__ = ("batches", "is_bumping", "next_index", "next_sequence", "partition", "producer_epoch", "producer_id",
                 "topic", "waits_for_id")  # fmt: skip

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.batches: list[ProducedBatch] = []
        self.next_index = 0
        self.next_sequence = 0
        self.producer_id = -1
        self.producer_epoch = -1
        self.is_bumping = False
        """Its sequence is broken: once nothing is in flight it begins anew with another epoch or id."""
        self.waits_for_id = False


class Producer(Client):
    """Sends batches of one to three records with values that tell who made them; ``batches_per_turn`` on average."""

    def __init__(
        self,
        *args: Any,
        acks: int,
        is_idempotent: bool,
        topics: tuple[str, ...],
        batches_per_turn: float,
        retries_max: int,
        **kwargs: Any,
    ) -> None:
        self.acks = acks
        self.is_idempotent = is_idempotent
        self.topics = topics
        self.batches_per_turn = batches_per_turn
        self.retries_max = retries_max
        """Of a plain producer; an idempotent one goes on until its delivery timeout."""
        self.is_producing = True
        self.queues: dict[tuple[str, int], Queue] = {}
        self.failed_count = 0
        self.acked_count = 0
        super().__init__(*args, **kwargs)

    @property
    def is_idle(self) -> bool:
        return not any(queue.batches for queue in self.queues.values())

    def act(self) -> None:
        if not self.partition_counts or self.random.random() < 0.01:
            self.refresh()
        if self.is_producing:
            self._make()
        for queue in self.queues.values():
            if queue.batches or queue.is_bumping:
                self._drain(queue)

    def _make(self) -> None:
        left = self.batches_per_turn
        while left > 0 and self.random.random() < left:
            left -= 1
            topic = self.random.choice(self.topics)
            count = self.partition_counts.get(topic, 0)
            if not count:
                self.refresh()
                continue
            number = self.random.randrange(count)
            queue = self.queues.get((topic, number))
            if queue is None:
                queue = self.queues[topic, number] = Queue(topic, number)
            if len(queue.batches) >= IN_FLIGHT_MAX + UNSENT_MAX:
                continue
            values = []
            for _ in range(self.random.randint(1, RECORDS_MAX)):
                padding = b"." * self.random.randrange(VALUE_PADDING_MAX)
                value = b"%s/%s-%d/%d %s" % (self.name.encode(), topic.encode(), number, queue.next_index, padding)
                self.history.attempted(
                    value, Attempt(self.name, queue.next_index, self.acks, self.is_idempotent, self.world.now)
                )
                queue.next_index += 1
                values.append(value)
            queue.batches.append(ProducedBatch(values, self.world.now))

    # Sending

    def _drain(self, queue: Queue) -> None:
        now = self.world.now
        batches = queue.batches
        if batches and now - batches[0].born_at > DELIVERY_TIMEOUT_S and not batches[0].is_in_flight:
            self._give_up(queue, batches[0])
        if queue.is_bumping:
            self._bump(queue)
            return
        if self.is_idempotent and queue.producer_id < 0:
            self._ask_for_id(queue)
            return
        in_flight = sum(batch.is_in_flight for batch in batches)
        link = None
        for place, batch in enumerate(list(batches)):
            if batch.is_in_flight:
                continue
            if in_flight >= IN_FLIGHT_MAX or batch.not_before > now:
                return
            if self.is_idempotent and batch.sequence >= 0 and place > 0:
                # As Java does: of those that are sent again only the first may be under way.
                return
            link = link or self.leader_link(queue.topic, queue.partition)
            if link is None:
                return
            if self.is_idempotent and any(other.is_in_flight and other.link is not link for other in batches):
                # A new leader may not know this producer yet, and would take any sequence for its first.
                return
            self._send(queue, batch, link)
            in_flight += 1

    def _send(self, queue: Queue, batch: ProducedBatch, link: Link) -> None:
        if self.is_idempotent and batch.sequence < 0:
            batch.sequence = queue.next_sequence
            queue.next_sequence += len(batch.values)
        if not batch.data:
            stamp = int((WALL_BASE_S + self.world.now) * 1000)
            batch.data = build_batch(
                [Record(number, stamp, None, value) for number, value in enumerate(batch.values)],
                producer_id=queue.producer_id if self.is_idempotent else -1,
                producer_epoch=queue.producer_epoch if self.is_idempotent else -1,
                base_sequence=batch.sequence,
            )
        batch.is_in_flight = True
        batch.link = link
        batch.tries += 1
        topic, number, acks, data = queue.topic, queue.partition, self.acks, batch.data
        process, history = link.process, self.history
        what = f"{self.name} {topic}-{number} acks={acks} seq={batch.sequence} try={batch.tries}"

        def run(answer: Answered) -> Any:
            view = history.view_of(process, topic, number)

            def done(rows: list[Any]) -> None:
                row = rows[0]
                now_view = history.view_of(process, topic, number)
                if row.error is ErrorCode.NONE and view is not None and now_view is view:
                    history.broker_answered(process, view, what, acks, row.base_offset, data)
                    answer((row, view.partition.key))
                else:
                    answer((row, None))

            parts = process.broker._parts
            if parts is None:
                return None
            return parts.replicas.produce(
                acks, self.random.choice((300, 1000, 1000)), None, [ProduceRow(topic, number, data)], done
            )

        self.send(link, what, run, lambda answer: self._answered(queue, batch, answer))
        if acks == 0:
            # Nobody tells how it went.
            queue.batches.remove(batch)

    # Answers

    def _answered(self, queue: Queue, batch: ProducedBatch, answer: Any) -> None:
        batch.is_in_flight = False
        if batch not in queue.batches:
            if answer is not None and answer[0].error in MOVED:
                # With acks=0 the closed connection says so.
                self.moved(queue.topic, queue.partition, answer[0])
            return
        if answer is None:
            batch.may_be_stored = True
            self.refresh()
            self._again(queue, batch)
            return
        row, key = answer
        error = row.error
        if error is ErrorCode.NONE or error is ErrorCode.DUPLICATE_SEQUENCE_NUMBER:
            queue.batches.remove(batch)
            self.acked_count += len(batch.values)
            if self.acks == ALL and key is not None:
                base_offset = row.base_offset if error is ErrorCode.NONE else -1
                self.history.acknowledged(key, batch.values, base_offset)
            return
        self.world.counts[f"refused_{error.name.lower()}"] += 1
        if error not in SURELY_NOT_STORED:
            batch.may_be_stored = True
        if error in MOVED:
            self.moved(queue.topic, queue.partition, row)
        if error in SEQUENCE_BROKEN and self.is_idempotent and queue.batches[0] is batch:
            self._give_up(queue, batch)
            return
        self._again(queue, batch)

    def _again(self, queue: Queue, batch: ProducedBatch) -> None:
        if not self.is_idempotent and batch.tries > self.retries_max:
            queue.batches.remove(batch)
            self.failed_count += 1
            return
        batch.not_before = self.world.now + self.random.random() * BACKOFF_S_MAX

    # Idempotence

    def _give_up(self, queue: Queue, batch: ProducedBatch) -> None:
        """It stays unknown where this one is; the sequence after it must begin anew."""
        queue.batches.remove(batch)
        self.failed_count += 1
        if self.is_idempotent and batch.sequence >= 0:
            self.world.counts["broken_sequences"] += 1
            queue.is_bumping = True

    def _bump(self, queue: Queue) -> None:
        """Once nothing is under way: another epoch, sequences from 0. What may be stored already is not sent again."""
        if any(batch.is_in_flight for batch in queue.batches) or queue.waits_for_id:
            return
        for batch in list(queue.batches):
            if batch.may_be_stored:
                queue.batches.remove(batch)
                self.failed_count += 1
            batch.sequence, batch.data = -1, b""
        queue.next_sequence = 0
        if queue.producer_epoch < PRODUCER_EPOCH_MAX and self.random.random() < 0.5:
            # Java's way; librdkafka asks a broker.
            queue.producer_epoch += 1
            queue.is_bumping = False
        else:
            queue.producer_id = -1
            self._ask_for_id(queue)

    def _ask_for_id(self, queue: Queue) -> None:
        if queue.waits_for_id:
            return
        link = self.any_link()
        if link is None:
            return
        queue.waits_for_id = True
        process = link.process
        known = queue.producer_id, queue.producer_epoch

        def run(answer: Answered) -> None:
            parts = process.broker._parts
            if parts is None:
                return
            asked = parts.producer_ids.init_producer_id(None, *known)
            asked.addCallbacks(answer, lambda failure: answer(failure.value))

        self.send(link, f"{self.name} init producer id", run, lambda answer: self._got_id(queue, answer))

    def _got_id(self, queue: Queue, answer: Any) -> None:
        queue.waits_for_id = False
        if isinstance(answer, tuple):
            queue.producer_id, queue.producer_epoch = answer
            queue.next_sequence = 0
            queue.is_bumping = False
        elif answer is not None and not isinstance(answer, BrokerError):
            raise answer

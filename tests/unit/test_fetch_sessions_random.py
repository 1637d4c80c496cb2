"""A client with a fetch session against a broker to which anything happens: it misses nothing.

While its request waits, none of its partitions has anything that a request without a session would be given at once;
what it was told of each is what it would be told anew.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.replica_cluster import batch, clusters
from tests.unit.test_fetch_sessions_data import COUNT, Broker
from zkbroker.kafka.ports import ConsumedRow, ConsumeOptions, ConsumeRow, DeleteRow
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import TopicPartition
from zkbroker.records.batch import batches

STEPS = 200
ERRORS = {
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.OFFSET_OUT_OF_RANGE,
    ErrorCode.FENCED_LEADER_EPOCH,
    ErrorCode.UNKNOWN_LEADER_EPOCH,
    ErrorCode.INCONSISTENT_TOPIC_ID,
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
}


class Client:
    """Follows its partitions through one session, and knows what it was told."""

    def __init__(self, broker: Broker, rng: random.Random) -> None:
        self.broker = broker
        self.rng = rng
        self.rows: dict[int, ConsumeRow] = {}
        self.marks: dict[int, tuple[int, int]] = {}
        """(high watermark, log start) as told last; none after an error."""
        self.broken: set[int] = set()
        """Partitions whose last answer was an error or a divergence."""
        self.waiting: list[list[ConsumedRow]] | None = None
        self.records_count = 0

    def change(self) -> None:
        """Add, seek, forget."""
        added, forgotten = [], []
        for number in self.rng.sample(range(COUNT), self.rng.randrange(3)):
            if number in self.rows and self.rng.random() < 0.3:
                forgotten.append(self.rows.pop(number))
                self.marks.pop(number, None)
                self.broken.discard(number)
                continue
            replica = self.broker.replicas._table.replicas.get(("t", number))
            end = 0 if replica is None else replica.log.log_end_offset
            epoch = self.broker.epochs[number] if self.rng.random() < 0.5 else -1
            row = ConsumeRow("t", number, self.rng.randrange(end + 2), self.rng.choice((1, 100, 10_000)), epoch)
            self.rows[number] = row._replace(last_fetched_epoch=self.rng.choice((-1, -1, max(0, epoch))))
            added.append(self.rows[number])
        self.broker.session.update(added, forgotten)

    def fetch(self) -> None:
        """Begin a request, or another in its place."""
        answers: list[list[ConsumedRow]] = []
        self.waiting = answers
        wait_ms, max_bytes = self.rng.choice((0, 100, 100_000)), self.rng.choice((1, 300, 100_000))
        self.broker.session.fetch(ConsumeOptions(wait_ms, 1, max_bytes), answers.append)

    def take(self) -> None:
        """Read what was answered and go on from there."""
        if not self.waiting:
            return
        (rows,), self.waiting = self.waiting, None
        changed = []
        for answer in rows:
            number = answer.partition
            row = self.rows[number]
            self.broken.discard(number)
            self.marks[number] = answer.high_watermark, answer.log_start
            if answer.error or answer.diverging_epoch >= 0:
                assert answer.error in ERRORS or answer.diverging_epoch >= 0
                self.marks.pop(number)
                self.broken.add(number)
                if self.rng.random() < 0.7:  # as a client that begins anew
                    offset, epoch = max(0, answer.log_start), self.broker.epochs[number]
                    self.rows[number] = ConsumeRow("t", number, offset, row.max_bytes, epoch)
                    changed.append(self.rows[number])
                    continue
            data = b"".join(bytes(chunk) for chunk in answer.records)
            ends = [head.next_offset for _, head in batches(data)]
            self.records_count += len(ends)
            if ends and self.rng.random() < 0.9:
                self.rows[number] = row._replace(offset=ends[-1])
                changed.append(self.rows[number])
        self.broker.session.update(changed, [])

    def check_that_nothing_is_missed(self) -> None:
        if self.waiting is None or self.waiting:
            return
        for number, row in self.rows.items():
            answers: list[ConsumedRow] = []
            self.broker.replicas.consume(ConsumeOptions(0, 1, 10**6), [row], answers.extend)
            (answer,) = answers
            assert not answer.records and not answer.error and answer.diverging_epoch < 0, (number, row, answer)

    def check_what_it_was_told(self) -> None:
        """An answer without waiting tells all that is news; afterwards everything is known."""
        for _ in range(2 * COUNT):
            answers: list[list[ConsumedRow]] = []
            self.waiting = answers
            self.broker.session.fetch(ConsumeOptions(0, 1, 10**6), answers.append)
            self.broker.network.run(0.02)
            self.take()
        for number, row in self.rows.items():
            answers_of_one: list[ConsumedRow] = []
            self.broker.replicas.consume(ConsumeOptions(0, 1, 10**6), [row], answers_of_one.extend)
            (answer,) = answers_of_one
            assert (number in self.broken) == bool(answer.error or answer.diverging_epoch >= 0), (row, answer)
            if number not in self.broken:
                assert self.marks[number] == (answer.high_watermark, answer.log_start), (row, answer)


class World(Broker):
    """The broker, and what may happen to it."""

    def __init__(self, network: Any, rng: random.Random) -> None:
        self.rng = rng
        self.epochs = dict.fromkeys(range(COUNT), 0)
        super().__init__(network)

    def happen(self) -> None:
        number = self.rng.randrange(COUNT)
        partition = TopicPartition("t", number)
        replica = self.replicas._table.replicas.get(partition)
        kind = self.rng.randrange(12)
        if kind < 6:
            if replica is not None and replica.leader is not None:
                for _ in range(self.rng.randrange(1, 3)):
                    self.produce(number, batch(b"x" * self.rng.randrange(1, 200)))
        elif kind < 9:
            self.epochs[number] += 1
            self.lead(number, self.epochs[number], leader=self.rng.choice((1, 1, 2)))
        elif kind == 9 and replica is not None and replica.leader is not None:
            offset = self.rng.randrange(replica.high_watermark + 1)
            self.replicas.delete_records(0, [DeleteRow("t", number, offset)], lambda rows: None)
        elif kind == 10 and replica is not None and replica.follower is not None:
            replica.log.truncate_to(self.rng.randrange(replica.log.log_end_offset + 1))
            replica.high_watermark = min(replica.high_watermark, replica.log.log_end_offset)
        elif kind == 11 and replica is not None:
            self.replicas.delete(partition, replica.log.topic_id)


@pytest.fixture
def networks(tmp_path: Path) -> Iterator[Any]:
    with clusters(tmp_path) as make:
        yield make


@pytest.mark.parametrize("seed", range(12))
def test_a_session_misses_nothing(networks: Any, seed: int) -> None:
    rng = random.Random(seed)
    network = networks(1, 2)
    world = World(network, rng)
    client = Client(world, rng)
    for _ in range(STEPS):
        choice = rng.random()
        if choice < 0.1:
            client.change()
        if choice < 0.1 or client.waiting is None:
            client.fetch()
        if choice > 0.2:
            world.happen()
        network.run(rng.choice((0.01, 0.03, 0.2)))
        client.take()
        client.check_that_nothing_is_missed()
    client.check_what_it_was_told()
    assert client.records_count > 20
    world.session.close()
    assert sum(len(replica.consumers) for replica in world.replicas._table.replicas.values()) == 0

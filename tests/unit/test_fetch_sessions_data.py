"""What a client's fetch session costs and tells at a broker: only partitions with news are looked at and answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.log_tools import HeldThreads
from tests.unit.replica_cluster import TOPIC_ID, Network, batch, clusters
from zkbroker.broker.consume import ConsumerSession
from zkbroker.broker.replica_table import ReplicaTable
from zkbroker.kafka.ports import ConsumedRow, ConsumeOptions, ConsumeRow, ProduceRow
from zkbroker.log.lanes import Lanes
from zkbroker.log.log import Log
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import PartitionState, TopicPartition

COUNT = 8


class Broker:
    """One broker that leads COUNT partitions, and a session of a client at it."""

    def __init__(self, network: Network) -> None:
        self.network = network
        network.cut.add(2)
        self.replicas = network.replicas[1]
        self.epoch = 0
        for number in range(COUNT):
            self.lead(number)
        self.session = self.replicas.open_session()
        assert isinstance(self.session, ConsumerSession)

    def lead(self, number: int, epoch: int = 0, leader: int = 1, topic_id: str = TOPIC_ID) -> None:
        state = PartitionState(topic_id, (1, 2), leader, epoch, (leader,), epoch, 1)
        assert self.replicas.apply(TopicPartition("t", number), state) is None

    def produce(self, number: int, records: bytes) -> None:
        answers: list[Any] = []
        self.replicas.produce(1, 1000, None, [ProduceRow("t", number, records)], answers.extend)
        assert answers[0].error is ErrorCode.NONE
        self.network.run(0.02)

    def update(self, *rows: tuple[int, int], forget: tuple[int, ...] = (), **fields: Any) -> None:
        """(partition, offset) to fetch from now on."""
        forgotten = [ConsumeRow("t", number, 0, 0) for number in forget]
        wanted = [ConsumeRow("t", number, offset, 1_000_000, **fields) for number, offset in rows]
        self.session.update(wanted, forgotten)

    def fetch(self, wait_ms: int = 0, **options: Any) -> list[ConsumedRow]:
        """The answers come into the returned list, at once or later."""
        answers: list[ConsumedRow] = []
        wanted = ConsumeOptions(wait_ms, **{"min_bytes": 1, "max_bytes": 1_000_000, **options})
        self.session.fetch(wanted, answers.extend)
        return answers

    def told(self, wait_ms: int = 0, **options: Any) -> list[tuple[int, ErrorCode, int, int]]:
        """(partition, error, high watermark, bytes) of the answer."""
        return [(row.partition, row.error, row.high_watermark, values(row)) for row in self.fetch(wait_ms, **options)]

    def watchers(self) -> int:
        return sum(len(self.replica(number).consumers) for number in range(COUNT))

    def replica(self, number: int) -> Any:
        return self.replicas._table.replicas["t", number]


def values(row: ConsumedRow) -> int:
    return sum(map(len, row.records))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with clusters(tmp_path) as make:
        yield Broker(make(1, 2))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which partitions are looked at."""
    found: list[int] = []
    original: Callable[..., Any] = ReplicaTable.led

    def led(self: Any, topic: str, partition: int, epoch: int = -1) -> Any:
        found.append(partition)
        return original(self, topic, partition, epoch)

    monkeypatch.setattr(ReplicaTable, "led", led)
    return found


NONE = ErrorCode.NONE
ALL = tuple((number, 0) for number in range(COUNT))


def test_idle_partitions_are_neither_looked_at_nor_answered(broker: Broker, looks: list[int]) -> None:
    broker.update(*ALL)
    assert broker.told() == [(number, NONE, 0, 0) for number in range(COUNT)]
    looks.clear()
    waiting = broker.fetch(wait_ms=500)
    broker.network.run(0.6)
    assert (waiting, looks) == ([], [])
    one = batch(b"x")
    waiting = broker.fetch(wait_ms=500)
    broker.produce(3, one)
    assert [(row.partition, row.high_watermark, values(row)) for row in waiting] == [(3, 1, len(one))]
    assert set(looks) == {3}


def test_records_are_told_until_the_client_goes_on(broker: Broker) -> None:
    broker.update(*ALL)
    broker.fetch()
    one = batch(b"x")
    broker.produce(3, one)
    assert broker.told() == broker.told() == [(3, NONE, 1, len(one))]
    broker.update((3, 1))
    assert broker.told() == []
    broker.update((3, 0))
    assert broker.told() == [(3, NONE, 1, len(one))], "it sought back"


def test_small_answers_serve_all_in_turn(broker: Broker) -> None:
    one = batch(b"x" * 100)
    for number in range(COUNT):
        for _ in range(3):
            broker.produce(number, one)
    broker.update(*ALL)
    offsets = dict(ALL)
    served: list[int] = []
    for _ in range(COUNT + 4):
        rows = [row for row in broker.fetch(max_bytes=2 * len(one)) if row.records]
        assert len(rows) == 1, "two batches of one partition fill the answer"
        number = rows[0].partition
        served.append(number)
        offsets[number] += 1  # the client takes one of the two
        broker.update((number, offsets[number]))
    assert served == [*range(COUNT), 0, 1, 2, 3]


def test_a_moved_log_start_is_told(broker: Broker) -> None:
    for number in (1, 2):
        broker.produce(number, batch(b"x"))
        broker.produce(number, batch(b"y"))
    broker.update((1, 2), (2, 0))
    assert [row[0] for row in broker.told()] == [1, 2]
    broker.update((2, 2))
    assert broker.told() == []
    replica = broker.replica(1)
    replica.log.advance_log_start(1)
    replica.tell_consumers()
    rows = broker.fetch()
    assert [(row.partition, row.error, row.log_start) for row in rows] == [(1, NONE, 1)]
    assert broker.fetch() == []
    replica.log.advance_log_start(2)
    broker.update((1, 1))
    assert broker.told() == [(1, ErrorCode.OFFSET_OUT_OF_RANGE, 2, 0)]


def test_errors_are_told_each_time_and_so_is_their_end(broker: Broker) -> None:
    broker.update((0, 0), (1, 5))
    assert broker.told() == [(0, NONE, 0, 0), (1, ErrorCode.OFFSET_OUT_OF_RANGE, 0, 0)]
    assert broker.told() == broker.told() == [(1, ErrorCode.OFFSET_OUT_OF_RANGE, 0, 0)]
    broker.update((1, 0))
    assert broker.told() == [(1, NONE, 0, 0)], "the same high watermark, but the error is over"
    assert broker.told() == []
    broker.update((9, 0))
    assert broker.told() == [(9, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, 0)]
    broker.lead(9)
    assert broker.told() == [(9, NONE, 0, 0)]


def test_a_lost_leadership_ends_the_wait_and_a_regained_one_is_heard_of(broker: Broker) -> None:
    broker.update(*ALL)
    broker.fetch()
    waiting = broker.fetch(wait_ms=10_000)
    broker.lead(2, epoch=1, leader=2)
    assert [(row.partition, row.error) for row in waiting] == [(2, ErrorCode.NOT_LEADER_OR_FOLLOWER)]
    assert broker.watchers() == COUNT - 1, "what is led elsewhere is held no more"
    broker.lead(2, epoch=2)
    assert broker.told() == [(2, NONE, 0, 0)]
    waiting = broker.fetch(wait_ms=10_000)
    broker.produce(2, batch(b"x"))
    assert [row.partition for row in waiting] == [2]


def test_a_new_epoch_of_the_same_leader_fences_who_names_the_old(broker: Broker) -> None:
    broker.update((2, 0), current_leader_epoch=0)
    broker.fetch()
    waiting = broker.fetch(wait_ms=10_000)
    broker.lead(2, epoch=1)
    assert [(row.partition, row.error) for row in waiting] == [(2, ErrorCode.FENCED_LEADER_EPOCH)]


def test_a_topic_that_was_made_anew_is_not_the_one_that_was_asked_for(broker: Broker) -> None:
    broker.update((2, 0), topic_id=TOPIC_ID)
    assert broker.told() == [(2, NONE, 0, 0)]
    broker.replicas.delete(TopicPartition("t", 2), TOPIC_ID)
    broker.lead(2, topic_id="BBBBBBBBBBBBBBBBBBBBBA")
    assert broker.told() == [(2, ErrorCode.INCONSISTENT_TOPIC_ID, -1, 0)]
    answers: list[ConsumedRow] = []
    row = ConsumeRow("t", 2, 0, 100, topic_id=TOPIC_ID)
    broker.replicas.consume(ConsumeOptions(0, 1, 100), [row], answers.extend)
    assert answers[0].error is ErrorCode.INCONSISTENT_TOPIC_ID


def test_a_leader_out_of_contact_sends_idle_clients_away(broker: Broker) -> None:
    """They would hear nothing from it, and go on asking it for ever."""
    broker.update(*ALL)
    broker.fetch()
    waiting = broker.fetch(wait_ms=500)
    broker.network.contact_age = 1000.0
    assert broker.replica(0).state.replicas == (1, 2)
    for number in range(COUNT):
        broker.replica(number).leader.elr = (2,)  # alone in the ISR, but another may be elected
    broker.network.run(0.6)
    assert [row.error for row in waiting] == [ErrorCode.NOT_LEADER_OR_FOLLOWER] * COUNT


def test_another_isolation_level_looks_at_all_again(broker: Broker, looks: list[int]) -> None:
    broker.update(*ALL)
    broker.fetch()
    looks.clear()
    broker.fetch(read_committed=True)
    assert looks == list(range(COUNT))
    looks.clear()
    broker.fetch(read_committed=True)
    assert looks == []


def test_forgetting_and_closing_leave_nothing_behind(broker: Broker) -> None:
    broker.update(*ALL)
    broker.fetch()
    assert (broker.session.size, broker.watchers()) == (COUNT, COUNT)
    broker.update(forget=(0, 1, 77))
    assert (broker.session.size, broker.watchers()) == (COUNT - 2, COUNT - 2)
    waiting = broker.fetch(wait_ms=100)
    broker.session.close()
    broker.network.run(0.3)
    assert (broker.watchers(), waiting) == (0, [])
    assert "Deadlines(0)" in repr(broker.replicas._shared.deadlines)


def test_a_client_that_does_not_come_back_costs_nothing_more(broker: Broker) -> None:
    broker.update(*ALL)
    broker.fetch()
    broker.produce(5, batch(b"x"))
    assert broker.watchers() == COUNT - 1, "told once, and looked at when it comes"
    broker.produce(5, batch(b"x"))
    assert [row[0] for row in broker.told()] == [5]
    broker.update((5, 2))
    assert broker.told() == []
    waiting = broker.fetch(wait_ms=10_000)
    broker.produce(5, batch(b"x"))
    assert [row.partition for row in waiting] == [5], "it is watched again"


def test_a_second_request_takes_the_place_of_the_first(broker: Broker) -> None:
    broker.update(*ALL)
    broker.fetch()
    first = broker.fetch(wait_ms=10_000)
    second = broker.fetch(wait_ms=10_000)
    broker.produce(5, batch(b"x"))
    assert (first, [row.partition for row in second]) == ([], [5])


def test_what_a_given_up_request_found_is_told_to_the_next(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cold read under way, and news that came meanwhile."""
    log = broker.replica(1).log
    one = batch(b"x")
    for number in (1, 2):
        broker.produce(number, one)
    broker.update((1, 0), (2, 0))
    original = Log.read
    monkeypatch.setattr(
        Log, "read", lambda self, *a, **k: None if self is log and not k.get("may_wait") else original(self, *a, **k)
    )
    with_threads = HeldThreads()
    log.context.lanes = Lanes(with_threads)
    cancelled = broker.fetch(wait_ms=10_000)
    request = broker.session._request  # type: ignore[attr-defined]
    request.cancel()
    monkeypatch.setattr(Log, "read", original)
    with_threads.run()
    assert cancelled == []
    assert broker.told() == [(1, NONE, 1, len(one)), (2, NONE, 1, len(one))]


def test_a_waiting_request_without_a_session_looks_only_at_what_moved(broker: Broker, looks: list[int]) -> None:
    answers: list[ConsumedRow] = []
    rows = [ConsumeRow("t", number, 0, 1_000_000) for number in range(COUNT)]
    broker.replicas.consume(ConsumeOptions(500, 1, 1_000_000), rows, answers.extend)
    assert looks == list(range(COUNT))
    looks.clear()
    broker.network.run(0.6)
    assert ([row.partition for row in answers], looks) == (list(range(COUNT)), [])
    assert broker.watchers() == 0

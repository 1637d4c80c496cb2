"""What clients get from the replicas of a broker: Produce, Fetch, ListOffsets, OffsetForLeaderEpoch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.log_tools import HeldThreads
from tests.unit.replica_cluster import PARTITION, Network, batch, clusters
from zkbroker.kafka.ports import ConsumeOptions, ConsumeRow, CurrentLeader, EpochRow, OffsetRow, ProduceRow
from zkbroker.log.lanes import Lanes
from zkbroker.log.log import Log
from zkbroker.model.channel import FollowerContact
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topic_config import TopicConfig
from zkbroker.records.record import Record, build_batch


@pytest.fixture
def networks(tmp_path: Path) -> Iterator[Any]:
    with clusters(tmp_path) as make:
        yield make


def values(rows: list[Any]) -> int:
    return sum(len(chunk) for chunk in rows[0].records)


def test_consumers_see_only_what_is_committed_and_are_woken(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    network.run()
    reading = network.consume(1, 0, max_wait_ms=10_000)
    network.cut.add(2)
    network.produce(1, batch(b"a"), acks=1)
    network.run()
    assert reading == []
    assert network.consume(1, 1)[0].error is ErrorCode.NONE, "between the high watermark and the log end"
    assert network.consume(1, 2)[0].error is ErrorCode.OFFSET_OUT_OF_RANGE
    network.cut.clear()
    network.fetchers[2].position_changed(PARTITION)
    network.fetchers[2].follow(PARTITION, 1)
    network.run()
    assert (reading[0].error, reading[0].high_watermark) == (ErrorCode.NONE, 1)
    assert values(reading) == len(batch(b"a"))


def test_a_long_poll_ends_in_time(networks: Any) -> None:
    network = networks(1)
    network.elect(1, 0)
    reading = network.consume(1, 0, max_wait_ms=500)
    network.run(0.45)
    assert reading == []
    network.run(0.15)
    assert (reading[0].error, values(reading)) == (ErrorCode.NONE, 0)


def test_min_bytes_waits_for_enough(networks: Any) -> None:
    network = networks(1)
    network.elect(1, 0)
    one = batch(b"x" * 100)
    reading = network.consume(1, 0, max_wait_ms=10_000, min_bytes=len(one) + 1)
    network.produce(1, one)
    network.run()
    assert reading == []
    network.produce(1, one)
    network.run()
    assert values(reading) == 2 * len(one)


def test_a_client_is_told_that_its_leader_epoch_is_old_or_too_new(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 5)
    assert network.consume(1, 0, epoch=4)[0].error is ErrorCode.FENCED_LEADER_EPOCH
    assert network.consume(1, 0, epoch=6)[0].error is ErrorCode.UNKNOWN_LEADER_EPOCH
    assert network.consume(1, 0, epoch=5)[0].error is ErrorCode.NONE
    assert network.consume(2, 0, epoch=5)[0].error is ErrorCode.NOT_LEADER_OR_FOLLOWER


def test_who_does_not_know_zstd_gets_none_of_it(networks: Any) -> None:
    network = networks(1)
    network.elect(1, 0)
    network.produce(1, batch(b"a"))
    network.run()
    options = ConsumeOptions(0, 1, 1000, knows_zstd=False)
    for codec, error in (("producer", ErrorCode.NONE), ("zstd", ErrorCode.UNSUPPORTED_COMPRESSION_TYPE)):
        network.config = TopicConfig(compression_type=codec)
        network.replicas[1].configs_changed(["t"])
        answers: list[Any] = []
        network.replicas[1].consume(options, [ConsumeRow("t", 0, 0, 1000)], answers.extend)
        assert (answers[0].error, bool(answers[0].records)) == (error, error is ErrorCode.NONE)


def test_unknown_partitions(networks: Any) -> None:
    network = networks(1)
    assert network.consume(1, 0)[0].error is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    network.known[PARTITION] = CurrentLeader(7, 3)
    answer = network.produce(1, batch(b"a"))[0]
    assert (answer.error, answer.current_leader) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, CurrentLeader(7, 3))


def test_one_bad_row_spoils_no_other(networks: Any) -> None:
    network = networks(1)
    network.elect(1, 0)
    answers: list[Any] = []
    rows = [ProduceRow("t", 0, b"garbage"), ProduceRow("t", 0, None), ProduceRow("t", 0, batch(b"a"))]
    network.replicas[1].produce(-1, 1000, None, rows, answers.extend)
    network.run()
    assert [answer.error for answer in answers] == [ErrorCode.INVALID_RECORD, ErrorCode.INVALID_RECORD, ErrorCode.NONE]


def test_records_for_which_a_batch_is_refused_are_named(networks: Any) -> None:
    network = networks(1)
    network.config = TopicConfig(cleanup_policy=("compact",))
    network.elect(1, 0)
    records = [Record(number, 0, b"k" if number == 1 else None, b"v") for number in range(1200)]
    (answer,) = network.produce(1, build_batch(records))
    assert (answer.error, len(answer.bad_records)) == (ErrorCode.INVALID_RECORD, 1000)
    assert [bad.place for bad in answer.bad_records][:3] == [0, 2, 3]
    now_ms = network.time.wall_ms()
    network.config = TopicConfig(message_timestamp_after_max_ms=10, message_timestamp_before_max_ms=10)
    network.replicas[1].configs_changed(["t"])
    records = [Record(index, now_ms + after, None, b"v") for index, after in enumerate((0, 11, -11, 10, -10))]
    (answer,) = network.produce(1, build_batch(records))
    assert (answer.error, [bad.place for bad in answer.bad_records]) == (ErrorCode.INVALID_TIMESTAMP, [1, 2])
    (answer,) = network.produce(1, build_batch([records[2]._replace(offset=0), records[0]._replace(offset=1)]))
    assert (answer.error, [bad.place for bad in answer.bad_records]) == (ErrorCode.INVALID_TIMESTAMP, [0])
    assert network.end(1) == 0


def test_a_duplicate_waits_for_its_own_offset(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    network.run()
    network.cut.add(2)
    first = batch(b"a", producer_id=7, producer_epoch=0, base_sequence=0)
    waiting = network.produce(1, first)
    again = network.produce(1, first)
    assert (waiting, again, network.end(1)) == ([], [], 1)
    network.cut.clear()
    network.fetchers[2].follow(PARTITION, 1)
    network.run()
    assert [waiting[0].base_offset, again[0].base_offset] == [0, 0]
    assert network.produce(1, first)[0].error is ErrorCode.NONE, "committed: answered at once"


def test_a_cancelled_request_is_not_answered(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    answers: list[Any] = []
    row = ProduceRow("t", 0, batch(b"a"))
    parked = network.replicas[1].produce(-1, 1000, None, [row], answers.extend)
    parked.cancel()
    network.run(2.0)
    assert answers == [] and network.mark(1) == 1


def list_offsets(network: Network, timestamp_ms: int) -> tuple[ErrorCode, int, int, int]:
    answers: list[Any] = []
    network.replicas[1].list_offsets(False, [OffsetRow("t", 0, timestamp_ms)], answers.extend)
    (answer,) = answers
    return answer.error, answer.timestamp_ms, answer.offset, answer.leader_epoch


def test_list_offsets(networks: Any) -> None:
    network = networks(1)
    network.elect(1, 2)
    network.produce(1, batch(b"a", b"b", timestamp_ms=10))
    network.produce(1, batch(b"c", timestamp_ms=30))
    network.produce(1, batch(b"d", timestamp_ms=20))
    assert list_offsets(network, -1) == (ErrorCode.NONE, -1, 4, 2)
    assert list_offsets(network, -2) == (ErrorCode.NONE, -1, 0, 2)
    assert list_offsets(network, 11) == (ErrorCode.NONE, 30, 2, 2)
    assert list_offsets(network, 31) == (ErrorCode.NONE, -1, -1, -1)
    assert list_offsets(network, -3) == (ErrorCode.NONE, 30, 2, 2)
    assert list_offsets(network, -5) == (ErrorCode.NONE, -1, -1, -1)


def test_a_search_by_time_that_outlives_the_contact_is_not_answered(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    network.produce(1, batch(b"a", timestamp_ms=10))
    network.run()
    threads = HeldThreads()
    network.replicas[1]._table.replicas[PARTITION].log.context.lanes = Lanes(threads)
    answers: list[Any] = []
    network.replicas[1].list_offsets(False, [OffsetRow("t", 0, 5)], answers.extend)
    network.cut.add(2)
    network.contact_age = 99.0
    network.run(10.0)
    assert answers == []
    while threads.run():
        pass
    assert [answer.error for answer in answers] == [ErrorCode.NOT_LEADER_OR_FOLLOWER]


def test_a_new_leader_names_no_latest_offset_before_its_high_watermark_has_caught_up(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(2, 0)
    network.produce(2, batch(b"a"))
    network.run()
    network.crash(1)  # before a checkpoint of its high watermark was written
    network.start(1)
    network.cut.add(2)
    network.elect(1, 1, to=(1,))
    assert (network.end(1), network.mark(1)) == (1, 0)
    assert list_offsets(network, -1)[0] is ErrorCode.OFFSET_NOT_AVAILABLE
    assert list_offsets(network, 1_000_000_000)[0] is ErrorCode.OFFSET_NOT_AVAILABLE
    assert list_offsets(network, -2)[0] is ErrorCode.NONE


def test_offsets_for_leader_epochs(networks: Any) -> None:
    network = networks(1)
    network.elect(1, 0)
    network.produce(1, batch(b"a", b"b"))
    network.elect(1, 3)
    network.produce(1, batch(b"c"))
    rows = [EpochRow("t", 0, epoch) for epoch in (0, 1, 3, 4)] + [EpochRow("t", 0, 0, 2), EpochRow("u", 0, 0)]
    answers = network.replicas[1].offsets_for_leader_epochs(rows)
    assert [(answer.leader_epoch, answer.end_offset) for answer in answers[:4]] == [(0, 2), (0, 2), (3, 3), (-1, -1)]
    assert answers[4].error is ErrorCode.FENCED_LEADER_EPOCH
    assert answers[5].error is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_records_read_from_disk_reach_followers_and_consumers(networks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network = networks(1, 2)
    network.elect(1, 0, isr=(1,))
    network.cut.add(2)
    for _ in range(5):
        network.produce(1, batch(b"a" * 50))
    read = Log.read

    def nothing_is_cached(log: Log, *arguments: Any, may_wait: bool = False) -> Any:
        return read(log, *arguments, may_wait=True) if may_wait else None

    monkeypatch.setattr(Log, "read", nothing_is_cached)
    reading = network.consume(1, 0)
    network.cut.clear()
    network.fetchers[2].follow(PARTITION, 1)
    network.run()
    assert values(reading) == 5 * len(batch(b"a" * 50))
    assert network.end(2) == 5
    assert network.replicas[1]._follower_reads._cold_bytes == 0


@pytest.mark.parametrize("outcome", [None, ErrorCode.KAFKA_STORAGE_ERROR])
def test_a_read_that_needs_no_thread_after_all_is_answered_at_once(
    networks: Any, monkeypatch: pytest.MonkeyPatch, outcome: ErrorCode | None
) -> None:
    """The page cache may have the bytes on the second look. Nobody tells of them later: a follower that was told to
    wait waited for ever, outside of the ISR (simulator, seed 444 of profile network)."""
    network = networks(1, 2)
    network.elect(1, 0, isr=(1,))
    network.cut.add(2)
    records = batch(b"a" * 50)
    network.produce(1, records)
    network.cut.clear()
    row = network.replicas[2].fetch_row(PARTITION)
    read = Log.read
    looks: list[Log] = []

    def cached_on_the_second_look(log: Log, *arguments: Any, may_wait: bool = False) -> Any:
        looks.append(log)
        if len(looks) == 1:
            return None
        if outcome is not None:
            raise BrokerError(outcome, "the disk is gone")
        return read(log, *arguments, may_wait=True)

    monkeypatch.setattr(Log, "read", cached_on_the_second_look)
    contact = FollowerContact(2, network.epochs[2], network.time.monotonic())
    answer = network.replicas[1].read_for_follower(contact, row, 1_000_000)
    assert answer is not None
    assert (answer.error, len(answer.records)) == (outcome or ErrorCode.NONE, 0 if outcome else len(records))
    assert network.replicas[1]._follower_reads._cold_bytes == 0


def test_reads_from_disk_that_nobody_takes_give_their_room_back(networks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network = networks(1, 2)
    network.elect(1, 0, isr=(1,))
    network.cut.add(2)
    network.produce(1, batch(b"a" * 50))
    read = Log.read

    def nothing_is_cached(log: Log, *arguments: Any, may_wait: bool = False) -> Any:
        return read(log, *arguments, may_wait=True) if may_wait else None

    monkeypatch.setattr(Log, "read", nothing_is_cached)
    network.cut.clear()
    threads = HeldThreads()
    network.replicas[1]._table.replicas[PARTITION].log.context.lanes = Lanes(threads)
    session = network.fetchers[2].session
    session.ask()
    threads.run()
    assert network.replicas[1]._follower_reads._cold_bytes > 0
    network.elect(1, 1, isr=(1,), to=(1,))
    assert network.replicas[1]._follower_reads._cold_bytes == 0


def test_a_folder_that_fails_under_a_request_spoils_no_row_before_it(
    networks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first row waited already, without an answer to be put right: the failing folder found an IndexError there,
    and stopped telling the other partitions."""
    network = networks(1, 2)
    network.elect(1, 0)
    network.cut.add(2)
    reading = network.consume(1, 0, max_wait_ms=10_000)
    append = Log.append_as_leader

    def fails_the_second_time(log: Log, *arguments: Any) -> Any:
        if log.log_end_offset == 0:
            return append(log, *arguments)
        log.failed("cannot append", OSError("it broke"))
        raise log.offline_error()

    monkeypatch.setattr(Log, "append_as_leader", fails_the_second_time)
    answers: list[Any] = []
    rows = [ProduceRow("t", 0, batch(b"a")), ProduceRow("t", 0, batch(b"b"))]
    network.replicas[1].produce(-1, 1000, None, rows, answers.extend)
    assert [answer.error for answer in answers] == [ErrorCode.KAFKA_STORAGE_ERROR] * 2
    assert [row.error for row in reading] == [ErrorCode.KAFKA_STORAGE_ERROR]
    network.run(2.0)
    assert len(answers) == 2, "answered once"


def test_what_came_while_a_thread_read_for_the_first_look_is_not_waited_for(
    networks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = networks(1)
    network.elect(1, 0)
    one = batch(b"a" * 50)
    network.produce(1, one)
    network.run()
    read, threads, is_cold = Log.read, HeldThreads(), [True]

    def cold_at_first(log: Log, *arguments: Any, may_wait: bool = False) -> Any:
        return None if is_cold[0] and not may_wait else read(log, *arguments, may_wait=True)

    monkeypatch.setattr(Log, "read", cold_at_first)
    network.replicas[1]._table.replicas[PARTITION].log.context.lanes = Lanes(threads)
    answers: list[Any] = []
    row = ConsumeRow("t", 0, 0, 1_000_000)
    network.replicas[1].consume(ConsumeOptions(10_000, len(one) + 1, 10_000_000), [row], answers.extend)
    network.produce(1, one)
    network.run()
    assert answers == []
    is_cold[0] = False
    while threads.run():
        pass
    assert values(answers) >= len(one) + 1


def test_the_time_that_a_thread_reads_counts_as_waiting(networks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network = networks(1)
    network.elect(1, 0)
    one = batch(b"a" * 50)
    network.produce(1, one)
    network.run()
    read, threads = Log.read, HeldThreads()

    def cold(log: Log, *arguments: Any, may_wait: bool = False) -> Any:
        return read(log, *arguments, may_wait=True) if may_wait else None

    monkeypatch.setattr(Log, "read", cold)
    network.replicas[1]._table.replicas[PARTITION].log.context.lanes = Lanes(threads)
    answers: list[Any] = []
    row = ConsumeRow("t", 0, 0, 1_000_000)
    network.replicas[1].consume(ConsumeOptions(500, len(one) + 1, 10_000_000), [row], answers.extend)
    network.run(1.0)
    assert answers == []
    while threads.run():
        pass
    assert values(answers) == len(one)

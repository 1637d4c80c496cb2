"""The checkers of logs can fail: hand-made files and memories in which just one thing is wrong."""

from __future__ import annotations

import pytest

from tests.simulation.checker_bench import Bench, batch_of
from zkbroker.records.batch import read_header, stamp


@pytest.fixture
def bench() -> Bench:
    return Bench()


# 7


def test_one_epoch_and_offset_with_two_contents(bench: Bench) -> None:
    leader, follower, _ = bench.begin()
    leader.append(0, batch_of(b"a"))
    bench.step()
    follower.append(0, batch_of(b"b"))
    assert bench.violated() == 7


def test_a_batch_inside_of_another(bench: Bench) -> None:
    leader, follower, _ = bench.begin()
    leader.append(0, batch_of(b"a", b"b"))
    bench.step()
    follower.append(0, batch_of(b"a"))
    assert bench.violated() == 7


def test_a_follower_whose_high_watermark_covers_another_history(bench: Bench) -> None:
    _, follower, _ = bench.begin()
    bench.append_everywhere(batch_of(b"a"))
    # What it has from offset 1 on is of a later epoch than what is committed there.
    for broker_id in (1, 3):
        bench.replica(broker_id).append(0, batch_of(b"b"))
    follower.follower = None
    follower.append(5, batch_of(b"c"))
    bench.write_state(1, 0, (1, 3))
    bench.lead(1, 0, (1, 3)).leader.high_watermark = 1
    bench.step()
    bench.replica(1).mark(2)
    bench.step()
    follower.mark(2)
    assert bench.violated() == 7


def test_a_follower_above_what_any_leader_committed(bench: Bench) -> None:
    _, follower, _ = bench.begin()
    bench.append_everywhere(batch_of(b"a"), mark=False)
    follower.mark(1)
    assert bench.violated() == 7


def test_a_follower_appends_what_its_leader_does_not_have(bench: Bench) -> None:
    _, follower, _ = bench.begin()
    follower.append(0, batch_of(b"a"))
    assert bench.violated() == 7


def test_a_gap_in_the_offsets(bench: Bench) -> None:
    leader, *_ = bench.begin()
    leader.append(0, batch_of(b"a"))
    data = batch_of(b"b")
    leader.append_bytes(bytes(stamp(data, 0, read_header(data), 5, 0)))
    leader.log.log_end_offset = 6
    assert bench.violated() == 7


# 8


@pytest.mark.parametrize(("start", "stable", "mark"), [(1, 0, 0), (0, 1, 0), (0, 0, 2)])
def test_offsets_out_of_order(bench: Bench, start: int, stable: int, mark: int) -> None:
    leader, *_ = bench.begin()
    leader.append(0, batch_of(b"a"))
    leader.high_watermark, leader.last_stable_offset, leader.log.log_start_offset = mark, max(stable, mark), start
    leader.leader.high_watermark = mark
    assert bench.violated() in (8, 5)
    assert not start <= max(stable, mark) <= mark <= 1


def test_the_high_watermark_of_a_leader_falls(bench: Bench) -> None:
    leader, *_ = bench.begin()
    bench.append_everywhere(batch_of(b"a"), batch_of(b"b"))
    leader.mark(1)
    leader.last_stable_offset = 1
    assert bench.violated() == 8


def test_the_high_watermark_rises_below_the_minimum_isr(bench: Bench) -> None:
    bench.write_state(1, 0, (1,))
    leader = bench.lead(1, 0, (1,))
    leader.append(0, batch_of(b"a"))
    bench.step()
    leader.mark(1)
    assert bench.violated() == 8


# 9


def test_an_epoch_cache_that_does_not_rise(bench: Bench) -> None:
    leader, *_ = bench.begin()
    bench.append_everywhere(batch_of(b"a"))
    leader.log.epochs.entries = ((0, 0), (2, 1), (1, 3))
    leader.log.epochs.version += 1
    assert bench.violated() == 9


def test_a_leader_whose_epoch_is_not_in_its_cache(bench: Bench) -> None:
    bench.begin()
    bench.append_everywhere(batch_of(b"a"))
    bench.write_state(2, 1, (1, 2, 3))
    bench.step()
    bench.lead(2, 1, (1, 2, 3), enters=False)
    assert bench.violated() == 9


@pytest.mark.parametrize("entries", [((0, 0), (1, 1)), ((1, 0),), ((0, 1),)])
def test_an_epoch_cache_that_says_other_than_the_batches(bench: Bench, entries: tuple[tuple[int, int], ...]) -> None:
    leader, *_ = bench.begin()
    bench.append_everywhere(batch_of(b"a"), batch_of(b"b"))
    leader.log.epochs.entries = entries
    leader.log.epochs.version += 1
    with pytest.raises(Exception, match="invariant 9"):
        bench.step()
        bench.all.at_end()


# 13


@pytest.mark.parametrize(("epoch", "sequence"), [(0, 0), (0, 2), (1, 1)])
def test_a_producer_whose_sequence_has_a_gap_or_comes_again(bench: Bench, epoch: int, sequence: int) -> None:
    leader, *_ = bench.begin()
    leader.append(0, batch_of(b"a", pid=5, epoch=0, sequence=0))
    leader.append(0, batch_of(b"b", pid=5, epoch=epoch, sequence=sequence))
    assert bench.violated() == 13


# 16


def test_a_log_that_ends_elsewhere_than_its_files(bench: Bench) -> None:
    leader, *_ = bench.begin()
    leader.append(0, batch_of(b"a"))
    leader.log.log_end_offset = 2
    assert bench.violated() == 16


@pytest.mark.parametrize("what", ["gone", "behind", "moved", "invented"])
def test_producers_that_were_rebuilt_wrong(bench: Bench, what: str) -> None:
    leader, *_ = bench.begin()
    leader.append(0, batch_of(b"a", pid=5, epoch=0, sequence=0))
    leader.append(0, batch_of(b"b", pid=5, epoch=0, sequence=1))
    bench.step()
    held = leader.log.producers._producers
    if what == "gone":
        del held[5]
    elif what == "behind":
        held[5].batches.pop()
    elif what == "moved":
        held[5].batches[0].last_offset = 1
    else:
        held[6] = held[5]
    with pytest.raises(Exception, match="invariant 16"):
        bench.all.at_end()


@pytest.mark.parametrize("entry", [(0, 7), (5, 0)])
def test_an_index_entry_that_is_no_batch(bench: Bench, entry: tuple[int, int]) -> None:
    leader, *_ = bench.begin()
    leader.append(0, batch_of(b"a"))
    bench.step()
    index = leader.log.segments[0].index
    index._offsets.append(entry[0])
    index._positions.append(entry[1])
    with pytest.raises(Exception, match="invariant 16"):
        bench.all.at_end()


def test_what_a_dead_process_had_sent_is_no_sign_of_its_next_one(bench: Bench) -> None:
    """Its registration arrives after the power went: a partition that is given to it meanwhile waits for a person."""
    node = bench.nodes[2]
    bench.unregister(2)
    node.losses, node.is_running = 1, False
    bench.step()
    bench.commit("/brokers/ids/2", b"{}")
    bench.write_state(2, 0, (2,))
    bench.step()
    (partition,) = bench.all.ghost.partitions.values()
    assert list(partition.unsettled) == [2]


def test_who_joins_the_isr_after_the_power_took_its_data_is_unsettled(bench: Bench) -> None:
    """Its leader's proposal was on its way."""
    bench.write_state(1, 0, (1, 3))
    bench.step()
    node = bench.nodes[2]
    node.losses, node.is_running = 1, False
    bench.step()
    (partition,) = bench.all.ghost.partitions.values()
    assert not partition.unsettled
    bench.write_state(1, 0, (1, 3, 2))
    bench.step()
    assert list(partition.unsettled) == [2]

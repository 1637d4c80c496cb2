"""The newest batches in memory: bounded for each log and for all."""

from __future__ import annotations

from tests.unit.log_tools import batch
from zkbroker.log.tail import CHUNKS_MAX, LOG_BYTES_MAX, Chunk, Tail, TailBudget
from zkbroker.records.batch import check_batch, stamp


def chunk(base: int, count: int = 2, value: bytes = b"v") -> Chunk:
    data = batch(count, value=value)
    return Chunk(base, base + count, stamp(data, 0, check_batch(data, 0, len(data)), base, 0))


def test_a_log_keeps_only_so_many_chunks_and_bytes() -> None:
    budget = TailBudget()
    tail = Tail(budget)
    for number in range(CHUNKS_MAX + 10):
        tail.append(chunk(2 * number))
    assert len(tail) == CHUNKS_MAX
    assert tail.read(19, 100, 10_000, True) is None
    found = tail.read(20, 100, 10_000, True)
    assert found is not None and found[2:] == (20, 22)
    for number in range(3):
        tail.append(chunk(200 + number, 1, bytes(LOG_BYTES_MAX // 2 - 100)))
    assert len(tail) == 2
    assert tail.bytes_used == budget.bytes_used <= LOG_BYTES_MAX
    tail.append(chunk(203, 1, bytes(LOG_BYTES_MAX + 1)))
    assert (len(tail), tail.bytes_used, budget.bytes_used) == (0, 0, 0)


def test_the_log_that_appended_longest_ago_gives_way() -> None:
    size = len(chunk(0).data)
    budget = TailBudget(bytes_max=3 * size)
    first, second = Tail(budget), Tail(budget)
    first.append(chunk(0))
    second.append(chunk(0))
    first.append(chunk(2))
    assert (len(first), len(second)) == (2, 1)
    first.append(chunk(4))
    assert (len(first), len(second), budget.bytes_used) == (3, 0, 3 * size)
    assert second.read(0, 100, 10, True) is None


def test_a_chunk_of_several_batches_is_cut_at_batches() -> None:
    tail = Tail(TailBudget())
    parts = [chunk(0), chunk(2), chunk(4)]
    tail.append(Chunk(0, 6, b"".join(part.data for part in parts)))
    tail.append(chunk(6))
    size = len(parts[0].data)
    found = tail.read(3, 1 << 20, 6, True)
    assert found is not None
    assert [bytes(piece) for piece in found[0]] == [parts[1].data + parts[2].data]
    assert found[1:] == (2 * size, 2, 6)
    found = tail.read(1, 4 * size, 8, True)
    assert found is not None and found[1:] == (4 * size, 0, 8)
    found = tail.read(0, 2 * size + 1, 8, True)
    assert found is not None and found[1:] == (2 * size, 0, 4)


def test_what_is_below_an_offset_is_forgotten() -> None:
    budget = TailBudget()
    tail, other = Tail(budget), Tail(budget)
    other.append(chunk(0))
    for base in (0, 2, 4):
        tail.append(chunk(base))
    size = len(chunk(0).data)
    tail.forget_below(4)
    assert (tail.bytes_used, budget.bytes_used) == (size, 2 * size)
    assert tail.read(3, 100, 10, True) is None
    found = tail.read(4, 100, 10, True)
    assert found is not None and found[2:] == (4, 6)
    tail.forget_below(4)
    assert len(tail) == 1
    tail.forget_below(6)
    assert (len(tail), tail.bytes_used, budget.bytes_used) == (0, 0, size)
    tail.append(chunk(6))
    assert budget.bytes_used == 2 * size

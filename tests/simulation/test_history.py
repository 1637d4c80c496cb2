"""The history of what clients were told can fail: hand-made answers in which just one thing is wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.simulation.checker_bench import TOPIC_ID, Bench, batch_of
from tests.simulation.history import ALL, Attempt, History
from tests.simulation.violation import Violation
from zkbroker.records.batch import read_header, stamp

KEY = (TOPIC_ID, 0)


class Told:
    """A bench with a history; broker 1 leads in epoch 0 and values a, b, c … are attempted by producer p."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.history = History(self.bench, self.bench.all)
        self.bench.begin()
        for index in range(9):
            value = bytes([97 + index])
            self.history.attempted(value, Attempt("p", index, ALL, True, 0.0))
        parts = SimpleNamespace(registration=SimpleNamespace(broker_epoch=self.bench.broker_epoch(1)))
        self.process: Any = SimpleNamespace(
            broker=SimpleNamespace(_parts=parts), node=SimpleNamespace(clock=SimpleNamespace(rate=1.0))
        )

    @property
    def partition(self) -> Any:
        return self.bench.all.ghost.find("t", 0)

    def store(self, *values: bytes) -> None:
        self.bench.append_everywhere(*(batch_of(value) for value in values))

    def acks(self, value: bytes, base_offset: int, acks: int = ALL) -> None:
        self.history.broker_answered(
            self.process, self.partition.views[1], "a produce", acks, base_offset, batch_of(value)
        )

    def gives(self, offset: int, *batches: tuple[int, bytes], epoch: int = 0) -> None:
        chunks = [bytes(stamp(data, 0, read_header(data), base, epoch)) for base, data in batches]
        self.history.broker_answered(self.process, self.partition.views[1], "a fetch", 1, -1, b"", chunks, offset)

    def violated(self) -> int:
        return self.bench.violated()

    def client_violated(self, value: bytes, offset: int) -> int:
        try:
            self.history.acknowledged(KEY, [value], offset)
        except Violation as violation:
            return violation.invariant
        return 0


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_sound_history_has_nothing_wrong(told: Told) -> None:
    told.store(b"a", b"b", b"c")
    told.acks(b"a", 0)
    told.acks(b"b", 1, acks=1)
    told.gives(0, (0, batch_of(b"a")), (1, batch_of(b"b")))
    told.gives(1, (1, batch_of(b"b")))
    assert told.violated() == 0
    assert told.client_violated(b"a", 0) == told.client_violated(b"c", 2) == told.client_violated(b"b", -1) == 0
    assert told.history.acked[KEY] == {b"a": 0, b"b": 1, b"c": 2}
    assert (told.bench.counts["acked_all"], told.bench.counts["read_again"]) == (3, 1)


def test_acknowledged_with_acks_all_before_it_is_committed(told: Told) -> None:
    told.store(b"a")
    told.bench.append_everywhere(batch_of(b"b"), mark=False)
    told.acks(b"b", 1)
    assert told.violated() == 6


def test_acknowledged_at_an_offset_of_another_record(told: Told) -> None:
    told.store(b"a", b"b")
    told.acks(b"b", 0)
    assert told.violated() == 13


def test_acknowledged_with_acks_1_though_it_never_was_there(told: Told) -> None:
    told.store(b"a")
    told.acks(b"b", 0, acks=1)
    assert told.violated() == 13


def test_a_value_stored_twice(told: Told) -> None:
    with pytest.raises(Violation, match=r"invariant 13.*is stored at offset 0 and again at 1"):
        told.store(b"a", b"a")


def test_a_value_that_nobody_produced(told: Told) -> None:
    with pytest.raises(Violation, match=r"invariant 13.*never produced"):
        told.store(b"z")


def test_acknowledged_values_out_of_order(told: Told) -> None:
    told.store(b"b", b"a")
    assert told.client_violated(b"a", 1) == 0
    assert told.client_violated(b"b", 0) == 13


def test_a_client_is_told_another_offset_than_the_record_has(told: Told) -> None:
    told.store(b"a", b"b")
    assert told.client_violated(b"b", 0) == 13


def test_a_client_is_told_of_what_is_not_there(told: Told) -> None:
    told.store(b"a")
    assert told.client_violated(b"b", 1) == 6


def test_read_before_it_is_committed(told: Told) -> None:
    told.store(b"a")
    told.bench.append_everywhere(batch_of(b"b"), mark=False)
    told.gives(1, (1, batch_of(b"b")))
    assert told.violated() == 10


@pytest.mark.parametrize(("batch", "epoch"), [(batch_of(b"c"), 0), (batch_of(b"a"), 1)])
def test_read_otherwise_than_it_was_committed(told: Told, batch: bytes, epoch: int) -> None:
    told.store(b"a")
    told.gives(0, (0, batch), epoch=epoch)
    assert told.violated() == 10


def test_read_again_and_it_is_another(told: Told) -> None:
    told.store(b"a")
    told.gives(0, (0, batch_of(b"a")))
    told.bench.step()
    # Even if the history of what is committed had changed unseen.
    data = batch_of(b"b")
    batch = told.partition.committed[0]
    told.partition.committed[0] = batch._replace(data=bytes(stamp(data, 0, read_header(data), 0, 0)))
    told.gives(0, (0, batch_of(b"b")))
    assert told.violated() == 10


def test_a_gap_between_batches(told: Told) -> None:
    told.store(b"a", b"b", b"c")
    told.gives(0, (0, batch_of(b"a")), (2, batch_of(b"c")))
    assert told.violated() == 10


def test_another_offset_than_was_asked_for(told: Told) -> None:
    told.store(b"a", b"b")
    told.gives(0, (1, batch_of(b"b")))
    assert told.violated() == 10


def test_half_a_batch(told: Told) -> None:
    told.store(b"a")
    data = batch_of(b"a")
    whole = bytes(stamp(data, 0, read_header(data), 0, 0))
    told.history.broker_answered(told.process, told.partition.views[1], "a fetch", 1, -1, b"", [whole, whole[:30]], 0)
    assert told.violated() == 10


def test_nobody_is_held_to_what_was_lost_as_the_rules_permit(told: Told) -> None:
    told.store(b"a", b"b")
    told.gives(0, (0, batch_of(b"a")), (1, batch_of(b"b")))
    told.bench.step()
    assert told.client_violated(b"a", 0) == told.client_violated(b"b", 1) == 0
    lost = told.partition.cut_history(1)
    for on_loss in told.bench.all.committed.on_loss:
        on_loss(told.partition, 1)
    assert len(lost) == 1
    assert told.history.acked[KEY] == {b"a": 0} and told.history.stored[KEY] == {b"a": 0}

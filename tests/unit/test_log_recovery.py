"""What an unclean stop leaves between a log and the small files beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.log_tools import NOW_MS, T0, TOPIC_ID, HeldThreads, World, batch
from zkbroker.model.topic_config import TopicConfig
from zkbroker.records.batch import read_header, stamp
from zkbroker.records.record import EndTransaction, build_end_transaction


def fetched(epoch: int, base: int, count: int = 1) -> bytes:
    """A batch as a leader of ``epoch`` would send it."""
    data = batch(count)
    return bytes(stamp(data, 0, read_header(data), base, epoch))


def test_an_epoch_that_was_truncated_away_does_not_come_back_over_batches_that_followed(tmp_path: Path) -> None:
    """1. Leader in epoch 6 at offset 2, nothing appended. 2. Follower again: its leader's log goes on in epoch 5, so
    entry 6@2 is dropped and offset 2 appended. 3. Killed before the checkpoint is written."""
    world = World(tmp_path)
    dirs = world.open()
    log = dirs.create(T0, TOPIC_ID)
    log.append_as_follower(fetched(5, 0, 2), 5)
    log.assign_epoch(6, 2)
    world.threads = HeldThreads()
    log.truncate_to(2)
    log.append_as_follower(fetched(5, 2), 7)
    log.append_as_follower(fetched(7, 3), 7)
    before = log.epochs.entries
    assert before == ((5, 0), (7, 3))
    dirs.abandon()
    world.threads = World(tmp_path).threads
    again = world.open()
    assert again.logs[T0].epochs.entries == before
    again.abandon()


@pytest.mark.parametrize("damage", ["index", "tail"])
def test_aborted_transactions_outlive_a_recovery_after_a_clean_stop(tmp_path: Path, damage: str) -> None:
    """The snapshot of the clean stop lies at the log end, behind all batches that tell of them."""
    world = World(tmp_path, config=TopicConfig(index_interval_bytes=0))
    dirs = world.open()
    log = dirs.create(T0, TOPIC_ID)
    for sequence in (0, 2):
        log.append_as_leader(batch(2, producer_id=4, producer_epoch=0, base_sequence=sequence, transactional=True), 0)
        log.append_as_leader(build_end_transaction(0, NOW_MS, 4, 0, EndTransaction(False, 1)), 0, origin_client=False)
    assert log.aborted_transactions(0, 6) == [(4, 0), (4, 3)]
    dirs.close(1)
    segment = log.active
    with open(segment.index.path if damage == "index" else segment.path, "ab") as file:
        file.write((100).to_bytes(4, "big") + (1 << 20).to_bytes(4, "big"))
    log = world.open().logs[T0]
    assert log.log_end_offset == 6
    assert log.aborted_transactions(0, 6) == [(4, 0), (4, 3)]

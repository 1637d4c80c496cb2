"""What an unclean stop leaves between a log and the small files beside it."""

from __future__ import annotations

from pathlib import Path

from tests.unit.log_tools import T0, TOPIC_ID, HeldThreads, World, batch
from zkbroker.records.batch import read_header, stamp


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

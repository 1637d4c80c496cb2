"""Logs whose first segments a loss of power took: what is left begins too late, and looks whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.log_tools import T0, TOPIC_ID
from tests.unit.log_tools import batch as log_batch
from tests.unit.replica_cluster import PARTITION, batch, clusters
from tests.unit.test_log_losses import Machine, lossy
from zkbroker.model.topic_config import TopicConfig


@pytest.fixture
def networks(tmp_path: Path) -> Iterator[Any]:
    with clusters(tmp_path) as make:
        yield make


def without_beginning(*, is_checkpointed: bool = False) -> Machine:
    """Several segments, the first of which is gone after a loss of power."""
    machine = Machine(TopicConfig(segment_bytes=200))
    dirs = machine.start()
    log = dirs.create(T0, TOPIC_ID)
    log.assign_epoch(3, 0)
    for _ in range(8):
        log.append_as_leader(log_batch(2), 3)
    log.flush_later()
    assert len(log.segments) > 2
    first = log.folder + "/" + f"{0:020d}"
    if is_checkpointed:
        dirs.write_checkpoints_now({})
    machine.disk.sync_dir(log.folder)
    machine.lose_power()
    for suffix in (".log", ".index", ".timeindex"):
        machine.disk.unlink(first + suffix)
    return machine


def test_a_beginning_above_what_was_known_to_be_on_disk_is_in_doubt() -> None:
    machine = without_beginning()
    dirs = machine.start()
    log = dirs.logs[T0]
    assert lossy(dirs) == [T0]
    assert log.log_start_offset > 0
    assert (log.doubtful_start, log.recovery_point) == (0, 0)
    # also when the broker stops before a leader could tell
    dirs.close(1)
    machine.kill()
    log = machine.start().logs[T0]
    assert (log.doubtful_start, log.recovery_point) == (0, 0)
    log.truncate_fully_and_start_at(0)
    assert log.doubtful_start is None


def test_what_was_on_disk_was_deleted_by_intent() -> None:
    log = without_beginning(is_checkpointed=True).start().logs[T0]
    assert log.log_start_offset > 0
    assert log.doubtful_start is None


def test_a_follower_whose_beginning_is_in_doubt_copies_what_its_leader_has_below(networks: Any) -> None:
    """Else it joins the ISR without it, and whom it leads later deletes the rest."""
    network = networks(1, 2)
    network.elect(1, 0)
    network.produce(1, batch(b"a", b"b"))
    network.produce(1, batch(b"c"))
    network.run(0.1)
    log = network.replicas[2]._table.replicas[PARTITION].log
    log.advance_log_start(2)
    network.run(0.1)
    assert (log.log_start_offset, log.log_end_offset) == (2, 3), "deleted by intent: it stays so"
    log.doubtful_start = 0
    network.elect(1, 1)
    network.run(0.1)
    assert (log.log_start_offset, log.log_end_offset, log.doubtful_start) == (0, 3, None)
    assert network.mark(2) == 3

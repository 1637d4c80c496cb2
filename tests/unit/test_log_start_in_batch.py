"""A log start in the middle of a batch, as DeleteRecords leaves it: replicas made after it still copy the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.replica_cluster import PARTITION, Network, batch, clusters
from zkbroker.kafka.ports import DeleteRow
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.records.batch import batches, stamp


@pytest.fixture
def networks(tmp_path: Path) -> Iterator[Any]:
    with clusters(tmp_path) as make:
        yield make


def test_a_new_replica_copies_the_whole_batch_and_begins_where_its_leader_does(networks: Any) -> None:
    network: Network = networks(1, 2)
    network.cut.add(2)
    network.elect(1, 0, isr=(1,))
    network.produce(1, batch(b"a", b"b", b"c", b"d"))
    network.produce(1, batch(b"e"))
    network.run()
    network.replicas[1].delete_records(0, [DeleteRow("t", 0, 2)], lambda rows: None)
    network.cut.discard(2)
    network.elect(1, 1, isr=(1,))
    network.run(1)
    assert network.fatal == []
    assert network.end(2) == 5
    assert network.logs[2].logs[PARTITION].log_start_offset == 2
    assert network.consume(1, 2)[0].error is ErrorCode.NONE


def test_what_a_log_holds_is_never_taken_back_for_a_batch_that_overlaps(networks: Any) -> None:
    network: Network = networks(1)
    network.elect(1, 0)
    network.produce(1, batch(b"a", b"b", b"c"))
    log = network.logs[1].logs[PARTITION]
    produced = batch(b"x", b"y", b"z")
    ((_, header),) = batches(produced)
    with pytest.raises(BrokerError) as refused:
        log.append_as_follower(stamp(produced, 0, header, 2, 0), 0)
    assert refused.value.error is ErrorCode.CORRUPT_MESSAGE
    assert (log.log_end_offset, len(log.segments)) == (3, 1)


def test_a_log_that_ends_within_its_own_hole_takes_the_batch_that_lies_there_at_its_leader(networks: Any) -> None:
    """Cut back by the word of a leader that had not compacted what this one had."""
    network: Network = networks(1)
    network.elect(1, 0)
    log = network.logs[1].logs[PARTITION]

    def fetched(base_offset: int, *values: bytes) -> None:
        produced = batch(*values)
        ((_, header),) = batches(produced)
        log.append_as_follower(stamp(produced, 0, header, base_offset, 0), 0)

    fetched(0, b"a", b"b")
    fetched(10, b"c", b"d")
    log.truncate_to(6)
    assert log.log_end_offset == 6
    fetched(4, b"x", b"y", b"z", b"w")
    assert (log.log_start_offset, log.log_end_offset) == (0, 8)
    read = log.read(2, 1000, 8)
    assert read is not None
    assert (read.first_offset, read.next_offset) == (4, 8)

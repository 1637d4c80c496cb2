"""Brokers whose disks hang or lose power when a test says so (``zkbroker.cli._disk_faults``)."""

from __future__ import annotations

from pathlib import Path

import pytest

from zkbroker.cli._disk_faults import FaultyDisk, disk_faults_library
from zkbroker.cli._local_cluster import LocalCluster
from zkbroker.cli._processes import LocalFailure


def faulty_disks(cluster: LocalCluster, directory: Path) -> dict[int, FaultyDisk]:
    """For each broker of a cluster that was not started; skips the test where there can be none."""
    try:
        library = disk_faults_library(directory)
    except LocalFailure as failure:
        pytest.skip(str(failure))
    return {broker_id: FaultyDisk(broker, library) for broker_id, broker in cluster.brokers.items()}

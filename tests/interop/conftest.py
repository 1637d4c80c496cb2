"""Real clients against real brokers on a real ensemble."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.brokers import Cluster
from tests.harness.fixtures import cluster, ensemble, machine, make_cluster, shared_cluster
from tests.harness.kafka_differences import SETTINGS
from tests.harness.zookeeper import ZooKeeperEnsemble

__all__ = ["cluster", "ensemble", "machine", "make_cluster", "shared_cluster"]


@pytest.fixture(scope="session")
def kafka_and_ours(ensemble: ZooKeeperEnsemble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The ports of a Kafka 3.9.1 broker and of one of ours, each alone in its cluster, to be asked the same."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("kafka", "zkbroker")}
    clusters = [
        Cluster(ensemble.connect_string, folder, 1, SETTINGS, kafka=name == "kafka") for name, folder in folders.items()
    ]
    try:
        for cluster in clusters:
            for broker in cluster.brokers.values():
                broker.start()
        for cluster in clusters:
            cluster.start()
        kafka, ours = (cluster.brokers[1].port for cluster in clusters)
        yield kafka, ours
    finally:
        for cluster in clusters:
            cluster.close()

"""Real brokers on a real ensemble."""

from tests.harness.fixtures import cluster, ensemble, make_cluster, shared_cluster

__all__ = ["cluster", "ensemble", "make_cluster", "shared_cluster"]

"""Real clients against real brokers on a real ensemble."""

from tests.harness.fixtures import cluster, ensemble, machine, make_cluster, shared_cluster

__all__ = ["cluster", "ensemble", "machine", "make_cluster", "shared_cluster"]

"""Brokers of an earlier commit and of this one, together in one cluster."""

from tests.harness.fixtures import cluster, ensemble, machine, make_cluster, shared_cluster

__all__ = ["cluster", "ensemble", "machine", "make_cluster", "shared_cluster"]

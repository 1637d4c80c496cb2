"""Fixtures of the integration and interop tests: one ensemble of three ZooKeeper servers for the session, and clusters
that each have a chroot of their own in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.brokers import Cluster
from tests.harness.zookeeper import ZooKeeperEnsemble
from zkbroker.cli._canary import Canary


@pytest.fixture(scope="session")
def ensemble() -> Iterator[ZooKeeperEnsemble]:
    with ZooKeeperEnsemble(3) as running:
        yield running


@pytest.fixture(scope="module")
def shared_cluster(ensemble: ZooKeeperEnsemble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three brokers for the tests of a module; whoever stops one starts it again (see ``cluster``)."""
    with Cluster(ensemble.connect_string, tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """The module's cluster with all its brokers alive again."""
    for broker in shared_cluster.brokers.values():
        if broker.is_paused:
            broker.resume()
    shared_cluster.start()
    return shared_cluster


@pytest.fixture
def make_cluster(ensemble: ZooKeeperEnsemble, tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Makes clusters that belong to one test; they are ended after it."""
    made: list[Cluster] = []

    def make(brokers_count: int = 3, overrides: dict[str, Any] | None = None) -> Cluster:
        one = Cluster(ensemble.connect_string, tmp_path / f"cluster-{len(made)}", brokers_count, overrides)
        made.append(one)
        one.start()
        return one

    yield make
    for one in made:
        one.close()


class Machine:
    """Judges durations: only a machine that had time for the test may fail one."""

    def __init__(self, canary: Canary) -> None:
        self._canary = canary

    def check(self, took_s: float, limit_s: float, since_s: float, what: str) -> None:
        """Fails if ``took_s`` is not below ``limit_s`` although nothing else kept the machine busy since then."""
        delay = self._canary.delay(since_s, time.monotonic())
        if took_s < limit_s:
            return
        seen = f"{what}: {took_s:.3f} s of {limit_s:g} s; scheduling delay p99 {delay.p99_ms:.1f} ms"
        assert not delay.is_quiet, seen
        print(f"not judged, the machine was busy: {seen}")


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Canary(tmp_path_factory.mktemp("canary")) as canary:
        yield Machine(canary)

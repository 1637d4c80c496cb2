"""Brokers that die under writes are replaced by the word of their peers, long before their sessions end.

Sessions are ten seconds here (the ensemble grants no more), so whatever happens within half of that was not their end;
the state znode says why. How fast it is on a quiet machine is for ``zkbroker-bench failover`` to say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.brokers import Cluster, SteadyWriter
from tests.harness.cut_off import CutOff
from tests.harness.zookeeper import ZooKeeperEnsemble

pytestmark = pytest.mark.timeout(300)

SESSION_S = 10.0


@pytest.fixture(scope="module")
def running(ensemble: ZooKeeperEnsemble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    overrides = {"zookeeper.session.timeout.ms": int(SESSION_S * 1000), "replica.lag.time.max.ms": 30_000}
    cluster = Cluster(ensemble.connect_string, tmp_path_factory.mktemp("fast"), overrides=overrides)
    with cluster:
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    running.start()
    return running


def led_by_controller(cluster: Cluster) -> list[int]:
    controller = cluster.controller_id()
    assert controller is not None
    return [controller, *(broker for broker in sorted(cluster.brokers) if broker != controller)]


def led_by_another(cluster: Cluster) -> list[int]:
    controller, first, second = led_by_controller(cluster)
    return [first, controller, second]


class Watched:
    """A topic with a steady writer."""

    def __init__(self, cluster: Cluster, topic: str, replicas: list[int]) -> None:
        self.cluster = cluster
        self.topic = topic
        cluster.create_topic(topic, assignment=[replicas])
        cluster.wait_isr(topic, [1, 2, 3])
        self.writer = SteadyWriter(cluster, topic, topic, [0], per_second=200)
        self.writer.start()
        cluster.wait_for(lambda: len(self.writer.acknowledged) > 100, "writing has begun")
        self.writer.longest_gap_s = 0.0
        self._began_at = time.monotonic()

    def wait_state(self, is_so: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """The state, as soon as it is so; and that was not the end of a session."""

        def found() -> dict[str, Any] | None:
            state = self.cluster.state(self.topic)
            return state if state is not None and is_so(state) else None

        state = self.cluster.wait_for(found, what)
        assert state is not None
        assert time.monotonic() - self._began_at < SESSION_S / 2, what
        return state

    def finish(self) -> None:
        """Everything was acknowledged without the end of a session, and is there."""
        acknowledged = len(self.writer.acknowledged)
        self.cluster.wait_for(lambda: len(self.writer.acknowledged) > acknowledged + 100, "writing goes on")
        self.writer.stop()
        assert self.writer.failures == []
        assert self.writer.longest_gap_s < SESSION_S / 2
        assert [value for _, value in self.cluster.consume(self.topic)] == self.writer.sent[0]


@pytest.mark.parametrize(
    ("name", "place", "victim"),
    [
        ("leader", led_by_another, 0),
        ("both", led_by_controller, 0),
        ("controller", led_by_another, 1),
        ("follower", led_by_controller, 1),
    ],
)
def test_killed_under_writes(cluster: Cluster, name: str, place: Callable[[Cluster], list[int]], victim: int) -> None:
    replicas = place(cluster)
    dead = replicas[victim]
    office = cluster.controller_id()
    watched = Watched(cluster, f"killed-{name}", replicas)
    cluster.brokers[dead].kill()
    state = watched.wait_state(lambda found: dead not in found["isr"] and found["leader"] > 0, f"{dead} is out")
    assert state["reason"] == f"broker {dead} refused connections, 2 of 2 peers agree"
    assert dead not in cluster.live_ids()
    assert (cluster.controller_id() == office) == (dead != office)
    watched.finish()
    cluster.restart(dead)
    cluster.wait_isr(watched.topic, [1, 2, 3])


@pytest.mark.parametrize(("name", "place"), [("leader", led_by_another), ("both", led_by_controller)])
def test_stopped_under_writes(cluster: Cluster, name: str, place: Callable[[Cluster], list[int]]) -> None:
    replicas = place(cluster)
    watched = Watched(cluster, f"stopped-{name}", replicas)
    cluster.brokers[replicas[0]].terminate()
    state = watched.wait_state(lambda found: found["leader"] not in (replicas[0], -1), "another leads")
    assert state["reason"] == f"broker {replicas[0]} is shutting down"
    cluster.brokers[replicas[0]].wait(30)
    assert replicas[0] not in cluster.live_ids()
    cluster.wait_for(lambda: cluster.controller_id() in replicas[1:], "another is controller")
    watched.finish()
    cluster.restart(replicas[0])
    cluster.wait_isr(watched.topic, [1, 2, 3])


def test_falsely_suspected_under_writes(ensemble: ZooKeeperEnsemble, tmp_path: Path) -> None:
    """All connections of a leader are cut and new ones refused, as by a firewall that rejects; its process and its
    session live. It loses its place, nothing acknowledged is lost, and it follows as soon as it can be reached. Then
    the same with the controller."""
    overrides = {"zookeeper.session.timeout.ms": int(SESSION_S * 1000), "replica.lag.time.max.ms": 30_000}
    cluster = Cluster(ensemble.connect_string, tmp_path, overrides=overrides)
    with CutOff() as cut_off:
        cut_off.attach(cluster)
        with cluster:
            suspect_falsely(cluster, cut_off, "falsely-leader", led_by_another(cluster))
            suspect_falsely(cluster, cut_off, "falsely-both", led_by_controller(cluster))


def suspect_falsely(cluster: Cluster, cut_off: CutOff, topic: str, replicas: list[int]) -> None:
    victim, *others = replicas
    watched = Watched(cluster, topic, replicas)
    cut_off.cut(victim)
    state = watched.wait_state(lambda found: found["leader"] not in (victim, -1), "another leads")
    assert state["reason"] == f"broker {victim} refused connections, 2 of 2 peers agree"
    assert cluster.brokers[victim].is_running
    cluster.wait_for(lambda: cluster.controller_id() in others, "another is controller")
    cut_off.heal()
    cluster.wait_isr(topic, [1, 2, 3])
    assert cluster.leader(topic) != victim
    watched.finish()
    assert "no longer registered: its znode was deleted" in cluster.brokers[victim].log_text()
    told = "".join(cluster.brokers[broker].log_text() for broker in others)
    assert f"broker {victim} was suspected falsely: it is not fenced early for 60 s" in told


def test_session_detection_waits_for_the_session(ensemble: ZooKeeperEnsemble, tmp_path: Path) -> None:
    overrides = {"zookeeper.session.timeout.ms": 3000, "broker.failure.detection": "session"}
    cluster = Cluster(ensemble.connect_string, tmp_path, overrides=overrides)
    with cluster:
        replicas = led_by_another(cluster)
        cluster.create_topic("slow", assignment=[replicas])
        cluster.wait_isr("slow", [1, 2, 3])
        cluster.brokers[replicas[0]].kill()
        cluster.wait_leader("slow", other_than=replicas[0])
        state = cluster.state("slow")
        assert state is not None and state["reason"] == f"broker {replicas[0]} is offline"
        assert "refused connections" not in cluster.brokers[replicas[1]].log_text()

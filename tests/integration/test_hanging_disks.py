"""Disks that hang: under a flush policy the broker says so, a broker that can do nothing else but wait ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.harness.brokers import Cluster
from tests.harness.disks import faulty_disks
from tests.harness.fixtures import Machine
from tests.harness.zookeeper import ZooKeeperEnsemble
from tests.integration.test_gray_failures import Story, another
from zkbroker.cli._disk_faults import FaultyDisk

pytestmark = pytest.mark.timeout(300)

STALL_MS = 1500


class Disks(NamedTuple):
    cluster: Cluster
    of: dict[int, FaultyDisk]


@pytest.fixture(scope="module")
def disks(ensemble: ZooKeeperEnsemble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disks]:
    """A cluster in which a follower that lags stays in the ISR for half a minute, so that only words help in time."""
    folder = tmp_path_factory.mktemp("disks")
    overrides = {"replica.lag.time.max.ms": 30_000, "log.dir.stall.ms": STALL_MS}
    cluster = Cluster(ensemble.connect_string, folder, overrides=overrides)
    of = faulty_disks(cluster, folder)
    with cluster:
        yield Disks(cluster, of)


# Whoever lost a leadership like this is not given another for a minute: each test of the module takes another leader.


def test_a_leader_whose_flushes_hang_loses_the_leadership_on_its_own_word(disks: Disks, machine: Machine) -> None:
    cluster = disks.cluster
    story = Story(cluster, "flushed", another(cluster, cluster.controller_id()), flush_messages="1")
    since = story.breaks()
    with disks.of[story.leader].hangs("sync"):
        cluster.wait_leader(story.topic, other_than=story.leader)
        state = cluster.state(story.topic) or {}
        data_dir = cluster.brokers[story.leader].data_dir
        assert state["reason"].startswith(f"broker {story.leader}'s log folder {data_dir} stalled for 1.")
        assert story.leader not in state["isr"]
        story.wait_for_records(50)
        story.check_gap(machine, since, "a leader whose flushes hang")
        assert cluster.live_ids() == [1, 2, 3]
    story.ends_well()
    assert f"appends in log folder {data_dir} complete again" in cluster.brokers[story.leader].log_text()


def test_a_follower_whose_flushes_hang_leaves_the_isr_on_its_own_word(disks: Disks, machine: Machine) -> None:
    cluster = disks.cluster
    leader = cluster.controller_id() or 0
    follower = another(cluster, leader)
    story = Story(cluster, "followed", leader, flush_messages="1")
    since = story.breaks()
    with disks.of[follower].hangs("sync"):
        cluster.wait_for(lambda: follower not in cluster.isr(story.topic), f"broker {follower} leaves the ISR")
        assert cluster.leader(story.topic) == leader
        story.wait_for_records(50)
        story.check_gap(machine, since, "a follower whose flushes hang")
    story.ends_well()


def test_a_leader_that_hangs_in_a_write_ends_and_others_lead(disks: Disks, machine: Machine) -> None:
    cluster = disks.cluster
    controller = cluster.controller_id()
    story = Story(cluster, "written", another(cluster, controller, another(cluster, controller)))
    broker = cluster.brokers[story.leader]
    since = story.breaks()
    with disks.of[story.leader].hangs("write"):
        cluster.wait_leader(story.topic, other_than=story.leader)
        story.wait_for_records(50)
        story.check_gap(machine, since, "a leader that hangs in a write")
        broker.wait(20)
        assert "FATAL watchdog: the reactor has waited for the disk for 1.5 s" in broker.log_text()
    cluster.restart(story.leader)
    story.ends_well()

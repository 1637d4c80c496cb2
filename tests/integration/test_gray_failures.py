"""Brokers that live for ZooKeeper and for their clients, and that the other brokers cannot reach; disks that hang."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.harness.brokers import Cluster, SteadyWriter
from tests.harness.fixtures import Machine
from tests.harness.relay import Relays
from tests.harness.zookeeper import ZooKeeperEnsemble

pytestmark = pytest.mark.timeout(300)

TIMEOUT_S = 3.0
"""The clusters' session timeout."""

SLACK_S = 1.0
"""On top of it: a client's retries, a machine with other work."""


@pytest.fixture(scope="module")
def linked(ensemble: ZooKeeperEnsemble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Relays]]:
    """A cluster whose brokers reach each other through relays. A follower that lags stays in the ISR for half a minute,
    so that only complaints can help in time."""
    cluster = Cluster(
        ensemble.connect_string, tmp_path_factory.mktemp("gray"), overrides={"replica.lag.time.max.ms": 30_000}
    )
    with Relays(cluster) as relays, cluster:
        yield cluster, relays


class Story:
    """A topic of one partition led by a broker of choice, written to all the time, while something breaks."""

    def __init__(self, cluster: Cluster, topic: str, leader: int, **config: str) -> None:
        self.cluster = cluster
        self.topic = topic
        self.leader = leader
        others = [broker for broker in sorted(cluster.brokers) if broker != leader]
        cluster.create_topic(
            topic,
            assignment=[[leader, *others]],
            config={key.replace("_", "."): value for key, value in config.items()},
        )
        cluster.wait_isr(topic, [1, 2, 3])
        assert cluster.leader(topic) == leader
        self.writer = SteadyWriter(cluster, topic, topic, [0], 100)
        self.writer.start()
        self.wait_for_records(50)

    def wait_for_records(self, more: int) -> None:
        """Until so many more are acknowledged."""
        wanted = len(self.writer.acknowledged) + more
        self.cluster.wait_for(lambda: len(self.writer.acknowledged) >= wanted, f"{wanted} records of {self.topic}")

    def breaks(self) -> float:
        """From now on gaps count. The time."""
        self.writer.longest_gap_s = 0.0
        return time.monotonic()

    def check_gap(self, machine: Machine, since: float, what: str) -> None:
        """Nobody waited longer for an acknowledgement than a session lasts."""
        gap_s = self.writer.longest_gap_s
        print(f"{what}: {gap_s:.2f} s without an acknowledged write, session timeout {TIMEOUT_S:g} s")
        machine.check(gap_s, TIMEOUT_S + SLACK_S, since, what)

    def ends_well(self) -> None:
        """All replicas are in sync again, and everything acknowledged can be read."""
        self.cluster.wait_isr(self.topic, [1, 2, 3])
        self.writer.stop()
        assert self.writer.failures == []
        read = dict(self.cluster.consume(self.topic))
        lost = [record for record in self.writer.acknowledged if read.get(record.offset) != record.value]
        assert lost == []


def another(cluster: Cluster, *ids: int | None) -> int:
    return next(broker for broker in sorted(cluster.brokers) if broker not in ids)


# Whoever lost a leadership like this is not given another for a minute: each test of the module takes another leader.


def test_a_leader_that_its_peers_cannot_reach_loses_the_leadership(
    linked: tuple[Cluster, Relays], machine: Machine
) -> None:
    cluster, relays = linked
    controller = cluster.controller_id()
    story = Story(cluster, "cut-leader", another(cluster, controller))
    since = story.breaks()
    relays.isolate(story.leader)
    try:
        led_by = cluster.wait_leader(story.topic, other_than=story.leader)
        state = cluster.state(story.topic) or {}
        assert state["reason"] == f"2 of 2 ISR followers cannot reach broker {story.leader}"
        assert story.leader not in state["isr"]
        story.wait_for_records(50)
        story.check_gap(machine, since, "a leader that its peers cannot reach")
        # It cannot hear of it from the controller, and does not go on as the leader of nobody.
        cluster.wait_for(
            lambda: "others lead 1 partitions now" in cluster.brokers[story.leader].log_text(),
            f"broker {story.leader} hears from ZooKeeper that it is deposed",
        )
        time.sleep(2 * TIMEOUT_S)
        assert cluster.leader(story.topic) == led_by
        assert cluster.controller_id() == controller
        assert cluster.live_ids() == [1, 2, 3]
    finally:
        relays.heal()
    story.ends_well()


def test_a_leader_that_reaches_its_peers_but_not_they_it_follows_within_the_timeout(
    linked: tuple[Cluster, Relays], machine: Machine
) -> None:
    cluster, relays = linked
    controller = cluster.controller_id()
    story = Story(cluster, "one-way", another(cluster, controller, another(cluster, controller)))
    since = story.breaks()
    relays.cut([(other, story.leader) for other in cluster.brokers if other != story.leader])
    try:
        cluster.wait_leader(story.topic, other_than=story.leader)
        # What it fetches arrives, so it is in sync again although nobody can reach it.
        cluster.wait_isr(story.topic, [1, 2, 3])
        story.wait_for_records(50)
        story.check_gap(machine, since, "a leader that its peers cannot reach, though it reaches them")
    finally:
        relays.heal()
    story.ends_well()


def test_a_follower_that_cannot_reach_the_leader_leaves_the_isr(
    linked: tuple[Cluster, Relays], machine: Machine
) -> None:
    cluster, relays = linked
    leader = cluster.controller_id() or 0
    follower = another(cluster, leader)
    story = Story(cluster, "one-follower", leader)
    since = story.breaks()
    relays.cut([(leader, follower), (follower, leader)])
    try:
        cluster.wait_for(lambda: follower not in cluster.isr(story.topic), f"broker {follower} leaves the ISR")
        state = cluster.state(story.topic) or {}
        assert state["leader"] == leader
        assert state["reason"] == f"broker {follower} has stopped fetching from broker {leader}"
        story.wait_for_records(50)
        story.check_gap(machine, since, "a follower that cannot reach the leader")
    finally:
        relays.heal()
    story.ends_well()


def test_a_controller_that_nobody_reaches_gives_its_office_and_its_leaderships_up_once(
    linked: tuple[Cluster, Relays], machine: Machine
) -> None:
    cluster, relays = linked
    controller = cluster.controller_id()
    assert controller is not None
    story = Story(cluster, "cut-controller", controller)
    since = story.breaks()
    relays.isolate(controller)
    try:
        successor = cluster.wait_for(
            lambda: (now := cluster.controller_id()) not in (None, controller) and now, "another broker is controller"
        )
        cluster.wait_leader(story.topic, other_than=controller)
        story.wait_for_records(50)
        story.check_gap(machine, since, "a controller that leads and that nobody reaches")
        offices = set()
        until = time.monotonic() + 3 * TIMEOUT_S
        while time.monotonic() < until:
            offices.add(cluster.controller_id())
            time.sleep(0.05)
        assert offices == {successor}
        assert "were not heard for" in cluster.brokers[controller].log_text()
    finally:
        relays.heal()
    story.ends_well()

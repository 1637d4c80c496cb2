"""Replication throttles: what replicas that catch up may cost, and that those in the ISR never wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock as TaskClock

from tests.unit.replica_cluster import PARTITION, Network, TestTime, batch, clusters
from tests.unit.test_config_broker import build
from tests.unit.test_replication_fetcher import DEMO, OTHER, Pair
from zkbroker.broker.throttles import FOLLOWER_RATE, LEADER_RATE, ReplicationThrottles, Throttle
from zkbroker.model.config.dynamic import with_dynamic
from zkbroker.model.topic_config import TopicConfig

CONFIG = build()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Network]]:
    with clusters(tmp_path) as made:
        yield made


def test_a_rate_holds_over_time_and_may_change() -> None:
    reactor = TaskClock()
    throttle = Throttle(TestTime(reactor), 1000)
    assert throttle.delay_s() == 0.0
    throttle.took(500)
    assert throttle.delay_s() == pytest.approx(0.5)
    reactor.advance(0.25)
    assert throttle.delay_s() == pytest.approx(0.25)
    throttle.rate = 10_000
    assert throttle.delay_s() == pytest.approx(0.025)
    reactor.advance(60)
    throttle.took(20_000)
    assert throttle.delay_s() == 1.0, "what was left unused is not saved up; after a second it is looked again"
    throttle.rate = 0
    reactor.advance(60)
    assert throttle.delay_s() > 0, "nothing at all"


def test_whom_a_topic_names() -> None:
    throttles = ReplicationThrottles(TestTime(TaskClock()), with_dynamic(CONFIG, {}, {}))
    for _ in range(2):
        assert throttles.names(("*",), 3, 7)
        assert throttles.names(("2:7", "3:7"), 3, 7)
        assert not throttles.names(("3:7",), 3, 8)
        assert not throttles.names((), 3, 7)
    for number in range(500):
        assert throttles.names((f"{number}:7",), number, 7), "lists that are gone are not mistaken for others"


def test_a_long_list_is_looked_through_once() -> None:
    class Counted(tuple[str, ...]):
        looks = 0

        def __iter__(self) -> Iterator[str]:
            Counted.looks += 1
            return super().__iter__()

        def __contains__(self, value: object) -> bool:
            Counted.looks += 1
            return super().__contains__(value)

    throttles = ReplicationThrottles(TestTime(TaskClock()), with_dynamic(CONFIG, {}, {}))
    names = Counted(f"{number}:1" for number in range(1000))
    assert all(throttles.names(names, number, 1) for number in range(1000))
    assert Counted.looks == 1


BATCH_BYTES = 600_000
"""Two are too many for one answer."""


def throttled(make: Callable[..., Network], config: TopicConfig, *, leader: int, follower: int) -> Network:
    """Broker 1 leads, 2 is in the ISR, 3 catches up."""
    network = make(1, 2, 3)
    network.config = config
    for replicas in network.replicas.values():
        throttles = ReplicationThrottles(network.time, with_dynamic(CONFIG, {}, {}))
        throttles.leader.rate, throttles.follower.rate = leader, follower
        replicas.throttle(throttles)
    network.cut = {3}
    network.elect(1, 1, isr=(1, 2))
    for _ in range(4):
        network.produce(1, batch(b"x" * BATCH_BYTES), acks=1)
    network.run()
    network.cut = set()
    network.fetchers[3].position_changed(PARTITION)
    network.run(0.01)
    return network


def test_a_leader_sends_no_faster_to_whoever_catches_up(make: Callable[..., Network]) -> None:
    config = TopicConfig(leader_replication_throttled_replicas=("0:1",))
    network = throttled(make, config, leader=BATCH_BYTES, follower=10**9)
    assert network.end(3) == 1, "one answer goes, whatever its size"
    answers = network.produce(1, batch(b"y"))
    network.run(0.5)
    assert (network.end(2), network.end(3)) == (5, 1)
    assert [answer.error for answer in answers] == [0], "the ISR is not throttled: acks=all does not wait"
    network.run(0.6)
    assert network.end(3) == 2, "the time for the first bytes is over"
    network.run(5.0)
    assert network.end(3) == 5


def test_whom_acks_all_waits_for_is_not_throttled(make: Callable[..., Network]) -> None:
    """It caught up once, and is about to join: the high watermark stands still until it has the next record."""
    config = TopicConfig(leader_replication_throttled_replicas=("*",))
    network = throttled(make, config, leader=10**9, follower=10**9)
    network.run(1.0)
    assert network.end(3) == 4
    for replicas in network.replicas.values():
        throttles = ReplicationThrottles(network.time, with_dynamic(CONFIG, {}, {}))
        throttles.leader.rate = 0
        replicas.throttle(throttles)
    answers = network.produce(1, batch(b"y"))
    network.run(0.1)
    assert (network.end(3), [answer.error for answer in answers]) == (5, [0])


def test_a_leader_that_is_not_named_sends_at_once(make: Callable[..., Network]) -> None:
    config = TopicConfig(leader_replication_throttled_replicas=("0:3", "1:1"))
    network = throttled(make, config, leader=10, follower=10)
    network.run(0.1)
    assert network.end(3) == 4


def test_a_follower_counts_what_it_gets_while_it_is_behind(make: Callable[..., Network]) -> None:
    config = TopicConfig(follower_replication_throttled_replicas=("0:3",))
    network = throttled(make, config, leader=10**9, follower=2 * BATCH_BYTES)
    assert network.end(3) == 4, "this network does not ask how long to wait; the fetcher of the next test does"
    assert network.replicas[3].catch_up_delay_s(PARTITION) == 0.0, "in sync"
    network.state = None
    network.elect(1, 2, isr=(1, 2))
    assert network.replicas[3].catch_up_delay_s(PARTITION) > 0.9, "behind again, by the controller's word"
    assert network.replicas[2].catch_up_delay_s(PARTITION) == 0.0


def test_what_catches_up_is_asked_for_later() -> None:
    pair = Pair()
    pair.follower.behind = {DEMO}
    delay = {DEMO: 0.3}
    pair.fetchers.catch_up_delay_s = lambda partition: delay.get(partition, 0.0)
    for partition in (DEMO, OTHER):
        pair.leader.append(partition, b"abc")
    pair.follow(DEMO, OTHER)
    pair.wire.run(0.2)
    assert (pair.log(DEMO), pair.log(OTHER)) == (b"", b"abc")
    delay.clear()
    pair.wire.run(0.2)
    assert pair.log(DEMO) == b"abc"


def test_rates_are_dynamic() -> None:
    throttles = ReplicationThrottles(TestTime(TaskClock()), with_dynamic(CONFIG, {}, {}))
    assert throttles.leader.rate == throttles.follower.rate == 2**63 - 1
    throttles.settings_changed(with_dynamic(CONFIG, {LEADER_RATE: "5"}, {FOLLOWER_RATE: "7"}))
    assert (throttles.leader.rate, throttles.follower.rate) == (5, 7)

"""Who leads when there are too few: real brokers whose disks are emptied, or whose machines lose power."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.harness.brokers import Cluster
from tests.harness.disks import faulty_disks
from tests.harness.zookeeper import ZooKeeperEnsemble
from zkbroker.cli._disk_faults import FaultyDisk
from zkbroker.cli.bench_failover_disks import accept_loss, log_end
from zkbroker.log.losses import BOOT_FILE

pytestmark = pytest.mark.timeout(200)


class Power(NamedTuple):
    cluster: Cluster
    of: dict[int, FaultyDisk]


@pytest.fixture(scope="module")
def shared_power(ensemble: ZooKeeperEnsemble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Power]:
    settings = {"zookeeper.session.timeout.ms": 2000, "broker.failure.detection": "session"}
    folder = tmp_path_factory.mktemp("power")
    cluster = Cluster(ensemble.connect_string, folder, overrides=settings)
    of = faulty_disks(cluster, folder)
    with cluster:
        yield Power(cluster, of)


@pytest.fixture(scope="module")
def shared_cluster(shared_power: Power) -> Cluster:
    return shared_power.cluster


@pytest.fixture
def disks(shared_power: Power) -> dict[int, FaultyDisk]:
    return shared_power.of


def state_of(cluster: Cluster, topic: str) -> dict[str, Any]:
    return cluster.state(topic) or {}


def wait_state(cluster: Cluster, topic: str, **wanted: Any) -> dict[str, Any]:
    """Until the state znode has these values; an ``elr`` that is not there is empty."""

    def found() -> bool:
        state = {"elr": [], **state_of(cluster, topic)}
        return all(
            sorted(state[key]) == sorted(value) if isinstance(value, list) else state.get(key) == value
            for key, value in wanted.items()
        )

    cluster.wait_for(found, f"{topic} has {wanted}")
    return state_of(cluster, topic)


def lossy_topics(cluster: Cluster, broker_id: int) -> list[str]:
    registration = cluster.read_json(f"/brokers/ids/{broker_id}") or {}
    return [entry["topic"] for entry in registration.get("lossy", ())]


def gone(cluster: Cluster, *broker_ids: int) -> None:
    cluster.wait_for(lambda: not set(broker_ids) & set(cluster.live_ids()), f"{broker_ids} are not registered")


def values(count: int) -> list[bytes]:
    return [b"record-%d" % number for number in range(count)]


def read_all(cluster: Cluster, topic: str, count: int) -> list[bytes]:
    return [value for _, value in cluster.consume(topic, end=count)]


def test_the_one_that_left_last_takes_over_from_the_last_one_whose_disk_is_emptied(cluster: Cluster) -> None:
    cluster.create_topic("standing", assignment=[[1, 2, 3]])
    cluster.produce("standing", values(100))
    for broker_id in (3, 2, 1):
        cluster.brokers[broker_id].kill()
        gone(cluster, broker_id)
        if broker_id == 3:
            wait_state(cluster, "standing", leader=1, isr=[1, 2], elr=[])
        if broker_id == 2:
            # what zkCli shows: below min.insync.replicas, whoever left stays eligible
            state = wait_state(cluster, "standing", leader=1, isr=[1], elr=[2])
            assert state["elr"] == [2]
    shutil.rmtree(cluster.brokers[1].data_dir)
    cluster.restart(1)
    # it is first, and says at once that it has nothing: the other one stands in the ISR now, and is waited for
    wait_state(cluster, "standing", leader=-1, isr=[2], elr=[])
    assert lossy_topics(cluster, 1) == ["standing"]
    cluster.restart(2)
    wait_state(cluster, "standing", leader=2)
    cluster.wait_for(lambda: lossy_topics(cluster, 1) == [], "nothing in ZooKeeper counts on broker 1 any more")
    cluster.restart(3)
    cluster.wait_isr("standing", [1, 2, 3])
    assert read_all(cluster, "standing", 100) == values(100)
    assert state_of(cluster, "standing").get("elr", []) == []


def test_who_lost_its_unflushed_end_is_not_elected_though_it_is_first(
    cluster: Cluster, disks: dict[int, FaultyDisk]
) -> None:
    cluster.create_topic("first", assignment=[[1, 2, 3]])
    cluster.produce("first", values(100))
    cluster.wait_isr("first", [1, 2, 3])
    for broker in cluster.brokers.values():
        broker.pause()
    assert disks[1].lose_power() > 0
    disks[2].lose_power()
    cluster.brokers[3].kill()  # its machine went on: nothing is lost
    gone(cluster, 3)
    for broker_id in (1, 2):
        cluster.brokers[broker_id].start()
    for broker_id in (1, 2):
        cluster.brokers[broker_id].wait_started()
    wait_state(cluster, "first", leader=-1, isr=[3])
    # a second restart finds nothing missing, and forgets nothing either
    cluster.brokers[1].kill()
    cluster.restart(1)
    assert "first" in lossy_topics(cluster, 1)
    assert state_of(cluster, "first")["leader"] == -1
    cluster.restart(3)
    cluster.wait_isr("first", [1, 2, 3])
    assert read_all(cluster, "first", 100) == values(100)


def test_with_a_flush_policy_all_machines_lose_power_and_nothing_is_lost(
    cluster: Cluster, disks: dict[int, FaultyDisk]
) -> None:
    cluster.create_topic("flushed", assignment=[[1, 2, 3]], config={"flush.messages": "1"})
    cluster.create_topic("unflushed", assignment=[[1, 2, 3]])
    cluster.produce("flushed", values(100))
    cluster.produce("unflushed", values(100))
    for broker in cluster.brokers.values():
        broker.pause()
    assert all(disk.lose_power() > 0 for disk in disks.values())
    for broker in cluster.brokers.values():
        broker.start()
    for broker in cluster.brokers.values():
        broker.wait_started()
    cluster.wait_isr("flushed", [1, 2, 3])
    assert read_all(cluster, "flushed", 100) == values(100)
    # nobody knows what is missing of the other one: a person decides
    cluster.wait_for(
        lambda: "unclean.leader.election.enable" in state_of(cluster, "unflushed")["reason"], "a reason is given"
    )
    assert state_of(cluster, "unflushed")["leader"] == -1
    assert any("unflushed" in lossy_topics(cluster, broker_id) for broker_id in (1, 2, 3))


def test_a_person_accepts_the_loss_and_the_longest_log_is_what_is_left(
    cluster: Cluster, disks: dict[int, FaultyDisk]
) -> None:
    cluster.create_topic("longest", assignment=[[1, 2, 3]])
    cluster.produce("longest", values(60), linger_ms=0, batch_num_messages=1)
    cluster.wait_isr("longest", [1, 2, 3])
    for broker in cluster.brokers.values():
        broker.pause()
    for broker_id, broker in cluster.brokers.items():
        path = broker.data_dir / "longest-0" / f"{0:020d}.log"
        data = path.read_bytes()
        disks[broker_id].lose_power()
        path.write_bytes(data[: len(data) * broker_id // 4])
    gone(cluster, 1, 2, 3)
    for broker_id in (3, 2, 1):  # the longest is first, and out of the ISR when the last comes
        cluster.restart(broker_id)
    cluster.wait_for(lambda: cluster.live_ids() == [1, 2, 3], "all are registered")
    cluster.wait_for(
        lambda: "unclean" in state_of(cluster, "longest")["reason"] and len(cluster.live_ids()) == 3, "all are told"
    )
    accept_loss(cluster, "longest")
    cluster.wait_isr("longest", [1, 2, 3])
    cluster.wait_for(lambda: "longest" not in lossy_topics(cluster, 3), "the loss is settled")
    left = cluster.consume("longest")
    assert [value for _, value in left] == values(len(left))
    assert len(left) >= 40, "broker 3 kept three quarters"
    assert [lossy_topics(cluster, broker_id).count("longest") for broker_id in (1, 2, 3)] == [0, 0, 0]
    assert json.loads((cluster.brokers[3].data_dir / BOOT_FILE).read_bytes())["boot_id"] != "another-boot"


def test_what_is_lost_when_all_lose_power_is_what_no_disk_held(cluster: Cluster, disks: dict[int, FaultyDisk]) -> None:
    # Kafka's default policy flushes what was rolled; the disks of 1 and 3 do not get to it for a while
    cluster.create_topic("unequal", assignment=[[1, 2, 3]], config={"segment.bytes": "4096"})
    written = values(3000)
    cluster.produce("unequal", written[:1000], linger_ms=0, batch_num_messages=10)
    with disks[1].hangs("sync"), disks[3].hangs("sync"):
        cluster.produce("unequal", written[1000:], linger_ms=0, batch_num_messages=10)
        assert cluster.isr("unequal") == [1, 2, 3]
        *rolled, _ = sorted((cluster.brokers[2].data_dir / "unequal-0").glob("*.log"))
        cluster.wait_for(
            lambda: all(disks[2].synced_size(path) == path.stat().st_size for path in rolled), "broker 2 has flushed"
        )
        for broker in cluster.brokers.values():
            broker.pause()
        for disk in disks.values():
            disk.lose_power()
    ends = {broker_id: log_end(broker.data_dir / "unequal-0") for broker_id, broker in cluster.brokers.items()}
    assert ends[1] < ends[2] > ends[3] and int(rolled[-1].stem) < ends[2] < len(written)
    gone(cluster, 1, 2, 3)
    for broker_id in (1, 3, 2):
        cluster.restart(broker_id)
    cluster.wait_for(lambda: cluster.live_ids() == [1, 2, 3], "all are registered")
    cluster.wait_for(lambda: "unclean" in state_of(cluster, "unequal")["reason"], "a person is asked")
    assert state_of(cluster, "unequal")["leader"] == -1
    accept_loss(cluster, "unequal")
    cluster.wait_isr("unequal", [1, 2, 3])
    assert [value for _, value in cluster.consume("unequal")] == written[: ends[2]]

"""Three brokers on a real ensemble: what an operator does to them, and what must be true afterwards."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException

from tests.harness.brokers import Cluster, SteadyWriter
from tests.harness.zookeeper import ZooKeeperEnsemble

pytestmark = pytest.mark.timeout(180)


def values(count: int, prefix: str = "v") -> list[bytes]:
    return [f"{prefix}-{number}".encode() for number in range(count)]


def read_values(cluster: Cluster, topic: str, partition: int = 0) -> list[bytes]:
    return [value for _, value in cluster.consume(topic, partition)]


def test_records_come_back_from_every_partition(cluster: Cluster) -> None:
    cluster.create_topic("basic", partitions=3)
    for partition in range(3):
        acknowledged = cluster.produce("basic", values(500, f"p{partition}"), partition)
        assert [record.offset for record in acknowledged] == list(range(500))
        assert cluster.consume("basic", partition) == [(record.offset, record.value) for record in acknowledged]
    cluster.wait_isr("basic", [1, 2, 3])


def test_a_killed_leader_is_replaced_and_nothing_is_lost(cluster: Cluster) -> None:
    cluster.create_topic("failover")
    cluster.wait_isr("failover", [1, 2, 3])
    first = cluster.produce("failover", values(300, "before"))
    leader = cluster.wait_leader("failover")
    epoch = cluster.state("failover")["leader_epoch"]  # type: ignore[index]
    cluster.brokers[leader].kill()

    successor = cluster.wait_leader("failover", other_than=leader, timeout_s=15)
    state = cluster.state("failover")
    assert state is not None and state["leader_epoch"] > epoch and leader not in state["isr"]
    second = cluster.produce("failover", values(300, "after"))
    assert read_values(cluster, "failover") == [record.value for record in first + second]

    cluster.restart(leader)
    cluster.wait_isr("failover", [1, 2, 3])
    assert cluster.leader("failover") == successor


def test_writes_under_way_survive_the_kill(cluster: Cluster) -> None:
    cluster.create_topic("busy")
    cluster.wait_isr("busy", [1, 2, 3])
    writer = SteadyWriter(cluster, "w", "busy", [0], per_second=400)
    writer.start()
    time.sleep(1)
    leader = cluster.wait_leader("busy")
    cluster.brokers[leader].kill()
    cluster.wait_leader("busy", other_than=leader)
    time.sleep(1)
    writer.stop()
    assert writer.failures == []
    assert read_values(cluster, "busy") == writer.sent[0]
    assert len(writer.acknowledged) == len(writer.sent[0]) > 500


def test_a_controlled_shutdown_hands_over_at_once(cluster: Cluster) -> None:
    cluster.create_topic("handover")
    cluster.wait_isr("handover", [1, 2, 3])
    cluster.produce("handover", values(50))
    leader = cluster.wait_leader("handover")
    took_s = cluster.brokers[leader].stop()
    assert cluster.brokers[leader].exit_status == (143 if cluster.is_kafka else 0)
    assert took_s < 10
    # No session had to time out: the successor was there when the process ended.
    assert cluster.leader("handover") not in (-1, leader)
    assert leader not in cluster.isr("handover")
    assert leader not in cluster.live_ids()
    assert read_values(cluster, "handover") == values(50)


def test_a_follower_that_was_away_catches_up(cluster: Cluster) -> None:
    cluster.create_topic("away")
    cluster.wait_isr("away", [1, 2, 3])
    leader = cluster.wait_leader("away")
    follower = next(broker for broker in cluster.brokers if broker != leader)
    cluster.brokers[follower].kill()
    cluster.produce("away", values(2000))
    cluster.wait_for(lambda: follower not in cluster.isr("away"), "the dead follower left the ISR")
    cluster.restart(follower)
    cluster.wait_isr("away", [1, 2, 3])


def test_both_followers_dead_refuses_acks_all(cluster: Cluster) -> None:
    cluster.create_topic("alone")
    cluster.wait_isr("alone", [1, 2, 3])
    cluster.produce("alone", values(10, "safe"))
    leader = cluster.wait_leader("alone")
    for broker in cluster.brokers:
        if broker != leader:
            cluster.brokers[broker].kill()
    cluster.wait_for(lambda: cluster.isr("alone") == [leader], "the leader is alone in the ISR")
    with pytest.raises(KafkaException) as refused:
        cluster.produce("alone", values(1, "unsafe"), enable_idempotence=False, retries=0, message_timeout_ms=8000)
    assert refused.value.args[0].code() == KafkaError.NOT_ENOUGH_REPLICAS
    assert read_values(cluster, "alone")[:10] == values(10, "safe")


def test_the_last_in_sync_replica_dead_means_no_leader(make_cluster: Callable[..., Cluster]) -> None:
    """The members outside the ISR have lost their disks, so nothing but the last one may ever lead."""
    cluster = make_cluster()
    cluster.create_topic("last")
    cluster.wait_isr("last", [1, 2, 3])
    written = cluster.produce("last", values(100))
    last = cluster.wait_leader("last")
    others = [broker for broker in cluster.brokers if broker != last]
    for broker in others:
        cluster.brokers[broker].kill()
    cluster.wait_for(lambda: cluster.isr("last") == [last], "one member is left in the ISR")
    cluster.brokers[last].kill()
    for broker in others:
        shutil.rmtree(cluster.brokers[broker].data_dir)
        cluster.brokers[broker].start()
    for broker in others:
        cluster.brokers[broker].wait_started(60)
    cluster.wait_for(lambda: cluster.leader("last") == -1, "the partition has no leader")
    time.sleep(2)
    assert (cluster.leader("last"), cluster.isr("last")) == (-1, [last])
    cluster.restart(last)
    cluster.wait_isr("last", [1, 2, 3])
    assert read_values(cluster, "last") == [record.value for record in written]


def test_unclean_election_only_where_it_is_switched_on(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    config = {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}
    cluster.create_topic("unclean", assignment=[[1, 2]], config=config)
    cluster.create_topic("clean", assignment=[[1, 2]], config={"min.insync.replicas": "1"})
    for topic in ("unclean", "clean"):
        cluster.wait_isr(topic, [1, 2])
    cluster.brokers[2].kill()
    for topic in ("unclean", "clean"):
        cluster.wait_isr(topic, [1])
        cluster.produce(topic, values(10))
    cluster.brokers[1].kill()
    shutil.rmtree(cluster.brokers[2].data_dir)
    cluster.restart(2)
    assert cluster.wait_leader("unclean") == 2
    assert cluster.isr("unclean") == [2]
    assert (cluster.leader("clean"), cluster.isr("clean")) == (-1, [1])


def test_a_zombie_leader_changes_nothing(cluster: Cluster) -> None:
    cluster.create_topic("zombie")
    cluster.wait_isr("zombie", [1, 2, 3])
    before = cluster.produce("zombie", values(100, "before"))
    zombie = cluster.wait_leader("zombie")
    cluster.brokers[zombie].pause()
    successor = cluster.wait_leader("zombie", other_than=zombie, timeout_s=30)
    after = cluster.produce("zombie", values(100, "after"))
    cluster.brokers[zombie].resume()
    cluster.wait_isr("zombie", [1, 2, 3])
    assert cluster.leader("zombie") == successor
    assert read_values(cluster, "zombie") == [record.value for record in before + after]


def test_a_diverged_tail_is_truncated(cluster: Cluster) -> None:
    """A leader whose followers stand still takes acks=1 records that nobody else has; the successor's replace them."""
    cluster.create_topic("diverged", config={"min.insync.replicas": "1"})
    cluster.wait_isr("diverged", [1, 2, 3])
    common = cluster.produce("diverged", values(100, "common"))
    old = cluster.wait_leader("diverged")
    followers = [broker for broker in cluster.brokers if broker != old]
    for broker in followers:
        cluster.brokers[broker].pause()
    cluster.produce("diverged", values(50, "lost"), acks=1, enable_idempotence=False, timeout_s=10)
    cluster.brokers[old].kill()
    for broker in followers:
        cluster.brokers[broker].resume()
    state = cluster.wait_for(lambda: cluster.state("diverged"), "the partition's state")
    if set(state["isr"]) == {old}:
        pytest.skip("the machine was so slow that the ISR shrank first: nothing diverged")
    cluster.wait_leader("diverged", other_than=old)
    kept = cluster.produce("diverged", values(80, "kept"))
    cluster.restart(old)
    cluster.wait_isr("diverged", [1, 2, 3])
    expected = [record.value for record in common + kept]
    assert read_values(cluster, "diverged") == expected
    # The old leader's own copy is the one that had the other tail: read it as leader.
    for broker in followers:
        cluster.brokers[broker].stop()
    assert cluster.wait_leader("diverged") == old
    assert read_values(cluster, "diverged") == expected


def test_deleting_controller_by_hand_moves_the_office(cluster: Cluster) -> None:
    cluster.create_topic("office")
    epoch = int(cluster.read("/controller_epoch") or b"0")
    cluster.zookeeper.delete("/controller")
    cluster.wait_for(lambda: cluster.controller_id() is not None, "there is a controller again")
    cluster.wait_for(lambda: int(cluster.read("/controller_epoch") or b"0") > epoch, "in a higher epoch")
    cluster.create_topic("office-after")
    assert cluster.produce("office-after", values(10))[-1].offset == 9


def test_deleting_a_registration_by_hand_is_answered_by_a_new_one(cluster: Cluster) -> None:
    if cluster.is_kafka:
        pytest.skip("Kafka does not register again")
    cluster.create_topic("registered")
    cluster.wait_isr("registered", [1, 2, 3])
    victim = cluster.wait_leader("registered")
    created = cluster.zookeeper.exists(f"/brokers/ids/{victim}").czxid
    cluster.zookeeper.delete(f"/brokers/ids/{victim}")

    def is_back() -> bool:
        stat = cluster.zookeeper.exists(f"/brokers/ids/{victim}")
        return stat is not None and stat.czxid > created

    cluster.wait_for(is_back, "the broker registered again")
    cluster.wait_isr("registered", [1, 2, 3])
    cluster.produce("registered", values(20))
    assert read_values(cluster, "registered") == values(20)


def test_garbage_in_a_topic_znode_excludes_that_topic_only(cluster: Cluster) -> None:
    cluster.create_topic("fine")
    cluster.zookeeper.create("/brokers/topics/garbage", b"{not json")
    cluster.zookeeper.create("/brokers/topics/strange", b'{"version":99,"partitions":[]}')
    cluster.create_topic("fine-after")
    cluster.produce("fine-after", values(10))
    assert all(broker.is_running for broker in cluster.brokers.values())
    cluster.zookeeper.delete("/controller")  # the next controller reads it too
    cluster.wait_for(lambda: cluster.controller_id() is not None, "there is a controller again")
    cluster.create_topic("fine-again")
    assert read_values(cluster, "fine-after") == values(10)
    for name in ("garbage", "strange"):
        cluster.zookeeper.delete(f"/brokers/topics/{name}", recursive=True)


def test_topics_made_and_deleted_by_writing_znodes(cluster: Cluster) -> None:
    zookeeper = cluster.zookeeper
    znode = {
        "version": 2,
        "partitions": {"0": [1, 2, 3], "1": [2, 3, 1]},
        "adding_replicas": {},
        "removing_replicas": {},
    }
    zookeeper.create("/config/topics/by-hand", b'{"version":1,"config":{"retention.ms":"86400000"}}', makepath=True)
    zookeeper.create("/brokers/topics/by-hand", json.dumps(znode).encode())
    cluster.wait_isr("by-hand", [1, 2, 3])
    cluster.produce("by-hand", values(10), partition=1)
    zookeeper.create("/admin/delete_topics/by-hand", b"")
    cluster.wait_for(lambda: "by-hand" not in cluster.topics(), "the topic is gone")
    cluster.wait_for(
        lambda: (
            not [
                path
                for broker in cluster.brokers.values()
                for path in broker.data_dir.glob("by-hand-*")
                if not path.name.endswith("-delete")
            ]
        ),
        "its folders are gone",
    )
    assert zookeeper.exists("/admin/delete_topics/by-hand") is None
    assert zookeeper.exists("/config/topics/by-hand") is None


def test_a_preferred_election_by_znode(cluster: Cluster) -> None:
    cluster.create_topic("preferred", assignment=[[2, 1, 3]])
    cluster.wait_isr("preferred", [1, 2, 3])
    cluster.brokers[2].stop()
    cluster.wait_leader("preferred", other_than=2)
    cluster.restart(2)
    cluster.wait_isr("preferred", [1, 2, 3])
    cluster.prefer_leader("preferred", 0, [2, 1, 3])
    assert cluster.leader("preferred") == 2


def test_min_insync_replicas_takes_effect_by_znode(cluster: Cluster) -> None:
    cluster.create_topic("strict", assignment=[[1, 2]], config={"min.insync.replicas": "1"})
    cluster.wait_isr("strict", [1, 2])
    cluster.brokers[2].kill()
    cluster.wait_isr("strict", [1])
    cluster.produce("strict", values(1))
    cluster.zookeeper.set("/config/topics/strict", b'{"version":1,"config":{"min.insync.replicas":"2"}}')
    change = b'{"version":2,"entity_path":"topics/strict"}'
    cluster.zookeeper.create("/config/changes/config_change_", change, sequence=True)

    def refuses() -> bool:
        try:
            cluster.produce("strict", values(1), enable_idempotence=False, retries=0, message_timeout_ms=5000)
        except KafkaException as error:
            return bool(error.args[0].code() == KafkaError.NOT_ENOUGH_REPLICAS)
        return False

    cluster.wait_for(refuses, "acks=all is refused with one of two replicas")


def test_the_ensemble_away_and_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Writing goes on without ZooKeeper; afterwards it is as if nothing had been."""
    folder = tmp_path_factory.mktemp("away")
    with (
        ZooKeeperEnsemble(3) as ensemble,
        Cluster(ensemble.connect_string, folder) as cluster,
    ):
        cluster.create_topic("steady", partitions=3)
        cluster.wait_isr("steady", [1, 2, 3])
        before = [cluster.state("steady", partition) for partition in range(3)]
        for number in (1, 2, 3):
            ensemble.kill(number)
        for partition in range(3):
            cluster.produce("steady", values(200), partition)
        time.sleep(5)  # longer than the session timeout
        for partition in range(3):
            cluster.produce("steady", values(200), partition)
        ensemble.start()
        cluster.wait_for(lambda: cluster.live_ids() == [1, 2, 3], "all registered again", 60)
        cluster.wait_isr("steady", [1, 2, 3])
        for partition in range(3):
            assert read_values(cluster, "steady", partition) == values(200) + values(200)
            # The servers counted no time while they were down, so the sessions and with them the leaders lived on.
            state, earlier = cluster.state("steady", partition), before[partition]
            assert state is not None and earlier is not None and state["leader"] == earlier["leader"]


def test_a_rolling_restart_of_the_ensemble_moves_no_leader_and_no_controller(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("rolling")
    with (
        ZooKeeperEnsemble(3) as ensemble,
        Cluster(ensemble.connect_string, folder, overrides={"zookeeper.session.timeout.ms": 6000}) as cluster,
    ):
        cluster.create_topic("rolled", partitions=3)
        cluster.wait_isr("rolled", [1, 2, 3])
        before = [cluster.state("rolled", partition) for partition in range(3)]
        office = (cluster.controller_id(), cluster.read("/controller_epoch"))
        writer = SteadyWriter(cluster, "r", "rolled", [0, 1, 2], per_second=200)
        writer.start()
        for number in (1, 2, 3):
            ensemble.restart(number)
            time.sleep(1)
        writer.stop()
        assert writer.failures == []
        assert [cluster.state("rolled", partition) for partition in range(3)] == before
        assert (cluster.controller_id(), cluster.read("/controller_epoch")) == office


def test_three_brokers_stopped_together_are_gone_quickly(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    cluster.create_topic("stopping", partitions=6)
    cluster.wait_isr("stopping", [1, 2, 3])
    cluster.produce("stopping", values(100))
    took_s = cluster.stop()
    if not cluster.is_kafka:
        assert took_s < 5  # 3 s on a machine that does nothing else
        assert [broker.exit_status for broker in cluster.brokers.values()] == [0, 0, 0]
    assert cluster.live_ids() == []
    cluster.start()
    assert read_values(cluster, "stopping") == values(100)


def test_garbage_on_the_client_port_harms_nobody(cluster: Cluster) -> None:
    cluster.create_topic("unharmed")
    for broker in cluster.brokers.values():
        for garbage in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x7f\xff\xff\xff",
            b"\x00\x00\x00\x08\x7f\xff\x00\x00\x00\x00\x00\x01",
        ):
            with socket.create_connection(("127.0.0.1", broker.port), 5) as connection:
                connection.sendall(garbage)
    assert cluster.produce("unharmed", values(10))[-1].offset == 9
    assert all(broker.is_running for broker in cluster.brokers.values())

"""What a person does to a running cluster by writing Kafka's znodes, and nothing but them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from kazoo.client import KazooClient

from tests.harness.brokers import Cluster
from tests.harness.zookeeper import ZooKeeperEnsemble

pytestmark = pytest.mark.timeout(400)

SEGMENT_BYTES = 20_000
RETENTION_CHECK_MS = 400
SETTINGS = {"log.retention.check.interval.ms": RETENTION_CHECK_MS, "log.segment.delete.delay.ms": 200}


@pytest.fixture(scope="module")
def shared_cluster(ensemble: ZooKeeperEnsemble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(ensemble.connect_string, tmp_path_factory.mktemp("by-hand"), overrides=SETTINGS) as running:
        yield running


# The user's hand


def values(count: int, prefix: str = "v", size: int = 0) -> list[bytes]:
    return [f"{prefix}-{number}".encode().ljust(size, b".") for number in range(count)]


def read_values(cluster: Cluster, topic: str, partition: int = 0) -> list[bytes]:
    return [value for _, value in cluster.consume(topic, partition)]


def write_topic(cluster: Cluster, topic: str, partitions: Mapping[int, Sequence[int]]) -> None:
    """A topic znode as old tools write it: version 1, no topic id, no states."""
    body = {"version": 1, "partitions": {str(number): list(replicas) for number, replicas in partitions.items()}}
    cluster.zookeeper.create(f"/brokers/topics/{topic}", json.dumps(body).encode())


def write_config(cluster: Cluster, topic: str, **config: str) -> None:
    """Replace the topic's settings and announce it, as kafka-configs does; names have _ for dots."""
    settings = {name.replace("_", "."): value for name, value in config.items()}
    path = f"/config/topics/{topic}"
    cluster.zookeeper.ensure_path(path)
    cluster.zookeeper.set(path, json.dumps({"version": 1, "config": settings}).encode())
    announce(cluster, b'{"version":2,"entity_path":"topics/%s"}' % topic.encode())


def announce(cluster: Cluster, change: bytes) -> None:
    cluster.zookeeper.create("/config/changes/config_change_", change, sequence=True)


def folders(cluster: Cluster, topic: str) -> list[str]:
    """Folders of the topic on any broker, but for those that wait to be unlinked."""
    return [
        f"{broker.name}/{path.name}"
        for broker in cluster.brokers.values()
        for path in broker.data_dir.glob(f"{topic}-*")
        if not path.name.endswith("-delete")
    ]


def produce_error(cluster: Cluster, topic: str) -> int:
    """Kafka's error code for one record with acks=all and no retry; 0 when it was acknowledged."""
    try:
        cluster.produce(topic, [b"probe"], enable_idempotence=False, retries=0, message_timeout_ms=5000)
    except KafkaException as refused:
        return int(refused.args[0].code())
    return 0


def lines_naming(cluster: Cluster, text: str) -> dict[int, list[str]]:
    """By broker, the lines of its log in which ``text`` stands."""
    return {
        broker_id: [line for line in broker.log_text().splitlines() if text in line]
        for broker_id, broker in cluster.brokers.items()
    }


def move_office(cluster: Cluster) -> None:
    """Delete /controller, and wait for the next term."""
    epoch = int(cluster.read("/controller_epoch") or b"0")
    cluster.zookeeper.delete("/controller")
    cluster.wait_for(
        lambda: int(cluster.read("/controller_epoch") or b"0") > epoch and cluster.controller_id() is not None,
        "another term of office",
    )


# Topics


def test_a_topic_written_without_id_and_states_is_brought_up(cluster: Cluster) -> None:
    write_topic(cluster, "hand-made", {0: [1, 2, 3], 1: [3, 1, 2]})
    cluster.wait_isr("hand-made", [1, 2, 3])
    assert [cluster.leader("hand-made", number) for number in (0, 1)] == [1, 3]
    znode = cluster.read_json("/brokers/topics/hand-made")
    assert len(znode["topic_id"]) == 22
    assert znode["partitions"] == {"0": [1, 2, 3], "1": [3, 1, 2]}
    for partition in (0, 1):
        written = cluster.produce("hand-made", values(50, f"p{partition}"), partition)
        assert cluster.consume("hand-made", partition) == [(record.offset, record.value) for record in written]
    move_office(cluster)
    assert cluster.produce("hand-made", values(1))[0].offset == 50
    assert cluster.read_json("/brokers/topics/hand-made")["topic_id"] == znode["topic_id"]


def test_a_topic_deleted_through_its_marker_leaves_nothing(cluster: Cluster) -> None:
    write_topic(cluster, "hand-deleted", {0: [1, 2, 3], 1: [2, 3, 1]})
    cluster.wait_isr("hand-deleted", [1, 2, 3])
    write_config(cluster, "hand-deleted", retention_ms="86400000")
    cluster.produce("hand-deleted", values(50))
    zookeeper = cluster.zookeeper
    zookeeper.create("/admin/delete_topics/hand-deleted", b"")
    zookeeper.create("/admin/delete_topics/never-was", b"")
    cluster.wait_for(lambda: "hand-deleted" not in cluster.topics(), "the topic is gone")
    for path in (
        "/admin/delete_topics/hand-deleted",
        "/admin/delete_topics/never-was",
        "/config/topics/hand-deleted",
    ):
        cluster.wait_for(lambda path=path: zookeeper.exists(path) is None, f"{path} is gone")  # type: ignore[misc]
    cluster.wait_for(lambda: not folders(cluster, "hand-deleted"), "its folders are gone")
    write_topic(cluster, "hand-deleted", {0: [2, 3, 1]})
    cluster.wait_isr("hand-deleted", [1, 2, 3])
    assert read_values(cluster, "hand-deleted") == []


def test_partitions_are_added_by_writing_the_topic_znode(cluster: Cluster) -> None:
    cluster.create_topic("grown", assignment=[[1, 2, 3]])
    cluster.wait_isr("grown", [1, 2, 3])
    cluster.produce("grown", values(20))
    before = cluster.state("grown", 0)
    znode = cluster.read_json("/brokers/topics/grown")
    znode["partitions"].update({"1": [2, 3, 1], "2": [3, 1]})
    cluster.zookeeper.set("/brokers/topics/grown", json.dumps(znode).encode())
    cluster.wait_for(lambda: cluster.partitions("grown") == [0, 1, 2], "three partitions")
    cluster.wait_for(lambda: sorted(cluster.isr("grown", 1)) == [1, 2, 3], "partition 1 in sync")
    cluster.wait_for(lambda: sorted(cluster.isr("grown", 2)) == [1, 3], "partition 2 in sync")
    for partition in (1, 2):
        cluster.produce("grown", values(20, f"p{partition}"), partition)
        assert read_values(cluster, "grown", partition) == values(20, f"p{partition}")
    assert cluster.state("grown", 0) == before
    assert read_values(cluster, "grown") == values(20)


def test_preferred_leaders_come_back_through_the_znode(cluster: Cluster) -> None:
    path = "/admin/preferred_replica_election"
    cluster.create_topic("preferred-many", assignment=[[2, 1, 3], [2, 3, 1], [1, 2, 3]])
    cluster.wait_isr("preferred-many", [1, 2, 3])
    cluster.brokers[2].stop()
    for partition in (0, 1):
        cluster.wait_leader("preferred-many", partition, other_than=2)
    cluster.restart(2)
    cluster.wait_isr("preferred-many", [1, 2, 3])
    assert 2 not in [cluster.leader("preferred-many", partition) for partition in range(3)]
    untouched = cluster.state("preferred-many", 2)
    names: list[dict[str, Any]] = [{"topic": "preferred-many", "partition": number} for number in range(3)]
    names.append({"topic": "never-was", "partition": 7})
    cluster.zookeeper.create(path, json.dumps({"version": 1, "partitions": names}).encode())
    for partition in (0, 1):
        cluster.wait_for(lambda p=partition: cluster.leader("preferred-many", p) == 2, "2 leads")  # type: ignore[misc]
    cluster.wait_for(lambda: cluster.zookeeper.exists(path) is None, "the request is removed")
    assert cluster.state("preferred-many", 2) == untouched
    cluster.zookeeper.create(path, b"[garbage")
    cluster.wait_for(lambda: cluster.zookeeper.exists(path) is None, "garbage is removed, too")
    assert sum(map(len, lines_naming(cluster, path).values())) == 1


# Settings


def test_min_insync_replicas_holds_and_ends_at_once(cluster: Cluster) -> None:
    cluster.create_topic("strict-by-hand", assignment=[[1, 2]], config={"min.insync.replicas": "1"})
    cluster.wait_isr("strict-by-hand", [1, 2])
    cluster.brokers[2].kill()
    cluster.wait_isr("strict-by-hand", [1])
    assert produce_error(cluster, "strict-by-hand") == 0
    write_config(cluster, "strict-by-hand", min_insync_replicas="2")
    refused = KafkaError.NOT_ENOUGH_REPLICAS
    cluster.wait_for(lambda: produce_error(cluster, "strict-by-hand") == refused, "acks=all is refused")
    write_config(cluster, "strict-by-hand", min_insync_replicas="1")
    cluster.wait_for(lambda: produce_error(cluster, "strict-by-hand") == 0, "acks=all is taken again")


def test_allowing_unclean_elections_elects_at_once(cluster: Cluster) -> None:
    """Both are there, but the one that is alive is behind: nothing leads until a person allows to lose records."""
    cluster.create_topic("unclean-by-hand", assignment=[[1, 2]], config={"min.insync.replicas": "1"})
    cluster.wait_isr("unclean-by-hand", [1, 2])
    cluster.brokers[2].kill()
    cluster.wait_isr("unclean-by-hand", [1])
    cluster.produce("unclean-by-hand", values(10))
    cluster.brokers[1].kill()
    cluster.restart(2)
    cluster.wait_for(lambda: cluster.leader("unclean-by-hand") == -1, "nobody leads")
    assert cluster.isr("unclean-by-hand") == [1]
    write_config(cluster, "unclean-by-hand", unclean_leader_election_enable="true", min_insync_replicas="1")
    assert cluster.wait_leader("unclean-by-hand") == 2
    assert cluster.isr("unclean-by-hand") == [2]
    assert cluster.produce("unclean-by-hand", values(1, "new"))[0].offset == 0
    cluster.restart(1)
    cluster.wait_isr("unclean-by-hand", [1, 2])
    assert read_values(cluster, "unclean-by-hand") == values(1, "new")


def segments(cluster: Cluster, broker_id: int, topic: str) -> list[int]:
    folder = cluster.brokers[broker_id].data_dir / f"{topic}-0"
    return sorted(int(path.stem) for path in folder.glob("*.log"))


def test_sizes_and_retention_take_effect_by_znode(cluster: Cluster) -> None:
    topic = "kept"
    cluster.create_topic(topic, assignment=[[1, 2, 3]])
    cluster.wait_isr(topic, [1, 2, 3])
    cluster.produce(topic, values(100, "old", 1000), batch_num_messages=5)
    assert segments(cluster, 1, topic) == [0]

    write_config(cluster, topic, segment_bytes=str(SEGMENT_BYTES))
    cluster.wait_for(
        lambda: (
            cluster.produce(topic, values(20, "more", 1000), batch_num_messages=5)
            and all(len(segments(cluster, broker_id, topic)) > 1 for broker_id in cluster.brokers)
        ),
        "new segments in the new size, at leader and followers",
    )
    for _ in range(3):
        cluster.produce(topic, values(20, "more", 1000), batch_num_messages=5)

    write_config(cluster, topic, segment_bytes=str(SEGMENT_BYTES), retention_bytes=str(2 * SEGMENT_BYTES))
    for broker_id in cluster.brokers:
        cluster.wait_for(
            lambda broker_id=broker_id: segments(cluster, broker_id, topic)[0] > 0,  # type: ignore[misc]
            f"old segments of broker {broker_id} go by size",
        )
    kept = cluster.consume(topic)
    assert kept[0][0] > 0 and len(kept) * 1000 >= 2 * SEGMENT_BYTES

    write_config(cluster, topic, segment_bytes=str(SEGMENT_BYTES), retention_ms="1")
    end = kept[-1][0] + 1
    for broker_id in cluster.brokers:
        cluster.wait_for(
            lambda broker_id=broker_id: segments(cluster, broker_id, topic) == [end],  # type: ignore[misc]
            f"all segments of broker {broker_id} go by time",
        )
    assert cluster.consume(topic, end=0) == []
    write_config(cluster, topic)
    cluster.wait_for(lambda: cluster.produce(topic, values(5, "new"))[0].offset >= end, "writing goes on")
    cluster.wait_isr(topic, [1, 2, 3])


# Garbage


def test_garbage_in_a_topic_znode_costs_no_data(cluster: Cluster) -> None:
    """The worst moment: a controller takes office while the znode does not decode. Repaired, all is there again."""
    cluster.create_topic("mangled", assignment=[[1, 2, 3]])
    cluster.create_topic("beside")
    cluster.wait_isr("mangled", [1, 2, 3])
    written = cluster.produce("mangled", values(100))
    path = "/brokers/topics/mangled"
    good = cluster.read(path)
    assert good is not None
    cluster.zookeeper.set(path, b'{"version":2,"partitions":{"0":["one"]}}')
    cluster.wait_for(lambda: any(lines_naming(cluster, "topic mangled is left alone").values()), "it is logged")
    move_office(cluster)
    assert cluster.produce("beside", values(5))[-1].offset == 4
    written += cluster.produce("mangled", values(10, "meanwhile"))  # its replicas keep their roles
    restarted = next(broker for broker in cluster.brokers if broker != cluster.controller_id())
    cluster.brokers[restarted].stop()
    cluster.restart(restarted)
    cluster.produce("beside", values(5))
    assert len(folders(cluster, "mangled")) == 3
    assert not [name for name in folders(cluster, "mangled") if name.endswith("-stray")]
    for broker_id, lines in lines_naming(cluster, "topic mangled is left alone").items():
        assert len(lines) <= 2, (broker_id, lines)  # one each for two terms of office
    cluster.zookeeper.set(path, good)
    cluster.wait_isr("mangled", [1, 2, 3])
    assert read_values(cluster, "mangled") == [record.value for record in written]
    assert cluster.produce("mangled", values(1))[0].offset == 110


def test_garbage_in_a_state_costs_no_data(cluster: Cluster) -> None:
    cluster.create_topic("stateless", assignment=[[1, 2, 3]])
    cluster.create_topic("beside-stateless")
    cluster.wait_isr("stateless", [1, 2, 3])
    written = cluster.produce("stateless", values(100))
    path = "/brokers/topics/stateless/partitions/0/state"
    good = cluster.read(path)
    assert good is not None
    cluster.zookeeper.set(path, b"\xff\xfe")
    move_office(cluster)
    cluster.wait_for(lambda: any(lines_naming(cluster, path).values()), "it is logged")
    assert cluster.produce("beside-stateless", values(5))[-1].offset == 4
    assert not [name for name in folders(cluster, "stateless") if name.endswith("-stray")]
    for broker_id, lines in lines_naming(cluster, path).items():
        assert len(lines) <= 1, (broker_id, lines)
    cluster.zookeeper.set(path, good)
    move_office(cluster)
    cluster.wait_isr("stateless", [1, 2, 3])
    assert read_values(cluster, "stateless") == [record.value for record in written]
    assert cluster.produce("stateless", values(1))[0].offset == 100


def test_garbage_among_the_settings_leaves_the_last_good_ones(cluster: Cluster) -> None:
    cluster.create_topic("unsettled", assignment=[[1, 2]], config={"min.insync.replicas": "2"})
    cluster.create_topic("beside-unsettled", assignment=[[1, 2]], config={"min.insync.replicas": "1"})
    for topic in ("unsettled", "beside-unsettled"):
        cluster.wait_isr(topic, [1, 2])
    path = "/config/topics/unsettled"
    cluster.zookeeper.set(path, b'{"version":1,"config":[1,2]')
    announce(cluster, b'{"version":2,"entity_path":"topics/unsettled"}')
    announce(cluster, b"no json at all")
    announce(cluster, b'{"version":2,"entity_path":"planets/mars"}')
    write_config(cluster, "beside-unsettled", min_insync_replicas="2")
    cluster.brokers[2].kill()
    cluster.wait_isr("unsettled", [1])
    refused = KafkaError.NOT_ENOUGH_REPLICAS
    for topic in ("unsettled", "beside-unsettled"):
        cluster.wait_for(lambda topic=topic: produce_error(cluster, topic) == refused, f"{topic} refuses")  # type: ignore[misc]
    for broker_id, lines in lines_naming(cluster, path).items():
        # Once as a broker's settings, once where the controller reads what concerns elections.
        assert len(lines) <= 2, (broker_id, lines)
    assert lines_naming(cluster, path)[1]
    # A value that is wrong by itself is left out alone.
    write_config(cluster, "unsettled", min_insync_replicas="1", retention_ms="soon")
    cluster.wait_for(lambda: produce_error(cluster, "unsettled") == 0, "the good one of two settings holds")


# Office and registration


def test_the_office_is_won_again_and_nothing_else_moves(cluster: Cluster) -> None:
    cluster.create_topic("office-by-hand", partitions=3)
    cluster.wait_isr("office-by-hand", [1, 2, 3])
    before = [cluster.state("office-by-hand", number) for number in range(3)]
    for _ in range(3):
        move_office(cluster)
    assert [cluster.state("office-by-hand", number) for number in range(3)] == before
    assert cluster.live_ids() == [1, 2, 3]
    cluster.create_topic("office-works")
    cluster.wait_isr("office-works", [1, 2, 3])


@pytest.mark.parametrize("whose", ["leader", "follower", "controller"])
def test_a_deleted_registration_comes_back_in_a_higher_epoch(cluster: Cluster, whose: str) -> None:
    topic = f"deleted-{whose}"
    controller = cluster.controller_id()
    assert controller is not None
    order = [controller, *[broker for broker in cluster.brokers if broker != controller]]
    # The controller leads nothing in the case where another leads.
    replicas = order if whose == "controller" else order[1:] + order[:1]
    cluster.create_topic(topic, assignment=[replicas])
    cluster.wait_isr(topic, [1, 2, 3])
    first = cluster.produce(topic, values(50, "before"))
    victim = replicas[1] if whose == "follower" else replicas[0]
    path = f"/brokers/ids/{victim}"
    epoch = cluster.zookeeper.exists(path).czxid
    cluster.zookeeper.delete(path)

    def is_back() -> bool:
        stat = cluster.zookeeper.exists(path)
        return stat is not None and stat.czxid > epoch

    cluster.wait_for(is_back, f"{path} in a higher epoch")
    second = cluster.produce(topic, values(50, "after"))
    cluster.wait_isr(topic, [1, 2, 3])
    assert cluster.brokers[victim].is_running
    assert read_values(cluster, topic) == [record.value for record in first + second]
    if whose != "follower":
        state = cluster.state(topic)
        assert state is not None and state["leader_epoch"] > 0


@pytest.fixture
def kafka_neighbour(cluster: Cluster) -> Iterator[int]:
    """An Apache Kafka broker's registration, as kafka.zk writes it, held by a client of its own."""
    client = KazooClient(cluster.zookeeper_connect, timeout=10)
    client.start(timeout=60)
    body = {
        "version": 5,
        "host": "127.0.0.1",
        "port": 1,
        "jmx_port": -1,
        "timestamp": "1700000000000",
        "endpoints": ["PLAINTEXT://127.0.0.1:1"],
        "listener_security_protocol_map": {"PLAINTEXT": "PLAINTEXT"},
        "features": {},
    }
    client.create("/brokers/ids/9", json.dumps(body).encode(), ephemeral=True)
    yield 9
    client.stop()
    client.close()


def test_a_kafka_broker_is_never_used_and_refused_as_a_neighbour(cluster: Cluster, kafka_neighbour: int) -> None:
    with pytest.raises(KafkaException) as refused:
        cluster.create_topic("too-wide", 1, 4)
    assert refused.value.args[0].code() == KafkaError.INVALID_REPLICATION_FACTOR
    cluster.create_topic("among-kafka", partitions=8)
    znode = cluster.read_json("/brokers/topics/among-kafka")
    assert {broker for replicas in znode["partitions"].values() for broker in replicas} == {1, 2, 3}
    write_topic(cluster, "led-by-kafka", {0: [kafka_neighbour, 1, 2], 1: [kafka_neighbour]})
    assert cluster.wait_leader("led-by-kafka") == 1
    assert kafka_neighbour not in cluster.isr("led-by-kafka")
    assert cluster.leader("led-by-kafka", 1) in (None, -1)
    assert cluster.produce("led-by-kafka", values(5))[-1].offset == 4

    cluster.brokers[3].stop()
    cluster.brokers[3].start()
    assert cluster.brokers[3].wait(90) == 1
    lines = [line for line in cluster.brokers[3].log_text().splitlines() if "Apache Kafka" in line]
    assert len(lines) == 1 and "Traceback" not in cluster.brokers[3].log_text()


def test_a_broker_knows_a_stopped_kafka_from_a_running_one(
    cluster: Cluster, kafka_neighbour: int, tmp_path: Path
) -> None:
    """When the Kafka broker is gone, the one that it kept out starts."""
    cluster.brokers[1].stop()
    cluster.brokers[1].start()
    assert cluster.brokers[1].wait(90) == 1
    cluster.zookeeper.delete(f"/brokers/ids/{kafka_neighbour}")
    cluster.restart(1)
    cluster.wait_for(lambda: cluster.live_ids() == [1, 2, 3], "three brokers")

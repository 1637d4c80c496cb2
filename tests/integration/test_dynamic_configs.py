"""Settings changed while brokers run: by clients, by Kafka's znodes with and without a notification, over restarts."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

from tests.harness.brokers import Cluster
from tests.harness.zookeeper import ZooKeeperEnsemble
from zkbroker.cli._broker_client import BrokerConnection
from zkbroker.kafka.versions import DESCRIBE_LOG_DIRS, DESCRIBE_PRODUCERS

pytestmark = pytest.mark.timeout(300)
SMALL, LARGE = b"v" * 100, b"v" * 3000
DEFAULT = "/config/brokers/<default>"
MAX_BYTES = "message.max.bytes"


@pytest.fixture(scope="module")
def shared_cluster(ensemble: ZooKeeperEnsemble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(ensemble.connect_string, tmp_path_factory.mktemp("dynamic"), 2) as running:
        yield running


def write(cluster: Cluster, path: str, **config: str) -> None:
    """A person's hand in the znode; nothing is announced."""
    data = json.dumps({"version": 1, "config": {key.replace("_", "."): text for key, text in config.items()}})
    cluster.zookeeper.ensure_path(path)
    cluster.zookeeper.set(path, data.encode())


def takes(cluster: Cluster, topic: str, value: bytes, partition: int = 0) -> bool:
    try:
        cluster.produce(topic, [value], partition, acks="1", enable_idempotence=False)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
            raise
        return False
    return True


def until(cluster: Cluster, topic: str, value: bytes, is_taken: bool) -> None:
    """Both partitions, each led by another broker."""
    for partition in (0, 1):
        cluster.wait_for(
            lambda number=partition: takes(cluster, topic, value, number) is is_taken,  # type: ignore[misc]
            f"{len(value)} bytes are {'taken' if is_taken else 'refused'} by the leader of {topic}-{partition}",
        )


def alter(cluster: Cluster, kind: Any, name: str, **changes: str | None) -> None:
    entries = [
        ConfigEntry(
            key.replace("_", "."),
            text,
            incremental_operation=AlterConfigOpType.DELETE if text is None else AlterConfigOpType.SET,
        )
        for key, text in changes.items()
    ]
    resource = ConfigResource(kind, name, incremental_configs=entries)
    admin = cluster.admin()  # in a variable: a client that is collected fails its own requests
    for future in admin.incremental_alter_configs([resource], request_timeout=20).values():
        future.result(30)


def described(cluster: Cluster, kind: Any, name: str, key: str) -> tuple[str, int]:
    admin = cluster.admin()
    (future,) = admin.describe_configs([ConfigResource(kind, name)], request_timeout=20).values()
    entry = future.result(30)[key]
    return entry.value, entry.source


def make_topic(cluster: Cluster, name: str) -> None:
    cluster.create_topic(name, assignment=[[1, 2], [2, 1]])


def test_a_topic_altered_by_a_client_then_by_hand(cluster: Cluster) -> None:
    make_topic(cluster, "t")
    until(cluster, "t", LARGE, True)
    alter(cluster, ConfigResource.Type.TOPIC, "t", max_message_bytes="1000")
    assert described(cluster, ConfigResource.Type.TOPIC, "t", "max.message.bytes") == ("1000", 1)
    until(cluster, "t", LARGE, False)
    assert takes(cluster, "t", SMALL)
    assert cluster.read_json("/config/topics/t") == {"version": 1, "config": {"max.message.bytes": "1000"}}
    names = cluster.zookeeper.get_children("/config/changes")
    assert cluster.read_json(f"/config/changes/{max(names)}") == {"version": 2, "entity_path": "topics/t"}
    write(cluster, "/config/topics/t", max_message_bytes="10000")
    until(cluster, "t", LARGE, True)
    alter(cluster, ConfigResource.Type.TOPIC, "t", max_message_bytes=None)
    assert described(cluster, ConfigResource.Type.TOPIC, "t", "max.message.bytes")[1] == 5


def test_all_brokers_altered_by_hand_then_one_of_them_by_a_client(cluster: Cluster) -> None:
    make_topic(cluster, "u")
    write(cluster, DEFAULT, message_max_bytes="1000")
    until(cluster, "u", LARGE, False)
    # One of the two leaders takes more now.
    alter(cluster, ConfigResource.Type.BROKER, "1", message_max_bytes="10000")
    assert described(cluster, ConfigResource.Type.BROKER, "1", MAX_BYTES) == ("10000", 2)
    assert described(cluster, ConfigResource.Type.BROKER, "2", MAX_BYTES) == ("1000", 3)
    assert takes(cluster, "u", LARGE, 0)
    assert not takes(cluster, "u", LARGE, 1)
    # Garbage changes nothing; without the znodes all is as the files say.
    cluster.zookeeper.set("/config/brokers/1", b"rubbish")
    assert described(cluster, ConfigResource.Type.BROKER, "1", MAX_BYTES) == ("10000", 2)
    for path in ("/config/brokers/1", DEFAULT):
        cluster.zookeeper.delete(path)
    until(cluster, "u", LARGE, True)
    assert described(cluster, ConfigResource.Type.BROKER, "1", MAX_BYTES)[1] == 5


def test_a_limit_on_connections_holds_at_once(cluster: Cluster) -> None:
    port = cluster.brokers[2].port

    def answers() -> bool:
        try:
            BrokerConnection("127.0.0.1", port, 5).close()
        except OSError:
            return False
        return True

    assert answers()
    write(cluster, "/config/brokers/2", max_connections="0")
    cluster.wait_for(lambda: not answers(), "new connections are refused")
    with socket.create_connection(("127.0.0.1", port), 5) as refused:
        assert refused.recv(1) == b""
    cluster.zookeeper.delete("/config/brokers/2")
    cluster.wait_for(answers, "connections are accepted again")


def test_settings_survive_a_restart(cluster: Cluster) -> None:
    make_topic(cluster, "v")
    alter(cluster, ConfigResource.Type.TOPIC, "v", max_message_bytes="2000", retention_ms="86400000")
    alter(cluster, ConfigResource.Type.BROKER, "1", max_connections="77", log_flush_interval_messages="5")
    cluster.brokers[1].stop()
    cluster.restart(1)
    assert described(cluster, ConfigResource.Type.BROKER, "1", "max.connections") == ("77", 2)
    assert described(cluster, ConfigResource.Type.TOPIC, "v", "retention.ms") == ("86400000", 1)
    cluster.wait_isr("v", [1, 2])
    cluster.prefer_leader("v", 0, [1, 2])
    assert not takes(cluster, "v", LARGE)
    assert takes(cluster, "v", SMALL)
    alter(cluster, ConfigResource.Type.BROKER, "1", max_connections=None, log_flush_interval_messages=None)


def test_folders_and_producers_are_those_of_the_disk(cluster: Cluster) -> None:
    make_topic(cluster, "w")
    cluster.produce("w", [SMALL] * 10)
    connection = BrokerConnection("127.0.0.1", cluster.brokers[1].port, 20)
    answer = connection.ask(DESCRIBE_LOG_DIRS, {"topics": [{"topic": "w", "partitions": [0, 1]}]})
    (folder,) = answer.results
    data = cluster.brokers[1].directory / "data"
    assert folder.log_dir == str(data)
    assert 0 < folder.usable_bytes <= folder.total_bytes
    sizes = {row.partition_index: row.partition_size for row in folder.topics[0].partitions}
    assert sizes == {number: (data / f"w-{number}" / f"{0:020d}.log").stat().st_size for number in (0, 1)}
    assert sizes[0] > 1000
    wanted = {"topics": [{"name": "w", "partition_indexes": [0, 1]}]}
    led, followed = connection.ask(DESCRIBE_PRODUCERS, wanted).topics[0].partitions
    (producer,) = led.active_producers
    assert (producer.last_sequence, producer.producer_epoch, producer.current_txn_start_offset) == (9, 0, -1)
    assert followed.error_code == 6  # NOT_LEADER_OR_FOLLOWER
    connection.close()


def test_the_controller_goes_by_what_holds_for_all_brokers(cluster: Cluster) -> None:
    """1. Broker 1 is the ISR alone. 2. It dies. 3. Broker 2, controller by now, may lead only once that is allowed."""
    cluster.create_topic("x", assignment=[[1, 2]], config={"min.insync.replicas": "1"})
    one, two = cluster.brokers[1], cluster.brokers[2]
    two.stop()
    cluster.wait_isr("x", [1])
    cluster.produce("x", [SMALL], acks="1", enable_idempotence=False)
    one.kill()
    two.start()
    cluster.wait_for(lambda: cluster.controller_id() == 2 and cluster.live_ids() == [2], "broker 2 is controller")
    cluster.wait_for(lambda: cluster.leader("x") == -1, "nobody leads")
    write(cluster, DEFAULT, unclean_leader_election_enable="true")
    cluster.wait_for(lambda: cluster.leader("x") == 2, "broker 2 leads")
    assert cluster.isr("x") == [2]
    cluster.zookeeper.delete(DEFAULT)

"""Consumer groups across clients: members of every kind in one group that loses its coordinator, and our command beside
Kafka's own on the same cluster."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.harness.brokers import Cluster, run_cli
from tests.harness.differential import Peer
from tests.harness.zookeeper import ZooKeeperEnsemble
from tests.interop.__main__ import SETTINGS
from tests.interop.adapters import Client, Member
from tests.interop.adapters_java import JavaClient
from tests.interop.features import wait_known
from tests.interop.runner import Clients, clients_of
from zkbroker.cli import consumer_groups
from zkbroker.kafka.versions import FIND_COORDINATOR

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif("ZKBROKER_KAFKA_LIBS" not in os.environ, reason="ZKBROKER_KAFKA_LIBS is not set"),
]
KINDS = ("kcat", "confluent-kafka", "kafka-python", "aiokafka", "java-3.9")
COMMAND = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"


@pytest.fixture(scope="module")
def group_cluster(ensemble: ZooKeeperEnsemble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = {**SETTINGS, "offsets.topic.replication.factor": 3}
    with Cluster(ensemble.connect_string, tmp_path_factory.mktemp("groups"), overrides=settings) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def clients(group_cluster: Cluster) -> Iterator[Clients]:
    with clients_of(group_cluster) as found:
        yield found


def coordinator(cluster: Cluster, group: str) -> int:
    """The broker that coordinates the group, as one of the living says."""
    peer = Peer("any", cluster.running[0].port)
    try:

        def found() -> int | None:
            answer = peer.ask(FIND_COORDINATOR, 1, key=group, key_type=0)
            return answer["node_id"] if answer["error_code"] == "none" else None

        node = cluster.wait_for(found, f"{group} has a coordinator")
        assert node is not None
        return node
    finally:
        peer.close()


def committed(cluster: Cluster, group: str, topic: str, partitions: int) -> list[int]:
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": group})
    try:
        rows = consumer.committed([TopicPartition(topic, number) for number in range(partitions)], timeout=30)
        return [row.offset for row in rows]
    finally:
        consumer.close()


def test_a_group_of_all_clients_outlives_its_coordinator(group_cluster: Cluster, clients: Clients) -> None:
    cluster, topic, group, partitions = group_cluster, "mixed", "mixed-group", 10
    cluster.create_topic(topic, partitions, 3)
    wait_known(cluster, topic, partitions)
    wanted: set[bytes] = set()

    def write(round_number: int) -> None:
        for partition in range(partitions):
            values = [b"%d-%d-%d" % (round_number, partition, number) for number in range(3)]
            cluster.produce(topic, values, partition)
            wanted.update(values)

    def read() -> set[bytes]:
        return {one.record.value or b"" for member in members for one in member.received()}

    def shared() -> bool:
        parts = [member.assigned() for member in members]
        return all(len(part) == 2 for part in parts) and set().union(*parts) == set(range(partitions))

    write(0)
    members: list[Member] = []
    try:
        for kind in KINDS:
            client: Client = clients.get(kind)
            members.append(client.join(group, topic))
        cluster.wait_for(shared, "five members of five kinds share ten partitions")
        cluster.wait_for(lambda: read() == wanted, "all is read")
        cluster.wait_for(lambda: committed(cluster, group, topic, partitions) == [3] * partitions, "and committed")
        victim = coordinator(cluster, group)
        cluster.brokers[victim].kill()
        assert coordinator(cluster, group) >= 0
        assert committed(cluster, group, topic, partitions) == [3] * partitions
        write(1)
        cluster.wait_for(lambda: read() == wanted, "the group goes on with another coordinator")
        cluster.restart(victim)
    finally:
        for member in members:
            member.leave()
    cluster.wait_for(lambda: committed(cluster, group, topic, partitions) == [6] * partitions, "all was committed")


def test_our_console_consumer_goes_on_where_its_group_was(group_cluster: Cluster) -> None:
    cluster = group_cluster
    cluster.create_topic("console", 2, 3)
    wait_known(cluster, "console", 2)
    flags = ("--bootstrap-server", cluster.bootstrap, "--topic", "console", "--group", "console", "--from-beginning")
    for partition in range(2):
        cluster.produce("console", [b"%d-%d" % (partition, number) for number in range(10)], partition)
    first = run_cli("console_consumer", *flags, "--max-messages", "7")
    assert (first.returncode, first.stderr) == (0, "Processed a total of 7 messages\n")
    assert sum(max(0, offset) for offset in committed(cluster, "console", "console", 2)) == 7  # printed, not only read
    second = run_cli("console_consumer", *flags, "--max-messages", "13")
    assert sorted(first.stdout.split() + second.stdout.split()) == [f"{p}-{n}" for p in range(2) for n in range(10)]
    third = run_cli("console_consumer", *flags, "--timeout-ms", "3000")
    assert (third.returncode, third.stdout) == (0, "")


def rows_of(text: str) -> list[str]:
    """Lines in the order of the alphabet, since Kafka's tool prints them in that of its hash tables. Kafka 3.9 forgot
    the ends of the lines of two tables."""
    first = {"NEW-OFFSET": "idle|busy|fresh", "STATUS": "orders|logs"}
    for heading, names in first.items():
        if f" {heading} " in text:
            text = re.sub(rf"(?=(?:{names}) {{20}})", "\n", text)
    return sorted(line.rstrip() for line in text.splitlines() if line.strip())


def test_our_command_prints_what_kafkas_does(
    group_cluster: Cluster, clients: Clients, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cluster = group_cluster
    java = clients.get("java-3.9")
    assert isinstance(java, JavaClient)
    for topic, partitions in (("orders", 3), ("logs", 1)):
        cluster.create_topic(topic, partitions, 3)
        wait_known(cluster, topic, partitions)
        for partition in range(partitions):
            cluster.produce(topic, [b"x"] * (4 + partition), partition)
    idle = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "idle"})
    offsets = [TopicPartition("orders", 0, 2), TopicPartition("orders", 1, 5), TopicPartition("logs", 0, 1)]
    idle.commit(offsets=offsets, asynchronous=False)
    idle.close()
    members = [clients.get("confluent-kafka").join("busy", "orders") for _ in range(4)]
    members.append(java.join("static", "orders", instance_id="instance-of-its-own"))
    plan = tmp_path / "plan.csv"
    plan.write_text("orders,0,1\norders,1,99\nlogs,0,0\n")
    bootstrap = ("--bootstrap-server", cluster.bootstrap)

    def both(flags: str) -> tuple[int, list[str]]:
        """Of ours: status and lines, which are those of Kafka's."""
        theirs = java.server.tool(COMMAND, *bootstrap, *flags.split())
        capsys.readouterr()
        status = consumer_groups.main([*bootstrap, *flags.split()])
        ours = capsys.readouterr()
        assert rows_of(ours.out) == rows_of(theirs.out), flags
        warnings = re.sub(r"(?m)^.*New offset .*\n", "", theirs.err)  # by its logger, or not
        told = re.sub(r"(?m)^WARN New offset .*\n", "", ours.err)
        assert rows_of(told) == rows_of(warnings), flags
        return status, rows_of(ours.out)

    try:
        cluster.wait_for(lambda: sorted(len(one.assigned()) for one in members) == [0, 1, 1, 1, 3], "all are assigned")
        cluster.wait_for(lambda: sum(len(one.received()) for one in members) == 30, "all is read")
        cluster.wait_for(
            lambda: committed(cluster, "busy", "orders", 3) == committed(cluster, "static", "orders", 3) == [4, 5, 6],
            "and committed",
        )
        for flags in (
            "--list",
            "--list --state",
            "--list --type --state stable,empty",
            "--describe --group busy --group idle",
            "--describe --group busy --members --verbose",
            "--describe --group static --members",
            "--describe --group idle --state",
            "--describe --group busy --state",
            "--reset-offsets --group idle --topic orders --to-earliest --dry-run",
            "--reset-offsets --group idle --all-topics --shift-by 1 --dry-run",
            f"--reset-offsets --group idle --from-file {plan} --dry-run",
        ):
            status, rows = both(flags)
            assert (status, len(rows) > 0) == (0, True), flags
        assert both("--describe --group nobody") == (1, ["Error: Consumer group 'nobody' does not exist."])
        for flags in (
            "--reset-offsets --group busy --topic orders --to-latest --execute",
            "--delete --group busy",
            "--delete-offsets --group busy --topic orders:0",
            "--delete-offsets --group nobody --topic logs",
        ):
            assert both(flags)[0] == 1, flags
    finally:
        for member in members:
            member.leave()
    # What changes something: once by each, and looked at by the other.
    reset = ["--reset-offsets", "--group", "fresh", "--topic", "orders", "--to-latest", "--execute"]
    assert consumer_groups.main([*bootstrap, *reset]) == 0
    assert committed(cluster, "fresh", "orders", 3) == [4, 5, 6]
    assert both("--describe --group fresh")[0] == 0
    java.server.tool(COMMAND, *bootstrap, "--delete-offsets", "--group", "fresh", "--topic", "orders:0,1")
    assert len(both("--describe --group fresh")[1]) == 2
    assert consumer_groups.main([*bootstrap, "--delete-offsets", "--group", "fresh", "--topic", "orders:2"]) == 0
    assert consumer_groups.main([*bootstrap, "--delete", "--group", "idle"]) == 0
    assert "idle" not in both("--list")[1]

"""What the table of clients and features (test_interop.py) has no place for: kcat's listings, our own tools, Kafka's
reader of znodes, and taking over from Kafka."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.harness.brokers import Cluster, JavaTool, kafka_class_path, kafka_cluster, run_cli, run_kcat
from tests.harness.zookeeper import ZooKeeperEnsemble, zk_cli

pytestmark = pytest.mark.timeout(400)
needs_kafka = pytest.mark.skipif("ZKBROKER_KAFKA_LIBS" not in os.environ, reason="ZKBROKER_KAFKA_LIBS is not set")


@pytest.fixture
def java() -> JavaTool:
    return JavaTool()


def listed(cluster: Cluster) -> set[str]:
    return set(cluster.topics())


# -- kcat (librdkafka 2.0.2 in Debian 12)


def test_kcat_lists_brokers_and_topics(cluster: Cluster) -> None:
    cluster.create_topic("kcat-list", partitions=2)

    def listing() -> str:
        done = run_kcat("-b", cluster.bootstrap, "-L", "-m", "60")
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode()
        # The broker that answers may hear of a new topic a moment after the controller has said that it is there.
        return text if 'topic "kcat-list" with 2 partitions:' in text else ""

    text = cluster.wait_for(listing, "kcat sees the topic")
    assert " 3 brokers:" in text
    for broker in cluster.brokers.values():
        assert f"broker {broker.broker_id} at 127.0.0.1:{broker.port}" in text


def test_kcat_asks_for_offsets(cluster: Cluster) -> None:
    cluster.create_topic("kcat-offsets")
    cluster.produce("kcat-offsets", [b"a", b"b", b"c"])
    done = run_kcat("-b", cluster.bootstrap, "-Q", "-t", "kcat-offsets:0:-1")
    assert b"kcat-offsets [0] offset 3" in done.stdout


# -- our own tools, as a user runs them


def test_our_tools(cluster: Cluster, tmp_path: Path) -> None:
    bootstrap = ("--bootstrap-server", cluster.bootstrap)
    create = ("--create", "--topic", "tools", "--partitions", "2", "--replication-factor", "3")
    done = run_cli("topics", *bootstrap, *create, "--config", "retention.ms=86400000")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Created topic tools.\n", "")
    done = run_cli("topics", *bootstrap, *create)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error while executing topic command : Topic 'tools' already exists.\n"
    cluster.wait_isr("tools", [1, 2, 3])
    done = run_cli("topics", *bootstrap, "--describe", "--topic", "tools")
    head, *rows = done.stdout.splitlines()
    counts = r"PartitionCount: 2\tReplicationFactor: 3"
    assert re.fullmatch(rf"Topic: tools\tTopicId: [\w-]{{22}}\t{counts}\tConfigs: .*retention\.ms=86400000.*", head)
    assert len(rows) == 2 and all(
        re.match(r"\tTopic: tools\tPartition: \d\tLeader: [123]\tReplicas: ", row) for row in rows
    )
    done = run_cli("console_producer", *bootstrap, "--topic", "tools", stdin="one\ntwo\nthree\n")
    assert (done.returncode, done.stderr) == (0, "")
    done = run_cli("console_consumer", *bootstrap, "--topic", "tools", "--from-beginning", "--max-messages", "3")
    assert (done.returncode, sorted(done.stdout.split())) == (0, ["one", "three", "two"])
    assert done.stderr == "Processed a total of 3 messages\n"
    done = run_cli("get_offsets", *bootstrap, "--topic", "tools")
    ends = [int(line.split(":")[2]) for line in done.stdout.splitlines()]
    assert len(ends) == 2 and sum(ends) == 3
    wanted = [{"topic": "tools", "partition": number, "offset": offset} for number, offset in ((0, -1), (1, 9))]
    (tmp_path / "offsets.json").write_text(json.dumps({"partitions": wanted, "version": 1}))
    done = run_cli("delete_records", *bootstrap, "--offset-json-file", str(tmp_path / "offsets.json"))
    assert (done.returncode, done.stderr) == (0, "")
    *_, good, bad = done.stdout.splitlines()
    assert good == f"partition: tools-0\tlow_watermark: {ends[0]}"
    assert bad.startswith("partition: tools-1\terror: org.apache.kafka.common.errors.OffsetOutOfRangeException")
    done = run_cli("get_offsets", *bootstrap, "--topic", "tools", "--time", "earliest")
    assert done.stdout.splitlines() == [f"tools:0:{ends[0]}", "tools:1:0"]
    assert run_cli("topics", *bootstrap, "--alter", "--topic", "tools", "--partitions", "4").returncode == 0
    cluster.wait_for(lambda: len(cluster.partitions("tools")) == 4, "there are four partitions")
    assert run_cli("topics", *bootstrap, "--delete", "--topic", "tools").returncode == 0
    cluster.wait_for(lambda: "tools" not in listed(cluster), "the topic is gone")
    assert run_cli("topics", *bootstrap, "--list", "--no-such-flag").returncode == 2


def test_zk_cli_reads_the_state(cluster: Cluster) -> None:
    cluster.create_topic("znode")
    text = zk_cli(cluster.zookeeper_connect, "get /brokers/topics/znode/partitions/0/state")
    assert '"leader":' in text and '"isr":[' in text and '"version":1' in text


# -- Kafka's own tools


@needs_kafka
def test_kafka_zk_client_reads_every_znode(cluster: Cluster, java: JavaTool, tmp_path: Path) -> None:
    cluster.create_topic("read-me", partitions=2, config={"retention.ms": "1234567"})
    cluster.wait_isr("read-me", [1, 2, 3])
    cluster.produce("read-me", [b"x"])  # idempotent: takes a block of producer ids
    source = Path(__file__).with_name("ReadEveryZnode.java")
    subprocess.run(
        ["javac", "-nowarn", "-cp", kafka_class_path("WARN"), "-d", str(tmp_path), str(source)],
        check=True,
        capture_output=True,
        timeout=90,
    )
    done = java("ReadEveryZnode", cluster.zookeeper_connect, class_path=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert f"controller {cluster.controller_id()}" in lines
    for broker in cluster.brokers.values():
        assert any(re.match(rf"broker {broker.broker_id} .*127\.0\.0\.1.*{broker.port}", line) for line in lines), lines
    for partition in range(2):
        state = cluster.state("read-me", partition)
        assert state is not None
        begin = f"state read-me-{partition} leader={state['leader']} epoch={state['leader_epoch']} isr="
        assert any(line.startswith(begin) for line in lines), lines
    assert any(line.startswith("config read-me {retention.ms=1234567") for line in lines), lines
    assert any(line.startswith("producer-ids ") for line in lines), lines


# -- taking over a Kafka cluster


@needs_kafka
@pytest.mark.timeout(400)
def test_a_stopped_kafka_cluster_is_taken_over(ensemble: ZooKeeperEnsemble, tmp_path: Path) -> None:
    chroot = f"/takeover-{os.getpid()}"
    kafka = kafka_cluster(ensemble.connect_string, tmp_path / "cluster", chroot)
    written: dict[tuple[str, int], list[tuple[int, bytes]]] = {}
    try:
        kafka.start()
        for codec in ("none", "gzip", "zstd"):
            topic = f"kafka-{codec}"
            kafka.create_topic(topic, partitions=2, config={"segment.bytes": "20000"})
            for partition in range(2):
                values = [f"{topic}-{partition}-{number}".encode() * 3 for number in range(600)]
                acknowledged = kafka.produce(topic, values, partition, compression_type=codec, batch_size=2000)
                written[topic, partition] = [(record.offset, record.value) for record in acknowledged]
        # While a Kafka broker lives in these znodes, zkbroker keeps out.
        intruder = Cluster(ensemble.connect_string, tmp_path / "intruder", 1, {"broker.id": 9}, chroot, kafka=False)
        try:
            intruder.brokers[1].start()
            status = intruder.brokers[1].wait(90)
            assert status not in (0, None), intruder.brokers[1].log_tail()
            assert "9" not in kafka.zookeeper.get_children("/brokers/ids")
            assert "is an Apache Kafka broker" in intruder.brokers[1].log_text().splitlines()[-1]
        finally:
            intruder.close()
        kafka.stop(60)
        kafka.wait_for(lambda: kafka.live_ids() == [], "no Kafka broker is registered")
    finally:
        kafka.close()
    with Cluster(ensemble.connect_string, tmp_path / "cluster", 3, None, chroot, kafka=False) as ours:
        for (topic, partition), records in written.items():
            ours.wait_isr(topic, [1, 2, 3])
            assert ours.consume(topic, partition) == records
            more = ours.produce(topic, [b"after"], partition)
            assert more[0].offset == len(records)

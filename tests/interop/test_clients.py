"""Clients that know nothing of zkbroker: kcat, librdkafka, kafka-python, Kafka's tools; and taking over from Kafka."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.harness.brokers import Cluster, JavaTool, kafka_class_path, kafka_cluster, quiet, run_cli, run_kcat
from tests.harness.zookeeper import ZooKeeperEnsemble, zk_cli

pytestmark = pytest.mark.timeout(400)
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
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


@pytest.mark.parametrize("codec", CODECS)
def test_kcat_produces_and_consumes(cluster: Cluster, codec: str) -> None:
    topic = f"kcat-{codec}"
    cluster.create_topic(topic)
    lines = "".join(f"key-{number}:value {number} {'x' * 50}\n" for number in range(500)).encode()
    compress = [] if codec == "none" else ["-z", codec]
    done = run_kcat("-b", cluster.bootstrap, "-P", "-t", topic, "-K", ":", "-X", "acks=all", *compress, stdin=lines)
    assert done.returncode == 0, done.stderr
    done = run_kcat("-b", cluster.bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-K", ":")
    assert done.returncode == 0, done.stderr
    assert done.stdout == lines


def test_kcat_asks_for_offsets(cluster: Cluster) -> None:
    cluster.create_topic("kcat-offsets")
    cluster.produce("kcat-offsets", [b"a", b"b", b"c"])
    done = run_kcat("-b", cluster.bootstrap, "-Q", "-t", "kcat-offsets:0:-1")
    assert b"kcat-offsets [0] offset 3" in done.stdout


# -- confluent-kafka (librdkafka, newest) and kafka-python


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_confluent_kafka(cluster: Cluster, codec: str, acks: str) -> None:
    topic = f"confluent-{codec}-{acks}"
    cluster.create_topic(topic)
    values = [f"{number} {'y' * 100}".encode() for number in range(300)]
    # acks=0 is not told when a broker has not yet heard that it leads the new topic: the first record waits for that.
    cluster.produce(topic, values[:1])
    cluster.produce(topic, values[1:], acks=acks, enable_idempotence=acks == "all", compression_type=codec)
    cluster.wait_for(
        lambda: [value for _, value in cluster.consume(topic, end=300, timeout_s=30)] == values, "all came back"
    )


def test_confluent_kafka_finds_offsets_by_time(cluster: Cluster) -> None:
    cluster.create_topic("times")
    producer = cluster.producer()
    for number in range(10):
        producer.produce("times", b"%d" % number, partition=0, timestamp=1_700_000_000_000 + number * 1000)
    assert producer.flush(90) == 0
    consumer = Consumer(quiet({"bootstrap.servers": cluster.bootstrap, "group.id": "times"}))
    try:
        [found] = consumer.offsets_for_times([TopicPartition("times", 0, 1_700_000_004_500)], timeout=60)
        assert found.offset == 5
        assert consumer.get_watermark_offsets(TopicPartition("times", 0), timeout=60) == (0, 10)
    finally:
        consumer.close()


@pytest.mark.parametrize("codec", [None, "gzip"])
def test_kafka_python(cluster: Cluster, codec: str | None) -> None:
    kafka = pytest.importorskip("kafka")
    topic = f"python-{codec}"
    cluster.create_topic(topic)
    servers = cluster.bootstrap.split(",")
    producer = kafka.KafkaProducer(bootstrap_servers=servers, acks="all", compression_type=codec)
    try:
        sent = [producer.send(topic, key=b"k", value=b"%d" % number, partition=0) for number in range(200)]
        producer.flush(90)
        assert [future.get(90).offset for future in sent] == list(range(200))
    finally:
        producer.close(10)
    consumer = kafka.KafkaConsumer(bootstrap_servers=servers, consumer_timeout_ms=60_000, auto_offset_reset="earliest")
    try:
        partition = kafka.TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        read = [next(consumer).value for _ in range(200)]
        assert read == [b"%d" % number for number in range(200)]
        assert consumer.end_offsets([partition]) == {partition: 200}
    finally:
        consumer.close()


# -- our own tools, as a user runs them


def test_our_tools(cluster: Cluster) -> None:
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
def test_java_topic_command(cluster: Cluster, java: JavaTool) -> None:
    tool = "org.apache.kafka.tools.TopicCommand"
    bootstrap = ("--bootstrap-server", cluster.bootstrap)
    create = ("--create", "--topic", "java", "--partitions", "2", "--replication-factor", "3")
    done = java(tool, *bootstrap, *create, "--config", "segment.bytes=1048576")
    assert done.returncode == 0 and "Created topic java." in done.stdout, done.stdout + done.stderr
    cluster.wait_isr("java", [1, 2, 3])
    done = java(tool, *bootstrap, "--describe", "--topic", "java")
    assert "PartitionCount: 2\tReplicationFactor: 3" in done.stdout, done.stdout + done.stderr
    assert "segment.bytes=1048576" in done.stdout
    done = java(tool, *bootstrap, "--alter", "--topic", "java", "--partitions", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    cluster.wait_for(lambda: len(cluster.partitions("java")) == 3, "there are three partitions")
    done = java(tool, *bootstrap, "--list")
    assert "java" in done.stdout.split()
    done = java(tool, *bootstrap, "--delete", "--topic", "java")
    assert done.returncode == 0, done.stdout + done.stderr
    cluster.wait_for(lambda: "java" not in listed(cluster), "the topic is gone")


@needs_kafka
@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_java_producer_performance_and_offsets(cluster: Cluster, java: JavaTool, codec: str) -> None:
    topic = f"perf-{codec}"
    cluster.create_topic(topic, partitions=3)
    done = java(
        "org.apache.kafka.tools.ProducerPerformance",
        *("--topic", topic, "--num-records", "20000", "--record-size", "200", "--throughput", "-1"),
        *("--producer-props", f"bootstrap.servers={cluster.bootstrap}", "acks=all", f"compression.type={codec}"),
    )
    assert done.returncode == 0 and "20000 records sent" in done.stdout, done.stdout + done.stderr
    done = java("org.apache.kafka.tools.GetOffsetShell", "--bootstrap-server", cluster.bootstrap, "--topic", topic)
    ends = [int(line.split(":")[2]) for line in done.stdout.split()]
    assert len(ends) == 3 and sum(ends) == 20000, done.stdout + done.stderr


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

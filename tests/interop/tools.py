"""Kafka's own command-line tools, each in its main use: the table's second part, a column for each version of Kafka."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.harness.brokers import Cluster, wait_until
from tests.interop.adapters_java import JavaServer, ToolOutput
from tests.interop.features import wait_known

TOOLS_PACKAGE = "org.apache.kafka.tools"
PATIENCE_S = 60.0


class ToolScene(NamedTuple):
    """A virtual machine with one version's tools before a cluster, and a name that no other scene has."""

    cluster: Cluster
    server: JavaServer
    name: str

    @property
    def is_kafka_4(self) -> bool:
        return self.server.version.startswith("4.")

    @property
    def bootstrap(self) -> tuple[str, str]:
        return "--bootstrap-server", self.cluster.bootstrap

    def run(self, class_name: str, *arguments: str, stdin: str = "") -> ToolOutput:
        """Of a tool that must succeed."""
        return self._succeeded(class_name, self.server.tool(class_name, *arguments, stdin=stdin))

    def run_alone(self, class_name: str, *arguments: str) -> ToolOutput:
        return self._succeeded(class_name, self.server.tool_alone(class_name, *arguments))

    def _succeeded(self, class_name: str, done: ToolOutput) -> ToolOutput:
        short = class_name.rpartition(".")[2]
        assert done.status == 0, f"{short} ended with {done.status}: {done.out[-600:]} {done.err[-900:]}"
        return done

    def ask(self, class_name: str, *arguments: str) -> ToolOutput:
        return self.run(class_name, *self.bootstrap, *arguments)

    def topic(self, partitions: int = 1, **configs: str) -> str:
        named = {name.replace("_", "."): value for name, value in configs.items()}
        self.cluster.create_topic(self.name, partitions, 3, named)
        wait_known(self.cluster, self.name, partitions)
        return self.name

    def until(self, condition: Callable[[], object], what: str) -> None:
        wait_until(condition, what, PATIENCE_S)


class Tool(NamedTuple):
    name: str
    run: Callable[[ToolScene], None]
    in_short: str
    """The column in which bin/test runs it."""


TOOLS: list[Tool] = []


def tool(name: str, in_short: str) -> Callable[[Callable[[ToolScene], None]], Callable[[ToolScene], None]]:
    def register(run: Callable[[ToolScene], None]) -> Callable[[ToolScene], None]:
        TOOLS.append(Tool(name, run, in_short))
        return run

    return register


def _has(text: str, *patterns: str) -> None:
    for pattern in patterns:
        assert re.search(pattern, text, re.MULTILINE), f"no {pattern!r} in {text[-1500:]!r}"


@tool("TopicCommand", "java-4")
def topic_command(scene: ToolScene) -> None:
    command, topic = f"{TOOLS_PACKAGE}.TopicCommand", scene.name
    create = ("--create", "--topic", topic, "--partitions", "2", "--replication-factor", "3")
    _has(scene.ask(command, *create, "--config", "segment.bytes=1048576").out, rf"Created topic {topic}\.")
    again = scene.server.tool(command, *scene.bootstrap, *create)
    assert again.status == 1
    _has(again.out + again.err, f"Topic '{topic}' already exists")
    scene.ask(command, *create, "--if-not-exists")
    wait_known(scene.cluster, topic, 2)
    scene.cluster.wait_isr(topic, [1, 2, 3])
    described = scene.ask(command, "--describe", "--topic", topic).out
    _has(
        described, r"TopicId: [\w-]{22}\s+PartitionCount: 2\s+ReplicationFactor: 3\s+Configs: .*segment\.bytes=1048576"
    )
    _has(described, r"Partition: 1\s+Leader: [123]\s+Replicas: ")
    assert scene.ask(command, "--describe", "--under-replicated-partitions", "--topic", topic).out.strip() == ""
    scene.ask(command, "--alter", "--topic", topic, "--partitions", "3")
    scene.until(
        lambda: "PartitionCount: 3" in scene.ask(command, "--describe", "--topic", topic).out, "there are three"
    )
    assert topic in scene.ask(command, "--list").out.split()
    scene.ask(command, "--delete", "--topic", topic)
    scene.until(lambda: topic not in scene.ask(command, "--list").out.split(), "it is deleted")


@tool("TopicCommand: assignment by hand", "java-3.9")
def topic_by_hand(scene: ToolScene) -> None:
    command = f"{TOOLS_PACKAGE}.TopicCommand"
    scene.ask(command, "--create", "--topic", scene.name, "--replica-assignment", "3:1,1:2")
    wait_known(scene.cluster, scene.name, 2)
    described = scene.ask(command, "--describe", "--topic", scene.name).out
    _has(described, r"Partition: 0\s+Leader: 3\s+Replicas: 3,1\b", r"Partition: 1\s+Leader: 1\s+Replicas: 1,2\b")


@tool("ConfigCommand: topics", "java-4")
def config_of_topics(scene: ToolScene) -> None:
    command, entity = "kafka.admin.ConfigCommand", ("--entity-type", "topics", "--entity-name", scene.topic())
    added = "retention.ms=100000,cleanup.policy=[compact,delete]"
    _has(scene.ask(command, "--alter", *entity, "--add-config", added).out, "Completed updating config for topic")
    _has(scene.ask(command, "--describe", *entity).out, r"retention\.ms=100000", r"cleanup\.policy=compact,delete")
    everything = scene.ask(command, "--describe", "--all", *entity).out
    _has(everything, r"retention\.ms=100000 sensitive=false synonyms=\{DYNAMIC_TOPIC_CONFIG:retention\.ms=100000")
    scene.ask(command, "--alter", *entity, "--delete-config", "retention.ms")
    scene.until(
        lambda: "retention.ms" not in scene.ask(command, "--describe", *entity).out, "the setting is taken back"
    )
    refused = scene.server.tool(command, *scene.bootstrap, "--alter", *entity, "--add-config", "retention.ms=never")
    assert refused.status == 1
    _has(refused.out + refused.err, "Invalid value never")


@tool("ConfigCommand: brokers", "java-3.9")
def config_of_brokers(scene: ToolScene) -> None:
    """A setting that disturbs nobody, of its own for each version: they run beside each other."""
    command, key = "kafka.admin.ConfigCommand", "log.index.interval.bytes"
    if scene.is_kafka_4:
        key = "log.segment.delete.delay.ms"
    entity, default = (
        ("--entity-type", "brokers", "--entity-name", "2"),
        ("--entity-type", "brokers", "--entity-default"),
    )
    try:
        scene.ask(command, "--alter", *entity, "--add-config", f"{key}=5001")
        scene.until(lambda: f"{key}=5001" in scene.ask(command, "--describe", *entity).out, "it is told")
        scene.ask(command, "--alter", *default, "--add-config", f"{key}=5002")
        scene.until(lambda: f"{key}=5002" in scene.ask(command, "--describe", *default).out, "so is the default")
        both = r"DYNAMIC_BROKER_CONFIG:.*=5001, DYNAMIC_DEFAULT_BROKER_CONFIG:.*=5002"
        scene.until(lambda: re.search(both, scene.ask(command, "--describe", *entity).out), "the broker knows both")
    finally:
        for which in (entity, default):
            scene.server.tool(command, *scene.bootstrap, "--alter", *which, "--delete-config", key)


def _group_with_offsets(scene: ToolScene, group: str) -> str:
    """A group that has read all ten records of its topic, and is empty."""
    topic = scene.topic(2)
    for partition in range(2):
        scene.cluster.produce(topic, [b"%d" % number for number in range(5)], partition)
    properties = ("--consumer-property", f"group.id={group}", "--consumer-property", "auto.offset.reset=earliest")
    scene.ask(f"{TOOLS_PACKAGE}.consumer.ConsoleConsumer", "--topic", topic, "--max-messages", "10", *properties)
    return topic


@tool("ConsumerGroupCommand", "java-3.9")
def consumer_group_command(scene: ToolScene) -> None:
    command, group = f"{TOOLS_PACKAGE}.consumer.group.ConsumerGroupCommand", f"group-{scene.name}"
    scene.ask(command, "--list")
    topic = _group_with_offsets(scene, group)
    of_group = ("--group", group)
    assert group in scene.ask(command, "--list").out.split()
    _has(scene.ask(command, "--list", "--state").out, rf"^{group}\s.*Empty")
    row = rf"^{group}\s+{topic}\s+[01]\s+5\s+5\s+0\s"
    _has(scene.ask(command, "--describe", *of_group).out, row)
    _has(scene.ask(command, "--describe", *of_group, "--state").out, rf"^{group}\s+\S+\s+\(\d\).*Empty\s+0")
    reset = ("--reset-offsets", *of_group, "--topic", topic)
    _has(scene.ask(command, *reset, "--to-offset", "2", "--dry-run").out, rf"{group}\s+{topic}\s+0\s+2\b")
    scene.ask(command, *reset, "--to-earliest", "--execute")
    _has(scene.ask(command, "--describe", *of_group).out, rf"^{group}\s+{topic}\s+0\s+0\s+5\s+5\s")
    scene.ask(command, "--delete-offsets", *of_group, "--topic", f"{topic}:0")
    assert not re.search(rf"{topic}\s+0\s", scene.ask(command, "--describe", *of_group).out)
    _has(scene.ask(command, "--delete", *of_group).out, "Deletion of requested consumer groups")
    assert group not in scene.ask(command, "--list").out.split()


@tool("ReassignPartitionsCommand", "java-4")
def reassign_command(scene: ToolScene) -> None:
    command, topic = f"{TOOLS_PACKAGE}.reassign.ReassignPartitionsCommand", scene.name
    scene.cluster.create_topic(topic, assignment=[[1, 2]])
    wait_known(scene.cluster, topic, 1)
    scene.cluster.produce(topic, [b"%d" % number for number in range(50)])
    with tempfile.TemporaryDirectory() as folder:
        topics, plan = Path(folder) / "topics.json", Path(folder) / "plan.json"
        topics.write_text(json.dumps({"version": 1, "topics": [{"topic": topic}]}))
        generate = ("--generate", "--topics-to-move-json-file", str(topics), "--broker-list", "1,3")
        _has(scene.ask(command, *generate).out, r"Current partition replica", r'"replicas":\[(1,3|3,1)\]')
        wanted = {"topic": topic, "partition": 0, "replicas": [3, 2]}
        plan.write_text(json.dumps({"version": 1, "partitions": [wanted]}))
        of_plan = ("--reassignment-json-file", str(plan))
        done = scene.ask(command, "--execute", *of_plan, "--throttle", "10000000").out
        _has(done, "Successfully started partition reassignment")
        scene.until(
            lambda: "is completed" in scene.ask(command, "--verify", *of_plan, "--preserve-throttles").out,
            "the reassignment is complete",
        )
        _has(scene.ask(command, "--verify", *of_plan).out, rf"Reassignment of partition {topic}-0 is completed")
        _has(scene.ask(command, "--list").out, r"No partition reassignments found|reassign")
    scene.until(lambda: sorted(scene.cluster.isr(topic)) == [2, 3], "its replicas are in sync")
    assert len(scene.cluster.consume(topic)) == 50


@tool("LeaderElectionCommand", "java-3.9")
def leader_election(scene: ToolScene) -> None:
    """Of a topic whose preferred replica leads already: the tool says so. What an election moves, clients show."""
    command, topic = f"{TOOLS_PACKAGE}.LeaderElectionCommand", scene.topic()
    of_topic = ("--topic", topic, "--partition", "0")
    found = scene.ask(command, "--election-type", "PREFERRED", *of_topic).out
    _has(found, rf"(Valid replica already elected for partitions|Successfully completed leader election).*{topic}-0")
    scene.ask(command, "--election-type", "UNCLEAN", *of_topic)


@tool("DeleteRecordsCommand", "java-4")
def delete_records_command(scene: ToolScene) -> None:
    topic = scene.topic()
    scene.cluster.produce(topic, [b"%d" % number for number in range(20)])
    with tempfile.TemporaryDirectory() as folder:
        offsets = Path(folder) / "offsets.json"
        row = {"topic": topic, "partition": 0, "offset": 7}
        offsets.write_text(json.dumps({"version": 1, "partitions": [row]}))
        done = scene.ask(f"{TOOLS_PACKAGE}.DeleteRecordsCommand", "--offset-json-file", str(offsets)).out
    _has(done, rf"partition: {topic}-0\s+low_watermark: 7")
    assert [offset for offset, _ in scene.cluster.consume(topic)] == list(range(7, 20))


@tool("LogDirsCommand", "java-3.9")
def log_dirs_command(scene: ToolScene) -> None:
    topic = scene.topic()
    scene.cluster.produce(topic, [b"x" * 500])
    out = scene.ask(f"{TOOLS_PACKAGE}.LogDirsCommand", "--describe", "--topic-list", topic).out
    found = json.loads(out[out.index("{") :].splitlines()[0])
    assert sorted(one["broker"] for one in found["brokers"]) == [1, 2, 3]
    for broker in found["brokers"]:
        [folder] = broker["logDirs"]
        assert folder["error"] is None
        [partition] = folder["partitions"]
        assert partition["partition"] == f"{topic}-0" and partition["isFuture"] is False


@tool("GetOffsetShell", "java-4")
def get_offset_shell(scene: ToolScene) -> None:
    topic = scene.topic(2)
    scene.cluster.produce(topic, [b"a", b"b", b"c"], 1)
    command = f"{TOOLS_PACKAGE}.GetOffsetShell"
    assert scene.ask(command, "--topic", topic).out.split() == [f"{topic}:0:0", f"{topic}:1:3"]
    assert f"{topic}:1:0" in scene.ask(command, "--topic", topic, "--time", "-2").out.split()
    _has(scene.ask(command, "--topic", topic, "--time", "-3").out, rf"^{topic}:1:[012]$")


@tool("VerifiableProducer, VerifiableConsumer", "java-3.9")
def verifiable(scene: ToolScene) -> None:
    topic = scene.topic(3)
    bootstrap = "--bootstrap-server"
    wanted = ("--topic", topic, "--max-messages", "300", "--throughput", "-1", "--acks", "-1")
    produced = scene.run_alone(f"{TOOLS_PACKAGE}.VerifiableProducer", bootstrap, scene.cluster.bootstrap, *wanted).out
    [total] = [row for row in map(json.loads, produced.splitlines()) if row["name"] == "tool_data"]
    assert (total["sent"], total["acked"]) == (300, 300), total
    group = ("--group-id", f"group-{scene.name}", "--max-messages", "300", "--reset-policy", "earliest", "--verbose")
    arguments = (bootstrap, scene.cluster.bootstrap, "--topic", topic, *group)
    rows = [
        json.loads(one) for one in scene.run_alone(f"{TOOLS_PACKAGE}.VerifiableConsumer", *arguments).out.splitlines()
    ]
    values = sorted(int(row["value"]) for row in rows if row["name"] == "record_data")
    assert values == list(range(300))
    committed = [row for row in rows if row["name"] == "offsets_committed"]
    assert committed and all(row["success"] for row in committed)


@tool("ConsoleProducer, ConsoleConsumer", "java-4")
def console(scene: ToolScene) -> None:
    topic = scene.topic()
    producer = f"{TOOLS_PACKAGE}.ConsoleProducer" if scene.is_kafka_4 else "kafka.tools.ConsoleProducer"
    keyed = ("--property", "parse.key=true", "--property", "parse.headers=true")
    lines = "".join(f"h:{number}\tk{number}\tv{number}\n" for number in range(20))
    scene.run(producer, *scene.bootstrap, "--topic", topic, "--compression-codec", "zstd", *keyed, stdin=lines)
    shown = [part for one in ("key", "headers", "offset") for part in ("--property", f"print.{one}=true")]
    consume = ("--topic", topic, "--from-beginning", "--max-messages", "20", *shown)
    out = scene.ask(f"{TOOLS_PACKAGE}.consumer.ConsoleConsumer", *consume).out
    assert out.splitlines() == [f"Offset:{one}\th:{one}\tk{one}\tv{one}" for one in range(20)]


@tool("ProducerPerformance, ConsumerPerformance", "java-4")
def performance(scene: ToolScene) -> None:
    topic = scene.topic(3)
    size = ("--num-records", "20000", "--record-size", "200", "--throughput", "-1", "--producer-props")
    properties = (f"bootstrap.servers={scene.cluster.bootstrap}", "acks=all", "compression.type=lz4")
    done = scene.run(f"{TOOLS_PACKAGE}.ProducerPerformance", "--topic", topic, *size, *properties).out
    _has(done, r"^20000 records sent")
    consume = ("--topic", topic, "--messages", "20000", "--timeout", "60000")
    rows = scene.ask(f"{TOOLS_PACKAGE}.ConsumerPerformance", *consume).out.splitlines()
    head = next(one for one in rows if one.startswith("start.time"))
    figures = dict(zip(head.split(", "), rows[rows.index(head) + 1].split(", "), strict=True))
    assert int(figures["data.consumed.in.nMsg"]) >= 20000, figures


@tool("EndToEndLatency", "java-3.9")
def end_to_end(scene: ToolScene) -> None:
    arguments = (scene.cluster.bootstrap, scene.topic(), "200", "all", "100")
    _has(scene.run(f"{TOOLS_PACKAGE}.EndToEndLatency", *arguments).out, r"Avg latency: ", r"Percentiles: 50th = ")


@tool("BrokerApiVersionsCommand", "java-3.9")
def api_versions(scene: ToolScene) -> None:
    package = TOOLS_PACKAGE if scene.is_kafka_4 else "kafka.admin"
    out = scene.ask(f"{package}.BrokerApiVersionsCommand").out
    for broker in scene.cluster.brokers.values():
        _has(out, rf"127\.0\.0\.1:{broker.port} \(id: {broker.broker_id} ")
    _has(out, r"Produce\(0\): 0 to \d+ \[usable: \d+\]", r"Fetch\(1\): \d+ to \d+ \[usable: \d+\]")


@tool("DumpLogSegments", "java-4")
def dump_log_segments(scene: ToolScene) -> None:
    """Kafka reads the files that a broker of ours wrote: every codec, and its indexes."""
    topic = scene.topic(index_interval_bytes="100")
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        values = [f"{codec} {number} {'x' * 40}".encode() for number in range(20)]
        scene.cluster.produce(topic, values, compression_type=codec)
    leader = scene.cluster.leader(topic)
    assert leader is not None
    folder = scene.cluster.brokers[leader].data_dir / f"{topic}-0"
    files = ",".join(str(folder / f"{0:020}.{suffix}") for suffix in ("log", "index", "timeindex"))
    out = scene.run("kafka.tools.DumpLogSegments", "--files", files, "--print-data-log").out
    assert not re.search(r"mismatch|Non-consecutive|not found", out, re.IGNORECASE), out[-2000:]
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        _has(out, rf"compresscodec: {codec} .*isvalid: true", rf"payload: {codec} 19 x")

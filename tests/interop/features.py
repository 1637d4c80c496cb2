"""The rows of the table: what each client is asked to do, and what must come of it. Written once for all clients."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.harness.brokers import Cluster, wait_until
from tests.harness.differential import Peer
from tests.interop.adapters import Client, DoesNotApply, Got, Member, Record, Start, TopicSeen, Where
from zkbroker.kafka.versions import METADATA

PATIENCE_S = 60.0
T0 = 1_700_000_000_000


def wait_known(cluster: Cluster, topic: str, partitions: int) -> None:
    """Until every broker tells clients of the topic: it may hear of it a moment after the controller has said that it
    is there, and some clients end when they ask that one."""
    for broker in cluster.brokers.values():
        peer = Peer(broker.name, broker.port)
        try:
            wait_until(lambda peer=peer: _knows(peer, topic, partitions), f"{broker.name} knows {topic}", PATIENCE_S)  # type: ignore[misc]
        finally:
            peer.close()


def _knows(peer: Peer, topic: str, partitions: int) -> bool:
    [found] = peer.ask_exactly(METADATA, 8, topics=[{"name": topic}], allow_auto_topic_creation=False).topics
    return len(found.partitions) == partitions and all(one.leader_id > 0 for one in found.partitions)


class Scene(NamedTuple):
    """A client before a cluster, and a name that no other scene has."""

    cluster: Cluster
    client: Client
    name: str

    def topic(self, partitions: int = 1, replicas: int = 3, **configs: str) -> str:
        """A new topic that all brokers know of."""
        named = {name.replace("_", "."): value for name, value in configs.items()}
        self.cluster.create_topic(self.name, partitions, replicas, named)
        wait_known(self.cluster, self.name, partitions)
        return self.name

    def until(self, condition: Callable[[], object], what: str) -> None:
        """As wait_until, which takes what is raised for a reason to look again; what a client lacks, it lacks."""
        lacks: list[DoesNotApply] = []

        def look() -> object:
            try:
                return condition()
            except DoesNotApply as lack:
                lacks.append(lack)
                return True

        wait_until(look, what, PATIENCE_S)
        if lacks:
            raise lacks[0]


class Feature(NamedTuple):
    group: str
    name: str
    run: Callable[[Scene], None]
    in_short: frozenset[str]
    """Clients for which bin/test runs it."""


FEATURES: list[Feature] = []
ALL = ("kcat", "confluent-kafka", "kafka-python", "aiokafka", "java-3.9", "java-4")


def feature(group: str, name: str, *in_short: str) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    def register(run: Callable[[Scene], None]) -> Callable[[Scene], None]:
        FEATURES.append(Feature(group, name, run, frozenset(in_short)))
        return run

    return register


def _values(found: list[Got]) -> list[bytes | None]:
    return [one.record.value for one in found]


def _is_same(read: list[Got], written: list[Record]) -> None:
    """Offsets without gaps from 0, and every field as it was written."""
    assert [one.offset for one in read] == list(range(len(written))), f"offsets {[one.offset for one in read][:20]}"
    for one, wanted in zip(read, written, strict=True):
        assert one.record.value == wanted.value, f"value at {one.offset}"
        assert one.record.key == wanted.key, f"key at {one.offset}: {one.record.key!r}, not {wanted.key!r}"
        assert one.record.headers == wanted.headers, f"headers at {one.offset}: {one.record.headers}"
        if wanted.timestamp_ms is not None:
            assert one.record.timestamp_ms == wanted.timestamp_ms, f"time at {one.offset}"


# Records


def _codec(codec: str) -> Callable[[Scene], None]:
    def run(scene: Scene) -> None:
        """The client's own consumer reads them, and so does librdkafka."""
        topic = scene.topic()
        written = [Record(b"%d %s" % (number, b"x" * 60), b"key-%d" % (number % 7)) for number in range(400)]
        scene.client.produce(topic, written, Where(codec))
        _is_same(scene.client.read(topic, len(written)), written)
        others = scene.cluster.consume(topic, end=len(written))
        assert [value for _, value in others] == [one.value for one in written]

    return run


feature("records", "no codec", "kafka-python", "java-4")(_codec("none"))
feature("records", "gzip", "aiokafka", "confluent-kafka")(_codec("gzip"))
feature("records", "snappy", "kcat", "java-3.9")(_codec("snappy"))
feature("records", "lz4", "confluent-kafka", "kafka-python")(_codec("lz4"))
feature("records", "zstd", "kcat", "java-4", "aiokafka")(_codec("zstd"))


@feature("records", "keys, headers, nulls", *ALL)
def keys_headers_nulls(scene: Scene) -> None:
    topic = scene.topic()
    written = [
        Record(b"plain"),
        Record(b"keyed", b"key"),
        Record(None, b"tombstone"),
        Record(b"one header", b"k", (("h", b"v"),)),
        Record(b"two of one name", b"k", (("h", b"v"), ("h", b"w"))),
        Record("ключ and 値".encode(), "ключ".encode(), (("имя", "值".encode()),)),
        Record(b"last"),
    ]
    scene.client.produce(topic, written)
    _is_same(scene.client.read(topic, len(written)), written)


@feature("records", "1 MB records", "java-4", "kcat")
def large(scene: Scene) -> None:
    topic = scene.topic(max_message_bytes="2000000")
    # Above message.max.bytes' default, and made so that no codec and no line-based client trips over it.
    dice = random.Random(7)
    value = bytes(dice.choice(b"abcdefghijklmnopqrstuvwxyz") for _ in range(1_100_000))
    written = [Record(value), Record(value[::-1], b"k"), Record(b"small")]
    for one in written:
        scene.client.produce(topic, [one])
    _is_same(scene.client.read(topic, len(written)), written)


@feature("records", "too large a record is refused")
def too_large(scene: Scene) -> None:
    topic = scene.topic(max_message_bytes="50000")
    try:
        scene.client.produce(topic, [Record(b"x" * 100_000)])
    except Exception as error:
        text = f"{type(error).__name__} {error}"
        words = ("too large", "toolarge", "size_too_large", "larger", "max.message", "too_large")
        assert any(word in text.lower() for word in words), text
    else:
        raise AssertionError("it was accepted")
    scene.client.produce(topic, [Record(b"small")])
    assert _values(scene.client.read(topic, 1)) == [b"small"]


@feature("records", "timestamps", "confluent-kafka", "java-3.9")
def timestamps(scene: Scene) -> None:
    topic = scene.topic()
    written = [Record(b"%d" % number, timestamp_ms=T0 + 1000 * number) for number in range(10)]
    scene.client.produce(topic, written)
    _is_same(scene.client.read(topic, len(written)), written)


@feature("records", "LogAppendTime")
def log_append_time(scene: Scene) -> None:
    topic = scene.topic(message_timestamp_type="LogAppendTime")
    before = time.time() * 1000 - 2000
    scene.client.produce(topic, [Record(b"%d" % number) for number in range(3)])
    read = scene.client.read(topic, 3)
    times = [one.record.timestamp_ms or 0 for one in read]
    assert all(before < one < time.time() * 1000 + 2000 for one in times), times


@feature("records", "acks 0, 1 and all", "confluent-kafka")
def acks(scene: Scene) -> None:
    topic = scene.topic()
    for number, mode in enumerate(("all", "1", "0")):
        scene.client.produce(topic, [Record(b"%d" % number)], Where(acks=mode))
    assert _values(scene.client.read(topic, 3)) == [b"0", b"1", b"2"]


@feature("records", "idempotence", *ALL)
def idempotence(scene: Scene) -> None:
    topic = scene.topic()
    written = [Record(b"%d" % number) for number in range(500)]
    scene.client.produce(topic, written, Where("none", is_idempotent=True))
    _is_same(scene.client.read(topic, len(written)), written)


@feature("records", "seeks: beginning, offset, time", "kafka-python", "kcat", "java-4")
def seeks(scene: Scene) -> None:
    topic = scene.topic()
    # By librdkafka, so that clients that cannot set a time seek by one, too.
    producer = scene.cluster.producer()
    for number in range(50):
        producer.produce(topic, b"%d" % number, partition=0, timestamp=T0 + 1000 * number)
        if number % 10 == 9:
            assert producer.flush(60) == 0
    assert _values(scene.client.read(topic, 2)) == [b"0", b"1"]
    assert _values(scene.client.read(topic, 3, Start(offset=17))) == [b"17", b"18", b"19"]
    assert _values(scene.client.read(topic, 2, Start(time_ms=T0 + 33_500))) == [b"34", b"35"]
    assert _values(scene.client.read(topic, 1, Start(offset=49))) == [b"49"]


# Groups


def _everybody_has(scene: Scene, members: Sequence[Member], partitions: int) -> None:
    def settled() -> bool:
        parts = [one.assigned() for one in members]
        return sum(map(len, parts)) == partitions and set().union(*parts) == set(range(partitions)) and all(parts)

    scene.until(settled, f"{len(members)} members share {partitions} partitions")


def _three_members(scene: Scene, *, is_cooperative: bool = False) -> None:
    """One, then three, then two after one has left: each time they share all partitions, and every record of every
    time is read by somebody; with the range or sticky assignors' own way of sharing."""
    topic = scene.topic(6)
    group = f"group-{scene.name}"
    wanted = set()

    def write(round_number: int) -> None:
        for partition in range(6):
            values = [f"{round_number}-{partition}-{number}".encode() for number in range(5)]
            scene.cluster.produce(topic, values, partition)
            wanted.update(values)

    write(0)
    members: list[Member] = [scene.client.join(group, topic, is_cooperative=is_cooperative)]
    gone: list[Got] = []

    def all_read() -> bool:
        found = [*gone, *(one for member in members for one in member.received())]
        return {one.record.value for one in found} == wanted

    try:
        _everybody_has(scene, members, 6)
        scene.until(all_read, "the only member reads all")
        members += [scene.client.join(group, topic, is_cooperative=is_cooperative) for _ in range(2)]
        _everybody_has(scene, members, 6)
        assert sorted(len(one.assigned()) for one in members) == [2, 2, 2]
        write(1)
        scene.until(all_read, "three members read all")
        first = members.pop(0)
        first.leave()
        gone += first.received()
        _everybody_has(scene, members, 6)
        write(2)
        scene.until(all_read, "the two who are left read all")
    finally:
        for member in members:
            member.leave()


@feature("groups", "three members, rebalanced", *ALL)
def group_of_three(scene: Scene) -> None:
    _three_members(scene)


@feature("groups", "cooperative rebalancing", "confluent-kafka")
def cooperative(scene: Scene) -> None:
    _three_members(scene, is_cooperative=True)


@feature("groups", "resumes at what it committed", "aiokafka", "java-3.9")
def resume(scene: Scene) -> None:
    topic = scene.topic()
    group = f"group-{scene.name}"
    scene.cluster.produce(topic, [b"%d" % number for number in range(10)])
    first = scene.client.join(group, topic)
    scene.until(lambda: len(first.received()) == 10, "the first member reads all")
    first.leave()
    scene.cluster.produce(topic, [b"%d" % number for number in range(10, 15)])
    second = scene.client.join(group, topic)
    try:
        scene.until(lambda: len(second.received()) >= 5, "the second member reads the rest")
        assert _values(second.received()) == [b"%d" % number for number in range(10, 15)]
    finally:
        second.leave()


@feature("groups", "static membership")
def static(scene: Scene) -> None:
    """A member that comes back under its instance id before its session ends gets what it had, and nobody else
    rebalances: the other keeps its partitions all the time."""
    topic = scene.topic(4)
    group = f"group-{scene.name}"
    one, two = (scene.client.join(group, topic, instance_id=f"instance-{number}") for number in (1, 2))
    try:
        _everybody_has(scene, [one, two], 4)
        had = two.assigned()
        two.leave()
        two = scene.client.join(group, topic, instance_id="instance-2")
        scene.until(lambda: bool(two.assigned()), "the member is back")
        assert two.assigned() == had
        assert len(one.assigned()) == 2
    finally:
        one.leave()
        two.leave()


@feature("groups", "groups listed and described, offsets read", "confluent-kafka", "aiokafka")
def describe_groups(scene: Scene) -> None:
    client = scene.client
    client.groups()
    topic = scene.topic(2)
    group = f"group-{scene.name}"
    scene.cluster.produce(topic, [b"a", b"b", b"c"], 1)
    member = client.join(group, topic)
    try:
        scene.until(lambda: len(member.received()) == 3, "the member reads all")
        assert group in client.groups()
        assert client.describe_group(group) == ("stable", 1)
    finally:
        member.leave()
    scene.until(lambda: client.describe_group(group) == ("empty", 0), "the group is empty")
    assert client.group_offsets(group, topic, [0, 1])[1] == 3


@feature("groups", "groups deleted", "kafka-python")
def delete_groups(scene: Scene) -> None:
    client = scene.client
    topic = scene.topic()
    group = f"group-{scene.name}"
    scene.cluster.produce(topic, [b"a"])
    member = client.join(group, topic)
    scene.until(lambda: len(member.received()) == 1, "the member reads all")
    member.leave()
    client.delete_group(group)
    assert group not in client.groups()


# Administration


@feature("administration", "cluster and topics described", *ALL)
def describe(scene: Scene) -> None:
    topic = scene.topic(2)
    controller, brokers = scene.client.cluster()
    assert controller == scene.cluster.controller_id()
    assert brokers == sorted(scene.cluster.brokers)
    assert topic in scene.client.topics()


@feature("administration", "topics made, extended, deleted", "kafka-python", "java-4")
def administer_topics(scene: Scene) -> None:
    client, name = scene.client, f"{scene.name}-made"
    client.create_topic(name, 2, 3, {"retention.ms": "86400000"})
    scene.until(lambda: name in client.topics(), "the topic is listed")
    # A broker may hear of a new topic a moment after the controller has said that it is there.
    scene.until(lambda: len(scene.cluster.partitions(name)) == 2, "its partitions have leaders")
    seen = _described(scene, name, 2)
    assert all(leader in replicas and len(set(replicas)) == 3 for leader, replicas in seen)
    client.add_partitions(name, 5)
    _described(scene, name, 5)
    client.delete_topic(name)
    scene.until(lambda: name not in client.topics(), "the topic is gone")


def _described(scene: Scene, name: str, partitions: int) -> Sequence[tuple[int, Sequence[int]]]:
    """Once the broker that answers knows of so many partitions."""
    found: list[TopicSeen] = []

    def holds() -> bool:
        seen = scene.client.describe_topic(name)
        found[:] = [seen]
        return len(seen.partitions) == partitions and all(leader > 0 for leader, _ in seen.partitions)

    scene.until(holds, f"{name} is described with {partitions} partitions")
    if found[0].topic_id is not None:
        assert len(found[0].topic_id) == 22
    return found[0].partitions


@feature("administration", "settings of topics", "aiokafka", "confluent-kafka")
def topic_settings(scene: Scene) -> None:
    topic = scene.topic(1, 3, retention_ms="1234567")
    assert scene.client.topic_config(topic)["retention.ms"] == "1234567"
    scene.client.set_topic_config(topic, {"retention.ms": "7654321", "max.message.bytes": "54321"})

    def holds() -> bool:
        found = scene.client.topic_config(topic)
        return (found["retention.ms"], found["max.message.bytes"]) == ("7654321", "54321")

    scene.until(holds, "the settings have changed")


@feature("administration", "records deleted", "aiokafka")
def delete_records(scene: Scene) -> None:
    topic = scene.topic()
    scene.cluster.produce(topic, [b"%d" % number for number in range(20)])
    scene.client.delete_records(topic, 12)
    assert _values(scene.client.read(topic, 8)) == [b"%d" % number for number in range(12, 20)]


@feature("administration", "offset of the largest timestamp", "kafka-python")
def max_timestamp(scene: Scene) -> None:
    topic = scene.topic()
    producer = scene.cluster.producer()
    for number, after in enumerate((0, 5000, 9000, 2000)):
        producer.produce(topic, b"%d" % number, partition=0, timestamp=T0 + after)
        assert producer.flush(60) == 0
    assert scene.client.max_timestamp_offset(topic) == 2


@feature("administration", "partitions reassigned", "kafka-python")
def reassign(scene: Scene) -> None:
    scene.cluster.create_topic(scene.name, assignment=[[1, 2]])
    topic = scene.name
    wait_known(scene.cluster, topic, 1)
    written = [b"%d" % number for number in range(100)]
    scene.cluster.produce(topic, written)
    scene.client.reassign(topic, [3, 2])
    scene.until(lambda: scene.client.reassignments_count(topic) == 0, "the reassignment is over")
    scene.until(lambda: sorted(scene.cluster.isr(topic)) == [2, 3], "the new replicas are in sync")
    assert [value for _, value in scene.cluster.consume(topic)] == written


@feature("administration", "preferred leaders elected", "confluent-kafka")
def elect(scene: Scene) -> None:
    """The assignment's order is changed by a reassignment: the leader stays until the election."""
    scene.cluster.create_topic(scene.name, assignment=[[1, 2, 3]])
    wait_known(scene.cluster, scene.name, 1)
    znode = scene.cluster.read_json(f"/brokers/topics/{scene.name}")
    assert znode["partitions"]["0"] == [1, 2, 3]
    scene.cluster.wait_isr(scene.name, [1, 2, 3])
    _move_preference(scene, [2, 1, 3])
    assert scene.cluster.leader(scene.name) == 1
    scene.client.elect_preferred(scene.name)
    scene.until(lambda: scene.cluster.leader(scene.name) == 2, "the preferred replica leads")


def _move_preference(scene: Scene, replicas: list[int]) -> None:
    from tests.interop.adapters_kafka_python import KafkaPythonClient

    other = KafkaPythonClient(scene.cluster.bootstrap)
    other.reassign(scene.name, replicas)
    scene.until(lambda: other.reassignments_count(scene.name) == 0, "the reassignment is over")


@feature("administration", "log folders described", "java-4")
def log_dirs(scene: Scene) -> None:
    topic = scene.topic()
    scene.cluster.produce(topic, [b"x" * 1000] * 10, compression_type="none")
    brokers = sorted(scene.cluster.brokers)

    def holds() -> bool:
        sizes = scene.client.log_sizes(topic, brokers)
        return sorted(sizes) == brokers and all(size > 10_000 for size in sizes.values())

    scene.until(holds, "every replica's size is known")


@feature("administration", "producers described", "java-3.9")
def producers(scene: Scene) -> None:
    topic = scene.topic()
    scene.cluster.produce(topic, [b"idempotent"])
    assert scene.client.producers_count(topic) == 1


def new_name(client: Client, what: str) -> str:
    """Of a topic: nobody else's, and readable where it turns up in a log."""
    words = "".join(letter if letter.isalnum() else "-" for letter in f"{client.name}-{what}")
    return f"{words[:60]}-{uuid.uuid4().hex[:6]}"

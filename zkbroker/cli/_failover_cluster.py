"""What ``zkbroker-bench failover`` does with a cluster besides breaking it: topics, elections, the final count."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from kazoo.exceptions import NodeExistsError

from zkbroker.cli import _common as common
from zkbroker.cli._failover_writer import UNTOLD, FailoverWriter
from zkbroker.cli._local_cluster import LocalCluster
from zkbroker.cli._processes import LocalFailure, wait_until

TUNED_CLIENT = {
    "retry.backoff.ms": 10,
    "retry.backoff.max.ms": 20,
    "reconnect.backoff.ms": 10,
    "reconnect.backoff.max.ms": 50,
    "topic.metadata.refresh.fast.interval.ms": 10,
}
"""librdkafka's settings for a client that looks for its leader at once."""
ASK_AGAIN_S = 2.0


def check_written(bootstrap: str, writer: FailoverWriter, timeout_s: float = 90) -> tuple[int, int]:
    """(acknowledged records that are not at their offset, records there more than once), by reading what it wrote."""
    told = [offset for offset in writer.offsets.values() if offset != UNTOLD]
    if not told:
        return len(writer.offsets), 0
    found = read_values(bootstrap, {(writer.topic, 0): min(told)}, timeout_s)
    return judge_written(writer.name, writer.offsets, [(offset, value) for _, _, offset, value in found])


def judge_written(name: str, offsets: Mapping[int, int], found: Sequence[tuple[int, bytes]]) -> tuple[int, int]:
    """``offsets``: number → offset of each acknowledgement; ``found``: (offset, value) as read. Others' values do not
    count."""
    places: dict[int, list[int]] = {}
    for offset, value in found:
        writer, _, number = value.decode().rpartition("-")
        if writer == name:
            places.setdefault(int(number), []).append(offset)
    lost = sum(
        1
        for number, offset in offsets.items()
        if not places.get(number) or (offset != UNTOLD and offset not in places[number])
    )
    return lost, sum(len(one) - 1 for one in places.values())


def read_values(
    bootstrap: str, starts: Mapping[tuple[str, int], int], timeout_s: float = 90
) -> list[tuple[str, int, int, bytes]]:
    """(topic, partition, offset, value) of all records from these offsets to the ends of now. Raises LocalFailure."""
    consumer = Consumer(
        common.client_config(
            bootstrap,
            defaults={"group.id": "check", "enable.auto.commit": False, "auto.offset.reset": "error", **TUNED_CLIENT},
        )
    )
    deadline = time.monotonic() + timeout_s
    read: list[Any] = []
    try:
        ends: dict[Any, int] = {}
        for topic, partition in starts:
            place = TopicPartition(topic, partition)
            ends[topic, partition] = wait_until(
                lambda place=place: consumer.get_watermark_offsets(place, timeout=5),  # type: ignore[misc]
                f"the end of {topic}-{partition}",
                timeout_s,
            )[1]
        consumer.assign([TopicPartition(topic, partition, offset) for (topic, partition), offset in starts.items()])
        left: set[Any] = {place for place, offset in starts.items() if offset < ends[place]}
        while left:
            if time.monotonic() > deadline:
                raise LocalFailure(f"{len(left)} partitions could not be read to their ends within {timeout_s:g} s")
            for message in consumer.consume(5000, 0.2):
                error = message.error()
                if error is not None:
                    if error.retriable() or error.code() < 0:
                        continue
                    raise KafkaException(error)
                row: Any = (message.topic(), message.partition(), message.offset(), message.value())
                if None in row:
                    raise LocalFailure("a record without place or value came back; this topic is not ours")
                read.append(row)
                if row[2] + 1 >= ends[row[:2]]:
                    left.discard(row[:2])
    finally:
        consumer.close()
    return read


# What a person would do by hand


def create_topic(
    cluster: LocalCluster, topic: str, assignment: Sequence[Sequence[int]], timeout_s: float = 120
) -> None:
    """Unless it is there. A new client for each try: one that was told of no controller does not look again."""
    if topic in cluster.topics():
        return

    def created() -> bool:
        admin = common.kafka_admin.AdminClient(common.client_config(cluster.bootstrap, defaults={}))
        new = common.kafka_admin.NewTopic(topic, len(assignment), replica_assignment=[list(one) for one in assignment])
        try:
            admin.create_topics([new], operation_timeout=20, request_timeout=15)[topic].result(20)
        except KafkaException:
            if topic not in cluster.topics():
                raise
        return True

    wait_until(created, f"topic {topic} is created", 120, cluster.explain)
    cluster.wait_for(lambda: len(cluster.partitions(topic)) == len(assignment), f"{topic} has its partitions")


def prefer(cluster: LocalCluster, topic: str, leaders: Mapping[int, int], timeout_s: float = 120) -> None:
    """Have the first replicas of these partitions elected, which ``leaders`` (by partition) are."""

    def are_led() -> bool:
        return all(cluster.leader(topic, partition) == leader for partition, leader in leaders.items())

    if are_led():
        return
    rows = ",".join(f'{{"topic":"{topic}","partition":{partition}}}' for partition in leaders)
    body = f'{{"version":1,"partitions":[{rows}]}}'.encode()

    asked_s = float("-inf")

    def are_led_when_asked() -> bool:
        # Asked again: a controller may decline while it does not trust a broker that was complained of.
        nonlocal asked_s
        if time.monotonic() - asked_s > ASK_AGAIN_S:
            with contextlib.suppress(NodeExistsError):
                cluster.zookeeper.create("/admin/preferred_replica_election", body, makepath=True)
                asked_s = time.monotonic()
        return are_led()

    cluster.wait_for(are_led_when_asked, f"{topic} is led by its first replicas", timeout_s)

"""Consumer groups on real brokers: a group of three that rebalances, its coordinator killed, one that is loading."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, TopicPartition

from tests.harness.brokers import Cluster, quiet, wait_until
from zkbroker.cli import _group_protocol as protocol
from zkbroker.coordinator.partitioning import partition_for
from zkbroker.model.errors import ErrorCode

pytestmark = pytest.mark.timeout(400)
SETTINGS = {
    "offsets.topic.replication.factor": 3,
    "offsets.topic.num.partitions": 3,
    "group.initial.rebalance.delay.ms": 0,
}
OFFSETS_TOPIC = "__consumer_offsets"


@pytest.fixture(scope="module")
def group_cluster(ensemble: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(ensemble.connect_string, tmp_path_factory.mktemp("groups"), 3, SETTINGS) as running:
        yield running


class Member(threading.Thread):
    """A consumer that commits what it has read after each poll, and notes what was acknowledged."""

    def __init__(self, cluster: Cluster, group: str, topic: str, acknowledged: dict[int, int]) -> None:
        super().__init__(daemon=True)
        self.values: list[bytes] = []
        self.assigned: set[int] = set()
        self.failures: list[BaseException] = []
        self._acknowledged = acknowledged
        self._topic = topic
        self._read: dict[int, int] = {}
        """Partition → the offset to commit."""
        self._must_stop = threading.Event()
        self._consumer = Consumer(
            quiet(
                {
                    "bootstrap.servers": cluster.bootstrap,
                    "group.id": group,
                    "auto.offset.reset": "earliest",
                    "enable.auto.commit": False,
                    "session.timeout.ms": 10_000,
                    "heartbeat.interval.ms": 500,
                }
            )
        )
        self._consumer.subscribe([topic])

    def run(self) -> None:
        try:
            while not self._must_stop.is_set():
                message = self._consumer.poll(0.1)
                self.assigned = {one.partition for one in self._consumer.assignment()}
                if message is not None and message.error() is None:
                    value, offset = message.value(), message.offset()
                    assert value is not None and offset is not None
                    self.values.append(value)
                    self._read[message.partition()] = offset + 1
                self._commit()
        except BaseException as error:
            self.failures.append(error)
        finally:
            self._consumer.close()

    def _commit(self) -> None:
        """Without an answer, or with a refusal, nothing is promised: again later, unless it is another's by then."""
        self._read = {partition: offset for partition, offset in self._read.items() if partition in self.assigned}
        places = [TopicPartition(self._topic, partition, offset) for partition, offset in self._read.items()]
        if not places:
            return
        try:
            answers = self._consumer.commit(offsets=places, asynchronous=False)
        except KafkaException:
            return
        for one in answers or ():
            if one.error is None:
                self._read.pop(one.partition, None)
                self._acknowledged[one.partition] = max(self._acknowledged.get(one.partition, 0), one.offset)

    def stop(self) -> None:
        self._must_stop.set()
        self.join(60)
        assert not self.is_alive()
        assert not self.failures


@contextmanager
def three_members(cluster: Cluster, group: str, topic: str, acknowledged: dict[int, int]) -> Iterator[list[Member]]:
    started = [Member(cluster, group, topic, acknowledged) for _ in range(3)]
    for member in started:
        member.start()
    try:
        yield started
    finally:
        for member in started:
            member.stop()


def share(running: list[Member]) -> Callable[[], bool]:
    """Each of six partitions has one member, and each member as many as the others."""

    def shared() -> bool:
        sets = [member.assigned for member in running]
        return sum(map(len, sets)) == 6 and set().union(*sets) == set(range(6)) and len({len(one) for one in sets}) == 1

    return shared


def coordinator_of(cluster: Cluster, group: str) -> int:
    return cluster.wait_leader(OFFSETS_TOPIC, partition_for(group, 3))


def committed(cluster: Cluster, group: str, topic: str, partitions: int) -> dict[int, int]:
    consumer = Consumer(quiet({"bootstrap.servers": cluster.bootstrap, "group.id": group}))
    try:
        rows = wait_until(
            lambda: consumer.committed([TopicPartition(topic, index) for index in range(partitions)], timeout=10),
            "the committed offsets are told",
            60,
        )
    finally:
        consumer.close()
    return {row.partition: row.offset for row in rows if row.offset != OFFSET_INVALID}


def test_three_members_share_lose_one_and_their_coordinator_and_no_offset_is_lost(group_cluster: Cluster) -> None:
    cluster = group_cluster
    cluster.start()
    cluster.create_topic("shared", partitions=6)
    cluster.wait_isr("shared", [1, 2, 3])
    written = {f"{partition}-{number}".encode() for partition in range(6) for number in range(20)}

    def produce(numbers: range) -> None:
        for partition in range(6):
            cluster.produce("shared", [f"{partition}-{number}".encode() for number in numbers], partition)

    produce(range(10))
    acknowledged: dict[int, int] = {}
    with three_members(cluster, "three", "shared", acknowledged) as running:
        wait_until(share(running), "three members share six partitions", 60)
        wait_until(
            lambda: sum(acknowledged.values()) == 60, "all is read and committed", 90, lambda: repr(acknowledged)
        )
        cluster.wait_isr(OFFSETS_TOPIC, [1, 2, 3])
        coordinator = coordinator_of(cluster, "three")
        promised = dict(acknowledged)
        cluster.brokers[coordinator].kill()
        cluster.wait_leader(OFFSETS_TOPIC, partition_for("three", 3), other_than=coordinator)
        now = committed(cluster, "three", "shared", 6)
        assert all(now[partition] >= offset for partition, offset in promised.items())
        running.pop().stop()
        produce(range(10, 15))
        wait_until(share(running), "two members share six partitions", 60)
        wait_until(
            lambda: sum(acknowledged.values()) == 90, "the group goes on without it", 90, lambda: repr(acknowledged)
        )
        cluster.restart(coordinator)
        produce(range(15, 20))
        wait_until(lambda: sum(acknowledged.values()) == 120, "and when it is back", 90, lambda: repr(acknowledged))
        assert committed(cluster, "three", "shared", 6) == acknowledged == dict.fromkeys(range(6), 20)
        read = {value for member in running for value in member.values}
    assert read <= written
    assert len(read) >= 60
    cluster.delete_topic("shared")
    cluster.create_topic("shared", partitions=6)
    wait_until(lambda: not committed(cluster, "three", "shared", 6), "offsets of a deleted topic are forgotten", 60)


class RawMember:
    """One connection to one broker, for requests that real clients would repeat by themselves."""

    def __init__(self, cluster: Cluster, broker_id: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", cluster.brokers[broker_id].port), 30)
        self._stream = self._socket.makefile("rb")

    def send(self, key: int, body: bytes) -> None:
        self._socket.sendall(protocol.frame(key, 1, body))

    def receive(self) -> bytes:
        (size,) = struct.unpack(">i", self._stream.read(4))
        return self._stream.read(size)

    def ask(self, key: int, body: bytes) -> bytes:
        self.send(key, body)
        return self.receive()

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


def test_a_coordinator_that_has_not_loaded_says_so_and_shows_nothing_uncommitted(group_cluster: Cluster) -> None:
    """A commit reaches the next coordinator and not the third broker, which stands still: the next one has it in its
    log, and does not know whether it is committed."""
    cluster = group_cluster
    cluster.start()
    cluster.create_topic("still", partitions=1)
    first = wait_until(lambda: committed(cluster, "loading", "still", 1) == {}, "there is a coordinator", 60)
    assert first
    cluster.wait_isr(OFFSETS_TOPIC, [1, 2, 3])
    partition = partition_for("loading", 3)
    replicas = cluster.read_json(f"/brokers/topics/{OFFSETS_TOPIC}")["partitions"][str(partition)]
    cluster.prefer_leader(OFFSETS_TOPIC, partition, replicas)
    leader, successor, still = replicas
    fetch = protocol.offset_fetch("loading", "still", [0])
    old = RawMember(cluster, leader)
    try:
        body = protocol.offset_commit("loading", -1, "", "still", 0, 1)
        wait_until(
            lambda: protocol.read_committed(old.ask(protocol.OFFSET_COMMIT, body)) is ErrorCode.NONE, "a commit", 60
        )
        cluster.brokers[still].pause()
        old.send(protocol.OFFSET_COMMIT, protocol.offset_commit("loading", -1, "", "still", 0, 2))
        time.sleep(0.3)  # it is in the log of the successor long before, and acknowledged by nobody
        cluster.brokers[leader].kill()
    finally:
        old.close()
    seen: list[tuple[ErrorCode, int]] = []
    try:
        cluster.wait_leader(OFFSETS_TOPIC, partition, other_than=leader)
        assert cluster.leader(OFFSETS_TOPIC, partition) == successor
        new = RawMember(cluster, successor)
        try:

            def loaded() -> bool:
                error, offsets = protocol.read_offsets(new.ask(protocol.OFFSET_FETCH, fetch))
                seen.append((error, offsets.get(0, -1)))
                if error is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
                    heartbeat = new.ask(protocol.HEARTBEAT, protocol.heartbeat("loading", 1, "nobody"))
                    assert protocol.read_error(heartbeat) in (ErrorCode.NONE, ErrorCode.UNKNOWN_MEMBER_ID)
                    cluster.brokers[still].resume()
                return error is ErrorCode.NONE

            wait_until(loaded, "the groups are loaded", 60)
        finally:
            new.close()
    finally:
        cluster.brokers[still].resume()
    assert (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, -1) in seen
    assert seen[-1] == (ErrorCode.NONE, 2)
    assert not [offset for error, offset in seen if error is ErrorCode.NONE and offset != 2]

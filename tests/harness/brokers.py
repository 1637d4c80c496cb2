"""Clusters of real broker processes for tests, on the code that quickstart uses; and clients that check what they read.

With ``ZKBROKER_TEST_BROKERS=kafka`` the clusters are made of Kafka 3.9.1 brokers (from ``ZKBROKER_KAFKA_LIBS``): that
way a test of behaviour that both should have is tried against the reference.
"""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from zkbroker.cli._local_cluster import LocalBroker, LocalCluster, start_command
from zkbroker.cli._local_kafka import kafka_class_path, kafka_start_command
from zkbroker.cli._processes import LocalFailure, wait_until

__all__ = ["Cluster", "JavaTool", "LocalBroker", "LocalFailure", "kafka_class_path", "kafka_cluster", "wait_until"]

PATIENCE_S = 90.0
"""How long what must come about is waited for: only something that never comes may fail, a slow machine may not."""

NO_ANSWER = (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._DESTROY, KafkaError.REQUEST_TIMED_OUT)
"""The request may have been served or not."""


class Produced(NamedTuple):
    """One acknowledged record. Its offset is None where the answer was lost with a leader and librdkafka knows from a
    later acknowledgement that it was stored."""

    topic: str
    partition: int
    offset: int
    value: bytes


class Cluster(LocalCluster):
    """A cluster in a chroot of its own, with the clients that tests use. Settings are those of quick tests."""

    def __init__(
        self,
        zookeeper_connect: str,
        directory: Path,
        brokers_count: int = 3,
        overrides: Mapping[str, Any] | None = None,
        chroot: str | None = None,
        kafka: bool | None = None,
        command: Callable[[LocalBroker], list[str]] = start_command,
    ) -> None:
        self.is_kafka = os.environ.get("ZKBROKER_TEST_BROKERS") == "kafka" if kafka is None else kafka
        chroot = f"/{uuid.uuid4().hex[:12]}" if chroot is None else chroot
        settings = {
            "zookeeper.session.timeout.ms": 3000,
            "num.partitions": 1,
            "default.replication.factor": min(3, brokers_count),
            "min.insync.replicas": min(2, brokers_count),
            "offsets.topic.replication.factor": 1,
            "replica.lag.time.max.ms": 3000,
            "auto.create.topics.enable": "false",
            "auto.leader.rebalance.enable": "false",
            **(overrides or {}),
        }
        super().__init__(
            zookeeper_connect + chroot,
            directory,
            brokers_count,
            settings,
            command=kafka_start_command if self.is_kafka else command,
            replication_listener=not self.is_kafka,
        )

    # -- the processes

    def start(self, timeout_s: float = PATIENCE_S) -> None:
        """As LocalCluster's; and until each broker tells clients of all brokers and of the controller.

        A broker has registered before it has heard from the controller. Kafka's answers clients meanwhile that there
        are no brokers and no controller, and librdkafka believes that for as long as its requests last.
        """
        super().start(timeout_s)
        for broker in self.brokers.values():
            self.wait_for(
                lambda broker=broker: self._is_informed(broker),  # type: ignore[misc]
                f"{broker.name} tells clients of the whole cluster",
                timeout_s,
            )

    def _is_informed(self, broker: LocalBroker) -> bool:
        told = AdminClient(quiet({"bootstrap.servers": f"127.0.0.1:{broker.port}"})).list_topics(timeout=5)
        return sorted(told.brokers) == sorted(self.brokers) and told.controller_id == self.controller_id()

    # -- admin

    def admin(self) -> AdminClient:
        return AdminClient(quiet({"bootstrap.servers": self.bootstrap}))

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        replicas: int = 3,
        config: Mapping[str, str] | None = None,
        assignment: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Create it and wait until all its replicas are in sync."""
        if assignment is None:
            topic = NewTopic(name, partitions, replicas, config=dict(config or {}))
        else:
            topic = NewTopic(
                name, len(assignment), replica_assignment=[list(one) for one in assignment], config=dict(config or {})
            )

        self._ask_controller(
            lambda admin: admin.create_topics([topic], operation_timeout=20, request_timeout=15),
            f"create {name}",
            KafkaError.TOPIC_ALREADY_EXISTS,
        )
        expected = len(assignment) if assignment is not None else partitions
        self.wait_for(
            lambda: (
                len(self.partitions(name)) == expected
                and all((self.leader(name, number) or -1) > 0 for number in range(expected))
            ),
            f"topic {name} has its leaders",
        )

    def delete_topic(self, name: str) -> None:
        """Delete it, as far as its controller is asked to wait for that."""
        self._ask_controller(
            lambda admin: admin.delete_topics([name], operation_timeout=5, request_timeout=15),
            f"delete {name}",
            KafkaError.UNKNOWN_TOPIC_OR_PART,
        )

    def _ask_controller(
        self, ask: Callable[[AdminClient], Mapping[str, concurrent.futures.Future[Any]]], what: str, done_before: int
    ) -> None:
        """``ask``, again and again until the controller has done it; any refusal that time does not cure is raised.

        A new client each time: librdkafka's remembers who the controller was, and one whose first metadata named no
        controller does not look again before its request has timed out. ``done_before``: the error by which the
        controller says that a request whose answer was lost did its work.
        """
        deadline = time.monotonic() + PATIENCE_S
        was_lost = False
        while True:
            admin = self.admin()  # in a variable: a client that is collected fails its own requests
            try:
                for future in ask(admin).values():
                    future.result(30)
                return
            except concurrent.futures.TimeoutError as error:
                failure: Exception = error
                was_lost = True
            except KafkaException as error:
                code = error.args[0].code()
                if was_lost and code == done_before:
                    return
                if code not in NO_ANSWER and code != KafkaError.NOT_CONTROLLER:
                    raise
                failure = error
                was_lost = was_lost or code in NO_ANSWER
            if time.monotonic() > deadline:
                raise LocalFailure(f"no controller was found to {what}: {failure!r}\n{self.explain()}")
            time.sleep(0.1)

    # -- data

    def producer(self, **config: Any) -> Producer:
        return Producer(
            quiet(
                {
                    "bootstrap.servers": self.bootstrap,
                    "acks": "all",
                    "enable.idempotence": True,
                    "linger.ms": 5,
                    "topic.metadata.refresh.interval.ms": 1000,
                    "reconnect.backoff.max.ms": 500,
                    **{name.replace("_", "."): value for name, value in config.items()},
                }
            )
        )

    def produce(
        self, topic: str, values: Sequence[bytes], partition: int = 0, timeout_s: float = PATIENCE_S, **config: Any
    ) -> list[Produced]:
        """Write all and wait; what was acknowledged, in order. Raises KafkaException with the first failure."""
        producer = self.producer(**config)
        acknowledged: list[Produced] = []
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, message: Any) -> None:
            if error is not None:
                failures.append(error)
            else:
                acknowledged.append(Produced(topic, message.partition(), message.offset(), message.value()))

        for value in values:
            producer.produce(topic, value, partition=partition, on_delivery=delivered)
            producer.poll(0)
        left = producer.flush(timeout_s)
        if failures:
            raise KafkaException(failures[0])
        if left:
            raise LocalFailure(f"{left} of {len(values)} records were not answered in {timeout_s} s\n{self.explain()}")
        return acknowledged

    def consume(
        self, topic: str, partition: int = 0, end: int | None = None, timeout_s: float = PATIENCE_S
    ) -> list[tuple[int, bytes]]:
        """(offset, value) of everything from the beginning to ``end`` (default: the high watermark now)."""
        consumer = Consumer(
            quiet(
                {
                    "bootstrap.servers": self.bootstrap,
                    "group.id": "test",
                    "enable.auto.commit": False,
                    "auto.offset.reset": "error",
                    "topic.metadata.refresh.interval.ms": 1000,
                    "reconnect.backoff.max.ms": 500,
                    "check.crcs": True,
                }
            )
        )
        records: list[tuple[int, bytes]] = []
        try:
            deadline = time.monotonic() + timeout_s
            if end is None:
                _, end = self.wait_for(
                    lambda: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=5),
                    f"watermarks of {topic}-{partition}",
                )
            consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
            while end != 0 and (not records or records[-1][0] < end - 1):
                if time.monotonic() > deadline:
                    raise LocalFailure(
                        f"read {len(records)} records of {topic}-{partition}, not up to {end}, in {timeout_s} s\n"
                        + self.explain()
                    )
                for message in consumer.consume(5000, 0.2):
                    error = message.error()
                    if error is None:
                        records.append((message.offset(), message.value()))
                    elif not (error.retriable() or error.code() < 0):
                        raise KafkaException(error)
        finally:
            consumer.close()
        return records

    def prefer_leader(self, topic: str, partition: int, replicas: Sequence[int], timeout_s: float = PATIENCE_S) -> None:
        """Make ``replicas[0]`` the leader as a person with zkCli would: first in the assignment, then elected."""
        path = f"/brokers/topics/{topic}"
        znode = self.read_json(path)
        wanted = replicas[0]
        if znode["partitions"][str(partition)][0] != wanted:
            raise LocalFailure(f"{topic}-{partition} prefers {znode['partitions'][str(partition)]}, not {wanted}")
        if self.leader(topic, partition) == wanted:
            return
        from kazoo.exceptions import NodeExistsError

        body = b'{"version":1,"partitions":[{"topic":"%s","partition":%d}]}' % (topic.encode(), partition)

        def asked() -> bool:
            try:
                self.zookeeper.create("/admin/preferred_replica_election", body, makepath=True)
            except NodeExistsError:
                return False
            return True

        self.wait_for(asked, "the previous preferred election is over", timeout_s)
        self.wait_for(lambda: self.leader(topic, partition) == wanted, f"{wanted} leads {topic}-{partition}", timeout_s)


def quiet(config: dict[str, Any]) -> dict[str, Any]:
    """librdkafka complains on stderr about each broker that a test has killed; the tests judge by results."""
    return {"log_level": 0, "error_cb": lambda error: None, **config}


def kafka_cluster(zookeeper_connect: str, directory: Path, chroot: str, brokers_count: int = 3) -> Cluster:
    """A cluster of Kafka 3.9.1 brokers, whatever the environment says."""
    return Cluster(zookeeper_connect, directory, brokers_count, chroot=chroot, kafka=True)


class JavaTool:
    """Runs Kafka's own Java tools. ``java_tool(Class, args…)`` returns the finished process; output as text."""

    def __call__(
        self, class_name: str, *arguments: str, timeout_s: float = PATIENCE_S, stdin: str = "", class_path: str = ""
    ) -> subprocess.CompletedProcess[str]:
        path = kafka_class_path("WARN") + (f":{class_path}" if class_path else "")
        argv = ["java", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", path, class_name, *arguments]
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)


def run_cli(
    module: str, *arguments: str, stdin: str = "", timeout_s: float = PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m zkbroker.cli.MODULE`` as a user does."""
    argv = [sys.executable, "-m", f"zkbroker.cli.{module}", *arguments]
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)


def run_kcat(*arguments: str, stdin: bytes = b"", timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess[bytes]:
    kcat = shutil.which("kcat")
    if kcat is None:
        raise LocalFailure("kcat is not installed (tests/debian-packages.txt)")
    return subprocess.run([kcat, *arguments], input=stdin, capture_output=True, timeout=timeout_s, check=False)


class SteadyWriter:
    """An idempotent producer that writes numbered records to some partitions in a thread until it is stopped."""

    def __init__(self, cluster: Cluster, name: str, topic: str, partitions: Sequence[int], per_second: float) -> None:
        self._producer = cluster.producer(
            max_in_flight_requests_per_connection=5, delivery_timeout_ms=120_000, request_timeout_ms=5_000
        )
        self._name = name
        self.sent_prefix = name.encode() + b"-"
        """How every value of this writer begins."""
        self._topic = topic
        self._partitions = list(partitions)
        self._interval_s = 1 / per_second
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.acknowledged: list[Produced] = []
        self.sent: dict[int, list[bytes]] = {partition: [] for partition in self._partitions}
        """Values by partition in the order in which they were handed to the producer."""
        self.failures: list[str] = []
        self.longest_gap_s = 0.0
        self._last_delivery_s = time.monotonic()

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 120) -> None:
        """No more records; wait until every one is answered. Raises LocalFailure if some are not."""
        self._stopping.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive() or len(self._producer):
            raise LocalFailure(f"{self._name}: {len(self._producer)} records without an answer after {timeout_s} s")

    def _run(self) -> None:
        number = 0
        next_s = time.monotonic()
        while not self._stopping.is_set():
            partition = self._partitions[number % len(self._partitions)]
            value = self.sent_prefix + b"%d" % number
            try:
                self._producer.produce(self._topic, value, partition=partition, on_delivery=self._delivered)
            except BufferError:
                self._producer.poll(0.1)
                continue
            self.sent[partition].append(value)
            number += 1
            next_s += self._interval_s
            self._producer.poll(max(0.0, next_s - time.monotonic()))
        self._producer.flush(110)

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        now = time.monotonic()
        if error is not None:
            self.failures.append(error.str())
            return
        self.longest_gap_s = max(self.longest_gap_s, now - self._last_delivery_s)
        self._last_delivery_s = now
        self.acknowledged.append(Produced(self._topic, message.partition(), message.offset(), message.value()))

"""kafka-python."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import kafka
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor

from tests.harness.brokers import LocalFailure
from tests.interop.adapters import Client, Got, Record, Start, TopicSeen, Where
from zkbroker.model.topics import topic_id_from_uuid

TIMEOUT_S = 60.0


def _got(one: Any) -> Got:
    headers = tuple((name, value) for name, value in one.headers)
    return Got(one.partition, one.offset, Record(one.value, one.key, headers, one.timestamp))


class KafkaPythonMember:
    def __init__(self, topic: str, config: Mapping[str, Any]) -> None:
        self._consumer = kafka.KafkaConsumer(topic, **config)
        self._lock = threading.Lock()
        self._assigned: set[int] = set()
        self._received: list[Got] = []
        self._failure: Exception | None = None
        self._is_leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._is_leaving.is_set():
                found = [_got(one) for rows in self._consumer.poll(100).values() for one in rows]
                assigned = {one.partition for one in self._consumer.assignment()}
                with self._lock:
                    self._received += found
                    self._assigned = assigned
        except Exception as failure:
            self._failure = failure
        finally:
            self._consumer.close()

    def assigned(self) -> set[int]:
        if self._failure is not None:
            raise self._failure
        with self._lock:
            return set(self._assigned)

    def received(self) -> list[Got]:
        with self._lock:
            return list(self._received)

    def leave(self) -> None:
        self._is_leaving.set()
        self._thread.join(TIMEOUT_S)
        if self._thread.is_alive():
            raise LocalFailure("a member of the group does not end")
        if self._failure is not None:
            raise self._failure


class KafkaPythonClient(Client):
    name = "kafka-python"
    library = f"kafka-python {kafka.__version__}"

    @property
    def _servers(self) -> list[str]:
        return self.bootstrap.split(",")

    # Data

    def produce(self, topic: str, records: Sequence[Record], where: Where = Where(), partition: int = 0) -> None:
        producer = kafka.KafkaProducer(
            bootstrap_servers=self._servers,
            acks=where.acks if where.acks == "all" else int(where.acks),
            compression_type=None if where.codec == "none" else where.codec,
            enable_idempotence=where.is_idempotent,
            max_request_size=2_000_000,
            linger_ms=20,
            # Without idempotence its requests in flight overtake each other when one is retried.
            max_in_flight_requests_per_connection=5 if where.is_idempotent else 1,
        )
        try:
            sent = [
                producer.send(
                    topic,
                    value=one.value,
                    key=one.key,
                    headers=list(one.headers),
                    partition=partition,
                    timestamp_ms=one.timestamp_ms,
                )
                for one in records
            ]
            producer.flush(TIMEOUT_S)
            for future in sent:
                future.get(TIMEOUT_S)
        finally:
            producer.close(10)

    def read(self, topic: str, count: int, start: Start = Start(), partition: int = 0) -> list[Got]:
        consumer = kafka.KafkaConsumer(bootstrap_servers=self._servers, auto_offset_reset="none")
        try:
            wanted = kafka.TopicPartition(topic, partition)
            consumer.assign([wanted])
            if start.time_ms is not None:
                consumer.seek(wanted, consumer.offsets_for_times({wanted: start.time_ms})[wanted].offset)
            elif start.offset is not None:
                consumer.seek(wanted, start.offset)
            else:
                consumer.seek_to_beginning(wanted)
            found: list[Got] = []
            deadline = time.monotonic() + TIMEOUT_S
            while len(found) < count and time.monotonic() < deadline:
                found += [_got(one) for rows in consumer.poll(200).values() for one in rows]
            return found[:count]
        finally:
            consumer.close()

    def join(
        self, group: str, topic: str, *, is_cooperative: bool = False, instance_id: str | None = None
    ) -> KafkaPythonMember:
        config = {
            "bootstrap_servers": self._servers,
            "group_id": group,
            "auto_offset_reset": "earliest",
            "auto_commit_interval_ms": 500,
            "session_timeout_ms": 10_000,
            "heartbeat_interval_ms": 300,
            "partition_assignment_strategy": [CooperativeStickyAssignor if is_cooperative else RangePartitionAssignor],
            "group_instance_id": instance_id,
        }
        return KafkaPythonMember(topic, config)

    # Administration

    @contextmanager
    def _admin(self) -> Iterator[Any]:
        admin = kafka.KafkaAdminClient(bootstrap_servers=self._servers)
        try:
            yield admin
        finally:
            admin.close()

    def cluster(self) -> tuple[int, list[int]]:
        with self._admin() as admin:
            found = admin.describe_cluster()
        return found["controller_id"], sorted(one.get("broker_id", one.get("node_id")) for one in found["brokers"])

    def topics(self) -> list[str]:
        with self._admin() as admin:
            return sorted(admin.list_topics())

    def create_topic(self, name: str, partitions: int, replicas: int, configs: Mapping[str, str]) -> None:
        wanted = {"num_partitions": partitions, "replication_factor": replicas, "configs": dict(configs)}
        with self._admin() as admin:
            admin.create_topics({name: wanted})

    def describe_topic(self, name: str) -> TopicSeen:
        with self._admin() as admin:
            [found] = admin.describe_topics([name])
        rows = sorted(found["partitions"], key=lambda one: int(one["partition_index"]))
        topic_id = found["topic_id"]
        wanted = topic_id_from_uuid(topic_id if isinstance(topic_id, uuid.UUID) else uuid.UUID(str(topic_id)))
        return TopicSeen([(one["leader_id"], one["replica_nodes"]) for one in rows], wanted)

    def add_partitions(self, name: str, total: int) -> None:
        with self._admin() as admin:
            admin.create_partitions({name: total})

    def delete_topic(self, name: str) -> None:
        with self._admin() as admin:
            admin.delete_topics([name])

    def topic_config(self, name: str) -> dict[str, str | None]:
        with self._admin() as admin:
            found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)], config_filter="all")
        [rows] = [rows for resources in found.values() for rows in resources.values()]
        return {entry: row["value"] for entry, row in rows.items()}

    def set_topic_config(self, name: str, configs: Mapping[str, str]) -> None:
        with self._admin() as admin:
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, dict(configs))], incremental=True)

    def groups(self) -> list[str]:
        with self._admin() as admin:
            return sorted(one["group_id"] for one in admin.list_groups())

    def describe_group(self, name: str) -> tuple[str, int]:
        with self._admin() as admin:
            found = admin.describe_groups([name])[name]
        return found["group_state"].lower(), len(found["members"])

    def group_offsets(self, name: str, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        with self._admin() as admin:
            found = admin.list_group_offsets({name: None})[name]
        return {one.partition: offset.offset for one, offset in found.items()}

    def delete_group(self, name: str) -> None:
        with self._admin() as admin:
            admin.delete_groups([name])

    def delete_records(self, topic: str, before: int) -> None:
        with self._admin() as admin:
            admin.delete_records({kafka.TopicPartition(topic, 0): before})

    def max_timestamp_offset(self, topic: str) -> int:
        wanted = kafka.TopicPartition(topic, 0)
        with self._admin() as admin:
            return int(admin.list_partition_offsets({wanted: OffsetSpec.MAX_TIMESTAMP})[wanted].offset)

    def reassign(self, topic: str, replicas: Sequence[int]) -> None:
        wanted = kafka.TopicPartition(topic, 0)
        with self._admin() as admin:
            error = admin.alter_partition_reassignments({wanted: list(replicas)})[wanted]
        if error is not None:
            raise LocalFailure(f"reassignment refused: {error}")

    def reassignments_count(self, topic: str) -> int:
        with self._admin() as admin:
            return len(admin.list_partition_reassignments({topic: [0]}))

    def elect_preferred(self, topic: str) -> None:
        with self._admin() as admin:
            admin.elect_leaders(0, {topic: [0]})

    def log_sizes(self, topic: str, brokers: Sequence[int]) -> dict[int, int]:
        with self._admin() as admin:
            found = admin.describe_log_dirs({topic: [0]}, list(brokers))
        return {
            row["broker"]: part["partition_size"]
            for row in found
            for folder in row["log_dirs"]
            for one in folder["topics"]
            for part in one["partitions"]
        }

    def producers_count(self, topic: str) -> int:
        wanted = kafka.TopicPartition(topic, 0)
        with self._admin() as admin:
            return len(admin.describe_producers([wanted])[wanted].active_producers)

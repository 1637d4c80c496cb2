"""confluent-kafka: librdkafka in its newest version."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    ConsumerGroupTopicPartitions,
    ElectionType,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
    libversion,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)

from tests.harness.brokers import LocalFailure, quiet
from tests.interop.adapters import Client, Got, Record, Start, TopicSeen, Where

TIMEOUT_S = 60.0


def _got(message: Any) -> Got:
    kind, timestamp_ms = message.timestamp()
    headers = tuple((name, value) for name, value in message.headers() or ())
    time_ms = -1 if kind == TIMESTAMP_NOT_AVAILABLE else timestamp_ms
    record = Record(message.value(), message.key(), headers, time_ms)
    return Got(message.partition(), message.offset(), record)


class ConfluentMember:
    def __init__(self, config: Mapping[str, Any], topic: str) -> None:
        self._consumer = Consumer(quiet(dict(config)))
        self._consumer.subscribe([topic])
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
                for message in self._consumer.consume(500, 0.1):
                    error = message.error()
                    if error is None:
                        with self._lock:
                            self._received.append(_got(message))
                    elif not error.retriable():
                        raise KafkaException(error)
                found = {one.partition for one in self._consumer.assignment()}
                with self._lock:
                    self._assigned = found
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


class ConfluentClient(Client):
    name = "confluent-kafka"
    library = f"librdkafka {libversion()[0]}"

    def _config(self, **config: Any) -> dict[str, Any]:
        named = {name.replace("_", "."): value for name, value in config.items()}
        return quiet({"bootstrap.servers": self.bootstrap, **named})

    # Data

    def produce(self, topic: str, records: Sequence[Record], where: Where = Where(), partition: int = 0) -> None:
        config = self._config(
            compression_type=where.codec,
            acks=where.acks,
            enable_idempotence=where.is_idempotent,
            message_max_bytes=2_000_000,
            linger_ms=20,
        )
        producer = Producer(config)
        failures: list[Any] = []

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                failures.append(error)

        for one in records:
            time_ms = {} if one.timestamp_ms is None else {"timestamp": one.timestamp_ms}
            headers: Any = list(one.headers)
            producer.produce(topic, one.value, one.key, partition, delivered, headers=headers, **time_ms)
        left = producer.flush(TIMEOUT_S)
        if failures:
            raise KafkaException(failures[0])
        if left:
            raise LocalFailure(f"{left} records were not acknowledged")

    def read(self, topic: str, count: int, start: Start = Start(), partition: int = 0) -> list[Got]:
        consumer = Consumer(self._config(group_id="interop", enable_auto_commit=False, auto_offset_reset="error"))
        try:
            offset = OFFSET_BEGINNING if start.offset is None else start.offset
            if start.time_ms is not None:
                wanted = TopicPartition(topic, partition, start.time_ms)
                offset = consumer.offsets_for_times([wanted], timeout=TIMEOUT_S)[0].offset
            consumer.assign([TopicPartition(topic, partition, offset)])
            found: list[Got] = []
            deadline = time.monotonic() + TIMEOUT_S
            while len(found) < count and time.monotonic() < deadline:
                for message in consumer.consume(count - len(found), 0.2):
                    error = message.error()
                    if error is not None:
                        raise KafkaException(error)
                    found.append(_got(message))
            return found
        finally:
            consumer.close()

    def join(
        self, group: str, topic: str, *, is_cooperative: bool = False, instance_id: str | None = None
    ) -> ConfluentMember:
        config = self._config(
            group_id=group,
            auto_offset_reset="earliest",
            auto_commit_interval_ms=500,
            session_timeout_ms=10_000,
            heartbeat_interval_ms=300,
            partition_assignment_strategy="cooperative-sticky" if is_cooperative else "range",
            **({} if instance_id is None else {"group_instance_id": instance_id}),
        )
        return ConfluentMember(config, topic)

    # Administration

    def _admin(self) -> AdminClient:
        return AdminClient(self._config())

    def cluster(self) -> tuple[int, list[int]]:
        admin = self._admin()
        found = admin.describe_cluster(request_timeout=TIMEOUT_S).result()
        return found.controller.id, sorted(node.id for node in found.nodes)

    def topics(self) -> list[str]:
        admin = self._admin()
        return sorted(admin.list_topics(timeout=TIMEOUT_S).topics)

    def create_topic(self, name: str, partitions: int, replicas: int, configs: Mapping[str, str]) -> None:
        admin = self._admin()
        admin.create_topics([NewTopic(name, partitions, replicas, config=dict(configs))])[name].result(TIMEOUT_S)

    def describe_topic(self, name: str) -> TopicSeen:
        admin = self._admin()
        found = admin.describe_topics(TopicCollection([name]))[name].result(TIMEOUT_S)
        rows = [(one.leader.id, [node.id for node in one.replicas]) for one in found.partitions]
        return TopicSeen(rows, str(found.topic_id))

    def add_partitions(self, name: str, total: int) -> None:
        admin = self._admin()
        admin.create_partitions([NewPartitions(name, total)])[name].result(TIMEOUT_S)

    def delete_topic(self, name: str) -> None:
        admin = self._admin()
        admin.delete_topics([name])[name].result(TIMEOUT_S)

    def topic_config(self, name: str) -> dict[str, str | None]:
        admin = self._admin()
        [future] = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, name)]).values()
        return {entry: one.value for entry, one in future.result(TIMEOUT_S).items()}

    def set_topic_config(self, name: str, configs: Mapping[str, str]) -> None:
        admin = self._admin()
        changes = [
            ConfigEntry(entry, value, incremental_operation=AlterConfigOpType.SET) for entry, value in configs.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=changes)
        [future] = admin.incremental_alter_configs([resource]).values()
        future.result(TIMEOUT_S)

    def groups(self) -> list[str]:
        admin = self._admin()
        return sorted(one.group_id for one in admin.list_consumer_groups().result(TIMEOUT_S).valid)

    def describe_group(self, name: str) -> tuple[str, int]:
        admin = self._admin()
        found = admin.describe_consumer_groups([name])[name].result(TIMEOUT_S)
        return found.state.name.lower().replace("_", ""), len(found.members)

    def group_offsets(self, name: str, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        admin = self._admin()
        [future] = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)]).values()
        return {one.partition: one.offset for one in future.result(TIMEOUT_S).topic_partitions}

    def delete_group(self, name: str) -> None:
        admin = self._admin()
        admin.delete_consumer_groups([name])[name].result(TIMEOUT_S)

    def delete_records(self, topic: str, before: int) -> None:
        admin = self._admin()
        [future] = admin.delete_records([TopicPartition(topic, 0, before)]).values()
        future.result(TIMEOUT_S)

    def max_timestamp_offset(self, topic: str) -> int:
        admin = self._admin()
        [future] = admin.list_offsets({TopicPartition(topic, 0): OffsetSpec.max_timestamp()}).values()
        return int(future.result(TIMEOUT_S).offset)

    def elect_preferred(self, topic: str) -> None:
        admin = self._admin()
        found = admin.elect_leaders(ElectionType.PREFERRED, [TopicPartition(topic, 0)]).result(TIMEOUT_S)
        for error in found.values():
            if error is not None:
                raise error

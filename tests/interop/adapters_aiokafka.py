"""aiokafka: its own event loop in a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.structs import TopicPartition

from tests.harness.brokers import LocalFailure
from tests.interop.adapters import Client, DoesNotApply, Got, Record, Start, TopicSeen, Where

T = TypeVar("T")
TIMEOUT_S = 60.0


def _got(one: Any) -> Got:
    return Got(one.partition, one.offset, Record(one.value, one.key, tuple(one.headers), one.timestamp))


class AiokafkaMember:
    def __init__(self, client: AiokafkaClient, topic: str, config: Mapping[str, Any]) -> None:
        self._client = client
        self._assigned: set[int] = set()
        self._received: list[Got] = []
        self._is_leaving = False
        self._done = client.begin(self._run(topic, config))

    async def _run(self, topic: str, config: Mapping[str, Any]) -> None:
        consumer = aiokafka.AIOKafkaConsumer(topic, **config)
        await consumer.start()
        try:
            while not self._is_leaving:
                found = await consumer.getmany(timeout_ms=100)
                self._received += [_got(one) for rows in found.values() for one in rows]
                self._assigned = {one.partition for one in consumer.assignment()}
        finally:
            await consumer.stop()

    def assigned(self) -> set[int]:
        if self._done.done():
            self._done.result()
        return set(self._assigned)

    def received(self) -> list[Got]:
        return list(self._received)

    def leave(self) -> None:
        self._is_leaving = True
        self._done.result(TIMEOUT_S)


class AiokafkaClient(Client):
    name = "aiokafka"
    library = f"aiokafka {aiokafka.__version__}"

    def __init__(self, bootstrap: str) -> None:
        super().__init__(bootstrap)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def begin(self, work: Coroutine[Any, Any, T]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        result: T = self.begin(work).result(2 * TIMEOUT_S)
        return result

    # Data

    def produce(self, topic: str, records: Sequence[Record], where: Where = Where(), partition: int = 0) -> None:
        self._do(self._produce(topic, records, where, partition))

    async def _produce(self, topic: str, records: Sequence[Record], where: Where, partition: int) -> None:
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=self.bootstrap,
            acks=where.acks if where.acks == "all" else int(where.acks),
            compression_type=None if where.codec == "none" else where.codec,
            enable_idempotence=where.is_idempotent,
            max_request_size=2_000_000,
            linger_ms=20,
        )
        await producer.start()
        try:
            sent = [
                await producer.send(
                    topic,
                    one.value,
                    one.key,
                    partition,
                    timestamp_ms=one.timestamp_ms,
                    headers=list(one.headers),
                )
                for one in records
            ]
            await asyncio.wait_for(asyncio.gather(*sent), TIMEOUT_S)
        finally:
            await producer.stop()

    def read(self, topic: str, count: int, start: Start = Start(), partition: int = 0) -> list[Got]:
        return self._do(self._read(topic, count, start, partition))

    async def _read(self, topic: str, count: int, start: Start, partition: int) -> list[Got]:
        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, auto_offset_reset="none", enable_auto_commit=False
        )
        await consumer.start()
        try:
            wanted = TopicPartition(topic, partition)
            consumer.assign([wanted])
            if start.time_ms is not None:
                offset = (await consumer.offsets_for_times({wanted: start.time_ms}))[wanted].offset
                consumer.seek(wanted, offset)
            elif start.offset is not None:
                consumer.seek(wanted, start.offset)
            else:
                await consumer.seek_to_beginning(wanted)
            found: list[Got] = []
            deadline = time.monotonic() + TIMEOUT_S
            while len(found) < count and time.monotonic() < deadline:
                rows = await consumer.getmany(wanted, timeout_ms=200)
                found += [_got(one) for one in rows.get(wanted, ())]
            return found[:count]
        finally:
            await consumer.stop()

    def join(
        self, group: str, topic: str, *, is_cooperative: bool = False, instance_id: str | None = None
    ) -> AiokafkaMember:
        if is_cooperative:
            raise DoesNotApply("aiokafka has no cooperative assignor")
        config = {
            "bootstrap_servers": self.bootstrap,
            "group_id": group,
            "auto_offset_reset": "earliest",
            "auto_commit_interval_ms": 500,
            "session_timeout_ms": 10_000,
            "heartbeat_interval_ms": 300,
            "partition_assignment_strategy": [RangePartitionAssignor],
            "group_instance_id": instance_id,
        }
        return AiokafkaMember(self, topic, config)

    # Administration

    def _ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        async def ask() -> Any:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
            await admin.start()
            try:
                return await getattr(admin, method)(*arguments, **options)
            finally:
                await admin.close()

        return self._do(ask())

    @staticmethod
    def _check(codes: Sequence[tuple[Any, ...]]) -> None:
        """aiokafka's admin hands answers out as they are: (name, error code, ...)."""
        for name, code, *rest in codes:
            if code:
                raise LocalFailure(f"{name}: error {code} {rest}")

    def cluster(self) -> tuple[int, list[int]]:
        found = self._ask("describe_cluster")
        return found["controller_id"], sorted(one["node_id"] for one in found["brokers"])

    def topics(self) -> list[str]:
        return sorted(self._ask("list_topics"))

    def create_topic(self, name: str, partitions: int, replicas: int, configs: Mapping[str, str]) -> None:
        answer = self._ask("create_topics", [NewTopic(name, partitions, replicas, topic_configs=dict(configs))])
        self._check(answer.topic_errors)

    def describe_topic(self, name: str) -> TopicSeen:
        [found] = self._ask("describe_topics", [name])
        rows = sorted(found["partitions"], key=lambda one: int(one["partition"]))
        return TopicSeen([(one["leader"], one["replicas"]) for one in rows])

    def add_partitions(self, name: str, total: int) -> None:
        answer = self._ask("create_partitions", {name: NewPartitions(total)})
        self._check(answer.topic_errors)

    def delete_topic(self, name: str) -> None:
        self._check(self._ask("delete_topics", [name]).topic_error_codes)

    def topic_config(self, name: str) -> dict[str, str | None]:
        [answer] = self._ask("describe_configs", [ConfigResource(ConfigResourceType.TOPIC, name)])
        [(code, message, _, _, entries)] = answer.resources
        if code:
            raise LocalFailure(f"error {code} {message}")
        return {entry[0]: entry[1] for entry in entries}

    def set_topic_config(self, name: str, configs: Mapping[str, str]) -> None:
        """AlterConfigs: the only client of these that sends it, and it replaces all settings of the topic."""
        [answer] = self._ask("alter_configs", [ConfigResource(ConfigResourceType.TOPIC, name, dict(configs))])
        for code, message, *_ in answer.resources:
            if code:
                raise LocalFailure(f"error {code} {message}")

    def groups(self) -> list[str]:
        return sorted(name for name, _ in self._ask("list_consumer_groups"))

    def describe_group(self, name: str) -> tuple[str, int]:
        [answer] = self._ask("describe_consumer_groups", [name])
        [found] = answer.groups
        code, _, state, _, _, members, *_ = found
        if code:
            raise LocalFailure(f"error {code}")
        return state.lower(), len(members)

    def group_offsets(self, name: str, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        found = self._ask("list_consumer_group_offsets", name)
        return {one.partition: offset.offset for one, offset in found.items()}

    def delete_records(self, topic: str, before: int) -> None:
        self._ask("delete_records", {TopicPartition(topic, 0): RecordsToDelete(before)})

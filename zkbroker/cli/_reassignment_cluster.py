"""What ``zkbroker-reassign-partitions`` asks of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zkbroker.cli._broker_client import Brokers, error_text
from zkbroker.cli._common import DEFAULT_TIMEOUT_S, CommandError
from zkbroker.kafka.versions import (
    ALTER_PARTITION_REASSIGNMENTS,
    DESCRIBE_LOG_DIRS,
    INCREMENTAL_ALTER_CONFIGS,
    LIST_PARTITION_REASSIGNMENTS,
    METADATA,
)
from zkbroker.model.errors import ErrorCode
from zkbroker.model.reassignments import OngoingMove
from zkbroker.model.topics import TopicPartition

_TIMEOUT_MS = int(DEFAULT_TIMEOUT_S * 1000)
_TOPIC, _BROKER = 2, 4
"""Kafka's types of what has a configuration."""
_SET, _DELETE = 0, 1
"""Kafka's operations of IncrementalAlterConfigs."""
TOPIC_THROTTLES = ("leader.replication.throttled.replicas", "follower.replication.throttled.replicas")
BROKER_THROTTLES = ("leader.replication.throttled.rate", "follower.replication.throttled.rate")
OTHER_THROTTLES = ("replica.alter.log.dirs.io.max.bytes.per.second",)


class ReassignmentCluster:
    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers
        self._folders: dict[int, dict[TopicPartition, tuple[int, int]]] = {}
        """Broker → partition → (bytes, offset lag) of its replica; asked for once."""

    def __repr__(self) -> str:
        return f"ReassignmentCluster({sorted(self._brokers.addresses)})"

    def _metadata(self, topics: Sequence[str] | None) -> Any:
        rows = None if topics is None else [{"name": name, "topic_id": None} for name in topics]
        fields = {
            "topics": rows,
            "allow_auto_topic_creation": False,
            "include_cluster_authorized_operations": False,
            "include_topic_authorized_operations": False,
        }
        return self._brokers.any(METADATA, fields)

    def racks(self) -> dict[int, str | None]:
        """The live brokers, by id, with their racks."""
        return {row.node_id: row.rack for row in sorted(self._metadata([]).brokers, key=lambda row: row.node_id)}

    def assignment(self, topics: Sequence[str], *, must_exist: bool = True) -> dict[TopicPartition, tuple[int, ...]]:
        """The replicas of each partition. Raises CommandError for a topic that is not there."""
        found: dict[TopicPartition, tuple[int, ...]] = {}
        for topic in self._metadata(topics).topics if topics else ():
            if topic.error_code != ErrorCode.NONE and must_exist:
                raise CommandError(f"Topic {topic.name} not found.")
            for row in topic.partitions:
                found[TopicPartition(topic.name, row.partition_index)] = tuple(row.replica_nodes)
        return dict(sorted(found.items()))

    def ongoing(self, partitions: Sequence[TopicPartition] | None) -> dict[TopicPartition, OngoingMove]:
        """The moves under way, of these partitions or of all."""
        topics: list[dict[str, Any]] | None = None
        if partitions is not None:
            topics = [
                {"name": name, "partition_indexes": [p.partition for p in partitions if p.topic == name]}
                for name in dict.fromkeys(partition.topic for partition in partitions)
            ]
        fields = {"timeout": _TIMEOUT_MS, "topics": topics}
        answer = self._brokers.controller(LIST_PARTITION_REASSIGNMENTS, fields)
        if answer.error_code != ErrorCode.NONE:
            raise CommandError(error_text(answer.error_code, answer.error_message))
        return {
            (partition := TopicPartition(topic.name, row.partition_index)): OngoingMove(
                partition, tuple(row.replicas), tuple(row.adding_replicas), tuple(row.removing_replicas)
            )
            for topic in answer.topics
            for row in topic.partitions
        }

    def reassign(self, wanted: Mapping[TopicPartition, tuple[int, ...] | None]) -> dict[TopicPartition, str]:
        """Begin these moves, or (None) take them back. What was refused, with the reason."""
        topics = [
            {
                "name": name,
                "partitions": [
                    {"partition_index": partition.partition, "replicas": replicas}
                    for partition, replicas in wanted.items()
                    if partition.topic == name
                ],
            }
            for name in dict.fromkeys(partition.topic for partition in wanted)
        ]
        fields = {"timeout": _TIMEOUT_MS, "topics": topics}
        answer = self._brokers.controller(ALTER_PARTITION_REASSIGNMENTS, fields)
        if answer.error_code != ErrorCode.NONE:
            raise CommandError(error_text(answer.error_code, answer.error_message))
        return {
            TopicPartition(topic.name, row.partition_index): error_text(row.error_code, row.error_message)
            for topic in answer.responses
            for row in topic.partitions
            if row.error_code != ErrorCode.NONE
        }

    # Throttles

    def throttle_topic(self, topic: str, leaders: str | None, followers: str | None) -> None:
        """Which replicas are throttled; None: none. A topic that is gone needs none any more."""
        values = dict(zip(TOPIC_THROTTLES, (leaders, followers), strict=True))
        answer = self._brokers.any(INCREMENTAL_ALTER_CONFIGS, _configs(_TOPIC, topic, values))
        _check(answer, unless=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if leaders is None else None)

    def throttle_broker(self, broker_id: int, rate: int | None) -> None:
        """To so many bytes per second; None: not any more. What is not there is not asked."""
        if broker_id not in self._brokers.addresses:
            return
        values: dict[str, str | None] = dict.fromkeys(BROKER_THROTTLES, None if rate is None else str(rate))
        if rate is None:
            values |= dict.fromkeys(OTHER_THROTTLES)
        answer = self._brokers.of(broker_id, INCREMENTAL_ALTER_CONFIGS, _configs(_BROKER, str(broker_id), values))
        _check(answer)

    # Progress

    def progress(self, partition: TopicPartition, move: OngoingMove, target: Sequence[int]) -> list[dict[str, Any]]:
        """How much each new replica has, and how much there is."""
        [topic] = self._metadata([partition.topic]).topics
        row = next((row for row in topic.partitions if row.partition_index == partition.partition), None)
        in_sync = () if row is None else tuple(row.isr_nodes)
        total = None if row is None else self._replica(row.leader_id, partition)
        told = []
        for broker in target:
            if broker in move.adding or broker not in in_sync:
                has = self._replica(broker, partition)
                told.append(
                    {
                        "broker": broker,
                        "inSync": broker in in_sync,
                        "bytes": None if has is None else has[0],
                        "totalBytes": None if total is None else total[0],
                        "offsetLag": None if has is None else has[1],
                    }
                )
        return told

    def _replica(self, broker_id: int, partition: TopicPartition) -> tuple[int, int] | None:
        if broker_id not in self._brokers.addresses:
            return None
        if broker_id not in self._folders:
            try:
                answer = self._brokers.of(broker_id, DESCRIBE_LOG_DIRS, {"topics": None})
            except (OSError, CommandError):
                return None
            self._folders[broker_id] = {
                TopicPartition(topic.name, row.partition_index): (row.partition_size, row.offset_lag)
                for folder in answer.results
                for topic in folder.topics
                for row in topic.partitions
            }
        return self._folders[broker_id].get(partition)


def _configs(kind: int, name: str, values: Mapping[str, str | None]) -> dict[str, Any]:
    rows = [
        {"name": key, "config_operation": _DELETE if value is None else _SET, "value": value}
        for key, value in values.items()
    ]
    return {
        "resources": [{"resource_type": kind, "resource_name": name, "configs": rows}],
        "validate_only": False,
    }


def _check(answer: Any, unless: ErrorCode | None = None) -> None:
    for row in answer.responses:
        if row.error_code not in (ErrorCode.NONE, unless):
            raise CommandError(error_text(row.error_code, row.error_message))

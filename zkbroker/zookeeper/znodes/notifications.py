"""Sequential znodes by which brokers tell the controller something; it reads and removes them.

- ``/isr_change_notification/isr_change_0000000000``: ``{"version":1,"partitions":[{"topic":"t","partition":0}]}``;
  only brokers before Kafka 2.7 write them.
- ``/log_dir_event_notification/log_dir_event_0000000000``: ``{"version":1,"broker":1,"event":1}``; a log folder of
  the broker went offline.
"""

from __future__ import annotations

from collections.abc import Iterable

from zkbroker.model.topics import TopicPartition
from zkbroker.zookeeper.znodes.admin import encode_partition, partition_of
from zkbroker.zookeeper.znodes.codec import dump, load

ISR_CHANGE_PATH = "/isr_change_notification"
ISR_CHANGE_PREFIX = f"{ISR_CHANGE_PATH}/isr_change_"
LOG_DIR_EVENT_PATH = "/log_dir_event_notification"
LOG_DIR_EVENT_PREFIX = f"{LOG_DIR_EVENT_PATH}/log_dir_event_"

VERSION = 1

LOG_DIR_FAILURE = 1
"""The only ``event`` there is."""


def encode_isr_change(partitions: Iterable[TopicPartition]) -> bytes:
    return dump({"version": VERSION, "partitions": [encode_partition(partition) for partition in partitions]})


def decode_isr_change(path: str, data: bytes) -> tuple[TopicPartition, ...]:
    """Raises ZnodeError."""
    fields = load(path, data)
    return tuple(dict.fromkeys(partition_of(entry) for entry in fields.objects("partitions")))


def encode_log_dir_event(broker_id: int) -> bytes:
    return dump({"version": VERSION, "broker": broker_id, "event": LOG_DIR_FAILURE})


def decode_log_dir_event(path: str, data: bytes) -> int:
    """The id of the broker that lost a log folder. Raises ZnodeError."""
    return load(path, data).number("broker")

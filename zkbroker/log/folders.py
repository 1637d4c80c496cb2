"""Names of the folders in which logs lie: ``<topic>-<partition>``, and what they become when set aside."""

from __future__ import annotations

from zkbroker.model.topics import TopicPartition, topic_name_error

DELETE_SUFFIX = "-delete"
STRAY_SUFFIX = "-stray"
FOLDER_NAME_LENGTH_MAX = 255
"""Of the usual file systems."""


def parse_folder(name: str) -> TopicPartition | None:
    """The partition whose log lies in a folder of that name, None if it is not a log's."""
    topic, dash, number = name.rpartition("-")
    if (
        not dash
        or not number.isascii()
        or not number.isdigit()
        or str(int(number)) != number
        or topic_name_error(topic) is not None
    ):
        return None
    return TopicPartition(topic, int(number))


def renamed_folder(partition: TopicPartition, unique: str, suffix: str) -> str:
    """Kafka's ``<topic>-<partition>.<unique><suffix>``; the topic is cut where the name would be too long."""
    ending = f"-{partition.partition}.{unique}{suffix}"
    return partition.topic[: FOLDER_NAME_LENGTH_MAX - len(ending)] + ending

"""The persistent znodes that the first broker of a cluster creates, all empty (Kafka's ``PersistentZkPaths``).

Parents (``/brokers``, ``/config``, ``/admin``) come with their children. ``/cluster/id``, ``/controller_epoch`` and
``/feature`` have content and are created by who knows it.
"""

from __future__ import annotations

from zkbroker.zookeeper.znodes import admin, brokers, config, notifications, producer_ids, topics

CONSUMERS_PATH = "/consumers"
"""Root of the consumers that kept their offsets in ZooKeeper, before Kafka 0.9; created, never used."""

PERSISTENT_PATHS: tuple[str, ...] = (
    CONSUMERS_PATH,
    brokers.IDS_PATH,
    topics.TOPICS_PATH,
    config.CHANGES_PATH,
    admin.DELETE_TOPICS_PATH,
    brokers.SEQID_PATH,
    notifications.ISR_CHANGE_PATH,
    producer_ids.PATH,
    notifications.LOG_DIR_EVENT_PATH,
    *(config.entity_type_path(entity_type) for entity_type in config.ENTITY_TYPES),
)

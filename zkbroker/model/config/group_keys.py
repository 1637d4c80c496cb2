"""Kafka's broker keys: consumer groups and share groups."""

from __future__ import annotations

from zkbroker.model.config.keys import Key, accepted, supported
from zkbroker.model.config.notes import NO_KIP_848, NO_SHARE
from zkbroker.model.config.values import (
    BOOLEAN,
    INT,
    INT_MAX,
    LIST,
    LONG,
    SHORT,
    STRING,
    EachOf,
    OneOf,
    at_least,
    between,
)

_CONSUMER_GROUPS = (
    supported(
        "offsets.topic.num.partitions",
        INT,
        50,
        "Partitions of __consumer_offsets; not to be changed once it exists.",
        at_least(1),
    ),
    supported("offsets.topic.replication.factor", SHORT, 3, "Replicas of __consumer_offsets.", at_least(1)),
    supported(
        "offsets.topic.segment.bytes",
        INT,
        104_857_600,
        "Segment size of __consumer_offsets; small, so that loading and compacting are quick.",
        at_least(1),
    ),
    supported(
        "offsets.topic.compression.codec",
        INT,
        0,
        "Number of the codec in which committed offsets are stored.",
        between(0, 4),
    ),
    supported(
        "offsets.retention.minutes",
        INT,
        10080,
        "How long the offsets of a group without members are kept.",
        at_least(1),
    ),
    supported(
        "offsets.retention.check.interval.ms",
        LONG,
        600000,
        "How often is looked for offsets to forget.",
        at_least(1),
    ),
    supported(
        "offsets.load.buffer.size",
        INT,
        5_242_880,
        "How many bytes are read at a time when a coordinator loads its groups.",
        at_least(1),
        note="at most 524288 bytes: more would hold up the reactor",
    ),
    supported(
        "offsets.commit.timeout.ms",
        INT,
        5000,
        "How long a commit may wait for its replicas.",
        at_least(1),
    ),
    accepted(
        "offsets.commit.required.acks",
        SHORT,
        -1,
        "How many replicas must have a commit; -1 for all of the ISR.",
        note="a commit that was acknowledged is never lost: always -1",
    ),
    supported(
        "offset.metadata.max.bytes",
        INT,
        4096,
        "The longest note that may come with a committed offset.",
    ),
    supported(
        "group.min.session.timeout.ms",
        INT,
        6000,
        "The shortest session timeout a member may ask for.",
    ),
    supported(
        "group.max.session.timeout.ms",
        INT,
        1_800_000,
        "The longest session timeout a member may ask for.",
    ),
    supported(
        "group.initial.rebalance.delay.ms",
        INT,
        3000,
        "How long a new group waits for more members before it shares out partitions.",
    ),
    supported("group.max.size", INT, INT_MAX, "How many members a group may have.", at_least(1)),
    accepted(
        "group.coordinator.append.linger.ms",
        INT,
        10,
        "How long the new coordinator gathers records before it writes them.",
        at_least(0),
        note=NO_KIP_848,
    ),
    accepted(
        "group.coordinator.new.enable",
        BOOLEAN,
        False,
        "Whether the new coordinator of KIP-848 is used.",
        note=NO_KIP_848,
        is_internal=True,
    ),
    accepted(
        "group.coordinator.rebalance.protocols",
        LIST,
        ("classic",),
        "Which protocols groups may use.",
        EachOf(("consumer", "classic", "share", "unknown")),
        note=NO_KIP_848,
    ),
    accepted(
        "group.coordinator.threads", INT, 1, "How many threads the new coordinator uses.", at_least(1), note=NO_KIP_848
    ),
    accepted(
        "group.consumer.assignors",
        LIST,
        (
            "org.apache.kafka.coordinator.group.assignor.UniformAssignor",
            "org.apache.kafka.coordinator.group.assignor.RangeAssignor",
        ),
        "Classes that assign partitions at the broker, the first one by default.",
        note=NO_KIP_848,
    ),
    accepted(
        "group.consumer.heartbeat.interval.ms",
        INT,
        5000,
        "Heartbeat interval that members of new groups are told.",
        at_least(1),
        note=NO_KIP_848,
    ),
    accepted(
        "group.consumer.max.heartbeat.interval.ms",
        INT,
        15000,
        "Longest heartbeat interval a new group may be given.",
        at_least(1),
        note=NO_KIP_848,
    ),
    accepted(
        "group.consumer.min.heartbeat.interval.ms",
        INT,
        5000,
        "Shortest heartbeat interval a new group may be given.",
        at_least(1),
        note=NO_KIP_848,
    ),
    accepted(
        "group.consumer.session.timeout.ms",
        INT,
        45000,
        "Session timeout of members of new groups.",
        at_least(1),
        note=NO_KIP_848,
    ),
    accepted(
        "group.consumer.max.session.timeout.ms",
        INT,
        60000,
        "Longest session timeout a new group may be given.",
        at_least(1),
        note=NO_KIP_848,
    ),
    accepted(
        "group.consumer.min.session.timeout.ms",
        INT,
        45000,
        "Shortest session timeout a new group may be given.",
        at_least(1),
        note=NO_KIP_848,
    ),
    accepted(
        "group.consumer.max.size", INT, INT_MAX, "How many members a new group may have.", at_least(1), note=NO_KIP_848
    ),
    accepted(
        "group.consumer.migration.policy",
        STRING,
        "disabled",
        "Whether classic groups turn into new ones and back.",
        OneOf(("DISABLED", "DOWNGRADE", "UPGRADE", "BIDIRECTIONAL"), ignores_case=True),
        note=NO_KIP_848,
        is_internal=True,
    ),
)

_SHARE_GROUPS = (
    accepted(
        "group.share.enable",
        BOOLEAN,
        False,
        "Whether share groups (KIP-932) are offered.",
        note=NO_SHARE,
        is_internal=True,
    ),
    accepted(
        "group.share.delivery.count.limit",
        INT,
        5,
        "How often a record is handed out before it counts as undeliverable.",
        between(2, 10),
        note=NO_SHARE,
    ),
    accepted(
        "group.share.heartbeat.interval.ms",
        INT,
        5000,
        "Heartbeat interval that members of share groups are told.",
        at_least(1),
        note=NO_SHARE,
    ),
    accepted(
        "group.share.max.heartbeat.interval.ms",
        INT,
        15000,
        "Longest heartbeat interval a share group may be given.",
        at_least(1),
        note=NO_SHARE,
    ),
    accepted(
        "group.share.min.heartbeat.interval.ms",
        INT,
        5000,
        "Shortest heartbeat interval a share group may be given.",
        at_least(1),
        note=NO_SHARE,
    ),
    accepted(
        "group.share.session.timeout.ms",
        INT,
        45000,
        "Session timeout of members of share groups.",
        at_least(1),
        note=NO_SHARE,
    ),
    accepted(
        "group.share.max.session.timeout.ms",
        INT,
        60000,
        "Longest session timeout a share group may be given.",
        at_least(1),
        note=NO_SHARE,
    ),
    accepted(
        "group.share.min.session.timeout.ms",
        INT,
        45000,
        "Shortest session timeout a share group may be given.",
        at_least(1),
        note=NO_SHARE,
    ),
    accepted(
        "group.share.max.groups", SHORT, 10, "How many share groups there may be.", between(1, 100), note=NO_SHARE
    ),
    accepted(
        "group.share.max.size", SHORT, 200, "How many members a share group may have.", between(10, 1000), note=NO_SHARE
    ),
    accepted(
        "group.share.partition.max.record.locks",
        INT,
        200,
        "How many records of a partition may be handed out at a time.",
        between(100, 10000),
        note=NO_SHARE,
    ),
    accepted(
        "group.share.record.lock.duration.ms",
        INT,
        30000,
        "How long a member may keep a record.",
        between(1000, 60000),
        note=NO_SHARE,
    ),
    accepted(
        "group.share.max.record.lock.duration.ms",
        INT,
        60000,
        "Longest time to keep a record that a share group may be given.",
        between(30000, 3_600_000),
        note=NO_SHARE,
    ),
    accepted(
        "group.share.min.record.lock.duration.ms",
        INT,
        15000,
        "Shortest time to keep a record that a share group may be given.",
        between(1000, 30000),
        note=NO_SHARE,
    ),
)

GROUP_KEYS: tuple[tuple[str, tuple[Key, ...]], ...] = (
    ("Consumer groups", _CONSUMER_GROUPS),
    ("Share groups", _SHARE_GROUPS),
)
"""(section, its keys), in the order of the reference."""

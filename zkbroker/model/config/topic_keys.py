"""Kafka's topic keys, without zkbroker's own."""

from __future__ import annotations

from zkbroker.model.config.keys import Key, accepted, refused, supported
from zkbroker.model.config.notes import NO_TIERS, THROTTLED, VERSION
from zkbroker.model.config.values import (
    BOOLEAN,
    DOUBLE,
    INT,
    LIST,
    LONG,
    LONG_MAX,
    STRING,
    Between,
    EachOf,
    at_least,
    between,
    one_of,
)

KAFKA_TOPIC_KEYS: tuple[Key, ...] = (
    supported(
        "cleanup.policy",
        LIST,
        ("delete",),
        "What happens to old records: delete them, or compact them to the last one of each key.",
        EachOf(("compact", "delete")),
    ),
    supported(
        "compression.type",
        STRING,
        "producer",
        "The codec that batches are stored in; producer keeps the producer's own.",
        one_of("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"),
    ),
    supported(
        "compression.gzip.level",
        INT,
        -1,
        "Level of gzip where the broker compresses.",
        Between(1, 9, -1),
    ),
    supported(
        "compression.lz4.level",
        INT,
        9,
        "Level of lz4 where the broker compresses.",
        between(1, 17),
    ),
    supported(
        "compression.zstd.level",
        INT,
        3,
        "Level of zstd where the broker compresses.",
        between(-131_072, 22),
    ),
    supported(
        "delete.retention.ms",
        LONG,
        86_400_000,
        "How long the mark of a deleted key is kept in a compacted topic.",
        at_least(0),
    ),
    supported("file.delete.delay.ms", LONG, 60000, "How long a deleted segment's files stay on disk.", at_least(0)),
    supported(
        "flush.messages",
        LONG,
        LONG_MAX,
        "After how many records a partition is forced to disk; 1: acknowledged means on disk.",
        at_least(1),
    ),
    supported("flush.ms", LONG, LONG_MAX, "After how many milliseconds a record is forced to disk.", at_least(0)),
    supported(
        "follower.replication.throttled.replicas",
        LIST,
        (),
        "Replicas whose fetching is throttled while they catch up, as partition:broker pairs or *.",
        THROTTLED,
    ),
    supported(
        "index.interval.bytes", INT, 4096, "After how many bytes of records an index gets its next entry.", at_least(0)
    ),
    supported(
        "leader.replication.throttled.replicas",
        LIST,
        (),
        "Replicas whose sending to others that catch up is throttled, as partition:broker pairs or *.",
        THROTTLED,
    ),
    accepted(
        "local.retention.bytes",
        LONG,
        -2,
        "How many bytes stay on local disks when older ones are in a tiered store.",
        at_least(-2),
        note=NO_TIERS,
    ),
    accepted(
        "local.retention.ms",
        LONG,
        -2,
        "How long records stay on local disks when older ones are in a tiered store.",
        at_least(-2),
        note=NO_TIERS,
    ),
    supported(
        "max.compaction.lag.ms",
        LONG,
        LONG_MAX,
        "How long a record stays uncompacted at most.",
        at_least(1),
    ),
    supported(
        "max.message.bytes", INT, 1_048_588, "The largest record batch that is taken, after compression.", at_least(0)
    ),
    accepted(
        "message.downconversion.enable",
        BOOLEAN,
        True,
        "Whether batches are rewritten for consumers that know only old formats.",
        note="only the current record format is stored and served",
    ),
    accepted(
        "message.format.version",
        STRING,
        "3.0-IV1",
        "The record format of old Kafka versions.",
        VERSION,
        note="only the current record format is stored and served",
    ),
    supported(
        "message.timestamp.after.max.ms",
        LONG,
        LONG_MAX,
        "How far a record's time may lie after the broker's.",
        at_least(0),
    ),
    supported(
        "message.timestamp.before.max.ms",
        LONG,
        LONG_MAX,
        "How far a record's time may lie before the broker's.",
        at_least(0),
    ),
    supported(
        "message.timestamp.difference.max.ms",
        LONG,
        LONG_MAX,
        "An old name for both limits at once, for where they are not written.",
        at_least(0),
    ),
    supported(
        "message.timestamp.type",
        STRING,
        "CreateTime",
        "Whether a record carries the producer's time or the time of its append.",
        one_of("CreateTime", "LogAppendTime"),
    ),
    supported(
        "min.cleanable.dirty.ratio",
        DOUBLE,
        0.5,
        "Which part of a log must be uncompacted before it is compacted.",
        between(0, 1),
    ),
    supported(
        "min.compaction.lag.ms",
        LONG,
        0,
        "How long a record stays uncompacted at least.",
        at_least(0),
    ),
    supported(
        "min.insync.replicas",
        INT,
        1,
        "How many replicas must be in sync for a write with acks=all to be taken.",
        at_least(1),
    ),
    accepted(
        "preallocate",
        BOOLEAN,
        False,
        "Whether a new segment's file gets its full size at once.",
        note="files grow as they are written",
    ),
    accepted("remote.log.copy.disable", BOOLEAN, False, "Whether copying to a tiered store stops.", note=NO_TIERS),
    accepted(
        "remote.log.delete.on.disable",
        BOOLEAN,
        False,
        "Whether switching tiered storage off deletes what is there.",
        note=NO_TIERS,
    ),
    refused(
        "remote.storage.enable",
        BOOLEAN,
        False,
        "Whether old segments move to a tiered store.",
        note="there is no tiered storage: segments there could not be read",
        harmless="false",
    ),
    supported(
        "retention.bytes", LONG, -1, "How many bytes a partition keeps; older segments are deleted. -1: no limit."
    ),
    supported(
        "retention.ms", LONG, 604_800_000, "How long records are kept, in milliseconds; -1 for ever.", at_least(-1)
    ),
    supported(
        "segment.bytes", INT, 1_073_741_824, "Size at which a segment is closed and a new one begun.", at_least(14)
    ),
    supported(
        "segment.index.bytes", INT, 10_485_760, "Size at which an index is full and its segment closed.", at_least(4)
    ),
    supported(
        "segment.jitter.ms",
        LONG,
        0,
        "Up to so many milliseconds are taken off a segment's age at random, lest all close at once.",
        at_least(0),
    ),
    supported("segment.ms", LONG, 604_800_000, "Age at which a segment is closed.", at_least(1)),
    supported(
        "unclean.leader.election.enable",
        BOOLEAN,
        False,
        "Whether a replica outside the ISR may lead when no other is left, at the price of lost records.",
    ),
)

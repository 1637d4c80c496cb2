"""Kafka's broker keys: topics, replication, controller and shutdown."""

from __future__ import annotations

from zkbroker.model.config.keys import CLUSTER_WIDE, Key, accepted, refused, supported
from zkbroker.model.config.notes import KERNEL_BUFFERS, NO_PLUGIN, OWN_TIMEOUTS
from zkbroker.model.config.values import BOOLEAN, CLASS, INT, LONG, STRING, at_least

_TOPICS = (
    supported("auto.create.topics.enable", BOOLEAN, True, "Whether asking for a topic that does not exist creates it."),
    supported("delete.topic.enable", BOOLEAN, True, "Whether topics may be deleted."),
    supported("num.partitions", INT, 1, "Partitions of a topic that is created without saying how many.", at_least(1)),
    supported(
        "default.replication.factor",
        INT,
        1,
        "Replicas of a topic that is created without saying how many.",
        at_least(1),
    ),
    supported(
        "min.insync.replicas",
        INT,
        1,
        "How many replicas must be in sync for a write with acks=all to be taken.",
        at_least(1),
        scope=CLUSTER_WIDE,
    ),
    supported(
        "unclean.leader.election.enable",
        BOOLEAN,
        False,
        "Whether a replica outside the ISR may lead when no other is left, at the price of lost records.",
        scope=CLUSTER_WIDE,
    ),
    accepted(
        "unclean.leader.election.interval.ms",
        LONG,
        300000,
        "How often Kafka's KRaft controller looks for partitions to elect uncleanly.",
        at_least(1),
        note="the controller acts when something changes",
        is_internal=True,
    ),
    accepted(
        "eligible.leader.replicas.enable",
        BOOLEAN,
        False,
        "Whether the last members of an ISR stay eligible as leaders (KIP-966).",
        note="not yet: it comes with the last-replica rule",
    ),
    refused(
        "create.topic.policy.class.name",
        CLASS,
        None,
        "A Java class that must agree to the creation of topics.",
        note=NO_PLUGIN,
        harmless="",
    ),
    refused(
        "alter.config.policy.class.name",
        CLASS,
        None,
        "A Java class that must agree to changes of settings.",
        note=NO_PLUGIN,
        harmless="",
    ),
)

_REPLICATION = (
    supported(
        "replica.lag.time.max.ms",
        LONG,
        30000,
        "A follower that has not caught up for so long leaves the ISR.",
        at_least(1),
    ),
    supported(
        "replica.fetch.max.bytes",
        INT,
        1_048_576,
        "How many bytes a follower asks for per partition; a larger first batch is sent all the same.",
        at_least(0),
    ),
    supported(
        "replica.fetch.response.max.bytes",
        INT,
        10_485_760,
        "How many bytes a follower asks for in one answer.",
        at_least(0),
    ),
    supported(
        "replica.fetch.min.bytes", INT, 1, "How many bytes the leader should wait for before it answers a follower."
    ),
    supported("replica.fetch.wait.max.ms", INT, 500, "How long the leader may wait for them.", at_least(0)),
    supported(
        "replica.fetch.backoff.ms",
        INT,
        1000,
        "How long a follower waits before it fetches again after an error.",
        at_least(0),
    ),
    supported(
        "replica.high.watermark.checkpoint.interval.ms",
        LONG,
        5000,
        "How often the high watermarks are written to disk.",
        at_least(1),
    ),
    supported(
        "replica.socket.timeout.ms",
        INT,
        30000,
        "After how long without an answer a follower gives up a connection to a leader.",
    ),
    accepted(
        "replica.socket.receive.buffer.bytes",
        INT,
        65536,
        "Size of the receive buffer of a follower's socket.",
        note=KERNEL_BUFFERS,
    ),
    accepted(
        "num.replica.fetchers",
        INT,
        1,
        "How many threads fetch from each leader.",
        note="one connection with two sessions serves all partitions of a leader",
        scope=CLUSTER_WIDE,
    ),
    accepted(
        "num.replica.alter.log.dirs.threads",
        INT,
        None,
        "How many threads move replicas between data folders.",
        note="not yet: replicas stay in the folder they were made in",
    ),
    accepted(
        "replica.selector.class",
        STRING,
        None,
        "The Java class that chooses the replica a consumer reads from.",
        note="consumers read from the leader only",
    ),
)

_CONTROLLER_AND_SHUTDOWN = (
    supported(
        "auto.leader.rebalance.enable",
        BOOLEAN,
        True,
        "Whether the controller gives leadership back to preferred replicas.",
    ),
    supported(
        "leader.imbalance.check.interval.seconds",
        LONG,
        300,
        "How often the controller looks for leaders that are not the preferred ones.",
        at_least(1),
    ),
    supported(
        "leader.imbalance.per.broker.percentage",
        INT,
        10,
        "How many percent of a broker's preferred partitions others may lead before it gets them back.",
    ),
    supported(
        "controlled.shutdown.enable", BOOLEAN, True, "Whether a stopping broker first hands its leaderships over."
    ),
    accepted(
        "controlled.shutdown.max.retries",
        INT,
        3,
        "How often the handing over is tried again.",
        note="the handing over is tried for a bounded time",
    ),
    accepted(
        "controlled.shutdown.retry.backoff.ms",
        LONG,
        5000,
        "How long to wait between two tries.",
        note="the handing over is tried for a bounded time",
    ),
    accepted(
        "controller.socket.timeout.ms",
        INT,
        30000,
        "How long the controller waits for a broker's answer.",
        note=OWN_TIMEOUTS,
    ),
)

REPLICATION_KEYS: tuple[tuple[str, tuple[Key, ...]], ...] = (
    ("Topics", _TOPICS),
    ("Replication", _REPLICATION),
    ("Controller and shutdown", _CONTROLLER_AND_SHUTDOWN),
)
"""(section, its keys), in the order of the reference."""

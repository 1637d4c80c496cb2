"""Kafka's broker keys: transactions, quotas and metrics."""

from __future__ import annotations

from zkbroker.model.config.keys import CLUSTER_WIDE, Key, accepted, refused
from zkbroker.model.config.notes import JAVA_ONLY, KRAFT_ONLY, LATER_QUOTAS, LATER_TRANSACTIONS, NO_PLUGIN
from zkbroker.model.config.values import BOOLEAN, CLASS, INT, LIST, LONG, SHORT, STRING, at_least

_TRANSACTIONS = (
    accepted(
        "transaction.state.log.num.partitions",
        INT,
        50,
        "Partitions of __transaction_state; not to be changed once it exists.",
        at_least(1),
        note=LATER_TRANSACTIONS,
    ),
    accepted(
        "transaction.state.log.replication.factor",
        SHORT,
        3,
        "Replicas of __transaction_state.",
        at_least(1),
        note=LATER_TRANSACTIONS,
    ),
    accepted(
        "transaction.state.log.min.isr",
        INT,
        2,
        "How many replicas of __transaction_state must be in sync for a write.",
        at_least(1),
        note=LATER_TRANSACTIONS,
    ),
    accepted(
        "transaction.state.log.segment.bytes",
        INT,
        104_857_600,
        "Segment size of __transaction_state.",
        at_least(1),
        note=LATER_TRANSACTIONS,
    ),
    accepted(
        "transaction.state.log.load.buffer.size",
        INT,
        5_242_880,
        "How many bytes are read at a time when a coordinator loads its transactions.",
        at_least(1),
        note=LATER_TRANSACTIONS,
    ),
    accepted(
        "transaction.max.timeout.ms",
        INT,
        900000,
        "The longest a producer may ask for a transaction to stay open.",
        at_least(1),
        note=LATER_TRANSACTIONS,
    ),
    accepted(
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        INT,
        10000,
        "How often is looked for transactions that were open too long.",
        at_least(1),
        note=LATER_TRANSACTIONS,
    ),
    accepted(
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        INT,
        3_600_000,
        "How often is looked for transactional ids to forget.",
        at_least(1),
        note=LATER_TRANSACTIONS,
    ),
    accepted(
        "transaction.partition.verification.enable",
        BOOLEAN,
        True,
        "Whether a write in a transaction is checked against the coordinator first (KIP-890).",
        note=LATER_TRANSACTIONS,
        scope=CLUSTER_WIDE,
    ),
    accepted(
        "transactional.id.expiration.ms",
        INT,
        604_800_000,
        "How long a transactional id that is not used is remembered.",
        at_least(1),
        note=LATER_TRANSACTIONS,
    ),
)

_QUOTAS = (
    accepted(
        "quota.window.num", INT, 11, "How many samples a client quota is measured over.", at_least(1), note=LATER_QUOTAS
    ),
    accepted("quota.window.size.seconds", INT, 1, "How long one such sample is.", at_least(1), note=LATER_QUOTAS),
    accepted(
        "replication.quota.window.num",
        INT,
        11,
        "How many samples a replication quota is measured over.",
        at_least(1),
        note=LATER_QUOTAS,
    ),
    accepted(
        "replication.quota.window.size.seconds", INT, 1, "How long one such sample is.", at_least(1), note=LATER_QUOTAS
    ),
    accepted(
        "alter.log.dirs.replication.quota.window.num",
        INT,
        11,
        "How many samples the quota of moves between folders is measured over.",
        at_least(1),
        note=LATER_QUOTAS,
    ),
    accepted(
        "alter.log.dirs.replication.quota.window.size.seconds",
        INT,
        1,
        "How long one such sample is.",
        at_least(1),
        note=LATER_QUOTAS,
    ),
    accepted(
        "controller.quota.window.num",
        INT,
        11,
        "How many samples the quota of topic changes is measured over.",
        at_least(1),
        note=LATER_QUOTAS,
    ),
    accepted(
        "controller.quota.window.size.seconds", INT, 1, "How long one such sample is.", at_least(1), note=LATER_QUOTAS
    ),
    refused(
        "client.quota.callback.class",
        CLASS,
        None,
        "A Java class that decides the quotas of clients.",
        note=NO_PLUGIN,
        harmless="",
    ),
)

_METRICS = (
    accepted("metric.reporters", LIST, (), "Java classes that get the metrics.", note=JAVA_ONLY, scope=CLUSTER_WIDE),
    accepted("auto.include.jmx.reporter", BOOLEAN, True, "Whether JMX is among them.", note=JAVA_ONLY),
    accepted(
        "kafka.metrics.reporters", LIST, (), "Java classes that get the metrics of the older library.", note=JAVA_ONLY
    ),
    accepted("kafka.metrics.polling.interval.secs", INT, 10, "How often they are called.", at_least(1), note=JAVA_ONLY),
    accepted("metrics.num.samples", INT, 2, "How many samples a metric is computed from.", at_least(1), note=JAVA_ONLY),
    accepted("metrics.sample.window.ms", LONG, 30000, "How long one such sample is.", at_least(1), note=JAVA_ONLY),
    accepted("metrics.recording.level", STRING, "INFO", "Which metrics are recorded.", note=JAVA_ONLY),
    accepted(
        "telemetry.max.bytes",
        INT,
        1_048_576,
        "The largest bundle of metrics that a client may push.",
        at_least(1),
        note=KRAFT_ONLY,
    ),
)

TRANSACTION_KEYS: tuple[tuple[str, tuple[Key, ...]], ...] = (
    ("Transactions", _TRANSACTIONS),
    ("Quotas", _QUOTAS),
    ("Metrics", _METRICS),
)
"""(section, its keys), in the order of the reference."""

"""Kafka's broker keys: identity, listeners, connections and ZooKeeper."""

from __future__ import annotations

from zkbroker.model.config.keys import CLUSTER_WIDE, PER_BROKER, Key, accepted, refused, supported
from zkbroker.model.config.notes import (
    JAVA_ONLY,
    KERNEL_BUFFERS,
    LATER_LIMITS,
    LATER_SECURITY,
    NO_PURGE,
    ONE_REACTOR,
    OWN_TIMEOUTS,
)
from zkbroker.model.config.values import BOOLEAN, INT, INT_MAX, LONG, STRING, at_least, between, one_of

_IDENTITY_AND_PLACE = (
    supported(
        "broker.id",
        INT,
        -1,
        "This broker's number in the cluster; -1 takes a free one above reserved.broker.max.id from ZooKeeper.",
        at_least(-1),
    ),
    supported(
        "broker.id.generation.enable",
        BOOLEAN,
        True,
        "Whether a broker without a number may take one from /brokers/seqid.",
    ),
    supported(
        "reserved.broker.max.id",
        INT,
        1000,
        "The highest number that people give out by hand; generated ones start above it.",
        at_least(0),
    ),
    supported("node.id", INT, -1, "Another name for broker.id; where both are written they must agree."),
    supported(
        "broker.rack",
        STRING,
        None,
        "The rack or zone this broker stands in; new topics spread their replicas over racks.",
    ),
    supported(
        "log.dir",
        STRING,
        "/tmp/zkbroker-logs",
        "The data folder, used where log.dirs is not written.",
        note="Kafka's default is /tmp/kafka-logs; a folder of that name may hold another cluster's data.",
    ),
    supported(
        "log.dirs",
        STRING,
        None,
        "All data folders, comma-separated; each should be its own disk. New replicas go to the one with the fewest.",
        is_comma_list=True,
    ),
)

_LISTENERS = (
    supported(
        "listeners",
        STRING,
        "PLAINTEXT://:9092",
        "Where this broker listens: NAME://host:port, comma-separated. One, REPLICATION://, is for the brokers.",
        note="Without a REPLICATION listener one is added on the first listener's host, 10000 ports above it.",
        scope=PER_BROKER,
        is_comma_list=True,
    ),
    supported(
        "advertised.listeners",
        STRING,
        None,
        "The same names with the hosts and ports by which others reach them; written to ZooKeeper. Default: listeners.",
        scope=PER_BROKER,
        is_comma_list=True,
    ),
    supported(
        "listener.security.protocol.map",
        STRING,
        "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "Which security protocol each listener name stands for, as NAME:PROTOCOL pairs.",
        note="PLAINTEXT only for now; REPLICATION stands for PLAINTEXT unless written.",
        scope=PER_BROKER,
        is_comma_list=True,
    ),
    accepted(
        "inter.broker.listener.name",
        STRING,
        None,
        "The listener that brokers of Kafka use among themselves.",
        note="brokers meet on the REPLICATION listener; only its advertised host is taken from here",
    ),
    accepted(
        "security.inter.broker.protocol",
        STRING,
        "PLAINTEXT",
        "The security protocol that brokers of Kafka use among themselves.",
        one_of("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
        note="brokers meet on the REPLICATION listener",
    ),
    accepted(
        "control.plane.listener.name",
        STRING,
        None,
        "A listener of its own for requests from the controller.",
        note="the controller speaks on the REPLICATION listener",
    ),
    accepted(
        "early.start.listeners",
        STRING,
        None,
        "Listeners that Kafka opens before authorization is ready.",
        note="there is no authorization to wait for",
    ),
)

_CONNECTIONS_AND_REQUESTS = (
    supported(
        "connections.max.idle.ms", LONG, 600000, "A client connection on which nothing happens for so long is closed."
    ),
    supported(
        "max.connections",
        INT,
        INT_MAX,
        "How many client connections may be open at a time.",
        at_least(0),
        scope=CLUSTER_WIDE,
    ),
    supported(
        "max.connections.per.ip",
        INT,
        INT_MAX,
        "How many connections one address may hold.",
        at_least(0),
        scope=CLUSTER_WIDE,
    ),
    supported(
        "max.connections.per.ip.overrides",
        STRING,
        "",
        "Other limits for single addresses, as address:count pairs.",
        note="Names are taken, but not looked up: only addresses have an effect.",
        scope=CLUSTER_WIDE,
    ),
    accepted(
        "max.connection.creation.rate",
        INT,
        INT_MAX,
        "How many connections may be accepted per second.",
        at_least(0),
        note=LATER_LIMITS,
        scope=CLUSTER_WIDE,
    ),
    supported(
        "socket.request.max.bytes",
        INT,
        104_857_600,
        "The largest request a client may send; a longer one closes its connection.",
        at_least(1),
    ),
    supported(
        "queued.max.request.bytes",
        LONG,
        268_435_456,
        "Memory for requests that were read but not answered, over all connections; beyond it reading pauses.",
        note="Kafka's default is -1, no limit; here the limit is never off.",
    ),
    accepted(
        "queued.max.requests",
        INT,
        500,
        "How many requests may wait for a thread.",
        at_least(1),
        note="requests wait in their connections, of which each has at most 100",
    ),
    accepted(
        "socket.listen.backlog.size",
        INT,
        50,
        "How many connections may wait to be accepted.",
        at_least(1),
        note="up to 1024 connections may wait, so that all clients of a failed broker can come at once",
    ),
    accepted(
        "socket.receive.buffer.bytes", INT, 102400, "Size of a client socket's receive buffer.", note=KERNEL_BUFFERS
    ),
    accepted("socket.send.buffer.bytes", INT, 102400, "Size of a client socket's send buffer.", note=KERNEL_BUFFERS),
    accepted(
        "socket.connection.setup.timeout.ms",
        LONG,
        10000,
        "First limit on how long connecting to another broker may take.",
        note=OWN_TIMEOUTS,
    ),
    accepted(
        "socket.connection.setup.timeout.max.ms",
        LONG,
        30000,
        "Highest limit on how long connecting to another broker may take.",
        note=OWN_TIMEOUTS,
    ),
    supported(
        "request.timeout.ms", INT, 30000, "How long a request may wait for what it asks of other brokers.", at_least(1)
    ),
    supported(
        "fetch.max.bytes",
        INT,
        57_671_680,
        "The most bytes that one answer to a fetch may hold, whatever the client asks for.",
        at_least(1024),
    ),
    supported(
        "max.incremental.fetch.session.cache.slots",
        INT,
        1000,
        "How many fetch sessions of clients are remembered.",
        at_least(0),
    ),
    accepted(
        "max.request.partition.size.limit",
        INT,
        2000,
        "How many partitions one answer to DescribeTopicPartitions may name.",
        at_least(1),
        note="that request is not offered",
    ),
    accepted(
        "num.network.threads",
        INT,
        3,
        "Threads that read and write sockets.",
        at_least(1),
        note=ONE_REACTOR,
        scope=CLUSTER_WIDE,
    ),
    accepted(
        "num.io.threads", INT, 8, "Threads that work on requests.", at_least(1), note=ONE_REACTOR, scope=CLUSTER_WIDE
    ),
    accepted(
        "background.threads", INT, 10, "Threads for background work.", at_least(1), note=ONE_REACTOR, scope=CLUSTER_WIDE
    ),
    accepted(
        "connection.failed.authentication.delay.ms",
        INT,
        100,
        "How long to wait before closing a connection that failed to authenticate.",
        at_least(0),
        note=LATER_SECURITY,
    ),
    accepted(
        "connections.max.reauth.ms", LONG, 0, "After how long a client must authenticate again.", note=LATER_SECURITY
    ),
    accepted(
        "fetch.purgatory.purge.interval.requests",
        INT,
        1000,
        "After how many finished fetches the waiting room is swept.",
        note=NO_PURGE,
    ),
    accepted(
        "producer.purgatory.purge.interval.requests",
        INT,
        1000,
        "After how many finished produces the waiting room is swept.",
        note=NO_PURGE,
    ),
    accepted(
        "delete.records.purgatory.purge.interval.requests",
        INT,
        1,
        "After how many finished deletions of records the waiting room is swept.",
        note=NO_PURGE,
    ),
)

_ZOOKEEPER = (
    supported(
        "zookeeper.connect",
        STRING,
        None,
        "The ensemble's servers as host:port, comma-separated, with an optional chroot after the last.",
        is_comma_list=True,
    ),
    supported(
        "zookeeper.session.timeout.ms",
        INT,
        6000,
        "How long ZooKeeper keeps this broker's session after its last sign of life; then it is replaced.",
        between(1000, 3_600_000),
        note="Kafka's default is 18000: a killed leader should be replaced sooner.",
    ),
    supported(
        "zookeeper.connection.timeout.ms",
        INT,
        None,
        "How long to wait for ZooKeeper at start. Default: zookeeper.session.timeout.ms.",
        at_least(1),
    ),
    accepted(
        "zookeeper.max.in.flight.requests",
        INT,
        10,
        "How many requests may be unanswered before the next one waits.",
        at_least(1),
        note="writes of many states travel in multis, several in flight",
    ),
    refused(
        "zookeeper.set.acl",
        BOOLEAN,
        False,
        "Whether the znodes are made so that only the brokers may change them.",
        note="access rights in ZooKeeper are not supported yet",
        harmless="false",
    ),
    accepted(
        "zookeeper.clientCnxnSocket",
        STRING,
        None,
        "The Java class that holds the connection to ZooKeeper.",
        note=JAVA_ONLY,
    ),
)

SERVER_KEYS: tuple[tuple[str, tuple[Key, ...]], ...] = (
    ("Identity and place", _IDENTITY_AND_PLACE),
    ("Listeners", _LISTENERS),
    ("Connections and requests", _CONNECTIONS_AND_REQUESTS),
    ("ZooKeeper", _ZOOKEEPER),
)
"""(section, its keys), in the order of the reference."""

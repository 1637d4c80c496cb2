"""Brokers, and the cluster as the controller tells it to every broker: snapshots and numbered deltas."""

from __future__ import annotations

from typing import NamedTuple

from zkbroker.model.topics import PartitionState, TopicPartition

REPLICATION_LISTENER = "REPLICATION"
"""Name of the listener on which brokers speak the line protocol to each other."""


class Endpoint(NamedTuple):
    """One listener of a broker as others reach it: ``NAME://host:port``."""

    listener: str
    """Listener name in capitals, for example PLAINTEXT, INTERNAL, REPLICATION."""
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.listener}://{host}:{self.port}"


class LossyReplica(NamedTuple):
    """A replica that came back without records that it may be counted for: its broker's machine lost power before they
    were flushed, its folder was emptied, or its log was damaged."""

    topic: str
    partition: int
    topic_id: str
    """Empty where it is not known."""
    last_epoch: int
    """Newest leader epoch of what is left, -1 for nothing."""
    log_end_offset: int
    """End of what is left; -1: the whole log is gone."""

    @property
    def is_gone(self) -> bool:
        return self.log_end_offset < 0


ALL_LOSSY = LossyReplica("", -1, "", -1, -1)
"""Stands for every replica of a broker whose list would be too long for a znode."""


class BrokerRegistration(NamedTuple):
    """One live broker, as its ephemeral znode ``/brokers/ids/N`` says."""

    broker_id: int
    epoch: int
    """Broker epoch: the czxid of the znode, which tells one incarnation from the next."""
    endpoints: tuple[Endpoint, ...]
    """Every advertised listener, the REPLICATION one among them."""
    security_protocols: tuple[tuple[str, str], ...] = ()
    """(listener name, PLAINTEXT | SSL | …) pairs: the znode's ``listener_security_protocol_map``."""
    rack: str | None = None
    lossy: tuple[LossyReplica, ...] = ()
    """Replicas that must not be elected or counted, until the broker takes them off this list (never on the wire)."""

    def endpoint(self, listener: str) -> Endpoint | None:
        """The endpoint of that listener name, or None."""
        for endpoint in self.endpoints:
            if endpoint.listener == listener:
                return endpoint
        return None

    @property
    def is_kafka(self) -> bool:
        """True for an Apache Kafka broker: it has no REPLICATION endpoint, so zkbroker can't replicate with it."""
        return self.endpoint(REPLICATION_LISTENER) is None


class DeletedReplica(NamedTuple):
    """The order to delete one replica's data for good. Only this ever deletes; absence never does."""

    topic: str
    partition: int
    topic_id: str


class ClusterDelta(NamedTuple):
    """What changed in the cluster, or (``is_snapshot``) all of it. Pushed by the controller to every broker in order.

    A broker discards deltas of a controller epoch below the highest it has seen, and asks for a new snapshot
    when ``number`` is not its last one plus one. Snapshots carry number 0.
    """

    controller_id: int
    controller_epoch: int
    number: int
    is_snapshot: bool = False
    brokers: tuple[BrokerRegistration, ...] = ()
    """New or changed live brokers; in a snapshot: all of them."""
    removed_brokers: tuple[int, ...] = ()
    partitions: tuple[tuple[TopicPartition, PartitionState], ...] = ()
    """New or changed partitions; in a snapshot: all of them. Every broker gets all: clients ask any broker."""
    deleted_topics: tuple[tuple[str, str], ...] = ()
    """(topic, topic id) that no longer exist or are being deleted: gone from metadata. Deletes no data by itself."""
    deleted_replicas: tuple[DeletedReplica, ...] = ()
    """Only for the addressed broker: replicas whose data it must delete, then answer DELETED."""
    unreadable_topics: tuple[str, ...] = ()
    """In a snapshot: topics that exist but whose znodes do not decode. Their folders are left alone."""

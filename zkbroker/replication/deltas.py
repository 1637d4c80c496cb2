"""SNAPSHOT and DELTA: the cluster as the controller tells it. Pure. One row per broker, topic or partition."""

from __future__ import annotations

from zkbroker.model.cluster import BrokerRegistration, ClusterDelta, DeletedReplica, Endpoint
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.replication.codec import (
    Message,
    Words,
    body_rows,
    encode_push,
    integer,
    integers,
    quote,
    quote_argument,
    row_partition,
    text,
    words,
)


def encode_delta(correlation: int, delta: ClusterDelta, body: bytes | None = None) -> bytes:
    """The push of a delta to one subscriber; ``body`` if its rows are encoded already (they are for all the same)."""
    values: dict[str, str | int | None] = {
        "controller": delta.controller_id,
        "controller_epoch": delta.controller_epoch,
        "number": delta.number,
    }
    rows = encode_delta_rows(delta) if body is None else body
    return encode_push(correlation, "SNAPSHOT" if delta.is_snapshot else "DELTA", values, rows)


def encode_delta_rows(delta: ClusterDelta) -> bytes:
    """The body: BROKER, GONE, TOPIC (whose partitions follow), PARTITION, DELETED, DELETE and UNREADABLE rows."""
    lines = [_broker_line(broker) for broker in delta.brokers]
    lines.extend(f"GONE {broker_id}" for broker_id in delta.removed_brokers)
    topic: tuple[str, str] | None = None
    for partition, state in delta.partitions:
        if topic != (partition.topic, state.topic_id):
            topic = (partition.topic, state.topic_id)
            lines.append(f"TOPIC {quote_argument(partition.topic)} topic_id={quote(state.topic_id)}")
        lines.append(f"PARTITION {partition.partition}{state_words(state)}")
    lines.extend(
        f"DELETED {quote_argument(name)} topic_id={quote(topic_id)}" for name, topic_id in delta.deleted_topics
    )
    lines.extend(
        f"DELETE {quote_argument(replica.topic)} {replica.partition} topic_id={quote(replica.topic_id)}"
        for replica in delta.deleted_replicas
    )
    lines.extend(f"UNREADABLE {quote_argument(name)}" for name in delta.unreadable_topics)
    return "".join(f"{line}\n" for line in lines).encode()


def state_words(state: PartitionState) -> str:
    """A partition's state as words, each after a blank; the topic id stands elsewhere, defaults are left out."""
    line = (
        f" leader={state.leader} leader_epoch={state.leader_epoch} replicas={_joined(state.replicas)}"
        f" isr={_joined(state.isr)} partition_epoch={state.partition_epoch} controller_epoch={state.controller_epoch}"
    )
    if state.adding:
        line += f" adding={_joined(state.adding)}"
    if state.removing:
        line += f" removing={_joined(state.removing)}"
    if state.recovering:
        line += " recovering=1"
    if state.elr:
        line += f" elr={_joined(state.elr)}"
    if state.reason:
        line += f" reason={quote(state.reason)}"
    return line


def decode_state(values: dict[str, str], topic_id: str) -> PartitionState:
    """What ``state_words`` wrote. Raises BrokerError."""
    return PartitionState(
        topic_id,
        integers(values, "replicas"),
        integer(values, "leader"),
        integer(values, "leader_epoch"),
        integers(values, "isr"),
        integer(values, "partition_epoch"),
        integer(values, "controller_epoch"),
        integers(values, "adding"),
        integers(values, "removing"),
        values.get("recovering") == "1",
        integers(values, "elr"),
        values.get("reason", ""),
    )


def decode_delta(message: Message) -> ClusterDelta:
    """The delta of a PUSH. Rows that this version does not know are skipped. Raises BrokerError."""
    brokers: list[BrokerRegistration] = []
    removed: list[int] = []
    partitions: list[tuple[TopicPartition, PartitionState]] = []
    deleted_topics: list[tuple[str, str]] = []
    deleted_replicas: list[DeletedReplica] = []
    unreadable: list[str] = []
    topic, topic_id = "", ""
    for row in body_rows(message.body):
        kind = row.arguments.pop(0) if row.arguments else ""
        if kind == "PARTITION":
            partition = row_partition(Words([topic, *row.arguments], row.values))
            partitions.append((TopicPartition(*partition), decode_state(row.values, topic_id)))
        elif kind == "TOPIC":
            topic, topic_id = _name(row), text(row.values, "topic_id")
        elif kind == "BROKER":
            brokers.append(_decode_broker(row))
        elif kind == "GONE":
            removed.append(_broker_id(row))
        elif kind == "DELETED":
            deleted_topics.append((_name(row), text(row.values, "topic_id")))
        elif kind == "DELETE":
            deleted_replicas.append(DeletedReplica(*row_partition(row), text(row.values, "topic_id")))
        elif kind == "UNREADABLE":
            unreadable.append(_name(row))
    return ClusterDelta(
        controller_id=message.integer("controller"),
        controller_epoch=message.integer("controller_epoch"),
        number=message.integer("number"),
        is_snapshot="SNAPSHOT" in message.arguments,
        brokers=tuple(brokers),
        removed_brokers=tuple(removed),
        partitions=tuple(partitions),
        deleted_topics=tuple(deleted_topics),
        deleted_replicas=tuple(deleted_replicas),
        unreadable_topics=tuple(unreadable),
    )


def _joined(numbers: tuple[int, ...]) -> str:
    return ",".join([str(number) for number in numbers])


def _broker_line(broker: BrokerRegistration) -> str:
    endpoints = "".join(f" {quote_argument(str(endpoint))}" for endpoint in broker.endpoints)
    protocols = ",".join(f"{listener}:{protocol}" for listener, protocol in broker.security_protocols)
    return f"BROKER {broker.broker_id}{endpoints}" + words(
        {"epoch": broker.epoch, "protocols": protocols or None, "rack": broker.rack}
    )


def _decode_broker(row: Words) -> BrokerRegistration:
    protocols = [pair.partition(":") for pair in row.values.get("protocols", "").split(",") if pair]
    return BrokerRegistration(
        broker_id=_broker_id(row),
        epoch=integer(row.values, "epoch"),
        endpoints=tuple([_decode_endpoint(word) for word in row.arguments[1:]]),
        security_protocols=tuple([(listener, protocol) for listener, _, protocol in protocols]),
        rack=row.values.get("rack"),
    )


def _decode_endpoint(word: str) -> Endpoint:
    listener, _, address = word.partition("://")
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise BrokerError(ErrorCode.INVALID_REQUEST, f"{word[:100]!r} is not an endpoint")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return Endpoint(listener, host, int(port[:6]))


def _broker_id(row: Words) -> int:
    return integer({"broker": _name(row)}, "broker")


def _name(row: Words) -> str:
    if not row.arguments:
        raise BrokerError(ErrorCode.INVALID_REQUEST, "a row has no name")
    return row.arguments[0]

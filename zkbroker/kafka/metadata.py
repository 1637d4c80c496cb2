"""Metadata: brokers, topics and leaders as a client of this listener sees them. Encoded topics are kept while the
picture of the cluster stays the same, since many clients ask for the same ones again and again.

The codec is our own: it is what every client asks first, when nothing of kio may be imported yet, and kio's takes
some 10 µs per partition."""

from __future__ import annotations

import struct
from typing import NamedTuple

from twisted.python.failure import Failure

from zkbroker.kafka.cluster import OPERATIONS_OF_CLUSTER
from zkbroker.kafka.messages import ZERO_UUID, topic_id_from_bytes, topic_id_to_bytes
from zkbroker.kafka.ports import BrokerView, MetadataPort, TopicView
from zkbroker.kafka.request import Api, Request, Services
from zkbroker.kafka.versions import BY_KEY, METADATA
from zkbroker.kafka.wire import Reader, encode_size, encode_string
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import NO_LEADER, PartitionState, topic_name_error

_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")
_PARTITION_V0 = struct.Struct(">hii")
_PARTITION_V7 = struct.Struct(">hiii")
_NOT_ASKED = struct.pack(">i", -(2**31))
"""Authorized operations (KIP-430) of whom the client did not want to know."""
_OPERATIONS_OF_TOPIC = _I32.pack(3576)
"""All that can be done with a topic, as bits: without an authorizer everybody may."""

_FLEXIBLE_FROM = BY_KEY[METADATA].flexible_from
_IDS_FROM = 10
_ASKED_BY_ID_FROM = 12


class AskedTopic(NamedTuple):
    """By name, or from version 10 by id."""

    name: str | None
    topic_id: str | None


class MetadataMessage(NamedTuple):
    topics: list[AskedTopic] | None
    """None: all of them. Each once, however often it was named."""
    allow_auto_topic_creation: bool
    wants_cluster_operations: bool = False
    wants_topic_operations: bool = False


def decode(request: Request) -> MetadataMessage:
    return decode_body(request.reader(), request.version)


def decode_body(reader: Reader, version: int) -> MetadataMessage:
    flexible = version >= _FLEXIBLE_FROM
    count = reader.array_size(flexible)
    topics: dict[AskedTopic, None] = {}
    for _ in range(count):
        topic_id = topic_id_from_bytes(reader.uuid_bytes()) if version >= _IDS_FROM else None
        topics[AskedTopic(reader.nullable_string(flexible), topic_id)] = None
        if flexible:
            reader.skip_tags()
    allow = reader.boolean() if version >= 4 else True
    of_cluster = reader.boolean() if 8 <= version <= 10 else False
    of_topics = reader.boolean() if version >= 8 else False
    if flexible:
        reader.skip_tags()
    return MetadataMessage(None if count < 0 else list(topics), allow, of_cluster, of_topics)


def serve(services: Services, request: Request, message: MetadataMessage) -> None:
    version = request.version
    topics = message.topics
    if version < _ASKED_BY_ID_FROM and any(name is None or topic_id for name, topic_id in topics or ()):
        refuse(request, message, ErrorCode.INVALID_REQUEST, None)  # ids may only be asked for from version 12 on
        return
    if services.metadata.is_doubted(services.metadata.broker_id) and not _are_unreplicated(services.metadata, topics):
        # This broker is counted out or cut off: others know who leads. Many a client asks the broker that it happens to
        # be connected to, whatever it is told there; without the connection it asks another.
        request.close()
        return
    if topics:
        services.metadata.when_sure(lambda: _serve_guarded(services, request, message))
    else:
        _serve(services, request, message)


def _are_unreplicated(metadata: MetadataPort, topics: list[AskedTopic] | None) -> bool:
    """Can nobody else lead any partition of these? They go on without ZooKeeper (contact rule), and perhaps
    there is no other broker left to ask."""
    for name, topic_id in topics or ():
        known = metadata.topic_name(topic_id) if topic_id else name
        topic = metadata.topic(known) if known is not None else None
        if topic is None or any(len(state.replicas) > 1 for state in topic.partitions.values()):
            return False
    return bool(topics)


def _serve_guarded(services: Services, request: Request, message: MetadataMessage) -> None:
    try:
        _serve(services, request, message)
    except Exception:
        request.connection.request_failed(request, message, Failure())


def _serve(services: Services, request: Request, message: MetadataMessage) -> None:
    version = request.version
    topics = message.topics
    parts = _current_parts(services)
    if topics is None or (not topics and version == 0):  # version 0 has no null: empty means all
        encoded = parts.get((version, None))
        if encoded is None:
            encoded = parts[version, None] = [
                _encode_topic(services, version, topic) for topic in services.metadata.topics()
            ]
    else:
        allow = message.allow_auto_topic_creation and services.limits.auto_create_topics
        encoded = [_encode_asked(services, version, topic, allow) for topic in topics]
    if message.wants_topic_operations:
        tail = _encode_topic_tail(version, _OPERATIONS_OF_TOPIC)
        encoded = [topic[: -len(tail)] + tail for topic in encoded]
    request.answer(_encode_body(services, version, encoded, message.wants_cluster_operations))


def refuse(request: Request, message: MetadataMessage, error: ErrorCode, text: str | None) -> None:
    """Metadata has no error of its own before version 13: each topic asked for carries it."""
    version = request.version
    encoded = [_encode_error(version, error, topic.name, topic.topic_id) for topic in message.topics or ()]
    request.answer(_encode_body(None, version, encoded))


def _current_parts(services: Services) -> dict[object, list[bytes]]:
    """What was encoded for the present ``metadata.version``; anything older is thrown away."""
    parts = services.metadata_parts
    version = services.metadata.version
    if parts.get("version") != version:
        parts.clear()
        parts["version"] = version
    return parts


def _encode_asked(services: Services, version: int, asked: AskedTopic, allow_creation: bool) -> bytes:
    metadata = services.metadata
    name, topic_id = asked
    if name is None or topic_id:
        name = metadata.topic_name(topic_id) if topic_id else None
        topic = metadata.topic(name) if name is not None else None
        if topic is None:
            return _encode_error(version, ErrorCode.UNKNOWN_TOPIC_ID, None, topic_id)
        return _encode_topic(services, version, topic)
    topic = metadata.topic(name)
    if topic is not None:
        return _encode_topic(services, version, topic)
    if topic_name_error(name) is not None:
        error = ErrorCode.INVALID_TOPIC_EXCEPTION
    elif allow_creation and services.admin.auto_create_topic(name):
        error = ErrorCode.LEADER_NOT_AVAILABLE
    else:
        error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return _encode_error(version, error, name, None)


def _encode_topic(services: Services, version: int, topic: TopicView) -> bytes:
    parts = services.metadata_parts
    encoded: bytes | None = parts.get((version, topic.name))
    if encoded is None:
        encoded = parts[version, topic.name] = encode_topic(services.metadata, services.listener, version, topic)
    return encoded


def _encode_topic_head(
    version: int, error: ErrorCode, name: str | None, topic_id: bytes, is_internal: bool
) -> bytearray:
    flexible = version >= _FLEXIBLE_FROM
    out = bytearray(_I16.pack(error))
    out += encode_string(name if name is not None or version >= 12 else "", flexible)
    if version >= _IDS_FROM:
        out += topic_id
    if version >= 1:
        out += b"\x01" if is_internal else b"\x00"
    return out


def _encode_topic_tail(version: int, operations: bytes = _NOT_ASKED) -> bytes:
    return (operations if version >= 8 else b"") + (b"\x00" if version >= _FLEXIBLE_FROM else b"")


def _encode_error(version: int, error: ErrorCode, name: str | None, topic_id: str | None) -> bytes:
    raw_id = topic_id_to_bytes(topic_id) if topic_id else ZERO_UUID
    out = _encode_topic_head(version, error, name, raw_id, False)
    out += encode_size(0, version >= _FLEXIBLE_FROM)
    return bytes(out) + _encode_topic_tail(version)


def encode_topic(metadata: MetadataPort, listener: str, version: int, topic: TopicView) -> bytes:
    """One topic with its partitions in order. A leader that this listener cannot reach, or that just broke
    off, is shown as none."""
    flexible = version >= _FLEXIBLE_FROM
    out = _encode_topic_head(version, ErrorCode.NONE, topic.name, topic_id_to_bytes(topic.topic_id), topic.is_internal)
    out += encode_size(len(topic.partitions), flexible)
    present: dict[int, bool] = {}
    reachable: dict[int, bool] = {}
    for partition in sorted(topic.partitions):
        state = topic.partitions[partition]
        for broker_id in (*state.replicas, state.leader):
            if broker_id not in reachable:
                is_there = broker_id != NO_LEADER and metadata.has_listener(broker_id, listener)
                present[broker_id] = is_there
                reachable[broker_id] = is_there and not metadata.is_doubted(broker_id)
        # Of a single replica nobody can be elected instead: to doubt it would help no client.
        usable = present if len(state.replicas) == 1 else reachable
        _encode_partition(out, version, flexible, partition, state, usable)
    return bytes(out) + _encode_topic_tail(version)


def _encode_partition(
    out: bytearray, version: int, flexible: bool, partition: int, state: PartitionState, reachable: dict[int, bool]
) -> None:
    leader = state.leader
    error = ErrorCode.NONE
    if not reachable[leader]:
        error = ErrorCode.LEADER_NOT_AVAILABLE
        leader = NO_LEADER
    if version >= 7:
        out += _PARTITION_V7.pack(error, partition, leader, state.leader_epoch)
    else:
        out += _PARTITION_V0.pack(error, partition, leader)
    lists = [state.replicas, state.isr]
    if version >= 5:
        lists.append(tuple(broker_id for broker_id in state.replicas if not reachable[broker_id]))
    for broker_ids in lists:
        out += encode_size(len(broker_ids), flexible)
        out += struct.pack(f">{len(broker_ids)}i", *broker_ids)
    if flexible:
        out += b"\x00"


def _encode_broker(version: int, view: BrokerView) -> bytes:
    flexible = version >= _FLEXIBLE_FROM
    out = _I32.pack(view.broker_id) + encode_string(view.host, flexible) + _I32.pack(view.port)
    if version >= 1:
        out += encode_string(view.rack, flexible)
    return out + (b"\x00" if flexible else b"")


def _encode_body(
    services: Services | None, version: int, topics: list[bytes], wants_cluster_operations: bool = False
) -> bytes:
    flexible = version >= _FLEXIBLE_FROM
    brokers = services.metadata.named_brokers(services.listener) if services else []
    out = bytearray(4 if version >= 3 else 0)
    out += encode_size(len(brokers), flexible)
    for view in brokers:
        out += _encode_broker(version, view)
    if version >= 2:
        out += encode_string(services.metadata.cluster_id if services else None, flexible)
    if version >= 1:
        out += _I32.pack(_reachable_controller(services))
    out += encode_size(len(topics), flexible)
    for topic in topics:
        out += topic
    if 8 <= version <= 10:
        out += _I32.pack(OPERATIONS_OF_CLUSTER) if wants_cluster_operations else _NOT_ASKED
    if flexible:
        out += b"\x00"
    return bytes(out)


def _reachable_controller(services: Services | None) -> int:
    """-1 while there is none that clients of this listener can reach."""
    if services is None:
        return -1
    controller = services.metadata.controller_id
    return controller if services.metadata.has_listener(controller, services.listener) else -1


API = Api(decode, serve, refuse)

"""Each API asked with kio's classes over a connection, in all versions, and answered from the fake broker."""

from __future__ import annotations

import struct
from typing import Any
from uuid import UUID

import pytest

from tests.fakes.kafka_client import (
    Listener,
    frame,
    frames_of,
    milliseconds,
    request_bytes,
    request_schemas,
    response_of,
)
from tests.unit.test_kafka_connection import batch, fetch_request, produce_request
from zkbroker.kafka import versions as v
from zkbroker.kafka.apis import APIS, preload_hot
from zkbroker.kafka.ports import BrokerView, CurrentLeader
from zkbroker.kafka.wire import Reader
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import topic_id_from_uuid, topic_id_to_uuid


def served(key: int) -> range:
    api = v.BY_KEY[key]
    return range(api.lowest, api.maximum + 1)


def code(row: Any) -> ErrorCode:
    return ErrorCode(row.error_code.value)


@pytest.fixture
def listener() -> Listener:
    listener = Listener()
    listener.broker.add_topic("t", 2)
    return listener


def test_every_advertised_api_is_served() -> None:
    assert list(APIS) == [api.key for api in v.RANGES]
    preload_hot()


# Produce


@pytest.mark.parametrize("version", served(v.PRODUCE))
def test_produce(listener: Listener, version: int) -> None:
    listener.ask(produce_request(version=version))
    (topic,) = listener.ask(produce_request(version=version)).responses
    (row,) = topic.partition_responses
    assert (topic.name, code(row), row.index, row.base_offset) == ("t", ErrorCode.NONE, 0, 1)
    assert bytes(listener.broker.produced[0].records or b"") == batch()


@pytest.mark.parametrize("version", served(v.PRODUCE))
def test_produce_elsewhere(listener: Listener, version: int) -> None:
    listener.broker.elsewhere["t"] = CurrentLeader(2, 9)
    listener.broker.views["PLAINTEXT"].append(BrokerView(2, "other", 9093, "rack"))
    response = listener.ask(produce_request(version=version))
    (row,) = response.responses[0].partition_responses
    assert code(row) == ErrorCode.NOT_LEADER_OR_FOLLOWER
    if version >= 10:
        assert (row.current_leader.leader_id, row.current_leader.leader_epoch) == (2, 9)
        (node,) = response.node_endpoints
        assert (node.node_id, node.host, node.port, node.rack) == (2, "other", 9093, "rack")


def test_produce_with_impossible_acks(listener: Listener) -> None:
    (row,) = listener.ask(produce_request(acks=2)).responses[0].partition_responses
    assert code(row) == ErrorCode.INVALID_REQUIRED_ACKS
    assert listener.broker.produced == []


def test_produce_message_for_people(listener: Listener) -> None:
    (row,) = listener.ask(produce_request(records=b"x" * 70)).responses[0].partition_responses
    assert code(row) == ErrorCode.CORRUPT_MESSAGE
    assert row.error_message == "bytes after the last batch"


@pytest.mark.parametrize("version", [0, 1, 2])
def test_produce_before_version_3_is_unsupported(listener: Listener, version: int) -> None:
    body = struct.pack(">hii", 1, 1000, 1) + b"\x00\x01t" + struct.pack(">iii", 1, 0, 3) + b"abc"
    connection, transport = listener.connect()
    connection.dataReceived(frame(struct.pack(">hhih", v.PRODUCE, version, 5, -1) + body))
    (data,) = frames_of(transport.take())
    reader = Reader(data)
    assert [reader.int32(), reader.int32(), reader.string(False), reader.int32()] == [5, 1, "t", 1]
    assert [reader.int32(), reader.int16(), reader.int64()] == [0, ErrorCode.UNSUPPORTED_VERSION, -1]
    assert reader.end - reader.offset == (0, 4, 12)[version]


# Fetch


def fetch(version: int, topic: str | UUID = "t", **fields: Any) -> Any:
    s = request_schemas(v.FETCH, version)
    named = {"topic_id": topic} if version >= 13 else {"topic": topic}
    partition = s.FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1_000_000)
    if version >= 7:
        fields.setdefault("forgotten_topics_data", ())
    if version < 15:
        fields.setdefault("replica_id", -1)
    if version == 4:
        fields.setdefault("max_bytes", 2**31 - 1)
        fields.setdefault("isolation_level", 0)
    return s.FetchRequest(
        max_wait=milliseconds(100), min_bytes=1, topics=(s.FetchTopic(**named, partitions=(partition,)),), **fields
    )


def topic_of(listener: Listener, version: int, name: str = "t") -> Any:
    return topic_id_to_uuid(listener.broker.by_name[name].topic_id) if version >= 13 else name


@pytest.mark.parametrize("version", served(v.FETCH))
def test_fetch(listener: Listener, version: int) -> None:
    for _ in range(2):
        listener.ask(produce_request())
    response = listener.ask(fetch(version, topic_of(listener, version)))
    (row,) = response.responses[0].partitions
    assert (code(row), row.high_watermark, row.last_stable_offset) == (ErrorCode.NONE, 2, 2)
    assert row.records == b"".join(stored[3] for stored in listener.broker.logs["t", 0].batches)
    assert row.aborted_transactions is None
    if version >= 7:
        assert (response.session_id, code(response)) == (0, ErrorCode.NONE)


@pytest.mark.parametrize("version", served(v.FETCH))
def test_fetch_elsewhere(listener: Listener, version: int) -> None:
    listener.broker.elsewhere["t"] = CurrentLeader(2, 9)
    listener.broker.views["PLAINTEXT"].append(BrokerView(2, "other", 9093, None))
    response = listener.ask(fetch(version, topic_of(listener, version)))
    (row,) = response.responses[0].partitions
    assert (code(row), row.records) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, b"")
    if version >= 12:
        assert (row.current_leader.leader_id, row.current_leader.leader_epoch) == (2, 9)
    if version >= 16:
        assert [(node.node_id, node.host) for node in response.node_endpoints] == [(2, "other")]


def test_fetch_of_known_and_unknown_topic_ids(listener: Listener) -> None:
    listener.ask(produce_request())
    s = request_schemas(v.FETCH, 16)
    ids = [UUID(int=5), topic_of(listener, 16), UUID(int=6)]
    row = s.FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1000)
    topics = tuple(s.FetchTopic(topic_id=topic_id, partitions=(row,)) for topic_id in ids)
    request = s.FetchRequest(max_wait=milliseconds(0), min_bytes=0, topics=topics, forgotten_topics_data=())
    answers = listener.ask(request).responses
    assert [topic.topic_id for topic in answers] == ids
    unknown = ErrorCode.UNKNOWN_TOPIC_ID
    assert [code(topic.partitions[0]) for topic in answers] == [unknown, ErrorCode.NONE, unknown]
    assert answers[1].partitions[0].records


def test_fetch_waits_for_records(listener: Listener) -> None:
    connection, transport = listener.connect()
    request = fetch_request(min_bytes=1, max_wait_ms=500)
    connection.dataReceived(request_bytes(request, 1))
    assert transport.take() == b""
    listener.clock.advance(0.5)
    (data,) = frames_of(transport.take())
    assert response_of(request, data)[1].responses[0].partitions[0].records == b""


def test_a_kafka_follower_is_refused(listener: Listener) -> None:
    (row,) = listener.ask(fetch(12, replica_id=3)).responses[0].partitions
    assert code(row) == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_fetch_before_version_4_is_unsupported(listener: Listener, version: int) -> None:
    limit = struct.pack(">i", 100) if version == 3 else b""
    body = (
        struct.pack(">iii", -1, 10, 1) + limit + struct.pack(">i", 1) + b"\x00\x01t" + struct.pack(">iiqi", 1, 0, 0, 9)
    )
    connection, transport = listener.connect()
    connection.dataReceived(frame(struct.pack(">hhih", v.FETCH, version, 5, -1) + body))
    (data,) = frames_of(transport.take())
    reader = Reader(data, 4 if version == 0 else 8)
    assert [reader.int32(), reader.string(False), reader.int32(), reader.int32()] == [1, "t", 1, 0]
    assert [reader.int16(), reader.int64(), reader.int32()] == [ErrorCode.UNSUPPORTED_VERSION, -1, 0]
    assert reader.offset == reader.end


# Metadata


def metadata(version: int, names: tuple[str, ...] | None, **fields: Any) -> Any:
    s = request_schemas(v.METADATA, version)
    ids = {"topic_id": None} if version >= 10 else {}
    topics = None if names is None else tuple(s.MetadataRequestTopic(name=name, **ids) for name in names)
    if version >= 4:
        fields.setdefault("allow_auto_topic_creation", True)
    if version >= 8:
        fields.setdefault("include_topic_authorized_operations", False)
    if 8 <= version <= 10:
        fields.setdefault("include_cluster_authorized_operations", False)
    return s.MetadataRequest(topics=topics, **fields)


@pytest.mark.parametrize("version", served(v.METADATA))
def test_metadata_of_all_topics(listener: Listener, version: int) -> None:
    listener.broker.add_topic("a")
    for _ in range(2):  # the second comes from what was kept
        response = listener.ask(metadata(version, None if version else ()))
        assert [topic.name for topic in response.topics] == ["a", "t"]
        assert [len(topic.partitions) for topic in response.topics] == [1, 2]
        assert [(b.node_id, b.host, b.port) for b in response.brokers] == [(1, "127.0.0.1", 9092)]
        if version >= 1:
            assert response.controller_id == 1
        if version >= 2:
            assert response.cluster_id == listener.broker.cluster_id


@pytest.mark.parametrize("version", served(v.METADATA))
def test_metadata_of_named_topics(listener: Listener, version: int) -> None:
    response = listener.ask(metadata(version, ("t", "bad name", "new")))
    assert [(topic.name, code(topic)) for topic in response.topics] == [
        ("t", ErrorCode.NONE),
        ("bad name", ErrorCode.INVALID_TOPIC_EXCEPTION),
        ("new", ErrorCode.LEADER_NOT_AVAILABLE),
    ]
    assert "new" in listener.broker.by_name
    (again,) = listener.ask(metadata(version, ("new",))).topics
    assert (code(again), len(again.partitions)) == (ErrorCode.NONE, 1)


@pytest.mark.parametrize("version", range(4, 13))
def test_metadata_creates_only_where_the_client_allows(listener: Listener, version: int) -> None:
    request = metadata(version, ("new",), allow_auto_topic_creation=False)
    (topic,) = listener.ask(request).topics
    assert code(topic) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert "new" not in listener.broker.by_name


def test_metadata_creates_only_where_the_broker_allows() -> None:
    listener = Listener(auto_create_topics=False)
    (topic,) = listener.ask(metadata(12, ("new",))).topics
    assert code(topic) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_metadata_by_id(listener: Listener) -> None:
    s = request_schemas(v.METADATA, 12)
    known = topic_of(listener, 13)
    topics = tuple(s.MetadataRequestTopic(topic_id=topic_id, name=None) for topic_id in (known, UUID(int=9)))
    request = s.MetadataRequest(topics=topics, include_topic_authorized_operations=False)
    found, unknown = listener.ask(request).topics
    assert (found.name, found.topic_id, code(found)) == ("t", known, ErrorCode.NONE)
    assert (unknown.name, unknown.topic_id, code(unknown)) == (None, UUID(int=9), ErrorCode.UNKNOWN_TOPIC_ID)


def test_metadata_follows_the_picture(listener: Listener) -> None:
    listener.ask(metadata(12, None))
    view = listener.broker.by_name["t"]
    view.partitions[0] = view.partitions[0]._replace(leader=-1, leader_epoch=4)
    listener.broker.version += 1
    (topic,) = listener.ask(metadata(12, None)).topics
    row = topic.partitions[0]
    assert (code(row), row.leader_id, row.leader_epoch) == (ErrorCode.LEADER_NOT_AVAILABLE, -1, 4)


# Offsets


@pytest.mark.parametrize("version", served(v.LIST_OFFSETS))
def test_list_offsets(listener: Listener, version: int) -> None:
    listener.ask(produce_request())
    s = request_schemas(v.LIST_OFFSETS, version)
    rows = tuple(s.ListOffsetsPartition(partition_index=0, timestamp=timestamp) for timestamp in (-1, -2, -3, -4))
    topics = (s.ListOffsetsTopic(name="t", partitions=rows), s.ListOffsetsTopic(name="u", partitions=rows[:1]))
    isolation = {"isolation_level": 0} if version >= 2 else {}
    response = listener.ask(s.ListOffsetsRequest(replica_id=-1, topics=topics, **isolation))
    latest, earliest, newest, local = response.topics[0].partitions
    assert (code(latest), latest.offset, earliest.offset) == (ErrorCode.NONE, 1, 0)
    assert code(newest) == (ErrorCode.NONE if version >= 7 else ErrorCode.UNSUPPORTED_VERSION)
    assert code(local) == (ErrorCode.NONE if version >= 8 else ErrorCode.UNSUPPORTED_VERSION)
    assert code(response.topics[1].partitions[0]) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


@pytest.mark.parametrize("version", served(v.OFFSET_FOR_LEADER_EPOCH))
def test_offset_for_leader_epoch(listener: Listener, version: int) -> None:
    listener.ask(produce_request())
    s = request_schemas(v.OFFSET_FOR_LEADER_EPOCH, version)
    row = s.OffsetForLeaderPartition(partition=0, leader_epoch=0, current_leader_epoch=0)
    replica = {"replica_id": -1} if version >= 3 else {}
    request = s.OffsetForLeaderEpochRequest(topics=(s.OffsetForLeaderTopic(topic="t", partitions=(row,)),), **replica)
    (found,) = listener.ask(request).topics[0].partitions
    assert (code(found), found.leader_epoch, found.end_offset) == (ErrorCode.NONE, 0, 1)


# Topics


def create(version: int, *topics: tuple[str, int], timeout_ms: int = 1000, **fields: Any) -> Any:
    s = request_schemas(v.CREATE_TOPICS, version)
    rows = tuple(
        s.CreatableTopic(name=name, num_partitions=count, replication_factor=1, assignments=(), configs=())
        for name, count in topics
    )
    return s.CreateTopicsRequest(topics=rows, timeout=milliseconds(timeout_ms), **fields)


@pytest.mark.parametrize("version", served(v.CREATE_TOPICS))
def test_create_topics(listener: Listener, version: int) -> None:
    rows = listener.ask(create(version, ("new", 3), ("t", 1), ("twice", 1), ("twice", 2))).topics
    assert [(row.name, code(row)) for row in rows] == [
        ("new", ErrorCode.NONE),
        ("t", ErrorCode.TOPIC_ALREADY_EXISTS),
        ("twice", ErrorCode.INVALID_REQUEST),
    ]
    assert len(listener.broker.by_name["new"].partitions) == 3
    assert "already exists" in rows[1].error_message
    if version >= 5:
        assert (rows[0].num_partitions, rows[0].replication_factor) == (3, 1)
        assert [config.name for config in rows[0].configs] == ["retention.ms", "cleanup.policy"]
    if version >= 7:
        assert topic_id_from_uuid(rows[0].topic_id) == listener.broker.by_name["new"].topic_id


def test_create_topics_by_assignment(listener: Listener) -> None:
    s = request_schemas(v.CREATE_TOPICS, 7)
    assignment = tuple(s.CreatableReplicaAssignment(partition_index=p, broker_ids=(1,)) for p in (0, 1))

    def topic(name: str, count: int, value: str | None, twice: bool = False) -> Any:
        return s.CreatableTopic(
            name=name,
            num_partitions=count,
            replication_factor=-1,
            assignments=(*assignment, assignment[0]) if twice else assignment,
            configs=(s.CreatableTopicConfig(name="retention.ms", value=value),),
        )

    topics = (topic("good", -1, "1"), topic("both", 2, "1"), topic("null", -1, None), topic("double", -1, "1", True))
    rows = listener.ask(s.CreateTopicsRequest(topics=topics, timeout=milliseconds(1))).topics
    assert [code(row) for row in rows] == [
        ErrorCode.NONE,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.INVALID_CONFIG,
        ErrorCode.INVALID_REPLICA_ASSIGNMENT,
    ]


def test_create_topics_only_to_validate(listener: Listener) -> None:
    (row,) = listener.ask(create(7, ("new", 3), validate_only=True)).topics
    assert (code(row), row.num_partitions) == (ErrorCode.NONE, 3)
    assert "new" not in listener.broker.by_name


@pytest.mark.parametrize("version", served(v.CREATE_TOPICS))
def test_only_the_controller_creates_topics(listener: Listener, version: int) -> None:
    listener.broker.admin_error = ErrorCode.NOT_CONTROLLER
    (row,) = listener.ask(create(version, ("new", 3))).topics
    assert (row.name, code(row)) == ("new", ErrorCode.NOT_CONTROLLER)


def delete(version: int, *names: str | UUID) -> Any:
    s = request_schemas(v.DELETE_TOPICS, version)
    if version < 6:
        return s.DeleteTopicsRequest(topic_names=names, timeout=milliseconds(1000))
    topics = tuple(
        s.DeleteTopicState(name=None, topic_id=name)
        if isinstance(name, UUID)
        else s.DeleteTopicState(name=name, topic_id=None)
        for name in names
    )
    return s.DeleteTopicsRequest(topics=topics, timeout=milliseconds(1000))


@pytest.mark.parametrize("version", served(v.DELETE_TOPICS))
def test_delete_topics(listener: Listener, version: int) -> None:
    rows = listener.ask(delete(version, "t", "unknown")).responses
    assert [(row.name, code(row)) for row in rows] == [
        ("t", ErrorCode.NONE),
        ("unknown", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ]
    assert "t" not in listener.broker.by_name


def test_delete_topics_by_id(listener: Listener) -> None:
    known = topic_of(listener, 13)
    rows = listener.ask(delete(6, known, UUID(int=4), "t")).responses
    assert [(row.name, row.topic_id, code(row)) for row in rows] == [
        ("t", known, ErrorCode.NONE),
        (None, UUID(int=4), ErrorCode.UNKNOWN_TOPIC_ID),
        ("t", known, ErrorCode.NONE),
    ]
    assert listener.broker.deleted == [("t", topic_id_from_uuid(known))], "only while the name means that topic"


@pytest.mark.parametrize("version", served(v.DELETE_TOPICS))
def test_only_the_controller_deletes_topics(listener: Listener, version: int) -> None:
    listener.broker.admin_error = ErrorCode.NOT_CONTROLLER
    (row,) = listener.ask(delete(version, "t")).responses
    assert (row.name, code(row)) == ("t", ErrorCode.NOT_CONTROLLER)


@pytest.mark.parametrize("version", served(v.CREATE_PARTITIONS))
def test_create_partitions(listener: Listener, version: int) -> None:
    s = request_schemas(v.CREATE_PARTITIONS, version)
    asked = [("t", 4), ("u", 2), ("w", 2), ("w", 3)]
    topics = tuple(s.CreatePartitionsTopic(name=name, count=count, assignments=None) for name, count in asked)
    request = s.CreatePartitionsRequest(topics=topics, timeout=milliseconds(1), validate_only=False)
    rows = listener.ask(request).results
    assert [(row.name, code(row)) for row in rows] == [
        ("t", ErrorCode.NONE),
        ("u", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ("w", ErrorCode.INVALID_REQUEST),
    ]
    assert len(listener.broker.by_name["t"].partitions) == 4
    listener.broker.admin_error = ErrorCode.NOT_CONTROLLER
    assert {code(row) for row in listener.ask(request).results} == {ErrorCode.NOT_CONTROLLER}


# Configs, cluster, producer ids, coordinators


@pytest.mark.parametrize("version", served(v.DESCRIBE_CONFIGS))
def test_describe_configs(listener: Listener, version: int) -> None:
    s = request_schemas(v.DESCRIBE_CONFIGS, version)
    asked = [(2, "t"), (2, "u"), (4, "1"), (4, ""), (4, "2"), (8, "1"), (8, "2"), (99, "x")]
    resources = tuple(
        s.DescribeConfigsResource(resource_type=kind, resource_name=name, configuration_keys=None)
        for kind, name in asked
    )
    documentation = {"include_documentation": True} if version >= 3 else {}
    rows = listener.ask(s.DescribeConfigsRequest(resources=resources, include_synonyms=True, **documentation)).results
    assert [(row.resource_type, row.resource_name) for row in rows] == asked
    refused = ErrorCode.INVALID_REQUEST
    fine = ErrorCode.NONE
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert [code(row) for row in rows] == [fine, unknown, fine, fine, refused, fine, refused, refused]
    retention, policy = rows[0].configs
    assert (retention.name, retention.value, retention.config_source) == ("retention.ms", "604800000", 5)
    assert [(x.name, x.source) for x in retention.synonyms] == [("log.retention.ms", 5)]
    assert policy.value == "delete"
    if version >= 3:
        assert (retention.config_type, retention.documentation) == (5, "How long.")
    password = rows[2].configs[0]
    assert (password.value, password.is_sensitive) == (None, True)


def test_describe_only_some_configs(listener: Listener) -> None:
    s = request_schemas(v.DESCRIBE_CONFIGS, 4)
    resource = s.DescribeConfigsResource(resource_type=2, resource_name="t", configuration_keys=("cleanup.policy",))
    (row,) = listener.ask(s.DescribeConfigsRequest(resources=(resource,))).results
    assert [(config.name, config.synonyms) for config in row.configs] == [("cleanup.policy", ())]


@pytest.mark.parametrize("version", served(v.DESCRIBE_CLUSTER))
def test_describe_cluster(listener: Listener, version: int) -> None:
    s = request_schemas(v.DESCRIBE_CLUSTER, version)
    response = listener.ask(s.DescribeClusterRequest(include_cluster_authorized_operations=False))
    assert (code(response), response.cluster_id) == (ErrorCode.NONE, listener.broker.cluster_id)
    assert (response.controller_id, [b.broker_id for b in response.brokers]) == (1, [1])
    if version >= 1:
        request = s.DescribeClusterRequest(include_cluster_authorized_operations=False, endpoint_type=2)
        assert code(listener.ask(request)) == ErrorCode.MISMATCHED_ENDPOINT_TYPE


@pytest.mark.parametrize("version", served(v.INIT_PRODUCER_ID))
def test_init_producer_id(listener: Listener, version: int) -> None:
    s = request_schemas(v.INIT_PRODUCER_ID, version)
    fields: dict[str, Any] = {"transactional_id": None, "transaction_timeout": milliseconds(1000)}
    first = listener.ask(s.InitProducerIdRequest(**fields))
    second = listener.ask(s.InitProducerIdRequest(**fields))
    assert (code(first), first.producer_epoch) == (ErrorCode.NONE, 0)
    assert second.producer_id == first.producer_id + 1
    if version >= 3:
        known = s.InitProducerIdRequest(**fields, producer_id=first.producer_id, producer_epoch=0)
        raised = listener.ask(known)
        assert (raised.producer_id, raised.producer_epoch) == (first.producer_id, 1)
        assert code(listener.ask(s.InitProducerIdRequest(**fields, producer_id=4))) == ErrorCode.INVALID_REQUEST
    transactional = listener.ask(s.InitProducerIdRequest(**{**fields, "transactional_id": "x"}))
    assert code(transactional) == ErrorCode.COORDINATOR_NOT_AVAILABLE


@pytest.mark.parametrize("version", served(v.FIND_COORDINATOR))
def test_there_are_no_coordinators_yet(listener: Listener, version: int) -> None:
    s = request_schemas(v.FIND_COORDINATOR, version)
    kind = {"key_type": 0} if version >= 1 else {}
    if version >= 4:
        rows = listener.ask(s.FindCoordinatorRequest(coordinator_keys=("a", "b"), **kind)).coordinators
        assert [row.key for row in rows] == ["a", "b"]
    else:
        rows = [listener.ask(s.FindCoordinatorRequest(key="a", **kind))]
    assert all((code(row), row.node_id) == (ErrorCode.COORDINATOR_NOT_AVAILABLE, -1) for row in rows)

"""Answers that were once found to differ from Kafka 3.9.1's; see tests/interop/test_against_kafka.py."""

from __future__ import annotations

import struct
from typing import Any
from uuid import UUID

import pytest

from tests.fakes.kafka_client import Listener, frame, frames_of, milliseconds, request_schemas
from tests.harness.differential import batch
from tests.unit.test_kafka_connection import fetch_request, produce_request
from zkbroker.kafka import versions as v
from zkbroker.model.topics import topic_id_to_uuid

NOT_ASKED = -(2**31)


@pytest.fixture
def listener() -> Listener:
    listener = Listener()
    listener.broker.add_topic("t")
    listener.broker.add_topic("u")
    return listener


def produced(listener: Listener, records: bytes, version: int, transactional_id: str | None = None) -> str:
    request = produce_request(records=records, version=version)
    message = type(request)(
        transactional_id=transactional_id, acks=1, timeout=milliseconds(1000), topic_data=request.topic_data
    )
    (row,) = listener.ask(message).responses[0].partition_responses
    return str(row.error_code.name)


def test_nobody_could_end_a_clients_transaction(listener: Listener) -> None:
    records = batch(b"v", attributes=0x10, producer_id=1, producer_epoch=0, sequence=0)
    assert produced(listener, records, 9) == "transactional_id_authorization_failed"
    assert produced(listener, records, 9, "tx") == "invalid_txn_state"
    assert listener.broker.produced == []


def test_zstd_is_not_for_old_producers(listener: Listener) -> None:
    records = batch(b"v", attributes=4)
    assert produced(listener, records, 6) == "unsupported_compression_type"
    assert listener.broker.produced == []
    assert produced(listener, records, 7) == "none"


def metadata(version: int, *topics: tuple[str | None, UUID | None], **fields: Any) -> Any:
    s = request_schemas(v.METADATA, version)
    rows = tuple(
        s.MetadataRequestTopic(name=name, **({"topic_id": topic_id} if version >= 10 else {}))
        for name, topic_id in topics
    )
    return s.MetadataRequest(topics=rows, **fields)


def test_a_topic_named_twice_is_described_once(listener: Listener) -> None:
    response = listener.ask(metadata(1, ("t", None), ("u", None), ("t", None)))
    assert [topic.name for topic in response.topics] == ["t", "u"]


@pytest.mark.parametrize("version", [10, 11, 12])
def test_topics_are_asked_for_by_id_from_version_12_on(listener: Listener, version: int) -> None:
    topic_id = topic_id_to_uuid(listener.broker.by_name["t"].topic_id)
    flags: dict[str, Any] = {"include_topic_authorized_operations": False}
    if version == 10:
        flags["include_cluster_authorized_operations"] = False
    (topic,) = listener.ask(metadata(version, ("u", topic_id), **flags)).topics
    if version < 12:
        assert (topic.error_code.name, topic.name) == ("invalid_request", "u")
    else:
        assert (topic.error_code.name, topic.name) == ("none", "t"), "the id counts, not the name"


def test_without_an_authorizer_everybody_may_do_everything(listener: Listener) -> None:
    for asked in (True, False, True):
        response = listener.ask(
            metadata(
                10,
                ("t", None),
                ("nowhere", None),
                allow_auto_topic_creation=False,
                include_cluster_authorized_operations=asked,
                include_topic_authorized_operations=asked,
            )
        )
        assert response.cluster_authorized_operations == (8096 if asked else NOT_ASKED)
        assert {t.topic_authorized_operations for t in response.topics} == {3576 if asked else NOT_ASKED}
        s = request_schemas(v.DESCRIBE_CLUSTER, 1)
        cluster = listener.ask(s.DescribeClusterRequest(include_cluster_authorized_operations=asked))
        assert cluster.cluster_authorized_operations == (8096 if asked else NOT_ASKED)


@pytest.mark.parametrize(("endpoint_type", "error"), [(1, "none"), (2, "mismatched"), (3, "unsupported")])
def test_endpoint_types(listener: Listener, endpoint_type: int, error: str) -> None:
    s = request_schemas(v.DESCRIBE_CLUSTER, 1)
    request = s.DescribeClusterRequest(include_cluster_authorized_operations=False, endpoint_type=endpoint_type)
    assert listener.ask(request).error_code.name.startswith(error)


@pytest.mark.parametrize(
    ("name", "is_good"), [("a-1.B", True), ("", False), ("a b", False), ("-a", False), ("a.", False)]
)
def test_names_of_client_software(listener: Listener, name: str, is_good: bool) -> None:
    for version in (3, 4):
        s = request_schemas(v.API_VERSIONS, version)
        for fields in ({"client_software_name": name}, {"client_software_version": name}):
            request = s.ApiVersionsRequest(**{"client_software_name": "a", "client_software_version": "1", **fields})
            response = listener.ask(request)
            assert response.error_code.name == ("none" if is_good else "invalid_request")
            assert bool(response.api_keys) == is_good


@pytest.mark.parametrize("client_id", [b"\xff\xfe", b"caf\xe9"])
def test_a_client_id_that_is_not_utf8(listener: Listener, client_id: bytes) -> None:
    connection, transport = listener.connect()
    header = struct.pack(">hhih", v.API_VERSIONS, 0, 9, len(client_id))
    connection.dataReceived(frame(header + client_id))
    (answer,) = frames_of(transport.take())
    assert answer[:6] == struct.pack(">ih", 9, 0)


def test_an_impossible_session_epoch(listener: Listener) -> None:
    request = fetch_request(version=7)
    fields = {name: getattr(request, name) for name in type(request).__slots__}
    response = listener.ask(type(request)(**{**fields, "session_epoch": -7}))
    assert response.error_code.name == "fetch_session_id_not_found"


@pytest.mark.parametrize("version", [4, 5, 7])
@pytest.mark.parametrize("validate_only", [False, True])
def test_a_created_topics_settings(listener: Listener, version: int, validate_only: bool) -> None:
    """Told from the request: the broker that answers may not have heard of the topic yet."""
    s = request_schemas(v.CREATE_TOPICS, version)
    config_of = getattr(s, "CreateableTopicConfig", None) or s.CreatableTopicConfig

    def topic(name: str) -> Any:
        configs = (config_of(name="retention.ms", value="5"),)
        return s.CreatableTopic(name=name, num_partitions=1, replication_factor=1, assignments=(), configs=configs)

    request = s.CreateTopicsRequest(
        topics=(topic("new"), topic("t")), timeout=milliseconds(1000), validate_only=validate_only
    )
    new, existing = listener.ask(request).topics
    assert (new.error_code.name, existing.error_code.name) == ("none", "topic_already_exists")
    if version >= 5:
        assert [(c.name, c.value, c.config_source) for c in new.configs] == [
            ("retention.ms", "5", 1),
            ("cleanup.policy", "delete", 5),
        ]
        assert existing.configs == ()


@pytest.mark.parametrize("version", [1, 5, 6])
def test_a_topic_deleted_twice_in_one_request_is_deleted(listener: Listener, version: int) -> None:
    s = request_schemas(v.DELETE_TOPICS, version)
    timeout = milliseconds(1000)
    if version < 6:
        request = s.DeleteTopicsRequest(topic_names=("t", "t"), timeout=timeout)
    else:
        topic_id = topic_id_to_uuid(listener.broker.by_name["t"].topic_id)
        rows = (s.DeleteTopicState(name="t", topic_id=None), s.DeleteTopicState(name=None, topic_id=topic_id))
        request = s.DeleteTopicsRequest(topics=rows, timeout=timeout)
    assert [(row.name, row.error_code.name) for row in listener.ask(request).responses] == [("t", "none")] * 2
    assert "t" not in listener.broker.by_name

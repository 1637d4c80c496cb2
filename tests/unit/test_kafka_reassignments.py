"""AlterPartitionReassignments, ListPartitionReassignments and ElectLeaders over a connection, in all versions."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import succeed

from tests.fakes.kafka_client import Listener, milliseconds, request_schemas
from zkbroker.kafka import versions as v
from zkbroker.model.channel import TopicResult
from zkbroker.model.errors import ErrorCode
from zkbroker.model.limits import PARTITIONS_MOVED_MAX
from zkbroker.model.reassignments import ElectionKind, OngoingMove, PartitionOutcome
from zkbroker.model.topics import TopicPartition

T0, T1, U0 = TopicPartition("t", 0), TopicPartition("t", 1), TopicPartition("u", 0)


@pytest.fixture
def listener() -> Listener:
    return Listener()


def alter(*wanted: tuple[str, int, tuple[int, ...] | None]) -> Any:
    s = request_schemas(v.ALTER_PARTITION_REASSIGNMENTS, 0)
    names = dict.fromkeys(name for name, _, _ in wanted)
    topics = tuple(
        s.ReassignableTopic(
            name=name,
            partitions=tuple(
                s.ReassignablePartition(partition_index=number, replicas=replicas)
                for topic, number, replicas in wanted
                if topic == name
            ),
        )
        for name in names
    )
    return s.AlterPartitionReassignmentsRequest(timeout=milliseconds(1000), topics=topics)


def test_moves_are_asked_for_and_taken_back(listener: Listener) -> None:
    refused = PartitionOutcome(ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, "none")
    listener.broker.outcomes[T1] = refused
    answer = listener.ask(alter(("t", 0, (2, 3)), ("u", 0, (1,)), ("t", 1, None)))
    assert listener.broker.asked_moves == {T0: (2, 3), U0: (1,), T1: None}
    assert (answer.error_code.value, answer.error_message) == (0, None)
    assert [
        (topic.name, row.partition_index, row.error_code.name, row.error_message)
        for topic in answer.responses
        for row in topic.partitions
    ] == [
        ("t", 0, "none", None),
        ("t", 1, "no_reassignment_in_progress", "none"),
        ("u", 0, "none", None),
    ]
    listener.broker.admin_error = ErrorCode.NOT_CONTROLLER
    answer = listener.ask(alter(("t", 0, (2,))))
    assert (answer.error_code.name, answer.responses) == ("not_controller", ())


def test_moves_are_listed(listener: Listener) -> None:
    listener.broker.moves = [OngoingMove(T0, (2, 3, 1), (2, 3), (1,)), OngoingMove(U0, (1, 2), (2,), ())]
    s = request_schemas(v.LIST_PARTITION_REASSIGNMENTS, 0)

    def listed(topics: Any) -> list[Any]:
        answer = listener.ask(s.ListPartitionReassignmentsRequest(timeout=milliseconds(1000), topics=topics))
        assert answer.error_code.value == 0
        return [
            (topic.name, row.partition_index, row.replicas, row.adding_replicas, row.removing_replicas)
            for topic in answer.topics
            for row in topic.partitions
        ]

    assert listed(None) == [("t", 0, (2, 3, 1), (2, 3), (1,)), ("u", 0, (1, 2), (2,), ())]
    one = s.ListPartitionReassignmentsTopics(name="u", partition_indexes=(0, 1))
    assert listed((one,)) == [("u", 0, (1, 2), (2,), ())]
    assert listed(()) == []
    listener.broker.admin_error = ErrorCode.NOT_CONTROLLER
    answer = listener.ask(s.ListPartitionReassignmentsRequest(timeout=milliseconds(1000), topics=None))
    assert (answer.error_code.name, answer.topics) == ("not_controller", ())


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_old_clients_do_not_know_that_deletion_is_disabled(
    listener: Listener, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    disabled = TopicResult("t", ErrorCode.TOPIC_DELETION_DISABLED)
    monkeypatch.setattr(listener.broker, "delete_topics", lambda topics, timeout_ms: succeed([disabled]))
    s = request_schemas(v.DELETE_TOPICS, version)
    fields = {"topic_names": ("t",)} if version < 6 else {"topics": (s.DeleteTopicState(name="t", topic_id=None),)}
    (row,) = listener.ask(s.DeleteTopicsRequest(timeout=milliseconds(1), **fields)).responses
    assert row.error_code.name == ("invalid_request" if version < 3 else "topic_deletion_disabled")


@pytest.mark.parametrize("version", range(3))
def test_elections_are_asked_for(listener: Listener, version: int) -> None:
    s = request_schemas(v.ELECT_LEADERS, version)
    kind: dict[str, int] = {} if version == 0 else {"election_type": 1}
    listener.broker.outcomes[T1] = PartitionOutcome(ErrorCode.ELECTION_NOT_NEEDED, None)
    named = (s.TopicPartitions(topic="t", partitions=(0, 1)),)

    def asked(topics: Any, **kind: int) -> Any:
        return listener.ask(s.ElectLeadersRequest(topic_partitions=topics, timeout=milliseconds(1000), **kind))

    def rows(answer: Any) -> list[Any]:
        return [
            (topic.topic, row.partition_id, row.error_code.name)
            for topic in answer.replica_election_results
            for row in topic.partition_result
        ]

    assert rows(asked(named, **kind)) == [("t", 0, "none"), ("t", 1, "election_not_needed")]
    assert listener.broker.asked_election is (ElectionKind.UNCLEAN if version else ElectionKind.PREFERRED)
    assert rows(asked(None, **kind)) == [("t", 0, "none")]
    listener.broker.admin_error = ErrorCode.NOT_CONTROLLER
    assert rows(asked(named, **kind)) == [("t", 0, "not_controller"), ("t", 1, "not_controller")]
    if version:
        assert asked(None, **kind).error_code.name == "not_controller"
        assert rows(asked(named, election_type=7)) == [("t", 0, "invalid_request"), ("t", 1, "invalid_request")]


def test_more_partitions_than_a_turn_may_take_are_refused_as_a_whole(listener: Listener) -> None:
    count = PARTITIONS_MOVED_MAX + 1
    answer = listener.ask(alter(*(("t", number, (1,)) for number in range(count))))
    assert (answer.error_code.name, answer.responses) == ("policy_violation", ())
    assert listener.broker.asked_moves == {}
    s = request_schemas(v.LIST_PARTITION_REASSIGNMENTS, 0)
    named = s.ListPartitionReassignmentsTopics(name="t", partition_indexes=tuple(range(count)))
    answer = listener.ask(s.ListPartitionReassignmentsRequest(timeout=milliseconds(1000), topics=(named,)))
    assert answer.error_code.name == "policy_violation"
    s = request_schemas(v.ELECT_LEADERS, 2)
    named = s.TopicPartitions(topic="t", partitions=tuple(range(count)))
    request = s.ElectLeadersRequest(election_type=0, topic_partitions=(named,), timeout=milliseconds(1000))
    assert listener.ask(request).error_code.name == "policy_violation"

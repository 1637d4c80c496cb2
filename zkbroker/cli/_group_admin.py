"""What ``zkbroker-consumer-groups`` asks of a cluster: groups, their members and offsets, and partitions' ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import (
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    ConsumerGroupType,
    KafkaException,
    TopicCollection,
    TopicPartition,
)

from zkbroker.cli import _common as common
from zkbroker.cli._broker_client import BrokerConnection
from zkbroker.cli._common import kafka_admin as admin
from zkbroker.kafka.versions import OFFSET_DELETE, OFFSET_FETCH
from zkbroker.model.errors import ErrorCode

DEAD = "Dead"
EMPTY = "Empty"
STABLE = "Stable"
UNKNOWN = "Unknown"
REBALANCING = ("PreparingRebalance", "CompletingRebalance", "Assigning", "Reconciling")
STATES = ("PreparingRebalance", "CompletingRebalance", STABLE, DEAD, EMPTY, "Assigning", "Reconciling")
"""Kafka's words, in the order of its messages."""
TYPES = ("Consumer", "Classic")

_STATE_WORDS: dict[Any, str] = {
    ConsumerGroupState.PREPARING_REBALANCING: "PreparingRebalance",
    ConsumerGroupState.COMPLETING_REBALANCING: "CompletingRebalance",
    ConsumerGroupState.STABLE: STABLE,
    ConsumerGroupState.DEAD: DEAD,
    ConsumerGroupState.EMPTY: EMPTY,
}
_TYPE_WORDS: dict[Any, str] = {ConsumerGroupType.CONSUMER: "Consumer", ConsumerGroupType.CLASSIC: "Classic"}
_ASKED_AGAIN = ("NOT_COORDINATOR", "COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE")
_ASK_AGAIN_S = 0.1

Answer = TypeVar("Answer")
Partition = tuple[str, int]
"""(topic, partition)"""


class Listing(NamedTuple):
    group_id: str
    group_type: str
    state: str


class Member(NamedTuple):
    member_id: str
    group_instance_id: str | None
    client_id: str
    host: str
    partitions: tuple[Partition, ...]


class Description(NamedTuple):
    group_id: str
    state: str
    assignor: str
    coordinator_id: int
    coordinator_host: str
    coordinator_port: int
    members: tuple[Member, ...]


class GroupAdmin:
    """Each call takes at most the timeout. Raises KafkaException."""

    def __init__(self, bootstrap_server: str, properties: Mapping[str, str], timeout_s: float) -> None:
        self._properties = properties
        self._timeout_s = timeout_s
        self._admin = admin.AdminClient(common.client_config(bootstrap_server, properties, defaults={}))

    def _result(self, future: Any) -> Any:
        return future.result(self._timeout_s + 5)

    def _until_loaded(self, ask: Callable[[], Answer]) -> Answer:
        """As Java's client does: a coordinator that is being found or still loads is asked again."""
        until = time.monotonic() + self._timeout_s
        while True:
            try:
                return ask()
            except KafkaException as error:
                if error.args[0].name() not in _ASKED_AGAIN or time.monotonic() > until:
                    raise
            time.sleep(_ASK_AGAIN_S)

    def list_groups(self, states: Collection[str] = (), types: Collection[str] = ()) -> list[Listing]:
        """The groups in any of these states and of any of these types (none: all), by name."""
        known_states = {state for state, word in _STATE_WORDS.items() if word in states}
        if states and not known_states:
            return []  # states that only groups of other kinds have
        known_types = {kind for kind, word in _TYPE_WORDS.items() if word in types}
        filters = {"states": known_states} if states else {}
        future = self._admin.list_consumer_groups(
            request_timeout=self._timeout_s, **filters, **({"types": known_types} if types else {})
        )
        found = self._result(future)
        if found.errors:
            raise KafkaException(found.errors[0])
        listings = (
            Listing(one.group_id, _TYPE_WORDS.get(one.type, UNKNOWN), _STATE_WORDS.get(one.state, UNKNOWN))
            for one in found.valid
        )
        return sorted(listings)

    def describe(self, group_ids: Iterable[str]) -> list[Description]:
        """By name; a group that is not there is Dead."""
        wanted = sorted(set(group_ids))
        if not wanted:
            return []

        def ask() -> list[Description]:
            futures = self._admin.describe_consumer_groups(wanted, request_timeout=self._timeout_s)
            return [_description(self._result(futures[group_id])) for group_id in wanted]

        return self._until_loaded(ask)

    def committed(self, group_id: str) -> dict[Partition, int]:
        """The offsets that a group has committed."""
        if not group_id:
            return self._committed_by_no_name()
        asked = [ConsumerGroupTopicPartitions(group_id)]

        def ask() -> list[Any]:
            futures = self._admin.list_consumer_group_offsets(asked, request_timeout=self._timeout_s)
            return list(self._result(futures[group_id]).topic_partitions)

        rows = self._until_loaded(ask)
        return {(row.topic, row.partition): row.offset for row in rows if row.error is None and row.offset >= 0}

    def _committed_by_no_name(self) -> dict[Partition, int]:
        """By simple consumers without a group id, which confluent-kafka does not ask for."""
        (group,) = self.describe([""])
        wanted = {"group_id": "", "member_id": None, "member_epoch": -1, "topics": None}
        with closing(self._connection(group)) as connection:
            answer = connection.ask(OFFSET_FETCH, {**wanted, "groups": [wanted], "require_stable": False})
        topics = getattr(answer, "groups", [answer])[0].topics
        return {(topic.name, row.partition_index): row.committed_offset for topic in topics for row in topic.partitions}

    def _connection(self, group: Description) -> BrokerConnection:
        """To the group's coordinator, for what confluent-kafka cannot ask."""
        protocol = self._properties.get("security.protocol", "PLAINTEXT")
        if protocol.upper() != "PLAINTEXT":
            raise common.CommandError(f"this needs a connection of its own, which does not speak {protocol}")
        return BrokerConnection(group.coordinator_host, group.coordinator_port, self._timeout_s)

    def starts(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return self._offsets(partitions, admin.OffsetSpec.earliest)

    def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return self._offsets(partitions, admin.OffsetSpec.latest)

    def at_time(self, partitions: Iterable[Partition], timestamp_ms: int) -> dict[Partition, int]:
        """The first record at or after the time; -1 where there is none."""
        return self._offsets(partitions, lambda: admin.OffsetSpec.for_timestamp(timestamp_ms))

    def known_ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The ends of those that can be asked for: offsets outlive partitions."""
        wanted = list(partitions)
        names = self._admin.list_topics(timeout=self._timeout_s).topics
        led = [
            (topic, number)
            for topic, number in wanted
            if topic in names and number in names[topic].partitions and names[topic].partitions[number].leader >= 0
        ]
        return self.ends(led)

    def _offsets(self, partitions: Iterable[Partition], spec: Callable[[], Any]) -> dict[Partition, int]:
        asked = {TopicPartition(topic, partition): spec() for topic, partition in partitions}
        if not asked:
            return {}
        futures = self._admin.list_offsets(asked, request_timeout=self._timeout_s)
        return {(one.topic, one.partition): self._result(future).offset for one, future in futures.items()}

    def partitions_of(self, topic: str) -> list[Partition]:
        futures = self._admin.describe_topics(TopicCollection([topic]), request_timeout=self._timeout_s)
        return [(topic, partition.id) for partition in self._result(futures[topic]).partitions]

    def set_offsets(self, group_id: str, offsets: Mapping[Partition, int]) -> None:
        """Raises KafkaException when any of them is refused."""
        rows = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        if not rows:
            return
        if not group_id:
            raise common.CommandError("offsets of the group without a name cannot be set with this tool")
        asked = [ConsumerGroupTopicPartitions(group_id, rows)]

        def ask() -> None:
            futures = self._admin.alter_consumer_group_offsets(asked, request_timeout=self._timeout_s)
            for row in self._result(futures[group_id]).topic_partitions:
                if row.error is not None:
                    raise KafkaException(row.error)

        self._until_loaded(ask)

    def delete_groups(self, group_ids: Iterable[str]) -> dict[str, str | None]:
        """The name of the error with which each was refused; None for deleted."""
        wanted = sorted(set(group_ids))
        if not wanted:
            return {}
        return {group_id: self._refusal(partial(self._delete, group_id)) for group_id in wanted}

    def _delete(self, group_id: str) -> None:
        self._result(self._admin.delete_consumer_groups([group_id], request_timeout=self._timeout_s)[group_id])

    def _refusal(self, ask: Callable[[], None]) -> str | None:
        try:
            self._until_loaded(ask)
        except KafkaException as error:
            if error.args[0].code() < 0:
                raise  # the client's own: no broker answered
            return str(error.args[0].name())
        return None

    def delete_offsets(
        self, group_id: str, partitions: Collection[Partition]
    ) -> tuple[str | None, dict[Partition, str | None]]:
        """(the error of the whole request, that of each partition) by name; None for none."""
        until = time.monotonic() + self._timeout_s
        while True:
            (group,) = self.describe([group_id])
            with closing(self._connection(group)) as connection:
                error, rows = ask_to_delete(connection, group_id, partitions)
            if error not in _ASKED_AGAIN or time.monotonic() > until:
                return error, rows
            time.sleep(_ASK_AGAIN_S)


def ask_to_delete(
    coordinator: BrokerConnection, group_id: str, partitions: Collection[Partition]
) -> tuple[str | None, dict[Partition, str | None]]:
    """OffsetDelete (KIP-496), which confluent-kafka does not have. Returns names of errors, None for none: that of the
    whole request and that of each partition. Raises OSError without an answer."""
    topics = [
        {"name": topic, "partitions": [{"partition_index": number} for _, number in rows]}
        for topic, rows in groupby(sorted(partitions), lambda row: row[0])
    ]
    answer = coordinator.ask(OFFSET_DELETE, {"group_id": group_id, "topics": topics})
    answered = {
        (topic.name, row.partition_index): _error_name(row.error_code)
        for topic in answer.topics
        for row in topic.partitions
    }
    return _error_name(answer.error_code), answered


def _error_name(code: int) -> str | None:
    return None if code == ErrorCode.NONE else ErrorCode(code).name


def _description(found: Any) -> Description:
    node = found.coordinator
    members = (
        Member(
            one.member_id,
            one.group_instance_id or None,
            one.client_id,
            one.host,
            tuple(
                sorted(
                    (partition.topic, partition.partition)
                    for partition in (one.assignment.topic_partitions if one.assignment else ())
                )
            ),
        )
        for one in found.members
    )
    return Description(
        found.group_id,
        _STATE_WORDS.get(found.state, UNKNOWN),
        found.partition_assignor or "",
        node.id if node else -1,
        node.host if node else "",
        node.port if node else -1,
        tuple(sorted(members)),
    )

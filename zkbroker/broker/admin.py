"""What administrators ask through Kafka's protocol: topics go to the controller, descriptions come from the tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from zkbroker.broker.controller_loop import ControllerLoop
from zkbroker.broker.metadata import ClusterMetadata
from zkbroker.broker.topic_configs import TopicConfigs
from zkbroker.kafka.config_ports import SettingsPort
from zkbroker.kafka.ports import ConfigDescription, ConfigEntry, PartitionsToAdd, TopicToDelete
from zkbroker.model.channel import NewTopic, TopicResult
from zkbroker.model.config import (
    BrokerConfig,
    describe_broker_entries,
    describe_dynamic_default_entries,
    describe_topic_entries,
)
from zkbroker.model.errors import ErrorCode
from zkbroker.model.reassignments import ElectionKind, OngoingMove, PartitionOutcome
from zkbroker.model.topics import TopicPartition, topic_name_error

AUTO_CREATIONS_IN_FLIGHT_MAX = 100
"""Topics being created because clients asked for them: a client that invents names must not flood the controller."""


class Admin:
    """Fills ``kafka.ports.AdminPort``."""

    def __init__(
        self,
        *,
        config: BrokerConfig,
        controller: ControllerLoop,
        metadata: ClusterMetadata,
        topic_configs: TopicConfigs,
        create_topic: Callable[[NewTopic], Deferred[TopicResult]],
        new_topic: Callable[[str], NewTopic] = NewTopic,
        settings: SettingsPort,
        log: Callable[[str], None],
    ) -> None:
        self._config = config
        self._controller = controller
        self._metadata = metadata
        self._topic_configs = topic_configs
        self._create_topic = create_topic
        self._new_topic = new_topic
        self.settings = settings
        self._log = log
        self._being_created: dict[str, None] = {}
        self._complaints: dict[str, str] = {}
        """Topic → why it could not be created, as it was logged last: clients ask several times a second. Of the latest
        ``AUTO_CREATIONS_IN_FLIGHT_MAX`` topics."""

    def __repr__(self) -> str:
        return f"Admin(creating={list(self._being_created)})"

    def create_topics(
        self, topics: Sequence[NewTopic], timeout_ms: int, validate_only: bool
    ) -> Deferred[list[TopicResult]]:
        return self._controller.create_topics(topics, timeout_ms, validate_only)

    def delete_topics(self, topics: Sequence[TopicToDelete], timeout_ms: int) -> Deferred[list[TopicResult]]:
        return self._controller.delete_topics(topics, timeout_ms)

    def create_partitions(
        self, topics: Sequence[PartitionsToAdd], timeout_ms: int, validate_only: bool
    ) -> Deferred[list[TopicResult]]:
        return self._controller.create_partitions(topics, timeout_ms, validate_only)

    def alter_reassignments(
        self, wanted: Mapping[TopicPartition, tuple[int, ...] | None], timeout_ms: int
    ) -> Deferred[Mapping[TopicPartition, PartitionOutcome]]:
        return self._controller.alter_reassignments(wanted, timeout_ms)

    def list_reassignments(
        self, partitions: Sequence[TopicPartition] | None, timeout_ms: int
    ) -> Deferred[list[OngoingMove]]:
        return self._controller.list_reassignments(partitions, timeout_ms)

    def elect_leaders(
        self, kind: ElectionKind, partitions: Sequence[TopicPartition] | None, timeout_ms: int
    ) -> Deferred[Mapping[TopicPartition, PartitionOutcome]]:
        return self._controller.elect_leaders(kind, partitions, timeout_ms)

    def auto_create_topic(self, name: str) -> bool:
        """Begin creating the topic where ``auto.create.topics.enable`` allows it; asked again while it is under way."""
        if not self._config.get_bool("auto.create.topics.enable") or topic_name_error(name) is not None:
            return False
        if name not in self._being_created and len(self._being_created) < AUTO_CREATIONS_IN_FLIGHT_MAX:
            self._being_created[name] = None
            self._create_topic(self._new_topic(name)).addCallbacks(
                self._created, self._not_created, callbackArgs=(name,), errbackArgs=(name,)
            )
        return True

    def _created(self, result: TopicResult, name: str) -> None:
        if result.error in (ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS):
            self._being_created.pop(name, None)
            self._complaints.pop(name, None)
        else:
            self._complain(name, f"{result.error.name} {result.message or ''}".rstrip())

    def _not_created(self, failure: Failure, name: str) -> None:
        self._complain(name, failure.getErrorMessage())

    def _complain(self, name: str, why: str) -> None:
        self._being_created.pop(name, None)
        if self._complaints.pop(name, None) != why:
            self._log(f"topic {name} could not be created for a client: {why}")
        self._complaints[name] = why
        if len(self._complaints) > AUTO_CREATIONS_IN_FLIGHT_MAX:
            del self._complaints[next(iter(self._complaints))]

    def describe_topic_config(self, name: str) -> ConfigDescription:
        problem = topic_name_error(name)
        if problem is not None:
            return ConfigDescription(ErrorCode.INVALID_TOPIC_EXCEPTION, problem)
        if self._metadata.topic(name) is None:
            return ConfigDescription(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, None)
        entries = describe_topic_entries(self._config, *self._dynamic(), self._topic_configs.overrides(name))
        return ConfigDescription(ErrorCode.NONE, None, entries)

    def new_topic_config(self, overrides: Mapping[str, str]) -> Sequence[ConfigEntry]:
        return describe_topic_entries(self._config, *self._dynamic(), overrides)

    def describe_broker_config(self, name: str) -> ConfigDescription:
        if not name:
            entries = describe_dynamic_default_entries(self._topic_configs.dynamic_default)
            return ConfigDescription(ErrorCode.NONE, None, entries)
        if name != str(self._metadata.broker_id):
            return ConfigDescription(
                ErrorCode.INVALID_REQUEST,
                f"Unexpected broker id, expected {self._metadata.broker_id} or empty string, but received {name}",
            )
        return ConfigDescription(ErrorCode.NONE, None, describe_broker_entries(self._config, *self._dynamic()))

    def _dynamic(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        return self._topic_configs.dynamic_default, self._topic_configs.dynamic_broker

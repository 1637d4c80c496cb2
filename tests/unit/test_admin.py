"""Admin: topics that clients ask into being, and what describing a configuration answers."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.fakes.settings import FakeSettings
from zkbroker.broker.admin import AUTO_CREATIONS_IN_FLIGHT_MAX, Admin
from zkbroker.broker.metadata import ClusterMetadata
from zkbroker.model.channel import NewTopic, TopicResult
from zkbroker.model.cluster import ClusterDelta
from zkbroker.model.config.broker import BrokerConfig, Setting
from zkbroker.model.config.build import build_broker_config
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topics import PartitionState, TopicPartition


def config(**settings: str) -> BrokerConfig:
    values = {"broker.id": "1", "zookeeper.connect": "h:1", "log.dirs": "/d", "listeners": "PLAINTEXT://:9092"}
    values.update({name.replace("_", "."): text for name, text in settings.items()})
    return build_broker_config([Setting(name, text, "test") for name, text in values.items()])


class World:
    """Stands in for the controller and the settings."""

    dynamic_default = {"num.io.threads": "9"}
    dynamic_broker = {"min.insync.replicas": "3"}

    def __init__(self, **settings: str) -> None:
        self.asked: list[tuple[str, Deferred[TopicResult]]] = []
        self.told: list[Any] = []
        self.lines: list[str] = []
        self.metadata = ClusterMetadata("c", 1)
        state = PartitionState("id", (1,), 1, 0, (1,), 0, 1)
        self.metadata.apply(ClusterDelta(1, 1, 0, is_snapshot=True, partitions=((TopicPartition("t", 0), state),)))
        self.admin = Admin(
            config=config(**settings),
            controller=self,  # type: ignore[arg-type]
            metadata=self.metadata,
            topic_configs=self,  # type: ignore[arg-type]
            create_topic=self.create_topic,
            settings=FakeSettings(),
            log=self.lines.append,
        )

    def create_topic(self, topic: NewTopic) -> Deferred[TopicResult]:
        self.asked.append((topic.name, Deferred()))
        return self.asked[-1][1]

    def create_topics(self, *arguments: Any) -> None:
        self.told.append(("create", *arguments))

    def delete_topics(self, *arguments: Any) -> None:
        self.told.append(("delete", *arguments))

    def create_partitions(self, *arguments: Any) -> None:
        self.told.append(("partitions", *arguments))

    def overrides(self, topic: str) -> dict[str, str]:
        return {"retention.ms": "5"} if topic == "t" else {}


def test_orders_go_to_the_controller_as_they_came() -> None:
    world = World()
    world.admin.create_topics([NewTopic("a")], 5, True)
    world.admin.delete_topics([], 6)
    world.admin.create_partitions([], 7, False)
    assert world.told == [("create", [NewTopic("a")], 5, True), ("delete", [], 6), ("partitions", [], 7, False)]


def test_a_topic_is_asked_for_once_while_it_is_under_way() -> None:
    world = World()
    assert [world.admin.auto_create_topic("a") for _ in range(3)] == [True] * 3
    assert [name for name, _ in world.asked] == ["a"]
    world.asked[0][1].callback(TopicResult("a", ErrorCode.TOPIC_ALREADY_EXISTS))
    assert world.lines == []
    assert world.admin.auto_create_topic("a")
    assert len(world.asked) == 2


def test_a_creation_that_fails_is_logged_and_may_be_asked_again() -> None:
    world = World()
    world.admin.auto_create_topic("a")
    world.asked[-1][1].callback(TopicResult("a", ErrorCode.INVALID_REPLICATION_FACTOR, "only 1 broker"))
    world.admin.auto_create_topic("a")
    world.asked[-1][1].errback(Failure(BrokerError(ErrorCode.NOT_CONTROLLER, "no controller is known")))
    assert len(world.lines) == 2
    assert "INVALID_REPLICATION_FACTOR only 1 broker" in world.lines[0]
    assert world.lines[1].endswith("no controller is known")
    assert world.admin.auto_create_topic("a")
    assert len(world.asked) == 3


def test_the_same_complaint_about_a_topic_is_not_logged_for_every_request() -> None:
    world = World()
    for _ in range(5):
        world.admin.auto_create_topic("a")
        world.asked[-1][1].errback(Failure(BrokerError(ErrorCode.NOT_CONTROLLER, "no controller is known")))
    assert len(world.lines) == 1


def test_a_client_that_invents_names_does_not_flood_the_controller() -> None:
    world = World()
    assert all(world.admin.auto_create_topic(f"t{number}") for number in range(AUTO_CREATIONS_IN_FLIGHT_MAX + 50))
    assert len(world.asked) == AUTO_CREATIONS_IN_FLIGHT_MAX


@pytest.mark.parametrize("name", ["", "..", "a b", "x" * 250])
def test_a_name_that_no_topic_can_have_is_not_created(name: str) -> None:
    world = World()
    assert not world.admin.auto_create_topic(name)
    assert world.asked == []


def test_nothing_is_created_where_that_is_off() -> None:
    world = World(auto_create_topics_enable="false")
    assert not world.admin.auto_create_topic("a")
    assert world.asked == []


def test_a_topics_settings_say_where_they_come_from() -> None:
    world = World()
    described = world.admin.describe_topic_config("t")
    values = {entry.name: entry.value for entry in described.entries}
    assert described.error is ErrorCode.NONE
    assert (values["retention.ms"], values["min.insync.replicas"]) == ("5", "3")
    assert world.admin.describe_topic_config("gone").error is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert world.admin.describe_topic_config("a b").error is ErrorCode.INVALID_TOPIC_EXCEPTION


def test_only_this_brokers_settings_and_the_common_ones_are_described() -> None:
    world = World()
    common = world.admin.describe_broker_config("")
    assert [(entry.name, entry.value) for entry in common.entries] == [("num.io.threads", "9")]
    own = world.admin.describe_broker_config("1")
    assert {entry.name: entry.value for entry in own.entries}["broker.id"] == "1"
    other = world.admin.describe_broker_config("2")
    assert (other.error, other.entries) == (ErrorCode.INVALID_REQUEST, ())

"""Topic settings from /config: what is read, when it is read again, and what becomes of garbage."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from twisted.internet.defer import Deferred

from tests.harness.zookeeper_worlds import FakeWorld, connect, wait
from zkbroker.broker.topic_configs import CHANGE_NOTIFICATION_EXPIRATION_MS, TopicConfigs
from zkbroker.model.topic_config import TopicConfig
from zkbroker.zookeeper.client import ConnectionLossError, Create, Delete, SetData
from zkbroker.zookeeper.znodes import config as znode


def resolve(
    default: Mapping[str, str], own: Mapping[str, str], topic: Mapping[str, str]
) -> tuple[TopicConfig, list[str]]:
    settings = {**default, **own, **topic}
    text = settings.get("min.insync.replicas", "1")
    if not text.isdigit():
        return TopicConfig(), [f"min.insync.replicas is {text!r}"]
    return TopicConfig(min_insync_replicas=int(text)), []


class World(FakeWorld):
    """A connected session, topic settings on it, and a person at the znodes."""

    def __init__(self) -> None:
        super().__init__()
        for path in ("/config", "/config/topics", "/config/brokers", "/config/changes"):
            self.zookeeper.write(Create(path, b""))
        self.zk = self.session()
        connect(self, self.zk)
        self.changed: list[str] = []
        self.brokers_changed: list[dict[str, str]] = []
        self.lines: list[str] = []
        self.configs = TopicConfigs(
            broker_id=1,
            zk=self.zk,
            clock=self.clock,
            resolve=resolve,
            changed=self.changed.append,
            log=self.lines.append,
            brokers_changed=lambda: self.brokers_changed.append(dict(self.configs.dynamic_broker)),
        )

    def put(self, topic: str, min_isr: int | str) -> None:
        self.write(znode.topic_path(topic), znode.encode({"min.insync.replicas": str(min_isr)}))

    def write(self, path: str, data: bytes) -> None:
        exists = self.zookeeper.data(path) is not None
        self.zookeeper.write(SetData(path, data) if exists else Create(path, data))

    def notify(self, entity_type: str, entity: str) -> None:
        self.notice(znode.encode_change(entity_type, entity))

    def notice(self, data: bytes) -> None:
        self.zookeeper.write(Create(znode.CHANGE_PREFIX, data, sequential=True))

    def settle(self) -> None:
        for _ in range(40):
            self.reactor.advance(0.001)

    def min_isr(self, topic: str) -> int:
        return self.configs.get(topic).min_insync_replicas

    def start(self) -> None:
        wait(self, self.configs.start())


def test_start_reads_every_topic_and_both_dynamic_broker_znodes() -> None:
    world = World()
    world.put("a", 2)
    world.put("b c", 3)  # as it stands in the path: b%20c
    world.write("/config/brokers/<default>", znode.encode({"min.insync.replicas": "4"}))
    world.write("/config/brokers/1", znode.encode({"min.insync.replicas": "5"}))
    world.start()
    assert [world.min_isr(topic) for topic in ("a", "b c", "unknown")] == [2, 3, 5]
    assert (world.configs.knows("a"), world.configs.knows("unknown")) == (True, False)
    assert world.configs.overrides("a") == {"min.insync.replicas": "2"}
    assert world.configs.dynamic_default == {"min.insync.replicas": "4"}
    assert world.configs.dynamic_broker == {"min.insync.replicas": "5"}


def test_a_notified_change_takes_effect_and_is_told_once() -> None:
    world = World()
    world.put("t", 1)
    world.start()
    assert world.changed == []
    world.put("t", 2)
    world.notify("topics", "t")
    world.settle()
    assert (world.min_isr("t"), world.changed) == (2, ["t"])
    world.notify("topics", "t")
    world.settle()
    assert world.changed == ["t"]


def test_a_change_by_hand_needs_no_notification() -> None:
    world = World()
    world.put("t", 1)
    world.start()
    for value in (2, 3):
        world.put("t", value)
        world.settle()
        assert world.min_isr("t") == value
    world.zookeeper.write(Delete(znode.topic_path("t")))
    world.settle()
    assert (world.min_isr("t"), world.changed) == (1, ["t", "t", "t"])


def test_settings_that_appear_after_a_read_that_came_too_early() -> None:
    """The read may be answered by a server that does not have what the controller wrote before the topic."""
    world = World()
    world.start()
    wait(world, world.configs.load("new"))
    assert world.configs.knows("new")
    assert world.min_isr("new") == 1
    world.put("new", 2)
    world.settle()
    assert (world.min_isr("new"), world.changed) == (2, ["new"])


def test_settings_used_before_they_were_read_are_told_when_they_differ() -> None:
    world = World()
    world.put("t", 2)
    assert world.min_isr("t") == 1
    world.start()
    assert (world.min_isr("t"), world.changed) == (2, ["t"])


def test_changed_broker_settings_reach_the_topics_that_they_concern() -> None:
    world = World()
    world.put("own", 2)
    world.start()
    world.changed.clear()
    wait(world, world.configs.load("bare"))
    world.write("/config/brokers/<default>", znode.encode({"min.insync.replicas": "7"}))
    world.notify("brokers", "<default>")
    world.settle()
    assert (world.min_isr("own"), world.min_isr("bare"), world.changed) == (2, 7, ["bare"])


def test_a_garbage_topic_znode_keeps_the_last_good_settings_and_is_logged_once() -> None:
    world = World()
    world.put("t", 2)
    world.start()
    world.changed.clear()
    world.write(znode.topic_path("t"), b"{oops")
    for _ in range(3):
        world.notify("topics", "t")
        world.settle()
    assert (world.min_isr("t"), world.changed) == (2, [])
    assert len(world.lines) == 1
    assert world.lines[0].startswith("/config/topics/t: not JSON")
    world.put("t", 3)
    world.settle()
    world.write(znode.topic_path("t"), b"{oops")
    world.settle()
    assert (world.min_isr("t"), len(world.lines)) == (3, 2)


def test_a_value_that_means_nothing_is_reported_with_its_path() -> None:
    world = World()
    world.put("t", "many")
    world.start()
    assert world.min_isr("t") == 1
    assert world.lines == ["/config/topics/t: min.insync.replicas is 'many'"]


def test_garbage_in_a_brokers_znode_keeps_the_last_good_settings_and_is_logged_once() -> None:
    world = World()
    world.write("/config/brokers/1", znode.encode({"min.insync.replicas": "2"}))
    world.start()
    world.write("/config/brokers/1", b"[]")
    for _ in range(2):
        world.notify("brokers", "1")
        world.settle()
    assert world.min_isr("t") == 2
    assert len(world.lines) == 1
    assert world.lines[0].startswith("/config/brokers/1: ")


def test_garbage_notices_are_skipped_and_leave_nothing_behind() -> None:
    world = World()
    world.put("t", 1)
    world.start()
    for data in (b"", b"\xff", b"{}", b'{"version":9}', b'{"version":2,"entity_path":"nothing/x"}', b"[" * 10_000):
        world.notice(data)
    world.put("t", 2)
    world.notify("topics", "t")
    world.settle()
    assert world.min_isr("t") == 2
    assert len(world.lines) == 6
    for name in world.zookeeper.children("/config/changes"):
        world.zookeeper.write(Delete(f"/config/changes/{name}"))
    world.settle()
    assert repr(world.configs) == "TopicConfigs(1 topics, 0 loading, 0 changes)"


def test_a_notification_is_purged_when_it_is_15_minutes_old_and_not_before() -> None:
    world = World()
    world.start()
    world.notify("topics", "t")
    world.settle()
    first = world.zookeeper.children("/config/changes")
    world.reactor.advance(CHANGE_NOTIFICATION_EXPIRATION_MS / 1000 - 10)
    world.notify("topics", "t")
    world.settle()
    assert world.zookeeper.children("/config/changes")[:1] == first
    world.reactor.advance(20)
    world.notify("topics", "t")
    world.settle()
    assert len(world.zookeeper.children("/config/changes")) == 2
    assert first[0] not in world.zookeeper.children("/config/changes")


def test_a_notification_about_a_topic_that_nobody_asked_for_is_not_remembered() -> None:
    world = World()
    world.start()
    for number in range(5):
        world.notify("topics", f"gone-{number}")
    world.settle()
    assert not world.configs.knows("gone-0")
    assert repr(world.configs) == "TopicConfigs(0 topics, 0 loading, 5 changes)"


def test_a_deleted_folder_of_changes_is_made_again_and_watched() -> None:
    world = World()
    world.put("t", 1)
    world.notify("topics", "t")
    world.start()
    for name in world.zookeeper.children("/config/changes"):
        world.zookeeper.write(Delete(f"/config/changes/{name}"))
    world.zookeeper.write(Delete("/config/changes"))
    world.settle()
    assert world.zookeeper.data("/config/changes") == b""
    # Numbers begin anew: what is new is told by name, not by being the highest.
    world.write("/config/brokers/1", znode.encode({"min.insync.replicas": "6"}))
    world.notify("brokers", "1")
    world.settle()
    assert world.min_isr("x") == 6


def test_everything_is_read_again_after_a_lost_connection() -> None:
    world = World()
    world.put("t", 1)
    world.start()
    wait(world, world.configs.load("late"))
    world.zk.disconnect()
    world.put("t", 2)
    world.put("late", 3)
    world.write("/config/brokers/<default>", znode.encode({"min.insync.replicas": "4"}))
    world.zk.reconnect()
    world.settle()
    assert [world.min_isr(topic) for topic in ("t", "late", "other")] == [2, 3, 4]
    assert sorted(set(world.changed)) == ["late", "t"]
    world.put("late", 5)
    world.settle()
    assert world.min_isr("late") == 5


def test_watches_do_not_pile_up_over_reconnects() -> None:
    world = World()
    world.put("t", 1)
    world.start()
    for _ in range(5):
        world.break_connection(world.zk)
        world.settle()
    world.notify("topics", "t")
    world.settle()
    counts = [len(handles) for handles in world.zookeeper._watches.values()]
    assert counts == [1, 1, 1, 1]  # the topic, both of brokers, the notifications


def test_a_recreated_topic_starts_with_its_own_settings() -> None:
    world = World()
    world.put("t", 2)
    world.start()
    world.configs.forget("t")
    assert (world.configs.knows("t"), world.min_isr("t")) == (False, 1)
    world.put("t", 3)
    world.settle()
    assert not world.configs.knows("t")
    wait(world, world.configs.load("t"))
    assert world.min_isr("t") == 3


def test_a_read_that_was_under_way_when_the_topic_went_says_nothing_about_its_successor() -> None:
    world = World()
    world.start()
    world.put("t", 2)
    answered: list[str] = []
    world.configs.load("t").addCallback(lambda _: answered.append("first"))
    world.configs.forget("t")
    assert answered == ["first"]
    assert not world.configs.knows("t")
    world.zookeeper.write(Delete(znode.topic_path("t")))
    second = world.configs.load("t")
    second.addCallback(lambda _: answered.append("second"))
    wait(world, second)
    assert (answered, world.configs.overrides("t")) == (["first", "second"], {})


def test_a_load_that_fails_succeeds_when_it_is_asked_again_after_the_reconnect() -> None:
    world = World()
    world.put("t", 2)
    world.start()
    world.configs.forget("t")
    waiting: Deferred[None] = world.configs.load("t")
    also: Deferred[None] = world.configs.load("t")
    world.zk.disconnect()
    with pytest.raises(ConnectionLossError):
        wait(world, waiting)
    with pytest.raises(ConnectionLossError):
        wait(world, also)
    with pytest.raises(ConnectionLossError):
        wait(world, world.configs.load("t"))
    assert not world.configs.knows("t")
    world.zk.reconnect()
    world.until(lambda: world.zk.is_connected)
    wait(world, world.configs.load("t"))
    assert world.min_isr("t") == 2
    assert repr(world.configs).startswith("TopicConfigs(1 topics, 0 loading")


def test_start_may_be_asked_again_after_it_failed() -> None:
    world = World()
    world.put("t", 2)
    started = world.configs.start()
    world.zk.disconnect()
    with pytest.raises(ConnectionLossError):
        wait(world, started)
    world.zk.reconnect()
    world.until(lambda: world.zk.is_connected)
    world.start()
    assert (world.min_isr("t"), world.changed) == (2, ["t"])


@pytest.mark.parametrize("steps", range(14))
def test_a_start_that_lost_the_connection_never_looks_like_one_that_read_all(steps: int) -> None:
    """The logs would be recovered with settings that are not their topics'."""
    world = World()
    world.put("a", 2)
    world.write("/config/brokers/<default>", znode.encode({"min.insync.replicas": "4"}))
    outcomes: list[object] = []
    world.configs.start().addCallbacks(
        lambda _: outcomes.append((world.min_isr("a"), world.min_isr("b"))),
        lambda failure: outcomes.append(failure.type),
    )
    for _ in range(steps):
        world.reactor.advance(0.001)
    world.zk.disconnect()
    assert outcomes in ([(2, 4)], [ConnectionLossError])


def test_asking_for_many_names_costs_no_memory() -> None:
    world = World()
    world.start()
    assert len({id(world.configs.get(f"invented-{number}")) for number in range(100)}) == 1


@pytest.mark.parametrize("path", ["/config/brokers/<default>", "/config/brokers/1"])
def test_what_a_person_writes_for_brokers_holds_without_a_notification(path: str) -> None:
    world = World()
    world.put("own", 2)
    world.start()
    for topic in ("own", "plain"):
        wait(world, world.configs.load(topic))
    world.changed.clear()
    for min_isr in ("3", "4"):  # made, then changed
        world.write(path, znode.encode({"min.insync.replicas": min_isr}))
        world.settle()
        assert (world.min_isr("plain"), world.min_isr("own")) == (int(min_isr), 2)
    assert world.changed == ["plain", "plain"]
    assert len(world.brokers_changed) == 2
    world.zookeeper.write(Delete(path))
    world.settle()
    assert world.min_isr("plain") == 1
    world.break_connection(world.zk)
    world.settle()
    world.write(path, znode.encode({"min.insync.replicas": "5"}))
    world.settle()
    assert world.min_isr("plain") == 5


def test_what_is_to_be_read_again_may_be_forgotten_meanwhile() -> None:
    world = World()
    world.start()
    world.configs.load("t")
    again = world.configs.read_again("t")
    world.configs.forget("t")
    wait(world, again)
    world.settle()
    assert not world.configs.knows("t")


def test_what_was_written_is_read_again_though_a_read_was_under_way() -> None:
    world = World()
    world.start()
    world.put("t", 1)
    first = world.configs.load("t")
    world.put("t", 2)
    again = world.configs.read_again("t")
    wait(world, first)
    wait(world, again)
    assert world.min_isr("t") == 2

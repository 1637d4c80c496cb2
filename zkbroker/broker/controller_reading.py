"""Reading the cluster out of ZooKeeper for the controller. What does not decode is left out and named once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from zkbroker.broker.controller_zookeeper import gather
from zkbroker.controller.cluster_image import Placement, TopicImage, TopicRules
from zkbroker.model.cluster import BrokerRegistration
from zkbroker.model.config.dynamic_keys import refusal
from zkbroker.model.config.topic_table import TOPIC_KEYS
from zkbroker.model.topics import PartitionState, TopicPartition, topic_name_error
from zkbroker.zookeeper.client import NoNodeError, Stat, Watch, ZooKeeperClient
from zkbroker.zookeeper.znodes import brokers as broker_znode
from zkbroker.zookeeper.znodes import config as config_znode
from zkbroker.zookeeper.znodes import states as state_znode
from zkbroker.zookeeper.znodes import topics as topic_znode
from zkbroker.zookeeper.znodes.codec import ZnodeError

READS_AT_ONCE = 1000
"""Reads pipelined at a time, so that a large cluster does not queue a million calls."""

UNREADABLE = TopicRules(unclean=False)
"""Of a topic whose settings do not decode: they may forbid what the broker's defaults allow."""

States = dict[TopicPartition, tuple[PartitionState, int]]
Data = tuple[bytes, Stat]


class ClusterReader:
    """Reads only; remembers what it complained about, and which topics are quarantined."""

    def __init__(self, zk: ZooKeeperClient, log: Callable[[str], None]) -> None:
        self._zk = zk
        self._log = log
        self._complaints: dict[str, str] = {}

    @inlineCallbacks
    def get_all(
        self, paths: Sequence[str], watches: Callable[[str], Watch | None] = lambda path: None
    ) -> Generator[Deferred[Any], Any, dict[str, Data]]:
        """Those of ``paths`` that exist, pipelined."""
        found: dict[str, Data] = {}
        for start in range(0, len(paths), READS_AT_ONCE):
            some = paths[start : start + READS_AT_ONCE]
            results: list[Data | None] = yield gather([self._get(path, watches(path)) for path in some])
            found.update((path, data) for path, data in zip(some, results, strict=True) if data is not None)
        return found

    @inlineCallbacks
    def _get(self, path: str, watch: Watch | None) -> Generator[Deferred[Any], Any, Data | None]:
        try:
            data: Data = yield self._zk.get(path, watch)
        except NoNodeError:
            return None
        return data

    @inlineCallbacks
    def brokers(self, watch: Watch) -> Generator[Deferred[Any], Any, list[BrokerRegistration]]:
        """The live brokers, by id; ``watch`` fires when one comes, goes or changes."""
        names: list[str] = yield self._zk.children(broker_znode.IDS_PATH, watch)
        paths = [f"{broker_znode.IDS_PATH}/{name}" for name in names]
        found: dict[str, Data] = yield self.get_all(paths, lambda path: watch)
        brokers = []
        for path in paths:
            if path in found:
                data, stat = found[path]
                try:
                    brokers.append(broker_znode.decode(path, data, stat.czxid))
                except ZnodeError as error:
                    self.complain(path, str(error))
        return sorted(brokers)

    def topic(self, name: str, data: bytes) -> topic_znode.TopicAssignment | None:
        """The decoded znode of a topic, None (and a complaint) if it doesn't decode."""
        path = topic_znode.topic_path(name)
        problem = topic_name_error(name)
        try:
            if problem is None:
                return topic_znode.decode(path, data)
        except ZnodeError as error:
            problem = str(error)
        self.complain(path, f"topic {name} is left alone: {problem}")
        return None

    @inlineCallbacks
    def rules(self, topics: Sequence[str]) -> Generator[Deferred[Any], Any, dict[str, TopicRules]]:
        """What ``/config/topics`` says about elections, for each of the topics."""
        paths = {topic: config_znode.topic_path(topic) for topic in topics}
        found: dict[str, Data] = yield self.get_all(list(paths.values()))
        rules = {}
        for topic, path in paths.items():
            config: Mapping[str, str] = {}
            if path in found:
                try:
                    config = config_znode.decode(path, found[path][0])
                except ZnodeError as error:
                    self.complain(path, f"{error}; nobody is elected uncleanly for topic {topic}")
                    rules[topic] = UNREADABLE
                    continue
                self.content(path)
            rules[topic] = rules_of(config)
        return rules

    @inlineCallbacks
    def changed_topics(self, paths: Sequence[str]) -> Generator[Deferred[Any], Any, dict[str, None]]:
        """The topics that these notifications of ``/config/changes`` name."""
        found: dict[str, Data] = yield self.get_all(paths)
        topics: dict[str, None] = {}
        for path, (data, _) in found.items():
            try:
                entity_type, entity = config_znode.decode_change(path, data)
            except ZnodeError as error:
                self.complain(path, str(error))
                continue
            if entity_type == "topics":
                topics[entity] = None
        return topics

    @inlineCallbacks
    def states(
        self, topics: Sequence[TopicImage], changed: Callable[[str], Watch]
    ) -> Generator[Deferred[Any], Any, tuple[States, list[str]]]:
        """Every partition's state with the mzxid of its znode; and the topics of which one did not decode. Such states
        are watched: ``changed(topic)`` makes the watch."""
        wanted = {
            state_znode.state_path(topic.name, number): (topic, number)
            for topic in topics
            for number in sorted(topic.partitions)
        }
        found: dict[str, Data] = yield self.get_all(list(wanted))
        bad = [path for path, (data, stat) in found.items() if not _decodes(path, data, stat)]
        if bad:
            # Read once more with a watch: the repair must not fall between the two.
            again: dict[str, Data] = yield self.get_all(bad, lambda path: changed(wanted[path][0].name))
            found.update(again)
        states: States = {}
        failed: dict[str, None] = {}
        for path, (data, stat) in found.items():
            topic, number = wanted[path]
            try:
                read = state_znode.decode(path, data, stat.version)
            except ZnodeError as error:
                self.complain(path, f"topic {topic.name} is left alone: {error}")
                failed[topic.name] = None
                continue
            self.content(path)
            placement = topic.partitions[number]
            state = PartitionState(
                topic_id=topic.topic_id,
                replicas=placement.replicas,
                adding=placement.adding,
                removing=placement.removing,
                **read._asdict(),
            )
            states[TopicPartition(topic.name, number)] = state, stat.mzxid
        return states, list(failed)

    def complain(self, path: str, line: str) -> None:
        """Log a line about a znode, once as long as it stays the same."""
        if self._complaints.get(path) != line:
            self._complaints[path] = line
            self._log(line)

    def complaints(self) -> list[str]:
        """What is wrong in the znodes, for STATUS."""
        return [self._complaints[path] for path in sorted(self._complaints)]

    def content(self, path: str) -> None:
        """The znode decodes (again)."""
        self._complaints.pop(path, None)


def _decodes(path: str, data: bytes, stat: Stat) -> bool:
    try:
        state_znode.decode(path, data, stat.version)
    except ZnodeError:
        return False
    return True


def image_of(name: str, topic: topic_znode.TopicAssignment, mzxid: int = -1) -> TopicImage:
    """The topic as the image keeps it; ``mzxid``: of its znode, where it is known."""
    return TopicImage(
        name,
        topic.topic_id,
        {
            number: Placement(replicas, topic.adding.get(number, ()), topic.removing.get(number, ()))
            for number, replicas in topic.partitions.items()
        },
        mzxid,
    )


def rules_of(config: Mapping[str, str]) -> TopicRules:
    """The settings that matter for elections; a value that does not parse counts as not set."""
    values: dict[str, Any] = {}
    for name in ("unclean.leader.election.enable", "min.insync.replicas"):
        text, key = config.get(name), TOPIC_KEYS[name]
        if text is not None and refusal(key, text) is None:
            values[name] = key.parse(text)
    return TopicRules(
        min_insync_replicas=values.get("min.insync.replicas"), unclean=values.get("unclean.leader.election.enable")
    )

"""What a term of office watches in ZooKeeper: each look reads once more and tells the pure controller what it found."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Generator, Mapping
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred, inlineCallbacks

from zkbroker.broker.controller_reading import UNREADABLE, ClusterReader, Data, image_of
from zkbroker.broker.controller_zookeeper import FencedWriter, Look
from zkbroker.controller.controller import Controller
from zkbroker.controller.effects import Effect
from zkbroker.model.clock import Clock
from zkbroker.model.topics import TopicPartition, topic_id_from_uuid
from zkbroker.zookeeper.client import Delete, MultiError, NoNodeError, SetData, ZooKeeperClient
from zkbroker.zookeeper.znodes import admin as admin_znode
from zkbroker.zookeeper.znodes import config as config_znode
from zkbroker.zookeeper.znodes import notifications as notification_znode
from zkbroker.zookeeper.znodes import topics as topic_znode
from zkbroker.zookeeper.znodes.codec import ZnodeError


class WatchedTerm(Protocol):
    """The term, as its looks need it."""

    controller: Controller
    writer: FencedWriter
    reader: ClusterReader
    is_ready: bool
    is_closed: bool

    def event(self, decide: Callable[[], list[Effect]]) -> None: ...

    def fail(self, error: BaseException) -> None: ...


class Looks:
    """Everything that one term watches; level-triggered, so that a watch only says which look to repeat."""

    def __init__(
        self,
        term: WatchedTerm,
        *,
        zk: ZooKeeperClient,
        reactor: Any,
        clock: Clock,
        random: Any,
        quarantined: Collection[str],
        log: Callable[[str], None],
    ) -> None:
        self._term = term
        self._zk = zk
        self._reactor = reactor
        self._clock = clock
        self._random = random
        self._log = log
        self._quarantined = frozenset(quarantined)
        self.topic_watches: dict[str, Callable[[], None]] = {}
        """Topics whose znode is watched, whether it decodes or not."""
        self._stale_topics: dict[str, None] = {}
        self.last_config_change = ""
        self.brokers = self._look(self._read_brokers)
        self._topics = self._look(self._read_topics)
        self._deletions = self._look(self._read_deletions)
        self._preferred = self._look(self._read_preferred_election)
        self._reassignment = self._look(self._read_reassignment)
        self._isr_changes = self._look(self._read_isr_changes)
        self._log_dir_events = self._look(self._read_log_dir_events)
        self._configs = self._look(self._read_config_changes)
        self._all = (
            self.brokers,
            self._topics,
            self._deletions,
            self._preferred,
            self._reassignment,
            self._isr_changes,
            self._log_dir_events,
            self._configs,
        )

    def _look(self, read: Callable[[], Deferred[None]]) -> Look:
        return Look(read, zk=self._zk, reactor=self._reactor, failed=self._term.fail)

    def again(self) -> None:
        """Read everything watched once more: after taking office and after each reconnect."""
        self._stale_topics = dict.fromkeys([*self._stale_topics, *self.topic_watches])
        if self._term.is_ready:
            for look in self._all:
                look.again()

    def close(self) -> None:
        for look in self._all:
            look.close()

    def unreadable_topics(self) -> tuple[str, ...]:
        """Topics that exist and that nothing is decided about: their znodes do not decode, or they are quarantined."""
        known = self._term.controller.image.topics
        return tuple(sorted({*self.topic_watches, *self._quarantined} - known.keys()))

    @inlineCallbacks
    def _read_brokers(self) -> Generator[Deferred[Any], Any, None]:
        brokers = yield self._term.reader.brokers(self.brokers.again)
        if not self._term.is_closed and self._term.is_ready:
            self._term.event(lambda: self._term.controller.brokers_changed(brokers, self._clock.monotonic()))

    @inlineCallbacks
    def _read_topics(self) -> Generator[Deferred[Any], Any, None]:
        names: list[str] = yield self._zk.children(topic_znode.TOPICS_PATH, self._topics.again)
        present = frozenset(names)
        for name in [*self._term.controller.image.topics]:
            if name not in present:
                self._term.event(partial(self._term.controller.topic_removed, name))
        for name in [*self.topic_watches]:
            if name not in present:
                del self.topic_watches[name]
        stale_topics, self._stale_topics = self._stale_topics, {}
        wanted = [name for name in names if name not in self.topic_watches or name in stale_topics]
        try:
            topics = yield self.decoded_topics(wanted)
            new = [topic for name, topic in topics.items() if name not in self._term.controller.image.topics]
            rules = yield self._term.reader.rules([topic.name for topic in new])
            states, failed = yield self._term.reader.states(new, self.topic_watches.__getitem__)
        except BaseException:
            self._stale_topics = dict.fromkeys([*self._stale_topics, *wanted])
            raise
        if self._term.is_closed:
            return
        for name, topic in topics.items():
            if name not in failed:
                self._term.event(partial(self._term.controller.topic_read, topic, rules.get(name), states))

    @inlineCallbacks
    def decoded_topics(self, names: list[str]) -> Generator[Deferred[Any], Any, dict[str, Any]]:
        """The topics that decode, by name, each watched; one without a topic id is given one, as Kafka does."""
        paths = {topic_znode.topic_path(name): name for name in names if name not in self._quarantined}
        for name in names:
            if name in self._quarantined:
                complaint = f"topic {name} is quarantined: it failed twice"
                self._term.reader.complain(topic_znode.topic_path(name), complaint)
        for name in paths.values():
            self.topic_watches.setdefault(name, partial(self._topic_changed, name))
        watches = self.topic_watches
        found: dict[str, Data] = yield self._term.reader.get_all(list(paths), lambda path: watches[paths[path]])
        topics = {}
        for path, (data, stat) in found.items():
            name = paths[path]
            topic = self._term.reader.topic(name, data)
            if topic is None:
                continue
            self._term.reader.content(path)
            mzxid = stat.mzxid
            if not topic.topic_id:
                topic = topic._replace(topic_id=self.new_topic_id())
                try:
                    [written] = yield self._term.writer.write([SetData(path, topic_znode.encode(topic), stat.version)])
                except MultiError:
                    self._topic_changed(name)  # someone else wrote it: read it again
                    continue
                self._log(f"topic {name} has no topic id: gave it {topic.topic_id}")
                mzxid = written.mzxid
            topics[name] = image_of(name, topic, mzxid)
        for path, name in paths.items():
            if path not in found:
                self.topic_watches.pop(name, None)
        return topics

    def state_unreadable(self, topic: str) -> None:
        """Found while writing: somebody changed it meanwhile. Its topic is left alone, all others go on."""
        self._term.event(partial(self._term.controller.topic_unreadable, topic))
        self._topic_changed(topic)

    def _topic_changed(self, name: str) -> None:
        self._stale_topics[name] = None
        if self._term.is_ready:
            self._topics.again()

    def new_topic_id(self) -> str:
        """A random (version 4) UUID in base64url; never one that begins with '-', which would look like an option."""
        while True:
            topic_id = topic_id_from_uuid(uuid.UUID(int=self._random.getrandbits(128), version=4))
            if not topic_id.startswith("-"):
                return topic_id

    @inlineCallbacks
    def _read_deletions(self) -> Generator[Deferred[Any], Any, None]:
        names: list[str] = yield self._zk.children(admin_znode.DELETE_TOPICS_PATH, self._deletions.again)
        unknown = [name for name in names if name not in self._term.controller.image.topics]
        if unknown:
            # perhaps it was only just created; what exists but doesn't decode is left alone
            yield self._read_topics()
            existing = yield self._term.reader.get_all([topic_znode.topic_path(name) for name in unknown])
            names = [
                name
                for name in names
                if name in self._term.controller.image.topics or topic_znode.topic_path(name) not in existing
            ]
        if not self._term.is_closed:
            self._term.event(lambda: self._term.controller.deletions_requested(names))

    @inlineCallbacks
    def _read_preferred_election(self) -> Generator[Deferred[Any], Any, None]:
        path = admin_znode.PREFERRED_ELECTION_PATH
        if (yield self._zk.exists(path, self._preferred.again)) is None:
            return
        try:
            data, _ = yield self._zk.get(path)
            partitions = admin_znode.decode_preferred_election(data)
        except NoNodeError:
            return
        except ZnodeError as error:
            self._log(f"{error}; removed")
            partitions = ()
        if not self._term.is_closed:
            self._term.event(lambda: self._term.controller.preferred_election_requested(partitions))
            yield self._term.writer.write_all([Delete(path)])

    @inlineCallbacks
    def _read_reassignment(self) -> Generator[Deferred[Any], Any, None]:
        """What old tools write; Kafka 3.9's own commands ask through its protocol."""
        path = admin_znode.REASSIGN_PARTITIONS_PATH
        wanted: Mapping[TopicPartition, tuple[int, ...]] = {}
        try:
            if (yield self._zk.exists(path, self._reassignment.again)) is None:
                if not self._term.controller.settling.moves.by_znode:
                    return
            else:
                data, _ = yield self._zk.get(path)
                wanted = admin_znode.decode_reassignment(data)
        except NoNodeError:
            return
        except ZnodeError as error:
            self._log(f"{error}; removed")
        if not self._term.is_closed:
            self._term.event(lambda: self._term.controller.reassignments_read(wanted))

    @inlineCallbacks
    def _read_isr_changes(self) -> Generator[Deferred[Any], Any, None]:
        """Only brokers before Kafka 2.7 announce ISR changes like this: nothing to learn from them."""
        path = notification_znode.ISR_CHANGE_PATH
        names: list[str] = yield self._zk.children(path, self._isr_changes.again)
        yield self._term.writer.write_all([Delete(f"{path}/{name}") for name in names])

    @inlineCallbacks
    def _read_log_dir_events(self) -> Generator[Deferred[Any], Any, None]:
        root = notification_znode.LOG_DIR_EVENT_PATH
        names: list[str] = yield self._zk.children(root, self._log_dir_events.again)
        paths = [f"{root}/{name}" for name in names]
        found: Mapping[str, Data] = yield self._term.reader.get_all(paths)
        for path in found:
            try:
                broker_id = notification_znode.decode_log_dir_event(path, found[path][0])
            except ZnodeError as error:
                self._log(str(error))
                continue
            self._log(f"broker {broker_id} reports a failed log folder through {path}")
            self._term.event(partial(self._term.controller.log_dir_event_noted, broker_id))
        yield self._term.writer.write_all([Delete(path) for path in paths])

    @inlineCallbacks
    def _read_config_changes(self) -> Generator[Deferred[Any], Any, None]:
        root = config_znode.CHANGES_PATH
        names: list[str] = yield self._zk.children(root, self._configs.again)
        paths = [f"{root}/{name}" for name in names if name > self.last_config_change]
        topics: dict[str, None] = yield self._term.reader.changed_topics(paths)
        known = list(self._term.controller.image.topics) if config_znode.DEFAULT_ENTITY in topics else list(topics)
        rules = yield self._term.reader.rules(known)
        self.last_config_change = max([self.last_config_change, *names])
        if not self._term.is_closed:
            for topic in rules:
                if rules[topic] is UNREADABLE and topic in self._term.controller.image.rules:
                    continue  # the last good ones stay in force
                self._term.event(partial(self._term.controller.topic_rules_changed, topic, rules[topic]))

"""One term of office: feeds the pure controller with what ZooKeeper and brokers say, and runs its effects."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Collection, Generator, Mapping
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.python.failure import Failure

from zkbroker.broker.controller_channel import Subscribers, stale
from zkbroker.broker.controller_reading import ClusterReader, Data, image_of
from zkbroker.broker.controller_settings import ControllerSettings
from zkbroker.broker.controller_zookeeper import FencedWriter, Found, Look, gather
from zkbroker.controller.controller import Controller
from zkbroker.controller.effects import (
    Answer,
    DeleteTopicNodes,
    DropDeletionMarker,
    Effect,
    Log,
    PushDelta,
    PushSnapshot,
    WriteStates,
    shortened,
)
from zkbroker.model.clock import Clock
from zkbroker.model.cluster import ClusterDelta
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topics import topic_id_from_uuid
from zkbroker.zookeeper.client import (
    ConnectionLossError,
    Delete,
    MultiError,
    NodeExistsError,
    NoNodeError,
    SetData,
    Stat,
    ZooKeeperClient,
)
from zkbroker.zookeeper.znodes import admin as admin_znode
from zkbroker.zookeeper.znodes import config as config_znode
from zkbroker.zookeeper.znodes import notifications as notification_znode
from zkbroker.zookeeper.znodes import topics as topic_znode
from zkbroker.zookeeper.znodes.codec import ZnodeError
from zkbroker.zookeeper.znodes.paths import PERSISTENT_PATHS


class TermContext(NamedTuple):
    """What a term works with, handed on by the controller loop."""

    broker_id: int
    zk: ZooKeeperClient
    clock: Clock
    reactor: Any
    random: Any
    settings: ControllerSettings
    log: Callable[[str], None]
    failed: Callable[[BaseException], None]
    """The term cannot go on: resign."""


class Term:
    """Controller from winning ``/controller`` until ``close``; nothing of it outlives that."""

    def __init__(
        self, context: TermContext, controller_epoch: int, epoch_version: int, quarantined: Collection[str]
    ) -> None:
        self.context = context
        self.controller = Controller(context.broker_id, controller_epoch, context.settings.rules())
        self.writer = FencedWriter(context.zk, epoch_version, context.reactor, self._state_unreadable)
        self.reader = ClusterReader(context.zk, context.log)
        self.is_ready = False
        """True once the cluster is read: before, requests wait (see ``when_ready``)."""
        self._awaiting: list[Deferred[None]] = []
        self.is_closed = False
        self.subscribers = Subscribers(
            broker_epoch=self.controller.image.broker_epoch,
            settled_epoch=self.controller.image.settled_epoch,
            snapshot=self._snapshot,
            look_again=lambda: self._brokers.again(),
        )
        self._quarantined = frozenset(quarantined)
        self._events: deque[Callable[[], list[Effect]]] = deque()
        self._running = False
        self._turn: Any = None
        self._timer: Any = None
        self._timer_at: float | None = None
        self._answers: list[Answer] = []
        self._tokens: dict[int, Deferred[Any]] = {}
        self._last_token = 0
        self._topic_watches: dict[str, Callable[[], None]] = {}
        """Topics whose znode is watched, whether it decodes or not."""
        self._stale_topics: dict[str, None] = {}
        self._last_config_change = ""
        self._reassignment_noted = False
        self._brokers = self._look(self._read_brokers)
        self._topics = self._look(self._read_topics)
        self._deletions = self._look(self._read_deletions)
        self._looks = (
            self._brokers,
            self._topics,
            self._deletions,
            self._look(self._read_preferred_election),
            self._look(self._read_reassignment),
            self._look(self._read_isr_changes),
            self._look(self._read_log_dir_events),
            self._look(self._read_config_changes),
        )
        (_, _, _, self._preferred, self._reassignment, self._isr_changes, self._log_dir_events, self._configs) = (
            self._looks
        )

    def __repr__(self) -> str:
        return f"Term({self.controller}, {self.subscribers})"

    def _look(self, read: Callable[[], Deferred[None]]) -> Look:
        return Look(read, zk=self.context.zk, reactor=self.context.reactor, failed=self.fail)

    # Life

    @inlineCallbacks
    def start(self) -> Generator[Deferred[Any], Any, None]:
        """Read everything, decide about all of it, watch. Tried again while the connection comes and goes."""
        while not self.is_closed:
            try:
                yield self._load()
            except ConnectionLossError:
                yield self.writer.connected()
                waiting: Deferred[None] = Deferred()
                self.context.reactor.callLater(0.05, waiting.callback, None)
                yield waiting
                continue
            self.look_again()
            return

    @inlineCallbacks
    def _load(self) -> Generator[Deferred[Any], Any, None]:
        zk, now = self.context.zk, self.context.clock.monotonic
        started = now()
        stats: list[Stat | None] = yield gather([zk.exists(path) for path in PERSISTENT_PATHS])
        for path, stat in zip(PERSISTENT_PATHS, stats, strict=True):
            if stat is None:
                try:
                    yield zk.create(path, b"", make_parents=True)
                except NodeExistsError:
                    pass  # a starting broker creates the same
        changes: list[str] = yield zk.children(config_znode.CHANGES_PATH)
        self._last_config_change = changes[-1] if changes else ""
        stale_notes: list[str] = yield zk.children(notification_znode.ISR_CHANGE_PATH)
        yield self.writer.write_all([Delete(f"{notification_znode.ISR_CHANGE_PATH}/{name}") for name in stale_notes])
        brokers = yield self.reader.brokers(self._brokers.again)
        names: list[str] = yield zk.children(topic_znode.TOPICS_PATH)
        topics = yield self._decoded_topics(names)
        rules = yield self.reader.rules(list(topics))
        states, failed = yield self.reader.states(list(topics.values()), self._topic_watches.__getitem__)
        deletions: list[str] = yield zk.children(admin_znode.DELETE_TOPICS_PATH)
        topics = {name: topic for name, topic in topics.items() if name not in failed}
        states = {partition: found for partition, found in states.items() if partition.topic in topics}
        wanted = [topic for topic in deletions if topic in topics or topic not in names]
        if self.is_closed:
            return
        self.is_ready = True
        self.event(lambda: self.controller.cluster_read(brokers, list(topics.values()), states, rules, wanted, now()))
        self.context.log(
            f"controller epoch {self.controller.controller_epoch}: read {len(brokers)} brokers, {len(topics)} topics, "
            f"{len(states)} partition states in {(now() - started) * 1000:.0f} ms"
        )
        while self._awaiting:
            self._awaiting.pop(0).callback(None)

    def when_ready(self) -> Deferred[None]:
        """Fires once the cluster is read. Fails with BrokerError NOT_CONTROLLER if the term ends before."""
        if self.is_ready:
            return succeed(None)
        self._awaiting.append(waiting := Deferred[None]())
        return waiting

    def look_again(self) -> None:
        """Read everything watched once more: after taking office and after each reconnect."""
        self._stale_topics = dict.fromkeys([*self._stale_topics, *self._topic_watches])
        if self.is_ready:
            for look in self._looks:
                look.again()

    def close(self, reason: str) -> None:
        """The office is lost or given up: nothing is decided or written any more."""
        if self.is_closed:
            return
        self.is_closed = True
        self.writer.close()
        for look in self._looks:
            look.close()
        for call in (self._turn, self._timer):
            if call is not None and call.active():
                call.cancel()
        self._events.clear()
        self.subscribers.close(reason)
        tokens, self._tokens = self._tokens, {}
        awaiting, self._awaiting = self._awaiting, []
        for deferred in [*tokens.values(), *awaiting]:
            deferred.errback(BrokerError(ErrorCode.NOT_CONTROLLER, reason))

    def fail(self, error: BaseException) -> None:
        """An exception, a failed invariant, or proof that another controller is in office."""
        if not self.is_closed:
            self.context.failed(error)

    # Events and effects

    def event(self, decide: Callable[[], list[Effect]]) -> None:
        """Run one event of the controller and its effects; those that come meanwhile wait for their turn."""
        self._events.append(decide)
        if self._running:
            return
        self._running = True
        try:
            while self._events and not self.is_closed:
                try:
                    effects = self._events.popleft()()
                    for effect in shortened(effects):
                        self._perform(effect)
                except Exception as error:
                    self.fail(error)
                    return
        finally:
            self._running = False
        self._schedule()

    def ask(self, decide: Callable[[int], list[Effect]]) -> Deferred[Any]:
        """An event with an answer: ``decide`` gets the token. A BrokerError that it raises is the answer."""
        if self.is_closed:
            raise BrokerError(ErrorCode.NOT_CONTROLLER)
        self._last_token += 1
        token = self._last_token
        answer: Deferred[Any] = Deferred()
        self._tokens[token] = answer

        def guarded() -> list[Effect]:
            try:
                return decide(token)
            except BrokerError as error:
                self._tokens.pop(token, answer).errback(error)
                return []

        self.event(guarded)
        return answer

    def _perform(self, effect: Effect) -> None:
        match effect:
            case WriteStates():
                self.writer.write_states(effect.writes).addCallbacks(self._written, self.failed)
            case PushDelta():
                self.subscribers.push(effect)
            case PushSnapshot():
                self.subscribers.push_snapshot(effect.broker_id)
            case Answer():
                self._answers.append(effect)  # after the delta of this turn
            case DeleteTopicNodes():
                numbers = sorted(self.controller.image.topics[effect.topic].partitions)
                deleted = self.writer.delete_topic(effect.topic, numbers)
                deleted.addCallbacks(partial(self._topic_deleted, effect.topic), self.failed)
            case DropDeletionMarker():
                self.context.log(f"not deleting topic {effect.topic}: {effect.reason}")
                marker = Delete(admin_znode.delete_topic_path(effect.topic))
                self.writer.write_all([marker]).addErrback(self.failed)
            case Log():
                self.context.log(effect.line)

    def _written(self, chunks: list[list[Found]]) -> None:
        if not self.is_closed:
            found = [entry for chunk in chunks for entry in chunk]
            self.event(lambda: self.controller.states_found(found))

    def _topic_deleted(self, topic: str, _: None) -> None:
        if not self.is_closed:
            self.context.log(f"topic {topic} is deleted")
            self.event(lambda: self.controller.topic_deleted(topic))

    def failed(self, failure: Failure) -> None:
        """``fail`` as an errback."""
        self.fail(failure.value or RuntimeError(str(failure)))

    def _schedule(self) -> None:
        if self.is_closed:
            return
        if self._turn is None:
            self._turn = self.context.reactor.callLater(0, self._end_turn)
        deadline = self.controller.next_deadline()
        if deadline != self._timer_at:
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            self._timer_at = deadline
            if deadline is not None:
                delay = max(0.0, deadline - self.context.clock.monotonic())
                self._timer = self.context.reactor.callLater(delay, self._time_passed)

    def _time_passed(self) -> None:
        self._timer_at = None
        self.event(lambda: self.controller.time_passed(self.context.clock.monotonic()))

    def _end_turn(self) -> None:
        """Tell the brokers, then those who asked: an answer never comes before the news that it is about."""
        self._turn = None
        answers, self._answers = self._answers, []
        try:
            news = self.controller.turn_ended()
        except Exception as error:
            self.fail(error)
            return
        if news:
            # Only news is an event: an event asks for another turn, and an idle controller must not turn for ever.
            self.event(lambda: news)
        if self.is_closed:
            return
        if self.is_ready:
            self.subscribers.image_changed()
        for answer in answers:
            waiting = self._tokens.pop(answer.token, None)
            if waiting is not None:
                waiting.callback(answer.result)

    def flush(self) -> None:
        """End the turn now, so that a new subscriber's snapshot is not followed by what it contains."""
        if self._turn is not None:
            if self._turn.active():
                self._turn.cancel()
            self._end_turn()

    def checked_broker(self, broker_id: int, broker_epoch: int) -> None:
        """Raises BrokerError STALE_BROKER_EPOCH for an incarnation before the registered one; a later one is legal."""
        known = self.controller.image.broker_epoch(broker_id)
        if known is not None and known > broker_epoch:
            raise stale(broker_id, broker_epoch, known)

    # Reading

    @inlineCallbacks
    def _read_brokers(self) -> Generator[Deferred[Any], Any, None]:
        brokers = yield self.reader.brokers(self._brokers.again)
        if not self.is_closed and self.is_ready:
            self.event(lambda: self.controller.brokers_changed(brokers, self.context.clock.monotonic()))

    @inlineCallbacks
    def _read_topics(self) -> Generator[Deferred[Any], Any, None]:
        names: list[str] = yield self.context.zk.children(topic_znode.TOPICS_PATH, self._topics.again)
        present = frozenset(names)
        for name in [*self.controller.image.topics]:
            if name not in present:
                self.event(partial(self.controller.topic_removed, name))
        for name in [*self._topic_watches]:
            if name not in present:
                del self._topic_watches[name]
        stale_topics, self._stale_topics = self._stale_topics, {}
        wanted = [name for name in names if name not in self._topic_watches or name in stale_topics]
        try:
            topics = yield self._decoded_topics(wanted)
            new = [topic for name, topic in topics.items() if name not in self.controller.image.topics]
            rules = yield self.reader.rules([topic.name for topic in new])
            states, failed = yield self.reader.states(new, self._topic_watches.__getitem__)
        except BaseException:
            self._stale_topics = dict.fromkeys([*self._stale_topics, *wanted])
            raise
        if self.is_closed:
            return
        for name, topic in topics.items():
            if name not in failed:
                self.event(partial(self.controller.topic_read, topic, rules.get(name), states))

    @inlineCallbacks
    def _decoded_topics(self, names: list[str]) -> Generator[Deferred[Any], Any, dict[str, Any]]:
        """The topics that decode, by name, each watched; one without a topic id is given one, as Kafka does."""
        paths = {topic_znode.topic_path(name): name for name in names if name not in self._quarantined}
        for name in names:
            if name in self._quarantined:
                self.reader.complain(topic_znode.topic_path(name), f"topic {name} is quarantined: it failed twice")
        for name in paths.values():
            self._topic_watches.setdefault(name, partial(self._topic_changed, name))
        found: dict[str, Data] = yield self.reader.get_all(list(paths), lambda path: self._topic_watches[paths[path]])
        topics = {}
        for path, (data, stat) in found.items():
            name = paths[path]
            topic = self.reader.topic(name, data)
            if topic is None:
                continue
            self.reader.content(path)
            if not topic.topic_id:
                topic = topic._replace(topic_id=self.new_topic_id())
                try:
                    yield self.writer.write([SetData(path, topic_znode.encode(topic), stat.version)])
                except MultiError:
                    self._topic_changed(name)  # someone else wrote it: read it again
                    continue
                self.context.log(f"topic {name} has no topic id: gave it {topic.topic_id}")
            topics[name] = image_of(name, topic)
        for path, name in paths.items():
            if path not in found:
                self._topic_watches.pop(name, None)
        return topics

    def _snapshot(self, broker_id: int) -> ClusterDelta:
        unreadable = {*self._topic_watches, *self._quarantined} - self.controller.image.topics.keys()
        return self.controller.snapshot(broker_id)._replace(unreadable_topics=tuple(sorted(unreadable)))

    def _state_unreadable(self, topic: str) -> None:
        """Found while writing: somebody changed it meanwhile. Its topic is left alone, all others go on."""
        self.event(partial(self.controller.topic_unreadable, topic))
        self._topic_changed(topic)

    def _topic_changed(self, name: str) -> None:
        self._stale_topics[name] = None
        if self.is_ready:
            self._topics.again()

    def new_topic_id(self) -> str:
        """A random (version 4) UUID in base64url; never one that begins with '-', which would look like an option."""
        while True:
            topic_id = topic_id_from_uuid(uuid.UUID(int=self.context.random.getrandbits(128), version=4))
            if not topic_id.startswith("-"):
                return topic_id

    @inlineCallbacks
    def _read_deletions(self) -> Generator[Deferred[Any], Any, None]:
        names: list[str] = yield self.context.zk.children(admin_znode.DELETE_TOPICS_PATH, self._deletions.again)
        unknown = [name for name in names if name not in self.controller.image.topics]
        if unknown:
            # perhaps it was only just created; what exists but doesn't decode is left alone
            yield self._read_topics()
            existing = yield self.reader.get_all([topic_znode.topic_path(name) for name in unknown])
            names = [
                name
                for name in names
                if name in self.controller.image.topics or topic_znode.topic_path(name) not in existing
            ]
        if not self.is_closed:
            self.event(lambda: self.controller.deletions_requested(names))

    @inlineCallbacks
    def _read_preferred_election(self) -> Generator[Deferred[Any], Any, None]:
        path = admin_znode.PREFERRED_ELECTION_PATH
        if (yield self.context.zk.exists(path, self._preferred.again)) is None:
            return
        try:
            data, _ = yield self.context.zk.get(path)
            partitions = admin_znode.decode_preferred_election(data)
        except NoNodeError:
            return
        except ZnodeError as error:
            self.context.log(f"{error}; removed")
            partitions = ()
        if not self.is_closed:
            self.event(lambda: self.controller.preferred_election_requested(partitions))
            yield self.writer.write_all([Delete(path)])

    @inlineCallbacks
    def _read_reassignment(self) -> Generator[Deferred[Any], Any, None]:
        path = admin_znode.REASSIGN_PARTITIONS_PATH
        exists = (yield self.context.zk.exists(path, self._reassignment.again)) is not None
        if exists and not self._reassignment_noted:
            self.context.log(f"{path} is left alone: moving partitions is not supported yet")
        self._reassignment_noted = exists

    @inlineCallbacks
    def _read_isr_changes(self) -> Generator[Deferred[Any], Any, None]:
        """Only brokers before Kafka 2.7 announce ISR changes like this: nothing to learn from them."""
        path = notification_znode.ISR_CHANGE_PATH
        names: list[str] = yield self.context.zk.children(path, self._isr_changes.again)
        yield self.writer.write_all([Delete(f"{path}/{name}") for name in names])

    @inlineCallbacks
    def _read_log_dir_events(self) -> Generator[Deferred[Any], Any, None]:
        root = notification_znode.LOG_DIR_EVENT_PATH
        names: list[str] = yield self.context.zk.children(root, self._log_dir_events.again)
        paths = [f"{root}/{name}" for name in names]
        found: Mapping[str, Data] = yield self.reader.get_all(paths)
        for path in found:
            try:
                broker_id = notification_znode.decode_log_dir_event(path, found[path][0])
            except ZnodeError as error:
                self.context.log(str(error))
                continue
            self.context.log(f"broker {broker_id} reports a failed log folder through {path}")
            self.event(partial(self.controller.log_dir_event_noted, broker_id))
        yield self.writer.write_all([Delete(path) for path in paths])

    @inlineCallbacks
    def _read_config_changes(self) -> Generator[Deferred[Any], Any, None]:
        root = config_znode.CHANGES_PATH
        names: list[str] = yield self.context.zk.children(root, self._configs.again)
        paths = [f"{root}/{name}" for name in names if name > self._last_config_change]
        topics: dict[str, None] = yield self.reader.changed_topics(paths)
        known = list(self.controller.image.topics) if config_znode.DEFAULT_ENTITY in topics else list(topics)
        rules = yield self.reader.rules(known)
        self._last_config_change = max([self._last_config_change, *names])
        if not self.is_closed:
            for topic in rules:
                self.event(partial(self.controller.topic_rules_changed, topic, rules[topic]))

"""Topic settings from ``/config``: read when a topic appears, kept current through ``/config/changes``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.python.failure import Failure

from zkbroker.broker.dynamic_settings import DynamicSettings, SettingsReader, fail_if_cut_off
from zkbroker.model.clock import Clock
from zkbroker.model.topic_config import TopicConfig
from zkbroker.zookeeper.client import (
    NodeExistsError,
    NoNodeError,
    SessionState,
    Stat,
    ZooKeeperClient,
)
from zkbroker.zookeeper.znodes import ZnodeError
from zkbroker.zookeeper.znodes import config as znode

CHANGE_NOTIFICATION_EXPIRATION_MS = 15 * 60 * 1000
"""Kafka's: a notification of ``/config/changes`` is purged by any broker that sees it 15 minutes old."""

Resolve = Callable[[Mapping[str, str], Mapping[str, str], Mapping[str, str]], tuple[TopicConfig, list[str]]]
"""(cluster-wide dynamic defaults, this broker's dynamic settings, topic overrides) → settings and problems."""


class TopicConfigs:
    """The effective TopicConfig of every topic that this broker has asked for or found.

    Level-triggered: every notification, watch and reconnect means reading again; a znode that does not decode leaves
    the last good settings in force and is logged once.

    Each topic's znode is watched besides ``/config/changes``: creating a topic announces nothing there, and the server
    that this broker reads from may lag behind the one that the controller wrote to, so that the first read can miss
    what was written before the topic was.
    """

    def __init__(
        self,
        *,
        broker_id: int,
        zk: ZooKeeperClient,
        clock: Clock,
        resolve: Resolve,
        changed: Callable[[str], None],
        log: Callable[[str], None],
        brokers_changed: Callable[[], None] = lambda: None,
    ) -> None:
        """``changed(topic)`` is told of other effective settings of a topic, ``brokers_changed`` of other dynamic ones
        of this broker or of all."""
        self._broker_id = str(broker_id)
        self._zk = zk
        self._clock = clock
        self._resolve = resolve
        self._changed = changed
        self._tell_brokers_changed = brokers_changed
        self._log = log
        self._reader = SettingsReader(zk, log)
        self._brokers = DynamicSettings(
            broker_id=str(broker_id), zk=zk, reader=self._reader, changed=self._brokers_changed
        )
        self._is_listening = False
        self._overrides: dict[str, dict[str, str]] = {}
        self._resolved: dict[str, TopicConfig] = {}
        """Only of topics that have overrides; all others share ``_without_overrides``."""
        self._without_overrides: TopicConfig | None = None
        self._loading: dict[str, list[Deferred[None]]] = {}
        """Who waits for the read under way; the list itself tells one read from a later one of the same topic."""
        self._watched: set[str] = set()
        """Topics whose znode has a watch. Never iterated."""
        self._seen: dict[str, int] = {}
        """Notifications of the last listing that were read → when they were written, ms."""
        self._is_watching_changes = False

    def __repr__(self) -> str:
        return f"TopicConfigs({len(self._overrides)} topics, {len(self._loading)} loading, {len(self._seen)} changes)"

    def start(self) -> Deferred[None]:
        """Read everything under /config; fires when every topic's settings are known. After a failure it may be called
        again."""
        if not self._is_listening:
            self._is_listening = True
            self._zk.listen(self._session_changed)
        return self._look_for_changes(reload_all=True)

    def overrides(self, topic: str) -> Mapping[str, str]:
        """The topic's own settings, as written in its znode."""
        return self._overrides.get(topic, {})

    @property
    def dynamic_default(self) -> Mapping[str, str]:
        """Settings of ``/config/brokers/<default>``."""
        return self._brokers.default

    @property
    def dynamic_broker(self) -> Mapping[str, str]:
        """Settings of ``/config/brokers/N``."""
        return self._brokers.own

    def knows(self, topic: str) -> bool:
        """True once the topic's znode was read (or found absent)."""
        return topic in self._overrides

    def get(self, topic: str) -> TopicConfig:
        """The effective settings; the broker's own defaults for a topic that was not read yet."""
        overrides = self._overrides.get(topic)
        if not overrides:
            if self._without_overrides is None:
                self._without_overrides = self._resolved_from({}, znode.broker_path(self._broker_id))
            return self._without_overrides
        config = self._resolved.get(topic)
        if config is None:
            config = self._resolved[topic] = self._resolved_from(overrides, znode.topic_path(topic))
        return config

    def _resolved_from(self, overrides: Mapping[str, str], path: str) -> TopicConfig:
        config, problems = self._resolve(self._brokers.default, self._brokers.own, overrides)
        if problems:
            self._reader.report(path, "; ".join(problems))
        return config

    def read_again(self, topic: str) -> Deferred[None]:
        """The same as ``load``, but what is read begins to be read now: for whoever has just written it."""
        under_way = self._loading.get(topic)
        if under_way is None:
            return self.load(topic)
        waiting: Deferred[None] = Deferred()
        under_way.append(waiting)

        def then(_: None) -> Deferred[None] | None:
            # Not of one that was forgotten meanwhile: nobody would ever forget it again.
            return self.load(topic) if topic in self._overrides else None

        return waiting.addCallback(then)

    def read_brokers_again(self) -> Deferred[None]:
        """Read the settings of this broker and of all brokers now."""
        return self._brokers.load()

    def load(self, topic: str) -> Deferred[None]:
        """Read the topic's znode; fires when ``knows(topic)``, or when ``forget`` made the question pointless. Fails
        with ZooKeeperError: then it is for the caller to ask again."""
        waiting: Deferred[None] = Deferred()
        if topic in self._loading:
            self._loading[topic].append(waiting)
            return waiting
        round_: list[Deferred[None]] = [waiting]
        self._loading[topic] = round_
        self._read_topic(topic).addCallbacks(
            self._topic_read, self._topic_unread, callbackArgs=(topic, round_), errbackArgs=(topic, round_)
        )
        return waiting

    def forget(self, topic: str) -> None:
        """The topic is gone: one of the same name starts with its own settings, read anew."""
        self._overrides.pop(topic, None)
        self._resolved.pop(topic, None)
        self._reader.forget(znode.topic_path(topic))
        for waiting in self._loading.pop(topic, []):
            waiting.callback(None)

    # One topic

    def _read_topic(self, topic: str) -> Deferred[dict[str, str]]:
        path = znode.topic_path(topic)
        if topic in self._watched:
            return self._reader.read(path)

        def read_if_there(stat: Stat | None) -> Deferred[dict[str, str]]:
            return succeed({}) if stat is None else self._reader.read(path)

        def unwatch(failure: Failure) -> Failure:
            self._watched.discard(topic)
            return failure

        self._watched.add(topic)
        looked = self._zk.exists(path, lambda: self._topic_watch_fired(topic)).addErrback(unwatch)
        return looked.addCallback(read_if_there)

    def _topic_watch_fired(self, topic: str) -> None:
        self._watched.discard(topic)
        # One that was forgotten is read when somebody asks for it; after a lost connection all is read again.
        if self._zk.is_connected and (topic in self._overrides or topic in self._loading):
            self._load_topics([topic]).addErrback(self._unreachable)

    def _topic_read(self, overrides: dict[str, str], topic: str, round_: list[Deferred[None]]) -> None:
        if self._loading.get(topic) is not round_:
            # Forgotten meanwhile: this may be what the deleted topic of that name had.
            return
        del self._loading[topic]
        before = self.get(topic)
        self._overrides[topic] = overrides
        self._resolved.pop(topic, None)
        if self.get(topic) != before:
            self._changed(topic)
        for waiting in round_:
            waiting.callback(None)

    def _topic_unread(self, failure: Failure, topic: str, round_: list[Deferred[None]]) -> None:
        if failure.check(ZnodeError) is not None:
            self._reader.report(znode.topic_path(topic), failure.getErrorMessage())
            self._topic_read(self._overrides.get(topic, {}), topic, round_)
        elif self._loading.get(topic) is round_:
            del self._loading[topic]
            for waiting in round_:
                waiting.errback(failure)

    # Notifications

    def _session_changed(self, state: SessionState) -> None:
        if state in (SessionState.RECONNECTED, SessionState.CONNECTED):
            # Notifications may have come and been purged while nobody watched: read all, not just the new ones.
            self._is_watching_changes = False
            self._watched.clear()
            self._brokers.watches_lost()
            self._look_for_changes(reload_all=True).addErrback(self._unreachable)

    def _changes_watch_fired(self) -> None:
        self._is_watching_changes = False
        if self._zk.is_connected:
            self._look_for_changes(reload_all=False).addErrback(self._unreachable)

    def _look_for_changes(self, *, reload_all: bool) -> Deferred[None]:
        watch = None if self._is_watching_changes else self._changes_watch_fired
        self._is_watching_changes = True
        names = self._zk.children(znode.CHANGES_PATH, watch)
        return names.addCallbacks(self._changes_listed, self._changes_unlisted, (reload_all,), {}, (reload_all,))

    def _changes_unlisted(self, failure: Failure, reload_all: bool) -> Deferred[None]:
        self._is_watching_changes = False
        failure.trap(NoNodeError)
        # Somebody deleted it, and a znode that is not there cannot be watched for children.
        made = self._zk.create(znode.CHANGES_PATH, b"", make_parents=True)
        made.addErrback(lambda failure: failure.trap(NodeExistsError))
        return made.addCallback(lambda _: self._look_for_changes(reload_all=reload_all))

    def _changes_listed(self, names: list[str], reload_all: bool) -> Deferred[None]:
        new = [name for name in names if name not in self._seen]
        # Names of this listing only, so that this stays as small as it and numbers may begin anew.
        self._seen = {name: self._seen.get(name, self._clock.wall_ms()) for name in names}
        reads = [self._zk.get(f"{znode.CHANGES_PATH}/{name}") for name in new]
        described = DeferredList(reads, consumeErrors=True)
        return described.addCallback(self._changes_read, new, reload_all)

    def _changes_read(
        self, results: list[tuple[bool, tuple[bytes, Stat]]], names: list[str], reload_all: bool
    ) -> Deferred[None]:
        topics: dict[str, None] = {}
        brokers_changed = reload_all
        for (ok, got), name in zip(results, names, strict=True):
            if not ok:
                # Purged meanwhile; or the connection broke, and then everything is read again.
                self._seen.pop(name, None)
                continue
            path = f"{znode.CHANGES_PATH}/{name}"
            data, stat = got
            self._seen[name] = stat.modified_ms
            try:
                entity_type, entity = znode.decode_change(path, data)
            except ZnodeError as error:
                self._log(f"ignored: {error}")
                continue
            if entity_type == "topics":
                topics[entity] = None
            elif entity_type == "brokers":
                brokers_changed = True
        self._purge()
        if reload_all:
            return self._zk.children(znode.TOPICS_PATH).addErrback(_none_there).addCallback(self._all_topics_listed)
        done = self._brokers.load() if brokers_changed else succeed(None)
        return done.addCallback(lambda _: self._load_topics([topic for topic in topics if self._is_wanted(topic)]))

    def _is_wanted(self, topic: str) -> bool:
        """A notification about a topic that nobody asked for is not remembered: it would outlive the topic."""
        return topic in self._overrides or topic in self._loading

    def _purge(self) -> None:
        now_ms = self._clock.wall_ms()
        for name, modified_ms in self._seen.items():
            if now_ms - modified_ms > CHANGE_NOTIFICATION_EXPIRATION_MS:
                self._zk.delete(f"{znode.CHANGES_PATH}/{name}").addErrback(lambda _: None)

    def _all_topics_listed(self, names: list[str]) -> Deferred[None]:
        topics = dict.fromkeys(znode.entity_from_name(name) for name in names if name != znode.DEFAULT_ENTITY)
        topics.update(dict.fromkeys(self._overrides))
        return self._brokers.load().addCallback(lambda _: self._load_topics(list(topics)))

    def _load_topics(self, topics: list[str]) -> Deferred[None]:
        loads = DeferredList([self.load(topic) for topic in topics], consumeErrors=True)
        return loads.addCallback(fail_if_cut_off)

    def _brokers_changed(self) -> None:
        resolved, self._resolved = self._resolved, {}
        without_overrides, self._without_overrides = self._without_overrides, None
        for topic, overrides in list(self._overrides.items()):
            if self.get(topic) != (resolved.get(topic) if overrides else without_overrides):
                self._changed(topic)
        self._tell_brokers_changed()

    def _unreachable(self, failure: Failure) -> None:
        # The next CONNECTED or RECONNECTED reads everything again.
        self._log(f"topic settings could not be read: {failure.getErrorMessage()}")


def _none_there(failure: Failure) -> list[str]:
    failure.trap(NoNodeError)
    return []

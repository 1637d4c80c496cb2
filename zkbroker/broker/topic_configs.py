"""Topic settings from ``/config``: read when a topic appears, kept current through ``/config/changes``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.python.failure import Failure

from zkbroker.model.clock import Clock
from zkbroker.model.topic_config import TopicConfig
from zkbroker.zookeeper.client import NoNodeError, SessionState, Stat, ZooKeeperClient
from zkbroker.zookeeper.znodes import ZnodeError
from zkbroker.zookeeper.znodes import config as znode

CHANGE_NOTIFICATION_EXPIRATION_MS = 15 * 60 * 1000
"""Kafka's: a notification of ``/config/changes`` is purged by any broker that sees it 15 minutes old."""

Resolve = Callable[[Mapping[str, str], Mapping[str, str], Mapping[str, str]], tuple[TopicConfig, list[str]]]
"""(cluster-wide dynamic defaults, this broker's dynamic settings, topic overrides) → settings and problems."""


class TopicConfigs:
    """The effective TopicConfig of every topic that this broker has asked for or found.

    Level-triggered: every notification and every reconnect means reading again; a znode that does not decode leaves
    the last good settings in force and is logged once.
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
    ) -> None:
        self._broker_id = str(broker_id)
        self._zk = zk
        self._clock = clock
        self._resolve = resolve
        self._changed = changed
        self._log = log
        self._overrides: dict[str, dict[str, str]] = {}
        self._dynamic_default: dict[str, str] = {}
        self._dynamic_broker: dict[str, str] = {}
        self._resolved: dict[str, TopicConfig] = {}
        self._loading: dict[str, list[Deferred[None]]] = {}
        self._last_change = ""
        self._reported: set[tuple[str, str]] = set()
        self._watching = False

    def start(self) -> Deferred[None]:
        """Read everything under /config; fires when every topic's settings are known."""
        self._zk.listen(self._session_changed)
        return self._reload()

    def overrides(self, topic: str) -> Mapping[str, str]:
        """The topic's own settings, as written in its znode."""
        return self._overrides.get(topic, {})

    @property
    def dynamic_default(self) -> Mapping[str, str]:
        """Settings of ``/config/brokers/<default>``."""
        return self._dynamic_default

    @property
    def dynamic_broker(self) -> Mapping[str, str]:
        """Settings of ``/config/brokers/N``."""
        return self._dynamic_broker

    def knows(self, topic: str) -> bool:
        """True once the topic's znode was read (or found absent)."""
        return topic in self._overrides

    def get(self, topic: str) -> TopicConfig:
        """The effective settings; the broker's own defaults for a topic that was not read yet."""
        config = self._resolved.get(topic)
        if config is None:
            overrides = self._overrides.get(topic, {})
            config, problems = self._resolve(self._dynamic_default, self._dynamic_broker, overrides)
            self._resolved[topic] = config
            for problem in problems:
                self._report(znode.topic_path(topic), problem)
        return config

    def load(self, topic: str) -> Deferred[None]:
        """Read the topic's znode; fires when ``knows(topic)``. A failed read is tried again at the next reconnect."""
        waiting: Deferred[None] = Deferred()
        if topic in self._loading:
            self._loading[topic].append(waiting)
            return waiting
        self._loading[topic] = [waiting]
        self._read(znode.topic_path(topic)).addCallbacks(
            self._topic_read, self._topic_unread, callbackArgs=(topic,), errbackArgs=(topic,)
        )
        return waiting

    def forget(self, topic: str) -> None:
        """The topic is gone: one of the same name starts with its own settings."""
        self._overrides.pop(topic, None)
        self._resolved.pop(topic, None)

    def _topic_read(self, overrides: dict[str, str], topic: str) -> None:
        before = self._resolved.pop(topic, None)
        self._overrides[topic] = overrides
        if before is not None and self.get(topic) != before:
            self._changed(topic)
        for waiting in self._loading.pop(topic, []):
            waiting.callback(None)

    def _topic_unread(self, failure: Failure, topic: str) -> None:
        if failure.check(ZnodeError) is not None:
            self._report(znode.topic_path(topic), failure.getErrorMessage())
            self._topic_read(self._overrides.get(topic, {}), topic)
            return
        for waiting in self._loading.pop(topic, []):
            waiting.errback(failure)

    def _read(self, path: str) -> Deferred[dict[str, str]]:
        def absent(failure: Failure) -> dict[str, str]:
            failure.trap(NoNodeError)
            return {}

        def decode(got: tuple[bytes, Stat]) -> dict[str, str]:
            return dict(znode.decode(path, got[0]))

        return self._zk.get(path).addCallbacks(decode, absent)

    def _reload(self) -> Deferred[None]:
        return self._look_for_changes(reload_all=True)

    def _session_changed(self, state: SessionState) -> None:
        if state in (SessionState.RECONNECTED, SessionState.CONNECTED):
            # Notifications may have come and been purged while nobody watched: read all, not just the new ones.
            self._watching = False
            self._reload().addErrback(self._unreachable)

    def _watch_fired(self) -> None:
        self._watching = False
        if self._zk.is_connected:
            self._look_for_changes(reload_all=False).addErrback(self._unreachable)

    def _look_for_changes(self, *, reload_all: bool) -> Deferred[None]:
        watch = None if self._watching else self._watch_fired
        self._watching = True
        names = self._zk.children(znode.CHANGES_PATH, watch).addErrback(_none_there)
        return names.addCallback(self._changes_listed, reload_all).addErrback(self._stop_watching)

    def _stop_watching(self, failure: Failure) -> Failure:
        self._watching = False
        return failure

    def _changes_listed(self, names: list[str], reload_all: bool) -> Deferred[None]:
        new = [name for name in names if name > self._last_change]
        if names:
            self._last_change = max(self._last_change, names[-1])
        reads = [self._zk.get(f"{znode.CHANGES_PATH}/{name}") for name in names if reload_all or name in set(new)]
        described = DeferredList(reads, consumeErrors=True)
        return described.addCallback(self._changes_read, names if reload_all else new, reload_all)

    def _changes_read(
        self, results: list[tuple[bool, tuple[bytes, Stat]]], names: list[str], reload_all: bool
    ) -> Deferred[None]:
        topics: list[str] = []
        brokers_changed = reload_all
        for (ok, got), name in zip(results, names, strict=True):
            if not ok:
                continue
            path = f"{znode.CHANGES_PATH}/{name}"
            data, stat = got
            if self._clock.wall_ms() - stat.modified_ms > CHANGE_NOTIFICATION_EXPIRATION_MS:
                self._zk.delete(path).addErrback(lambda _: None)
            try:
                entity_type, entity = znode.decode_change(path, data)
            except ZnodeError as error:
                self._report(path, str(error))
                continue
            if entity_type == "topics" and entity not in topics:
                topics.append(entity)
            elif entity_type == "brokers":
                brokers_changed = True
        if reload_all:
            return self._zk.children(znode.TOPICS_PATH).addErrback(_none_there).addCallback(self._all_topics_listed)
        done = self._load_brokers() if brokers_changed else succeed(None)
        return done.addCallback(lambda _: self._load_topics(topics))

    def _all_topics_listed(self, names: list[str]) -> Deferred[None]:
        topics = [znode.entity_from_name(name) for name in names]
        known = [topic for topic in self._overrides if topic not in set(topics)]
        return self._load_brokers().addCallback(lambda _: self._load_topics(topics + known))

    def _load_topics(self, topics: list[str]) -> Deferred[None]:
        return DeferredList([self.load(topic) for topic in topics], consumeErrors=True).addCallback(lambda _: None)

    def _load_brokers(self) -> Deferred[None]:
        paths = [znode.broker_path("<default>"), znode.broker_path(self._broker_id)]
        return DeferredList([self._read(path) for path in paths], consumeErrors=True).addCallback(self._brokers_read)

    def _brokers_read(self, results: list[tuple[bool, dict[str, str]]]) -> None:
        (default_ok, default), (own_ok, own) = results
        fresh = (default if default_ok else self._dynamic_default, own if own_ok else self._dynamic_broker)
        if fresh == (self._dynamic_default, self._dynamic_broker):
            return
        self._dynamic_default, self._dynamic_broker = fresh
        before, self._resolved = self._resolved, {}
        for topic, config in before.items():
            if self.get(topic) != config:
                self._changed(topic)

    def _report(self, path: str, problem: str) -> None:
        if (path, problem) not in self._reported:
            self._reported.add((path, problem))
            self._log(f"{path}: {problem}")

    def _unreachable(self, failure: Failure) -> None:
        # The next CONNECTED or RECONNECTED reads everything again.
        self._log(f"topic settings could not be read: {failure.getErrorMessage()}")


def _none_there(failure: Failure) -> list[str]:
    failure.trap(NoNodeError)
    return []

"""Replicas that are to be brought up: they wait for their topic's settings, and come some at a time.

A log that is made costs a folder and some files, on a busy disk milliseconds. All of a topic of 1,000 partitions in one
turn of the reactor took so long that the watchdog ended the brokers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from zkbroker.model.topics import PartitionState, TopicPartition

AT_ONCE = 20
"""Replicas that are made in one turn of the reactor."""

Failures = list[tuple[TopicPartition, str]]


class Settings(Protocol):
    """The part of ``TopicConfigs`` that is needed."""

    def load(self, topic: str) -> Deferred[None]: ...


class Arrivals:
    """Only the newest state of each partition is kept. ``apply`` brings one up unless its state is of another topic by
    now, and adds to the failures; ``failed`` is told those of one turn."""

    def __init__(
        self,
        *,
        topic_configs: Settings,
        apply: Callable[[TopicPartition, PartitionState, Failures], None],
        failed: Callable[[Failures], None],
        call_later: Callable[[float, Callable[[], None]], object],
        log: Callable[[str], None],
    ) -> None:
        self._topic_configs = topic_configs
        self._apply = apply
        self._failed = failed
        self._call_later = call_later
        self._log = log
        self._waiting: dict[str, dict[TopicPartition, PartitionState]] = {}
        """By topic: what waits for its settings, or for its turn."""
        self._coming: dict[str, None] = {}
        """Topics whose settings were read, in the order in which they come."""
        self._is_called = False

    def __repr__(self) -> str:
        return f"Arrivals({sorted(self._waiting)})"

    def __contains__(self, partition: TopicPartition) -> bool:
        return partition in self._waiting.get(partition.topic, ())

    def wait_for_settings(self, partition: TopicPartition, state: PartitionState) -> None:
        is_first = partition.topic not in self._waiting
        self._waiting.setdefault(partition.topic, {})[partition] = state
        if is_first:
            self._load(partition.topic)

    def wait_for_turn(self, partition: TopicPartition, state: PartitionState) -> None:
        """Its topic's settings are known."""
        self._waiting.setdefault(partition.topic, {})[partition] = state
        self._coming[partition.topic] = None
        if not self._is_called:
            self._call()

    def replace(self, partition: TopicPartition, state: PartitionState) -> None:
        """A newer state of one that waits."""
        self._waiting[partition.topic][partition] = state

    def forget(self, partition: TopicPartition) -> None:
        waiting = self._waiting.get(partition.topic)
        if waiting is not None:
            waiting.pop(partition, None)
            if not waiting:
                self.forget_topic(partition.topic)

    def forget_topic(self, topic: str, topic_id: str | None = None) -> None:
        """All of it, or what is of that topic id."""
        left = {
            partition: state
            for partition, state in self._waiting.pop(topic, {}).items()
            if topic_id is not None and state.topic_id != topic_id
        }
        if left:
            self._waiting[topic] = left
        else:
            self._coming.pop(topic, None)

    def clear(self) -> None:
        self._waiting.clear()
        self._coming.clear()

    def settings_reachable(self) -> None:
        """ZooKeeper is back: ask again for the settings that replicas wait for."""
        for topic in list(self._waiting):
            if topic not in self._coming:
                self._load(topic)

    def _load(self, topic: str) -> None:
        self._topic_configs.load(topic).addCallbacks(
            self._settings_read, self._settings_unread, callbackArgs=(topic,), errbackArgs=(topic,)
        )

    def _settings_read(self, _: None, topic: str) -> None:
        if topic in self._waiting:
            self._coming[topic] = None
            if not self._is_called:
                self._bring_up()

    def _settings_unread(self, failure: Failure, topic: str) -> None:
        self._log(f"settings of topic {topic} cannot be read yet: {failure.getErrorMessage()}")

    def _call(self) -> None:
        self._is_called = True
        self._call_later(0, self._called)

    def _called(self) -> None:
        self._is_called = False
        self._bring_up()

    def _bring_up(self) -> None:
        failures: Failures = []
        for _ in range(AT_ONCE):
            topic = next(iter(self._coming), None)
            if topic is None:
                break
            waiting = self._waiting[topic]
            partition = next(iter(waiting))
            state = waiting[partition]
            self.forget(partition)
            self._apply(partition, state, failures)
        if self._coming and not self._is_called:
            self._call()
        for partition, reason in failures:
            self._log(f"{partition}: {reason}")
        if failures:
            self._failed(failures)

"""This broker's picture of the cluster, built from the controller's snapshots and deltas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import partial

from zkbroker.kafka.ports import BrokerView, CurrentLeader, TopicView
from zkbroker.model.cluster import BrokerRegistration, ClusterDelta
from zkbroker.model.topics import PartitionState, TopicPartition

INTERNAL_TOPICS = frozenset({"__consumer_offsets", "__transaction_state"})
"""Topics that Metadata marks as internal, as Kafka does."""


NAMED_AFTER_S = 5.0
"""So long a broker that has gone is still named to clients: longer than they need to hear who leads instead."""


class Doubt(Enum):
    """Why clients are better not sent to a broker just now."""

    BROKE_OFF = "broke off"
    """Its connection to this broker broke."""
    COUNTED_OUT = "counted out"
    """This broker itself: the controller says that it is not registered."""
    CUT_OFF = "cut off"
    """This broker itself: it hears neither the controller nor ZooKeeper nor followers."""


def _at_once(answer: Callable[[], None]) -> None:
    answer()


class ClusterMetadata:
    """Fills ``kafka.ports.MetadataPort``. Changed only by ``apply``; a TopicView is replaced, never changed."""

    def __init__(self, cluster_id: str, broker_id: int) -> None:
        self._cluster_id = cluster_id
        self._broker_id = broker_id
        self._controller_id = -1
        self._version = 0
        self._ready = False
        self._brokers: dict[int, BrokerRegistration] = {}
        self._topics: dict[str, TopicView] = {}
        self._names: dict[str, str] = {}
        self._doubted: dict[int, set[Doubt]] = {}
        self.hold: Callable[[Callable[[], None]], None] = _at_once
        """How an answer about leaders is held until it can be believed; see ``when_sure``."""
        self.call_later: Callable[[float, Callable[[], None]], object] | None = None
        """Lets brokers that have gone be named for a while; see ``named_brokers``."""
        self._departed: dict[int, BrokerRegistration] = {}

    def __repr__(self) -> str:
        return (
            f"ClusterMetadata(version={self._version} controller={self._controller_id} "
            f"brokers={sorted(self._brokers)} topics={len(self._topics)})"
        )

    def apply(self, delta: ClusterDelta) -> None:
        """Take a snapshot or the next delta; its order and epoch were checked by the channel and the broker."""
        before = dict(self._brokers)
        if delta.is_snapshot:
            # Replicas of topics that the controller cannot read just now keep their roles: clients still find them.
            kept = [self._topics[name] for name in delta.unreadable_topics if name in self._topics]
            self._brokers = {}
            self._topics = {view.name: view for view in kept}
            self._names = {view.topic_id: view.name for view in kept}
            self._ready = True
        self._controller_id = delta.controller_id
        self._version += 1
        for broker in delta.brokers:
            self._brokers[broker.broker_id] = broker
        for broker_id in delta.removed_brokers:
            self._brokers.pop(broker_id, None)
        self._remember_departed(before)
        for name, topic_id in delta.deleted_topics:
            view = self._topics.get(name)
            if view is not None and view.topic_id == topic_id:
                del self._topics[name]
                self._names.pop(topic_id, None)
        self._take_partitions(delta.partitions)

    def _remember_departed(self, before: Mapping[int, BrokerRegistration]) -> None:
        for broker_id in self._brokers:
            self._departed.pop(broker_id, None)
        if self.call_later is None:
            return
        for broker_id, registration in sorted(before.items()):
            if broker_id not in self._brokers:
                self._departed[broker_id] = registration
                self.call_later(NAMED_AFTER_S, partial(self._forget, registration))

    def _forget(self, registration: BrokerRegistration) -> None:
        if self._departed.get(registration.broker_id) is registration:
            del self._departed[registration.broker_id]

    def _take_partitions(self, changed: Iterable[tuple[TopicPartition, PartitionState]]) -> None:
        fresh: dict[str, dict[int, PartitionState]] = {}
        for (name, partition), state in changed:
            partitions = fresh.get(name)
            view = self._topics.get(name)
            if partitions is None or view is None or view.topic_id != state.topic_id:
                # A new id is a new topic of the same name: nothing of its predecessor is kept.
                same_topic = view is not None and view.topic_id == state.topic_id
                partitions = dict(view.partitions) if view is not None and same_topic else {}
                fresh[name] = partitions
                if view is not None and not same_topic:
                    self._names.pop(view.topic_id, None)
                self._topics[name] = TopicView(name, state.topic_id, name in INTERNAL_TOPICS, partitions)
                self._names[state.topic_id] = name
            partitions[partition] = state

    def broker(self, broker_id: int) -> BrokerRegistration | None:
        return self._brokers.get(broker_id)

    def live_brokers(self) -> list[BrokerRegistration]:
        return [self._brokers[broker_id] for broker_id in sorted(self._brokers)]

    def live_broker_epoch(self, broker_id: int) -> int | None:
        """The registered epoch of a live broker, None for one that is not registered."""
        broker = self._brokers.get(broker_id)
        return None if broker is None else broker.epoch

    def state(self, partition: TopicPartition) -> PartitionState | None:
        view = self._topics.get(partition.topic)
        return None if view is None else view.partitions.get(partition.partition)

    def share_isr(self, one: int, other: int) -> bool:
        """Is there a partition in whose ISR both are? (O(partitions): asked of a broker that may be dead.)"""
        return any(
            one in state.isr and other in state.isr
            for view in self._topics.values()
            for state in view.partitions.values()
        )

    def current_leader(self, partition: TopicPartition) -> CurrentLeader | None:
        """Who leads as far as this broker knows, for KIP-951."""
        state = self.state(partition)
        return None if state is None else CurrentLeader(state.leader, state.leader_epoch)

    # MetadataPort

    @property
    def cluster_id(self) -> str:
        return self._cluster_id

    @property
    def broker_id(self) -> int:
        return self._broker_id

    @property
    def controller_id(self) -> int:
        return self._controller_id

    @property
    def version(self) -> int:
        return self._version

    @property
    def is_ready(self) -> bool:
        return self._ready

    def brokers(self, listener: str) -> list[BrokerView]:
        return self._views(self._brokers, listener)

    def named_brokers(self, listener: str) -> list[BrokerView]:
        return self._views({**self._departed, **self._brokers}, listener)

    @staticmethod
    def _views(brokers: Mapping[int, BrokerRegistration], listener: str) -> list[BrokerView]:
        views = []
        for _, broker in sorted(brokers.items()):
            endpoint = broker.endpoint(listener)
            if endpoint is not None:
                views.append(BrokerView(broker.broker_id, endpoint.host, endpoint.port, broker.rack))
        return views

    def topic(self, name: str) -> TopicView | None:
        return self._topics.get(name)

    def topic_name(self, topic_id: str) -> str | None:
        return self._names.get(topic_id)

    def topics(self) -> list[TopicView]:
        return [self._topics[name] for name in sorted(self._topics)]

    def doubt(self, reason: Doubt, broker_id: int, is_doubted: bool) -> None:
        """See ``is_doubted``."""
        reasons = self._doubted.get(broker_id, set()) - {reason} | ({reason} if is_doubted else set())
        if bool(reasons) != (broker_id in self._doubted):
            self._version += 1
        if reasons:
            self._doubted[broker_id] = reasons
        else:
            self._doubted.pop(broker_id, None)

    def is_doubted(self, broker_id: int) -> bool:
        return broker_id in self._doubted

    def when_sure(self, answer: Callable[[], None]) -> None:
        self.hold(answer)

    def has_listener(self, broker_id: int, listener: str) -> bool:
        broker = self._brokers.get(broker_id)
        return broker is not None and broker.endpoint(listener) is not None

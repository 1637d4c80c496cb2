"""One broker among its peers: takes snapshots and deltas, keeps the channel to whoever is controller.

The composition root (``parts.py``) makes the parts; this class connects what changes at run time: the controller
moves, the registration is lost and made again, partitions come and go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from zkbroker.broker.arrivals import AT_ONCE, Arrivals
from zkbroker.broker.metadata import ClusterMetadata, Doubt
from zkbroker.broker.topic_configs import TopicConfigs
from zkbroker.model.channel import (
    UNREGISTERED,
    AlterPartitionRequest,
    AlterPartitionResponse,
    Applied,
    NewTopic,
    TopicResult,
)
from zkbroker.model.clock import Clock
from zkbroker.model.cluster import REPLICATION_LISTENER, BrokerRegistration, ClusterDelta, DeletedReplica
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.replication.ports import FetcherPort
from zkbroker.zookeeper.client import ZooKeeperClient


class Channel(Protocol):
    """The broker's way to the controller: over the network, or in memory to itself."""

    def alter_partition(self, request: AlterPartitionRequest) -> Deferred[AlterPartitionResponse]: ...

    def controlled_shutdown(self) -> Deferred[tuple[TopicPartition, ...]]: ...

    def create_topic(self, topic: NewTopic) -> Deferred[TopicResult]: ...

    def replica_deleted(self, partition: TopicPartition, topic_id: str) -> None: ...


class ReplicaSet(Protocol):
    """The part of ``Replicas`` that the cluster's changes drive."""

    def apply(self, partition: TopicPartition, state: PartitionState) -> str | None: ...

    def remove(self, partition: TopicPartition, topic_id: str) -> None: ...

    def delete(self, partition: TopicPartition, topic_id: str) -> Deferred[None]: ...

    def is_out_of_reach(self, partition: TopicPartition) -> bool: ...

    def brokers_changed(self) -> None: ...

    def registration_lost(self) -> None: ...

    def is_up(self, partition: TopicPartition) -> bool: ...

    def hosted(self) -> list[tuple[TopicPartition, str]]: ...

    def make_stray(self, partition: TopicPartition, topic_id: str) -> None: ...


class Node:
    """Fills ``replication.ports.BrokerPort``.

    A replica is brought up only when its topic's settings were read (a leader that did not know
    ``min.insync.replicas`` would acknowledge too early); until then its newest state waits in ``_arrivals``.
    """

    def __init__(
        self,
        *,
        broker_id: int,
        clock: Clock,
        zk: ZooKeeperClient,
        metadata: ClusterMetadata,
        replicas: ReplicaSet,
        fetchers: FetcherPort,
        topic_configs: TopicConfigs,
        replica_deleted: Callable[[TopicPartition, str], None],
        became_ready: Callable[[], None],
        call_later: Callable[[float, Callable[[], None]], object],
        log: Callable[[str], None],
        applied_later: Callable[[Applied], object] = lambda applied: None,
        served_again: Callable[[], object] = lambda: None,
        states_told: Callable[[ClusterDelta], object] = lambda delta: None,
        brokers_changed: Callable[[Sequence[BrokerRegistration]], object] = lambda brokers: None,
        zk_silence_s: float = float("inf"),
    ) -> None:
        """``zk_silence_s``: of ZooKeeper, within which others may have been made leaders here."""
        self._broker_id = broker_id
        self._clock = clock
        self._zk = zk
        self._metadata = metadata
        self._replicas = replicas
        self._fetchers = fetchers
        self._topic_configs = topic_configs
        self._replica_deleted = replica_deleted
        self._became_ready = became_ready
        self._log = log
        self._applied_later = applied_later
        """Tells the controller what became of replicas after ``apply_delta`` returned."""
        self._served_again = served_again
        """A replica that failed has a role now. Only a snapshot's receipt tells the controller so: subscribe again."""
        self._brokers_changed = brokers_changed
        """Told of all live brokers whenever they changed."""
        self._states_told = states_told
        self._failed: dict[TopicPartition, None] = {}
        """What the controller was told to be failed, and counts as dead, since the last snapshot."""
        self._number = -1
        """Of the last delta."""
        self.controller_epoch = -1
        """The highest controller epoch obeyed so far; orders of a lower one are stale."""
        self._arrivals = Arrivals(
            topic_configs=topic_configs,
            apply=self._bring_up,
            failed=self._arrivals_failed,
            call_later=call_later,
            log=log,
        )
        self._contact_at = float("-inf")
        """When the controller last heard from ZooKeeper, as far as its heartbeats told."""
        self._heard_at = clock.monotonic()
        """When the controller's last heartbeat arrived."""
        self._zk_silence_s = zk_silence_s
        self._zk_reply_at = float("-inf")
        """Of ZooKeeper's newest reply that was looked at."""
        self._zk_since = float("-inf")
        """Since when its replies follow each other without a gap."""
        self._confirmed_at = float("-inf")
        """So late ZooKeeper was asked what is led here, and named no other leader."""

    def __repr__(self) -> str:
        return f"Node({self._broker_id} controller_epoch={self.controller_epoch} {self._arrivals!r})"

    # BrokerPort

    def apply_delta(self, delta: ClusterDelta) -> Applied:
        """Take a snapshot or delta. One of a deposed controller changes nothing."""
        if delta.controller_epoch < self.controller_epoch:
            self._log(f"ignored a delta of controller epoch {delta.controller_epoch}: {self.controller_epoch} is known")
            return Applied(delta.controller_epoch, delta.number)
        self.controller_epoch = delta.controller_epoch
        self._number = delta.number
        if delta.is_snapshot:
            self._failed.clear()
            self._metadata.doubt(Doubt.COUNTED_OUT, self._broker_id, False)
        self._forget_replaced_topics(delta)
        was_ready = self._metadata.is_ready
        before = {broker.broker_id: broker for broker in self._metadata.live_brokers()}
        self._metadata.apply(delta)
        self._take_brokers(before, bool(delta.brokers) and not delta.is_snapshot)
        for topic, topic_id in delta.deleted_topics:
            self._topic_gone(topic, topic_id)
        failures = self._take_partitions(delta)
        if delta.is_snapshot:
            self._set_strays_aside(delta)
        for deleted in delta.deleted_replicas:
            self._delete(deleted)
        self._states_told(delta)
        if not was_ready and self._metadata.is_ready:
            self._became_ready()
        return Applied(delta.controller_epoch, delta.number, tuple(failures))

    def controller_heard(self, controller_epoch: int, zookeeper_age_s: float) -> None:
        if controller_epoch >= self.controller_epoch:
            self._heard_at = self._clock.monotonic()
            self._contact_at = max(self._contact_at, self._clock.monotonic() - zookeeper_age_s)

    def registration_lost(self) -> None:
        """All roles end, and what still waits was said to the registration that is gone: the next one is told anew, by
        a snapshot. Until then who leads is known here from hearsay, and clients are sent away: connected to nobody
        else, librdkafka would ask this broker, as long as it answers, and be refused by the leader that it names."""
        self._arrivals.clear()
        self._replicas.registration_lost()
        self._metadata.doubt(Doubt.COUNTED_OUT, self._broker_id, True)

    def channel_lost(self, reason: str) -> None:
        self._log(f"channel to the controller lost: {reason}")
        if reason == UNREGISTERED:
            # Whoever cannot hear ZooKeeper would go on leading, and tell clients so, until it hears it again. If the
            # registration is there after all, the next snapshot gives back what is dropped here.
            self.registration_lost()

    def zookeeper_age_s(self) -> float:
        return self._clock.monotonic() - self._zk.last_reply_at

    def controller_age(self) -> float:
        """Seconds since the controller was last heard."""
        self._look_at_zookeeper()
        return self._clock.monotonic() - self._heard_at

    def told_by_zookeeper(self, states: Sequence[tuple[TopicPartition, PartitionState]]) -> None:
        """Newer states of what this broker leads or led; the controller could not tell them. Clients hear of them from
        now on. The controller's own word, when it comes, is no news then."""
        told = ClusterDelta(self._metadata.controller_id, self.controller_epoch, self._number, partitions=tuple(states))
        self._metadata.apply(told)
        for partition, state in states:
            self._replicas.apply(partition, state)

    def contact_age(self) -> float:
        """Seconds since the newest sign that ZooKeeper still counts this broker in: its own reply, or the controller's
        as told by a heartbeat (contact rule of DECISIONS.md).

        After a gap its own reply says nothing: this process stood still, its followers had another leader elected, and
        ZooKeeper, whose session it kept, answers sooner than the controller's news is read."""
        self._look_at_zookeeper()
        newest = self._contact_at
        if self._zk_since <= max(self._contact_at, self._confirmed_at):
            newest = max(newest, self._zk_reply_at)
        return self._clock.monotonic() - newest

    def _look_at_zookeeper(self) -> None:
        reply_at, known = self._zk.last_reply_at, self._zk_reply_at
        if reply_at - known > self._zk_silence_s and known > float("-inf"):
            self._zk_since = reply_at
        self._zk_reply_at = reply_at

    def confirmed(self, asked_at: float) -> None:
        """Asked at that moment, ZooKeeper named no other leader of what is led here."""
        self._confirmed_at = max(self._confirmed_at, asked_at)

    # Partitions

    def _take_partitions(self, delta: ClusterDelta) -> list[tuple[TopicPartition, str]]:
        failures: list[tuple[TopicPartition, str]] = []
        made = 0
        for partition, state in delta.partitions:
            if self._broker_id not in state.replicas:
                self._arrivals.forget(partition)
                self._replicas.remove(partition, state.topic_id)
                if not delta.is_snapshot and not self._topic_configs.knows(partition.topic):
                    # Clients ask any broker what the settings are; those of older topics were read at start.
                    self._topic_configs.load(partition.topic).addErrback(lambda _: None)
            elif partition in self._arrivals:
                self._arrivals.replace(partition, state)
            elif not self._topic_configs.knows(partition.topic):
                self._arrivals.wait_for_settings(partition, state)
            elif made == AT_ONCE and not self._replicas.is_up(partition):
                self._arrivals.wait_for_turn(partition, state)
            else:
                # All of a snapshot: its receipt names what failed.
                made += not delta.is_snapshot and not self._replicas.is_up(partition)
                self._apply(partition, state, failures)
        return failures

    def _apply(
        self, partition: TopicPartition, state: PartitionState, failures: list[tuple[TopicPartition, str]]
    ) -> None:
        reason = self._replicas.apply(partition, state)
        if reason is not None:
            failures.append((partition, reason))
            self._failed[partition] = None
        elif partition in self._failed:
            # For example a leadership from before a restart, which was refused: the next epoch is taken up.
            del self._failed[partition]
            self._served_again()

    def _bring_up(
        self, partition: TopicPartition, state: PartitionState, failures: list[tuple[TopicPartition, str]]
    ) -> None:
        """It has waited; the topic may be another by now."""
        current = self._metadata.state(partition)
        if current is not None and current.topic_id == state.topic_id:
            self._apply(partition, state, failures)

    def _arrivals_failed(self, failures: list[tuple[TopicPartition, str]]) -> None:
        # Never number 0: that is the receipt of a snapshot, which names all that failed.
        self._applied_later(Applied(self.controller_epoch, max(1, self._number), tuple(failures)))

    def configs_reachable(self) -> None:
        """ZooKeeper is back: ask again for the settings that replicas wait for."""
        self._arrivals.settings_reachable()

    def _forget_replaced_topics(self, delta: ClusterDelta) -> None:
        """A known name under a new id is another topic: its settings are not those that were read for the old one."""
        for partition, state in delta.partitions:
            view = self._metadata.topic(partition.topic)
            if view is not None and view.topic_id != state.topic_id:
                self._arrivals.forget_topic(partition.topic)
                self._topic_configs.forget(partition.topic)

    def _topic_gone(self, topic: str, topic_id: str) -> None:
        self._arrivals.forget_topic(topic, topic_id)
        for partition, hosted_id in self._replicas.hosted():
            if partition.topic == topic and hosted_id == topic_id:
                self._replicas.remove(partition, topic_id)
        if self._metadata.topic(topic) is None:
            self._topic_configs.forget(topic)

    def _delete(self, deleted: DeletedReplica) -> None:
        partition = TopicPartition(deleted.topic, deleted.partition)
        state = self._metadata.state(partition)
        if state is not None and state.topic_id == deleted.topic_id and self._broker_id in state.replicas:
            self._log(f"{partition}: ordered to delete what is assigned here: refused")
            return
        if state is not None and state.topic_id == deleted.topic_id and self._replicas.is_out_of_reach(partition):
            # What a reassignment left behind: ordered again when this broker is back with its folder.
            self._log(f"{partition}: its data may be in a log folder that is offline, and is not deleted yet")
            return
        self._replicas.delete(partition, deleted.topic_id).addCallbacks(
            lambda _: self._replica_deleted(partition, deleted.topic_id),
            lambda failure: self._log(f"deleting {partition} failed: {failure.getErrorMessage()}"),
        )

    def _set_strays_aside(self, snapshot: ClusterDelta) -> None:
        """Folders of topics (or topic ids) that the cluster does not know are renamed, never deleted: the controller's
        picture may be wrong, a disk may come from elsewhere."""
        assigned = {
            partition: state.topic_id for partition, state in snapshot.partitions if self._broker_id in state.replicas
        }
        ordered = {(deleted.topic, deleted.partition, deleted.topic_id) for deleted in snapshot.deleted_replicas}
        for partition, topic_id in self._replicas.hosted():
            if assigned.get(partition) == topic_id or (partition.topic, partition.partition, topic_id) in ordered:
                continue
            if topic_id in {known for _, known in snapshot.deleted_topics}:
                continue
            if not topic_id and partition in assigned:
                # Of a Kafka that had no topic ids: it gets one when it is brought up.
                continue
            if partition.topic in snapshot.unreadable_topics:
                self._log(f"{partition}: the topic's znode does not decode, its folder is left as it is")
                continue
            self._replicas.make_stray(partition, topic_id)

    # Brokers

    def _take_brokers(self, before: dict[int, BrokerRegistration], has_news: bool) -> None:
        now = {broker.broker_id: broker for broker in self._metadata.live_brokers()}
        if now == before:
            if has_news:
                # A change that the line protocol does not tell: a lossy replica may join now.
                self._replicas.brokers_changed()
            return
        for broker_id, broker in now.items():
            endpoint = broker.endpoint(REPLICATION_LISTENER)
            if broker_id != self._broker_id and before.get(broker_id) != broker and endpoint is not None:
                self._fetchers.set_address(broker_id, broker.epoch, endpoint.host, endpoint.port)
        for broker_id in before:
            if broker_id not in now:
                self._fetchers.remove_address(broker_id)
        self._brokers_changed(list(now.values()))
        self._replicas.brokers_changed()

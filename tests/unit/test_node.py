"""What a broker does with snapshots and deltas: whom it obeys, what it brings up, what it never deletes."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock as ReactorClock
from twisted.python.failure import Failure

from zkbroker.broker.arrivals import AT_ONCE
from zkbroker.broker.metadata import ClusterMetadata
from zkbroker.broker.node import Node
from zkbroker.model.channel import UNREGISTERED
from zkbroker.model.cluster import BrokerRegistration, ClusterDelta, DeletedReplica, Endpoint
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.zookeeper.client import ConnectionLossError

T0 = TopicPartition("t", 0)


class Recorder:
    """Stands in for replicas, fetchers, topic settings and ZooKeeper; writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.known_topics: set[str] = {"t"}
        self.loads: dict[str, list[Deferred[None]]] = {}
        self.folders: list[tuple[TopicPartition, str]] = []
        self.up: set[TopicPartition] = set()
        self.out_of_reach: set[TopicPartition] = set()
        self.last_reply_at = 0.0
        self.is_connected = True

    # Replicas
    def apply(self, partition: TopicPartition, state: PartitionState) -> str | None:
        self.told.append(f"apply {partition} leader={state.leader} epoch={state.leader_epoch}")
        self.up.add(partition)
        return "its folder is offline" if state.leader == 99 else None

    def remove(self, partition: TopicPartition, topic_id: str) -> None:
        self.told.append(f"remove {partition} {topic_id}")

    def delete(self, partition: TopicPartition, topic_id: str) -> Deferred[None]:
        self.told.append(f"delete {partition} {topic_id}")
        return succeed(None)

    def is_out_of_reach(self, partition: TopicPartition) -> bool:
        return partition in self.out_of_reach

    def brokers_changed(self) -> None:
        self.told.append("brokers changed")

    def registration_lost(self) -> None:
        self.told.append("no roles")

    def is_up(self, partition: TopicPartition) -> bool:
        return partition in self.up

    def hosted(self) -> list[tuple[TopicPartition, str]]:
        return self.folders

    def make_stray(self, partition: TopicPartition, topic_id: str) -> None:
        self.told.append(f"stray {partition} {topic_id}")

    # Fetchers
    def set_address(self, broker_id: int, broker_epoch: int, host: str, port: int) -> None:
        self.told.append(f"address {broker_id} epoch={broker_epoch} {host}:{port}")

    def remove_address(self, broker_id: int) -> None:
        self.told.append(f"no address {broker_id}")

    def follow(self, partition: TopicPartition, leader: int) -> None: ...

    def unfollow(self, partition: TopicPartition) -> None: ...

    def position_changed(self, partition: TopicPartition) -> None: ...

    # Topic settings
    def knows(self, topic: str) -> bool:
        return topic in self.known_topics

    def load(self, topic: str) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self.loads.setdefault(topic, []).append(waiting)
        return waiting

    def forget(self, topic: str) -> None:
        self.told.append(f"forget settings {topic}")

    def taken(self) -> list[str]:
        told, self.told = self.told, []
        return told


class HandClock:
    def __init__(self) -> None:
        self.reactor = ReactorClock()
        self.calls: list[Callable[[], None]] = []
        """What is to be called in the next turn."""

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        assert delay_s == 0
        self.calls.append(call)

    def monotonic(self) -> float:
        return self.reactor.seconds()

    def wall_ms(self) -> int:
        return 0


def make() -> tuple[Node, Recorder, HandClock]:
    recorder, clock = Recorder(), HandClock()
    node = Node(
        broker_id=1,
        clock=clock,
        zk=recorder,  # type: ignore[arg-type]
        metadata=ClusterMetadata("c", 1),
        replicas=recorder,
        fetchers=recorder,
        topic_configs=recorder,  # type: ignore[arg-type]
        replica_deleted=lambda partition, topic_id: recorder.told.append(f"deleted {partition} {topic_id}"),
        became_ready=lambda: recorder.told.append("ready"),
        call_later=clock.call_later,
        zk_silence_s=2.0,
        log=lambda line: recorder.told.append(f"log: {line}"),
        applied_later=lambda applied: recorder.told.append(f"later {applied.number} {applied.failures}"),
        served_again=lambda: recorder.told.append("served again"),
    )
    return node, recorder, clock


def broker(broker_id: int, epoch: int = 7) -> BrokerRegistration:
    return BrokerRegistration(broker_id, epoch, (Endpoint("REPLICATION", "h", 19000 + broker_id),))


def state(
    leader: int = 1, leader_epoch: int = 0, replicas: tuple[int, ...] = (1, 2), topic_id: str = "one"
) -> PartitionState:
    return PartitionState(topic_id, replicas, leader, leader_epoch, replicas, 0, 1)


def snapshot(epoch: int = 5, **changes: object) -> ClusterDelta:
    base = ClusterDelta(2, epoch, 0, is_snapshot=True, brokers=(broker(1), broker(2)), partitions=((T0, state()),))
    return base._replace(**changes)


def test_a_snapshot_brings_up_replicas_and_makes_the_broker_ready() -> None:
    node, recorder, _ = make()
    assert node.apply_delta(snapshot()).failures == ()
    assert recorder.taken() == [
        "address 2 epoch=7 h:19002",
        "brokers changed",
        "apply t-0 leader=1 epoch=0",
        "ready",
    ]


def test_a_deposed_controller_is_not_obeyed() -> None:
    node, recorder, _ = make()
    node.apply_delta(snapshot(epoch=5))
    recorder.taken()
    node.apply_delta(ClusterDelta(3, 4, 1, partitions=((T0, state(leader=2, leader_epoch=1)),)))
    assert recorder.taken() == ["log: ignored a delta of controller epoch 4: 5 is known"]
    node.apply_delta(ClusterDelta(3, 6, 1, partitions=((T0, state(leader=2, leader_epoch=1)),)))
    assert recorder.taken() == ["apply t-0 leader=2 epoch=1"]


def test_a_replica_waits_for_its_topics_settings_and_then_takes_the_newest_state() -> None:
    node, recorder, _ = make()
    recorder.known_topics.clear()
    node.apply_delta(snapshot())
    assert not [line for line in recorder.taken() if line.startswith("apply")]
    node.apply_delta(ClusterDelta(2, 5, 1, partitions=((T0, state(leader=2, leader_epoch=1)),)))
    assert len(recorder.loads["t"]) == 1
    recorder.known_topics.add("t")
    recorder.loads["t"][0].callback(None)
    assert recorder.taken() == ["apply t-0 leader=2 epoch=1"]


def test_failures_are_in_the_receipt() -> None:
    node, _, _ = make()
    applied = node.apply_delta(snapshot(partitions=((T0, state(leader=99)),)))
    assert applied.failures == ((T0, "its folder is offline"),)


def test_what_the_cluster_does_not_know_becomes_a_stray_and_is_never_deleted() -> None:
    node, recorder, _ = make()
    recorder.folders = [(T0, "one"), (TopicPartition("old", 0), "two"), (TopicPartition("t", 9), "one")]
    node.apply_delta(snapshot())
    assert [line for line in recorder.taken() if line.startswith(("stray", "delete", "remove"))] == [
        "stray old-0 two",
        "stray t-9 one",
    ]


def test_a_replica_that_failed_and_works_again_asks_for_a_snapshot() -> None:
    """Else the controller counts it as dead until this broker registers again."""
    node, recorder, _ = make()
    node.apply_delta(snapshot(partitions=((T0, state(leader=99)),)))
    recorder.taken()
    node.apply_delta(ClusterDelta(2, 5, 1, partitions=((T0, state(leader_epoch=1)),)))
    assert recorder.taken() == ["apply t-0 leader=1 epoch=1", "served again"]
    node.apply_delta(ClusterDelta(2, 5, 2, partitions=((T0, state(leader_epoch=2)),)))
    assert recorder.taken() == ["apply t-0 leader=1 epoch=2"]


def test_a_late_failure_is_not_taken_for_the_receipt_of_the_snapshot() -> None:
    node, recorder, _ = make()
    recorder.known_topics.clear()
    node.apply_delta(snapshot(partitions=((T0, state(leader=99)),)))
    recorder.taken()
    recorder.loads["t"].pop().callback(None)
    assert [line for line in recorder.taken() if line.startswith("later")] == [
        "later 1 ((TopicPartition(topic='t', partition=0), 'its folder is offline'),)"
    ]


def turn(clock: HandClock) -> None:
    """One turn of the reactor: what is called meanwhile comes in the next."""
    due, clock.calls = clock.calls, []
    for call in due:
        call()


MANY = tuple((TopicPartition("t", number), state(99 if number == 45 else 1)) for number in range(50))


def test_the_replicas_of_a_large_topic_are_made_some_at_a_time() -> None:
    """All in one turn held the reactor for seconds on a busy disk, and the watchdog ended the broker."""
    node, recorder, clock = make()
    node.apply_delta(snapshot())
    recorder.known_topics.clear()
    node.apply_delta(ClusterDelta(1, 5, 1, partitions=MANY))
    recorder.taken()
    recorder.loads["t"].pop().callback(None)
    assert len(recorder.taken()) == AT_ONCE
    # What is said of the rest meanwhile counts.
    node.apply_delta(ClusterDelta(1, 5, 2, partitions=((TopicPartition("t", 49), state(2, 1)),)))
    assert recorder.taken() == []
    turn(clock)
    assert len(recorder.taken()) == AT_ONCE
    turn(clock)
    *last, failed, later = recorder.taken()
    assert last[-1] == "apply t-49 leader=2 epoch=1" and len(last) == 50 - 2 * AT_ONCE
    assert failed == "log: t-45: its folder is offline" and later.startswith("later 2 ((")
    assert not clock.calls


def test_partitions_added_to_a_topic_are_made_some_at_a_time() -> None:
    node, recorder, clock = make()
    node.apply_delta(snapshot(partitions=MANY[:1]))
    recorder.taken()
    node.apply_delta(ClusterDelta(1, 5, 1, partitions=MANY))
    assert len(recorder.taken()) == 1 + AT_ONCE, "what is up takes its new state at once"
    node.registration_lost()
    recorder.taken()
    turn(clock)
    assert recorder.taken() == []


def test_a_change_of_many_roles_is_one() -> None:
    """A failover does not wait, and the receipt of a snapshot names all that failed."""
    node, recorder, _ = make()
    assert len(node.apply_delta(snapshot(partitions=MANY)).failures) == 1
    recorder.taken()
    assert len(node.apply_delta(ClusterDelta(1, 5, 1, partitions=MANY)).failures) == 1
    assert len(recorder.taken()) == 50


def test_a_state_that_waits_for_settings_dies_with_the_registration() -> None:
    node, recorder, _ = make()
    recorder.known_topics.clear()
    node.apply_delta(snapshot())
    node.registration_lost()
    recorder.taken()
    recorder.loads["t"].pop().callback(None)
    assert recorder.taken() == []
    node.apply_delta(snapshot())
    recorder.loads["t"].pop().callback(None)
    assert recorder.taken() == ["apply t-0 leader=1 epoch=0"]


def test_a_state_that_waits_for_settings_dies_when_the_controller_counts_the_broker_out() -> None:
    node, recorder, _ = make()
    recorder.known_topics.clear()
    node.apply_delta(snapshot())
    node.channel_lost(UNREGISTERED)
    recorder.taken()
    recorder.loads["t"].pop().callback(None)
    assert recorder.taken() == [], "it leads nothing until a snapshot"


def test_news_of_a_deleted_topic_costs_its_successor_nothing() -> None:
    node, recorder, _ = make()
    recorder.known_topics.clear()
    node.apply_delta(snapshot())
    node.apply_delta(ClusterDelta(1, 5, 1, deleted_topics=(("t", "an older one"),)))
    recorder.taken()
    recorder.loads["t"].pop().callback(None)
    assert recorder.taken() == ["apply t-0 leader=1 epoch=0"]


def test_a_broker_that_the_controller_counts_out_leads_nothing_until_a_snapshot() -> None:
    """Cut from ZooKeeper alone it went on as a leader, and told clients so, until it was connected again: for two
    minutes, in the torture, clients asked it and nobody else who leads."""
    node, recorder, _ = make()
    node.apply_delta(snapshot(partitions=((T0, state()),)))
    metadata = node._metadata
    recorder.taken()
    node.channel_lost("resigned")
    assert recorder.taken() == ["log: channel to the controller lost: resigned"] and not metadata.is_doubted(1)
    version = metadata.version
    node.channel_lost(UNREGISTERED)
    assert "no roles" in recorder.taken()
    # What was encoded for clients before is not sent any more.
    assert metadata.is_doubted(1) and metadata.version > version
    node.apply_delta(ClusterDelta(1, 5, 1))
    assert metadata.is_doubted(1)
    node.apply_delta(snapshot(partitions=((T0, state()),)))
    assert not metadata.is_doubted(1)
    assert any(line.startswith("apply t-0 leader=1") for line in recorder.taken())


def test_a_broker_that_was_deleted_tells_clients_no_leaders_until_a_snapshot() -> None:
    """It registers again at once, but what it knows may be old for as long as no controller reaches it."""
    node, recorder, _ = make()
    node.apply_delta(snapshot(partitions=((T0, state()),)))
    recorder.taken()
    node.registration_lost()
    assert "no roles" in recorder.taken()
    assert node._metadata.is_doubted(1)
    node.apply_delta(snapshot(partitions=((T0, state()),)))
    assert not node._metadata.is_doubted(1)


def test_an_assigned_folder_without_a_topic_id_is_no_stray() -> None:
    node, recorder, _ = make()
    recorder.folders = [(T0, ""), (TopicPartition("old", 0), "")]
    node.apply_delta(snapshot())
    assert [line for line in recorder.taken() if line.startswith("stray")] == ["stray old-0 "]


def test_the_folder_of_a_topic_that_the_controller_cannot_read_is_left_alone() -> None:
    node, recorder, _ = make()
    recorder.folders = [(TopicPartition("garbled", 0), "two")]
    node.apply_delta(snapshot(unreadable_topics=("garbled",)))
    assert [line for line in recorder.taken() if line.startswith(("stray", "delete", "remove"))] == []


def test_a_topic_under_deletion_is_no_stray_and_its_data_goes_only_on_order() -> None:
    node, recorder, _ = make()
    recorder.folders = [(T0, "one")]
    node.apply_delta(snapshot(partitions=(), deleted_topics=(("t", "one"),)))
    assert [line for line in recorder.taken() if line.startswith(("stray", "delete", "remove"))] == ["remove t-0 one"]
    node.apply_delta(ClusterDelta(2, 5, 1, deleted_replicas=(DeletedReplica("t", 0, "one"),)))
    assert recorder.taken() == ["delete t-0 one", "deleted t-0 one"]


def test_a_replica_that_is_assigned_elsewhere_is_removed_but_not_deleted() -> None:
    node, recorder, _ = make()
    node.apply_delta(snapshot())
    recorder.taken()
    node.apply_delta(ClusterDelta(2, 5, 1, partitions=((T0, state(leader=2, leader_epoch=3, replicas=(2, 3))),)))
    assert recorder.taken() == ["remove t-0 one"]


def test_data_in_a_folder_that_is_offline_is_not_said_to_be_gone() -> None:
    """The controller would forget it, and what a reassignment left would be a stray when the folder is back."""
    node, recorder, _ = make()
    recorder.out_of_reach = {T0}
    moved = ((T0, state(leader=2, leader_epoch=3, replicas=(2, 3))),)
    order = (DeletedReplica("t", 0, "one"),)
    node.apply_delta(snapshot(partitions=moved, deleted_replicas=order))
    assert [line for line in recorder.taken() if line.startswith("delete")] == []
    recorder.out_of_reach = set()
    node.apply_delta(snapshot(partitions=moved, deleted_replicas=order))
    assert [line for line in recorder.taken() if line.startswith("delete")] == ["delete t-0 one", "deleted t-0 one"]
    recorder.out_of_reach = {T0}
    node.apply_delta(ClusterDelta(2, 5, 1, deleted_topics=(("t", "one"),), deleted_replicas=order))
    assert "deleted t-0 one" in recorder.taken(), "a deletion of the topic does not wait for it"


def test_a_recreated_topic_does_not_come_up_with_its_predecessors_settings() -> None:
    node, recorder, _ = make()
    node.apply_delta(snapshot())
    recorder.taken()
    recorder.known_topics.clear()  # what forgetting does
    node.apply_delta(ClusterDelta(2, 5, 1, partitions=((T0, state(topic_id="two")),), deleted_topics=(("t", "one"),)))
    assert recorder.taken() == ["forget settings t"]
    assert len(recorder.loads["t"]) == 1


def test_a_state_that_waits_for_settings_goes_with_its_topic() -> None:
    node, recorder, _ = make()
    recorder.known_topics.clear()
    node.apply_delta(snapshot())
    node.apply_delta(ClusterDelta(2, 5, 1, partitions=((T0, state(topic_id="two", leader_epoch=3)),)))
    recorder.taken()
    first, second = recorder.loads["t"]
    second.callback(None)
    first.callback(None)
    assert recorder.taken() == ["apply t-0 leader=1 epoch=3"]


def test_settings_that_could_not_be_read_are_asked_for_when_zookeeper_is_back() -> None:
    node, recorder, _ = make()
    recorder.known_topics.clear()
    node.apply_delta(snapshot())
    recorder.loads["t"].pop().errback(Failure(ConnectionLossError("/config/topics/t")))
    assert recorder.taken()[-1].startswith("log: settings of topic t cannot be read yet")
    node.configs_reachable()
    recorder.loads["t"].pop().callback(None)
    assert recorder.taken() == ["apply t-0 leader=1 epoch=0"]
    node.configs_reachable()
    assert recorder.loads["t"] == []


def test_a_replica_that_fails_after_its_settings_came_is_told_to_the_controller() -> None:
    node, recorder, _ = make()
    recorder.known_topics.clear()
    node.apply_delta(snapshot(partitions=((T0, state(leader=99)),)))
    recorder.loads["t"].pop().callback(None)
    assert recorder.taken()[-1] == f"later 1 {((T0, 'its folder is offline'),)}"


def test_settings_of_a_new_topic_are_read_although_it_is_not_hosted_here() -> None:
    node, recorder, _ = make()
    node.apply_delta(snapshot())
    node.apply_delta(ClusterDelta(2, 5, 1, partitions=((TopicPartition("new", 0), state(replicas=(2, 3))),)))
    assert list(recorder.loads) == ["new"]


def test_after_a_gap_zookeeper_alone_is_no_contact() -> None:
    """A process that stood still had its leaderships moved, and kept its session: ZooKeeper answered its first ping
    sooner than it read the controller's news, and it acknowledged what waited in its sockets."""
    node, recorder, clock = make()
    clock.reactor.advance(10.0)
    recorder.last_reply_at = 9.0
    assert node.contact_age() == 1.0
    clock.reactor.advance(4.0)
    assert node.contact_age() == 5.0
    recorder.last_reply_at = 13.5
    assert node.contact_age() == float("inf")
    # The answer to a question from before the gap lay in the socket.
    node.controller_heard(5, zookeeper_age_s=5.0)
    assert node.contact_age() == 5.0
    node.controller_heard(5, zookeeper_age_s=0.25)
    assert node.contact_age() == 0.25


def test_after_a_gap_what_zookeeper_says_of_the_leaders_counts() -> None:
    node, recorder, clock = make()
    clock.reactor.advance(10.0)
    node.controller_age()
    recorder.last_reply_at = 9.5
    assert node.contact_age() == float("inf")
    node.confirmed(9.0)
    assert node.contact_age() == float("inf")
    node.confirmed(9.75)
    assert node.contact_age() == 0.5


def test_contact_is_the_youngest_of_the_own_and_the_controllers_reply() -> None:
    node, recorder, clock = make()
    recorder.last_reply_at = 0.0
    clock.reactor.advance(10.0)
    assert node.contact_age() == 10.0
    node.controller_heard(5, zookeeper_age_s=3.0)
    assert node.contact_age() == 3.0
    node.apply_delta(snapshot(epoch=6))
    node.controller_heard(5, zookeeper_age_s=0.0)
    assert node.contact_age() == 3.0
    recorder.last_reply_at = 1.5
    node.contact_age()
    for reply_at in (3.5, 5.5, 7.5, 9.5):
        recorder.last_reply_at = reply_at
        node.contact_age()
    assert node.contact_age() == 0.5

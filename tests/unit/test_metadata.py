"""The broker's picture of the cluster after snapshots and deltas."""

from __future__ import annotations

from twisted.internet.task import Clock

from zkbroker.broker.metadata import NAMED_AFTER_S, ClusterMetadata, Doubt
from zkbroker.kafka.ports import BrokerView, CurrentLeader
from zkbroker.model.cluster import BrokerRegistration, ClusterDelta, Endpoint
from zkbroker.model.topics import PartitionState, TopicPartition

T0 = TopicPartition("t", 0)
T1 = TopicPartition("t", 1)


def broker(broker_id: int, epoch: int = 1) -> BrokerRegistration:
    return BrokerRegistration(broker_id, epoch, (Endpoint("PLAINTEXT", "h", 9090 + broker_id),))


def state(topic_id: str = "id-one", leader: int = 1, leader_epoch: int = 0) -> PartitionState:
    return PartitionState(topic_id, (1, 2), leader, leader_epoch, (1, 2), 0, 1)


def snapshot(**changes: object) -> ClusterDelta:
    base = ClusterDelta(
        1, 1, 0, is_snapshot=True, brokers=(broker(1), broker(2)), partitions=((T0, state()), (T1, state()))
    )
    return base._replace(**changes)


def test_is_ready_only_after_a_snapshot() -> None:
    metadata = ClusterMetadata("c", 1)
    assert not metadata.is_ready
    metadata.apply(snapshot())
    assert metadata.is_ready
    assert metadata.controller_id == 1
    assert metadata.brokers("PLAINTEXT") == [BrokerView(1, "h", 9091, None), BrokerView(2, "h", 9092, None)]
    assert metadata.brokers("INTERNAL") == []
    assert metadata.topic_name("id-one") == "t"


def test_a_delta_replaces_only_what_it_names_and_never_changes_a_view_in_place() -> None:
    metadata = ClusterMetadata("c", 1)
    metadata.apply(snapshot())
    view = metadata.topic("t")
    version = metadata.version
    metadata.apply(ClusterDelta(2, 2, 1, removed_brokers=(1,), partitions=((T0, state(leader=2, leader_epoch=1)),)))
    assert view is not None and view.partitions[0].leader == 1
    assert metadata.current_leader(T0) == CurrentLeader(2, 1)
    assert metadata.current_leader(T1) == CurrentLeader(1, 0)
    assert metadata.live_broker_epoch(1) is None and metadata.live_broker_epoch(2) == 1
    assert metadata.version == version + 1 and metadata.controller_id == 2


def named(metadata: ClusterMetadata) -> list[int]:
    return [view.broker_id for view in metadata.named_brokers("PLAINTEXT")]


def test_a_broker_that_has_gone_is_named_for_a_while() -> None:
    """librdkafka, told at once that a leadership has moved and that the old leader is gone, drops the partition."""
    metadata = ClusterMetadata("c", 1)
    clock = Clock()
    metadata.call_later = clock.callLater
    metadata.apply(snapshot())
    metadata.apply(ClusterDelta(1, 1, 1, removed_brokers=(2,), partitions=((T0, state(leader=1, leader_epoch=1)),)))
    assert [view.broker_id for view in metadata.brokers("PLAINTEXT")] == [1]
    assert not metadata.has_listener(2, "PLAINTEXT")
    assert named(metadata) == [1, 2] and metadata.named_brokers("PLAINTEXT")[1].port == 9092
    clock.advance(NAMED_AFTER_S - 0.1)
    assert named(metadata) == [1, 2]
    clock.advance(0.2)
    assert named(metadata) == [1]
    # A snapshot without it counts as much, and who comes back and goes again is named for the whole while.
    metadata.apply(snapshot())
    metadata.apply(snapshot(brokers=(broker(1),)))
    assert named(metadata) == [1, 2]
    clock.advance(NAMED_AFTER_S - 1)
    metadata.apply(snapshot())
    assert named(metadata) == [1, 2]
    metadata.apply(ClusterDelta(1, 1, 1, removed_brokers=(2,)))
    clock.advance(2)
    assert named(metadata) == [1, 2]
    clock.advance(NAMED_AFTER_S)
    assert named(metadata) == [1] and clock.getDelayedCalls() == []


def test_a_recreated_topic_keeps_nothing_of_its_predecessor() -> None:
    metadata = ClusterMetadata("c", 1)
    metadata.apply(snapshot())
    metadata.apply(ClusterDelta(1, 1, 1, partitions=((T0, state("id-two")),)))
    topic = metadata.topic("t")
    assert topic is not None and topic.topic_id == "id-two" and sorted(topic.partitions) == [0]
    assert metadata.topic_name("id-one") is None
    # The late word of the old topic's deletion must not take the new one away.
    metadata.apply(ClusterDelta(1, 1, 2, deleted_topics=(("t", "id-one"),)))
    assert metadata.topic("t") is not None
    metadata.apply(ClusterDelta(1, 1, 3, deleted_topics=(("t", "id-two"),)))
    assert metadata.topic("t") is None and metadata.topics() == []


def test_a_snapshot_replaces_everything() -> None:
    metadata = ClusterMetadata("c", 1)
    metadata.apply(snapshot())
    metadata.apply(ClusterDelta(2, 3, 0, is_snapshot=True, brokers=(broker(2, 9),)))
    assert metadata.topics() == [] and metadata.topic_name("id-one") is None
    assert metadata.live_broker_epoch(2) == 9 and metadata.broker(1) is None


def test_topics_that_the_controller_cannot_read_stay_as_they_were_known() -> None:
    metadata = ClusterMetadata("c", 1)
    metadata.apply(snapshot())
    view = metadata.topic("t")
    unreadable = snapshot(partitions=(), unreadable_topics=("t", "never-seen"))
    metadata.apply(unreadable)
    assert view is not None and metadata.topics() == [view]
    assert metadata.topic_name("id-one") == "t"
    metadata.apply(snapshot(partitions=((T0, state(leader=2, leader_epoch=1)),)))
    assert metadata.current_leader(T0) == CurrentLeader(2, 1) and metadata.state(T1) is None


def test_a_broker_is_doubted_as_long_as_there_is_any_reason() -> None:
    """One that hears ZooKeeper again is not cut off any more, but may be counted out still."""
    metadata = ClusterMetadata("c", 1)
    metadata.apply(snapshot())
    metadata.doubt(Doubt.CUT_OFF, 1, True)
    version = metadata.version
    metadata.doubt(Doubt.COUNTED_OUT, 1, True)
    metadata.doubt(Doubt.CUT_OFF, 1, False)
    metadata.doubt(Doubt.CUT_OFF, 1, False)
    assert metadata.is_doubted(1) and not metadata.is_doubted(2) and metadata.version == version
    metadata.doubt(Doubt.COUNTED_OUT, 1, False)
    assert not metadata.is_doubted(1) and metadata.version > version

"""Topics at the controller: created, changed, deleted, garbled, elected by hand. See ``controller_cluster``."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.controller_cluster import T0, Cluster
from zkbroker.broker.controller_settings import ControllerSettings
from zkbroker.controller.settling import Settling
from zkbroker.kafka.ports import PartitionsToAdd, TopicToDelete
from zkbroker.model.channel import AlterPartitionRequest, IsrProposal, NewTopic
from zkbroker.model.errors import ErrorCode, InvariantViolation
from zkbroker.model.limits import PARTITIONS_CREATED_MAX
from zkbroker.model.topics import TopicPartition
from zkbroker.zookeeper.client import Create, Delete, SetData
from zkbroker.zookeeper.znodes import config as config_znode
from zkbroker.zookeeper.znodes import states as state_znode


def test_a_created_topic_is_in_zookeeper_and_told_before_the_answer() -> None:
    cluster = Cluster()
    subscriber = cluster.subscribe(2)
    result = cluster.create(partitions=2, configs=(("retention.ms", "1000"),))
    assert (result.error, result.partitions, result.replication_factor) == (ErrorCode.NONE, 2, 3)
    assert subscriber.states.keys() == {T0, TopicPartition("t", 1)}
    assert subscriber.states[T0].topic_id == result.topic_id
    state = cluster.state()
    assert state is not None and (state.leader_epoch, state.partition_epoch, len(state.isr)) == (0, 0, 3)
    assert config_znode.decode("", cluster.zk.data("/config/topics/t") or b"") == {"retention.ms": "1000"}
    assert [delta.number for delta in subscriber.deltas] == [0, 1]


def test_a_topic_is_deleted_replica_by_replica_then_its_znodes() -> None:
    cluster = Cluster()
    result = cluster.create(factor=2, assignment=())
    subscribers = {broker: cluster.subscribe(broker) for broker in (1, 2, 3)}
    answer = cluster.controller.delete_topics([TopicToDelete("t", None)], 30_000)
    cluster.turns(0.2)
    orders = {
        broker: [order for delta in subscriber.deltas for order in delta.deleted_replicas]
        for broker, subscriber in subscribers.items()
    }
    assert sorted(len(some) for some in orders.values()) == [0, 1, 1]
    assert all(("t", result.topic_id) in subscriber.deltas[-1].deleted_topics for subscriber in subscribers.values())
    assert cluster.zk.data("/brokers/topics/t") is not None
    for broker, some in orders.items():
        for _ in some:
            cluster.controller.replica_deleted(broker, cluster.epoch(broker), T0, result.topic_id)
    assert cluster.wait(answer)[0].error is ErrorCode.NONE
    for path in ("/brokers/topics/t", "/config/topics/t", "/admin/delete_topics/t"):
        assert cluster.zk.data(path) is None, path
    assert cluster.create().error is ErrorCode.NONE


def test_a_topic_that_was_made_again_is_not_deleted_for_its_predecessor() -> None:
    cluster = Cluster()
    cluster.create()
    answer = cluster.controller.delete_topics([TopicToDelete("t", "of-another-topic-here")], 30_000)
    assert cluster.wait(answer)[0].error is ErrorCode.UNKNOWN_TOPIC_ID
    assert cluster.zk.data("/admin/delete_topics/t") is None


def test_what_somebody_put_below_a_topic_s_znodes_is_deleted_with_it() -> None:
    """As Kafka does. The failed deletion would make each controller in turn give up its office."""
    cluster = Cluster(brokers=1)
    result = cluster.create(factor=1)
    for path in ("notes", "notes/old", "partitions/0/mine", "partitions/0/mine/deep"):
        cluster.zk.write(Create(f"/brokers/topics/t/{path}", b""))
    cluster.subscribe(1)
    answer = cluster.controller.delete_topics([TopicToDelete("t", None)], 30_000)
    cluster.turns(0.2)
    cluster.controller.replica_deleted(1, cluster.epoch(1), T0, result.topic_id)
    assert cluster.wait(answer)[0].error is ErrorCode.NONE
    assert cluster.zk.data("/brokers/topics/t") is None
    assert [line for line in cluster.lines if "resigned" in line] == []


def test_one_request_creates_a_bounded_number_of_partitions() -> None:
    """A million would be planned until the watchdog ends the controller, and then the next one."""
    cluster = Cluster()
    cluster.create()
    assert cluster.create("u", PARTITIONS_CREATED_MAX + 1, 1).error is ErrorCode.POLICY_VIOLATION
    half = [NewTopic(name, PARTITIONS_CREATED_MAX // 2 + 1, 1) for name in ("v", "w")]
    results = cluster.wait(cluster.controller.create_topics(half, 30_000, True))
    assert [result.error for result in results] == [ErrorCode.POLICY_VIOLATION] * 2
    assert cluster.wait(cluster.controller.create_topics(half[:1], 30_000, True))[0].error is ErrorCode.NONE
    for total, error in ((2**31 - 1, ErrorCode.POLICY_VIOLATION), (PARTITIONS_CREATED_MAX + 1, ErrorCode.NONE)):
        more = [PartitionsToAdd("t", total)]
        assert cluster.wait(cluster.controller.create_partitions(more, 30_000, True))[0].error is error


def test_partitions_are_added() -> None:
    cluster = Cluster()
    cluster.create()
    [result] = cluster.wait(cluster.controller.create_partitions([PartitionsToAdd("t", 3)], 30_000, False))
    assert result.error is ErrorCode.NONE
    assert cluster.state(TopicPartition("t", 2)) is not None
    [again] = cluster.wait(cluster.controller.create_partitions([PartitionsToAdd("t", 3)], 30_000, False))
    assert (again.error, again.message) == (ErrorCode.INVALID_PARTITIONS, "Topic already has 3 partitions.")


def test_the_topic_of_groups_keeps_its_partitions() -> None:
    cluster = Cluster()
    cluster.create("__consumer_offsets")
    more = [PartitionsToAdd("__consumer_offsets", 3)]
    [result] = cluster.wait(cluster.controller.create_partitions(more, 30_000, False))
    assert (result.error, result.message) == (
        ErrorCode.INVALID_PARTITIONS,
        "The number of partitions of '__consumer_offsets' cannot be changed.",
    )
    assert cluster.state(TopicPartition("__consumer_offsets", 2)) is None


def test_requests_are_refused_with_kafkas_errors() -> None:
    cluster = Cluster()
    cluster.create("a.b")
    wanted = [
        (NewTopic("a.b", 1, 1), ErrorCode.TOPIC_ALREADY_EXISTS, "Topic 'a.b' already exists."),
        (
            NewTopic("a_b", 1, 1),
            ErrorCode.INVALID_TOPIC_EXCEPTION,
            "Topic 'a_b' collides with existing topics: a.b",
        ),
        (
            NewTopic("u", 1, 4),
            ErrorCode.INVALID_REPLICATION_FACTOR,
            "Replication factor: 4 larger than available brokers: 3.",
        ),
        (NewTopic("u", 0, 1), ErrorCode.INVALID_PARTITIONS, "Number of partitions must be larger than 0."),
        (
            NewTopic("u", assignment=((0, (1, 9)),)),
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "Unknown broker(s) in replica assignment: 9.",
        ),
    ]
    for topic, error, message in wanted:
        [result] = cluster.wait(cluster.controller.create_topics([topic], 1000, False))
        assert (result.error, result.message) == (error, message)
    cluster.config_error = "Unknown topic config name: x"
    assert cluster.create("u").error is ErrorCode.INVALID_CONFIG
    [elsewhere] = cluster.wait(cluster.loops[2].create_topics([NewTopic("u")], 1000, False))
    assert elsewhere.error is ErrorCode.NOT_CONTROLLER


def test_a_topic_written_by_hand_gets_an_id_and_states() -> None:
    cluster = Cluster()
    subscriber = cluster.subscribe(1)
    cluster.zk.write(Create("/brokers/topics/t", b'{"version":1,"partitions":{"0":[2,1]}}'))
    cluster.turns()
    assert b'"topic_id"' in (cluster.zk.data("/brokers/topics/t") or b"")
    assert subscriber.states[T0].leader == 2
    cluster.zk.write(Create("/admin/delete_topics/t", b""))
    cluster.turns()
    assert T0 not in subscriber.states


def test_garbage_in_a_topic_is_left_alone_and_healed_when_it_is_mended() -> None:
    cluster = Cluster()
    subscriber = cluster.subscribe(1)
    cluster.zk.write(Create("/brokers/topics/t", b"rubbish"))
    cluster.turns()
    assert T0 not in subscriber.states
    assert sum("topic t is left alone" in line for line in cluster.lines) == 1
    cluster.zk.write(SetData("/brokers/topics/t", b'{"version":1,"partitions":{"0":[2,1]}}'))
    cluster.turns()
    assert subscriber.states[T0].leader == 2


def test_a_new_controller_names_the_topics_that_it_cannot_read() -> None:
    """Else brokers would take their folders for strays."""
    cluster = Cluster()
    cluster.create(assignment=((0, (2, 3)),), partitions=-1, factor=-1)
    cluster.zk.write(SetData("/brokers/topics/t", b"rubbish"))
    cluster.zk.write(Delete("/controller"))
    cluster.turns(3.0)
    subscriber = cluster.subscribe(2)
    assert subscriber.deltas[0].is_snapshot and subscriber.deltas[0].unreadable_topics == ("t",)


def test_garbage_in_a_state_takes_the_topic_out_not_the_office() -> None:
    cluster = Cluster()
    cluster.create(assignment=((0, (2, 3)),), partitions=-1, factor=-1)
    cluster.create("u", assignment=((0, (2, 3)),), partitions=-1, factor=-1)
    cluster.zk.write(SetData(state_znode.state_path("t", 0), b"rubbish"))
    cluster.kill(2)
    cluster.turns(3.0)
    state = cluster.state(TopicPartition("u", 0))
    assert state is not None and state.leader == 3
    assert cluster.wait(cluster.controller.create_topic(NewTopic("v", 1, 1))).error is ErrorCode.NONE
    assert cluster.zk.data(state_znode.state_path("t", 0)) == b"rubbish"


def test_unclean_election_switched_on_by_config_happens_at_once() -> None:
    cluster = Cluster()
    result = cluster.create(assignment=((0, (2, 3)),), partitions=-1, factor=-1)
    isr = ((2, cluster.epoch(2)),)
    request = AlterPartitionRequest(2, cluster.epoch(2), (IsrProposal("t", 0, result.topic_id, 1, 0, 0, isr),))
    cluster.wait(cluster.controller.alter_partition(request))
    cluster.kill(2)
    state = cluster.state()
    assert state is not None and (state.leader, state.isr) == (-1, (2,))
    config = config_znode.encode({"unclean.leader.election.enable": "true"})
    cluster.zk.write(
        SetData("/config/topics/t", config),
        Create("/config/changes/config_change_", config_znode.encode_change("topics", "t"), sequential=True),
    )
    cluster.turns()
    state = cluster.state()
    assert state is not None and (state.leader, state.isr, state.recovering) == (3, (3,), True)


def test_preferred_election_by_znode() -> None:
    cluster = Cluster()
    cluster.create(assignment=((0, (2, 3)),), partitions=-1, factor=-1)
    path = state_znode.state_path("t", 0)
    state = cluster.state()
    assert state is not None
    cluster.wait(cluster.controller.controlled_shutdown(2, cluster.epoch(2)))
    cluster.kill(2)
    cluster.up(2)
    rejoin = ((3, cluster.epoch(3)), (2, cluster.epoch(2)))
    topic_id = next(iter(cluster.subscribe(1).states.values())).topic_id
    now = cluster.state()
    assert now is not None and now.leader == 3
    request = AlterPartitionRequest(
        3,
        cluster.epoch(3),
        (IsrProposal("t", 0, topic_id, 1, now.leader_epoch, now.partition_epoch, rejoin),),
    )
    assert cluster.wait(cluster.controller.alter_partition(request)).answers[0].error is ErrorCode.NONE
    election = b'{"version":1,"partitions":[{"topic":"t","partition":0}]}'
    cluster.zk.write(Create("/admin/preferred_replica_election", election))
    cluster.turns()
    state = cluster.state()
    assert state is not None and state.leader == 2, path
    assert cluster.zk.data("/admin/preferred_replica_election") is None


def test_one_overtaken_state_does_not_hold_up_the_others_of_its_multi() -> None:
    cluster = Cluster()
    cluster.create(partitions=5, factor=3)
    data = cluster.zk.data(state_znode.state_path("t", 3)) or b""
    cluster.zk.write(SetData(state_znode.state_path("t", 3), data))  # its version moves on
    cluster.kill(3)
    for number in range(5):
        state = cluster.state(TopicPartition("t", number))
        assert state is not None and (3 not in state.isr, state.leader_epoch) == (True, 1)
        assert state.partition_epoch == (2 if number == 3 else 1)


def test_a_topic_that_raises_costs_the_office_once_and_is_quarantined_the_second_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decide = Settling._decide

    def poisoned(settling: Settling, partition: TopicPartition) -> Any:
        if partition.topic == "poison":
            raise InvariantViolation("poisoned")
        return decide(settling, partition)

    monkeypatch.setattr(Settling, "_decide", poisoned)
    cluster = Cluster(brokers=1)
    cluster.zk.write(Create("/brokers/topics/poison", b'{"version":1,"partitions":{"0":[1]}}'))
    cluster.turns(0.9)
    assert not cluster.loops[1].is_controller
    cluster.turns(0.8)  # stands again after 1 s, fails again, then waits 2 s
    assert not cluster.loops[1].is_controller
    cluster.turns(3.0)
    assert cluster.loops[1].is_controller
    assert cluster.create("good", factor=1).error is ErrorCode.NONE
    assert any("poison is quarantined" in line for line in cluster.controller.problems())


def test_a_request_that_takes_too_long_is_told_so_and_goes_on() -> None:
    cluster = Cluster()
    cluster.sessions[1].disconnect()
    cluster.turns(0.1)
    answer = cluster.controller.create_topics([NewTopic("t", 1, 1)], 200, False)
    [result] = cluster.wait(answer, 1.0)
    assert result.error is ErrorCode.REQUEST_TIMED_OUT
    cluster.sessions[1].reconnect()
    cluster.turns()
    assert cluster.state() is not None


def test_deletion_that_is_switched_off_is_refused_whatever_is_named() -> None:
    cluster = Cluster(settings=ControllerSettings(delete_topic_enable=False))
    cluster.create()
    wishes = [TopicToDelete("t", None), TopicToDelete("nowhere", None)]
    results = cluster.wait(cluster.controller.delete_topics(wishes, 1000))
    assert [result.error for result in results] == [ErrorCode.TOPIC_DELETION_DISABLED] * 2
    assert cluster.zk.data("/brokers/topics/t") is not None


def test_validate_only_writes_nothing() -> None:
    cluster = Cluster()
    [result] = cluster.wait(cluster.controller.create_topics([NewTopic("t", 4, 2)], 1000, True))
    assert (result.error, result.partitions, result.replication_factor) == (ErrorCode.NONE, 4, 2)
    assert cluster.zk.data("/brokers/topics/t") is None


def test_an_unfinished_reassignment_of_kafkas_is_shown_and_goes_on() -> None:
    cluster = Cluster(2)
    znode = b'{"version":3,"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","partitions":{"0":[3,1,2]},'
    znode += b'"adding_replicas":{"0":[3]},"removing_replicas":{"0":[2]}}'
    cluster.zk.write(Create("/brokers/topics/t", znode))
    cluster.zk.write(Create("/admin/reassign_partitions", b'{"version":1,"partitions":[]}'))
    cluster.turns()
    state = cluster.subscribe(1).states[T0]
    assert (state.replicas, state.adding, state.removing) == ((3, 1, 2), (3,), (2,))
    assert cluster.zk.data("/admin/reassign_partitions") is None, "nothing is left to do in it"
    cluster.zk.write(Create("/admin/delete_topics/t", b""))
    cluster.turns()
    assert T0 in cluster.subscribe(2).states


@pytest.mark.parametrize("found_while", ["reading", "writing"])
def test_a_state_that_does_not_decode_costs_its_topic_only_until_it_is_repaired(found_while: str) -> None:
    cluster = Cluster()
    cluster.create(assignment=((0, (1, 2, 3)),), partitions=-1, factor=-1)
    cluster.create("other", assignment=((0, (3, 1, 2)),), partitions=-1, factor=-1)
    path = state_znode.state_path("t", 0)
    good = cluster.zk.data(path)
    assert good is not None
    cluster.zk.write(SetData(path, b"\xff\xfe"))
    epoch = cluster.controller.controller_epoch
    if found_while == "reading":
        cluster.zk.write(Delete("/controller"))
        cluster.turns(1.0)
        epoch += 1
    kept = cluster.controller
    cluster.kill(3 if kept is not cluster.loops[3] else 2)
    cluster.turns(1.0)
    assert (cluster.controller, kept.controller_epoch) == (kept, epoch)  # nobody had to resign over it
    other = cluster.state(TopicPartition("other", 0))
    assert other is not None and other.leader_epoch == 1
    assert cluster.zk.data(path) == b"\xff\xfe"
    assert sum("topic t is left alone" in line for line in cluster.lines) == 1
    subscriber = cluster.subscribe(1)
    assert subscriber.deltas[0].unreadable_topics == ("t",)

    cluster.zk.write(SetData(path, good))
    cluster.turns(1.0)
    state = subscriber.states[T0]
    assert (state.leader_epoch, len(state.isr)) == (1, 2)  # the dead broker leaves it, as everywhere
    assert not any("left alone" in line for line in kept.problems())


def test_a_leader_that_restarted_while_its_topic_did_not_decode_leads_in_a_new_epoch() -> None:
    cluster = Cluster()
    cluster.create(assignment=((0, (2, 3)),), partitions=-1, factor=-1)
    good = cluster.zk.data("/brokers/topics/t")
    assert good is not None
    cluster.zk.write(SetData("/brokers/topics/t", b"["), Delete("/controller"))
    cluster.turns(1.0)
    cluster.kill(2)
    cluster.up(2)
    cluster.turns(1.0)
    state = cluster.state()
    assert state is not None and (state.leader, state.leader_epoch) == (2, 0)
    cluster.zk.write(SetData("/brokers/topics/t", good))
    cluster.turns(1.0)
    state = cluster.state()
    assert state is not None and (state.leader, state.leader_epoch, state.isr) == (3, 1, (3,))

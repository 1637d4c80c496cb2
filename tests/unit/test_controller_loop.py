"""The controller's office: who wins it, what its holder decides, how it is given up. See ``controller_cluster``."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.unit.controller_cluster import T0, Cluster, FakeSubscriber
from zkbroker.broker.controller_loop import ControllerLoop
from zkbroker.kafka.ports import PartitionsToAdd
from zkbroker.model.channel import AlterPartitionRequest, Applied, IsrProposal, NewTopic
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.zookeeper.client import Create, Delete, SetData
from zkbroker.zookeeper.znodes import brokers as broker_znode


def test_one_of_three_wins_the_office_and_everybody_is_told() -> None:
    cluster = Cluster()
    assert cluster.controller_id == 1
    assert cluster.zk.data("/controller_epoch") == b"1"
    assert {(2, 1, 1), (3, 1, 1), (1, 1, 1)} <= set(cluster.told)


def test_a_dead_leader_is_replaced_and_its_return_is_told() -> None:
    cluster = Cluster()
    cluster.create(assignment=((0, (2, 3, 1)),), partitions=-1, factor=-1)
    subscriber = cluster.subscribe(3)
    cluster.kill(2)
    state = cluster.state()
    assert state is not None and (state.leader, state.isr, state.leader_epoch) == (3, (3, 1), 1)
    assert subscriber.states[T0].leader == 3
    assert [delta.removed_brokers for delta in subscriber.deltas if delta.removed_brokers] == [(2,)]
    cluster.up(2)
    assert subscriber.deltas[-1].brokers[0].broker_id == 2


def test_the_next_controller_takes_over_with_a_higher_epoch() -> None:
    cluster = Cluster()
    cluster.create(assignment=((0, (1, 2, 3)),), partitions=-1, factor=-1)
    cluster.kill(1)
    assert cluster.controller_id in (2, 3)
    assert cluster.zk.data("/controller_epoch") == b"2"
    state = cluster.state()
    assert state is not None and (state.leader, state.isr, state.controller_epoch) == (2, (2, 3), 2)


def test_an_isr_change_is_written_answered_and_told() -> None:
    cluster = Cluster()
    result = cluster.create(assignment=((0, (1, 2, 3)),), partitions=-1, factor=-1)
    subscriber = cluster.subscribe(2)
    isr = ((1, cluster.epoch(1)), (2, cluster.epoch(2)))
    request = AlterPartitionRequest(1, cluster.epoch(1), (IsrProposal("t", 0, result.topic_id, 7, 0, 0, isr),))
    response = cluster.wait(cluster.controller.alter_partition(request))
    assert response.error is ErrorCode.NONE
    [answer] = response.answers
    assert (answer.error, answer.proposal_id, answer.state.isr, answer.state.partition_epoch) == (0, 7, (1, 2), 1)
    state = cluster.state()
    assert state is not None and (state.isr, state.leader_epoch) == ((1, 2), 0)
    assert subscriber.states[T0].isr == (1, 2)


def test_a_lost_answer_of_a_state_write_is_read_again_not_repeated() -> None:
    cluster = Cluster()
    cluster.create(assignment=((0, (2, 3)),), partitions=-1, factor=-1)
    cluster.sessions[1].disconnect()
    session = cluster.sessions.pop(2)
    del cluster.loops[2]
    session_id = session.session_id
    session.kill()
    cluster.zk.expire(session_id)
    cluster.turns(0.1)
    cluster.sessions[1].reconnect()
    cluster.turns()
    state = cluster.state()
    assert cluster.controller_id == 1
    assert state is not None and (state.leader, state.isr, state.leader_epoch, state.partition_epoch) == (3, (3,), 1, 1)


@pytest.mark.parametrize("lose", ["lose_next_reply", "lose_next_request"])
def test_an_isr_change_whose_answer_is_lost_is_answered_in_the_end(lose: str) -> None:
    cluster = Cluster()
    result = cluster.create(assignment=((0, (1, 2, 3)),), partitions=-1, factor=-1)
    isr = ((1, cluster.epoch(1)), (2, cluster.epoch(2)))
    request = AlterPartitionRequest(1, cluster.epoch(1), (IsrProposal("t", 0, result.topic_id, 1, 0, 0, isr),))
    getattr(cluster.sessions[1], lose)()
    response = cluster.wait(cluster.controller.alter_partition(request), 10.0)
    assert [answer.error for answer in response.answers] == [ErrorCode.NONE]
    state = cluster.state()
    assert state is not None and (state.isr, state.partition_epoch) == ((1, 2), 1)


def test_a_deposed_controller_writes_nothing_more() -> None:
    cluster = Cluster()
    cluster.create(assignment=((0, (2, 3)),), partitions=-1, factor=-1)
    subscriber = cluster.subscribe(3)
    cluster.zk.write(SetData("/controller_epoch", b"9"))
    cluster.kill(2)
    assert subscriber.closed is not None
    assert int(cluster.zk.data("/controller_epoch") or b"") >= 10
    state = cluster.state()
    assert state is not None and (state.leader, state.controller_epoch >= 10) == (3, True)


def test_deleting_the_controller_znode_moves_the_office() -> None:
    cluster = Cluster()
    cluster.zk.write(Delete("/controller"))
    cluster.turns()
    assert cluster.zk.data("/controller_epoch") == b"2"
    assert len([loop for loop in cluster.loops.values() if loop.is_controller]) == 1


def test_an_expired_session_ends_the_term_and_another_stands() -> None:
    cluster = Cluster()
    cluster.sessions[1].disconnect()
    cluster.turns(7.0)
    assert not cluster.loops[1].is_controller
    assert cluster.controller_id in (2, 3)


def test_a_paused_controller_resigns_by_its_own_timer() -> None:
    cluster = Cluster()
    cluster.zk.stop()
    cluster.turns(7.0)
    assert not any(loop.is_controller for loop in cluster.loops.values())
    with pytest.raises(BrokerError) as caught:
        cluster.loops[1].heartbeat(2, 1, 0.0)
    assert caught.value.error is ErrorCode.NOT_CONTROLLER


def test_who_resigned_by_its_timer_stands_again_though_session_and_connection_lived_on() -> None:
    cluster = Cluster()
    cluster.turns(0.9)
    cluster.sessions[1].pause()
    cluster.turns(5.9)
    assert not cluster.loops[1].is_controller
    cluster.sessions[1].resume()
    cluster.turns(1.0)
    assert cluster.sessions[1].is_connected
    assert cluster.controller_id in (1, 2, 3)
    assert cluster.zk.data("/controller_epoch") == b"2"


def test_stop_hands_the_office_over_at_once() -> None:
    cluster = Cluster()
    subscriber = cluster.subscribe(2)
    cluster.wait(cluster.loops[1].stop())
    cluster.turns(0.2)
    assert subscriber.closed == "the controller is shutting down"
    assert cluster.controller_id in (2, 3)


def test_an_own_stale_office_is_deleted_and_won_again() -> None:
    cluster = Cluster(brokers=1)
    session = cluster.sessions[1]
    session.kill()
    del cluster.loops[1]
    cluster.zk.write(Delete(broker_znode.broker_path(1)))
    cluster.up(1)
    cluster.turns()
    assert cluster.loops[1].is_controller
    assert cluster.zk.data("/controller_epoch") == b"2"


def test_subscribing_waits_for_the_registration_and_refuses_an_old_one() -> None:
    cluster = Cluster()
    old = FakeSubscriber(2, cluster.epoch(2) - 1)
    with pytest.raises(BrokerError) as caught:
        cluster.wait(cluster.controller.subscribe(old))
    assert caught.value.error is ErrorCode.STALE_BROKER_EPOCH
    early = FakeSubscriber(4, 10**6)
    waiting = cluster.controller.subscribe(early)
    results: list[Any] = []
    waiting.addBoth(results.append)
    cluster.turns()
    assert results == [] and early.deltas == []
    cluster.wait(cluster.controller.stop())
    assert results[0].value.error is ErrorCode.NOT_CONTROLLER


def test_a_receipt_that_names_a_failed_replica_moves_its_leader() -> None:
    cluster = Cluster()
    cluster.create(assignment=((0, (2, 3)),), partitions=-1, factor=-1)
    cluster.subscribe(2)
    receipt = Applied(1, 1, ((T0, "folder is offline"),))
    cluster.controller.applied(2, cluster.epoch(2), receipt)
    cluster.turns(0.2)
    state = cluster.state()
    assert state is not None and (state.leader, state.isr) == (3, (3,))


def test_a_log_dir_event_makes_the_broker_tell_everything_again() -> None:
    cluster = Cluster()
    subscriber = cluster.subscribe(2)
    event = b'{"version":1,"broker":2,"event":1}'
    cluster.zk.write(Create("/log_dir_event_notification/log_dir_event_", event, sequential=True))
    cluster.turns()
    assert [delta.is_snapshot for delta in subscriber.deltas] == [True, True]
    assert cluster.zk.children("/log_dir_event_notification") == []


def test_news_of_one_turn_are_one_delta() -> None:
    cluster = Cluster()
    cluster.create(partitions=300)
    subscriber = cluster.subscribe(1)
    cluster.kill(3)
    changed = [delta for delta in subscriber.deltas if delta.partitions and not delta.is_snapshot]
    assert sum(len(delta.partitions) for delta in changed) == 300
    assert len(changed) <= 3


def test_a_registration_deleted_by_hand_is_a_death_and_a_new_one_a_return() -> None:
    cluster = Cluster()
    cluster.create(assignment=((0, (2, 3)),), partitions=-1, factor=-1)
    subscriber = cluster.subscribe(2)
    cluster.zk.write(Delete(broker_znode.broker_path(2)))
    cluster.turns()
    assert subscriber.closed == "the registration of this broker is gone"
    state = cluster.state()
    assert state is not None and state.leader == 3
    cluster.register(2)
    cluster.turns()
    assert cluster.subscribe(2).states[T0].leader == 3


def still_reading(cluster: Cluster) -> ControllerLoop:
    """The controller that follows a deleted one, in the moment between its election and having read the cluster."""
    cluster.zk.write(Delete("/controller"))
    cluster.reactor.advance(0.002)
    for _ in range(500):
        won = [loop for loop in cluster.loops.values() if loop.is_controller and loop.controller_epoch == 2]
        if won:
            return won[0]
        cluster.reactor.advance(0.0005)
    raise AssertionError("nobody was elected")


def test_requests_wait_for_a_controller_that_still_reads_the_cluster() -> None:
    """As in Kafka's event queue: a refusal would cost the client, or an ISR change, a round of retries."""
    cluster = Cluster()
    old = cluster.create(assignment=((0, (1, 2, 3)),), partitions=-1, factor=-1)
    loop = still_reading(cluster)
    isr = ((1, cluster.epoch(1)), (2, cluster.epoch(2)))
    request = AlterPartitionRequest(1, cluster.epoch(1), (IsrProposal("t", 0, old.topic_id, 7, 0, 0, isr),))
    asked: list[Deferred[Any]] = [
        loop.alter_partition(request),
        loop.create_topics([NewTopic("new", 1, 3)], 30_000, False),
        loop.create_partitions([PartitionsToAdd("t", 2)], 30_000, False),
        loop.controlled_shutdown(3, cluster.epoch(3)),
    ]
    assert not any(deferred.called for deferred in asked)
    changed, [created], [added], remaining = [cluster.wait(deferred) for deferred in asked]
    assert [answer.error for answer in changed.answers] == [ErrorCode.NONE]
    assert (created.error, added.error, remaining) == (ErrorCode.NONE, ErrorCode.NONE, ())


def test_requests_that_wait_are_refused_when_the_term_ends_before_it_has_read() -> None:
    cluster = Cluster()
    loop = still_reading(cluster)
    created = loop.create_topics([NewTopic("new", 1, 3)], 30_000, False)
    shutdown = loop.controlled_shutdown(3, cluster.epoch(3))
    stopped = loop.stop()
    assert cluster.wait(created)[0].error is ErrorCode.NOT_CONTROLLER
    with pytest.raises(BrokerError) as caught:
        cluster.wait(shutdown)
    assert caught.value.error is ErrorCode.NOT_CONTROLLER
    cluster.wait(stopped)

"""The controller loop against the fake ensemble: offices won and lost, fenced writes, deltas, admin requests."""

from __future__ import annotations

import random
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock as Reactor

from tests.fakes.zookeeper import FakeSession, FakeZooKeeper
from zkbroker.broker.controller_loop import ControllerLoop
from zkbroker.broker.controller_settings import ControllerSettings
from zkbroker.controller.controller import Controller
from zkbroker.kafka.ports import PartitionsToAdd, TopicToDelete
from zkbroker.model.channel import AlterPartitionRequest, Applied, IsrProposal, NewTopic
from zkbroker.model.cluster import BrokerRegistration, ClusterDelta, Endpoint
from zkbroker.model.errors import BrokerError, ErrorCode, InvariantViolation
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.zookeeper.client import Create, Delete, SetData
from zkbroker.zookeeper.znodes import brokers as broker_znode
from zkbroker.zookeeper.znodes import config as config_znode
from zkbroker.zookeeper.znodes import states as state_znode

T0 = TopicPartition("t", 0)


class Clocks:
    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor

    def monotonic(self) -> float:
        return float(self._reactor.seconds())

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + int(self._reactor.seconds() * 1000)


class FakeSubscriber:
    def __init__(self, broker_id: int, broker_epoch: int) -> None:
        self.broker_id = broker_id
        self.broker_epoch = broker_epoch
        self.deltas: list[ClusterDelta] = []
        self.closed: str | None = None

    def push(self, delta: ClusterDelta) -> None:
        self.deltas.append(delta)

    def close(self, reason: str) -> None:
        self.closed = reason

    @property
    def states(self) -> dict[TopicPartition, PartitionState]:
        """What the broker believes after all it was told."""
        known: dict[TopicPartition, PartitionState] = {}
        for delta in self.deltas:
            if delta.is_snapshot:
                known = {}
            for topic, topic_id in delta.deleted_topics:
                known = {tp: state for tp, state in known.items() if (tp.topic, state.topic_id) != (topic, topic_id)}
            known.update(delta.partitions)
        return known


class Cluster:
    """Brokers that consist of a registration and a controller loop."""

    def __init__(self, brokers: int = 3, *, settings: ControllerSettings | None = None) -> None:
        self.reactor = Reactor()
        self.clock = Clocks(self.reactor)
        self.zk = FakeZooKeeper(self.reactor, self.clock, latency=0.001)
        self.settings = settings or ControllerSettings()
        self.sessions: dict[int, FakeSession] = {}
        self.loops: dict[int, ControllerLoop] = {}
        self.told: list[tuple[int, int, int]] = []
        self.lines: list[str] = []
        self.config_error: str | None = None
        for broker_id in range(1, brokers + 1):
            self.up(broker_id)

    def up(self, broker_id: int) -> None:
        session = self.zk.session(session_timeout_s=6.0, name=str(broker_id))
        session.start()
        self.sessions[broker_id] = session
        loop = ControllerLoop(
            broker_id=broker_id,
            zk=session,
            clock=self.clock,
            reactor=self.reactor,
            random=random.Random(broker_id),
            settings=self.settings,
            broker_epoch=lambda: self.epoch(broker_id),
            topic_overrides_error=lambda config: self.config_error,
            controller_changed=lambda holder, epoch: self.told.append((broker_id, holder, epoch)),
            log=lambda line: self.lines.append(f"[{broker_id}] {line}"),
        )
        self.loops[broker_id] = loop
        self.turns()
        loop.start()
        self.register(broker_id)
        loop.registered()
        self.turns()

    def register(self, broker_id: int) -> None:
        registration = BrokerRegistration(
            broker_id,
            0,
            (Endpoint("PLAINTEXT", f"h{broker_id}", 9092), Endpoint("REPLICATION", f"h{broker_id}", 9093)),
            (("PLAINTEXT", "PLAINTEXT"), ("REPLICATION", "PLAINTEXT")),
        )
        data = broker_znode.encode(registration, timestamp_ms=1)
        path = broker_znode.broker_path(broker_id)
        self.wait(self.sessions[broker_id].create(path, data, ephemeral=True, make_parents=True))

    def epoch(self, broker_id: int) -> int:
        stat = self.zk.stat(broker_znode.broker_path(broker_id))
        return -1 if stat is None else stat.czxid

    def kill(self, broker_id: int) -> None:
        """kill -9; its session ends some time later."""
        session = self.sessions.pop(broker_id)
        del self.loops[broker_id]
        session_id = session.session_id
        session.kill()
        self.zk.expire(session_id)
        self.turns()

    def turns(self, seconds: float = 0.5) -> None:
        for _ in range(int(seconds / 0.005)):
            self.reactor.advance(0.005)

    def wait(self, deferred: Deferred[Any], seconds: float = 5.0) -> Any:
        results: list[Any] = []
        deferred.addBoth(results.append)
        passed = 0.0
        while not results and passed < seconds:
            self.reactor.advance(0.005)
            passed += 0.005
        assert results, "no answer in time"
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        return results[0]

    @property
    def controller(self) -> ControllerLoop:
        [loop] = [loop for loop in self.loops.values() if loop.is_controller]
        return loop

    @property
    def controller_id(self) -> int:
        [broker_id] = [broker_id for broker_id, loop in self.loops.items() if loop.is_controller]
        return broker_id

    def subscribe(self, broker_id: int) -> FakeSubscriber:
        subscriber = FakeSubscriber(broker_id, self.epoch(broker_id))
        self.wait(self.controller.subscribe(subscriber))
        return subscriber

    def create(self, name: str = "t", partitions: int = 1, factor: int = 3, **topic: Any) -> Any:
        new = NewTopic(name, partitions, factor, **topic)
        return self.wait(self.controller.create_topics([new], 30_000, False))[0]

    def state(self, partition: TopicPartition = T0) -> state_znode.LeaderAndIsr | None:
        path = state_znode.state_path(*partition)
        data, stat = self.zk.data(path), self.zk.stat(path)
        return None if data is None or stat is None else state_znode.decode(path, data, stat.version)


def test_one_of_three_wins_the_office_and_everybody_is_told() -> None:
    cluster = Cluster()
    assert cluster.controller_id == 1
    assert cluster.zk.data("/controller_epoch") == b"1"
    assert {(2, 1, 1), (3, 1, 1), (1, 1, 1)} <= set(cluster.told)


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


def test_partitions_are_added() -> None:
    cluster = Cluster()
    cluster.create()
    [result] = cluster.wait(cluster.controller.create_partitions([PartitionsToAdd("t", 3)], 30_000, False))
    assert result.error is ErrorCode.NONE
    assert cluster.state(TopicPartition("t", 2)) is not None
    [again] = cluster.wait(cluster.controller.create_partitions([PartitionsToAdd("t", 3)], 30_000, False))
    assert (again.error, again.message) == (ErrorCode.INVALID_PARTITIONS, "Topic already has 3 partitions.")


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
    decide = Controller._decide

    def poisoned(controller: Controller, partition: TopicPartition) -> Any:
        if partition.topic == "poison":
            raise InvariantViolation("poisoned")
        return decide(controller, partition)

    monkeypatch.setattr(Controller, "_decide", poisoned)
    cluster = Cluster(brokers=1)
    cluster.zk.write(Create("/brokers/topics/poison", b'{"version":1,"partitions":{"0":[1]}}'))
    cluster.turns(0.9)
    assert not cluster.loops[1].is_controller
    cluster.turns(0.8)  # stands again after 1 s, fails again, then waits 2 s
    assert not cluster.loops[1].is_controller
    cluster.turns(3.0)
    assert cluster.loops[1].is_controller
    assert cluster.create("good", factor=1).error is ErrorCode.NONE
    assert any("poison is quarantined" in line for line in cluster.controller.status_lines())


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


def test_validate_only_writes_nothing() -> None:
    cluster = Cluster()
    [result] = cluster.wait(cluster.controller.create_topics([NewTopic("t", 4, 2)], 1000, True))
    assert (result.error, result.partitions, result.replication_factor) == (ErrorCode.NONE, 4, 2)
    assert cluster.zk.data("/brokers/topics/t") is None


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


def test_an_unfinished_reassignment_of_kafkas_is_kept_and_shown() -> None:
    cluster = Cluster()
    znode = b'{"version":3,"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","partitions":{"0":[3,1,2]},'
    znode += b'"adding_replicas":{"0":[3]},"removing_replicas":{"0":[2]}}'
    cluster.zk.write(Create("/brokers/topics/t", znode))
    cluster.zk.write(Create("/admin/reassign_partitions", b'{"version":1,"partitions":[]}'))
    cluster.turns()
    state = cluster.subscribe(1).states[T0]
    assert (state.replicas, state.adding, state.removing) == ((3, 1, 2), (3,), (2,))
    assert cluster.zk.data("/admin/reassign_partitions") is not None
    cluster.zk.write(Create("/admin/delete_topics/t", b""))
    cluster.turns()
    assert T0 in cluster.subscribe(2).states

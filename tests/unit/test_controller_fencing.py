"""The controller fences a condemned broker, and a dead controller's office is taken: against the fake ensemble."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from tests.unit.controller_cluster import T0, Cluster
from zkbroker.broker.controller_settings import ControllerSettings
from zkbroker.controller.suspicion import Condemned
from zkbroker.model.suspicion import Suspect
from zkbroker.model.topics import TopicPartition
from zkbroker.zookeeper.client import Delete, SetData
from zkbroker.zookeeper.znodes import brokers as broker_znode
from zkbroker.zookeeper.znodes import states as state_znode

REASON = "broker 2 refused connections, 2 of 2 peers agree"


def verdict(cluster: Cluster, broker_id: int = 2, *, is_certain: bool = False, reason: str = REASON) -> Condemned:
    return Condemned(Suspect(broker_id, cluster.epoch(broker_id), "anywhere"), reason, is_certain)


def two_of_three() -> Cluster:
    """acks=all needs two replicas."""
    return Cluster(settings=ControllerSettings(min_insync_replicas=2))


def registered(cluster: Cluster, broker_id: int) -> bool:
    return cluster.zk.stat(broker_znode.broker_path(broker_id)) is not None


def led(cluster: Cluster, partition: TopicPartition = T0) -> tuple[int, tuple[int, ...], int]:
    state = cluster.state(partition)
    assert state is not None
    return state.leader, state.isr, state.leader_epoch


def test_a_condemned_leader_loses_registration_and_leaderships_at_once() -> None:
    cluster = two_of_three()
    cluster.create(assignment=((0, (2, 3, 1)), (1, (1, 2, 3))), partitions=-1, factor=-1)
    subscriber = cluster.subscribe(3)
    cluster.controller.condemned(verdict(cluster))
    cluster.turns(0.1)
    assert not registered(cluster, 2)
    assert led(cluster) == (3, (3, 1), 1)
    assert led(cluster, TopicPartition("t", 1)) == (1, (1, 3), 1)
    state = cluster.state()
    assert state is not None and state.reason == REASON
    assert subscriber.states[T0].leader == 3
    assert [delta.removed_brokers for delta in subscriber.deltas if delta.removed_brokers] == [(2,)]


def test_it_is_one_write_with_the_states() -> None:
    cluster = two_of_three()
    cluster.create(assignment=((0, (2, 3, 1)),), partitions=-1, factor=-1)
    cluster.controller.condemned(verdict(cluster))
    while registered(cluster, 2):
        assert led(cluster)[0] == 2
        cluster.reactor.advance(0.0005)
    assert led(cluster)[0] == 3


def test_what_it_would_make_worse_waits_for_the_end_of_the_session() -> None:
    cluster = two_of_three()
    cluster.create("t", assignment=((0, (2, 3, 1)),), partitions=-1, factor=-1)
    cluster.create("alone", assignment=((0, (2,)),), partitions=-1, factor=-1)
    cluster.create("pair", assignment=((0, (2, 3)),), partitions=-1, factor=-1)
    alone, pair = TopicPartition("alone", 0), TopicPartition("pair", 0)
    cluster.controller.condemned(verdict(cluster))
    cluster.turns(3.0)
    assert led(cluster)[0] == 3
    assert led(cluster, alone) == (2, (2,), 0)
    assert led(cluster, pair) == (2, (2, 3), 0)
    cluster.turns(4.0)  # the session timeout of 6 s is over
    assert led(cluster, alone)[0] == -1
    assert led(cluster, pair) == (3, (3,), 1)


def test_nothing_to_gain_nothing_fenced() -> None:
    cluster = two_of_three()
    cluster.create("pair", assignment=((0, (2, 3)),), partitions=-1, factor=-1)
    cluster.controller.condemned(verdict(cluster))
    cluster.turns(1.0)
    assert registered(cluster, 2)
    assert led(cluster, TopicPartition("pair", 0)) == (2, (2, 3), 0)


def test_an_unclean_election_is_never_held_early() -> None:
    cluster = Cluster(settings=ControllerSettings(unclean_leader_election_enable=True))
    cluster.create(assignment=((0, (2, 3)), (1, (2, 1))), partitions=-1, factor=-1)
    path = state_znode.state_path("t", 0)
    state = cluster.state()
    assert state is not None
    cluster.zk.write(SetData(path, state_znode.encode(state._replace(isr=(2,)))))
    cluster.zk.write(Delete("/controller"))  # whoever takes the office reads it
    cluster.turns()
    cluster.controller.condemned(verdict(cluster))
    cluster.turns(1.0)
    assert not registered(cluster, 2)
    assert led(cluster, TopicPartition("t", 1))[0] == 1
    assert led(cluster)[:2] == (2, (2,))
    cluster.turns(6.0)
    assert led(cluster)[:2] == (3, (3,))


def test_whoever_is_proven_dead_is_settled_at_once_as_after_its_session() -> None:
    cluster = two_of_three()
    cluster.create("alone", assignment=((0, (2,)),), partitions=-1, factor=-1)
    cluster.controller.condemned(verdict(cluster, is_certain=True, reason="broker 2 said BYE"))
    cluster.turns(0.1)
    assert not registered(cluster, 2)
    assert led(cluster, TopicPartition("alone", 0))[0] == -1


@pytest.mark.parametrize("lose", ["lose_next_reply", "lose_next_request"])
def test_a_fence_whose_answer_is_lost_is_read_again(lose: str) -> None:
    cluster = two_of_three()
    cluster.create(assignment=((0, (2, 3, 1)),), partitions=-1, factor=-1)
    cluster.controller.condemned(verdict(cluster))
    cluster.turns(0.005)  # the look at the registration is answered
    getattr(cluster.sessions[1], lose)()
    cluster.turns(3.0)
    if registered(cluster, 2):  # nothing was written: the next word of the evidence fences
        assert led(cluster) == (2, (2, 3, 1), 0)
        cluster.controller.condemned(verdict(cluster))
        cluster.turns(0.5)
    assert not registered(cluster, 2)
    assert led(cluster) == (3, (3, 1), 1)


def test_a_registration_that_went_meanwhile_is_as_good_as_fenced() -> None:
    cluster = two_of_three()
    cluster.create(assignment=((0, (2, 3, 1)),), partitions=-1, factor=-1)
    condemned = verdict(cluster)
    cluster.zk.write(Delete(broker_znode.broker_path(2)))
    cluster.controller.condemned(condemned)
    cluster.turns(0.2)
    assert led(cluster) == (3, (3, 1), 1)


def test_a_state_that_changed_meanwhile_does_not_keep_the_others_from_moving() -> None:
    cluster = two_of_three()
    cluster.create(assignment=((0, (2, 3, 1)), (1, (2, 1, 3))), partitions=-1, factor=-1)
    path = state_znode.state_path("t", 1)
    cluster.zk.write(SetData(path, cluster.zk.data(path) or b""))
    cluster.controller.condemned(verdict(cluster))
    cluster.turns(0.5)
    assert not registered(cluster, 2)
    assert led(cluster)[0] == 3
    assert led(cluster, TopicPartition("t", 1))[:2] == (1, (1, 3))


def test_more_than_a_hundred_partitions() -> None:
    cluster = two_of_three()
    cluster.create(assignment=tuple((number, (2, 3, 1)) for number in range(250)), partitions=-1, factor=-1)
    cluster.turns(1.0)
    cluster.controller.condemned(verdict(cluster))
    cluster.turns(0.5)
    assert {led(cluster, TopicPartition("t", number))[0] for number in range(250)} == {3}


def test_a_deposed_controller_fences_nobody() -> None:
    cluster = two_of_three()
    cluster.create(assignment=((0, (2, 3, 1)),), partitions=-1, factor=-1)
    cluster.zk.write(SetData("/controller_epoch", b"9"))
    cluster.controller.condemned(verdict(cluster))
    cluster.turns(0.5)
    assert registered(cluster, 2)
    assert led(cluster)[:2] == (2, (2, 3, 1))
    assert cluster.controller.controller_epoch == 10
    assert any("resigned as controller: /controller_epoch moved on" in line for line in cluster.lines)


def test_an_old_epoch_is_not_fenced_and_the_fenced_one_comes_back() -> None:
    cluster = two_of_three()
    cluster.create(assignment=((0, (2, 3, 1)),), partitions=-1, factor=-1)
    first = verdict(cluster)
    cluster.controller.condemned(first)
    cluster.turns(0.2)
    cluster.register(2)
    cluster.turns(0.2)
    subscriber = cluster.subscribe(2)
    assert subscriber.states[T0].leader == 3
    cluster.controller.condemned(first)
    cluster.turns(0.2)
    assert registered(cluster, 2)


def test_a_broker_that_comes_back_before_its_hold_ends_does_not_resume_what_was_held() -> None:
    cluster = two_of_three()
    cluster.create("t", assignment=((0, (2, 3, 1)),), partitions=-1, factor=-1)
    cluster.create("alone", assignment=((0, (2,)),), partitions=-1, factor=-1)
    cluster.controller.condemned(verdict(cluster))
    cluster.turns(0.2)
    cluster.register(2)
    cluster.turns(0.5)
    subscriber = cluster.subscribe(2)
    state = subscriber.states[TopicPartition("alone", 0)]
    assert (state.leader, state.leader_epoch) == (2, 2)
    assert led(cluster)[0] == 3


def test_the_office_of_a_dead_controller_is_taken_and_its_broker_fenced_in_the_first_turn() -> None:
    cluster = two_of_three()
    cluster.create(assignment=((0, (1, 2, 3)),), partitions=-1, factor=-1)
    dead = verdict(cluster, 1, reason="broker 1 refused connections, 2 of 2 peers agree")
    for broker_id in (2, 3):
        cluster.loops[broker_id]._context = cluster.loops[broker_id]._context._replace(verdicts=lambda: [dead])
    cluster.sessions[1].pause()  # its session lives on
    cluster.loops[2].stand_instead(dead.suspect, dead.reason)
    cluster.turns(0.2)
    assert cluster.loops[2].is_controller
    assert cluster.zk.data("/controller_epoch") == b"2"
    assert not registered(cluster, 1)
    assert led(cluster) == (2, (2, 3), 1)
    cluster.sessions[1].resume()
    cluster.turns(0.2)
    assert not cluster.loops[1].is_controller
    assert cluster.zk.data("/controller_epoch") == b"2"


def test_only_one_of_two_takes_the_office() -> None:
    cluster = two_of_three()
    dead = verdict(cluster, 1)
    for broker_id in (2, 3):
        cluster.loops[broker_id].stand_instead(dead.suspect, dead.reason)
        cluster.loops[broker_id].stand_instead(dead.suspect, dead.reason)
    cluster.turns(0.5)
    assert sum(loop.is_controller for loop in cluster.loops.values()) == 1
    assert cluster.zk.data("/controller_epoch") == b"2"


def test_the_office_of_another_incarnation_is_not_taken() -> None:
    cluster = two_of_three()
    suspect = Suspect(1, cluster.epoch(1) - 1, "anywhere")
    cluster.loops[2].stand_instead(suspect, "old news")
    cluster.loops[3].stand_instead(Suspect(2, cluster.epoch(2), "anywhere"), "not the controller")
    cluster.turns(0.5)
    assert cluster.controller_id == 1
    assert cluster.zk.data("/controller_epoch") == b"1"


@pytest.mark.parametrize("lose", ["lose_next_reply", "lose_next_request"])
def test_taking_the_office_with_a_lost_answer_ends_with_one_controller(lose: str) -> None:
    cluster = two_of_three()
    dead = verdict(cluster, 1)
    cluster.loops[2].stand_instead(dead.suspect, dead.reason)
    cluster.turns(0.005)
    getattr(cluster.sessions[2], lose)()
    cluster.turns(3.0)
    assert sum(loop.is_controller for loop in cluster.loops.values()) == 1
    epoch = int(cluster.zk.data("/controller_epoch") or b"")
    assert epoch == max(loop.controller_epoch for loop in cluster.loops.values())


def test_a_stopped_broker_stands_for_nobody() -> None:
    cluster = two_of_three()
    dead = verdict(cluster, 1)
    stopped: Deferred[None] = cluster.loops[2].stop()
    cluster.wait(stopped)
    cluster.loops[2].stand_instead(dead.suspect, dead.reason)
    cluster.turns(0.5)
    assert cluster.controller_id == 1

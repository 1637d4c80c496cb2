"""Reassignments that meet something else: partitions added by hand, a deletion, a topic made again, a row too large."""

from __future__ import annotations

import pytest

from tests.unit.controller_cluster import T0, Cluster
from zkbroker.broker.controller_reading import rules_of
from zkbroker.controller.cluster_image import Placement, TopicImage, TopicRules
from zkbroker.controller.controller import Controller
from zkbroker.controller.effects import (
    Answer,
    EditReassignments,
    Effect,
    MoveWrite,
    StateWrite,
    WriteMoves,
    WriteStates,
)
from zkbroker.controller.office import ControllerRules
from zkbroker.model.cluster import BrokerRegistration, Endpoint
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.zookeeper.client import Create
from zkbroker.zookeeper.znodes import admin as admin_znode

T1 = TopicPartition("t", 1)


def moves(effects: list[Effect]) -> list[MoveWrite]:
    return [write for effect in effects if isinstance(effect, WriteMoves) for write in effect.writes]


def begun() -> tuple[Controller, MoveWrite]:
    """A controller whose topic t is on broker 1, and the write that begins its move to broker 2."""
    controller = Controller(9, 1, ControllerRules())
    brokers = [BrokerRegistration(broker, 10 * broker, (Endpoint("REPLICATION", "h", 1),)) for broker in (1, 2, 3)]
    controller.brokers_changed(brokers, 0.0)
    effects = controller.topic_read(TopicImage("t", "id", {0: Placement((1,))}, 10))
    [first] = [write.state for effect in effects if isinstance(effect, WriteStates) for write in effect.writes]
    controller.states_found([(T0, first)])
    controller.turn_ended()
    [write] = moves(controller.reassignments_requested(1, {T0: (2,)}))
    return controller, write


def found(write: MoveWrite) -> list[tuple[TopicPartition, PartitionState | None]]:
    assert write.state is not None
    return [(write.partition, write.state.state)]


def test_partitions_that_the_step_was_written_on_top_of_are_still_news() -> None:
    controller, write = begun()
    written = TopicImage("t", "id", {0: write.placement, 1: Placement((3,))}, 12)
    controller.moves_found("t", written, found(write))
    controller.topic_read(written)
    assert controller.image.placement(T1) == Placement((3,))
    assert controller.image.topics["t"].mzxid == 12


def test_a_deletion_waits_for_the_end_of_a_move_that_is_just_being_written() -> None:
    controller, write = begun()
    controller.deletions_requested(["t"])
    assert not controller.deletions.hides("t"), "a successor would find a move that waits for deleted replicas"
    controller.moves_found("t", TopicImage("t", "id", {0: write.placement}, 12), found(write))
    assert not controller.deletions.hides("t")
    [back] = moves(controller.reassignments_requested(2, {T0: None}))
    controller.moves_found("t", TopicImage("t", "id", {0: back.placement}, 13), found(back))
    assert controller.deletions.hides("t")


def test_a_deletion_goes_on_when_the_write_came_to_nothing_and_the_move_cannot_be() -> None:
    controller, write = begun()
    controller.deletions_requested(["t"])
    assert write.state is not None
    before = controller.image.states[T0]
    effects = controller.moves_found("t", TopicImage("t", "id", {0: Placement((1,))}, 10), [(T0, before)], "too large")
    assert moves(effects) == []
    assert controller.deletions.hides("t")


def test_who_asks_for_too_much_is_told_so_and_others_may_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(3)
    cluster.create(assignment=((0, (1,)),), partitions=-1, factor=-1)
    with monkeypatch.context() as patched:
        patched.setattr("zkbroker.broker.controller_moves.TOPIC_ZNODE_BYTES_MAX", 100)
        refused = cluster.wait(cluster.controller.alter_reassignments({T0: (2,)}, 1000))[T0]
    assert refused.error is ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert "its znode would have" in refused.message
    assert cluster.wait(cluster.controller.alter_reassignments({T0: (2,)}, 1000))[T0].error is ErrorCode.NONE
    assert cluster.row().partitions[0] == (2, 1)


def test_who_asks_while_the_znode_does_not_decode_is_not_kept_waiting() -> None:
    controller, _ = begun()
    controller.moves_found("t", None, [(T0, controller.image.states[T0])])
    controller.reassignments_requested(2, {T0: (3,)})
    assert T0 not in controller.settling.moves.wishes


def test_rows_of_a_topic_that_was_made_again_are_not_written() -> None:
    cluster = Cluster(3)
    cluster.create(assignment=((0, (1,)),), partitions=-1, factor=-1)
    state = cluster.controller._serving().controller.image.states[T0]
    after = state._replace(topic_id="A" * 22, replicas=(2, 1), adding=(2,), partition_epoch=1)
    write = MoveWrite(T0, Placement((2, 1), (2,), (1,)), StateWrite(T0, after, 0))
    cluster.controller._serving()._moves.write(WriteMoves("t", (write,)))
    cluster.turns()
    assert cluster.row().partitions[0] == (1,)
    now = cluster.state()
    assert now is not None and now.partition_epoch == 0


def test_what_is_done_at_one_time_leaves_the_znode_in_one_write() -> None:
    cluster = Cluster(3)
    cluster.create(assignment=tuple((number, (1,)) for number in range(21)), partitions=-1, factor=-1)
    wanted = {TopicPartition("t", number): (2,) for number in range(21)}
    cluster.zk.write(Create(admin_znode.REASSIGN_PARTITIONS_PATH, admin_znode.encode_reassignment(wanted)))
    cluster.turns()
    writer = cluster.controller._serving()._moves
    edited = [writer.edit(EditReassignments(((partition, (2,)),))) for partition in list(wanted)[:20]]
    for edit in edited:
        cluster.wait(edit)
    stat = cluster.zk.stat(admin_znode.REASSIGN_PARTITIONS_PATH)
    assert stat is not None and stat.version == 2
    cluster.wait(writer.edit(EditReassignments(((T0, (3,)),))))
    assert cluster.zk.stat(admin_znode.REASSIGN_PARTITIONS_PATH) == stat, "nothing of it stands there"


@pytest.mark.parametrize(
    ("minimum", "expected"), [("2", 2), (" 2 ", 2), ("0", None), ("9" * 5000, None), ("99999999999", None), ("x", None)]
)
def test_settings_that_people_wrote_into_the_znode(minimum: str, expected: int | None) -> None:
    rules = rules_of({"min.insync.replicas": minimum, "unclean.leader.election.enable": "TRUE"})
    assert rules == TopicRules(expected, True)


@pytest.mark.parametrize(
    ("row", "target"),
    [
        (Placement((3, 2)), (4,)),
        (Placement((2, 3, 4), (4,), (4,)), None),
        (Placement((2,), (2,), (2,)), None),
    ],
)
def test_an_assignment_by_hand_without_anybody_of_the_isr_ends_no_term(
    row: Placement, target: tuple[int, ...] | None
) -> None:
    """People edit the topic's znode and make another controller read it: nobody who is to stay has the records."""
    controller = Controller(9, 2, ControllerRules())
    brokers = [BrokerRegistration(broker, 10 * broker, (Endpoint("REPLICATION", "h", 1),)) for broker in (1, 2, 3, 4)]
    state = PartitionState("id", row.replicas, 1, 5, (1,), 7, 1)
    effects = controller.cluster_read(brokers, [TopicImage("t", "id", {0: row}, 10)], {T0: (state, 99)}, {}, (), 0.0)
    assert moves(effects) == []
    effects = controller.reassignments_read({T0: target} if target else {})
    if target is not None:
        effects += controller.reassignments_requested(1, {T0: target})
        [answer] = [effect.result for effect in effects if isinstance(effect, Answer)]
        assert isinstance(answer, dict) and answer[T0].error is ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert moves(effects) == []
    [back] = moves(controller.reassignments_requested(2, {T0: (1, 2)}))
    assert back.state is not None and back.state.state.isr == (1,), "back to who has them"


def test_states_that_would_be_too_large_for_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(3)
    cluster.create(assignment=((0, (1,)),), partitions=-1, factor=-1)
    monkeypatch.setattr("zkbroker.broker.controller_moves.STATES_BYTES_MAX", 100)
    refused = cluster.wait(cluster.controller.alter_reassignments({T0: (2,)}, 1000))[T0]
    assert refused.error is ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert cluster.row().partitions[0] == (1,)


def test_a_target_of_more_brokers_than_there_can_be() -> None:
    cluster = Cluster(3)
    cluster.create(assignment=((0, (1,)),), partitions=-1, factor=-1)
    wanted = {T0: tuple(range(70_000))}
    refused = cluster.wait(cluster.controller.alter_reassignments(wanted, 1000))[T0]
    assert refused.error is ErrorCode.INVALID_REPLICA_ASSIGNMENT
    cluster.zk.write(Create(admin_znode.REASSIGN_PARTITIONS_PATH, admin_znode.encode_reassignment(wanted)))
    cluster.turns()
    assert cluster.row().partitions[0] == (1,)
    assert cluster.zk.stat(admin_znode.REASSIGN_PARTITIONS_PATH) is None

"""Reassignments and elections through ControllerLoop and the fake ensemble: what stands in the znodes, who is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.controller_cluster import T0, Cluster
from zkbroker.broker.controller_loop import ControllerLoop
from zkbroker.model.cluster import DeletedReplica
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.reassignments import ElectionKind, OngoingMove
from zkbroker.model.topics import TopicPartition
from zkbroker.zookeeper.client import Create, Delete, SetData
from zkbroker.zookeeper.znodes import admin as admin_znode

T1 = TopicPartition("t", 1)
ZNODE = admin_znode.REASSIGN_PARTITIONS_PATH


def made(*rows: tuple[int, ...], brokers: int = 4) -> Cluster:
    cluster = Cluster(brokers)
    cluster.create(assignment=tuple(enumerate(rows)), partitions=-1, factor=-1)
    return cluster


def move(cluster: Cluster, **wanted: Any) -> dict[str, ErrorCode]:
    """``t0=(1, 2)``, ``t1=None``: to these brokers, or back."""
    asked = {TopicPartition(name[0], int(name[1:])): target for name, target in wanted.items()}
    outcomes = cluster.wait(cluster.controller.alter_reassignments(asked, 1000))
    return {str(partition): outcome.error for partition, outcome in outcomes.items()}


def ongoing(cluster: Cluster) -> list[OngoingMove]:
    found: list[OngoingMove] = cluster.wait(cluster.controller.list_reassignments(None, 1000))
    return found


def test_a_move_from_its_request_to_its_last_order() -> None:
    cluster = made((1, 2), (2, 1))
    subscriber = cluster.subscribe(1)
    assert move(cluster, t0=(3, 4)) == {"t-0": ErrorCode.NONE}
    row = cluster.row()
    assert (row.partitions[0], row.adding, row.removing) == ((3, 4, 1, 2), {0: (3, 4)}, {0: (1, 2)})
    assert ongoing(cluster) == [OngoingMove(T0, (3, 4, 1, 2), (3, 4), (1, 2))]
    assert cluster.wait(cluster.controller.list_reassignments([T1], 1000)) == []
    cluster.join(1, 2, 3)
    assert subscriber.states[T0].replicas == (3, 4, 1, 2)
    cluster.join(1, 2, 3, 4)
    cluster.turns()
    row, state = cluster.row(), cluster.state()
    assert (row.partitions, row.adding, row.removing) == ({0: (3, 4), 1: (2, 1)}, {}, {})
    assert state is not None
    assert (state.leader, state.isr, state.removed) == (3, (3, 4), (1, 2))
    orders = [order for delta in subscriber.deltas for order in delta.deleted_replicas]
    topic_id = subscriber.states[T0].topic_id
    assert orders == [DeletedReplica("t", 0, topic_id)]
    cluster.controller.replica_deleted(1, cluster.epoch(1), T0, topic_id)
    assert cluster.subscribe(1).deltas[0].deleted_replicas == ()
    # whoever was away is told when it comes; so does the next controller
    cluster.kill(cluster.controller_id)
    cluster.turns(2.0)
    assert cluster.subscribe(2).deltas[0].deleted_replicas == (DeletedReplica("t", 0, topic_id),)


def test_many_partitions_of_one_topic_are_written_together() -> None:
    cluster = made(*((1,) for _ in range(150)))
    before = cluster.zk.stat("/brokers/topics/t")
    outcomes = move(cluster, **{f"t{number}": (2,) for number in range(150)})
    assert set(outcomes.values()) == {ErrorCode.NONE}
    after = cluster.zk.stat("/brokers/topics/t")
    assert before is not None and after is not None and after.version - before.version == 2
    assert all(state.adding == (2,) for state in cluster.subscribe(1).states.values())


def test_news_from_before_is_no_news_and_a_znode_made_again_is() -> None:
    """Somebody puts a znode there once more, as it was: its version begins anew, additions to it still count."""
    cluster = made((1,))
    move(cluster, t0=(2,))
    data = cluster.zk.data("/brokers/topics/t")
    assert data is not None
    controller = cluster.controller._serving().controller
    known = controller.image.topics["t"]
    assert controller.topic_read(known._replace(partitions={}, mzxid=known.mzxid - 1)) == []
    for _ in range(3):
        cluster.zk.write(SetData("/brokers/topics/t", data))
    cluster.turns()
    cluster.zk.write(Delete("/brokers/topics/t/partitions/0/state"))
    cluster.zk.write(Delete("/brokers/topics/t/partitions/0"))
    cluster.zk.write(Delete("/brokers/topics/t/partitions"))
    cluster.zk.write(Delete("/brokers/topics/t"))
    edited = json.loads(data)
    edited["partitions"]["1"] = [3]
    cluster.zk.write(Create("/brokers/topics/t", json.dumps(edited).encode()))
    cluster.turns()
    assert cluster.state(T1) is not None


def test_a_row_that_makes_the_znode_too_large_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = made((1,))
    monkeypatch.setattr("zkbroker.broker.controller_moves.TOPIC_ZNODE_BYTES_MAX", 100)
    move(cluster, t0=(2,))
    cluster.turns()
    assert cluster.row().partitions[0] == (1,)
    assert [line for line in cluster.lines if "cannot be reassigned: its znode would have" in line]


@pytest.mark.parametrize("lost", ["request", "reply"])
def test_a_write_whose_answer_is_lost(lost: str) -> None:
    cluster = made((1,))
    office = cluster.controller_id
    answer = cluster.controller.alter_reassignments({T0: (2,)}, 20_000)
    cluster.turns(0.003 if lost == "request" else 0.0045)
    cluster.sessions[office].disconnect()
    cluster.turns(0.1)
    cluster.sessions[office].reconnect()
    assert cluster.wait(answer)[T0].error is ErrorCode.NONE
    assert cluster.row().partitions[0] == (2, 1)
    state = cluster.state()
    assert state is not None and (state.leader_epoch, state.partition_epoch) == (1, 1), "once"


def test_partitions_that_are_added_meanwhile_stay() -> None:
    cluster = made((1,))
    answer = cluster.controller.alter_reassignments({T0: (2,)}, 1000)
    data = cluster.zk.data("/brokers/topics/t")
    assert data is not None
    edited = json.loads(data)
    edited["partitions"]["1"] = [3]
    cluster.turns(0.003)  # the controller has read the znode
    cluster.zk.write(SetData("/brokers/topics/t", json.dumps(edited).encode()))
    cluster.wait(answer)
    cluster.turns()
    assert cluster.row().partitions == {0: (2, 1), 1: (3,)}
    assert cluster.state(T1) is not None


def test_a_znode_that_does_not_decode_is_left_alone_until_it_does() -> None:
    cluster = made((1,))
    good = cluster.zk.data("/brokers/topics/t")
    assert good is not None
    cluster.zk.write(SetData("/brokers/topics/t", b"{"))
    move(cluster, t0=(2,))
    assert cluster.zk.data("/brokers/topics/t") == b"{"
    writes = cluster.zk.stat("/brokers/topics/t")
    cluster.turns(1.0)
    assert cluster.zk.stat("/brokers/topics/t") == writes
    cluster.zk.write(SetData("/brokers/topics/t", good))
    cluster.turns()
    assert move(cluster, t0=(2,)) == {"t-0": ErrorCode.NONE}
    assert cluster.row().partitions[0] == (2, 1)


def test_the_znode_of_old_tools() -> None:
    cluster = made((1,), (1,))
    cluster.zk.write(Create(ZNODE, admin_znode.encode_reassignment({T0: (2,), T1: (1,), TopicPartition("u", 0): (1,)})))
    cluster.turns()
    data = cluster.zk.data(ZNODE)
    assert data is not None and admin_znode.decode_reassignment(data) == {T0: (2,)}
    assert cluster.row().partitions == {0: (2, 1), 1: (1,)}
    cluster.join(1, 2)
    cluster.turns()
    assert cluster.row().partitions[0] == (2,)
    assert cluster.zk.data(ZNODE) is None


@pytest.mark.parametrize("content", [b"nonsense", b'{"version":1,"partitions":[]}', b"{}"])
def test_a_znode_that_asks_for_nothing_goes(content: bytes) -> None:
    cluster = made((1,))
    cluster.zk.write(Create(ZNODE, content))
    cluster.turns()
    assert cluster.zk.data(ZNODE) is None
    assert len([loop for loop in cluster.loops.values() if loop.is_controller]) == 1


def test_others_are_not_the_controller() -> None:
    cluster = made((1,))
    other = next(loop for loop in cluster.loops.values() if not loop.is_controller)

    def refused(loop: ControllerLoop) -> list[ErrorCode]:
        errors = []
        for asked in (
            loop.alter_reassignments({T0: (2,)}, 1000),
            loop.list_reassignments(None, 1000),
            loop.elect_leaders(ElectionKind.PREFERRED, None, 1000),
        ):
            with pytest.raises(BrokerError) as raised:
                cluster.wait(asked)
            errors.append(raised.value.error)
        return errors

    assert refused(other) == [ErrorCode.NOT_CONTROLLER] * 3


def test_what_takes_too_long_goes_on() -> None:
    cluster = made((1,))
    session = cluster.sessions[cluster.controller_id]
    session.disconnect()
    cluster.turns(0.1)
    with pytest.raises(BrokerError) as raised:
        cluster.wait(cluster.controller.alter_reassignments({T0: (2,)}, 200))
    assert raised.value.error is ErrorCode.REQUEST_TIMED_OUT
    session.reconnect()
    cluster.turns()
    assert cluster.row().partitions[0] == (2, 1)

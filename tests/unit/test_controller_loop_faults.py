"""The controller loop under faults chosen by seed: when they end, one controller, led partitions, informed brokers."""

from __future__ import annotations

import random

import pytest

from tests.unit.controller_cluster import Cluster
from zkbroker.model.channel import NewTopic
from zkbroker.zookeeper.client import Delete


def disturb(cluster: Cluster, dice: random.Random) -> None:
    broker_id = dice.randint(1, 3)
    session = cluster.sessions.get(broker_id)
    if session is None:
        if dice.random() < 0.5:
            cluster.up(broker_id)
        return
    fault = dice.randrange(6)
    if fault == 0:
        session.disconnect()
        cluster.turns(dice.random() * 2)
        session.reconnect()
    elif fault == 1:
        session.lose_next_reply()
    elif fault == 2:
        session.lose_next_request()
    elif fault == 3 and len(cluster.sessions) > 1:
        cluster.kill(broker_id)
    elif fault == 4:
        cluster.loops[broker_id].create_topics([NewTopic(f"n{dice.randint(0, 5)}", 1, 1)], 500, False)
    elif fault == 5 and cluster.zk.data("/controller") is not None and dice.random() < 0.3:
        cluster.zk.write(Delete("/controller"))
    cluster.turns(dice.random() * 0.3)


@pytest.mark.parametrize("seed", range(15))
def test_all_is_well_when_the_faults_end(seed: int) -> None:
    dice = random.Random(seed)
    cluster = Cluster()
    cluster.create("a", 3, 3)
    cluster.create("b", 2, 2)
    for _ in range(40):
        disturb(cluster, dice)
    for broker_id in (1, 2, 3):
        if broker_id in cluster.sessions:
            cluster.sessions[broker_id].reconnect()
        else:
            cluster.up(broker_id)
    cluster.turns(12)
    for broker_id in (1, 2, 3):
        if cluster.epoch(broker_id) < 0:
            cluster.register(broker_id)
            cluster.loops[broker_id].registered()
    cluster.turns(5)
    assert [line for line in cluster.lines if "failed in office" in line] == []
    assert sum(loop.is_controller for loop in cluster.loops.values()) == 1
    told = cluster.subscribe(2).states
    assert len(told) >= 5
    for partition, state in told.items():
        written = cluster.state(partition)
        assert written is not None and written.leader > 0
        assert written == written._replace(
            leader=state.leader, isr=state.isr, leader_epoch=state.leader_epoch, partition_epoch=state.partition_epoch
        )

"""The office of the controller while several reach for it at once: what was read may be old by the next answer."""

from __future__ import annotations

import pytest

from tests.unit.controller_cluster import Cluster
from zkbroker.controller.suspicion import Condemned
from zkbroker.model.suspicion import Suspect
from zkbroker.zookeeper.client import Create, Delete, SetData
from zkbroker.zookeeper.znodes import controller as controller_znode


def dead_controller(cluster: Cluster) -> Condemned:
    assert cluster.controller_id == 1
    return Condemned(Suspect(1, cluster.epoch(1), "anywhere"), "broker 1 refused connections", False)


def advance(cluster: Cluster, tenths_ms: int) -> None:
    """In steps that are shorter than a message takes: each makes the next one."""
    for _ in range(tenths_ms):
        cluster.reactor.advance(0.0001)


@pytest.mark.parametrize("position", [1, 2, 3, 4])
def test_the_office_of_a_successor_is_not_taken_whenever_it_wins(position: int) -> None:
    """Its znode looks like the dead one's (version 0): only the controller epoch tells, if it was read first."""
    cluster = Cluster()
    dead = dead_controller(cluster)
    winner = cluster.sessions[3].session_id
    served: list[str] = []

    def noted(name: str, at_server: bool, what: str, path: str) -> None:
        if not at_server or name != "2":
            return
        served.append(what)
        if len(served) == position:
            epoch, stat = cluster.zk.data(controller_znode.EPOCH_PATH), cluster.zk.stat(controller_znode.EPOCH_PATH)
            assert epoch is not None and stat is not None
            raised = controller_znode.encode_epoch(controller_znode.decode_epoch(epoch) + 1)
            office = controller_znode.encode(3, timestamp_ms=1)
            cluster.zk._transact(
                [
                    SetData(controller_znode.EPOCH_PATH, raised, stat.version),
                    Delete(controller_znode.PATH, 0),
                    Create(controller_znode.PATH, office, ephemeral=True),
                ],
                winner,
            )

    cluster.zk.noted = noted
    cluster.loops[2].stand_instead(dead.suspect, dead.reason)
    advance(cluster, 40)  # until broker 3 finds an office that it does not remember to have stood for
    assert len(served) >= position
    owner = cluster.zk.stat(controller_znode.PATH)
    assert owner is not None and owner.ephemeral_owner == winner
    assert not cluster.loops[2].is_controller


@pytest.mark.parametrize("tenths_ms", range(0, 50, 3))
def test_a_look_that_began_before_the_office_was_taken_does_not_end_the_term(tenths_ms: int) -> None:
    cluster = Cluster()
    dead = dead_controller(cluster)
    cluster.lines.clear()
    cluster.loops[2].stand_instead(dead.suspect, dead.reason)
    advance(cluster, tenths_ms)
    cluster.loops[2].registered()
    advance(cluster, 500)
    assert cluster.loops[2].is_controller
    assert [line for line in cluster.lines if line.startswith("[2] resigned")] == []


@pytest.mark.parametrize("tenths_ms", range(0, 60, 6))
def test_a_stop_while_the_office_is_being_taken_leaves_it_vacant_not_held_by_a_broker_that_goes(tenths_ms: int) -> None:
    """The session lives on until the logs are closed, which may take long."""
    cluster = Cluster()
    dead = dead_controller(cluster)
    cluster.loops[2].stand_instead(dead.suspect, dead.reason)
    advance(cluster, tenths_ms)
    cluster.wait(cluster.loops[2].stop())
    cluster.turns(0.1)
    owner = cluster.zk.stat(controller_znode.PATH)
    assert owner is not None and owner.ephemeral_owner != cluster.sessions[2].session_id

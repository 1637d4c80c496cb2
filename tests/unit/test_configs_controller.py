"""What settings changed at run time mean to the controller. See ``controller_cluster``."""

from __future__ import annotations

from tests.unit.controller_cluster import T0, Cluster
from zkbroker.broker.controller_settings import ControllerSettings
from zkbroker.model.channel import AlterPartitionRequest, IsrProposal
from zkbroker.model.topics import TopicPartition
from zkbroker.zookeeper.client import Create, SetData
from zkbroker.zookeeper.znodes import config as config_znode


def leaderless() -> Cluster:
    """The ISR of t-0 is broker 2 alone, and that is dead; broker 3 has a replica."""
    cluster = Cluster()
    result = cluster.create(assignment=((0, (2, 3)),), partitions=-1, factor=-1)
    isr = ((2, cluster.epoch(2)),)
    request = AlterPartitionRequest(2, cluster.epoch(2), (IsrProposal("t", 0, result.topic_id, 1, 0, 0, isr),))
    cluster.wait(cluster.controller.alter_partition(request))
    cluster.kill(2)
    state = cluster.state()
    assert state is not None and (state.leader, state.isr) == (-1, (2,))
    return cluster


def test_unclean_elections_switched_on_for_all_topics_are_held_at_once() -> None:
    cluster = leaderless()
    cluster.controller.settings_changed(ControllerSettings())  # nothing of it changed
    cluster.turns()
    state = cluster.state()
    assert state is not None and state.leader == -1
    for loop in cluster.loops.values():
        loop.settings_changed(ControllerSettings(unclean_leader_election_enable=True))
    cluster.turns()
    state = cluster.state()
    assert state is not None and (state.leader, state.isr, state.recovering) == (3, (3,), True)


def test_the_next_controller_has_the_settings_as_they_were_changed() -> None:
    cluster = leaderless()
    others = [broker for broker, loop in cluster.loops.items() if loop is not cluster.controller]
    cluster.loops[others[0]].settings_changed(ControllerSettings(unclean_leader_election_enable=True))
    (controller,) = [broker for broker, loop in cluster.loops.items() if loop is cluster.controller]
    cluster.wait(cluster.loops[controller].stop())
    cluster.turns()
    state = cluster.state()
    # Broker 1 or 3 left office alive: only its loop is gone.
    assert state is not None and (state.leader, state.recovering) == (3, True)


def test_a_topic_that_a_person_wrote_without_a_notification_is_elected_for() -> None:
    cluster = leaderless()
    cluster.controller.topic_config_changed("t", {"unclean.leader.election.enable": "true"})
    cluster.controller.topic_config_changed("gone", {"unclean.leader.election.enable": "true"})
    cluster.turns()
    state = cluster.state()
    assert state is not None and (state.leader, state.recovering) == (3, True)


def test_min_insync_replicas_of_all_topics_decide_who_stays_eligible() -> None:
    for least, elr in ((1, ()), (2, (3,))):
        cluster = Cluster()
        cluster.controller.settings_changed(ControllerSettings(min_insync_replicas=least))
        result = cluster.create(assignment=((0, (2, 3)),), partitions=-1, factor=-1)
        isr = ((2, cluster.epoch(2)),)
        request = AlterPartitionRequest(2, cluster.epoch(2), (IsrProposal("t", 0, result.topic_id, 1, 0, 0, isr),))
        cluster.wait(cluster.controller.alter_partition(request))
        state = cluster.subscribe(1).states[TopicPartition(*T0)]
        assert (state.isr, state.elr) == ((2,), elr)


def test_settings_that_do_not_decode_allow_no_unclean_election() -> None:
    """The topic forbade it while the default allows it; then somebody broke its znode."""
    cluster = Cluster(settings=ControllerSettings(unclean_leader_election_enable=True))
    forbidden = (("unclean.leader.election.enable", "false"),)
    cluster.create(assignment=((0, (2, 3)),), partitions=-1, factor=-1, configs=forbidden)
    cluster.join(2)
    cluster.zk.write(SetData(config_znode.topic_path("t"), b"{"))
    cluster.zk.write(Create(config_znode.CHANGE_PREFIX, config_znode.encode_change("topics", "t"), sequential=True))
    cluster.turns()
    cluster.kill(2)
    cluster.turns()
    state = cluster.state()
    assert state is not None and (state.leader, state.isr) == (-1, (2,))
    cluster.wait(cluster.controller.stop())
    cluster.turns()
    state = cluster.state()
    assert state is not None and (state.leader, state.isr) == (-1, (2,)), "nor does the next controller"
    cluster.zk.write(SetData(config_znode.topic_path("t"), config_znode.encode({})))
    cluster.zk.write(Create(config_znode.CHANGE_PREFIX, config_znode.encode_change("topics", "t"), sequential=True))
    cluster.turns()
    state = cluster.state()
    assert state is not None and (state.leader, state.recovering) == (3, True)

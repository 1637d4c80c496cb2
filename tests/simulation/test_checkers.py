"""Every checker can fail: hand-made clusters in which just one thing is wrong."""

from __future__ import annotations

import json

import pytest

from tests.simulation.checker_bench import TOPIC_ID, Bench, batch_of


@pytest.fixture
def bench() -> Bench:
    return Bench()


def _lossy(partition: str, ends: list[int]) -> list[object]:
    """What a registration says of a replica: newest leader epoch and end of what is left."""
    return [{"topic": "t", "topic_id": TOPIC_ID, "partitions": {partition: ends}}]


def test_a_sound_cluster_has_nothing_wrong(bench: Bench) -> None:
    bench.begin()
    bench.append_everywhere(batch_of(b"a"), batch_of(b"b", pid=1, epoch=0, sequence=0))
    bench.write_state(2, 1, (2, 3))
    bench.step()
    bench.lead(2, 1, (2, 3))
    bench.follow(3, 2, 1)
    bench.follow(1, 2, 1)
    bench.append_everywhere(batch_of(b"c", pid=1, epoch=0, sequence=1), epoch=1)
    bench.write_state(2, 1, (2, 3, 1))
    bench.replica(2).leader.isr.state = bench.lead(2, 1, (2, 3, 1)).leader.isr.state
    assert bench.violated() == 0
    partition = next(iter(bench.all.ghost.partitions.values()))
    assert partition.true_hw == 3 and len(partition.committed) == 3
    bench.all.at_end()


# 1


def test_controller_epoch_falls(bench: Bench) -> None:
    bench.elect_controller(1)
    assert bench.violated() == 1


def test_broker_epoch_falls(bench: Bench) -> None:
    bench.unregister(2)
    bench.commit("/brokers/ids/2", b"{}", zxid=1)
    assert bench.violated() == 1


@pytest.mark.parametrize("epochs", [(1, 0), (2, 1)])
def test_leader_epoch_falls(bench: Bench, epochs: tuple[int, int]) -> None:
    bench.write_state(1, epochs[0], (1, 2, 3))
    bench.step()
    bench.write_state(1, epochs[1], (1, 2, 3))
    assert bench.violated() == 1


# 2


def test_two_leaders_in_one_epoch(bench: Bench) -> None:
    bench.write_state(1, 0, (1, 2, 3))
    bench.step()
    bench.write_state(2, 0, (1, 2, 3))
    assert bench.violated() == 2


def test_a_deposed_controller_writes(bench: Bench) -> None:
    bench.elect_controller(2, session=8)
    bench.write_state(1, 0, (1, 2, 3), controller_epoch=1)
    assert bench.violated() == 2


def test_a_stranger_writes_in_the_present_controller_epoch(bench: Bench) -> None:
    bench.write_state(1, 0, (1, 2, 3), session=9)
    assert bench.violated() == 2


def test_somebody_leads_whom_the_znode_does_not_name(bench: Bench) -> None:
    bench.begin()
    bench.lead(2, 0, (1, 2, 3))
    assert bench.violated() == 2


def test_leading_again_in_the_same_epoch_after_a_restart(bench: Bench) -> None:
    bench.begin()
    bench.append_everywhere(batch_of(b"a"))
    bench.boot(1)
    bench.step()
    bench.lead(1, 0, (1, 2, 3)).append(0, batch_of(b"a"))
    assert bench.violated() == 2


# 3


@pytest.mark.parametrize(
    ("leader", "isr", "elr"),
    [(1, (), ()), (1, (1, 1), ()), (1, (1, 4), ()), (3, (1, 2), ()), (1, (1,), (4,)), (1, (1, 2), (2,))],
)
def test_members_that_cannot_be(bench: Bench, leader: int, isr: tuple[int, ...], elr: tuple[int, ...]) -> None:
    bench.write_state(leader, 0, isr, elr=elr)
    assert bench.violated() == 3


def test_recovering_with_two_members(bench: Bench) -> None:
    bench.write_state(1, 0, (1, 2), recovering=True)
    assert bench.violated() == 3


def test_elected_from_outside_of_isr_and_elr(bench: Bench) -> None:
    bench.write_state(1, 0, (1, 2))
    bench.step()
    bench.write_state(3, 1, (3,))
    assert bench.violated() == 3


# 4


def test_the_leader_forgets_a_member(bench: Bench) -> None:
    bench.write_state(1, 0, (1, 2, 3))
    bench.lead(1, 0, (1, 2))
    assert bench.violated() == 4


def test_the_leader_forgets_the_elr(bench: Bench) -> None:
    bench.write_state(1, 0, (1, 2), elr=(3,))
    bench.lead(1, 0, (1, 2))
    assert bench.violated() == 4


# 5


def test_committed_before_all_members_have_it(bench: Bench) -> None:
    leader, *_ = bench.begin()
    leader.append(0, batch_of(b"a"))
    bench.step()
    leader.mark(1)
    assert bench.violated() == 5


def test_a_joiner_that_lacks_what_is_committed(bench: Bench) -> None:
    bench.write_state(1, 0, (1, 2))
    bench.lead(1, 0, (1, 2))
    bench.follow(2, 1, 0)
    bench.follow(3, 1, 0)
    bench.step()
    for broker_id in (1, 2):
        bench.replica(broker_id).append(0, batch_of(b"a"))
    bench.step()
    bench.replica(1).mark(1)
    bench.step()
    bench.lead(1, 0, (1, 2), (1, 2, 3))
    bench.replica(1).leader.high_watermark = 1
    bench.replica(1).leader.followers[3].broker_epoch = bench.broker_epoch(3)
    bench.step()
    bench.write_state(1, 0, (1, 2, 3))
    assert bench.violated() == 5


def test_one_power_loss_may_not_cost_what_is_committed(bench: Bench) -> None:
    """The member that lost it is excused; electing it is not."""
    bench.begin()
    bench.append_everywhere(batch_of(b"a"))
    bench.nodes[2].losses += 1
    bench.nodes[2].parts = None
    bench.step()
    bench.boot(2)
    bench.replica(2)
    assert bench.violated() == 0
    bench.write_state(2, 1, (2,))
    assert bench.violated() == 6


def begins_at(bench: Bench, broker_id: int, offset: int) -> None:
    """Its log lost its first segments, and looks as if they had been deleted."""
    replica = bench.replica(broker_id)
    path = f"/data/t-0/{offset:020d}.log"
    replica.disk.rename(replica.path, path)
    replica.path = path
    replica.log.log_start_offset = replica.log.log_end_offset = replica.high_watermark = offset


@pytest.mark.parametrize(("is_lossy", "invariant"), [(True, 0), (False, 7)])
def test_what_lost_its_beginning_with_the_power_claims_nothing(bench: Bench, is_lossy: bool, invariant: int) -> None:
    bench.begin()
    bench.nodes[2].losses += is_lossy
    bench.nodes[2].parts = None
    bench.step()
    bench.boot(2)
    begins_at(bench, 2, 3)
    assert bench.violated() == invariant


def test_a_log_without_its_beginning_is_not_whole(bench: Bench) -> None:
    """It was elected with what was left, and what its leader had below was lost."""
    bench.begin()
    bench.append_everywhere(batch_of(b"a"), batch_of(b"b"))
    bench.nodes[2].losses += 1
    bench.nodes[2].parts = None
    bench.step()
    bench.boot(2)
    begins_at(bench, 2, 2)
    assert bench.violated() == 0, "the member that lost it is excused"
    bench.write_state(2, 1, (2,))
    assert bench.violated() == 6


def test_two_power_losses_may_cost_it(bench: Bench) -> None:
    bench.begin()
    bench.append_everywhere(batch_of(b"a"))
    for broker_id in (2, 3):
        bench.nodes[broker_id].losses += 1
        bench.nodes[broker_id].parts = None
        bench.step()
        bench.boot(broker_id)
        bench.replica(broker_id)
    bench.write_state(2, 1, (2, 3))
    bench.step()
    bench.lead(2, 1, (2, 3))
    assert bench.violated() == 0
    partition = next(iter(bench.all.ghost.partitions.values()))
    assert partition.resets == 1 and partition.true_hw == 0


def test_a_power_loss_of_one_that_nobody_counted_on_excuses_nothing(bench: Bench) -> None:
    """A replica outside of the ISR loses its data, then is let in without it (KIP-903)."""
    bench.write_state(1, 0, (1, 2))
    bench.lead(1, 0, (1, 2))
    bench.follow(2, 1, 0)
    for broker_id in (1, 2):
        bench.replica(broker_id).append(0, batch_of(b"a"))
    bench.step()
    bench.replica(1).mark(1)
    bench.nodes[3].losses += 1
    bench.step()
    bench.replica(3)
    bench.write_state(1, 0, (1, 2, 3))
    bench.lead(1, 0, (1, 2, 3))
    bench.replica(1).leader.high_watermark = 1
    assert bench.violated() == 5


# 6


def test_a_leader_without_what_is_committed(bench: Bench) -> None:
    """It was no member when it was elected, so only the look at its log can tell."""
    bench.write_state(1, 0, (1, 2))
    bench.lead(1, 0, (1, 2))
    bench.follow(2, 1, 0)
    bench.follow(3, 1, 0)
    for broker_id in (1, 2):
        bench.replica(broker_id).append(0, batch_of(b"a"))
    bench.step()
    bench.replica(1).mark(1)
    bench.step()
    bench.all.ghost.find("t", 0).leaders[1] = 3  # type: ignore[union-attr]
    bench.lead(3, 1, (3,))
    assert bench.violated() == 6


def test_an_unclean_election_that_nobody_allowed(bench: Bench) -> None:
    bench.begin()
    bench.write_state(3, 1, (3,), recovering=True)
    assert bench.violated() == 6


@pytest.mark.parametrize(
    ("replicas", "lossy", "invariant"),
    [
        ([1], _lossy("0", [0, 1]), 0),
        ([1], _lossy("0", [-1, -1]), 6),
        ([1], _lossy("1", [0, 1]), 6),
        ([1], True, 6),
        ([1], [], 6),
        ([1, 2], _lossy("0", [0, 1]), 6),
    ],
    ids=[
        "what is left",
        "its log is gone",
        "another partition",
        "too many to tell",
        "nothing lost",
        "not the only one",
    ],
)
def test_the_only_replica_there_is_leads_with_what_is_left(
    bench: Bench, replicas: list[int], lossy: object, invariant: int
) -> None:
    topic = {"topic_id": TOPIC_ID, "partitions": {"0": replicas}, "version": 3}
    bench.commit("/brokers/topics/t", json.dumps(topic).encode())
    bench.write_state(1, 0, (1,))
    bench.unregister(1)
    bench.commit("/brokers/ids/1", json.dumps({"lossy": lossy}).encode())
    bench.step()
    bench.write_state(1, 1, (1,), recovering=True)
    assert bench.violated() == invariant


# 11


def test_what_is_committed_is_truncated(bench: Bench) -> None:
    _, follower, _ = bench.begin()
    bench.append_everywhere(batch_of(b"a"), batch_of(b"b"))
    bench.write_state(1, 0, (1, 3))
    bench.lead(1, 0, (1, 3)).leader.high_watermark = 2
    bench.step()
    follower.truncate(1)
    assert bench.violated() == 11


def test_what_is_not_committed_may_be_truncated(bench: Bench) -> None:
    _, follower, _ = bench.begin()
    bench.append_everywhere(batch_of(b"a"))
    bench.write_state(1, 0, (1, 3))
    bench.lead(1, 0, (1, 3)).leader.high_watermark = 1
    follower.follower = None
    follower.append(0, batch_of(b"b"))
    bench.step()
    follower.truncate(1)
    assert bench.violated() == 0


# 12


def test_a_joiner_that_is_not_registered(bench: Bench) -> None:
    bench.write_state(1, 0, (1, 2))
    bench.unregister(3)
    bench.step()
    bench.now += 60
    bench.write_state(1, 0, (1, 2, 3))
    assert bench.violated() == 12


def test_a_joiner_by_the_fetch_of_an_earlier_incarnation(bench: Bench) -> None:
    bench.write_state(1, 0, (1, 2))
    bench.lead(1, 0, (1, 2))
    stale = bench.broker_epoch(3)
    bench.boot(3)
    bench.step()
    bench.now += 60
    bench.boot(3)
    bench.lead(1, 0, (1, 2), (1, 2, 3)).leader.followers[3].broker_epoch = stale
    assert bench.violated() == 12


@pytest.mark.parametrize(("seconds", "invariant"), [(1.0, 0), (60.0, 12)])
def test_a_joiner_by_an_incarnation_before_the_last(bench: Bench, seconds: float, invariant: int) -> None:
    """A leader that stood still finds its fetches; the controller refuses what it proposes then."""
    bench.write_state(1, 0, (1, 2))
    bench.lead(1, 0, (1, 2))
    stale = bench.broker_epoch(3)
    for _ in range(2):
        bench.boot(3)
        bench.step()
    bench.now += seconds
    bench.lead(1, 0, (1, 2), (1, 2, 3)).leader.followers[3].broker_epoch = stale
    assert bench.violated() == invariant


def test_a_joiner_that_does_not_stand_where_the_leader_believes(bench: Bench) -> None:
    bench.write_state(1, 0, (1, 2))
    bench.lead(1, 0, (1, 2))
    bench.follow(3, 1, 0)
    bench.step()
    follower = bench.lead(1, 0, (1, 2), (1, 2, 3)).leader.followers[3]
    follower.broker_epoch, follower.log_end_offset = bench.broker_epoch(3), 4
    before = bench.all.ghost.find("t", 0).views[1].seen  # type: ignore[union-attr]
    bench.replica(1).leader = before[1]
    bench.replica(1).leader.isr.state = type(before[3])(isr=(1, 2), maximal=(1, 2, 3))
    bench.replica(1).leader.followers[3] = follower
    assert bench.violated() == 12


def joins(bench: Bench, end: int) -> None:
    """Broker 1, who leads, counts broker 3 from now on, and believes that it ends there."""
    leader = bench.replica(1).leader
    state = leader.isr.state
    leader.isr.state = type(state)(isr=state.isr, maximal=(*state.isr, 3))
    leader.followers[3].broker_epoch, leader.followers[3].log_end_offset = bench.broker_epoch(3), end


def test_a_joiner_that_lacks_what_there_was_when_the_epoch_began(bench: Bench) -> None:
    bench.write_state(2, 0, (1, 2))
    bench.lead(2, 0, (1, 2))
    bench.follow(3, 2, 0)
    bench.follow(1, 2, 0)
    for broker_id in (2, 1):
        bench.replica(broker_id).append(0, batch_of(b"a"))
        bench.step()
    bench.write_state(1, 1, (1, 2))
    bench.step()
    bench.lead(1, 1, (1, 2))
    bench.follow(3, 1, 1)
    bench.step()
    joins(bench, 0)
    assert bench.violated() == 12


def test_a_joiner_whose_log_is_another(bench: Bench) -> None:
    bench.write_state(1, 3, (1, 2))
    bench.lead(1, 3, (1, 2))
    bench.replica(3).append(2, batch_of(b"b"))
    bench.follow(3, 1, 3)
    bench.step()
    bench.replica(1).append(3, batch_of(b"a"))
    bench.step()
    joins(bench, 1)
    assert bench.violated() == 12


def test_an_election_that_lets_somebody_in(bench: Bench) -> None:
    bench.write_state(1, 0, (1, 2))
    bench.step()
    bench.write_state(2, 1, (2, 3))
    assert bench.violated() == 12


# 14


@pytest.mark.parametrize(
    "change",
    [
        {"partitions": {"0": [1, 1]}},
        {"partitions": {"0": [1, 2, 3]}, "adding_replicas": {"0": [4]}},
        {"partitions": {"0": [1, 2, 3]}, "removing_replicas": {"0": [4]}},
        {"partitions": {"0": [1, 2]}},
        {"partitions": {"0": [1, 2, 3]}, "topic_id": "BBBBBBBBBBBBBBBBBBBBBB"},
    ],
)
def test_an_assignment_that_cannot_be(bench: Bench, change: dict[str, object]) -> None:
    bench.begin()
    bench.commit("/brokers/topics/t", json.dumps({"topic_id": TOPIC_ID} | change).encode())
    bench.commit("/config/topics/u", b"")  # the next transaction: until then the states may follow
    assert bench.violated() == 14


def test_a_reassignment_that_takes_out_more_than_the_rest_can_spare(bench: Bench) -> None:
    bench.begin()
    bench.commit("/brokers/topics/t", json.dumps({"topic_id": TOPIC_ID, "partitions": {"0": [1, 4]}}).encode())
    bench.write_state(1, 1, (1,))
    assert bench.violated() == 14


def test_data_that_goes_though_it_is_assigned(bench: Bench) -> None:
    bench.begin()
    node = bench.nodes[2]
    folder = bench.replica(2).log.folder
    del node.parts.replicas._table.replicas["t", 0]
    node.disk.remove_dir(folder)
    assert bench.violated() == 14


def test_data_that_goes_with_its_topic(bench: Bench) -> None:
    bench.begin()
    bench.commit("/admin/delete_topics/t", b"")
    bench.step()
    node = bench.nodes[2]
    folder = bench.replica(2).log.folder
    del node.parts.replicas._table.replicas["t", 0]
    node.disk.remove_dir(folder)
    assert bench.violated() == 0


# 15


def test_a_fenced_leader_answers_for_too_long(bench: Bench) -> None:
    bench.begin()
    epoch = bench.broker_epoch(1)
    bench.unregister(1)
    bench.write_state(2, 1, (2, 3))
    bench.step()
    for broker_id in (2, 3):
        bench.follow(broker_id, 2, 1)
    bench.replica(2)
    bench.step()
    view = bench.all.ghost.find("t", 0).views[1]  # type: ignore[union-attr]
    bench.all.fencing.answered(view, 0, epoch, "a read")
    bench.now += 1.0
    bench.step()
    bench.all.fencing.answered(view, 0, epoch, "a read")
    bench.now += 2.0
    bench.step()
    with pytest.raises(Exception, match="invariant 15"):
        bench.all.fencing.answered(view, 0, epoch, "a read")

"""Replicas of one partition on two or three brokers, on real logs, joined in memory: roles and replication."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.unit.replica_cluster import PARTITION, TOPIC_ID, batch, clusters
from zkbroker.kafka.ports import CurrentLeader
from zkbroker.model.cluster import LossyReplica
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topic_config import TopicConfig
from zkbroker.model.topics import PartitionState, TopicPartition


@pytest.fixture
def networks(tmp_path: Path) -> Iterator[Any]:
    with clusters(tmp_path) as make:
        yield make


def test_acks_all_waits_for_the_isr_and_is_replicated(networks: Any) -> None:
    network = networks(1, 2, 3)
    network.elect(1, 0)
    answers = network.produce(1, batch(b"a", b"b"))
    assert answers == []
    network.run()
    (answer,) = answers
    assert (answer.error, answer.base_offset) == (ErrorCode.NONE, 0)
    assert [network.end(broker) for broker in (1, 2, 3)] == [2, 2, 2]
    assert [network.mark(broker) for broker in (1, 2, 3)] == [2, 2, 2]


def test_followers_learn_the_high_watermark_without_new_records(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    network.produce(1, batch(b"a"))
    network.run(0.01)
    assert network.mark(1) == 1
    network.run(0.05)
    assert network.mark(2) == 1


def test_acks_one_is_answered_at_once_and_acks_all_not_while_a_follower_is_silent(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    network.run()
    network.cut.add(2)
    assert network.produce(1, batch(b"a"), acks=1)[0].error is ErrorCode.NONE
    waiting = network.produce(1, batch(b"b"), timeout_ms=200)
    network.run(0.19)
    assert waiting == []
    network.run(0.1)
    assert waiting[0].error is ErrorCode.REQUEST_TIMED_OUT
    assert network.mark(1) == 0


def test_a_follower_that_lags_is_taken_out_and_acks_all_goes_on(networks: Any) -> None:
    network = networks(1, 2, lag_seconds_max=1.0)
    network.elect(1, 0)
    network.run()
    network.controller = network.grant
    network.cut.add(2)
    waiting = network.produce(1, batch(b"a"))
    network.run(1.0)
    assert waiting == [] and network.requests == []
    network.run(1.0)
    assert [proposal.isr for proposal in network.requests[0].proposals] == [((1, 101),)]
    assert waiting[0].error is ErrorCode.NONE


def test_a_follower_that_caught_up_is_proposed_with_its_broker_epoch(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0, isr=(1,))
    network.controller = network.grant
    network.produce(1, batch(b"a"))
    network.run()
    assert network.requests[0].proposals[0].isr == ((1, 101), (2, 102))
    assert network.state.isr == (1, 2)
    assert "isr=1,2 " in network.replicas[1].partition_lines(None)[0]


def test_a_follower_of_an_old_incarnation_is_not_proposed(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0, isr=(1,))
    network.controller = network.grant
    network.run()
    network.requests.clear()
    network.elect(1, 1, isr=(1,), to=(1,))
    network.epochs[2] = 202
    network.replicas[2].apply(PARTITION, network.state)
    session = network.fetchers[2].session
    session.contact.broker_epoch = 102
    network.run()
    assert network.requests == []


def test_proposals_are_sent_again_until_there_is_a_controller(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0, isr=(1,))
    network.run(0.35)
    assert len(network.requests) >= 3
    assert len({request.proposals for request in network.requests}) == 1
    network.controller = network.grant
    network.run(0.2)
    sent = len(network.requests)
    network.run(1.0)
    assert len(network.requests) == sent


def test_an_ineligible_joiner_is_given_up_and_tried_anew_on_its_next_fetch(networks: Any) -> None:
    network = networks(1, 2)
    network.controller = network.refuse(ErrorCode.INELIGIBLE_REPLICA)
    network.elect(1, 0, isr=(1,))
    network.run(1.0)
    assert len(network.requests) == 1
    network.controller = network.grant
    network.produce(1, batch(b"a"))
    network.run()
    assert network.requests[-1].proposals[0].proposal_id > network.requests[0].proposals[0].proposal_id
    assert network.state.isr == (1, 2)


def test_a_stale_view_keeps_the_proposal_until_the_controller_tells_a_newer_state(networks: Any) -> None:
    network = networks(1, 2)
    network.controller = network.refuse(ErrorCode.INVALID_UPDATE_VERSION)
    network.elect(1, 0, isr=(1,))
    network.run(1.0)
    assert len(network.requests) == 1
    network.state = network.state._replace(partition_epoch=5, isr=(1, 2))
    network.replicas[1].apply(PARTITION, network.state)
    assert "isr=1,2 " in network.replicas[1].partition_lines("t")[0]


def test_too_few_in_sync_replicas_refuse_acks_all_only(networks: Any) -> None:
    network = networks(1, 2)
    network.config = TopicConfig(min_insync_replicas=2)
    network.elect(1, 0, isr=(1,))
    assert network.produce(1, batch(b"a"))[0].error is ErrorCode.NOT_ENOUGH_REPLICAS
    assert network.produce(1, batch(b"a"), acks=1)[0].error is ErrorCode.NONE
    assert network.mark(1) == 0, "frozen below min ISR"
    assert network.produce(1, batch(b"a"), acks=2)[0].error is ErrorCode.INVALID_REQUIRED_ACKS


def test_min_isr_takes_effect_at_once(networks: Any) -> None:
    network = networks(1, 2)
    network.config = TopicConfig(min_insync_replicas=2)
    network.elect(1, 0, isr=(1,))
    network.cut.add(2)
    network.run()
    network.produce(1, batch(b"a"), acks=1)
    network.config = TopicConfig(min_insync_replicas=1)
    network.replicas[1].configs_changed(["t"])
    assert network.mark(1) == 1


def test_losing_the_leadership_fails_who_waits_and_names_the_new_leader(networks: Any) -> None:
    network = networks(1, 2, 3)
    network.elect(1, 0)
    network.run()
    network.cut.update((2, 3))
    waiting = network.produce(1, batch(b"lost"))
    reading = network.consume(1, 0, max_wait_ms=10_000)
    network.run()
    network.cut.clear()
    network.elect(2, 1, isr=(2, 3))
    assert waiting[0].error is ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert waiting[0].current_leader == CurrentLeader(2, 1)
    assert reading[0].error is ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert network.produce(1, batch(b"x"))[0].current_leader == CurrentLeader(2, 1)


def test_a_diverged_tail_is_truncated_and_the_logs_agree(networks: Any) -> None:
    network = networks(1, 2, 3)
    network.elect(1, 0)
    network.produce(1, batch(b"common"))
    network.run()
    network.cut.update((2, 3))
    network.produce(1, batch(b"lost", b"lost"), acks=1)
    network.cut.clear()
    network.cut.add(1)
    network.elect(2, 1, isr=(2, 3), to=(2, 3))
    won = network.produce(2, batch(b"won"))
    network.run()
    assert won[0].base_offset == 1
    network.cut.clear()
    network.controller = network.grant
    network.replicas[1].apply(PARTITION, network.state)
    network.run()
    assert network.end(1) == 2
    assert network.logs[1].logs[PARTITION].epochs.entries == ((0, 0), (1, 1))
    assert network.state.isr == (2, 3, 1)
    first, second = (network.logs[broker].logs[PARTITION].read(0, 10_000, 2) for broker in (1, 2))
    assert b"".join(map(bytes, first.chunks)) == b"".join(map(bytes, second.chunks))


def test_a_leader_with_no_new_leader_named_stops_serving(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    network.elect(-1, 1, isr=(1,))
    answer = network.produce(1, batch(b"a"), acks=1)[0]
    assert (answer.error, answer.current_leader) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, None)


def test_old_and_repeated_states_change_no_role(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 3)
    old = network.state._replace(leader=2, leader_epoch=2, partition_epoch=9)
    assert network.replicas[1].apply(PARTITION, old) is None
    assert network.replicas[1].apply(PARTITION, network.state) is None
    assert network.produce(1, batch(b"a"), acks=1)[0].error is ErrorCode.NONE


def test_a_second_leader_of_one_epoch_is_not_believed(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 3)
    odd = network.state._replace(leader=2, isr=(2,), partition_epoch=9)
    assert network.replicas[1].apply(PARTITION, odd) == "leader epoch 3 has leader 1, not 2"
    assert network.produce(1, batch(b"a"), acks=1)[0].error is ErrorCode.NONE


def test_a_proposal_that_is_never_answered_is_sent_again(networks: Any) -> None:
    network = networks(1, 2)
    network.controller = lambda request: Deferred()
    network.elect(1, 0, isr=(1,))
    network.run(9.0)
    assert len(network.requests) == 1
    network.controller = network.grant
    network.run(2.0)
    assert len(network.requests) == 2
    assert network.state.isr == (1, 2)


def test_a_leadership_from_before_a_restart_is_not_taken_up(networks: Any) -> None:
    network = networks(1)
    network.elect(1, 4)
    network.produce(1, batch(b"a"))
    network.crash(1)
    replicas = network.start(1)
    reason = replicas.apply(PARTITION, network.state)
    assert reason is not None and "leader epoch 4" in reason
    assert network.produce(1, batch(b"b"))[0].error is ErrorCode.NOT_LEADER_OR_FOLLOWER
    network.elect(1, 5)
    assert network.produce(1, batch(b"b"))[0].base_offset == 1


def test_a_lost_registration_ends_leading_until_the_controller_speaks_again(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    network.run()
    network.cut.add(2)
    waiting = network.produce(1, batch(b"a"))
    network.replicas[1].registration_lost()
    assert waiting[0].error is ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert network.replicas[1].fetch_row(PARTITION) is None
    assert network.replicas[1].apply(PARTITION, network.state) is None
    assert network.produce(1, batch(b"b"), acks=1)[0].error is ErrorCode.NONE


def test_an_epoch_resumed_under_a_new_flush_policy_keeps_its_high_watermark(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    network.produce(1, batch(b"a"))
    network.run()
    assert network.mark(1) == 1
    network.replicas[1].registration_lost()
    log = network.logs[1].logs[PARTITION]
    log.set_config(TopicConfig(flush_messages=1))
    assert log.flushed_end_offset == 0
    assert network.replicas[1].apply(PARTITION, network.state) is None
    assert network.mark(1) == 1


def test_contact_rule(networks: Any) -> None:
    network = networks(1, 2, contact_seconds_max=2.0)
    network.elect(1, 0)
    network.run()
    network.contact_age = 100.0
    assert network.produce(1, batch(b"a"), acks=1)[0].error is ErrorCode.NONE, "an ISR member fetched just now"
    network.run()
    network.cut.add(2)
    network.run(3.0)
    assert network.produce(1, batch(b"b"), acks=1)[0].error is ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert network.consume(1, 0)[0].error is ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert network.end(1) == 1
    refused = network.produce(1, batch(b"c"), acks=-1)[0]
    assert (refused.error, refused.current_leader) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, None)
    assert network.end(1) == 1
    network.contact_age = 1.0
    assert network.consume(1, 0)[0].error is ErrorCode.NONE


def test_who_waits_at_a_leader_out_of_touch_is_sent_away(networks: Any) -> None:
    """Nobody tells a broker that is cut off that others lead: clients waited there for their request timeout."""
    network = networks(1, 2, contact_seconds_max=2.0)
    network.elect(1, 0)
    network.run()
    network.contact_age = 1.0
    network.cut.add(2)
    waiting = network.produce(1, batch(b"a"), acks=-1)
    network.run(3.0)
    assert waiting == [] and not network.replicas[1].send_away(), "in contact with ZooKeeper or the controller"
    network.contact_age = 100.0
    assert network.replicas[1].send_away()
    assert (waiting[0].error, waiting[0].current_leader) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, None)
    # It still leads, and has the record.
    network.contact_age = 1.0
    assert not network.replicas[1].send_away() and network.replicas[1].led() and network.end(1) == 1


def test_contact_rule_exempts_who_is_alone(networks: Any) -> None:
    network = networks(1, 2)
    network.cut.add(2)
    network.elect(1, 0, isr=(1,))
    network.contact_age = 100.0
    assert network.produce(1, batch(b"a"), acks=1)[0].error is ErrorCode.NONE


def test_under_a_flush_policy_what_counts_is_on_disk(networks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network = networks(1, 2)
    network.config = TopicConfig(flush_messages=1)
    network.elect(1, 0)
    one = network.produce(1, batch(b"a"), acks=1)
    everywhere = network.produce(1, batch(b"b"))
    network.run()
    assert one[0].error is everywhere[0].error is ErrorCode.NONE
    assert [network.logs[broker].logs[PARTITION].flushed_end_offset for broker in (1, 2)] == [2, 2]
    row = network.replicas[2].fetch_row(PARTITION)
    assert row is not None and row.flushed_offset == 2


def test_a_flush_policy_switched_on_while_leading_lowers_no_high_watermark(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    network.produce(1, batch(b"a"))
    network.run()
    assert [network.replicas[broker].high_watermarks()[PARTITION] for broker in (1, 2)] == [1, 1]
    logs = [network.logs[broker].logs[PARTITION] for broker in (1, 2)]
    assert [log.flushed_end_offset for log in logs] == [0, 0]
    network.config = TopicConfig(flush_messages=1)
    for broker in (1, 2):
        network.replicas[broker].configs_changed([PARTITION.topic])
    assert network.replicas[1].high_watermarks()[PARTITION] == 1
    network.run()
    assert [log.flushed_end_offset for log in logs] == [1, 1], "also where nothing is appended any more"
    network.elect(1, 1)
    assert network.replicas[1].high_watermarks()[PARTITION] == 1
    everywhere = network.produce(1, batch(b"b"))
    network.run()
    assert everywhere[0].error is ErrorCode.NONE
    assert [log.flushed_end_offset for log in logs] == [2, 2]


def test_a_failed_folder_fails_who_waits(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    network.cut.add(2)
    waiting = network.produce(1, batch(b"a"))
    reading = network.consume(1, 0, max_wait_ms=1000)
    log = network.logs[1].logs[PARTITION]
    network.logs[1].fail_dir(log.log_dir, "it broke")
    assert waiting[0].error is ErrorCode.KAFKA_STORAGE_ERROR
    assert reading[0].error is ErrorCode.KAFKA_STORAGE_ERROR
    assert network.produce(1, batch(b"a"))[0].error is ErrorCode.KAFKA_STORAGE_ERROR
    reason = network.replicas[1].apply(PARTITION, network.state._replace(leader_epoch=1))
    assert reason is not None and "it broke" in reason


def test_a_recreated_topic_sets_the_old_log_aside(networks: Any, tmp_path: Path) -> None:
    network = networks(1)
    network.elect(1, 0)
    network.produce(1, batch(b"a"))
    state = network.state._replace(topic_id="BBBBBBBBBBBBBBBBBBBBBA", leader_epoch=0, partition_epoch=0)
    assert network.replicas[1].apply(PARTITION, state) is None
    assert network.end(1) == 0
    assert [path.name for path in (tmp_path / "broker-1").glob("*-stray")]


def test_delete_removes_only_that_topic_id(networks: Any) -> None:
    network = networks(1)
    network.elect(1, 0)
    network.produce(1, batch(b"a"))
    done = network.replicas[1].delete(PARTITION, "BBBBBBBBBBBBBBBBBBBBBA")
    assert done.called and network.end(1) == 1
    done.addErrback(lambda _: None)
    network.replicas[1].delete(PARTITION, TOPIC_ID)
    assert network.replicas[1].hosted() == []
    assert network.consume(1, 0)[0].error is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_states_that_make_no_sense_are_refused(networks: Any) -> None:
    network = networks(1, 2)
    for replicas, leader, isr in (((2, 3), 2, (2,)), ((1, 2), 1, ()), ((1, 2), 1, (2,)), ((1, 2), 1, (1, 1))):
        state = PartitionState(TOPIC_ID, replicas, leader, 0, isr, 0, 1)
        assert network.replicas[1].apply(TopicPartition("odd", 0), state) is not None
    assert network.replicas[1].hosted() == []


def test_a_follower_behind_the_leaders_log_start_begins_there(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0, isr=(1,))
    network.controller = network.grant
    network.cut.add(2)
    for _ in range(5):
        network.produce(1, batch(b"a"))
    log = network.logs[1].logs[PARTITION]
    log.advance_log_start(3)
    network.cut.clear()
    network.fetchers[2].follow(PARTITION, 1)
    network.run()
    follower = network.logs[2].logs[PARTITION]
    assert (follower.log_start_offset, follower.log_end_offset, network.mark(2)) == (3, 5, 5)


def test_status_for_people(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    network.run()
    assert network.replicas[1].status_lines()[0] == "replicas: 1 (1 led, 0 catching up, 0 offline)"
    assert network.replicas[2].partition_lines("t") == [
        "t-0 follower of=1 leader_epoch=0 partition_epoch=0 in_sync=yes start=0 high_watermark=0 end=0"
    ]
    assert network.replicas[2].partition_lines("u") == []


def test_status_shows_who_else_may_lead(networks: Any) -> None:
    network = networks(1, 2)
    network.elect(1, 0, isr=(1,))
    told = network.state._replace(elr=(2,), partition_epoch=1)
    assert network.replicas[1].apply(PARTITION, told) is None
    assert "isr=1 elr=2 start=0" in network.replicas[1].partition_lines("t")[0]


def test_a_replica_that_lost_records_leads_only_if_a_person_let_it(networks: Any) -> None:
    network = networks(1, 2)
    losses = network.logs[2].losses.replicas
    network.elect(1, 0)
    losses[PARTITION] = LossyReplica(*PARTITION, TOPIC_ID, 0, 0)
    named = network.state._replace(leader=2, leader_epoch=1, partition_epoch=1, isr=(2,))
    refused = network.replicas[2].apply(PARTITION, named)
    assert refused is not None
    assert "came back without its unflushed end" in refused
    assert network.fetchers[2].session is None, "it would vouch for the former leader's contact for ever"
    uncleanly = named._replace(leader_epoch=2, partition_epoch=2, recovering=True)
    assert network.replicas[2].apply(PARTITION, uncleanly) is None
    assert "t-0 leader " in network.replicas[2].partition_lines("t")[0]


def test_what_a_follower_truncated_for_another_leader_is_not_counted(networks: Any) -> None:
    """Broker 3 leads for a moment, unheard of at broker 1, which leads on: it acknowledged what nobody else had."""
    network = networks(1, 2, 3)
    network.elect(1, 0)
    network.run()
    network.cut.add(3)
    waiting = network.produce(1, batch(b"a"))
    network.run()
    assert (waiting, network.end(2), network.end(3)) == ([], 1, 0)
    network.cut = {1}
    network.elect(3, 1, to=(2, 3))
    network.run()
    assert network.end(2) == 0, "it has what broker 3 had"
    network.elect(1, 2, isr=(1, 2), to=(1,))
    network.run()
    assert (waiting, network.mark(1)) == ([], 0)
    network.cut.clear()
    network.elect(1, 2, isr=(1, 2))
    network.run()
    assert (waiting[0].error, network.end(2)) == (ErrorCode.NONE, 1)

"""What follows from brokers' complaints of each other and of their own disks."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkbroker.controller.cluster_image import ClusterImage, Placement, TopicImage, TopicRules
from zkbroker.controller.complaints import HOLD_S, Complaints
from zkbroker.model.cluster import BrokerRegistration, Endpoint
from zkbroker.model.complaints import StalledDir, Unreachable, Word
from zkbroker.model.topics import PartitionState, TopicPartition

T0 = TopicPartition("t", 0)
T1 = TopicPartition("t", 1)
TIMEOUT_S = 6.0


def registered(broker_id: int, epoch: int | None = None) -> BrokerRegistration:
    epoch = broker_id * 10 if epoch is None else epoch
    return BrokerRegistration(broker_id, epoch, (Endpoint("REPLICATION", f"h{broker_id}", 9093),))


class Room:
    """An image with one topic, and what is said about its brokers."""

    def __init__(
        self, brokers: int = 3, *, min_insync: int = 2, partitions: tuple[TopicPartition, ...] = (T0,)
    ) -> None:
        self.image = ClusterImage()
        ids = tuple(range(1, brokers + 1))
        for broker_id in ids:
            self.image.brokers[broker_id] = registered(broker_id)
        self.image.topics["t"] = TopicImage("t", "id", {p.partition: Placement(ids) for p in partitions})
        self.image.rules["t"] = TopicRules(min_insync_replicas=min_insync)
        for partition in partitions:
            self.image.states[partition] = PartitionState("id", ids, 1, 4, ids, 7, 1)
        self.complaints = Complaints(self.image, session_timeout_s=TIMEOUT_S)

    def unreachable(self, speaker: int, *accused: int, seconds: float = 2.0, now: float = 0.0) -> list[TopicPartition]:
        word = Word(tuple(Unreachable(one, one * 10, seconds) for one in accused))
        return self.complaints.said(speaker, speaker * 10, word, now)

    def stalled(
        self, speaker: int, replicas: tuple[TopicPartition, ...], waiting: tuple[TopicPartition, ...], now: float = 0.0
    ) -> list[TopicPartition]:
        word = Word(stalled=(StalledDir("/data", 5.06, replicas, waiting),))
        return self.complaints.said(speaker, speaker * 10, word, now)

    def verdict(self, partition: TopicPartition = T0) -> PartitionState | None:
        return self.complaints.verdict(partition, self.image.states[partition], 9)

    def follow(self, partition: TopicPartition = T0) -> PartitionState:
        """Do what the verdict says."""
        after = self.verdict(partition)
        assert after is not None
        self.image.states[partition] = after
        return after


def test_two_of_two_followers_move_the_leadership_and_the_accused_leaves_the_isr() -> None:
    room = Room()
    assert room.unreachable(2, 1) == [T0]
    assert room.verdict() is None
    assert room.unreachable(3, 1) == [T0]
    after = room.verdict()
    assert after is not None
    assert (after.leader, after.isr, after.leader_epoch, after.partition_epoch) == (2, (2, 3), 5, 8)
    assert after.controller_epoch == 9
    assert after.reason == "2 of 2 ISR followers cannot reach broker 1"


def test_half_of_the_followers_are_no_majority() -> None:
    room = Room(5, min_insync=2)
    room.unreachable(2, 1)
    room.unreachable(3, 1)
    assert room.verdict() is None
    room.unreachable(5, 1)
    after = room.verdict()
    assert after is not None and after.leader == 2
    assert after.reason == "3 of 4 ISR followers cannot reach broker 1"


def test_one_of_those_who_complained_leads() -> None:
    room = Room(4, min_insync=2)
    room.unreachable(3, 1)
    room.unreachable(4, 1)
    after = room.verdict()
    assert after is not None
    assert (after.leader, after.isr) == (3, (2, 3, 4))


def test_never_below_min_isr() -> None:
    room = Room(3, min_insync=3)
    room.unreachable(2, 1, seconds=5.9)
    room.unreachable(3, 1, seconds=5.9)
    assert room.verdict() is None


def test_with_the_isr_too_small_already_the_eligible_take_over() -> None:
    """Torture, cut-peers-controller: a controller that was cut off, and led, shrank its ISR to itself by the lag of its
    followers before it gave the office up; then nobody could write until the cut healed."""
    room = Room()
    room.image.states[T0] = room.image.states[T0]._replace(isr=(1,), elr=(2, 3))
    assert room.unreachable(2, 1) == [T0]
    assert room.verdict() is None
    room.unreachable(3, 1)
    after = room.follow()
    assert (after.leader, after.isr, after.elr, after.leader_epoch) == (2, (2,), (1, 3), 5)
    assert after.reason == "2 of 2 ISR and ELR followers cannot reach broker 1"
    assert room.verdict() is None


def test_the_eligible_take_over_only_where_they_suffice() -> None:
    room = Room()
    room.image.states[T0] = room.image.states[T0]._replace(isr=(1,), elr=(2, 3))
    room.image.shutting_down[3] = 30
    room.unreachable(2, 1)
    room.unreachable(3, 1)
    assert room.verdict() is None
    room.image.shutting_down.clear()
    room.image.states[T0] = room.image.states[T0]._replace(elr=(2,))
    assert room.verdict() is None


def test_what_is_left_of_a_small_isr_goes_before_the_eligible() -> None:
    room = Room(5, min_insync=3)
    room.image.states[T0] = room.image.states[T0]._replace(isr=(1, 4), elr=(2, 3))
    for member in (2, 3, 4):
        room.unreachable(member, 1)
    after = room.follow()
    assert (after.leader, after.isr, after.elr) == (4, (4,), (1, 2, 3))


def test_the_leadership_does_not_go_round_among_the_eligible_for_ever() -> None:
    """All are cut from all: somebody leads in the end, and who was found well lately is tried again."""
    room = Room()
    room.image.states[T0] = room.image.states[T0]._replace(isr=(1,), elr=(2, 3))
    leaders = []
    for _ in range(6):
        leader = room.image.states[T0].leader
        for broker in (1, 2, 3):
            room.unreachable(broker, *([leader] if broker != leader else []))
        after = room.verdict()
        if after is not None:
            room.image.states[T0] = after
            leaders.append(after.leader)
    assert leaders == [2, 3, 1]


def test_the_brokers_default_counts_where_the_topic_says_nothing() -> None:
    room = Room(2)
    room.image.rules.clear()
    room.image.min_insync_replicas_default = 2
    room.unreachable(2, 1)
    assert room.verdict() is None
    room.image.min_insync_replicas_default = 1
    after = room.verdict()
    assert after is not None and (after.leader, after.isr) == (2, (2,))


def test_min_isr_is_no_more_than_the_replicas() -> None:
    room = Room(2, min_insync=5)
    room.unreachable(2, 1)
    assert room.verdict() is None
    room.image.states[T0] = room.image.states[T0]._replace(replicas=(1, 2, 3), isr=(1, 2))
    assert room.verdict() is None


def test_a_follower_that_is_not_there_neither_leads_nor_counts_towards_min_isr() -> None:
    room = Room(3, min_insync=2)
    room.image.shutting_down[3] = 30
    room.unreachable(2, 1)
    room.unreachable(3, 1)
    assert room.verdict() is None


def test_a_voice_of_another_incarnation_or_against_one_counts_for_nothing() -> None:
    room = Room()
    assert room.complaints.said(2, 19, Word((Unreachable(1, 10, 2.0),)), 0.0) == []
    room.complaints.said(2, 20, Word((Unreachable(1, 9, 2.0),)), 0.0)
    room.unreachable(3, 1)
    assert room.verdict() is None
    room.unreachable(2, 1)
    assert room.verdict() is not None
    room.image.brokers[1] = registered(1, 11)
    assert room.verdict() is None


def test_a_speaker_that_restarted_is_not_counted_by_what_it_said_before() -> None:
    room = Room()
    room.unreachable(2, 1)
    room.unreachable(3, 1)
    room.image.brokers[3] = registered(3, 31)
    assert room.verdict() is None


def test_a_word_is_withdrawn_by_the_next_and_forgotten_when_it_is_not_renewed() -> None:
    room = Room()
    room.unreachable(2, 1)
    room.unreachable(3, 1)
    assert room.unreachable(3) == [T0]
    assert room.verdict() is None
    room.unreachable(3, 1, now=1.0)
    assert room.complaints.next_deadline() == pytest.approx(2.0)
    assert room.complaints.time_passed(2.0) == [T0]
    assert room.verdict() is None
    assert room.complaints.next_deadline() == pytest.approx(3.0)
    room.complaints.time_passed(3.0)
    assert room.complaints.next_deadline() is None


def test_one_follower_alone_leaves_the_isr_after_its_fellows_had_time_to_join_in() -> None:
    room = Room()
    room.unreachable(3, 1, seconds=2.0, now=0.0)
    room.unreachable(3, 1, seconds=3.9, now=1.9)
    assert room.verdict() is None
    ripe_at = room.complaints.next_deadline()
    assert ripe_at is not None and ripe_at == pytest.approx(2.0)
    assert room.complaints.time_passed(ripe_at) == [T0]
    after = room.verdict()
    assert after is not None
    assert (after.leader, after.isr, after.leader_epoch) == (1, (1, 2), 5)
    assert after.reason == "broker 3 cannot reach broker 1"


def test_a_new_controller_waits_for_all_voices_before_one_follower_leaves() -> None:
    """Found by the simulator: the first of two old complaints took a member away that the second would have needed."""
    room = Room()
    room.unreachable(3, 1, seconds=5.0, now=0.0)
    assert room.verdict() is None
    room.unreachable(3, 1, seconds=5.2, now=0.2)
    assert room.verdict() is None
    room.unreachable(2, 1, seconds=5.2, now=0.3)
    after = room.verdict()
    assert after is not None and (after.leader, after.isr) == (2, (2, 3))
    room.unreachable(2, now=0.4)
    room.unreachable(3, 1, seconds=5.6, now=1.8)
    after = room.verdict()
    assert after is not None and (after.leader, after.isr) == (1, (1, 2))


def test_a_follower_that_stopped_fetching_leaves_on_the_leaders_word() -> None:
    room = Room()
    word = Word(silent=(Unreachable(3, 30, 3.0),))
    assert room.complaints.said(1, 10, word, 0.0) == [T0]
    assert room.verdict() is None
    assert room.complaints.time_passed(1.8) == [T0]
    after = room.verdict()
    assert after is not None
    assert (after.leader, after.isr) == (1, (1, 2))
    assert after.reason == "broker 3 has stopped fetching from broker 1"
    # nobody but the leader knows who fetches from it
    room.complaints.said(1, 10, Word(), 1.9)
    room.complaints.said(2, 20, Word(silent=(Unreachable(3, 30, 6.0),)), 1.9)
    room.complaints.time_passed(3.8)
    assert room.verdict() is None


def test_a_leader_that_hears_none_of_its_followers_removes_none() -> None:
    """It is cut off itself, and would leave its successor's controller nothing to move the leadership to."""
    room = Room()
    room.complaints.said(1, 10, Word(silent=(Unreachable(2, 20, 6.0), Unreachable(3, 30, 3.0))), 0.0)
    room.complaints.said(1, 10, Word(silent=(Unreachable(2, 20, 8.0), Unreachable(3, 30, 5.0))), 1.9)
    assert room.verdict() is None
    room.complaints.said(1, 10, Word(silent=(Unreachable(2, 20, 8.1),)), 2.0)
    after = room.verdict()
    assert after is not None
    assert (after.leader, after.isr) == (1, (1, 3))


def test_a_leader_that_hears_none_of_its_followers_loses_none_on_a_followers_word() -> None:
    """What it sends reaches nobody, and it is the controller, whom one follower's word has reached: with that follower
    gone from the ISR its successor in the office could not move the leadership (torture, one-way-out)."""
    room = Room()
    room.complaints.said(1, 10, Word(silent=(Unreachable(2, 20, 1.8), Unreachable(3, 30, 1.5))), 0.0)
    room.unreachable(2, 1, seconds=2.0, now=0.0)
    room.complaints.said(1, 10, Word(silent=(Unreachable(2, 20, 3.6), Unreachable(3, 30, 3.3))), 1.8)
    room.unreachable(2, 1, seconds=6.0, now=1.9)
    assert room.verdict() is None
    room.unreachable(3, 1, seconds=5.0, now=1.9)
    assert room.follow().reason == "2 of 2 ISR followers cannot reach broker 1"


def test_one_follower_alone_stays_where_the_isr_cannot_do_without_it() -> None:
    room = Room(3, min_insync=3)
    room.unreachable(3, 1, seconds=5.0)
    assert room.verdict() is None


def test_a_stalled_leader_is_moved_on_its_own_word() -> None:
    room = Room()
    assert room.stalled(1, (T0,), ()) == [T0]
    after = room.verdict()
    assert after is not None
    assert (after.leader, after.isr) == (2, (2, 3))
    assert after.reason == "broker 1's log folder /data stalled for 5.1 s"


def test_nobody_whose_own_folder_is_stalled_leads() -> None:
    room = Room(3, min_insync=1)
    room.stalled(2, (T0,), ())
    room.stalled(1, (T0,), (T0,))
    after = room.verdict()
    assert after is not None and (after.leader, after.isr) == (3, (2, 3))
    room.stalled(3, (T0,), ())
    assert room.verdict() is None


def test_a_follower_whose_append_waits_leaves_and_one_that_is_only_in_the_folder_stays() -> None:
    room = Room()
    room.stalled(3, (T0,), ())
    assert room.verdict() is None
    room.stalled(3, (T0,), (T0,))
    after = room.verdict()
    assert after is not None
    assert (after.leader, after.isr) == (1, (1, 2))
    assert after.reason == "broker 3's log folder /data stalled for 5.1 s"


def test_as_many_stalled_followers_leave_as_can() -> None:
    room = Room(3, min_insync=2)
    room.stalled(2, (T0,), (T0,))
    room.stalled(3, (T0,), (T0,))
    after = room.follow()
    assert (after.leader, after.isr) == (1, (1, 3))
    assert room.verdict() is None


def test_the_accused_is_not_trusted_for_a_while_and_longer_each_time() -> None:
    room = Room(partitions=(T0, T1))
    for partition in (T0, T1):
        room.unreachable(2, 1)
        room.unreachable(3, 1)
        room.follow(partition)
    assert not room.complaints.is_trusted(1, T0)
    room.complaints.time_passed(HOLD_S - 1)
    assert room.complaints.next_deadline() == HOLD_S  # nobody need say anything for it to end
    assert not room.complaints.is_trusted(1, T1)
    room.complaints.time_passed(HOLD_S)
    assert room.complaints.is_trusted(1, T0)
    room.image.states[T0] = PartitionState("id", (1, 2, 3), 1, 9, (1, 2, 3), 12, 1)
    room.unreachable(2, 1, now=HOLD_S + 1)
    room.unreachable(3, 1, now=HOLD_S + 1)
    room.follow()
    room.complaints.time_passed(HOLD_S * 3)
    assert not room.complaints.is_trusted(1, T0)
    room.complaints.time_passed(HOLD_S * 3 + 1)
    assert room.complaints.is_trusted(1, T0)


def test_people_are_told() -> None:
    room = Room()
    room.unreachable(2, 1)
    room.unreachable(3, 1)
    room.stalled(1, (T0,), ())
    room.follow()
    assert room.complaints.lines() == [
        "broker 1's log folder /data has stalled",
        "broker 2 cannot reach leader 1",
        "broker 3 cannot reach leader 1",
        "broker 1 is not given leaderships for another 60 s",
    ]
    room.complaints.time_passed(100.0)
    assert room.complaints.lines() == []


def test_elections_on_other_grounds_prefer_whom_we_trust() -> None:
    room = Room()
    room.stalled(1, (T0,), ())
    elected = room.image.states[T0]._replace(leader=1)
    assert room.complaints.trusted(T0, elected).leader == 2
    assert room.complaints.trusted(T0, elected._replace(isr=(1,))).leader == 1
    assert room.complaints.trusted(T0, elected._replace(leader=-1)).leader == -1
    room.complaints.said(1, 10, Word(), 0.0)
    assert room.complaints.trusted(T0, elected) is elected


def test_the_held_down_lead_where_nobody_else_can() -> None:
    room = Room(3, min_insync=1)
    for leader, others in ((1, (2, 3)), (2, (1, 3)), (3, (1, 2))):
        room.image.states[T0] = PartitionState("id", (1, 2, 3), leader, 4, (1, 2, 3), 7, 1)
        for broker in (1, 2, 3):
            room.unreachable(broker, *([leader] if broker in others else []))
        assert room.follow().leader != leader
    assert not any(room.complaints.is_trusted(broker, T0) for broker in (1, 2, 3))
    room.image.states[T0] = PartitionState("id", (1, 2, 3), 3, 8, (1, 2, 3), 9, 1)
    room.unreachable(1, 3)
    room.unreachable(2, 3)
    assert room.follow().leader in (1, 2)


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_is_said_no_verdict_worsens_anything_and_they_come_to_an_end(seed: int) -> None:
    source = random.Random(seed)
    size = source.randint(2, 5)
    minimum = source.randint(1, size)
    room = Room(size, min_insync=minimum)
    ids = list(range(1, size + 1))
    isr = tuple(source.sample(ids, source.randint(1, size)))
    elr: tuple[int, ...] = ()
    if len(isr) < minimum:
        elr = tuple(member for member in ids if member not in isr and source.random() < 0.7)
    room.image.states[T0] = PartitionState("id", tuple(ids), source.choice(isr), 3, isr, 5, 1, elr=elr)
    for gone in source.sample(ids, source.randint(0, 1)):
        room.image.shutting_down[gone] = gone * 10
    now = 0.0
    for _ in range(source.randint(1, 12)):
        now += source.choice((0.0, 0.3, 1.5))
        speaker = source.choice(ids)
        unreachable = tuple(
            Unreachable(one, one * 10 - source.choice((0, 0, 1)), source.uniform(2.0, 6.0))
            for one in source.sample(ids, source.randint(0, size))
        )
        stalled: tuple[StalledDir, ...] = ()
        if source.random() < 0.3:
            stalled = (StalledDir("/d", 5.0, (T0,), source.choice(((), (T0,)))),)
        silent = tuple(Unreachable(one, one * 10, 5.0) for one in ids if source.random() < 0.2)
        room.complaints.said(speaker, speaker * 10, Word(unreachable, stalled, silent), now)
        if source.random() < 0.3:
            room.complaints.time_passed(now)
    for _ in range(2 * size + 1):
        before = room.image.states[T0]
        after = room.verdict()
        if after is None:
            break
        assert after.leader in after.isr and after.leader_epoch == before.leader_epoch + 1
        assert after.partition_epoch == before.partition_epoch + 1
        assert set(after.isr) | set(after.elr) <= set(before.isr) | set(before.elr)
        if before.elr:
            assert set(after.isr) | set(after.elr) == set(before.isr) | set(before.elr)
            assert len(set(before.isr + before.elr) - {before.leader}) >= min(minimum, size)
        else:
            assert set(after.isr) < set(before.isr) and not after.elr
            assert len(after.isr) >= min(minimum, size)
        assert after.reason
        if after.leader != before.leader:
            assert before.leader not in after.isr
            assert room.image.is_online(after.leader, T0)
        room.image.states[T0] = after
    assert room.verdict() is None

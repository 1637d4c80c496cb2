"""What the controller's log tells people who wait for a leader, or asked for the preferred one."""

from __future__ import annotations

from tests.unit.controller_cluster import Cluster
from zkbroker.controller.cluster_image import Placement, TopicImage, TopicRules
from zkbroker.controller.controller import Controller
from zkbroker.controller.effects import Effect, Log, WriteStates
from zkbroker.controller.explaining import LEADERLESS_COUNT_MAX, leaderless_lines
from zkbroker.controller.office import ControllerRules
from zkbroker.model.cluster import ALL_LOSSY, BrokerRegistration, Endpoint, LossyReplica
from zkbroker.model.complaints import StalledDir, Unreachable, Word
from zkbroker.model.topics import PartitionState, TopicPartition

REPLICAS = (1, 2, 3)
STATE = PartitionState("id", REPLICAS, 1, 4, REPLICAS, 7, 1)
LEADERLESS = STATE._replace(leader=-1)
PERSON = "zkbroker-leader-election --election-type unclean --topic t --partition 0"


def registered(broker_id: int, *lossy: LossyReplica) -> BrokerRegistration:
    return BrokerRegistration(broker_id, broker_id * 10, (Endpoint("REPLICATION", f"h{broker_id}", 9093),), lossy=lossy)


def lost(end: int, epoch: int = 4, partition: int = 0) -> LossyReplica:
    return LossyReplica("t", partition, "id", epoch, end)


def lines(effects: list[Effect]) -> list[str]:
    return [effect.line for effect in effects if isinstance(effect, Log)]


class Office:
    """One term, in which every write succeeds at once."""

    def __init__(self, state: PartitionState, *brokers: BrokerRegistration, partitions: int = 1) -> None:
        self.controller = Controller(2, 1, ControllerRules(session_timeout_s=6.0, min_insync_replicas=1))
        self.lines: list[str] = []
        topic = TopicImage("t", "id", {number: Placement(REPLICAS) for number in range(partitions)})
        states = {TopicPartition("t", number): (state, 100) for number in range(partitions)}
        self.do(self.controller.cluster_read(brokers, [topic], states, {"t": TopicRules()}, [], 0.0))

    def do(self, effects: list[Effect]) -> list[str]:
        """Run the effects. Returns the new lines."""
        before = len(self.lines)
        self.lines += lines(effects)
        for effect in effects:
            if isinstance(effect, WriteStates):
                self.do(self.controller.states_found([(write.partition, write.state) for write in effect.writes]))
        return self.lines[before:]

    def ask(self, *partitions: int) -> list[str]:
        return self.do(self.controller.preferred_election_requested([TopicPartition("t", p) for p in partitions]))


ALL = tuple(registered(broker_id) for broker_id in REPLICAS)


def accused(partitions: int = 1) -> Office:
    """Broker 1 lost its leadership to broker 2 on the others' word, and is back in the ISR."""
    office = Office(STATE, *ALL, partitions=partitions)
    for speaker in (2, 3):
        word = Word((Unreachable(1, 10, 2.0),))
        office.do(office.controller.complained(speaker, speaker * 10, word, 10.0))
    for speaker in (2, 3):
        office.do(office.controller.complained(speaker, speaker * 10, Word(), 12.0))
    for number in range(partitions):
        partition = TopicPartition("t", number)
        state = office.controller.image.states[partition]
        assert (state.leader, state.isr) == (2, (2, 3))
        back = state._replace(isr=(2, 3, 1), partition_epoch=state.partition_epoch + 1)
        office.do(office.controller.states_found([(partition, back)]))
    return office


def test_a_preferred_leader_that_was_complained_of_is_declined_with_the_reason() -> None:
    office = accused()
    office.do(office.controller.time_passed(12.5))  # no balance is due for a while
    told = "preferred leader election of t-0 declined: after complaints broker 1 is not given leaderships for another"
    assert office.ask(0) == [f"{told} 58 s"]
    assert office.do(office.controller.time_passed(69.0)) == []
    assert office.ask(0) == [f"{told} 1 s"]
    office.do(office.controller.time_passed(71.0))
    (line,) = office.ask(0)
    assert line.startswith("t-0 leader=1 ") and line.endswith("(preferred leader)")


def test_many_partitions_of_one_reason_are_one_line() -> None:
    (line,) = accused(7).ask(*range(7))
    assert line.startswith("preferred leader election of t-0, t-1, t-2, t-3, t-4 and 2 more declined: after complaints")


def test_the_controllers_own_balance_says_so_too() -> None:
    office = accused()
    assert office.controller.rules.auto_rebalance
    (line,) = office.do(office.controller.time_passed(13.0))
    assert line.startswith("preferred leader election of t-0 declined: after complaints broker 1 ")


def test_other_reasons_for_declining() -> None:
    led_by_2 = STATE._replace(leader=2)

    def told(state: PartitionState, *brokers: BrokerRegistration) -> list[str]:
        return [line.partition(" declined: ")[2] for line in Office(state, *brokers).ask(0)]

    assert told(led_by_2._replace(isr=(2, 3)), *ALL) == ["broker 1 is not in the ISR"]
    assert told(led_by_2._replace(isr=(2, 3)), *ALL[1:]) == ["broker 1 is not online"]
    lossy = registered(1, lost(5))
    assert told(led_by_2._replace(isr=(2, 3)), lossy, *ALL[1:]) == ["broker 1 came back without unflushed data"]
    assert Office(STATE, *ALL).ask(0) == [], "it leads"
    assert Office(STATE, *ALL).ask(9) == ["preferred leader election of t-9 declined: there is no such partition"]
    office = Office(led_by_2, *ALL)
    stalled = Word(stalled=(StalledDir("/data", 2.0, (TopicPartition("t", 0),), ()),))
    office.do(office.controller.complained(1, 10, stalled, 1.0))
    assert office.ask(0) == ["preferred leader election of t-0 declined: broker 1's log folder /data has stalled"]


def test_all_lost_unflushed_data_a_person_is_told_what_is_left_and_what_to_set() -> None:
    brokers = (registered(1, lost(40)), registered(2, lost(55)), registered(3, lost(-1, -1)))
    (line,) = Office(STATE, *brokers).lines
    assert line.startswith("t-0 leader=-1 ")
    assert line.endswith(
        "; waits for a person: back without unflushed data: broker 1 (up to offset 40), broker 2 (up to offset 55), "
        f"broker 3 (log gone); {PERSON} elects broker 2 and accepts the loss"
    )


def test_logs_that_end_at_0_wait_for_a_person_too() -> None:
    """Nobody can tell a partition that was empty from one that lost everything."""
    office = Office(STATE, *(registered(broker_id, lost(0)) for broker_id in REPLICAS))
    assert office.controller.image.states[TopicPartition("t", 0)].leader == -1
    assert "waits for a person" in office.lines[0]


def test_a_member_that_is_away_is_waited_for() -> None:
    brokers = (registered(1, lost(40)), registered(2, ALL_LOSSY))
    (line,) = Office(STATE, *brokers).lines
    assert line.endswith(
        "; waits for broker 3 to come back with its log folders; back without unflushed data: broker 1 (up to offset "
        f"40), broker 2 (how much is left was not told); if none of them ever does, {PERSON} elects another and loses "
        "what it lacks"
    )


def test_a_new_controller_says_it_again_unless_it_elects() -> None:
    isr = LEADERLESS._replace(isr=(3,))
    (line,) = Office(isr, *ALL[:2]).lines
    assert line == (
        f"t-0 has no leader: waits for broker 3 to come back with its log folders; if none of them ever does, {PERSON} "
        "elects another and loses what it lacks"
    )
    (line,) = Office(isr, *ALL).lines
    assert line.startswith("t-0 leader=3 ")


def test_of_many_partitions_without_a_leader_a_few_are_named() -> None:
    office = Office(LEADERLESS._replace(isr=(3,)), *ALL[:2], partitions=LEADERLESS_COUNT_MAX + 3)
    assert office.lines == leaderless_lines(office.controller.image)
    assert len(office.lines) == LEADERLESS_COUNT_MAX + 1
    assert office.lines[-1].startswith("3 more partitions have no leader: ")


def test_status_names_them_at_the_controller() -> None:
    cluster = Cluster()
    cluster.create(assignment=((0, (2, 3)),), partitions=-1, factor=-1)
    assert not any("has no leader" in line for line in cluster.controller.problems())
    cluster.kill(2)
    cluster.turns()
    cluster.kill(3)
    cluster.turns()
    (line,) = [line for line in cluster.controller.problems() if "has no leader" in line]
    assert line.startswith("t-0 has no leader: waits for broker 3 to come back with its log folders; ")

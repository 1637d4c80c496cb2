"""A follower that joins the ISR fetches: what it was said to suffer from a moment before is over."""

from __future__ import annotations

from zkbroker.controller.cluster_image import Placement, TopicImage
from zkbroker.controller.controller import Controller
from zkbroker.controller.effects import Effect, WriteStates
from zkbroker.controller.office import ControllerRules
from zkbroker.model.channel import AlterPartitionRequest, IsrProposal
from zkbroker.model.cluster import BrokerRegistration, Endpoint
from zkbroker.model.complaints import Unreachable, Word
from zkbroker.model.topics import PartitionState, TopicPartition

T0 = TopicPartition("t", 0)
STATE = PartitionState("id", (1, 2, 3), 1, 4, (1, 2), 7, 1)


def written(effects: list[Effect]) -> list[PartitionState]:
    return [write.state for effect in effects if isinstance(effect, WriteStates) for write in effect.writes]


def office() -> Controller:
    """Broker 3 said that it cannot reach its leader, which said that broker 3 does not fetch."""
    controller = Controller(2, 1, ControllerRules(session_timeout_s=6.0, min_insync_replicas=2))
    brokers = [BrokerRegistration(one, one * 10, (Endpoint("REPLICATION", f"h{one}", 9093),)) for one in (1, 2, 3)]
    topic = TopicImage("t", "id", {0: Placement((1, 2, 3))})
    effects = controller.cluster_read(brokers, [topic], {T0: (STATE, 100)}, {}, [], 0.0)
    assert written(effects) == []
    controller.complained(3, 30, Word((Unreachable(1, 10, 4.0),)), 0.0)
    controller.complained(1, 10, Word(silent=(Unreachable(3, 30, 4.0),)), 0.0)
    return controller


def joins(controller: Controller) -> PartitionState:
    proposal = IsrProposal("t", 0, "id", 1, 4, 7, ((1, 10), (2, 20), (3, 30)), False)
    (state,) = written(controller.isr_change_requested(5, AlterPartitionRequest(1, 10, (proposal,))))
    assert state.isr == (1, 2, 3)
    assert written(controller.states_found([(T0, state)])) == []
    return state


def test_it_is_not_taken_out_again_for_old_words_that_nobody_renewed() -> None:
    """Torture, cut-peers, seed 7: it was, just when its leader was cut off, and then nobody was left to lead."""
    controller = office()
    joins(controller)
    assert written(controller.time_passed(1.9)) == []


def test_what_is_said_afterwards_counts() -> None:
    controller = office()
    joins(controller)
    controller.complained(3, 30, Word((Unreachable(1, 10, 4.5),)), 1.0)
    (state,) = written(controller.time_passed(1.9))
    assert (state.leader, state.isr, state.reason) == (1, (1, 2), "broker 3 cannot reach broker 1")


def proposed(state: PartitionState, *members: int, recovering: bool = False) -> PartitionState:
    """What is written on the leader's proposal of that ISR."""
    controller = Controller(2, 1, ControllerRules(session_timeout_s=6.0, min_insync_replicas=1))
    brokers = [BrokerRegistration(one, one * 10, (Endpoint("REPLICATION", f"h{one}", 9093),)) for one in (1, 2, 3)]
    topic = TopicImage("t", "id", {0: Placement((1, 2, 3))})
    controller.cluster_read(brokers, [topic], {T0: (state, 100)}, {}, [], 0.0)
    isr = tuple((one, one * 10) for one in members)
    proposal = IsrProposal("t", 0, "id", 1, state.leader_epoch, state.partition_epoch, isr, recovering)
    (after,) = written(controller.isr_change_requested(5, AlterPartitionRequest(1, 10, (proposal,))))
    return after


def test_a_changed_isr_is_written_with_its_own_reason() -> None:
    """Not with that of the election before it, which is kept beside it."""
    why = "broker 3 refused connections, 2 of 2 peers agree"
    elected = STATE._replace(reason=why, leader_reason=why)
    assert proposed(elected, 1, 2, 3).leader_reason == proposed(elected, 1).leader_reason == why
    assert proposed(elected, 1, 2, 3).reason == "broker 3 caught up and joined the ISR"
    assert proposed(elected, 1).reason == "broker 2 fell behind and left the ISR"
    assert (
        proposed(elected, 1, 3).reason == "broker 3 caught up and joined the ISR, broker 2 fell behind and left the ISR"
    )
    unclean = STATE._replace(isr=(1,), recovering=True, reason="unclean: no member of ISR 2 is online")
    assert proposed(unclean, 1).reason == "broker 1 leads with what an unclean election left"
    assert proposed(unclean, 1, 2).reason == "broker 2 caught up and joined the ISR"

"""Topics that go and come back: created again while a write of the old one is under way, or readable again."""

from __future__ import annotations

from zkbroker.controller.cluster_image import Placement, TopicImage
from zkbroker.controller.controller import Controller
from zkbroker.controller.effects import Effect, PushDelta, WriteStates
from zkbroker.controller.office import ControllerRules
from zkbroker.model.cluster import BrokerRegistration, Endpoint
from zkbroker.model.topics import PartitionState, TopicPartition

T0 = TopicPartition("t", 0)


def topic(topic_id: str) -> TopicImage:
    return TopicImage("t", topic_id, {0: Placement((1, 2))})


def written(effects: list[Effect]) -> list[PartitionState]:
    return [write.state for effect in effects if isinstance(effect, WriteStates) for write in effect.writes]


def told_epochs(controller: Controller) -> list[int]:
    deltas = [effect.delta for effect in controller.turn_ended() if isinstance(effect, PushDelta)]
    return [state.leader_epoch for delta in deltas for _, state in delta.partitions]


def test_what_the_old_topic_s_write_found_is_not_taken_for_the_new_topic() -> None:
    controller = Controller(9, 1, ControllerRules())
    brokers = [BrokerRegistration(broker, 10 * broker, (Endpoint("REPLICATION", "h", 1),)) for broker in (1, 2)]
    controller.brokers_changed(brokers, 0.0)
    [first] = written(controller.topic_read(topic("old")))
    controller.states_found([(T0, first)])
    [moved] = written(controller.brokers_changed(brokers[1:], 0.0))
    assert (moved.leader, moved.leader_epoch) == (2, 1)
    [fresh] = written(controller.topic_read(topic("new")))
    assert (fresh.topic_id, fresh.leader_epoch) == ("new", 0)
    assert written(controller.states_found([(T0, moved)])) == []
    assert T0 not in controller.image.states
    controller.states_found([(T0, fresh)])
    assert controller.image.states[T0] == fresh


def test_a_leader_that_restarted_while_its_topic_could_not_be_read_hears_only_the_next_epoch() -> None:
    controller = Controller(9, 1, ControllerRules())
    brokers = [BrokerRegistration(broker, 100 * broker, (Endpoint("REPLICATION", "h", 1),)) for broker in (1, 2)]
    controller.brokers_changed(brokers, 0.0)
    controller.turn_ended()
    old = PartitionState("id", (1, 2), 1, 5, (1,), 7, 1)
    [moved] = written(controller.topic_read(topic("id"), None, {T0: (old, 50)}))
    assert (moved.leader, moved.leader_epoch) == (-1, 6)
    assert told_epochs(controller) == []
    [back] = written(controller.states_found([(T0, moved)]))
    assert (back.leader, back.leader_epoch) == (1, 7)
    assert told_epochs(controller) == [6]

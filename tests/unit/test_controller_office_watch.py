"""Whole controller loops on the fake ensemble: who hears too little steps down, and lets others go first."""

from __future__ import annotations

from tests.unit.controller_cluster import Cluster
from zkbroker.broker.controller_settings import ControllerSettings

SETTINGS = ControllerSettings(session_timeout_s=6.0, steps_down_unheard=True)


class Heartbeats:
    """Brokers that send heartbeats to whoever is controller, over links that can be cut."""

    def __init__(self, brokers: int) -> None:
        self.cluster = Cluster(brokers, settings=SETTINGS)
        self.cut: set[frozenset[int]] = set()
        self.holders: list[int] = []
        """Who held the office, one after the other."""

    def holder(self) -> int:
        return next((broker for broker, loop in self.cluster.loops.items() if loop.is_controller), -1)

    def isolate(self, broker_id: int) -> None:
        self.cut |= {frozenset((broker_id, other)) for other in self.cluster.loops if other != broker_id}

    def passes(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):
            holder = self.holder()
            if holder > 0:
                if not self.holders or self.holders[-1] != holder:
                    self.holders.append(holder)
                for broker in self.cluster.loops:
                    if frozenset((broker, holder)) not in self.cut:
                        self.cluster.loops[holder].heartbeat(broker, self.cluster.epoch(broker), 0.0)
            self.cluster.reactor.pump([0.02] * 5)


def test_a_controller_that_is_heard_stays() -> None:
    beats = Heartbeats(3)
    beats.passes(60.0)
    assert beats.holders == [1]


def test_a_controller_that_is_cut_off_is_followed_by_another_within_the_timeout_and_for_good() -> None:
    beats = Heartbeats(3)
    beats.passes(10.0)
    beats.isolate(1)
    beats.passes(3.6)
    assert beats.holder() in (2, 3)
    beats.passes(120.0)
    assert len(beats.holders) == 2
    assert any("other brokers (2,3) were not heard for 3 s" in line for line in beats.cluster.lines)


def test_of_two_brokers_that_are_cut_from_each_other_the_controller_stays() -> None:
    beats = Heartbeats(2)
    beats.isolate(1)
    beats.passes(120.0)
    assert beats.holders == [1]


def test_when_everybody_is_cut_from_everybody_the_office_moves_ever_less_often() -> None:
    beats = Heartbeats(3)
    for broker in (1, 2, 3):
        beats.isolate(broker)
    beats.passes(60.0)
    in_a_minute = len(beats.holders)
    beats.passes(60.0)
    assert 3 <= in_a_minute <= 10
    assert len(beats.holders) - in_a_minute <= 3


def test_when_nobody_else_stands_it_has_its_office_back_soon_and_stays() -> None:
    beats = Heartbeats(3)
    beats.isolate(1)
    for other in (2, 3):
        beats.cluster.loops[other].registration_lost()
    beats.passes(7.0)
    assert beats.holder() == 1
    epoch = beats.cluster.loops[1].controller_epoch
    assert epoch == 2
    beats.passes(60.0)
    assert beats.cluster.loops[1].controller_epoch == epoch


def test_one_that_is_cut_off_does_not_win_the_office_again_while_another_wants_it() -> None:
    beats = Heartbeats(3)
    beats.isolate(1)
    beats.passes(5.0)
    successor = beats.holder()
    assert successor in (2, 3)
    for _ in range(3):
        beats.cluster.sessions[2].delete("/controller")
        beats.passes(3.0)
        assert beats.holder() in (2, 3)

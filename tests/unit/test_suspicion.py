"""Verdicts about dead brokers: what it takes, what prevents it, how long it lasts (architecture.md, fast failover)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkbroker.controller.suspicion import (
    ASK_AGAIN_S,
    FRESH_S,
    HOLD_DOWN_S,
    STAND_AFTER_S,
    VETO_WAIT_S,
    Ask,
    Condemned,
    Effect,
    Probe,
    Stand,
    Suspicions,
)
from zkbroker.model.cluster import BrokerRegistration, Endpoint
from zkbroker.model.suspicion import Evidence, Finding, Suspect, probed_endpoints, suspect_of

PROBE_S = 0.4


def registration(broker_id: int, epoch: int = 10, port: int = 9092) -> BrokerRegistration:
    host = f"h{broker_id}"
    endpoints = (Endpoint("PLAINTEXT", host, port), Endpoint("REPLICATION", host, port + 10_000))
    return BrokerRegistration(broker_id, epoch, endpoints)


class Judge:
    """One broker's suspicions in a cluster of ``count``."""

    def __init__(self, count: int = 3, own: int = 1, controller: int = 1) -> None:
        self.own = own
        self.no_isr: set[int] = set()
        self.suspicions = Suspicions(own, probe_s=PROBE_S, share_isr=lambda a, b: a not in self.no_isr)
        self.now = 100.0
        self.brokers = {broker: registration(broker) for broker in range(1, count + 1)}
        self.changed()
        self.suspicions.controller_changed(controller)

    def changed(self) -> None:
        self.suspicions.brokers_changed(list(self.brokers.values()), self.now)

    def suspect(self, broker_id: int) -> Suspect:
        return suspect_of(self.brokers[broker_id])

    def says(
        self, reporter: int, finding: Finding, about: int = 3, closed_ago_s: float = 0.0, suspect: Suspect | None = None
    ) -> list[Effect]:
        suspect = suspect or self.suspect(about)
        evidence = Evidence(suspect, reporter, 10, finding, closed_ago_s)
        return self.suspicions.noticed(evidence, self.now)

    def wait(self, seconds: float, each: Callable[[list[Effect]], None] = lambda effects: None) -> list[Effect]:
        """Let time pass as the shell would; ``each`` sees the effects at the moment they come."""
        until = self.now + seconds
        effects: list[Effect] = []
        while (deadline := self.suspicions.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            told = self.suspicions.time_passed(self.now)
            each(told)
            effects += told
        self.now = until
        return effects


def verdicts(effects: list[Effect]) -> list[str]:
    return [effect.reason for effect in effects if isinstance(effect, Condemned)]


def test_refused_by_all_peers_is_a_verdict() -> None:
    judge = Judge()
    assert verdicts(judge.says(1, Finding.REFUSED)) == []
    assert verdicts(judge.says(2, Finding.REFUSED)) == ["broker 3 refused connections, 2 of 2 peers agree"]
    assert [verdict.suspect for verdict in judge.suspicions.condemned()] == [judge.suspect(3)]


def test_a_majority_without_this_broker_is_none() -> None:
    judge = Judge(5)
    effects = judge.says(2, Finding.REFUSED) + judge.says(4, Finding.REFUSED) + judge.says(5, Finding.REFUSED)
    assert Probe(judge.suspect(3)) in effects
    assert verdicts(effects + judge.wait(1.0)) == []
    assert verdicts(judge.says(1, Finding.REFUSED)) == ["broker 3 refused connections, 4 of 4 peers agree"]


def test_half_of_the_peers_are_no_majority() -> None:
    judge = Judge(5)
    effects = judge.says(1, Finding.REFUSED) + judge.says(2, Finding.REFUSED) + judge.says(4, Finding.ACCEPTED)
    assert verdicts(effects + judge.wait(1.0)) == []


def test_those_who_said_nothing_are_waited_for_a_moment_and_asked() -> None:
    judge = Judge(5)
    effects = [effect for peer in (1, 2, 4) for effect in judge.says(peer, Finding.REFUSED)]
    assert verdicts(effects) == []
    effects += judge.wait(VETO_WAIT_S)
    assert verdicts(effects) == ["broker 3 refused connections, 3 of 4 peers agree"]
    assert Ask(5, judge.suspect(3)) in effects


def test_an_isr_member_that_exchanges_traffic_vetoes() -> None:
    judge = Judge(5)
    effects = judge.says(5, Finding.REFUSED) + judge.says(5, Finding.TALKING)
    effects += [effect for peer in (1, 2, 4) for effect in judge.says(peer, Finding.REFUSED)]
    assert verdicts(effects + judge.wait(1.0)) == []


def test_one_that_shares_no_isr_has_no_veto() -> None:
    judge = Judge(5)
    judge.no_isr = {5}
    effects = judge.says(5, Finding.REFUSED) + judge.says(5, Finding.TALKING)
    effects += [effect for peer in (1, 2, 4) for effect in judge.says(peer, Finding.REFUSED)]
    assert len(verdicts(effects)) == 1


def test_class_2_needs_the_time_and_connections_closed_together() -> None:
    judge = Judge()
    judge.says(1, Finding.UNREACHABLE, closed_ago_s=PROBE_S - 0.01)
    assert verdicts(judge.says(2, Finding.UNREACHABLE, closed_ago_s=PROBE_S)) == []
    judge.now += 0.02
    effects = judge.says(1, Finding.UNREACHABLE, closed_ago_s=PROBE_S + 0.01)
    assert verdicts(effects) == ["broker 3 closed its connections and accepts none, 2 of 2 peers agree"]


@pytest.mark.parametrize("closed_ago_s", [-1.0, PROBE_S + 0.2])
def test_class_2_is_none_if_connections_ended_otherwise_or_one_after_the_other(closed_ago_s: float) -> None:
    judge = Judge()
    judge.says(1, Finding.UNREACHABLE, closed_ago_s=PROBE_S)
    assert verdicts(judge.says(2, Finding.UNREACHABLE, closed_ago_s=closed_ago_s) + judge.wait(1.0)) == []


def test_refused_by_one_and_silent_for_the_other_is_class_2() -> None:
    judge = Judge()
    judge.says(1, Finding.REFUSED, closed_ago_s=PROBE_S)
    assert len(verdicts(judge.says(2, Finding.UNREACHABLE, closed_ago_s=PROBE_S))) == 1


@pytest.mark.parametrize("finding", [Finding.BYE, Finding.RESTARTED])
def test_proof_alone(finding: Finding) -> None:
    judge = Judge(5)
    [verdict] = [effect for effect in judge.says(4, finding) if isinstance(effect, Condemned)]
    assert verdict.is_certain


def test_evidence_about_another_incarnation_or_address_or_by_a_stranger_is_nothing() -> None:
    judge = Judge()
    old = suspect_of(registration(3, epoch=9))
    moved = suspect_of(registration(3, port=9999))
    for suspect in (old, moved):
        assert judge.says(1, Finding.REFUSED, suspect=suspect) == []
        assert judge.says(2, Finding.BYE, suspect=suspect) == []
    assert judge.suspicions.noticed(Evidence(judge.suspect(3), 2, 9, Finding.BYE), judge.now) == []
    assert judge.suspicions.noticed(Evidence(judge.suspect(3), 7, 10, Finding.BYE), judge.now) == []
    assert judge.suspicions.noticed(Evidence(judge.suspect(1), 2, 10, Finding.BYE), judge.now) == []
    assert judge.suspicions.noticed(Evidence(judge.suspect(3), 3, 10, Finding.BYE), judge.now) == []


def test_old_evidence_does_not_count() -> None:
    judge = Judge()
    judge.says(2, Finding.REFUSED)
    judge.wait(FRESH_S + 0.1)
    assert verdicts(judge.says(1, Finding.REFUSED)) == []
    assert verdicts(judge.says(2, Finding.REFUSED)) != []


def test_a_verdict_falls_when_somebody_gets_through_and_ends_with_its_evidence() -> None:
    judge = Judge()
    judge.says(1, Finding.REFUSED)
    judge.says(2, Finding.REFUSED)
    judge.says(2, Finding.ACCEPTED)
    assert judge.suspicions.condemned() == []
    judge.wait(FRESH_S + 2 * ASK_AGAIN_S)
    assert judge.suspicions.next_deadline() is None


def test_a_verdict_is_said_again_while_it_lasts() -> None:
    judge = Judge()
    judge.says(1, Finding.REFUSED)
    judge.says(2, Finding.REFUSED)
    assert len(verdicts(judge.wait(3 * ASK_AGAIN_S))) == 3


def test_a_registration_that_goes_closes_the_account() -> None:
    judge = Judge()
    judge.says(1, Finding.REFUSED)
    judge.brokers[3] = registration(3, epoch=11)
    judge.changed()
    assert verdicts(judge.says(2, Finding.REFUSED) + judge.wait(1.0)) == []


def fence_falsely(judge: Judge, epoch: int, incarnation: str = "one") -> bool:
    """Broker 3 is condemned in this epoch, loses its registration and comes back under the next. True if that is taken
    for a false suspicion."""
    judge.suspicions.met(3, epoch, "one", judge.now)
    return fence_falsely_once_met(judge, epoch, incarnation)


def fence_falsely_once_met(judge: Judge, epoch: int = 10, incarnation: str = "one") -> bool:
    suspect = judge.suspect(3)
    for peer in (1, 2):
        judge.suspicions.noticed(Evidence(suspect, peer, 10, Finding.REFUSED, 0.0), judge.now)
    assert [verdict.suspect for verdict in judge.suspicions.condemned()] == [suspect]
    del judge.brokers[3]
    judge.changed()
    judge.brokers[3] = registration(3, epoch + 1)
    judge.changed()
    return judge.suspicions.met(3, epoch + 1, incarnation, judge.now)


def test_only_a_false_suspicion_holds_down_and_doubles() -> None:
    judge = Judge()
    assert not fence_falsely(judge, 10, incarnation="restarted")
    assert judge.suspicions.held_until(3) < judge.now
    assert fence_falsely(judge, 11)
    assert judge.suspicions.held_until(3) == judge.now + HOLD_DOWN_S
    judge.says(1, Finding.REFUSED)
    assert verdicts(judge.says(2, Finding.REFUSED) + judge.wait(1.0)) == []
    [certain] = verdicts(judge.says(2, Finding.BYE))
    assert certain == "broker 3 said BYE"
    judge.now += HOLD_DOWN_S + FRESH_S
    judge.wait(1.0)
    assert fence_falsely(judge, 12)
    assert judge.suspicions.held_until(3) == judge.now + 2 * HOLD_DOWN_S


def test_a_false_suspicion_is_known_also_if_the_victim_speaks_before_the_controller() -> None:
    """Its HELLO under the new epoch can be here before the delta that removes the old one."""
    for incarnation, is_false in (("one", True), ("restarted", False)):
        judge = Judge()
        judge.suspicions.met(3, 10, "one", judge.now)
        judge.says(1, Finding.REFUSED)
        judge.says(2, Finding.REFUSED)
        assert judge.suspicions.met(3, 11, incarnation, judge.now) is is_false
        assert (judge.suspicions.held_until(3) > judge.now) is is_false
        judge.brokers[3] = registration(3, epoch=11)
        judge.changed()
        assert not judge.suspicions.met(3, 11, incarnation, judge.now)
        assert judge.suspicions.held_until(3) <= judge.now + HOLD_DOWN_S


def test_words_of_an_earlier_registration_that_come_late_do_not_hide_a_false_suspicion() -> None:
    """A connection made under the old epoch is counted again when what was under way on it arrives at last."""
    judge = Judge()
    judge.suspicions.met(3, 10, "one", judge.now)
    judge.suspicions.met(3, 9, "one", judge.now)
    assert fence_falsely_once_met(judge)
    assert judge.suspicions.held_until(3) == judge.now + HOLD_DOWN_S


def test_the_lowest_live_id_stands_first_the_others_by_rank() -> None:
    stood = {}
    for own in (2, 3, 4):
        judge = Judge(4, own=own, controller=1)
        effects = [effect for peer in (2, 3, 4) for effect in judge.says(peer, Finding.REFUSED, about=1)]
        began = judge.now
        while not any(isinstance(effect, Stand) for effect in effects):
            effects = judge.wait(0.01)
            assert judge.now < began + 1.0
        stood[own] = judge.now - began
    assert stood[2] < 0.02
    assert stood[3] == pytest.approx(STAND_AFTER_S, abs=0.02)
    assert stood[4] == pytest.approx(2 * STAND_AFTER_S, abs=0.02)


def test_nobody_stands_when_another_than_the_controller_is_dead() -> None:
    judge = Judge(own=2, controller=1)
    effects = judge.says(1, Finding.REFUSED) + judge.says(2, Finding.REFUSED) + judge.wait(1.0)
    assert verdicts(effects) != [] and not any(isinstance(effect, Stand) for effect in effects)


def test_only_whoever_may_have_to_act_asks() -> None:
    bystander = Judge(5, own=2, controller=1)
    bystander.says(2, Finding.REFUSED)
    assert not any(isinstance(effect, Ask) for effect in bystander.wait(1.0))
    controller = Judge(5)
    controller.says(1, Finding.REFUSED)
    asked = {effect.broker_id for effect in controller.wait(1.0) if isinstance(effect, Ask)}
    assert asked == {2, 4, 5}


def test_probed_are_replication_and_a_listener_at_the_same_host() -> None:
    far, near, own = Endpoint("OUTSIDE", "x", 1), Endpoint("INSIDE", "h", 2), Endpoint("REPLICATION", "h", 3)
    assert probed_endpoints(BrokerRegistration(1, 1, (far, near, own))) == (own, near)
    assert probed_endpoints(BrokerRegistration(1, 1, (far, own))) == (own, far)
    assert probed_endpoints(BrokerRegistration(1, 1, (far,))) == ()


STEPS = st.lists(
    st.tuples(
        st.integers(1, 5),
        st.sampled_from([Finding.TALKING, Finding.ACCEPTED, Finding.REFUSED, Finding.UNREACHABLE]),
        st.sampled_from([-1.0, 0.0, 0.39, 0.4, 0.45, 0.6]),
        st.sampled_from([0.0, 0.0, 0.01, 0.3, 1.5, 2.5]),
    ),
    max_size=25,
)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_no_verdict_without_own_finding_majority_and_silence_of_isr_members(
    steps: list[tuple[int, Finding, float, float]],
) -> None:
    """Whatever the order: compared with the rule written down a second time, from the latest findings alone."""
    judge = Judge(5)
    latest: dict[int, tuple[Finding, float]] = {}

    def check(effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Condemned):
                fresh = {peer: found for peer, (found, at) in latest.items() if judge.now - at < FRESH_S + 1e-9}
                against = [peer for peer, found in fresh.items() if found in (Finding.REFUSED, Finding.UNREACHABLE)]
                assert 1 in against and len(against) >= 3
                assert Finding.TALKING not in fresh.values()

    for reporter, finding, closed_ago_s, pause_s in steps:
        judge.wait(pause_s, check)
        if reporter == 3:
            continue
        latest[reporter] = finding, judge.now
        check(judge.says(reporter, finding, closed_ago_s=closed_ago_s))
    judge.wait(5.0, check)


@given(st.permutations([1, 2, 4, 5]))
def test_the_order_of_the_reports_does_not_matter(order: list[int]) -> None:
    judge = Judge(5)
    effects = [effect for reporter in order for effect in judge.says(reporter, Finding.REFUSED)]
    told = verdicts(effects)
    assert told in (
        ["broker 3 refused connections, 4 of 4 peers agree"],
        ["broker 3 refused connections, 3 of 4 peers agree"],
    )

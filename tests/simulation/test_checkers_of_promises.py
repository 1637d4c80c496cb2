"""The checker of fast failover's promises can fail: verdicts, fences and offices in which just one thing is wrong."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from tests.simulation.checkers.ghost import Ghost
from tests.simulation.checkers.observer import Commit
from tests.simulation.checkers.promises import FRESH_S, PAUSE_S, PromiseChecker
from tests.simulation.violation import Violation
from zkbroker.broker.registration import RegistrationState
from zkbroker.controller.suspicion import Condemned, Suspicions, _Account, _Filed
from zkbroker.model.suspicion import Finding, Suspect

TIMEOUT_S = 2.0
TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"
STATE_PATH = "/brokers/topics/t/partitions/0/state"
CONTROLLER, LEADER = 1, 3
SESSIONS = {1: 101, 2: 102, 3: 103, 4: 104}
NOW = 50.0


class PromiseBench:
    """Brokers 1 to 4; 1 is controller, and what is looked at are its suspicions. 3 leads t-0, of 1, 2 and 3."""

    def __init__(self) -> None:
        self.now = NOW
        self.ran: Any = None
        self.settings = SimpleNamespace(session_timeout_s=TIMEOUT_S)
        self.zookeeper = SimpleNamespace(_sessions=dict.fromkeys(SESSIONS.values()))
        self.shared_isrs: set[frozenset[int]] = {frozenset((2, LEADER)), frozenset((1, LEADER))}
        self.suspicions = Suspicions(CONTROLLER, probe_s=0.4, share_isr=lambda a, b: {a, b} in self.shared_isrs)
        self.suspicions._brokers = {
            broker_id: Suspect(broker_id, broker_id * 10, f"b{broker_id}") for broker_id in SESSIONS
        }
        self.nodes = {broker_id: self._node(broker_id) for broker_id in SESSIONS}
        self.ghost = Ghost(2, lambda text: None)
        self.ghost.topics["t"] = TOPIC_ID
        self.ghost.of("t", (TOPIC_ID, 0)).replicas = (1, 2, 3)
        self.ghost.controller_epoch = 5
        self.checker = PromiseChecker(self.ghost, self)
        self.write_state(LEADER, (1, 2, 3))

    def _node(self, broker_id: int) -> Any:
        parts = SimpleNamespace(
            detection=SimpleNamespace(_suspicions=self.suspicions),
            controller=SimpleNamespace(is_controller=broker_id == CONTROLLER),
            registration=SimpleNamespace(broker_epoch=broker_id * 10, state=RegistrationState.REGISTERED),
            replicas=SimpleNamespace(_table=SimpleNamespace(replicas={})),
        )
        clock = SimpleNamespace(monotonic=lambda: self.now)
        node = SimpleNamespace(broker_id=broker_id, parts=parts, clock=clock)
        zk = SimpleNamespace(is_connected=True, _is_cut=False, _last_reply_at=NOW, session_id=SESSIONS[broker_id])
        node.process = SimpleNamespace(node=node, zk=zk, is_alive=True)
        return node

    def broker_of_session(self, session: int) -> int:
        return next((broker_id for broker_id, known in SESSIONS.items() if known == session), 0)

    def condemn(self, findings: dict[int, Finding], *, ago_s: float = 0.0, is_certain: bool = False) -> _Account:
        """The controller's verdict on the leader, on these findings."""
        suspect = self.suspicions._brokers[LEADER]
        account = self.suspicions._accounts[LEADER] = _Account(suspect, self.now)
        account.filed = {reporter: _Filed(finding, self.now - ago_s, None) for reporter, finding in findings.items()}
        account.verdict = Condemned(suspect, "it is dead", is_certain)
        account.told_at = self.now
        return account

    def commit(self, op: str, path: str, data: bytes = b"", session: int = SESSIONS[CONTROLLER]) -> None:
        self.checker.committed(Commit(op, path, data, 0, session, 1))

    def fence(self, session: int = SESSIONS[CONTROLLER]) -> None:
        self.ghost.now = self.now
        self.commit("delete", f"/brokers/ids/{LEADER}", session=session)

    def write_state(self, leader: int, isr: tuple[int, ...], controller_epoch: int = 5) -> None:
        state = {"leader": leader, "leader_epoch": 1, "isr": list(isr), "controller_epoch": controller_epoch}
        self.commit("set", STATE_PATH, json.dumps(state).encode())

    def step(self, broker_id: int = CONTROLLER) -> int:
        """That broker's step is over: the invariant that is broken; 0 for none."""
        self.ghost.now = self.now
        self.ran = self.nodes[broker_id].process
        try:
            self.checker.after_step(self)
        except Violation as violation:
            return violation.invariant
        return 0

    def elected(self, leader: int, isr: tuple[int, ...], controller_epoch: int = 5) -> int:
        self.ghost.now = self.now
        try:
            self.write_state(leader, isr, controller_epoch)
        except Violation as violation:
            return violation.invariant
        return 0


@pytest.fixture
def bench() -> PromiseBench:
    return PromiseBench()


REFUSED_BY_ALL = {1: Finding.REFUSED, 2: Finding.REFUSED, 4: Finding.REFUSED}

# 18: verdicts


@pytest.mark.parametrize(
    "findings",
    [
        REFUSED_BY_ALL,
        {1: Finding.REFUSED, 2: Finding.UNREACHABLE},
        {1: Finding.REFUSED, 2: Finding.REFUSED, 4: Finding.ACCEPTED},
        {1: Finding.REFUSED, 2: Finding.RESTARTED, 4: Finding.TALKING},
    ],
)
def test_a_verdict_of_a_majority_is_sound(bench: PromiseBench, findings: dict[int, Finding]) -> None:
    bench.condemn(findings)
    assert bench.step() == 0
    assert bench.checker.verdicts_count == 1


@pytest.mark.parametrize(
    "findings",
    [
        {},
        {1: Finding.REFUSED},
        {1: Finding.REFUSED, 2: Finding.TALKING},
        {1: Finding.REFUSED, 2: Finding.ACCEPTED, 4: Finding.ACCEPTED},
        {2: Finding.REFUSED, 4: Finding.REFUSED},
        {1: Finding.ACCEPTED, 2: Finding.REFUSED, 4: Finding.REFUSED},
        # of one that is not registered
        {1: Finding.REFUSED, 9: Finding.REFUSED},
    ],
)
def test_a_verdict_without_a_majority_of_which_one_is(bench: PromiseBench, findings: dict[int, Finding]) -> None:
    bench.condemn(findings)
    assert bench.step() == 18


def test_a_verdict_on_words_that_are_old(bench: PromiseBench) -> None:
    bench.condemn(REFUSED_BY_ALL, ago_s=FRESH_S + 0.1)
    assert bench.step() == 18


def test_a_verdict_against_an_isr_member_that_talks_with_it(bench: PromiseBench) -> None:
    bench.condemn({1: Finding.REFUSED, 2: Finding.TALKING, 4: Finding.REFUSED})
    assert bench.step() == 18


def test_a_verdict_on_one_that_is_held(bench: PromiseBench) -> None:
    bench.suspicions._holds[LEADER] = (bench.now + 1.0, 60.0)
    bench.condemn(REFUSED_BY_ALL)
    assert bench.step() == 18


def test_a_verdict_after_the_hold_is_sound(bench: PromiseBench) -> None:
    bench.suspicions._holds[LEADER] = (bench.now, 60.0)
    bench.condemn(REFUSED_BY_ALL)
    assert bench.step() == 0


def test_each_verdict_is_looked_at_once_and_again_when_it_is_told_again(bench: PromiseBench) -> None:
    account = bench.condemn(REFUSED_BY_ALL)
    assert bench.step() == 0
    account.filed = {}
    assert bench.step() == 0
    account.told_at = bench.now + 0.25
    assert bench.step() == 18


def test_a_proof_needs_nobody_else(bench: PromiseBench) -> None:
    bench.condemn({2: Finding.BYE}, is_certain=True)
    assert bench.step() == 0
    assert bench.checker.verdicts_count == 0


# 18: what an early fence does


@pytest.mark.parametrize("leader, isr", [(-1, (1, 2)), (1, (1,))])
def test_an_early_fence_that_stops_acks_all(bench: PromiseBench, leader: int, isr: tuple[int, ...]) -> None:
    bench.condemn(REFUSED_BY_ALL)
    bench.fence()
    assert bench.elected(leader, isr) == 18


def test_an_early_fence_for_a_leader_with_whom_acks_all_goes_on_is_sound(bench: PromiseBench) -> None:
    bench.condemn(REFUSED_BY_ALL)
    bench.fence()
    assert bench.elected(1, (1, 2)) == 0


def test_the_leader_may_stay_whatever_becomes_of_the_isr(bench: PromiseBench) -> None:
    bench.condemn(REFUSED_BY_ALL)
    bench.fence()
    assert bench.elected(LEADER, (LEADER,)) == 0


def test_what_is_proven_may_cost_acks_all(bench: PromiseBench) -> None:
    bench.condemn({2: Finding.BYE}, is_certain=True)
    bench.fence()
    assert bench.elected(1, (1,)) == 0


@pytest.mark.parametrize("session", [0, SESSIONS[LEADER]])
def test_who_goes_by_its_own_session_or_by_hand_is_not_fenced(bench: PromiseBench, session: int) -> None:
    bench.condemn(REFUSED_BY_ALL)
    bench.fence(session)
    assert bench.elected(1, (1,)) == 0


def test_when_its_session_is_over_the_partition_goes_on_as_it_can(bench: PromiseBench) -> None:
    bench.condemn(REFUSED_BY_ALL)
    bench.fence()
    del bench.zookeeper._sessions[SESSIONS[LEADER]]
    assert bench.elected(1, (1,)) == 0


def test_when_its_session_would_be_over_the_partition_goes_on_as_it_can(bench: PromiseBench) -> None:
    bench.condemn(REFUSED_BY_ALL)
    bench.fence()
    bench.now += TIMEOUT_S
    assert bench.elected(1, (1,)) == 0


def test_who_registered_again_is_fenced_no_more(bench: PromiseBench) -> None:
    bench.condemn(REFUSED_BY_ALL)
    bench.fence()
    bench.commit("create", f"/brokers/ids/{LEADER}", b"{}", SESSIONS[LEADER])
    assert bench.elected(1, (1,)) == 0


def test_the_next_controller_finds_no_registration_and_knows_no_more(bench: PromiseBench) -> None:
    bench.condemn(REFUSED_BY_ALL)
    bench.fence()
    assert bench.elected(1, (1,), controller_epoch=6) == 0


# 2: a broker that knows that it lost its registration


@pytest.mark.parametrize(
    "state, invariant",
    [(RegistrationState.UNREGISTERED, 2), (RegistrationState.REGISTERING, 2), (RegistrationState.STOPPED, 0)],
)
def test_it_leads_and_knows_that_its_registration_is_lost(
    bench: PromiseBench, state: RegistrationState, invariant: int
) -> None:
    parts = bench.nodes[LEADER].parts
    parts.replicas._table.replicas["t", 0] = SimpleNamespace(leader=object())
    assert bench.step(LEADER) == 0
    parts.registration.broker_epoch = -1
    parts.registration.state = state
    assert bench.step(LEADER) == invariant
    parts.replicas._table.replicas["t", 0].leader = None
    assert bench.step(LEADER) == 0


# 15: a controller that ZooKeeper does not answer


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_controller_decides_on_without_zookeeper(bench: PromiseBench, is_silent: bool) -> None:
    zk = bench.nodes[CONTROLLER].process.zk
    zk.is_connected, zk._is_cut = is_silent, is_silent
    bench.now += TIMEOUT_S
    assert bench.step() == 0
    bench.now += 0.01
    assert bench.step() == 0
    bench.now += PAUSE_S - 0.1
    assert bench.step() == 0
    bench.now += 0.2
    assert bench.step() == 15


def test_a_controller_that_gave_up_in_time_is_sound(bench: PromiseBench) -> None:
    node = bench.nodes[CONTROLLER]
    node.process.zk.is_connected = False
    bench.now += TIMEOUT_S + 0.1
    assert bench.step() == 0
    node.parts.controller.is_controller = False
    bench.now += PAUSE_S
    assert bench.step() == 0
    bench.now += PAUSE_S
    assert bench.step() == 0


def test_a_controller_that_stood_still_has_a_moment_to_find_out(bench: PromiseBench) -> None:
    bench.nodes[CONTROLLER].process.zk.is_connected = False
    bench.now += TIMEOUT_S + 0.1
    assert bench.step() == 0
    bench.now += 10 * PAUSE_S
    assert bench.step() == 0
    bench.now += PAUSE_S / 2
    assert bench.step() == 0
    bench.now += PAUSE_S * 0.6
    assert bench.step() == 15


def test_a_controller_whose_connection_stands_need_not_be_answered(bench: PromiseBench) -> None:
    for _ in range(10):
        bench.now += TIMEOUT_S / 3
        assert bench.step() == 0


def test_other_brokers_need_not_give_up_anything(bench: PromiseBench) -> None:
    bench.nodes[2].process.zk.is_connected = False
    for _ in range(40):
        bench.now += PAUSE_S / 2
        assert bench.step(2) == 0

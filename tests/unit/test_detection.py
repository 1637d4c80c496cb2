"""Brokers that watch each other on a wire in memory: who is called dead, when, and who is not."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.python.failure import Failure

from tests.fakes.replication import FakeLeader, FakeStatus
from tests.fakes.wire import Wire
from zkbroker.broker.detection import DetectionSettings, FailureDetection
from zkbroker.broker.peers import PeerSettings
from zkbroker.controller.suspicion import Condemned
from zkbroker.model.cluster import BrokerRegistration, Endpoint
from zkbroker.model.suspicion import Suspect
from zkbroker.replication.ports import Identity
from zkbroker.replication.server import ReplicationServer

CLIENTS, PEERS = 9092, 19092


class Sockets(Wire):
    """A wire on which a host can answer nothing at all."""

    def __init__(self) -> None:
        super().__init__()
        self.silent: set[str] = set()
        self.rejected: set[str] = set()

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> None:
        if host in self.silent:
            failed = factory.clientConnectionFailed
            self.callLater(timeout, failed, None, Failure(error.TimeoutError()))
        elif host in self.rejected:
            failed = factory.clientConnectionFailed
            self.callLater(0, failed, None, Failure(error.ConnectionRefusedError()))
        else:
            super().connectTCP(host, port, factory, timeout, bindAddress)


class Ways:
    """The wire as one broker sees it: some hosts refuse it alone."""

    def __init__(self, wire: Sockets, unreachable: set[str]) -> None:
        self._wire = wire
        self._unreachable = unreachable

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30) -> None:
        if host in self._unreachable:
            self._wire.callLater(0, factory.clientConnectionFailed, None, Failure(error.ConnectionRefusedError()))
        else:
            self._wire.connectTCP(host, port, factory, timeout)


class Accepting(ServerFactory):
    """A Kafka listener, as far as a probe goes."""

    protocol = Protocol


class Machine:
    """One broker: its listeners and its failure detection."""

    def __init__(self, cluster: Cluster, broker_id: int, *, is_fast: bool = True) -> None:
        self.cluster = cluster
        self.broker_id = broker_id
        self.host = f"h{broker_id}"
        self.epoch = cluster.next_epoch()
        self.incarnation = f"process-{self.epoch}"
        self.verdicts: list[Condemned] = []
        self.stood: list[Suspect] = []
        self.answers: Counter[int] = Counter()
        self.doubted: set[int] = set()
        self.lines: list[str] = []
        self.unreachable: set[str] = set()
        wire = cluster.wire
        settings = DetectionSettings(is_fast, PeerSettings(0.4, 1.0, 3.0))
        self.detection = FailureDetection(
            broker_id=broker_id,
            reactor=Ways(wire, self.unreachable),
            clock=wire,
            random=random.Random(broker_id),
            identity=self.identity,
            settings=settings,
            office=self,
            share_isr=lambda one, other: True,
            doubt=lambda other, is_doubted: (self.doubted.add if is_doubted else self.doubted.discard)(other),
            log=self.lines.append,
        )
        self.server = ReplicationServer(
            reactor=wire,
            clock=wire,
            identity=self.identity,
            leader=FakeLeader(),
            controller=lambda: None,
            status=FakeStatus(),
            peers=self.detection,
            caller_silent_s=30.0,
        )
        self.listen()

    def identity(self) -> Identity:
        return Identity("cluster", self.broker_id, self.epoch, self.incarnation)

    def registration(self) -> BrokerRegistration:
        clients = self.cluster.clients_host or self.host
        endpoints = (Endpoint("PLAINTEXT", clients, CLIENTS), Endpoint("REPLICATION", self.host, PEERS))
        return BrokerRegistration(self.broker_id, self.epoch, endpoints)

    def listen(self) -> None:
        self.cluster.wire.listen(self.host, PEERS, self.server)
        self.cluster.wire.listen(self.host, CLIENTS, Accepting())

    def stop_listening(self) -> None:
        for port in (PEERS, CLIENTS):
            self.cluster.wire.listeners.pop((self.host, port), None)

    def ends(self) -> list[Any]:
        """This broker's ends of its connections."""
        mine = []
        for transport in list(self.cluster.wire.transports):
            protocol = transport.protocol
            link = getattr(protocol, "link", None)
            if protocol in self.server.connections or (
                link is not None and link._shell.identity().broker_id == self.broker_id
            ):
                mine.append(transport)
        return mine

    def cut(self) -> None:
        for transport in self.ends():
            self.cluster.wire.cut(transport)

    def kill(self) -> None:
        self.detection.stop()
        self.cut()
        self.stop_listening()

    # Office

    def condemned(self, verdict: Condemned) -> None:
        self.verdicts.append(verdict)

    def peer_answered(self, broker_id: int, others: Collection[int]) -> None:
        assert set(others) == set(self.cluster.machines) - {self.broker_id}
        self.answers[broker_id] += 1

    def stand_instead(self, suspect: Suspect, reason: str) -> None:
        self.stood.append(suspect)

    def reasons(self) -> set[str]:
        return {verdict.reason for verdict in self.verdicts}


class Cluster:
    def __init__(self, count: int = 3, *, is_fast: bool = True, clients_host: str = "") -> None:
        """``clients_host``: where clients are told to connect, if elsewhere."""
        self.clients_host = clients_host
        self.wire = Sockets()
        self._epoch = 0
        self.machines = {broker_id: Machine(self, broker_id, is_fast=is_fast) for broker_id in range(1, count + 1)}
        self.tell()
        self.wire.run(1.5)

    def next_epoch(self) -> int:
        self._epoch += 1
        return self._epoch

    def tell(self, controller_id: int = 1, without: int = 0) -> None:
        """What the controller's deltas tell every broker."""
        brokers = [one.registration() for one in self.machines.values() if one.broker_id != without]
        for machine in self.machines.values():
            machine.detection.controller_changed(controller_id)
            machine.detection.brokers_changed(brokers)

    def __getitem__(self, broker_id: int) -> Machine:
        return self.machines[broker_id]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    yield Cluster()


def test_peers_that_live_say_nothing_but_ping(cluster: Cluster) -> None:
    cluster.wire.run(5.0, step=0.05)
    assert all(machine.reasons() == set() and not machine.doubted for machine in cluster.machines.values())
    assert len(cluster.wire.transports) == 2 * 6


def test_the_office_hears_which_peers_still_answer(cluster: Cluster) -> None:
    for transport in cluster[3].ends():
        transport.reads = False
    before = cluster[1].answers.copy()
    cluster.wire.run(2.5, step=0.05)
    assert cluster[1].answers[2] >= before[2] + 2
    assert cluster[1].answers[3] == before[3]


def test_a_killed_broker_is_condemned_by_all_within_milliseconds(cluster: Cluster) -> None:
    cluster[3].kill()
    cluster.wire.run(0.01)
    for broker_id in (1, 2):
        assert cluster[broker_id].reasons() == {"broker 3 refused connections, 2 of 2 peers agree"}
        assert cluster[broker_id].stood == []
        assert cluster[broker_id].doubted == {3}
        assert cluster[broker_id].detection.status_lines() == [
            f"peer: {3 - broker_id} up",
            "peer: 3 refused, says 1: refused, says 2: refused, condemned",
        ]


def test_who_asks_for_leaders_is_answered_when_the_peers_were_heard(cluster: Cluster) -> None:
    told: list[set[int]] = []
    cluster[1].detection.hold(lambda: told.append(set(cluster[1].doubted)))
    assert told == []
    cluster.wire.run(0.01)
    assert told == [set()]
    # The leader dies: it does not answer any more, and its connections close a moment later.
    for transport in cluster[3].ends():
        transport.reads = False
    cluster[1].detection.hold(lambda: told.append(set(cluster[1].doubted)))
    cluster.wire.run(0.02)
    assert told == [set()]
    cluster[3].kill()
    cluster.wire.run(0.01)
    assert told == [set(), {3}]
    # What is known now is news: nobody waits.
    cluster[1].detection.hold(lambda: told.append(set(cluster[1].doubted)))
    assert told == [set(), {3}, {3}]


def test_a_peer_that_is_silent_is_not_waited_for_long(cluster: Cluster) -> None:
    for transport in cluster[3].ends():
        transport.reads = False
    told: list[str] = []
    cluster[1].detection.hold(lambda: told.append("answer"))
    cluster.wire.run(0.04)
    assert told == []
    cluster.wire.run(0.02)
    assert told == ["answer"]


def test_a_dead_controller_is_replaced_by_the_lowest_first(cluster: Cluster) -> None:
    cluster[1].kill()
    cluster.wire.run(0.05)
    assert cluster[2].stood and not cluster[3].stood
    cluster.wire.run(0.1)
    assert cluster[3].stood


def test_of_two_brokers_the_other_takes_the_office() -> None:
    """There is nobody else to agree."""
    cluster = Cluster(2)
    cluster[1].kill()
    cluster.wire.run(0.1)
    assert cluster[2].reasons() == {"broker 1 refused connections, 1 of 1 peers agree"}
    assert cluster[2].stood


def test_a_machine_that_is_gone_is_condemned_after_the_time_of_probes(cluster: Cluster) -> None:
    cluster[3].kill()
    cluster.wire.silent.add("h3")
    cluster.wire.run(0.38)
    assert cluster[1].reasons() == set()
    cluster.wire.run(0.1)
    assert cluster[1].reasons() == {"broker 3 closed its connections and accepts none, 2 of 2 peers agree"}


def test_listeners_that_close_a_little_later_do_not_help_it(cluster: Cluster) -> None:
    """A process that dies closes one descriptor after the other."""
    cluster[3].detection.stop()
    cluster[3].cut()
    cluster.wire.run(0.005)
    assert cluster[1].reasons() == set()
    cluster[3].kill()
    cluster.wire.run(0.1)
    assert cluster[1].reasons() == {"broker 3 refused connections, 2 of 2 peers agree"}


def test_cut_connections_of_a_broker_that_lives_are_made_again(cluster: Cluster) -> None:
    cluster[3].cut()
    cluster.wire.run(0.5)
    assert cluster[1].reasons() == cluster[2].reasons() == set()
    assert not cluster[1].doubted
    assert cluster[1].detection.status_lines() == ["peer: 2 up", "peer: 3 up"]


def test_a_broker_that_accepts_connections_is_not_hidden_from_clients(cluster: Cluster) -> None:
    """Its own connection may take a second to be made again, after several that lived for a moment only."""
    for _ in range(6):
        cluster[3].cut()
        cluster.wire.run(0.02)
        while "peer: 3 up" not in cluster[1].detection.status_lines():
            cluster.wire.run(0.02)
    cluster[3].cut()
    cluster.wire.run(0.01)
    assert cluster[1].doubted == {3}  # it may be about to close its listeners
    cluster.wire.run(0.12)
    assert "peer: 3 up" not in cluster[1].detection.status_lines() and not cluster[1].doubted
    cluster[3].kill()
    cluster.wire.run(0.1)
    assert cluster[1].reasons() == {"broker 3 refused connections, 2 of 2 peers agree"}
    assert cluster[1].doubted == {3}


@pytest.mark.parametrize(
    ("balancer", "reason"),
    [
        ("refuses", "broker 3 refused connections, 2 of 2 peers agree"),
        ("is silent", "broker 3 closed its connections and accepts none, 2 of 2 peers agree"),
        ("accepts", None),
    ],
)
def test_an_address_that_only_clients_can_reach(balancer: str, reason: str | None) -> None:
    """What is there, and not at the REPLICATION listener, makes nobody dead. It may cost the fast way."""
    cluster = Cluster(clients_host="balancer")
    if balancer == "refuses":
        cluster.wire.rejected.add("balancer")
    elif balancer == "is silent":
        cluster.wire.silent.add("balancer")
    else:
        cluster.wire.listen("balancer", CLIENTS, Accepting())
    cluster[3].cut()
    cluster.wire.run(2.0)
    assert cluster[1].reasons() == cluster[2].reasons() == set()
    cluster[3].kill()
    cluster.wire.run(1.0)
    assert cluster[1].reasons() == ({reason} if reason else set())


def test_closed_listeners_alone_are_nothing(cluster: Cluster) -> None:
    """Twisted's stopListening leaves the connections."""
    cluster[3].stop_listening()
    suspect = cluster[1].detection._suspicions.suspect(3)
    assert suspect is not None
    cluster[1].detection.probe_asked(suspect, cluster[2].identity())
    cluster.wire.run(2.0)
    assert cluster[1].reasons() == cluster[2].reasons() == set()


def test_calls_that_it_still_holds_are_traffic(cluster: Cluster) -> None:
    """A firewall that rejects what comes in, not what goes out."""
    cluster.wire.rejected.add("h3")
    for machine in (cluster[1], cluster[2]):
        for transport in machine.ends():
            if (
                transport.protocol not in machine.server.connections
                and transport.other.protocol in cluster[3].server.connections
            ):
                cluster.wire.cut(transport)
    cluster.wire.run(2.0)
    assert cluster[1].reasons() == cluster[2].reasons() == set()
    cluster[3].kill()
    cluster.wire.run(0.1)
    assert cluster[1].reasons() == {"broker 3 refused connections, 2 of 2 peers agree"}


def leave_halves_of(cluster: Cluster, broker_id: int) -> None:
    """Its connections to the others' listeners stand at their end only."""
    ends = cluster[broker_id].ends()
    for machine in cluster.machines.values():
        for transport in list(cluster.wire.transports):
            if transport.protocol in machine.server.connections and transport.other in ends:
                assert transport.other is not None
                cluster.wire.forget(transport.other)


def test_calls_of_which_nothing_is_heard_are_none(cluster: Cluster) -> None:
    """A network that was away leaves half of a connection behind: broker 3 gave it up and made another, and its RST was
    lost. When it dies later, that half knows nothing of it."""
    leave_halves_of(cluster, 3)
    cluster.wire.run(61.0, step=0.05)
    assert all(len(cluster[broker_id].server.connections) == 2 for broker_id in (1, 2, 3))
    assert cluster[1].reasons() == cluster[2].reasons() == set()
    cluster[3].kill()
    cluster.wire.run(0.1)
    assert cluster[1].reasons() == {"broker 3 refused connections, 2 of 2 peers agree"}


def test_half_a_connection_is_no_sign_of_life_for_long(cluster: Cluster) -> None:
    """As above, a few seconds after the network is whole again; the half is counted again should it speak."""
    leave_halves_of(cluster, 3)
    cluster.wire.run(6.5, step=0.05)
    assert len(cluster[1].server.connections) == 3, "it is still there"
    cluster[3].kill()
    cluster.wire.run(0.1)
    assert cluster[1].reasons() == {"broker 3 refused connections, 2 of 2 peers agree"}


def test_a_false_suspicion_is_found_out_and_held_down(cluster: Cluster) -> None:
    """A firewall that rejects: the process lives on, loses its registration, and comes back."""
    victim = cluster[3]
    cluster.wire.rejected.add("h3")
    victim.cut()
    cluster.wire.run(0.1)
    assert cluster[1].reasons() != set()
    cluster.tell(without=3)  # fenced
    cluster.wire.rejected.clear()
    victim.epoch = cluster.next_epoch()
    victim.detection.identity_changed()
    cluster.tell()
    cluster.wire.run(1.0)
    assert "broker 3 was suspected falsely: it is not fenced early for 60 s" in cluster[1].lines
    assert cluster[1].detection.status_lines() == ["peer: 2 up", "peer: 3 up, not fenced early for 59 s"]
    cluster[1].verdicts.clear()
    victim.kill()
    cluster.wire.run(1.0)
    assert cluster[1].reasons() == set()


def test_a_restart_is_no_false_suspicion(cluster: Cluster) -> None:
    cluster[3].kill()
    cluster.wire.run(0.1)
    cluster.tell(without=3)
    cluster.machines[3] = Machine(cluster, 3)
    cluster.tell()
    cluster.wire.run(1.0)
    assert not any("falsely" in line for line in cluster[1].lines)
    cluster[1].verdicts.clear()
    cluster[3].kill()
    cluster.wire.run(0.1)
    assert cluster[1].reasons() != set()


def test_another_process_at_the_address_proves_the_death(cluster: Cluster) -> None:
    """It listens before it is registered, while the old session still lives."""
    registered = cluster[3].epoch
    cluster[3].kill()
    cluster.machines[3] = Machine(cluster, 3)
    cluster[3].epoch = -1
    cluster.wire.run(0.5)
    [verdict] = {verdict for verdict in cluster[1].verdicts if verdict.is_certain}
    assert verdict.reason == "broker 3 has restarted" and verdict.suspect.broker_epoch == registered


def test_bye_is_proof_alone(cluster: Cluster) -> None:
    cluster[3].detection.stop()
    cluster[3].server.say_bye()
    cluster.wire.run(0.01)
    assert {"broker 3 said BYE"} == cluster[1].reasons() == cluster[2].reasons()


def test_five_brokers_two_dead() -> None:
    cluster = Cluster(5)
    cluster[4].kill()
    cluster[5].kill()
    cluster.wire.run(0.2)
    assert cluster[1].reasons() == {
        "broker 4 refused connections, 3 of 4 peers agree",
        "broker 5 refused connections, 3 of 4 peers agree",
    }


def test_a_minority_that_is_cut_off_condemns_nobody() -> None:
    """Only broker 1 finds broker 3 refusing: its way there is cut, the others' is not."""
    cluster = Cluster(5)
    cluster[1].unreachable.add("h3")
    cluster[1].cut()
    cluster.wire.run(2.0)
    assert all(cluster[broker_id].reasons() == set() for broker_id in (1, 2, 4, 5))
    assert cluster[1].detection.verdicts() == []


def test_session_detection_watches_nobody() -> None:
    cluster = Cluster(is_fast=False)
    assert cluster.wire.transports == []
    cluster[3].kill()
    cluster.wire.run(1.0)
    assert cluster[1].reasons() == set()
    assert cluster[1].detection.status_lines() == []

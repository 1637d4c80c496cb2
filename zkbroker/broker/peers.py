"""This broker's connection to every other one, and what it finds out when one of them breaks.

A finding is told to ``found`` when it is made, and again while it lasts: evidence that is not repeated gets stale.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from zkbroker.broker.probes import ProbeRound
from zkbroker.broker.roll_call import RollCall
from zkbroker.model.clock import Clock
from zkbroker.model.cluster import REPLICATION_LISTENER, BrokerRegistration, Endpoint
from zkbroker.model.suspicion import Evidence, Finding, Suspect, probed_endpoints, suspect_of
from zkbroker.replication.link import LinkEnd, LinkSettings, Shell
from zkbroker.replication.peer_link import PeerLink, PeerLinkSettings
from zkbroker.replication.ports import IdentitySource

PING_S = 0.05
"""A peer whose connection lives answers PING within this, or is probed like one whose connection broke."""

LISTENERS_CLOSE_S = 0.1
"""A process that dies closes its listeners within this of its first connection: who accepts later lives."""

ROUND_PAUSES_S = ((LISTENERS_CLOSE_S, 0.01), (1.0, 0.05))
"""Between two rounds of probes, as long as the connection is down: within so long of its end, so long."""

TELL_AGAIN_S = 0.4
"""A finding that lasts is told so often."""

DOUBTED_S = 1.0
"""After its connection broke a broker that accepts none is shown to clients as leading nothing, for so long: by then it
is fenced, or will not be soon."""


class PeerSettings(NamedTuple):
    probe_s: float = 0.4
    """``broker.failure.probe.ms``"""
    ping_interval_s: float = 1.0
    silence_s: float = 3.0


class Peers:
    """All other registered brokers. ``found(suspect, finding, closed_ago_s)`` is told what this broker finds out about
    one, ``met(broker_id, epoch, incarnation)`` who answers at its address, ``answered(broker_id, all_ids)`` who still
    answers, ``doubt(broker_id, is_doubted)`` whether clients are better not sent there just now."""

    def __init__(
        self,
        *,
        reactor: Any,
        clock: Clock,
        random: Any,
        identity: IdentitySource,
        settings: PeerSettings,
        found: Callable[[Suspect, Finding, float], None],
        met: Callable[[int, int, str], None],
        answered: Callable[[int, Collection[int]], None],
        doubt: Callable[[int, bool], None],
        link_settings: LinkSettings | None = None,
    ) -> None:
        self.shell = Shell(reactor, clock, random.random, identity)
        self.settings = settings
        self.link_settings = link_settings or LinkSettings()
        self.found = found
        self.met = met
        self._answered = answered
        self.doubt = doubt
        self._peers: dict[int, Peer] = {}
        self.roll_call = RollCall(reactor, self._ping_all)
        self._calls: dict[tuple[int, int], int] = {}
        """Connections that others hold to this broker's listener, by id and broker epoch of the caller."""

    def __repr__(self) -> str:
        return f"Peers({[self._peers[broker_id] for broker_id in sorted(self._peers)]})"

    def brokers_changed(self, brokers: Sequence[BrokerRegistration]) -> None:
        """All registered brokers: keep a connection to each of the others."""
        own_id = self.shell.identity().broker_id
        wanted = {broker.broker_id: broker for broker in brokers if broker.broker_id != own_id and not broker.is_kafka}
        for broker_id in list(self._peers):
            if broker_id not in wanted:
                self._peers.pop(broker_id).stop()
        for broker_id, registration in sorted(wanted.items()):
            peer = self._peers.get(broker_id)
            endpoint = registration.endpoint(REPLICATION_LISTENER)
            if endpoint is None:
                continue
            if peer is None:
                self._peers[broker_id] = Peer(self, registration, endpoint)
            elif suspect_of(registration) != peer.suspect:
                peer.registered_anew(registration, endpoint)

    def identity_changed(self) -> None:
        """This broker registered anew: say HELLO again everywhere."""
        for _, peer in sorted(self._peers.items()):
            peer.link.identity_changed()

    def probe(self, suspect: Suspect) -> None:
        """Find out how it does, if nobody is at it, and tell ``found``."""
        peer = self._peers.get(suspect.broker_id)
        if peer is not None and peer.suspect == suspect:
            peer.probe()

    def tell(self, evidence: Evidence) -> None:
        """Tell every peer but the suspect itself."""
        for broker_id, peer in sorted(self._peers.items()):
            if broker_id != evidence.suspect.broker_id:
                peer.link.send_evidence(evidence)

    def ask(self, broker_id: int, suspect: Suspect) -> None:
        """Have that peer find out, and tell."""
        peer = self._peers.get(broker_id)
        if peer is not None:
            peer.link.send_probe(suspect)

    def called(self, broker_id: int, broker_epoch: int) -> None:
        """It said HELLO at this broker's listener."""
        self._calls[broker_id, broker_epoch] = self._calls.get((broker_id, broker_epoch), 0) + 1

    def hung_up(self, broker_id: int, broker_epoch: int, was_cut: bool) -> None:
        """One of its connections to this broker's listener is gone, by FIN or RST if ``was_cut``, or not counted."""
        left = self._calls[broker_id, broker_epoch] = self._calls[broker_id, broker_epoch] - 1
        if not left:
            del self._calls[broker_id, broker_epoch]
            peer = self._peers.get(broker_id)
            if peer is not None and peer.suspect.broker_epoch == broker_epoch:
                peer.hung_up(was_cut)

    def has_calls_of(self, suspect: Suspect) -> bool:
        """Does it hold a connection to this broker? Then its process lives, whatever becomes of calls to it."""
        return (suspect.broker_id, suspect.broker_epoch) in self._calls

    def said_bye(self, broker_id: int, broker_epoch: int) -> None:
        """Heard on another connection than this broker's own."""
        peer = self._peers.get(broker_id)
        if peer is not None and peer.suspect.broker_epoch == broker_epoch:
            self.found(peer.suspect, Finding.BYE, -1.0)

    def heard(self, broker_id: int, correlation: int) -> None:
        """It answered that request."""
        self.roll_call.heard(broker_id, correlation)
        self._answered(broker_id, self._peers.keys())

    def _ping_all(self) -> dict[int, int]:
        return {broker_id: peer.link.ping() for broker_id, peer in sorted(self._peers.items()) if peer.link.is_up}

    def stop(self) -> None:
        for broker_id in sorted(self._peers):
            self._peers[broker_id].stop()
        self._peers.clear()
        self.roll_call.stop()

    def states(self) -> dict[int, str]:
        """What this broker sees of each peer, for people."""
        return {broker_id: peer.state for broker_id, peer in sorted(self._peers.items())}


class Peer:
    """One other broker. Fills ``PeerLinkOwner``."""

    def __init__(self, peers: Peers, registration: BrokerRegistration, endpoint: Endpoint) -> None:
        self._peers = peers
        self.suspect = suspect_of(registration)
        self._endpoints = probed_endpoints(registration)
        shell, settings = peers.shell, peers.settings
        pace = PeerLinkSettings(settings.ping_interval_s, settings.silence_s)
        self.link = PeerLink(
            shell, pace, peers.link_settings, self, registration.broker_id, endpoint.host, endpoint.port
        )
        self._incarnation = ""
        """Who answered under the registered epoch."""
        self._closed_at: float | None = None
        """When the connection was closed by FIN or RST; None since it is up again, or ended otherwise."""
        self._probing_since: float | None = None
        self._accepted_at = float("-inf")
        """When a probe was accepted last."""
        self._round: ProbeRound | None = None
        self._timer: Any = None
        """Either the pause between two rounds, or how long PING may take."""
        self._doubt_timer: Any = None
        """Runs while it is doubted."""
        self._told: tuple[Finding, float] | None = None
        """The finding told last and when, while the probing lasts."""
        self.link.start()

    def __repr__(self) -> str:
        return (
            f"Peer({self.suspect.broker_id} epoch={self.suspect.broker_epoch} at {self.suspect.address}, {self.state})"
        )

    @property
    def state(self) -> str:
        """In a word, for people."""
        if self.link.is_up:
            return "up"
        return "down" if self._told is None else self._told[0].value

    def registered_anew(self, registration: BrokerRegistration, endpoint: Endpoint) -> None:
        self._stop_probing()
        self._trust()
        self._closed_at = None
        self._incarnation = ""
        self.suspect = suspect_of(registration)
        self._endpoints = probed_endpoints(registration)
        self.link.move(endpoint.host, endpoint.port)

    def stop(self) -> None:
        self._stop_probing()
        self._trust()
        self.link.stop()
        self._peers.roll_call.gone(self.suspect.broker_id)

    def probe(self) -> None:
        """Say how it does: by its connection if that lives, else by new ones."""
        if self._probing_since is not None:
            return
        self._probing_since = self._peers.shell.clock.monotonic()
        self._told = None
        if self.link.is_up:
            self.link.ping()
            self._timer = self._peers.shell.reactor.callLater(PING_S, self._begin_round)
        else:
            self._begin_round()

    # PeerLinkOwner

    def peer_up(self) -> None:
        was_probing = self._probing_since is not None
        self._stop_probing()
        self._trust()
        self._closed_at = None
        epoch, incarnation = self.link.incarnation
        if epoch == self.suspect.broker_epoch:
            self._incarnation = incarnation
        elif self._incarnation and incarnation != self._incarnation:
            self._peers.found(self.suspect, Finding.RESTARTED, -1.0)
            return
        self._peers.met(self.suspect.broker_id, epoch, incarnation)
        if was_probing:
            self._peers.found(self.suspect, Finding.TALKING, -1.0)

    def peer_down(self, end: LinkEnd) -> None:
        if end is LinkEnd.BYE:
            self._peers.found(self.suspect, Finding.BYE, -1.0)
        elif end is LinkEnd.CUT:
            self._closed_at = self._peers.shell.clock.monotonic()
            self._doubt()
            self._stop_probing()
            self.probe()
        elif end in (LinkEnd.SILENT, LinkEnd.TIMED_OUT):
            # It hangs, or nothing reaches it; when its process ends no connection tells: its listeners do.
            self._stop_probing()
            self._closed_at = None
            self.probe()
        self._peers.roll_call.gone(self.suspect.broker_id)

    def hung_up(self, was_cut: bool) -> None:
        """The last of its connections to this broker is gone. One that fell silent was closed by nobody: the moment of
        the end stays that of the others, on which the reporters are to agree."""
        if was_cut and self._closed_at is not None:
            self._closed_at = self._peers.shell.clock.monotonic()
        if self._timer is not None and not self.link.is_up:
            # What was found out so far said that it lives.
            self._timer.cancel()
            self._begin_round()

    def peer_heard(self, correlation: int) -> None:
        self._peers.heard(self.suspect.broker_id, correlation)
        if self._probing_since is not None:
            self._stop_probing()
            self._peers.found(self.suspect, Finding.TALKING, -1.0)

    # What clients are told

    def _doubt(self) -> None:
        self._trust()
        self._doubt_timer = self._peers.shell.reactor.callLater(DOUBTED_S, self._trust)
        self._peers.doubt(self.suspect.broker_id, True)

    def _trust(self) -> None:
        timer, self._doubt_timer = self._doubt_timer, None
        if timer is not None:
            if timer.active():
                timer.cancel()
            self._peers.doubt(self.suspect.broker_id, False)

    # Probing

    def _begin_round(self) -> None:
        self._timer = None
        probe_s = self._peers.settings.probe_s
        timeout_s = probe_s
        if self._closed_at is not None:
            left_s = self._closed_at + probe_s - self._peers.shell.clock.monotonic()
            # The first silent attempt ends when the time is up, not later.
            timeout_s = max(left_s, PING_S) if left_s > 0 else probe_s
        self._round = ProbeRound(self._peers.shell.reactor, self._endpoints, timeout_s, self._round_done)

    def _round_done(self, finding: Finding) -> None:
        self._round = None
        now = self._peers.shell.clock.monotonic()
        if finding is Finding.ACCEPTED:
            self._accepted_at = now
            if self.link.is_up:
                self._stop_probing()
                self._peers.found(self.suspect, finding, -1.0)
                return
        probing_s = 0.0 if self._probing_since is None else now - self._probing_since
        pause_s = next((pause_s for within_s, pause_s in ROUND_PAUSES_S if probing_s < within_s), TELL_AGAIN_S)
        self._timer = self._peers.shell.reactor.callLater(pause_s, self._begin_round)
        if self.link.is_up:
            # It lives, and is silent.
            return
        if self._peers.has_calls_of(self.suspect) and finding is not Finding.ACCEPTED:
            finding = Finding.TALKING
        closed_ago_s = -1.0 if self._closed_at is None else now - self._closed_at
        silent_s = min(closed_ago_s, now - self._accepted_at)
        if finding is Finding.UNREACHABLE and silent_s < self._peers.settings.probe_s:
            # Too early to tell.
            return
        if finding is Finding.ACCEPTED and closed_ago_s >= LISTENERS_CLOSE_S:
            self._trust()
        elif finding is Finding.REFUSED and self._told is not None and self._told[0] is Finding.ACCEPTED:
            self._doubt()
        if self._told is None or self._told[0] is not finding or now - self._told[1] >= TELL_AGAIN_S:
            self._told = finding, now
            self._peers.found(self.suspect, finding, closed_ago_s)

    def _stop_probing(self) -> None:
        self._probing_since = None
        self._told = None
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        probe_round, self._round = self._round, None
        if probe_round is not None:
            probe_round.cancel()

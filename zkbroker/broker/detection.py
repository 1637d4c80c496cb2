"""Failure detection of one broker: its own findings and its peers' become verdicts, and verdicts become deeds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol

from zkbroker.broker.peers import Peers, PeerSettings
from zkbroker.controller.suspicion import Ask, Condemned, Effect, Probe, Stand, Suspicions
from zkbroker.model.clock import Clock
from zkbroker.model.cluster import BrokerRegistration
from zkbroker.model.suspicion import Evidence, Finding, Suspect
from zkbroker.replication.link import LinkSettings
from zkbroker.replication.ports import Identity, IdentitySource

STIR_S = 1.0
"""For so long after a broker came, went or broke off nothing is held: what is known is news."""


class DetectionSettings(NamedTuple):
    is_fast: bool = True
    """``broker.failure.detection``; False: a dead broker is noticed when its session expires, and only then."""
    peers: PeerSettings = PeerSettings()


class Office(Protocol):
    """The controller's side of this broker."""

    def condemned(self, verdict: Condemned) -> None:
        """A broker is dead: fence it, if this broker is in office."""
        ...

    def peer_answered(self, broker_id: int, others: Collection[int]) -> None:
        """Another broker answered this one; ``others`` are all that are registered."""
        ...

    def stand_instead(self, suspect: Suspect, reason: str) -> None:
        """The controller is dead, and it is this broker's turn."""
        ...


class FailureDetection:
    """Fills ``replication.ports.PeersPort``. Evidence goes to every broker, so that whoever is, or becomes, controller
    has all of it."""

    def __init__(
        self,
        *,
        broker_id: int,
        reactor: Any,
        clock: Clock,
        random: Any,
        identity: IdentitySource,
        settings: DetectionSettings,
        office: Office,
        share_isr: Callable[[int, int], bool],
        doubt: Callable[[int, bool], None],
        log: Callable[[str], None],
        link_settings: LinkSettings | None = None,
    ) -> None:
        self._broker_id = broker_id
        self._reactor = reactor
        self._clock = clock
        self._identity = identity
        self._is_fast = settings.is_fast
        self._office = office
        self._tell_doubt = doubt
        self._log = log
        self._suspicions = Suspicions(broker_id, probe_s=settings.peers.probe_s, share_isr=share_isr)
        self._peers = Peers(
            reactor=reactor,
            clock=clock,
            random=random,
            identity=identity,
            settings=settings.peers,
            found=self._found,
            met=self._met,
            answered=office.peer_answered,
            doubt=self._doubt,
            link_settings=link_settings,
        )
        self._timer: Any = None
        self._timer_at: float | None = None
        self._stirred_at = clock.monotonic()
        self._last_told: dict[int, Condemned] = {}
        """The verdict that was logged last, by broker."""

    def __repr__(self) -> str:
        return f"FailureDetection({self._suspicions!r}, {self._peers!r})"

    # What the broker tells

    def brokers_changed(self, brokers: Sequence[BrokerRegistration]) -> None:
        """Told by the controller: all that are registered."""
        self._stirred_at = self._clock.monotonic()
        if self._is_fast:
            self._suspicions.brokers_changed(brokers, self._clock.monotonic())
            self._peers.brokers_changed(brokers)
            self._set_timer()

    def controller_changed(self, controller_id: int) -> None:
        self._suspicions.controller_changed(controller_id)

    def identity_changed(self) -> None:
        """This broker registered anew."""
        self._peers.identity_changed()

    def verdicts(self) -> list[Condemned]:
        """All that stand: for a controller that takes office."""
        return self._suspicions.condemned()

    def hold(self, answer: Callable[[], None]) -> None:
        """Call it when this broker has heard what the client, who asks who leads, may know already."""
        if self._is_fast and self._clock.monotonic() - self._stirred_at > STIR_S:
            self._peers.roll_call.ask(answer)
        else:
            answer()

    def stop(self) -> None:
        self._is_fast = False
        self._peers.stop()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def status_lines(self) -> list[str]:
        """One line for each peer, for people."""
        now = self._clock.monotonic()
        return [
            "peer: " + ", ".join([f"{broker_id} {state}", *self._suspicions.remarks(broker_id, now)])
            for broker_id, state in self._peers.states().items()
        ]

    # PeersPort

    def met(self, caller: Identity) -> None:
        self._peers.called(caller.broker_id, caller.broker_epoch)
        self._met(caller.broker_id, caller.broker_epoch, caller.incarnation)

    def left(self, caller: Identity, was_cut: bool) -> None:
        self._peers.hung_up(caller.broker_id, caller.broker_epoch, was_cut)

    def bye_heard(self, caller: Identity) -> None:
        if self._is_fast:
            self._peers.said_bye(caller.broker_id, caller.broker_epoch)

    def suspected(self, evidence: Evidence) -> None:
        if self._is_fast:
            self._run(self._suspicions.noticed(evidence, self._clock.monotonic()))

    def probe_asked(self, suspect: Suspect, caller: Identity) -> None:
        if self._is_fast:
            self._peers.probe(suspect)

    # Inside

    def _found(self, suspect: Suspect, finding: Finding, closed_ago_s: float) -> None:
        """This broker's own finding."""
        evidence = Evidence(suspect, self._broker_id, self._identity().broker_epoch, finding, closed_ago_s)
        self._peers.tell(evidence)
        self._run(self._suspicions.noticed(evidence, self._clock.monotonic()))

    def _met(self, broker_id: int, broker_epoch: int, incarnation: str) -> None:
        now = self._clock.monotonic()
        if self._suspicions.met(broker_id, broker_epoch, incarnation, now):
            held_s = self._suspicions.held_until(broker_id) - now
            self._log(f"broker {broker_id} was suspected falsely: it is not fenced early for {held_s:.0f} s")

    def _doubt(self, broker_id: int, is_doubted: bool) -> None:
        self._stirred_at = self._clock.monotonic()
        self._tell_doubt(broker_id, is_doubted)

    def _run(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Probe():
                    self._peers.probe(effect.suspect)
                case Ask():
                    self._peers.ask(effect.broker_id, effect.suspect)
                case Condemned():
                    if self._last_told.get(effect.suspect.broker_id) != effect:
                        self._last_told[effect.suspect.broker_id] = effect
                        self._log(effect.reason)
                    self._office.condemned(effect)
                case Stand():
                    self._office.stand_instead(effect.suspect, effect.reason)
        self._set_timer()

    def _set_timer(self) -> None:
        deadline = self._suspicions.next_deadline()
        if deadline == self._timer_at:
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer, self._timer_at = None, deadline
        if deadline is not None:
            self._timer = self._reactor.callLater(max(0.001, deadline - self._clock.monotonic()), self._rung)

    def _rung(self) -> None:
        self._timer, self._timer_at = None, None
        self._run(self._suspicions.time_passed(self._clock.monotonic()))

"""Is a broker dead? Evidence in, verdicts out (architecture.md, fast failover, rules 1, 6 and 7).

Every broker holds one of these and is told everything: its own findings and those of its peers. The controller acts on
verdicts about others, each broker on one about the controller. Nothing here is needed for safety (kafka-semantics.md
§6): a false verdict costs a leader that lives its place, never a record that was acknowledged with acks=all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from zkbroker.model.cluster import BrokerRegistration
from zkbroker.model.suspicion import Evidence, Finding, Suspect, suspect_of

FRESH_S = 2.0
"""Evidence that is older does not count: reporters repeat theirs more often while it lasts."""

CLOSED_WITHIN_S = 0.1
"""Class 2: a process that dies closes all its connections at once; one after the other is something else."""

VETO_WAIT_S = 0.05
"""With a majority, so long is waited for those that said nothing yet: they may be exchanging traffic."""

ASK_AFTER_S = 0.02
"""A broker that noticed nothing is asked to probe after this; most notice by themselves, or are told by others."""

ASK_AGAIN_S = 0.25
"""Then again, and a verdict that nobody could act on is repeated, as often as this."""

STAND_AFTER_S = 0.1
"""Rule 7: per rank among the live brokers, so that one after the other stands for the office."""

HOLD_DOWN_S = 60.0
"""After a false suspicion that broker is not fenced early for so long, doubling each time."""

HOLD_DOWN_S_MAX = 3600.0

CERTAIN = (Finding.BYE, Finding.RESTARTED)
"""Proof alone."""

ALIVE = (Finding.TALKING, Finding.ACCEPTED)


class Probe(NamedTuple):
    """Find out yourself."""

    suspect: Suspect


class Ask(NamedTuple):
    """Ask that broker what it knows of the suspect: it said nothing so far."""

    broker_id: int
    suspect: Suspect


class Condemned(NamedTuple):
    """It is dead, as far as can be known before its session ends. The controller fences it."""

    suspect: Suspect
    reason: str
    is_certain: bool = False
    """Proven by itself, not inferred."""


class Stand(NamedTuple):
    """The suspect holds the controller's office, and it is this broker's turn to take it over."""

    suspect: Suspect
    reason: str


Effect = Probe | Ask | Condemned | Stand


class _Filed(NamedTuple):
    """One reporter's latest finding."""

    finding: Finding
    at: float
    """Monotonic seconds when it came."""
    closed_at: float | None
    """When the reporter's last connection was closed by FIN or RST."""


class _Account:
    """All that is known about one suspect."""

    __slots__ = (
        "asked_at",
        "filed",
        "look_at",
        "majority_at",
        "opened_at",
        "suspect",
        "told_at",
        "verdict",
        "was_inferred",
    )

    def __init__(self, suspect: Suspect, now: float) -> None:
        self.suspect = suspect
        self.filed: dict[int, _Filed] = {}
        self.opened_at = now
        self.asked_at: dict[int, float] = {}
        self.majority_at: float | None = None
        self.verdict: Condemned | None = None
        self.was_inferred = False
        """A verdict stood that was no proof: it may have been acted on, even if it fell since."""
        self.told_at = float("-inf")
        self.look_at = now
        """When this account wants to be looked at again without news."""


class Suspicions:
    """What one broker thinks of its peers. Every public method in the past tense is an event; those that return effects
    want them run in order. The shell holds one timer for ``next_deadline``."""

    def __init__(
        self, broker_id: int, *, probe_s: float, share_isr: Callable[[int, int], bool], settle_s: float = VETO_WAIT_S
    ) -> None:
        """``share_isr(a, b)``: is there a partition in whose ISR both are?"""
        self._broker_id = broker_id
        self._probe_s = probe_s
        self._share_isr = share_isr
        self._settle_s = settle_s
        self.controller_id = -1
        """Who holds the office, as far as this broker knows."""
        self._brokers: dict[int, Suspect] = {}
        """The registered incarnations, this broker's own among them."""
        self._accounts: dict[int, _Account] = {}
        self._incarnations: dict[int, tuple[int, str]] = {}
        """Broker epoch and incarnation of whom this broker spoke with last."""
        self._fenced: dict[int, tuple[int, str]] = {}
        """The same of those that were condemned and lost their registration: should they speak again under a new
        epoch, the suspicion was false."""
        self._holds: dict[int, tuple[float, float]] = {}
        """Hold-downs: until when, and how long the last one was."""

    def __repr__(self) -> str:
        accounts = ", ".join(
            f"{account.suspect.broker_id}: "
            + " ".join(f"{reporter}={filed.finding.value}" for reporter, filed in sorted(account.filed.items()))
            for _, account in sorted(self._accounts.items())
        )
        return f"Suspicions({self._broker_id}, [{accounts}], held={sorted(self._holds)})"

    # Facts

    def brokers_changed(self, brokers: Iterable[BrokerRegistration], now: float) -> None:
        """All registered brokers. Accounts of incarnations that are gone are closed."""
        self._brokers = {broker.broker_id: suspect_of(broker) for broker in brokers if not broker.is_kafka}
        for broker_id, account in list(self._accounts.items()):
            if self._brokers.get(broker_id) == account.suspect:
                continue
            del self._accounts[broker_id]
            self._remember(account)

    def _remember(self, account: _Account) -> None:
        """Its registration is gone: whoever spoke under it may come back and prove the verdict false."""
        suspect = account.suspect
        known = self._incarnations.get(suspect.broker_id)
        if account.was_inferred and known is not None and known[0] == suspect.broker_epoch:
            self._fenced[suspect.broker_id] = known

    def controller_changed(self, controller_id: int) -> None:
        self.controller_id = controller_id

    def met(self, broker_id: int, broker_epoch: int, incarnation: str, now: float) -> bool:
        """A HELLO told who that broker is. True when it proves an earlier suspicion to have been false: the very
        process that was condemned speaks, under a new registration."""
        if broker_epoch < 0 or not incarnation:
            return False
        account = self._accounts.get(broker_id)
        if account is not None and broker_epoch > account.suspect.broker_epoch:
            # It is faster than the news that its registration under the old epoch is gone.
            self._remember(account)
        known = self._incarnations.get(broker_id)
        if known is not None and broker_epoch < known[0]:
            return False  # late words on a connection that it made under an earlier registration
        self._incarnations[broker_id] = broker_epoch, incarnation
        fenced = self._fenced.get(broker_id)
        if fenced is None or broker_epoch <= fenced[0]:
            return False
        del self._fenced[broker_id]
        if incarnation != fenced[1]:
            return False
        _, last_s = self._holds.get(broker_id, (0.0, HOLD_DOWN_S / 2))
        hold_s = min(HOLD_DOWN_S_MAX, last_s * 2)
        self._holds[broker_id] = now + hold_s, hold_s
        return True

    def held_until(self, broker_id: int) -> float:
        """That broker is not fenced early before this moment."""
        return self._holds.get(broker_id, (float("-inf"), 0.0))[0]

    def remarks(self, broker_id: int, now: float) -> list[str]:
        """What is held against that broker or for it, for people."""
        remarks = []
        account = self._accounts.get(broker_id)
        if account is not None:
            remarks += [f"says {reporter}: {filed.finding.value}" for reporter, filed in sorted(account.filed.items())]
            remarks += ["condemned"] if account.verdict is not None else []
        held_s = self.held_until(broker_id) - now
        return remarks + ([f"not fenced early for {held_s:.0f} s"] if held_s > 0 else [])

    def suspect(self, broker_id: int) -> Suspect | None:
        """The registered incarnation of that broker."""
        return self._brokers.get(broker_id)

    def condemned(self) -> list[Condemned]:
        """Every verdict that stands: a new controller acts on them in its first turn."""
        return [account.verdict for _, account in sorted(self._accounts.items()) if account.verdict is not None]

    # Evidence

    def noticed(self, evidence: Evidence, now: float) -> list[Effect]:
        """This broker or a peer found something out. What is not about a registered incarnation, or comes from one that
        is not registered, is ignored."""
        suspect, reporter = evidence.suspect, evidence.reporter
        if suspect.broker_id == self._broker_id or reporter == suspect.broker_id:
            return []
        if self._brokers.get(suspect.broker_id) != suspect:
            return []
        if reporter != self._broker_id:
            known = self._brokers.get(reporter)
            if known is None or known.broker_epoch != evidence.reporter_epoch:
                return []
        account = self._accounts.get(suspect.broker_id)
        if account is None:
            if evidence.finding in ALIVE:
                return []
            account = self._accounts[suspect.broker_id] = _Account(suspect, now)
        closed_at = now - evidence.closed_ago_s if evidence.closed_ago_s >= 0 else None
        account.filed[reporter] = _Filed(evidence.finding, now, closed_at)
        effects: list[Effect] = []
        if self._is_mute(account, self._broker_id, now) and evidence.finding not in ALIVE:
            effects.append(Probe(suspect))
        return effects + self._judge(account, now)

    def next_deadline(self) -> float | None:
        """When ``time_passed`` wants to be called, in the seconds of ``now``."""
        return min((account.look_at for account in self._accounts.values()), default=None)

    def time_passed(self, now: float) -> list[Effect]:
        """``next_deadline`` is reached."""
        effects: list[Effect] = []
        for broker_id, account in sorted(self._accounts.items()):
            if account.look_at <= now:
                effects += self._judge(account, now)
                if all(self._is_mute(account, reporter, now) for reporter in account.filed):
                    del self._accounts[broker_id]
        return effects

    # Verdicts

    def _is_mute(self, account: _Account, reporter: int, now: float) -> bool:
        filed = account.filed.get(reporter)
        return filed is None or filed.at + FRESH_S <= now

    def _judge(self, account: _Account, now: float) -> list[Effect]:
        account.look_at = now + ASK_AGAIN_S
        suspect = account.suspect
        peers = [broker for broker in sorted(self._brokers) if broker != suspect.broker_id]
        fresh = {reporter: account.filed[reporter] for reporter in peers if not self._is_mute(account, reporter, now)}
        verdict = self._verdict(account, peers, fresh, now)
        if verdict is None:
            account.verdict = None
            return self._ask(account, [peer for peer in peers if peer not in fresh], now)
        effects: list[Effect] = []
        if account.verdict is None or account.told_at + ASK_AGAIN_S <= now:
            if account.verdict is None:
                account.opened_at = now
            account.verdict = verdict
            account.was_inferred = account.was_inferred or not verdict.is_certain
            account.told_at = now
            effects.append(verdict)
        if suspect.broker_id == self.controller_id:
            effects += self._stand(account, verdict, peers, now)
        return effects

    def _verdict(self, account: _Account, peers: list[int], fresh: dict[int, _Filed], now: float) -> Condemned | None:
        suspect = account.suspect
        name = f"broker {suspect.broker_id}"
        for filed in fresh.values():
            if filed.finding in CERTAIN:
                told = "said BYE" if filed.finding is Finding.BYE else "has restarted"
                return Condemned(suspect, f"{name} {told}", True)
        if now < self.held_until(suspect.broker_id) or self._broker_id not in fresh:
            return None
        for reporter, filed in fresh.items():
            if filed.finding is Finding.TALKING and self._share_isr(reporter, suspect.broker_id):
                return None
        agreeing, what = self._refused(fresh), "refused connections"
        if not self._is_majority(agreeing, peers):
            agreeing, what = self._unreachable(fresh), "closed its connections and accepts none"
        if not self._is_majority(agreeing, peers):
            account.majority_at = None
            return None
        if account.majority_at is None:
            account.majority_at = now
        heard_by = account.majority_at + self._settle_s
        if now < heard_by and any(peer not in fresh for peer in peers):
            account.look_at = heard_by
            return None
        return Condemned(suspect, f"{name} {what}, {len(agreeing)} of {len(peers)} peers agree")

    def _is_majority(self, agreeing: list[int], peers: list[int]) -> bool:
        return self._broker_id in agreeing and 2 * len(agreeing) > len(peers)

    @staticmethod
    def _refused(fresh: dict[int, _Filed]) -> list[int]:
        """Class 1."""
        return [reporter for reporter, filed in fresh.items() if filed.finding is Finding.REFUSED]

    def _unreachable(self, fresh: dict[int, _Filed]) -> list[int]:
        """Class 2: who accepts no connection any more since all were closed, if all were closed at once."""
        closed = {
            reporter: filed.closed_at
            for reporter, filed in fresh.items()
            if filed.finding in (Finding.REFUSED, Finding.UNREACHABLE) and filed.closed_at is not None
        }
        if not closed or max(closed.values()) - min(closed.values()) > CLOSED_WITHIN_S:
            return []
        return [reporter for reporter, closed_at in closed.items() if fresh[reporter].at - closed_at >= self._probe_s]

    def _ask(self, account: _Account, missing: list[int], now: float) -> list[Effect]:
        """Those who said nothing are asked, by whoever may have to act."""
        if self._broker_id != self.controller_id and account.suspect.broker_id != self.controller_id:
            return []
        effects: list[Effect] = []
        for peer in missing:
            ask_at = max(account.opened_at + ASK_AFTER_S, account.asked_at.get(peer, float("-inf")) + ASK_AGAIN_S)
            if ask_at > now:
                account.look_at = min(account.look_at, ask_at)
                continue
            account.asked_at[peer] = now
            effects.append(Probe(account.suspect) if peer == self._broker_id else Ask(peer, account.suspect))
        return effects

    def _stand(self, account: _Account, verdict: Condemned, peers: list[int], now: float) -> list[Effect]:
        """Rule 7: the lowest live id first, the others one after the other."""
        if self._broker_id not in peers:
            return []
        others = [peer for peer in peers if peer not in self._accounts or self._accounts[peer].verdict is None]
        rank = sum(peer < self._broker_id for peer in others)
        stand_at = account.opened_at + STAND_AFTER_S * rank
        if now < stand_at:
            account.look_at = min(account.look_at, stand_at)
            return []
        return [Stand(verdict.suspect, verdict.reason)]

"""Whether the controller still hears the brokers it decides for, and what it does when not.

A controller that the others cannot reach keeps its office for as long as its ZooKeeper session lives, and nobody's
complaints, ISR changes or shutdowns are heard. So it gives the office up when those whom it has not heard of for
SILENT_SHARE of the session timeout are more than those it hears, itself among them: the smaller side steps down.

1. Halves stay: of two brokers neither can know which of them is cut off, and the office would only go to and fro.
2. Whoever stepped down lets others go first: for OWN_ASIDE_SHARE of the session timeout where it made the office vacant
   itself, so that a broker that is cut off gets it back only where nobody else wants it. At vacancies that it did not
   make, for ASIDE_SHARE, twice as long when it stepped down again, but never so long as whoever made this one: it may
   be well by now, and all others may have stepped down lately too.
   And whoever has stepped down lately is twice as patient in office each time: when all are cut off from all, the
   office soon stays where it is. That is over when it has heard the greater side again for a while, in office or not:
   then others were right to go on without it, and it is no worse a controller for it.
3. If nobody took the office meanwhile, all others are away, and stepping down again would help nobody: it stays until
   one of them is heard, or its patience in the longest is over. They may be back, and the cut still there.
4. A process that was stopped finds old moments and full sockets: it listens for a while before it judges.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

SILENT_SHARE = 1 / 2
"""Of the session timeout. Heartbeats come about each quarter of it."""

SILENT_S_MIN = 2.0
"""But no sooner than this, however short the timeout: a busy machine delays processes for a second now and then."""

ASIDE_SHARE = 1 / 6

ASIDE_SHARE_MAX = 1 / 3

OWN_ASIDE_SHARE = 1 / 2
"""That much more than ASIDE_SHARE_MAX, that others of whom each has a reason to wait have taken the office by then."""

FORGOTTEN_AFTER_S = 600.0
"""A broker that has not stepped down for so long is like any other."""

WELL_AFTER_FACTOR = 2.0
"""So is one that has heard the greater side for that much longer than it takes to step down."""

DOUBLINGS_MAX = 6

LOOKS_PER_SESSION = 20
"""``look`` is to be called so often in one session timeout."""

LATE_LOOK_FACTOR = 3.0
"""A look that comes later than so many periods was itself stopped."""


class OfficeReach:
    """Of one broker, over all its terms of office."""

    def __init__(self, session_timeout_s: float) -> None:
        self._timeout_s = session_timeout_s
        self._heard_at: dict[int, float] = {}
        self._looked_at = float("-inf")
        self._stepped_down_at = float("-inf")
        self._times = 0
        """How often it stepped down in a row."""
        self._answered_at: dict[int, float] = {}
        """Peer → when it answered last, since this broker stepped down."""
        self._well_since: float | None = None
        """Since when it has heard the greater side again."""
        self._is_alone = False
        """Nobody took the office when it stepped down, and nobody was heard since."""
        self._was_followed = True
        """Since it stepped down last, another broker was seen in office."""

    def __repr__(self) -> str:
        return f"OfficeReach(heard={sorted(self._heard_at)}, stepped_down={self._times})"

    @property
    def period_s(self) -> float:
        """Between two looks."""
        return self._timeout_s / LOOKS_PER_SESSION

    def term_began(self, now: float) -> None:
        self._heard_at.clear()
        self._looked_at = now
        self._is_alone = not self._was_followed

    def another_holds(self) -> None:
        """Another broker is in office."""
        self._was_followed = True

    def heard(self, broker_id: int, now: float) -> None:
        """That broker's words have arrived here."""
        self._heard_at[broker_id] = now
        self._is_alone = False

    def peer_answered(self, broker_id: int, others: Collection[int], now: float) -> None:
        """A peer answered a question of this broker's, in office or not. ``others`` as for ``look``."""
        if self._times == 0:
            return
        last_at = max(self._answered_at.values(), default=float("-inf"))
        self._answered_at[broker_id] = now
        heard = [other for other in others if now - self._answered_at.get(other, float("-inf")) < self._patience_s]
        if _is_smaller_side(len(heard), len(others)):
            self._well_since = None
        elif self._well_since is None or now - last_at >= self._patience_s:
            self._well_since = now
        elif now - self._well_since >= self._patience_s * WELL_AFTER_FACTOR:
            self._times = 0

    @property
    def _patience_s(self) -> float:
        """Of a broker that has not stepped down lately."""
        return max(SILENT_S_MIN, self._timeout_s * SILENT_SHARE)

    def look(self, others: Iterable[int], now: float) -> str | None:
        """Why to step down, or None to stay. ``others``: those that are registered, without this broker."""
        is_late = now - self._looked_at > self.period_s * LATE_LOOK_FACTOR
        self._looked_at = now
        heard_at = self._heard_at
        self._heard_at = {other: now if is_late else heard_at.get(other, now) for other in sorted(others)}
        doublings = DOUBLINGS_MAX if self._is_alone else min(self._times_lately(now), DOUBLINGS_MAX)
        silent_s = self._patience_s * 2.0**doublings
        silent = [other for other, at in self._heard_at.items() if now - at >= silent_s]
        if not _is_smaller_side(len(self._heard_at) - len(silent), len(self._heard_at)):
            return None
        names = ",".join(map(str, silent))
        return f"{len(silent)} of {len(self._heard_at)} other brokers ({names}) were not heard for {silent_s:g} s"

    def stepped_down(self, now: float) -> None:
        """It did what ``look`` said."""
        self._times = self._times_lately(now) + 1
        self._stepped_down_at = now
        self._was_followed = False
        self._answered_at.clear()
        self._well_since = None

    def aside_s(self, now: float) -> float:
        """How long this broker waits at a vacancy before it stands."""
        if self._times_lately(now) == 0:
            return 0.0
        if not self._was_followed:
            return self._timeout_s * OWN_ASIDE_SHARE
        share = ASIDE_SHARE * 2.0 ** min(self._times - 1, DOUBLINGS_MAX)
        return self._timeout_s * min(ASIDE_SHARE_MAX, share)

    def _times_lately(self, now: float) -> int:
        return 0 if now - self._stepped_down_at > FORGOTTEN_AFTER_S else self._times


def _is_smaller_side(heard: int, others: int) -> bool:
    """Whether a broker that hears so many of the others is, with them, fewer than those it does not hear."""
    return others - heard > heard + 1

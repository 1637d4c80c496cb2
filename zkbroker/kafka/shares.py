"""The share of each turn of the reactor that requests get which come by the hundred at the same moment.

When a coordinator dies, all members of all its groups find the next one together. Worked on as they come, their
requests would keep everybody else waiting for as long as all of them take; a producer that has nothing to do with it
would see that. So they get a slice of each turn, first come first served, and whatever came meanwhile is read between
two slices. Nothing is slower for it, all together.
"""

from __future__ import annotations

from typing import Any, Protocol

from zkbroker.model.clock import Clock

SLICE_S = 0.002
"""Of one turn. The last request that begins in it may take longer."""

PAUSE_S = 0.001
"""With so long a time between two requests there is no crowd, and the slice begins anew without another turn."""


class Claimant(Protocol):
    def share_came(self) -> None:
        """Claim again: it is your turn."""
        ...


class Shares:
    """Who may begin in this turn, and the line of those who wait for the next. A request that comes alone costs no
    turn of its own."""

    def __init__(self, reactor: Any, clock: Clock) -> None:
        self._reactor = reactor
        self._clock = clock
        self._until = 0.0
        """The end of the slice."""
        self._call: Any = None
        """Of the next turn, while somebody waits for it."""
        self._waiting: dict[Claimant, None] = {}
        self._called: Claimant | None = None
        """Whose turn it is."""
        self._ended_at = float("-inf")
        """When the last one had been worked on."""

    def __repr__(self) -> str:
        return f"Shares({len(self._waiting)} waiting)"

    def claim(self, claimant: Claimant) -> bool:
        """True: begin. False: ``share_came`` will be called, in a later turn."""
        if claimant is self._called:
            self._called = None
            return True
        if not self._waiting:
            now = self._clock.monotonic()
            if now < self._until:
                return True
            if now - self._ended_at >= PAUSE_S:
                self._until = now + SLICE_S
                return True
        self._waiting[claimant] = None
        if self._call is None:
            self._call = self._reactor.callLater(0, self._next_turn)
        return False

    def ended(self) -> None:
        """The request that was begun has been worked on, whether or not it is answered yet."""
        self._ended_at = self._clock.monotonic()

    def forget(self, claimant: Claimant) -> None:
        """Its connection is gone."""
        self._waiting.pop(claimant, None)

    def stop(self) -> None:
        self._waiting.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _next_turn(self) -> None:
        self._call = None
        self._until = self._clock.monotonic() + SLICE_S
        while self._waiting and self._clock.monotonic() < self._until:
            self._called = claimant = next(iter(self._waiting))
            del self._waiting[claimant]
            claimant.share_came()
        self._called = None
        if self._waiting and self._call is None:
            self._call = self._reactor.callLater(0, self._next_turn)

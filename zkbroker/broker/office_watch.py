"""Looks whether the controller that this broker is still hears the others, and has it step down when not."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from zkbroker.controller.reach import OfficeReach
from zkbroker.model.clock import Clock


class OfficeWatch:
    """Runs ``controller.reach``. ``others()``: the registered brokers without this one, as the term knows them, or None
    while nothing can be done about it (no ZooKeeper); ``step_down(reason)`` gives up the office."""

    def __init__(
        self,
        *,
        broker_id: int,
        reactor: Any,
        clock: Clock,
        session_timeout_s: float,
        others: Callable[[], list[int] | None],
        step_down: Callable[[str], None],
    ) -> None:
        self._broker_id = broker_id
        self._reactor = reactor
        self._clock = clock
        self._reach = OfficeReach(session_timeout_s)
        self._others = others
        self._step_down = step_down
        self._vacant_at: float | None = None
        """Since when nobody holds the office, as far as this broker saw."""
        self._call: Any = None

    def __repr__(self) -> str:
        return repr(self._reach)

    def term_began(self) -> None:
        self._vacant_at = None
        self._reach.term_began(self._clock.monotonic())
        self._later()

    def term_ended(self) -> None:
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    def heard(self, broker_id: int) -> None:
        """A broker's heartbeat or complaint arrived. That this broker hears itself means nothing."""
        if broker_id != self._broker_id:
            self._reach.heard(broker_id, self._clock.monotonic())

    def peer_answered(self, broker_id: int, others: Collection[int]) -> None:
        """A peer answered this broker's PING."""
        self._reach.peer_answered(broker_id, others, self._clock.monotonic())

    def another_holds(self) -> None:
        """Another broker is in office."""
        self._vacant_at = None
        self._reach.another_holds()

    def aside_s(self) -> float:
        """Nobody holds the office: for how long this broker still lets others go first."""
        now = self._clock.monotonic()
        if self._vacant_at is None:
            self._vacant_at = now
        return self._vacant_at + self._reach.aside_s(now) - now

    def _later(self) -> None:
        self._call = self._reactor.callLater(self._reach.period_s, self._look)

    def _look(self) -> None:
        self._later()
        others = self._others()
        if others is None:
            return
        now = self._clock.monotonic()
        reason = self._reach.look(others, now)
        if reason is not None:
            self._reach.stepped_down(now)
            self._step_down(reason)

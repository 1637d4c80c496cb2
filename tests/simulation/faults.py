"""What goes wrong in a simulated cluster, and when: a plan drawn from the run's one seed.

A fault strikes at a step, between any two events, and often ends some simulated time later (a restart, a link that
heals). Each has a number and a randomness of its own, so that leaving some of them out (``disabled``, for shrinking)
changes neither when nor how the others strike.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from tests.simulation.aimed_replication import AimedReplication
from tests.simulation.gray_faults import GrayFaults
from tests.simulation.profiles import Profile
from tests.simulation.start_faults import StartFaults

STEPS_BETWEEN_MIN = 1
"""Two faults may strike in a row: what is rare alone is what nobody thought of together."""


class Struck(NamedTuple):
    """One fault as it happened, for people and for shrinking."""

    number: int
    step: int
    kind: str
    text: str


class FaultDriver(AimedReplication, GrayFaults, StartFaults):
    """Strikes a world by the rates of a profile. ``after_step`` is called after each step; ``stop`` ends it."""

    def __init__(self, world: Any, profile: Profile, *, disabled: Collection[int] = ()) -> None:
        self._world = world
        self._disabled = frozenset(disabled)
        # Derived from the world's own randomness: one seed decides everything.
        self._random = random.Random(world.random.getrandbits(64))
        self._kinds = sorted(kind for kind, rate in profile.rates.items() if rate > 0)
        self._weights = [profile.rates[kind] for kind in self._kinds]
        unknown = [kind for kind in self._kinds if not hasattr(self, f"_{kind}")]
        if unknown:
            raise ValueError(f"profile {profile.name}: no such faults: {', '.join(unknown)}")
        self._steps_between = 1000.0 / sum(self._weights) if self._weights else float("inf")
        self._number = 0
        self._watchers = []
        self._next_step: float = world.steps
        self._is_stopped = not self._weights
        self.struck: list[Struck] = []
        self._draw_next()

    def __repr__(self) -> str:
        return f"FaultDriver({len(self.struck)} struck, next at step {self._next_step:.0f})"

    def _draw_next(self) -> None:
        gap = self._random.expovariate(1.0 / self._steps_between) if self._weights else 0.0
        self._next_step += max(STEPS_BETWEEN_MIN, gap)

    def after_step(self, world: Any) -> None:
        """Strike what is due: each as an event of its own."""
        if self._watchers and not self._is_stopped:
            self._watch()
        while not self._is_stopped and world.steps >= self._next_step:
            number, self._number = self._number, self._number + 1
            kind = self._random.choices(self._kinds, self._weights)[0]
            own = random.Random(self._random.getrandbits(64))
            self._draw_next()
            if number not in self._disabled:
                world.call_later(
                    0.0, "fault", lambda number=number, kind=kind, own=own: self._strike(number, kind, own)
                )

    def stop(self) -> None:
        """No more faults; what has begun ends by itself, or with ``World.heal_all``."""
        self._is_stopped = True

    def _strike(self, number: int, kind: str, own: random.Random) -> None:
        if self._is_stopped:
            return
        strike: Callable[[random.Random], str | None] = getattr(self, f"_{kind}")
        # Noted ahead: what follows in the trace is its doing.
        place = len(self.struck)
        self.struck.append(Struck(number, self._world.steps, kind, "nobody to strike"))
        text = strike(own)
        if text is not None:
            self.struck[place] = self.struck[place]._replace(text=text)
            self._world.counts[f"fault:{kind}"] += 1
            self._world.trace.add("fault", f"{number} {kind}: {text}")

    def _later(self, seconds: float, what: str, act: Callable[[], object]) -> None:
        """The end of a fault: an event like any other; nothing once the driver stopped, then all is healed at once."""

        def end() -> None:
            if not self._is_stopped:
                self._world.trace.add("fault", f"ends: {what}")
                act()

        self._world.call_later(seconds, "fault", end)

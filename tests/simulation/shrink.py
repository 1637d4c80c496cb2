"""A failing run made smaller: fewer steps, fewer faults, a smaller cluster, as long as it fails in the same way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise

from tests.simulation.run import RunResult, RunSpec

Run = Callable[[RunSpec], RunResult]


class Shrinker:
    """Tries smaller runs one after another and keeps the smallest that fails like the first one."""

    def __init__(self, failed: RunResult, *, run: Run, say: Callable[[str], None], seconds_max: float = 300.0) -> None:
        if failed.violation is None:
            raise ValueError(f"{failed.spec} did not fail: nothing to shrink")
        self.best = failed
        self._signature = failed.signature()
        self._run = run
        self._say = say
        self._end = time.monotonic() + seconds_max
        self.runs_count = 0

    def shrink(self) -> RunResult:
        """Smaller and smaller until nothing helps or the time is over."""
        while True:
            before = self.best
            self._smaller_cluster()
            self._cut_steps()
            self._fewer_faults()
            self._cut_steps()
            if self.best is before or self._is_late():
                return self.best

    def _is_late(self) -> bool:
        return time.monotonic() > self._end

    def _try(self, spec: RunSpec, what: str) -> bool:
        """Run it; True, and it is the best now, if it fails in the same way at no later a step."""
        if spec == self.best.spec or self._is_late():
            return False
        self.runs_count += 1
        result = self._run(spec)
        if result.violation is None or result.signature() != self._signature or result.steps > self.best.steps:
            return False
        self.best = result
        self._say(f"{what}: fails at step {result.steps} with {len(result.faults)} faults")
        return True

    def _cut_steps(self) -> None:
        """No more steps than it took. What fails only after the faults healed is tried with half of them, and so on."""
        if self.best.steps < self.best.spec.steps:
            self._try(self.best.spec._replace(steps=self.best.steps), "ends where it fails")
        low, high = 0, self.best.spec.steps
        while high - low > max(1, high // 50):
            middle = (low + high) // 2
            if self._try(self.best.spec._replace(steps=middle), f"{middle} steps"):
                high = min(middle, self.best.steps)
            else:
                low = middle

    def _smaller_cluster(self) -> None:
        for name, values in (("clients", (1, 2)), ("partitions", (1, 2)), ("brokers", (2, 3, 4))):
            present = getattr(self.best.spec, name)
            for value in values:
                if (present is None or value < present) and self._try(
                    self.best.spec._replace(**{name: value}), f"{value} {name}"
                ):
                    break

    def _fewer_faults(self) -> None:
        """Delta debugging over the faults that struck: leave out halves, quarters … single ones."""
        parts = 2
        while True:
            struck = sorted({fault.number for fault in self.best.faults})
            if not struck:
                return
            parts = min(parts, len(struck))
            if any(self._leave_out(chunk) for chunk in _chunks(struck, parts)):
                parts = max(2, parts - 1)
            elif parts == len(struck) or self._is_late():
                return
            else:
                parts = min(parts * 2, len(struck))

    def _leave_out(self, numbers: Sequence[int]) -> bool:
        without = tuple(sorted({*self.best.spec.without_faults, *numbers}))
        return self._try(self.best.spec._replace(without_faults=without), f"without faults {_shown(numbers)}")


def _chunks(numbers: Sequence[int], parts: int) -> list[Sequence[int]]:
    edges = [len(numbers) * index // parts for index in range(parts + 1)]
    return [numbers[start:end] for start, end in pairwise(edges) if end > start]


def _shown(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}…{numbers[-1]}"

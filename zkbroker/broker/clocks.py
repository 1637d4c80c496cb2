"""The machine's two clocks, as the composition root passes them to everything else."""

from __future__ import annotations

import time

# CLOCK_BOOTTIME counts the time a suspended machine slept, which CLOCK_MONOTONIC does not: a broker that
# was suspended past its session timeout must know it.
_MONOTONIC_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """Fills ``model.clock.Clock`` from the operating system."""

    def monotonic(self) -> float:
        return time.clock_gettime(_MONOTONIC_CLOCK)

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

"""Time as it is passed in: nothing below the composition root reads a clock of its own."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """The two clocks of a broker; a simulator supplies its own."""

    def monotonic(self) -> float:
        """Seconds that never go back and count suspended time: for timeouts, lag and contact."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since 1970: for timestamps only, never for deadlines."""
        ...

"""A process that only sleeps and notes how late it wakes: whether the machine had time for those that were measured.

A figure of a few milliseconds means nothing on a machine on which a process that has nothing to do waits longer than
that for a processor.
"""

from __future__ import annotations

import contextlib
import struct
import sys
import time
from pathlib import Path
from typing import NamedTuple

from zkbroker.cli._figures import percentile
from zkbroker.cli._processes import ChildProcess, wait_until

INTERVAL_S = 0.002
SAMPLE = struct.Struct("=dd")
"""When it woke, by the clock that all processes of a machine share (time.monotonic), and how late that was."""
WRITE_EVERY_S = 0.1
"""Short beside a measurement, long beside the writing itself."""
QUIET_P99_MS = 20.0
"""A machine on which one wake-up in a hundred is later than this measures itself."""


class SchedulingDelay(NamedTuple):
    """How late the canary woke within a stretch of time."""

    p99_ms: float
    max_ms: float

    @property
    def is_quiet(self) -> bool:
        return self.p99_ms <= QUIET_P99_MS


def delay_between(samples: list[tuple[float, float]], since_s: float, until_s: float) -> SchedulingDelay:
    """Of the samples (woke at, late by) in that stretch; a wake-up counts with the whole sleep before it."""
    late_ms = [1000 * late for woke, late in samples if woke >= since_s and woke - late <= until_s]
    if not late_ms:  # it did not wake at all
        late_ms = [1000 * (until_s - since_s)]
    return SchedulingDelay(percentile(late_ms, 0.99), max(late_ms))


class Canary:
    """The process, and what it noted. A context manager."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "canary.samples"
        self._process = ChildProcess(
            "canary", [sys.executable, "-m", "zkbroker.cli._canary", str(self._path)], directory / "canary.log"
        )
        self._offset = 0
        self._samples: list[tuple[float, float]] = []

    def __enter__(self) -> Canary:
        self._process.start()
        wait_until(self._read, "the canary has woken", 90, self._process.log_tail)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    def delay(self, since_s: float, until_s: float) -> SchedulingDelay:
        """Between two moments of time.monotonic(); waits until the canary has written down the second."""

        wait_until(lambda: self._read()[-1][0] >= until_s, "the canary has woken", 90, self._process.log_tail)
        return delay_between(self._samples, since_s, until_s)

    def forget(self, before_s: float) -> None:
        """Drop what was noted before that moment."""
        self._samples = [sample for sample in self._samples if sample[0] >= before_s] or self._samples[-1:]

    def _read(self) -> list[tuple[float, float]]:
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
            whole = len(data) - len(data) % SAMPLE.size
            self._offset += whole
            self._samples.extend(SAMPLE.iter_unpack(data[:whole]))
        return self._samples


def main(path: str) -> None:
    with Path(path).open("wb", buffering=0) as file:
        noted = bytearray()
        write_at = 0.0
        due = time.monotonic() + INTERVAL_S
        while True:
            time.sleep(max(0.0, due - time.monotonic()))
            woke = time.monotonic()
            noted += SAMPLE.pack(woke, woke - due)
            if woke >= write_at:
                file.write(noted)
                noted.clear()
                write_at = woke + WRITE_EVERY_S
            due = time.monotonic() + INTERVAL_S


if __name__ == "__main__":
    main(sys.argv[1])

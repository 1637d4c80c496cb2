"""Many seeds, side by side in processes: progress, minimum counts, and what to do about a failure."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.simulation.run import RunResult, RunSpec, run

PROGRESS_EVERY_S = 10.0
TRACE_LINES_SHOWN = 60
"""Of the end of a failed run's trace; ``--trace`` shows all of it."""

MINIMUM_PER_MILLION_STEPS: Mapping[str, int] = {
    "elections": 500,
    "fast_fences": 20,
    "false_suspicions": 100,
    "truncations_with_bytes": 50,
    "isr_shrinks": 600,
    "isr_expansions": 500,
    "lossy_restarts": 150,
    "acked_all": 5_000,
    "read_again": 8_000,
}
"""What a campaign over all profiles must have seen to be worth its name; about half of what it usually sees."""

MINIMUM_OF_ANY_PROFILE: Mapping[str, int] = {
    "isr_shrinks": 200,
    "isr_expansions": 90,
    "acked_all": 1_000,
    "read_again": 800,
}
"""What a campaign over one profile must have seen: half of what the poorest of them sees in eight runs."""


class Campaign(NamedTuple):
    """What many runs came to."""

    runs_count: int
    failures: tuple[RunResult, ...]
    counts: Counter[str]
    seconds: float

    @property
    def steps(self) -> int:
        return self.counts["steps"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what was done until then."""

    def __init__(self, campaign: Campaign) -> None:
        super().__init__()
        self.campaign = campaign


def run_campaign(
    specs: Iterable[RunSpec],
    *,
    jobs: int,
    say: Callable[[str], None],
    failures_max: int = 1,
    seconds_max: float | None = None,
    runs_min: int = 0,
) -> Campaign:
    """Run all ``specs``, several at a time, until done, ``failures_max`` failed, or the time is over and ``runs_min``
    are done. Ctrl-C is ``Interrupted``."""
    began = time.monotonic()
    said = began
    counts: Counter[str] = Counter()
    failures: list[RunResult] = []
    done = 0
    specs = list(specs)
    try:
        with _results(specs, jobs) as results:
            for result in results:
                done += 1
                counts.update(result.counts)
                counts["steps"] += result.steps
                if result.violation is not None:
                    failures.append(result)
                    say(f"FAILED {result.headline()}")
                now = time.monotonic()
                if now - said >= PROGRESS_EVERY_S:
                    said = now
                    steps, seconds = counts["steps"], now - began
                    say(f"{done}/{len(specs)} runs, {steps:,} steps, {len(failures)} failed, {seconds:.0f} s")
                is_late = seconds_max is not None and now - began > seconds_max and done >= runs_min
                if len(failures) >= failures_max or is_late:
                    break
    except KeyboardInterrupt:
        raise Interrupted(Campaign(done, tuple(failures), counts, time.monotonic() - began)) from None
    return Campaign(done, tuple(failures), counts, time.monotonic() - began)


@contextmanager
def _results(specs: list[RunSpec], jobs: int) -> Iterator[Iterable[RunResult]]:
    """The results as they come; each worker process runs one world at a time, and leaves Ctrl-C to this one."""
    if jobs <= 1:
        yield map(run, specs)
        return
    with multiprocessing.get_context("fork").Pool(
        jobs, signal.signal, (signal.SIGINT, signal.SIG_IGN), maxtasksperchild=50
    ) as pool:
        yield pool.imap_unordered(run, specs)
        pool.terminate()


def missing_counts(campaign: Campaign, minimum_per_million: Mapping[str, int] | None = None) -> list[str]:
    """Which minimum counts were not reached, scaled to the steps that were run: one line each."""
    minimum = MINIMUM_PER_MILLION_STEPS if minimum_per_million is None else minimum_per_million
    lines = []
    for name, wanted in minimum.items():
        needed = wanted * campaign.steps // 1_000_000
        if campaign.counts[name] < needed:
            lines.append(f"{name.replace('_', ' ')}: {campaign.counts[name]:,}, wanted {needed:,}")
    return lines


def summary(campaign: Campaign) -> list[str]:
    """The campaign in a few lines for people."""
    counts = campaign.counts
    runs = "1 run" if campaign.runs_count == 1 else f"{campaign.runs_count:,} runs"
    lines = [
        f"{runs}, {campaign.steps:,} steps, {len(campaign.failures)} failed, "
        f"{campaign.seconds:.1f} s ({campaign.steps / max(campaign.seconds, 1e-9):,.0f} steps/s)"
    ]
    lines += [
        f"  {name.replace('_', ' ')}: {counts[name]:,}"
        for name in sorted(counts)
        if name != "steps" and not name.startswith("fault:")
    ]
    struck = {name.removeprefix("fault:"): count for name, count in sorted(counts.items()) if name.startswith("fault:")}
    lines.append(f"  faults: {', '.join(f'{kind} {count}' for kind, count in struck.items()) or 'none'}")
    return lines


def report(result: RunResult, *, whole_trace: bool = False) -> list[str]:
    """A failed run for people: what, where, how it came to it, how to see it again."""
    lines = ["", f"VIOLATION {result.headline()}", f"commit {commit()}", ""]
    lines += [f"  fault {fault.number} at step {fault.step}: {fault.kind}: {fault.text}" for fault in result.faults]
    shown = result.trace if whole_trace else result.trace[-TRACE_LINES_SHOWN:]
    lines += ["", *shown, "", *(result.violation or "").splitlines()]
    if result.traceback:
        lines += ["", *result.traceback.splitlines()]
    lines += ["", f"again:  {command(result.spec)}", f"shrink: {command(result.spec)} --shrink"]
    return lines


def command(spec: RunSpec) -> str:
    """The command that repeats a run."""
    parts = [f"bin/zkbroker-simulate --seed {spec.seed} --steps {spec.steps} --profile {spec.profile}"]
    if spec.mutant:
        parts.append(f"--mutant {spec.mutant}")
    if spec.without_faults:
        parts.append(f"--without-faults {','.join(map(str, spec.without_faults))}")
    if not spec.heals:
        parts.append("--no-heal")
    for name in ("brokers", "partitions", "clients"):
        value = getattr(spec, name)
        if value is not None:
            parts.append(f"--{name} {value}")
    return " ".join(parts)


def commit() -> str:
    """The commit of this checkout, with a mark if files differ from it; ``unknown`` outside of one."""
    root = Path(__file__).resolve().parents[2]
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

"""Which seed notices that a rule is missing, or a bug back: the hunt for it, and the tables of what was found."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.simulation.bugs import BUGS
from tests.simulation.campaign import run_campaign
from tests.simulation.mutant_results import HOLES, RESULTS, SURVIVORS, Caught
from tests.simulation.mutants import MUTANTS
from tests.simulation.mutation import Mutant
from tests.simulation.profiles import PROFILES
from tests.simulation.regressions import NOTICED, UNNOTICED
from tests.simulation.run import RunResult, RunSpec, run

RECHECK_SEED = 1
RECHECK_SEEDS = 150

ROOT = Path(__file__).resolve().parents[2]

PYTEST_WITHOUT = """\
import sys, pytest
from tests.simulation.bugs import SWITCHES
from tests.simulation.mutation import applied
with applied(SWITCHES[sys.argv[1]]):
    sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", sys.argv[2]]))
"""


class Hunted(NamedTuple):
    """A run that noticed, and how many seeds it took to find it."""

    caught: Caught
    seeds_count: int
    result: RunResult


def hunt(
    mutant: Mutant,
    seeds: range,
    *,
    profile: str | None,
    steps: int,
    jobs: int,
    say: Callable[[str], None],
    seconds_max: float | None = None,
) -> Hunted | None:
    """Run ``seeds`` without the mutant's rule until a violation comes where the whole product runs clean; None if none
    does."""
    names = list(PROFILES)
    specs = []
    for seed in seeds:
        chosen = names[seed % len(names)] if profile == "all" else profile or mutant.profile
        specs.append(RunSpec(seed, chosen, steps, mutant.name))
    began = time.monotonic()
    while specs:
        left_s = None if seconds_max is None else seconds_max - (time.monotonic() - began)
        campaign = run_campaign(specs, jobs=jobs, say=lambda line: None, seconds_max=left_s)
        if not campaign.failures:
            break
        result = campaign.failures[0]
        spec = result.spec
        if run(spec._replace(mutant="")).violation is None:
            say(f"{mutant.name}: caught with {spec.seed}, {time.monotonic() - began:.0f} s")
            caught = Caught(spec.seed, spec.profile, spec.steps, result.steps, invariant_of(result))
            return Hunted(caught, spec.seed - seeds[0] + 1, result)
        # A run that fails with the rule too says nothing of it.
        specs = [other for other in specs if other.seed > spec.seed]
    say(f"{mutant.name}: not caught, {time.monotonic() - began:.0f} s")
    return None


def invariant_of(result: RunResult) -> int:
    """The number in a violation's text; -1 for a clean run."""
    words = (result.violation or "").split(":", 1)[0].split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else -1


def result_line(name: str, hunted: Hunted | None) -> str:
    """A line of ``mutant_results.RESULTS``, or ``regressions.NOTICED``."""
    if hunted is None:
        return f'    # "{name}" was not caught'
    where = hunted.result.headline().rpartition("step ")[2][:90]
    return f'    "{name}": {hunted.caught!r},  # {hunted.seeds_count} seeds: {where}'


def recheck(name: str, *, seconds_max: float | None = None) -> str | None:
    """Run the line of the table of a mutant or bug again; why it does not hold any more, or None. A change of the
    product changes what a seed does: then one of the next ``RECHECK_SEEDS`` seeds of that profile must notice. Where
    the time is over before they are through nothing is known, which is no failure."""
    known = {**RESULTS, **NOTICED}[name]
    began = time.monotonic()
    for seed in (known.seed, *range(RECHECK_SEED, RECHECK_SEED + RECHECK_SEEDS)):
        if run(RunSpec(seed, known.profile, known.steps, name)).violation is not None:
            return None
        if seconds_max is not None and time.monotonic() - began > seconds_max:
            return None
    return f"{name}: neither seed {known.seed} of profile {known.profile} nor {RECHECK_SEEDS} others notice it"


def table() -> list[str]:
    """Every mutant, its rule, and where it fell, for people."""
    lines = []
    for name, mutant in MUTANTS.items():
        caught = RESULTS.get(name)
        if caught is not None:
            where = f"--seed {caught.seed} --profile {caught.profile}: step {caught.step}, invariant {caught.invariant}"
        elif name in SURVIVORS:
            where = f"survives: {SURVIVORS[name]}"
        else:
            where = f"NOT CAUGHT: {HOLES.get(name, 'not hunted')}"
        lines += [f"{name}", f"    {mutant.rule}", f"    {where}"]
    return lines


def recheck_test(name: str) -> str | None:
    """Run the bug's test with the bug back; why it does not hold the bug any more, or None."""
    test = f"tests/{BUGS[name].test}"
    command = [sys.executable, "-c", PYTEST_WITHOUT, name, test]
    status = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return None if status.returncode == 1 else f"{name}: {test} ends with {status.returncode}, not 1"


def table_of_bugs() -> list[str]:
    """Every bug, where it is noticed, and the test that holds it, for people."""
    lines = []
    for name, bug in BUGS.items():
        noticed = NOTICED.get(name)
        if noticed is None:
            where = f"no run shows it: {UNNOTICED.get(name, 'not hunted')}"
        else:
            where = f"--seed {noticed.seed} --profile {noticed.profile}: step {noticed.step}"
            where += f", invariant {noticed.invariant}"
        lines += [f"{name}", f"    {bug.what}", f"    found: {bug.found}; mended: {bug.mended}"]
        lines += [f"    {where}", f"    tests/{bug.test}"]
    return lines

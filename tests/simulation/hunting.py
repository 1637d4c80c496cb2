"""Which seed notices that a rule is missing: the hunt for it, and the table of what was found."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from tests.simulation.campaign import run_campaign
from tests.simulation.mutant_results import HOLES, RESULTS, SURVIVORS, Caught
from tests.simulation.mutants import MUTANTS
from tests.simulation.mutation import Mutant
from tests.simulation.profiles import PROFILES
from tests.simulation.run import RunResult, RunSpec, run

RECHECK_SEED = 1
RECHECK_SEEDS = 150


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
    """A line of ``mutant_results.RESULTS``."""
    if hunted is None:
        return f'    # "{name}" was not caught'
    where = hunted.result.headline().rpartition("step ")[2][:90]
    return f'    "{name}": {hunted.caught!r},  # {hunted.seeds_count} seeds: {where}'


def recheck(name: str, *, seconds_max: float | None = None) -> str | None:
    """Run the mutant's line of the table again; why it does not hold any more, or None. A change of the product changes
    what a seed does: then one of the next ``RECHECK_SEEDS`` seeds of that profile must notice. Where the time is over
    before they are through nothing is known, which is no failure."""
    known = RESULTS[name]
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

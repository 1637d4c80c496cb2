"""What ``bin/test`` runs of the simulator: as many seeds as fit in a few minutes, the seeds that failed once, a part of
the mutants, and one seed under two hash seeds. ``bin/zkbroker-simulate`` runs more."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.simulation.bugs import BUGS
from tests.simulation.campaign import missing_counts, processors, report, run_campaign, summary
from tests.simulation.hunting import recheck
from tests.simulation.mutant_results import HOLES, RESULTS, SURVIVORS, Caught
from tests.simulation.mutants import MUTANTS
from tests.simulation.profiles import PROFILES
from tests.simulation.regressions import NOTICED, REGRESSIONS, UNNOTICED
from tests.simulation.run import RunSpec

ROOT = Path(__file__).resolve().parents[2]
CAMPAIGN_SECONDS = float(os.environ.get("ZKBROKER_SIMULATION_SECONDS", "90"))
MUTANT_SECONDS = 50.0
BUG_SECONDS = 25.0
FIRST_SEED = 1_000_001
"""Other seeds than those that people begin with."""


@pytest.mark.timeout(600)
def test_seeds_of_all_profiles_are_clean() -> None:
    names = list(PROFILES)
    specs = [RunSpec(FIRST_SEED + number, names[number % len(names)]) for number in range(4000)]
    # On a slow machine a little later, but never less than one run of each profile.
    campaign = run_campaign(specs, jobs=processors(), say=print, seconds_max=CAMPAIGN_SECONDS, runs_min=len(names))
    print("\n".join(summary(campaign)))
    assert not campaign.failures, "\n".join(report(campaign.failures[0]))
    assert not missing_counts(campaign)


ONCE_FAILED = {f"{one.profile}-{one.seed}": RunSpec(one.seed, one.profile, one.steps) for one in REGRESSIONS} | {
    name: RunSpec(caught.seed, caught.profile, caught.steps) for name, caught in NOTICED.items()
}


@pytest.mark.parametrize("name", ONCE_FAILED)
@pytest.mark.timeout(300)
def test_what_failed_once_is_clean(name: str) -> None:
    campaign = run_campaign([ONCE_FAILED[name]], jobs=1, say=print)
    assert not campaign.failures, "\n".join(report(campaign.failures[0]))


@pytest.mark.parametrize(
    ("table", "seconds"), [(RESULTS, MUTANT_SECONDS), (NOTICED, BUG_SECONDS)], ids=["rules", "bugs"]
)
@pytest.mark.timeout(300)
def test_a_missing_rule_or_a_bug_that_is_back_is_noticed(table: dict[str, Caught], seconds: float) -> None:
    """Those whose run is short, as many as fit; ``--check-mutants`` and ``--check-bugs`` run all."""
    end = time.monotonic() + seconds
    checked = 0
    for name in sorted(table, key=lambda name: table[name].step):
        left_s = end - time.monotonic()
        if left_s <= 0:
            break
        assert recheck(name, seconds_max=left_s) is None
        checked += 1
    assert checked


def test_every_bug_is_noticed_by_a_run_or_says_why_not() -> None:
    assert not [name for name in BUGS if (name in NOTICED) == (name in UNNOTICED)]
    assert not [name for name in (*NOTICED, *UNNOTICED) if name not in BUGS]


def test_every_mutant_was_caught_or_says_why_not() -> None:
    unknown = [name for name in MUTANTS if not (name in RESULTS or name in HOLES or name in SURVIVORS)]
    assert not unknown
    assert not [name for name in (*RESULTS, *HOLES, *SURVIVORS) if name not in MUTANTS]
    assert not RESULTS.keys() & HOLES.keys()
    assert not (RESULTS.keys() | HOLES.keys()) & SURVIVORS.keys()
    assert not HOLES
    assert len(RESULTS) >= 46


@pytest.mark.timeout(300)
def test_one_seed_is_one_run_to_the_byte() -> None:
    """In two processes under two hash seeds: sets and dicts iterate differently, ids differ, the trace does not."""
    traces = []
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", "42", "--steps", "3000", "--trace"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        )
        traces.append(done.stdout.splitlines())
    assert len(traces[0]) > 2000
    for number, (one, two) in enumerate(zip(*traces, strict=False)):
        assert one == two, f"line {number}"
    assert len(traces[0]) == len(traces[1])

"""Shrinking finds the faults and steps that matter; what a campaign says about a failure repeats it."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.campaign import Campaign, command, missing_counts, report
from tests.simulation.faults import Struck
from tests.simulation.run import RunResult, RunSpec
from tests.simulation.shrink import Shrinker

NEEDED = {7, 31}
"""The faults without which the pretended run below is clean."""


def pretended(spec: RunSpec) -> RunResult:
    """Fails at the tenth step after the last needed fault, if all of those strike and there are three brokers."""
    struck = [
        Struck(number, number * 10, "kill", f"broker {number}")
        for number in range(60)
        if number not in spec.without_faults and number * 10 < spec.steps
    ]
    fails = {fault.number for fault in struck} >= NEEDED and (spec.brokers or 5) >= 3 and spec.steps >= 320
    if not fails:
        return RunResult(spec, spec.steps, None, {}, tuple(struck))
    kept = tuple(fault for fault in struck if fault.step < 320)
    return RunResult(spec, 320, f"invariant 5: the log end {spec.seed} fell", {}, kept, ("first", "last"))


def test_only_what_matters_is_left() -> None:
    said: list[str] = []
    failed = pretended(RunSpec(3, steps=2000))
    best = Shrinker(failed, run=pretended, say=said.append).shrink()
    assert {fault.number for fault in best.faults} == NEEDED
    assert (best.steps, best.spec.steps, best.spec.brokers) == (320, 320, 3)
    assert best.violation == failed.violation
    assert said


def test_another_violation_is_not_the_same() -> None:
    def other(spec: RunSpec) -> RunResult:
        result = pretended(spec)
        return result._replace(violation="invariant 6: lost") if spec.without_faults and result.violation else result

    best = Shrinker(pretended(RunSpec(3)), run=other, say=lambda line: None).shrink()
    assert not best.spec.without_faults


def test_a_clean_run_cannot_be_shrunk() -> None:
    with pytest.raises(ValueError, match="did not fail"):
        Shrinker(pretended(RunSpec(3, steps=10)), run=pretended, say=lambda line: None)


def test_a_report_tells_seed_commit_step_trace_and_how_to_repeat_it() -> None:
    spec = RunSpec(3, "power", 400, "epoch-start", (1, 2), brokers=4)
    text = "\n".join(report(pretended(spec._replace(without_faults=()))._replace(spec=spec)))
    for expected in ("seed 3", "commit", "step 320", "invariant 5", "first\nlast", "fault 31 at step 310"):
        assert expected in text
    again = "bin/zkbroker-simulate --seed 3 --steps 400 --profile power --mutant epoch-start --without-faults 1,2"
    assert f"again:  {again} --brokers 4" in text
    assert command(spec) + " --shrink" in text


def test_minimum_counts_are_scaled_to_the_steps() -> None:
    campaign = Campaign(10, (), Counter(steps=500_000, elections=49, lossy_restarts=50), 1.0)
    wanted = {"elections": 100, "lossy_restarts": 100}
    assert missing_counts(campaign, wanted) == ["elections: 49, wanted 50"]

"""``bin/zkbroker-simulate`` as people use it: what it says to a wrong flag, a closed pipe, Ctrl-C, a clean run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.simulation import campaign
from tests.simulation.__main__ import INTERRUPTED, main
from tests.simulation.campaign import Campaign, Interrupted, run_campaign, summary
from tests.simulation.run import RunResult, RunSpec

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--profile", "nosuch"], "nosuch"),
        (["--mutant", "nosuch"], "nosuch"),
        (["--hunt", "nosuch"], "nosuch"),
        (["--steps", "0"], "0 is not above 0"),
        (["--steps", "many"], "'many' is no whole number"),
        (["--minutes", "-1"], "-1 is not above 0"),
        (["--minutes", "nan"], "nan is not above 0"),
        (["--minutes", "soon"], "'soon' is no number"),
        (["--without-faults", "1,x"], "'1,x' is not numbers"),
        (["--seeds", "5-1"], "'5-1' is empty"),
        (["--seeds", "a-b"], "'a-b' is not A-B"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as wrong:
        main(arguments)
    assert wrong.value.code == 2
    assert told in capsys.readouterr().err


def test_a_clean_run_has_nothing_to_shrink_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "1", "--steps", "20", "--profile", "calm", "--shrink"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "nothing to shrink" in told.err and "1 run, " in told.err


@pytest.mark.parametrize("profile", ["calm", "all"])
def test_a_campaign_that_saw_too_little_fails(
    profile: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of all profiles or of one."""
    quiet = Campaign(20, (), Counter(steps=100_000, acked_all=99), 1.0)
    monkeypatch.setattr("tests.simulation.__main__.run_campaign", lambda *_, **__: quiet)
    assert main(["--seeds", "1-20", "--profile", profile]) == 1
    assert "acked all: 99, wanted" in capsys.readouterr().out


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seed", "1", "--steps", "900", "--trace", "--no-heal"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()
        assert process.wait(120) == 0
    assert told == b""


def test_ctrl_c_tells_what_was_done_until_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def results(specs: list[RunSpec], jobs: int) -> Iterator[Iterator[RunResult]]:
        def one_by_one() -> Iterator[RunResult]:
            yield RunResult(specs[0], 2_100, None, {"elections": 3})
            raise KeyboardInterrupt

        yield one_by_one()

    monkeypatch.setattr(campaign, "_results", results)
    with pytest.raises(Interrupted) as interrupted:
        run_campaign([RunSpec(1), RunSpec(2)], jobs=2, say=print)
    done = interrupted.value.campaign
    assert (done.runs_count, done.steps, done.counts["elections"]) == (1, 2_100, 3)
    assert main(["--seeds", "1-2"]) == INTERRUPTED == 130
    assert "interrupted\n1 run, 2,100 steps, 0 failed" in capsys.readouterr().err


def test_ctrl_c_leaves_nothing_running() -> None:
    """A terminal sends it to the workers too."""
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "1-500", "--jobs", "2", "--steps", "500"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()  # after some seconds: workers are at it
        assert "/500 runs" in first
        os.killpg(process.pid, signal.SIGINT)
        told = process.stderr.read()  # ends when the last process that has it is gone
        assert process.wait(60) == INTERRUPTED
    assert "Traceback" not in told and "interrupted" in told


def test_one_run_is_not_many() -> None:
    assert summary(Campaign(1, (), Counter(steps=10), 1.0))[0].startswith("1 run, 10 steps")
    assert summary(Campaign(2000, (), Counter(steps=10), 1.0))[0].startswith("2,000 runs, ")

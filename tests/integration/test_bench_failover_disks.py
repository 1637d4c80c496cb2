"""``zkbroker-bench failover`` lets disks hang and brokers lose power: one short round each."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_bench_failover import COMMAND, processes_of

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        not sys.platform.startswith("linux") or not (shutil.which("cc") or shutil.which("gcc")),
        reason="disks that fail need Linux and a C compiler",
    ),
]


def one_round(tmp_path: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [*COMMAND, "--rounds", "1", "--json", str(figures), "--keep", str(tmp_path / "kept"), *arguments],
        capture_output=True,
        text=True,
        timeout=350,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert processes_of(tmp_path) == []
    rounds = json.loads(figures.read_text())
    return rounds[-1], done.stdout


def test_a_leader_whose_disk_hangs(tmp_path: Path) -> None:
    """hang-flush differs in the calls that hang: test_disk_faults and test_hanging_disks have those."""
    stall = ["--set", "log.dir.stall.ms=1000"]
    found, _ = one_round(tmp_path, "--scenario", "hang-disk", "--no-client-defaults", *stall)
    # The leadership moved before the disk was mended, and whoever had it follows again.
    assert found["moved_ms"] is not None and 1000 < found["gap_ms"] < found["undone_ms"]
    assert found["rejoined_ms"] > 0 and found["lost_count"] == 0 and found["acknowledged_count"] > 300


def test_all_lose_power_under_the_default_flush_policy(tmp_path: Path) -> None:
    found, output = one_round(tmp_path, "--scenario", "power-loss", "--records", "1500")
    # What was lost no disk held, and nobody led before a person accepted that.
    assert found["lost_count"] == found["unsaved_count"] < found["acknowledged_count"] >= 1500
    assert found["person_ms"] is not None and found["gap_ms"] > found["person_ms"]
    assert "in 1 of 1 rounds no leader was elected until a person accepted the loss" in output


def test_all_lose_power_with_each_append_flushed(tmp_path: Path) -> None:
    found, _ = one_round(tmp_path, "--scenario", "power-loss-flush", "--records", "1500")
    assert found["lost_count"] == found["unsaved_count"] == 0 and found["acknowledged_count"] >= 1500
    assert found["person_ms"] is None and found["gap_ms"] > 0

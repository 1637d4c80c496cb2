"""``zkbroker-bench groups`` as a person runs it, small: all groups rebalance, no offset is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(400)


def test_one_small_round(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "zkbroker.cli.bench", "groups", "--groups", "4", "--members", "3", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--session-timeout-ms", "6000", "--json", str(figures), "--keep", str(tmp_path / "kept")],
        capture_output=True,
        text=True,
        timeout=350,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (one,) = json.loads(figures.read_text())
    assert len(one["groups_s"]) == 4
    assert all(0 < seconds < 90 for seconds in one["groups_s"])
    assert one["lost_offsets"] == 0
    assert one["unexpected"] == []
    assert one["producer_before_p99_ms"] > 0 and one["producer_during_p99_ms"] > 0
    assert "4 groups rebalanced" in done.stdout

"""``zkbroker-bench failover`` as a person runs it: one round, its figures; and Ctrl-C, which leaves nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.brokers import wait_until
from zkbroker.cli._namespaces import PREFIX, namespaces, run, why_no_network

pytestmark = pytest.mark.timeout(400)
COMMAND = [sys.executable, "-m", "zkbroker.cli.bench", "failover", "--session-timeout-ms", "6000"]


def processes_of(folder: Path) -> list[str]:
    """Command lines of the processes that were started with something in that folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            lines.append(line)
    return lines


def test_one_round_of_two_faults(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = ["--rounds", "1", "--scenario", "kill-follower", "--scenario", "stop-controller"]
    done = subprocess.run(
        [*COMMAND, *arguments, "--json", str(figures), "--keep", str(tmp_path / "kept")],
        capture_output=True,
        text=True,
        timeout=350,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rounds = json.loads(figures.read_text())
    assert {one["scenario"] for one in rounds} == {"kill-follower", "stop-controller"}
    for one in rounds:
        assert one["lost_count"] == 0 and one["acknowledged_count"] > 300
        assert 0 < one["gap_ms"] < 60_000 and one["defaults_gap_ms"] > 0 and one["moved_ms"] >= 0
        assert 0 <= one["canary_p99_ms"] <= one["canary_max_ms"]
    assert "kill -9 of a follower in the ISR" in done.stdout
    assert processes_of(tmp_path) == []


def is_cut(namespace: str) -> bool:
    return "DROP" in run("ip", "netns", "exec", namespace, "iptables", "-w", "-S", "INPUT")


def skip_without_network() -> None:
    reason = why_no_network()
    if reason is not None:
        pytest.skip(reason)


def test_one_round_of_each_fault_of_a_network(tmp_path: Path) -> None:
    skip_without_network()
    figures = tmp_path / "figures.json"
    names = ["destroy-leader", "reject-leader", "cut-leader"]
    arguments = [word for name in names for word in ("--scenario", name)]
    done = subprocess.run(
        [*COMMAND, *arguments, "--rounds", "1", "--no-client-defaults", "--json", str(figures)],
        capture_output=True,
        text=True,
        timeout=350,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rounds = {one["scenario"]: one for one in json.loads(figures.read_text())}
    assert sorted(rounds) == sorted(names)
    for one in rounds.values():
        # The leadership moved: no fault lasted until it was undone.
        assert one["lost_count"] == 0 and one["acknowledged_count"] > 300 and one["moved_ms"] is not None
    assert rounds["destroy-leader"]["undone_ms"] is rounds["destroy-leader"]["rejoined_ms"] is None
    for name in ("reject-leader", "cut-leader"):
        assert rounds[name]["undone_ms"] > rounds[name]["moved_ms"] and 0 < rounds[name]["rejoined_ms"] < 60_000
        assert rounds[name]["gap_ms"] < rounds[name]["undone_ms"]
    assert "once undone, until back in the ISR (< 5000)" in done.stdout


@pytest.mark.parametrize("scenario", ["kill-leader", "cut-leader"])
def test_an_interruption_leaves_nothing_running(tmp_path: Path, scenario: str) -> None:
    if scenario == "cut-leader":
        skip_without_network()
    kept = tmp_path / "kept"
    with (tmp_path / "output").open("wb") as output:
        bench = subprocess.Popen([*COMMAND, "--scenario", scenario, "--keep", str(kept)], stdout=output, stderr=output)
    left = f"{PREFIX}{bench.pid}"
    try:
        wait_until(lambda: list(kept.glob("**/zkbroker/*.acknowledgements")), "a round is under way", 120)
        if scenario == "cut-leader":
            wait_until(lambda: any(map(is_cut, namespaces(left))), "the fault has struck", 60)
        assert processes_of(kept)
        bench.send_signal(signal.SIGINT)
        assert bench.wait(60) == 130, (tmp_path / "output").read_text()
    finally:
        bench.kill()
        bench.wait()
    assert "Traceback" not in (tmp_path / "output").read_text()
    wait_until(lambda: processes_of(kept) == [], "all it started has ended", 30)
    assert namespaces(left) == [] and not list(Path("/sys/class/net").glob(f"zkf{bench.pid}"))

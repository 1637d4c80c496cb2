"""The short version of ``bin/zkbroker-torture``: the faults that differ most, once each. A failure prints its seed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.__main__ import main, schedule
from tests.faults.arena import Arena, ArenaSettings
from tests.faults.catalogue import catalogue
from tests.faults.history import Acknowledged, Attempt, Event, Read, Recorder, Scan, ScanEnded, Writer, encode
from tests.faults.report import write_report
from tests.faults.torture import Torture, TortureSettings

SEED = int(os.environ.get("ZKBROKER_TORTURE_SEED", str(random.SystemRandom().randrange(2**32))))
SETTINGS = TortureSettings(SEED, per_second=60, partitions=3, away_s=5)

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    with Arena(ArenaSettings(session_ms=2000, disk_mib=8)) as made:
        yield made


RUNS = {
    "processes": ["kill-controller", "kill-all", "kill-one-by-one", "pause-long", "term-controller"],
    "zookeeper": ["zookeeper-each", "zookeeper-away", "sessions-expired"],
    "network": ["isolate", "cut-peers", "one-way-in", "reject", "destroy-controller"],
    "storage": ["torn-tails", "deleted-indexes", "emptied", "emptied-first", "full-disk"],
}


@pytest.mark.parametrize("name", RUNS)
def test_nothing_acknowledged_is_lost(arena: Arena, name: str) -> None:
    print(f"ZKBROKER_TORTURE_SEED={SEED}")
    faults = [catalogue()[fault] for fault in RUNS[name]]
    if name == "network" and arena.no_network is not None:
        pytest.skip(arena.no_network)
    if arena.no_disk is not None:
        faults = [fault for fault in faults if fault.needs != "disk"]
    arena.heal()
    arena.cluster.start()
    recorder = Recorder()
    verdict = Torture(arena, SETTINGS._replace(topic=name), recorder, print).run(faults)
    print(write_report(verdict))
    assert verdict.violations == []
    assert [one.fault for one in verdict.figures] == [fault.name for fault in faults]
    assert all(one.acknowledged > 0 and one.full_isr_s is not None for one in verdict.figures)
    assert verdict.reads > verdict.acknowledged > 0


def test_a_paused_ensemble_is_not_left_by_its_followers(tmp_path: Path) -> None:
    # ZooKeeper 3.8.0 may commit nothing any more after they return to the same leader.
    for session_ms in (2000, 3000, 6000):
        settings = ArenaSettings(session_ms=session_ms)
        ensemble = Arena(settings).make_ensemble(tmp_path / str(session_ms))
        config = (ensemble.servers[0].folder / "zoo.cfg").read_text()
        limits = dict(line.split("=", 1) for line in config.splitlines())
        left_after_s = int(limits["syncLimit"]) * int(limits["tickTime"]) / 1000
        assert settings.session_ms / 1000 < settings.ensemble_pause_s < left_after_s / 1.5


def test_the_runs_name_every_area() -> None:
    names = [name for run in RUNS.values() for name in run]
    assert len(set(names)) == len(names)
    assert set(names) < set(catalogue())


def test_every_fault_comes_before_one_comes_again() -> None:
    faults = list(catalogue().values())
    order = schedule(faults, 3600, random.Random(1))
    first = [next(order).name for _ in faults]
    assert sorted(first) == sorted(catalogue())
    assert first != list(catalogue())
    assert [fault.name for fault in schedule(faults, 0, random.Random(1))] == first[:1]


def test_the_command_tells_usage_from_violations(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as wrong:
        main(["--faults", "kill-leader,no-such-fault"])
    assert wrong.value.code == 2
    assert "no-such-fault" in capsys.readouterr().err
    assert main(["--list-faults"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(catalogue())
    path = tmp_path / "history.jsonl"
    assert main(["--check", str(path)]) == 2
    good: list[Event] = [Writer(0, "w", -1, True), Attempt(1, "w", "t-0", "a"), Acknowledged(2, "t-0", "a", 0)]
    end: list[Event] = [Scan(3, 1, "r", "t-0", 0, True), Read(3, 1, [[0, "a"]]), ScanEnded(3, 1, 1)]
    path.write_text("".join(f"{encode(event)}\n" for event in [*good, *end]))
    assert main(["--check", str(path)]) == 0
    path.write_text("".join(f"{encode(event)}\n" for event in good))
    assert main(["--check", str(path)]) == 1
    assert "VIOLATION not read" in capsys.readouterr().out
    path.write_text("no history\n")
    assert main(["--check", str(path)]) == 2

"""``zkbroker-bench failover`` on disks that fail, without a cluster: what is left of a log, what is shown, what is
undone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zkbroker.cli import bench, bench_failover
from zkbroker.cli._canary import SchedulingDelay
from zkbroker.cli._failover_writer import FailoverWriter
from zkbroker.cli._local_cluster import LocalCluster
from zkbroker.cli._processes import LocalFailure
from zkbroker.cli.bench_failover_disks import log_end, on_faulty_disks
from zkbroker.cli.bench_failover_report import round_line, table
from zkbroker.cli.bench_failover_rounds import Round
from zkbroker.cli.bench_failover_scenarios import SCENARIOS, System
from zkbroker.records.record import Record, build_batch

POWER = next(scenario for scenario in SCENARIOS if scenario.name == "power-loss")


def a_loss(lost: int, unsaved: int, system: str = "zkbroker", **fields: Any) -> Round:
    delay = SchedulingDelay(2.0, 9.0)
    row = Round(POWER.name, system, 0, 0, 5000.0, None, None, 10_000, lost, 0, 0.5, 2.0, 0.1, delay)
    return row._replace(unsaved_count=unsaved, **fields)


def segment(*offsets: int) -> bytes:
    return b"".join(build_batch([Record(offset, 0, None, b"value")]) for offset in offsets)


def test_the_end_of_what_is_left_of_a_log(tmp_path: Path) -> None:
    assert log_end(tmp_path) == 0
    (tmp_path / f"{0:020}.log").write_bytes(segment(0, 1, 2))
    assert log_end(tmp_path) == 3
    (tmp_path / f"{3:020}.log").write_bytes(segment(3, 4)[:-1])
    assert log_end(tmp_path) == 4, "a torn batch is none"
    (tmp_path / f"{5:020}.log").write_bytes(segment(5))
    assert log_end(tmp_path) == 4, "nor is what comes after a gap"


def test_losses_are_counted_beside_what_no_disk_held() -> None:
    rounds = [
        *(a_loss(lost, lost, person_ms=14_000.0) for lost in (40, 60, 80)),
        *(a_loss(lost, 50, "Kafka") for lost in (50, 120)),
    ]
    assert "LOST 60 of 10000 ACKNOWLEDGED RECORDS, 60 were on no disk, no leader until a person" in round_line(
        rounds[1], 3
    )
    assert "a person" not in round_line(rounds[3], 3)
    lines = table(rounds, SCENARIOS, ["zkbroker", "Kafka"])
    (lost,) = [line for line in lines if line.startswith(f"{POWER.title}: LOST")]
    assert lost.split()[-8:] == ["60", "80", "80", "3", "50", "120", "120", "2"]
    (needless,) = [line for line in lines if "a broker's disk still held" in line]
    assert needless.split()[-8:] == ["0", "0", "0", "3", "0", "70", "70", "2"]
    waited = [line for line in lines if "until a person accepted the loss" in line]
    assert len(waited) == 1 and "in 3 of 3 rounds" in waited[0] and waited[0].strip().startswith("zkbroker")
    assert json.dumps(rounds[0].as_json())


def test_they_are_skipped_where_there_is_no_compiler(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(_: Path) -> Path:
        raise LocalFailure("no C compiler")

    monkeypatch.setattr(bench_failover, "disk_faults_library", none)
    names = [scenario.name for scenario in SCENARIOS if scenario.fault.needs_disks]
    assert len(names) == 4
    arguments = [word for name in names for word in ("--scenario", name)]
    assert bench.main(["failover", *arguments]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{name}: skipped: no C compiler" for name in names]


def test_brokers_are_on_sound_disks_again_after_the_round(tmp_path: Path) -> None:
    cluster = LocalCluster("127.0.0.1:1/none", tmp_path)
    system = System("zkbroker", cluster, tmp_path)
    before = {
        number: (dict(broker.settings), dict(broker.environment or {})) for number, broker in cluster.brokers.items()
    }
    scenario = next(one for one in SCENARIOS if one.name == "hang-flush")
    with pytest.raises(LocalFailure), on_faulty_disks(system, scenario, tmp_path / "library.so") as faulty:
        assert sorted(faulty.disks) == [1, 2, 3] and not system.disks
        for broker in cluster.brokers.values():
            assert broker.settings["log.flush.interval.messages"] == 1
            assert (broker.environment or {})["LD_PRELOAD"] == str(tmp_path / "library.so")
        scenario.fault.strike(faulty, 2)
        hangs = {number: broker.directory / "disk-hangs" for number, broker in cluster.brokers.items()}
        assert [hangs[number].read_bytes() for number in (1, 2, 3)] == [b"\0\0", b"\0\1", b"\0\0"]
        raise LocalFailure("as a round that fails")
    assert all(path.read_bytes() == b"\0\0" for path in hangs.values())
    after = {number: (broker.settings, broker.environment) for number, broker in cluster.brokers.items()}
    assert after == before


def test_a_client_that_ended_is_not_waited_for(tmp_path: Path) -> None:
    writer = FailoverWriter(tmp_path, "w", "127.0.0.1:1", "t", 0.002, {"no.such.setting": 1})
    with pytest.raises(LocalFailure, match="w ended"):
        writer.check_running()
    with pytest.raises(LocalFailure):
        writer.start(1, timeout_s=2)
    with pytest.raises(LocalFailure, match=r"no\.such\.setting"):
        writer.check_running()

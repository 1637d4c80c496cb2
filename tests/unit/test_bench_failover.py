"""What ``zkbroker-bench failover`` decides without a cluster: victims, losses, its own requests, the table."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from zkbroker.cli import bench, bench_failover
from zkbroker.cli._canary import SchedulingDelay
from zkbroker.cli._failover_cluster import judge_written
from zkbroker.cli._failover_writer import FAILED, SAMPLE, UNTOLD, FailoverWriter
from zkbroker.cli._processes import ChildProcess
from zkbroker.cli.bench_failover_partitions import decode_produced, encode_produce
from zkbroker.cli.bench_failover_report import judged, round_line, table
from zkbroker.cli.bench_failover_rounds import Round, choose_victim
from zkbroker.cli.bench_failover_scenarios import SCENARIOS
from zkbroker.kafka import produce
from zkbroker.kafka.ports import ProducedRow
from zkbroker.kafka.wire import Reader, encode_string
from zkbroker.model.errors import ErrorCode
from zkbroker.records.batch import check_batch, read_header

QUIET = SchedulingDelay(2.0, 9.0)
NOISY = SchedulingDelay(21.0, 90.0)


def a_round(gap_ms: float, system: str = "zkbroker", **fields: Any) -> Round:
    row = Round("kill-leader", system, 0, 2, gap_ms, 2 * gap_ms, 50.0, 1000, 0, 0, 0.5, 2.0, 0.1, QUIET)
    return row._replace(**fields)


def test_help_teaches_by_examples_and_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["failover", "--help"]) == 0
    text = capsys.readouterr().out
    assert bench_failover.PROG in text.partition("examples:")[2]
    assert all(scenario.name in text for scenario in SCENARIOS)


@pytest.mark.parametrize(
    "arguments", [["--rounds", "0"], ["--scenario", "earthquake"], ["--kafka", "--kafka-libs", "/nowhere"]]
)
def test_wrong_usage_is_one_line_and_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["failover", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_that_exists_is_not_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["failover", "--keep", str(tmp_path)]) == 1
    assert "exists" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_figures_that_could_not_be_written_are_not_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_failover._Bench, "run", lambda *_: pytest.fail("measured"))
    assert bench.main(["failover", "--json", str(tmp_path / "missing" / "figures.json")]) == 1
    told = capsys.readouterr().err
    assert "figures.json" in told and told.count("\n") == 1


def test_faults_that_need_namespaces_are_skipped_where_there_may_be_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(bench_failover, "why_no_network", lambda: "no 'ip' on the PATH")
    figures = tmp_path / "figures.json"
    names = [scenario.name for scenario in SCENARIOS if scenario.fault.needs_network]
    arguments = [word for name in names for word in ("--scenario", name)]
    assert bench.main(["failover", *arguments, "--json", str(figures)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{name}: skipped: no 'ip' on the PATH" for name in names]
    assert json.loads(figures.read_text()) == []


@pytest.mark.parametrize("controller", [1, 2, 3])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_right_broker_is_the_victim(controller: int, number: int) -> None:
    brokers = [1, 2, 3]
    assert choose_victim("controller", controller, brokers, number) == (controller, controller)
    victim, leader = choose_victim("leader", controller, brokers, number)
    assert victim == leader != controller
    assert choose_victim("leader", controller, brokers, number + 1)[0] != victim
    victim, leader = choose_victim("follower", controller, brokers, number)
    assert len({victim, leader, controller}) == 3


def test_lost_duplicated_and_displaced_records_are_counted() -> None:
    found = [(5, b"w-0"), (6, b"w-1"), (7, b"other-2"), (8, b"w-3"), (9, b"w-3")]
    assert judge_written("w", {0: 5, 1: 6}, found) == (0, 1)
    assert judge_written("w", {0: 5, 2: 7}, found) == (1, 1)  # what is at its offset is another writer's
    assert judge_written("w", {0: 6}, found) == (1, 1)
    assert judge_written("w", {3: 9, 1: UNTOLD}, found) == (0, 1)
    assert judge_written("w", {4: UNTOLD}, found) == (1, 1)
    assert judge_written("a-b", {1: 0}, [(0, b"a-b-1")]) == (0, 0)


def test_the_writers_notes_are_taken_in_as_they_grow(tmp_path: Path) -> None:
    writer = FailoverWriter(tmp_path, "w", "127.0.0.1:1", "t", 0.002, {})
    assert writer.look() == []
    notes = SAMPLE.pack(0, 10, 1.4, 1.5) + SAMPLE.pack(1, FAILED, 1.4, 1.6) + SAMPLE.pack(2, UNTOLD, 1.4, 1.7)
    path = tmp_path / "w.acknowledgements"
    path.write_bytes(notes[: SAMPLE.size + 7])
    assert writer.look() == [1.5]
    path.write_bytes(notes)
    assert writer.look() == [1.5, 1.7]
    assert (writer.offsets, writer.failed_count) == ({0: 10, 2: UNTOLD}, 1)


def test_requests_for_many_partitions_are_kafkas() -> None:
    framed = encode_produce("t", {3: b"three", 300: b"many"}, 1_700_000_000_000)
    assert struct.unpack_from(">i", framed) == (len(framed) - 4,)
    reader = Reader(framed[4:], 8)
    assert reader.nullable_string(False) == "zkbroker-bench"
    reader.skip_tags()
    message = produce.decode_body(reader, 9)
    assert reader.offset == reader.end
    assert message.acks == -1
    assert [(row.topic, row.partition) for row in message.rows] == [("t", 3), ("t", 300)]
    for row in message.rows:
        assert row.records is not None
        batch = bytes(row.records)
        check_batch(batch, 0, len(batch))
        assert read_header(batch, 0).records_count == 1


def test_answers_for_many_partitions_are_kafkas() -> None:
    rows = [
        ProducedRow("t", 3, ErrorCode.NONE, 17, -1, 0),
        ProducedRow("t", 300, ErrorCode.NOT_LEADER_OR_FOLLOWER, -1, -1, -1),
    ]
    body = produce.encode_body(9, [(encode_string("t", True), 2)], rows, None)
    assert decode_produced(struct.pack(">i", 0) + b"\x00" + body) == {3: 17}


def test_a_line_says_what_a_person_must_not_overlook() -> None:
    line = round_line(a_round(183.4, lost_count=2, delay=NOISY), 20)
    assert line.startswith("kill-leader 1/20 zkbroker: 183 ms, client's defaults 367, znode 50,")
    assert "LOST 2 of 1000" in line and line.endswith("noisy machine")
    assert "LOST" not in round_line(a_round(1), 20) and "noisy" not in round_line(a_round(1), 20)


def test_the_table_counts_quiet_rounds_and_compares() -> None:
    rounds = [a_round(gap, defaults_gap_ms=None) for gap in range(100, 120)]
    rounds.append(a_round(5000, defaults_gap_ms=None, delay=NOISY))
    rounds += [a_round(gap, "Kafka", defaults_gap_ms=None) for gap in range(10_000, 10_005)]
    assert len(judged(rounds, "kill-leader", "zkbroker")) == 20
    lines = table(rounds, SCENARIOS, ["zkbroker", "Kafka"])
    (row,) = [line for line in lines if line.startswith("kill -9 of a leader")]
    assert row.split()[-9:] == ["109", "118", "119", "20", "10,002", "10,004", "10,004", "5", "91.8x"]
    assert not any("defaults" in line for line in lines)
    (beside,) = [line for line in lines if line.strip().startswith("zkbroker: 0 of 21,000")]
    assert "1 rounds with a p99 above 20 ms were repeated, with them median 110" in beside


def test_where_no_round_was_quiet_all_are_shown() -> None:
    rounds = [a_round(100, delay=NOISY), a_round(300, delay=NOISY)]
    lines = table(rounds, SCENARIOS, ["zkbroker"])
    (row,) = [line for line in lines if line.startswith("kill -9 of a leader")]
    assert row.split()[-4:] == ["100", "300", "300", "2"]
    assert json.dumps(rounds[0].as_json()) and rounds[0].as_json()["canary_p99_ms"] == 21.0


def test_a_client_is_idle_while_nothing_but_what_lingers_is_unanswered(tmp_path: Path) -> None:
    writer = FailoverWriter(tmp_path, "w", "127.0.0.1:1", "t", 0.002, {"linger.ms": 100})
    notes = SAMPLE.pack(0, 10, 1.0, 1.2) + SAMPLE.pack(1, FAILED, 2.0, 3.0)
    (tmp_path / "w.acknowledgements").write_bytes(notes)
    writer.look()
    assert [writer.was_idle(at_s) for at_s in (0.9, 1.05, 1.15, 1.25, 2.05, 2.5, 3.5)] == [
        *(True, True, False, True, True, False, True)
    ]


def test_a_fault_that_only_its_end_ended_is_told() -> None:
    moved = a_round(900, scenario="reject-leader", undone_ms=2000.0, rejoined_ms=80.0)
    endured = a_round(25_300, "Kafka", scenario="reject-leader", moved_ms=None, undone_ms=25_000.0)
    assert ", znode 50, undone 2,000, in the ISR again 80 later" in round_line(moved, 3)
    assert "ms, client's defaults 50,600, it lasted until undone 25,000, CPU" in round_line(endured, 3)
    lines = table([moved, endured], SCENARIOS, ["zkbroker", "Kafka"])
    (row,) = [line for line in lines if line.startswith("  once undone, until back in the ISR (< 5000)")]
    assert row.split()[-8:] == ["80", "80", "80", "1", "-", "-", "-", "0"]
    assert [line.strip().partition(":")[0] for line in lines if "in 1 of 1 rounds nothing was written" in line] == [
        "Kafka"
    ]


def test_rounds_without_a_request_under_way_are_counted() -> None:
    rounds = [a_round(40, was_idle=False), a_round(90, was_idle=True), a_round(600, was_idle=True)]
    assert "nothing under way" in round_line(rounds[1], 20) and "under way" not in round_line(rounds[0], 20)
    (beside,) = [line for line in table(rounds, SCENARIOS, ["zkbroker"]) if line.strip().startswith("zkbroker:")]
    assert "in 2 of 3 rounds the client had nothing under way when it struck: median 90, worst 600" in beside


def test_a_thread_that_ended_takes_no_waiting_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = ChildProcess("sleeper", [sys.executable, "-c", "input()"], tmp_path / "log")
    monkeypatch.setattr(process, "waited_by_thread", lambda: {1: 5.0, 2: 1.0})
    assert process.waited_seconds() == 6.0
    assert process.waited_seconds({1: 4.5, 3: 100.0}) == 1.5

"""zkbroker-server-start: its command line, its log lines, and how it ends."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from zkbroker import __version__
from zkbroker.cli import server_start


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """bin/test's own variables begin with ZKBROKER_ as settings do."""
    for name in [name for name in os.environ if name.startswith("ZKBROKER_")]:
        monkeypatch.delenv(name)


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        server_start.main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(word in text for word in ("CONF", "--override KEY=VALUE", "examples:", "exit status:"))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        server_start.main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"zkbroker {__version__}\n")


@pytest.mark.parametrize("arguments", [[], ["--nonsense"], ["a.yaml", "b.yaml"], ["a.yaml", "--override"]])
def test_a_wrong_command_line_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        server_start.main(arguments)
    assert ended.value.code == 2
    assert "zkbroker-server-start: error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "overrides", "reason"),
    [
        (None, [], "cannot read the configuration: No such file or directory"),
        ("broker.id: 1\nlog.dirz: /d\n", [], ":2: unknown key 'log.dirz'"),
        ("broker.id: x\n", [], ":1: broker.id 'x'"),
        ("- a\n", [], "broker.yaml"),
        ("broker.id: 1\n", ["num.partitions"], "--override"),
        ("broker.id: 1\n", ["num.partitions=0"], "num.partitions"),
    ],
)
def test_a_wrong_configuration_is_one_line_and_status_1(
    content: str | None, overrides: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broker.yaml"
    if content is not None:
        path.write_text(content)
    arguments = [str(path)]
    for text in overrides:
        arguments += ["--override", text]
    assert server_start.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("zkbroker-server-start: ")
    assert error.count("\n") == 1
    assert reason in error


def test_a_good_configuration_is_run_with_its_overrides_and_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Any] = []

    def run(config: Any) -> int:
        ran.append(config)
        return 0

    monkeypatch.setattr(server_start, "run", run)
    monkeypatch.setenv("ZKBROKER_NUM_PARTITIONS", "5")
    path = tmp_path / "broker.yaml"
    path.write_text("broker.id: 1\nzookeeper.connect: h:2181\nlog.dirs: /d\nnum.partitions: 4\n")
    assert server_start.main([str(path), "--override", "broker.id=2"]) == 0
    assert (ran[0].broker_id, ran[0].get_int("num.partitions")) == (2, 5)


def test_a_log_line_has_the_time_to_the_millisecond(capsys: pytest.CaptureFixture[str]) -> None:
    server_start.log("hello")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} hello\n", capsys.readouterr().err)

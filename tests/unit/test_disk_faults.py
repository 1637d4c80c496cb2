"""The library that lets disks fail, under a process that is no broker but calls what brokers call."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from zkbroker.cli._disk_faults import FaultyDisk, disk_faults_library
from zkbroker.cli._local_cluster import LocalBroker
from zkbroker.cli._processes import LocalFailure, wait_until

BODY = """
import os, sys, time
data = sys.argv[1]
os.makedirs(data, exist_ok=True)
os.chdir(data)
def opened(name):
    return os.open(os.path.join(data, name), os.O_RDWR | os.O_CREAT)
"""
STARTED = "print('started', flush=True)\n"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return disk_faults_library(tmp_path_factory.mktemp("library"))
    except LocalFailure as failure:
        pytest.skip(str(failure))


def run(tmp_path: Path, library: Path, body: str) -> tuple[LocalBroker, FaultyDisk]:
    """A process that does ``body``, in its data folder, and says so."""
    command = [sys.executable, "-S", "-c", BODY + body, str(tmp_path / "broker" / "data")]
    broker = LocalBroker(1, tmp_path / "broker", {}, 1, command=lambda _: command)
    disk = FaultyDisk(broker, library)
    broker.start()
    return broker, disk


def left(broker: LocalBroker) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in broker.data_dir.iterdir()}


def test_what_was_not_fsynced_is_gone(tmp_path: Path, library: Path) -> None:
    body = (
        """
log = opened("0.log")
os.write(log, b"synced"); os.fsync(log); os.write(log, b" and not")
half = opened("half.log")
os.pwrite(half, b"data", 0); os.fdatasync(half); os.pwritev(half, [b"da", b"ta"], 4)
never = opened("never.log"); os.writev(never, [b"never"])
index = opened("0.index"); os.write(index, b"index")
"""
        + STARTED
    )
    broker, disk = run(tmp_path, library, body + "time.sleep(60)")
    broker.wait_started(20)
    assert disk.lose_power() == len(" and not") + len("data") + len("never")
    assert left(broker) == {"0.log": b"synced", "half.log": b"data", "never.log": b"", "0.index": b"index"}
    assert disk.lose_power() == 0, "what is there after that is on the disk"


def test_files_are_known_by_more_than_their_names(tmp_path: Path, library: Path) -> None:
    body = (
        """
first = opened("checkpoint.tmp"); os.write(first, b"one"); os.fsync(first)
os.replace(data + "/checkpoint.tmp", data + "/checkpoint")
second = opened("second.tmp"); os.write(second, b"second"); os.fsync(second); os.close(second)
os.replace(data + "/second.tmp", data + "/checkpoint")
os.close(first)
os.write(opened("heir.log"), b"may get the inode of the first")
cut = opened("cut.log"); os.write(cut, b"0123456789"); os.fsync(cut); os.ftruncate(cut, 4); os.pwrite(cut, b"new", 4)
gone = opened("gone.log"); os.write(gone, b"gone"); os.fsync(gone); os.close(gone); os.unlink(data + "/gone.log")
os.write(opened("after.log"), b"may get the inode of what is gone")
"""
        + STARTED
    )
    broker, disk = run(tmp_path, library, body + "time.sleep(60)")
    broker.wait_started(20)
    disk.lose_power()
    assert left(broker) == {"checkpoint": b"second", "heir.log": b"", "cut.log": b"0123", "after.log": b""}


def test_files_elsewhere_are_left_alone(tmp_path: Path, library: Path) -> None:
    body = (
        """
other = os.open(data + "-other", os.O_RDWR | os.O_CREAT)
os.write(other, b"other"); os.fsync(other)
"""
        + STARTED
    )
    broker, disk = run(tmp_path, library, body + "time.sleep(60)")
    disk.hang("write", "sync")
    broker.wait_started(20)
    disk.lose_power()
    assert Path(f"{broker.data_dir}-other").read_bytes() == b"other"
    assert (broker.directory / "disk-notes").read_text() == ""


@pytest.mark.parametrize(
    ("calls", "call"),
    [
        ("write", "os.write(log, b'x')"),
        ("write", "os.writev(log, [b'x'])"),
        ("write", "os.pwrite(log, b'x', 0)"),
        ("write", "os.pwritev(log, [b'x'], 0)"),
        ("write", "os.ftruncate(log, 0)"),
        ("sync", "os.fsync(log)"),
        ("sync", "os.fdatasync(log)"),
        ("sync", "__import__('mmap').mmap(log, 1).flush()"),
    ],
)
def test_calls_hang_until_the_disk_is_mended(tmp_path: Path, library: Path, calls: str, call: str) -> None:
    body = f"""
log = opened("0.log")
os.write(log, b"1")
{STARTED}
while os.path.exists(data + "/wait"): time.sleep(0.001)
print("calls", flush=True)
{call}
print("called", flush=True)
"""
    folder = tmp_path / "broker" / "data"
    folder.mkdir(parents=True)
    (folder / "wait").touch()
    broker, disk = run(tmp_path, library, body)
    broker.wait_started(20)
    other = "sync" if calls == "write" else "write"
    with disk.hangs(other), disk.hangs(calls):
        (folder / "wait").unlink()
        wait_until(lambda: "calls" in broker.log_text(), "it calls", 20)
        stat = Path(f"/proc/{broker.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(") ")[2].startswith("S"), "it sleeps", 20)
        assert "called" not in broker.log_text()
    assert broker.wait(20) == 0 and "called" in broker.log_text()


def test_the_other_calls_go_on(tmp_path: Path, library: Path) -> None:
    broker, disk = run(tmp_path, library, "log = opened('0.log')\nos.write(log, b'1')\n" + STARTED)
    disk.hang("sync")
    assert broker.wait(20) == 0
    disk.mend()


def test_a_disk_that_is_removed_leaves_no_trace(tmp_path: Path, library: Path) -> None:
    broker, disk = run(tmp_path, library, STARTED)
    broker.wait(20)
    disk.remove()
    assert not any(name.startswith(("DISK_FAULTS", "LD_PRELOAD")) for name in broker.environment or {})

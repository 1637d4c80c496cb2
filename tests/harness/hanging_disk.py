"""Disks of chosen brokers that hang when a test says so: a small C library stands before the system calls."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.brokers import LocalBroker

SOURCE = Path(__file__).with_name("hanging_disk.c")


def hanging_disk_library(folder: Path) -> Path:
    """The library, compiled into ``folder``; skips the test where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: a disk that hangs cannot be made")
    library = folder / "hanging_disk.so"
    if not library.exists():
        made = subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            pytest.skip(f"the C compiler cannot make the library: {made.stderr[:300]}")
    return library


class HangingDisk:
    """The data folder of one broker that has not been started."""

    def __init__(self, broker: LocalBroker, library: Path) -> None:
        broker.directory.mkdir(parents=True, exist_ok=True)
        self._flags = {"sync": broker.directory / "sync-hangs", "write": broker.directory / "write-hangs"}
        broker.environment.update(
            LD_PRELOAD=str(library),
            HANGING_DISK=str(broker.data_dir),
            HANGING_SYNC_FLAG=str(self._flags["sync"]),
            HANGING_WRITE_FLAG=str(self._flags["write"]),
        )

    @contextmanager
    def hangs(self, *calls: str) -> Iterator[None]:
        """``sync``: fsync and fdatasync do not return meanwhile; ``write``: nor do writes."""
        for call in calls:
            self._flags[call].touch()
        try:
            yield
        finally:
            for call in calls:
                self._flags[call].unlink()

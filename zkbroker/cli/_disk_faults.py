"""Disks that hang, and disks that lose power, under brokers that know nothing of it: a small C library stands before
the system calls of one process (``_disk_faults.c``, by LD_PRELOAD; Linux). For zkbroker and for Kafka's JVM.

The model of a loss of power: of each file that is as long as it was when the last fsync that returned began, however
much was written since; a file that was never fsynced is empty. Names, and bytes overwritten in place, are durable at
once. Index files stay: Kafka's are changed through mmap, which nobody sees, and both systems build them anew from the
log after a stop that was not clean.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from zkbroker.cli._local_cluster import LocalBroker
from zkbroker.cli._processes import LocalFailure
from zkbroker.log.losses import BOOT_FILE

SOURCE = Path(__file__).with_name("_disk_faults.c")
CALLS = ("write", "sync")
"""What can hang: the place of each in the control file, as the library has it."""
INDEX_SUFFIXES = (".index", ".timeindex", ".txnindex")
VARIABLES = ("LD_PRELOAD", "DISK_FAULTS_FOLDER", "DISK_FAULTS_CONTROL", "DISK_FAULTS_NOTES")


def disk_faults_library(directory: Path) -> Path:
    """The library, compiled into ``directory`` unless it is there. Raises LocalFailure where that cannot be."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not sys.platform.startswith("linux") or compiler is None:
        raise LocalFailure("disks that fail need Linux and a C compiler (Debian: gcc, libc6-dev)")
    library = directory / "disk_faults.so"
    if not library.exists():
        made = subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise LocalFailure(f"{compiler} cannot make the library that lets disks fail: {made.stderr[:300]}")
    return library


class FaultyDisk:
    """The data folder of one broker, from the broker's next start on."""

    def __init__(self, broker: LocalBroker, library: Path) -> None:
        if broker.environment is None:
            raise LocalFailure(f"{broker.name} has no variables of its own")
        broker.directory.mkdir(parents=True, exist_ok=True)
        self._broker = broker
        self._control = broker.directory / "disk-hangs"
        self._notes = broker.directory / "disk-notes"
        self._control.write_bytes(bytes(len(CALLS)))
        self._power_is_back()
        values = (library, broker.data_dir, self._control, self._notes)
        broker.environment.update(zip(VARIABLES, map(str, values), strict=True))

    def mend(self) -> None:
        """Calls that hang return."""
        self._set(CALLS, b"\0")

    def remove(self) -> None:
        """The next start is on a sound disk again; a process that runs is not hindered any more."""
        self.mend()
        for variable in VARIABLES:
            (self._broker.environment or {}).pop(variable, None)

    def hang(self, *calls: str) -> None:
        """``sync``: fsync and fdatasync do not return until it is mended; ``write``: nor do writes."""
        self._set(calls, b"\1")

    @contextlib.contextmanager
    def hangs(self, *calls: str) -> Iterator[None]:
        """``hang``, for as long as the block."""
        self.hang(*calls)
        try:
            yield
        finally:
            self._set(calls, b"\0")

    def _set(self, calls: Iterable[str], value: bytes) -> None:
        # Not a byte more, and in place: the process has the file mapped.
        with self._control.open("r+b", buffering=0) as file:
            for call in calls:
                os.pwrite(file.fileno(), value, CALLS.index(call))

    def synced_size(self, path: Path) -> int:
        """How much of a file a loss of power would leave."""
        found = path.stat()
        return min(self._synced_sizes().get(found.st_ino, 0), found.st_size)

    def lose_power(self) -> int:
        """kill -9, and what was not fsynced is gone; the machine boots. How many bytes of the logs that were."""
        self._broker.kill()
        sizes = self._synced_sizes()
        lost = 0
        for path in self._files():
            found = path.stat()
            kept = min(sizes.get(found.st_ino, 0), found.st_size)
            if path.suffix == ".log":
                lost += found.st_size - kept
            if kept < found.st_size and path.suffix not in INDEX_SUFFIXES:
                os.truncate(path, kept)
        self._power_is_back()
        reboot(self._broker)
        return lost

    def _files(self) -> list[Path]:
        return sorted(path for path in self._broker.data_dir.rglob("*") if path.is_file())

    def _synced_sizes(self) -> dict[int, int]:
        """Inode → how long the file is at least after a loss of power."""
        sizes: dict[int, int] = {}
        for line in self._notes.read_text().splitlines():
            what, *numbers = line.split()
            inode, *size = map(int, numbers)
            if what == "U":
                sizes.pop(inode, None)
            elif what == "T":
                sizes[inode] = min(sizes.get(inode, 0), size[0])
            else:
                # Two threads may fsync one file: who began first may note it last.
                sizes[inode] = max(sizes.get(inode, 0), size[0])
        return sizes

    def _power_is_back(self) -> None:
        """What is there now is on the disk."""
        found = [path.stat() for path in self._files()]
        self._notes.write_text("".join(f"S {one.st_ino} {one.st_size}\n" for one in found))


def reboot(broker: LocalBroker) -> None:
    """Its machine has booted since its last process ran, as zkbroker's boot file tells it; Kafka has none."""
    file = broker.data_dir / BOOT_FILE
    if not file.exists():
        return
    record = json.loads(file.read_bytes())
    record["boot_id"] = "another-boot"
    file.write_text(json.dumps(record))

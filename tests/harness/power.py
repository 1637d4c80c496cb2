"""Losing power without a machine to switch off: brokers that note how much of each log file was fsynced.

``python -m tests.harness.power CONF`` is the broker, with an eye on ``Disk.sync``. After a kill -9 ``lose_power`` cuts
each log back to what was noted and lets the machine seem to have booted since. Files that are replaced as a whole are
durable in the product, names in folders are left as they are.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from zkbroker.cli._local_cluster import LocalBroker
from zkbroker.cli.server_start import main
from zkbroker.log.disk import Disk
from zkbroker.log.losses import BOOT_FILE

SYNCED = "synced.txt"
"""Beside the broker's configuration: ``size path`` of each fsync of a log file, the last one counts."""


def command(broker: LocalBroker) -> list[str]:
    """For ``LocalCluster``."""
    return [sys.executable, "-m", "tests.harness.power", str(broker.config_path)]


def note_fsyncs(directory: Path) -> None:
    notes = os.open(directory / SYNCED, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sync = Disk.sync

    def noted(disk: Disk, handle: int) -> None:
        size = os.fstat(handle).st_size
        sync(disk, handle)
        path = os.readlink(f"/proc/self/fd/{handle}")
        if path.endswith(".log"):
            os.write(notes, f"{size} {path}\n".encode())

    Disk.sync = noted  # type: ignore[assignment, method-assign]


def lose_power(broker: LocalBroker) -> int:
    """kill -9, and what was not fsynced is gone. How many bytes that were."""
    broker.kill()
    notes = broker.directory / SYNCED
    sizes: dict[str, int] = {}
    for line in notes.read_text().splitlines() if notes.exists() else []:
        size, _, path = line.partition(" ")
        sizes[path] = int(size)
    lost = 0
    for log in broker.data_dir.glob("*/*.log"):
        kept = min(sizes.get(str(log), 0), log.stat().st_size)
        lost += log.stat().st_size - kept
        os.truncate(log, kept)
    reboot(broker)
    return lost


def reboot(broker: LocalBroker) -> None:
    """Its machine has booted since its last process ran: as the boot file tells it."""
    file = broker.data_dir / BOOT_FILE
    record = json.loads(file.read_bytes())
    record["boot_id"] = "another-boot"
    file.write_text(json.dumps(record))


if __name__ == "__main__":
    note_fsyncs(Path(sys.argv[1]).parent)
    sys.exit(main())

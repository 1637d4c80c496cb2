"""What runs of tests/faults leave on this machine: a folder that each holds a lock on, mounts below it, namespaces.

Everything is named after the process that made it and lies under a folder that it holds a lock on. What a run that was
killed has left is recognised by that and removed when the next one begins. The network itself is the product's
(``zkbroker.cli._namespaces``), whose benchmark uses it too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from zkbroker.cli._namespaces import PREFIX, NotAllowed, remove_left_namespaces, remove_namespaces, run


def why_no_mount() -> str | None:
    """Why a small file system cannot be mounted here; None if it can."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        try:
            mount_small(Path(folder), 1)
            unmount(Path(folder))
        except NotAllowed as error:
            return str(error)
    return None


def mount_small(folder: Path, size_mib: int) -> None:
    """Raises NotAllowed."""
    run("mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "zkbroker-faults", str(folder))


def unmount(folder: Path) -> None:
    run("umount", "--lazy", str(folder))


# Folders of runs (``zkbroker-faults-PID``), and what runs leave behind


class RunFolder:
    """A new folder that tells others that its run still lives. Leaving it removes it with all that is mounted there."""

    def __init__(self) -> None:
        self.path = Path(tempfile.gettempdir()) / f"{PREFIX}{os.getpid()}"
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> RunFolder:
        clean_leftovers()
        self.path.mkdir(mode=0o700)
        self._lock = (self.path / "lock").open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        remove_run(self.path)
        if self._lock is not None:
            self._lock.close()


def clean_leftovers() -> list[str]:
    """Remove what runs left whose process is gone; their names."""
    gone = []
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}[0-9]*"):
        if path.is_dir() and not is_held(path):
            remove_run(path)
            gone.append(path.name)
    return gone + remove_left_namespaces()


def is_held(folder: Path) -> bool:
    """Whether the run of this folder still lives: it has the lock. A folder so new that it has none counts as held."""
    try:
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return time.time() - folder.stat().st_mtime < 60
    except OSError:
        return True
    return False


def remove_run(folder: Path) -> None:
    """The folder of a run, what is mounted below it, and the namespaces that bear its name."""
    for line in Path("/proc/mounts").read_text().splitlines() if Path("/proc/mounts").exists() else []:
        place = line.split(" ")[1]
        if place.startswith(f"{folder}/"):
            with contextlib.suppress(NotAllowed):
                unmount(Path(place))
    remove_namespaces(folder.name)
    shutil.rmtree(folder, ignore_errors=True)

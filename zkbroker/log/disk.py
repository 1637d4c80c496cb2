"""The only place that opens data files. A simulator puts an object with the same methods in its place.

A handle is a file descriptor here and opaque to everyone else. Every method raises OSError as the system does.
There is no mmap: an I/O error would arrive as a signal, and a page fault would stall the reactor thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

Handle = int

_temporary_numbers = itertools.count()

_NOT_CACHED = {errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


class DirEntry(NamedTuple):
    """One name in a folder."""

    name: str
    is_dir: bool
    size: int
    """Bytes of a file, 0 for a folder."""


class Disk:
    """Files of the local machine."""

    def open_data(self, path: str, *, create: bool = False) -> Handle:
        """Open for reading and writing; with ``create`` it need not exist."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        return os.open(path, flags, 0o644)

    def close(self, handle: Handle) -> None:
        os.close(handle)

    def size(self, handle: Handle) -> int:
        return os.fstat(handle).st_size

    def write(self, handle: Handle, position: int, data: bytes | memoryview) -> None:
        """Write all of ``data`` at ``position``; short writes are continued."""
        written = os.pwrite(handle, data, position)
        size = len(data)
        while written < size:
            # A short write is a full disk or a signal: the next call tells which.
            more = os.pwrite(handle, memoryview(data)[written:], position + written)
            if more == 0:
                raise OSError(errno.EIO, "a write made no progress")
            written += more

    def read(self, handle: Handle, position: int, size: int) -> bytes:
        """Up to ``size`` bytes at ``position``, fewer only at the end of the file. May wait for the disk."""
        data = os.pread(handle, size, position)
        if len(data) == size or not data:
            return data
        parts = [data]
        got = len(data)
        while got < size:
            data = os.pread(handle, size - got, position + got)
            if not data:
                break
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def read_cached(self, handle: Handle, position: int, size: int) -> bytes | memoryview | None:
        """What the page cache holds of it without waiting, possibly less; None if that is nothing."""
        buffer = bytearray(size)
        try:
            got = os.preadv(handle, [buffer], position, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno in _NOT_CACHED:
                return None
            raise
        if got == 0:
            return b""
        return memoryview(buffer)[:got]

    def can_read_cached(self, folder: str) -> bool:
        """Whether this folder's file system knows RWF_NOWAIT; tmpfs and others do not, and are read plainly."""
        if not hasattr(os, "RWF_NOWAIT"):
            return False
        path = os.path.join(folder, ".nowait-probe")
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError:
            return False
        try:
            os.pwrite(handle, b"x", 0)
            return os.preadv(handle, [bytearray(1)], 0, os.RWF_NOWAIT) == 1
        except OSError:
            return False
        finally:
            os.close(handle)
            with contextlib.suppress(OSError):
                os.unlink(path)

    def truncate(self, handle: Handle, size: int) -> None:
        os.ftruncate(handle, size)

    def sync(self, handle: Handle) -> None:
        """Wait until the file's bytes are on the disk."""
        os.fdatasync(handle) if hasattr(os, "fdatasync") else os.fsync(handle)

    def sync_path(self, path: str) -> None:
        """The same for a file that is not open; one that is gone meanwhile is no error."""
        try:
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            self.sync(handle)
        finally:
            os.close(handle)

    def sync_dir(self, path: str) -> None:
        """Wait until the names in folder ``path`` are on the disk."""
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def run_all(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Run jobs that mostly wait for the disk side by side, and return when all are done: 1,000 fsyncs one after
        the other take seconds, together they share the journal's commits. Raises the first OSError."""
        if len(jobs) < 2:
            for job in jobs:
                job()
            return
        with ThreadPoolExecutor(min(16, len(jobs))) as pool:
            for done in [pool.submit(job) for job in jobs]:
                done.result()

    def read_file(self, path: str) -> bytes:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self.read(handle, 0, os.fstat(handle).st_size)
        finally:
            os.close(handle)

    def read_file_end(self, path: str, size: int) -> bytes:
        """The last ``size`` bytes of a file, or all of a shorter one."""
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            length = os.fstat(handle).st_size
            start = max(0, length - size)
            return self.read(handle, start, length - start)
        finally:
            os.close(handle)

    def write_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Create or replace a whole file, without waiting for the disk and without a temporary name; ``mode`` is that
        of a new one."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            self.write(handle, 0, data)
        finally:
            os.close(handle)

    def replace_file(self, path: str, data: bytes) -> None:
        """Replace a small file as a whole and durably: a crash leaves the old content or the new."""
        self.rename(self.write_temporary(path, data), path)
        self.sync_dir(os.path.dirname(path))

    def write_temporary(self, path: str, data: bytes) -> str:
        """The first half of it: ``data`` is on the disk under the name that is returned, to be renamed to ``path``."""
        # A name of its own: two threads may be at it, and each must rename what it wrote itself.
        temporary = f"{path}.{next(_temporary_numbers)}.tmp"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            self.write(handle, 0, data)
            self.sync(handle)
        finally:
            os.close(handle)
        return temporary

    def rename(self, old: str, new: str) -> None:
        os.replace(old, new)

    def unlink(self, path: str) -> None:
        """Remove a file; one that is gone already is no error."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def list_dir(self, path: str) -> list[DirEntry]:
        """What is in folder ``path``, by name."""
        with os.scandir(path) as entries:
            found = [
                DirEntry(entry.name, is_dir, 0 if is_dir else entry.stat().st_size)
                for entry in entries
                if (is_dir := entry.is_dir()) or entry.is_file()
            ]
        found.sort()
        return found

    def space(self, path: str) -> tuple[int, int]:
        """(bytes in all, bytes that this process may still write) of the file system there."""
        found = os.statvfs(path)
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def make_dirs(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def remove_dir(self, path: str) -> None:
        """Remove a folder and the files in it (one level: a log's folder has no folders)."""
        for entry in self.list_dir(path):
            os.unlink(os.path.join(path, entry.name))
        os.rmdir(path)

    def lock(self, path: str) -> Callable[[], None] | None:
        """Take the lock file ``path`` for this process. Its release, or None if another process holds it."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        return lambda: os.close(handle)

"""A disk in memory that can be asked, at any moment, what a kill or a loss of power would leave of it.

The fault model. A kill of the process keeps all that was written. A loss of power keeps what was fsynced; of the rest:

- each write since the file's last fsync survives, is lost, is torn (a part of it survives) or leaves zeros where the
  file had grown; in any combination;
- a truncation and what was written before it come in order: no write behind a truncation survives without it (file
  systems with a journal free blocks in order);
- names in a folder that were created, removed or renamed since the folder's last fsync survive up to any point; or the
  new ones in any combination, the removals and renames up to any point. Fsyncing a file does not bring its name to the
  disk. A rename within one folder is atomic.

Nothing here knows what is stored. Randomness is passed in, there is no clock and no real file.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from zkbroker.log.disk import DirEntry, Disk

SECTOR_BYTES = 16
"""A torn write breaks at multiples of this: small, so that small batches are torn too."""


class Write(NamedTuple):
    position: int
    data: bytes


class Truncate(NamedTuple):
    size: int


class File:
    """What every process sees of a file, what is on the platters, and what was done in between."""

    __slots__ = ("content", "durable", "unsynced")

    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)
        self.durable = bytes(content)
        self.unsynced: list[Write | Truncate] = []


class NameChange(NamedTuple):
    """One change of a folder's names: all of it happens or nothing."""

    removed: str | None
    added: str | None
    node: File | Folder


class Folder:
    __slots__ = ("durable", "entries", "unsynced")

    def __init__(self) -> None:
        self.entries: dict[str, File | Folder] = {}
        self.durable: dict[str, File | Folder] = {}
        self.unsynced: list[NameChange] = []


class OpenedFile:
    """A handle."""

    __slots__ = ("file", "is_open")

    def __init__(self, file: File) -> None:
        self.file = file
        self.is_open = True


class CrashDisk(Disk):
    """``before_change`` is called ahead of each change and each fsync: the moments at which a crash differs.

    ``fail``, if set, may raise the OSError that an operation of that name on that path shall meet.
    """

    def __init__(self) -> None:
        self.root = Folder()
        self.root.entries = self.root.durable = {}
        self.before_change: Callable[[str], None] = lambda operation: None
        self.fail: Callable[[str, str], None] = lambda operation, path: None
        self.is_full = False
        """Writes and new names meet ENOSPC."""
        self.is_failing = False
        """Everything that touches the disk meets EIO."""
        self.cached: Callable[[int], int | None] | None = None
        """How much of so many bytes the page cache has, None for nothing of it; None: the file system cannot tell."""
        self.boots = 1
        """How often the machine was started, for the boot id that its processes are told."""
        self.flipped: dict[str, None] = {}
        """Files in which a bit was flipped, until they are written anew."""
        self.open_handles = 0
        self._locked: set[str] = set()
        self._temporary_number = 0

    def __repr__(self) -> str:
        return f"CrashDisk({self.open_handles} open)"

    # -- images

    def killed(self) -> CrashDisk:
        """What the next process finds after a kill: everything, still not on the platters."""
        return self._image(lambda file: file, lambda folder: folder.entries, is_durable=False)

    def handed_over(self) -> CrashDisk:
        """The same files, for the next process when this one is gone: no copy, so nothing may use this one any more."""
        image = CrashDisk()
        image.root = self.root
        image.is_full, image.is_failing, image.boots = self.is_full, self.is_failing, self.boots
        image.flipped = dict(self.flipped)
        return image

    def power_lost(self, random: Random) -> CrashDisk:
        """What the next start finds after a loss of power: one of the many possibilities."""
        return self._image(
            lambda file: File(_surviving_bytes(file, random)),
            lambda folder: _surviving_names(folder, random),
            is_durable=True,
        )

    def _image(
        self,
        take_file: Callable[[File], File],
        names_of: Callable[[Folder], dict[str, File | Folder]],
        *,
        is_durable: bool,
    ) -> CrashDisk:
        seen: dict[int, File | Folder] = {}

        def take(node: File | Folder) -> File | Folder:
            known = seen.get(id(node))
            if known is not None:
                return known
            if isinstance(node, File):
                source = take_file(node)
                file = seen[id(node)] = File(bytes(source.content))
                if not is_durable:
                    file.durable, file.unsynced = source.durable, list(source.unsynced)
                return file
            folder = seen[id(node)] = Folder()
            folder.entries = {name: take(child) for name, child in names_of(node).items()}
            if is_durable:
                folder.durable = dict(folder.entries)
            else:
                folder.durable = {name: take(child) for name, child in node.durable.items()}
                folder.unsynced = [change._replace(node=take(change.node)) for change in node.unsynced]
            return folder

        image = CrashDisk()
        image.is_full, image.is_failing = self.is_full, self.is_failing
        image.flipped = dict(self.flipped)
        image.boots = self.boots + is_durable
        root = take(self.root)
        if isinstance(root, Folder):
            # The mount point itself is always there.
            root.durable = root.entries
            image.root = root
        return image

    def flip_bit(self, random: Random, suffix: str) -> str | None:
        """One bit of a file whose path ends so, on the platters and in memory; says which, None if there is none."""
        files = [(path, file) for path, file in self._files("", self.root) if path.endswith(suffix) and file.content]
        if not files:
            return None
        path, file = random.choice(files)
        position, bit = random.randrange(len(file.content)), 1 << random.randrange(8)
        file.content[position] ^= bit
        if position < len(file.durable):
            durable = bytearray(file.durable)
            durable[position] ^= bit
            file.durable = bytes(durable)
        self.flipped[path] = None
        return f"{path} byte {position} ^ {bit:#04x}"

    def tear(self, random: Random, suffix: str) -> str | None:
        """The newest unsynced write of a file whose path ends so is only partly there; says which, None if there is
        none."""
        torn: list[tuple[str, File, Write]] = []
        for path, file in self._files("", self.root):
            last = file.unsynced[-1] if file.unsynced else None
            if path.endswith(suffix) and isinstance(last, Write) and len(last.data) > 1:
                torn.append((path, file, last))
        if not torn:
            return None
        path, file, write = random.choice(torn)
        kept = random.randrange(len(write.data))
        del file.content[write.position + kept :]
        file.unsynced[-1] = Write(write.position, write.data[:kept])
        return f"{path}: {kept} of the last {len(write.data)} bytes at {write.position}"

    def _files(self, path: str, folder: Folder) -> list[tuple[str, File]]:
        found: list[tuple[str, File]] = []
        for name, node in sorted(folder.entries.items()):
            below = f"{path}/{name}"
            found += [(below, node)] if isinstance(node, File) else self._files(below, node)
        return found

    # -- paths

    def _node(self, path: str) -> File | Folder:
        node: File | Folder = self.root
        for name in path.strip("/").split("/"):
            if not name:
                continue
            if not isinstance(node, Folder):
                raise NotADirectoryError(errno.ENOTDIR, "Not a directory", path)
            if name not in node.entries:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
            node = node.entries[name]
        return node

    def _folder(self, path: str) -> Folder:
        node = self._node(path)
        if not isinstance(node, Folder):
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", path)
        return node

    def _file(self, path: str) -> File:
        node = self._node(path)
        if not isinstance(node, File):
            raise IsADirectoryError(errno.EISDIR, "Is a directory", path)
        return node

    def _begin(self, operation: str, path: str) -> None:
        self.before_change(f"{operation} {path}")
        self._fail(operation, path)

    def _fail(self, operation: str, path: str) -> None:
        if self.is_failing:
            raise OSError(errno.EIO, "Input/output error", path)
        if self.is_full and operation in ("create", "mkdir"):
            raise OSError(errno.ENOSPC, "No space left on device", path)
        self.fail(operation, path)

    def _created(self, path: str) -> File:
        self._begin("create", path)
        folder, name = self._folder(os.path.dirname(path)), os.path.basename(path)
        file = File()
        folder.entries[name] = file
        folder.unsynced.append(NameChange(None, name, file))
        return file

    def _write(self, file: File, position: int, data: bytes, path: str) -> None:
        self._begin("write", path)
        if self.is_full and position + len(data) > len(file.content):
            # The last free bytes: a part of the write is done, as by a system call that is short.
            self._put(file, position, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", path)
        self._put(file, position, data)

    def _put(self, file: File, position: int, data: bytes) -> None:
        if len(file.content) < position:
            file.content.extend(bytes(position - len(file.content)))
        file.content[position : position + len(data)] = data
        file.unsynced.append(Write(position, data))

    def _truncate(self, file: File, size: int, path: str) -> None:
        if size == len(file.content):
            return
        self._begin("truncate", path)
        del file.content[size:]
        file.content.extend(bytes(size - len(file.content)))
        file.unsynced.append(Truncate(size))

    # -- what the log calls; a handle is an object here

    def open_data(self, path: str, *, create: bool = False) -> OpenedFile:  # type: ignore[override]
        self._fail("open", path)
        try:
            file = self._file(path)
        except FileNotFoundError:
            if not create:
                raise
            file = self._created(path)
        self.open_handles += 1
        return OpenedFile(file)

    def close(self, handle: OpenedFile) -> None:  # type: ignore[override]
        if not handle.is_open:
            raise OSError(errno.EBADF, "closed twice")
        handle.is_open = False
        self.open_handles -= 1

    def _of(self, handle: OpenedFile) -> File:
        if not handle.is_open:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return handle.file

    def size(self, handle: OpenedFile) -> int:  # type: ignore[override]
        return len(self._of(handle).content)

    def write(self, handle: OpenedFile, position: int, data: bytes | memoryview) -> None:  # type: ignore[override]
        self._write(self._of(handle), position, bytes(data), "")

    def read(self, handle: OpenedFile, position: int, size: int) -> bytes:  # type: ignore[override]
        self._fail("read", "")
        return bytes(self._of(handle).content[position : position + size])

    def read_cached(self, handle: OpenedFile, position: int, size: int) -> bytes | memoryview | None:  # type: ignore[override]
        if self.cached is not None:
            found = self.cached(size)
            if found is None:
                return None
            size = found
        return self.read(handle, position, size)

    def can_read_cached(self, folder: str) -> bool:
        return self.cached is not None

    def truncate(self, handle: OpenedFile, size: int) -> None:  # type: ignore[override]
        self._truncate(self._of(handle), size, "")

    def sync(self, handle: OpenedFile) -> None:  # type: ignore[override]
        self._sync(self._of(handle), "")

    def _sync(self, file: File, path: str) -> None:
        self._begin("sync", path)
        file.durable = bytes(file.content)
        file.unsynced.clear()

    def sync_path(self, path: str) -> None:
        if self.exists(path):
            self._sync(self._file(path), path)

    def sync_dir(self, path: str) -> None:
        folder = self._folder(path)
        self._begin("sync_dir", path)
        if folder is not self.root:
            folder.durable = dict(folder.entries)
            folder.unsynced.clear()

    def run_all(self, jobs: Sequence[Callable[[], None]]) -> None:
        for job in jobs:
            job()

    def read_file(self, path: str) -> bytes:
        self._fail("open", path)
        return bytes(self._file(path).content)

    def read_file_end(self, path: str, size: int) -> bytes:
        content = self.read_file(path)
        return content[max(0, len(content) - size) :]

    def write_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        self.flipped.pop(path, None)
        try:
            file = self._file(path)
        except FileNotFoundError:
            file = self._created(path)
        self._truncate(file, 0, path)
        if data:
            self._write(file, 0, data, path)

    def write_temporary(self, path: str, data: bytes) -> str:
        self._temporary_number += 1
        temporary = f"{path}.{self._temporary_number}.tmp"
        self.write_file(temporary, data)
        self._sync(self._file(temporary), temporary)
        return temporary

    def rename(self, old: str, new: str) -> None:
        node = self._node(old)
        self._begin("rename", old)
        folder, target = self._folder(os.path.dirname(old)), self._folder(os.path.dirname(new))
        if folder is not target:
            raise OSError(errno.EXDEV, "only within one folder")
        old_name, new_name = os.path.basename(old), os.path.basename(new)
        del folder.entries[old_name]
        folder.entries[new_name] = node
        folder.unsynced.append(NameChange(old_name, new_name, node))

    def unlink(self, path: str) -> None:
        try:
            file = self._file(path)
        except FileNotFoundError:
            return
        self.flipped.pop(path, None)
        self._begin("unlink", path)
        folder = self._folder(os.path.dirname(path))
        del folder.entries[os.path.basename(path)]
        folder.unsynced.append(NameChange(os.path.basename(path), None, file))

    def list_dir(self, path: str) -> list[DirEntry]:
        return [
            DirEntry(name, isinstance(node, Folder), len(node.content) if isinstance(node, File) else 0)
            for name, node in sorted(self._folder(path).entries.items())
        ]

    def exists(self, path: str) -> bool:
        try:
            self._node(path)
        except OSError:
            return False
        return True

    def make_dirs(self, path: str) -> None:
        if self.exists(path):
            self._folder(path)
            return
        parent, name = os.path.split(path)
        self.make_dirs(parent)
        self._begin("mkdir", path)
        folder = self._folder(parent)
        made = folder.entries[name] = Folder()
        if folder is not self.root:
            folder.unsynced.append(NameChange(None, name, made))

    def remove_dir(self, path: str) -> None:
        for entry in self.list_dir(path):
            self.unlink(os.path.join(path, entry.name))
        node = self._folder(path)
        self._begin("rmdir", path)
        folder, name = self._folder(os.path.dirname(path)), os.path.basename(path)
        del folder.entries[name]
        folder.unsynced.append(NameChange(name, None, node))

    def lock(self, path: str) -> Callable[[], None] | None:
        if path in self._locked:
            return None
        if not self.exists(path):
            self._created(path)
        self._locked.add(path)
        return lambda: self._locked.discard(path)


def _surviving_bytes(file: File, random: Random) -> bytes:
    """One of the contents that a loss of power can leave."""
    content = bytearray(file.durable)
    for change in file.unsynced[: random.randint(0, len(file.unsynced))]:
        if isinstance(change, Truncate):
            del content[change.size :]
            content.extend(bytes(change.size - len(content)))
            continue
        fate = random.choice(("whole", "whole", "lost", "zeros", "head", "tail"))
        if fate == "lost":
            continue
        position, data = change
        grown = position + len(data) - len(content)
        if grown > 0:
            content.extend(bytes(grown))
        sectors = len(data) // SECTOR_BYTES
        edge = random.randint(0, sectors) * SECTOR_BYTES
        if fate == "whole":
            content[position : position + len(data)] = data
        elif fate == "head":
            content[position : position + edge] = data[:edge]
        elif fate == "tail":
            content[position + edge : position + len(data)] = data[edge:]
    return bytes(content)


def _surviving_names(folder: Folder, random: Random) -> dict[str, File | Folder]:
    names = dict(folder.durable)
    changes = folder.unsynced
    edge = random.randint(0, len(changes))
    if random.random() < 0.5:
        kept = changes[:edge]
    else:
        kept = [
            change
            for place, change in enumerate(changes)
            if (place < edge if change.removed is not None else random.random() < 0.5)
        ]
    for change in kept:
        if change.removed is not None:
            if names.get(change.removed) is not change.node:
                # It never got that name.
                continue
            del names[change.removed]
        if change.added is not None:
            names[change.added] = change.node
    return names

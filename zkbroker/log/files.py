"""Open files with users: closed when their owner is done with them and no thread reads them any more."""

from __future__ import annotations

from collections import OrderedDict

from zkbroker.log.disk import Disk, Handle
from zkbroker.log.indexes import OffsetIndex

OLD_FILES_MAX = 256
"""Old segments held open over all logs: enough for many lagging readers, far below any limit of descriptors."""


OLD_INDEXES_MAX = 32
"""Old segments' offset indexes held in memory over all logs, at most 2 MiB each as long as segments have 1 GiB."""


class OpenFile:
    """A handle shared by its owner and jobs in threads. Used and released on the reactor thread only."""

    __slots__ = ("_disk", "_is_closing", "_users", "handle", "path")

    def __init__(self, disk: Disk, path: str, *, create: bool = False) -> None:
        self._disk = disk
        self.path = path
        self.handle: Handle = disk.open_data(path, create=create)
        self._users = 0
        self._is_closing = False

    def __repr__(self) -> str:
        return f"OpenFile({self.path!r}, users={self._users})"

    def use(self) -> OpenFile:
        """Keep it open until ``release``."""
        self._users += 1
        return self

    def release(self) -> None:
        self._users -= 1
        if self._is_closing and self._users == 0:
            self._disk.close(self.handle)

    def close(self) -> None:
        """Close as soon as nobody uses it."""
        if not self._is_closing:
            self._is_closing = True
            if self._users == 0:
                self._disk.close(self.handle)


class OldFiles:
    """The old segments' files that are open now, over all logs: the least recently used is closed first."""

    def __init__(self, disk: Disk, files_max: int = OLD_FILES_MAX) -> None:
        self._disk = disk
        self._files_max = files_max
        self._files: OrderedDict[str, OpenFile] = OrderedDict()
        self._indexes: OrderedDict[int, OffsetIndex] = OrderedDict()

    def __len__(self) -> int:
        return len(self._files)

    def get(self, path: str) -> OpenFile:
        """The open file at ``path``, opened now if need be. Raises OSError."""
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = OpenFile(self._disk, path)
            while len(self._files) > self._files_max:
                self._files.popitem(last=False)[1].close()
        else:
            self._files.move_to_end(path)
        return file

    def index_used(self, index: OffsetIndex) -> None:
        """An old segment's index was loaded for a read: the least recently used one gives its memory back."""
        self._indexes[id(index)] = index
        self._indexes.move_to_end(id(index))
        if len(self._indexes) > OLD_INDEXES_MAX:
            self._indexes.popitem(last=False)[1].unload()

    def index_left(self, index: OffsetIndex) -> None:
        """Its segment is active now, and grows; or it is closed or deleted, and nothing may be written there."""
        self._indexes.pop(id(index), None)

    def keep(self, file: OpenFile) -> None:
        """Take over a file that was an active segment's."""
        self.close(file.path)
        self._files[file.path] = file
        while len(self._files) > self._files_max:
            self._files.popitem(last=False)[1].close()

    def close(self, path: str) -> None:
        """Close the file at ``path`` if it is open: it is renamed, deleted or active again."""
        file = self._files.pop(path, None)
        if file is not None:
            file.close()

    def close_all(self) -> None:
        while self._files:
            self._files.popitem()[1].close()

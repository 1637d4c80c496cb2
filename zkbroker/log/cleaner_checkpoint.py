"""Up to where each log is compacted: Kafka's ``cleaner-offset-checkpoint`` in every log folder.

An offset that is too low costs a walk for nothing. One that is too high would be wrong for good: records between the
true offset and it are never compared again, and a tombstone among them would go in its time while what it deletes is
still there. So whatever lowers it (a truncation, a new log of the same name) is on the disk before anything else
happens.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from zkbroker.log.checkpoints import MalformedFile, decode_offsets, encode_offsets
from zkbroker.log.disk import Disk
from zkbroker.log.flush import Gate
from zkbroker.model.topics import TopicPartition

if TYPE_CHECKING:
    from zkbroker.log.log import Log

logger = logging.getLogger(__name__)

CLEANER_OFFSET_FILE = "cleaner-offset-checkpoint"


class CleanedOffsets:
    """Of all folders. ``failed(folder, what, error)`` takes one offline."""

    def __init__(
        self,
        disk: Disk,
        run_in_thread: Callable[..., Deferred[Any]],
        failed: Callable[[str, str, BaseException], None],
    ) -> None:
        self._disk = disk
        self._run_in_thread = run_in_thread
        self._failed = failed
        self._offsets: dict[str, dict[TopicPartition, int]] = {}
        self._may_be_on_disk: dict[str, set[TopicPartition]] = {}
        """Folder → what its file may name, whatever a thread has done by now."""
        self._gates: dict[str, Gate] = {}
        self._writing: dict[str, None] = {}
        self._behind: dict[str, None] = {}
        """Folders that changed while a thread was writing them."""
        self._is_stopped = False

    def __repr__(self) -> str:
        return f"CleanedOffsets({sum(map(len, self._offsets.values()))} logs)"

    def read(self, folder: str) -> None:
        """At the start. A malformed file is an empty one. Raises OSError."""
        path = os.path.join(folder, CLEANER_OFFSET_FILE)
        try:
            found = decode_offsets(self._disk.read_file(path))
        except FileNotFoundError:
            found = {}
        except MalformedFile as error:
            logger.warning("%s is malformed and is not used: everything is compacted again: %s", path, error)
            found = {}
        self._offsets[folder] = found
        self._may_be_on_disk[folder] = set(found)

    def loaded(self, folder: str, logs: Sequence[Log]) -> None:
        """The folder's logs are. Offsets that lie outside of their log count for nothing: it lost its end, or was begun
        anew. Raises OSError."""
        found = self._offsets[folder]
        ends = {log.partition: log.log_end_offset for log in logs}
        self._offsets[folder] = {p: offset for p, offset in found.items() if offset <= ends.get(p, -1)}
        if len(self._offsets[folder]) < len(self._may_be_on_disk[folder]):
            self.write_now(folder)

    def get(self, log: Log) -> int:
        """Below this offset the log is compacted; 0 if it never was."""
        return self._offsets.get(log.log_dir, {}).get(log.partition, 0)

    def cleaned(self, log: Log, offset: int) -> None:
        """What was made of it up to there is on the disk."""
        self._offsets[log.log_dir][log.partition] = offset
        self._write(log.log_dir)

    def truncated(self, log: Log, offset: int) -> None:
        """It is about to lose all from ``offset`` on. Rarely below what was compacted: that was committed. Raises
        OSError."""
        if self.get(log) > offset:
            self._offsets[log.log_dir][log.partition] = offset
            self.write_now(log.log_dir)

    def forget(self, folder: str, partition: TopicPartition) -> None:
        """The log is gone: deleted, or set aside."""
        self._offsets.get(folder, {}).pop(partition, None)

    def about_to_make(self, folder: str, partition: TopicPartition) -> None:
        """A log of that name is made: what the file says is of another. Raises OSError."""
        self.forget(folder, partition)
        if partition in self._may_be_on_disk.get(folder, ()):
            self.write_now(folder)

    def write_now(self, folder: str) -> None:
        """On this thread, and never replaced by what another was about to write. Raises OSError."""
        gate = self._gates.pop(folder, None)
        if gate is not None:
            gate.close()
        offsets = self._offsets[folder]
        self._disk.replace_file(os.path.join(folder, CLEANER_OFFSET_FILE), encode_offsets(offsets))
        self._may_be_on_disk[folder] = set(offsets)

    def finish(self, folder: str) -> None:
        """A clean stop: what a thread was about to write is written. Raises OSError."""
        if folder in self._writing:
            self.write_now(folder)

    def stop(self) -> None:
        """Nothing is written any more, not even by a thread that is about to."""
        self._is_stopped = True
        for gate in self._gates.values():
            gate.close()

    def _write(self, folder: str) -> None:
        if self._is_stopped:
            return
        if folder in self._writing:
            self._behind[folder] = None
            return
        self._writing[folder] = None
        gate = self._gates.setdefault(folder, Gate())
        offsets = dict(self._offsets[folder])
        self._may_be_on_disk[folder] |= set(offsets)
        files = [(os.path.join(folder, CLEANER_OFFSET_FILE), encode_offsets(offsets))]
        done = self._run_in_thread(gate.replace_files, self._disk, files)
        done.addBoth(self._ended, folder).addErrback(self._write_failed, folder)

    def _ended(self, result: Any, folder: str) -> Any:
        del self._writing[folder]
        if self._behind.pop(folder, self) is None:
            self._write(folder)
        return result

    def _write_failed(self, failure: Any, folder: str) -> None:
        if not self._is_stopped:
            self._failed(folder, "cannot write a checkpoint", failure.value)

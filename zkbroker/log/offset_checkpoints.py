"""High watermarks, recovery points and log starts of every folder: Kafka's ``*-offset-checkpoint`` files, kept true.

A recovery point says from where on batches are checked after an unclean stop: one that is too high hides damage. So
this also knows how high the points are that lie on the disk at this moment.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime

from zkbroker.log.checkpoints import (
    HIGH_WATERMARK_FILE,
    LOG_START_FILE,
    RECOVERY_POINT_FILE,
    MalformedFile,
    decode_offsets,
    encode_offsets,
)
from zkbroker.log.disk import Disk
from zkbroker.log.flush import Gate
from zkbroker.log.log import Log
from zkbroker.model.topics import TopicPartition

logger = logging.getLogger(__name__)

POINTS_DELAY_S = 0.05
"""After a truncation the recovery points are written so soon: together for the many that follow a change of leader."""

_Offsets = dict[TopicPartition, int]


class FolderOffsets(NamedTuple):
    """What a folder's three files say."""

    recovery_points: _Offsets
    log_starts: _Offsets
    high_watermarks: _Offsets


class OffsetCheckpoints:
    """``logs_of(folder)``: the online logs in it; ``failed(folder, what, error)``."""

    def __init__(
        self,
        disk: Disk,
        reactor: IReactorTime,
        run_in_thread: Callable[..., Deferred[Any]],
        logs_of: Callable[[str], Sequence[Log]],
        online_dirs: Callable[[], Sequence[str]],
        failed: Callable[[str, str, BaseException], None],
    ) -> None:
        self._disk = disk
        self._reactor = reactor
        self._run_in_thread = run_in_thread
        self._logs_of = logs_of
        self._online_dirs = online_dirs
        self._failed = failed
        self.high_watermarks: dict[TopicPartition, int] = {}
        """Those that the next round writes."""
        self._gates: dict[str, Gate] = {}
        """Of each folder its own: one must neither wait for another's disk nor undo what a thread writes there."""
        self._writing: dict[str, None] = {}
        """Folders that a thread is writing to."""
        self._points_on_disk: dict[str, dict[TopicPartition, int]] = {}
        """Folder → the highest recovery point that its file may hold, per partition in any of its files."""
        self._unloaded: dict[str, FolderOffsets] = {}
        """Folder → what was read there, while its logs are loaded: a kill then must not cost the next start what is
        known of those that are still to come."""
        self._are_points_too_high = False
        self._is_stopped = False

    def __repr__(self) -> str:
        return f"OffsetCheckpoints({', '.join(self._points_on_disk)})"

    def read(self, folder: str) -> FolderOffsets:
        """At start. A missing or malformed file is an empty one. Raises OSError."""
        found = FolderOffsets(
            *(self._read(folder, n) for n in (RECOVERY_POINT_FILE, LOG_START_FILE, HIGH_WATERMARK_FILE))
        )
        self._points_on_disk[folder] = {
            **dict.fromkeys((*found.log_starts, *found.high_watermarks), 0),
            **found.recovery_points,
        }
        self._unloaded[folder] = FolderOffsets(*(dict(offsets) for offsets in found))
        return found

    def loaded(self, folder: str) -> None:
        """All logs of the folder are: what else was read is of logs that are gone."""
        del self._unloaded[folder]

    def _read(self, folder: str, name: str) -> dict[TopicPartition, int]:
        path = os.path.join(folder, name)
        try:
            return decode_offsets(self._disk.read_file(path))
        except FileNotFoundError:
            return {}
        except MalformedFile as error:
            # Without a recovery point everything is checked, without a high watermark the leader tells it.
            logger.warning("%s is malformed and is not used: %s", path, error)
            return {}

    def write(self) -> Deferred[None]:
        """All folders, each in a thread of its own: one that hangs keeps no other from being written. Fires when they
        are written, but for those of which the last round is still under way. A failure takes the folder offline and
        fires all the same."""
        if self._is_stopped:
            return succeed(None)
        self._are_points_too_high = False
        writes = [self._write(folder) for folder in self._online_dirs() if folder not in self._writing]
        done: Deferred[Any] = DeferredList(writes, fireOnOneErrback=True, consumeErrors=True)
        return done.addCallbacks(lambda _: None, lambda failure: failure.value.subFailure)

    def _write(self, folder: str) -> Deferred[None]:
        self._writing[folder] = None
        gate = self._gates.setdefault(folder, Gate())
        points = self._points(folder)
        self._points_may_be(folder, points)

        def ended(result: Any) -> Any:
            del self._writing[folder]
            return result

        def written(error: OSError | None) -> None:
            if not gate.is_closed:
                self._points_on_disk[folder] = points
            if error is not None:
                self._failed(folder, "cannot write a checkpoint", error)

        running = self._run_in_thread(_write_files, self._disk, gate, self._files(folder))
        return running.addBoth(ended).addCallback(written)

    def write_now(self, folder: str) -> None:
        """On this thread, and never replaced by what another one was about to write. Raises OSError."""
        self._close_gate(folder)
        points = self._points(folder)
        self._points_may_be(folder, points)
        for path, content in self._files(folder):
            self._disk.replace_file(path, content)
        self._points_on_disk[folder] = points

    def stop(self) -> None:
        """Nothing is written any more, not even by a thread that is about to."""
        self._is_stopped = True
        for folder in list(self._gates):
            self._close_gate(folder)

    def _close_gate(self, folder: str) -> None:
        gate = self._gates.pop(folder, None)
        if gate is not None:
            gate.close()

    def forget_predecessor(self, folder: str, partition: TopicPartition) -> None:
        """A log is about to be made: what the files say of one that was deleted would be taken for its own after a
        crash. Raises OSError."""
        if partition in self._points_on_disk[folder]:
            self.write_now(folder)

    def lower_recovery_point(self, log: Log) -> None:
        """See to it that the point on disk is not above the log's. Raises OSError.

        After a truncation it is too high until the next checkpoint. That does no harm in the last segment, all of
        which is checked; a segment behind it would not be.
        """
        if self._is_too_high(log):
            unloaded = self._unloaded.get(log.log_dir)
            if unloaded is not None:
                unloaded.recovery_points.pop(log.partition, None)
            self.write_now(log.log_dir)

    def log_start_falls(self, log: Log) -> None:
        """Only after an unclean election, or behind a leader that deleted less. A kill would find the old log start
        beyond the log end, take what lies there for older than it, and throw it away. Raises OSError."""
        self.write_now(log.log_dir)

    def recovery_point_fell(self, log: Log) -> None:
        """Write the checkpoint soon, once for all that are truncated together."""
        if self._is_too_high(log) and not self._are_points_too_high:
            self._are_points_too_high = True
            call_later: Callable[..., object] = self._reactor.callLater
            call_later(POINTS_DELAY_S, self._lower_points)

    def _lower_points(self) -> None:
        if self._are_points_too_high:
            self._are_points_too_high = False
            self.write()

    def _is_too_high(self, log: Log) -> bool:
        return self._points_on_disk[log.log_dir].get(log.partition, 0) > log.recovery_point

    def _points(self, folder: str) -> dict[TopicPartition, int]:
        logs = self._logs_of(folder)
        points, starts, marks = self._still_to_come(folder, logs)
        return {
            **dict.fromkeys((*starts, *marks), 0),
            **points,
            **{log.partition: log.recovery_point for log in logs},
        }

    def _still_to_come(self, folder: str, loaded: Sequence[Log]) -> FolderOffsets:
        unloaded = self._unloaded.get(folder)
        if unloaded is None:
            return FolderOffsets({}, {}, {})
        there = {log.partition for log in loaded}
        return FolderOffsets(*({p: o for p, o in offsets.items() if p not in there} for offsets in unloaded))

    def _points_may_be(self, folder: str, points: _Offsets) -> None:
        """They are being written: until that is over the old or the new ones hold."""
        known = self._points_on_disk[folder]
        for partition, point in points.items():
            known[partition] = max(point, known.get(partition, 0))

    def _files(self, folder: str) -> list[tuple[str, bytes]]:
        logs = self._logs_of(folder)
        known = self.high_watermarks
        points, starts, marks = self._still_to_come(folder, logs)
        marks |= {log.partition: known[log.partition] for log in logs if log.partition in known}
        # A log that is not listed may have lost its topic id in a loss of power: see ``LogDirs``.
        points |= {log.partition: log.recovery_point for log in logs if log.durability.is_identity_durable}
        starts |= {log.partition: log.log_start_offset for log in logs if log.log_start_offset > log.bases[0]}
        return [
            (os.path.join(folder, HIGH_WATERMARK_FILE), encode_offsets(marks)),
            (os.path.join(folder, RECOVERY_POINT_FILE), encode_offsets(points)),
            (os.path.join(folder, LOG_START_FILE), encode_offsets(starts)),
        ]


def _write_files(disk: Disk, gate: Gate, files: list[tuple[str, bytes]]) -> OSError | None:
    """Runs in a thread. Why it failed, if it did."""
    try:
        gate.replace_files(disk, files)
    except OSError as error:
        return error
    return None

"""Which replicas came back without records that they may be counted for, kept on the disk until that is settled.

Three things tell that nothing is missing: the mark of a clean stop; the same boot of the machine as before (a process
that was killed loses nothing of what it had written, the page cache outlives it); for one log, a flush policy under
which only what is on the disk was ever acknowledged. Without any of them unflushed records may be gone, and how many
nobody can say. Bytes that a recovery had to cut although they had been written whole are gone whatever the boot.

Each log folder has a boot file, ``.zkbroker_boot``, beside ``meta.properties``::

    {"version":0,"boot_id":"3f1c…","number":7,"lossy":[{"topic":"t","topic_id":"…","partitions":{"0":[5,1042]}}],
     "folders":["/data"]}

and ``"searched":false`` from a start that may have lost whole logs until ZooKeeper said which should be there. So has
one without a folder that was named in ``log.dirs`` before: what it held is known to none of those that are left.

It is durable before the broker registers, so before a state can count the broker in again. ``lossy`` is the broker's
list, the same in every folder (the highest ``number`` counts): a replica stays on it, through any number of restarts,
until the broker knows for sure that no state names it as holding what it lost (``broker/losses.py``).

A disk that failed ends the trust in the boot: after a failed fsync the kernel drops what it could not write, and who
repairs a disk mounts it anew. That may take no note of it any more: so the other folders name it under ``failed``. One
that is merely full keeps everything.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed

from zkbroker.log.disk import Disk
from zkbroker.log.flush import LostWrites
from zkbroker.log.log import Log
from zkbroker.log.offset_checkpoints import FolderOffsets
from zkbroker.model.cluster import LossyReplica
from zkbroker.model.lossy import lossy_from_json, lossy_to_json
from zkbroker.model.topics import TopicPartition

logger = logging.getLogger(__name__)

BOOT_FILE = ".zkbroker_boot"

MADE_FILE = ".zkbroker_made"
"""A line for each log that was made in the folder, or was there at a start. Flushed by a clean stop only: else it is
asked only while the page cache is whole."""
MADE_BYTES_MAX = 256 * 1024
"""A longer one is begun anew at the start, with the logs that are there."""

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class BootRecord(NamedTuple):
    """The content of a folder's boot file."""

    boot_id: str
    """Empty where the machine does not tell."""
    number: int
    lossy: tuple[LossyReplica, ...] = ()
    is_searched: bool = True
    """False: logs may be missing that are not in ``lossy``."""
    folders: tuple[str, ...] = ()
    """All of ``log.dirs``; empty where an earlier zkbroker wrote it."""
    failed: tuple[str, ...] = ()
    """Folders whose disk failed in this boot."""


def encode_boot(record: BootRecord) -> bytes:
    value: dict[str, object] = {
        "version": 0,
        "boot_id": record.boot_id,
        "number": record.number,
        "lossy": lossy_to_json(record.lossy),
    }
    if not record.is_searched:
        value["searched"] = False
    if record.folders:
        value["folders"] = list(record.folders)
    if record.failed:
        value["failed"] = list(record.failed)
    return json.dumps(value, separators=(",", ":")).encode()


def decode_boot(data: bytes) -> BootRecord:
    """Raises ValueError."""
    value = json.loads(data)
    if not isinstance(value, dict) or type(value.get("number")) is not int or type(value.get("boot_id")) is not str:
        raise ValueError("no boot record")
    is_searched = value.get("searched", True) is True
    lossy, folders, failed = lossy_from_json(value.get("lossy")), _names(value, "folders"), _names(value, "failed")
    return BootRecord(value["boot_id"], value["number"], lossy, is_searched, folders, failed)


def _names(value: Mapping[str, Any], key: str) -> tuple[str, ...]:
    names = value.get(key, [])
    if type(names) is not list or not all(type(name) is str for name in names):
        raise ValueError(f"{key} are no list of names")
    return tuple(names)


class _Start(NamedTuple):
    """What a folder said of itself before its logs were loaded."""

    is_clean: bool
    is_continuous: bool
    """Everything that the last process wrote is there, but for what is found damaged."""
    is_complete: bool
    """And so is every log that any process before it made, but for those that are listed."""
    offsets: FolderOffsets


class Losses:
    """``boot_id`` differs from boot to boot of the machine; None where nothing tells: then only a clean stop is one.

    ``folders()`` are the log folders to write to.
    """

    def __init__(
        self,
        disk: Disk,
        run_in_thread: Callable[..., Deferred[Any]],
        boot_id: str | None,
        folders: Callable[[], Sequence[str]],
    ) -> None:
        self._disk = disk
        self._run_in_thread = run_in_thread
        self._boot_id = boot_id or ""
        self._folders = folders
        self._records: dict[str, BootRecord] = {}
        """As read at start, or written since."""
        self._starts: dict[str, _Start] = {}
        self._found: dict[TopicPartition, None] = {}
        """Logs that lost something at this start."""
        self.replicas: dict[TopicPartition, LossyReplica] = {}
        self._number = 0
        self._made: set[bytes] = set()
        """Lines of the lists of logs that were made. Never iterated."""
        self._made_partitions: set[bytes] = set()
        """The same without topic ids."""
        self._logs: Mapping[TopicPartition, Log] = {}
        self._distrusted: dict[str, None] = {}
        """Folders whose disk failed."""
        self._failed_before: dict[str, None] = {}
        """Those whose disk failed before this start."""
        self.is_searched = False
        """It is known, and written down, which logs are missing: see ``add``."""

    def __repr__(self) -> str:
        return f"Losses({self._boot_id or 'boot unknown'}, {len(self.replicas)} replicas)"

    # -- at start

    def read(self, folder: str) -> None:
        """Raises OSError. A file that is no boot record says nothing, like none."""
        made = os.path.join(folder, MADE_FILE)
        if self._disk.exists(made):
            for line in self._disk.read_file(made).splitlines():
                self._remember(line)
        path = os.path.join(folder, BOOT_FILE)
        try:
            record = decode_boot(self._disk.read_file(path))
        except FileNotFoundError:
            return
        except ValueError as error:
            logger.warning("%s is malformed and is not used: %s", path, error)
            return
        self._records[folder] = record
        self._failed_before.update(dict.fromkeys(record.failed))
        if record.number > self._number:
            self._number = record.number
            self.replicas = {TopicPartition(lossy.topic, lossy.partition): lossy for lossy in record.lossy}

    def begin(self, folder: str, is_clean: bool, offsets: FolderOffsets) -> None:
        """The logs of the folder are about to be loaded. Not before each folder's record is read."""
        record = self._records.get(folder)
        # a process that was killed loses nothing: on the same boot what it wrote is still in the page cache
        is_same_boot = (
            record is not None and record.boot_id == self._boot_id != "" and folder not in self._failed_before
        )
        is_continuous = is_clean or is_same_boot
        is_complete = is_continuous and (
            record is None or (record.is_searched and {*record.folders} <= {*self._folders()})
        )
        self._starts[folder] = _Start(is_clean, is_continuous, is_complete, offsets)

    def about_to_cut(self, log: Log, offset: int, is_torn: bool) -> None:
        """Recovery is going to remove all from ``offset`` on. What nobody was told of is no loss: a last batch that was
        not written to its end, where the stop was not clean. A loss is made known for good first: the next start would
        find a log that looks right. Raises OSError."""
        start = self._starts.get(log.log_dir)
        if start is None or not start.is_continuous:
            return
        known = (start.offsets.recovery_points, start.offsets.high_watermarks)
        if is_torn and not start.is_clean and all(offset >= some.get(log.partition, 0) for some in known):
            return
        self._found[log.partition] = None
        self.replicas[log.partition] = LossyReplica(log.partition.topic, log.partition.partition, log.topic_id, -1, 0)
        self._number += 1
        for folder in self._folders():
            record = self._records.get(folder, BootRecord("", 0))
            self._write(folder, record._replace(number=self._number, lossy=tuple(self.replicas.values())))

    def log_loaded(self, log: Log) -> None:
        """Judge a log whose folder may have lost what was not flushed."""
        start = self._starts[log.log_dir]
        if start.is_continuous:
            return
        if not log.durability.has_policy_file or log.log_end_offset < self._flushed_before(log):
            self._found[log.partition] = None

    def _flushed_before(self, log: Log) -> int:
        """Up to where the log was known to be on disk when this process started."""
        return self._starts[log.log_dir].offsets.recovery_points.get(log.partition, 0)

    def all_loaded(self, logs: Mapping[TopicPartition, Log]) -> None:
        """Write down what is lost. ``logs`` are the broker's, now and later. Raises OSError."""
        self._logs = logs
        for partition in dict.fromkeys((*self.replicas, *self._found)):
            log, known = logs.get(partition), self.replicas.get(partition)
            ids = {known.topic_id, log.topic_id} - {""} if log is not None and known is not None else set()
            if log is not None and (partition in self._found or len(ids) < 2):
                self.replicas[partition] = LossyReplica(
                    *partition, log.topic_id, log.epochs.latest_epoch, log.log_end_offset
                )
                flushed = self._flushed_before(log)
                if flushed < log.bases[0]:
                    log.doubtful_start = flushed
            elif log is not None:
                del self.replicas[partition]  # of a topic of that name that is no more
            elif known is not None:
                self.replicas[partition] = known._replace(last_epoch=-1, log_end_offset=-1)
        self._write_all()

    def was_never_made(self, partition: TopicPartition, topic_id: str) -> bool:
        """Nobody removed the log: no folder lost anything, and none has heard of it. So it never held anything."""
        name = _line(partition, topic_id).rstrip()
        if name in self._made or not all(start.is_complete for start in self._starts.values()):
            return False
        # what the checkpoints know may be a log of the topic's predecessor; the lists of those that were made tell
        return name.rpartition(b" ")[0] in self._made_partitions or not any(
            partition in known for start in self._starts.values() for known in start.offsets
        )

    def made(self, log: Log) -> None:
        """A log was made. Raises OSError."""
        self._append_made(log.log_dir, [log])

    def _append_made(self, folder: str, logs: Sequence[Log]) -> None:
        lines = [_line(log.partition, log.topic_id) for log in logs]
        handle = self._disk.open_data(os.path.join(folder, MADE_FILE), create=True)
        try:
            # the last line may be torn: this one must not become its end
            self._disk.write(handle, self._disk.size(handle), b"\n" + b"".join(lines))
        finally:
            self._disk.close(handle)
        for line in lines:
            self._remember(line.rstrip())

    def _remember(self, line: bytes) -> None:
        self._made.add(line)
        self._made_partitions.add(line.rpartition(b" ")[0])

    def _complete_made(self, folder: str) -> None:
        """Logs that are there and not on the list came from Kafka, or an older zkbroker. Raises OSError."""
        path = os.path.join(folder, MADE_FILE)
        there = [log for log in self._logs.values() if log.log_dir == folder and log.topic_id]
        if self._disk.exists(path) and len(self._disk.read_file(path)) > MADE_BYTES_MAX:
            self._disk.replace_file(path, b"".join(_line(log.partition, log.topic_id) for log in there))
        unknown = [log for log in there if _line(log.partition, log.topic_id).rstrip() not in self._made]
        if unknown:
            self._append_made(folder, unknown)

    def add(self, lossy: Iterable[LossyReplica]) -> None:
        """Replicas whose logs turned out to be missing; called at each start, also with none. From here on the boot is
        this one: had the process died before, the next would not know that a log is missing. Raises OSError."""
        found = list(lossy)
        self.replicas.update((TopicPartition(replica.topic, replica.partition), replica) for replica in found)
        if found or not all(start.is_complete for start in self._starts.values()):
            self._write_all(is_searched=True)
        for folder in self._folders():
            self._complete_made(folder)
        self.is_searched = True

    # -- while running

    def forget(self, partitions: Iterable[TopicPartition]) -> Deferred[None]:
        """It is settled that no state counts on what these lost. Fires when that is on the disk; one at a time, please.
        A folder that cannot be written keeps an older list, which does no harm."""
        for partition in partitions:
            self.replicas.pop(partition, None)
        self._number += 1
        record = self._record(self._boot_id, is_searched=True)
        folders = list(self._folders())
        if not folders:
            return succeed(None)
        self._records.update(dict.fromkeys(folders, record))
        paths = [os.path.join(folder, BOOT_FILE) for folder in folders]
        done = self._run_in_thread(_replace_all, self._disk, paths, encode_boot(record))
        return done.addCallback(lambda _: self._distrust_all())

    def distrust(self, folder: str, error: BaseException) -> None:
        """The folder's disk failed: the next start goes by no boot. Written without waiting for that disk, for who
        starts after a loss of power does not go by the boot anyway."""
        if isinstance(error, OSError) and error.errno in _FULL and not isinstance(error, LostWrites):
            return
        self._distrusted[folder] = None
        self._distrust_all()

    def _distrust_all(self) -> None:
        """Again when a thread was about to write all folders."""
        if not self._distrusted:
            return
        # The others first: the disk that failed may hang now.
        for folder in (*(one for one in self._folders() if one not in self._distrusted), *self._distrusted):
            known = self._records.get(folder)
            boot_id = "" if known is None or folder in self._distrusted else known.boot_id
            data = encode_boot(self._record(boot_id, is_searched=self.is_searched))
            path = os.path.join(folder, BOOT_FILE)
            try:
                self._disk.write_file(f"{path}.failed.tmp", data)
                self._disk.rename(f"{path}.failed.tmp", path)
            except OSError as error:
                logger.warning("cannot write %s in %s: %s", BOOT_FILE, folder, error)
        # A loss of power must not take the list with the note: it stands nowhere else now.
        self._run_in_thread(self._sync_notes, self._noted())

    def _noted(self) -> list[str]:
        return [folder for folder in self._folders() if folder not in self._distrusted]

    def _sync_notes(self, folders: Sequence[str]) -> None:
        """Runs in a thread."""
        for folder in folders:
            try:
                self._disk.sync_path(os.path.join(folder, BOOT_FILE))
                self._disk.sync_dir(folder)
            except OSError as error:
                logger.warning("cannot flush %s in %s: %s", BOOT_FILE, folder, error)

    def _record(self, boot_id: str, *, is_searched: bool) -> BootRecord:
        """With all that is known now. A folder that failed and is not there at present is remembered until it is."""
        failed = tuple(folder for folder in self._failed_before if folder not in self._starts)
        lossy = tuple(self.replicas.values())
        return BootRecord(boot_id, self._number, lossy, is_searched, tuple(self._starts), (*failed, *self._distrusted))

    def closing(self, folder: str) -> None:
        """The folder is about to get the mark of a clean stop. Raises OSError."""
        self._disk.sync_path(os.path.join(folder, MADE_FILE))
        if self._distrusted:
            self._disk.sync_path(os.path.join(folder, BOOT_FILE))

    def closed(self) -> None:
        """All folders are, but for those that failed: waits for what was noted of these in the others."""
        if self._distrusted:
            self._sync_notes(self._noted())

    def _write_all(self, *, is_searched: bool = False) -> None:
        self._number += 1
        trusted = {folder for folder, start in self._starts.items() if start.is_continuous}
        # The others first: only this start's list may say that their disk failed.
        for folder in sorted(self._folders(), key=trusted.__contains__):
            start = self._starts.get(folder)
            is_complete = is_searched or (start is not None and start.is_complete)
            boot_id = self._boot_id if is_searched or folder in trusted else ""
            self._write(folder, self._record(boot_id, is_searched=is_complete))

    def _write(self, folder: str, record: BootRecord) -> None:
        self._disk.replace_file(os.path.join(folder, BOOT_FILE), encode_boot(record))
        self._records[folder] = record


def _line(partition: TopicPartition, topic_id: str) -> bytes:
    return f"{partition.topic} {partition.partition} {topic_id}\n".encode()


def _replace_all(disk: Disk, paths: Sequence[str], data: bytes) -> None:
    """Runs in a thread."""
    for path in paths:
        try:
            disk.replace_file(path, data)
        except OSError as error:
            logger.warning("cannot write %s: %s", path, error)

"""Loading a log from its folder, and making it whole after an unclean stop; producer states and their snapshots."""

from __future__ import annotations

import os
import re
import zlib
from typing import TYPE_CHECKING, NamedTuple

from zkbroker.log.checkpoints import (
    EPOCH_FILE,
    FLUSH_POLICY_FILE,
    METADATA_FILE,
    MalformedFile,
    decode_epochs,
    decode_partition_metadata,
    encode_partition_metadata,
)
from zkbroker.log.cleaner_swap import complete_swaps
from zkbroker.log.disk import Disk, Handle
from zkbroker.log.indexes import RELATIVE_OFFSET_MAX
from zkbroker.log.producers import find_snapshots, forget_snapshots, rebuild_producers, remove_stray_snapshots
from zkbroker.log.segment import SCAN_BYTES, Segment, file_name
from zkbroker.model.errors import BrokerError, InvariantViolation, StartError
from zkbroker.records.batch import HEADER_BYTES, check_batch, read_header

if TYPE_CHECKING:
    from zkbroker.log.log import Log

LEFTOVER_SUFFIXES = (".deleted", ".cleaned", ".tmp")
"""Files of work that was not finished: an index, a segment or a checkpoint has no value under such a name."""
_LOG_FILE = re.compile(r"[0-9]{20}\.log")
_OLD_MESSAGE_BYTES_MAX = 128 * 1024 * 1024


class Loaded(NamedTuple):
    """What loading found, for the log's owner to tell people."""

    was_recovered: bool
    remarks: tuple[str, ...]
    """Everything that was cut, rebuilt or ignored."""


def load(log: Log, *, is_clean: bool, recovery_point: int, log_start: int) -> Loaded:
    """Fill ``log`` from its folder. ``is_clean``: the last stop was, so that nothing is scanned.

    Raises OSError; MalformedFile if ``partition.metadata`` is unreadable, as nobody could tell whose data this is.
    """
    disk = log.context.disk
    remarks: list[str] = []
    complete_swaps(log, remarks)
    names: dict[str, int] = {}
    for entry in disk.list_dir(log.folder):
        if entry.is_dir:
            continue
        if entry.name.endswith(LEFTOVER_SUFFIXES):
            disk.unlink(os.path.join(log.folder, entry.name))
            if not entry.name.endswith((".deleted", ".tmp")):
                remarks.append(f"removed {entry.name} of an unfinished compaction")
        else:
            names[entry.name] = entry.size
    if METADATA_FILE in names:
        _load_topic_id(log, may_be_torn=not is_clean and recovery_point == 0, remarks=remarks)
    log.durability.has_policy_file = FLUSH_POLICY_FILE in names
    _load_epochs(log, names, remarks)
    # Only Kafka's own names: a person's copy such as 5.log is left alone.
    bases = sorted(int(name[:-4]) for name in names if _LOG_FILE.fullmatch(name))
    for base in bases:
        stem = file_name(base, "")
        segment = Segment(
            disk,
            log.context.old_files,
            log.folder,
            base,
            size=names[stem + ".log"],
            has_aborted=stem + ".txnindex" in names,
        )
        log.segments.append(segment)
        log.bases.append(base)
    _refuse_old_format(log)
    if EPOCH_FILE not in names and any(segment.size for segment in log.segments):
        remarks.append(f"{EPOCH_FILE} is missing: rebuilt from the log")
        log.epochs_need_rebuild = True
    if not log.segments:
        segment = Segment(disk, log.context.old_files, log.folder, log_start)
        segment.warm(create=True)
        log.segments.append(segment)
        log.bases.append(log_start)
    for segment in log.segments:
        segment.created_at_ms = log.context.clock.wall_ms()
    log.log_start_offset = max(log_start, log.bases[0])
    find_snapshots(log, names)
    if not is_clean:
        # Names that the last process made may not be on the disk yet, and what it wrote behind the recovery point not
        # be of this history: a truncation may have been lost.
        log.durability.names_changed = log.durability.is_folder_new = True
        _check_first_epoch(log)
        forget_snapshots(log, log.bases[log.segment_of(recovery_point)])
    first_dirty = len(log.segments) if is_clean else log.segment_of(recovery_point)
    for index, segment in enumerate(log.segments[:first_dirty]):
        stem = file_name(segment.base_offset, "")
        is_missing = stem + ".index" not in names or stem + ".timeindex" not in names
        if is_missing or (not is_clean and not _indexes_are_sane(segment)):
            remarks.append(f"rebuilt the indexes of segment {segment.base_offset}")
            _scan(log, index, remarks, epochs=False)
    was_recovered = False
    if is_clean:
        _find_log_end(log, remarks)
        log.flushed_end_offset = log.log_end_offset
        log.durability.named_base = log.bases[-1]
    else:
        checked_from = log.bases[first_dirty]
        was_recovered = _recover(log, first_dirty, remarks, recovery_point)
        # Not the recovery point itself: within its segment it may be from before a truncation.
        log.flushed_end_offset = min(recovery_point, checked_from, log.log_end_offset)
    if log.log_start_offset > log.log_end_offset:
        # Kafka begins anew there: what is left lies wholly below what was deleted.
        remarks.append(f"log start {log.log_start_offset} lies beyond the log end {log.log_end_offset}: begun anew")
        log.truncate_fully_and_start_at(log.log_start_offset)
    # A leader that had nothing appended in its epoch leaves one that begins at the log end: nothing is missing then.
    is_beyond = any(start > log.log_end_offset for _, start in log.epochs.entries)
    log.epochs.truncate_from_end(log.log_end_offset)
    if is_beyond and not is_clean:
        remarks.append("dropped leader epochs that begin after the log end")
    log.epochs.truncate_from_start(log.log_start_offset)
    rebuild_producers(log)
    remove_stray_snapshots(log)
    for segment in log.segments[:-1]:
        log.durability.must_sync(segment.take_unsynced())
    log.check()
    return Loaded(was_recovered, tuple(remarks))


def _refuse_old_format(log: Log) -> None:
    """Kafka before 0.11 wrote messages of magic 0 and 1, which have another layout; what is oldest would be such.

    Raises StartError: nobody's data is cut off as garbage because we cannot read it.
    """
    segment = next((segment for segment in log.segments if segment.size), None)
    if segment is None:
        return
    disk = log.context.disk
    handle = disk.open_data(segment.path)
    try:
        head = disk.read(handle, 0, HEADER_BYTES)
        if len(head) < 17 or head[16] > 1:
            return
        size = int.from_bytes(head[8:12], "big") + 12
        message = disk.read(handle, 0, size) if 26 <= size <= min(segment.size, _OLD_MESSAGE_BYTES_MAX) else b""
    finally:
        disk.close(handle)
    if message and zlib.crc32(message[16:]) == int.from_bytes(message[12:16], "big"):
        raise StartError(
            f"log.dirs: {segment.path} holds messages of magic {head[16]}, from before Kafka 0.11, which cannot be "
            "read: copy the topic with Kafka first, or move the folder away"
        )


def _load_topic_id(log: Log, *, may_be_torn: bool, remarks: list[str]) -> None:
    """Raises MalformedFile. Of a log that was just made a loss of power may leave a torn file: it is durable before any
    data counts as such."""
    path = os.path.join(log.folder, METADATA_FILE)
    data = log.context.disk.read_file(path)
    try:
        log.topic_id = decode_partition_metadata(data)
    except MalformedFile:
        head = encode_partition_metadata("")
        if not (may_be_torn and (b"\0" in data or head.startswith(data[: len(head)]))):
            raise
        remarks.append(f"{METADATA_FILE} is torn: the topic id is taken from the controller")
        # This process may stop cleanly before the controller says it, and a clean start would not forgive the file.
        log.context.disk.unlink(path)
    log.durability.is_metadata_on_disk = not may_be_torn


def _load_epochs(log: Log, names: dict[str, int], remarks: list[str]) -> None:
    if EPOCH_FILE not in names:
        return
    try:
        for epoch, start in decode_epochs(log.context.disk.read_file(os.path.join(log.folder, EPOCH_FILE))):
            log.epochs.assign(epoch, start)
    except (MalformedFile, InvariantViolation) as error:
        # The batches carry their epochs: rebuilt from all of them.
        remarks.append(f"{EPOCH_FILE} is malformed ({error}): rebuilt from the log")
        log.epochs.clear()
        log.epochs_need_rebuild = True
        return
    log.durability.epochs_are_on_disk()


def _check_first_epoch(log: Log) -> None:
    """The epoch checkpoint is written at once, the log start only now and then: a kill in between leaves the first
    epoch beginning after the log start. The batch that lies there tells."""
    if not log.epochs.entries or log.epochs.entries[0][1] <= log.log_start_offset:
        return
    segment = log.segments[log.segment_of(log.log_start_offset)]
    try:
        position, _ = segment.position_of(log.log_start_offset)
    except OSError:
        # Torn: the check of all batches, or the next read, says so.
        return
    head = log.context.disk.read(segment.file().handle, position, HEADER_BYTES)
    if len(head) < HEADER_BYTES or read_header(head).magic != 2:
        return
    epoch = read_header(head).leader_epoch
    entries = log.epochs.entries
    log.epochs.clear()
    if epoch == entries[0][0]:
        for known_epoch, start in ((epoch, log.log_start_offset), *entries[1:]):
            log.epochs.assign(known_epoch, start)
    else:
        log.epochs_need_rebuild = True


def _indexes_are_sane(segment: Segment) -> bool:
    is_sane = segment.index.is_sane(segment.size) and segment.time_index.is_sane()
    segment.index.unload()
    segment.time_index.unload()
    return is_sane


def _find_log_end(log: Log, remarks: list[str]) -> None:
    """After a clean stop: the batches behind the last index entry tell the end."""
    segment = log.active
    log.log_end_offset = segment.base_offset
    if segment.size == 0:
        _rebuild_epochs(log, remarks)
        return
    last = segment.index.last()
    if last is not None and last[1] >= segment.size:
        remarks.append(f"the index of segment {segment.base_offset} points past its end: rebuilt")
        _recover_active(log, remarks)
        return
    position = last[1] if last is not None else 0
    end = position
    for place, header in segment.headers(position):
        if header.magic != 2 or place + header.size > segment.size:
            break
        end = place + header.size
        log.log_end_offset = header.next_offset
    if end != segment.size:
        # The mark promised a whole log; what is there is not. Trust the bytes.
        remarks.append(f"segment {segment.base_offset} has {segment.size - end} bytes that are no whole batch")
        _recover_active(log, remarks)
    else:
        _rebuild_epochs(log, remarks)
    segment.index.unload()


def _recover_active(log: Log, remarks: list[str]) -> None:
    """The active segment, which a clean stop left and something damaged since. Its aborted transactions are found again
    in its batches: so the producers' states must not come from a snapshot that lies behind these."""
    forget_snapshots(log, log.active.base_offset)
    _recover(log, len(log.segments) - 1, remarks)


def _rebuild_epochs(log: Log, remarks: list[str]) -> None:
    """After a clean stop, if the checkpoint was no use."""
    if log.epochs_need_rebuild:
        for index in range(len(log.segments)):
            _scan(log, index, remarks, epochs=True)


def _recover(log: Log, first: int, remarks: list[str], recovery_point: int = 0) -> bool:
    """Check every batch from segment ``first`` on; cut at the first bad byte. True if anything was scanned.

    For the epochs' sake what lies before it may be read too, but its aborted transactions and snapshots stay: they are
    on the disk, and after the next crash the same recovery point would trust what is written anew here.
    """
    unflushed = first
    if log.epochs_need_rebuild:
        first = 0
    epoch = -1
    index = first
    scanned = False
    log.log_end_offset = log.bases[first] if first < len(log.bases) else log.log_end_offset
    while index < len(log.segments):
        scanned = True
        segment = log.segments[index]
        if segment.base_offset < log.log_end_offset:
            remarks.append(f"segment {segment.base_offset} overlaps the one before it, which ends at "
                           f"{log.log_end_offset}: removed")  # fmt: skip
            is_whole = False
            doomed = log.segments[index:]
            keep = index
        elif index > first and segment.base_offset > max(log.log_end_offset, log.context.cleaned_offset(log)):
            # The end of the segment before it never came to the disk. What follows is fetched again with it: with a
            # hole in the middle nobody would. (Kafka's compaction leaves holes between segments where it was done.)
            remarks.append(f"offsets from {log.log_end_offset} to {segment.base_offset - 1} are missing")
            is_whole = False
            doomed = log.segments[index:]
            keep = index
        else:
            log.log_end_offset, is_whole, epoch = _scan(
                log, index, remarks, epochs=True, transactions=index >= unflushed, recovery_point=recovery_point,
                epoch_before=epoch
            )  # fmt: skip
            doomed = log.segments[index + 1 :]
            keep = index + 1
        if not is_whole:
            if any(later.size for later in doomed):
                log.context.about_to_cut(log, log.log_end_offset, False)
            for later in doomed:
                remarks.append(f"removed segment {later.base_offset} of {later.size} bytes behind it")
                later.close()
                later.delete_files()
            del log.segments[keep:], log.bases[keep:]
            break
        index += 1
    return scanned


def _note_epoch(log: Log, epoch: int, offset: int) -> None:
    """A batch says in which epoch it was written. The checkpoint may be older than the last truncation: an entry that
    claims the batch for a later epoch was truncated away, and what is believed of it would cut followers short."""
    if log.epochs.epoch_of(offset) > epoch >= 0:
        while log.epochs.latest_epoch > epoch:
            log.epochs.truncate_from_end(log.epochs.entries[-1][1])
    if log.epochs.epoch_of(offset) < epoch:
        log.epochs.assign(epoch, offset)


def _scan(
    log: Log, index: int, remarks: list[str], *, epochs: bool, transactions: bool = False, recovery_point: int = 0,
    epoch_before: int = -1
) -> tuple[int, bool, int]:  # fmt: skip
    """Check the batches of one segment, rebuild its indexes, cut it at the first bad byte. ``transactions``: its
    aborted ones are forgotten, to be found again in the batches with the producers' states. Unless the epochs stay as
    they are known, a batch from the recovery point on whose epoch is below that of the one before it is bad too: it
    comes from before a truncation that a loss of power undid.

    (next offset, is whole, epoch of the last batch)
    """
    segment = log.segments[index]
    disk = log.context.disk
    handle = segment.file().handle
    file_bytes = disk.size(handle)
    segment.index.reset()
    segment.time_index.reset()
    if transactions:
        segment.transactions.reset()
    segment.begin_rebuild()
    interval = log.config.index_interval_bytes
    next_offset = segment.base_offset
    position = 0
    data, start = b"", 0
    problem = ""
    while position < file_bytes:
        left = start + len(data) - position
        if left < HEADER_BYTES or read_header(data, position - start).size > left:
            size = SCAN_BYTES
            if left >= HEADER_BYTES:
                size = max(size, read_header(data, position - start).size)
            data, start = disk.read(handle, position, min(size, file_bytes - position)), position
        try:
            if len(data) - (position - start) >= HEADER_BYTES:
                wanted = read_header(data, position - start).size
                if len(data) - (position - start) < wanted <= file_bytes - position:
                    data, start = disk.read(handle, position, wanted), position
            header = check_batch(data, position - start, len(data))
            if header.base_offset < next_offset:
                problem = f"offset {header.base_offset} where {next_offset} is due"
                break
            if header.last_offset - segment.base_offset > RELATIVE_OFFSET_MAX:
                problem = f"offset {header.last_offset} is too far from the segment's"
                break
            if epochs and 0 <= header.leader_epoch < epoch_before and header.base_offset >= recovery_point:
                problem = f"leader epoch {header.leader_epoch} after {epoch_before}"
                break
        except BrokerError as error:
            problem = str(error)
            break
        segment.note_batch(header.last_offset, position, header.size, header.max_timestamp, interval)
        epoch_before = header.leader_epoch
        if epochs:
            _note_epoch(log, header.leader_epoch, header.base_offset)
        next_offset = header.next_offset
        position += header.size
    segment.size = position
    if problem:
        remarks.append(
            f"cut {file_bytes - position} bytes from segment {segment.base_offset} at position {position}, "
            f"offset {next_offset}: {problem}"
        )
        log.context.about_to_cut(log, next_offset, _is_torn(disk, handle, position, file_bytes))
        disk.truncate(handle, position)
        segment.transactions.truncate(next_offset)
    segment.write_indexes(is_final=index < len(log.segments) - 1 and not problem)
    return next_offset, not problem, epoch_before


def _is_torn(disk: Disk, handle: Handle, position: int, file_bytes: int) -> bool:
    """What lies at ``position`` is a batch that was not written to its end: the process ended in the middle of it, and
    nobody was told of it."""
    head = disk.read(handle, position, min(HEADER_BYTES, file_bytes - position))
    return len(head) < HEADER_BYTES or read_header(head).size > file_bytes - position

"""A cleaned segment takes the place of old ones: by Kafka's renames, so that a crash at any of them leaves one or the
other.

1. ``X.log.cleaned`` and its indexes are whole, and on the disk with their names.
2. They are renamed to ``.swap``, the log first. From here on they are what counts.
3. The old segments' files are renamed to ``.deleted``.
4. The ``.swap`` files get their final names, the log first.

All in one turn of the reactor: nothing is truncated or appended in between. Renames in one folder reach the disk in
their order, so a loss of power leaves some beginning of the list, and a start completes it (``complete_swaps``).
"""

from __future__ import annotations

import os
import re
from functools import partial
from typing import TYPE_CHECKING

from zkbroker.log.cleaner import CLEANED_SUFFIX, CleanedSegment
from zkbroker.log.producers import SNAPSHOT_SUFFIX
from zkbroker.log.segment import DELETED_SUFFIX, Segment, file_name
from zkbroker.model.errors import InvariantViolation

if TYPE_CHECKING:
    from zkbroker.log.log import Log

SWAP_SUFFIX = ".swap"
_ENDINGS = (".log", ".index", ".timeindex", ".txnindex")
_LOG_FILE = re.compile(r"[0-9]{20}\.log")


def swap_in(log: Log, cleaned: CleanedSegment) -> None:
    """``cleaned`` becomes a segment of ``log``; whoever reads the old files goes on with them.

    The caller has seen to it that the log is the one it was made from, and syncs the folder afterwards. Raises OSError.
    """
    first = log.bases.index(cleaned.base_offset) if cleaned.base_offset in log.bases else len(log.bases)
    last = first + len(cleaned.replaced)
    if tuple(log.bases[first:last]) != cleaned.replaced or last >= len(log.bases):
        raise InvariantViolation(f"{log!r} has segments {log.bases}: {cleaned!r} replaces none of them")
    disk = log.context.disk
    old = log.segments[first:last]
    stem = os.path.join(log.folder, file_name(cleaned.base_offset, ""))
    endings = [ending for ending in _ENDINGS if ending != ".txnindex" or cleaned.has_aborted]
    for ending in endings:
        disk.rename(stem + ending + CLEANED_SUFFIX, stem + ending + SWAP_SUFFIX)
    for segment in old:
        segment.mark_deleted()
    for ending in endings:
        disk.rename(stem + ending + SWAP_SUFFIX, stem + ending)
    segment = Segment(
        disk, log.context.old_files, log.folder, cleaned.base_offset, size=cleaned.size, has_aborted=cleaned.has_aborted
    )
    segment.created_at_ms = log.context.clock.wall_ms()
    log.segments[first:last] = [segment]
    log.bases[first:last] = [cleaned.base_offset]
    log.tail.forget_below(log.bases[first + 1])
    log.generation += 1
    log.durability.names_changed = True
    for gone in cleaned.replaced[1:]:
        _drop_snapshot(log, gone)
    for segment in old:
        log.context.delete_later(
            log.log_dir, log.config.file_delete_delay_ms, partial(segment.delete_files, DELETED_SUFFIX)
        )
    log.check()


def _drop_snapshot(log: Log, offset: int) -> None:
    """No segment begins there any more. The newest one stays, wherever it is."""
    if offset in log.snapshots[:-1]:
        log.snapshots.remove(offset)
        log.context.disk.unlink(os.path.join(log.folder, file_name(offset, SNAPSHOT_SUFFIX)))


def complete_swaps(log: Log, remarks: list[str]) -> None:
    """At the start: finish what a crash interrupted. The segments in a ``.swap`` log's range go, it gets its name.
    Raises OSError."""
    disk = log.context.disk
    entries = [entry for entry in disk.list_dir(log.folder) if not entry.is_dir]
    names = {entry.name for entry in entries}
    swaps = [entry for entry in entries if entry.name.endswith(SWAP_SUFFIX)
             and _LOG_FILE.fullmatch(entry.name.removesuffix(SWAP_SUFFIX))]  # fmt: skip
    for swap in swaps:
        base = int(swap.name.partition(".")[0])
        path = os.path.join(log.folder, swap.name)
        end = base + 1
        for _, header in Segment(disk, log.context.old_files, log.folder, base, size=swap.size).headers_of(path):
            end = header.next_offset
        stem = os.path.join(log.folder, file_name(base, ""))
        indexes = [stem + ending for ending in _ENDINGS[1:]]
        for index in indexes:
            # They were whole before the log was renamed, but their turn had not come. Now, as this may be interrupted
            # too, and a ``.cleaned`` file is taken for one that was not finished.
            if os.path.basename(index) + CLEANED_SUFFIX in names:
                disk.rename(index + CLEANED_SUFFIX, index + SWAP_SUFFIX)
        for name in sorted(names):
            if _is_in(name, base, end):
                disk.unlink(os.path.join(log.folder, name))
        disk.rename(path, stem + ".log")
        for index in indexes:
            if disk.exists(index + SWAP_SUFFIX):
                disk.rename(index + SWAP_SUFFIX, index)
        remarks.append(f"completed the compaction of offsets {base} to {end - 1}")
    done = {swap.name.partition(".")[0] for swap in swaps}
    for name in sorted(names):
        number, _, ending = name.removesuffix(SWAP_SUFFIX).partition(".")
        if name.endswith(SWAP_SUFFIX) and number not in done:
            path = os.path.join(log.folder, name)
            if f"{number}.log" in names and f".{ending}" in _ENDINGS:
                # The log has its name already, this file's turn had not come.
                disk.rename(path, path.removesuffix(SWAP_SUFFIX))
            else:
                disk.unlink(path)


def _is_in(name: str, base: int, end: int) -> bool:
    stem, _, ending = name.partition(".")
    return f".{ending}" in _ENDINGS and stem.isdigit() and base <= int(stem) < end

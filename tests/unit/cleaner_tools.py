"""What the tests of compaction share: a log that is compacted in this process, and what must be left of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.unit.log_tools import NOW_MS, T0, TOPIC_ID, World, read_all
from zkbroker.log.cleaner import CleanSummary, clean
from zkbroker.log.cleaner_choice import CleanerSettings, Dirt, dirt_of, job_for
from zkbroker.log.cleaner_swap import swap_in
from zkbroker.log.dirs import LogDirs
from zkbroker.log.log import Log
from zkbroker.model.topic_config import TopicConfig
from zkbroker.records.batch import BatchHeader, batches
from zkbroker.records.record import Record, build_batch

SETTINGS = CleanerSettings(dedupe_buffer_bytes=24 * 1000, io_buffer_bytes=1)


def compacted(**more: object) -> TopicConfig:
    """A topic that is compacted whenever there is anything to compact."""
    fields: dict[str, object] = {
        "cleanup_policy": ("compact",),
        "min_cleanable_dirty_ratio": 0.0,
        "delete_retention_ms": 1000,
        "index_interval_bytes": 0,
    }
    return TopicConfig(**{**fields, **more})  # type: ignore[arg-type]


def keyed(pairs: Iterable[tuple[bytes | None, bytes | None]], *, timestamp: int = NOW_MS, **more: object) -> bytes:
    """A batch of (key, value) as a client sends it."""
    records = [Record(index, timestamp + index, key, value) for index, (key, value) in enumerate(pairs)]
    return build_batch(records, **more)  # type: ignore[arg-type]


def put(log: Log, *pairs: tuple[bytes | None, bytes | None], epoch: int = 0, **more: object) -> int:
    """Append them in one batch; its first offset."""
    return log.append_as_leader(keyed(pairs, **more), epoch).base_offset


def dirt(dirs: LogDirs, log: Log, mark: int | None = None) -> Dirt:
    now_ms = log.context.clock.wall_ms()
    return dirt_of(log, log.log_end_offset if mark is None else mark, dirs.cleaned.get(log), now_ms)


def compact(
    dirs: LogDirs, log: Log, settings: CleanerSettings = SETTINGS, *, mark: int | None = None, roll: bool = True
) -> CleanSummary | None:
    """One compaction of all but the active segment, as the broker has it done. None if there is nothing to do."""
    if roll:
        log.roll()
    log.flush_later()
    found = dirt(dirs, log, mark)
    if not found.dirty_bytes:
        return None
    disk = log.context.disk
    work = clean(job_for(found, settings, log.context.clock.wall_ms()), disk)
    while True:
        try:
            cleaned = next(work)
        except StopIteration as done:
            summary = done.value
            assert isinstance(summary, CleanSummary)
            dirs.cleaned.cleaned(log, summary.end_offset)
            return summary
        swap_in(log, cleaned)
        disk.sync_dir(log.folder)


def headers(log: Log) -> list[BatchHeader]:
    """Of all batches on disk."""
    found = []
    for segment in log.segments:
        data = log.context.disk.read_file(segment.path)[: segment.size]
        found += [header for _, header in batches(data)]
    return found


def last_values(records: Iterable[Record]) -> dict[bytes, bytes]:
    """What a reader of all records believes in the end."""
    found: dict[bytes, bytes] = {}
    for record in records:
        if record.key is None:
            continue
        if record.value is None:
            found.pop(record.key, None)
        else:
            found[record.key] = record.value
    return found


def stored(log: Log) -> list[Record]:
    """Every record, as a consumer reads it."""
    return read_all(log)


def values(log: Log) -> list[tuple[int, bytes | None, bytes | None]]:
    return [(record.offset, record.key, record.value) for record in stored(log)]


class Place:
    """A log that can be opened again."""

    def __init__(self, folder: Path, config: TopicConfig) -> None:
        self.world = World(folder, config=config)
        self.dirs = self.world.open()
        self.log = self.dirs.create(T0, TOPIC_ID)

    def again(self, *, is_clean: bool) -> Log:
        if is_clean:
            self.dirs.close(1)
        else:
            self.dirs.abandon()
        self.dirs = self.world.open()
        self.log = self.dirs.logs[T0]
        return self.log

    def compact(self) -> CleanSummary:
        summary = compact(self.dirs, self.log)
        assert summary is not None
        return summary

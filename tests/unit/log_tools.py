"""What the log tests share: folders, a clock that stands still, threads that run at once or when told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, maybeDeferred

from zkbroker.log.dirs import LogDirs
from zkbroker.log.disk import Disk
from zkbroker.log.log import Log
from zkbroker.model.topic_config import TopicConfig
from zkbroker.model.topics import TopicPartition
from zkbroker.records.batch import batches
from zkbroker.records.record import Record, build_batch, records_of

CLUSTER_ID = "EvpHDamLThiPwyNw91Kx0w"
TOPIC_ID = "HUZdS2QlRPWWZBLZPv1EaQ"
T0 = TopicPartition("t", 0)
NOW_MS = 1_700_000_000_000


class StillClock:
    """Time moves only when a test says so."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def monotonic(self) -> float:
        return self.now_ms / 1000

    def wall_ms(self) -> int:
        return self.now_ms


class HeldThreads:
    """``run_in_thread`` that waits for ``run``."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.jobs.append((done, function, arguments))
        return done

    def run(self) -> int:
        """Run what waits now. The number of jobs."""
        jobs, self.jobs = self.jobs, []
        for done, function, arguments in jobs:
            maybeDeferred(function, *arguments).chainDeferred(done)
        return len(jobs)


class UnsyncedDisk(Disk):
    """The local disk without waiting for it: tests kill no power."""

    def sync(self, handle: int) -> None:
        pass

    def sync_dir(self, path: str) -> None:
        pass


class World:
    """One broker's log folders, which can be opened again and again."""

    def __init__(self, *folders: Path | str, config: TopicConfig | None = None, broker_id: int = 1) -> None:
        self.folders = [str(folder) for folder in folders]
        self.config = config or TopicConfig()
        self.broker_id = broker_id
        self.boot_id: str | None = "boot-1"
        self.clock = StillClock()
        self.reactor = task.Clock()
        self.disk: Disk = UnsyncedDisk()
        self.threads: Callable[..., Deferred[Any]] = maybeDeferred
        self.failures: list[tuple[str, str, list[TopicPartition]]] = []

    def open(self, cluster_id: str = CLUSTER_ID) -> LogDirs:
        dirs = LogDirs(
            disk=self.disk,
            clock=self.clock,
            reactor=self.reactor,
            run_in_thread=lambda function, *arguments: self.threads(function, *arguments),
            log_dirs=self.folders,
            broker_id=self.broker_id,
            topic_config=lambda topic: self.config,
            dir_failed=lambda folder, reason, partitions: self.failures.append((folder, reason, partitions)),
            boot_id=self.boot_id,
        )
        dirs.open(cluster_id)
        return dirs


def batch(
    count: int = 1,
    *,
    value: bytes = b"v",
    timestamp: int = NOW_MS,
    base: int = 0,
    key: bytes | None = None,
    **more: Any,
) -> bytes:
    """A batch of ``count`` equal records."""
    return build_batch([Record(base + i, timestamp, key, value) for i in range(count)], **more)


def read_all(log: Log, start: int | None = None, max_bytes: int = 300) -> list[Record]:
    """Every record from ``start`` (or the log start) to the log end, read in small pieces."""
    offset = log.log_start_offset if start is None else start
    found: list[Record] = []
    while offset < log.log_end_offset:
        read = log.read(offset, max_bytes, log.log_end_offset, may_wait=True)
        assert read is not None
        assert read.next_offset > offset, f"no progress at {offset} of {log!r}"
        data = b"".join(bytes(chunk) for chunk in read.chunks)
        assert len(data) == read.size
        for position, header in batches(data):
            found.extend(records_of(data, header, position))
        offset = read.next_offset
    return [record for record in found if start is None or record.offset >= start]

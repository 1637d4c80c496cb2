"""Compaction of this broker's logs: which is next, when, and what becomes of the result.

A child process does the work from a frozen job. Each segment that it made takes the place of old ones on the reactor,
if the log is still what the job was made from: truncation, deletion, retention and a failed folder raise its generation
and end the child at once; retention waits for it before. Then the folder is synced in a thread, and only then the child
may go on: so what is replaced first is on the disk first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from zkbroker.broker.cleaner_process import CleanerWork, StartCleaner
from zkbroker.log.cleaner import CleanedSegment, CleanSummary
from zkbroker.log.cleaner_choice import CleanerSettings, Dirt, dirt_of, dirtiest, job_for
from zkbroker.log.cleaner_swap import swap_in
from zkbroker.log.dirs import LogDirs
from zkbroker.log.log import Log
from zkbroker.model.clock import Clock
from zkbroker.model.errors import BrokerError, InvariantViolation
from zkbroker.model.topics import TopicPartition

BACKOFF_S_MIN = 0.1
"""Between looks, however small log.cleaner.backoff.ms is: each goes over all logs."""

RETRY_S = 60.0
"""Pause before a log is tried again whose compaction ended for a reason that may pass: a full disk, a kill."""


class Cleaning:
    """``candidates()`` are the logs with their high watermarks; ``settings()`` what the configuration says now."""

    def __init__(
        self,
        *,
        reactor: Any,
        clock: Clock,
        logs: LogDirs,
        candidates: Callable[[], Iterable[tuple[Log, int]]],
        settings: Callable[[], CleanerSettings],
        start_cleaner: StartCleaner,
        fatal: Callable[[str, BaseException], None],
        report: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._logs = logs
        self._candidates = candidates
        self._settings = settings
        self._start_cleaner = start_cleaner
        self._fatal = fatal
        self._report = report
        self._runs: dict[TopicPartition, _Run] = {}
        """Also those that were stopped, until their process is gone: two must never write into one folder."""
        self._timer: Any = None
        self._is_stopped = True
        self._damaged: dict[TopicPartition, tuple[Log, str]] = {}
        """Logs that cannot be compacted, and why: until they are other logs."""
        self._not_before: dict[TopicPartition, float] = {}
        self.logs_compacted = 0
        self.bytes_saved = 0

    def __repr__(self) -> str:
        return f"Cleaning({len(self._runs)} under way, {len(self._damaged)} damaged)"

    def start(self) -> None:
        """From now on look each ``log.cleaner.backoff.ms``."""
        self._is_stopped = False
        self._look_later(max(self._settings().backoff_s, BACKOFF_S_MIN))

    def stop(self) -> None:
        """End what runs. What was made and did not take its place is dropped at the next job or start."""
        self._is_stopped = True
        self._cancel_timer()
        for run in list(self._runs.values()):
            run.stop()

    def look(self) -> None:
        """Begin with the dirtiest logs, as many as may be under way."""
        self._cancel_timer()
        if self._is_stopped:
            return
        settings = self._settings()
        # Before anything can go wrong in a look.
        self._look_later(max(settings.backoff_s, BACKOFF_S_MIN))
        if not settings.is_enabled:
            return
        self._forget()
        while len(self._runs) < settings.threads:
            chosen = dirtiest(self._dirt())
            if chosen is None:
                return
            self._begin(chosen, settings)

    def _forget(self) -> None:
        """What is known of logs that are gone, and of pauses that are over."""
        now = self._clock.monotonic()
        self._damaged = {p: known for p, known in self._damaged.items() if self._logs.get(p) is known[0]}
        self._not_before = {p: at for p, at in self._not_before.items() if at > now}

    def status_lines(self) -> list[str]:
        names = ", ".join(str(partition) for partition in self._runs)
        done = f"{self.logs_compacted} compactions, {self.bytes_saved} bytes saved"
        return [f"compaction: {f'at {names}' if names else 'at rest'}; {done}"]

    def problems(self) -> list[str]:
        self._forget()
        return [f"{partition} cannot be compacted: {why}" for partition, (_, why) in self._damaged.items()]

    def _look_later(self, seconds: float) -> None:
        self._timer = self._reactor.callLater(seconds, self._look_timed)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _look_timed(self) -> None:
        self._timer = None
        self.look()

    def _dirt(self) -> Iterable[Dirt]:
        now_ms = self._clock.wall_ms()
        for log, high_watermark in self._candidates():
            partition = log.partition
            if (
                log.is_offline
                or "compact" not in log.config.cleanup_policy
                or partition in self._runs
                or partition in self._damaged
                or log.log_dir in self._logs.stalled_dirs
                or partition in self._not_before
            ):
                continue
            try:
                yield dirt_of(log, high_watermark, self._logs.cleaned.get(log), now_ms)
            except OSError as error:
                log.failed("cannot read", error)

    def _begin(self, dirt: Dirt, settings: CleanerSettings) -> None:
        log = dirt.log
        try:
            work = self._start_cleaner(job_for(dirt, settings, self._clock.wall_ms()))
        except OSError as error:
            # No process to be had, or an index that cannot be read: the log itself says so when it is read.
            self.put_off(log, error)
            return
        run = self._runs[log.partition] = _Run(self, log, work, self._clock.monotonic())
        run.go_on()

    # What the runs tell

    def ended(self, run: _Run) -> None:
        """Nothing of it runs any more. Look again at once: there may be more to do."""
        if self._runs.pop(run.log.partition, None) is not None and not self._is_stopped:
            self._cancel_timer()
            self._look_later(0)

    def done(self, run: _Run, summary: CleanSummary) -> None:
        """All of it is on the disk."""
        log = run.log
        self._logs.cleaned.cleaned(log, summary.end_offset)
        saved = summary.bytes_before - summary.bytes_after
        self.logs_compacted += 1
        self.bytes_saved += saved
        if summary.records_dropped:
            seconds = self._clock.monotonic() - run.started_at
            self._report(
                f"compacted {log.partition} up to offset {summary.end_offset}: {summary.records_dropped} records "
                f"fewer, {summary.bytes_after} of {summary.bytes_before} bytes left, {seconds:.1f} s"
            )

    def put_off(self, log: Log, error: BaseException | None) -> None:
        self._not_before[log.partition] = self._clock.monotonic() + RETRY_S
        self._report(f"{log.partition} is not compacted now: {error or 'the cleaner ended'}")

    def cannot(self, log: Log, error: BaseException) -> None:
        self._damaged[log.partition] = log, str(error)
        self._report(f"{log.partition} cannot be compacted: {error}")

    def broken(self, log: Log, error: BaseException) -> None:
        self._fatal(f"compaction of {log!r}", error)

    def sync(self, log: Log) -> Deferred[None]:
        """The folder's names are on the disk when it fires."""
        context = log.context
        done: Deferred[None] = context.lanes.run(log.log_dir, context.disk.sync_dir, log.folder)
        return done


def _nothing() -> None:
    pass


class _Run:
    """One compaction of one log."""

    def __init__(self, cleaning: Cleaning, log: Log, work: CleanerWork, started_at: float) -> None:
        self._cleaning = cleaning
        self.log = log
        self._work = work
        self.started_at = started_at
        self._generation = log.generation
        self._is_over = False
        log.stop_cleaning = self.stop
        log.cleaning_since = started_at

    def __repr__(self) -> str:
        return f"_Run({self.log.partition} {self._work!r})"

    def go_on(self) -> None:
        self._work.resume().addCallbacks(self._made, self._failed).addErrback(self._broken)

    def stop(self) -> None:
        """What it makes is not wanted any more."""
        if not self._is_over:
            self._end()

    @property
    def _is_stale(self) -> bool:
        """The log is not what the job was made from."""
        log = self.log
        return (
            self._is_over
            or log.is_offline
            or log.generation != self._generation
            or "compact" not in log.config.cleanup_policy
        )

    def _made(self, result: CleanedSegment | CleanSummary) -> None:
        if self._is_stale:
            self.stop()
            return
        if isinstance(result, CleanSummary):
            self._cleaning.done(self, result)
            self._end()
            return
        log = self.log
        try:
            swap_in(log, result)
        except OSError as error:
            log.failed("cannot rename", error)
            self.stop()
            return
        self._generation = log.generation
        self._cleaning.sync(log).addCallbacks(self._synced, self._sync_failed).addErrback(self._broken)

    def _synced(self, _: None) -> None:
        if self._is_stale:
            self.stop()
        else:
            self.go_on()

    def _sync_failed(self, failure: Failure) -> None:
        stale, error = self._is_stale, failure.value
        self.stop()
        if not stale and isinstance(error, OSError):
            self.log.failed("fsync failed", error)
        elif not isinstance(error, OSError):
            failure.raiseException()

    def _failed(self, failure: Failure) -> None:
        if not self._is_stale:
            error = failure.value
            if isinstance(error, BrokerError):
                self._cleaning.cannot(self.log, error)
            else:
                self._cleaning.put_off(self.log, error)
        self.stop()

    def _broken(self, failure: Failure) -> None:
        self.stop()
        self._cleaning.broken(self.log, failure.value or InvariantViolation("a compaction failed without a reason"))

    def _end(self) -> None:
        self._is_over = True
        log = self.log
        if log.stop_cleaning == self.stop:
            log.stop_cleaning = _nothing
            log.cleaning_since = None
        self._work.stop().addCallback(lambda _: self._cleaning.ended(self))

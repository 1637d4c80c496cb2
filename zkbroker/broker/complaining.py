"""What this broker complains of: leaders that do not answer, log folders of its own that hang. Tells the controller.

The controller hears the whole word again and again while there is something to complain of, and once more, empty, when
there is not any more. So nothing need be remembered of what it was told: a new controller, or one to which the way was
cut, knows all after one period.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from zkbroker.log.dirs import LogDirs
from zkbroker.log.flush import FlushJob
from zkbroker.model.clock import Clock
from zkbroker.model.complaints import StalledDir, Unreachable, Word
from zkbroker.model.errors import BrokerError
from zkbroker.model.topics import TopicPartition

WORDS_PER_SESSION = 10
"""So often in one session timeout the broker looks, and complains."""

LATE_LOOK_FACTOR = 2.5
"""A look that comes later than so many periods was itself stopped (SIGSTOP, a reactor under load): what seems to be
missing may wait in the sockets, so it judges nothing."""


class StallWatch:
    """Finds the log folders in which appends do not complete.

    An append completes when it counts: at once in the page cache, or under a flush policy of one message when it is on
    the disk. The first kind cannot be late without stopping the reactor thread, which is the watchdog's business; so it
    is the flushes of the second kind that are watched. A flush in the background that takes long is no sign: after
    1 GiB in the page cache it may on a disk that is well. What a thread does for such a log is watched whatever it is:
    the next flush waits for it.
    """

    def __init__(self, log_dirs: LogDirs, *, stall_s: float) -> None:
        self._log_dirs = log_dirs
        self._stall_s = stall_s
        self._since: dict[TopicPartition, tuple[FlushJob, float]] = {}
        """The jobs seen at the last look, and when each was first seen."""

    def look(self, now: float) -> tuple[StalledDir, ...]:
        """The stalled folders, by name."""
        since: dict[TopicPartition, tuple[FlushJob, float]] = {}
        waiting: dict[str, dict[TopicPartition, float]] = {}
        logs = self._log_dirs.logs
        for partition, log in logs.items():
            if log.config.flush_messages != 1:
                continue  # most logs: they are to cost nothing here
            job = log.durability.running_job
            if job is None or log.flushed_end_offset >= log.log_end_offset:
                continue
            known = self._since.get(partition)
            first_seen = now if known is None or known[0] is not job else known[1]
            since[partition] = job, first_seen
            if now - first_seen >= self._stall_s:
                waiting.setdefault(log.log_dir, {})[partition] = now - first_seen
        self._since = since
        self._log_dirs.stalled_dirs = frozenset(waiting)
        return tuple(
            StalledDir(
                folder,
                max(waiting[folder].values()),
                tuple(sorted(partition for partition, log in logs.items() if log.log_dir == folder)),
                tuple(sorted(waiting[folder])),
            )
            for folder in sorted(waiting)
        )


class SilenceWatch:
    """Finds the followers that hold acks=all up because they do not fetch at all. A follower that fetches but lags is
    the leader's own business, after ``replica.lag.time.max.ms``.

    ``heard()``: the ISR followers, and when each last fetched."""

    def __init__(
        self,
        heard: Callable[[], Mapping[int, float]],
        *,
        broker_epoch: Callable[[int], int | None],
        silent_s: float,
        fetch_wait_s: float,
    ) -> None:
        self._heard = heard
        self._broker_epoch = broker_epoch
        self._silent_s = silent_s
        self._fetch_wait_s = fetch_wait_s
        """A FETCH may be held for so long before the next one comes."""
        self._since: dict[tuple[int, int], float] = {}
        """Follower and its incarnation → when it last fetched, or since when it is expected to. A leader forgets that
        with each new leader epoch."""

    def look(self, now: float) -> tuple[Unreachable, ...]:
        """Those that did not, by id."""
        since: dict[tuple[int, int], float] = {}
        silent = []
        for follower, heard_at in sorted(self._heard().items()):
            epoch = self._broker_epoch(follower)
            if epoch is None:
                continue
            since[follower, epoch] = max(heard_at, self._since.get((follower, epoch), now))
            seconds = now - since[follower, epoch] - self._fetch_wait_s
            if seconds >= self._silent_s:
                silent.append(Unreachable(follower, epoch, seconds))
        self._since = since
        return tuple(silent)


class Complaining:
    """Looks each period, and says what it found."""

    def __init__(
        self,
        *,
        reactor: Any,
        clock: Clock,
        session_timeout_s: float,
        unreachable: Callable[[float], tuple[Unreachable, ...]],
        stalled: Callable[[float], tuple[StalledDir, ...]],
        silent: Callable[[float], tuple[Unreachable, ...]],
        say: Callable[[Word], Deferred[None]],
        log: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._period_s = session_timeout_s / WORDS_PER_SESSION
        self._unreachable = unreachable
        self._stalled = stalled
        self._silent = silent
        self._say = say
        self._log = log
        self._looked_at = float("-inf")
        self._word = Word()
        """What was said last."""
        self._call: Any = None

    def __repr__(self) -> str:
        return f"Complaining({self._word!r})"

    def start(self) -> None:
        self._looked_at = self._clock.monotonic()
        self._call = self._reactor.callLater(self._period_s, self._look)

    def stop(self) -> None:
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    def problems(self) -> list[str]:
        """For STATUS."""
        return [
            *(f"broker {one.broker_id} has not answered for {one.seconds:.1f} s" for one in self._word.unreachable),
            *(f"follower {one.broker_id} has not fetched for {one.seconds:.1f} s" for one in self._word.silent),
            *(f"log folder {one.log_dir} has stalled for {one.seconds:.1f} s" for one in self._word.stalled),
        ]

    def _look(self) -> None:
        now = self._clock.monotonic()
        is_late = now - self._looked_at > self._period_s * LATE_LOOK_FACTOR
        self._looked_at = now
        self._call = self._reactor.callLater(self._period_s, self._look)
        found = Word(self._unreachable(now), self._stalled(now), self._silent(now))
        if is_late:
            return
        before, self._word = self._word, found
        self._tell_people(before)
        if before or self._word:
            self._say(self._word).addErrback(_said_again)

    def _tell_people(self, before: Word) -> None:
        """Each complaint once when it comes up, and once when it is over."""
        self._tell_of_peers("leader {} has not answered", before.unreachable, self._word.unreachable)
        self._tell_of_peers("follower {} has not fetched", before.silent, self._word.silent)
        old_folders = {one.log_dir for one in before.stalled}
        new_folders = {one.log_dir: one for one in self._word.stalled}
        for folder in sorted(new_folders.keys() - old_folders):
            seconds = new_folders[folder].seconds
            self._log(f"appends in log folder {folder} have waited for {seconds:.1f} s: telling the controller")
        for folder in sorted(old_folders - new_folders.keys()):
            self._log(f"appends in log folder {folder} complete again")

    def _tell_of_peers(self, what: str, before: Iterable[Unreachable], now: Iterable[Unreachable]) -> None:
        old = {one.broker_id for one in before}
        new = {one.broker_id: one.seconds for one in now}
        for peer in sorted(new.keys() - old):
            self._log(f"{what.format(peer)} for {new[peer]:.1f} s: telling the controller")
        for peer in sorted(old - new.keys()):
            self._log(f"no more complaint that {what.format(peer)}")


def _said_again(failure: Failure) -> None:
    """No controller, no way to it, or one that does not know the word: the next period tries again."""
    failure.trap(BrokerError)

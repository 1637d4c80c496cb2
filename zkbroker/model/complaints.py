"""What a broker says against others and against its own disks, to the controller (gray failures)."""

from __future__ import annotations

from typing import NamedTuple

from zkbroker.model.topics import TopicPartition


class Unreachable(NamedTuple):
    """A leader that has not answered this broker's fetches, or a follower that has not fetched from it, in one
    incarnation of that broker."""

    broker_id: int
    broker_epoch: int
    seconds: float
    """For how long, beyond the time that it may hold a FETCH."""


class StalledDir(NamedTuple):
    """A log folder of the speaker's own in which appends do not complete."""

    log_dir: str
    seconds: float
    """Since when the oldest of them waits."""
    replicas: tuple[TopicPartition, ...]
    """All replicas in the folder."""
    waiting: tuple[TopicPartition, ...]
    """Those of them whose own appends wait: as a follower such a one holds acks=all up."""


class Word(NamedTuple):
    """All that one broker has to complain of at this moment. A later word takes the place of an earlier one, an empty
    one withdraws everything."""

    unreachable: tuple[Unreachable, ...] = ()
    """Leaders that the speaker follows."""
    stalled: tuple[StalledDir, ...] = ()
    silent: tuple[Unreachable, ...] = ()
    """ISR followers of partitions that the speaker leads."""

    def __bool__(self) -> bool:
        return bool(self.unreachable or self.stalled or self.silent)

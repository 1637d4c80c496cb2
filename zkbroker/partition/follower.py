"""What a follower of one partition decides: which answers it takes, where it truncates, what its high watermark is.

Numbers in, one effect out. A follower never truncates to its high watermark: that lost acknowledged records (KIP-101).
It truncates only where the leader says that their logs part, by leader epoch (KIP-279, KIP-595).
"""

from __future__ import annotations

from typing import NamedTuple

from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import NO_LEADER, TopicPartition
from zkbroker.partition.leader import EpochEnds


class Discard(NamedTuple):
    """The answer is to a question that no longer stands: fetch again from where the log ends now."""


class Retry(NamedTuple):
    """The leader cannot serve this replica now; ask again after a pause."""

    error: ErrorCode


class TruncateTo(NamedTuple):
    """Drop everything from ``offset`` on, and epochs that start there or later, then fetch again."""

    offset: int


class StartAgainAt(NamedTuple):
    """Nothing this replica has is of use any more: drop all of it and start an empty log at ``offset``."""

    offset: int


class AppendFetched(NamedTuple):
    """Append what came (batches of epochs up to ``leader_epoch`` only), then take the leader's marks."""

    leader_epoch: int
    high_watermark: int
    log_start_offset: int


Effect = Discard | Retry | TruncateTo | StartAgainAt | AppendFetched

_DISCARD = Discard()


class FollowerState:
    """The follower's side of one partition during one leader epoch; ``leader`` is NO_LEADER while there is none."""

    __slots__ = ("is_in_sync", "leader", "leader_epoch", "leader_high_watermark", "partition")

    def __init__(self, partition: TopicPartition, leader: int, leader_epoch: int, *, is_in_isr: bool) -> None:
        self.partition = partition
        self.leader = leader
        self.leader_epoch = leader_epoch
        self.leader_high_watermark = -1
        self.is_in_sync = is_in_isr
        """True while it holds all that the leader has committed, by the leader's last answer."""

    def __repr__(self) -> str:
        in_sync = "in sync" if self.is_in_sync else "catching up"
        return f"Follower({self.partition} of {self.leader} epoch={self.leader_epoch} {in_sync})"

    @property
    def has_leader(self) -> bool:
        return self.leader != NO_LEADER

    def answered(
        self,
        *,
        request_epoch: int,
        request_offset: int,
        error: ErrorCode,
        high_watermark: int,
        leader_log_start: int,
        leader_log_end: int,
        diverging_epoch: int,
        diverging_end: int,
        log_start_offset: int,
        log_end_offset: int,
        epochs: EpochEnds,
        is_start_doubtful: bool = False,
    ) -> Effect:
        """Judge an answer to the latest request. ``log_*_offset`` are this replica's own at this moment;
        ``is_start_doubtful``: a loss of power may have taken records below its log start."""
        if request_epoch != self.leader_epoch or request_offset != log_end_offset or not self.has_leader:
            return _DISCARD
        if error is ErrorCode.OFFSET_OUT_OF_RANGE:
            return self._out_of_range(leader_log_start, leader_log_end, log_start_offset, log_end_offset)
        if error is not ErrorCode.NONE:
            return Retry(error)
        if diverging_epoch >= 0:
            target = self._diverged(diverging_epoch, diverging_end, log_end_offset, epochs)
            return _truncate(target, log_start_offset, leader_log_start)
        if is_start_doubtful and 0 <= leader_log_start < log_start_offset:
            return StartAgainAt(leader_log_start)
        self.leader_high_watermark = high_watermark
        return AppendFetched(self.leader_epoch, high_watermark, leader_log_start)

    def high_watermark_after(self, log_end_offset: int) -> int:
        """The high watermark once the answer is appended. It may be lower than before (the leader may know less)."""
        self.is_in_sync = log_end_offset >= self.leader_high_watermark
        return max(0, min(self.leader_high_watermark, log_end_offset))

    def _diverged(self, epoch: int, leader_end: int, log_end_offset: int, epochs: EpochEnds) -> int:
        """Where to truncate: the leader's largest epoch up to our last one is ``epoch``, and ends there at
        ``leader_end``.

        If we know that very epoch, the logs agree up to the smaller of its two ends. If not, we drop down to the end
        of the epoch below it and ask again with that one: each round the epoch falls, so it ends (KIP-279).
        """
        own = epochs.end_offset_for(epoch, log_end_offset)
        if own is None:
            return min(leader_end, log_end_offset)
        if own[0] == epoch:
            return min(own[1], leader_end, log_end_offset)
        return min(own[1], log_end_offset)

    def _out_of_range(
        self, leader_log_start: int, leader_log_end: int, log_start_offset: int, log_end_offset: int
    ) -> Effect:
        if 0 <= leader_log_end < log_end_offset:
            return _truncate(leader_log_end, log_start_offset, leader_log_start)
        if leader_log_start > log_end_offset:
            return StartAgainAt(leader_log_start)
        return Retry(ErrorCode.OFFSET_OUT_OF_RANGE)


def _truncate(target: int, log_start_offset: int, leader_log_start: int) -> Effect:
    """Below the own log start nothing is left, and the log begins where the leader's does: an empty log at ``target``
    would pass for one that holds what the leader has below it (as Kafka's does)."""
    target = max(target, 0)
    if target >= log_start_offset:
        return TruncateTo(target)
    return StartAgainAt(leader_log_start if leader_log_start >= 0 else target)

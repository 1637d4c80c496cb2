"""What both routes to the controller share: which deltas count, the pace of heartbeats, a route's interface."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from zkbroker.model.channel import AlterPartitionRequest, AlterPartitionResponse, Applied, NewTopic, TopicResult
from zkbroker.model.cluster import ClusterDelta
from zkbroker.model.complaints import Word
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.topics import TopicPartition
from zkbroker.replication.ports import BrokerPort


@dataclasses.dataclass(frozen=True, slots=True)
class ChannelSettings:
    """The pace of the channel. With contact bound X (architecture.md, contact rule): heartbeats each X/3."""

    heartbeat_interval_s: float = 1.0
    silence_s: float = 3.0
    """Without any answer for so long the controller is called anew."""
    backoff_s: float = 0.05
    backoff_max_s: float = 1.0
    """Between attempts to subscribe."""

    def backoff(self, failures: int, random: Callable[[], float]) -> float:
        """Seconds to wait after so many failures in a row."""
        return min(self.backoff_max_s, self.backoff_s * 2.0 ** min(failures, 10)) * (0.8 + 0.4 * random())


class DeltaReceiver:
    """Gives the broker the deltas that count, over all the controllers it ever subscribed to."""

    def __init__(self, broker: BrokerPort) -> None:
        self._broker = broker
        self.controller_epoch = -1
        """The highest that a snapshot carried: what is older is from a controller that was deposed."""
        self._number = -1
        """Of the last delta that was applied."""

    def __repr__(self) -> str:
        return f"DeltaReceiver(controller_epoch={self.controller_epoch}, number={self._number})"

    def take(self, delta: ClusterDelta) -> Applied:
        """Apply a snapshot or the next delta. Raises BrokerError: STALE_CONTROLLER_EPOCH for an older controller's,
        INVALID_REQUEST for a gap; either way the subscription is worth nothing any more."""
        if delta.controller_epoch < self.controller_epoch:
            raise BrokerError(
                ErrorCode.STALE_CONTROLLER_EPOCH,
                f"controller epoch {delta.controller_epoch} is over: {self.controller_epoch} was seen",
            )
        if not delta.is_snapshot and (delta.controller_epoch, delta.number) != (
            self.controller_epoch,
            self._number + 1,
        ):
            raise BrokerError(
                ErrorCode.INVALID_REQUEST,
                f"delta {delta.number} of epoch {delta.controller_epoch} does not follow {self._number}"
                f" of {self.controller_epoch}",
            )
        self.controller_epoch = delta.controller_epoch
        self._number = delta.number
        return self._broker.apply_delta(delta)


class Route(Protocol):
    """A way to one controller, over the network or in memory."""

    is_subscribed: bool

    def start(self) -> None: ...

    def stop(self, reason: str, bye: bool) -> None: ...

    def restart(self, reason: str) -> None: ...

    def alter_partition(self, request: AlterPartitionRequest) -> Deferred[AlterPartitionResponse]: ...

    def controlled_shutdown(self) -> Deferred[tuple[TopicPartition, ...]]: ...

    def create_topic(self, topic: NewTopic) -> Deferred[TopicResult]: ...

    def replica_deleted(self, partition: TopicPartition, topic_id: str) -> Deferred[None]: ...

    def log_dir_offline(self, log_dir: str, partitions: Sequence[TopicPartition]) -> Deferred[None]: ...

    def complain(self, word: Word) -> Deferred[None]: ...

    def applied(self, applied: Applied) -> Deferred[None]: ...

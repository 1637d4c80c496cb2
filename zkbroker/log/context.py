"""What every log of a broker shares: the world outside, passed in once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred

from zkbroker.log.disk import Disk
from zkbroker.log.files import OldFiles
from zkbroker.log.lanes import Lanes
from zkbroker.log.tail import TailBudget
from zkbroker.model.clock import Clock

PRODUCER_ID_EXPIRATION_MS = 86_400_000
"""Kafka's default of ``producer.id.expiration.ms``."""


@dataclass
class LogContext:
    """``run_in_thread(function, *arguments)`` returns a Deferred that fires on the reactor thread."""

    disk: Disk
    clock: Clock
    run_in_thread: Callable[..., Deferred[Any]]
    """What waits for the disk goes through ``lanes``."""
    failed: Callable[[str, str, BaseException], None]
    """(log folder, what failed, the error): takes the folder offline."""
    delete_later: Callable[[str, int, Callable[[], None]], None]
    """(log folder, delay in ms, what a thread shall do there then)."""
    lower_recovery_point: Callable[[Any], None]
    """(log): see to it that the recovery point on disk is not above the log's. Raises OSError."""
    recovery_point_fell: Callable[[Any], None]
    """(log): it was truncated, and the recovery point on disk may be too high."""
    old_files: OldFiles
    tails: TailBudget = field(default_factory=TailBudget)
    producer_id_expiration_ms: int = PRODUCER_ID_EXPIRATION_MS
    lanes: Lanes = field(init=False)
    cached_reads: dict[str, bool] = field(default_factory=dict)
    """Log folder → whether reads without waiting (RWF_NOWAIT) work there, probed at start."""
    log_start_falls: Callable[[Any], None] = lambda log: None
    """(log): it will be truncated below its log start: write the one it has now. Raises OSError."""
    about_to_cut: Callable[[Any, int, bool], None] = lambda log, offset, is_torn: None
    """(log, offset, is torn): recovery is going to remove all from that offset on; torn: only a last batch that was not
    written to its end. Raises OSError."""

    cleaned_offset: Callable[[Any], int] = lambda log: 0
    """(log): below this offset it is compacted."""
    log_truncated: Callable[[Any, int], None] = lambda log, offset: None
    """(log, offset): it is about to lose all from that offset on. Raises OSError."""

    def __post_init__(self) -> None:
        self.lanes = Lanes(self.run_in_thread)

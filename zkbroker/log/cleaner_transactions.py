"""Which transactional batches a compaction may drop: those that were aborted, then the markers that nothing needs."""

from __future__ import annotations

from collections.abc import Iterable

from zkbroker.partition.producer_state import CompletedTransaction
from zkbroker.records.batch import BatchHeader
from zkbroker.records.record import end_transaction_of


class CleanedTransactions:
    """Walks a log's batches in order. A marker is kept as long as any batch of its transaction is: without it the
    transaction would be open for ever when the log is read again.

    ``aborted`` are those of the log's transaction indexes whose marker lies where the walk begins or behind it.
    """

    __slots__ = ("_aborted", "_committed", "_waiting", "kept")

    def __init__(self, aborted: Iterable[CompletedTransaction]) -> None:
        self._waiting = sorted(aborted, key=lambda entry: entry.first_offset, reverse=True)
        """Those that the walk has not come to, the next one last."""
        self._aborted: dict[int, tuple[CompletedTransaction, bool]] = {}
        """Producer id → its aborted transaction under way, and whether a batch of it was met."""
        self._committed: set[int] = set()
        """Producers of whose transaction under way, which is not aborted, a batch was met."""
        self.kept: list[CompletedTransaction] = []
        """Aborted transactions that still have batches, by marker: what the new segment's index holds. Its reader
        empties it at the end of each segment."""

    def met_data(self, header: BatchHeader) -> bool:
        """A batch of records. True if its transaction was aborted: nobody may read it."""
        self._come_to(header.last_offset)
        if not header.is_transactional:
            return False
        known = self._aborted.get(header.producer_id)
        if known is None:
            self._committed.add(header.producer_id)
            return False
        self._aborted[header.producer_id] = known[0], True
        return True

    def met_control(self, batch: bytes, header: BatchHeader) -> bool:
        """A control batch. True if no batch of its transaction is left, so that it may go in its time."""
        self._come_to(header.last_offset)
        if header.records_count == 0:
            return True
        marker = end_transaction_of(batch, header)
        if marker is None:
            return False
        if marker.committed:
            was_met = header.producer_id in self._committed
            self._committed.discard(header.producer_id)
            return not was_met
        aborted, was_met = self._aborted.pop(header.producer_id, (None, False))
        if aborted is None or not was_met:
            return True
        self.kept.append(aborted)
        return False

    def _come_to(self, offset: int) -> None:
        waiting = self._waiting
        while waiting and waiting[-1].first_offset <= offset:
            entry = waiting.pop()
            self._aborted.setdefault(entry.producer_id, (entry, False))

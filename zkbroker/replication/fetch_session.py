"""A follower's fetch session at a leader: which partitions it holds, and what the next answer carries.

A row that a FETCH brought *stands* until it is answered with bytes, a divergence or an error: then it is *spent*, and
nothing more is said of its partition until the follower sends a new row. A row that is only told a new high watermark
or log start goes on standing.
"""

from __future__ import annotations

from collections.abc import Callable

from zkbroker.model.channel import FollowerContact
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.limits import FETCH_PARTITIONS_SENT, FETCHES_IN_FLIGHT_MAX
from zkbroker.model.topics import TopicPartition
from zkbroker.replication.messages import Fetch
from zkbroker.replication.ports import FetchedRow, FetchRow, LeaderPort

TOLD_ONLY_DELAY_S = 0.005
"""How long a high watermark or log start waits for bytes to travel with. Under load the next batch carries it; at rest
followers know it this soon; and one follower costs at most 200 such answers a second."""


class HeldFetch:
    """A FETCH that is not answered yet."""

    __slots__ = ("correlation", "deadline", "fetch")

    def __init__(self, correlation: int, fetch: Fetch, deadline: float) -> None:
        self.correlation = correlation
        self.fetch = fetch
        self.deadline = deadline
        """Monotonic seconds: when it is answered with whatever there is."""


class _Standing:
    """One partition of the session."""

    __slots__ = ("high_watermark", "log_start", "row", "spent", "topic_id")

    def __init__(self, row: FetchRow) -> None:
        self.row = row
        self.topic_id = row.topic_id
        self.spent = False
        self.high_watermark = -1
        """What the follower was told last."""
        self.log_start = -1


class FetchSession:
    """One session of one follower connection. Told of changes by the leader's partitions, which must be cheap."""

    def __init__(
        self,
        leader: LeaderPort,
        contact: FollowerContact,
        session_id: int,
        woken: Callable[[FetchSession], None],
    ) -> None:
        self._leader = leader
        self._woken = woken
        self.contact = contact
        self.session_id = session_id
        self.next_seq = 0
        self.held: list[HeldFetch] = []
        """Oldest first. More than one only while the transport takes nothing."""
        self._answered_at = (float("-inf"), float("-inf"))
        """When the last two answers were sent."""
        self.told_only_due = 0.0
        """With a high watermark to tell and no bytes: when to tell it. 0 when there is none."""
        self._partitions: dict[TopicPartition, _Standing] = {}
        self._changed: dict[TopicPartition, None] = {}
        """Partitions to look at for the next answer, longest waiting first: with a full answer the rest comes next."""
        self._ready: dict[TopicPartition, FetchedRow] = {}
        """Answers that were given when the row arrived: errors and divergences."""
        self._asking: TopicPartition | None = None
        """The partition that the leader is being asked for; None once it told of a change before it answered."""

    def __repr__(self) -> str:
        return (
            f"FetchSession({self.session_id} of broker {self.contact.broker_id}, seq={self.next_seq - 1},"
            f" partitions={len(self._partitions)}, changed={len(self._changed)}, held={len(self.held)})"
        )

    def topic_id_of(self, partition: TopicPartition) -> str | None:
        standing = self._partitions.get(partition)
        return None if standing is None else standing.topic_id

    def take(self, held: HeldFetch, rows: list[tuple[TopicPartition, FetchRow | None]], now: float) -> None:
        """A FETCH arrived. Raises BrokerError INVALID_FETCH_SESSION_EPOCH when it is not the next one."""
        if held.fetch.seq != self.next_seq:
            raise BrokerError(
                ErrorCode.INVALID_FETCH_SESSION_EPOCH, f"seq {self.next_seq} is next, this is {held.fetch.seq}"
            )
        if len(self.held) >= FETCHES_IN_FLIGHT_MAX:
            raise BrokerError(ErrorCode.INVALID_REQUEST, f"{FETCHES_IN_FLIGHT_MAX} FETCHes are unanswered already")
        self.next_seq += 1
        self.contact.last_fetch_at = now
        # Two may be under way: one that follows no held FETCH may have left before the last answer came.
        self.contact.proven_at = self._answered_at[1 if self.held else 0]
        self.held.append(held)
        for partition, row in rows:
            if row is None:
                self._drop(partition)
            else:
                self._stand(partition, row)

    def take_held(self, now: float) -> HeldFetch:
        """The oldest held FETCH, which is answered now."""
        self._answered_at = self._answered_at[1], now
        return self.held.pop(0)

    def _stand(self, partition: TopicPartition, row: FetchRow) -> None:
        standing = self._partitions.get(partition)
        if standing is None:
            standing = self._partitions[partition] = _Standing(row)
        else:
            standing.row = row
            standing.topic_id = row.topic_id
            standing.spent = False
            # The follower drops answers that crossed its new row: what they told must be told again.
            standing.high_watermark = standing.log_start = -1
            self._ready.pop(partition, None)
        self._changed.pop(partition, None)
        # In the session's books first: follower_fetched may tell of a change before it returns.
        self._changed[partition] = None
        answer = self._leader.follower_fetched(self.contact, row, self)
        if answer is not None:
            self._ready[partition] = answer

    def _drop(self, partition: TopicPartition) -> None:
        if self._partitions.pop(partition, None) is not None:
            self._changed.pop(partition, None)
            self._ready.pop(partition, None)
            self._leader.forget(self, partition)

    def partition_changed(self, partition: TopicPartition) -> None:
        """FetchSessionListener: look at this partition for the next answer."""
        standing = self._partitions.get(partition)
        if standing is None or standing.spent:
            return
        self._changed[partition] = None
        if partition == self._asking:
            self._asking = None
        # Also when it was among the changed already: a high watermark may wait there for just these bytes.
        if self.held:
            self._woken(self)

    def collect(self, fetch: Fetch, now: float, due: bool) -> list[tuple[FetchedRow, bool]] | None:
        """The rows of an answer; None while there is no reason to answer. ``due`` means that the wait is over: then
        whatever there is goes, and high watermarks without bytes too."""
        rows: list[tuple[FetchedRow, bool]] = []
        told_only: list[tuple[_Standing, FetchedRow]] = []
        unchanged: list[TopicPartition] = []
        urgent = False
        size = 0
        for partition in list(self._changed):
            if len(rows) + len(told_only) >= FETCH_PARTITIONS_SENT:
                break
            standing = self._partitions[partition]
            answer: FetchedRow | None = self._ready.get(partition)
            if answer is None:
                left = fetch.max_bytes - size
                if left <= 0 and rows:
                    break
                self._asking = partition
                answer = self._leader.read_for_follower(
                    self.contact, standing.row, min(fetch.partition_max_bytes, left)
                )
            if answer is None:
                # The bytes are on their way from the disk: the leader tells when they are there. Unless it told so
                # already (another read brought them into the page cache meanwhile): then it is looked at again.
                if self._asking is not None:
                    unchanged.append(partition)
            elif answer.error is not ErrorCode.NONE or answer.diverging_epoch >= 0 or answer.diverging_end >= 0:
                rows.append((answer, answer.topic_id != standing.topic_id))
                urgent = True
            elif answer.records:
                rows.append((answer, answer.topic_id != standing.topic_id))
                size += len(answer.records)
            elif (answer.high_watermark, answer.log_start) != (standing.high_watermark, standing.log_start):
                told_only.append((standing, answer))
            else:
                unchanged.append(partition)
        for partition in unchanged:
            del self._changed[partition]
        if not (urgent or due or (size and size >= fetch.min_bytes)):
            if told_only and not self.told_only_due:
                self.told_only_due = now + TOLD_ONLY_DELAY_S
            return None
        for answer, _named in rows:
            self._spend(TopicPartition(answer.topic, answer.partition), answer)
        for standing, answer in told_only:
            standing.high_watermark = answer.high_watermark
            standing.log_start = answer.log_start
            self._changed.pop(TopicPartition(answer.topic, answer.partition), None)
            rows.append((answer, False))
        self.told_only_due = 0.0
        return rows

    def _spend(self, partition: TopicPartition, answer: FetchedRow) -> None:
        standing = self._partitions[partition]
        standing.spent = True
        standing.high_watermark = answer.high_watermark
        standing.log_start = answer.log_start
        self._changed.pop(partition, None)
        self._ready.pop(partition, None)

    def due_at(self) -> float | None:
        """When the oldest unanswered FETCH must be answered with whatever there is; None when there is none."""
        if not self.held:
            return None
        deadline = self.held[0].deadline
        return min(deadline, self.told_only_due) if self.told_only_due else deadline

    def close(self) -> None:
        """The connection or the session is over: the leader tells it nothing more."""
        partitions = list(self._partitions)
        self._partitions.clear()
        self._changed.clear()
        self._ready.clear()
        self.held.clear()
        for partition in partitions:
            self._leader.forget(self, partition)

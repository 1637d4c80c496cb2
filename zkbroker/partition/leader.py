"""What the leader of one partition decides: appends, followers' fetches, the high watermark, the ISR.

Numbers in, effects out. The shell appends, reads and answers; it calls here with the offsets that resulted. All times
are monotonic seconds. "End" of a follower or of the leader means, under a flush policy, the end of what is on disk: the
shell passes ``counted_end`` for what may be acknowledged, ``log_end_offset`` for what lies in the log.

The high watermark is the smallest end among the leader, the maximal ISR, the ELR, and those followers that are caught
up and about to join (else a follower could chase an ever moving high watermark). It never falls during a leader epoch,
and is frozen while the committed ISR is smaller than the effective min ISR (KIP-966). That the ELR counts as well makes
its members safe to elect while the controller goes by another min ISR than this leader: ``controller/elections.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from zkbroker.model.channel import FollowerContact, IsrAnswer, IsrProposal
from zkbroker.model.errors import ErrorCode, InvariantViolation
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.partition.isr import Committed, InSyncReplicas, Outcome
from zkbroker.partition.progress import FollowerProgress


class EpochEnds(Protocol):
    """The leader epoch cache, as far as a leader needs it (``partition/epoch_cache.py``)."""

    def end_offset_for(self, epoch: int, log_end_offset: int) -> tuple[int, int] | None:
        """(epoch, end) of the largest epoch known up to ``epoch``; None when that is undefined."""
        ...


class RaiseHighWatermark(NamedTuple):
    """The high watermark is now ``offset``: answer whoever waited for it."""

    offset: int


class ProposeIsr(NamedTuple):
    """Send this to the controller until it is answered or withdrawn."""

    proposal: IsrProposal


Effect = RaiseHighWatermark | ProposeIsr
Effects = tuple[Effect, ...]
NOTHING: Effects = ()


class FetchRefusal(NamedTuple):
    """Why a follower's fetch is not served, or (NONE) where its log diverged from the leader's."""

    error: ErrorCode
    diverging_epoch: int = -1
    diverging_end: int = -1


_FENCED = FetchRefusal(ErrorCode.FENCED_LEADER_EPOCH)
_UNKNOWN_EPOCH = FetchRefusal(ErrorCode.UNKNOWN_LEADER_EPOCH)
_OUT_OF_RANGE = FetchRefusal(ErrorCode.OFFSET_OUT_OF_RANGE)
_STALE_BROKER = FetchRefusal(ErrorCode.STALE_BROKER_EPOCH)


class LeaderState:
    """The leader's side of one partition during one leader epoch.

    Invariants: ``high_watermark`` ≤ ``counted_end`` ≤ ``log_end_offset``; the leader is in its ISR; the high watermark
    does not fall. Public methods raise InvariantViolation when one is broken.
    """

    __slots__ = (
        "_joining",
        "_live_broker_epoch",
        "_members",
        "_own_epoch",
        "_retained",
        "broker_id",
        "counted_end",
        "elr",
        "epoch_start_offset",
        "epochs",
        "followers",
        "high_watermark",
        "isr",
        "lag_seconds_max",
        "leader_epoch",
        "log_end_offset",
        "min_insync_replicas",
        "partition",
        "replicas",
    )

    def __init__(
        self,
        partition: TopicPartition,
        state: PartitionState,
        *,
        broker_id: int,
        own_broker_epoch: Callable[[], int],
        live_broker_epoch: Callable[[int], int | None],
        next_proposal_id: Callable[[], int],
        epochs: EpochEnds,
        log_end_offset: int,
        counted_end: int,
        high_watermark: int,
        min_insync_replicas: int,
        lag_seconds_max: float,
        now: float,
        predecessor: LeaderState | None = None,
    ) -> None:
        """Become leader in ``state.leader_epoch``. The shell has entered (epoch, log end) in the epoch cache, even if
        nothing is ever appended in it (KAFKA-7415). ``predecessor``: this broker led until now; if in the epoch right
        before, where its followers stand is known. Call ``started`` next."""
        self.partition = partition
        self.broker_id = broker_id
        self.leader_epoch = state.leader_epoch
        self.replicas = state.replicas
        self.elr = state.elr
        """Who may be elected besides the ISR, by the last state told."""
        self.epochs = epochs
        self.log_end_offset = log_end_offset
        if predecessor is not None:
            # Nothing was lost in between: what counted counts, also if a flush policy was switched on since.
            counted_end = max(counted_end, min(predecessor.counted_end, log_end_offset))
        self.counted_end: int = counted_end
        self.epoch_start_offset = log_end_offset
        """Log end when the epoch began: who holds that much holds everything older leaders committed (KAFKA-7128)."""
        self.high_watermark = min(high_watermark, counted_end)
        self.min_insync_replicas = min_insync_replicas
        self.lag_seconds_max = lag_seconds_max
        self._own_epoch = own_broker_epoch
        self._live_broker_epoch = live_broker_epoch
        self.isr = InSyncReplicas(
            partition, state, broker_epoch_of=self._broker_epoch_of, next_proposal_id=next_proposal_id
        )
        if predecessor is not None and predecessor.leader_epoch + 1 != state.leader_epoch:
            # Another may have led in between, unheard of here: its followers may have truncated to its log.
            predecessor = None
        self.followers: dict[int, FollowerProgress] = {}
        for follower_id in state.replicas:
            if follower_id != broker_id:
                follower = FollowerProgress(follower_id)
                known = None if predecessor is None else predecessor.followers.get(follower_id)
                if known is not None:
                    follower.log_end_offset = known.log_end_offset
                    follower.broker_epoch = known.broker_epoch
                if follower_id in state.isr:
                    follower.last_caught_up_at = now
                self.followers[follower_id] = follower
        self._sort_followers()

    def __repr__(self) -> str:
        followers = " ".join(f"{follower.broker_id}@{follower.log_end_offset}" for follower in self.followers.values())
        return (
            f"Leader({self.partition} epoch={self.leader_epoch} hw={self.high_watermark} end={self.log_end_offset} "
            f"{self.isr} followers=[{followers}])"
        )

    @property
    def effective_min_isr(self) -> int:
        return min(self.min_insync_replicas, len(self.replicas))

    @property
    def is_under_min_isr(self) -> bool:
        return len(self.isr.state.isr) < min(self.min_insync_replicas, len(self.replicas))

    # Produce

    def append_refusal(self, acks: int) -> ErrorCode | None:
        """Why nothing may be appended for a request with these ``acks``, or None."""
        if acks not in (-1, 0, 1):
            return ErrorCode.INVALID_REQUIRED_ACKS
        if acks == -1 and self.is_under_min_isr:
            return ErrorCode.NOT_ENOUGH_REPLICAS
        return None

    def acks_all_outcome(self) -> ErrorCode:
        """How a request with acks=all ends that the high watermark has just passed."""
        if self.effective_min_isr <= len(self.isr.state.maximal):
            return ErrorCode.NONE
        return ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND

    def appended(self, log_end_offset: int, counted_end: int, now: float) -> Effects:
        """The log now ends at ``log_end_offset``, of which ``counted_end`` may count."""
        before = self.log_end_offset
        if log_end_offset < before:
            raise InvariantViolation(f"{self!r}: the leader's log end fell to {log_end_offset}")
        for follower in self._members:
            # An idle follower that held everything repeats no row: up to its session's last FETCH it was caught up.
            if follower.log_end_offset == before and follower.contact is not None:
                heard_at = follower.contact.last_fetch_at
                if heard_at > follower.last_caught_up_at:
                    follower.last_caught_up_at = heard_at
        self.log_end_offset = log_end_offset
        if counted_end > self.counted_end:
            # Never back: what counted before a flush policy was switched on may be committed.
            self.counted_end = counted_end
        return self._raise_high_watermark(now)

    def flushed(self, counted_end: int, now: float) -> Effects:
        """Under a flush policy: more of the log is on disk; or the policy was changed."""
        self.counted_end = max(self.counted_end, min(counted_end, self.log_end_offset))
        return self._raise_high_watermark(now)

    def has_fresh_contact(self, now: float, contact_age: float, age_seconds_max: float) -> bool:
        """The contact rule: may acks ≤ 1 and reads be answered at this moment?

        Only while some evidence that this broker still counts is younger than ``age_seconds_max`` (below the session
        timeout): ``contact_age`` (ZooKeeper, or the controller), or the fetch of an ISR member in this leader epoch. A
        leader that is alone in its maximal ISR and ELR needs none: nobody else can be elected.
        """
        if contact_age < age_seconds_max:
            return True
        committed = self.isr.state.isr
        for follower in self._members:
            if follower.broker_id in committed and now - follower.proven_at() < age_seconds_max:
                return True
        return not self._members and all(member == self.broker_id for member in self.elr)

    # Fetches of followers

    def fetch_refusal(
        self, contact: FollowerContact, leader_epoch: int, offset: int, last_epoch: int, log_start_offset: int
    ) -> FetchRefusal | None:
        """Judge a follower's row; changes nothing. ``log_start_offset`` is the leader's own."""
        if leader_epoch != self.leader_epoch:
            return _FENCED if leader_epoch < self.leader_epoch else _UNKNOWN_EPOCH
        follower = self.followers.get(contact.broker_id)
        if follower is None:
            return _UNKNOWN_EPOCH
        if contact.broker_epoch < follower.broker_epoch:
            return _STALE_BROKER
        if last_epoch < 0:
            return _OUT_OF_RANGE if not log_start_offset <= offset <= self.log_end_offset else None
        end = self.epochs.end_offset_for(last_epoch, self.log_end_offset)
        if end is None or offset < log_start_offset:
            return _OUT_OF_RANGE
        if end[0] < last_epoch or end[1] < offset:
            return FetchRefusal(ErrorCode.NONE, end[0], end[1])
        return None

    def follower_fetched(
        self, contact: FollowerContact, offset: int, counted_end: int, log_start_offset: int, now: float
    ) -> Effects:
        """Take the position of a follower whose row was not refused."""
        follower = self.followers[contact.broker_id]
        end = self.log_end_offset
        if offset > end:
            raise InvariantViolation(f"{self!r}: follower {contact.broker_id} stands at {offset}, past the log end")
        counted = min(offset, counted_end)
        if counted >= end:
            follower.last_caught_up_at = now
        elif counted >= follower.leader_end_at_last_fetch:
            follower.last_caught_up_at = max(follower.last_caught_up_at, follower.last_fetch_at)
        follower.contact = contact
        follower.last_proven_at = max(follower.last_proven_at, contact.proven_at)
        follower.broker_epoch = contact.broker_epoch
        follower.log_end_offset = counted
        follower.log_start_offset = log_start_offset
        follower.last_fetch_at = now
        follower.leader_end_at_last_fetch = end
        if follower in self._joining:
            proposed = self._maybe_expand(follower)
            return proposed + self._raise_high_watermark(now)
        return self._raise_high_watermark(now)

    def follower_left(self, contact: FollowerContact) -> None:
        """The session no longer holds the partition: its later fetches say nothing about this follower."""
        follower = self.followers.get(contact.broker_id)
        if follower is not None and follower.contact is contact:
            follower.contact = None

    def low_watermark(self, log_start_offset: int) -> int:
        """The lowest offset at which the leader or a live follower begins; -1 while one's is not known. A dead one
        learns the leader's when it comes back."""
        lowest = log_start_offset
        for follower in self.followers.values():
            if follower.log_start_offset < lowest and self._live_broker_epoch(follower.broker_id) is not None:
                lowest = follower.log_start_offset
        return lowest

    # The ISR

    def members_heard(self) -> list[tuple[int, float]]:
        """Each follower in the maximal ISR, and when it last fetched in this leader epoch."""
        return [(follower.broker_id, follower.heard_at()) for follower in self._members]

    def shrink_if_lagging(self, now: float) -> Effects:
        """Called each half of ``replica.lag.time.max.ms``: propose the ISR without those that fell behind."""
        if type(self.isr.state) is not Committed:
            return NOTHING
        laggards = tuple(
            follower.broker_id
            for follower in self._members
            if follower.log_end_offset != self.log_end_offset
            and now - follower.last_caught_up_at > self.lag_seconds_max
        )
        if not laggards:
            return NOTHING
        proposal = self.isr.shrink(laggards)
        self._sort_followers()
        self._check()
        return (ProposeIsr(proposal),)

    def isr_answered(self, answer: IsrAnswer, now: float) -> tuple[Outcome, Effects]:
        """Take the controller's answer to a proposal."""
        outcome = self.isr.answered(answer)
        if outcome not in (Outcome.COMMITTED, Outcome.REVERTED):
            return outcome, NOTHING
        if outcome is Outcome.COMMITTED and answer.state is not None:
            self.elr = answer.state.elr
        self._sort_followers()
        self._check()
        # Not after a refusal: it would be repeated at once. News of brokers, or the follower's next row, try again.
        proposed = self._expand_waiting(now) if outcome is Outcome.COMMITTED else NOTHING
        return outcome, proposed + self._raise_high_watermark(now)

    def state_told(self, state: PartitionState, now: float) -> Effects:
        """Take a newer state of the same leader epoch from the controller: ISR, ELR, assignment."""
        if not self.isr.replaced(state):
            return NOTHING
        self.elr = state.elr
        self.replicas = state.replicas
        self.followers = {
            follower_id: self.followers.get(follower_id) or FollowerProgress(follower_id)
            for follower_id in state.replicas
            if follower_id != self.broker_id
        }
        self._sort_followers()
        self._check()
        return self._expand_waiting(now) + self._raise_high_watermark(now)

    def min_isr_changed(self, min_insync_replicas: int, now: float) -> Effects:
        self.min_insync_replicas = min_insync_replicas
        return self._raise_high_watermark(now)

    def look_again(self, now: float) -> Effects:
        """Time passed, or brokers came and went: one follower may not be waited for any more, another may join."""
        return self._expand_waiting(now) + self._raise_high_watermark(now)

    def _expand_waiting(self, now: float) -> Effects:
        """Propose a follower that caught up while another proposal was under way, or before its registration was known.

        Kafka leaves this to the follower's next fetch, but an idle follower repeats no row: while its session fetches,
        its last row in this leader epoch still says where it stands.
        """
        for follower in self._joining:
            if follower.contact is not None and now - follower.heard_at() <= self.lag_seconds_max:
                proposed = self._maybe_expand(follower)
                if proposed:
                    return proposed
        return NOTHING

    def _maybe_expand(self, follower: FollowerProgress) -> Effects:
        if (
            type(self.isr.state) is not Committed
            or follower.log_end_offset < self.high_watermark
            or follower.log_end_offset < self.epoch_start_offset
            or not self._is_eligible(follower)
        ):
            return NOTHING
        proposal = self.isr.expand(follower.broker_id)
        self._sort_followers()
        self._check()
        return (ProposeIsr(proposal),)

    def _is_eligible(self, follower: FollowerProgress) -> bool:
        """Alive, and fetching as the incarnation that is registered: a broker that restarted may have lost its log."""
        registered = self._live_broker_epoch(follower.broker_id)
        return registered is not None and registered == follower.broker_epoch

    def _raise_high_watermark(self, now: float) -> Effects:
        if self.is_under_min_isr:
            return NOTHING
        offset = self.counted_end
        for follower in self._members:
            if follower.log_end_offset < offset:
                offset = follower.log_end_offset
        for follower in self._retained:
            if follower.log_end_offset < offset:
                offset = follower.log_end_offset
        for follower in self._joining:
            if follower.log_end_offset < offset and self._is_about_to_join(follower, now):
                offset = follower.log_end_offset
        if offset <= self.high_watermark:
            return NOTHING
        self.high_watermark = offset
        return (RaiseHighWatermark(offset),)

    def _is_about_to_join(self, follower: FollowerProgress, now: float) -> bool:
        return now - follower.last_caught_up_at <= self.lag_seconds_max and self._is_eligible(follower)

    def waits_for(self, broker_id: int, now: float) -> bool:
        """Does the high watermark wait for this follower? Then nobody may slow it down."""
        follower = self.followers.get(broker_id)
        if follower is None:
            return False
        return follower in self._members or follower in self._retained or self._is_about_to_join(follower, now)

    def _broker_epoch_of(self, broker_id: int) -> int:
        if broker_id == self.broker_id:
            return self._own_epoch()
        follower = self.followers.get(broker_id)
        if follower is not None and follower.broker_epoch >= 0:
            return follower.broker_epoch
        registered = self._live_broker_epoch(broker_id)
        return -1 if registered is None else registered

    def _sort_followers(self) -> None:
        maximal = self.isr.state.maximal
        self._members = [follower for follower in self.followers.values() if follower.broker_id in maximal]
        """Followers in the maximal ISR: the high watermark always waits for them."""
        self._joining = [follower for follower in self.followers.values() if follower.broker_id not in maximal]
        self._retained = [follower for follower in self._joining if follower.broker_id in self.elr]
        """Followers in the ELR: it waits for them too, until the controller says that they cannot be elected."""

    def _check(self) -> None:
        if self.broker_id not in self.isr.state.isr:
            raise InvariantViolation(f"{self!r}: the leader is not in its ISR")
        if not self.high_watermark <= self.counted_end <= self.log_end_offset:
            raise InvariantViolation(
                f"{self!r}: high watermark, counted end {self.counted_end} and end are out of order"
            )

    def started(self, now: float) -> Effects:
        """The first look at the high watermark after becoming leader."""
        self._check()
        return self._raise_high_watermark(now)

"""One replica of a partition on this broker: its log, its role, and who waits for it. Runs what partition/ decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from zkbroker.broker.delayed import Deadlines, OffsetWaiters, Turn
from zkbroker.broker.isr_proposals import IsrProposals
from zkbroker.broker.throttles import ReplicationThrottles
from zkbroker.kafka.ports import CurrentLeader
from zkbroker.log.log import Log
from zkbroker.model.channel import FollowerContact, IsrAnswer
from zkbroker.model.clock import Clock
from zkbroker.model.errors import ErrorCode, InvariantViolation
from zkbroker.model.topic_config import TopicConfig
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.partition.follower import FollowerState
from zkbroker.partition.isr import Outcome
from zkbroker.partition.leader import Effects, LeaderState, RaiseHighWatermark
from zkbroker.replication.ports import FetcherPort, FetchSessionListener


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """The broker configuration that replicas obey."""

    contact_seconds_max: float = 5.0
    """X of the contact rule; must be below the session timeout."""
    lag_seconds_max: float = 30.0
    """``replica.lag.time.max.ms``"""
    mark_news_seconds: float = 0.02
    """A moved high watermark is told to followers after this time, unless new records told it before: told at once,
    each batch would cost two round trips instead of one, and nothing waits for it."""
    cold_read_bytes_max: int = 64 * 1024 * 1024
    """Bytes that may be read from disk for followers and not yet sent, over all partitions."""


class ParkedLook(Protocol):
    """A deletion of records that waits until no live replica begins below it."""

    def look(self, replica: Replica) -> None: ...


class ParkedRead(Protocol):
    """A consumer's request that waits for more records."""

    def woken(self) -> None: ...


@dataclass(slots=True)
class Shared:
    """What all replicas of a broker share."""

    broker_id: int
    reactor: Any
    clock: Clock
    settings: ReplicaSettings
    broker_epoch: Callable[[], int]
    live_broker_epoch: Callable[[int], int | None]
    next_proposal_id: Callable[[], int]
    contact_age: Callable[[], float]
    metadata_leader: Callable[[TopicPartition], CurrentLeader | None]
    fatal: Callable[[str, BaseException], None]
    report: Callable[[str], None]
    proposals: IsrProposals
    deadlines: Deadlines
    woken: Turn[Replica]
    """Replicas whose high watermark moved: completes those who wait."""
    mark_news: Turn[Replica]
    """Replicas whose high watermark moved and whose followers may not know."""
    fetchers: FetcherPort | None = None
    throttles: ReplicationThrottles | None = None
    is_lossy: Callable[[TopicPartition], bool] = lambda partition: False
    """It may lack records that it is counted for, and nothing in ZooKeeper is known to say otherwise."""
    cold_read_released: Callable[[int], None] | None = None
    """Told how many bytes read for a follower are held no more."""
    leadership_changed: Callable[[TopicPartition], None] = lambda partition: None
    """Told whenever a tenure begins or ends. It only takes note: a role is being changed."""


class Tenure:
    """One uninterrupted leadership of a partition, over all its leader epochs. Meanwhile this broker followed nobody:
    what it knows of the log's content by reading and appending is still true."""

    __slots__ = ("replica",)

    def __init__(self, replica: Replica) -> None:
        self.replica = replica

    def __repr__(self) -> str:
        return f"Tenure({self.replica!r} {'holds' if self.holds else 'is over'})"

    @property
    def holds(self) -> bool:
        return self.replica.tenure is self


class ColdRead:
    """Bytes for a follower that had to come from disk, kept from their arrival until the follower's next look."""

    __slots__ = ("error", "leader", "offset", "records", "size")

    def __init__(self, offset: int, leader: LeaderState, size: int) -> None:
        self.offset = offset
        self.leader = leader
        self.size = size
        self.records: bytes | None = None
        """None while they are being read."""
        self.error = ErrorCode.NONE
        """Why they could not be read."""

    @property
    def is_over(self) -> bool:
        return self.records is not None or self.error is not ErrorCode.NONE


class Replica:
    """At most one of ``leader`` and ``follower`` is set; with neither the replica serves nobody (no state from the
    controller yet, the registration lost, or a leadership that must not be taken up)."""

    __slots__ = (
        "_shared",
        "cold_reads",
        "consumers",
        "deletions",
        "flush_waiters",
        "follower",
        "high_watermark",
        "is_flushing",
        "leader",
        "led_epoch",
        "listeners",
        "log",
        "partition",
        "produce_waiters",
        "refusal",
        "state",
        "tenure",
    )

    def __init__(self, partition: TopicPartition, log: Log, high_watermark: int, shared: Shared) -> None:
        self.partition = partition
        self.log = log
        self.high_watermark = max(log.log_start_offset, min(high_watermark, log.log_end_offset))
        self.state: PartitionState | None = None
        """The newest state that the controller told."""
        self.leader: LeaderState | None = None
        self.follower: FollowerState | None = None
        self.tenure: Tenure | None = None
        """None while it does not lead."""
        self.led_epoch = -1
        """The last leader epoch in which this process led it."""
        self.refusal: str | None = None
        """Why the role of ``state`` was not taken up, or None."""
        self.listeners: dict[FetchSessionListener, FollowerContact] = {}
        self.produce_waiters = OffsetWaiters()
        """acks=all: by the high watermark they need."""
        self.flush_waiters = OffsetWaiters()
        """acks=1 under a flush policy: by the end on disk they need."""
        self.consumers: dict[ParkedRead, None] = {}
        self.deletions: dict[ParkedLook, None] = {}
        self.cold_reads: dict[int, ColdRead] = {}
        """By broker id of the follower."""
        self.is_flushing = False
        self._shared = shared

    def __repr__(self) -> str:
        role = self.leader or self.follower or f"NoRole({self.partition} {self.refusal or 'no state'})"
        return f"Replica({role!r} start={self.log.log_start_offset} end={self.log.log_end_offset})"

    # Offsets

    @property
    def waits_for_flush(self) -> bool:
        """``flush.messages=1``: acknowledged means on disk. Larger values flush now and then, as in Kafka, without
        anybody waiting for it."""
        return self.log.config.flush_messages == 1

    @property
    def counted_end(self) -> int:
        """The end of what this replica may say it has."""
        return self.log.flushed_end_offset if self.waits_for_flush else self.log.log_end_offset

    @property
    def last_stable_offset(self) -> int:
        undecided = self.log.producers.first_unstable_offset(self.high_watermark)
        if undecided is None:
            return self.high_watermark
        # Records of an open transaction may have been deleted.
        return max(self.log.log_start_offset, min(undecided, self.high_watermark))

    @property
    def current_leader(self) -> CurrentLeader | None:
        """Who leads by the controller's word, unless that is this broker itself."""
        state = self.state
        if state is None or state.leader == self._shared.broker_id:
            return None
        return CurrentLeader(state.leader, state.leader_epoch)

    # Roles

    def take_state(self, state: PartitionState) -> str | None:
        """Adopt what the controller says, if it is news. Returns why the role cannot be taken up, or None."""
        known = self.state
        has_role = self.leader is not None or self.follower is not None
        if known is not None:
            if state.leader_epoch < known.leader_epoch:
                return self.refusal
            if state.leader_epoch == known.leader_epoch and state.leader != known.leader:
                # Somebody wrote the znode by hand: one epoch has one leader, and we know which.
                reason = f"leader epoch {state.leader_epoch} has leader {known.leader}, not {state.leader}"
                self._shared.report(f"{self.partition}: {reason}")
                return reason
            if state.leader_epoch == known.leader_epoch and (has_role or self.refusal is not None):
                # The role stays as it is, but who is in the ISR may be news (the answer to our own proposal lost).
                if state.partition_epoch > known.partition_epoch:
                    self.state = state
                    self._take_isr(state)
                return self.refusal
        self.refusal = None
        self.state = state
        if state.leader == self._shared.broker_id:
            self._become_leader(state)
        else:
            self._become_follower(state)
        return self.refusal

    def drop_role(self) -> None:
        """Serve nobody until the controller gives a role again: the registration is gone, or the replica goes away."""
        self._leave_leadership()
        self.follower = None
        self.refusal = None
        if self._shared.fetchers is not None:
            self._shared.fetchers.unfollow(self.partition)

    def config_changed(self, config: TopicConfig) -> None:
        self.log.set_config(config)
        if self.leader is not None:
            now = self._shared.clock.monotonic()
            self.run(self.leader.min_isr_changed(config.min_insync_replicas, now))
            self.run(self.leader.flushed(self.counted_end, now))
        if self.waits_for_flush and self.log.flushed_end_offset < self.log.log_end_offset:
            # A flush policy was switched on: what nobody waited for counts again once it is on disk, here and at the
            # leader that this replica follows.
            self.flush()

    def _become_leader(self, state: PartitionState) -> None:
        shared, log = self._shared, self.log
        if log.epochs.highest_seen >= state.leader_epoch and self.led_epoch != state.leader_epoch:
            # Led before a restart: what was handed out in this epoch may have been lost with the process, and appending
            # again would give one (epoch, offset) two contents. The controller must raise the epoch.
            self._refuse_leadership(
                state,
                f"the log already holds epoch {log.epochs.highest_seen} from before this broker registered",
            )
            return
        if shared.is_lossy(self.partition) and not state.recovering and self.led_epoch != state.leader_epoch:
            # Only a controller that knows nothing of lossy replicas (an older zkbroker) elects one.
            self._refuse_leadership(state, "the log came back without its unflushed end")
            return
        now = shared.clock.monotonic()
        predecessor = self.leader
        if self.follower is not None and shared.fetchers is not None:
            shared.fetchers.unfollow(self.partition)
        self.follower = None
        shared.proposals.withdraw(self.partition)
        log.assign_epoch(state.leader_epoch, log.log_end_offset)
        counted_end = self.counted_end
        if self.led_epoch == state.leader_epoch:
            # Resumed after a lost registration, perhaps under a flush policy that is new: what it committed stays so.
            counted_end = max(counted_end, self.high_watermark)
        self.led_epoch = state.leader_epoch
        leader = LeaderState(
            self.partition,
            state,
            broker_id=shared.broker_id,
            own_broker_epoch=shared.broker_epoch,
            live_broker_epoch=shared.live_broker_epoch,
            next_proposal_id=shared.next_proposal_id,
            epochs=log.epochs,
            log_end_offset=log.log_end_offset,
            counted_end=counted_end,
            high_watermark=self.high_watermark,
            min_insync_replicas=log.config.min_insync_replicas,
            lag_seconds_max=shared.settings.lag_seconds_max,
            now=now,
            predecessor=predecessor,
        )
        self.leader = leader
        self.high_watermark = leader.high_watermark
        self._drop_cold_reads()
        self.run(leader.started(now))
        if leader.counted_end < leader.log_end_offset:
            self.flush()
        self.tell_followers()
        self.tell_consumers()
        if self.tenure is None:
            self.tenure = Tenure(self)
            shared.leadership_changed(self.partition)

    def _refuse_leadership(self, state: PartitionState, why: str) -> None:
        self.drop_role()
        self.refusal = f"named leader in leader epoch {state.leader_epoch}, but {why}"
        self._shared.report(f"{self.partition}: {self.refusal}")

    def _become_follower(self, state: PartitionState) -> None:
        self._leave_leadership()
        self.follower = FollowerState(
            self.partition, state.leader, state.leader_epoch, is_in_isr=self._shared.broker_id in state.isr
        )
        fetchers = self._shared.fetchers
        if fetchers is not None:
            if state.leader >= 0:
                fetchers.follow(self.partition, state.leader)
            else:
                fetchers.unfollow(self.partition)

    def _leave_leadership(self) -> None:
        """Settle what is committed, then fail those who still wait: another leader may never have their records."""
        if self.leader is None:
            return
        self.leader = None
        self._end_tenure()
        self._shared.proposals.withdraw(self.partition)
        self._shared.mark_news.forget(self)
        self._drop_cold_reads()
        leader = self.current_leader
        committed = self.produce_waiters.take_up_to(self.high_watermark)
        failed = self.produce_waiters.take_all() + self.flush_waiters.take_all()
        for parked, index in committed:
            parked.settle(index, ErrorCode.NONE)
        for parked, index in failed:
            parked.settle(index, ErrorCode.NOT_LEADER_OR_FOLLOWER, leader)
        self.look_at_deletions()
        self.tell_consumers()
        self.tell_followers()

    def _end_tenure(self) -> None:
        self.tenure = None
        self._shared.leadership_changed(self.partition)

    def _take_isr(self, state: PartitionState) -> None:
        if self.leader is None:
            return
        self.run(self.leader.state_told(state, self._shared.clock.monotonic()))
        self.look_at_deletions()
        if self.leader.isr.state.proposal is None:
            self._shared.proposals.withdraw(self.partition)

    def _drop_cold_reads(self) -> None:
        dropped, self.cold_reads = self.cold_reads, {}
        released = self._shared.cold_read_released
        if released is not None:
            for cold in dropped.values():
                released(cold.size)

    # Effects

    def run(self, effects: Effects) -> None:
        """Do what the leader decided."""
        for effect in effects:
            if isinstance(effect, RaiseHighWatermark):
                self.high_watermark = effect.offset
                self._shared.woken.tell(self)
                if self.listeners:
                    self._shared.mark_news.tell(self)
            else:
                self._shared.proposals.submit(effect.proposal)

    def appended(self, now: float) -> None:
        """The leader appended to its log."""
        leader, log = self.leader, self.log
        if leader is None:
            raise InvariantViolation(f"{self!r}: appended without leading")
        if self.waits_for_flush:
            self.run(leader.appended(log.log_end_offset, log.flushed_end_offset, now))
            self.flush()
        else:
            self.run(leader.appended(log.log_end_offset, log.log_end_offset, now))
        for listener in self.listeners:
            listener.partition_changed(self.partition)

    def look_again(self, now: float) -> None:
        """Brokers came or went, or time passed: a follower may not be waited for any more."""
        self.look_at_deletions()
        if self.leader is not None:
            self.run(self.leader.look_again(now))

    def look_for_lag(self, now: float) -> None:
        if self.leader is not None:
            self.run(self.leader.shrink_if_lagging(now) + self.leader.look_again(now))

    def tell_followers(self) -> None:
        for listener in list(self.listeners):
            listener.partition_changed(self.partition)

    def tell_consumers(self) -> None:
        """The high watermark, the log start, the leader epoch or the role changed."""
        for consumer in list(self.consumers):
            consumer.woken()

    def look_at_deletions(self) -> None:
        """A follower's log start moved, a follower is gone, or the leadership is."""
        for deletion in list(self.deletions):
            deletion.look(self)

    def flush(self) -> None:
        """Bring the log to disk; one flush at a time serves all that was appended before it began."""
        if self.is_flushing:
            return
        self.is_flushing = True
        self.log.flush_later().addCallbacks(self._flushed, self._flush_failed)

    def _flushed(self, _: int) -> None:
        self.is_flushing = False
        shared = self._shared
        try:
            if self.leader is not None:
                self.run(self.leader.flushed(self.counted_end, shared.clock.monotonic()))
                for parked, index in self.flush_waiters.take_up_to(self.counted_end):
                    parked.settle(index, ErrorCode.NONE)
            elif self.follower is not None and shared.fetchers is not None:
                shared.fetchers.position_changed(self.partition)
        except InvariantViolation as error:
            shared.fatal(f"flushed {self!r}", error)
        if self.waits_for_flush and self.log.flushed_end_offset < self.log.log_end_offset:
            self.flush()

    def _flush_failed(self, _: object) -> None:
        # The log has taken its folder offline, which fails all who wait; a failed fsync is never tried again.
        self.is_flushing = False

    def isr_answered(self, answer: IsrAnswer) -> bool:
        """Take an answer of the controller; True when the proposal must be sent again."""
        if self.leader is None:
            return False
        outcome, effects = self.leader.isr_answered(answer, self._shared.clock.monotonic())
        if outcome is Outcome.COMMITTED and answer.state is not None and self.state is not None:
            self.state = self.state._replace(
                isr=answer.state.isr,
                partition_epoch=max(answer.state.partition_epoch, self.state.partition_epoch),
                recovering=answer.state.recovering,
                elr=answer.state.elr,
            )
        self.run(effects)
        return outcome is Outcome.RETRY

    def wake(self) -> None:
        """Answer those who waited for the present high watermark."""
        leader = self.leader
        if leader is not None and len(self.produce_waiters):
            outcome = leader.acks_all_outcome()
            for parked, index in self.produce_waiters.take_up_to(self.high_watermark):
                parked.settle(index, outcome)
        self.tell_consumers()

    def send_away(self) -> None:
        """This leader is in no contact any more: whoever waits for acks=all is told to ask others who leads. What they
        wrote may be committed after all."""
        for parked, index in self.produce_waiters.take_up_to(self.high_watermark):
            parked.settle(index, ErrorCode.NONE)
        for parked, index in self.produce_waiters.take_all():
            parked.settle(index, ErrorCode.NOT_LEADER_OR_FOLLOWER)

    def failed(self, error: ErrorCode) -> None:
        """The folder is offline: fail all who wait, serve nobody any more."""
        leader, self.leader, self.follower = self.leader, None, None
        if leader is not None:
            self._end_tenure()
            self._shared.proposals.withdraw(self.partition)
        for parked, index in self.produce_waiters.take_all() + self.flush_waiters.take_all():
            parked.settle(index, error)
        self._drop_cold_reads()
        self.look_at_deletions()
        self.tell_consumers()
        self.tell_followers()
        if self._shared.fetchers is not None:
            self._shared.fetchers.unfollow(self.partition)

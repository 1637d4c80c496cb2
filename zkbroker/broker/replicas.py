"""All replicas of this broker: what the listeners, the fetchers and the controller's deltas call.

Fills ``replication.ports.LeaderPort`` and ``FollowerPort`` and ``kafka.ports.DataPort``; each port's work is in a file
of its own (produce, consume, offset_queries, follower_reads, following), a partition's roles are in ``replica``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from zkbroker.broker.consume import Consumes
from zkbroker.broker.coordinator_log import CoordinatorLog
from zkbroker.broker.delayed import Deadlines, Turn
from zkbroker.broker.delete_records import RecordDeletions
from zkbroker.broker.follower_reads import FollowerReads
from zkbroker.broker.following import Following
from zkbroker.broker.isr_proposals import IsrProposals, Send
from zkbroker.broker.offset_queries import OffsetQueries
from zkbroker.broker.produce import Produces
from zkbroker.broker.replica import Replica, ReplicaSettings, Shared
from zkbroker.broker.replica_table import ReplicaTable
from zkbroker.broker.throttles import ReplicationThrottles
from zkbroker.kafka.ports import (
    Cancellable,
    ConsumedRow,
    ConsumeOptions,
    ConsumeRow,
    ConsumeSession,
    CurrentLeader,
    DeletedRow,
    DeleteRow,
    EpochAnswer,
    EpochRow,
    OffsetAnswer,
    OffsetRow,
    ProducedRow,
    ProduceRow,
    RepeatedConsume,
)
from zkbroker.log.dirs import LogDirs
from zkbroker.model.channel import IsrAnswer
from zkbroker.model.clock import Clock
from zkbroker.model.errors import BrokerError, ErrorCode, InvariantViolation
from zkbroker.model.topic_config import TopicConfig
from zkbroker.model.topics import NO_LEADER, PartitionState, TopicPartition
from zkbroker.partition.producer_state import ProducerEntry
from zkbroker.replication.ports import FetchedRow, FetcherPort, FetchRow, FetchSessionListener

__all__ = ["ReplicaSettings", "Replicas"]


def _unreported(_: str) -> None:
    pass


class Replicas:
    """See the module. Every public method runs on the reactor thread. ``fetchers`` and ``controller`` are set after
    construction; a broken invariant of a partition goes to ``fatal``, which ends the process."""

    def __init__(
        self,
        *,
        broker_id: int,
        reactor: Any,
        clock: Clock,
        logs: LogDirs,
        settings: ReplicaSettings,
        broker_epoch: Callable[[], int],
        live_broker_epoch: Callable[[int], int | None],
        topic_config: Callable[[str], TopicConfig],
        metadata_leader: Callable[[TopicPartition], CurrentLeader | None],
        contact_age: Callable[[], float],
        fatal: Callable[[str, BaseException], None],
        report: Callable[[str], None] = _unreported,
        random: Any = None,
    ) -> None:
        self._logs = logs
        self._topic_config = topic_config
        self._proposals = IsrProposals(
            reactor, broker_id=broker_id, broker_epoch=broker_epoch, answered=self._isr_answered
        )
        shared = Shared(
            broker_id=broker_id,
            reactor=reactor,
            clock=clock,
            settings=settings,
            broker_epoch=broker_epoch,
            live_broker_epoch=live_broker_epoch,
            next_proposal_id=itertools.count(1).__next__,
            contact_age=contact_age,
            metadata_leader=metadata_leader,
            fatal=fatal,
            report=report,
            proposals=self._proposals,
            is_lossy=logs.losses.replicas.__contains__,
            deadlines=Deadlines(reactor, clock),
            woken=Turn(reactor, self._wake),
            mark_news=Turn(reactor, self._tell_marks, settings.mark_news_seconds),
        )
        self._shared = shared
        self._table = ReplicaTable(shared)
        self._produces = Produces(self._table)
        self._consumes = Consumes(self._table)
        self._offsets = OffsetQueries(self._table)
        self._deletions = RecordDeletions(self._table)
        self._follower_reads = FollowerReads(self._table)
        self._following = Following(self._table)
        self.coordinator_log = CoordinatorLog(self._table)
        self._lag_timer: Any = None
        # The ports' hot calls go straight to whoever does the work.
        self.follower_fetched = self._follower_reads.follower_fetched
        self.read_for_follower = self._follower_reads.read_for_follower
        self.catch_up_delay_s = self._following.catch_up_delay_s

    def __repr__(self) -> str:
        return f"Replicas({self._shared.broker_id} replicas={len(self._table.replicas)})"

    @property
    def fetchers(self) -> FetcherPort | None:
        return self._shared.fetchers

    @fetchers.setter
    def fetchers(self, fetchers: FetcherPort) -> None:
        self._shared.fetchers = fetchers

    def throttle(self, throttles: ReplicationThrottles) -> None:
        """How many bytes per second replicas that catch up may cost."""
        self._shared.throttles = throttles

    @property
    def controller(self) -> Send | None:
        """How ISR proposals reach the controller; may fail while there is none: they are sent again."""
        return self._proposals.send

    @controller.setter
    def controller(self, send: Send) -> None:
        self._proposals.send = send

    @property
    def leadership_changed(self) -> Callable[[TopicPartition], None]:
        """Told when a leadership begins or ends here; it must only take note."""
        return self._shared.leadership_changed

    @leadership_changed.setter
    def leadership_changed(self, told: Callable[[TopicPartition], None]) -> None:
        self._shared.leadership_changed = told

    # What the controller tells

    def apply(self, partition: TopicPartition, state: PartitionState) -> str | None:
        """Become what the controller says. Returns why this replica cannot be brought up, or None."""
        shared = self._shared
        unsound = _unsound(state, shared.broker_id)
        if unsound is not None:
            return unsound
        try:
            replica = self._replica(partition, state)
            if isinstance(replica, str):
                return replica
            reason = replica.take_state(state)
        except BrokerError as error:
            return str(error)
        except OSError as error:
            return f"log folder: {error}"
        except InvariantViolation as error:
            shared.fatal(f"{partition} took {state!r}", error)
            return str(error)
        self._keep_lag_timer()
        return reason

    def remove(self, partition: TopicPartition, topic_id: str) -> None:
        """The replica is no longer assigned here, or its topic is being deleted: serve it no more. Its data stays."""
        replica = self._table.replicas.get(partition)
        if replica is not None and replica.log.topic_id == topic_id:
            del self._table.replicas[partition]
            replica.drop_role()
            self._remember_mark(replica)
            self._proposals.withdraw(partition)
        self._table.offline.pop(partition, None)

    def delete(self, partition: TopicPartition, topic_id: str) -> Deferred[None]:
        """Delete the data of this topic id for good; fires when that is done (also if there was nothing)."""
        self.remove(partition, topic_id)
        return maybeDeferred(self._logs.delete, partition, topic_id)

    def is_out_of_reach(self, partition: TopicPartition) -> bool:
        """May its data be in a log folder that is offline?"""
        return bool(self._logs.offline_dirs) and partition not in self._logs.logs

    def make_stray(self, partition: TopicPartition, topic_id: str) -> None:
        """Set the folder aside: the cluster does not know it under this topic id."""
        self.remove(partition, topic_id)
        log = self._logs.get(partition)
        if log is not None and log.topic_id == topic_id:
            self._logs.make_stray(partition)

    def is_up(self, partition: TopicPartition) -> bool:
        """Is there a replica of it, in any role?"""
        return partition in self._table.replicas

    def hosted(self) -> list[tuple[TopicPartition, str]]:
        """Every log on this broker's disks, with its topic id, whether it is served or not."""
        return [(partition, log.topic_id) for partition, log in self._logs.logs.items()]

    def led(self) -> list[tuple[TopicPartition, PartitionState]]:
        """What this broker leads, with the state that it goes by."""
        return [
            (replica.partition, replica.state)
            for replica in self._table.replicas.values()
            if replica.leader is not None and replica.state is not None
        ]

    def send_away(self) -> bool:
        """Fail those who wait at leaders that the contact rule keeps from answering. True if no leader that has
        followers is in touch with any: others may lead by now, and know who does."""
        in_touch = out_of_touch = 0
        for replica in self._table.replicas.values():
            if replica.leader is None or replica.state is None or len(replica.state.replicas) < 2:
                continue
            if self._table.has_fresh_contact(replica.leader):
                in_touch += 1
            else:
                out_of_touch += 1
                replica.send_away()
        return out_of_touch > 0 and in_touch == 0

    def followers_heard(self) -> dict[int, float]:
        """The brokers that follow in the ISR of anything led here, and when each last fetched any of it."""
        heard: dict[int, float] = {}
        for replica in self._table.replicas.values():
            if replica.leader is not None:
                for follower, at in replica.leader.members_heard():
                    heard[follower] = max(at, heard.get(follower, at))
        return heard

    def configs_changed(self, topics: Collection[str]) -> None:
        """The settings of these topics changed: from now on they hold."""
        for replica in list(self._table.replicas.values()):
            if replica.partition.topic in topics:
                config = self._topic_config(replica.partition.topic)
                self._guard(replica, "its settings changed", partial(replica.config_changed, config))

    def brokers_changed(self) -> None:
        """Brokers came or went: a follower that is gone is not waited for any more before it joined."""
        now = self._shared.clock.monotonic()
        for replica in list(self._table.replicas.values()):
            self._guard(replica, "brokers changed", partial(replica.look_again, now))

    def registration_lost(self) -> None:
        """Fenced: obey nothing, lead nothing, until the controller speaks to the new registration."""
        for replica in list(self._table.replicas.values()):
            replica.drop_role()

    def dir_failed(self, log_dir: str, reason: str, partitions: Sequence[TopicPartition]) -> None:
        """A log folder is offline: its replicas fail all who wait and serve nobody until a restart."""
        for partition in partitions:
            self._table.offline[partition] = f"log folder {log_dir} is offline: {reason}"
            replica = self._table.replicas.pop(partition, None)
            if replica is not None:
                replica.failed(ErrorCode.KAFKA_STORAGE_ERROR)

    # What the log folders need

    def high_watermarks(self) -> dict[TopicPartition, int]:
        """For the checkpoint: of every replica, also of those that have no role yet."""
        marks = dict(self._logs.high_watermarks)
        marks.update({replica.partition: replica.high_watermark for replica in self._table.replicas.values()})
        return {partition: mark for partition, mark in marks.items() if partition in self._logs.logs}

    def delete_old_segments(self) -> int:
        """Retention, on every replica; for a call each ``log.retention.check.interval.ms``. The number of segments."""
        deleted = 0
        now_ms = self._shared.clock.wall_ms()
        for replica in list(self._table.replicas.values()):
            start = replica.log.log_start_offset
            replica.log.maybe_roll(now_ms)
            deleted += replica.log.delete_old_segments(replica.high_watermark, now_ms)
            if replica.log.log_start_offset != start:
                replica.tell_followers()
                replica.tell_consumers()
        return deleted

    # DataPort

    def produce(
        self,
        acks: int,
        timeout_ms: int,
        transactional_id: str | None,
        rows: Sequence[ProduceRow],
        done: Callable[[list[ProducedRow]], None],
    ) -> Cancellable | None:
        return self._produces.produce(acks, timeout_ms, rows, done)

    def consume(
        self, options: ConsumeOptions, rows: Sequence[ConsumeRow], done: Callable[[list[ConsumedRow]], None]
    ) -> Cancellable | None:
        return self._consumes.consume(options, rows, done)

    def open_repeated(self, rows: Sequence[ConsumeRow]) -> RepeatedConsume:
        return self._consumes.open_repeated(rows)

    def open_session(self) -> ConsumeSession:
        return self._consumes.open_session()

    def list_offsets(
        self, read_committed: bool, rows: Sequence[OffsetRow], done: Callable[[list[OffsetAnswer]], None]
    ) -> None:
        self._offsets.list_offsets(read_committed, rows, done)

    def delete_records(
        self, timeout_ms: int, rows: Sequence[DeleteRow], done: Callable[[list[DeletedRow]], None]
    ) -> Cancellable | None:
        return self._deletions.delete_records(timeout_ms, rows, done)

    def offsets_for_leader_epochs(self, rows: Sequence[EpochRow]) -> list[EpochAnswer]:
        return self._offsets.offsets_for_leader_epochs(rows)

    def producers(self, topic: str, partition: int) -> list[ProducerEntry] | ErrorCode:
        """The producers that the log of a partition led here remembers."""
        replica = self._table.led(topic, partition)
        return replica if isinstance(replica, ErrorCode) else replica.log.producers.snapshot()

    def serves(self, partition: TopicPartition) -> bool:
        """Has this partition a replica here, whatever its role?"""
        return partition in self._table.replicas

    # LeaderPort; follower_fetched and read_for_follower are set in __init__

    def forget(self, listener: FetchSessionListener, partition: TopicPartition) -> None:
        self._follower_reads.forget(listener, partition)

    # FollowerPort

    def fetch_row(self, partition: TopicPartition) -> FetchRow | None:
        return self._following.fetch_row(partition)

    def fetched(self, request: FetchRow, answer: FetchedRow) -> None:
        self._following.fetched(request, answer)

    def in_sync(self, partition: TopicPartition) -> bool:
        return self._following.in_sync(partition)

    # For people

    def status_lines(self) -> list[str]:
        replicas = list(self._table.replicas.values())
        leaders = [replica for replica in replicas if replica.leader is not None]
        behind = sum(replica.follower is not None and not replica.follower.is_in_sync for replica in replicas)
        return [
            f"replicas: {len(replicas)} ({len(leaders)} led, {behind} catching up, {len(self._table.offline)} offline)",
            f"under min ISR: {sum(leader.leader.is_under_min_isr for leader in leaders if leader.leader is not None)}",
            f"ISR proposals under way: {len(self._proposals)}",
        ]

    def partition_lines(self, topic: str | None) -> list[str]:
        """One line for each replica, by partition; of one topic, or of all."""
        keys = sorted({*self._table.replicas, *self._table.offline})
        return [self._partition_line(TopicPartition(*key)) for key in keys if topic is None or key[0] == topic]

    def _partition_line(self, partition: TopicPartition) -> str:
        replica = self._table.replicas.get(partition)
        if replica is None:
            return f"{partition} offline: {self._table.offline[partition]}"
        log = replica.log
        state = replica.state
        epochs = "" if state is None else f" leader_epoch={state.leader_epoch} partition_epoch={state.partition_epoch}"
        ends = f"start={log.log_start_offset} high_watermark={replica.high_watermark} end={log.log_end_offset}"
        if replica.leader is not None:
            leader = replica.leader
            isr = ",".join(map(str, leader.isr.state.maximal))
            others = " ".join(f"{other.broker_id}@{other.log_end_offset}" for other in leader.followers.values())
            pending = "" if leader.isr.state.proposal is None else " pending"
            elr = f" elr={','.join(map(str, leader.elr))}" if leader.elr else ""
            return f"{partition} leader{epochs} isr={isr}{pending}{elr} {ends} followers={others or 'none'}"
        if replica.follower is not None:
            in_sync = "yes" if replica.follower.is_in_sync else "no"
            return f"{partition} follower of={replica.follower.leader}{epochs} in_sync={in_sync} {ends}"
        return f"{partition} no role{epochs} {ends}" + (f" because={replica.refusal}" if replica.refusal else "")

    # Lifecycle

    def stop(self) -> None:
        """Answer all who wait, serve nobody any more."""
        for replica in list(self._table.replicas.values()):
            replica.drop_role()
        if self._lag_timer is not None:
            self._lag_timer.cancel()
            self._lag_timer = None
        self._proposals.stop()
        self._follower_reads.stop()
        self._shared.woken.stop()
        self._shared.mark_news.stop()
        self._shared.deadlines.stop()

    # Inside

    def _replica(self, partition: TopicPartition, state: PartitionState) -> Replica | str:
        """The replica of this partition and topic id, made if need be; or why there cannot be one."""
        replica = self._table.replicas.get(partition)
        if replica is not None and replica.log.topic_id == state.topic_id:
            return replica
        offline = self._table.offline.get(partition)
        if offline is not None:
            return offline
        log = self._logs.get(partition)
        if log is not None and log.topic_id and log.topic_id != state.topic_id:
            # Deleted and created again while this replica could not hear of it: never mix two topics in one log.
            self._shared.report(
                f"{partition}: topic id {log.topic_id} is now {state.topic_id}; setting the old log aside"
            )
            self.remove(partition, log.topic_id)
            self._logs.make_stray(partition)
        # Also for a log that is there: it may lack its partition.metadata, and so not know its topic id.
        log = self._logs.create(partition, state.topic_id)
        log.set_config(self._topic_config(partition.topic))
        replica = Replica(partition, log, self._logs.high_watermarks.get(partition, 0), self._shared)
        self._table.replicas[partition] = replica
        return replica

    def _remember_mark(self, replica: Replica) -> None:
        """The log stays: should it be served again, its high watermark is the one it has now."""
        if replica.partition in self._logs.logs:
            self._logs.high_watermarks[replica.partition] = replica.high_watermark

    def _isr_answered(self, answer: IsrAnswer) -> bool:
        replica = self._table.replicas.get((answer.topic, answer.partition))
        if replica is None:
            return False
        state, broker_id = answer.state, self._shared.broker_id
        if state is not None and (state.leader != broker_id or _unsound(state, broker_id) is not None):
            return False
        try:
            return replica.isr_answered(answer)
        except InvariantViolation as error:
            self._shared.fatal(f"{replica!r} took {answer!r}", error)
            return False

    def _wake(self, replicas: list[Replica]) -> None:
        for replica in replicas:
            self._guard(replica, "its high watermark moved", replica.wake)

    def _tell_marks(self, replicas: list[Replica]) -> None:
        for replica in replicas:
            replica.tell_followers()

    def _keep_lag_timer(self) -> None:
        if self._lag_timer is None:
            seconds = self._shared.settings.lag_seconds_max / 2
            self._lag_timer = self._shared.reactor.callLater(seconds, self._look_for_lag)

    def _look_for_lag(self) -> None:
        self._lag_timer = None
        now = self._shared.clock.monotonic()
        for replica in list(self._table.replicas.values()):
            self._guard(replica, "looked for lag", partial(replica.look_for_lag, now))
        if self._table.replicas:
            self._keep_lag_timer()

    def _guard(self, replica: Replica, event: str, act: Callable[[], object]) -> None:
        try:
            act()
        except InvariantViolation as error:
            self._shared.fatal(f"{event}: {replica!r}", error)


def _unsound(state: PartitionState, broker_id: int) -> str | None:
    """Why this state cannot be obeyed (it came over the wire from a znode that people can write), or None."""
    isr = state.isr
    if broker_id not in state.replicas:
        return f"broker {broker_id} is not among the replicas {list(state.replicas)}"
    if not isr or len(set(isr)) != len(isr) or len(set(state.replicas)) != len(state.replicas):
        return f"the ISR {list(isr)} of replicas {list(state.replicas)} is not sound"
    if state.leader != NO_LEADER and (state.leader not in isr or state.leader not in state.replicas):
        return f"leader {state.leader} is not in the ISR {list(isr)} of replicas {list(state.replicas)}"
    if state.leader_epoch < 0:
        return f"the leader epoch {state.leader_epoch} is negative"
    return None

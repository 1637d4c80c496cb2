"""The partitions that this broker follows: fills ``replication.ports.FollowerPort``."""

from __future__ import annotations

from zkbroker.broker.replica import Replica
from zkbroker.broker.replica_table import ReplicaTable
from zkbroker.broker.throttles import Throttle
from zkbroker.model.errors import BrokerError, ErrorCode, InvariantViolation
from zkbroker.model.topics import TopicPartition
from zkbroker.partition.follower import AppendFetched, Effect, Retry, StartAgainAt, TruncateTo
from zkbroker.replication.ports import FetchedRow, FetchRow


class Following:
    """Says where to fetch from, and applies what was fetched."""

    def __init__(self, table: ReplicaTable) -> None:
        self._table = table

    def fetch_row(self, partition: TopicPartition) -> FetchRow | None:
        replica = self._table.replicas.get(partition)
        if replica is None or replica.follower is None or not replica.follower.has_leader or replica.log.is_offline:
            return None
        log = replica.log
        return FetchRow(
            partition.topic,
            partition.partition,
            log.topic_id,
            replica.follower.leader_epoch,
            log.log_end_offset,
            log.epochs.latest_epoch,
            log.log_start_offset,
            log.flushed_end_offset if replica.waits_for_flush else -1,
        )

    def in_sync(self, partition: TopicPartition) -> bool:
        replica = self._table.replicas.get(partition)
        return replica is not None and replica.follower is not None and replica.follower.is_in_sync

    def catch_up_delay_s(self, partition: TopicPartition) -> float:
        """How long nothing may be fetched of a replica that is not in sync; 0.0: now."""
        throttle = self._throttle_of(self._table.replicas.get(partition))
        return 0.0 if throttle is None else throttle.delay_s()

    def _throttle_of(self, replica: Replica | None) -> Throttle | None:
        throttles = self._table.shared.throttles
        if throttles is None or replica is None or replica.follower is None or replica.follower.is_in_sync:
            return None
        named, broker_id = replica.log.config.follower_replication_throttled_replicas, self._table.shared.broker_id
        return throttles.follower if throttles.names(named, replica.partition.partition, broker_id) else None

    def fetched(self, request: FetchRow, answer: FetchedRow) -> None:
        partition = TopicPartition(request.topic, request.partition)
        replica = self._table.replicas.get(partition)
        if replica is None or replica.follower is None:
            return
        shared = self._table.shared
        try:
            must_pause = self._apply(replica, request, answer)
        except BrokerError as error:
            # A folder that failed has told its own end already; bytes that do not check are fetched again.
            if error.error is not ErrorCode.KAFKA_STORAGE_ERROR:
                shared.report(f"{partition}: what leader {replica.follower} sent cannot be appended: {error}")
            must_pause = True
        except InvariantViolation as error:
            header = answer._replace(records=b"")
            shared.fatal(f"{replica!r} fetched {len(answer.records)} bytes with {header!r} for {request!r}", error)
            return
        # Unless told otherwise the fetcher asks again after its own pause.
        if not must_pause and shared.fetchers is not None:
            shared.fetchers.position_changed(partition)

    def _apply(self, replica: Replica, request: FetchRow, answer: FetchedRow) -> bool:
        """Do what the follower decides; True if the leader is to be asked again only after a pause."""
        follower, log = replica.follower, replica.log
        if follower is None or request.topic_id != log.topic_id:
            return False
        effect: Effect = follower.answered(
            request_epoch=request.leader_epoch,
            request_offset=request.offset,
            error=answer.error,
            high_watermark=answer.high_watermark,
            leader_log_start=answer.log_start,
            leader_log_end=answer.log_end,
            diverging_epoch=answer.diverging_epoch,
            diverging_end=answer.diverging_end,
            log_start_offset=log.log_start_offset,
            log_end_offset=log.log_end_offset,
            epochs=log.epochs,
            is_start_doubtful=log.doubtful_start is not None,
        )
        kind = type(effect)
        if kind is AppendFetched:
            log.doubtful_start = None
            self._append(replica, answer, follower.leader_epoch)
        elif kind is Retry:
            return True
        elif isinstance(effect, TruncateTo):
            self._table.shared.report(
                f"{replica.partition}: truncating [{log.log_start_offset}, {log.log_end_offset}) to {effect.offset}: "
                f"leader {follower.leader} says epoch {answer.diverging_epoch} ends at {answer.diverging_end}"
            )
            log.truncate_to(effect.offset)
            replica.high_watermark = min(replica.high_watermark, log.log_end_offset)
        elif isinstance(effect, StartAgainAt):
            self._table.shared.report(
                f"{replica.partition}: dropping [{log.log_start_offset}, {log.log_end_offset}) to copy all from "
                f"{effect.offset} on, where the log of leader {follower.leader} begins"
            )
            log.truncate_fully_and_start_at(effect.offset)
            replica.high_watermark = effect.offset
        return False

    def _append(self, replica: Replica, answer: FetchedRow, leader_epoch: int) -> None:
        follower, log = replica.follower, replica.log
        if answer.records:
            throttle = self._throttle_of(replica)
            if throttle is not None:
                throttle.took(len(answer.records))
            log.append_as_follower(answer.records, leader_epoch)
        if follower is None:
            return
        replica.high_watermark = max(log.log_start_offset, follower.high_watermark_after(log.log_end_offset))
        if answer.log_start > log.log_start_offset:
            log.advance_log_start(min(answer.log_start, replica.high_watermark))
        if replica.waits_for_flush and log.flushed_end_offset < log.log_end_offset:
            replica.flush()

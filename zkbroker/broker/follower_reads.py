"""What followers fetch from the partitions led here: fills ``replication.ports.LeaderPort``."""

from __future__ import annotations

from typing import Any

from twisted.python.failure import Failure

from zkbroker.broker.replica import ColdRead, Replica
from zkbroker.broker.replica_table import ReplicaTable
from zkbroker.broker.throttles import Throttle
from zkbroker.log.log import LogRead
from zkbroker.model.channel import FollowerContact
from zkbroker.model.errors import BrokerError, ErrorCode, InvariantViolation
from zkbroker.model.topics import TopicPartition
from zkbroker.partition.leader import LeaderState
from zkbroker.replication.ports import FetchedRow, FetchRow, FetchSessionListener


class FollowerReads:
    """Judges followers' rows and reads for them.

    Bytes that had to come from disk are kept for the follower's next look, within a budget over all partitions; past it
    a row waits until others were taken.
    """

    def __init__(self, table: ReplicaTable) -> None:
        self._table = table
        self._cold_bytes = 0
        self._crowded_out: dict[tuple[str, int], None] = {}
        """Partitions whose read from disk found no room."""
        table.shared.cold_read_released = self.released
        self._throttled: dict[tuple[str, int], None] = {}
        """Partitions that a throttled follower waits for: told again when the time of ``_throttle_timer`` has come."""
        self._throttle_timer: Any = None

    def follower_fetched(
        self, contact: FollowerContact, row: FetchRow, listener: FetchSessionListener
    ) -> FetchedRow | None:
        replica = self._table.replicas.get((row.topic, row.partition))
        if replica is None:
            return self._unserved(row)
        if row.topic_id != replica.log.topic_id:
            return _error(row, ErrorCode.INCONSISTENT_TOPIC_ID)
        leader = replica.leader
        if leader is None:
            return self._not_leading(row, replica)
        log = replica.log
        refusal = leader.fetch_refusal(contact, row.leader_epoch, row.offset, row.last_epoch, log.log_start_offset)
        if refusal is not None:
            if refusal.error is ErrorCode.NONE:
                return FetchedRow(
                    row.topic,
                    row.partition,
                    row.topic_id,
                    ErrorCode.NONE,
                    leader.leader_epoch,
                    leader.high_watermark,
                    log.log_start_offset,
                    refusal.diverging_epoch,
                    refusal.diverging_end,
                )
            return self._error(row, refusal.error, replica, leader)
        shared = self._table.shared
        counted = row.offset if row.flushed_offset < 0 else row.flushed_offset
        try:
            effects = leader.follower_fetched(contact, row.offset, counted, row.log_start, shared.clock.monotonic())
            replica.listeners[listener] = contact
            if effects:
                replica.run(effects)
            if replica.deletions:
                replica.look_at_deletions()
        except InvariantViolation as error:
            shared.fatal(f"{contact!r} fetched {row!r} of {replica!r}", error)
            return _error(row, ErrorCode.UNKNOWN_SERVER_ERROR)
        return None

    def read_for_follower(self, contact: FollowerContact, row: FetchRow, max_bytes: int) -> FetchedRow | None:
        replica = self._table.replicas.get((row.topic, row.partition))
        if replica is None:
            return self._unserved(row)
        if row.topic_id != replica.log.topic_id:
            return _error(row, ErrorCode.INCONSISTENT_TOPIC_ID)
        leader = replica.leader
        if leader is None:
            return self._not_leading(row, replica)
        if row.leader_epoch != leader.leader_epoch:
            is_older = row.leader_epoch < leader.leader_epoch
            error = ErrorCode.FENCED_LEADER_EPOCH if is_older else ErrorCode.UNKNOWN_LEADER_EPOCH
            return self._error(row, error, replica, leader)
        log = replica.log
        records = b""
        if row.offset != log.log_end_offset:
            throttle = self._throttle_of(replica, leader, contact.broker_id)
            if throttle is not None and (delay_s := throttle.delay_s()) > 0:
                self._look_later(replica, delay_s)
                return None
            cold = replica.cold_reads.get(contact.broker_id) if replica.cold_reads else None
            if cold is not None and cold.leader is leader and cold.offset == row.offset:
                if cold.records is None:
                    return None
                records = cold.records
                self._drop(replica, contact.broker_id)
            else:
                try:
                    read = log.read(row.offset, max_bytes, log.log_end_offset)
                except BrokerError as failed:
                    return self._error(row, failed.error, replica, leader)
                if read is not None:
                    records = _joined(read)
                else:
                    cold = self._read_cold(replica, leader, contact, row.offset, max_bytes)
                    if cold is None or not cold.is_over:
                        return None
                    # On the second look no thread was needed, or none could help: nobody will tell of it later.
                    self._drop(replica, contact.broker_id)
                    if cold.error is not ErrorCode.NONE:
                        return self._error(row, cold.error, replica, leader)
                    records = cold.records or b""
            if throttle is not None:
                throttle.took(len(records))
        return FetchedRow(
            row.topic,
            row.partition,
            row.topic_id,
            ErrorCode.NONE,
            leader.leader_epoch,
            leader.high_watermark,
            log.log_start_offset,
            records=records,
        )

    def forget(self, listener: FetchSessionListener, partition: TopicPartition) -> None:
        replica = self._table.replicas.get(partition)
        if replica is None:
            return
        contact = replica.listeners.pop(listener, None)
        if contact is None:
            return
        if replica.leader is not None:
            replica.leader.follower_left(contact)
        if all(other.broker_id != contact.broker_id for other in replica.listeners.values()):
            self._drop(replica, contact.broker_id)

    def _throttle_of(self, replica: Replica, leader: LeaderState, broker_id: int) -> Throttle | None:
        """What paces this follower's reads; None for one that acks=all waits for, and for what nobody throttles."""
        shared, named = self._table.shared, replica.log.config.leader_replication_throttled_replicas
        throttles = shared.throttles
        if not named or throttles is None or leader.waits_for(broker_id, shared.clock.monotonic()):
            return None
        # It names the replica that sends.
        return throttles.leader if throttles.names(named, replica.partition.partition, shared.broker_id) else None

    def _look_later(self, replica: Replica, delay_s: float) -> None:
        self._throttled[replica.partition] = None
        if self._throttle_timer is None:
            self._throttle_timer = self._table.shared.reactor.callLater(delay_s, self._look_again)

    def _look_again(self) -> None:
        self._throttle_timer = None
        waiting, self._throttled = self._throttled, {}
        for partition in waiting:
            replica = self._table.replicas.get(partition)
            if replica is not None:
                replica.tell_followers()

    def stop(self) -> None:
        if self._throttle_timer is not None:
            self._throttle_timer.cancel()
            self._throttle_timer = None

    # Reads from disk

    def _read_cold(
        self, replica: Replica, leader: LeaderState, contact: FollowerContact, offset: int, max_bytes: int
    ) -> ColdRead | None:
        """The read that has begun, and may be over; None while there is no room for it."""
        self._drop(replica, contact.broker_id)
        if self._cold_bytes > 0 and self._cold_bytes + max_bytes > self._table.shared.settings.cold_read_bytes_max:
            self._crowded_out[replica.partition] = None
            return None
        cold = ColdRead(offset, leader, max_bytes)
        replica.cold_reads[contact.broker_id] = cold
        self._cold_bytes += cold.size
        replica.log.read_later(offset, max_bytes, replica.log.log_end_offset).addCallbacks(
            self._cold_came,
            self._cold_failed,
            callbackArgs=(replica, contact.broker_id, cold),
            errbackArgs=(replica, contact.broker_id, cold),
        )
        return cold

    def _cold_came(self, read: LogRead, replica: Replica, broker_id: int, cold: ColdRead) -> None:
        if replica.cold_reads.get(broker_id) is not cold:
            return
        cold.records = _joined(read)
        self._cold_bytes += len(cold.records) - cold.size
        cold.size = len(cold.records)
        if not cold.records:
            # The log was truncated or ended meanwhile; nothing to keep, the next look decides anew.
            self._drop(replica, broker_id)
        self._tell(replica, broker_id)

    def _cold_failed(self, failure: Failure, replica: Replica, broker_id: int, cold: ColdRead) -> None:
        error = failure.value
        cold.error = error.error if isinstance(error, BrokerError) else ErrorCode.KAFKA_STORAGE_ERROR
        if replica.cold_reads.get(broker_id) is cold:
            # Asked again, the read itself says why: out of range by now, or the folder is offline.
            self._drop(replica, broker_id)
            self._tell(replica, broker_id)

    def _drop(self, replica: Replica, broker_id: int) -> None:
        cold = replica.cold_reads.pop(broker_id, None)
        if cold is not None:
            self.released(cold.size)

    def released(self, size: int) -> None:
        """So many bytes read from disk are held no more: those that found no room may try again."""
        self._cold_bytes -= size
        crowded, self._crowded_out = self._crowded_out, {}
        for partition in crowded:
            replica = self._table.replicas.get(partition)
            if replica is not None:
                replica.tell_followers()

    @staticmethod
    def _tell(replica: Replica, broker_id: int) -> None:
        for listener, contact in list(replica.listeners.items()):
            if contact.broker_id == broker_id:
                listener.partition_changed(replica.partition)

    # Errors

    def _unserved(self, row: FetchRow) -> FetchedRow:
        error = self._table.led(row.topic, row.partition)
        return _error(row, error if isinstance(error, ErrorCode) else ErrorCode.NOT_LEADER_OR_FOLLOWER)

    @staticmethod
    def _not_leading(row: FetchRow, replica: Replica) -> FetchedRow:
        known = -1 if replica.state is None else replica.state.leader_epoch
        if row.leader_epoch < known:
            return _error(row, ErrorCode.FENCED_LEADER_EPOCH, known)
        if row.leader_epoch > known:
            return _error(row, ErrorCode.UNKNOWN_LEADER_EPOCH, known)
        return _error(row, ErrorCode.NOT_LEADER_OR_FOLLOWER, known)

    @staticmethod
    def _error(row: FetchRow, error: ErrorCode, replica: Replica, leader: LeaderState) -> FetchedRow:
        log = replica.log
        return FetchedRow(
            row.topic,
            row.partition,
            row.topic_id,
            error,
            leader.leader_epoch,
            leader.high_watermark,
            log.log_start_offset,
            log_end=log.log_end_offset,
        )


def _error(row: FetchRow, error: ErrorCode, leader_epoch: int | None = None) -> FetchedRow:
    epoch = row.leader_epoch if leader_epoch is None else leader_epoch
    return FetchedRow(row.topic, row.partition, row.topic_id, error, epoch)


def _joined(read: LogRead) -> bytes:
    chunks = read.chunks
    if len(chunks) == 1:
        chunk = chunks[0]
        return chunk if isinstance(chunk, bytes) else bytes(chunk)
    return b"".join(chunks)

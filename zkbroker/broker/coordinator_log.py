"""The partitions in which coordinators keep what they know: led here or not, and appended to with acks=all."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed

from zkbroker.broker.delayed import ParkedProduce
from zkbroker.broker.replica import Replica, Tenure
from zkbroker.broker.replica_table import ReplicaTable
from zkbroker.kafka.ports import ProducedRow
from zkbroker.model.errors import BrokerError, ErrorCode, InvariantViolation
from zkbroker.model.topics import TopicPartition

ACKS_ALL = -1


class CoordinatorLog:
    """The replicas as coordinators see them. What is done for a tenure is refused once that is over."""

    def __init__(self, table: ReplicaTable) -> None:
        self._table = table

    def tenure(self, partition: TopicPartition) -> Tenure | None:
        """The present leadership of this broker; None where it does not lead."""
        replica = self._table.replicas.get(partition)
        return None if replica is None else replica.tenure

    def may_answer(self, tenure: Tenure) -> bool:
        """Is what this leader knows still what counts? A read like any other: only under the contact rule."""
        leader = tenure.replica.leader
        return tenure.holds and leader is not None and self._table.has_fresh_contact(leader)

    def append(self, tenure: Tenure, records: bytes, timeout_s: float, done: Callable[[ErrorCode], None]) -> None:
        """``done`` comes once: NONE when the high watermark has passed the records, else why they were not appended, or
        (NOT_ENOUGH_REPLICAS_AFTER_APPEND, NOT_LEADER_OR_FOLLOWER, REQUEST_TIMED_OUT, KAFKA_STORAGE_ERROR) that
        nobody knows whether they will be committed."""
        shared = self._table.shared
        replica, leader = tenure.replica, tenure.replica.leader
        if not tenure.holds or leader is None or not self._table.has_fresh_contact(leader):
            done(ErrorCode.NOT_LEADER_OR_FOLLOWER)
            return
        refused = leader.append_refusal(ACKS_ALL)
        if refused is not None:
            done(refused)
            return
        try:
            info = replica.log.append_as_leader(records, leader.leader_epoch, origin_client=False)
            replica.appended(shared.clock.monotonic())
        except BrokerError as error:
            done(error.error)
            return
        except InvariantViolation as error:
            shared.fatal(f"append to {replica!r}", error)
            done(ErrorCode.UNKNOWN_SERVER_ERROR)
            return
        needed = info.last_offset + 1
        if needed <= replica.high_watermark:
            done(leader.acks_all_outcome())
        else:
            self._park(replica, needed, timeout_s, done)

    def when_committed(self, tenure: Tenure, offset: int, timeout_s: float) -> Deferred[None]:
        """Fires when the high watermark is at ``offset``, or the tenure is over, or so much time."""
        if not tenure.holds or tenure.replica.high_watermark >= offset:
            return succeed(None)
        waited: Deferred[None] = Deferred()
        self._park(tenure.replica, offset, timeout_s, lambda _: waited.callback(None))
        return waited

    def _park(self, replica: Replica, offset: int, timeout_s: float, done: Callable[[ErrorCode], None]) -> None:
        answer = ProducedRow(*replica.partition, ErrorCode.NONE)
        parked = ParkedProduce(self._table.shared.deadlines, lambda rows: done(rows[0].error), [answer])
        parked.wait_for(0)
        replica.produce_waiters.add(offset, parked, 0)
        parked.park(timeout_s)

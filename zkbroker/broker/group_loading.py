"""A new leader of a partition of ``__consumer_offsets`` learns what the log says of its groups.

All that the log held when this broker was elected is read, also what lies above the high watermark: it may be
acknowledged, and the last leader knew. But whether it is committed only the replicas tell, so nothing of it is shown to
anybody before the high watermark has passed it: shown earlier, an offset could be gone again with this leader. Until
then the groups are loading. (Kafka serves at once what it found.) That takes no longer than the followers need for
their next fetch; where the ISR is smaller than ``min.insync.replicas`` commits and rebalances would fail as well.

Of records with the same key only the last is decoded, as if the log were compacted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from zkbroker.broker.coordinator_log import CoordinatorLog
from zkbroker.broker.replica import Tenure
from zkbroker.broker.slices import Steps
from zkbroker.coordinator.effects import Now
from zkbroker.coordinator.shard import GroupShard
from zkbroker.log.log import Log, LogRead
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.records.batch import HEADER_BYTES, BatchHeader, crc_of, read_header
from zkbroker.records.record import end_transaction_of, plain_body, records_in

RECORDS_AT_ONCE = 16
"""Between two looks at the clock: a tenth of a millisecond."""

INLINE_BYTES_MAX = 32 * 1024
"""A compressed batch up to this size is unpacked on the reactor thread, a larger one in another."""

READ_BYTES_MAX = 512 * 1024
"""Read from the page cache at once, whatever ``offsets.load.buffer.size`` is: a copy of more would take longer than a
slice."""

WAIT_S = 5.0
"""How long the high watermark is waited for before the tenure is looked at again, which ends the wait at once."""

RETRY_S = 1.0
"""After a read that failed and did not take the folder offline: too many files were open."""

_R = TypeVar("_R")


class _Marker:
    """Stands in the order of the records for the end of a transaction."""

    __slots__ = ("is_committed", "producer_id")

    def __init__(self, producer_id: int, is_committed: bool) -> None:
        self.producer_id = producer_id
        self.is_committed = is_committed


class _InTransaction:
    """… for a record of one that may be open."""

    __slots__ = ("key", "producer_id", "value")

    def __init__(self, key: bytes | None, value: bytes | None, producer_id: int) -> None:
        self.key = key
        self.value = value
        self.producer_id = producer_id


class GroupLoading:
    """One partition, for one tenure. ``steps`` is for ``Slices``; at its end ``loaded`` is called, unless the tenure
    is over."""

    def __init__(
        self,
        *,
        tenure: Tenure,
        shard: GroupShard,
        coordinator_log: CoordinatorLog,
        buffer_bytes: int,
        sleep: Callable[[float], Deferred[None]],
        now: Callable[[], Now],
        loaded: Callable[[], None],
        log: Callable[[str], None],
    ) -> None:
        self._tenure = tenure
        self._shard = shard
        self._coordinator_log = coordinator_log
        self._read_bytes = min(buffer_bytes, READ_BYTES_MAX)
        self._sleep = sleep
        self._now = now
        self._loaded = loaded
        self._log_line = log
        self._log: Log = tenure.replica.log
        self._position = self._log.log_start_offset
        self._end = self._log.log_end_offset
        self._latest: dict[bytes | _Marker | _InTransaction | None, bytes | None] = {}
        """By key, in the order of the last records; transactions are objects of their own, which never meet."""
        self._is_waiting = False
        self._complaint = ""
        """What was logged last: it is tried again and again."""

    def __repr__(self) -> str:
        """For people."""
        partition = self._tenure.replica.partition
        if self._is_waiting:
            return f"{partition} waits until its replicas have all up to offset {self._end}"
        return f"{partition} at offset {self._position} of {self._end}"

    def steps(self) -> Steps:
        while self._tenure.holds and self._position < self._end:
            yield from self._read_some()
        yield from self._replay()
        while self._tenure.holds and not self._shard.take_up():
            yield None
        while self._tenure.holds and self._tenure.replica.high_watermark < self._end:
            self._is_waiting = True
            yield self._coordinator_log.when_committed(self._tenure, self._end, WAIT_S)
        while self._tenure.holds and not self._shard.expect_members(self._now()):
            yield None
        if self._tenure.holds:
            self._loaded()

    # Reading

    def _read_some(self) -> Steps:
        """The next chunk. What it costs is the reader's time, not the disk's: that is waited for in a thread."""
        # A compaction may have taken what was there, and moved the beginning.
        self._position = max(self._position, self._log.log_start_offset)
        try:
            read = self._log.read(self._position, self._read_bytes, self._end)
            if read is None:
                later: Deferred[LogRead] = self._log.read_later(self._position, self._read_bytes, self._end)
                found: list[LogRead | Failure] = []
                yield later.addBoth(found.append)
                read = _or_raise(found[0])
        except BrokerError as error:
            line = f"{self._tenure.replica.partition} cannot be read now, its groups wait: {error}"
            if line != self._complaint:
                self._complaint = line
                self._log_line(line)
            yield self._sleep(RETRY_S)
            return
        if read.size == 0:
            # Nothing is left below the end.
            self._position = self._end
            return
        for chunk in read.chunks:
            for place, header in _batches_of(chunk):
                if header.last_offset >= self._position:
                    yield from self._take_batch(chunk, place, header)
        self._position = read.next_offset

    def _take_batch(self, chunk: bytes | memoryview, place: int, header: BatchHeader) -> Steps:
        try:
            if header.magic != 2:
                raise BrokerError(ErrorCode.CORRUPT_MESSAGE, f"it has magic {header.magic}")
            if crc_of(chunk, place, header.size) != header.crc:
                raise BrokerError(ErrorCode.CORRUPT_MESSAGE, "its CRC does not match")
            if header.is_control:
                marker = end_transaction_of(chunk, header, place)
                if marker is not None:
                    self._latest[_Marker(header.producer_id, marker.committed)] = None
                return
            if header.codec == 0 or header.size <= INLINE_BYTES_MAX:
                body = plain_body(chunk, header, place)
            else:
                unpacked: list[bytes | Failure] = []
                batch = bytes(memoryview(chunk)[place : place + header.size])
                run: Deferred[bytes] = self._log.context.run_in_thread(plain_body, batch, header)
                yield run.addBoth(unpacked.append)
                body = _or_raise(unpacked[0])
            yield from self._take_records(body, header)
        except BrokerError as error:
            # Kafka would stop here and go on as if the rest of the log were empty.
            self._log_line(
                f"{self._tenure.replica.partition}: the batch at offset {header.base_offset} is left out: {error}"
            )

    def _take_records(self, body: bytes, header: BatchHeader) -> Steps:
        latest = self._latest
        is_transactional = header.is_transactional
        for count, record in enumerate(records_in(body, header), 1):
            if is_transactional:
                latest[_InTransaction(record.key, record.value, header.producer_id)] = None
            else:
                latest.pop(record.key, None)
                latest[record.key] = record.value
            if count % RECORDS_AT_ONCE == 0:
                yield None
        yield None

    # Replaying

    def _replay(self) -> Steps:
        shard = self._shard
        for count, (key, value) in enumerate(_emptied(self._latest), 1):
            if isinstance(key, _Marker):
                shard.transaction_ended(key.producer_id, is_committed=key.is_committed)
            elif isinstance(key, _InTransaction):
                shard.replay(key.key, key.value, key.producer_id)
            else:
                shard.replay(key, value)
            if count % RECORDS_AT_ONCE == 0:
                yield None
                if not self._tenure.holds:
                    return
        while self._tenure.holds and not shard.take_up():
            yield None


def _batches_of(chunk: bytes | memoryview) -> Iterator[tuple[int, BatchHeader]]:
    """(place, header) of each, by what their headers say of their sizes; nothing else about them is looked at."""
    place = 0
    while place + HEADER_BYTES <= len(chunk):
        header = read_header(chunk, place)
        if header.size < HEADER_BYTES or place + header.size > len(chunk):
            return
        yield place, header
        place += header.size


def _or_raise(result: _R | Failure) -> _R:
    if isinstance(result, Failure):
        raise result.value or RuntimeError("it failed without a reason")
    return result


def _emptied(
    found: dict[bytes | _Marker | _InTransaction | None, bytes | None],
) -> Iterator[tuple[bytes | _Marker | _InTransaction | None, bytes | None]]:
    """Its items in order. Not removed one by one: a dictionary emptied from its front is walked anew each time."""
    yield from found.items()
    found.clear()

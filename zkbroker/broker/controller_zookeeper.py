"""The controller's hands in ZooKeeper: writes fenced by the controller epoch, and readings that are level-triggered."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults, inlineCallbacks, succeed
from twisted.python.failure import Failure

from zkbroker.controller.effects import CREATE, StateWrite
from zkbroker.controller.office import Deposed
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.zookeeper.client import (
    Check,
    ConnectionLossError,
    Create,
    Delete,
    MultiError,
    MultiResult,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    Op,
    SetData,
    Stat,
    ZooKeeperClient,
)
from zkbroker.zookeeper.znodes import admin as admin_znode
from zkbroker.zookeeper.znodes import brokers as broker_znode
from zkbroker.zookeeper.znodes import config as config_znode
from zkbroker.zookeeper.znodes import controller as controller_znode
from zkbroker.zookeeper.znodes import states as state_znode
from zkbroker.zookeeper.znodes import topics as topic_znode
from zkbroker.zookeeper.znodes.codec import ZnodeError

OPS_COUNT_MAX = 100
"""Operations in one multi, the check not counted: ten multis for 1,000 states were as fast as ZooKeeper gets, and
all stay far below its 1 MiB per request."""

RETRY_AFTER_S = 0.1
"""A call that failed though the connection is there is tried again after this."""

T = TypeVar("T")
Found = tuple[TopicPartition, PartitionState | None]


@inlineCallbacks
def gather(calls: Iterable[Deferred[T]]) -> Generator[Deferred[Any], Any, list[T]]:
    """All results, in order; fails with the first failure itself."""
    try:
        results: list[T] = yield gatherResults(calls, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()
    return results


class Look:
    """Level-triggered: ``again`` says that something may have changed, and it is read once more; never twice at a
    time. A lost connection is no failure: the owner calls ``again`` on RECONNECTED."""

    __slots__ = ("_busy", "_closed", "_failed", "_more", "_reactor", "_read", "_zk")

    def __init__(
        self,
        read: Callable[[], Deferred[None]],
        *,
        zk: ZooKeeperClient,
        reactor: Any,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._read = read
        self._zk = zk
        self._reactor = reactor
        self._failed = failed
        self._busy = False
        self._more = False
        self._closed = False

    def again(self) -> None:
        """Also the watch: the same bound method each time, so that a client can tell it is registered already."""
        if self._closed:
            return
        if self._busy:
            self._more = True
            return
        self._busy = True
        self._read().addCallbacks(self._done, self._lost)

    def close(self) -> None:
        self._closed = True

    def _done(self, _: None) -> None:
        self._busy = False
        if self._more:
            self._more = False
            self.again()

    def _lost(self, failure: Failure) -> None:
        self._busy = False
        self._more = False
        if self._closed:
            return
        if failure.check(ConnectionLossError) is None:
            self._failed(failure.value or RuntimeError(str(failure)))
        elif self._zk.is_connected:
            self._reactor.callLater(RETRY_AFTER_S, self.again)


class FencedWriter:
    """Every write of one term: a multi that begins with a check of ``/controller_epoch`` at the version of this term.

    While the connection is away writes wait; one whose outcome is unknown is read again, never repeated blindly.
    """

    def __init__(
        self, zk: ZooKeeperClient, epoch_version: int, reactor: Any, unreadable: Callable[[str], None]
    ) -> None:
        """``unreadable(topic)`` is told of a topic with a state that does not decode, before the write's outcome."""
        self._zk = zk
        self._reactor = reactor
        self._unreadable = unreadable
        self._fence = Check(controller_znode.EPOCH_PATH, epoch_version)
        self._paused: list[Deferred[None]] | None = None
        self._closed = False

    def pause(self) -> None:
        """The connection is away."""
        if self._paused is None:
            self._paused = []

    def resume(self) -> None:
        waiting, self._paused = self._paused, None
        for deferred in waiting or ():
            deferred.callback(None)

    def close(self) -> None:
        """The term is over: nothing is written any more, what waits is dropped."""
        self._closed = True
        self._paused = []

    def connected(self) -> Deferred[None]:
        """Fires when writes may go; never after ``close``."""
        if self._paused is None:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._paused.append(waiting)
        return waiting

    @inlineCallbacks
    def write(self, ops: Sequence[Op]) -> Generator[Deferred[Any], Any, list[MultiResult]]:
        """One fenced multi. Raises Deposed, MultiError (index counted without the check), ConnectionLossError."""
        yield self.connected()
        try:
            results: list[MultiResult] = yield self._zk.multi([self._fence, *ops])
        except MultiError as error:
            if error.index == 0:
                raise Deposed(f"/controller_epoch moved on from version {self._fence.version}") from error
            raise MultiError(error.index - 1, error.error) from error
        return results[1:]

    @inlineCallbacks
    def write_all(self, ops: Sequence[Op]) -> Generator[Deferred[Any], Any, None]:
        """Each on its own, repeated until it is there: creates that exist and deletes of what is gone are done. What
        somebody put below a znode goes with it, as in Kafka: a deletion that fails would cost one office after another.
        """
        for op in ops:
            while True:
                try:
                    yield self.write([op])
                except ConnectionLossError:
                    yield self.breathe()
                    continue
                except MultiError as error:
                    if isinstance(error.error, NotEmptyError):
                        yield self._delete_below(op.path)
                        continue
                    if not isinstance(error.error, (NodeExistsError, NoNodeError)):
                        raise error.error from error
                break

    @inlineCallbacks
    def _delete_below(self, path: str) -> Generator[Deferred[Any], Any, None]:
        try:
            names: list[str] = yield self._zk.children(path)
        except (NoNodeError, ConnectionLossError):
            yield self.breathe()
            return
        yield self.write_all([Delete(f"{path}/{name}") for name in names])

    def write_states(self, writes: Sequence[StateWrite]) -> list[Deferred[list[Found]]]:
        """Write each; several multis are under way at a time. Each gives what ZooKeeper holds then."""
        return [self._write_chunk(chunk) for chunk in self._chunks(writes)]

    @staticmethod
    def _chunks(writes: Sequence[StateWrite]) -> list[list[StateWrite]]:
        chunks: list[list[StateWrite]] = []
        size = OPS_COUNT_MAX
        for write in writes:
            cost = 2 if write.expected_version == CREATE else 1
            if size + cost > OPS_COUNT_MAX:
                chunks.append([])
                size = 0
            chunks[-1].append(write)
            size += cost
        return chunks

    @inlineCallbacks
    def fence_broker(
        self, broker_id: int, broker_epoch: int, writes: Sequence[StateWrite]
    ) -> Generator[Deferred[Any], Any, tuple[bool, list[Found]]]:
        """Delete that incarnation's registration and write the states in the same multi. Gives whether the registration
        is gone (it may have gone by itself, or made place for a newer one), and what ZooKeeper holds then.

        A znode's version says nothing about its incarnation, so its czxid is compared first. Should a newer one take
        its place in that millisecond, it loses its registration and makes it again. While the connection is away
        nothing is written: by the time it is back the evidence is old."""
        path = broker_znode.broker_path(broker_id)
        states = [op for write in writes for op in state_ops(write)]
        # A state that is not as it was thought fails the multi: then what can be written is written one by one.
        for ops in (states, []) if states else ([],):
            try:
                stat: Stat | None = (yield self._zk.exists(path)) if self._paused is None else None
                if stat is None or stat.czxid != broker_epoch:
                    break
                yield self.write([Delete(path, stat.version), *ops])
                if ops or not writes:
                    return True, [(write.partition, write.state) for write in writes]
                break
            except ConnectionLossError:
                yield self.overtake()
                break
            except MultiError as error:
                if error.index == 0:
                    break
        stat = yield self._existing(path)
        is_gone = stat is None or stat.czxid != broker_epoch
        if is_gone:
            chunks: list[list[Found]] = yield gather([self._write_chunk([write]) for write in writes])
            return True, [found for chunk in chunks for found in chunk]
        held: list[PartitionState | None] = yield gather([self.read_state(write) for write in writes])
        return False, [(write.partition, state) for write, state in zip(writes, held, strict=True)]

    @inlineCallbacks
    def _existing(self, path: str) -> Generator[Deferred[Any], Any, Stat | None]:
        while True:
            yield self.connected()
            try:
                stat: Stat | None = yield self._zk.exists(path)
            except ConnectionLossError:
                yield self.breathe()
                continue
            return stat

    @inlineCallbacks
    def _write_chunk(self, chunk: list[StateWrite]) -> Generator[Deferred[Any], Any, list[Found]]:
        ops = [op for write in chunk for op in state_ops(write)]
        try:
            try:
                yield self.write(ops)
            except MultiError as error:
                if not isinstance(error.error, NoNodeError) or chunk[0].expected_version != CREATE:
                    raise
                topics = dict.fromkeys(write.partition.topic for write in chunk)
                yield self.write_all([Create(topic_znode.partitions_path(topic), b"") for topic in topics])
                yield self.write(ops)
            return [(write.partition, write.state) for write in chunk]
        except (MultiError, ConnectionLossError) as error:
            if isinstance(error, ConnectionLossError) or len(chunk) == 1:
                found: list[Found] = yield self._find(chunk, isinstance(error, ConnectionLossError))
                return found
        singly: list[list[Found]] = yield gather([self._write_chunk([write]) for write in chunk])
        return [found for part in singly for found in part]

    @inlineCallbacks
    def _find(self, chunk: list[StateWrite], unknown_outcome: bool) -> Generator[Deferred[Any], Any, list[Found]]:
        if not unknown_outcome and chunk[0].expected_version == CREATE:
            partition = chunk[0].partition
            path = topic_znode.partition_path(partition.topic, partition.partition)
            found = yield self.read_state(chunk[0])
            if found is None:  # only the folder above exists, or it doesn't either
                yield self.write_all([Create(topic_znode.partitions_path(partition.topic), b""), Create(path, b"")])
                try:
                    yield self.write([state_ops(chunk[0])[-1]])
                except (MultiError, ConnectionLossError):
                    pass
        if unknown_outcome:
            yield self.overtake()
        states: list[PartitionState | None] = yield gather([self.read_state(write) for write in chunk])
        return [(write.partition, state) for write, state in zip(chunk, states, strict=True)]

    @inlineCallbacks
    def overtake(self) -> Generator[Deferred[Any], Any, None]:
        """After a lost connection a write may still be on its way through the ensemble, and the server that is asked
        now may not have it yet. An ISR change that is believed to have failed and is written after all would be
        counted by nobody. Another write, even of nothing, is answered only when all earlier ones are there."""
        while True:
            try:
                yield self.write([])
                return
            except ConnectionLossError:
                yield self.breathe()

    @inlineCallbacks
    def read_state(self, write: StateWrite) -> Generator[Deferred[Any], Any, PartitionState | None]:
        """What is there instead of, or because of, ``write``; None also if it does not decode, then ``unreadable`` is
        told of its topic."""
        path = state_znode.state_path(write.partition.topic, write.partition.partition)
        while True:
            yield self.connected()
            try:
                data, stat = yield self._zk.get(path)
            except NoNodeError:
                return None
            except ConnectionLossError:
                yield self.breathe()
                continue
            try:
                found = state_znode.decode(path, data, stat.version)
            except ZnodeError:
                if not self._closed:
                    self._unreadable(write.partition.topic)
                return None
            return write.state._replace(**found._asdict())

    @inlineCallbacks
    def delete_topic(self, topic: str, numbers: Sequence[int]) -> Generator[Deferred[Any], Any, None]:
        """States first, the admin marker last: a successor that finds the marker goes on where this one stopped."""
        names = [str(number) for number in numbers]
        partitions = topic_znode.partitions_path(topic)
        try:
            listed: list[str] = yield self._zk.children(partitions)
            names = [*dict.fromkeys([*listed, *names])]
        except (NoNodeError, ConnectionLossError):
            pass
        ops: list[Op] = []
        for name in names:
            ops += [Delete(f"{partitions}/{name}/state"), Delete(f"{partitions}/{name}")]
        ops += [Delete(partitions), Delete(topic_znode.topic_path(topic)), Delete(config_znode.topic_path(topic))]
        ops.append(Delete(admin_znode.delete_topic_path(topic)))
        for start in range(0, len(ops), OPS_COUNT_MAX):
            chunk = ops[start : start + OPS_COUNT_MAX]
            try:
                yield self.write(chunk)
            except (MultiError, ConnectionLossError):
                yield self.write_all(chunk)  # some are gone already

    def breathe(self) -> Deferred[None]:
        """Fires when it is time to try again what failed."""
        waiting: Deferred[None] = Deferred()
        self._reactor.callLater(RETRY_AFTER_S, waiting.callback, None)
        return waiting


def state_ops(write: StateWrite) -> list[Op]:
    """What writes that state if it is still the expected one."""
    topic, partition = write.partition
    path = state_znode.state_path(topic, partition)
    data = state_znode.encode(write.state)
    if write.expected_version == CREATE:
        return [Create(topic_znode.partition_path(topic, partition), b""), Create(path, data)]
    return [SetData(path, data, write.expected_version)]

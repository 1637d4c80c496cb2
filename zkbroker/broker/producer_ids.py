"""Producer ids for idempotent producers, from blocks claimed in ``/latest_producer_id_block``."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.python.failure import Failure

from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.zookeeper.client import BadVersionError, NodeExistsError, NoNodeError, ZooKeeperClient, ZooKeeperError
from zkbroker.zookeeper.znodes import ZnodeError
from zkbroker.zookeeper.znodes import producer_ids as znode
from zkbroker.zookeeper.znodes.codec import INT64_MAX

CLAIM_ATTEMPTS_MAX = 20
"""Tries of one compare-and-set round before the client is told to come again; brokers rarely collide twice."""


class ProducerIds:
    """Fills ``kafka.ports.ProducerIdPort``: gives each id once, whatever happens to this process.

    A block whose claim ended unknown (connection lost) is left unused: ids are plentiful, duplicates are not.
    """

    def __init__(self, *, broker_id: int, zk: ZooKeeperClient) -> None:
        self._broker_id = broker_id
        self._zk = zk
        self._next_id = 0
        self._end_id = -1
        self._waiting: deque[Deferred[tuple[int, int]]] = deque()
        self._claiming = False

    def __repr__(self) -> str:
        return f"ProducerIds(next={self._next_id} end={self._end_id} waiting={len(self._waiting)})"

    def init_producer_id(
        self, transactional_id: str | None, producer_id: int, producer_epoch: int
    ) -> Deferred[tuple[int, int]]:
        """A new id with epoch 0. Without a transactional id Kafka, too, ignores the pair that the client holds."""
        result: Deferred[tuple[int, int]] = Deferred()
        if transactional_id is not None:
            result.errback(Failure(BrokerError(ErrorCode.INVALID_REQUEST, "transactions are not supported yet")))
            return result
        self._waiting.append(result)
        self._serve()
        return result

    def _serve(self) -> None:
        while self._waiting and self._next_id <= self._end_id:
            given = self._next_id
            self._next_id += 1
            self._waiting.popleft().callback((given, 0))
        if self._waiting and not self._claiming:
            self._claiming = True
            self._claim().addCallbacks(self._claimed, self._claim_failed)

    def _claimed(self, block: tuple[int, int]) -> None:
        self._claiming = False
        self._next_id, self._end_id = block
        self._serve()

    def _claim_failed(self, failure: Failure) -> None:
        self._claiming = False
        failure.trap(ZooKeeperError, BrokerError, ZnodeError)
        waiting, self._waiting = self._waiting, deque()
        # Retriable in every client, and true: whoever hands out ids cannot be asked now. A person must mend a znode of
        # garbage, and clients go on when that is done.
        for deferred in waiting:
            deferred.errback(Failure(BrokerError(ErrorCode.COORDINATOR_NOT_AVAILABLE, failure.getErrorMessage())))

    @inlineCallbacks
    def _claim(self) -> Generator[Deferred[Any], Any, tuple[int, int]]:
        for _ in range(CLAIM_ATTEMPTS_MAX):
            try:
                data, stat = yield self._zk.get(znode.PATH)
            except NoNodeError:
                start = 0
                try:
                    yield self._zk.create(znode.PATH, znode.encode(self._block(start)))
                except NodeExistsError:
                    continue
                return start, start + znode.BLOCK_SIZE - 1
            start = znode.decode(data).block_end + 1 if data else 0
            if start > INT64_MAX - znode.BLOCK_SIZE + 1:
                raise BrokerError(ErrorCode.UNKNOWN_SERVER_ERROR, f"{znode.PATH}: all producer ids are used up")
            try:
                yield self._zk.set(znode.PATH, znode.encode(self._block(start)), stat.version)
            except BadVersionError:
                continue
            return start, start + znode.BLOCK_SIZE - 1
        raise BrokerError(ErrorCode.COORDINATOR_NOT_AVAILABLE, "other brokers keep claiming producer ids")

    def _block(self, start: int) -> znode.ProducerIdBlock:
        return znode.ProducerIdBlock(self._broker_id, start, start + znode.BLOCK_SIZE - 1)

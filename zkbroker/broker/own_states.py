"""While the controller is silent a leader asks ZooKeeper itself whether it still leads.

The controller can move a leadership away from a broker that lives: its peers cannot reach it, or it was suspected
falsely. If the way from the controller to that broker is cut too, the delta does not arrive; and since its ZooKeeper
session lives, the contact rule lets it answer acks ≤ 1 and reads for as long as the cut lasts, into a log that nobody
follows any more. ZooKeeper knows better, and answers this broker.

What is found is only ever obeyed by stepping down: a higher leader epoch under another leader. Roles are given by the
controller alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.python.failure import Failure

from zkbroker.broker.controller_zookeeper import gather
from zkbroker.model.clock import Clock
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.zookeeper.client import Stat, ZooKeeperClient, ZooKeeperError
from zkbroker.zookeeper.znodes import ZnodeError
from zkbroker.zookeeper.znodes import states as state_znode

SILENT_SHARE = 1 / 3
"""Of the session timeout: a controller whose heartbeat answers, one each quarter, are older than that is silent."""

PERIOD_SHARE = 1 / 10
"""Of the session timeout, between two looks."""

READS_AT_ONCE = 200

States = Sequence[tuple[TopicPartition, PartitionState]]


class OwnStates:
    """``led()``: what this broker leads, with the state it goes by; ``controller_age()``: seconds since the controller
    was heard; ``deposed`` is given the states under which others lead. ``out_of_touch`` is told again and again that
    neither the controller nor ZooKeeper is heard, and once that one of them is again."""

    def __init__(
        self,
        *,
        broker_id: int,
        reactor: Any,
        clock: Clock,
        zk: ZooKeeperClient,
        session_timeout_s: float,
        led: Callable[[], States],
        controller_age: Callable[[], float],
        deposed: Callable[[States], None],
        log: Callable[[str], None],
        out_of_touch: Callable[[bool], None] = lambda is_out: None,
    ) -> None:
        self._broker_id = broker_id
        self._reactor = reactor
        self._clock = clock
        self._zk = zk
        self._session_timeout_s = session_timeout_s
        self._led = led
        self._controller_age = controller_age
        self._deposed = deposed
        self._tell_out_of_touch = out_of_touch
        self._is_out_of_touch = False
        self._log = log
        self._call: Any = None
        self._is_stopped = False

    def start(self) -> None:
        self._later()

    def stop(self) -> None:
        self._is_stopped = True
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    def _later(self) -> None:
        if not self._is_stopped:
            self._call = self._reactor.callLater(self._session_timeout_s * PERIOD_SHARE, self._look)

    def _look(self) -> None:
        is_silent = self._controller_age() > self._session_timeout_s * SILENT_SHARE
        is_out = is_silent and not self._zk.is_connected
        if is_out or self._is_out_of_touch:
            self._is_out_of_touch = is_out
            self._tell_out_of_touch(is_out)
        if not is_silent or is_out:
            self._later()
            return
        looked: Deferred[None] = self._read_all()
        looked.addErrback(self._failed)
        looked.addCallback(lambda _: self._later())

    @inlineCallbacks
    def _read_all(self) -> Generator[Deferred[Any], Any, None]:
        led = list(self._led())
        for start in range(0, len(led), READS_AT_ONCE):
            some = led[start : start + READS_AT_ONCE]
            reads = [self._zk.get(state_znode.state_path(*partition)).addErrback(_unread) for partition, _ in some]
            got: list[tuple[bytes, Stat] | None] = yield gather(reads)
            found = [
                (partition, after)
                for (partition, state), one in zip(some, got, strict=True)
                if one is not None and (after := self._other_leader(partition, state, *one)) is not None
            ]
            if self._is_stopped:
                return
            if found:
                self._log(f"the controller is silent, and ZooKeeper says that others lead {len(found)} partitions now")
                self._deposed(found)

    def _other_leader(
        self, partition: TopicPartition, state: PartitionState, data: bytes, stat: Stat
    ) -> PartitionState | None:
        try:
            found = state_znode.decode(state_znode.state_path(*partition), data, stat.version)
        except ZnodeError:
            return None  # the controller leaves such a topic alone, and so do I
        if found.leader_epoch <= state.leader_epoch or found.leader == self._broker_id:
            return None
        return state._replace(
            leader=found.leader,
            leader_epoch=found.leader_epoch,
            isr=found.isr,
            partition_epoch=found.partition_epoch,
            controller_epoch=found.controller_epoch,
            recovering=found.recovering,
            elr=found.elr,
            reason=found.reason,
        )

    def _failed(self, failure: Failure) -> None:
        self._log(f"cannot ask ZooKeeper who leads: {failure.getTraceback()}")


def _unread(failure: Failure) -> None:
    """ZooKeeper is away, or the topic gone: the next period asks again."""
    failure.trap(ZooKeeperError)

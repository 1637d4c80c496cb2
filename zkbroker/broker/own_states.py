"""While the controller is silent a leader asks ZooKeeper itself what became of the partitions it leads.

The controller can move a leadership away from a broker that lives: its peers cannot reach it, or it was suspected
falsely. If the way from the controller to that broker is cut too, the delta does not arrive; and since its ZooKeeper
session lives, the contact rule lets it answer acks ≤ 1 and reads for as long as the cut lasts, into a log that nobody
follows any more. Or the controller takes a follower out of the ISR (it died, or cannot reach this leader: the
controller's own broker, when these two do not hear each other) and raises the leader epoch by that: the other followers
obey and are refused here, so acks=all would stop until the cut ends. ZooKeeper knows better, and answers this broker.

What is found is obeyed as the controller's delta with the same state would be: by stepping down, or by leading on. That
gives no leadership that this process did not have, and is as safe as the delta (invariant 4: the leader counts all that
ZooKeeper has in the ISR and the ELR, while its leader epoch is the current one):

- A znode holds nothing but what was committed, under its version, the partition epoch. A read may be old; so may a
  delta, and both are taken only if they are newer than what is known. When the epoch read is past, its followers have
  gone on to a later one and are refused here: nothing is acknowledged that they lack.
- Within a leader epoch nobody but its leader has the ISR changed. In an epoch that is read here for the first time this
  broker has proposed nothing yet, so ISR and ELR in the znode are those read, or the epoch is over. In the epoch it
  leads, a higher version is the outcome of its own proposal, whose answer was lost; until it is read the maximal ISR
  holds both outcomes.
- The controller names a leader for what its log holds. A process that started anew leads nothing, and so reads nothing:
  only one that still leads, by the same log, takes a higher epoch; a leadership that was dropped while ZooKeeper was
  asked (registration lost) or is another by now is left alone.
- A state znode does not say which topic of that name it belongs to: the topic's znode does, read after it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.python.failure import Failure

from zkbroker.broker.controller_zookeeper import gather
from zkbroker.model.clock import Clock
from zkbroker.model.topics import PartitionState, TopicPartition
from zkbroker.zookeeper.client import Stat, ZooKeeperClient, ZooKeeperError
from zkbroker.zookeeper.znodes import ZnodeError
from zkbroker.zookeeper.znodes import states as state_znode
from zkbroker.zookeeper.znodes import topics as topic_znode

SILENT_SHARE = 1 / 3
"""Of the session timeout: a controller whose heartbeat answers, one each quarter, are older than that is silent."""

PERIOD_SHARE = 1 / 10
"""Of the session timeout, between two looks."""

READS_AT_ONCE = 200

States = Sequence[tuple[TopicPartition, PartitionState]]


class OwnStates:
    """``led()``: what this broker leads, with the state it goes by; ``controller_age()``: seconds since the controller
    was heard; ``told`` is given newer states of what is led. ``out_of_touch`` is told again and again that neither the
    controller nor ZooKeeper is heard, and once that one of them is again. ``confirmed``: when ZooKeeper was asked about
    all that is led, and knew nothing newer or that was told."""

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
        told: Callable[[States], None],
        log: Callable[[str], None],
        out_of_touch: Callable[[bool], None] = lambda is_out: None,
        confirmed: Callable[[float], None] = lambda asked_at: None,
    ) -> None:
        self._broker_id = broker_id
        self._reactor = reactor
        self._clock = clock
        self._zk = zk
        self._session_timeout_s = session_timeout_s
        self._led = led
        self._controller_age = controller_age
        self._told = told
        self._tell_out_of_touch = out_of_touch
        self._is_out_of_touch = False
        self._confirmed = confirmed
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
        led, asked_at, is_whole = list(self._led()), self._clock.monotonic(), True
        for start in range(0, len(led), READS_AT_ONCE):
            some = dict(led[start : start + READS_AT_ONCE])
            newer, is_read = yield self._read_newer(some)
            is_whole = is_whole and is_read
            topics = yield self._read_topics({topic for (topic, _), found in newer.items() if self._is_mine(found)})
            if self._is_stopped:
                return
            still = dict(self._led())
            others: list[tuple[TopicPartition, PartitionState]] = []
            mine: list[tuple[TopicPartition, PartitionState]] = []
            for partition, found in newer.items():
                state = still.get(partition)
                if state is None or state.topic_id != some[partition].topic_id or not self._is_newer(found, state):
                    continue  # the controller was faster, or the registration was lost meanwhile
                if not self._is_mine(found):
                    others.append((partition, _under_other(state, found)))
                elif (led_on := self._led_on(partition, state, found, topics)) is not None:
                    mine.append((partition, led_on))
            self._tell(others, f"others lead {len(others)} partitions now")
            self._tell(mine, f"the state of {len(mine)} partitions led here is another now")
        if is_whole:
            self._confirmed(asked_at)

    def _tell(self, states: States, what: str) -> None:
        if states:
            self._log(f"the controller is silent, and ZooKeeper says that {what}")
            self._told(states)

    @inlineCallbacks
    def _read_newer(
        self, some: Mapping[TopicPartition, PartitionState]
    ) -> Generator[Deferred[Any], Any, tuple[dict[TopicPartition, state_znode.LeaderAndIsr], bool]]:
        """What is newer, and whether all could be read."""
        reads = [self._zk.get(state_znode.state_path(*partition)).addErrback(_unread) for partition in some]
        got: list[tuple[bytes, Stat] | None] = yield gather(reads)
        newer = {}
        for (partition, state), one in zip(some.items(), got, strict=True):
            if one is None:
                continue
            try:
                found = state_znode.decode(state_znode.state_path(*partition), one[0], one[1].version)
            except ZnodeError:
                continue  # the controller leaves such a topic alone, and so do I
            if self._is_newer(found, state):
                newer[partition] = found
        return newer, all(one is not None for one in got)

    @inlineCallbacks
    def _read_topics(
        self, names: Iterable[str]
    ) -> Generator[Deferred[Any], Any, dict[str, topic_znode.TopicAssignment]]:
        topics = {}
        ordered = sorted(names)
        reads = [self._zk.get(topic_znode.topic_path(name)).addErrback(_unread) for name in ordered]
        got: list[tuple[bytes, Stat] | None] = yield gather(reads)
        for name, one in zip(ordered, got, strict=True):
            with contextlib.suppress(ZnodeError):
                if one is not None:
                    topics[name] = topic_znode.decode(topic_znode.topic_path(name), one[0])
        return topics

    def _is_mine(self, found: state_znode.LeaderAndIsr) -> bool:
        return found.leader == self._broker_id

    def _is_newer(self, found: state_znode.LeaderAndIsr, known: PartitionState) -> bool:
        """A leader epoch has one leader: what says otherwise was written by hand."""
        if found.leader_epoch == known.leader_epoch:
            return self._is_mine(found) and found.partition_epoch > known.partition_epoch
        return found.leader_epoch > known.leader_epoch

    def _led_on(
        self,
        partition: TopicPartition,
        known: PartitionState,
        found: state_znode.LeaderAndIsr,
        topics: Mapping[str, topic_znode.TopicAssignment],
    ) -> PartitionState | None:
        """What this broker goes on leading by; None if that cannot be told."""
        assignment = topics.get(partition.topic)
        if assignment is None or assignment.topic_id != known.topic_id:
            return None
        if partition.partition not in assignment.partitions:
            return None
        state = state_znode.partition_state(assignment, partition.partition, found)
        return state if set(state.isr) <= set(state.replicas) else None

    def _failed(self, failure: Failure) -> None:
        self._log(f"cannot ask ZooKeeper what is led here: {failure.getTraceback()}")


def _under_other(known: PartitionState, found: state_znode.LeaderAndIsr) -> PartitionState:
    """Where it belongs does not matter for stepping down."""
    return known._replace(
        leader=found.leader,
        leader_epoch=found.leader_epoch,
        isr=found.isr,
        partition_epoch=found.partition_epoch,
        controller_epoch=found.controller_epoch,
        recovering=found.recovering,
        elr=found.elr,
        reason=found.reason,
        leader_reason=found.leader_reason,
    )


def _unread(failure: Failure) -> None:
    """ZooKeeper is away, or the topic gone: the next period asks again."""
    failure.trap(ZooKeeperError)

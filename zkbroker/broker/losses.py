"""Replicas of this broker that may lack records: found at the start, and settled with the cluster.

The list (``log/losses.py``) stands in ``/brokers/ids/N``. While a replica is on it no controller elects it, lets it
into an ISR or leaves it in an ISR or ELR that anybody else can hold. It comes off the list when nothing in ZooKeeper
counts on what it lost: the controller told a state with a leader and without it, a fenced write shows that it was in
office then, and the replica has followed that leader to where it stands. (A leader that answers nobody may be dead
itself, or come back with a loss: then what is left of each is what a person chooses from.)
(A deposed controller may tell a state from before the replica joined the ISR. Whoever is in office tells what is in
ZooKeeper, and cannot have let the replica in, as it was on the list.) The durable list shrinks first, the registration
then; only then may the replica join an ISR again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from zkbroker.broker.controller_reading import ClusterReader
from zkbroker.log.dirs import LogDirs
from zkbroker.log.losses import Losses
from zkbroker.model.cluster import ClusterDelta, LossyReplica
from zkbroker.model.topics import NO_LEADER, PartitionState, TopicPartition
from zkbroker.zookeeper.client import Check, MultiError, NoNodeError, ZooKeeperClient, ZooKeeperError
from zkbroker.zookeeper.znodes import ZnodeError
from zkbroker.zookeeper.znodes import brokers as broker_znode
from zkbroker.zookeeper.znodes import controller as controller_znode
from zkbroker.zookeeper.znodes import states as state_znode
from zkbroker.zookeeper.znodes import topics as topic_znode

LOOK_S = 0.1
"""How often replicas are looked at that do not know yet what their leader has."""

RETRY_S = 1.0
"""Pause before a replica is settled that could not be: ZooKeeper was away, or the controller changed."""


@inlineCallbacks
def find_missing(
    zk: ZooKeeperClient, broker_id: int, logs: LogDirs, log: Callable[[str], None]
) -> Generator[Deferred[Any], Any, list[LossyReplica]]:
    """Assigned replicas that have a state and no log: the folder is new or was emptied, or the crash took it. Asked
    before the broker registers. Whether the state counts them in does not matter: until the last registration is known
    to be gone a leader's proposal to let one in, sent before the crash, may be written.

    A log that was never made is none of them: the broker stopped before it heard of the partition. Nor is one whose
    folder failed since it was loaded: what is left is known when the folder is back."""
    # a write, even of nothing, is answered only when the server that is asked has all earlier ones
    _, stat = yield zk.get(broker_znode.IDS_PATH)
    yield zk.multi([Check(broker_znode.IDS_PATH, stat.version)])
    reader = ClusterReader(zk, log)
    names: list[str] = yield zk.children(topic_znode.TOPICS_PATH)
    found = yield reader.get_all([topic_znode.topic_path(name) for name in names])
    wanted: dict[str, tuple[TopicPartition, str]] = {}
    unreadable: list[str] = []
    for name in names:
        path = topic_znode.topic_path(name)
        topic = reader.topic(name, found[path][0]) if path in found else None
        if topic is None:
            if path in found:
                unreadable.append(name)
            continue
        for number, replicas in topic.partitions.items():
            partition = TopicPartition(name, number)
            own = logs.get(partition)
            is_there = own is not None and (not own.topic_id or own.topic_id == topic.topic_id)
            if broker_id not in replicas or is_there or partition in logs.offline_partitions:
                continue
            if not logs.losses.was_never_made(partition, topic.topic_id):
                wanted[state_znode.state_path(name, number)] = partition, topic.topic_id
    states = yield reader.get_all(list(wanted))
    missing = [LossyReplica(*partition, topic_id, -1, -1) for partition, topic_id in map(wanted.__getitem__, states)]
    for name in unreadable:
        missing += yield _find_missing_of_unreadable(zk, reader, broker_id, logs, name)
    return missing


@inlineCallbacks
def _find_missing_of_unreadable(
    zk: ZooKeeperClient, reader: ClusterReader, broker_id: int, logs: LogDirs, topic: str
) -> Generator[Deferred[Any], Any, list[LossyReplica]]:
    """Of a topic whose znode does not decode: its states count this broker in all the same, and nobody asks again when
    somebody mends the znode."""
    try:
        names: list[str] = yield zk.children(topic_znode.partitions_path(topic))
    except NoNodeError:
        return []
    paths: dict[str, TopicPartition] = {}
    for name in names:
        partition = TopicPartition(topic, int(name)) if name.isascii() and name.isdigit() else None
        if partition is not None and logs.get(partition) is None and partition not in logs.offline_partitions:
            paths[state_znode.state_path(*partition)] = partition
    found = yield reader.get_all(list(paths))
    missing = []
    for path, (data, stat) in found.items():
        try:
            state = state_znode.decode(path, data, stat.version)
        except ZnodeError:
            state = None
        if state is None or broker_id in (*state.isr, *state.elr):
            missing.append(LossyReplica(*paths[path], "", -1, -1))
    return missing


class UnsettledLosses:
    """Takes replicas off the list of lossy ones. ``followed(partition)``: the replica here holds all that its present
    leader has committed. ``changed`` is called when the list is shorter."""

    def __init__(
        self,
        *,
        broker_id: int,
        zk: ZooKeeperClient,
        reactor: Any,
        losses: Losses,
        followed: Callable[[TopicPartition], bool],
        changed: Callable[[], object],
        log: Callable[[str], None],
    ) -> None:
        self._broker_id = broker_id
        self._zk = zk
        self._reactor = reactor
        self._losses = losses
        self._followed = followed
        self._changed = changed
        self._log = log
        self._controller_epoch = -1
        """Of the controller that told what follows."""
        self._following: dict[TopicPartition, None] = {}
        """Out of ISR and ELR, behind a leader that is still to be followed."""
        self._released: dict[TopicPartition, None] = {}
        """No state that this controller told counts on what they lost."""
        self._is_asking = False
        self._timer: Any = None
        self._is_stopped = False

    def __repr__(self) -> str:
        return f"UnsettledLosses({len(self._losses.replicas)} replicas, {len(self._released)} released)"

    def stop(self) -> None:
        self._is_stopped = True
        self._cancel_timer()

    def told(self, delta: ClusterDelta) -> None:
        """The controller told a snapshot or delta, which is applied."""
        if not self._losses.replicas:
            return
        if delta.controller_epoch != self._controller_epoch:
            self._controller_epoch = delta.controller_epoch
            self._released.clear()
            self._following.clear()
        states = dict(delta.partitions)
        topics = {partition.topic for partition in states}
        hidden = {*delta.unreadable_topics, *(deleted.topic for deleted in delta.deleted_replicas)}
        for partition, lossy in self._losses.replicas.items():
            state = states.get(partition)
            if state is not None:
                self._following.pop(partition, None)
                if self._is_settled(lossy, state):
                    self._released[partition] = None
                elif state.leader != NO_LEADER and self._broker_id not in (*state.isr, *state.elr):
                    self._following[partition] = None
            elif (partition.topic, lossy.topic_id) in delta.deleted_topics or (
                delta.is_snapshot and partition.topic not in topics and partition.topic not in hidden
            ):
                self._released[partition] = None
        self._settle()

    def _is_settled(self, lossy: LossyReplica, state: PartitionState) -> bool:
        """Whatever was lost: of another topic, of a replica that is not wanted any more, of the only one (nobody else
        holds, or ever will hold, more), or accepted by a person, who let it be elected uncleanly."""
        if lossy.topic_id and lossy.topic_id != state.topic_id:
            return True
        if state.replicas == (self._broker_id,) and not lossy.is_gone:
            # The controller elects it with what is left, if it knows so much: not of a list too long to be told.
            return True
        return self._broker_id not in state.replicas or (state.leader == self._broker_id and state.recovering)

    def _settle(self) -> None:
        if self._is_asking or self._is_stopped:
            return
        self._cancel_timer()
        for partition in [partition for partition in self._following if self._followed(partition)]:
            del self._following[partition]
            self._released[partition] = None
        if self._released:
            self._is_asking = True
            self._ask().addCallbacks(lambda _: LOOK_S, self._failed).addCallback(self._asked)
        elif self._following:
            self._timer = self._reactor.callLater(LOOK_S, self._settle)

    @inlineCallbacks
    def _ask(self) -> Generator[Deferred[Any], Any, None]:
        controller_epoch, released = self._controller_epoch, tuple(self._released)
        data, stat = yield self._zk.get(controller_znode.EPOCH_PATH)
        if controller_znode.decode_epoch(data) != controller_epoch:
            self._forget_released(controller_epoch)  # another controller will tell its own snapshot
            return
        yield self._zk.multi([Check(controller_znode.EPOCH_PATH, stat.version)])
        for partition in released:
            self._released.pop(partition, None)
        yield self._losses.forget(released)
        left = len(self._losses.replicas)
        self._log(f"{len(released)} replicas that lost records are settled, {left} are left")
        self._changed()

    def _forget_released(self, controller_epoch: int) -> None:
        if self._controller_epoch == controller_epoch:
            self._released.clear()

    def _failed(self, failure: Any) -> float:
        failure.trap(ZooKeeperError, ZnodeError)
        if failure.check(MultiError) is not None:
            self._forget_released(self._controller_epoch)
        return RETRY_S

    def _asked(self, pause_s: float) -> None:
        self._is_asking = False
        if (self._released or self._following) and not self._is_stopped:
            self._timer = self._reactor.callLater(pause_s, self._settle)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

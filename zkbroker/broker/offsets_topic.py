"""``__consumer_offsets``: made at the first need, and the leader of a group's partition of it coordinates the group."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from zkbroker.broker.metadata import ClusterMetadata
from zkbroker.coordinator.partitioning import partition_for
from zkbroker.kafka.group_ports import KEY_OF_GROUP, Coordinator
from zkbroker.model.channel import NewTopic, TopicResult
from zkbroker.model.errors import ErrorCode
from zkbroker.zookeeper.client import Stat, ZooKeeperClient
from zkbroker.zookeeper.znodes import topics as topic_znode

OFFSETS_TOPIC = "__consumer_offsets"


class OffsetsTopicSettings(NamedTuple):
    """``offsets.topic.*``: how the topic is made. Later it is what it is."""

    partitions: int = 50
    replication_factor: int = 3
    segment_bytes: int = 104_857_600

    def new_topic(self) -> NewTopic:
        configs = (
            ("cleanup.policy", "compact"),
            ("compression.type", "producer"),
            ("segment.bytes", str(self.segment_bytes)),
        )
        return NewTopic(OFFSETS_TOPIC, self.partitions, self.replication_factor, (), configs)


class OffsetsTopic:
    """Fills ``kafka.group_ports.CoordinatorPort``.

    How many partitions there are is read once from the topic's znode. The picture of the cluster may hold some of them
    only, while the topic is being made, and with another number groups would be looked for where they are not.
    """

    def __init__(
        self,
        *,
        metadata: ClusterMetadata,
        zk: ZooKeeperClient,
        create_topic: Callable[[NewTopic], Deferred[TopicResult]],
        settings: OffsetsTopicSettings,
        log: Callable[[str], None],
    ) -> None:
        self._metadata = metadata
        self._zk = zk
        self._create_topic = create_topic
        self._settings = settings
        self._log = log
        self._counted: tuple[str, int] = "", 0
        """Topic id, and its number of partitions."""
        self._is_reading = False
        self._is_creating = False
        self._complaint: str | None = None
        """What was logged last: clients ask several times a second."""

    def __repr__(self) -> str:
        return f"OffsetsTopic({self._counted[1]} partitions)"

    def partition_of(self, group_id: str) -> int | None:
        """The group's partition; None while there is no such topic, or nobody has said how many it has."""
        view = self._metadata.topic(OFFSETS_TOPIC)
        if view is None:
            return None
        topic_id, count = self._counted
        if topic_id != view.topic_id:
            self._read()
            return None
        return partition_for(group_id, count)

    def look(self) -> None:
        """The picture of the cluster changed: whoever asks first is not to wait for ZooKeeper."""
        view = self._metadata.topic(OFFSETS_TOPIC)
        if view is not None and view.topic_id != self._counted[0]:
            self._read()

    # CoordinatorPort

    def find(self, key_type: int, key: str) -> Coordinator:
        if key_type != KEY_OF_GROUP:
            return _nobody("there are no transaction coordinators yet")
        view = self._metadata.topic(OFFSETS_TOPIC)
        if view is None:
            self._create()
            return _nobody(f"{OFFSETS_TOPIC} is being created")
        partition = self.partition_of(key)
        if partition is None:
            return _nobody(f"the number of partitions of {OFFSETS_TOPIC} is not known yet")
        state = view.partitions.get(partition)
        if state is None or self._metadata.broker(state.leader) is None or self._metadata.is_doubted(state.leader):
            return _nobody(f"{OFFSETS_TOPIC}-{partition} has no leader now")
        return Coordinator(ErrorCode.NONE, state.leader)

    # Inside

    def _create(self) -> None:
        if self._is_creating or not self._metadata.is_ready:
            return
        alive, factor = len(self._metadata.live_brokers()), self._settings.replication_factor
        if alive < factor:
            self._complain(
                f"INVALID_REPLICATION_FACTOR {alive} brokers are alive, "
                f"offsets.topic.replication.factor asks for {factor}"
            )
            return
        self._is_creating = True
        self._create_topic(self._settings.new_topic()).addCallbacks(self._created, self._not_created)

    def _created(self, result: TopicResult) -> None:
        self._is_creating = False
        if result.error in (ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS):
            self._complaint = None
        else:
            self._complain(f"{result.error.name} {result.message or ''}".rstrip())

    def _not_created(self, failure: Failure) -> None:
        self._is_creating = False
        self._complain(failure.getErrorMessage())

    def _complain(self, why: str) -> None:
        if why != self._complaint:
            self._complaint = why
            self._log(f"topic {OFFSETS_TOPIC} could not be created, so there are no consumer groups: {why}")

    def _read(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            self._zk.get(topic_znode.topic_path(OFFSETS_TOPIC)).addCallback(self._was_read).addErrback(self._unread)

    def _was_read(self, got: tuple[bytes, Stat]) -> None:
        assignment = topic_znode.decode(topic_znode.topic_path(OFFSETS_TOPIC), got[0])
        self._is_reading = False
        if assignment.topic_id and assignment.partitions:
            self._counted = assignment.topic_id, len(assignment.partitions)

    def _unread(self, failure: Failure) -> None:
        """Whoever asks next has it read again."""
        self._is_reading = False
        self._complain_of_reading(failure.getErrorMessage())

    def _complain_of_reading(self, why: str) -> None:
        if why != self._complaint:
            self._complaint = why
            self._log(f"the partitions of {OFFSETS_TOPIC} could not be counted: {why}")


def _nobody(message: str) -> Coordinator:
    return Coordinator(ErrorCode.COORDINATOR_NOT_AVAILABLE, message=message)

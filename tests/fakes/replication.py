"""Leaders and followers whose log is a string of bytes: offset = position, one byte = one record."""

from __future__ import annotations

from zkbroker.model.channel import FollowerContact
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import TopicPartition
from zkbroker.replication.ports import (
    FetchedRow,
    FetcherPort,
    FetchRow,
    FetchSessionListener,
    Identity,
)

TOPIC_ID = "vX7sTBNpQpmL0ZpGhB2cYw"


def identity(broker_id: int, epoch: int = 0, cluster: str = "cluster") -> Identity:
    return Identity(cluster, broker_id, epoch or 100 + broker_id, f"incarnation{broker_id}")


class FakeLeader:
    """Fills LeaderPort."""

    def __init__(self) -> None:
        self.logs: dict[TopicPartition, bytearray] = {}
        self.high_watermarks: dict[TopicPartition, int] = {}
        self.epoch = 3
        self.listeners: dict[TopicPartition, dict[FetchSessionListener, None]] = {}
        self.errors: dict[TopicPartition, ErrorCode] = {}
        self.diverging: dict[TopicPartition, tuple[int, int]] = {}
        self.on_disk: set[TopicPartition] = set()
        """Partitions whose bytes are not in memory."""
        self.received: list[FetchRow] = []
        self.contacts: dict[TopicPartition, FollowerContact] = {}
        self.reads = 0
        self.advances = True
        """The high watermark follows what the follower fetched."""

    def append(self, partition: TopicPartition, data: bytes) -> None:
        self.logs.setdefault(partition, bytearray()).extend(data)
        self.changed(partition)

    def changed(self, partition: TopicPartition) -> None:
        for listener in list(self.listeners.get(partition, ())):
            listener.partition_changed(partition)

    def follower_fetched(
        self, contact: FollowerContact, row: FetchRow, listener: FetchSessionListener
    ) -> FetchedRow | None:
        partition = TopicPartition(row.topic, row.partition)
        self.received.append(row)
        self.contacts[partition] = contact
        if partition in self.errors:
            return FetchedRow(row.topic, row.partition, row.topic_id, self.errors[partition], self.epoch)
        if row.leader_epoch != self.epoch:
            return FetchedRow(row.topic, row.partition, row.topic_id, ErrorCode.FENCED_LEADER_EPOCH, self.epoch)
        if partition in self.diverging:
            epoch, end = self.diverging.pop(partition)
            return FetchedRow(
                row.topic,
                row.partition,
                row.topic_id,
                ErrorCode.NONE,
                self.epoch,
                diverging_epoch=epoch,
                diverging_end=end,
            )
        self.listeners.setdefault(partition, {})[listener] = None
        if self.advances and row.offset > self.high_watermarks.get(partition, 0):
            self.high_watermarks[partition] = row.offset
            self.changed(partition)
        return None

    def read_for_follower(self, contact: FollowerContact, row: FetchRow, max_bytes: int) -> FetchedRow | None:
        partition = TopicPartition(row.topic, row.partition)
        self.reads += 1
        if partition in self.on_disk:
            return None
        log = self.logs.get(partition, b"")
        return FetchedRow(
            row.topic,
            row.partition,
            row.topic_id,
            ErrorCode.NONE,
            row.leader_epoch,
            self.high_watermarks.get(partition, 0),
            0,
            records=bytes(log[row.offset : row.offset + max_bytes]),
        )

    def forget(self, listener: FetchSessionListener, partition: TopicPartition) -> None:
        self.listeners.get(partition, {}).pop(listener, None)


class FakeFollower:
    """Fills FollowerPort."""

    def __init__(self) -> None:
        self.logs: dict[TopicPartition, bytearray] = {}
        self.high_watermarks: dict[TopicPartition, int] = {}
        self.epochs: dict[TopicPartition, int] = {}
        self.offline: set[TopicPartition] = set()
        self.behind: set[TopicPartition] = set()
        self.slow: set[TopicPartition] = set()
        """Partitions that say position_changed only when a test does."""
        self.answers: list[tuple[FetchRow, FetchedRow]] = []
        self.fetchers: FetcherPort | None = None

    def fetch_row(self, partition: TopicPartition) -> FetchRow | None:
        if partition in self.offline:
            return None
        epoch = self.epochs.get(partition, 3)
        offset = len(self.logs.get(partition, b""))
        return FetchRow(partition.topic, partition.partition, TOPIC_ID, epoch, offset, epoch if offset else -1, 0)

    def fetched(self, request: FetchRow, answer: FetchedRow) -> None:
        self.answers.append((request, answer))
        partition = TopicPartition(request.topic, request.partition)
        if answer.error is not ErrorCode.NONE:
            return
        log = self.logs.setdefault(partition, bytearray())
        if answer.diverging_epoch >= 0:
            del log[answer.diverging_end :]
        else:
            if len(log) != request.offset:
                raise AssertionError(f"{partition} has {len(log)} bytes and asked from {request.offset}")
            log += answer.records
            self.high_watermarks[partition] = min(answer.high_watermark, len(log))
        if partition not in self.slow and self.fetchers is not None:
            self.fetchers.position_changed(partition)

    def in_sync(self, partition: TopicPartition) -> bool:
        return partition not in self.behind


class FakeStatus:
    """Fills StatusPort."""

    def status_lines(self) -> list[str]:
        return ["broker 1 of cluster", "controller: 1"]

    def partition_lines(self, topic: str | None) -> list[str]:
        return [f"{topic or 'demo'}-0 leader=1"]

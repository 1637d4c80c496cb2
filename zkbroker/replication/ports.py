"""What the line protocol needs of a broker, and gives it. ``broker/`` fills these; tests fill them with fakes.

Values on the data path are NamedTuples; names of fields are those of the protocol's words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

from zkbroker.model.channel import (
    AlterPartitionRequest,
    AlterPartitionResponse,
    Applied,
    FollowerContact,
    NewTopic,
    TopicResult,
)
from zkbroker.model.cluster import ClusterDelta
from zkbroker.model.complaints import Word
from zkbroker.model.errors import ErrorCode
from zkbroker.model.suspicion import Evidence, Suspect
from zkbroker.model.topics import TopicPartition


class Identity(NamedTuple):
    """Who a broker is in HELLO. The epoch changes when it registers again, the incarnation when it restarts."""

    cluster_id: str
    broker_id: int
    broker_epoch: int
    incarnation: str


class FetchRow(NamedTuple):
    """One partition of a FETCH: where the follower stands."""

    topic: str
    partition: int
    topic_id: str
    leader_epoch: int
    offset: int
    """The follower's log end offset: the next offset it wants (its *flushed* end is ``flushed_offset``)."""
    last_epoch: int
    """The last entry of its epoch cache (last fetched epoch), -1 for an empty one."""
    log_start: int
    flushed_offset: int = -1
    """Under a flush policy: the end of what it has on disk, which is what counts; -1 means ``offset``."""


class FetchedRow(NamedTuple):
    """The leader's answer for one partition."""

    topic: str
    partition: int
    topic_id: str
    error: ErrorCode
    leader_epoch: int
    """The leader epoch of the request that is answered, or with FENCED/UNKNOWN_LEADER_EPOCH the leader's own."""
    high_watermark: int = -1
    log_start: int = -1
    diverging_epoch: int = -1
    diverging_end: int = -1
    """With diverging_epoch >= 0: where that epoch ends in the leader's log; the follower truncates."""
    log_end: int = -1
    """The leader's log end offset, sent with OFFSET_OUT_OF_RANGE."""
    records: bytes | memoryview = b""
    """Whole record batches, exactly as they lie in the log."""


class FetchSessionListener(Protocol):
    """A follower's session at a leader, woken when a partition in it has something new."""

    def partition_changed(self, partition: TopicPartition) -> None:
        """Its log end, high watermark or log start moved, or its leader changed. Called often: must be cheap."""
        ...


class LeaderPort(Protocol):
    """The partitions of this broker as its followers see them."""

    def follower_fetched(
        self, contact: FollowerContact, row: FetchRow, listener: FetchSessionListener
    ) -> FetchedRow | None:
        """Judge one row of a FETCH as it arrives, and only then: take the follower's position, expand the ISR, move
        the high watermark. Returns the answer to give at once (an error, or diverging) or None when the row stands
        and ``read_for_follower`` may be asked. From then on ``listener`` is told of changes until ``forget``."""
        ...

    def read_for_follower(self, contact: FollowerContact, row: FetchRow, max_bytes: int) -> FetchedRow | None:
        """What lies at the row's offset, changing nothing: may be asked again and again (long poll). With no new
        bytes the row still tells high watermark and log start. None while the bytes are being read from disk:
        the listener is told when they are there. An error row when the role or epoch changed meanwhile."""
        ...

    def forget(self, listener: FetchSessionListener, partition: TopicPartition) -> None:
        """The session is gone or no longer holds the partition: tell its listener nothing more of it."""
        ...


class FollowerPort(Protocol):
    """The partitions of this broker that follow a leader, as the fetchers need them."""

    def fetch_row(self, partition: TopicPartition) -> FetchRow | None:
        """Where to fetch from now; None when this broker does not follow (any more) or the log is offline."""
        ...

    def fetched(self, request: FetchRow, answer: FetchedRow) -> None:
        """Apply an answer to the latest request for its partition (the fetcher has seen to that; the epochs are
        compared here): truncate, or append and advance the high watermark. When done, and when the position
        changes otherwise, the replica calls ``FetcherPort.position_changed``."""
        ...

    def in_sync(self, partition: TopicPartition) -> bool:
        """True while the follower is (nearly) caught up: which of the two sessions carries it."""
        ...


class FetcherPort(Protocol):
    """What the replica shell asks of the fetchers (``replication/fetcher.py`` fills it)."""

    def follow(self, partition: TopicPartition, leader: int) -> None:
        """Fetch this partition from that broker from now on, whatever was done before (also with a new epoch)."""
        ...

    def unfollow(self, partition: TopicPartition) -> None: ...

    def position_changed(self, partition: TopicPartition) -> None:
        """Ask ``fetch_row`` again: the partition has somewhere new to fetch from."""
        ...

    def set_address(self, broker_id: int, broker_epoch: int, host: str, port: int) -> None:
        """Where that broker's REPLICATION listener is; a new epoch closes the old connection."""
        ...

    def remove_address(self, broker_id: int) -> None: ...


class Subscriber(Protocol):
    """One broker's end of the controller channel, at the controller."""

    broker_id: int
    broker_epoch: int

    def push(self, delta: ClusterDelta) -> None: ...

    def close(self, reason: str) -> None:
        """No more deltas will come: the controller resigned, or the broker was fenced. It subscribes anew elsewhere."""
        ...


class ControllerPort(Protocol):
    """The controller as brokers reach it: in memory by its own broker, through the line protocol by the others.

    Calls fail with BrokerError: NOT_CONTROLLER, STALE_BROKER_EPOCH, STALE_CONTROLLER_EPOCH.
    """

    def subscribe(self, subscriber: Subscriber) -> Deferred[None]:
        """Fires once the image holds the subscriber's broker epoch; its snapshot is pushed first, then deltas."""
        ...

    def unsubscribe(self, subscriber: Subscriber) -> None: ...

    def applied(self, broker_id: int, broker_epoch: int, applied: Applied) -> None: ...

    def replica_deleted(self, broker_id: int, broker_epoch: int, partition: TopicPartition, topic_id: str) -> None: ...

    def log_dir_offline(
        self, broker_id: int, broker_epoch: int, log_dir: str, partitions: Sequence[TopicPartition]
    ) -> None:
        """These replicas are on a folder that failed: their leaderships move, they leave the ISR."""
        ...

    def alter_partition(self, request: AlterPartitionRequest) -> Deferred[AlterPartitionResponse]: ...

    def controlled_shutdown(self, broker_id: int, broker_epoch: int) -> Deferred[tuple[TopicPartition, ...]]:
        """Move this broker's leaderships away and fence it from ISRs; fires with those that remain."""
        ...

    def create_topic(self, topic: NewTopic) -> Deferred[TopicResult]:
        """Automatic creation on behalf of a client of any broker."""
        ...

    def complained(self, broker_id: int, broker_epoch: int, word: Word) -> None:
        """All that the broker has to complain of now; takes the place of what it said before."""
        ...

    def heartbeat(self, broker_id: int, broker_epoch: int, zookeeper_age_s: float) -> float:
        """The broker lives and last heard from ZooKeeper so long ago; returns the controller's own such age.
        Raises BrokerError when this is not the controller."""
        ...


class BrokerPort(Protocol):
    """The broker as the channel's client drives it."""

    def apply_delta(self, delta: ClusterDelta) -> Applied:
        """Take a snapshot or the next delta; the receipt names what failed."""
        ...

    def controller_heard(self, controller_epoch: int, zookeeper_age_s: float) -> None:
        """A heartbeat answer arrived: the controller's last ZooKeeper reply was so old when it was sent."""
        ...

    def channel_lost(self, reason: str) -> None: ...

    def zookeeper_age_s(self) -> float:
        """Age of this broker's own last ZooKeeper reply."""
        ...


class PeersPort(Protocol):
    """What peers say about themselves and about each other."""

    def met(self, caller: Identity) -> None:
        """It said HELLO here."""
        ...

    def left(self, caller: Identity, was_cut: bool) -> None:
        """A connection on which it said HELLO is gone (``was_cut``: by FIN or RST) or says nothing any more, or it says
        HELLO anew there. Comes once after each ``met``."""
        ...

    def bye_heard(self, caller: Identity) -> None:
        """It said that it stops."""
        ...

    def suspected(self, evidence: Evidence) -> None:
        """A peer tells what it found out about a broker."""
        ...

    def probe_asked(self, suspect: Suspect, caller: Identity) -> None:
        """A peer wants to know what this broker knows; told with SUSPECT to all."""
        ...


class StatusPort(Protocol):
    """What a person who types at the listener may read."""

    def status_lines(self) -> list[str]: ...

    def partition_lines(self, topic: str | None) -> list[str]: ...


IdentitySource = Callable[[], Identity]

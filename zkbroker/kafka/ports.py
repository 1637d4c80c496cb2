"""What the Kafka listener needs of a broker. ``broker/`` fills these; tests fill them with fakes.

Topics travel by name here; the API files translate topic ids with ``MetadataPort.topic_name``. No kio type passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

from zkbroker.kafka.config_ports import SettingsPort
from zkbroker.kafka.partition_ports import PartitionAdminPort
from zkbroker.model.channel import NewTopic, TopicResult
from zkbroker.model.config.entry import ConfigEntry as ConfigEntry
from zkbroker.model.errors import BadRecord, ErrorCode
from zkbroker.model.topics import PartitionState


class CurrentLeader(NamedTuple):
    """Who leads, as far as this broker knows: sent along with NOT_LEADER_OR_FOLLOWER (KIP-951)."""

    leader: int
    leader_epoch: int


class ProduceRow(NamedTuple):
    topic: str
    partition: int
    records: bytes | memoryview | None
    """Record batches as the client sent them; None is a null field."""


class ProducedRow(NamedTuple):
    topic: str
    partition: int
    error: ErrorCode
    base_offset: int = -1
    log_append_time_ms: int = -1
    log_start: int = -1
    message: str | None = None
    current_leader: CurrentLeader | None = None
    bad_records: Sequence[BadRecord] = ()
    """The records for which the batch was refused, where they are known (KIP-467)."""


class ConsumeRow(NamedTuple):
    """One partition of a client's Fetch."""

    topic: str
    partition: int
    offset: int
    max_bytes: int
    current_leader_epoch: int = -1
    last_fetched_epoch: int = -1
    topic_id: str = ""
    """The id that ``topic`` was found by: only that topic may answer. Empty when the client gave a name."""


class ConsumedRow(NamedTuple):
    topic: str
    partition: int
    error: ErrorCode
    high_watermark: int = -1
    last_stable_offset: int = -1
    log_start: int = -1
    aborted: tuple[tuple[int, int], ...] | None = None
    """(producer id, first offset) of aborted transactions in range, for read_committed."""
    records: Sequence[bytes | memoryview] = ()
    """Chunks of whole record batches, to be written one after the other without joining."""
    diverging_epoch: int = -1
    diverging_end: int = -1
    current_leader: CurrentLeader | None = None
    topic_id: str = ""
    """As in the row that is answered."""


class ConsumeOptions(NamedTuple):
    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    read_committed: bool = False
    knows_zstd: bool = True
    """Else partitions that are stored in it (``compression.type``) are refused (KIP-110)."""


class OffsetRow(NamedTuple):
    topic: str
    partition: int
    timestamp_ms: int
    """A time, or -1 latest, -2 earliest, -3 max timestamp, -4 earliest local, -5 latest tiered (Kafka's values)."""
    current_leader_epoch: int = -1


class OffsetAnswer(NamedTuple):
    topic: str
    partition: int
    error: ErrorCode
    timestamp_ms: int = -1
    offset: int = -1
    leader_epoch: int = -1


class DeleteRow(NamedTuple):
    """Of one partition everything below ``offset`` is to go; -1 is the high watermark."""

    topic: str
    partition: int
    offset: int


class DeletedRow(NamedTuple):
    topic: str
    partition: int
    error: ErrorCode
    low_watermark: int = -1
    """The lowest log start offset among the live replicas."""


class EpochRow(NamedTuple):
    topic: str
    partition: int
    leader_epoch: int
    current_leader_epoch: int = -1


class EpochAnswer(NamedTuple):
    topic: str
    partition: int
    error: ErrorCode
    leader_epoch: int = -1
    end_offset: int = -1


class Cancellable(Protocol):
    def cancel(self) -> None:
        """Drop the request: its client is gone. Never fails; the callback is not called any more."""
        ...


class ConsumeSession(Protocol):
    """The partitions that one client fetches again and again: its requests name only what changes (KIP-227)."""

    @property
    def size(self) -> int:
        """Number of its partitions."""
        ...

    def update(self, rows: Sequence[ConsumeRow], forgotten: Sequence[ConsumeRow]) -> None:
        """Take what a request adds or changes, then drop what it forgets, of which only the names matter."""
        ...

    def fetch(self, options: ConsumeOptions, done: Callable[[list[ConsumedRow]], None]) -> Cancellable | None:
        """Read all the session's partitions as ``consume`` does. Only those that have news are answered: records, an
        error, a divergence, a high watermark or log start that the client was not told. One request at a time: a
        second one takes the place of the first, whose callback is not called any more."""
        ...

    def close(self) -> None:
        """Nothing will be fetched any more: let all its partitions go, answer nobody."""
        ...


class RepeatedConsume(Protocol):
    """The requests of a client without a session, which name all its partitions again and again."""

    def renew(self, rows: Sequence[ConsumeRow]) -> bool:
        """Take the rows of the next request: True if they are of the same partitions, perhaps in another order
        (librdkafka begins with another one each time). The answer is in this order."""
        ...

    def fetch(self, options: ConsumeOptions, done: Callable[[list[ConsumedRow]], None]) -> Cancellable | None:
        """As ``DataPort.consume``; only what may have news is looked at. ``done`` gets the very list of the last time
        when nothing has changed since."""
        ...

    def close(self) -> None:
        """No request comes any more."""
        ...


class DataPort(Protocol):
    """Records in and out of the partitions this broker leads. Callbacks come on the reactor thread, also at once."""

    def produce(
        self,
        acks: int,
        timeout_ms: int,
        transactional_id: str | None,
        rows: Sequence[ProduceRow],
        done: Callable[[list[ProducedRow]], None],
    ) -> Cancellable | None:
        """Append each row; ``done`` gets one answer per row in their order, when ``acks`` is satisfied or the time
        is over. With acks=0 the answers come at once and are for the log only."""
        ...

    def consume(
        self, options: ConsumeOptions, rows: Sequence[ConsumeRow], done: Callable[[list[ConsumedRow]], None]
    ) -> Cancellable | None:
        """Read up to the high watermark; wait up to ``max_wait_ms`` while there is less than ``min_bytes``."""
        ...

    def open_repeated(self, rows: Sequence[ConsumeRow]) -> RepeatedConsume:
        """A request of these rows, to be closed by whoever opened it."""
        ...

    def open_session(self) -> ConsumeSession:
        """A session without partitions, to be closed by whoever opened it."""
        ...

    def list_offsets(
        self, read_committed: bool, rows: Sequence[OffsetRow], done: Callable[[list[OffsetAnswer]], None]
    ) -> None: ...

    def delete_records(
        self, timeout_ms: int, rows: Sequence[DeleteRow], done: Callable[[list[DeletedRow]], None]
    ) -> Cancellable | None:
        """Move the log starts, and answer when the live followers' have moved too or the time is over."""
        ...

    def offsets_for_leader_epochs(self, rows: Sequence[EpochRow]) -> list[EpochAnswer]: ...


class BrokerView(NamedTuple):
    """A broker as a client of one listener reaches it."""

    broker_id: int
    host: str
    port: int
    rack: str | None


class TopicView(NamedTuple):
    """A topic as Metadata shows it; ``partitions`` is never changed in place."""

    name: str
    topic_id: str
    is_internal: bool
    partitions: dict[int, PartitionState]


class MetadataPort(Protocol):
    """This broker's picture of the cluster, as the controller told it."""

    @property
    def cluster_id(self) -> str: ...

    @property
    def broker_id(self) -> int: ...

    @property
    def controller_id(self) -> int:
        """-1 when unknown."""
        ...

    @property
    def version(self) -> int:
        """Rises with every change: encoded answers may be kept while it stays."""
        ...

    @property
    def is_ready(self) -> bool:
        """False until the first snapshot is applied: client requests wait or are refused before."""
        ...

    def brokers(self, listener: str) -> list[BrokerView]:
        """The live brokers that have this listener, by id."""
        ...

    def named_brokers(self, listener: str) -> list[BrokerView]:
        """Those, and the ones that have gone lately. librdkafka (2.x), told in one answer that a leadership has moved
        and that the old leader is no more, takes the partition away from both and looks again a second later."""
        ...

    def topic(self, name: str) -> TopicView | None: ...

    def topic_name(self, topic_id: str) -> str | None: ...

    def topics(self) -> list[TopicView]:
        """All topics, by name."""
        ...

    def is_doubted(self, broker_id: int) -> bool:
        """Its connections broke a moment ago and it accepts no new one: whoever is told that it leads would go back
        to it, and ask again much later than its successor is known."""
        ...

    def when_sure(self, answer: Callable[[], None]) -> None:
        """Call it at once, or a few milliseconds later. A client whose leader died asks in the same millisecond in
        which this broker hears of it, perhaps before; told of the dead one it asks again after half a second."""
        ...

    def has_listener(self, broker_id: int, listener: str) -> bool:
        """True when that broker is alive and reachable through this listener (else LEADER_NOT_AVAILABLE / -1)."""
        ...


class ConfigDescription(NamedTuple):
    error: ErrorCode
    message: str | None
    entries: tuple[ConfigEntry, ...] = ()


class TopicToDelete(NamedTuple):
    """By name, or by id with ``name`` None; with both the topic of that name only if it still has that id."""

    name: str | None
    topic_id: str | None


class PartitionsToAdd(NamedTuple):
    """``total`` is the new number of partitions; ``assignments`` the replicas of each added one, None to choose."""

    name: str
    total: int
    assignments: tuple[tuple[int, ...], ...] | None = None


class AdminPort(PartitionAdminPort, Protocol):
    """What administrators ask. Only the controller's broker does the first three: the others answer NOT_CONTROLLER."""

    def create_topics(
        self, topics: Sequence[NewTopic], timeout_ms: int, validate_only: bool
    ) -> Deferred[list[TopicResult]]: ...

    def delete_topics(self, topics: Sequence[TopicToDelete], timeout_ms: int) -> Deferred[list[TopicResult]]: ...

    def create_partitions(
        self, topics: Sequence[PartitionsToAdd], timeout_ms: int, validate_only: bool
    ) -> Deferred[list[TopicResult]]: ...

    def auto_create_topic(self, name: str) -> bool:
        """A client asked Metadata for an unknown topic: begin creating it where the configuration allows. True if begun
        (answer LEADER_NOT_AVAILABLE), False if not allowed (UNKNOWN_TOPIC_OR_PARTITION)."""
        ...

    def describe_topic_config(self, name: str) -> ConfigDescription: ...

    def new_topic_config(self, overrides: Mapping[str, str]) -> Sequence[ConfigEntry]:
        """All settings of a topic that is created with these of its own; nothing needs to know the topic yet."""
        ...

    def describe_broker_config(self, name: str) -> ConfigDescription:
        """``name`` is a broker id as text, or empty for the cluster-wide defaults."""
        ...

    @property
    def settings(self) -> SettingsPort:
        """Altering settings, and what else is described."""
        ...


class ProducerIdPort(Protocol):
    def init_producer_id(
        self, transactional_id: str | None, producer_id: int, producer_epoch: int
    ) -> Deferred[tuple[int, int]]:
        """A (producer id, epoch) never given before, from this broker's block of ``/latest_producer_id_block``; or for
        a known pair the same id with its epoch raised. Fails with BrokerError."""
        ...


class ListenerLimits(NamedTuple):
    """The broker configuration that the listener obeys."""

    socket_request_max_bytes: int
    queued_max_request_bytes: int
    connections_max_idle_ms: int
    max_connections: int
    fetch_max_bytes: int
    request_timeout_ms: int
    auto_create_topics: bool
    max_connections_per_ip: int = 2**31 - 1
    max_connections_overrides: Mapping[str, int] = MappingProxyType({})
    """``max.connections.per.ip`` of single addresses."""
    fetch_sessions_max: int = 1000

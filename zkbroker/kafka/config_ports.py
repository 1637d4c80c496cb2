"""What the APIs of settings, log folders, producers and quotas need of a broker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

from zkbroker.model.config.changes import ConfigChange
from zkbroker.model.config.entry import ConfigEntry
from zkbroker.model.errors import ErrorCode

TOPIC_RESOURCE = 2
BROKER_RESOURCE = 4
BROKER_LOGGER_RESOURCE = 8


class ResourceChanges(NamedTuple):
    """What is asked of one resource; no key comes twice."""

    kind: int
    """One of the three above."""
    name: str
    """A topic's, a broker's id as text, or empty for the settings of all brokers."""
    changes: tuple[ConfigChange, ...]


class ResourceResult(NamedTuple):
    kind: int
    name: str
    error: ErrorCode
    message: str | None = None


class LogDescription(NamedTuple):
    """One replica in a log folder."""

    topic: str
    partition: int
    size: int
    """Bytes of its segments."""
    offset_lag: int
    """How far its log end lies below its high watermark, which it never does: 0, or -1 of a log that nobody serves."""


class LogDirDescription(NamedTuple):
    folder: str
    error: ErrorCode
    logs: tuple[LogDescription, ...] = ()
    total_bytes: int = -1
    """Of its file system; -1 when the disk does not say."""
    usable_bytes: int = -1


class ActiveProducer(NamedTuple):
    """One producer that a partition's log remembers."""

    producer_id: int
    producer_epoch: int
    last_sequence: int
    last_timestamp: int
    coordinator_epoch: int
    transaction_start: int
    """First offset of its open transaction, -1 without one."""


class PartitionProducers(NamedTuple):
    error: ErrorCode
    producers: tuple[ActiveProducer, ...] = ()


class QuotaFilter(NamedTuple):
    """One component of DescribeClientQuotas."""

    entity_type: str
    is_any: bool
    """Any entity of that type, the default one too; else the one named."""
    name: str | None = None
    """None: the default entity."""


class Quota(NamedTuple):
    """The quotas of one entity."""

    entity: tuple[tuple[str, str | None], ...]
    """(type, name), the name None for the default."""
    values: Mapping[str, float]


class ScramUser(NamedTuple):
    """A user and the (mechanism, iterations) of each of his SCRAM credentials; mechanisms by Kafka's numbers."""

    name: str
    credentials: tuple[tuple[int, int], ...]


class SettingsPort(Protocol):
    """Part of AdminPort. What fails is in the results; a Deferred that fails is a mistake of ours or a BrokerError for
    the whole request."""

    def alter_configs(
        self, resources: Sequence[ResourceChanges], is_incremental: bool, validate_only: bool
    ) -> Deferred[list[ResourceResult]]:
        """One result for each resource, in their order. Without ``is_incremental`` the changes are all settings that
        the resource has afterwards."""
        ...

    def refresh_configs(self, topics: Sequence[str], brokers: bool) -> Deferred[None]:
        """Read the settings of these topics and, with ``brokers``, of brokers again, so that what was altered anywhere
        before is described. Fires in any case: without ZooKeeper the last known ones hold."""
        ...

    def describe_loggers(self) -> tuple[ConfigEntry, ...]:
        """The loggers of this process and their levels, as DescribeConfigs shows them."""
        ...

    def describe_log_dirs(self, wanted: Mapping[str, Sequence[int]] | None) -> Deferred[list[LogDirDescription]]:
        """Every log folder, with its replicas of these partitions (None: all)."""
        ...

    def describe_producers(self, topic: str, partition: int) -> PartitionProducers:
        """The producers of a partition that this broker leads."""
        ...

    def describe_client_quotas(self, filters: Sequence[QuotaFilter], is_strict: bool) -> Deferred[list[Quota]]:
        """The quotas of the entities that have every component of ``filters``; with ``is_strict`` no other."""
        ...

    def describe_scram_users(self, names: Sequence[str] | None) -> Deferred[list[ScramUser]]:
        """The users with SCRAM credentials: of ``names``, or all of them."""
        ...

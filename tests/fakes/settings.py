"""SettingsPort of a broker that has one topic's settings in a dictionary: for tests of the listener."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred, fail, succeed

from zkbroker.kafka.config_ports import (
    LogDirDescription,
    PartitionProducers,
    Quota,
    QuotaFilter,
    ResourceChanges,
    ResourceResult,
    ScramUser,
)
from zkbroker.model.config.entry import ConfigEntry
from zkbroker.model.errors import BrokerError, ErrorCode


class FakeSettings:
    """Remembers what was asked; answers what it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.refreshed: list[tuple[tuple[str, ...], bool]] = []
        self.errors: dict[str, ErrorCode] = {}
        """By the name of a resource."""
        self.error: ErrorCode | None = None
        """For whole requests."""
        self.folders: list[LogDirDescription] = []
        self.producers = PartitionProducers(ErrorCode.NONE)
        self.quotas: list[Quota] = []
        self.scram_users: list[ScramUser] = []

    def alter_configs(
        self, resources: Sequence[ResourceChanges], is_incremental: bool, validate_only: bool
    ) -> Deferred[list[ResourceResult]]:
        self.asked.append((list(resources), is_incremental, validate_only))
        if self.error is not None:
            return fail(BrokerError(self.error))
        return succeed(
            [ResourceResult(kind, name, self.errors.get(name, ErrorCode.NONE)) for kind, name, _ in resources]
        )

    def refresh_configs(self, topics: Sequence[str], brokers: bool) -> Deferred[None]:
        self.refreshed.append((tuple(topics), brokers))
        return succeed(None)

    def describe_loggers(self) -> tuple[ConfigEntry, ...]:
        return (ConfigEntry("root", "INFO", False, False, 6, False),)

    def describe_log_dirs(self, wanted: Mapping[str, Sequence[int]] | None) -> Deferred[list[LogDirDescription]]:
        self.asked.append((wanted,))
        return succeed(self.folders) if self.error is None else fail(BrokerError(self.error))

    def describe_producers(self, topic: str, partition: int) -> PartitionProducers:
        self.asked.append((topic, partition))
        return self.producers

    def describe_client_quotas(self, filters: Sequence[QuotaFilter], is_strict: bool) -> Deferred[list[Quota]]:
        self.asked.append((list(filters), is_strict))
        return succeed(self.quotas) if self.error is None else fail(BrokerError(self.error))

    def describe_scram_users(self, names: Sequence[str] | None) -> Deferred[list[ScramUser]]:
        self.asked.append((names,))
        if self.error is not None:
            return fail(BrokerError(self.error))
        return succeed([user for user in self.scram_users if names is None or user.name in names])

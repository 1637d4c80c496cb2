"""What administrators ask about settings, disks, producers and quotas."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, gatherResults, inlineCallbacks

from zkbroker.broker.client_quotas import read_client_quotas
from zkbroker.broker.config_changes import ConfigChanges
from zkbroker.broker.loggers import describe_loggers
from zkbroker.broker.metadata import ClusterMetadata
from zkbroker.broker.replicas import Replicas
from zkbroker.broker.scram_users import read_scram_users
from zkbroker.broker.topic_configs import TopicConfigs
from zkbroker.kafka.config_ports import (
    ActiveProducer,
    LogDescription,
    LogDirDescription,
    PartitionProducers,
    Quota,
    QuotaFilter,
    ResourceChanges,
    ResourceResult,
    ScramUser,
)
from zkbroker.log.dirs import LogDirs
from zkbroker.log.space import UNKNOWN
from zkbroker.model.clock import Clock
from zkbroker.model.config.entry import ConfigEntry
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.zookeeper.client import ConnectionLossError, SessionExpiredError, ZooKeeperClient

REFRESH_S_MAX = 1.0
"""How long a description waits for ZooKeeper; then the settings that are known hold, which watches keep current."""

REFRESHED_MAX = 500
"""Topics of one request whose settings are read anew before they are described."""


class SettingsAdmin:
    """Fills ``kafka.config_ports.SettingsPort``."""

    def __init__(
        self,
        *,
        broker_id: int,
        zk: ZooKeeperClient,
        reactor: Any,
        clock: Clock,
        metadata: ClusterMetadata,
        topic_configs: TopicConfigs,
        logs: LogDirs,
        replicas: Replicas,
        log: Callable[[str], None],
    ) -> None:
        self._changes = ConfigChanges(
            broker_id=broker_id,
            zk=zk,
            reactor=reactor,
            clock=clock,
            metadata=metadata,
            topic_configs=topic_configs,
            log=log,
        )
        self._zk = zk
        self._reactor = reactor
        self._metadata = metadata
        self._topic_configs = topic_configs
        self._logs = logs
        self._replicas = replicas

    def __repr__(self) -> str:
        return f"SettingsAdmin({self._changes!r})"

    def alter_configs(
        self, resources: Sequence[ResourceChanges], is_incremental: bool, validate_only: bool
    ) -> Deferred[list[ResourceResult]]:
        return self._changes.alter(resources, is_incremental, validate_only)

    def refresh_configs(self, topics: Sequence[str], brokers: bool) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        if not self._zk.is_connected:
            done.callback(None)
            return done
        known = [topic for topic in dict.fromkeys(topics) if self._metadata.topic(topic) is not None]
        reads = [self._topic_configs.read_again(topic) for topic in known[:REFRESHED_MAX]]
        if brokers:
            reads.append(self._topic_configs.read_brokers_again())

        def over(_: object) -> None:
            if timer.active():
                timer.cancel()
            if not done.called:
                done.callback(None)

        timer = self._reactor.callLater(REFRESH_S_MAX, over, None)
        for read in reads:
            read.addErrback(lambda failure: failure.trap(ConnectionLossError, SessionExpiredError))
        DeferredList(reads).addCallback(over)
        return done

    def describe_loggers(self) -> tuple[ConfigEntry, ...]:
        return describe_loggers()

    @inlineCallbacks
    def describe_log_dirs(
        self, wanted: Mapping[str, Sequence[int]] | None
    ) -> Generator[Deferred[Any], Any, list[LogDirDescription]]:
        logs = self._logs
        online = [folder for folder in logs.log_dirs if folder not in logs.offline_dirs]
        spaces = yield gatherResults([logs.spaces.ask(folder) for folder in online])
        sizes = dict(zip(online, spaces, strict=True))
        found: dict[str, list[LogDescription]] = {folder: [] for folder in logs.log_dirs}
        for partition, log in logs.logs.items():
            if wanted is None or partition.partition in wanted.get(partition.topic, ()):
                # As in Kafka: of a log that nobody serves the high watermark is not known.
                lag = 0 if self._replicas.serves(partition) else -1
                found[log.log_dir].append(LogDescription(partition.topic, partition.partition, log.size, lag))
        return [
            LogDirDescription(folder, ErrorCode.KAFKA_STORAGE_ERROR)
            if folder in logs.offline_dirs
            else LogDirDescription(folder, ErrorCode.NONE, tuple(found[folder]), *sizes.get(folder, UNKNOWN))
            for folder in logs.log_dirs
        ]

    def describe_producers(self, topic: str, partition: int) -> PartitionProducers:
        entries = self._replicas.producers(topic, partition)
        if isinstance(entries, ErrorCode):
            return PartitionProducers(entries)
        return PartitionProducers(
            ErrorCode.NONE,
            tuple(
                ActiveProducer(
                    entry.producer_id,
                    entry.epoch,
                    entry.last_sequence,
                    entry.timestamp,
                    entry.coordinator_epoch,
                    entry.transaction_start,
                )
                for entry in entries
            ),
        )

    @inlineCallbacks
    def describe_client_quotas(
        self, filters: Sequence[QuotaFilter], is_strict: bool
    ) -> Generator[Deferred[Any], Any, list[Quota]]:
        try:
            quotas: list[Quota] = yield read_client_quotas(self._zk, filters, is_strict)
        except (ConnectionLossError, SessionExpiredError):
            raise _unanswered() from None
        return quotas

    @inlineCallbacks
    def describe_scram_users(self, names: Sequence[str] | None) -> Generator[Deferred[Any], Any, list[ScramUser]]:
        try:
            users: list[ScramUser] = yield read_scram_users(self._zk, names)
        except (ConnectionLossError, SessionExpiredError):
            raise _unanswered() from None
        return users


def _unanswered() -> BrokerError:
    return BrokerError(ErrorCode.REQUEST_TIMED_OUT, "ZooKeeper did not answer")

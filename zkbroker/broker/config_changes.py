"""Writing ``/config`` for clients: any broker does it for topics and for all brokers, each for itself alone."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks, maybeDeferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from zkbroker.broker.loggers import alter_loggers
from zkbroker.broker.metadata import ClusterMetadata
from zkbroker.broker.topic_configs import TopicConfigs
from zkbroker.kafka.config_ports import (
    BROKER_LOGGER_RESOURCE,
    TOPIC_RESOURCE,
    ResourceChanges,
    ResourceResult,
)
from zkbroker.model.clock import Clock
from zkbroker.model.config.changes import changed_broker_settings, changed_topic_settings
from zkbroker.model.config.values import printable
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.zookeeper.client import (
    ANY_VERSION,
    BadVersionError,
    Check,
    ConnectionLossError,
    Create,
    MultiError,
    NodeExistsError,
    NoNodeError,
    Op,
    SessionExpiredError,
    SetData,
    Stat,
    ZooKeeperClient,
)
from zkbroker.zookeeper.znodes import ZnodeError
from zkbroker.zookeeper.znodes import config as znode
from zkbroker.zookeeper.znodes import topics as topic_znode

PATIENCE_S = 10.0
"""How long a change waits for ZooKeeper to come back: less than clients wait for an answer."""

LOOK_AGAIN_S = 0.1
"""How often is looked whether it has."""

Settings = Mapping[str, str]


class ConfigChanges:
    """Each entity's znode is compared and set together with its notification: no change is lost between two brokers
    that alter the same one, and none goes unannounced."""

    def __init__(
        self,
        *,
        broker_id: int,
        zk: ZooKeeperClient,
        reactor: Any,
        clock: Clock,
        metadata: ClusterMetadata,
        topic_configs: TopicConfigs,
        log: Callable[[str], None],
    ) -> None:
        self._broker_id = broker_id
        self._zk = zk
        self._reactor = reactor
        self._clock = clock
        self._metadata = metadata
        self._topic_configs = topic_configs
        self._log = log

    def __repr__(self) -> str:
        return f"ConfigChanges({self._broker_id})"

    def alter(
        self, resources: Sequence[ResourceChanges], is_incremental: bool, validate_only: bool
    ) -> Deferred[list[ResourceResult]]:
        """One result for each resource, in their order; never fails for what ZooKeeper does."""
        altered = [
            maybeDeferred(self._alter, resource, is_incremental, validate_only).addCallbacks(
                lambda _, resource: ResourceResult(resource.kind, resource.name, ErrorCode.NONE),
                _refused,
                callbackArgs=(resource,),
                errbackArgs=(resource,),
            )
            for resource in resources
        ]
        return DeferredList(altered, fireOnOneErrback=True, consumeErrors=True).addCallbacks(
            lambda results: [result for _, result in results], lambda failure: failure.value.subFailure
        )

    def _alter(self, resource: ResourceChanges, is_incremental: bool, validate_only: bool) -> Deferred[None] | None:
        kind, name, changes = resource
        if kind == TOPIC_RESOURCE:
            return self._alter_topic(resource, is_incremental, validate_only)
        if kind == BROKER_LOGGER_RESOURCE:
            self._expect_own_id(name, "Unexpected node id. Expected {own}, but received {name}")
            alter_loggers(changes, validate_only)
            if not validate_only:
                self._log(f"levels of loggers were changed: {_names(resource)}")
            return None
        if name:
            self._expect_own_id(name, "Unexpected broker id, expected {own}, but received {name}")
        wanted = partial(
            changed_broker_settings, changes=changes, is_incremental=is_incremental, is_cluster_wide=not name
        )
        entity = str(int(name)) if name else znode.DEFAULT_ENTITY
        return self._change("brokers", entity, wanted, validate_only, ())

    def _expect_own_id(self, name: str, text: str) -> None:
        if not name.isascii() or not name.lstrip("+-").isdigit():
            raise BrokerError(ErrorCode.INVALID_REQUEST, f"Node id must be an integer, but it is: {name}")
        if name != str(self._broker_id):
            raise BrokerError(ErrorCode.INVALID_REQUEST, text.format(own=self._broker_id, name=name))

    def _alter_topic(self, resource: ResourceChanges, is_incremental: bool, validate_only: bool) -> Deferred[None]:
        topic = resource.name
        if not topic:
            raise BrokerError(ErrorCode.INVALID_REQUEST, "Default topic resources are not allowed.")
        if self._metadata.topic(topic) is None:
            raise _no_topic(topic)

        def wanted(current: Settings) -> dict[str, str]:
            return changed_topic_settings(topic, current, resource.changes, is_incremental)

        # Whoever deletes the topic takes its settings along: none may be left for the next topic of that name.
        exists = (Check(topic_znode.topic_path(topic), ANY_VERSION),)
        return self._change("topics", topic, wanted, validate_only, exists)

    @inlineCallbacks
    def _change(
        self,
        entity_type: str,
        entity: str,
        wanted: Callable[[Settings], dict[str, str]],
        validate_only: bool,
        conditions: Sequence[Op],
    ) -> Generator[Deferred[Any], Any, None]:
        """Read, change, write if nobody else has written since; again until that is so. A write whose answer is lost is
        done again: what was changed stays as it is."""
        path = znode.entity_path(entity_type, entity)
        give_up_at = self._clock.monotonic() + PATIENCE_S
        while True:
            try:
                current, version = yield self._read(path)
                settings = wanted(current)
                if validate_only:
                    return
                write: Op = Create(path, znode.encode(settings))
                if version is not None:
                    write = SetData(path, znode.encode(settings), version)
                notice = Create(znode.CHANGE_PREFIX, znode.encode_change(entity_type, entity), sequential=True)
                yield self._zk.multi([*conditions, write, notice])
                break
            except MultiError as error:
                if error.index < len(conditions):
                    raise _no_topic(entity) from error
                if not isinstance(error.error, BadVersionError | NodeExistsError | NoNodeError):
                    raise
                if isinstance(error.error, NoNodeError):
                    yield from self._make_parents(path)
            except (ConnectionLossError, SessionExpiredError):
                if self._clock.monotonic() >= give_up_at:
                    text = "ZooKeeper did not answer: it is not known whether the change was made"
                    raise BrokerError(ErrorCode.REQUEST_TIMED_OUT, text) from None
                yield deferLater(self._reactor, LOOK_AGAIN_S)
        names = ", ".join(printable(name, 100) for name in sorted(settings))
        self._log(f"settings of {entity_type}/{entity} were changed: {names or 'none is left'}")
        yield from self._hold_here(entity_type, entity)

    def _read(self, path: str) -> Deferred[tuple[dict[str, str], int | None]]:
        """The settings that stand, and the version of their znode, None where there is none."""

        def absent(failure: Failure) -> tuple[dict[str, str], None]:
            failure.trap(NoNodeError)
            return {}, None

        def decode(got: tuple[bytes, Stat]) -> tuple[dict[str, str], int]:
            try:
                return dict(znode.decode(path, got[0])), got[1].version
            except ZnodeError as error:
                raise BrokerError(ErrorCode.INVALID_CONFIG, f"what stands does not decode: {error}") from error

        return self._zk.get(path).addCallbacks(decode, absent)

    def _make_parents(self, path: str) -> Generator[Deferred[Any], Any, None]:
        """Somebody deleted them; or the entity itself, and then there is nothing to make."""
        for parent in (path.rpartition("/")[0], znode.CHANGES_PATH):
            try:
                yield self._zk.create(parent, b"", make_parents=True)
            except NodeExistsError:
                continue

    def _hold_here(self, entity_type: str, entity: str) -> Generator[Deferred[Any], Any, None]:
        """Whoever describes what he has altered sees it, at least at this broker: others hear of it in a moment."""
        try:
            if entity_type != "brokers":
                if self._metadata.topic(entity) is not None:
                    yield self._topic_configs.read_again(entity)
            else:
                yield self._topic_configs.read_brokers_again()
        except (ConnectionLossError, SessionExpiredError):
            pass  # All is read again when ZooKeeper is back.


def _names(resource: ResourceChanges) -> str:
    return ", ".join(f"{change.name}={change.value}" for change in resource.changes)


def _no_topic(topic: str) -> BrokerError:
    return BrokerError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{topic}' does not exist.")


def _refused(failure: Failure, resource: ResourceChanges) -> ResourceResult:
    error = failure.value
    if not isinstance(error, BrokerError):
        failure.raiseException()
    return ResourceResult(resource.kind, resource.name, error.error, str(error))

"""One broker process from start to stop: makes every part, connects them, and takes them down in order."""

from __future__ import annotations

import random
import socket
import uuid
from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from zkbroker.broker import bootstrap, listening, session_file
from zkbroker.broker.admin import Admin
from zkbroker.broker.controller_link import ControllerLink
from zkbroker.broker.controller_loop import ControllerLoop
from zkbroker.broker.metadata import ClusterMetadata
from zkbroker.broker.node import Node
from zkbroker.broker.producer_ids import ProducerIds
from zkbroker.broker.registration import Registration, RegistrationSettings
from zkbroker.broker.replicas import Replicas
from zkbroker.broker.settings import (
    channel_settings,
    controller_settings,
    fetcher_settings,
    listener_limits,
    replica_settings,
    session_timeout_s,
)
from zkbroker.broker.status import Status
from zkbroker.broker.topic_configs import TopicConfigs
from zkbroker.kafka.listener import KafkaFactory, preload_hot
from zkbroker.kafka.memory import RequestMemory
from zkbroker.log.dirs import LogDirs
from zkbroker.log.disk import Disk
from zkbroker.model.clock import Clock
from zkbroker.model.cluster import REPLICATION_LISTENER, BrokerRegistration, Endpoint
from zkbroker.model.config import BrokerConfig, resolve_topic_config, validate_topic_overrides
from zkbroker.model.errors import BrokerError, StartError
from zkbroker.model.topics import TopicPartition
from zkbroker.replication.channel import ControllerChannel
from zkbroker.replication.fetcher import Fetchers
from zkbroker.replication.ports import Identity
from zkbroker.replication.server import ReplicationServer
from zkbroker.zookeeper.client import NoNodeError, SessionState
from zkbroker.zookeeper.session import KazooSession, close_session
from zkbroker.zookeeper.znodes import ZnodeError
from zkbroker.zookeeper.znodes import brokers as broker_znode

logger = Logger()

LEADERS_MOVE_S_MAX = 1.5
"""How long a controlled shutdown waits for the controller: three brokers stopped together must be gone in 3 s."""

SHUTDOWN_RETRY_S = 0.1
"""Pause before the controller is asked again about leaderships that remain."""

SESSION_CLOSE_S_MAX = 2.0
"""How long closing a session left by a crash may take; after it, waiting for its expiry is the other way."""


class Broker:
    """Everything of one broker. ``start`` and ``stop`` return at once; ``ended(reason)`` comes once, at the end:
    None after a controlled shutdown, else why the broker could not start or go on."""

    def __init__(
        self,
        *,
        config: BrokerConfig,
        reactor: Any,
        clock: Clock,
        log: Callable[[str], None],
        fatal: Callable[[str, BaseException], None],
        ended: Callable[[str | None], None],
    ) -> None:
        self._config = config
        self._reactor = reactor
        self._clock = clock
        self._log = log
        self._fatal = fatal
        self._ended = ended
        self._random = random.Random()
        self._incarnation = uuid.UUID(int=self._random.getrandbits(128)).hex
        self._broker_id = config.broker_id
        self._started_at = clock.monotonic()
        self._is_stopping = False
        self._has_ended = False
        self._is_serving = False
        self._bound: dict[str, listening.BoundSocket] = {}
        self._ports: list[Any] = []
        self._loops: list[LoopingCall] = []
        self._connected: Deferred[None] = Deferred()
        self._registered: Deferred[int] = Deferred()
        self._zk = KazooSession(
            config.get_str("zookeeper.connect"),
            session_timeout_ms=config.get_int("zookeeper.session.timeout.ms"),
            connection_timeout_ms=config.zookeeper_connection_timeout_ms,
            clock=clock,
            reactor=reactor,
            log=log,
        )
        self._topic_configs = TopicConfigs(
            broker_id=self._broker_id,
            zk=self._zk,
            clock=clock,
            resolve=lambda default, own, topic: resolve_topic_config(config, default, own, topic),
            changed=self._topic_config_changed,
            log=log,
        )
        self._logs = LogDirs(
            disk=Disk(),
            clock=clock,
            reactor=reactor,
            run_in_thread=self._run_in_thread,
            log_dirs=config.log_dirs,
            broker_id=self._broker_id,
            topic_config=self._topic_configs.get,
            dir_failed=self._dir_failed,
            producer_id_expiration_ms=config.get_int("producer.id.expiration.ms"),
        )

    def every(self, seconds: float, act: Callable[[], object]) -> None:
        """Call ``act`` again and again until the broker stops."""
        loop = LoopingCall(act)
        loop.clock = self._reactor
        self._loops.append(loop)
        loop.start(seconds, now=False).addErrback(self._loop_failed)

    def _loop_failed(self, failure: Failure) -> None:
        self._fatal("periodic work", failure.value)

    def _run_in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *arguments)

    # Start

    def start(self) -> None:
        """Begin; progress goes to the log, the end to ``ended``."""
        self._start().addErrback(self._start_failed)

    @inlineCallbacks
    def _start(self) -> Generator[Deferred[Any], Any, None]:
        config = self._config
        self._log(f"broker {self._broker_id} starts; log.dirs {', '.join(config.log_dirs)}")
        for warning in config.warnings:
            self._log(f"warning: {warning}")
        if config.without_effect():
            self._log(f"set but without effect: {', '.join(config.without_effect())}")
        for endpoint in config.listeners:
            self._bound[endpoint.listener] = listening.bind(endpoint)
        yield self._connect()
        yield bootstrap.make_paths(self._zk)
        yield bootstrap.refuse_kafka_neighbours(self._zk)
        cluster_id = yield bootstrap.find_cluster_id(self._zk, self._random)
        self._logs.open(cluster_id)
        self._log(f"cluster {cluster_id}; {len(self._logs.logs)} logs loaded")
        previous_session_id = yield self._close_previous_session()
        yield self._topic_configs.start()
        if self._is_stopping:
            return
        self._make_parts(cluster_id, previous_session_id)
        # From here connections are accepted; Kafka requests wait for the first snapshot.
        self._listen()
        self._registration.start()
        yield self._registered
        self._controller.start()

    @inlineCallbacks
    def _connect(self) -> Generator[Deferred[Any], Any, None]:
        self._zk.listen(self._session_changed)
        self._zk.start()
        timeout_ms = self._config.zookeeper_connection_timeout_ms
        timer = self._reactor.callLater(timeout_ms / 1000, self._not_connected, timeout_ms)
        try:
            yield self._connected
        finally:
            if timer.active():
                timer.cancel()

    def _not_connected(self, timeout_ms: int) -> None:
        hosts = ",".join(self._config.zookeeper.hosts)
        error = StartError(f"ZooKeeper at {hosts} cannot be reached: no session within {timeout_ms} ms")
        self._connected.errback(Failure(error))

    @inlineCallbacks
    def _close_previous_session(self) -> Generator[Deferred[Any], Any, int]:
        """End the session that a crash of this broker left behind, so that its registration goes at once; returns its
        id, 0 for none.

        The process that had it is certainly gone: the log folder's lock is held, and the address that the znode names
        is bound here. (A copy of the folder on another machine has the file, but not that address.)"""
        previous = session_file.read_session(self._logs.log_dirs[0])
        self._keep_session()
        if previous is None or previous[0] == self._zk.session_id:
            return 0
        path = broker_znode.broker_path(self._broker_id)
        try:
            data, stat = yield self._zk.get(path)
            registered = broker_znode.decode(path, data, stat.czxid)
        except (NoNodeError, ZnodeError):
            return previous[0]
        if stat.ephemeral_owner != previous[0] or registered.endpoints != self._describe().endpoints:
            return 0
        self._log(f"closing session 0x{previous[0] & (2**64 - 1):x}, which the last process of this broker left")
        yield close_session(
            self._config.get_str("zookeeper.connect"),
            *previous,
            timeout_s=SESSION_CLOSE_S_MAX,
            clock=self._clock,
            reactor=self._reactor,
        )
        return previous[0]

    def _keep_session(self) -> None:
        try:
            session_file.write_session(self._logs.log_dirs[0], self._zk.session_id, self._zk.session_password)
        except OSError as error:
            self._log(f"the session could not be kept for the next start: {error}")

    def _make_parts(self, cluster_id: str, previous_session_id: int) -> None:
        config, reactor, clock, zk = self._config, self._reactor, self._clock, self._zk
        self._cluster_id = cluster_id
        self._metadata = ClusterMetadata(cluster_id, self._broker_id)
        self._registration = Registration(
            zk=zk,
            reactor=reactor,
            clock=clock,
            settings=RegistrationSettings(session_timeout_s(config)),
            describe=self._describe,
            previous_session_id=previous_session_id,
            registered=self._became_registered,
            lost=self._registration_lost,
            failed=lambda error: self._end(str(error)),
            log=self._log,
        )
        self._replicas = Replicas(
            broker_id=self._broker_id,
            reactor=reactor,
            clock=clock,
            logs=self._logs,
            settings=replica_settings(config),
            broker_epoch=lambda: self._registration.broker_epoch,
            live_broker_epoch=self._metadata.live_broker_epoch,
            topic_config=self._topic_configs.get,
            metadata_leader=self._metadata.current_leader,
            contact_age=lambda: self._node.contact_age(),
            fatal=self._fatal,
            report=self._log,
            random=self._random,
        )
        self._fetchers = Fetchers(
            reactor=reactor,
            clock=clock,
            random=self._random,
            identity=self._identity,
            follower=self._replicas,
            settings=fetcher_settings(config),
        )
        self._replicas.fetchers = self._fetchers
        self._node = Node(
            broker_id=self._broker_id,
            clock=clock,
            zk=zk,
            metadata=self._metadata,
            replicas=self._replicas,
            fetchers=self._fetchers,
            topic_configs=self._topic_configs,
            replica_deleted=self._replica_deleted,
            became_ready=self._became_ready,
            log=self._log,
        )
        self._controller = ControllerLoop(
            broker_id=self._broker_id,
            zk=zk,
            clock=clock,
            reactor=reactor,
            random=self._random,
            settings=controller_settings(config),
            broker_epoch=lambda: self._registration.broker_epoch,
            topic_overrides_error=validate_topic_overrides,
            controller_changed=self._controller_changed,
            log=self._log,
        )
        self._channel = ControllerChannel(
            reactor=reactor,
            clock=clock,
            random=self._random,
            identity=self._identity,
            broker=self._node,
            local=lambda: self._controller,
            settings=channel_settings(config),
        )
        self._replicas.controller = self._channel.alter_partition
        self._link = ControllerLink(
            broker_id=self._broker_id, zk=zk, reactor=reactor, channel=self._channel, log=self._log
        )
        self._status = Status(
            metadata=self._metadata,
            clock=clock,
            broker_epoch=lambda: self._registration.broker_epoch,
            session=lambda: f"session 0x{zk.session_id & (2**64 - 1):x} connected={zk.is_connected}",
            controller=lambda: f"{self._link.controller_id} epoch {self._node.controller_epoch}",
            replica_lines=self._replicas.partition_lines,
            problems=self._problems,
        )
        self._make_listeners()
        self.every(config.get_int("replica.high.watermark.checkpoint.interval.ms") / 1000, self._write_checkpoints)
        self.every(config.get_int("log.retention.check.interval.ms") / 1000, self._replicas.delete_old_segments)
        self.every(1.0, self._logs.flush_due)

    def _make_listeners(self) -> None:
        config = self._config
        limits = listener_limits(config)
        admin = Admin(
            config=config,
            controller=self._controller,
            metadata=self._metadata,
            topic_configs=self._topic_configs,
            create_topic=self._channel.create_topic,
            log=self._log,
        )
        producer_ids = ProducerIds(broker_id=self._broker_id, zk=self._zk)
        memory = RequestMemory(limits.queued_max_request_bytes)
        self._factories = [
            KafkaFactory(
                listener_name=endpoint.listener,
                data=self._replicas,
                metadata=self._metadata,
                admin=admin,
                producer_ids=producer_ids,
                limits=limits,
                clock=self._clock,
                reactor=self._reactor,
                log=logger,
                fatal=self._fatal,
                memory=memory,
            )
            for endpoint in config.kafka_listeners
        ]
        self._server = ReplicationServer(
            reactor=self._reactor,
            clock=self._clock,
            identity=self._identity,
            leader=self._replicas,
            controller=lambda: self._controller,
            status=self._status,
        )

    def _listen(self) -> None:
        factories: dict[str, Any] = {factory.listener_name: factory for factory in self._factories}
        factories[REPLICATION_LISTENER] = self._server
        for name, bound in self._bound.items():
            self._ports.append(listening.listen(bound, factories[name], self._reactor))

    def _start_failed(self, failure: Failure) -> None:
        if failure.check(StartError) is not None:
            self._end(failure.getErrorMessage())
        else:
            self._log(failure.getTraceback())
            self._end(f"start failed: {failure.getErrorMessage()}")

    # What the parts tell

    def _topic_config_changed(self, topic: str) -> None:
        # The first reading comes before there are replicas; each takes its topic's settings when it is made.
        if hasattr(self, "_replicas"):
            self._replicas.config_changed(topic)

    def _identity(self) -> Identity:
        return Identity(self._cluster_id, self._broker_id, self._registration.broker_epoch, self._incarnation)

    def _describe(self) -> BrokerRegistration:
        """What the registration znode says: port 0 and an empty host are filled in with what they became."""
        endpoints = []
        for endpoint in self._config.advertised_listeners:
            host = endpoint.host or socket.getfqdn()
            port = endpoint.port or self._bound[endpoint.listener].port
            endpoints.append(Endpoint(endpoint.listener, host, port))
        protocols = tuple(sorted(self._config.protocols.items()))
        return BrokerRegistration(self._broker_id, -1, tuple(endpoints), protocols, self._config.rack)

    def _session_changed(self, state: SessionState) -> None:
        self._log(f"ZooKeeper session {state.value}")
        if state is SessionState.CONNECTED:
            if not self._connected.called:
                self._connected.callback(None)
            else:
                self._keep_session()
        if state in (SessionState.CONNECTED, SessionState.RECONNECTED) and self._is_serving:
            self._node.configs_reachable()

    def _became_registered(self, broker_epoch: int) -> None:
        self._controller.registered()
        self._channel.identity_changed()
        self._fetchers.identity_changed()
        if not self._registered.called:
            self._registered.callback(broker_epoch)

    def _registration_lost(self, reason: str) -> None:
        self._controller.registration_lost()
        self._replicas.registration_lost()

    def _controller_changed(self, controller_id: int, controller_epoch: int) -> None:
        self._log("there is no controller" if controller_id < 0 else f"controller is broker {controller_id}")
        if controller_id < 0:
            self._metadata.controller_lost()
        self._link.controller_changed(controller_id)

    def _became_ready(self) -> None:
        self._is_serving = True
        for factory in self._factories:
            factory.became_ready()
        where = " ".join(str(endpoint) for endpoint in self._describe().endpoints)
        self._log(f"broker {self._broker_id} started in {self._clock.monotonic() - self._started_at:.2f} s: {where}")
        # kio's import takes 0.2 s; nothing that is hot waits for it.
        self._run_in_thread(preload_hot).addErrback(lambda failure: self._log(failure.getTraceback()))

    def _replica_deleted(self, partition: TopicPartition, topic_id: str) -> None:
        self._channel.replica_deleted(partition, topic_id).addErrback(_told_again_later)

    def _dir_failed(self, folder: str, reason: str, partitions: list[TopicPartition]) -> None:
        self._log(f"log folder {folder} is offline: {reason}; {len(partitions)} replicas with it")
        if len(self._logs.offline_dirs) == len(self._logs.log_dirs):
            self._end("all log folders failed", at_once=True)
            return
        self._replicas.dir_failed(folder, reason, partitions)
        self._channel.log_dir_offline(folder, partitions).addErrback(_told_again_later)

    def _problems(self) -> list[str]:
        offline = [f"log folder {folder} is offline: {why}" for folder, why in self._logs.offline_dirs.items()]
        return offline + self._controller.status_lines()

    def _write_checkpoints(self) -> Deferred[None]:
        return self._logs.write_checkpoints(self._replicas.high_watermarks())

    # Stop

    def stop(self) -> None:
        """Controlled shutdown: others take the leaderships, then everything is flushed and closed."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self._log("stopping")
        if not hasattr(self, "_server"):
            self._end(None)
            return
        self._stop().addErrback(self._stop_failed)

    @inlineCallbacks
    def _stop(self) -> Generator[Deferred[Any], Any, None]:
        if self._config.get_bool("controlled.shutdown.enable"):
            yield self._hand_over()
        for port in self._ports:
            yield port.stopListening()
        self._server.say_bye()
        for factory in self._factories:
            factory.close_connections()
        self._link.stop()
        yield self._controller.stop()
        self._channel.stop()
        self._fetchers.stop()
        epoch = self._registration.broker_epoch
        yield self._registration.remove()
        high_watermarks = self._replicas.high_watermarks()
        self._replicas.stop()
        self._server.stop()
        self._stop_loops()
        self._logs.write_checkpoints_now(high_watermarks)
        self._logs.close(epoch)
        yield self._zk.stop()
        session_file.forget_session(self._logs.log_dirs[0])
        self._log(f"broker {self._broker_id} stopped")
        self._end(None)

    @inlineCallbacks
    def _hand_over(self) -> Generator[Deferred[Any], Any, None]:
        """Ask the controller to move the leaderships; go on without it when nobody could take them or time is up."""
        until = self._clock.monotonic() + LEADERS_MOVE_S_MAX
        remaining: tuple[TopicPartition, ...] | None = None
        while len(self._metadata.live_brokers()) > 1 and self._clock.monotonic() < until:
            try:
                asked = self._channel.controlled_shutdown()
                asked.addTimeout(max(until - self._clock.monotonic(), 0.01), self._reactor)
                remaining = yield asked
            except BrokerError as error:
                self._log(f"controlled shutdown: {error}")
            except Exception as error:
                self._log(f"controlled shutdown: {type(error).__name__}")
            else:
                if not remaining:
                    self._log("all leaderships have moved")
                    return
            pause: Deferred[None] = Deferred()
            self._reactor.callLater(SHUTDOWN_RETRY_S, pause.callback, None)
            yield pause
        if remaining:
            self._log(f"{len(remaining)} leaderships could not move")

    def _stop_failed(self, failure: Failure) -> None:
        self._log(failure.getTraceback())
        self._end(f"the shutdown failed: {failure.getErrorMessage()}")

    def _stop_loops(self) -> None:
        for loop in self._loops:
            if loop.running:
                loop.stop()

    def _end(self, reason: str | None, at_once: bool = False) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        self._is_stopping = True
        self._stop_loops()
        for bound in self._bound.values():
            bound.socket.close()
        if not hasattr(self, "_server") or at_once:
            self._logs.abandon()
        closing = self._zk.stop()
        closing.addBoth(lambda _: self._ended(reason))


def _told_again_later(failure: Failure) -> None:
    """The controller hears of it by the next snapshot's receipt, or orders it again."""
    failure.trap(BrokerError)

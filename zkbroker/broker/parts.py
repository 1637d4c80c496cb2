"""The parts of a broker that knows its cluster and its id: made together, connected, taken down in order."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.python.failure import Failure

from zkbroker.broker.admin import Admin
from zkbroker.broker.cleaner_process import StartCleaner
from zkbroker.broker.cleaning import Cleaning
from zkbroker.broker.controller_link import ControllerLink
from zkbroker.broker.controller_loop import ControllerLoop
from zkbroker.broker.dynamic_settings import CurrentSettings
from zkbroker.broker.failure_watch import FailureWatch
from zkbroker.broker.group_parts import GroupParts
from zkbroker.broker.listeners import Listeners
from zkbroker.broker.listening import BoundSocket
from zkbroker.broker.losses import UnsettledLosses
from zkbroker.broker.metadata import ClusterMetadata, Doubt
from zkbroker.broker.node import Node
from zkbroker.broker.own_states import OwnStates
from zkbroker.broker.producer_ids import ProducerIds
from zkbroker.broker.registration import Registration, RegistrationSettings
from zkbroker.broker.replicas import Replicas
from zkbroker.broker.settings import (
    caller_silent_seconds,
    channel_settings,
    cleaner_settings,
    controller_settings,
    fetcher_settings,
    listen_seconds,
    replica_settings,
)
from zkbroker.broker.settings_admin import SettingsAdmin
from zkbroker.broker.status import Status
from zkbroker.broker.throttles import ReplicationThrottles
from zkbroker.broker.topic_configs import TopicConfigs
from zkbroker.log.dirs import LogDirs
from zkbroker.log.log import Log
from zkbroker.model.clock import Clock
from zkbroker.model.cluster import BrokerRegistration, ClusterDelta
from zkbroker.model.config import BrokerConfig, validate_topic_overrides
from zkbroker.model.errors import BrokerError, StartError
from zkbroker.model.topics import TopicPartition
from zkbroker.replication.channel import ControllerChannel
from zkbroker.replication.fetcher import Fetchers
from zkbroker.replication.ports import Identity
from zkbroker.replication.server import ReplicationServer
from zkbroker.zookeeper.client import SessionState, ZooKeeperClient

STEP_S_MAX = 0.3
"""How long one step of the shutdown waits for ZooKeeper, which may be away: the session's end does the same later."""


class Parts:
    """Everything that exists from registration to shutdown. The broker tells it what happens around it; it tells the
    broker, by the callbacks given, what that must know."""

    def __init__(
        self,
        *,
        config: BrokerConfig,
        reactor: Any,
        clock: Clock,
        source: random.Random,
        zk: ZooKeeperClient,
        logs: LogDirs,
        topic_configs: TopicConfigs,
        settings: CurrentSettings,
        cluster_id: str,
        broker_id: int,
        incarnation: str,
        describe: Callable[[], BrokerRegistration],
        previous_session_id: int,
        registration_failed: Callable[[StartError], None],
        became_ready: Callable[[], None],
        start_cleaner: StartCleaner,
        fatal: Callable[[str, BaseException], None],
        log: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._zk = zk
        self._logs = logs
        self._topic_configs = topic_configs
        self._settings = settings
        self._changed_topics: dict[str, None] = {}
        """Topics whose settings changed in this turn of the reactor."""
        settings.listen(self._broker_config_changed)
        self._cluster_id = cluster_id
        self._broker_id = broker_id
        self._incarnation = incarnation
        self._fatal = fatal
        self._was_registered = False
        self._log = log
        # What the ensemble did not agree to holds for nobody: it expires sessions by its own limits.
        timeout_s = zk.agreed_timeout_s
        wanted_s = config.get_int("zookeeper.session.timeout.ms") / 1000
        if timeout_s != wanted_s:
            log(f"the ensemble allows a session timeout of {timeout_s:g} s, not {wanted_s:g} s")
        self.metadata = ClusterMetadata(cluster_id, broker_id)
        self.metadata.call_later = reactor.callLater
        self.registration = Registration(
            zk=zk,
            reactor=reactor,
            clock=clock,
            settings=RegistrationSettings(timeout_s),
            describe=describe,
            previous_session_id=previous_session_id,
            registered=self._became_registered,
            lost=self._registration_lost,
            failed=registration_failed,
            log=log,
        )
        self._losses = UnsettledLosses(
            broker_id=broker_id,
            zk=zk,
            reactor=reactor,
            losses=logs.losses,
            followed=lambda partition: self.replicas.in_sync(partition),
            changed=self.registration.update,
            log=log,
        )
        self.replicas = Replicas(
            broker_id=broker_id,
            reactor=reactor,
            clock=clock,
            logs=logs,
            settings=replica_settings(config, timeout_s),
            broker_epoch=self._broker_epoch,
            live_broker_epoch=self.metadata.live_broker_epoch,
            topic_config=topic_configs.get,
            metadata_leader=self.metadata.current_leader,
            contact_age=lambda: self.node.contact_age(),
            fatal=fatal,
            report=log,
            random=source,
        )
        self._fetchers = Fetchers(
            reactor=reactor,
            clock=clock,
            random=source,
            identity=self._identity,
            follower=self.replicas,
            settings=fetcher_settings(config, timeout_s),
        )
        self.replicas.fetchers = self._fetchers
        self._throttles = ReplicationThrottles(clock, settings.config)
        self.replicas.throttle(self._throttles)
        self._fetchers.catch_up_delay_s = self.replicas.catch_up_delay_s
        self.node = Node(
            broker_id=broker_id,
            clock=clock,
            zk=zk,
            metadata=self.metadata,
            replicas=self.replicas,
            fetchers=self._fetchers,
            topic_configs=topic_configs,
            replica_deleted=self._replica_deleted,
            became_ready=became_ready,
            call_later=reactor.callLater,
            log=log,
            states_told=self._delta_taken,
            served_again=lambda: self._reactor.callLater(0, self.channel.subscribe_again, "replicas work again"),
            applied_later=lambda applied: self.channel.applied(applied).addErrback(_told_again_later),
            brokers_changed=lambda brokers: self.detection.brokers_changed(brokers),
            zk_silence_s=replica_settings(config, timeout_s).contact_seconds_max,
        )
        self.controller = ControllerLoop(
            broker_id=broker_id,
            zk=zk,
            clock=clock,
            reactor=reactor,
            random=source,
            settings=controller_settings(settings.config, timeout_s),
            broker_epoch=self._broker_epoch,
            topic_overrides_error=validate_topic_overrides,
            controller_changed=self._controller_changed,
            log=log,
            verdicts=lambda: self.detection.verdicts(),
        )
        self.channel = ControllerChannel(
            reactor=reactor,
            clock=clock,
            random=source,
            identity=self._identity,
            broker=self.node,
            local=lambda: self.controller,
            settings=channel_settings(timeout_s),
        )
        self.replicas.controller = self.channel.alter_partition
        self.groups = GroupParts(
            config=config,
            reactor=reactor,
            clock=clock,
            source=source,
            zk=zk,
            metadata=self.metadata,
            replicas=self.replicas,
            create_topic=self.channel.create_topic,
            log=log,
            fatal=fatal,
        )
        self._failures = FailureWatch(
            config=config,
            broker_id=broker_id,
            reactor=reactor,
            clock=clock,
            random=source,
            session_timeout_s=timeout_s,
            identity=self._identity,
            controller=self.controller,
            metadata=self.metadata,
            logs=logs,
            replicas=self.replicas,
            fetchers=self._fetchers,
            complain=self.channel.complain,
            log=log,
        )
        self.detection = self._failures.detection
        self._own_states = OwnStates(
            broker_id=broker_id,
            reactor=reactor,
            clock=clock,
            zk=zk,
            session_timeout_s=timeout_s,
            led=self.replicas.led,
            controller_age=self.node.controller_age,
            told=self.node.told_by_zookeeper,
            log=log,
            out_of_touch=self._out_of_touch,
            confirmed=self.node.confirmed,
        )
        self._link = ControllerLink(broker_id=broker_id, zk=zk, reactor=reactor, channel=self.channel, log=log)
        self._server = ReplicationServer(
            reactor=reactor,
            clock=clock,
            identity=self._identity,
            leader=self.replicas,
            controller=lambda: self.controller,
            peers=self.detection,
            caller_silent_s=caller_silent_seconds(timeout_s),
            listen_s=listen_seconds(timeout_s),
            status=Status(
                metadata=self.metadata,
                clock=clock,
                broker_epoch=self._broker_epoch,
                session=self._session_line,
                controller=lambda: f"{self._link.controller_id} epoch {self.node.controller_epoch}",
                replica_lines=self.replicas.partition_lines,
                peers=self._peer_lines,
                problems=self._problems,
            ),
        )
        self.admin = Admin(
            config=config,
            controller=self.controller,
            metadata=self.metadata,
            topic_configs=topic_configs,
            create_topic=self.channel.create_topic,
            new_topic=self.groups.new_topic,
            settings=SettingsAdmin(
                broker_id=broker_id,
                zk=zk,
                reactor=reactor,
                clock=clock,
                metadata=self.metadata,
                topic_configs=topic_configs,
                logs=logs,
                replicas=self.replicas,
                log=log,
            ),
            log=log,
        )
        self.cleaning = Cleaning(
            reactor=reactor,
            clock=clock,
            logs=logs,
            candidates=self._compacted_logs,
            settings=lambda: cleaner_settings(settings.config),
            start_cleaner=start_cleaner,
            fatal=fatal,
            report=log,
        )
        settings.listen(self.cleaning.look)
        self.producer_ids = ProducerIds(broker_id=broker_id, zk=zk)
        self._listeners = Listeners(
            config=config,
            settings=settings,
            reactor=reactor,
            clock=clock,
            replicas=self.replicas,
            metadata=self.metadata,
            admin=self.admin,
            producer_ids=self.producer_ids,
            groups=self.groups,
            server=self._server,
            fatal=fatal,
            source=source,
        )

    def __repr__(self) -> str:
        return f"Parts({self.registration!r}, {self.node!r}, {self._listeners!r})"

    # What the broker tells

    def listen(self, bound: Mapping[str, BoundSocket]) -> None:
        """Accept connections; Kafka requests wait for the first snapshot. Raises StartError."""
        self._listeners.listen(bound)

    def serve(self) -> None:
        """The first snapshot is applied: answer clients."""
        self._listeners.serve()

    def session_changed(self, state: SessionState) -> None:
        """The session has a connection, or another is made: ask again for what could not be read."""
        if state in (SessionState.CONNECTED, SessionState.RECONNECTED):
            self.node.configs_reachable()

    def topic_config_changed(self, topic: str) -> None:
        """The topic's effective settings are other ones now."""
        if not self._changed_topics:
            # What all topics inherit changes them all: one look over the replicas for all of them.
            self._reactor.callLater(0, self._apply_topic_configs)
        self._changed_topics[topic] = None
        self.controller.topic_config_changed(topic, self._topic_configs.overrides(topic))

    def _apply_topic_configs(self) -> None:
        topics, self._changed_topics = self._changed_topics, {}
        self.replicas.configs_changed(topics)

    def _broker_config_changed(self) -> None:
        self._throttles.settings_changed(self._settings.config)
        self.controller.settings_changed(controller_settings(self._settings.config, self._zk.agreed_timeout_s))

    def dir_failed(self, folder: str, reason: str, partitions: list[TopicPartition]) -> None:
        self.replicas.dir_failed(folder, reason, partitions)
        self.channel.log_dir_offline(folder, partitions).addErrback(_told_again_later)

    def _compacted_logs(self) -> Iterator[tuple[Log, int]]:
        """With their high watermarks."""
        marks = self.replicas.high_watermarks()
        for partition, log in self._logs.logs.items():
            if partition in marks and "compact" in log.config.cleanup_policy:
                yield log, marks[partition]

    def write_checkpoints(self) -> None:
        """Behind, and again when this is called again: a folder that hangs must not keep the others waiting."""

        def failed(failure: Failure) -> None:
            self._fatal("checkpoints", failure.value or RuntimeError("they failed without a reason"))

        self._logs.write_checkpoints(self.replicas.high_watermarks()).addErrback(failed)

    # What the parts tell

    def _broker_epoch(self) -> int:
        return self.registration.broker_epoch

    def _identity(self) -> Identity:
        return Identity(self._cluster_id, self._broker_id, self.registration.broker_epoch, self._incarnation)

    def _became_registered(self, broker_epoch: int) -> None:
        self.controller.registered()
        self.channel.identity_changed()
        # Leaders compare the epoch that a fetch comes with to the registration before they take it into the ISR.
        self._fetchers.identity_changed()
        self.detection.identity_changed()
        if not self._was_registered:
            self._was_registered = True
            self.controller.start()
            self._failures.start()
            self._own_states.start()
            self.groups.groups.start()

    def _delta_taken(self, delta: ClusterDelta) -> None:
        self._losses.told(delta)
        self.groups.told(delta)

    def _out_of_touch(self, is_out: bool) -> None:
        """Neither the controller nor ZooKeeper is heard: where followers are not either, clients are sent away, and
        not told any more that this broker leads."""
        self.metadata.doubt(Doubt.CUT_OFF, self._broker_id, self.replicas.send_away() if is_out else False)

    def _registration_lost(self, reason: str) -> None:
        self.controller.registration_lost()
        self.node.registration_lost()
        # What the controller still says to the old registration must not give the roles back.
        self.channel.subscribe_again("the registration is lost")

    def _controller_changed(self, controller_id: int, controller_epoch: int) -> None:
        self._log("there is no controller" if controller_id < 0 else f"controller is broker {controller_id}")
        # Clients keep being told of the last controller until the next one speaks, as in Kafka: librdkafka hangs
        # for long when it is told of none, and asks again when it is refused.
        self._link.controller_changed(controller_id)
        self.detection.controller_changed(controller_id)

    def _replica_deleted(self, partition: TopicPartition, topic_id: str) -> None:
        self.channel.replica_deleted(partition, topic_id).addErrback(_told_again_later)

    def _session_line(self) -> str:
        state = "connected" if self._zk.is_connected else "away"
        return f"session 0x{self._zk.session_id & (2**64 - 1):x} {state}"

    def _peer_lines(self) -> list[str]:
        """For STATUS: how this broker and the others stand to each other."""
        lines = self.replicas.status_lines() + self.groups.groups.status_lines() + self.detection.status_lines()
        return lines + self._fetchers.status_lines() + self.cleaning.status_lines()

    def _problems(self) -> list[str]:
        offline = [f"log folder {folder} is offline: {why}" for folder, why in self._logs.offline_dirs.items()]
        names = sorted(map(str, self._logs.losses.replicas))
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        lossy = [f"may lack records that they are counted for: {', '.join(names[:10])}{more}"] if names else []
        return offline + lossy + self._failures.problems() + self.controller.problems() + self.cleaning.problems()

    # Stop

    @inlineCallbacks
    def stop(self) -> Generator[Deferred[Any], Any, int]:
        """Listeners first, then the office, the registration, the replicas. Returns the broker epoch that ends here.

        The logs are at rest afterwards: ``LogDirs.high_watermarks`` holds the last ones."""
        self._failures.stop()
        self._own_states.stop()
        self.cleaning.stop()
        for port in self._listeners.ports:
            yield self._step("stop listening", port.stopListening)
        self._server.say_bye()
        self._listeners.close_clients()
        self._link.stop()
        self._losses.stop()
        yield self._step("give up the office", self.controller.stop)
        self.channel.stop()
        self._fetchers.stop()
        epoch = self.registration.broker_epoch
        yield self._step("delete the registration", self.registration.remove)
        high_watermarks = self.replicas.high_watermarks()
        self.groups.groups.stop()
        self.replicas.stop()
        self._server.stop()
        self._logs.write_checkpoints_now(high_watermarks)
        return epoch

    def follow_nobody(self) -> None:
        """The leaderships have moved: this broker is not to come back into an ISR before it goes."""
        self._fetchers.rest()

    def has_clients(self) -> bool:
        """Is any client connected?"""
        return self._listeners.has_clients()

    def _step(self, what: str, act: Callable[[], Any]) -> Deferred[None]:
        """One step that may fail or hang without keeping the others from being done."""

        def failed(failure: Failure) -> None:
            self._log(f"could not {what}: {failure.value or type(failure.value).__name__}")

        return maybeDeferred(act).addTimeout(STEP_S_MAX, self._reactor).addCallbacks(lambda _: None, failed)


def _told_again_later(failure: Failure) -> None:
    """The controller hears of it by the next snapshot's receipt, or orders it again."""
    failure.trap(BrokerError)

"""One broker process from start to stop: what is done in which order, and how it ends from every point of that."""

from __future__ import annotations

import random
import socket
import uuid
from collections.abc import Callable, Generator
from enum import Enum
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from zkbroker.broker import bootstrap, listening, session_file
from zkbroker.broker.cleaner_process import StartCleaner, start_in_child
from zkbroker.broker.dynamic_settings import CurrentSettings
from zkbroker.broker.handover import hand_over
from zkbroker.broker.losses import find_missing
from zkbroker.broker.parts import Parts
from zkbroker.broker.topic_configs import TopicConfigs
from zkbroker.kafka.listener import preload_hot
from zkbroker.log.dirs import LogDirs
from zkbroker.log.disk import Disk
from zkbroker.model.clock import Clock
from zkbroker.model.cluster import BrokerRegistration, Endpoint
from zkbroker.model.config import BrokerConfig, resolve_topic_config
from zkbroker.model.errors import StartError
from zkbroker.model.topics import TopicPartition
from zkbroker.zookeeper.client import NoNodeError, SessionState, ZooKeeperClient
from zkbroker.zookeeper.znodes import ZnodeError
from zkbroker.zookeeper.znodes import brokers as broker_znode

LEADERS_MOVE_S_MAX = 1.3
"""How long a controlled shutdown waits for the controller: three brokers stopped together must be gone in 3 s."""

LEADERS_MOVE_ALONE_S_MAX = 0.3
"""The same while this broker has no ZooKeeper: most likely the controller has none either and can move nothing."""

TICKS_PER_SESSION = 30
"""How often the watchdog hears of the reactor in one session timeout: three times between two of its looks."""


class State(Enum):
    """Where a broker is in its life; it only ever goes forward."""

    NEW = "new"
    STARTING = "starting"
    """Finds out what it is and loads its logs. Nobody can see it: a stop has nothing to hand over."""
    RUNNING = "running"
    """Has its parts: listens and registers, and serves from the first snapshot on."""
    STOPPING = "stopping"
    ENDED = "ended"


class ReactorWatch(Protocol):
    """The watchdog, as far as a life goes."""

    def start(self) -> None: ...

    def tick(self) -> None: ...

    def stop(self) -> None: ...


class Broker:
    """Everything of one broker. ``start`` and ``stop`` return at once; ``ended(reason)`` comes once, at the end:
    None after a stop that was asked for, else why the broker could not start or go on.

    ``zk`` is not started yet; ``close_session(id, password)`` ends a session that an earlier process left. ``boot_id``
    tells one boot of the machine from the next, None where it is not known: a process that was killed loses nothing
    if the next one runs on the same boot. ``start_cleaner`` compacts a log: in a child process, if none is given."""

    def __init__(
        self,
        *,
        config: BrokerConfig,
        reactor: Any,
        clock: Clock,
        source: random.Random,
        disk: Disk,
        run_in_thread: Callable[..., Deferred[Any]],
        zk: ZooKeeperClient,
        close_session: Callable[[int, bytes], Deferred[bool]],
        watchdog: ReactorWatch,
        log: Callable[[str], None],
        fatal: Callable[[str, BaseException], None],
        ended: Callable[[str | None], None],
        warmed_up: Callable[[], None] = lambda: None,
        boot_id: str | None = None,
        bind: Callable[[Endpoint], listening.BoundSocket] = listening.bind,
        start_cleaner: StartCleaner | None = None,
    ) -> None:
        self._config = config
        self._reactor = reactor
        self._clock = clock
        self._watchdog = watchdog
        self._log = log
        self._fatal = fatal
        self._ended = ended
        self._warmed_up = warmed_up
        self._boot_id = boot_id
        self._bind = bind
        self._start_cleaner = start_cleaner or start_in_child(reactor)
        self._random = source
        self._disk = disk
        self._run_in_thread = run_in_thread
        self._zk = zk
        self._close_session = close_session
        self._incarnation = uuid.UUID(int=self._random.getrandbits(128)).hex
        self._broker_id = config.broker_id
        """-1 until it is found in a log folder or generated."""
        self._started_at = clock.monotonic()
        self.state = State.NEW
        self._starting: Deferred[None] | None = None
        """Under way: cancelled by a stop, wherever it waits."""
        self._bound: dict[str, listening.BoundSocket] = {}
        self._loops: list[LoopingCall] = []
        self._logs: LogDirs | None = None
        """Not before they are open, and so locked by this process."""
        self._parts: Parts | None = None

    def __repr__(self) -> str:
        return f"Broker({self._broker_id} {self.state.value} {self._parts!r})"

    def _every(self, seconds: float, act: Callable[[], object]) -> None:
        """Call ``act`` again and again until the broker stops."""
        loop = LoopingCall(act)
        loop.clock = self._reactor
        self._loops.append(loop)
        loop.start(seconds, now=False).addErrback(self._loop_failed)

    def _loop_failed(self, failure: Failure) -> None:
        self._fatal("periodic work", failure.value or RuntimeError("it failed without a reason"))

    # Start

    def start(self) -> None:
        """Begin; progress goes to the log, the end to ``ended``."""
        if self.state is not State.NEW:
            return
        self.state = State.STARTING
        self._starting = self._start()
        self._starting.addErrback(self._start_failed)

    @inlineCallbacks
    def _start(self) -> Generator[Deferred[Any], Any, None]:
        config, zk = self._config, self._zk
        self._log(f"broker starts; log.dirs {', '.join(config.log_dirs)}")
        for warning in config.warnings:
            self._log(f"warning: {warning}")
        if config.without_effect():
            self._log(f"set but without effect: {', '.join(config.without_effect())}")
        for endpoint in config.listeners:
            self._bound[endpoint.listener] = self._bind(endpoint)
        zk.listen(self._session_changed)
        patient = bootstrap.PatientSession(
            zk, config.zookeeper.hosts, config.zookeeper_connection_timeout_ms, self._reactor
        )
        zk.start()
        yield patient.ask(lambda: bootstrap.make_paths(zk))
        yield patient.ask(lambda: bootstrap.refuse_kafka_neighbours(zk))
        cluster_id = yield patient.ask(lambda: bootstrap.find_cluster_id(zk, self._random))
        self._broker_id = yield from self._find_id(patient)
        topic_configs = TopicConfigs(
            broker_id=self._broker_id,
            zk=zk,
            clock=self._clock,
            resolve=lambda default, own, topic: resolve_topic_config(config, default, own, topic),
            changed=self._topic_config_changed,
            log=self._log,
            brokers_changed=lambda: settings.changed(),
        )
        settings = CurrentSettings(config, lambda: (topic_configs.dynamic_default, topic_configs.dynamic_broker))
        # Before the logs are loaded, which they are with their topics' settings.
        yield patient.ask(topic_configs.start)
        logs = self._logs = self._open_logs(cluster_id, topic_configs, settings)
        # Not earlier: recovery after a crash takes this thread for as long as it needs.
        self._watchdog.start()
        self._every(config.get_int("zookeeper.session.timeout.ms") / 1000 / TICKS_PER_SESSION, self._watchdog.tick)
        missing = yield patient.ask(lambda: find_missing(zk, self._broker_id, logs, self._log))
        logs.losses.add(missing)
        if logs.losses.replicas:
            self._log(f"{len(logs.losses.replicas)} replicas lack records they may be counted for; they follow first")
        previous_session_id = yield patient.ask(self._close_previous_session)
        self._keep_session()
        self._make_parts(cluster_id, topic_configs, settings, previous_session_id)

    def _find_id(self, patient: bootstrap.PatientSession) -> Generator[Deferred[Any], Any, int]:
        if self._config.broker_id >= 0:
            return self._config.broker_id
        stored = bootstrap.stored_broker_id(self._disk, self._config.log_dirs)
        if stored is not None:
            return stored
        reserved_max = self._config.get_int("reserved.broker.max.id")
        generated: int = yield patient.ask(lambda: bootstrap.generate_broker_id(self._zk, reserved_max))
        self._log(f"broker.id {generated} was generated")
        return generated

    def _open_logs(self, cluster_id: str, topic_configs: TopicConfigs, settings: CurrentSettings) -> LogDirs:
        def expiration_ms() -> int:
            return settings.config.get_int("producer.id.expiration.ms")

        logs = LogDirs(
            disk=self._disk,
            clock=self._clock,
            reactor=self._reactor,
            run_in_thread=self._run_in_thread,
            log_dirs=self._config.log_dirs,
            broker_id=self._broker_id,
            topic_config=topic_configs.get,
            dir_failed=self._dir_failed,
            producer_id_expiration_ms=expiration_ms(),
            boot_id=self._boot_id,
        )
        settings.listen(lambda: logs.forget_producers_after(expiration_ms()))
        logs.open(cluster_id)
        self._log(f"broker {self._broker_id} of cluster {cluster_id}; {len(logs.logs)} logs loaded")
        return logs

    @inlineCallbacks
    def _close_previous_session(self) -> Generator[Deferred[Any], Any, int]:
        """End the session that a crash of this broker left behind, so that its registration goes at once; returns its
        id, 0 for none.

        The process that had it is certainly gone: the log folder's lock is held, and the address that the znode names
        is bound here. (A copy of the folder on another machine has the file, but not that address.)"""
        previous = session_file.read_session(self._disk, self._config.log_dirs[0])
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
        yield self._close_session(*previous)
        return previous[0]

    def _keep_session(self) -> None:
        try:
            session_file.write_session(
                self._disk, self._config.log_dirs[0], self._zk.session_id, self._zk.session_password
            )
        except OSError as error:
            self._log(f"the session could not be kept for the next start: {error}")

    def _make_parts(
        self, cluster_id: str, topic_configs: TopicConfigs, settings: CurrentSettings, previous_session_id: int
    ) -> None:
        if self._logs is None:
            raise StartError("the logs are not open")
        parts = self._parts = Parts(
            config=self._config,
            reactor=self._reactor,
            clock=self._clock,
            source=self._random,
            zk=self._zk,
            logs=self._logs,
            topic_configs=topic_configs,
            settings=settings,
            cluster_id=cluster_id,
            broker_id=self._broker_id,
            incarnation=self._incarnation,
            describe=self._describe,
            previous_session_id=previous_session_id,
            registration_failed=lambda error: self._go_down(str(error)),
            became_ready=self._became_ready,
            start_cleaner=self._start_cleaner,
            fatal=self._fatal,
            log=self._log,
        )
        self.state = State.RUNNING
        config = self._config
        self._every(config.get_int("replica.high.watermark.checkpoint.interval.ms") / 1000, parts.write_checkpoints)
        self._every(config.get_int("log.retention.check.interval.ms") / 1000, parts.replicas.delete_old_segments)
        self._every(1.0, self._logs.flush_due)
        parts.cleaning.start()
        # From here connections are accepted; Kafka requests wait for the first snapshot.
        parts.listen(self._bound)
        parts.registration.start()

    def _start_failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) is not None and self.state is State.STOPPING:
            return
        reason = failure.getErrorMessage()
        if failure.check(StartError) is None:
            self._log(failure.getTraceback())
            reason = f"start failed: {reason}"
        self._go_down(reason)

    # What the parts tell

    def _describe(self) -> BrokerRegistration:
        """What the registration znode says: port 0 and an empty host are filled in with what they became."""
        endpoints = []
        for endpoint in self._config.advertised_listeners:
            host = endpoint.host or socket.getfqdn()
            port = endpoint.port or self._bound[endpoint.listener].port
            endpoints.append(Endpoint(endpoint.listener, host, port))
        protocols = tuple(sorted(self._config.protocols.items()))
        lossy = () if self._logs is None else tuple(self._logs.losses.replicas.values())
        return BrokerRegistration(self._broker_id, -1, tuple(endpoints), protocols, self._config.rack, lossy)

    def _session_changed(self, state: SessionState) -> None:
        if self._parts is not None and self.state is State.RUNNING:
            if state is SessionState.CONNECTED:
                self._keep_session()
            self._parts.session_changed(state)

    def _topic_config_changed(self, topic: str) -> None:
        # The first reading comes before there are replicas; each takes its topic's settings when it is made.
        if self._parts is not None:
            self._parts.topic_config_changed(topic)

    def _became_ready(self) -> None:
        if self._parts is None:
            return
        self._parts.serve()
        where = " ".join(str(endpoint) for endpoint in self._describe().endpoints)
        self._log(f"broker {self._broker_id} started in {self._clock.monotonic() - self._started_at:.2f} s: {where}")
        # kio's import takes 0.2 s; nothing that is hot waits for it.
        loaded = self._run_in_thread(preload_hot).addCallback(lambda _: self._warmed_up())
        loaded.addErrback(lambda failure: self._log(failure.getTraceback()))

    def _dir_failed(self, folder: str, reason: str, partitions: list[TopicPartition]) -> None:
        if self._logs is not None and self._logs.is_all_offline:
            self._end("all log folders failed")
        elif self._parts is not None:
            self._parts.dir_failed(folder, reason, partitions)

    # Stop

    def stop(self) -> None:
        """Controlled shutdown: others take the leaderships, then everything is flushed and closed."""
        if self.state in (State.STOPPING, State.ENDED):
            return
        self._log("stopping")
        self._go_down(None)

    def _go_down(self, reason: str | None) -> None:
        """Take down what there is, in order, and end; ``reason`` is None when that was asked for."""
        if self.state in (State.STOPPING, State.ENDED):
            return
        self.state = State.STOPPING
        if self._starting is not None:
            self._starting.cancel()
        self._take_down(reason).addErrback(self._stop_failed)

    @inlineCallbacks
    def _take_down(self, reason: str | None) -> Generator[Deferred[Any], Any, None]:
        parts, logs = self._parts, self._logs
        epoch = None
        if parts is not None:
            if reason is None and self._config.get_bool("controlled.shutdown.enable"):
                yield hand_over(
                    ask=parts.channel.controlled_shutdown,
                    somebody_else=lambda: len(parts.metadata.live_brokers()) > 1,
                    has_clients=parts.has_clients,
                    moved=parts.follow_nobody,
                    seconds_max=LEADERS_MOVE_S_MAX if self._zk.is_connected else LEADERS_MOVE_ALONE_S_MAX,
                    clock=self._clock,
                    reactor=self._reactor,
                    log=self._log,
                )
            epoch = yield parts.stop()
        if self.state is State.ENDED:
            return
        self._stop_loops()
        # What follows may take this thread for long, and nobody counts on this broker any more.
        self._watchdog.stop()
        self._logs = None
        if logs is not None:
            logs.close(_clean_epoch(logs) if epoch is None else epoch)
        was_connected = self._zk.is_connected
        yield self._zk.stop()
        if parts is not None and was_connected:
            try:
                session_file.forget_session(self._disk, self._config.log_dirs[0])
            except OSError as error:
                # Its folder failed. The next start finds the session gone.
                self._log(f"the closed session could not be forgotten: {error}")
        if reason is None:
            self._log("broker stopped" if self._broker_id < 0 else f"broker {self._broker_id} stopped")
        self._end(reason)

    def _stop_failed(self, failure: Failure) -> None:
        self._log(failure.getTraceback())
        self._end(f"the shutdown failed: {failure.getErrorMessage()}")

    def _stop_loops(self) -> None:
        for loop in self._loops:
            if loop.running:
                loop.stop()

    def _end(self, reason: str | None) -> None:
        """At once, leaving the logs as they are."""
        if self.state is State.ENDED:
            return
        self.state = State.ENDED
        self._stop_loops()
        self._watchdog.stop()
        for bound in self._bound.values():
            bound.socket.close()
        logs, self._logs = self._logs, None
        if logs is not None:
            logs.abandon()
        self._zk.stop().addBoth(lambda _: self._ended(reason))


def _clean_epoch(logs: LogDirs) -> int:
    """What the mark of a clean shutdown says of logs that were opened and never used: what the last mark said; -1 when
    there was none."""
    marks = logs.clean_broker_epochs
    return min(marks.values()) if len(marks) == len(logs.log_dirs) else -1

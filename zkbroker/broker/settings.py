"""From the one typed configuration to what each part obeys: the only place where keys meet parts."""

from __future__ import annotations

from zkbroker.broker.controller_settings import ControllerSettings
from zkbroker.broker.detection import DetectionSettings
from zkbroker.broker.peers import PeerSettings
from zkbroker.broker.replica import ReplicaSettings
from zkbroker.kafka.connection_counts import parse_overrides
from zkbroker.kafka.ports import ListenerLimits
from zkbroker.log.cleaner_choice import CleanerSettings
from zkbroker.model.config import BrokerConfig
from zkbroker.replication.channel_state import ChannelSettings
from zkbroker.replication.fetcher import FetcherSettings
from zkbroker.replication.server import CALLER_SILENT_S, LISTEN_S

CONTACT_SHARE = 0.8
"""X of the contact rule as a share of the session timeout: below 1 with room for drift, so that a leader falls silent
before the ensemble can have expired it."""

UNREACHABLE_SHARE = 1 / 3
"""Of the session timeout: a leader that has owed an answer for so long is complained of."""

UNREACHABLE_S_MIN = 1.5
"""But no sooner than this, however short the timeout: a busy machine delays a process for a second now and then."""


def contact_seconds_max(timeout_s: float) -> float:
    """X of the contact rule, seconds. ``timeout_s`` is the session timeout that the ensemble agreed to, here and below:
    it may be shorter than ``zookeeper.session.timeout.ms``."""
    return timeout_s * CONTACT_SHARE


def unreachable_seconds(timeout_s: float) -> float:
    """How long a peer may owe an answer before it is complained of."""
    return max(UNREACHABLE_S_MIN, timeout_s * UNREACHABLE_SHARE)


def controller_settings(config: BrokerConfig, timeout_s: float) -> ControllerSettings:
    return ControllerSettings(
        num_partitions=config.get_int("num.partitions"),
        default_replication_factor=config.get_int("default.replication.factor"),
        unclean_leader_election_enable=config.get_bool("unclean.leader.election.enable"),
        min_insync_replicas=config.get_int("min.insync.replicas"),
        auto_leader_rebalance_enable=config.get_bool("auto.leader.rebalance.enable"),
        leader_imbalance_per_broker_percentage=config.get_int("leader.imbalance.per.broker.percentage"),
        leader_imbalance_check_interval_seconds=config.get_int("leader.imbalance.check.interval.seconds"),
        delete_topic_enable=config.get_bool("delete.topic.enable"),
        session_timeout_s=timeout_s,
        steps_down_unheard=config.get_str("broker.failure.detection") == "fast",
        request_timeout_s=config.get_int("request.timeout.ms") / 1000,
    )


def replica_settings(config: BrokerConfig, timeout_s: float) -> ReplicaSettings:
    return ReplicaSettings(
        # Followers that get no answer have another elected as soon as they complain, long before the session ends: a
        # leader that stood still for so long must hear from somebody before it answers what waits in its sockets.
        contact_seconds_max=min(contact_seconds_max(timeout_s), unreachable_seconds(timeout_s)),
        lag_seconds_max=config.get_int("replica.lag.time.max.ms") / 1000,
    )


def channel_settings(timeout_s: float) -> ChannelSettings:
    bound_s = contact_seconds_max(timeout_s)
    return ChannelSettings(heartbeat_interval_s=bound_s / 3, silence_s=bound_s)


def detection_settings(config: BrokerConfig, timeout_s: float) -> DetectionSettings:
    bound_s = contact_seconds_max(timeout_s)
    return DetectionSettings(
        is_fast=config.get_str("broker.failure.detection") == "fast",
        peers=PeerSettings(
            probe_s=config.get_int("broker.failure.probe.ms") / 1000, ping_interval_s=bound_s / 3, silence_s=bound_s
        ),
    )


def listen_seconds(timeout_s: float) -> float:
    """For how long another broker's connection is one while it is silent: PINGs come each third of it."""
    return max(LISTEN_S, contact_seconds_max(timeout_s))


def caller_silent_seconds(timeout_s: float) -> float:
    """How long another broker's connection may be silent: many times as long as it takes to PING on it, also with a
    longer session timeout there."""
    return max(CALLER_SILENT_S, 2 * timeout_s)


def fetcher_settings(config: BrokerConfig, timeout_s: float) -> FetcherSettings:
    return FetcherSettings(
        fetch_max_bytes=config.get_int("replica.fetch.max.bytes"),
        response_max_bytes=config.get_int("replica.fetch.response.max.bytes"),
        wait_max_ms=config.get_int("replica.fetch.wait.max.ms"),
        min_bytes=config.get_int("replica.fetch.min.bytes"),
        backoff_s=config.get_int("replica.fetch.backoff.ms") / 1000,
        # After a network that dropped packets is whole again, the kernel may take as long again until it tries.
        answer_timeout_s=min(config.get_int("replica.socket.timeout.ms") / 1000, timeout_s),
        unreachable_s=unreachable_seconds(timeout_s),
    )


def cleaner_settings(config: BrokerConfig) -> CleanerSettings:
    return CleanerSettings(
        is_enabled=config.get_bool("log.cleaner.enable"),
        threads=config.get_int("log.cleaner.threads"),
        backoff_s=config.get_int("log.cleaner.backoff.ms") / 1000,
        dedupe_buffer_bytes=config.get_int("log.cleaner.dedupe.buffer.size"),
        io_buffer_bytes=config.get_int("log.cleaner.io.buffer.size"),
        load_factor=config.get_float("log.cleaner.io.buffer.load.factor"),
        io_bytes_per_second=config.get_float("log.cleaner.io.max.bytes.per.second"),
    )


def listener_limits(config: BrokerConfig) -> ListenerLimits:
    return ListenerLimits(
        socket_request_max_bytes=config.get_int("socket.request.max.bytes"),
        queued_max_request_bytes=config.get_int("queued.max.request.bytes"),
        connections_max_idle_ms=config.get_int("connections.max.idle.ms"),
        max_connections=config.get_int("max.connections"),
        fetch_max_bytes=config.get_int("fetch.max.bytes"),
        request_timeout_ms=config.get_int("request.timeout.ms"),
        auto_create_topics=config.get_bool("auto.create.topics.enable"),
        max_connections_per_ip=config.get_int("max.connections.per.ip"),
        max_connections_overrides=parse_overrides(config.get_list("max.connections.per.ip.overrides")),
        fetch_sessions_max=config.get_int("max.incremental.fetch.session.cache.slots"),
    )

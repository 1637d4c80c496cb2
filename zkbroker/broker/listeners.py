"""What a broker answers on: a factory of connections for each Kafka listener, the line protocol's server for peers."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import Logger

from zkbroker.broker import listening
from zkbroker.broker.admin import Admin
from zkbroker.broker.dynamic_settings import CurrentSettings
from zkbroker.broker.group_parts import GroupParts
from zkbroker.broker.metadata import ClusterMetadata
from zkbroker.broker.producer_ids import ProducerIds
from zkbroker.broker.replicas import Replicas
from zkbroker.broker.settings import listener_limits
from zkbroker.kafka.connection_counts import ConnectionCounts
from zkbroker.kafka.fetch_sessions import FetchSessions
from zkbroker.kafka.listener import KafkaFactory
from zkbroker.kafka.memory import RequestMemory
from zkbroker.kafka.ports import ListenerLimits
from zkbroker.model.clock import Clock
from zkbroker.model.cluster import REPLICATION_LISTENER
from zkbroker.model.config import BrokerConfig
from zkbroker.replication.server import ReplicationServer

logger = Logger()


class Listeners:
    """All Kafka listeners share one budget of memory for queued requests (``queued.max.request.bytes``)."""

    def __init__(
        self,
        *,
        config: BrokerConfig,
        settings: CurrentSettings,
        reactor: Any,
        clock: Clock,
        replicas: Replicas,
        metadata: ClusterMetadata,
        admin: Admin,
        producer_ids: ProducerIds,
        groups: GroupParts,
        server: ReplicationServer,
        fatal: Callable[[str, BaseException], None],
        source: random.Random,
    ) -> None:
        self._reactor = reactor
        self._server = server
        self.ports: list[Any] = []
        """Listening sockets, in the order in which they were opened."""
        limits = listener_limits(settings.config)
        settings.listen(lambda: self._limits_changed(listener_limits(settings.config)))
        memory = RequestMemory(limits.queued_max_request_bytes)
        fetch_sessions = FetchSessions(limits.fetch_sessions_max, clock, source.randint)
        counts = ConnectionCounts()
        self._factories = [
            KafkaFactory(
                listener_name=endpoint.listener,
                data=replicas,
                metadata=metadata,
                admin=admin,
                producer_ids=producer_ids,
                limits=limits,
                clock=clock,
                reactor=reactor,
                log=logger,
                fatal=fatal,
                memory=memory,
                groups=groups.groups,
                coordinators=groups.topic,
                fetch_sessions=fetch_sessions,
                counts=counts,
            )
            for endpoint in config.kafka_listeners
        ]

    def __repr__(self) -> str:
        return f"Listeners({len(self.ports)} ports)"

    def listen(self, bound: Mapping[str, listening.BoundSocket]) -> None:
        """Accept connections; Kafka requests wait for ``serve``. Raises StartError."""
        factories: dict[str, Any] = {factory.listener_name: factory for factory in self._factories}
        factories[REPLICATION_LISTENER] = self._server
        for name, one in bound.items():
            self.ports.append(listening.listen(one, factories[name], self._reactor))

    def serve(self) -> None:
        """Answer clients from now on."""
        for factory in self._factories:
            factory.became_ready()

    def _limits_changed(self, limits: ListenerLimits) -> None:
        for factory in self._factories:
            factory.limits_changed(limits)

    def close_clients(self) -> None:
        """Close the clients' connections; those of brokers end with their server."""
        for factory in self._factories:
            factory.close_connections()

    def has_clients(self) -> bool:
        """Is any client connected?"""
        return any(factory.connections for factory in self._factories)

"""One Kafka listener: accepts connections, bounds their number and their memory, ends idle ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger

from zkbroker.kafka.apis import preload_hot
from zkbroker.kafka.connection import KafkaConnection
from zkbroker.kafka.connection_counts import ConnectionCounts
from zkbroker.kafka.fetch_sessions import FetchSessions
from zkbroker.kafka.group_ports import CoordinatorPort, GroupPort
from zkbroker.kafka.memory import RequestMemory
from zkbroker.kafka.ports import AdminPort, DataPort, ListenerLimits, MetadataPort, ProducerIdPort
from zkbroker.kafka.request import Services
from zkbroker.kafka.shares import Shares
from zkbroker.model.clock import Clock

__all__ = ["KafkaFactory", "preload_hot"]

READY_POLL_S = 0.05
"""How often ``is_ready`` is looked at while clients wait for the first snapshot; ``became_ready`` is quicker."""

SWEEP_S = 5.0
"""How often idle connections are looked for; less with a small connections.max.idle.ms."""

STALL_S = 10.0
"""A frame or answer that stands still so long while others wait for memory costs its connection."""

ELDER_S = 60.0
"""How long one frame may hold up those who wait for memory to finish theirs, however busily it arrives."""

ANSWER_BYTES_MIN = 64 * 1024
"""What a Fetch may be answered with however much memory the unread answers of others take."""

COMPLAINTS_PER_S = 1.0
"""Lines a second about connections that are closed for what they sent."""


class KafkaFactory(ServerFactory):
    """Twisted factory of one listener. ``memory``, ``fetch_sessions`` and ``counts`` are shared between the listeners
    of a broker where they are given.

    ``fatal(where, error)`` is called when an invariant is broken. It is the owner's to end the process.
    """

    noisy = False

    def __init__(
        self,
        *,
        listener_name: str,
        data: DataPort,
        metadata: MetadataPort,
        admin: AdminPort,
        producer_ids: ProducerIdPort,
        groups: GroupPort,
        coordinators: CoordinatorPort,
        limits: ListenerLimits,
        clock: Clock,
        reactor: Any,
        log: Logger,
        fatal: Callable[[str, BaseException], None],
        memory: RequestMemory | None = None,
        fetch_sessions: FetchSessions | None = None,
        counts: ConnectionCounts | None = None,
    ) -> None:
        self.listener_name = listener_name
        self.limits = limits
        self.clock = clock
        self.reactor = reactor
        self.log = log
        self.fatal = fatal
        self.services = Services(
            data,
            metadata,
            admin,
            producer_ids,
            limits,
            listener_name,
            {},
            groups,
            coordinators,
            fetch_sessions
            if fetch_sessions is not None
            else FetchSessions(limits.fetch_sessions_max, clock, random.randint),
            self.answer_bytes_max,
            reactor.callLater,
        )
        self.memory = memory if memory is not None else RequestMemory(limits.queued_max_request_bytes)
        self.unsent_memory = RequestMemory(limits.queued_max_request_bytes)
        """Answers that wait for their clients to read: no Fetch begins while there is more than the limit."""
        self.shares = Shares(reactor, clock)
        self.connections: dict[KafkaConnection, None] = {}
        self.counts = ConnectionCounts() if counts is None else counts
        self._waiting_ready: dict[KafkaConnection, float] = {}
        """Connections with a request held since then."""
        self._elder: tuple[object, float] = (None, 0.0)
        """Who may go on past the memory's limit, and since when it was seen."""
        self._sweep_call: Any = None
        self._ready_call: Any = None
        self._complained_at = -COMPLAINTS_PER_S
        self._complaints_kept_back = 0

    def __repr__(self) -> str:
        return f"KafkaFactory({self.listener_name}, connections={len(self.connections)}, {self.memory!r})"

    # Twisted's side

    def startFactory(self) -> None:
        self._schedule_sweep()

    def stopFactory(self) -> None:
        for call in (self._sweep_call, self._ready_call):
            if call is not None and call.active():
                call.cancel()
        self._sweep_call = self._ready_call = None
        self.shares.stop()

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """None, which closes the connection, when there are too many already, in all or of that address."""
        refusal = self.counts.refusal(getattr(addr, "host", ""), self.limits)
        if refusal is not None:
            self.complain(str(addr), refusal)
            return None
        return KafkaConnection(self)

    # The owner's side

    def became_ready(self) -> None:
        """``metadata.is_ready`` is true now: serve who waited."""
        waiting, self._waiting_ready = self._waiting_ready, {}
        for connection in waiting:
            connection.became_ready()

    def limits_changed(self, limits: ListenerLimits) -> None:
        """The broker's settings changed: these hold for what comes from now on."""
        self.limits = limits
        self.services = self.services._replace(limits=limits)

    def close_connections(self) -> None:
        """Shutdown: end every connection now."""
        for connection in list(self.connections):
            connection.close()

    # The connections' side

    def answer_bytes_max(self) -> int:
        """``fetch.max.bytes``, or less where so many clients who all stopped reading would take the memory that answers
        may take: a few hundred of them are to keep nobody else waiting."""
        left = self.unsent_memory.limit_bytes - self.unsent_memory.used_bytes
        share = max(ANSWER_BYTES_MIN, left // (1 + len(self.connections) // 4))
        return min(self.limits.fetch_max_bytes, share)

    def connection_opened(self, connection: KafkaConnection) -> None:
        self.connections[connection] = None
        transport: Any = connection.transport
        self.counts.opened(connection, getattr(transport.getPeer(), "host", ""))

    def connection_closed(self, connection: KafkaConnection) -> None:
        self.connections.pop(connection, None)
        self.counts.closed(connection)
        self._waiting_ready.pop(connection, None)

    def wait_until_ready(self, connection: KafkaConnection) -> None:
        self._waiting_ready.setdefault(connection, self.clock.monotonic())
        if self._ready_call is None:
            self._ready_call = self.reactor.callLater(READY_POLL_S, self._poll_ready)

    def complain(self, peer: str, reason: str) -> None:
        """One line about a connection that is closed, at a bounded rate: garbage must not fill the log."""
        now = self.clock.monotonic()
        if now - self._complained_at < 1 / COMPLAINTS_PER_S:
            self._complaints_kept_back += 1
            return
        self._complained_at = now
        kept_back, self._complaints_kept_back = self._complaints_kept_back, 0
        self.log.warn(
            "{listener}: closing the connection of {peer}: {reason}{more}",
            listener=self.listener_name,
            peer=peer,
            reason=reason,
            more=f" (and {kept_back} more since the last such line)" if kept_back else "",
        )

    # Timers

    def _poll_ready(self) -> None:
        self._ready_call = None
        if self.services.metadata.is_ready:
            self.became_ready()
            return
        oldest = self.clock.monotonic() - self.limits.request_timeout_ms / 1000
        for connection, since in list(self._waiting_ready.items()):
            if since <= oldest:
                connection.close("the broker knows nothing of the cluster yet")
        if self._waiting_ready:
            self._ready_call = self.reactor.callLater(READY_POLL_S, self._poll_ready)

    def _schedule_sweep(self) -> None:
        period = min(SWEEP_S, max(0.05, self.limits.connections_max_idle_ms / 4000))
        self._sweep_call = self.reactor.callLater(period, self._sweep)

    def _sweep(self) -> None:
        now = self.clock.monotonic()
        idle_since = now - self.limits.connections_max_idle_ms / 1000
        stalled_since = now - STALL_S
        memory_is_short = bool(self.memory.waiting)
        if self.memory.elder is not self._elder[0]:
            self._elder = (self.memory.elder, now)
        has_slow_elder = memory_is_short and self._elder[1] < now - ELDER_S
        unsent_is_short = bool(self.unsent_memory.waiting)
        for connection in list(self.connections):
            active_at = max(connection.last_received_at, connection.last_sent_at)
            if active_at < idle_since and (connection.is_idle or connection.is_closed):
                connection.close()
            elif unsent_is_short and connection.has_unsent and connection.last_sent_at < stalled_since:
                connection.close("an answer that is not read keeps others waiting for memory")
            elif memory_is_short and connection.is_inside_frame and connection.last_received_at < stalled_since:
                connection.close("a request that stopped arriving keeps others waiting for memory")
            elif has_slow_elder and connection is self._elder[0]:
                connection.close("a request that arrives slowly keeps others waiting for memory")
        self._schedule_sweep()

"""The REPLICATION listener: followers fetch here, brokers reach the controller here, and people may type here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from zkbroker.model.channel import FollowerContact
from zkbroker.model.clock import Clock
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.limits import (
    FETCH_PARTITIONS_MAX,
    FETCH_SESSIONS_MAX,
    REPLICATION_CONNECTIONS_MAX,
    REQUEST_BODY_BYTES_MAX,
)
from zkbroker.replication.alarm import Alarm, Soon
from zkbroker.replication.channel_server import ChannelServer, DeltaRows
from zkbroker.replication.codec import FramingError, Message, encode_error, encode_push, encode_text
from zkbroker.replication.connection import LineConnection, log
from zkbroker.replication.fetch_session import FetchSession, HeldFetch
from zkbroker.replication.messages import (
    decode_fetch,
    decode_fetch_rows,
    decode_identity,
    encode_fetched,
    encode_hello_answer,
    negotiate,
)
from zkbroker.replication.peer_server import PeerServer
from zkbroker.replication.ports import ControllerPort, Identity, IdentitySource, LeaderPort, PeersPort, StatusPort

LONG_POLL_S_MAX = 60.0
"""A FETCH is not held longer, whatever it asks: its connection must show now and then that somebody is there."""

CALLER_SILENT_S = 30.0
"""A broker that says nothing for so long, on a connection on which it is owed nothing, has given it up: its FIN was
lost. All it has sends something every few seconds.
"""

LISTEN_S = 3.0
"""Whoever says nothing for so long is not counted as connected until it speaks again: a half that a cut network left
behind would be a sign of life of a broker that dies later. What lives PINGs on one of its connections more often."""

HELP = (
    "This is zkbroker's line protocol between brokers. For people:",
    "  HELP                this text",
    "  PING                is somebody there?",
    "  STATUS              this broker, its peers and its office",
    "  PARTITIONS [topic]  the partitions on this broker and where they stand",
    "Everything else begins with HELLO: see zkbroker/replication/PROTOCOL.md.",
)


class ReplicationServer(Factory):
    """Makes a ``ReplicationConnection`` of each caller; ``listenTCP`` and TLS are the composition root's."""

    noisy = False

    def __init__(
        self,
        *,
        reactor: Any,
        clock: Clock,
        identity: IdentitySource,
        leader: LeaderPort,
        controller: Callable[[], ControllerPort | None],
        status: StatusPort,
        peers: PeersPort | None = None,
        caller_silent_s: float = CALLER_SILENT_S,
        listen_s: float = LISTEN_S,
    ) -> None:
        self.clock = clock
        self.identity = identity
        self.leader = leader
        self.controller = controller
        self.status = status
        self.peers = peers
        self.delta_rows = DeltaRows()
        self.alarm = Alarm(reactor, clock, self._rung)
        self.silent_looks_max = max(1, round(caller_silent_s / listen_s))
        self._listen_s = listen_s
        self._sweep = Alarm(reactor, clock, self._look_for_silence)
        self._sweep_at = 0.0
        self._woken: dict[FetchSession, ReplicationConnection] = {}
        self._soon = Soon(reactor, self._answer_woken)
        self.connections: dict[ReplicationConnection, None] = {}

    def buildProtocol(self, addr: IAddress | None) -> ReplicationConnection | None:
        if len(self.connections) >= REPLICATION_CONNECTIONS_MAX:
            log.warn("refusing {addr}: {count} connections are open", addr=addr, count=len(self.connections))
            return None
        connection = ReplicationConnection(self)
        connection.factory = self
        return connection

    def say_bye(self) -> None:
        """This broker stops: tell every caller and close."""
        for connection in list(self.connections):
            connection.send(encode_push(0, "BYE"))
            connection.close()

    def stop(self) -> None:
        """Drop every connection and timer."""
        self.alarm.stop()
        self._sweep.stop()
        self._soon.stop()
        for connection in list(self.connections):
            connection.abort()

    def woken(self, session: FetchSession, connection: ReplicationConnection) -> None:
        """A held FETCH may have an answer: look at the end of this turn, when all that arrived in it is appended."""
        self._woken[session] = connection
        self._soon.ask()

    def _answer_woken(self) -> None:
        woken, self._woken = self._woken, {}
        now = self.clock.monotonic()
        for session, connection in woken.items():
            connection.answer(session, now)

    def _rung(self, now: float) -> None:
        for connection in list(self.connections):
            connection.answer_due(now)

    def connection_opened(self, connection: ReplicationConnection) -> None:
        if not self.connections:
            self._sweep_later()
        self.connections[connection] = None

    def _sweep_later(self) -> None:
        self._sweep_at = self.clock.monotonic() + self._listen_s
        self._sweep.at_latest(self._sweep_at)

    def _look_for_silence(self, now: float) -> None:
        # After a stop of this process, what callers said meanwhile is still to be read.
        is_late = now - self._sweep_at > self._listen_s / 2
        for connection in list(self.connections):
            connection.look_for_silence(is_late)
        if self.connections:
            self._sweep_later()


class ReplicationConnection(LineConnection):
    """One caller at the listener: another broker, or a person."""

    def __init__(self, server: ReplicationServer) -> None:
        super().__init__(REQUEST_BODY_BYTES_MAX)
        self._server = server
        self._caller: Identity | None = None
        """Who said HELLO; None before."""
        self._silent_looks = 0
        """How often the server looked since it last spoke."""
        self._is_counted = False
        """``peers`` was told that it is connected."""
        self._sessions: dict[int, FetchSession] = {}
        self.channel = ChannelServer(self, server.controller, server.delta_rows)
        self.peers = PeerServer(self, server.peers)
        self.people: dict[str, Callable[[Message], list[str]]] = {
            "HELP": lambda message: list(HELP),
            "PING": lambda message: ["PONG"],
            "STATUS": lambda message: self._server.status.status_lines(),
            "PARTITIONS": lambda message: self._server.status.partition_lines(
                message.arguments[0] if message.arguments else message.values.get("topic")
            ),
        }

    def __repr__(self) -> str:
        return f"ReplicationConnection(caller={self._caller}, sessions={list(self._sessions.values())})"

    def peer(self) -> str:
        return super().peer() if self._caller is None else f"broker {self._caller.broker_id}"

    def opened(self) -> None:
        self._server.connection_opened(self)

    def look_for_silence(self, is_late: bool) -> None:
        """Count it no more if nothing came since the last look, abort after many of them."""
        if self._caller is None or is_late or any(session.held for session in self._sessions.values()):
            self._silent_looks = 0
            return
        self._silent_looks += 1
        if self._silent_looks > 1:
            self._count_out()
        if self._silent_looks > self._server.silent_looks_max:
            log.info("dropping a connection of {peer}: it says nothing", peer=self.peer())
            self.abort()

    def _count_in(self) -> None:
        if self._server.peers is not None and self._caller is not None and not self._is_counted:
            self._is_counted = True
            self._server.peers.met(self._caller)

    def _count_out(self, was_cut: bool = False) -> None:
        if self._server.peers is not None and self._caller is not None and self._is_counted:
            self._is_counted = False
            self._server.peers.left(self._caller, was_cut)

    def message_received(self, message: Message) -> None:
        self._silent_looks = 0
        if not self._is_counted:
            self._count_in()
        try:
            if message.verb == "FETCH":
                self._fetch(self._known_caller(), message)
            elif message.verb == "HELLO":
                self._hello(message)
            elif message.verb in self.people:
                self.send(encode_text(message.correlation, self.people[message.verb](message)))
            elif message.verb in self.channel.verbs:
                self.channel.request(self._known_caller(), message)
            elif message.verb in self.peers.verbs:
                self.peers.request(self._known_caller(), message)
            elif message.verb == "BYE":
                self._bye(self._known_caller())
            else:
                raise BrokerError(ErrorCode.INVALID_REQUEST, f"{message.verb[:40]} is not a verb: HELP lists them")
        except FramingError:
            raise
        except BrokerError as error:
            self.send(encode_error(message.correlation, error.error, str(error)))

    def _known_caller(self) -> Identity:
        if self._caller is None:
            raise BrokerError(ErrorCode.INVALID_REQUEST, "HELLO comes first")
        return self._caller

    def _hello(self, message: Message) -> None:
        own = self._server.identity()
        version = negotiate(message)
        caller = decode_identity(message)
        if caller.cluster_id != own.cluster_id:
            raise BrokerError(
                ErrorCode.INCONSISTENT_CLUSTER_ID, f"this is cluster {own.cluster_id}, not {caller.cluster_id}"
            )
        meant = message.integer("to", own.broker_id)
        if meant != own.broker_id:
            raise BrokerError(ErrorCode.BROKER_ID_NOT_REGISTERED, f"this is broker {own.broker_id}, not {meant}")
        # A second HELLO is a broker that registered anew: what it did under its old epoch is over.
        self._forget_caller()
        self._caller = caller
        self.send(encode_hello_answer(message.correlation, version, own))
        self._count_in()

    def _bye(self, caller: Identity) -> None:
        log.info("broker {broker} says BYE", broker=caller.broker_id)
        if self._server.peers is not None:
            self._server.peers.bye_heard(caller)
        self.close()

    def _fetch(self, caller: Identity, message: Message) -> None:
        fetch = decode_fetch(message)
        now = self._server.clock.monotonic()
        try:
            session = self._session(fetch.session, fetch.seq, caller, now)
            rows = decode_fetch_rows(message, session.topic_id_of)
            if len(rows) > FETCH_PARTITIONS_MAX:
                raise FramingError(f"{len(rows)} rows in a FETCH: the limit is {FETCH_PARTITIONS_MAX}")
            deadline = now + min(fetch.max_wait_ms / 1000, LONG_POLL_S_MAX)
            session.take(HeldFetch(message.correlation, fetch, deadline), rows, now)
        except BrokerError:
            # Follower and leader may disagree about what the session holds: it starts anew.
            self._end_session(fetch.session)
            raise
        self.answer(session, now)

    def _session(self, session_id: int, seq: int, caller: Identity, now: float) -> FetchSession:
        if seq == 0:
            self._end_session(session_id)
            if len(self._sessions) >= FETCH_SESSIONS_MAX:
                raise FramingError(f"more than {FETCH_SESSIONS_MAX} sessions")
            contact = FollowerContact(caller.broker_id, caller.broker_epoch, now)
            session = FetchSession(self._server.leader, contact, session_id, self._woken)
            self._sessions[session_id] = session
            return session
        if session_id not in self._sessions:
            raise BrokerError(ErrorCode.FETCH_SESSION_ID_NOT_FOUND, f"session {session_id} is not open: begin at seq=0")
        return self._sessions[session_id]

    def _end_session(self, session_id: int) -> None:
        session = self._sessions.pop(session_id, None)
        if session is not None:
            session.close()

    def _woken(self, session: FetchSession) -> None:
        self._server.woken(session, self)

    def answer(self, session: FetchSession, now: float) -> None:
        """Answer the session's FETCH if there is reason to and the transport takes it; else see to the alarm."""
        if self.is_full or self._is_closing or not session.held:
            return
        while len(session.held) > 1:
            # A newer FETCH releases the held one.
            self._write(session.take_held(now), [])
        due_at = session.due_at()
        rows = session.collect(session.held[0].fetch, now, due_at is not None and due_at <= now)
        if rows is not None:
            self._write(session.take_held(now), rows)
            return
        due_at = session.due_at()
        if due_at is not None:
            self._server.alarm.at_latest(due_at)

    def _write(self, held: HeldFetch, rows: list[Any]) -> None:
        self.send_pieces(encode_fetched(held.correlation, held.fetch, rows))

    def answer_due(self, now: float) -> None:
        """The alarm rang: answer what is due, and have it ring for what is not."""
        if self.is_full:
            return
        for session in list(self._sessions.values()):
            due_at = session.due_at()
            if due_at is None:
                continue
            if due_at <= now:
                self.answer(session, now)
            else:
                self._server.alarm.at_latest(due_at)

    def drained(self) -> None:
        now = self._server.clock.monotonic()
        for session in list(self._sessions.values()):
            self.answer(session, now)

    def closed(self, reason: str) -> None:
        self._server.connections.pop(self, None)
        self._forget_caller(was_cut=not self.timed_out)

    def _forget_caller(self, was_cut: bool = False) -> None:
        self._count_out(was_cut)
        self._caller = None
        for session_id in list(self._sessions):
            self._end_session(session_id)
        self.channel.close()

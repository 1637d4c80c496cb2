"""A REPLICATION listener and somebody who types at it, for the tests of the replication server."""

from __future__ import annotations

from twisted.internet.protocol import Protocol

from tests.fakes.replication import FakeLeader, FakeStatus, identity
from tests.fakes.wire import Wire, WireTransport
from zkbroker.model.suspicion import Evidence, Suspect
from zkbroker.replication.codec import Message, MessageReader
from zkbroker.replication.messages import encode_hello
from zkbroker.replication.ports import Identity
from zkbroker.replication.server import ReplicationServer


class Typist(Protocol):
    """Somebody who writes bytes and looks at what comes back."""

    def __init__(self) -> None:
        self.data = b""
        self.is_over = False

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: object = None) -> None:
        self.is_over = True


class FakePeers:
    """Fills ``PeersPort``."""

    def __init__(self) -> None:
        self.callers: list[Identity] = []
        self.byes: list[Identity] = []
        self.evidence: list[Evidence] = []
        self.probes: list[tuple[Suspect, Identity]] = []

    def met(self, caller: Identity) -> None:
        self.callers.append(caller)

    def left(self, caller: Identity, was_cut: bool) -> None:
        self.callers.remove(caller)

    def bye_heard(self, caller: Identity) -> None:
        self.byes.append(caller)

    def suspected(self, evidence: Evidence) -> None:
        self.evidence.append(evidence)

    def probe_asked(self, suspect: Suspect, caller: Identity) -> None:
        self.probes.append((suspect, caller))


class Bench:
    """A listener of broker 1, and one connection to it."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.leader = FakeLeader()
        self.peers = FakePeers()
        self.server = ReplicationServer(
            reactor=self.wire,
            clock=self.wire,
            identity=lambda: identity(1),
            leader=self.leader,
            controller=lambda: None,
            status=FakeStatus(),
            peers=self.peers,
        )
        self.typist, self.end = self.connect()

    def connect(self) -> tuple[Typist, WireTransport]:
        typist = Typist()
        connection = self.server.buildProtocol(None)
        assert connection is not None
        return typist, self.wire.join(typist, connection)

    def say(self, data: bytes, seconds: float = 0.0) -> bytes:
        """Write, let time pass, and return what was answered."""
        self.end.write(data)
        self.wire.run(seconds)
        data, self.typist.data = self.typist.data, b""
        return data

    def ask(self, data: bytes, seconds: float = 0.0) -> list[Message]:
        reader = MessageReader(1 << 30)
        reader.receive(self.say(data, seconds))
        answers = []
        while (message := reader.next_message()) is not None:
            answers.append(message)
        return answers

    def hello(self) -> None:
        (answer,) = self.ask(encode_hello(1, identity(2), 1))
        assert answer.verb == "OK"

    def fetch(
        self, number: int, seq: int, *rows: str, seconds: float = 0.0, more: str = "max_bytes=100"
    ) -> list[Message]:
        body = "".join(f"{row}\n" for row in rows).encode()
        line = f"FETCH {number} session=1 seq={seq} max_wait_ms=500 {more} body={len(body)}\n"
        return self.ask(line.encode() + body, seconds)

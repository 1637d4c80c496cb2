"""What peers ask and tell on a connection of the listener besides replication: how other brokers do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.replication.codec import Message, encode_ok
from zkbroker.replication.peer_words import decode_evidence, decode_suspect
from zkbroker.replication.ports import Identity, PeersPort


class Sender(Protocol):
    def send(self, data: bytes) -> None: ...


class PeerServer:
    """The verbs about peers on one connection. Each is answered at once: what follows from it comes on other ways."""

    def __init__(self, sender: Sender, peers: PeersPort | None) -> None:
        self._sender = sender
        self._peers = peers
        self.verbs: dict[str, Callable[[PeersPort, Identity, Message], None]] = {
            "PROBE": self._probe,
            "SUSPECT": self._suspect,
        }

    def request(self, caller: Identity, message: Message) -> None:
        """One of ``verbs``. Raises BrokerError."""
        if self._peers is None:
            raise BrokerError(ErrorCode.INVALID_REQUEST, f"{message.verb} is not asked here")
        self.verbs[message.verb](self._peers, caller, message)
        self._sender.send(encode_ok(message.correlation))

    def _probe(self, peers: PeersPort, caller: Identity, message: Message) -> None:
        peers.probe_asked(decode_suspect(message), caller)

    def _suspect(self, peers: PeersPort, caller: Identity, message: Message) -> None:
        peers.suspected(decode_evidence(message, caller))

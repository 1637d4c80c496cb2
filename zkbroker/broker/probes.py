"""Does anybody listen there? Connecting to each endpoint of a broker, and hanging up at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure

from zkbroker.model.cluster import Endpoint
from zkbroker.model.suspicion import Finding


class ProbeRound:
    """One attempt at each endpoint. ``done(finding)`` comes once: ACCEPTED as soon as one accepts, REFUSED when all
    refused, else UNREACHABLE when none accepted."""

    def __init__(
        self, reactor: Any, endpoints: Sequence[Endpoint], timeout_s: float, done: Callable[[Finding], None]
    ) -> None:
        self._done: Callable[[Finding], None] | None = done
        self._count = self._waiting = len(endpoints)
        self._refused = 0
        for endpoint in endpoints:
            reactor.connectTCP(endpoint.host, endpoint.port, _ProbeFactory(self), timeout_s)

    def cancel(self) -> None:
        """Nobody wants to know any more."""
        self._done = None

    def ended(self, *, accepted: bool = False, refused: bool = False) -> None:
        self._waiting -= 1
        self._refused += refused
        done = self._done
        if done is None:
            return
        if accepted or self._waiting == 0:
            self._done = None
            all_refused = self._refused == self._count
            done(Finding.ACCEPTED if accepted else Finding.REFUSED if all_refused else Finding.UNREACHABLE)


class _Probe(Protocol):
    def __init__(self, probe: ProbeRound) -> None:
        self._round = probe
        self.transport: Any = None

    def connectionMade(self) -> None:
        self.transport.loseConnection()
        self._round.ended(accepted=True)


class _ProbeFactory(ClientFactory):
    noisy = False

    def __init__(self, probe: ProbeRound) -> None:
        self._round = probe

    def buildProtocol(self, addr: IAddress | None) -> _Probe:
        return _Probe(self._round)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._round.ended(refused=reason.check(RefusedError) is not None)

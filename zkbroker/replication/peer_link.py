"""One broker's own connection to each of its peers: whether it lives says more than anything else whether they do.

Nothing but PING goes over it while all is well. A process that dies closes it at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from zkbroker.model.suspicion import Evidence, Suspect
from zkbroker.replication.alarm import Alarm
from zkbroker.replication.codec import Message, encode_request
from zkbroker.replication.link import BrokerLink, LinkEnd, LinkSettings, Shell
from zkbroker.replication.peer_words import encode_evidence, encode_probe


class PeerLinkSettings(NamedTuple):
    ping_interval_s: float = 1.0
    silence_s: float = 3.0
    """Without any answer for so long the connection is made anew: a firewall may have forgotten it."""


class PeerLinkOwner(Protocol):
    """Who keeps the link."""

    def peer_up(self) -> None:
        """HELLO was answered: ``link.peer`` says by whom."""
        ...

    def peer_down(self, end: LinkEnd) -> None: ...

    def peer_heard(self, correlation: int) -> None:
        """It answered that request."""
        ...


class PeerLink:
    """Fills ``LinkOwner``."""

    def __init__(
        self,
        shell: Shell,
        settings: PeerLinkSettings,
        link_settings: LinkSettings,
        owner: PeerLinkOwner,
        broker_id: int,
        host: str,
        port: int,
    ) -> None:
        self._shell = shell
        self._settings = settings
        self._owner = owner
        self._link = BrokerLink(shell, link_settings, self, broker_id, host, port)
        self._alarm = Alarm(shell.reactor, shell.clock, self._rung)
        self._heard_at = 0.0
        self._ping_at = 0.0

    def __repr__(self) -> str:
        return f"PeerLink({self._link!r})"

    @property
    def is_up(self) -> bool:
        return self._link.is_up

    @property
    def incarnation(self) -> tuple[int, str]:
        """Broker epoch and incarnation of who answered HELLO; (-1, "") while the link is down."""
        peer = self._link.peer
        return (-1, "") if peer is None else (peer.broker_epoch, peer.incarnation)

    def start(self) -> None:
        self._link.start()

    def stop(self) -> None:
        self._alarm.stop()
        self._link.stop()

    def move(self, host: str, port: int) -> None:
        """The broker registered anew, perhaps elsewhere."""
        self._link.host, self._link.port = host, port
        self._link.reconnect("the broker registered anew")

    def identity_changed(self) -> None:
        """This broker registered anew: say HELLO again."""
        if self._link.is_outdated():
            self._link.reconnect("this broker registered anew")

    def ping(self) -> int:
        """Returns the correlation number that the answer will have."""
        number = self._link.next_correlation()
        self._link.send(encode_request("PING", number))
        return number

    def send_evidence(self, evidence: Evidence) -> None:
        """Lost when the link is down."""
        self._send(lambda number: encode_evidence(number, evidence))

    def send_probe(self, suspect: Suspect) -> None:
        """Lost when the link is down."""
        self._send(lambda number: encode_probe(number, suspect))

    def _send(self, encode: Callable[[int], bytes]) -> None:
        if self._link.is_up:
            self.identity_changed()
        if self._link.is_up:
            self._link.send(encode(self._link.next_correlation()))

    # LinkOwner

    def link_up(self) -> None:
        self._heard_at = self._shell.clock.monotonic()
        self._ping_at = self._heard_at + self._settings.ping_interval_s
        self._alarm.at_latest(self._ping_at)
        self._owner.peer_up()

    def link_lost(self, reason: str) -> None:
        self._alarm.stop()
        self._owner.peer_down(self._link.last_end)

    def message_received(self, message: Message) -> None:
        # An ERR is an answer too: an older broker does not know what was said.
        self._heard_at = self._shell.clock.monotonic()
        self._owner.peer_heard(message.correlation)

    def _rung(self, now: float) -> None:
        if not self._link.is_up:
            return
        if now - self._heard_at >= self._settings.silence_s:
            self._link.reconnect(f"it says nothing for {now - self._heard_at:.1f} s", False, LinkEnd.SILENT)
            return
        if self._ping_at <= now:
            self._ping_at = now + self._settings.ping_interval_s
            self.ping()
        self._alarm.at_latest(self._ping_at)

"""What brokers tell each other about one that may be dead (architecture.md, fast failover rule 1)."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from zkbroker.model.cluster import REPLICATION_LISTENER, BrokerRegistration, Endpoint


class Suspect(NamedTuple):
    """One incarnation at one place: evidence against another epoch or address of the same broker says nothing."""

    broker_id: int
    broker_epoch: int
    address: str
    """What is connected to: ``host:port`` of each probed endpoint, with a comma between them."""


class Finding(Enum):
    """What one broker knows of another at one moment. The values are the words of the line protocol."""

    TALKING = "talking"
    """A connection lives, and answered just now."""
    ACCEPTED = "accepted"
    """No connection is left, or none answers, but a new one was accepted: somebody listens."""
    REFUSED = "refused"
    """No connection is left; connecting to the Kafka and to the REPLICATION listener was refused."""
    UNREACHABLE = "unreachable"
    """The connections were closed, and for ``broker.failure.probe.ms`` no new one was accepted."""
    RESTARTED = "restarted"
    """Another process answers at its address."""
    BYE = "bye"
    """It said that it stops."""


class Evidence(NamedTuple):
    """One broker's finding about another."""

    suspect: Suspect
    reporter: int
    reporter_epoch: int
    finding: Finding
    closed_ago_s: float = -1.0
    """How long ago the last connection was closed by FIN or RST, when this was said; -1: none was, or not so."""


def probed_endpoints(registration: BrokerRegistration) -> tuple[Endpoint, ...]:
    """The REPLICATION listener and one for clients: of those, one at the same host if there is one, because others
    may be addresses that only clients can reach."""
    replication = registration.endpoint(REPLICATION_LISTENER)
    if replication is None:
        return ()
    others = [endpoint for endpoint in registration.endpoints if endpoint.listener != REPLICATION_LISTENER]
    near = [endpoint for endpoint in others if endpoint.host == replication.host]
    return (replication, *(near or others)[:1])


def suspect_of(registration: BrokerRegistration) -> Suspect:
    """The present incarnation of that broker, as a suspect."""
    address = ",".join(f"{endpoint.host}:{endpoint.port}" for endpoint in probed_endpoints(registration))
    return Suspect(registration.broker_id, registration.epoch, address)

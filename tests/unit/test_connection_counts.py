"""How many connections are accepted: in all, of one address, over all listeners, by the limits as they are now."""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address, IPv6Address

from tests.fakes.broker import LIMITS
from tests.fakes.kafka_client import Listener
from tests.unit.test_config_topics import broker
from zkbroker.broker.settings import listener_limits
from zkbroker.kafka.connection_counts import ConnectionCounts, parse_overrides, plain_address

HERE, THERE = "10.0.0.1", "10.0.0.2"


def refusals(counts: ConnectionCounts, *hosts: str, **limits: object) -> list[bool]:
    wanted = LIMITS._replace(**limits)  # type: ignore[arg-type]
    return [counts.refusal(host, wanted) is not None for host in hosts]


def test_connections_of_one_address_are_counted_until_they_end() -> None:
    counts = ConnectionCounts()
    connections = [object() for _ in range(3)]
    for connection, host in zip(connections, (HERE, HERE, THERE), strict=True):
        counts.opened(connection, host)
    assert refusals(counts, HERE, THERE, "10.0.0.3", max_connections_per_ip=2) == [True, False, False]
    assert refusals(counts, HERE, THERE, max_connections_per_ip=1, max_connections_overrides={HERE: 3}) == [False, True]
    assert refusals(counts, HERE, max_connections_overrides={HERE: 0}) == [True]
    assert refusals(counts, "10.0.0.3", max_connections=3) == [True]
    for _ in range(2):
        counts.closed(connections[0])
    counts.closed(object())
    assert refusals(counts, HERE, max_connections_per_ip=2) == [False]
    assert refusals(counts, HERE, max_connections_per_ip=1) == [True]
    counts.closed(connections[1])
    assert refusals(counts, HERE, max_connections_per_ip=1) == [False]
    assert repr(counts) == "ConnectionCounts(1 of 1 hosts)"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("::0:1", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("a.host", "a.host"),
        ("", ""),
    ],
)
def test_an_address_has_one_form(text: str, plain: str) -> None:
    assert plain_address(text) == plain


def test_overrides_as_they_are_configured() -> None:
    limits = listener_limits(
        broker(max_connections_per_ip="7", max_connections_per_ip_overrides="127.0.0.1:2,[::1]:3, a.host:4")
    )
    assert (limits.max_connections_per_ip, dict(limits.max_connections_overrides)) == (
        7,
        {"127.0.0.1": 2, "::1": 3, "a.host": 4},
    )
    assert parse_overrides(()) == {}


def test_the_listener_refuses_what_is_too_much_and_accepts_again() -> None:
    listener = Listener(max_connections_per_ip=1)
    factory = listener.factory
    connection, _ = listener.connect()
    assert connection.transport is not None
    peer = connection.transport.getPeer()
    mapped = IPv6Address("TCP", f"::ffff:{peer.host}", 1)  # type: ignore[attr-defined]
    assert factory.buildProtocol(peer) is None
    assert factory.buildProtocol(mapped) is None
    assert factory.buildProtocol(IPv4Address("TCP", "1.2.3.4", 1)) is not None
    assert any("max.connections.per.ip (1)" in str(event) for event in listener.events)
    factory.limits_changed(factory.limits._replace(max_connections_per_ip=2))
    assert factory.buildProtocol(peer) is not None
    factory.limits_changed(factory.limits._replace(max_connections_per_ip=1))
    factory.connection_closed(connection)
    assert factory.buildProtocol(peer) is not None

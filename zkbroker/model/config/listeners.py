"""Listeners: ``NAME://host:port`` texts, their protocol map, and the REPLICATION listener that always exists."""

from __future__ import annotations

import re
from collections.abc import Mapping

from zkbroker.model.cluster import REPLICATION_LISTENER, Endpoint
from zkbroker.model.config.values import split_list

SECURITY_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
"""The protocols that Kafka knows; zkbroker speaks PLAINTEXT only, for now."""

REPLICATION_PORT_DISTANCE = 10_000
"""How far above the first listener's port the REPLICATION listener is when none is configured."""

WILDCARD_HOSTS = ("", "0.0.0.0", "::")
"""Hosts to bind every interface with; nobody can connect to them."""

PORT_MAX = 65_535

_ENDPOINT = re.compile(r"([A-Za-z0-9_.-]+)://(?:\[([0-9A-Fa-f:.%a-z]*)\]|([^\[\]:/\s]*)):([0-9]{1,5})", re.ASCII)


class ListenerProblem(ValueError):
    """What is wrong with a listeners text; the text is one clause."""


def parse_endpoint(text: str) -> Endpoint:
    """``NAME://host:port``; the host may be empty or an IPv6 address in brackets. Raises ListenerProblem."""
    match = _ENDPOINT.fullmatch(text.strip())
    if match is None:
        raise ListenerProblem(f"'{text.strip()}' is not NAME://host:port")
    name, address, host, port = match.groups()
    if int(port) > PORT_MAX:
        raise ListenerProblem(f"'{text.strip()}': {port} is not a port (0 to {PORT_MAX})")
    return Endpoint(name.upper(), host if address is None else address, int(port))


def parse_endpoints(text: str) -> tuple[Endpoint, ...]:
    """A comma-separated list of endpoints whose names all differ. Raises ListenerProblem."""
    endpoints = tuple(parse_endpoint(element) for element in split_list(text))
    names: list[str] = []
    for endpoint in endpoints:
        if endpoint.listener in names:
            raise ListenerProblem(f"two listeners are called {endpoint.listener}")
        names.append(endpoint.listener)
    return endpoints


def parse_protocol_map(text: str) -> dict[str, str]:
    """``NAME:PROTOCOL,…`` as a dict from listener name to security protocol. Raises ListenerProblem."""
    protocols: dict[str, str] = {}
    for element in split_list(text):
        name, colon, protocol = (part.strip() for part in element.rpartition(":"))
        if not colon or not name:
            raise ListenerProblem(f"'{element}' is not NAME:PROTOCOL")
        if protocol.upper() not in SECURITY_PROTOCOLS:
            raise ListenerProblem(f"'{protocol}' is not a security protocol: {', '.join(SECURITY_PROTOCOLS)}")
        if name.upper() in protocols:
            raise ListenerProblem(f"{name.upper()} is there twice")
        protocols[name.upper()] = protocol.upper()
    return protocols


def port_clash(endpoints: tuple[Endpoint, ...]) -> str | None:
    """Which two endpoints want the same port; one IPv4 and one IPv6 address may share it (KIP-797), as may port 0."""
    for index, second in enumerate(endpoints):
        for first in endpoints[:index]:
            if first.port != second.port or first.port == 0:
                continue
            if _is_ipv4(first.host) != _is_ipv4(second.host) and (_is_ipv6(first.host) or _is_ipv6(second.host)):
                continue
            if first.host != second.host and not {first.host, second.host} & set(WILDCARD_HOSTS):
                both_addresses = all(_is_ipv4(host) or _is_ipv6(host) for host in (first.host, second.host))
                if both_addresses:
                    continue
            return f"{first} and {second} have the same port"
    return None


def _is_ipv4(host: str) -> bool:
    return re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}", host, re.ASCII) is not None


def _is_ipv6(host: str) -> bool:
    return ":" in host


def with_replication(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """The endpoints, with a REPLICATION one if there was none. Raises ListenerProblem if its port is too high."""
    if not endpoints or any(endpoint.listener == REPLICATION_LISTENER for endpoint in endpoints):
        return endpoints
    first = endpoints[0]
    port = first.port + REPLICATION_PORT_DISTANCE if first.port else 0
    if port > PORT_MAX:
        raise ListenerProblem(
            f"there is no {REPLICATION_LISTENER} listener, and its default port, {port}, is none:"
            f" add {REPLICATION_LISTENER}://host:port"
        )
    return (*endpoints, Endpoint(REPLICATION_LISTENER, first.host, port))


def advertise_replication(
    advertised: tuple[Endpoint, ...], listeners: tuple[Endpoint, ...], inter_broker_listener: str | None
) -> tuple[Endpoint, ...]:
    """The advertised endpoints, with the REPLICATION one added where it was left out.

    Its host is the one it is bound to; where that is every interface, the advertised host of ``inter_broker_listener``,
    else of the first advertised listener.
    """
    if not advertised or any(endpoint.listener == REPLICATION_LISTENER for endpoint in advertised):
        return advertised
    bound = next(endpoint for endpoint in listeners if endpoint.listener == REPLICATION_LISTENER)
    host = bound.host
    if host in WILDCARD_HOSTS:
        named = [endpoint for endpoint in advertised if endpoint.listener == (inter_broker_listener or "").upper()]
        host = (named or list(advertised))[0].host
    return (*advertised, Endpoint(REPLICATION_LISTENER, host, bound.port))


def protocol_of(listener: str, protocols: Mapping[str, str]) -> str | None:
    """The security protocol of a listener name; REPLICATION is PLAINTEXT unless the map says otherwise."""
    if listener == REPLICATION_LISTENER:
        return protocols.get(listener, "PLAINTEXT")
    return protocols.get(listener)

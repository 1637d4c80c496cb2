"""Listening sockets that are bound early and accept late.

Binding first lets a port that is in use stop the start before anything is touched; until ``listen`` a connection is
refused, so clients and peers go to a broker that can serve.
"""

from __future__ import annotations

import errno
import socket
from typing import Any, NamedTuple

from twisted.internet.interfaces import IProtocolFactory

from zkbroker.model.cluster import Endpoint
from zkbroker.model.errors import StartError

BACKLOG = 1024
"""Connections that may wait to be accepted: after a failover every client of the dead broker comes at once."""


class BoundSocket(NamedTuple):
    """A listener's name, its bound socket, and the port that it got."""

    listener: str
    socket: socket.socket
    port: int


def bind(endpoint: Endpoint) -> BoundSocket:
    """Bind the address of ``listeners``; an empty host is every interface. Raises StartError with one clear line."""
    family, address = _address(endpoint)
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if endpoint.host in ("", "::") else 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _refusal(endpoint, error) from error
    bound.setblocking(False)
    return BoundSocket(endpoint.listener, bound, int(bound.getsockname()[1]))


def _address(endpoint: Endpoint) -> tuple[int, Any]:
    if not endpoint.host:
        # As Java does: one socket for every interface in both families, where the machine has IPv6.
        return (socket.AF_INET6, ("::", endpoint.port)) if _has_ipv6() else (socket.AF_INET, ("0.0.0.0", endpoint.port))
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        # UnicodeError: labels that no host name can have.
        why = error.strerror if isinstance(error, OSError) else "not a host name"
        raise StartError(f"listener {endpoint}: the host name does not resolve ({why})") from error
    family, _, _, _, address = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)[0]
    return family, address


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def _refusal(endpoint: Endpoint, error: OSError) -> StartError:
    if error.errno == errno.EADDRINUSE:
        return StartError(f"listener {endpoint}: port {endpoint.port} is in use by another process")
    return StartError(f"listener {endpoint}: cannot bind: {error.strerror or error}")


def listen(bound: BoundSocket, factory: IProtocolFactory, reactor: Any) -> Any:
    """Accept connections from now on; returns Twisted's listening port. The socket belongs to the reactor then.

    Raises StartError: Linux lets two sockets bind one port with SO_REUSEADDR until one of them listens."""
    try:
        bound.socket.listen(BACKLOG)
    except OSError as error:
        raise _refusal(Endpoint(bound.listener, str(bound.socket.getsockname()[0]), bound.port), error) from error
    port = reactor.adoptStreamPort(bound.socket.fileno(), bound.socket.family, factory)
    bound.socket.close()
    return port

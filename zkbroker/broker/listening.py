"""Listening sockets that are bound early and accept late.

Binding first lets a port that is in use stop the start before anything is touched; until ``listen`` a connection is
refused, so clients and peers go to a broker that can serve.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, NamedTuple

from twisted.internet.interfaces import IProtocolFactory

from zkbroker.model.cluster import Endpoint
from zkbroker.model.errors import StartError

BACKLOG = 1024
"""Connections that may wait to be accepted: after a failover every client of the dead broker comes at once."""


class BoundSocket(NamedTuple):
    """A listener's name and its bound socket."""

    listener: str
    socket: socket.socket

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])


def bind(endpoint: Endpoint) -> BoundSocket:
    """Bind the address of ``listeners``; an empty host is every interface. Raises StartError with one clear line."""
    host = endpoint.host or None
    try:
        found = socket.getaddrinfo(host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise StartError(f"listener {endpoint}: the host name does not resolve ({error.strerror})") from error
    family, kind, protocol, _, address = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        # Linux lets two sockets bind one address with SO_REUSEADDR as long as neither listens: look whether one does.
        if endpoint.port and _somebody_listens(family, address):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise StartError(f"listener {endpoint}: port {endpoint.port} is in use by another process") from error
        raise StartError(f"listener {endpoint}: cannot bind: {error.strerror or error}") from error
    bound.setblocking(False)
    return BoundSocket(endpoint.listener, bound)


def _somebody_listens(family: int, address: Any) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, *address[1:])) == 0


def listen(bound: BoundSocket, factory: IProtocolFactory, reactor: Any) -> Any:
    """Accept connections from now on; returns Twisted's listening port. The socket belongs to the reactor then."""
    bound.socket.listen(BACKLOG)
    port = reactor.adoptStreamPort(bound.socket.fileno(), bound.socket.family, factory)
    bound.socket.close()
    return port

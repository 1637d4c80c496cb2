"""How many client connections a broker has, over all its listeners, and from which addresses."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address

from zkbroker.kafka.ports import ListenerLimits


class ConnectionCounts:
    """Shared by the listeners of a broker: ``max.connections``, ``max.connections.per.ip`` and its overrides."""

    def __init__(self) -> None:
        self._hosts: dict[object, str] = {}
        """Open connection → where it comes from."""
        self._by_host: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"ConnectionCounts({len(self._hosts)} of {len(self._by_host)} hosts)"

    def refusal(self, host: str, limits: ListenerLimits) -> str | None:
        """Why one more connection of this host is not accepted; None when it is."""
        if len(self._hosts) >= limits.max_connections:
            return f"there are max.connections ({limits.max_connections}) already"
        host = plain_address(host)
        most = limits.max_connections_overrides.get(host, limits.max_connections_per_ip)
        if self._by_host.get(host, 0) >= most:
            return f"there are max.connections.per.ip ({most}) of this address already"
        return None

    def opened(self, connection: object, host: str) -> None:
        host = self._hosts[connection] = plain_address(host)
        self._by_host[host] = self._by_host.get(host, 0) + 1

    def closed(self, connection: object) -> None:
        """It may be unknown, or closed already."""
        host = self._hosts.pop(connection, None)
        if host is None:
            return
        left = self._by_host.pop(host) - 1
        if left:
            self._by_host[host] = left


def plain_address(text: str) -> str:
    """An address in its one usual form, IPv4 also where a listener for IPv6 took it; anything else as it is."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return text
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def parse_overrides(pairs: tuple[str, ...]) -> Mapping[str, int]:
    """``max.connections.per.ip.overrides``, which was checked: ``127.0.0.1:200`` → its count by address."""
    parted = (pair.rpartition(":") for pair in pairs)
    return {plain_address(host.strip("[]")): int(count) for host, _, count in parted}

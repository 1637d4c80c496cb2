"""What DescribeConfigs says about one setting."""

from __future__ import annotations

from typing import NamedTuple


class ConfigEntry(NamedTuple):
    """One setting as DescribeConfigs shows it."""

    name: str
    value: str | None
    """None for a sensitive one."""
    read_only: bool
    is_default: bool
    source: int
    """Kafka's ConfigSource: 1 topic, 2 dynamic broker, 3 dynamic default broker, 4 static broker, 5 default."""
    is_sensitive: bool
    synonyms: tuple[tuple[str, str | None, int], ...] = ()
    """(name, value, source) from the strongest to the weakest."""
    type: int = 0
    """Kafka's ConfigType: 1 boolean, 2 string, 3 int, 4 short, 5 long, 6 double, 7 list, 8 class, 9 password."""
    documentation: str | None = None

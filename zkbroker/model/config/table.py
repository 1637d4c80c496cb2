"""The one table of all broker keys: every key of Kafka 3.9 and zkbroker's own."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from zkbroker.model.config.group_keys import GROUP_KEYS
from zkbroker.model.config.keys import Key
from zkbroker.model.config.kraft_keys import KRAFT_KEYS
from zkbroker.model.config.log_keys import LOG_KEYS
from zkbroker.model.config.own_keys import OWN_KEYS
from zkbroker.model.config.replication_keys import REPLICATION_KEYS
from zkbroker.model.config.security_keys import SECURITY_KEYS
from zkbroker.model.config.server_keys import SERVER_KEYS
from zkbroker.model.config.tls_keys import TLS_KEYS
from zkbroker.model.config.transaction_keys import TRANSACTION_KEYS
from zkbroker.model.errors import InvariantViolation

SECTIONS: tuple[tuple[str, tuple[Key, ...]], ...] = (
    *SERVER_KEYS,
    *REPLICATION_KEYS,
    *LOG_KEYS,
    *OWN_KEYS,
    *GROUP_KEYS,
    *TRANSACTION_KEYS,
    *TLS_KEYS,
    *SECURITY_KEYS,
    *KRAFT_KEYS,
)
"""(section, its keys) in the order in which a reader wants to meet them."""

NAME_LENGTH_MAX = 100
"""No key is longer; what is compared with all of them is cut there, since it may come from a znode."""

_LISTENER_PREFIX = re.compile(r"listener\.name\.[^.]+\.(.+)")
# listener.name.<listener>.<mechanism>.<key>: Kafka's way to configure one SASL mechanism of one listener.
_SASL_KEYS = (
    "sasl.jaas.config",
    "sasl.login.callback.handler.class",
    "sasl.login.class",
    "sasl.server.callback.handler.class",
    "connections.max.reauth.ms",
)
_PLUGIN_PREFIXES = ("rlmm.config.", "rsm.config.")


def index_keys(keys: Iterable[Key]) -> Mapping[str, Key]:
    """Keys by name, in their order. Raises InvariantViolation when a name comes twice."""
    found: dict[str, Key] = {}
    for key in keys:
        if key.name in found:
            raise InvariantViolation(f"the table of configuration keys has {key.name} twice")
        found[key.name] = key
    return MappingProxyType(found)


BROKER_KEYS: Mapping[str, Key] = index_keys(key for _, keys in SECTIONS for key in keys)


def prefixed_key(name: str) -> Key | None:
    """The key behind ``listener.name.<listener>.<key>``, or None when ``name`` is not of that form."""
    match = _LISTENER_PREFIX.fullmatch(name)
    if match is None:
        return None
    rest = match.group(1)
    key = BROKER_KEYS.get(rest)
    if key is None and rest.partition(".")[2] in _SASL_KEYS:
        key = BROKER_KEYS[rest.partition(".")[2]]
    return key


def is_plugin_setting(name: str) -> bool:
    """True for settings that Kafka hands to its tiered-storage plug-ins: they say nothing to the broker itself."""
    return name.startswith(_PLUGIN_PREFIXES)


def _edits(left: str, right: str) -> int:
    """How many letters to change, add or drop to make one of the other (Levenshtein's distance)."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(right, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def closest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for a name that is one slip away from a known one, else an empty text."""
    name = name[:NAME_LENGTH_MAX]
    near = difflib.get_close_matches(name, list(known), n=5, cutoff=0.75)
    if not near:
        return ""
    # A wrong letter is likelier than a missing one: log.dirz is log.dirs rather than log.dir.
    best = min(near, key=lambda other: (_edits(name, other), abs(len(name) - len(other))))
    return f" (did you mean '{best}'?)"

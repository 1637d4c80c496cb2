"""What may be set while a broker runs: keys that exist only there, and why any other may not be."""

from __future__ import annotations

from collections.abc import Mapping

from zkbroker.model.config.keys import Key, Scope, Support, accepted, supported
from zkbroker.model.config.table import BROKER_KEYS, index_keys, prefixed_key
from zkbroker.model.config.values import LONG, LONG_MAX, Value, ValueProblem, at_least, split_list

# Kafka's DynamicConfig.Broker: not in its KafkaConfig, so no file may set them.
DYNAMIC_ONLY_KEYS: Mapping[str, Key] = index_keys(
    (
        supported(
            "leader.replication.throttled.rate",
            LONG,
            LONG_MAX,
            "Bytes per second that this broker sends of the replicas that leader.replication.throttled.replicas names.",
            at_least(0),
            scope=Scope.CLUSTER_WIDE,
        ),
        supported(
            "follower.replication.throttled.rate",
            LONG,
            LONG_MAX,
            "Bytes per second that this broker fetches of the replicas that follower.replication.throttled.replicas"
            " names.",
            at_least(0),
            scope=Scope.CLUSTER_WIDE,
        ),
        accepted(
            "replica.alter.log.dirs.io.max.bytes.per.second",
            LONG,
            LONG_MAX,
            "Bytes per second that are moved between the log folders of a broker.",
            at_least(0),
            note="replicas stay in the folder they were made in",
            scope=Scope.CLUSTER_WIDE,
        ),
    )
)
"""Keys of ``/config/brokers`` that no configuration file has."""

CANNOT_CHANGE = "it cannot change while the broker runs"

_UNLIMITED_OR_POSITIVE = ("log.retention.ms",)
_POSITIVE = ("log.roll.ms", "log.flush.interval.ms")
_NOT_NEGATIVE = ("log.roll.jitter.ms",)


def dynamic_key(name: str) -> Key | None:
    """The key of that name; None for an unknown one."""
    return BROKER_KEYS.get(name) or DYNAMIC_ONLY_KEYS.get(name)


def refusal(key: Key, text: str) -> str | None:
    """Why ``text`` cannot be the key's value, as a clause; None when it can."""
    if key.support is Support.REFUSED and text.strip().lower() != key.harmless:
        return key.note
    try:
        key.parse(text)
    except ValueProblem as problem:
        return str(problem)
    return None


def limits_problem(name: str, value: Value) -> str | None:
    """What the table's ranges do not say, as Kafka's ``KafkaConfig.validateValues`` has it; None when all is well."""
    if name == "max.connections.per.ip.overrides":
        return _overrides_problem(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    if name in _UNLIMITED_OR_POSITIVE and value == 0:
        return "it must be 1 or more, or -1 for no limit"
    if name in _POSITIVE and value < 1:
        return "it must be 1 or more"
    if name in _NOT_NEGATIVE and value < 0:
        return "it must be 0 or more"
    return None


def _overrides_problem(value: Value) -> str | None:
    for pair in split_list(value if isinstance(value, str) else ""):
        host, colon, count = pair.rpartition(":")
        if not (host and colon and count.isascii() and count.isdigit()):
            return f"'{pair}' is not host:count"
    return None


def dynamic_refusal(name: str, text: str) -> str | None:
    """Why a setting of ``/config/brokers`` is not obeyed, as a clause; None when it is."""
    key = dynamic_key(name)
    if key is None:
        return CANNOT_CHANGE if prefixed_key(name) is not None else "unknown key"
    if key.scope is not Scope.CLUSTER_WIDE:
        # Those that Kafka changes for each broker are all about listeners: here they take a restart.
        return CANNOT_CHANGE
    return refusal(key, text) or limits_problem(name, key.parse(text))

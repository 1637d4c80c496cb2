"""Why whole families of keys have no effect: one wording for each reason."""

from __future__ import annotations

from zkbroker.model.config.values import Matching, Value

LATER_LIMITS = "not yet: only the number of connections is limited"
LATER_QUOTAS = "not yet: there are no quotas"
LATER_SECURITY = "not yet: clients do not authenticate"
LATER_TRANSACTIONS = "not yet: there are no transactions"
NO_DYNAMIC_PASSWORDS = "no password can be set at run time"
NO_KIP_848 = "the group protocol of KIP-848 is not offered"
NO_PLUGIN = "Java classes cannot run here, and going on without it would allow what it forbids"
NO_PURGE = "answered requests leave the waiting room at once"
NO_SASL = "not yet: SASL listeners are refused"
NO_SHARE = "share groups are not offered"
NO_TIERS = "there is no tiered storage"
NO_TLS = "not yet: SSL listeners are refused"
NO_ZK_TLS = "not yet: TLS to ZooKeeper is refused"
JAVA_ONLY = "it is about the Java program"
KERNEL_BUFFERS = "the kernel sizes the buffers of its sockets"
KRAFT_ONLY = "it is about KRaft"
ONE_REACTOR = "one thread does this work"
OWN_TIMEOUTS = "connections between brokers have time limits of their own"


def _is_version(value: Value) -> bool:
    # Kafka knows 0.8.0 to 4.0-IV1, and takes "3.9" and "3.9.1" for the newest of 3.9.
    parts = str(value).split("-")[0].split(".")
    return len(parts) >= 2 and all(part.isascii() and part.isdigit() for part in parts)


VERSION = Matching("a version of Kafka, for example 3.9", _is_version)
"""Any version will do: the key has no effect."""


def _is_throttle_list(value: Value) -> bool:
    if not isinstance(value, tuple) or value in ((), ("*",)):
        return isinstance(value, tuple)
    pairs = [element.split(":") for element in value]
    return all(len(pair) == 2 and all(part.isascii() and part.isdigit() for part in pair) for pair in pairs)


THROTTLED = Matching("a list of partition:broker pairs, or *", _is_throttle_list)

"""The keys that Kafka does not have."""

from __future__ import annotations

from zkbroker.model.config.keys import Key, supported
from zkbroker.model.config.values import LONG, STRING, at_least, one_of

RECORD_VALIDATION = supported(
    "record.validation",
    STRING,
    "header",
    "How much of a batch is checked before it is stored: its header and checksum, or every record.",
    one_of("header", "full"),
    is_own=True,
)
"""Both a broker key and a topic key: the topic's own value, else the broker's."""

_ZKBROKER = (
    RECORD_VALIDATION,
    supported(
        "broker.failure.detection",
        STRING,
        "fast",
        "How a dead broker is noticed: by the evidence of its peers, or only when its session expires.",
        one_of("fast", "session"),
        is_own=True,
    ),
    supported(
        "broker.failure.probe.ms",
        LONG,
        400,
        "How long a broker must be unreachable, after its connections were closed, to count as dead.",
        at_least(50),
        is_own=True,
    ),
    supported(
        "log.dir.stall.ms",
        LONG,
        5000,
        "How long an append may wait for the disk before the leaders of that data folder move to other brokers; "
        "a broker that does nothing else but wait for the disk for so long ends.",
        at_least(100),
        is_own=True,
    ),
)

OWN_KEYS: tuple[tuple[str, tuple[Key, ...]], ...] = (("zkbroker's own", _ZKBROKER),)

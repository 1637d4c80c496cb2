"""One configuration key: what the table of all keys says about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from zkbroker.model.config.values import (
    LIST,
    PASSWORD,
    Check,
    Value,
    ValueProblem,
    ValueType,
    format_value,
    parse_value,
)


class Support(Enum):
    """What zkbroker does with a key that a configuration sets."""

    SUPPORTED = "supported"
    ACCEPTED = "accepted without effect"
    """Read and checked, but nothing obeys it; one line at start names such keys."""
    REFUSED = "refused"
    """Ignoring it would be dangerous: any value but the harmless one stops the start."""


class Scope(Enum):
    """From where a key may be changed while the broker runs (Kafka's dynamic update modes, KIP-226)."""

    READ_ONLY = "read-only"
    PER_BROKER = "per-broker"
    CLUSTER_WIDE = "cluster-wide"


READ_ONLY = Scope.READ_ONLY
PER_BROKER = Scope.PER_BROKER
CLUSTER_WIDE = Scope.CLUSTER_WIDE


@dataclass(frozen=True, slots=True)
class Key:
    """A row of the table. ``default`` is a parsed value; None where there is none."""

    name: str
    type: ValueType
    default: Value
    doc: str
    support: Support
    check: Check | None = None
    scope: Scope = Scope.READ_ONLY
    note: str = ""
    """Why it has no effect or is refused; for a supported key, how it differs from Kafka's."""
    harmless: str | None = None
    """Of a refused key: the one text that may be written, since it asks for nothing."""
    is_own: bool = False
    """zkbroker's own: Kafka does not know it."""
    is_internal: bool = False
    """Undocumented in Kafka and hidden from DescribeConfigs."""
    is_comma_list: bool = False
    """A text that is a comma-separated list in Kafka: YAML may write it as a list."""

    @property
    def is_sensitive(self) -> bool:
        """True when the value must never be shown."""
        return self.type is PASSWORD

    @property
    def takes_list(self) -> bool:
        """True when a YAML list is a way to write it."""
        return self.type is LIST or self.is_comma_list

    def parse(self, text: str) -> Value:
        """The value that ``text`` stands for. Raises ValueProblem with Kafka's words."""
        value = parse_value(self.type, text)
        problem = None if self.check is None else self.check.problem(value)
        if problem is not None:
            raise ValueProblem(problem)
        return value

    def show(self, value: Value) -> str | None:
        """The value as people and DescribeConfigs see it: None when sensitive or absent."""
        return None if self.is_sensitive else format_value(value)


def supported(
    name: str,
    kind: ValueType,
    default: Value,
    doc: str,
    check: Check | None = None,
    *,
    scope: Scope = READ_ONLY,
    note: str = "",
    is_own: bool = False,
    is_internal: bool = False,
    is_comma_list: bool = False,
) -> Key:
    """A key that zkbroker obeys."""
    return Key(
        name, kind, default, doc, Support.SUPPORTED, check, scope, note, None, is_own, is_internal, is_comma_list
    )


def accepted(
    name: str,
    kind: ValueType,
    default: Value,
    doc: str,
    check: Check | None = None,
    *,
    note: str,
    scope: Scope = READ_ONLY,
    is_own: bool = False,
    is_internal: bool = False,
) -> Key:
    """A key that is checked and then changes nothing; ``note`` says why that is harmless."""
    return Key(name, kind, default, doc, Support.ACCEPTED, check, scope, note, None, is_own, is_internal)


def refused(
    name: str,
    kind: ValueType,
    default: Value,
    doc: str,
    check: Check | None = None,
    *,
    note: str,
    harmless: str | None = None,
    scope: Scope = READ_ONLY,
    is_internal: bool = False,
) -> Key:
    """A key that may not be set (but to ``harmless``); ``note`` says why."""
    return Key(name, kind, default, doc, Support.REFUSED, check, scope, note, harmless, False, is_internal)

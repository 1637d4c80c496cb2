"""The types of configuration values: parsing text as Kafka's ``ConfigDef`` does, printing it back, checking ranges."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple, Protocol

Value = bool | int | float | str | tuple[str, ...] | None
"""A parsed value; None where the key has no default and was not set."""


class ValueType(IntEnum):
    """Kafka's ``ConfigType``: the numbers that DescribeConfigs sends."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


BOOLEAN = ValueType.BOOLEAN
STRING = ValueType.STRING
INT = ValueType.INT
SHORT = ValueType.SHORT
LONG = ValueType.LONG
DOUBLE = ValueType.DOUBLE
LIST = ValueType.LIST
CLASS = ValueType.CLASS
PASSWORD = ValueType.PASSWORD

INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1
DOUBLE_MAX = 1.7976931348623157e308

_BITS = {INT: 32, SHORT: 16, LONG: 64}
# Java's parsers take an optional sign and ASCII digits only: Python's int() would also take "1_000" and other scripts.
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_COMMA = re.compile(r"\s*,\s*")


class ValueProblem(ValueError):
    """Why a text is not a value of its type or range; the text is a clause without the key's name."""


def split_list(text: str) -> tuple[str, ...]:
    """The elements of a comma-separated list, as Kafka splits it: blanks around commas do not count, '' is empty."""
    text = text.strip()
    if not text:
        return ()
    # Kafka uses String.split(regex, -1): empty elements are kept.
    return tuple(_COMMA.split(text))


def _parse_boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered not in ("true", "false"):
        raise ValueProblem("Expected value to be either true or false")
    return lowered == "true"


def _parse_whole_number(kind: ValueType, text: str) -> int:
    problem = ValueProblem(f"Not a number of type {kind.name}")
    # 20 characters hold every 64-bit number: int() of a text of any length could take very long.
    if not _WHOLE_NUMBER.fullmatch(text) or len(text.lstrip("+-0")) > 20:
        raise problem
    number = int(text)
    limit = 1 << (_BITS[kind] - 1)
    if not -limit <= number < limit:
        raise problem
    return number


def _parse_double(text: str) -> float:
    if not _NUMBER.fullmatch(text) or math.isinf(float(text)):
        raise ValueProblem("Not a number of type DOUBLE")
    return float(text)


def parse_value(kind: ValueType, text: str) -> Value:
    """``text`` as a value of the type. Raises ValueProblem, worded as Kafka's ConfigException."""
    text = text.strip()
    if kind is BOOLEAN:
        return _parse_boolean(text)
    if kind in _BITS:
        return _parse_whole_number(kind, text)
    if kind is DOUBLE:
        return _parse_double(text)
    if kind is LIST:
        return split_list(text)
    return text


def format_value(value: Value) -> str | None:
    """The text that ``parse_value`` turns into ``value`` again, in Kafka's form ('true', 'a,b'); None for None."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, float):
        return "1.7976931348623157E308" if value == DOUBLE_MAX else repr(value)
    return str(value)


def printable(text: str, length_max: int = 1000) -> str:
    """``text`` on one line, for a message: what does not print is escaped, what is too long is cut."""
    cut = text if len(text) <= length_max else text[:length_max] + "…"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in cut)


class Check(Protocol):
    """A condition on a parsed value; its ``str()`` is the "valid values" column of the reference."""

    def problem(self, value: Value) -> str | None:
        """Why the value is refused, in Kafka's words, or None."""
        ...


class Between(NamedTuple):
    """A number not below ``low`` and, where given, not above ``high``; ``also`` is one value outside of that."""

    low: float
    high: float | None = None
    also: int | None = None

    def problem(self, value: Value) -> str | None:
        if not isinstance(value, int | float) or value == self.also:
            return None
        if value < self.low:
            return f"Value must be at least {self.low}"
        if self.high is not None and value > self.high:
            return f"Value must be no more than {self.high}"
        return None

    def __str__(self) -> str:
        limits = f"≥ {self.low}" if self.high is None else f"{self.low} … {self.high}"
        return limits if self.also is None else f"{limits}, or {self.also}"


class OneOf(NamedTuple):
    """One of these words. Kafka compares upper and lower case as it is, but for a few keys."""

    words: tuple[str, ...]
    ignores_case: bool = False

    def problem(self, value: Value) -> str | None:
        if value is None or value in self.words:
            return None
        if self.ignores_case and str(value).lower() in [word.lower() for word in self.words]:
            return None
        return f"String must be one of: {', '.join(self.words)}"

    def __str__(self) -> str:
        return ", ".join(self.words)


class EachOf(NamedTuple):
    """A list whose elements are all among these words."""

    words: tuple[str, ...]

    def problem(self, value: Value) -> str | None:
        if isinstance(value, tuple) and any(word not in self.words for word in value):
            return f"String must be one of: {', '.join(self.words)}"
        return None

    def __str__(self) -> str:
        return "list of " + ", ".join(self.words)


class Matching(NamedTuple):
    """A text or list that ``accepts`` takes; ``meaning`` says what that is."""

    meaning: str
    accepts: Callable[[Value], bool]

    def problem(self, value: Value) -> str | None:
        return None if value is None or self.accepts(value) else f"Value must be {self.meaning}"

    def __str__(self) -> str:
        return self.meaning


def at_least(low: int) -> Between:
    """No less than ``low``."""
    return Between(low)


def between(low: float, high: float) -> Between:
    """From ``low`` to ``high``, both included."""
    return Between(low, high)


def one_of(*words: str) -> OneOf:
    """Exactly one of the words."""
    return OneOf(words)


NOT_BLANK = Matching("not empty", lambda value: bool(value))

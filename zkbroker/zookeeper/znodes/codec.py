"""What all znodes share: JSON as Kafka writes it, and reading fields with Kafka's strictness about types."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1

_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,18})\Z", re.ASCII)


class ZnodeError(ValueError):
    """The znode at ``path`` does not decode; ``why`` is for people."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


def dump(value: Mapping[str, Any]) -> bytes:
    """JSON without blanks and in UTF-8, keys in the order given."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def load(path: str, data: bytes) -> Fields:
    """The JSON object in ``data``. Raises ZnodeError."""
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant)
        if "\\u" in text:
            # A lone half of a surrogate pair is legal JSON, but no text that could ever be written again.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ZnodeError(path, f"not JSON in UTF-8: {error}") from error
    if not isinstance(value, dict):
        raise ZnodeError(path, f"not a JSON object but {_kind(value)}")
    return Fields(path, value)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def load_text(path: str, data: bytes) -> str:
    """The text of a znode that holds no JSON. Raises ZnodeError."""
    try:
        return data.decode("utf-8")
    except ValueError as error:
        raise ZnodeError(path, f"not text in UTF-8: {error}") from error


def parse_int(path: str, what: str, text: str, minimum: int = 0, maximum: int = INT32_MAX) -> int:
    """A decimal number without sign, blanks or leading zeros, so that no two texts mean one number."""
    if not _DECIMAL.match(text) or not minimum <= int(text) <= maximum:
        raise ZnodeError(path, f"{what} is {text[:40]!r}, not a number from {minimum} to {maximum}")
    return int(text)


def last_part(path: str) -> str:
    """The name of the znode: what follows the last slash."""
    return path.rsplit("/", 1)[-1]


class Fields:
    """A JSON object being read. Unknown keys are ignored; a known one of a wrong type raises ZnodeError.

    As in Kafka an int is a JSON integer only: neither ``1.0`` nor ``"1"`` nor ``true`` will do.
    """

    __slots__ = ("path", "values")

    def __init__(self, path: str, values: dict[str, Any]) -> None:
        self.path = path
        self.values = values

    def __repr__(self) -> str:
        return f"Fields({self.path}: {sorted(self.values)})"

    def fail(self, why: str) -> ZnodeError:
        return ZnodeError(self.path, why)

    def has(self, key: str) -> bool:
        """True if the key is there and not null."""
        return self.values.get(key) is not None

    def _get(self, key: str) -> Any:
        if key not in self.values:
            raise self.fail(f"no {key!r}")
        return self.values[key]

    def number(self, key: str, default: int | None = None, *, minimum: int = 0, maximum: int = INT32_MAX) -> int:
        if default is not None and key not in self.values:
            return default
        return self._number(key, self._get(key), minimum, maximum)

    def _number(self, key: str, value: Any, minimum: int, maximum: int) -> int:
        if type(value) is not int:
            raise self.fail(f"{key!r} is {_kind(value)}, not an integer")
        if not minimum <= value <= maximum:
            raise self.fail(f"{key!r} is out of range")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        if default is not None and key not in self.values:
            return default
        value = self._get(key)
        if not isinstance(value, str):
            raise self.fail(f"{key!r} is {_kind(value)}, not a string")
        return value

    def numbers(self, key: str) -> tuple[int, ...]:
        """A list of different non-negative ints: broker ids."""
        return self.as_numbers(key, self._get(key))

    def as_numbers(self, key: str, value: Any) -> tuple[int, ...]:
        """``value``, found under ``key``, as a list of different non-negative ints."""
        if not isinstance(value, list):
            raise self.fail(f"{key!r} is {_kind(value)}, not a list")
        numbers = tuple(self._number(key, number, 0, INT32_MAX) for number in value)
        if len(set(numbers)) != len(numbers):
            raise self.fail(f"{key!r} names a broker twice")
        return numbers

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.fail(f"{key!r} is not a list of strings")
        return tuple(value)

    def object(self, key: str, *, required: bool = True) -> dict[str, Any]:
        """A nested object; empty when absent and not ``required``."""
        if not required and key not in self.values:
            return {}
        value = self._get(key)
        if not isinstance(value, dict):
            raise self.fail(f"{key!r} is {_kind(value)}, not an object")
        return value

    def text_map(self, key: str, *, required: bool = True) -> dict[str, str]:
        """A nested object whose values are all strings."""
        value = self.object(key, required=required)
        for name, item in value.items():
            if not isinstance(item, str):
                raise self.fail(f"{key!r}: {name!r} is {_kind(item)}, not a string")
        return value

    def objects(self, key: str) -> list[Fields]:
        """A list of objects."""
        value = self._get(key)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.fail(f"{key!r} is not a list of objects")
        return [Fields(self.path, item) for item in value]


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "a boolean", int: "an integer", float: "a fraction", str: "a string", list: "a list"}
    return kinds.get(type(value), "an object")

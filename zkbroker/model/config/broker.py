"""``BrokerConfig``: all of one broker's settings, typed and checked, with where each came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from zkbroker.model.cluster import REPLICATION_LISTENER, Endpoint
from zkbroker.model.config.keys import Key, Support
from zkbroker.model.config.table import BROKER_KEYS, closest, is_plugin_setting, prefixed_key
from zkbroker.model.config.topic_table import TOPIC_SYNONYMS
from zkbroker.model.config.values import CLASS, INT, LONG, PASSWORD, SHORT, STRING, Value, ValueProblem, split_list
from zkbroker.model.errors import InvariantViolation, StartError


class Setting(NamedTuple):
    """One line of a configuration: the key as written, its text, and where that stands."""

    name: str
    text: str
    origin: str
    """``conf/broker-1.yaml:12``, ``--override``, ``ZKBROKER_LOG_DIRS``: what an error message begins with."""


class ZooKeeperConnect(NamedTuple):
    """``zookeeper.connect`` taken apart."""

    hosts: tuple[str, ...]
    """``host:port`` each."""
    chroot: str
    """The path below which everything is kept, without a slash at its end; empty for the root."""


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """The settings a broker started with. Made by ``build_broker_config``; never changes.

    ``config["num.partitions"]`` is any key's value; the ``get_…`` methods give it typed.
    """

    values: Mapping[str, Value]
    """Every key of the table, and the ``listener.name.…`` keys that were set."""
    settings: Mapping[str, Setting]
    """What was set, by key: the raw text and its origin."""
    broker_id: int
    """-1 when it is still to be generated (``broker.id.generation.enable``)."""
    listeners: tuple[Endpoint, ...]
    """What to bind, REPLICATION among them."""
    advertised_listeners: tuple[Endpoint, ...]
    """How others reach them; an empty host stands for this machine's own name, which the shell fills in."""
    protocols: Mapping[str, str]
    """Security protocol by listener name, for every listener."""
    log_dirs: tuple[str, ...]
    zookeeper: ZooKeeperConnect
    topic_defaults: Mapping[str, Value]
    """What each topic key is where neither the topic nor a dynamic setting says anything."""
    warnings: tuple[str, ...] = ()
    """One line each, for the log at start: what will hardly be meant, but does no harm."""

    def __repr__(self) -> str:
        return f"BrokerConfig(broker {self.broker_id}, {len(self.settings)} settings)"

    def __getitem__(self, name: str) -> Value:
        try:
            return self.values[name]
        except KeyError:
            raise InvariantViolation(f"there is no configuration key {name}") from None

    def get_int(self, name: str) -> int:
        """The value of an INT, SHORT or LONG key that always has one."""
        value = self[name]
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvariantViolation(f"{name} is not a whole number but {value!r}")
        return value

    def get_optional_int(self, name: str) -> int | None:
        """The value of a whole-number key without a default; None when it was not set."""
        self._expect(name, (INT, SHORT, LONG))
        return None if self[name] is None else self.get_int(name)

    def get_float(self, name: str) -> float:
        """The value of a DOUBLE key."""
        value = self[name]
        if not isinstance(value, float | int) or isinstance(value, bool):
            raise InvariantViolation(f"{name} is not a number but {value!r}")
        return float(value)

    def get_bool(self, name: str) -> bool:
        """The value of a BOOLEAN key."""
        value = self[name]
        if not isinstance(value, bool):
            raise InvariantViolation(f"{name} is not true or false but {value!r}")
        return value

    def get_str(self, name: str) -> str:
        """The value of a STRING key that always has one."""
        value = self[name]
        if not isinstance(value, str):
            raise InvariantViolation(f"{name} is not a text but {value!r}")
        return value

    def get_optional_str(self, name: str) -> str | None:
        """The value of a STRING key without a default; None when it was not set."""
        self._expect(name, (STRING, CLASS, PASSWORD))
        return None if self[name] is None else self.get_str(name)

    def get_list(self, name: str) -> tuple[str, ...]:
        """The elements of a LIST key, or of a text that is a comma-separated list; empty when it was not set."""
        value = self[name]
        if isinstance(value, tuple):
            return value
        if value is None or isinstance(value, str):
            return split_list(value or "")
        raise InvariantViolation(f"{name} is not a list but {value!r}")

    def _expect(self, name: str, kinds: tuple[object, ...]) -> None:
        key = BROKER_KEYS.get(name)
        if key is None or key.type not in kinds:
            raise InvariantViolation(f"there is no configuration key {name} of that type")

    @property
    def rack(self) -> str | None:
        """``broker.rack``, or None."""
        return self.get_optional_str("broker.rack")

    @property
    def zookeeper_connection_timeout_ms(self) -> int:
        """How long to wait for ZooKeeper at start: the session timeout unless written."""
        timeout_ms = self.get_optional_int("zookeeper.connection.timeout.ms")
        return self.get_int("zookeeper.session.timeout.ms") if timeout_ms is None else timeout_ms

    def listener(self, name: str) -> Endpoint:
        """What to bind for that listener name; InvariantViolation when there is none."""
        for endpoint in self.listeners:
            if endpoint.listener == name:
                return endpoint
        raise InvariantViolation(f"there is no listener {name}")

    @property
    def kafka_listeners(self) -> tuple[Endpoint, ...]:
        """The listeners for clients: all but REPLICATION."""
        return tuple(endpoint for endpoint in self.listeners if endpoint.listener != REPLICATION_LISTENER)

    def origin(self, name: str) -> str:
        """Where the key was set, or ``default``."""
        setting = self.settings.get(name)
        return "default" if setting is None else setting.origin

    def without_effect(self) -> tuple[str, ...]:
        """The keys that were set to something but that nothing obeys, for one line at start."""
        found = []
        for name in sorted(self.settings):
            key = BROKER_KEYS.get(name)
            if key is None or (key.support is Support.ACCEPTED and self.values[name] != key.default):
                found.append(name)
        return tuple(found)

    def non_default(self) -> tuple[str, ...]:
        """``key = value (origin)`` of every setting that differs from its default; sensitive values hidden."""
        lines = []
        for name, setting in sorted(self.settings.items()):
            key = known_key(name)
            if key is None:
                lines.append(f"{name} = [plug-in setting] ({setting.origin})")
            elif prefixed_key(name) is not None or self.values[name] != key.default:
                shown = "[hidden]" if key.is_sensitive else key.show(self.values[name])
                lines.append(f"{name} = {shown} ({setting.origin})")
        return tuple(lines)


def known_key(name: str) -> Key | None:
    """The table's key for a name, also behind ``listener.name.…``; None for plug-in settings and unknown names."""
    return BROKER_KEYS.get(name) or prefixed_key(name)


def _unknown(setting: Setting) -> StartError:
    hint = closest(setting.name, BROKER_KEYS)
    synonyms = TOPIC_SYNONYMS.get(setting.name)
    if synonyms:
        hint = f" (that is a topic's key; the broker's is '{synonyms[0].name}')"
    return StartError(f"{setting.origin}: unknown key '{setting.name}'{hint}")


def parse_setting(setting: Setting) -> tuple[Key | None, Value]:
    """The key and value of one setting; no key for a plug-in's. Raises StartError: unknown, refused or ill-typed."""
    key = known_key(setting.name)
    if key is None:
        if is_plugin_setting(setting.name):
            return None, setting.text
        raise _unknown(setting)
    if key.support is Support.REFUSED and setting.text.strip().lower() != key.harmless:
        raise StartError(f"{setting.origin}: {setting.name} is refused: {key.note}")
    try:
        return key, key.parse(setting.text)
    except ValueProblem as problem:
        shown = "" if key.is_sensitive else f" '{setting.text}'"
        raise StartError(f"{setting.origin}: {setting.name}{shown}: {problem}") from None


def parse_settings(settings: Iterable[Setting]) -> tuple[dict[str, Value], dict[str, Setting]]:
    """(every key's value, what was set); of several settings of one key the last holds. Raises StartError."""
    values: dict[str, Value] = {name: key.default for name, key in BROKER_KEYS.items()}
    chosen: dict[str, Setting] = {}
    for setting in settings:
        # All are looked at, also those that a later one replaces: a wrong line in a file is wrong all the same.
        _, value = parse_setting(setting)
        values[setting.name] = value
        chosen[setting.name] = setting
    return values, chosen


def freeze(values: dict[str, Value]) -> Mapping[str, Value]:
    """A view that nobody can write to."""
    return MappingProxyType(values)

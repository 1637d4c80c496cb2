"""Whose settings ``zkbroker-configs`` is about, and what is to change: flags as kafka-configs.sh takes them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from zkbroker.cli import _common as common

ENTITY_TYPES = ("topics", "clients", "users", "brokers", "ips", "broker-loggers")
DEFAULT = ""
"""The name of what holds for all entities of a type that say nothing themselves."""

_NAME_FLAGS = {
    "topic": ("topics", "the topic's name"),
    "broker": ("brokers", "the broker's id"),
    "broker-logger": ("broker-loggers", "the id of the broker whose loggers are meant"),
    "user": ("users", "the user's principal name"),
    "client": ("clients", "the client's id"),
    "ip": ("ips", "the address"),
}
_DEFAULT_FLAGS = {
    "broker-defaults": ("brokers", "what holds for all brokers"),
    "user-defaults": ("users", "what holds for all users"),
    "client-defaults": ("clients", "what holds for all clients"),
    "ip-defaults": ("ips", "what holds for all addresses"),
}
# A comma or an equals sign that is not inside of brackets.
_COMMA = re.compile(r",(?=[^\]]*(?:\[|$))")
_EQUALS = re.compile(r"\s*=\s*(?=[^\]]*(?:\[|$))")


class Entity(NamedTuple):
    """One entity, or all of a type."""

    kind: str
    """One of ``ENTITY_TYPES``."""
    name: str | None
    """None: all of them; ``DEFAULT``: what holds for those that say nothing."""
    child: Entity | None = None
    """A client of the user."""


class Wish(NamedTuple):
    """What --alter is to change."""

    added: Mapping[str, str]
    deleted: tuple[str, ...]


class _DefaultName(argparse.Action):
    """--entity-default stands among the names that --entity-name gives."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: object, option_string: Any = None) -> None:
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), DEFAULT])


def add_entity_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--entity-type",
        action="append",
        default=[],
        metavar="TYPE",
        help=f"one of {', '.join(ENTITY_TYPES)}; users and clients may come together",
    )
    parser.add_argument(
        "--entity-name", action="append", dest="entity_names", default=[], metavar="NAME", help="which one of the type"
    )
    parser.add_argument(
        "--entity-default",
        action=_DefaultName,
        nargs=0,
        dest="entity_names",
        help="what holds for all of the type that say nothing themselves",
    )
    for flag, (kind, text) in _NAME_FLAGS.items():
        parser.add_argument(
            f"--{flag}", metavar="NAME", help=f"{text}: --entity-type {kind} --entity-name NAME in short"
        )
    for flag, (kind, text) in _DEFAULT_FLAGS.items():
        parser.add_argument(
            f"--{flag}", action="store_true", help=f"{text}: --entity-type {kind} --entity-default in short"
        )


def parse_entity(arguments: argparse.Namespace) -> Entity:
    """Raises UsageError."""
    kinds, names = list(arguments.entity_type), list(arguments.entity_names)
    short: list[tuple[str, str]] = []
    for flag, (kind, _) in _NAME_FLAGS.items():
        value = getattr(arguments, flag.replace("-", "_"))
        if value is not None:
            short.append((kind, value))
    flags = _DEFAULT_FLAGS.items()
    short += [(kind, DEFAULT) for flag, (kind, _) in flags if getattr(arguments, flag.replace("-", "_"))]
    if short and (kinds or names):
        raise common.UsageError("--entity-type and --entity-name do not go with --topic, --broker and their like")
    kinds, names = (kinds, names) if not short else ([kind for kind, _ in short], [name for _, name in short])
    if not kinds:
        raise common.UsageError("at least one entity type must be specified")
    unknown = [kind for kind in kinds if kind not in ENTITY_TYPES]
    if unknown:
        raise common.UsageError(f"invalid entity type {unknown[0]}: it must be one of {', '.join(ENTITY_TYPES)}")
    if len(set(kinds)) < len(kinds) or (len(kinds) > 1 and set(kinds) != {"users", "clients"}):
        raise common.UsageError("of entity types only users and clients may come together")
    if len(names) > len(kinds):
        raise common.UsageError("there are more names than entity types")
    rows = {kind: names[place] if place < len(names) else None for place, kind in enumerate(kinds)}
    for kind, name in rows.items():
        if kind in ("topics", "broker-loggers") and name == DEFAULT:
            raise common.UsageError(f"{kind} have no default entity")
        if kind in ("brokers", "broker-loggers") and name and not name.isdecimal():
            raise common.UsageError(f"a broker's id is a whole number, not {name!r}")
    if len(rows) == 2:
        return Entity("users", rows["users"], Entity("clients", rows["clients"]))
    (kind,) = rows
    return Entity(kind, rows[kind])


def parse_wish(arguments: argparse.Namespace, entity: Entity) -> Wish | None:
    """What to change; None with --describe. Raises UsageError."""
    given = arguments.add_config is not None or arguments.add_config_file is not None
    if not arguments.alter:
        if given or arguments.delete_config is not None:
            raise common.UsageError("--add-config, --add-config-file and --delete-config go with --alter")
        if entity.kind == "broker-loggers" and entity.name is None:
            raise common.UsageError("an entity name must be specified with --describe of broker-loggers")
        return None
    if arguments.all:
        raise common.UsageError("--all goes with --describe")
    if entity.name is None or (entity.child is not None and entity.child.name is None):
        raise common.UsageError("an entity name must be specified with --alter")
    if arguments.add_config is not None and arguments.add_config_file is not None:
        raise common.UsageError("only one of --add-config and --add-config-file may be given")
    added = parse_added(arguments.add_config) if arguments.add_config is not None else {}
    if arguments.add_config_file is not None:
        added = common.read_properties(arguments.add_config_file)
    deleted = tuple(key.strip() for key in (arguments.delete_config or "").split(",") if key.strip())
    if not added and not deleted:
        raise common.UsageError(
            "at least one of --add-config, --add-config-file and --delete-config must be specified with --alter"
        )
    return Wish(added, deleted)


def parse_added(text: str) -> dict[str, str]:
    """``k1=v1,k2=[v1,v2]`` → the values, without the brackets. Raises UsageError."""
    added = {}
    for pair in _COMMA.split(text):
        parts = _EQUALS.split(pair)
        if len(parts) != 2 or not parts[0].strip():
            raise common.UsageError(f'all configs to be added must be in the format "key=val", not {pair!r}')
        added[parts[0].strip()] = parts[1].replace("[", "").replace("]", "").strip()
    return added

"""``/config``: dynamic settings of topics, brokers, users, clients and addresses, and the notices of their change.

- ``/config/topics/T``: ``{"version":1,"config":{"segment.bytes":"20000","retention.ms":"86400000"}}``; values are
  strings always. ``/config/brokers/<default>`` holds what is set for all brokers; ``/config/users/U/clients/C`` nests.
- ``/config/changes/config_change_0000000007``: ``{"version":2,"entity_path":"topics/T"}``, or in version 1
  ``{"version":1,"entity_type":"topics","entity_name":"T"}``.

Names in paths are URL-encoded as Kafka's ``Sanitizer`` does it, ``<default>`` excepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes

from zkbroker.zookeeper.znodes.codec import ZnodeError, dump, load

ROOT_PATH = "/config"
CHANGES_PATH = "/config/changes"
TOPICS_PATH = "/config/topics"

CHANGE_PREFIX = f"{CHANGES_PATH}/config_change_"
"""Create a sequential znode with this path to announce a change."""

ENTITY_TYPES = ("topics", "clients", "users", "brokers", "ips")

DEFAULT_ENTITY = "<default>"
"""The name whose settings apply to every entity of the type that has none of its own."""

VERSION = 1
CHANGE_VERSION = 2


def entity_name(entity: str) -> str:
    """The entity as it stands in a path: ``user@host`` becomes ``user%40host``."""
    if entity == DEFAULT_ENTITY:
        return entity
    # Java's URLEncoder with '+' and '*' replaced: everything but letters, digits, '.', '-' and '_' is escaped.
    return quote(entity, safe="").replace("~", "%7E")


def entity_from_name(name: str) -> str:
    """The reverse of ``entity_name``; a name that is not a valid encoding is returned as it is."""
    if name == DEFAULT_ENTITY or "%" not in name:
        return name
    try:
        return unquote_to_bytes(name).decode("utf-8")
    except ValueError:
        return name


def entity_type_path(entity_type: str) -> str:
    return f"{ROOT_PATH}/{entity_type}"


def entity_path(entity_type: str, entity: str) -> str:
    return f"{ROOT_PATH}/{entity_type}/{entity_name(entity)}"


def topic_path(topic: str) -> str:
    return entity_path("topics", topic)


def broker_path(broker_id: int | str) -> str:
    """The settings of one broker, or of all with ``<default>``."""
    return entity_path("brokers", str(broker_id))


def encode(config: Mapping[str, str]) -> bytes:
    return dump({"version": VERSION, "config": dict(config)})


def decode(path: str, data: bytes) -> dict[str, str]:
    """The settings; none in an empty znode or without a ``config`` key, as in Kafka. Raises ZnodeError."""
    if not data:
        return {}
    return load(path, data).text_map("config", required=False)


def encode_change(entity_type: str, entity: str) -> bytes:
    return dump({"version": CHANGE_VERSION, "entity_path": f"{entity_type}/{entity_name(entity)}"})


def decode_change(path: str, data: bytes) -> tuple[str, str]:
    """(entity type, entity) of a notice. Raises ZnodeError.

    A nested entity (``users/U/clients/C``) is given as ``("users", "U/clients/C")``, its parts still encoded.
    """
    fields = load(path, data)
    version = fields.number("version")
    if version == 1:
        entity_type, name = fields.text("entity_type"), fields.text("entity_name")
    elif version == CHANGE_VERSION:
        entity_type, _, name = fields.text("entity_path").partition("/")
    else:
        raise ZnodeError(path, f"'version' is {version}, known are 1 and {CHANGE_VERSION}")
    if entity_type not in ENTITY_TYPES:
        raise ZnodeError(path, f"unknown entity type {entity_type[:40]!r}")
    if not name:
        raise ZnodeError(path, "no entity is named")
    return entity_type, name if "/" in name else entity_from_name(name)

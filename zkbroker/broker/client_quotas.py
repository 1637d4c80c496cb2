"""The quotas that stand in ``/config``, as DescribeClientQuotas shows them (KIP-546)."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.python.failure import Failure

from zkbroker.kafka.config_ports import Quota, QuotaFilter
from zkbroker.zookeeper.client import NoNodeError, ZooKeeperClient
from zkbroker.zookeeper.znodes import ZnodeError
from zkbroker.zookeeper.znodes import config as znode

QUOTA_KEYS = (
    "producer_byte_rate",
    "consumer_byte_rate",
    "request_percentage",
    "controller_mutation_rate",
    "connection_creation_rate",
)
"""Of an entity's settings the ones that are quotas: a user's SCRAM credentials stand beside them."""

READS_AT_ONCE = 100

Entity = tuple[tuple[str, str | None], ...]


@inlineCallbacks
def read_client_quotas(
    zk: ZooKeeperClient, filters: Sequence[QuotaFilter], is_strict: bool
) -> Generator[Deferred[Any], Any, list[Quota]]:
    """The entities that have quotas and every component of ``filters``; with ``is_strict`` no other component."""
    kinds = {row.entity_type for row in filters}
    entities: dict[Entity, str] = {}
    for kind, folder in (("user", "users"), ("client-id", "clients"), ("ip", "ips")):
        if "ip" in kinds and kind != "ip":
            continue
        root = znode.entity_type_path(folder)
        names: list[str] = yield _children(zk, root)
        entities.update({((kind, _entity(name)),): f"{root}/{name}" for name in names})
        if kind == "user":
            for start in range(0, len(names), READS_AT_ONCE):
                some = names[start : start + READS_AT_ONCE]
                clients = yield gatherResults([_children(zk, f"{root}/{name}/clients") for name in some])
                for name, ids in zip(some, clients, strict=True):
                    entities.update(
                        {
                            (("user", _entity(name)), ("client-id", _entity(one))): f"{root}/{name}/clients/{one}"
                            for one in ids
                        }
                    )
    wanted = [(entity, path) for entity, path in entities.items() if _matches(entity, filters, is_strict)]
    quotas = []
    for start in range(0, len(wanted), READS_AT_ONCE):
        part = wanted[start : start + READS_AT_ONCE]
        found = yield gatherResults([_read(zk, path) for _, path in part])
        quotas += [Quota(entity, values) for (entity, _), values in zip(part, found, strict=True) if values]
    return quotas


def _entity(name: str) -> str | None:
    return None if name == znode.DEFAULT_ENTITY else znode.entity_from_name(name)


def _matches(entity: Entity, filters: Sequence[QuotaFilter], is_strict: bool) -> bool:
    parts = dict(entity)
    if is_strict and len(parts) != len(filters):
        return False
    return all(row.entity_type in parts and (row.is_any or parts[row.entity_type] == row.name) for row in filters)


def _children(zk: ZooKeeperClient, path: str) -> Deferred[list[str]]:
    def absent(failure: Failure) -> list[str]:
        failure.trap(NoNodeError)
        return []

    return zk.children(path).addErrback(absent)


def _read(zk: ZooKeeperClient, path: str) -> Deferred[Mapping[str, float]]:
    """An entity's quotas; none where nothing sensible stands."""

    def decode(got: tuple[bytes, object]) -> Mapping[str, float]:
        settings = znode.decode(path, got[0])
        values = {name: _number(settings[name]) for name in QUOTA_KEYS if name in settings}
        return {name: value for name, value in values.items() if value is not None}

    def unreadable(failure: Failure) -> Mapping[str, float]:
        failure.trap(NoNodeError, ZnodeError)
        return {}

    return zk.get(path).addCallback(decode).addErrback(unreadable)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if abs(value) < float("inf") else None

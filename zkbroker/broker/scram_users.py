"""Which users have SCRAM credentials in ``/config/users`` (KIP-554). The credentials themselves are told to nobody."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.python.failure import Failure

from zkbroker.kafka.config_ports import ScramUser
from zkbroker.zookeeper.client import NoNodeError, ZooKeeperClient
from zkbroker.zookeeper.znodes import ZnodeError
from zkbroker.zookeeper.znodes import config as znode

MECHANISMS = {"SCRAM-SHA-256": 1, "SCRAM-SHA-512": 2}
"""Kafka's numbers of the keys under which a user's znode has them."""

READS_AT_ONCE = 100
NAME_LENGTH_MAX = 32_767
"""Characters: what a string of Kafka's older messages may hold."""
_ITERATIONS = re.compile(r"(?:^|,)iterations=([0-9]{1,9})(?:,|$)", re.ASCII)


@inlineCallbacks
def read_scram_users(
    zk: ZooKeeperClient, names: Sequence[str] | None
) -> Generator[Deferred[Any], Any, list[ScramUser]]:
    """The users that have credentials: those of ``names``, or all for None."""
    if names is None:
        found: list[str] = yield zk.children(znode.entity_type_path("users")).addErrback(_none_there)
        names = [znode.entity_from_name(name) for name in found if name != znode.DEFAULT_ENTITY]
    users = []
    for start in range(0, len(names), READS_AT_ONCE):
        wanted = [name for name in names[start : start + READS_AT_ONCE] if _may_exist(name)]
        users += yield gatherResults([_read(zk, name) for name in wanted])
    return [user for user in users if user.credentials]


def _may_exist(name: str) -> bool:
    """No znode has a relative name; and a request for one of megabytes would cost the session its connection."""
    return name not in (".", "..") and len(name) <= NAME_LENGTH_MAX


def _none_there(failure: Failure) -> list[str]:
    failure.trap(NoNodeError)
    return []


def _read(zk: ZooKeeperClient, name: str) -> Deferred[ScramUser]:
    path = znode.entity_path("users", name)

    def decode(got: tuple[bytes, object]) -> ScramUser:
        settings = znode.decode(path, got[0])
        matches = ((number, _ITERATIONS.search(settings.get(key, ""))) for key, number in MECHANISMS.items())
        return ScramUser(name, tuple((number, int(match[1])) for number, match in matches if match is not None))

    def unreadable(failure: Failure) -> ScramUser:
        failure.trap(NoNodeError, ZnodeError)
        return ScramUser(name, ())

    return zk.get(path).addCallback(decode).addErrback(unreadable)

"""Names of users that no znode can have are asked of nobody: a path with them is refused by kazoo, or costs the session
its connection (found by tests.fuzz)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import defer

from zkbroker.broker.scram_users import NAME_LENGTH_MAX, read_scram_users


class OneUser:
    """``/config/users`` with alice in it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def get(self, path: str) -> defer.Deferred[tuple[bytes, object]]:
        self.asked.append(path)
        return defer.succeed((b'{"version":1,"config":{"SCRAM-SHA-256":"salt=a,iterations=4096"}}', None))


@pytest.mark.parametrize("name", [".", "..", "x" * (NAME_LENGTH_MAX + 1)])
def test_names_that_cannot_be(name: str) -> None:
    zk: Any = OneUser()
    found: list[Any] = []
    read_scram_users(zk, [name, "alice"]).addCallback(found.extend)
    assert [(user.name, user.credentials) for user in found] == [("alice", ((1, 4096),))]
    assert zk.asked == ["/config/users/alice"]

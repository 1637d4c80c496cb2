"""Members of consumer groups at two brokers that are compared: the same requests to both, over connections of their
own, with member ids (which brokers choose) turned into words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from kio.index import load_request_schema

from tests.fakes.kafka_client import request_bytes, response_of
from tests.harness.differential import CLOSED, Comparison, Peer, build, read_frame
from zkbroker.kafka import versions as v

SUBSCRIPTION = b"\x00\x00\x00\x00\x00\x01\x00\x01t\xff\xff\xff\xff"
"""What a consumer of topic t tells its group: version 0, one topic, no data of its own."""
_MEMBER_ID = re.compile(r"(.+)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SORTED_BY = ("name", "group_id", "member_id", "partition_index")


def subscription(topic: str) -> bytes:
    return SUBSCRIPTION[:6] + len(topic).to_bytes(2, "big") + topic.encode() + SUBSCRIPTION[9:]


def _in_order(value: Any) -> Any:
    """Kafka keeps members, topics and groups in hash tables."""
    if isinstance(value, dict):
        return {name: _in_order(one) for name, one in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        names = [name for name in _SORTED_BY if name in value[0]]
        return sorted(map(_in_order, value), key=lambda one: [str(one[name]).rjust(9) for name in names])
    return value


class GroupPeer(Peer):
    """One broker over one connection; ``member_ids`` are shared by all connections to it."""

    def __init__(self, peer: Peer, member_ids: dict[str, str]) -> None:
        super().__init__(peer.name, peer.port)
        self._member_ids = member_ids
        self._asked: Any = None

    def plain(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._member_ids.get(value) or _MEMBER_ID.sub(r"<\1-…>", value)
        return super().plain(value)

    def ask(self, key: int, version: int, /, **fields: Any) -> Any:
        return _in_order(super().ask(key, version, **fields))

    def send(self, key: int, version: int, /, **fields: Any) -> None:
        """A request whose answer is taken later."""
        self._asked = build(load_request_schema(key, version), fields)
        if self._connection is None:
            self._connection = self.connect()
        self._connection.sendall(request_bytes(self._asked))

    def receive(self) -> Any:
        """The answer to what was sent: kio's entity."""
        assert self._connection is not None
        data = read_frame(self._connection)
        return CLOSED if data is None else response_of(self._asked, data)[1]


class Groups:
    """What the members of a test have in common."""

    def __init__(self, run: Comparison) -> None:
        self.run = run
        self.member_ids: dict[Peer, dict[str, str]] = {peer: {} for peer in run.peers}
        self.members: list[Member] = []

    def close(self) -> None:
        for member in self.members:
            for peer in member.peers.values():
                peer.close()


class Member:
    """A member, or an administrator, at both brokers. ``version`` is that of JoinGroup; others follow it."""

    def __init__(
        self, groups: Groups, name: str, group_id: str, version: int = 9, instance_id: str | None = None
    ) -> None:
        self.name = name
        self.group_id = group_id
        self.version = version
        self.instance_id = instance_id
        self.generation = -1
        self.protocol: str | None = "range"
        self.groups = groups
        self.peers = {peer: GroupPeer(peer, groups.member_ids[peer]) for peer in groups.run.peers}
        self.ids = dict.fromkeys(groups.run.peers, "")
        groups.members.append(self)

    def _both(self, case: str, answer_of: Callable[[Peer], Any]) -> None:
        self.groups.run.both(f"groups {self.name} {case} v{self.version}", answer_of)

    def ask(self, case: str, key: int, version: int | None = None, /, **fields: Any) -> None:
        """The same to both; ``member_id`` may be another Member, whose id is taken. A version is that of the API, by
        default the member's so far as the API has it."""
        version = min(self.version, v.BY_KEY[key].maximum) if version is None else version
        self._both(
            f"{case} ({v.BY_KEY[key].name} {version})",
            lambda peer: self.peers[peer].ask(key, version, **self._fields(peer, fields)),
        )

    def _fields(self, peer: Peer, fields: dict[str, Any]) -> dict[str, Any]:
        return {name: self._value(peer, value) for name, value in fields.items()}

    def _value(self, peer: Peer, value: Any) -> Any:
        if isinstance(value, Member):
            return value.ids[peer]
        if isinstance(value, dict):
            return self._fields(peer, value)
        if isinstance(value, list):
            return [self._value(peer, one) for one in value]
        return value

    def _join_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {
            "group_id": self.group_id,
            "member_id": self,
            "group_instance_id": self.instance_id,
            "session_timeout": 30_000,
            "rebalance_timeout": 30_000,
            "protocol_type": "consumer",
            "protocols": [{"name": "range", "metadata": subscription("t")}, {"name": "sticky", "metadata": b"x"}],
            **fields,
        }

    def send_join(self, **fields: Any) -> None:
        for peer, connection in self.peers.items():
            connection.send(v.JOIN_GROUP, self.version, **self._fields(peer, self._join_fields(fields)))

    def receive_join(self, case: str) -> None:
        def answer(peer: Peer) -> Any:
            found = self.peers[peer].receive()
            if found != CLOSED and found.member_id:
                self.ids[peer] = found.member_id
                prefix = found.member_id[:-37]
                self.groups.member_ids[peer][found.member_id] = f"<{self.name}: {prefix}-…>"
                self.generation = found.generation_id
            return _in_order(self.peers[peer].plain(found))

        self._both(case, answer)

    def join(self, case: str, **fields: Any) -> None:
        self.send_join(**fields)
        self.receive_join(case)

    def enter(self, case: str, **fields: Any) -> None:
        """Join as clients do: with version 4 and later a dynamic member is given its id first (KIP-394)."""
        if self.version >= 4 and self.instance_id is None:
            self.join(f"{case}, for an id", **fields)
        self.join(case, **fields)

    def _member_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {
            "group_id": self.group_id,
            "member_id": self,
            "group_instance_id": self.instance_id,
            "generation_id": self.generation,
            **fields,
        }

    def _sync_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        return self._member_fields({"protocol_type": "consumer", "protocol_name": self.protocol, **fields})

    def send_sync(self, **fields: Any) -> None:
        version = min(self.version, v.BY_KEY[v.SYNC_GROUP].maximum)
        for peer, connection in self.peers.items():
            connection.send(v.SYNC_GROUP, version, **self._fields(peer, self._sync_fields(fields)))

    def receive_sync(self, case: str) -> None:
        self._both(case, lambda peer: self.peers[peer].plain(self.peers[peer].receive()))

    def sync(self, case: str, *assigned: Member, **fields: Any) -> None:
        """As the leader who assigns something to each of these, or as one of the others."""
        rows = [{"member_id": one, "assignment": f"for {one.name}".encode()} for one in assigned]
        self.ask(case, v.SYNC_GROUP, **self._sync_fields({"assignments": rows, **fields}))

    def heartbeat(self, case: str, **fields: Any) -> None:
        self.ask(case, v.HEARTBEAT, **self._member_fields(fields))

    def leave(self, case: str, *members: dict[str, Any], **fields: Any) -> None:
        rows = list(members) or [{"member_id": self, "group_instance_id": self.instance_id}]
        self.ask(case, v.LEAVE_GROUP, **{"group_id": self.group_id, "member_id": self, "members": rows, **fields})

    def commit(self, case: str, topics: list[dict[str, Any]], version: int | None = None, **fields: Any) -> None:
        fields = {"generation_id_or_member_epoch": self.generation, "retention_time": -1, "topics": topics, **fields}
        version = max(2, min(self.version, v.BY_KEY[v.OFFSET_COMMIT].maximum)) if version is None else version
        self.ask(case, v.OFFSET_COMMIT, version, **self._member_fields(fields))

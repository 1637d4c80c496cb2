"""Requests of consumer groups that follow each other on one connection, and what a client that goes away leaves."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from tests.fakes.groups import FakeGroups
from tests.fakes.kafka_client import Listener, frames_of, request_bytes, response_of
from tests.unit.kafka_group_tools import code, commit_rows, groups, listener, request
from zkbroker.kafka import versions as v
from zkbroker.kafka.connection import KafkaConnection
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import CommitOffsets, FetchOffsets, Heartbeat, JoinGroup, LeaveGroup, SyncGroup

__all__ = ["groups", "listener"]

MEMBER = {"group_id": "g", "member_id": "m"}
JOIN = request(v.JOIN_GROUP, 5, **MEMBER)
SYNC = request(v.SYNC_GROUP, 3, **MEMBER)
HEARTBEAT = request(v.HEARTBEAT, 3, **MEMBER)
LEAVE = request(v.LEAVE_GROUP, 3, group_id="g", members=[{"member_id": "m", "group_instance_id": None}])
COMMIT = request(v.OFFSET_COMMIT, 7, **MEMBER, topics=commit_rows(("t", 0)))
FETCH = request(v.OFFSET_FETCH, 7, group_id="g", topics=[{"name": "t", "partition_indexes": [0]}])
METADATA = request(v.METADATA, 4, topics=[])


class Client:
    """One connection on which requests are numbered."""

    def __init__(self, listener: Listener, groups: FakeGroups) -> None:
        self.connection, self.transport = listener.connect()
        self.groups = groups
        self._sent: list[Any] = []

    def send(self, *requests: Any) -> None:
        data = b"".join(request_bytes(one, len(self._sent) + number) for number, one in enumerate(requests))
        self._sent.extend(requests)
        self.connection.dataReceived(data)

    def answers(self) -> list[tuple[int, str]]:
        """(number of the request, error) of what came back since the last look."""
        found = []
        for data in frames_of(self.transport.take()):
            number = int.from_bytes(data[:4], "big")
            _, answer = response_of(self._sent[number], data)
            found.append((number, code(answer).name if hasattr(answer, "error_code") else ""))
        return found

    @property
    def asked(self) -> list[type]:
        return [type(one[0] if isinstance(one, list) else one) for one in self.groups.asked]


@pytest.fixture
def client(listener: Listener, groups: FakeGroups) -> Client:
    groups.holds = True
    return Client(listener, groups)


@pytest.mark.parametrize(("parked", "kind"), [(JOIN, JoinGroup), (SYNC, SyncGroup)])
def test_a_parked_request_holds_what_follows(client: Client, parked: Any, kind: type) -> None:
    client.send(parked, HEARTBEAT, METADATA)
    assert client.asked == [kind]
    client.groups.held.pop().run()
    assert client.asked == [kind, Heartbeat]
    assert client.answers() == [(0, "NONE")]
    client.groups.held.pop().run()
    assert client.answers() == [(1, "NONE"), (2, "")]


def test_a_member_joins_once_at_a_time(client: Client) -> None:
    """The second would take the place of the first, and the connection wait for the first one's answer for ever."""
    client.send(JOIN, JOIN)
    assert client.asked == [JoinGroup]
    client.groups.held.pop().run()
    assert client.asked == [JoinGroup, JoinGroup]


def test_to_leave_passes_a_parked_join(client: Client) -> None:
    client.send(JOIN, LEAVE, HEARTBEAT)
    assert client.asked == [JoinGroup, LeaveGroup]
    joined, left = client.groups.held
    left.run()
    assert client.answers() == []  # in the order of the requests
    assert client.asked == [JoinGroup, LeaveGroup]
    joined.run()
    assert client.answers() == [(0, "NONE"), (1, "NONE")]
    assert client.asked == [JoinGroup, LeaveGroup, Heartbeat]


def test_a_fetch_of_offsets_sees_the_commits_before_it(client: Client) -> None:
    client.send(METADATA, COMMIT, COMMIT, HEARTBEAT, FETCH, METADATA)
    assert client.asked == [CommitOffsets, CommitOffsets, Heartbeat]
    first, second, heartbeat = client.groups.held
    heartbeat.run()
    second.run()
    assert client.asked == [CommitOffsets, CommitOffsets, Heartbeat]
    first.run()
    assert client.asked == [CommitOffsets, CommitOffsets, Heartbeat, FetchOffsets]
    assert [number for number, _ in client.answers()] == [0, 1, 2, 3]
    client.groups.held[-1].run()
    assert [number for number, _ in client.answers()] == [4, 5]


def test_a_client_that_goes_away_is_not_answered(client: Client, listener: Listener) -> None:
    client.send(JOIN, HEARTBEAT)
    client.connection.connectionLost(Failure(ConnectionLost()))
    (join,) = client.groups.held
    assert join.is_cancelled
    join.run()  # a port may have decided before it heard of it
    assert client.asked == [JoinGroup]
    assert client.transport.value() == b""
    assert listener.factory.memory.used_bytes == 0


def test_a_coordinator_that_answers_at_once_parks_nothing(client: Client) -> None:
    client.groups.holds = False
    client.groups.answer = None
    client.send(JOIN, SYNC, HEARTBEAT, COMMIT, FETCH)
    assert [number for number, _ in client.answers()] == [0, 1, 2, 3, 4]
    assert client.asked == [JoinGroup, SyncGroup, Heartbeat, CommitOffsets, FetchOffsets]


@pytest.mark.parametrize(
    ("address", "host"),
    [
        (IPv4Address("TCP", "10.1.2.3", 5), "/10.1.2.3"),
        (IPv6Address("TCP", "::1", 5), "/0:0:0:0:0:0:0:1"),
        (IPv6Address("TCP", "fe80::a0b:1%eth0", 5), "/fe80:0:0:0:0:0:a0b:1"),
        (IPv6Address("TCP", "::ffff:10.1.2.3", 5), "/10.1.2.3"),
        (UNIXAddress(b"/tmp/socket"), "/"),
    ],
)
def test_where_a_client_is_as_java_writes_it(listener: Listener, address: Any, host: str) -> None:
    connection, transport = listener.connect()
    assert isinstance(connection, KafkaConnection)
    transport.peerAddr = address
    assert connection.client_host == host


def test_an_error_is_an_answer_like_any_other(client: Client) -> None:
    client.groups.holds = False
    client.groups.answer = ErrorCode.UNKNOWN_MEMBER_ID
    client.send(HEARTBEAT)
    assert client.answers() == [(0, "UNKNOWN_MEMBER_ID")]

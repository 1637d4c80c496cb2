"""The APIs of consumer groups in all versions, asked with kio's classes and answered from a fake coordinator."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from tests.fakes.groups import FakeGroups
from tests.fakes.kafka_client import Listener, frame, frames_of, request_bytes, response_of
from tests.unit.kafka_group_tools import GROUP_KEYS, ask, code, commit_rows, groups, listener, request, served
from zkbroker.kafka import versions as v
from zkbroker.kafka.coordinators import KEYS_PER_TURN
from zkbroker.kafka.group_ports import Coordinator
from zkbroker.kafka.in_turns import PER_TURN
from zkbroker.kafka.ports import BrokerView
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    Client,
    DescribedGroup,
    DescribedMember,
    Heartbeat,
    JoinAnswer,
    JoinedMember,
    JoinGroup,
    LeaveAnswer,
    LeaveGroup,
    LeavingMember,
    LeftMember,
    ListedGroup,
    ListedGroups,
    Protocol,
    SyncAnswer,
    SyncGroup,
)

__all__ = ["groups", "listener"]

HOST = "/192.168.1.1"
"""Where the test's transport says that it comes from."""
FINE = ErrorCode.NONE
UNKNOWN = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


# FindCoordinator


@pytest.mark.parametrize("version", served(v.FIND_COORDINATOR))
def test_find_coordinator(listener: Listener, groups: FakeGroups, version: int) -> None:
    listener.broker.views["PLAINTEXT"].append(BrokerView(2, "other", 9093, None))
    groups.coordinators = {"a": Coordinator(FINE, 2), "far": Coordinator(FINE, 3)}
    fields: dict[str, Any] = {"key_type": 1} if version >= 1 else {}
    if version >= 4:
        rows = ask(listener, v.FIND_COORDINATOR, version, coordinator_keys=["a", "b", "far"], **fields).coordinators
        assert [row.key for row in rows] == ["a", "b", "far"]
    else:
        rows = [ask(listener, v.FIND_COORDINATOR, version, key=key, **fields) for key in ("a", "b", "far")]
    found, nowhere, far = rows
    assert (code(found), found.node_id, found.host, found.port) == (FINE, 2, "other", 9093)
    for row in (nowhere, far):
        assert (code(row), row.node_id, row.host, row.port) == (ErrorCode.COORDINATOR_NOT_AVAILABLE, -1, "", -1)
    if version >= 1:
        assert nowhere.error_message == "nowhere"
    assert groups.asked == [(1 if version else 0, key) for key in ("a", "b", "far")]


@pytest.mark.parametrize("version", served(v.FIND_COORDINATOR, 1))
@pytest.mark.parametrize("key_type", [2, -1])
def test_find_a_coordinator_of_no_kind(listener: Listener, groups: FakeGroups, version: int, key_type: int) -> None:
    keys = {"coordinator_keys": ["a"]} if version >= 4 else {"key": "a"}
    answer = ask(listener, v.FIND_COORDINATOR, version, key_type=key_type, **keys)
    row = answer.coordinators[0] if version >= 4 else answer
    assert (code(row), row.node_id) == (ErrorCode.INVALID_REQUEST, -1)
    assert groups.asked == []


def test_many_coordinators_are_looked_for_in_many_turns(listener: Listener, groups: FakeGroups) -> None:
    """Half a million keys in one request kept the reactor for so long that the watchdog ended the broker."""
    keys = [f"g{number}" for number in range(10 * KEYS_PER_TURN + 1)]
    groups.coordinators = {key: Coordinator(FINE, 1) for key in keys[::2]}
    many = request(v.FIND_COORDINATOR, 6, coordinator_keys=keys, key_type=0)
    connection, transport = listener.connect()
    connection.dataReceived(request_bytes(many))
    assert (len(groups.asked), transport.value()) == (KEYS_PER_TURN, b"")
    listener.clock.advance(0)  # of which this clock makes as many turns as are asked for
    (data,) = frames_of(transport.take())
    rows = response_of(many, data)[1].coordinators
    assert [row.key for row in rows] == keys
    assert [row.node_id for row in rows] == [-1 if number % 2 else 1 for number in range(len(keys))]


def test_who_looks_for_many_coordinators_and_goes_is_forgotten(listener: Listener, groups: FakeGroups) -> None:
    keys = [f"g{number}" for number in range(2 * KEYS_PER_TURN)]
    connection, _ = listener.connect()
    connection.dataReceived(request_bytes(request(v.FIND_COORDINATOR, 4, coordinator_keys=keys, key_type=0)))
    connection.connectionLost(Failure(ConnectionLost()))
    listener.clock.advance(1)
    assert len(groups.asked) == KEYS_PER_TURN


# JoinGroup, SyncGroup, Heartbeat, LeaveGroup


def join_fields(version: int, **others: Any) -> dict[str, Any]:
    return {
        "group_id": "g",
        "member_id": "",
        "session_timeout": 10_000,
        "rebalance_timeout": 60_000,
        "protocol_type": "consumer",
        "protocols": [{"name": "range", "metadata": b"one"}, {"name": "roundrobin", "metadata": b"two"}],
        "reason": "because",
        **others,
    }


@pytest.mark.parametrize("version", served(v.JOIN_GROUP))
def test_join(listener: Listener, groups: FakeGroups, version: int) -> None:
    members = (JoinedMember("m", "static", b"one"), JoinedMember("n", None, b""))
    groups.answer = JoinAnswer(FINE, "m", 7, "consumer", "range", "m", members, skip_assignment=True)
    answer = ask(listener, v.JOIN_GROUP, version, **join_fields(version))
    (asked,) = groups.asked
    assert asked == JoinGroup(
        "g",
        "",
        Client("tests", HOST),
        10_000,
        60_000 if version else 10_000,
        "consumer",
        (Protocol("range", b"one"), Protocol("roundrobin", b"two")),
        None,
        requires_known_member_id=version >= 4,
        supports_skipping_assignment=version >= 9,
        reason="because" if version >= 8 else None,
    )
    assert all(type(protocol.metadata) is bytes for protocol in asked.protocols)
    assert (code(answer), answer.generation_id, answer.protocol_name) == (FINE, 7, "range")
    assert (answer.leader, answer.member_id) == ("m", "m")
    assert [(row.member_id, bytes(row.metadata)) for row in answer.members] == [("m", b"one"), ("n", b"")]
    if version >= 5:
        assert [row.group_instance_id for row in answer.members] == ["static", None]
    if version >= 7:
        assert answer.protocol_type == "consumer"
    if version >= 9:
        assert answer.skip_assignment


@pytest.mark.parametrize("version", served(v.JOIN_GROUP))
def test_join_before_there_is_a_generation(listener: Listener, groups: FakeGroups, version: int) -> None:
    groups.answer = JoinAnswer(ErrorCode.MEMBER_ID_REQUIRED, "new")
    answer = ask(listener, v.JOIN_GROUP, version, **join_fields(version))
    assert (code(answer), answer.member_id, answer.generation_id) == (ErrorCode.MEMBER_ID_REQUIRED, "new", -1)
    assert (answer.protocol_name, answer.leader) == (None if version >= 7 else "", "")


def test_who_is_given_a_member_id_first(listener: Listener, groups: FakeGroups) -> None:
    for others in ({"member_id": "m"}, {"group_instance_id": "static"}, {}):
        ask(listener, v.JOIN_GROUP, 5, **join_fields(5, **others))
    assert [asked.requires_known_member_id for asked in groups.asked] == [False, False, True]
    assert groups.asked[1].group_instance_id == "static"


def test_a_client_without_a_name(listener: Listener, groups: FakeGroups) -> None:
    connection, transport = listener.connect()
    body = struct.pack(">h1si", 1, b"g", 1000) + struct.pack(">hh1s", 0, 1, b"c") + struct.pack(">i", 0)
    connection.dataReceived(frame(struct.pack(">hhih", v.JOIN_GROUP, 0, 1, -1) + body))
    assert len(frames_of(transport.take())) == 1
    assert groups.asked[0].client == Client("", HOST)


def test_null_metadata_is_malformed(listener: Listener, groups: FakeGroups) -> None:
    connection, transport = listener.connect()
    body = (
        struct.pack(">h1si", 1, b"g", 1000) + struct.pack(">hh1s", 0, 1, b"c") + struct.pack(">ih1si", 1, 1, b"p", -1)
    )
    connection.dataReceived(frame(struct.pack(">hhih", v.JOIN_GROUP, 0, 1, -1) + body))
    assert transport.is_closed
    assert groups.asked == []


@pytest.mark.parametrize("version", served(v.SYNC_GROUP))
def test_sync(listener: Listener, groups: FakeGroups, version: int) -> None:
    fields = {
        "group_id": "g",
        "member_id": "m",
        "generation_id": 3,
        "group_instance_id": "static",
        "protocol_type": "consumer",
        "protocol_name": "range",
        "assignments": [{"member_id": "n", "assignment": b"all"}],
    }
    answer = ask(listener, v.SYNC_GROUP, version, **fields)
    named = ("consumer", "range") if version >= 5 else (None, None)
    instance_id = "static" if version >= 3 else None
    assert groups.asked == [SyncGroup("g", "m", 3, instance_id, *named, (("n", b"all"),))]
    assert (code(answer), bytes(answer.assignment)) == (FINE, b"assignment")
    if version >= 5:
        assert (answer.protocol_type, answer.protocol_name) == ("consumer", "range")
    groups.answer = SyncAnswer(ErrorCode.REBALANCE_IN_PROGRESS)
    answer = ask(listener, v.SYNC_GROUP, version, **fields)
    assert (code(answer), bytes(answer.assignment)) == (ErrorCode.REBALANCE_IN_PROGRESS, b"")


@pytest.mark.parametrize("missing", ["protocol_type", "protocol_name"])
def test_sync_has_to_name_the_protocol(listener: Listener, groups: FakeGroups, missing: str) -> None:
    fields = {"group_id": "g", "member_id": "m", "protocol_type": "consumer", "protocol_name": "range", missing: None}
    assert code(ask(listener, v.SYNC_GROUP, 5, **fields)) == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert groups.asked == []


@pytest.mark.parametrize("version", served(v.HEARTBEAT))
def test_heartbeat(listener: Listener, groups: FakeGroups, version: int) -> None:
    fields = {"group_id": "g", "member_id": "m", "generation_id": 3, "group_instance_id": "static"}
    assert code(ask(listener, v.HEARTBEAT, version, **fields)) == FINE
    assert groups.asked == [Heartbeat("g", "m", 3, "static" if version >= 3 else None)]
    groups.answer = ErrorCode.ILLEGAL_GENERATION
    assert code(ask(listener, v.HEARTBEAT, version, **fields)) == ErrorCode.ILLEGAL_GENERATION


@pytest.mark.parametrize("version", served(v.LEAVE_GROUP))
def test_leave(listener: Listener, groups: FakeGroups, version: int) -> None:
    if version < 3:
        assert code(ask(listener, v.LEAVE_GROUP, version, group_id="g", member_id="m")) == FINE
        assert groups.asked == [LeaveGroup("g", (LeavingMember("m"),))]
        groups.answer = LeaveAnswer(FINE, (LeftMember("m", None, ErrorCode.UNKNOWN_MEMBER_ID),))
        answer = ask(listener, v.LEAVE_GROUP, version, group_id="g", member_id="m")
        assert code(answer) == ErrorCode.UNKNOWN_MEMBER_ID
        return
    members = [
        {"member_id": "m", "group_instance_id": None, "reason": "done"},
        {"member_id": "", "group_instance_id": "static", "reason": None},
    ]
    groups.answer = LeaveAnswer(
        FINE, (LeftMember("m", None, FINE), LeftMember("", "static", ErrorCode.UNKNOWN_MEMBER_ID))
    )
    answer = ask(listener, v.LEAVE_GROUP, version, group_id="g", members=members)
    reason = "done" if version >= 5 else None
    assert groups.asked == [LeaveGroup("g", (LeavingMember("m", None, reason), LeavingMember("", "static")))]
    assert code(answer) == FINE
    assert [(row.member_id, row.group_instance_id, code(row)) for row in answer.members] == [
        ("m", None, FINE),
        ("", "static", ErrorCode.UNKNOWN_MEMBER_ID),
    ]
    groups.answer = LeaveAnswer(ErrorCode.NOT_COORDINATOR)
    answer = ask(listener, v.LEAVE_GROUP, version, group_id="g", members=members)
    assert (code(answer), answer.members) == (ErrorCode.NOT_COORDINATOR, ())


# DescribeGroups, ListGroups, DeleteGroups


@pytest.mark.parametrize("version", served(v.DESCRIBE_GROUPS))
def test_describe(listener: Listener, groups: FakeGroups, version: int) -> None:
    member = DescribedMember("m", "static", "client", "/10.0.0.1", b"metadata", b"assignment")
    groups.answer = [
        DescribedGroup("g", FINE, "Stable", "consumer", "range", (member,)),
        DescribedGroup("h", ErrorCode.NOT_COORDINATOR),
    ]
    fields = {"groups": ["g", "h"], "include_authorized_operations": True}
    fine, refused = ask(listener, v.DESCRIBE_GROUPS, version, **fields).groups
    assert groups.asked == [["g", "h"]]
    assert (code(fine), fine.group_id, fine.group_state) == (FINE, "g", "Stable")
    assert (fine.protocol_type, fine.protocol_data) == ("consumer", "range")
    (row,) = fine.members
    assert (row.member_id, row.client_id, row.client_host) == ("m", "client", "/10.0.0.1")
    assert (bytes(row.member_metadata), bytes(row.member_assignment)) == (b"metadata", b"assignment")
    if version >= 4:
        assert row.group_instance_id == "static"
    assert (code(refused), refused.group_state, refused.members) == (ErrorCode.NOT_COORDINATOR, "", ())
    if version >= 3:
        assert (fine.authorized_operations, refused.authorized_operations) == (328, -(2**31))
        fine, _ = ask(listener, v.DESCRIBE_GROUPS, version, groups=["g", "h"]).groups
        assert fine.authorized_operations == -(2**31)


@pytest.mark.parametrize("version", served(v.LIST_GROUPS))
def test_list(listener: Listener, groups: FakeGroups, version: int) -> None:
    listed = (ListedGroup("g", "consumer", "Stable"), ListedGroup("h", "", "Empty"))
    groups.answer = ListedGroups(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, listed)
    fields = {"states_filter": ["Stable", "empty"], "types_filter": ["Classic"]}
    answer = ask(listener, v.LIST_GROUPS, version, **fields)
    states = frozenset({"stable", "empty"}) if version >= 4 else frozenset()
    types = frozenset({"classic"}) if version >= 5 else frozenset()
    assert groups.asked == [(states, types)]
    assert code(answer) == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert [(row.group_id, row.protocol_type) for row in answer.groups] == [("g", "consumer"), ("h", "")]
    if version >= 4:
        assert [row.group_state for row in answer.groups] == ["Stable", "Empty"]
    if version >= 5:
        assert [row.group_type for row in answer.groups] == ["classic", "classic"]


@pytest.mark.parametrize("version", served(v.DELETE_GROUPS))
def test_delete_groups(listener: Listener, groups: FakeGroups, version: int) -> None:
    results = ask(listener, v.DELETE_GROUPS, version, groups_names=["b", "a", "b"]).results
    assert groups.asked == [["b", "a"]]
    assert [(row.group_id, code(row)) for row in results] == [("b", FINE), ("a", FINE)]


@pytest.mark.parametrize(
    ("key", "version"),
    [(key, version) for key in (v.DESCRIBE_GROUPS, v.DELETE_GROUPS) for version in served(key)],
)
def test_many_groups_are_asked_about_in_many_turns(
    listener: Listener, groups: FakeGroups, key: int, version: int
) -> None:
    names = [f"g{number}" for number in range(2 * PER_TURN + 1)]
    field = "groups_names" if key == v.DELETE_GROUPS else "groups"
    many = request(key, version, **{field: names})
    groups.holds = True
    connection, transport = listener.connect()
    connection.dataReceived(request_bytes(many))
    assert groups.asked == [names[:PER_TURN]]
    listener.clock.advance(0)
    assert [len(asked) for asked in groups.asked] == [PER_TURN, PER_TURN, 1]
    for held in reversed(groups.held):
        assert not transport.value()
        held.run()
    (data,) = frames_of(transport.take())
    answer = response_of(many, data)[1]
    rows = answer.results if key == v.DELETE_GROUPS else answer.groups
    assert [row.group_id for row in rows] == names
    connection.dataReceived(request_bytes(many))
    connection.connectionLost(Failure(ConnectionLost()))
    listener.clock.advance(1)
    assert len(groups.asked) == 4
    assert groups.held[-1].is_cancelled


@pytest.mark.parametrize("version", served(v.LIST_GROUPS))
def test_many_groups_are_listed_in_many_turns(listener: Listener, groups: FakeGroups, version: int) -> None:
    listed = tuple(ListedGroup(f"g{number}", "consumer", "Stable") for number in range(2 * PER_TURN + 1))
    groups.answer = ListedGroups(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, listed)
    many = request(v.LIST_GROUPS, version)
    connection, transport = listener.connect()
    connection.dataReceived(request_bytes(many))
    assert not transport.value()
    listener.clock.advance(0)
    (data,) = frames_of(transport.take())
    answer = response_of(many, data)[1]
    assert answer.error_code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert [(row.group_id, row.protocol_type) for row in answer.groups] == [row[:2] for row in listed]
    calls = len(listener.clock.getDelayedCalls())
    connection.dataReceived(request_bytes(many))
    assert len(listener.clock.getDelayedCalls()) == calls + 1
    connection.connectionLost(Failure(ConnectionLost()))
    assert len(listener.clock.getDelayedCalls()) <= calls


# When something of ours fails


def request_fields(key: int, version: int) -> dict[str, Any]:
    group: dict[str, Any] = {"group_id": "g", "topics": [{"name": "t", "partition_indexes": [0]}]}
    return {
        "group_id": "g",
        "groups": [group] if key == v.OFFSET_FETCH else ["g"],
        "groups_names": ["g"],
        "members": [{"member_id": "m", "group_instance_id": None}],
        "protocol_type": "consumer",
        "protocol_name": "range",
        "topics": group["topics"] if key == v.OFFSET_FETCH else commit_rows(("t", 0)),
    }


@pytest.mark.parametrize(
    ("key", "version"),
    [(key, version) for key in GROUP_KEYS for version in served(key, 2 if key == v.OFFSET_COMMIT else 0)],
)
def test_our_own_mistakes_are_answered_in_every_version(
    listener: Listener, groups: FakeGroups, key: int, version: int
) -> None:
    groups.raises = RuntimeError("on purpose")
    answer = str(ask(listener, key, version, **request_fields(key, version)))
    assert "unknown_server_error" in answer

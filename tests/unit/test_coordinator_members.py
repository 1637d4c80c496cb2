"""SyncGroup, Heartbeat and LeaveGroup, and static members (KIP-345, KIP-814)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.coordinator_scene import NONE, Scene, check_members
from zkbroker.coordinator.records import read_group_value
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    Heartbeat,
    JoinAnswer,
    LeaveAnswer,
    LeaveGroup,
    LeavingMember,
    LeftMember,
    SyncAnswer,
)

IN_PROGRESS = SyncAnswer(ErrorCode.REBALANCE_IN_PROGRESS)


def rebalanced(*clients: str, **how: Any) -> Scene:
    """All have joined, nobody has an assignment."""
    scene = Scene()
    for client in clients:
        scene.join(client, **how)
    scene.wait(6)
    assert scene.state() == "CompletingRebalance"
    return scene


def synced(scene: Scene, ticket: int) -> SyncAnswer | None:
    answer = scene.answers.get(ticket)
    assert answer is None or isinstance(answer, SyncAnswer)
    return answer


# --- SyncGroup ---


def test_an_assignment_is_told_when_it_is_stored() -> None:
    scene = rebalanced("a", "b", "c")
    early = scene.sync("b")
    leader = scene.sync("a", assign={"a": b"1", "b": b"2", "nobody": b"3"})
    late = scene.sync("c")
    assert [synced(scene, ticket) for ticket in (early, leader, late)] == [None, None, None]
    assert scene.state() == "CompletingRebalance"
    (write,) = scene.outstanding.values()
    stored = read_group_value(write.records[0].value or b"")
    assert [(row.member_id, row.assignment) for row in stored.members] == [("a-1", b"1"), ("b-2", b"2"), ("c-3", b"")]
    scene.written()
    assert [synced(scene, ticket).assignment for ticket in (leader, early, late)] == [b"1", b"2", b""]  # type: ignore[union-attr]
    assert scene.state() == "Stable"


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        (ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.REQUEST_TIMED_OUT, ErrorCode.REBALANCE_IN_PROGRESS),
        (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.UNKNOWN_SERVER_ERROR),
        (ErrorCode.RECORD_LIST_TOO_LARGE, ErrorCode.UNKNOWN_SERVER_ERROR),
        (ErrorCode.INVALID_FETCH_SIZE, ErrorCode.UNKNOWN_SERVER_ERROR),
        (ErrorCode.CORRUPT_MESSAGE, ErrorCode.CORRUPT_MESSAGE),
    ],
    ids=lambda error: error.name,
)
def test_an_assignment_that_is_not_stored(stored: ErrorCode, told: ErrorCode) -> None:
    scene = rebalanced("a", "b")
    tickets = [scene.sync("a", assign={"a": b"1"}), scene.sync("b")]
    scene.written(stored)
    assert [synced(scene, ticket) for ticket in tickets] == [SyncAnswer(told)] * 2
    assert scene.state() == "PreparingRebalance"
    assert scene.beat("a") is ErrorCode.REBALANCE_IN_PROGRESS


def test_a_rebalance_while_the_assignment_is_stored() -> None:
    """Its success comes too late: it must not make the next generation stable."""
    scene = rebalanced("a", "b")
    tickets = [scene.sync("a", assign={"a": b"1"}), scene.sync("b")]
    scene.join("c")
    assert [synced(scene, ticket) for ticket in tickets] == [IN_PROGRESS] * 2
    scene.join("a")
    scene.join("b")
    assert scene.state() == "CompletingRebalance"
    scene.written()
    assert scene.state() == "CompletingRebalance"
    again = scene.sync("a", assign={"a": b"2"})
    assert len(scene.outstanding) == 1, "the next generation is stored, though the one before was being stored"
    scene.written()
    assert synced(scene, again).assignment == b"2"  # type: ignore[union-attr]


def test_the_leader_that_asks_again_does_not_assign_anew() -> None:
    """Two records would be written, and told would be the first: the next coordinator would go by the second."""
    scene = rebalanced("a", "b")
    first = scene.sync("a", assign={"a": b"1", "b": b"1"})
    second = scene.sync("a", assign={"a": b"2", "b": b"2"})
    assert len(scene.outstanding) == 1
    assert synced(scene, first) == IN_PROGRESS
    scene.written()
    assert synced(scene, second).assignment == b"1"  # type: ignore[union-attr]
    later = scene.sync("b", assign={"b": b"3"})
    assert synced(scene, later).assignment == b"1"  # type: ignore[union-attr]
    assert not scene.outstanding


def test_what_sync_is_refused_for() -> None:
    scene = rebalanced("a")
    cases: list[tuple[dict[str, Any], ErrorCode]] = [
        ({"generation": 0}, ErrorCode.ILLEGAL_GENERATION),
        ({"protocol_type": "connect"}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol_name": "sticky"}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"instance": "i"}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"group": "h"}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"group": ""}, ErrorCode.INVALID_GROUP_ID),
    ]
    for how, error in cases:
        assert synced(scene, scene.sync("a", **how)) == SyncAnswer(error)
    assert synced(scene, scene.sync("nobody", generation=1)) == SyncAnswer(ErrorCode.UNKNOWN_MEMBER_ID)
    assert synced(scene, scene.sync("a", protocol_type="consumer", protocol_name="range")) is None


def test_who_does_not_sync_in_time_is_out() -> None:
    scene = rebalanced("a", "b", "c", session_ms=300_000, rebalance_ms=20_000)
    parked = scene.sync("b")
    scene.wait(19.9)
    assert scene.state() == "CompletingRebalance"
    scene.wait(0.2)
    assert synced(scene, parked) == IN_PROGRESS
    assert scene.beat("a") is scene.beat("c") is ErrorCode.UNKNOWN_MEMBER_ID
    assert scene.lines[-1].endswith("no SyncGroup came from a-1, c-3")
    scene.join("b")
    assert scene.generations["b"] == 2


def test_who_does_not_sync_in_time_is_out_of_a_stable_group() -> None:
    scene = rebalanced("a", "b", session_ms=300_000, rebalance_ms=20_000)
    scene.sync("a", assign={"a": b"1"})
    scene.written()
    scene.wait(20)
    assert scene.state() == "PreparingRebalance"
    assert scene.beat("b") is ErrorCode.UNKNOWN_MEMBER_ID


def test_all_have_synced_and_no_time_is_counted() -> None:
    scene = rebalanced("a", "b", session_ms=300_000, rebalance_ms=20_000)
    scene.sync("a", assign={"a": b"1"})
    scene.written()
    scene.sync("b")
    scene.wait(100)
    assert scene.state() == "Stable"


def test_a_session_that_ended_while_its_member_waited_begins_anew() -> None:
    scene = rebalanced("a", "b")
    scene.sync("b")
    for _ in range(3):
        scene.wait(5)
        scene.beat("a")
    scene.sync("a", assign={"b": b"2"})
    scene.written()
    scene.wait(9)
    assert scene.beat("a") is scene.beat("b") is NONE


# --- Heartbeat ---


def test_a_heartbeat_keeps_a_member() -> None:
    scene = Scene()
    scene.stable("a")
    for _ in range(5):
        scene.wait(9.9)
        assert scene.beat("a") is NONE
    scene.wait(10)
    assert scene.beat("a") is ErrorCode.UNKNOWN_MEMBER_ID
    assert scene.state() == "Empty"


def test_a_commit_keeps_a_member_as_well() -> None:
    scene = Scene()
    scene.stable("a")
    scene.wait(9)
    scene.commit("a", {("t", 0): 1})
    scene.wait(9)
    assert scene.beat("a") is NONE


def test_what_a_heartbeat_is_refused_for() -> None:
    scene = Scene()
    assert scene.answer("a", Heartbeat("g", "a-1", 1)) is ErrorCode.UNKNOWN_MEMBER_ID
    scene.stable("a")
    assert scene.beat("a", generation=0) is ErrorCode.ILLEGAL_GENERATION
    assert scene.beat("a", generation=2) is ErrorCode.ILLEGAL_GENERATION
    assert scene.beat("a", instance="i") is ErrorCode.UNKNOWN_MEMBER_ID
    assert scene.beat("a", group="") is ErrorCode.INVALID_GROUP_ID
    assert scene.beat("nobody", generation=1) is ErrorCode.UNKNOWN_MEMBER_ID


# --- LeaveGroup ---


def test_leaving_makes_the_others_rebalance() -> None:
    scene = Scene()
    scene.stable("a", "b")
    assert scene.leave("a") == LeaveAnswer(NONE, (LeftMember("a-1", None, NONE),))
    assert scene.beat("a") is ErrorCode.UNKNOWN_MEMBER_ID
    assert scene.beat("b") is ErrorCode.REBALANCE_IN_PROGRESS
    scene.join("b")
    assert scene.answers[max(scene.answers)].leader_id == "b-2"  # type: ignore[union-attr]


def test_the_last_one_leaves() -> None:
    scene = Scene()
    scene.stable("a")
    scene.leave("a")
    assert scene.state() == "Empty"
    stored = read_group_value(scene.log[-1].value or b"")
    assert (stored.generation, stored.protocol_name, stored.leader_id, stored.members) == (2, None, None, ())
    assert scene.shard.next_deadline() is None


def test_leaving_with_parked_requests() -> None:
    scene = rebalanced("a", "b")
    parked = scene.sync("b")
    scene.leave("b")
    assert synced(scene, parked) == SyncAnswer(ErrorCode.UNKNOWN_MEMBER_ID)
    joining = scene.join("c")
    scene.ids["c"] = "c-3"
    scene.leave("c")
    assert scene.answers[joining] == JoinAnswer(ErrorCode.UNKNOWN_MEMBER_ID)


def test_several_leave_each_with_its_error() -> None:
    scene = Scene()
    scene.stable("a", "b")
    answer = scene.leave("a", "nobody", "a", "b")
    errors = [row.error for row in answer.members]  # type: ignore[attr-defined]
    assert errors == [NONE, ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.UNKNOWN_MEMBER_ID, NONE]
    assert scene.leave("a", group="h") == LeaveAnswer(NONE, (LeftMember("a-1", None, ErrorCode.UNKNOWN_MEMBER_ID),))
    assert scene.leave("a", group="") == LeaveAnswer(ErrorCode.INVALID_GROUP_ID)
    scene.all_written()
    scene.delete()
    assert scene.leave("a") == LeaveAnswer(ErrorCode.COORDINATOR_NOT_AVAILABLE)


# --- static members ---


def static(*clients: str, **how: Any) -> Scene:
    scene = Scene()
    for client in clients:
        scene.join(client, instance=f"i-{client}", **how)
    scene.wait(6)
    for client in clients:
        scene.sync(client, assign={name: name.encode() for name in clients}, instance=f"i-{client}")
    scene.written()
    assert scene.state() == "Stable"
    return scene


def come_back(scene: Scene, client: str, **how: Any) -> int:
    return scene.join(client, instance=f"i-{client}", member_id="", **how)


def test_a_static_member_comes_back_without_a_rebalance() -> None:
    scene = static("a", "b")
    ticket = come_back(scene, "b")
    assert ticket not in scene.answers, "its new member id must be stored first"
    scene.written()
    answer: Any = scene.answers[ticket]
    assert (answer.error, answer.member_id, answer.generation, answer.leader_id) == (NONE, "i-b-3", 1, "i-a-1")
    assert scene.state() == "Stable"
    assert synced(scene, scene.sync("b", instance="i-b")).assignment == b"b"  # type: ignore[union-attr]
    assert scene.answer("old", Heartbeat("g", "i-b-2", 1, "i-b")) is ErrorCode.FENCED_INSTANCE_ID
    assert scene.answer("old", Heartbeat("g", "i-b-2", 1)) is ErrorCode.UNKNOWN_MEMBER_ID
    scene.load()
    assert scene.beat("b", instance="i-b") is NONE


def test_a_static_leader_comes_back() -> None:
    """Before version 9 it is told that its former self leads, so that it assigns nothing; then, to skip that."""
    scene = static("a", "b")
    ticket = come_back(scene, "a")
    scene.written()
    answer: Any = scene.answers[ticket]
    assert (answer.leader_id, answer.members, answer.skip_assignment) == ("i-a-1", (), False)
    ticket = come_back(scene, "a", skip=True)
    scene.written()
    answer = scene.answers[ticket]
    assert (answer.member_id, answer.leader_id, answer.skip_assignment) == ("i-a-4", "i-a-4", True)
    assert {row.group_instance_id for row in answer.members} == {"i-a", "i-b"}
    ticket = come_back(scene, "b", skip=True)
    scene.written()
    answer = scene.answers[ticket]
    assert (answer.leader_id, answer.members, answer.skip_assignment) == ("i-a-4", (), False)


def test_a_static_member_that_could_not_be_stored_is_who_it_was() -> None:
    scene = static("a", "b")
    ticket = come_back(scene, "b", protocols={"range": b"other"}, session_ms=6000)
    scene.written(ErrorCode.NOT_ENOUGH_REPLICAS)
    answer: Any = scene.answers[ticket]
    assert answer == JoinAnswer(ErrorCode.COORDINATOR_NOT_AVAILABLE, "", 1, "consumer", "range", "i-a-1")
    assert scene.answer("old", Heartbeat("g", "i-b-2", 1, "i-b")) is NONE
    described: Any = scene.described()
    assert [(row.member_id, row.metadata) for row in described.members] == [("i-a-1", b"meta"), ("i-b-2", b"meta")]
    scene.wait(9)
    assert scene.answer("old", Heartbeat("g", "i-b-2", 1, "i-b")) is NONE, "with its own session timeout"


def test_a_rebalance_while_a_static_member_is_stored() -> None:
    """It takes part; neither success nor failure of the write matter any more."""
    for error in (NONE, ErrorCode.NOT_ENOUGH_REPLICAS):
        scene = static("a", "b")
        ticket = come_back(scene, "b")
        scene.join("a", instance="i-a")
        assert scene.state() == "CompletingRebalance"
        answer: Any = scene.answers[ticket]
        assert (answer.error, answer.member_id, answer.generation) == (NONE, "i-b-3", 2)
        scene.written(error)
        assert scene.beat("b", instance="i-b") is NONE


def test_a_rebalance_begins_while_a_static_member_is_stored() -> None:
    for error in (NONE, ErrorCode.NOT_ENOUGH_REPLICAS):
        scene = static("a", "b", "c")
        ticket = come_back(scene, "b")
        scene.join("a", instance="i-a")
        scene.written(error)
        assert ticket not in scene.answers
        scene.join("c", instance="i-c")
        assert scene.answers[ticket].generation == 2  # type: ignore[union-attr]


def test_a_static_member_comes_back_before_it_asked_for_its_assignment() -> None:
    """It is still to be asked for, under the new member id."""
    scene = rebalanced("a", instance="i-a", session_ms=300_000, rebalance_ms=20_000)
    scene.join("b", instance="i-b", session_ms=300_000, rebalance_ms=20_000)
    scene.join("a", instance="i-a", session_ms=300_000, rebalance_ms=20_000)
    scene.sync("a", assign={"b": b"2"}, instance="i-a")
    scene.written()
    come_back(scene, "b", session_ms=300_000, rebalance_ms=20_000)
    scene.written()
    check_members(scene.shard._context.groups["g"])
    scene.wait(20)
    assert scene.beat("b", instance="i-b") is ErrorCode.UNKNOWN_MEMBER_ID
    assert scene.lines[-1].endswith("no SyncGroup came from i-b-3")


def test_a_static_member_comes_back_to_a_full_group() -> None:
    scene = static("a", "b")
    scene.shard.settings = scene.settings._replace(members_max=2)
    assert scene.answers[scene.join("c")].error is ErrorCode.GROUP_MAX_SIZE_REACHED  # type: ignore[union-attr]
    ticket = come_back(scene, "b")
    scene.written()
    assert scene.answers[ticket].error is NONE  # type: ignore[union-attr]


def test_two_processes_claim_one_instance() -> None:
    scene = static("a", "b")
    first = come_back(scene, "b")
    second = come_back(scene, "b")
    assert scene.answers[first] == JoinAnswer(ErrorCode.FENCED_INSTANCE_ID, "i-b-3")
    scene.written(ErrorCode.NOT_ENOUGH_REPLICAS)
    assert second not in scene.answers
    scene.written()
    assert scene.answers[second].member_id == "i-b-4"  # type: ignore[union-attr]


def test_a_static_member_with_other_assignors_makes_all_rebalance() -> None:
    scene = static("a", protocols={"range": b"", "sticky": b""})
    ticket = come_back(scene, "a", protocols={"sticky": b"", "range": b""})
    assert not scene.outstanding
    assert scene.answers[ticket].protocol_name == "sticky"  # type: ignore[union-attr]


def test_a_static_member_comes_back_while_its_assignment_is_awaited() -> None:
    """The leader may be assigning to the old member id."""
    scene = rebalanced("a", instance="i-a")
    scene.ids["b"] = ""
    parked = scene.sync("a", instance="i-a")
    ticket = come_back(scene, "a")
    assert synced(scene, parked) == SyncAnswer(ErrorCode.FENCED_INSTANCE_ID)
    assert scene.answers[ticket].generation == 2  # type: ignore[union-attr]


def test_a_static_member_comes_back_while_all_join() -> None:
    scene = static("a", "b")
    first = scene.join("a", instance="i-a")
    second = come_back(scene, "a")
    assert scene.answers[first] == JoinAnswer(ErrorCode.FENCED_INSTANCE_ID, "i-a-1")
    scene.join("b", instance="i-b")
    assert scene.answers[second].generation == 2  # type: ignore[union-attr]


def test_a_new_static_member_replaced_before_it_was_answered_has_time() -> None:
    """Its first JoinGroup is parked: heartbeats cannot be asked of it before it is answered."""
    scene = static("a", session_ms=300_000, rebalance_ms=300_000)
    first = scene.join("b", instance="i-b", session_ms=6000)
    second = come_back(scene, "b", session_ms=6000)
    scene.wait(7)
    assert scene.answers[first].error is ErrorCode.FENCED_INSTANCE_ID  # type: ignore[union-attr]
    assert second not in scene.answers


def test_static_members_are_waited_for() -> None:
    """One that did not join in time stays, without leading, until its session or the time to sync is over."""
    scene = static("a", "b", session_ms=100_000, rebalance_ms=20_000)
    ticket = scene.join("b", protocols={"range": b"new"}, instance="i-b", session_ms=100_000, rebalance_ms=20_000)
    scene.wait(20)
    answer: Any = scene.answers[ticket]
    assert (answer.leader_id, {row.group_instance_id for row in answer.members}) == ("i-b-2", {"i-a", "i-b"})
    assert scene.beat("a", generation=2, instance="i-a") is NONE
    scene.sync("b", assign={"b": b"x"}, instance="i-b")
    scene.written()
    scene.wait(20)
    assert scene.beat("a", generation=2, instance="i-a") is ErrorCode.UNKNOWN_MEMBER_ID


def test_only_static_members_and_none_joins() -> None:
    scene = static("a", "b", session_ms=30_000)
    come_back(scene, "b", session_ms=30_000, rebalance_ms=0)
    scene.written()
    scene.ask("", LeaveGroup("g", (LeavingMember("", "i-a"),)))
    deadlines = set()
    for _ in range(29):
        scene.wait(1)
        deadlines.add(scene.shard.next_deadline())
    assert scene.state() == "PreparingRebalance", "looked at again and again, but not without a pause"
    assert len(deadlines) == 29
    scene.wait(1)
    assert scene.state() == "Empty"


def test_an_administrator_removes_static_members() -> None:
    scene = static("a", "b")
    leaving = (
        LeavingMember("", "i-a"),
        LeavingMember("", "i-x"),
        LeavingMember("", None),
        LeavingMember("i-a-1", "i-b"),
    )
    answer: Any = scene.answer("admin", LeaveGroup("g", leaving))
    assert [row.error for row in answer.members] == [
        NONE,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.FENCED_INSTANCE_ID,
    ]
    assert scene.beat("a", instance="i-a") is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_static_member_whose_session_ends_is_out() -> None:
    scene = static("a", "b")
    scene.wait(9)
    scene.beat("a", instance="i-a")
    scene.wait(1)
    assert scene.beat("a", instance="i-a") is ErrorCode.REBALANCE_IN_PROGRESS
    ticket = come_back(scene, "b")
    scene.join("a", instance="i-a")
    assert scene.answers[ticket].generation == 2  # type: ignore[union-attr]

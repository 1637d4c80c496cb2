"""JoinGroup: who becomes a member, when all have joined, who leads, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.coordinator_scene import NONE, Scene, check_members
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import JoinAnswer
from zkbroker.model.limits import GROUP_PENDING_MEMBERS_MAX


def joined(scene: Scene, ticket: int) -> JoinAnswer:
    answer = scene.answers[ticket]
    assert isinstance(answer, JoinAnswer)
    return answer


def refused(scene: Scene, client: str = "a", **how: Any) -> JoinAnswer:
    return joined(scene, scene.join(client, **how))


# --- the first members ---


def test_a_new_group_waits_for_more_members() -> None:
    """group.initial.rebalance.delay.ms; each further member puts it off once more, up to the rebalance timeout."""
    scene = Scene()
    first = scene.join("a")
    scene.wait(2.9)
    second = scene.join("b")
    scene.wait(2.9)  # at 5.8: put off to 6.0 because b came
    assert first not in scene.answers
    scene.wait(0.2)
    assert joined(scene, first).generation == joined(scene, second).generation == 1
    assert joined(scene, first).leader_id == joined(scene, second).leader_id == "a-1"
    assert [row.member_id for row in joined(scene, first).members] == ["a-1", "b-2"]
    assert joined(scene, second).members == ()


def test_the_initial_delay_is_not_put_off_for_ever() -> None:
    scene = Scene()
    ticket = scene.join("a", rebalance_ms=8000)
    for number in range(8):
        scene.wait(1)
        if ticket in scene.answers:
            break
        scene.join(f"b{number}", rebalance_ms=8000)
    assert scene.time == 8.0


def test_without_initial_delay() -> None:
    scene = Scene(initial_rebalance_delay_ms=0)
    ticket = scene.join("a")
    scene.wait(0)
    assert joined(scene, ticket).generation == 1


def test_a_group_that_was_empty_waits_again_but_is_not_put_off() -> None:
    scene = Scene()
    scene.stable("a")
    scene.leave("a")
    assert scene.state() == "Empty"
    ticket = scene.join("b")
    scene.wait(2)
    scene.join("c")
    scene.wait(1)
    assert joined(scene, ticket).generation == 3, "1 of a, 2 of nobody"


def test_the_second_empty_spell_is_not_put_off_for_members_of_the_first() -> None:
    scene = Scene()
    scene.join("a", rebalance_ms=3000)
    scene.join("b", rebalance_ms=3000)  # nothing is left to put it off
    scene.wait(3)
    assert scene.state() == "CompletingRebalance"
    scene.leave("a", "b")
    assert scene.state() == "Empty"
    scene.ids["a"] = ""
    ticket = scene.join("a")
    scene.wait(3)
    assert joined(scene, ticket).generation == 3


def test_everybody_leaves_during_the_initial_delay() -> None:
    scene = Scene()
    ticket = scene.join("a")
    scene.ids["a"] = "a-1"
    scene.leave("a")
    assert joined(scene, ticket) == JoinAnswer(ErrorCode.UNKNOWN_MEMBER_ID)
    assert scene.state() == "PreparingRebalance"
    scene.wait(3)
    assert scene.state() == "Empty"
    assert len(scene.outstanding) == 1, "the empty generation is stored"
    scene.written(ErrorCode.NOT_ENOUGH_REPLICAS)
    assert scene.lines[-1].endswith("could not be written: NOT_ENOUGH_REPLICAS")
    assert scene.shard.next_deadline() is None


# --- KIP-394: the member id first ---


def test_a_member_id_is_given_out_first() -> None:
    scene = Scene()
    assert refused(scene, known=True) == JoinAnswer(ErrorCode.MEMBER_ID_REQUIRED, "a-1")
    assert scene.state() == "Empty"
    ticket = scene.join("a", known=True)
    assert ticket not in scene.answers
    scene.wait(3)
    assert joined(scene, ticket).member_id == "a-1"
    # Its session is the usual one now, not the one of an unused id.
    scene.wait(9.9)
    assert scene.shard.next_deadline() is not None


def test_a_member_id_that_is_not_used_is_forgotten() -> None:
    scene = Scene()
    scene.join("a", known=True, session_ms=6000)
    scene.wait(6)
    assert scene.shard.group_ids() == (), "nothing else made the group one"
    assert refused(scene) == JoinAnswer(ErrorCode.UNKNOWN_MEMBER_ID, "a-1")


def test_a_rebalance_waits_for_an_unused_member_id() -> None:
    scene = Scene()
    scene.stable("a")
    scene.join("b", known=True, session_ms=8000)
    first = scene.join("a")
    assert first not in scene.answers
    scene.wait(8)
    assert [row.member_id for row in joined(scene, first).members] == ["a-1"]


def test_an_unused_member_id_may_leave() -> None:
    scene = Scene()
    scene.stable("a")
    scene.join("b", known=True)
    ticket = scene.join("a")
    answer: Any = scene.leave("b")
    assert [row.error for row in answer.members] == [NONE]
    assert joined(scene, ticket).generation == 2


def test_an_unused_member_id_is_no_static_members() -> None:
    scene = Scene()
    scene.join("a", known=True)
    assert refused(scene, instance="i").error is ErrorCode.UNKNOWN_MEMBER_ID


def test_the_oldest_of_too_many_unused_member_ids_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all groups together: of those that are nothing but that, nothing is left."""
    assert GROUP_PENDING_MEMBERS_MAX >= 1000
    monkeypatch.setattr("zkbroker.coordinator.joining.GROUP_PENDING_MEMBERS_MAX", 2)
    scene = Scene()
    for number, client in enumerate("abc"):
        scene.join(client, f"g{number}", known=True)
    assert scene.shard.group_ids() == ("g1", "g2")
    assert len(scene.shard._context.timers) == 2
    assert refused(scene, "a", group="g0", known=True) == JoinAnswer(ErrorCode.UNKNOWN_MEMBER_ID, "a-1")
    ticket = scene.join("c", "g2", known=True)
    scene.wait(3)
    assert joined(scene, ticket).member_id == "c-3"
    for client in ("d", "e", "f"):
        scene.join(client, "g3", known=True)
    assert joined(scene, scene.join("c", "g2")).generation == 1, "an id that is used is not taken back"
    assert scene.shard.group_ids() == ("g2", "g3")


def test_a_rebalance_goes_on_without_a_member_id_that_was_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zkbroker.coordinator.joining.GROUP_PENDING_MEMBERS_MAX", 1)
    scene = Scene()
    scene.stable("a")
    scene.join("b", known=True)
    ticket = scene.join("a")
    assert ticket not in scene.answers
    scene.join("c", "h", known=True)
    assert joined(scene, ticket).generation == 2


# --- refusals ---


@pytest.mark.parametrize("session_ms", [5999, 1_800_001, -1])
def test_session_timeouts_out_of_bounds(session_ms: int) -> None:
    scene = Scene()
    assert refused(scene, session_ms=session_ms) == JoinAnswer(ErrorCode.INVALID_SESSION_TIMEOUT)
    assert scene.shard.group_ids() == ()


def test_group_ids() -> None:
    scene = Scene()
    assert refused(scene, group="").error is ErrorCode.INVALID_GROUP_ID
    assert refused(scene, group="g" * 32_768).error is ErrorCode.INVALID_GROUP_ID
    assert refused(scene, group="ü" * 16_384).error is ErrorCode.INVALID_GROUP_ID


@pytest.mark.parametrize("what", ["protocol_type", "instance", "protocol"])
def test_names_that_no_record_could_hold(what: str) -> None:
    long = "x" * 32_768
    scene = Scene()
    how: dict[str, Any] = {"protocols": {long: b""}} if what == "protocol" else {what: long}
    assert refused(scene, **how).error is ErrorCode.INVALID_REQUEST


def test_a_long_client_id_makes_a_member_id_that_can_be_stored() -> None:
    scene = Scene()
    client = "😀" * 8000
    scene.stable(client)
    assert scene.ids[client] == "😀" * 1000 + "-1"


def test_protocols_must_be_named_and_in_common() -> None:
    scene = Scene()
    for how in ({"protocols": {}}, {"protocol_type": ""}):
        assert refused(scene, **how).error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL  # type: ignore[arg-type]
    assert scene.shard.group_ids() == ()
    scene.stable("a", protocols={"range": b"", "sticky": b""})
    scene.join("b", protocols={"sticky": b""})
    for how in ({"protocols": {"range": b""}}, {"protocols": {"other": b""}}, {"protocol_type": "connect"}):
        assert refused(scene, "c", **how) == JoinAnswer(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)  # type: ignore[arg-type]
    assert refused(scene, "a", protocols={"range": b""}).error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL


def test_who_is_not_known() -> None:
    scene = Scene()
    assert refused(scene, member_id="nobody") == JoinAnswer(ErrorCode.UNKNOWN_MEMBER_ID, "nobody")
    assert scene.shard.group_ids() == ()
    scene.stable("a")
    assert refused(scene, member_id="nobody") == JoinAnswer(ErrorCode.UNKNOWN_MEMBER_ID, "nobody")


def test_a_full_group() -> None:
    """group.max.size counts members; while all join again, those who have joined."""
    scene = Scene(members_max=2)
    scene.stable("a", "b")
    assert refused(scene, "c") == JoinAnswer(ErrorCode.GROUP_MAX_SIZE_REACHED)
    ticket = scene.join("a")
    third = scene.join("c")
    assert third not in scene.answers, "b has not joined, and may never"
    assert refused(scene, "b") == JoinAnswer(ErrorCode.GROUP_MAX_SIZE_REACHED)
    assert {row.member_id for row in joined(scene, ticket).members} == {"a-1", joined(scene, third).member_id}
    check_members(scene.shard._context.groups["g"])


# --- protocols ---


def test_the_protocol_most_members_prefer() -> None:
    scene = Scene()
    tickets = [
        scene.join("a", protocols={"x": b"", "y": b"", "z": b""}),
        scene.join("b", protocols={"z": b"", "y": b"", "x": b""}),
        scene.join("c", protocols={"only c": b"", "y": b"", "z": b"", "x": b""}),
        scene.join("d", protocols={"z": b"", "y": b"", "x": b""}),
    ]
    scene.wait(6)
    assert {joined(scene, ticket).protocol_name for ticket in tickets} == {"z"}


def test_of_protocols_named_twice_the_first_counts() -> None:
    scene = Scene()
    request = scene.join_request("a")
    twice = request._replace(
        protocols=request.protocols + tuple(row._replace(metadata=b"2") for row in request.protocols)
    )
    ticket = scene.ask("a", twice)
    scene.wait(3)
    assert [row.metadata for row in joined(scene, ticket).members] == [b"meta"]
    check_members(scene.shard._context.groups["g"])


# --- rebalances ---


def test_a_rebalance_ends_when_all_have_joined() -> None:
    scene = Scene()
    scene.stable("a", "b")
    third = scene.join("c")
    assert scene.beat("a") is ErrorCode.REBALANCE_IN_PROGRESS
    scene.join("a")
    second = scene.join("b")
    assert third in scene.answers
    assert joined(scene, second).generation == 2
    assert joined(scene, second).leader_id == "a-1"


def test_who_does_not_join_in_time_is_out() -> None:
    scene = Scene()
    scene.stable("a", "b", session_ms=300_000, rebalance_ms=20_000)
    third = scene.join("c", rebalance_ms=5_000)
    scene.wait(19.9)
    assert third not in scene.answers, "the largest rebalance timeout counts"
    scene.join("b", rebalance_ms=5_000)
    scene.wait(0.1)
    assert joined(scene, third).leader_id == "b-2", "the leader did not come"
    assert scene.beat("a") is ErrorCode.UNKNOWN_MEMBER_ID


def test_sessions_go_on_while_members_are_waited_for() -> None:
    scene = Scene()
    scene.stable("a", "b")
    scene.wait(5)
    ticket = scene.join("a")
    scene.wait(5.1)
    assert joined(scene, ticket).generation == 2, "b's session ended: 10 s after it was assigned"


def test_a_parked_member_needs_no_heartbeat() -> None:
    scene = Scene()
    scene.stable("a", session_ms=10_000)
    scene.stable("b", session_ms=300_000, group="other")
    scene.join("c", session_ms=300_000, rebalance_ms=300_000)
    ticket = scene.join("a")
    assert ticket in scene.answers, "both are there"
    scene.wait(20)
    assert scene.beat("a") is ErrorCode.UNKNOWN_MEMBER_ID, "its session began with the answer"


def test_a_new_member_that_is_gone_is_given_up_after_five_minutes() -> None:
    scene = Scene()
    scene.stable("a", session_ms=1_800_000, rebalance_ms=1_800_000)
    ticket = scene.join("b", rebalance_ms=1_800_000)
    scene.wait(299.9)
    assert ticket not in scene.answers
    scene.wait(0.2)
    assert joined(scene, ticket) == JoinAnswer(ErrorCode.UNKNOWN_MEMBER_ID)
    assert joined(scene, scene.join("a")).generation == 2


def test_a_member_that_joins_again_takes_the_place_of_its_older_request() -> None:
    scene = Scene()
    scene.stable("a", "b")
    first = scene.join("a")
    second = scene.join("a")
    assert joined(scene, first) == JoinAnswer(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, "a-1")
    assert second not in scene.answers
    scene.join("b")
    assert joined(scene, second).generation == 2


def test_a_changed_follower_makes_all_join_anew() -> None:
    scene = Scene()
    scene.stable("a", "b")
    same = scene.join("b")
    assert joined(scene, same).generation == 1
    assert scene.state() == "Stable"
    changed = scene.join("b", protocols={"range": b"another topic"})
    assert changed not in scene.answers
    leader = scene.join("a")
    assert {row.member_id: row.metadata for row in joined(scene, leader).members} == {
        "a-1": b"meta",
        "b-2": b"another topic",
    }


def test_two_rebalances_as_cooperative_consumers_make_them() -> None:
    """KIP-429: owned partitions go into the metadata; a member that gave some up joins again at once."""
    scene = Scene()
    how = {"protocols": {"cooperative-sticky": b"owns 0,1"}}
    scene.stable("a", **how)
    second = scene.join("b", protocols={"cooperative-sticky": b""})
    first = scene.join("a", **how)
    assert {row.metadata for row in joined(scene, first).members} == {b"owns 0,1", b""}
    scene.sync("a", assign={"a": b"0", "b": b""})
    scene.sync("b")
    scene.all_written()
    again = scene.join("a", protocols={"cooperative-sticky": b"owns 0"})
    assert scene.beat("b") is ErrorCode.REBALANCE_IN_PROGRESS
    scene.join("b", protocols={"cooperative-sticky": b""})
    assert joined(scene, again).generation == joined(scene, second).generation + 1 == 3


def test_lines_for_people_hold_no_line_breaks_of_clients() -> None:
    scene = Scene()
    scene.join("a\nb", reason="x\n" * 5000)
    assert "\n" not in scene.lines[0]
    assert scene.lines[0].startswith("group g rebalances after generation 0: 'a\\nb-1' is new ('x\\nx")
    assert len(scene.lines[0]) < 1000

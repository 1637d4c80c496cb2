"""The tables of ``coordinator/states.py``, and that groups do as they say."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.coordinator_scene import NONE, Scene
from zkbroker.coordinator import states
from zkbroker.coordinator.states import (
    COMMIT,
    COMPLETING,
    CURRENT_JOIN,
    DEAD,
    DELETE,
    EMPTY,
    HEARTBEAT,
    PREPARING,
    STABLE,
    STATIC_JOIN,
    SYNC,
    TRANSITIONS,
    GroupEvent,
    GroupState,
    Step,
    after,
)
from zkbroker.model.errors import ErrorCode, InvariantViolation
from zkbroker.model.groups import CommitOffsets, DeleteGroup, Heartbeat, OffsetToCommit, SyncGroup

# Kafka's GroupState.validPreviousStates; the step from Dead to Empty is ours.
KAFKA = {
    PREPARING: {STABLE, COMPLETING, EMPTY},
    COMPLETING: {PREPARING},
    STABLE: {COMPLETING},
    DEAD: {STABLE, PREPARING, COMPLETING, EMPTY, DEAD},
    EMPTY: {PREPARING, DEAD},
}


def test_the_steps_are_kafkas() -> None:
    found: dict[GroupState, set[GroupState]] = {}
    for (state, _), following in TRANSITIONS.items():
        found.setdefault(following, set()).add(state)
    assert found == KAFKA
    assert TRANSITIONS[DEAD, GroupEvent.REMOVAL_FAILED] is EMPTY


@pytest.mark.parametrize(("state", "event"), list(itertools.product(GroupState, GroupEvent)))
def test_no_other_step_is_taken(state: GroupState, event: GroupEvent) -> None:
    if (state, event) in TRANSITIONS:
        assert after(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(InvariantViolation):
            after(state, event)


def test_every_state_is_in_every_table() -> None:
    for table in (CURRENT_JOIN, STATIC_JOIN, SYNC, HEARTBEAT, COMMIT, DELETE):
        assert set(table) == set(GroupState)  # type: ignore[call-overload]


# --- groups in each state ---


def empty() -> Scene:
    scene = Scene()
    scene.stable("a", "b")
    scene.leave("a", "b")
    scene.all_written()
    return scene


def preparing() -> Scene:
    scene = Scene()
    scene.stable("a", "b")
    scene.join("a", reason="a new topic")
    return scene


def completing() -> Scene:
    scene = preparing()
    scene.join("b")
    return scene


def stable() -> Scene:
    scene = Scene()
    scene.stable("a", "b")
    return scene


def dead() -> Scene:
    scene = empty()
    scene.delete()
    return scene


SCENES: dict[GroupState, Callable[[], Scene]] = {
    EMPTY: empty,
    PREPARING: preparing,
    COMPLETING: completing,
    STABLE: stable,
    DEAD: dead,
}


@pytest.fixture(params=GroupState, ids=lambda state: state.value)
def state(request: pytest.FixtureRequest) -> GroupState:
    return request.param  # type: ignore[no-any-return]


def test_they_are_what_they_should_be(state: GroupState) -> None:
    scene = SCENES[state]()
    assert scene.state() == state.value
    listed = [
        (group.group_id, group.protocol_type, group.state, group.group_type) for group in scene.shard.list_groups()
    ]
    assert listed == [("g", "consumer", state.value, "classic")]


def follower(scene: Scene) -> tuple[str, int]:
    return scene.ids["b"], scene.generations["b"]


def test_heartbeat(state: GroupState) -> None:
    scene = SCENES[state]()
    assert scene.answer("b", Heartbeat("g", *follower(scene))) is HEARTBEAT[state]


def test_sync(state: GroupState) -> None:
    scene = SCENES[state]()
    answer: Any = scene.answer("b", SyncGroup("g", *follower(scene)))
    match SYNC[state]:
        case ErrorCode() as error:
            assert answer.error is error
        case Step.PARK:
            assert answer is None
        case Step.TELL_CURRENT:
            assert answer == (NONE, "consumer", "range", b"b")
        case other:
            pytest.fail(f"{other}")


def test_commit(state: GroupState) -> None:
    scene = SCENES[state]()
    member_id, generation = follower(scene) if state is not EMPTY else ("", -1)
    answer: Any = scene.answer("b", CommitOffsets("g", member_id, generation, None, -1, (OffsetToCommit("t", 0, 5),)))
    if isinstance(COMMIT[state], ErrorCode):
        assert [row.error for row in answer.rows] == [COMMIT[state]]
    else:
        assert answer is None
        scene.all_written()
        assert scene.committed() == {("t", 0): 5}


def test_join_of_a_member(state: GroupState) -> None:
    """(a follower as before, the leader as before, a follower with other protocols)"""
    cases: tuple[tuple[str, dict[str, Any]], ...] = (("b", {}), ("a", {}), ("b", {"protocols": {"range": b"new"}}))
    for number, (client, how) in enumerate(cases):
        scene = SCENES[state]()
        generation = scene.generations[client]
        member_id = scene.ids[client]
        answer: Any = scene.answers.get(scene.join(client, **how))
        steps = CURRENT_JOIN[state]
        if isinstance(steps, ErrorCode):
            assert answer == (steps, member_id, -1, None, None, "", (), False)
        elif steps[number] is Step.TELL_CURRENT:
            assert (answer.error, answer.member_id, answer.generation) == (NONE, member_id, generation)
            assert answer.leader_id == scene.ids["a"]
            assert len(answer.members) == (2 if client == "a" else 0)
            assert scene.state() == state.value
        else:
            assert steps[number] is Step.REBALANCE
            # In the case of "b" all have joined then.
            assert scene.state() in ("PreparingRebalance", "CompletingRebalance")
            if state is not PREPARING:
                assert answer is None
                assert scene.state() == "PreparingRebalance"


def test_delete(state: GroupState) -> None:
    scene = SCENES[state]()
    answer: Any = scene.answer("", DeleteGroup("g"))
    if DELETE[state]:
        assert answer.error is DELETE[state]
    else:
        assert answer is None, "its tombstone is being written"
        scene.all_written()
        assert scene.state() == "Dead"
        assert scene.shard.group_ids() == ()


def test_all_steps_happen() -> None:
    """Each step of the table is taken by some group in these stories."""
    taken: set[tuple[GroupState, GroupEvent]] = set()

    def watched(state: GroupState, event: GroupEvent) -> GroupState:
        taken.add((state, event))
        return TRANSITIONS[state, event]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zkbroker.coordinator.group.after", watched)
        for make in SCENES.values():
            make().shard.unload()
        completing().leave("b")
        scene = dead()
        scene.written(ErrorCode.NOT_ENOUGH_REPLICAS)
        assert scene.state() == "Empty"
    assert taken == set(TRANSITIONS)


def test_the_pictures_words() -> None:
    """The drawing at the top of the file names every state."""
    words = (states.__doc__ or "").split("\n\n")[2]
    assert all(name in words for name in ("Empty", "Preparing", "Completing", "Stable", "Dead"))


def test_a_list_can_be_narrowed() -> None:
    scene = stable()
    scene.commit("simple", {("t", 0): 1}, "h", generation=-1)
    scene.all_written()

    def listed(states: tuple[str, ...] = (), types: tuple[str, ...] = ()) -> list[str]:
        return [group.group_id for group in scene.shard.list_groups(states, types)]

    assert listed() == ["g", "h"]
    assert listed(("sTABLE", "Dead")) == ["g"]
    assert listed(("empty",), ("Classic", "consumer")) == ["h"]
    assert listed(("nonsense",)) == []
    assert listed((), ("consumer",)) == []

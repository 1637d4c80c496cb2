"""A shard from its first record to its last answer."""

from __future__ import annotations

from typing import Any

from tests.unit.coordinator_scene import NONE, Scene
from zkbroker.coordinator.effects import Now
from zkbroker.coordinator.records import StoredOffset, offset_key, offset_value
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    CommitAnswer,
    DeleteGroup,
    DeleteOffsets,
    DeleteOffsetsAnswer,
    DescribedGroup,
    DescribeGroup,
    FetchOffsets,
    FetchOffsetsAnswer,
    GroupError,
    Heartbeat,
    JoinAnswer,
    LeaveAnswer,
    LeaveGroup,
    PartitionError,
    SyncAnswer,
    SyncGroup,
)

T0 = ("t", 0)
LOADING = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS


def unloaded() -> Scene:
    scene = Scene()
    scene.shard = scene.new_shard()
    return scene


def test_what_is_answered_while_it_loads() -> None:
    scene = unloaded()
    assert scene.answer("a", scene.join_request("a", member_id="m")) == JoinAnswer(LOADING, "m")
    # The state of a rebalance is lost with the old coordinator; and older clients do not know the other error.
    assert scene.answer("a", SyncGroup("g", "m", 1)) == SyncAnswer(ErrorCode.REBALANCE_IN_PROGRESS)
    assert scene.answer("a", Heartbeat("g", "m", 1)) is NONE
    assert scene.answer("a", LeaveGroup("g", ())) == LeaveAnswer(LOADING)
    assert scene.answers[scene.commit("a", {T0: 1}, generation=-1)] == CommitAnswer((PartitionError("t", 0, LOADING),))
    assert scene.answer("a", FetchOffsets("g", None)) == FetchOffsetsAnswer("g", LOADING)
    assert scene.answer("a", DeleteOffsets("g", (T0,))) == DeleteOffsetsAnswer(LOADING)
    assert scene.answer("a", DescribeGroup("g")) == DescribedGroup("g", LOADING)
    assert scene.answer("a", DeleteGroup("g")) == GroupError("g", LOADING)
    assert scene.answer("a", Heartbeat("", "m", 1)) is ErrorCode.INVALID_GROUP_ID
    assert scene.shard.tick(scene.now) == ()
    assert scene.shard.expire_offsets("g", scene.now) == ()
    assert scene.shard.loaded(scene.now) == ()
    assert scene.shard.is_loaded
    assert scene.shard.loaded(scene.now) == ()


def test_groups_are_taken_up_in_slices() -> None:
    scene = unloaded()
    for number in range(12):
        scene.shard.replay(offset_key(f"g{number}", "t", 0), offset_value(StoredOffset(number)))
    steps = 1
    while not scene.shard.take_up():
        steps += 1
        assert not scene.shard.is_loaded
    assert steps == 3
    assert scene.answer("a", FetchOffsets("g1", None)) == FetchOffsetsAnswer("g1", LOADING)
    scene.shard.loaded(scene.now)
    assert len(scene.shard.group_ids()) == 12
    assert scene.committed("g11") == {T0: 11}


def test_members_are_taken_over() -> None:
    scene = Scene()
    scene.stable("a", "b")
    scene.commit("a", {T0: 1})
    scene.written()
    before = scene.described()
    scene.wait(9)
    scene.load()
    assert scene.described() == before
    assert scene.shard.next_deadline() == scene.time + 10, "each has its whole session timeout"
    scene.wait(9)
    assert scene.beat("b") is NONE
    scene.commit("b", {T0: 2})
    scene.written()
    scene.wait(1)
    assert scene.state() == "PreparingRebalance", "a was not heard of"
    scene.join("b")
    assert scene.generations["b"] == 2


def test_a_rebalance_is_lost() -> None:
    """The group is stable in the last generation whose assignment was stored: members of a later one join anew."""
    scene = Scene()
    scene.stable("a", "b")
    scene.join("a")
    scene.join("b")
    assert scene.generations["a"] == 2
    scene.load()
    assert scene.state() == "Stable"
    assert scene.beat("a") is ErrorCode.ILLEGAL_GENERATION
    scene.join("a")
    scene.join("b")
    assert scene.generations["b"] == 2


def test_a_group_that_is_too_large_by_now_rebalances() -> None:
    scene = Scene()
    scene.stable("a", "b", "c")
    scene.settings = scene.settings._replace(members_max=2)
    scene.load()
    assert scene.state() == "PreparingRebalance"
    scene.join("b")
    scene.join("c")
    assert scene.answers[scene.join("a")].error is ErrorCode.GROUP_MAX_SIZE_REACHED  # type: ignore[union-attr]
    assert scene.state() == "CompletingRebalance"


def test_the_last_record_counts() -> None:
    scene = unloaded()
    for offset in (1, 2, None, 4, 5):
        scene.shard.replay(offset_key("g", "t", 0), None if offset is None else offset_value(StoredOffset(offset)))
    scene.shard.replay(offset_key("g", "t", 1), offset_value(StoredOffset(1)))
    scene.shard.replay(offset_key("g", "t", 1), None)
    scene.shard.replay(offset_key("h", "t", 1), None)
    scene.shard.loaded(scene.now)
    assert scene.shard.group_ids() == ("g",)
    assert scene.committed() == {T0: 5}
    scene.commit("", {T0: 6}, generation=-1)
    scene.written()
    assert scene.committed() == {T0: 6}, "what is written comes after what was loaded"


def test_offsets_of_transactions() -> None:
    """Of the log of a Kafka that served transactions: they count from their marker on, in the order of the commits."""
    key = offset_key("g", "t", 0)
    scene = unloaded()
    replay = scene.shard.replay
    replay(key, offset_value(StoredOffset(1)), 7)
    replay(key, offset_value(StoredOffset(2)))
    scene.shard.transaction_ended(7, is_committed=True)  # older than 2
    replay(key, offset_value(StoredOffset(3)), 8)
    scene.shard.transaction_ended(8, is_committed=False)
    replay(offset_key("g", "t", 1), offset_value(StoredOffset(4)), 9)
    replay(offset_key("h", "t", 1), offset_value(StoredOffset(5)), 9)
    replay(offset_key("h", "t", 2), offset_value(StoredOffset(6)), 9)
    replay(offset_key("h", "t", 2), None, 9)
    scene.shard.loaded(scene.now)
    assert (scene.committed("g"), scene.committed("h")) == ({T0: 2}, {})
    unstable: Any = scene.fetch(("t", 1), group="h", stable=True)
    assert unstable.rows[0].error is ErrorCode.UNSTABLE_OFFSET_COMMIT
    scene.took(scene.shard.expire_offsets("h", Now(0.0, 2**60)))
    assert not scene.outstanding, "it may come to have offsets"
    scene.shard.transaction_ended(9, is_committed=True)
    assert (scene.committed("g"), scene.committed("h")) == ({T0: 2, ("t", 1): 4}, {("t", 1): 5})
    stable: Any = scene.fetch(("t", 1), group="h", stable=True)
    assert stable.rows[0].error is NONE


# --- the end ---


def test_unloading_answers_all_that_waits() -> None:
    scene = Scene()
    scene.stable("a", "b")
    joining = scene.join("c")
    scene.stable("d", "e", group="h")
    scene.join("d", "h")
    scene.join("e", "h")
    syncing = scene.sync("e", "h")
    leading = scene.sync("d", "h", assign={"d": b""})
    committing = scene.commit("", {T0: 1}, "i", generation=-1)
    scene.commit("", {T0: 1}, "j", generation=-1)
    scene.written(write_id=max(scene.outstanding))
    deleting = scene.delete("j")
    scene.took(scene.shard.unload())
    stale = ErrorCode.NOT_COORDINATOR
    assert scene.answers[joining] == JoinAnswer(stale, "c-3")
    assert scene.answers[syncing] == scene.answers[leading] == SyncAnswer(stale)
    assert scene.answers[committing] == CommitAnswer((PartitionError("t", 0, stale),))
    assert scene.answers[deleting] == GroupError("j", stale)
    assert set(scene.answers) == set(scene.asked)
    assert scene.shard.next_deadline() is None
    for write_id in scene.outstanding:
        assert scene.shard.written(write_id, NONE, scene.now) == ()
    assert scene.shard.unload() == ()
    assert scene.shard.handle(99, Heartbeat("g", "a-1", 1), scene.now) == ()
    assert scene.shard.group_ids() == ()


def test_unloading_while_it_loads() -> None:
    scene = unloaded()
    scene.shard.replay(offset_key("g", "t", 0), offset_value(StoredOffset(1)))
    scene.shard.take_up()
    assert scene.shard.unload() == ()
    assert scene.shard.loaded(scene.now) == ()
    assert scene.shard.group_ids() == ()


def test_outcomes_of_nobody() -> None:
    scene = Scene()
    assert scene.shard.written(77, NONE, scene.now) == ()

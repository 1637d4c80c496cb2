"""What expires (KIP-211), and what goes with its topic."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.coordinator_scene import NONE, Scene
from tests.unit.test_coordinator_offsets import DAY_S, MINE, T0, T1, U0, errors, expire, simple
from zkbroker.coordinator.records import group_key, offset_key
from zkbroker.model.errors import ErrorCode


def test_offsets_of_consumers_that_assign_by_themselves_expire_by_commit() -> None:
    scene = Scene()
    simple(scene, {T0: 1})
    scene.written()
    scene.time = DAY_S
    simple(scene, {T1: 1})
    scene.written()
    scene.time = 7 * DAY_S - 1
    expire(scene)
    assert not scene.outstanding
    scene.time = 7 * DAY_S
    expire(scene)
    scene.written()
    assert scene.committed() == {T1: 1}
    scene.time = 8 * DAY_S
    expire(scene)
    scene.written()
    assert scene.shard.group_ids() == ()
    assert scene.log[-1] == (offset_key("g", "t", 1), None)


def test_offsets_of_a_group_expire_after_it_was_emptied() -> None:
    scene = Scene()
    scene.stable("a", protocols=MINE)
    scene.commit("a", {T0: 1})
    scene.written()
    scene.time = 10 * DAY_S
    expire(scene)
    assert not scene.outstanding, "the group is subscribed to the topic"
    scene.leave("a")
    scene.all_written()
    scene.time = 17 * DAY_S - 1
    expire(scene)
    assert not scene.outstanding
    scene.load()
    scene.time = 17 * DAY_S
    expire(scene)
    scene.written()
    assert scene.shard.group_ids() == ()
    assert scene.log[-1] == (group_key("g"), None)


def test_offsets_of_topics_no_longer_subscribed_expire_by_commit() -> None:
    scene = Scene()
    scene.stable("a", protocols=MINE, session_ms=1_800_000)
    scene.commit("a", {T0: 1, U0: 1})
    scene.written()
    scene.time = 7 * DAY_S + 6
    expire(scene)
    scene.written()
    assert scene.committed() == {T0: 1}


@pytest.mark.parametrize("how", [{"protocols": {"range": b"?"}}, {"protocol_type": "connect"}], ids=str)
def test_where_subscriptions_are_not_known_nothing_expires(how: Any) -> None:
    scene = Scene()
    scene.stable("a", **how)
    scene.commit("a", {T0: 1})
    scene.written()
    scene.time = 100 * DAY_S
    expire(scene)
    assert not scene.outstanding


def test_nothing_expires_during_a_rebalance_nor_what_is_being_committed() -> None:
    scene = Scene()
    scene.stable("a", protocols=MINE)
    scene.commit("a", {U0: 1})
    scene.written()
    scene.time = 100 * DAY_S
    scene.join("b", protocols=MINE)
    expire(scene)
    assert not scene.outstanding
    simple(scene, {T0: 1}, "h")
    scene.written()
    scene.time = 200 * DAY_S
    ticket = simple(scene, {T0: 2}, "h")
    expire(scene, "h")
    assert len(scene.outstanding) == 1
    scene.written()
    assert errors(scene, ticket) == [NONE]
    assert scene.committed("h") == {T0: 2}


def test_an_expiry_of_its_own() -> None:
    """OffsetCommit 2 to 4."""
    scene = Scene()
    simple(scene, {T0: 1}, retention_ms=1000)
    scene.written()
    scene.load()
    scene.time = 0.999
    expire(scene)
    assert not scene.outstanding
    scene.time = 1.0
    expire(scene)
    scene.written()
    assert scene.shard.group_ids() == ()


def test_tombstones_that_fail_are_written_again() -> None:
    scene = Scene()
    simple(scene, {T0: 1})
    scene.written()
    scene.time = 7 * DAY_S
    expire(scene)
    expire(scene)
    assert len(scene.outstanding) == 1, "once at a time"
    scene.written(ErrorCode.NOT_ENOUGH_REPLICAS)
    assert scene.committed() == {T0: 1}
    assert "1 offsets that expired could not be removed" in scene.lines[-1]
    expire(scene)
    scene.written()
    assert scene.shard.group_ids() == ()


def test_an_empty_group_without_offsets_goes() -> None:
    scene = Scene()
    scene.stable("a")
    expire(scene)
    assert scene.shard.group_ids() == ("g",)
    scene.leave("a")
    scene.all_written()
    scene.join("b", known=True)
    expire(scene)
    assert not scene.outstanding, "somebody is about to join"
    scene.wait(10)
    expire(scene)
    scene.written()
    assert scene.shard.group_ids() == ()
    assert scene.log[-1] == (group_key("g"), None)


def test_offsets_of_deleted_topics() -> None:
    scene = Scene()
    scene.stable("a", protocols=MINE)
    scene.commit("a", {T0: 1, U0: 1})
    scene.written()
    late = scene.commit("a", {T1: 1})
    scene.took(scene.shard.forget_topics(dict.fromkeys("tx", scene.shard.point), "g", scene.now))
    scene.all_written()
    assert errors(scene, late) == [NONE]
    assert scene.committed() == {U0: 1}
    scene.load()
    assert scene.committed() == {U0: 1}, "also what was being committed when the topic went"
    scene.took(scene.shard.forget_topics({"y": 99}, "g", scene.now))
    scene.took(scene.shard.forget_topics({"y": 99}, "nothing", scene.now))
    assert not scene.outstanding

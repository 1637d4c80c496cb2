"""Offsets of deleted topics: also those of groups that are being loaded just then, and never those of the topic that is
made anew under the same name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit import replica_cluster
from tests.unit.coordinator_scene import NONE, Scene
from tests.unit.group_shards import PARTITION, Coordinators
from tests.unit.replica_cluster import clusters
from zkbroker.coordinator.records import StoredOffset, offset_key, offset_value
from zkbroker.coordinator.shard import GroupShard
from zkbroker.model.groups import CommitAnswer, CommitOffsets, FetchOffsets, FetchOffsetsAnswer, OffsetToCommit
from zkbroker.records.record import Record, build_batch

T0, T1, U0 = ("t", 0), ("t", 1), ("u", 0)


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(replica_cluster, "PARTITION", PARTITION)
    with clusters(tmp_path) as make:
        yield make


class Real(Coordinators):
    """With the real shard."""

    def _make(self, *how: Any) -> GroupShard:  # type: ignore[override]
        return GroupShard(*how)

    def offset(self, topic: str) -> int:
        found: list[list[FetchOffsetsAnswer]] = []
        self.groups[1].fetch_offsets([FetchOffsets("g", ((topic, 0),))], found.append)
        (((row,),),) = [[answer.rows for answer in answers] for answers in found]
        return row.offset

    def write(self, offset: int, topic: str, group_id: str = "g") -> list[CommitAnswer]:
        answers: list[CommitAnswer] = []
        asked = CommitOffsets(group_id, "", -1, None, -1, (OffsetToCommit(topic, 0, offset),))
        self.groups[1].commit(asked, answers.append)
        return answers


@pytest.mark.parametrize("is_begun", (False, True))
def test_a_topic_that_is_deleted_while_its_groups_are_loaded(networks: Any, is_begun: bool) -> None:
    network = networks(1, 2)
    network.elect(1, 0)
    log = network.replicas[1].coordinator_log
    records = [Record(i, 1, offset_key("g", topic, 0), offset_value(StoredOffset(7))) for i, topic in enumerate("tu")]
    log.append(log.tenure(PARTITION), build_batch(records), 5.0, lambda error: None)
    network.run()
    world = Real(network)
    network.cut.add(1)
    log.append(log.tenure(PARTITION), build_batch(records), 5.0, lambda error: None)
    network.elect(2, 1, to=(1,))
    network.elect(1, 2, to=(1,))
    if is_begun:
        network.run()
    world.groups[1].topics_deleted(["t"])
    assert "1 partitions loading" in world.groups[1].status_lines()[0]
    network.cut.clear()
    network.elect(1, 3)
    network.run()
    assert (world.offset("t"), world.offset("u")) == (-1, 7)


def test_what_is_committed_for_a_topic_made_anew_is_not_forgotten_with_its_predecessor(networks: Any) -> None:
    network = networks(1)
    world = Real(network)
    network.elect(1, 0)
    network.run()
    world.write(7, "t")
    network.run()
    world.groups[1].topics_deleted(["t"])
    answers = world.write(1, "t")  # in the same turn: the topic is there again
    network.run()
    assert [row.error for answer in answers for row in answer.rows] == [NONE]
    assert world.offset("t") == 1


def test_a_group_forgets_what_it_committed_before() -> None:
    scene = Scene()
    scene.commit("a", {T0: 1, T1: 1, U0: 1})
    scene.written()
    under_way = scene.commit("a", {("t", 2): 1})
    point = scene.shard.point
    newer = scene.commit("a", {T0: 2, ("t", 3): 2})
    scene.took(scene.shard.forget_topics({"t": point}, "g", scene.now))
    scene.all_written()
    assert [row.error for ticket in (under_way, newer) for row in scene.answers[ticket].rows] == [NONE] * 3  # type: ignore[union-attr]
    assert scene.committed() == {T0: 2, ("t", 3): 2, U0: 1}
    scene.load()
    assert scene.committed() == {T0: 2, ("t", 3): 2, U0: 1}

"""Many members at once: nothing that is done for all of them takes a turn of the reactor for itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit import replica_cluster
from tests.unit.coordinator_scene import START_MS, Scene
from tests.unit.group_shards import PARTITION, Coordinators
from tests.unit.replica_cluster import clusters
from zkbroker.broker.group_partition import ANSWERS_AT_ONCE
from zkbroker.coordinator import shard as shard_module
from zkbroker.coordinator.effects import Now
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import Client, JoinAnswer, JoinGroup, Protocol


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(replica_cluster, "PARTITION", PARTITION)
    with clusters(tmp_path) as make:
        yield make


COUNT = 2 * ANSWERS_AT_ONCE + 1


def request_of(number: int) -> JoinGroup:
    return JoinGroup("g", f"m{number}", Client("c", "/h"), 10_000, 10_000, "consumer", (Protocol("range", b""),))


def joined(world: Coordinators, answers: list[JoinAnswer], seen: list[int]) -> None:
    """Members whose requests are answered together, a second later; ``seen``: how many are after each turn."""
    reactor = world.network.reactor

    def answered(answer: JoinAnswer) -> None:
        if not answers:
            look()
        answers.append(answer)

    def look() -> None:
        if answers:
            seen.append(len(answers))
        if len(answers) < COUNT:
            reactor.callLater(0, look)

    for number in range(COUNT):
        world.groups[1].join(request_of(number), answered)
    world.shard.deadline = world.network.time.monotonic() + 1.0
    world.heartbeat()


def test_a_crowd_is_answered_in_many_turns(networks: Any) -> None:
    network = networks(1)
    world = Coordinators(network)
    network.elect(1, 0)
    network.run()
    answers: list[JoinAnswer] = []
    seen: list[int] = []
    joined(world, answers, seen)
    network.run(1.1)
    assert seen == [2 * ANSWERS_AT_ONCE, COUNT]
    assert [answer.member_id for answer in answers] == [f"m{number}" for number in range(COUNT)]
    assert {answer.error for answer in answers} == {ErrorCode.NONE}


def test_a_crowd_whose_coordinator_goes_is_sent_elsewhere(networks: Any) -> None:
    network = networks(1, 2)
    world = Coordinators(network)
    network.elect(1, 0)
    network.run()
    answers: list[JoinAnswer] = []
    joined(world, answers, [])
    network.reactor.callLater(1.0, lambda: network.reactor.callLater(0, network.elect, 2, 1))
    network.run(1.1)
    assert [answer.error for answer in answers].count(ErrorCode.NOT_COORDINATOR) >= COUNT - 2 * ANSWERS_AT_ONCE
    assert len(answers) == COUNT


def test_a_crowd_is_sent_away_when_the_broker_stops(networks: Any) -> None:
    network = networks(1)
    world = Coordinators(network)
    network.elect(1, 0)
    network.run()
    answers: list[JoinAnswer] = []
    for number in range(COUNT):
        world.groups[1].join(request_of(number), answers.append)
    world.groups[1].stop()
    assert len(answers) == COUNT
    network.replicas[1].stop()
    assert network.reactor.getDelayedCalls() == []


def test_members_are_expected_from_when_all_is_loaded_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_module, "MEMBERS_EXPECTED_AT_ONCE", 1)
    scene = Scene()
    scene.stable("a", "b", group="g")
    scene.stable("c", group="h")
    shard = scene.new_shard()
    for record in scene.log:
        shard.replay(record.key, record.value)
    while not shard.take_up():
        pass
    assert shard.next_deadline() is None
    steps = 1
    while not shard.expect_members(Now(50.0, START_MS)):
        steps += 1
    assert steps == 2
    shard.loaded(Now(52.0, START_MS))
    assert shard.next_deadline() == 60.0, "the session of ten seconds began with that"

"""Consumer groups on real replicas under the real controller's decisions, with faults by seed: members that follow the
protocol, coordinators that die, are cut off or resign. What was acknowledged stays, everybody is answered, all heals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.fakes.cleaner import start_stepped
from tests.unit import replica_cluster, test_replication_random
from tests.unit.group_shards import PARTITION, OnePartition
from tests.unit.test_replication_random import BROKERS, World
from zkbroker.broker.cleaning import Cleaning
from zkbroker.broker.groups import Groups, GroupsSettings
from zkbroker.broker.replicas import Replicas
from zkbroker.controller.cluster_image import Placement, TopicImage
from zkbroker.coordinator.settings import GroupSettings
from zkbroker.log.cleaner_choice import CleanerSettings
from zkbroker.log.disk import Disk
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    Client,
    CommitAnswer,
    CommitOffsets,
    DeleteOffsets,
    DeleteOffsetsAnswer,
    FetchOffsets,
    FetchOffsetsAnswer,
    Heartbeat,
    JoinAnswer,
    JoinGroup,
    OffsetToCommit,
    Protocol,
    SyncAnswer,
    SyncGroup,
)

NONE = ErrorCode.NONE
SETTINGS = GroupsSettings(GroupSettings(initial_rebalance_delay_ms=100), commit_timeout_s=1.0, expiry_check_s=5.0)
PATIENCE_S = 20.0
"""Longer than anything may be parked: rebalance and session timeouts, and the time of a write."""


class GroupsWorld(World):
    def __init__(self, folder: Path, seed: int) -> None:
        self.groups: dict[int, Groups] = {}
        self.lines: list[str] = []
        self.compactions = 0
        self.is_restless = True
        """Members are started anew now and then."""
        self.cleanings: dict[int, Cleaning] = {}
        super().__init__(folder, seed)
        self.config = dataclasses.replace(
            self.config,
            cleanup_policy=("compact",),
            segment_bytes=3000,
            min_cleanable_dirty_ratio=0.0,
            delete_retention_ms=500,
            index_interval_bytes=0,
        )

    def start(self, broker_id: int) -> Replicas:
        replicas = super().start(broker_id)
        groups = self.groups[broker_id] = Groups(
            reactor=self.reactor,
            clock=self.time,
            random=self.dice,
            coordinator_log=replicas.coordinator_log,
            topic=OnePartition(),  # type: ignore[arg-type]
            settings=SETTINGS,
            log=self.lines.append,
            fatal=lambda event, error: self.fatal.append((event, error)),
        )
        replicas.leadership_changed = groups.leadership_changed
        groups.start()
        logs = self.logs[broker_id]
        cleaning = self.cleanings[broker_id] = Cleaning(
            reactor=self.reactor,
            clock=self.time,
            logs=logs,
            candidates=lambda: [(logs.logs[where], mark) for where, mark in replicas.high_watermarks().items()],
            settings=lambda: CleanerSettings(dedupe_buffer_bytes=24_000, backoff_s=0.2),
            start_cleaner=start_stepped(Disk(), self.thread),
            fatal=lambda event, error: self.fatal.append((event, error)),
            report=self.reports.append,
        )
        cleaning.start()
        return replicas

    def thread(self, act: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.later(lambda: done.callback(None), 0.05)
        return done.addCallback(lambda _: act(*arguments))

    def crash(self, broker_id: int) -> None:
        groups = self.groups.pop(broker_id)
        for client in Robot.all:
            client.connection_lost(broker_id)
        groups.stop()
        cleaning = self.cleanings.pop(broker_id)
        cleaning.stop()
        self.compactions += cleaning.logs_compacted
        super().crash(broker_id)

    def produce_one(self) -> None: ...

    def consume_some(self) -> None: ...


class Robot:
    """A client with one request at a time, to whatever broker it takes for the coordinator."""

    all: list[Robot] = []

    def __init__(self, world: GroupsWorld, name: str) -> None:
        self.world = world
        self.name = name
        self.broker_id = -1
        self.asked_at = -1.0
        self.number = 0
        self.last_answered_at = 0.0
        Robot.all.append(self)
        world.reactor.callLater(0.01, self.step)

    def connection_lost(self, broker_id: int) -> None:
        if self.broker_id == broker_id and self.asked_at >= 0:
            self.number += 1
            self.asked_at = -1.0
            self.lost()
            self.again(0.1)

    def lost(self) -> None: ...

    def again(self, seconds: float) -> None:
        number = self.number
        self.world.reactor.callLater(seconds, lambda: self.step() if number == self.number else None)

    def find(self) -> Groups | None:
        """Mostly whom the controller says; some go on with whom they knew."""
        world = self.world
        known = world.stored.get(PARTITION)
        if known is not None and (self.broker_id not in world.running or world.dice.random() < 0.9):
            self.broker_id = known[0].leader
        return world.groups.get(self.broker_id)

    def ask(self, method: str, request: Any, answered: Callable[[Any], None]) -> None:
        groups = self.find()
        if groups is None:
            self.again(0.2)
            return
        self.number += 1
        number = self.number
        self.asked_at = self.world.time.monotonic()
        is_open = True

        def done(answer: Any) -> None:
            nonlocal is_open
            assert is_open, "answered twice"
            is_open = False
            if number == self.number:
                self.asked_at = -1.0
                self.last_answered_at = self.world.time.monotonic()
                answered(answer)

        getattr(groups, method)(request, done)

    def check(self) -> None:
        waits_s = self.world.time.monotonic() - self.asked_at
        assert self.asked_at < 0 or waits_s < PATIENCE_S, f"{self.name} waits for {waits_s:.0f} s"

    def step(self) -> None:
        raise NotImplementedError


class Committer(Robot):
    """Commits numbers that rise, now and then looks what is there or deletes it."""

    def __init__(self, world: GroupsWorld, name: str) -> None:
        self.tried = 0
        self.acked = -1
        """At least that is there: -1 is nothing."""
        self.deleted = -1
        """Nothing up to that is there."""
        self.acks = 0
        self.deletions = 0
        super().__init__(world, name)

    def step(self) -> None:
        if self.world.dice.random() < 0.3:
            self.ask("fetch_offsets", [FetchOffsets(self.name, (("t", 0),))], self.fetched)
            return
        if self.world.dice.random() < 0.1:
            last, self.acked = self.acked, -1

            def deleted(answer: DeleteOffsetsAnswer) -> None:
                if answer.error is NONE and answer.rows[0].error is NONE:
                    self.deleted = max(self.deleted, last)
                    self.deletions += 1
                self.again(0.05)

            self.ask("delete_offsets", DeleteOffsets(self.name, (("t", 0),)), deleted)
            return
        self.tried += 1
        tried = self.tried

        def committed(answer: CommitAnswer) -> None:
            if answer.rows[0].error is NONE:
                self.acked = tried
                self.acks += 1
            self.again(0.02 + self.world.dice.random() * 0.3)

        self.ask("commit", CommitOffsets(self.name, "", -1, None, -1, (OffsetToCommit("t", 0, tried),)), committed)

    def fetched(self, answers: list[FetchOffsetsAnswer]) -> None:
        if answers[0].error is NONE:
            (row,) = answers[0].rows
            assert self.acked <= row.offset <= self.tried, f"{self.name} had {self.acked} acknowledged, has {row}"
            assert row.offset == -1 or row.offset > self.deleted, f"{self.name} deleted {self.deleted}, has {row}"
        self.again(0.05)


class Member(Robot):
    """Joins, syncs, beats."""

    def __init__(self, world: GroupsWorld, name: str, group_id: str, instance_id: str | None = None) -> None:
        self.group_id = group_id
        self.instance_id = instance_id
        self.member_id = ""
        self.generation = -1
        self.answer: JoinAnswer | None = None
        self.assignment: bytes | None = None
        super().__init__(world, name)

    def lost(self) -> None:
        if self.assignment is None:
            self.answer = None

    def rejoin(self, error: ErrorCode) -> None:
        if error in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID):
            self.member_id = ""
        if (
            error
            in (
                ErrorCode.UNKNOWN_MEMBER_ID,
                ErrorCode.ILLEGAL_GENERATION,
                ErrorCode.REBALANCE_IN_PROGRESS,
                ErrorCode.FENCED_INSTANCE_ID,
                ErrorCode.MEMBER_ID_REQUIRED,
            )
            or self.assignment is None
        ):
            self.answer = None
            self.assignment = None
        self.again(0.1)

    def step(self) -> None:
        if self.world.is_restless and self.world.dice.random() < 0.01:
            self.member_id, self.answer, self.assignment = "", None, None  # the process was started anew
        if self.answer is None:
            request = JoinGroup(
                self.group_id, self.member_id, Client(self.name, "/h"), 6000, 5000, "consumer",
                (Protocol("range", b"m"),), self.instance_id, not self.member_id and self.instance_id is None,
                True,
            )  # fmt: skip
            self.ask("join", request, self.joined)
        elif self.assignment is None:
            rows = self.answer.members if not self.answer.skip_assignment else ()
            assignments = tuple((row.member_id, b"%d" % self.generation) for row in rows)
            request = SyncGroup(
                self.group_id, self.member_id, self.generation, self.instance_id, "consumer", "range", assignments
            )  # type: ignore[assignment]
            self.ask("sync", request, self.synced)
        else:
            self.ask(
                "heartbeat", Heartbeat(self.group_id, self.member_id, self.generation, self.instance_id), self.beat
            )

    def joined(self, answer: JoinAnswer) -> None:
        if answer.member_id:
            self.member_id = answer.member_id
        if answer.error is not NONE:
            self.rejoin(answer.error)
            return
        self.answer, self.generation = answer, answer.generation
        self.again(0.01)

    def synced(self, answer: SyncAnswer) -> None:
        if answer.error is not NONE:
            self.answer = None
            self.rejoin(answer.error)
            return
        self.assignment = answer.assignment
        self.again(0.5)

    def beat(self, error: ErrorCode) -> None:
        if error is NONE:
            self.again(0.5)
        else:
            self.rejoin(error)


@pytest.fixture
def robots() -> list[Robot]:
    Robot.all = []
    return Robot.all


@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_to_coordinators_acknowledged_offsets_stay_and_groups_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, robots: list[Robot], seed: int
) -> None:
    image = TopicImage(PARTITION.topic, test_replication_random.TOPIC_ID, {0: Placement(BROKERS)})
    for module in (replica_cluster, test_replication_random):
        monkeypatch.setattr(module, "PARTITION", PARTITION)
    monkeypatch.setattr(test_replication_random, "TOPIC", image)
    world = GroupsWorld(tmp_path, seed)
    world.run(1.0)
    committers = [Committer(world, f"c{number}") for number in range(3)]
    members = [Member(world, f"m{number}", "g") for number in range(4)]
    members += [Member(world, f"s{number}", "h", f"i{number}") for number in range(3)]
    for _ in range(30):
        world.disturb()
        assert world.fatal == []
        for robot in robots:
            if not world.cut:
                robot.check()
    world.cut.clear()
    for broker_id in BROKERS:
        if broker_id not in world.running:
            world.start(broker_id)
    before = [one.acks for one in committers]
    world.is_restless = False
    world.run(40.0)
    for robot in robots:
        robot.check()
    assert all(one.acks > count for one, count in zip(committers, before, strict=True))
    assert all(one.acks > 20 and one.deletions for one in committers)
    for group_id in ("g", "h"):
        of_group = [one for one in members if one.group_id == group_id]
        assert all(one.last_answered_at > world.time.monotonic() - 10 for one in of_group)
        assert {one.generation for one in of_group} == {of_group[0].generation}
        assert {one.assignment for one in of_group} == {b"%d" % of_group[0].generation}
    assert world.fatal == []
    for cleaning in world.cleanings.values():
        cleaning.stop()
        world.compactions += cleaning.logs_compacted
    assert world.compactions > 10
    world.close()

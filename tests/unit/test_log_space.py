"""How full the disks are: asked in threads, once at a time, and never waited for longer than a moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from zkbroker.log.disk import Disk
from zkbroker.log.lanes import Lanes
from zkbroker.log.space import ANSWER_S_MAX, UNKNOWN, DiskSpaces


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.jobs: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []
        self.spaces = DiskSpaces(Disk(), Lanes(self.run_in_thread), self.clock)
        self.answers: list[tuple[int, int]] = []

    def run_in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.jobs.append((done, function, arguments))
        return done

    def ask(self, folder: str) -> None:
        self.spaces.ask(folder).addCallback(self.answers.append)

    def run_job(self) -> None:
        done, function, arguments = self.jobs.pop(0)
        try:
            result = function(*arguments)
        except OSError:
            done.errback()
            return
        done.callback(result)


def test_a_disk_says_its_size_to_all_who_ask_meanwhile(tmp_path: Path) -> None:
    world = World()
    for _ in range(3):
        world.ask(str(tmp_path))
    assert len(world.jobs) == 1
    world.run_job()
    (space,) = set(world.answers)
    found = os.statvfs(tmp_path)
    assert space[0] == found.f_blocks * found.f_frsize
    assert 0 < space[1] <= space[0]
    assert world.clock.getDelayedCalls() == []
    world.ask(str(tmp_path))
    assert len(world.jobs) == 1


def test_a_folder_that_is_gone_has_no_size() -> None:
    world = World()
    world.ask("/no/such/folder")
    world.run_job()
    assert world.answers == [UNKNOWN]


def test_a_disk_that_hangs_keeps_nobody_waiting_and_is_not_asked_again(tmp_path: Path) -> None:
    world = World()
    world.ask(str(tmp_path))
    world.clock.advance(ANSWER_S_MAX / 2)
    world.ask(str(tmp_path))
    world.clock.advance(ANSWER_S_MAX / 2)
    assert world.answers == [UNKNOWN]
    world.clock.advance(ANSWER_S_MAX / 2)
    world.ask(str(tmp_path))
    world.clock.advance(ANSWER_S_MAX)
    assert world.answers == [UNKNOWN] * 3
    assert len(world.jobs) == 1
    world.ask(str(tmp_path))
    world.run_job()
    assert world.answers[3] != UNKNOWN

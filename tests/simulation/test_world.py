"""The simulated world itself: it runs whole brokers, and the same seed gives the same run to the byte."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.simple import booted, consume, create_topic, isr_of, leader_of, produce
from tests.simulation.world import World

SCRIPT = """
from tests.simulation.test_world import eventful
with eventful({seed}) as world:
    print(world.trace.digest(), world.steps, world.now)
"""


def eventful(seed: int) -> World:
    """A run with elections, truncations, restarts with and without unflushed data."""
    world = booted(seed)
    create_topic(world, 2)
    for number in range(6):
        produce(world, b"value %d" % number, partition=number % 2)
        if number == 2:
            leader = leader_of(world)
            assert leader is not None
            world.kill(leader.broker_id, lose_unflushed=True)
            world.call_later(1.0, "fault", partial(world.start, leader.broker_id))
        if number == 4:
            world.expire_session(1)
            world.cut(2, 3)
            world.call_later(0.7, "fault", world.heal_all)
    world.run_for(2.0)
    return world


def test_three_brokers_start_and_one_is_controller() -> None:
    with booted(1) as world:
        assert sorted(world.zookeeper.children("/brokers/ids")) == ["1", "2", "3"]
        assert world.zookeeper.data("/controller") is not None


def test_what_was_acknowledged_outlives_its_leader() -> None:
    with booted(2) as world:
        create_topic(world)
        assert produce(world, b"before") == 0
        first = leader_of(world)
        assert first is not None
        world.kill(first.broker_id)
        assert produce(world, b"after") == 1
        second = leader_of(world)
        assert second is not None and second is not first
        assert consume(world) == [b"before", b"after"]
        assert world.counts["elections"] == 1
        world.start(first.broker_id)
        assert world.run_until(lambda: len(isr_of(world)) == 3, 10.0)


def test_the_same_seed_gives_the_same_trace_and_another_another() -> None:
    digests = []
    for seed in (5, 5, 6):
        with eventful(seed) as world:
            digests.append(world.trace.digest())
    assert digests[0] == digests[1] != digests[2]


def test_nothing_real_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No clock, thread, file, socket or randomness of this machine."""
    with eventful(8) as world:
        # Imports and the like are done now.
        expected = world.trace.digest()

    def guarded(original: Any) -> Any:
        def act(*arguments: Any, **named: Any) -> Any:
            caller = sys._getframe(1).f_globals["__name__"]
            # Log records have a time that nobody shows; source lines stand in tracebacks.
            assert caller in ("logging", "linecache", "tokenize"), f"{caller} calls {original} {arguments} {named}"
            return original(*arguments, **named)

        return act

    for module, names in {
        time: ("time", "time_ns", "monotonic", "monotonic_ns", "clock_gettime", "sleep"),
        os: ("open", "urandom", "stat", "listdir", "scandir", "mkdir", "replace", "unlink", "getpid"),
        socket: ("socket", "getaddrinfo", "gethostname", "getfqdn"),
        random: ("random", "randrange", "randint", "choice", "shuffle", "uniform", "getrandbits", "randbytes"),
        threading.Thread: ("start",),
        uuid: ("uuid1", "uuid4"),
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, guarded(getattr(module, name)))
    monkeypatch.setattr("builtins.open", guarded(open))
    with eventful(8) as world:
        digest = world.trace.digest()
    monkeypatch.undo()
    assert digest == expected


def test_hash_seeds_make_no_difference() -> None:
    outputs = []
    root = Path(__file__).parents[2]
    for hash_seed in ("0", "4242"):
        environment = dict(os.environ, PYTHONHASHSEED=hash_seed, PYTHONPATH=str(root))
        command = [sys.executable, "-c", SCRIPT.format(seed=7)]
        outputs.append(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert outputs[0] == outputs[1] and len(outputs[0].split()) == 3

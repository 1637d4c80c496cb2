"""Faults that strike starts, and what a person's hand does to a topic: what a broker finds on its disk then is not what
ZooKeeper says."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from tests.simulation.fault_kinds import FaultKinds


class StartFaults(FaultKinds):
    def _dies_starting(self, own: random.Random) -> str | None:
        """A loss of power, and the start after it ends early as well, before the next. Often all others are killed too,
        lose nothing, and come back later: then who lost something must not lead meanwhile."""
        broker_id = self._leader(own) if own.random() < 0.5 else self._any(own)
        if broker_id is None:
            return None
        starts_s = self._down_s(own)
        again_s = starts_s + self._session_s * own.uniform(0.05, 1.0)
        others = [other for other in self._running() if other != broker_id] if own.random() < 0.6 else []
        for other in others:
            self._world.kill(other)
            later_s = again_s + self._session_s * own.uniform(0.0, 1.5)
            self._later(later_s, f"broker {other} starts", partial(self._start, other))
        self._world.kill(broker_id, lose_unflushed=True)
        end, ends = self._early_end(broker_id, own)

        def start() -> None:
            self._start(broker_id)
            end()

        self._later(starts_s, f"broker {broker_id} starts for a moment", start)
        self._later(again_s, f"broker {broker_id} starts", partial(self._start, broker_id))
        also = f"; {others} killed" if others else ""
        return f"broker {broker_id} without its unflushed data, its next start {ends}, back after {again_s:.2f} s{also}"

    def _early_end(self, broker_id: int, own: random.Random) -> tuple[Callable[[], None], str]:
        """How a start ends that has just begun, and in words."""
        how, after_s = own.randrange(3), own.choice((0.001, 0.005, 0.02, 0.05))
        changes, is_lossy = own.choice((0, 1, 2, 5, 10, own.randrange(40))), own.random() < 0.2
        if how == 0:
            return partial(self._world.kill_at_change, broker_id, changes, is_lossy), f"dead ahead of change {changes}"
        act, word = (self._world.stop, "stopped") if how == 1 else (self._world.kill, "killed")
        text = f"broker {broker_id} is {word}"

        def end() -> None:
            if self._world.nodes[broker_id].is_running:
                act(broker_id)

        return partial(self._later, after_s, text, end), f"{word} after {after_s} s"

    def _delete_topic(self, own: random.Random) -> str | None:
        """A person removes all that ZooKeeper has of a topic, and somebody makes it again: brokers that are away, or
        that the controller does not reach meanwhile, still have logs of the old one."""
        znodes = self._world.zookeeper.tree.znodes
        topics = sorted(path for path in znodes if path.startswith("/brokers/topics/") and path.count("/") == 3)
        if not topics:
            return None
        topic = own.choice(topics)
        away = self._kill(own) if own.random() < 0.5 else None
        seconds = self._session_s * own.uniform(0.0, 0.5)
        self._later(seconds, f"all below {topic} goes", lambda: self._remove_topic(topic))
        return topic if away is None else f"{topic}; {away}"

    def _remove_topic(self, root: str) -> None:
        znodes = self._world.zookeeper.tree.znodes
        below = [path for path in znodes if path == root or path.startswith(f"{root}/")]
        for path in [*sorted(below, reverse=True), f"/config/topics/{root.rpartition('/')[2]}"]:
            self._delete_by_hand(path)

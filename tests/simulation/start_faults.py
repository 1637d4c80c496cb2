"""Faults that strike starts, and what a person's hand does to a topic: what a broker finds on its disk then is not what
ZooKeeper says."""

from __future__ import annotations

import random

from tests.simulation.fault_kinds import FaultKinds


class StartFaults(FaultKinds):
    def _dies_starting(self, own: random.Random) -> str | None:
        """A loss of power, and the start after it ends early as well, killed or stopped, before the next."""
        broker_id = self._leader(own) if own.random() < 0.5 else self._any(own)
        if broker_id is None:
            return None
        starts_s = self._down_s(own)
        again_s = starts_s + self._session_s * own.uniform(0.05, 1.0)
        changes = own.choice((0, 1, 2, 5, 10, own.randrange(40)))
        is_stopped, is_lossy = own.random() < 0.3, own.random() < 0.2
        after_s = own.choice((0.0, 0.002, 0.02))

        def start() -> None:
            self._start(broker_id)
            if not is_stopped:
                self._world.kill_at_change(broker_id, changes, lose_unflushed=is_lossy)
            else:
                self._later(after_s, f"broker {broker_id} gets SIGTERM", lambda: self._world.stop(broker_id))

        self._world.kill(broker_id, lose_unflushed=True)
        self._later(starts_s, f"broker {broker_id} starts for a moment", start)
        self._later(again_s, f"broker {broker_id} starts", lambda: self._start(broker_id))
        ends = "stopped" if is_stopped else f"dead ahead of disk change {changes}"
        return f"broker {broker_id} without its unflushed data, its next start {ends}, back after {again_s:.2f} s"

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

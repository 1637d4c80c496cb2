"""Brokers that live for ZooKeeper and for nobody else, and the promise that is made for them: others lead in time.

The promise is looked at where nothing else is wrong, before and meanwhile: several faults at once may take longer.
"""

from __future__ import annotations

import random
from typing import Any

from tests.simulation.network import HostState
from tests.simulation.staged_faults import StagedFaults
from tests.simulation.violation import Violation

AFTER_SESSION_S = 1.0
"""A leader that hangs is followed after session timeout + ZooKeeper tick + this, as one that is stopped."""

CUT_S_MIN = 3.0
"""One that is cut off within the session timeout; with one of less than this within this, since what a fetch may take
has a floor."""


class GrayFaults(StagedFaults):
    struck: list[Any]
    """Every fault so far."""

    def _hang(self, broker_id: int | None, own: random.Random) -> str | None:
        """The whole reactor hangs, most often in a write to the disk that does not return."""
        if broker_id is None:
            return None
        world, session_s, in_disk = self._world, self._session_s, own.random() < 0.7
        seconds = session_s * own.choice((own.uniform(0.05, 0.9), own.uniform(1.5, 4.0)))
        if seconds > session_s:
            within_s = session_s + world.settings.zookeeper_tick_s + AFTER_SESSION_S
            self._promise_others_lead(broker_id, within_s, "hangs")
            down_s = session_s * own.uniform(0.1, 1.5)
            self._later(seconds + down_s, f"broker {broker_id} starts", lambda: self._start(broker_id))
        world.stall(broker_id, seconds, in_disk=in_disk)
        return f"broker {broker_id} for {seconds:.2f} s{', in its disk' if in_disk else ''}"

    def _stall(self, own: random.Random) -> str | None:
        return self._hang(self._any(own), own)

    def _stall_leader(self, own: random.Random) -> str | None:
        return self._hang(self._leader(own), own)

    def _stall_controller(self, own: random.Random) -> str | None:
        return self._hang(self._controller(own), own)

    def _unreachable_leader(self, own: random.Random) -> str | None:
        """A leader that no other broker reaches, while ZooKeeper and clients do."""
        broker_id = self._leader(own)
        if broker_id is None:
            return None
        within_s = max(self._session_s, CUT_S_MIN)
        seconds = own.choice((self._session_s * own.uniform(0.3, 3.0), within_s + 0.1))
        if seconds > within_s:
            self._promise_others_lead(broker_id, within_s, "is cut off from the others")
        others = [other for other in sorted(self._world.nodes) if other != broker_id]
        return self._cut_links([(broker_id, other) for other in others], own, seconds=seconds)

    # The promise

    def _promise_others_lead(self, broker_id: int, within_s: float, what: str) -> None:
        """17: what it leads now, with enough others in sync, another leads after so long."""
        world = self._world
        if not self._is_all_well():
            return
        promised = {
            led.path: world.zookeeper.stat(led.path).czxid
            for led in self._led_by(broker_id)
            if len(led.isr) > led.minimum
        }
        struck = len(self.struck)
        others = {other: node.process for other, node in world.nodes.items() if other != broker_id}

        def look() -> None:
            is_alone = len(self.struck) == struck
            if not is_alone or any(world.nodes[other].process is not process for other, process in others.items()):
                return
            for path, czxid in promised.items():
                stat = world.zookeeper.stat(path)
                if stat is None or stat.czxid != czxid or self._is_being_deleted(path):
                    continue
                world.counts["gray_promises"] += 1
                state = self._state_of(path)
                if state["leader"] == broker_id:
                    raise Violation(17, f"{path}: broker {broker_id} {what} for {within_s:.2f} s and leads: {state}")

        if promised:
            self._later(within_s, f"whether others lead what broker {broker_id} led", look)

    def _is_being_deleted(self, path: str) -> bool:
        """Then nobody is elected any more, as in Kafka."""
        topic = path.removeprefix("/brokers/topics/").partition("/")[0]
        return self._world.zookeeper.stat(f"/admin/delete_topics/{topic}") is not None

    def _is_all_well(self) -> bool:
        world = self._world
        network = world.network
        return (
            world.zookeeper.is_serving
            and not (network._cuts or any(network._slow.values()))
            and all(state is HostState.UP for state in network.states.values())
            and all(self._is_well(node) for node in world.nodes.values())
            and self._controller(random.Random(0)) is not None
        )

    def _is_well(self, node: Any) -> bool:
        """It runs and serves, and nobody is forbidden to fence another early."""
        process = node.process
        if process is None or process.is_paused or process.busy_until > self._world.now or not node.is_ready:
            return False
        return process.zk.is_connected and not node.disk_delay_s and not node.parts.detection._suspicions._holds

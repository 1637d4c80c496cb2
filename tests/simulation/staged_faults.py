"""Faults in several acts: each waits for what the one before it brought about.

What takes three events in a row to hurt hardly ever comes by chance, not even aimed at one request: here a partition is
first brought into the one state in which a rule matters (see ``mutants``).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.simulation.aimed_faults import WAITS_SESSIONS, AimedFaults
from tests.simulation.fault_kinds import replicas_of
from tests.simulation.network import HostState


class _Led(NamedTuple):
    """A partition that somebody leads, as ZooKeeper and its leader say."""

    path: str
    """Of its state."""
    topic: str
    leader: int
    isr: tuple[int, ...]
    minimum: int
    """The smallest ISR with which acks=all goes on."""


class StagedFaults(AimedFaults):
    def _state_of(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._world.zookeeper.data(path) or b"{}")
        return found

    def _led_by(self, broker_id: int) -> list[_Led]:
        """The partitions that this broker leads, and ZooKeeper says so."""
        led = []
        parts = self._world.nodes[broker_id].parts
        for replica in () if parts is None else replicas_of(parts):
            if replica.leader is None:
                continue
            topic, number = replica.partition
            path = f"/brokers/topics/{topic}/partitions/{number}/state"
            state = self._state_of(path)
            if state.get("leader") == broker_id:
                led.append(_Led(path, topic, broker_id, tuple(state["isr"]), replica.leader.effective_min_isr))
        return led

    def _some_led(self, own: random.Random, followers_min: int = 1) -> _Led | None:
        """A partition whose leader has so many running followers in the ISR."""
        running = self._running()
        found = [
            led
            for broker_id in running
            for led in self._led_by(broker_id)
            if len([member for member in led.isr if member in running]) > followers_min
        ]
        return own.choice(found) if found else None

    def _out_of_isr(self, led: _Led, follower: int) -> Callable[[Any], str | None]:
        def look(process: Any) -> str | None:
            state = self._state_of(led.path)
            if state.get("leader") != led.leader or follower in state["isr"]:
                return None
            return f"broker {follower} left ISR of {led.path}: {state['isr']}"

        return look

    def _suspect_at_minimum(self, own: random.Random) -> str | None:
        """A leader without which its ISR would be too small is suspected by all, for what it does elsewhere."""
        led = self._some_led(own, followers_min=2)
        if led is None or self._world.network.states[led.leader] is not HostState.UP:
            return None
        follower = own.choice([member for member in led.isr if member != led.leader])
        seconds, is_deaf = self._while_s(own), own.random() < 0.8
        text = self._cut_links([(led.leader, follower)], own, seconds=WAITS_SESSIONS * self._session_s)

        def suspect() -> None:
            self._world.heal_link(led.leader, follower)
            if self._world.nodes[led.leader].is_running:
                self._world.suspect_falsely(led.leader, seconds, is_deaf=is_deaf)

        self._when(self._out_of_isr(led, follower), suspect)
        return f"{text}; then broker {led.leader}, which leads {led.path}, for {seconds:.2f} s"

    def _fewer_needed(self, own: random.Random) -> str | None:
        """A leader is left alone, goes on taking records, and hears first that the minimum ISR is 1 now."""
        led = self._some_led(own)
        if led is None:
            return None
        self._set_min_isr(led.topic, "2")
        followers = [member for member in led.isr if member != led.leader]
        own.shuffle(followers)
        delay_s = self._session_s * own.choice((0.0, 0.02, 0.1))

        def alone(process: Any) -> str | None:
            state = self._state_of(led.path)
            if state.get("leader") != led.leader or state["isr"] != [led.leader] or not state.get("elr"):
                return None
            return f"broker {led.leader} is alone in the ISR of {led.path}, ELR {state['elr']}"

        def lower() -> None:
            controller = self._controller(own)
            if controller is not None and controller != led.leader:
                self._world.zk_slow(controller, delay_s)
                self._later(
                    self._session_s,
                    f"ZooKeeper is fast for broker {controller}",
                    lambda: self._world.zk_slow(controller, 0.0),
                )
            self._set_min_isr(led.topic, "1")

        def cut_next() -> None:
            follower = followers.pop(0)
            self._cut_links([(led.leader, follower)], own, seconds=WAITS_SESSIONS * self._session_s)
            if followers:
                self._when(self._out_of_isr(led, follower), cut_next)
            else:
                self._when(alone, lower)

        cut_next()
        return f"broker {led.leader}, which leads {led.path}, from one follower after the other"

    def _late_join(self, own: random.Random) -> str | None:
        """The write that lets a follower join is seen only after the controller has read in vain, while the follower
        goes."""
        led = self._some_led(own)
        controller = self._controller(own)
        if led is None or controller is None:
            return None
        others = [member for member in led.isr if member not in (led.leader, controller)]
        if not others:
            return None
        follower = own.choice(others)
        slower_s = self._session_s * own.uniform(0.01, 0.08)
        seconds = 4 * slower_s + own.uniform(0.15, 0.4)
        self._cut_links([(led.leader, follower)], own, seconds=WAITS_SESSIONS * self._session_s)

        def reading(process: Any) -> str | None:
            under_way = process.node.broker_id == controller and any(
                call.name == "get" and call.path == led.path for call in process.zk._outbound
            )
            return f"controller {controller} reads {led.path}" if under_way else None

        def go() -> None:
            self._world.stop(follower)
            down_s = self._session_s * own.uniform(0.5, 2.0)
            self._later(down_s, f"broker {follower} starts", lambda: self._start(follower))

        def late() -> None:
            self._world.zk_slow(controller, slower_s)
            self._world.zk_late_write(controller, seconds)
            self._later(self._session_s, "ZooKeeper is fast again", lambda: self._world.zk_slow(controller, 0.0))
            self._when(reading, go)

        def joins() -> None:
            self._world.heal_link(led.leader, follower)
            self._when(self._proposing(expands=True), late)

        self._when(self._out_of_isr(led, follower), joins)
        return f"broker {follower} into the ISR of {led.path}, by controller {controller}, {seconds:.2f} s late"

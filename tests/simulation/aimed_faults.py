"""Faults that wait for the moment at which they hurt: a request under way, a proposal not yet answered.

What is rare by chance is aimed at: each of these is what some rule of the design is there for (see ``mutants``).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from tests.simulation.fault_kinds import FaultKinds, replicas_of
from tests.simulation.network import HostState
from zkbroker.zookeeper.client import Create, SetData

WAITS_SESSIONS = 3.0
"""So many session timeouts such a fault waits for its moment."""


class AimedFaults(FaultKinds):
    _watchers: list[tuple[float, Callable[[Any], str | None], Callable[[], object]]]
    """(until when, what to see in the process that ran, what to do then)."""

    def _when(self, look: Callable[[Any], str | None], act: Callable[[], object]) -> None:
        """``act``, as an event of its own, once ``look`` (at the process that just ran) says what it saw."""
        self._watchers.append((self._world.now + WAITS_SESSIONS * self._session_s, look, act))

    def _watch(self) -> None:
        """After each step."""
        process, now = self._world.ran, self._world.now
        kept = []
        for watcher in self._watchers:
            until, look, act = watcher
            seen = look(process) if process is not None and process.node.process is process else None
            if seen is not None:
                self._later(0.0, seen, act)
            elif now < until:
                kept.append(watcher)
        self._watchers = kept

    def _proposing(self, *, expands: bool = False) -> Callable[[Any], str | None]:
        """A leader has proposed another ISR and waits for the answer; ``expands``: with one more member."""

        def look(process: Any) -> str | None:
            parts = process.node.parts
            for replica in () if parts is None else replicas_of(parts):
                leader = replica.leader
                state = None if leader is None else leader.isr.state
                proposal = None if state is None else state.proposal
                if proposal is None or (expands and len(proposal.isr) <= len(state.isr)):
                    continue
                self._leader_seen = process.node.broker_id
                self._member_seen = proposal.isr[-1][0]
                return f"broker {process.node.broker_id} proposes ISR {[member for member, _ in proposal.isr]}"
            return None

        return look

    def _shake_isr(self, own: random.Random) -> str:
        """Somebody falls behind and comes back."""
        pair = self._pair(own)
        return "" if pair is None else self._cut_links([pair], own, seconds=own.uniform(0.4, 1.2) * self._session_s)

    def _usurp(self, own: random.Random) -> str | None:
        """The office goes to another while a write of the controller is on its way."""
        controller = self._controller(own)
        if controller is None:
            return None
        process = self._world.nodes[controller].process
        delay_s = self._session_s * own.uniform(0.1, 0.6)
        text = self._shake_isr(own)
        self._world.zk_slow(controller, delay_s)

        def writing(ran: Any) -> str | None:
            under_way = ran is process and any(
                call.name == "multi" and call.path == "/controller_epoch" for call in process.zk._outbound
            )
            return f"the office of broker {controller} is taken while it writes" if under_way else None

        def fast() -> None:
            if process.is_alive:
                process.zk.slower_s = 0.0

        self._when(writing, lambda: self._delete_by_hand("/controller"))
        self._later(WAITS_SESSIONS * self._session_s, f"ZooKeeper is fast for broker {controller}", fast)
        return f"broker {controller}, whose messages take {delay_s:.2f} s; {text}"

    def _late_write(self, own: random.Random) -> str | None:
        """A state that the controller wrote, and lost its connection over, is seen only after it was read again."""
        controller = self._controller(own)
        if controller is None:
            return None
        seconds = self._session_s * own.uniform(0.02, 0.4)
        text = self._shake_isr(own) if own.random() < 0.7 else ""

        def late() -> None:
            self._world.zk_late_write(controller, seconds)

        self._when(self._proposing(), late)
        return f"of broker {controller}, {seconds:.2f} s; {text}"

    def _lose_answer(self, own: random.Random) -> str | None:
        """A leader's proposal is written, its answer is lost, and the next is far away."""
        text, seconds = self._shake_isr(own), own.uniform(0.05, 0.5) * self._session_s
        after_s, reset_s = own.choice((0.0, 0.0, 0.001, 0.003)), own.choice((0.02, 0.1))

        def lose() -> None:
            controller, leader = self._controller(own), self._leader_seen
            if controller is None or controller == leader:
                return
            self._world.cut(controller, leader, one_way=True)
            self._later(reset_s, "reset", lambda: self._world.reset_connections(controller, leader))
            self._later(seconds, f"link {controller}–{leader} heals", lambda: self._world.heal_link(controller, leader))

        look = self._proposing(expands=own.random() < 0.7)
        self._when(look, lambda: self._later(after_s, "the answer is lost", lose))
        return f"{text}; then what its leader asks of the controller is lost"

    def _slow_to_controller(self, own: random.Random, leader: int | None) -> str:
        controller = self._controller(own)
        if controller is None or leader is None or leader == controller:
            return ""
        delay_s, seconds = own.uniform(0.05, 0.4) * self._session_s, 2.5 * self._session_s
        self._world.slow_link(leader, controller, delay_s)
        self._later(
            seconds, f"link {leader}–{controller} is fast", lambda: self._world.slow_link(leader, controller, 0.0)
        )
        return f"{leader}–{controller} takes {delay_s:.2f} s more; "

    def _lose_joiner(self, own: random.Random) -> str | None:
        """A follower that is to join the ISR dies with its unflushed data before the controller knows, and is back."""
        text = self._slow_to_controller(own, self._leader(own)) + self._shake_isr(own)
        down_s, lossy = own.choice((0.0, 0.01, 0.1)) * self._session_s, own.random() < 0.8

        def lose() -> None:
            broker_id = self._member_seen
            if self._world.nodes[broker_id].is_running:
                self._world.kill(broker_id, lose_unflushed=lossy)
                self._later(down_s, f"broker {broker_id} starts", lambda: self._start(broker_id))

        self._when(self._proposing(expands=True), lose)
        return text

    def _move_at_proposal(self, own: random.Random) -> str | None:
        """Leaderships move while a leader's proposal is on its way."""
        text = self._slow_to_controller(own, self._leader(own)) + self._shake_isr(own)
        act = own.choice((self._prefer, self._prefer, self._delete_registration_of_leader, self._min_isr))
        self._when(self._proposing(expands=own.random() < 0.7), lambda: act(own))
        return text

    def _late_news(self, own: random.Random) -> str | None:
        """One hears the controller late, while leaderships move to and fro."""
        controller, broker_id = self._controller(own), self._any(own)
        if controller is None or broker_id in (None, controller):
            return None
        delay_s = own.uniform(0.1, 0.7) * self._session_s
        self._world.slow_link(controller, broker_id, delay_s)
        for place in range(own.randint(2, 4)):
            act = own.choice((self._prefer, self._prefer, self._delete_registration_of_leader))
            self._later(place * own.uniform(0.02, 0.2) * self._session_s, "late news", lambda act=act: act(own))
        seconds = delay_s + own.uniform(0.3, 1.5) * self._session_s
        self._later(
            seconds,
            f"link {controller}–{broker_id} is fast",
            lambda: self._world.slow_link(controller, broker_id, 0.0),
        )
        return f"broker {broker_id} hears controller {controller} {delay_s:.2f} s late"

    def _overtaken(self, own: random.Random) -> str | None:
        """What a follower asked before it died arrives after what its next process asks."""
        leader, follower = self._leader(own), self._any(own)
        if leader is None or follower is None or leader == follower:
            return None
        delay_s, lossy = own.uniform(0.3, 1.0) * self._session_s, own.random() < 0.5
        self._world.slow_link(leader, follower, delay_s)

        def die() -> None:
            self._world.slow_link(leader, follower, 0.0)
            if self._world.nodes[follower].is_running:
                self._world.kill(follower, lose_unflushed=lossy)
            self._later(0.0, f"broker {follower} starts", lambda: self._start(follower))

        self._later(delay_s * own.uniform(0.3, 0.9), f"broker {follower} is killed and starts", die)
        return f"broker {follower}'s requests to {leader} by itself, {delay_s:.2f} s late"

    def _suspect_but_one(self, own: random.Random) -> str | None:
        """All but one find a broker dead; that one exchanges traffic with it."""
        broker_id = self._leader(own)
        others = [one for one in self._running() if one != broker_id]
        if broker_id is None or not others or self._world.network.states[broker_id] is not HostState.UP:
            return None
        spared, seconds = own.choice(others), self._while_s(own)
        self._world.suspect_falsely(broker_id, seconds, spares=spared)
        return f"broker {broker_id} for {seconds:.2f} s, but by {spared}"

    def _suspect_alone(self, own: random.Random) -> str | None:
        """A broker whose followers are gone, and which could not be replaced, is suspected."""
        broker_id = self._leader(own)
        if broker_id is None:
            return None
        parts = self._world.nodes[broker_id].parts
        led = [replica for replica in replicas_of(parts) if replica.leader is not None]
        followers = [one for one in own.choice(led).state.replicas if one != broker_id and one in self._running()]
        texts = []
        for follower in followers:
            self._world.kill(follower)
            seconds = own.uniform(2.0, 4.0) * self._session_s
            self._later(seconds, f"broker {follower} starts", lambda follower=follower: self._start(follower))
            texts.append(f"broker {follower} is killed for {seconds:.2f} s")
        after_s = own.uniform(0.1, 2.0) * self._session_s
        self._later(after_s, f"broker {broker_id} is suspected", lambda: self._suspect_one(broker_id, own))
        return f"broker {broker_id} after {after_s:.2f} s; {_said(texts)}"

    def _zk_cut_controller_and_leader(self, own: random.Random) -> str | None:
        """Both talk to each other, and to nobody who would know better."""
        both = [one for one in dict.fromkeys((self._controller(own), self._leader(own))) if one is not None]
        seconds = own.uniform(1.4, 3.0) * self._session_s
        for broker_id in both:
            self._world.zk_cut(broker_id)
            self._later(
                seconds,
                f"broker {broker_id} reaches ZooKeeper",
                lambda broker_id=broker_id: self._world.zk_heal(broker_id),
            )
        return f"brokers {both} for {seconds:.2f} s"

    def _min_isr(self, own: random.Random) -> str | None:
        """A person changes ``min.insync.replicas`` of a topic."""
        tree = self._world.zookeeper.tree.znodes
        topics = [
            path.rpartition("/")[2] for path in sorted(tree) if path.count("/") == 3 and "/brokers/topics/" in path
        ]
        if not topics:
            return None
        topic, value = own.choice(topics), own.choice(("1", "2"))
        self._set_min_isr(topic, value)
        return f"of {topic} to {value}"

    def _set_min_isr(self, topic: str, value: str) -> None:
        zookeeper = self._world.zookeeper
        path, data = f"/config/topics/{topic}", json.dumps({"version": 1, "config": {"min.insync.replicas": value}})
        exists = zookeeper.stat(path) is not None
        zookeeper.write(SetData(path, data.encode(), -1) if exists else Create(path, data.encode()))
        notice = json.dumps({"version": 2, "entity_path": f"topics/{topic}"}).encode()
        zookeeper.write(Create("/config/changes/config_change_", notice, sequential=True))


def _said(texts: list[str | None]) -> str:
    return "; ".join(text for text in texts if text is not None)

"""Faults that wait for the moment at which replication hurts: what was asked in an older leader epoch, or by an older
process of a broker, arrives when another one counts.

Each is the shortest story, thought out by hand, in which one rule alone stands between the logs and harm.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from tests.simulation.aimed_faults import AimedFaults
from tests.simulation.fault_kinds import replicas_of
from zkbroker.replication.follow_session import FollowState

STAGE_S = 0.8
"""So long no other of these stories begins: they would spoil each other."""


class AimedReplication(AimedFaults):
    _stage_until = 0.0

    def _is_on_stage(self) -> bool:
        """Whether another of these stories is under way; if not, this one is from now on."""
        if self._world.now < self._stage_until:
            return True
        self._stage_until = self._world.now + STAGE_S
        return False

    def _led(self, own: random.Random, fits: Callable[[int, Any], bool]) -> tuple[int, Any] | None:
        """A running leader and its replica of a partition for which ``fits`` holds."""
        found = []
        for broker_id in self._running():
            parts = self._world.nodes[broker_id].parts
            for replica in () if parts is None else replicas_of(parts):
                is_leader = replica.leader is not None and replica.state.leader == broker_id
                if is_leader and fits(broker_id, replica):
                    found.append((broker_id, replica))
        return own.choice(found) if found else None

    def _slow_one_way(self, source: int, targets: list[int], delay_s: float, seconds: float) -> None:
        """What ``source`` sends to ``targets`` takes so much longer, for so long."""
        for target in targets:
            self._world.slow_link(source, target, delay_s, one_way=True)

        def fast() -> None:
            for target in targets:
                self._world.slow_link(source, target, 0.0, one_way=True)

        self._later(seconds, f"link {source}→{targets} is fast", fast)

    def _row_of_an_older_epoch(self, own: random.Random) -> str | None:
        """A leader is deposed with records that nobody else has. Its first row for its successor is on its way while
        that commits others in their place and leads in another epoch besides, which the former leader hears late: the
        successor refuses the row, and tells its high watermark (KAFKA-14704)."""
        controller = self._controller(own)
        found = self._led(own, lambda leader, replica: leader != controller and len(replica.state.isr) > 2)
        if controller is None or found is None or self._is_on_stage():
            return None
        leader, replica = found
        followers = [member for member in replica.state.isr if member != leader]
        partition, epoch, process = replica.partition, replica.state.leader_epoch, self._world.nodes[leader].process
        delay_s, alone_s = own.uniform(0.15, 0.4), own.uniform(0.02, 0.12)
        self._slow_one_way(leader, followers, delay_s, 2.0 * self._session_s)
        successor = -1

        def asking(ran: Any) -> str | None:
            nonlocal successor
            parts = process.node.parts
            if ran is not process or parts is None:
                return None
            followed = parts._fetchers._followed.get(partition)
            if followed is None or followed.state is not FollowState.ASKED or followed.row is None:
                return None
            if followed.row.leader_epoch <= epoch:
                return None
            successor = followed.leader
            return f"broker {leader} asks broker {successor} for {partition} in epoch {followed.row.leader_epoch}"

        def raise_epoch() -> None:
            others = [member for member in followers if member != successor]
            teller = self._controller(own)
            if teller is not None and others:
                self._slow_one_way(teller, [leader], delay_s + 0.5, self._session_s)
                self._delete_by_hand(f"/brokers/ids/{own.choice(others)}")

        self._later(alone_s, f"broker {leader} is deposed", lambda: self._delete_by_hand(f"/brokers/ids/{leader}"))
        self._when(asking, raise_epoch)
        return f"broker {leader}, leader of {partition}, sends {delay_s:.2f} s late, deposed after {alone_s:.2f} s"

    def _row_of_an_older_process(self, own: random.Random) -> str | None:
        """A follower's rows are so late that it leaves the ISR; its process dies, and its next one fetches before they
        arrive. It was in no ISR, so that no leader epoch tells the two apart."""
        controller = self._controller(own)
        found = self._led(own, lambda leader, replica: len(replica.state.isr) > 2)
        if found is None:
            return None
        leader, replica = found
        followers = [member for member in replica.state.isr if member not in (leader, controller)]
        if not followers or self._is_on_stage():
            return None
        follower, partition, lossy = own.choice(followers), replica.partition, own.random() < 0.5
        delay_s, process = own.uniform(1.1, 1.8), self._world.nodes[leader].process
        self._slow_one_way(follower, [leader], delay_s, delay_s + self._session_s)

        def outside(ran: Any) -> str | None:
            state = None if replica.leader is None else replica.leader.isr.state
            if ran is not process or state is None or follower in state.maximal:
                return None
            return f"broker {follower} is killed and starts, out of the ISR of {partition}"

        def die() -> None:
            self._world.slow_link(follower, leader, 0.0, one_way=True)
            if self._world.nodes[follower].is_running:
                self._world.kill(follower, lose_unflushed=lossy)
            self._later(0.0, f"broker {follower} starts", lambda: self._start(follower))

        self._when(outside, die)
        return f"what broker {follower} asks broker {leader} for {partition}, {delay_s:.2f} s late"

    def _proposal_of_a_former_leader(self, own: random.Random) -> str | None:
        """A leader that is not the preferred one proposes a joiner to a controller that hears it late; meanwhile the
        leadership moves within the ISR, and the joiner does not reach the new leader."""
        found = self._led(own, lambda leader, replica: len(replica.state.isr) > 2)
        if found is None or self._is_on_stage():
            return None
        partition, preferred = found[1].partition, found[1].state.replicas[0]
        delay_s, leader = own.uniform(0.1, 0.3), -1

        def led_by_another(ran: Any) -> str | None:
            nonlocal leader
            replica = self._replica(ran, partition)
            if replica is None or replica.leader is None or ran.node.broker_id in (preferred, self._controller(own)):
                return None
            members = replica.leader.isr.state.isr
            if not {*members} >= {*replica.state.replicas}:
                return None
            leader = ran.node.broker_id
            return f"a follower of {partition} leaves its ISR {members}"

        def leave() -> None:
            controller = self._controller(own)
            joiners = [one for one in found[1].state.replicas if one not in (leader, preferred)]
            if controller is None or not joiners:
                return
            joiner = own.choice(joiners)
            self._slow_one_way(leader, [controller], delay_s, self._session_s)
            self._when(self._proposes(leader, partition, joiner), lambda: move(joiner))
            self._delete_by_hand(f"/brokers/ids/{joiner}")

        def move(joiner: int) -> None:
            self._world.cut(joiner, preferred, one_way=True)
            self._later(delay_s + 0.3, "heals", lambda: self._world.heal_link(joiner, preferred))
            self._elect_preferred([partition])

        self._when(led_by_another, leave)
        if found[0] == preferred:
            self._delete_by_hand(f"/brokers/ids/{preferred}")
        return f"who leads {partition} but broker {preferred} asks the controller {delay_s:.2f} s late"

    def _epoch_unheard_of(self, own: random.Random) -> str | None:
        """A follower that holds more than the preferred replica truncates while that leads for a moment. Their leader,
        of the epochs before and behind, never hears of the one between."""
        found = self._led(own, lambda leader, replica: len(replica.state.isr) > 2)
        if found is None or self._is_on_stage():
            return None
        partition, replicas = found[1].partition, found[1].state.replicas
        preferred, leader, behind_s = replicas[0], replicas[1], own.uniform(0.05, 0.2)
        path = f"/brokers/topics/{partition[0]}/partitions/{partition[1]}/state"

        def led_by_second(ran: Any) -> str | None:
            replica = self._replica(ran, partition) if ran.node.broker_id == leader else None
            if replica is None or replica.leader is None or self._controller(own) in (None, leader, preferred):
                return None
            members = replica.leader.isr.state.isr
            return f"broker {preferred} falls behind in {partition}" if {*members} >= {*replicas} else None

        def fall_behind() -> None:
            controller = self._controller(own)
            if controller is None:
                return
            self._world.cut(leader, preferred, one_way=True)
            self._world.cut(controller, leader, one_way=True)
            self._later(behind_s, f"broker {preferred} shall lead", lambda: self._elect_preferred([partition]))
            self._when(truncated, lambda: self._delete_by_hand(f"/brokers/ids/{preferred}"))
            self._when(leads_on, lambda: hear(controller))
            self._later(STAGE_S, "it hears the controller", lambda: hear(controller))

        def truncated(ran: Any) -> str | None:
            follower, led = self._replica(ran, partition), self._replica(self._world.nodes[leader].process, partition)
            if follower is None or led is None or led.leader is None or ran.node.broker_id in (leader, preferred):
                return None
            believed = led.leader.followers.get(ran.node.broker_id)
            if believed is None or follower.log.log_end_offset >= believed.log_end_offset:
                return None
            return f"broker {ran.node.broker_id} truncated {partition}, broker {preferred} is deposed"

        def leads_on(ran: Any) -> str | None:
            data = self._world.zookeeper.data(path)
            led = self._replica(self._world.nodes[leader].process, partition)
            if not data or led is None or led.leader is None:
                return None
            state = json.loads(data)
            if state["leader"] != leader or state["leader_epoch"] <= led.leader.leader_epoch:
                return None
            return f"broker {leader} hears that it leads {partition} in leader epoch {state['leader_epoch']}"

        def hear(controller: int) -> None:
            self._world.reset_connections(controller, leader)
            self._world.heal_link(controller, leader)
            self._world.heal_link(preferred, leader)

        self._when(led_by_second, fall_behind)
        if found[0] == preferred:
            self._delete_by_hand(f"/brokers/ids/{preferred}")
        return f"broker {preferred}, {behind_s:.2f} s behind, leads {partition} for a moment, broker {leader} behind it"

    def _replica(self, process: Any, partition: tuple[str, int]) -> Any:
        parts = None if process is None else process.node.parts
        return None if parts is None else parts.replicas._table.replicas.get(partition)

    def _proposes(self, leader: int, partition: tuple[str, int], joiner: int) -> Callable[[Any], str | None]:
        def look(ran: Any) -> str | None:
            replica = self._replica(ran, partition) if ran.node.broker_id == leader else None
            state = None if replica is None or replica.leader is None else replica.leader.isr.state
            if state is None or joiner in state.isr or joiner not in state.maximal:
                return None
            return f"broker {leader} proposes {joiner} for {partition}"

        return look

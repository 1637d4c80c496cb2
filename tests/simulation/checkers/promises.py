"""18: what fast failover promises of itself (architecture.md, fast failover, rules 1, 2 and 6), and that who knows that
its registration is lost leads nothing (2).

No record depends on 18, but each broken promise costs a leader that lives its place. What a broker concludes is
compared with what it was told; what an early fence did with what ZooKeeper says.
"""

from __future__ import annotations

from typing import Any

from tests.simulation.checkers.ghost import Ghost, State, decode_state
from tests.simulation.checkers.observer import Commit
from tests.simulation.violation import Violation
from zkbroker.broker.registration import RegistrationState
from zkbroker.model.suspicion import Finding

PAUSE_S = 0.4
"""A process that did nothing for so long may have stood still: then its timers are late."""

FRESH_S = 2.0
"""What a reporter said counts for so long."""


class PromiseChecker:
    def __init__(self, ghost: Ghost, world: Any) -> None:
        self._ghost = ghost
        self._world = world
        self._told_at: dict[tuple[int, int], tuple[object, float]] = {}
        """(broker, suspect) → the verdict that was looked at last."""
        self._fenced: dict[int, tuple[float, Any, int]] = {}
        """Broker → when its registration was deleted early, by inference alone, its process then, and the controller
        epoch of that."""
        self._leaders: dict[str, int] = {}
        """Path of a state → leader."""
        self._mute_since: dict[int, tuple[float, float]] = {}
        """Controller → since when it should have given up, and when that was seen last."""
        self.verdicts_count = 0

    def committed(self, commit: Commit) -> None:
        path = commit.path
        if path.startswith("/brokers/ids/"):
            broker_id = int(path.rpartition("/")[2])
            self._fenced.pop(broker_id, None)
            if commit.op == "delete":
                self._note_fence(broker_id, commit.session)
        elif path.endswith("/state"):
            before = self._leaders.pop(path, -1)
            if commit.op != "delete":
                state = decode_state(commit.data, commit.version)
                self._leaders[path] = state.leader
                if before in self._fenced and state.leader != before:
                    self._check_loss(path, before, state)

    def _note_fence(self, broker_id: int, session: int) -> None:
        world = self._world
        by = world.broker_of_session(session)
        process = world.nodes[broker_id].process
        if by in (0, broker_id) or process is None or world.nodes[by].parts is None:
            return
        account = _suspicions(world.nodes[by].parts)._accounts.get(broker_id)
        if account is not None and account.verdict is not None and not account.verdict.is_certain:
            self._fenced[broker_id] = self._ghost.now, process, self._ghost.controller_epoch

    def _check_loss(self, path: str, leader: int, state: State) -> None:
        """2: it led, and was fenced although its session may live: that is for a leader with whom acks=all goes on.

        A successor of the controller that fenced finds no registration, as after the end of a session, and cannot know
        that it was early."""
        fenced_at, process, controller_epoch = self._fenced[leader]
        if state.controller_epoch != controller_epoch:
            return
        world = self._world
        _, _, _, topic, _, number, _ = path.split("/")
        partition = self._ghost.find(topic, int(number))
        if partition is None or (state.leader != -1 and len(state.isr) >= partition.effective_min_isr):
            return
        is_within = self._ghost.now < fenced_at + world.settings.session_timeout_s * 0.95
        if is_within and process.is_alive and process.zk.session_id in world.zookeeper._sessions:
            raise Violation(
                18, f"{path}: leader {state.leader}, ISR {state.isr} since {leader} was fenced early; its session lives"
            )

    def after_step(self, world: Any) -> None:
        process = world.ran
        if process is None or process.node.parts is None or process.node.process is not process:
            return
        parts = process.node.parts
        accounts = _suspicions(parts)._accounts
        if accounts:
            for account in accounts.values():
                if account.verdict is not None and not account.verdict.is_certain:
                    self._look_at(process.node.broker_id, _suspicions(parts), account)
        self._check_office(process, parts)
        registration = parts.registration
        if registration.broker_epoch < 0 and registration.state is not RegistrationState.STOPPED:
            for replica in parts.replicas._table.replicas.values():
                if replica.leader is not None:
                    raise Violation(
                        2, f"broker {process.node.broker_id} leads {replica!r} and knows that its registration is lost"
                    )

    def _check_office(self, process: Any, parts: Any) -> None:
        """15: a controller that ZooKeeper does not answer any more gives up deciding, by its own clock."""
        zk, now = process.zk, self._world.now
        broker_id = process.node.broker_id
        is_away = not zk.is_connected or zk._is_cut
        age_s = process.node.clock.monotonic() - zk._last_reply_at if is_away else 0.0
        if not parts.controller.is_controller or age_s <= self._world.settings.session_timeout_s:
            self._mute_since.pop(broker_id, None)
            return
        since, last = self._mute_since.get(broker_id, (now, now))
        if now - last > PAUSE_S:
            since = now  # it stood still meanwhile
        self._mute_since[broker_id] = since, now
        if now - since > PAUSE_S:
            raise Violation(
                15,
                f"broker {broker_id} is controller, though ZooKeeper has not answered for {age_s:.3f} s of its clock",
            )

    def _look_at(self, broker_id: int, suspicions: Any, account: Any) -> None:
        suspect = account.suspect.broker_id
        seen = (account.verdict, account.told_at)
        if self._told_at.get((broker_id, suspect)) == seen:
            return
        self._told_at[broker_id, suspect] = seen
        self.verdicts_count += 1
        now = account.told_at
        peers = [peer for peer in suspicions._brokers if peer != suspect]
        fresh = {
            reporter: filed.finding
            for reporter, filed in account.filed.items()
            if reporter in peers and filed.at + FRESH_S > now
        }
        # Whoever refused when the verdict fell may be known to have restarted by the end of the step.
        against = [one for one, finding in fresh.items() if finding not in (Finding.TALKING, Finding.ACCEPTED)]
        told = f"broker {broker_id} condemns {suspect} by {fresh}, peers {sorted(peers)}"
        if 2 * len(against) <= len(peers) or broker_id not in against:
            raise Violation(18, f"{told}: no majority")
        talking = [one for one, finding in fresh.items() if finding is Finding.TALKING]
        if any(suspicions._share_isr(one, suspect) for one in talking):
            raise Violation(18, f"{told}: {talking} exchange traffic with it")
        held = suspicions._holds.get(suspect)
        if held is not None and now < held[0]:
            raise Violation(18, f"{told}: it was suspected falsely, and is held for {held[0] - now:.3f} s more")


def _suspicions(parts: Any) -> Any:
    return parts.detection._suspicions

"""The kinds of faults, one method each: who is struck, for how long, and what is done to the world."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from tests.simulation.network import HostState
from zkbroker.zookeeper.client import Create

PREFERRED_PATH = "/admin/preferred_replica_election"

REBUILT_SUFFIXES = (".index", ".snapshot")
"""Files that a start can do without. A flipped bit in records below the recovery point, in a time index or in a
checkpoint (no checksums) nobody notices at a start, in Kafka neither."""


class FaultKinds:
    """``_kind(own)`` strikes with randomness of its own and says what it did, or None if there was nobody to strike."""

    _world: Any

    def _later(self, seconds: float, what: str, act: Callable[[], object]) -> None:
        raise NotImplementedError

    # Who

    def _running(self) -> list[int]:
        return [broker_id for broker_id, node in sorted(self._world.nodes.items()) if node.is_running]

    def _any(self, own: random.Random) -> int | None:
        running = self._running()
        return own.choice(running) if running else None

    def _leader(self, own: random.Random) -> int | None:
        """Who leads some partition, by what a running broker believes of itself."""
        leading = []
        for broker_id in self._running():
            parts = self._world.nodes[broker_id].parts
            if parts is not None and any(replica.leader is not None for replica in replicas_of(parts)):
                leading.append(broker_id)
        return own.choice(leading) if leading else None

    def _controller(self, own: random.Random) -> int | None:
        for broker_id in self._running():
            parts = self._world.nodes[broker_id].parts
            if parts is not None and parts.controller.is_controller:
                return broker_id
        return None

    def _pair(self, own: random.Random) -> tuple[int, int] | None:
        brokers = sorted(self._world.nodes)
        return tuple(own.sample(brokers, 2)) if len(brokers) > 1 else None  # type: ignore[return-value]

    # How long

    @property
    def _session_s(self) -> float:
        return float(self._world.settings.session_timeout_s)

    def _down_s(self, own: random.Random) -> float:
        """A restart: at once, within the session, after it expired."""
        low, high = own.choice(((0.0, 0.05), (0.05, 1.0), (0.05, 1.0), (1.0, 3.0)))
        return own.uniform(low, high) * self._session_s

    def _while_s(self, own: random.Random) -> float:
        low, high = own.choice(((0.05, 0.5), (0.5, 1.0), (1.0, 3.0)))
        return own.uniform(low, high) * self._session_s

    # Processes

    def _kill_one(self, broker_id: int | None, own: random.Random, *, lossy: bool = False) -> str | None:
        if broker_id is None or not self._world.nodes[broker_id].is_running:
            return None
        seconds = self._down_s(own)
        self._world.kill(broker_id, lose_unflushed=lossy)
        self._later(seconds, f"broker {broker_id} starts", lambda: self._start(broker_id))
        return f"broker {broker_id}{' without its unflushed data' if lossy else ''}, back after {seconds:.2f} s"

    def _start(self, broker_id: int) -> None:
        if not self._world.nodes[broker_id].is_running:
            self._world.start(broker_id)

    def _kill(self, own: random.Random) -> str | None:
        return self._kill_one(self._any(own), own)

    def _kill_leader(self, own: random.Random) -> str | None:
        return self._kill_one(self._leader(own), own)

    def _kill_controller(self, own: random.Random) -> str | None:
        return self._kill_one(self._controller(own), own)

    def _kill_leader_and_controller(self, own: random.Random) -> str | None:
        both = dict.fromkeys((self._leader(own), self._controller(own)))
        return _joined([self._kill_one(broker_id, own) for broker_id in both])

    def _kill_two(self, own: random.Random) -> str | None:
        running = self._running()
        victims = own.sample(running, min(2, len(running)))
        return _joined([self._kill_one(broker_id, own) for broker_id in victims])

    def _kill_all(self, own: random.Random) -> str | None:
        return _joined([self._kill_one(broker_id, own) for broker_id in self._running()])

    def _stop(self, own: random.Random) -> str | None:
        broker_id = self._any(own)
        if broker_id is None:
            return None
        seconds = self._session_s * own.uniform(1.0, 3.0)
        self._world.stop(broker_id)
        self._later(seconds, f"broker {broker_id} starts", lambda: self._start(broker_id))
        return f"broker {broker_id} gets SIGTERM, starts after {seconds:.2f} s"

    def _power(self, own: random.Random) -> str | None:
        return self._kill_one(self._any(own), own, lossy=True)

    def _power_leader(self, own: random.Random) -> str | None:
        return self._kill_one(self._leader(own), own, lossy=True)

    def _power_two(self, own: random.Random) -> str | None:
        running = self._running()
        victims = own.sample(running, min(2, len(running)))
        return _joined([self._kill_one(broker_id, own, lossy=True) for broker_id in victims])

    def _power_all(self, own: random.Random) -> str | None:
        return _joined([self._kill_one(broker_id, own, lossy=True) for broker_id in self._running()])

    def _dies_writing(self, own: random.Random) -> str | None:
        """Killed in the middle of a callback, ahead of one of its next changes of the disk."""
        broker_id = self._any(own)
        if broker_id is None:
            return None
        count, lossy, seconds = own.choice((0, 1, 2, 5, own.randrange(40))), own.random() < 0.4, self._down_s(own)
        self._world.kill_at_change(broker_id, count, lose_unflushed=lossy)
        self._later(seconds, f"broker {broker_id} starts", lambda: self._start(broker_id))
        kept = "without its unflushed data" if lossy else "with all that it wrote"
        return f"broker {broker_id} ahead of disk change {count}, {kept}, back after {seconds:.2f} s"

    def _machine_gone(self, own: random.Random) -> str | None:
        """The power of a whole machine, or its container: connects are answered by nobody, or by a router."""
        broker_id = self._any(own)
        if broker_id is None:
            return None
        state, silently = own.choice((HostState.SILENT, HostState.UNREACHABLE, HostState.NAME_GONE)), own.random() < 0.5
        lossy, seconds = own.random() < 0.5, self._while_s(own)
        self._world.kill(broker_id, lose_unflushed=lossy, host=state, silently=silently)
        self._later(seconds, f"broker {broker_id} starts", lambda: self._start(broker_id))
        return f"broker {broker_id}, {state.value}, {'silently, ' if silently else ''}back after {seconds:.2f} s"

    def _pause_one(self, broker_id: int | None, seconds: float) -> str | None:
        if broker_id is None or self._world.nodes[broker_id].is_paused:
            return None
        self._world.pause(broker_id)
        self._later(seconds, f"broker {broker_id} goes on", lambda: self._resume(broker_id))
        return f"broker {broker_id} stands still for {seconds:.2f} s"

    def _resume(self, broker_id: int) -> None:
        if self._world.nodes[broker_id].is_paused:
            self._world.resume(broker_id)

    def _pause(self, own: random.Random) -> str | None:
        return self._pause_one(self._any(own), self._session_s * own.uniform(0.05, 0.9))

    def _pause_long(self, own: random.Random) -> str | None:
        return self._pause_one(self._any(own), self._session_s * own.uniform(1.1, 2.5))

    def _pause_leader_long(self, own: random.Random) -> str | None:
        return self._pause_one(self._leader(own), self._session_s * own.uniform(1.1, 2.5))

    # Network

    def _cut_links(
        self, links: list[tuple[int, int]], own: random.Random, *, one_way: bool = False, seconds: float | None = None
    ) -> str:
        seconds = self._while_s(own) if seconds is None else seconds
        for a, b in links:
            self._world.cut(a, b, one_way=one_way)

        def heal() -> None:
            for a, b in links:
                self._world.heal_link(a, b)

        sign = "→" if one_way else "–"
        shown = " ".join(f"{a}{sign}{b}" for a, b in links)
        self._later(seconds, f"links {shown} heal", heal)
        return f"{shown} for {seconds:.2f} s"

    def _cut(self, own: random.Random) -> str | None:
        pair = self._pair(own)
        return None if pair is None else self._cut_links([pair], own)

    def _cut_one_way(self, own: random.Random) -> str | None:
        pair = self._pair(own)
        return None if pair is None else self._cut_links([pair], own, one_way=True)

    def _isolate_one(self, broker_id: int | None, own: random.Random) -> str | None:
        if broker_id is None:
            return None
        others = [other for other in sorted(self._world.nodes) if other != broker_id]
        text = self._cut_links([(broker_id, other) for other in others], own, one_way=own.random() < 0.25)
        return f"broker {broker_id} from the others: {text}"

    def _isolate(self, own: random.Random) -> str | None:
        return self._isolate_one(self._any(own), own)

    def _isolate_leader(self, own: random.Random) -> str | None:
        return self._isolate_one(self._leader(own), own)

    def _reset(self, own: random.Random) -> str | None:
        pair = self._pair(own)
        if pair is None:
            return None
        self._world.reset_connections(*pair)
        return f"connections between {pair[0]} and {pair[1]}"

    def _slow_link(self, own: random.Random) -> str | None:
        pair = self._pair(own)
        if pair is None:
            return None
        delay_s, seconds = self._session_s * own.uniform(0.02, 0.6), self._while_s(own)
        self._world.slow_link(*pair, delay_s)
        self._later(seconds, f"link {pair[0]}–{pair[1]} is fast", lambda: self._world.slow_link(*pair, 0.0))
        return f"{pair[0]}–{pair[1]} takes up to {delay_s:.2f} s more for {seconds:.2f} s"

    # ZooKeeper

    def _zk_cut(self, own: random.Random) -> str | None:
        broker_id = self._any(own)
        if broker_id is None:
            return None
        seconds = self._while_s(own)
        self._world.zk_cut(broker_id)
        self._later(seconds, f"broker {broker_id} reaches ZooKeeper", lambda: self._world.zk_heal(broker_id))
        return f"broker {broker_id} for {seconds:.2f} s"

    def _zk_lose_reply(self, own: random.Random) -> str | None:
        return self._lose_reply(self._any(own))

    def _zk_lose_reply_of_controller(self, own: random.Random) -> str | None:
        return self._lose_reply(self._controller(own))

    def _lose_reply(self, broker_id: int | None) -> str | None:
        if broker_id is None:
            return None
        self._world.zk_lose_reply(broker_id)
        return f"of broker {broker_id}'s next request"

    def _zk_lose_request(self, own: random.Random) -> str | None:
        broker_id = self._any(own)
        if broker_id is None:
            return None
        self._world.zk_lose_request(broker_id)
        return f"broker {broker_id}'s next"

    def _zk_away(self, own: random.Random) -> str | None:
        seconds = self._while_s(own)
        self._world.zk_away()
        self._later(seconds, "ZooKeeper is back", self._world.zk_back)
        return f"for {seconds:.2f} s"

    def _expire(self, own: random.Random) -> str | None:
        return self._expire_one(self._any(own))

    def _expire_controller(self, own: random.Random) -> str | None:
        return self._expire_one(self._controller(own))

    def _expire_one(self, broker_id: int | None) -> str | None:
        if broker_id is None:
            return None
        self._world.expire_session(broker_id)
        return f"session of broker {broker_id}"

    def _delete_controller(self, own: random.Random) -> str | None:
        return self._delete_by_hand("/controller")

    def _delete_registration(self, own: random.Random) -> str | None:
        broker_id = self._any(own)
        return None if broker_id is None else self._delete_by_hand(f"/brokers/ids/{broker_id}")

    def _delete_by_hand(self, path: str) -> str | None:
        return path if self._world.delete_znode(path) else None

    # Elections

    def _depose(self, own: random.Random) -> str | None:
        """A leader goes on for a moment without its followers, so that it has records which nobody else has, and then
        loses the leadership: to one that appends other records in their place."""
        broker_id = self._leader(own)
        if broker_id is None:
            return None
        links = [(broker_id, other) for other in sorted(self._world.nodes) if other != broker_id]
        seconds = self._session_s * own.uniform(0.02, 0.25)
        text = self._cut_links(links, own, seconds=seconds + self._session_s * own.uniform(0.0, 0.4))
        how = own.choice(("its registration deleted", "its session expired", "killed", "killed without unflushed data"))

        def end() -> None:
            if how == "its registration deleted":
                self._delete_by_hand(f"/brokers/ids/{broker_id}")
            elif how == "its session expired":
                self._world.expire_session(broker_id)
            else:
                self._kill_one(broker_id, own, lossy=how != "killed")

        self._later(seconds, f"broker {broker_id} is deposed: {how}", end)
        return f"broker {broker_id}: {text}; after {seconds:.2f} s {how}"

    def _delete_registration_of_leader(self, own: random.Random) -> str | None:
        """The quickest way to an election: no process ends."""
        broker_id = self._leader(own)
        return None if broker_id is None else self._delete_by_hand(f"/brokers/ids/{broker_id}")

    def _prefer(self, own: random.Random) -> str | None:
        """A person asks for the preferred leaders: leaderships move while the ISR stays, so that a leader may be back
        in the next epoch but one with records that the one between never had (KIP-279)."""
        partitions = [
            {"topic": path.split("/")[3], "partition": int(path.split("/")[5])}
            for path in sorted(self._world.zookeeper.tree.znodes)
            if path.startswith("/brokers/topics/") and path.endswith("/state")
        ]
        if not partitions or self._world.zookeeper.stat(PREFERRED_PATH) is not None:
            return None
        chosen = own.sample(partitions, own.randint(1, len(partitions)))
        self._elect_preferred([(str(one["topic"]), int(one["partition"])) for one in chosen])
        return " ".join(f"{one['topic']}-{one['partition']}" for one in chosen)

    def _elect_preferred(self, partitions: Sequence[tuple[str, int]]) -> None:
        """A person asks for the preferred leaders, unless that is asked already."""
        if self._world.zookeeper.stat(PREFERRED_PATH) is None:
            chosen = [{"topic": topic, "partition": partition} for topic, partition in partitions]
            data = json.dumps({"version": 1, "partitions": chosen}).encode()
            self._world.zookeeper.write(Create(PREFERRED_PATH, data))

    def _storm(self, own: random.Random) -> str | None:
        """One election upon the other, among leaders that do not reach their followers for moments."""
        count, gap_s = own.randrange(2, 6), self._session_s * own.uniform(0.02, 0.3)
        acts = [
            own.choice((self._delete_registration_of_leader, self._depose, self._reset, self._cut, self._prefer))
            for _ in range(count)
        ]
        for place, act in enumerate(acts):
            self._later(place * gap_s, f"storm: {act.__name__.strip('_')}", lambda act=act: act(own))
        return f"{count} times, {gap_s:.2f} s apart"

    # Disks and clocks

    def _disk_slow(self, own: random.Random) -> str | None:
        broker_id = self._any(own)
        if broker_id is None:
            return None
        delay_s, seconds = self._session_s * own.uniform(0.05, 1.0), self._while_s(own)
        self._world.disk_slow(broker_id, delay_s)
        self._later(seconds, f"disk of broker {broker_id} is fast", lambda: self._world.disk_slow(broker_id, 0.0))
        return f"broker {broker_id}: a job takes {delay_s:.2f} s more for {seconds:.2f} s"

    def _disk_full(self, own: random.Random) -> str | None:
        broker_id = self._any(own)
        if broker_id is None:
            return None
        seconds = self._while_s(own)
        self._world.disk_full(broker_id)
        self._later(seconds, f"disk of broker {broker_id} has room", lambda: self._room(broker_id))
        return f"broker {broker_id} for {seconds:.2f} s"

    def _room(self, broker_id: int) -> None:
        """A folder that failed stays offline until a restart: that is what its owner does next."""
        self._world.disk_full(broker_id, False)
        if self._world.nodes[broker_id].is_running:
            self._world.kill(broker_id)
        self._start(broker_id)

    def _disk_fails(self, own: random.Random) -> str | None:
        """Every operation fails until the broker is started again, on a disk that works."""
        broker_id = self._any(own)
        if broker_id is None:
            return None
        seconds = self._while_s(own)
        self._world.disk_fails(broker_id)
        self._later(seconds, f"disk of broker {broker_id} works", lambda: self._works(broker_id))
        return f"broker {broker_id} for {seconds:.2f} s"

    def _works(self, broker_id: int) -> None:
        self._world.disk_fails(broker_id, False)
        if self._world.nodes[broker_id].is_running:
            self._world.kill(broker_id)
        self._start(broker_id)

    def _flip_bit(self, own: random.Random) -> str | None:
        """In a file that a start can do without, on the disk of a broker that is down."""
        broker_id = self._any(own)
        if broker_id is None:
            return None
        seconds = self._down_s(own)
        self._world.kill(broker_id)
        found = self._world.flip_bit(broker_id, own.choice(REBUILT_SUFFIXES))
        self._later(seconds, f"broker {broker_id} starts", lambda: self._start(broker_id))
        return f"broker {broker_id}, killed, {found or 'no such file'}, back after {seconds:.2f} s"

    def _drift(self, own: random.Random) -> str | None:
        broker_id = self._any(own)
        if broker_id is None:
            return None
        rate = 1.0 + own.uniform(-0.02, 0.02)
        self._world.drift(broker_id, rate)
        return f"broker {broker_id}'s clock runs {rate:.4f} s a second"

    # Suspicion

    def _suspect_one(self, broker_id: int | None, own: random.Random) -> str | None:
        if broker_id is None:
            return None
        seconds, is_deaf = self._while_s(own), own.random() < 0.4
        self._world.suspect_falsely(broker_id, seconds, is_deaf=is_deaf)
        deaf = ", its own connects are not answered either" if is_deaf else ""
        return f"broker {broker_id} for {seconds:.2f} s: connections reset, new ones refused, the process lives{deaf}"

    def _suspect(self, own: random.Random) -> str | None:
        return self._suspect_one(self._any(own), own)

    def _suspect_leader(self, own: random.Random) -> str | None:
        return self._suspect_one(self._leader(own), own)

    def _suspect_controller(self, own: random.Random) -> str | None:
        return self._suspect_one(self._controller(own), own)


def replicas_of(parts: Any) -> list[Any]:
    """Every replica that a broker serves, in order."""
    table = parts.replicas._table.replicas
    return [table[key] for key in sorted(table)]


def _joined(texts: list[str | None]) -> str | None:
    said = [text for text in texts if text is not None]
    return "; ".join(said) if said else None

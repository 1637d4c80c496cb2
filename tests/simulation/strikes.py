"""The faults of a simulated world, each a method; every one leaves a line in the trace."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.fakes.crash_disk import CrashDisk
from tests.fakes.zookeeper import FakeZooKeeper
from tests.simulation.events import Event, EventQueue
from tests.simulation.network import HostState, Network
from tests.simulation.process import Node, Process
from tests.simulation.settings import WorldSettings
from tests.simulation.trace import Trace
from zkbroker.model.config import BrokerConfig
from zkbroker.zookeeper.client import Delete

if TYPE_CHECKING:
    pass


class Strikes:
    """What can be done to a world; the world itself is ``World``, which has these as methods."""

    nodes: dict[int, Node]
    network: Network
    queue: EventQueue
    random: random.Random
    trace: Trace
    counts: Counter[str]
    zookeeper: FakeZooKeeper
    settings: WorldSettings
    now: float

    def call_later(self, delay: float, kind: str, function: Callable[[], object], text: str = "") -> Event:
        raise NotImplementedError

    def config(self, broker_id: int) -> BrokerConfig:
        raise NotImplementedError

    def process_gone(self, process: Process, *, disk: CrashDisk | None = None, silently: bool = False) -> None:
        raise NotImplementedError

    def count_death(self, node: Node, lose_unflushed: bool) -> None:
        raise NotImplementedError

    # Processes

    def start(self, broker_id: int) -> None:
        """Start the broker's process, if there is none."""
        node = self.nodes[broker_id]
        if node.process is not None:
            return
        if self.network.states[broker_id] is not HostState.REJECTS:
            self.network.states[broker_id] = HostState.UP
        node.processes += 1
        if node.processes > 1:
            self.counts["restarts"] += 1
        if node.is_lossy:
            self.counts["lossy_restarts"] += 1
            node.is_lossy = False
        process = node.process = Process(self, node, node.processes)
        if node.is_cut_from_zookeeper:
            process.zk.cut()
        self.trace.add("fault", f"start {broker_id}")
        process.call(self.random.random() * 0.002, "start", "start", process.broker.start)
        self.network.host_back(broker_id)

    def start_all(self) -> None:
        for broker_id in self.nodes:
            self.start(broker_id)

    def stop(self, broker_id: int) -> None:
        """SIGTERM."""
        process = self.nodes[broker_id].process
        if process is not None:
            self.trace.add("fault", f"stop {broker_id}")
            self.counts["stops"] += 1
            process.call(0.0, "signal", "SIGTERM", process.broker.stop)

    def kill(
        self, broker_id: int, lose_unflushed: bool = False, *, host: HostState = HostState.UP, silently: bool = False
    ) -> None:
        """kill -9; ``lose_unflushed`` with the power of its machine: what was not fsynced may be gone. ``host`` is how
        the machine answers connects afterwards; ``silently``: no FIN or RST comes from it."""
        node = self.nodes[broker_id]
        process = node.process
        if process is None:
            return
        self.trace.add(
            "fault", f"kill {broker_id} lose_unflushed={lose_unflushed} host={host.value} silently={silently}"
        )
        self.count_death(node, lose_unflushed)
        disk = process.disk.power_lost(self.random) if lose_unflushed else None
        self.process_gone(process, disk=disk, silently=silently)
        self.network.states[broker_id] = host
        if lose_unflushed:
            node.clock.booted(self.random.random() * 50.0)

    def kill_at_change(self, broker_id: int, count: int = 0, lose_unflushed: bool = False) -> None:
        """The process dies in the middle of a callback, ahead of the ``count``-th next change of its disk."""
        node = self.nodes[broker_id]
        if node.process is not None:
            self.trace.add(
                "fault", f"{broker_id} will die ahead of disk change {count} lose_unflushed={lose_unflushed}"
            )
            node.loses_unflushed = lose_unflushed
            node.process.kill_at_change(count)

    def pause(self, broker_id: int) -> None:
        """SIGSTOP: its kernel goes on."""
        process = self.nodes[broker_id].process
        if process is not None and not process.is_paused:
            self.trace.add("fault", f"pause {broker_id}")
            self.counts["pauses"] += 1
            process.zk.pause()
            process.is_paused = True

    def resume(self, broker_id: int) -> None:
        """SIGCONT: first comes what waited."""
        process = self.nodes[broker_id].process
        if process is not None and process.is_paused:
            self.trace.add("fault", f"resume {broker_id}")
            process.is_paused = False
            held, process.held = process.held, []
            self.queue.release(held)
            process.zk.resume()

    def stall(self, broker_id: int, seconds: float, *, in_disk: bool = False) -> None:
        """The reactor's thread hangs, ``in_disk``: in a call to the disk, while ZooKeeper's threads go on and keep the
        session; the watchdog ends the process after a session timeout or ``log.dir.stall.ms`` of that."""
        process = self.nodes[broker_id].process
        if process is None or process.is_paused:
            return
        self.trace.add("fault", f"stall {broker_id} for {seconds:.3f} s{' in its disk' if in_disk else ''}")
        self.counts["stalls"] += 1
        process.busy_until = max(process.busy_until, self.now + seconds)
        patience_s = self.settings.session_timeout_s
        if in_disk:
            patience_s = min(patience_s, self.config(broker_id).get_int("log.dir.stall.ms") / 1000)
        if seconds > patience_s:
            self.call_later(patience_s, "fault", lambda: self._give_up(process), "watchdog")

    def _give_up(self, process: Process) -> None:
        if process.is_alive and process.busy_until > self.now:
            self.trace.add("exit", "the watchdog saw the reactor hang", process.node.broker_id)
            self.counts["exits"] += 1
            self.process_gone(process)

    def drift(self, broker_id: int, rate: float) -> None:
        """Its clocks go ``rate`` seconds per true second from now on."""
        self.trace.add("fault", f"drift {broker_id} {rate:.5f}")
        self.nodes[broker_id].clock.drift(rate)

    # Network

    def cut(self, one: int, other: int, one_way: bool = False) -> None:
        """What ``one`` sends to ``other`` does not arrive, and the other way too unless ``one_way``."""
        self.trace.add("fault", f"cut {one} {'->' if one_way else '<->'} {other}")
        self.counts["cuts"] += 1
        self.network.cut(one, other)
        if not one_way:
            self.network.cut(other, one)

    def heal_link(self, one: int, other: int) -> None:
        self.trace.add("fault", f"heal {one} <-> {other}")
        self.network.heal(one, other)
        self.network.heal(other, one)

    def reset_connections(self, one: int, other: int = -1) -> None:
        """Every connection between the two (-1: of the one with anybody) is reset; new ones can be made."""
        count = self.network.reset_connections(one, other)
        self.trace.add("fault", f"reset {count} connections of {one} with {other}")

    def suspect_falsely(
        self, broker_id: int, seconds: float = 1.0, *, is_deaf: bool = False, spares: int | None = None
    ) -> None:
        """A firewall resets the broker's connections and rejects new ones for a while, though the process lives;
        ``is_deaf``: its own connects get no answer either; ``spares``: the broker whose connections stay."""
        self.trace.add("fault", f"false suspicion of {broker_id} for {seconds:.3f} s is_deaf={is_deaf}")
        self.counts["false_suspicions"] += 1
        node = self.nodes[broker_id]
        self.network.states[broker_id] = HostState.REJECTS
        node.is_deaf = is_deaf
        if spares is None:
            self.network.reset_connections(broker_id, -1)
        for other in self.nodes if spares is not None else ():
            if other not in (broker_id, spares):
                self.network.reset_connections(broker_id, other)
        self.call_later(seconds, "fault", lambda: self.trust_again(broker_id), f"false suspicion of {broker_id} ends")

    def trust_again(self, broker_id: int) -> None:
        if self.network.states[broker_id] is HostState.REJECTS:
            self.network.states[broker_id] = HostState.UP
        self.nodes[broker_id].is_deaf = False

    def slow_link(self, one: int, other: int, seconds: float, *, one_way: bool = False) -> None:
        """Everything between the two takes so much longer, ``one_way``: what ``one`` sends; 0 is over."""
        self.trace.add("fault", f"link {one} {'->' if one_way else '<->'} {other} is slower by {seconds:.3f} s")
        self.network.slow(one, other, seconds)
        if not one_way:
            self.network.slow(other, one, seconds)

    # ZooKeeper

    def expire_session(self, broker_id: int) -> None:
        """The ensemble ends the broker's session now."""
        process = self.nodes[broker_id].process
        if process is not None and process.zk.session_id:
            self.trace.add("fault", f"expire the session of {broker_id}")
            self.counts["expired_sessions"] += 1
            self.zookeeper.expire(process.zk.session_id)

    def zk_lose_reply(self, broker_id: int) -> None:
        """The broker's next write is done, but it loses its connection before the answer."""
        process = self.nodes[broker_id].process
        if process is not None:
            self.trace.add("fault", f"the next ZooKeeper reply to {broker_id} is lost")
            process.zk.lose_next_reply()

    def zk_lose_request(self, broker_id: int) -> None:
        """The broker's next write never arrives, and it loses its connection."""
        process = self.nodes[broker_id].process
        if process is not None:
            self.trace.add("fault", f"the next ZooKeeper request of {broker_id} is lost")
            process.zk.lose_next_request()

    def zk_late_write(self, broker_id: int, seconds: float) -> None:
        """The broker loses its connection over its next write, which nobody sees for ``seconds`` more."""
        process = self.nodes[broker_id].process
        if process is not None:
            self.trace.add("fault", f"the next ZooKeeper write of {broker_id} is seen {seconds:.3f} s late")
            process.zk.delay_next_write(seconds)

    def zk_slow(self, broker_id: int, seconds: float) -> None:
        """Each message between the broker and the ensemble takes so much longer; 0 is over."""
        process = self.nodes[broker_id].process
        if process is not None:
            self.trace.add("fault", f"ZooKeeper is slower for {broker_id} by {seconds:.3f} s")
            process.zk.slower_s = seconds

    def zk_cut(self, broker_id: int, *, silently: bool | None = None) -> None:
        """The broker's connection to the ensemble breaks, at once or (``silently``) with nothing arriving any more in
        either direction, and no other can be made; None: one of the two."""
        node = self.nodes[broker_id]
        node.is_cut_from_zookeeper = True
        process = node.process
        if silently is None:
            silently = self.random.random() < 0.6
        self.trace.add("fault", f"cut {broker_id} from ZooKeeper{' silently' if silently else ''}")
        if process is None:
            return
        if silently or process.is_paused:
            process.zk.cut()
        else:
            process.call(0.0, "fault", "ZooKeeper cut", process.zk.disconnect)

    def zk_heal(self, broker_id: int) -> None:
        node = self.nodes[broker_id]
        if node.is_cut_from_zookeeper:
            self.trace.add("fault", f"heal {broker_id} to ZooKeeper")
            node.is_cut_from_zookeeper = False
            if node.process is not None:
                node.process.zk.reconnect()

    def zk_away(self) -> None:
        """The whole ensemble is away."""
        if self.zookeeper.is_serving:
            self.trace.add("fault", "ZooKeeper is away")
            self.zookeeper.stop()

    def zk_back(self) -> None:
        if not self.zookeeper.is_serving:
            self.trace.add("fault", "ZooKeeper is back")
            self.zookeeper.start()

    def delete_znode(self, path: str) -> bool:
        """Somebody deletes a znode by hand; False if there is none."""
        if self.zookeeper.data(path) is None:
            return False
        self.trace.add("fault", f"delete {path} by hand")
        self.zookeeper.write(Delete(path))
        return True

    # Disks

    def disk_full(self, broker_id: int, is_full: bool = True) -> None:
        """Nothing can be written or created (ENOSPC), until it is called with False."""
        self.trace.add("fault", f"disk of {broker_id} is {'full' if is_full else 'not full any more'}")
        self.nodes[broker_id].disk.is_full = is_full

    def disk_fails(self, broker_id: int, is_failing: bool = True) -> None:
        """Every operation of the disk fails (EIO)."""
        self.trace.add("fault", f"disk of {broker_id} {'fails' if is_failing else 'works again'}")
        self.nodes[broker_id].disk.is_failing = is_failing

    def disk_slow(self, broker_id: int, seconds: float, write_seconds: float = 0.0) -> None:
        """Jobs in threads (fsync) take ``seconds`` longer, and each write holds up the reactor; 0 is over."""
        self.trace.add("fault", f"disk of {broker_id} is slower by {seconds:.3f} s, writes by {write_seconds:.3f} s")
        node = self.nodes[broker_id]
        node.disk_delay_s, node.write_delay_s = seconds, write_seconds

    def tear(self, broker_id: int) -> str | None:
        """The newest unflushed write to a log of a broker that is down is only partly there; which, or None."""
        node = self.nodes[broker_id]
        if node.process is not None:
            return None
        found = node.disk.tear(self.random, ".log")
        self.trace.add("fault", f"torn write on the disk of {broker_id}: {found}")
        if found is not None:
            node.losses += 1
        return found

    def flip_bit(self, broker_id: int, suffix: str = ".log") -> str | None:
        """One bit of one file of the broker's disk changes; which, or None if there is no such file with content."""
        found = self.nodes[broker_id].disk.flip_bit(self.random, suffix)
        self.trace.add("fault", f"bit flip on the disk of {broker_id}: {found}")
        return found

    def heal_all(self) -> None:
        """Every fault ends, and every broker runs."""
        self.trace.add("fault", "all heal")
        self.network.heal_all()
        self.zk_back()
        for broker_id, node in self.nodes.items():
            self.disk_full(broker_id, False)
            self.disk_fails(broker_id, False)
            self.disk_slow(broker_id, 0.0)
            self.trust_again(broker_id)
            node.clock.drift(1.0)
            self.zk_heal(broker_id)
            if node.process is not None:
                node.process.zk.slower_s = 0.0
            if node.process is None:
                self.start(broker_id)
            else:
                self.resume(broker_id)
                node.process.kill_at_change(-1)

"""A whole cluster in one process and one thread: every broker, the ensemble, the network, from one seed."""

from __future__ import annotations

import functools
import gc
import json
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.logger import LogLevel, formatEvent, globalLogBeginner, globalLogPublisher
from twisted.python.failure import Failure

from tests.fakes.crash_disk import CrashDisk
from tests.fakes.zookeeper import FakeZooKeeper
from tests.fakes.zookeeper_connection import PINGS_PER_TIMEOUT
from tests.simulation.events import Event, EventQueue
from tests.simulation.network import Network
from tests.simulation.process import SAID_OTHERWISE, WALL_BASE_S, Node, Process, ProcessGoneError
from tests.simulation.settings import WorldSettings
from tests.simulation.strikes import Strikes
from tests.simulation.trace import Trace
from tests.simulation.violation import Violation
from zkbroker.model.config import BrokerConfig
from zkbroker.model.config.broker import Setting
from zkbroker.model.config.build import build_broker_config
from zkbroker.zookeeper.client import Create, Delete, MultiResult, Op, SetData, Stat

__all__ = ["Checker", "Node", "Violation", "World", "WorldSettings"]

CommitListener = Callable[[str, bytes | None, int, int, int], None]
"""Path, data (None: deleted), version (-1: deleted), session id (0: none), zxid of the transaction."""


class Checker(Protocol):
    """Looks at the world after each step. Raises Violation."""

    def after_step(self, world: World) -> None: ...


class World(Strikes):
    """The cluster of one seed. ``step`` delivers one event."""

    def __init__(self, seed: int, settings: WorldSettings | None = None) -> None:
        self.seed = seed
        self.settings = settings if settings is not None else WorldSettings()
        self.random = random.Random(seed)
        self.queue = EventQueue()
        self.trace = Trace(self.queue, self.settings.trace_lines_max)
        self.steps = 0
        self.counts: Counter[str] = Counter()
        self.checkers: list[Checker] = []
        self.on_commit: list[CommitListener] = []
        self.current: Process | None = None
        """Whose code runs just now."""
        self.ran: Process | None = None
        """Whose code ran in the last step; None where it was nobody's, or where a fault struck."""
        self.is_idle_step = False
        """The event under way does nothing in a simulation, and so is no step."""
        self._failure: Violation | None = None
        self._states: dict[str, tuple[int, list[int]]] = {}
        """Leader and ISR by the path of the state znode, as committed."""
        self._configs: dict[int, BrokerConfig] = {}
        self.zookeeper = FakeZooKeeper(_ServerTimers(self), _TrueClock(self), latency=self._zookeeper_latency)
        self.zookeeper.committed = self._committed
        self.zookeeper.noted = self._zookeeper_noted
        self.zookeeper.expiry_late_s = lambda: self.random.uniform(
            -self.settings.session_timeout_s / PINGS_PER_TIMEOUT, self.settings.zookeeper_tick_s
        )
        self.network = Network(self)
        self.nodes: dict[int, Node] = {}
        for broker_id in range(1, self.settings.brokers + 1):
            node = self.nodes[broker_id] = Node(self, broker_id)
            self.network.add_host(broker_id, node.host)
        # Before a program has begun its logging Twisted keeps all of it, and prints failures.
        _muffle_once()
        self._early_observer: Any = globalLogBeginner._temporaryObserver
        if self._early_observer is not None:
            globalLogPublisher.removeObserver(self._early_observer)
        # Collections come at fixed steps, and find nothing of an earlier world.
        self._collects = gc.isenabled()
        gc.disable()
        gc.collect()
        _freeze_once()
        globalLogPublisher.addObserver(self._logged)
        self._handler = _Lines(self)
        logging.getLogger("zkbroker").addHandler(self._handler)

    def __repr__(self) -> str:
        return f"World(seed={self.seed} steps={self.steps} now={self.now:.3f} {list(self.nodes.values())})"

    def close(self) -> None:
        """Take the log's observer away again. The world is of no use afterwards."""
        globalLogPublisher.removeObserver(self._logged)
        if self._early_observer is not None:
            globalLogPublisher.addObserver(self._early_observer)
        logging.getLogger("zkbroker").removeHandler(self._handler)
        if self._collects:
            gc.enable()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def now(self) -> float:
        """True seconds since the world began."""
        return self.queue.now

    def config(self, broker_id: int) -> BrokerConfig:
        config = self._configs.get(broker_id)
        if config is None:
            values = self.settings.broker_config(broker_id)
            settings = [Setting(key, text, "simulation") for key, text in values.items()]
            config = self._configs[broker_id] = build_broker_config(settings)
        return config

    # Running

    def step(self) -> bool:
        """Deliver one event. False if nothing is left to happen. Raises Violation."""
        event = self.queue.pop()
        if event is None:
            return False
        self.steps += 1
        call, args = event.call, event.args
        event.call, event.is_done, event.args = None, True, ()
        owner: Any = event.owner
        if event.text:
            self.trace.entry(owner.node.broker_id if owner is not None else 0, event.kind, event.text)
        self.current = self.ran = owner
        try:
            call(*args)  # type: ignore[misc]
        except ProcessGoneError:
            pass
        except Violation:
            raise
        except Exception as error:
            if owner is None:
                raise
            self.broker_failed(owner, f"in {event.kind} {event.text}", Failure(error))
        finally:
            self.current = None
        if owner is not None and owner.node.clock.ahead_s:
            owner.busy_until = self.queue.now + owner.node.clock.ahead_s
            owner.node.clock.ahead_s = 0.0
        if self.is_idle_step:
            self.is_idle_step = False
            self.steps -= 1
            return True
        every = self.settings.collect_every_steps
        if every and self.steps % every == 0:
            gc.collect()
        for checker in self.checkers:
            checker.after_step(self)
        if self._failure is not None:
            raise self._failure
        return True

    def run_steps(self, count: int) -> None:
        until = self.steps + count
        while self.steps < until and self.step():
            pass

    def run_until(self, condition: Callable[[], object], seconds_max: float) -> bool:
        """Step until ``condition`` holds, True, or until ``seconds_max`` have passed, False."""
        until = self.now + seconds_max
        while not condition():
            if self.queue.next_time() > until:
                self.queue.now = max(self.now, until)
                return False
            self.step()
        return True

    def run_for(self, seconds: float) -> None:
        self.run_until(lambda: False, seconds)

    def call_later(self, delay: float, kind: str, function: Callable[[], object], text: str = "") -> Event:
        """Something outside of the brokers: a client acts, a fault strikes."""
        return self.queue.add(self.now + delay, None, kind, text, function)

    # What processes tell

    def broker_failed(self, process: Process, where: str, failure: Failure) -> None:
        """An exception that a broker's code did not handle."""
        if not process.is_alive or failure.check(ProcessGoneError) is not None:
            return
        text = f"{process!r} {where}: {failure.getErrorMessage()}\n{failure.getTraceback()}"
        self.trace.entry(process.node.broker_id, "FAILURE", text)
        self._fail(Violation(0, text))

    def process_exited(self, process: Process, reason: str | None) -> None:
        """A process ended by itself."""
        self.trace.entry(process.node.broker_id, "exit", reason or "stopped")
        self.counts["exits"] += 1
        disk_is_well = not (process.disk.is_full or process.disk.is_failing)
        if reason is not None and reason.startswith(("start failed:", "the shutdown failed:")) and disk_is_well:
            # Not a reason that it knows, but an exception.
            self._fail(Violation(0, f"{process!r} ended: {reason}"))
        self.process_gone(process)

    def _fail(self, violation: Violation) -> None:
        if self._failure is None:
            self._failure = violation

    def process_gone(self, process: Process, *, disk: CrashDisk | None = None, silently: bool = False) -> None:
        """Nothing of this process is left but its disk, and what its kernel still says."""
        if not process.is_alive:
            return
        self.network.process_ended(process, silently=silently)
        process.is_alive = False
        process.zk.kill()
        node = process.node
        node.process = None
        node.clock.ahead_s = 0.0
        node.disk = disk if disk is not None else process.disk.handed_over()

    def dies_at_change(self, node: Node, process: Process, operation: str) -> None:
        self.trace.entry(node.broker_id, "dies", f"ahead of: {operation}")
        self.counts["deaths_at_a_change"] += 1
        # The code that is left by the exception may still clean up: that is done to another image.
        disk = process.disk
        image = disk.power_lost(self.random) if node.loses_unflushed else disk.killed()
        self.count_death(node, node.loses_unflushed)
        self.process_gone(process, disk=image)

    def count_death(self, node: Node, lose_unflushed: bool) -> None:
        self.counts["kills"] += 1
        if lose_unflushed:
            self.counts["power_losses"] += 1
            node.losses += 1
            node.is_lossy = True

    def _logged(self, event: dict[str, Any]) -> None:
        process = self.current
        failure = event.get("log_failure")
        if failure is not None:
            where = f"logs {formatEvent(event)}"
            if process is not None:
                self.broker_failed(process, where, failure)
            elif failure.check(ProcessGoneError) is None:
                self._fail(Violation(0, f"{where}: {failure.getErrorMessage()}\n{failure.getTraceback()}"))
            return
        if process is not None and process.is_alive and event.get("log_level", LogLevel.info) >= LogLevel.info:
            process.log(formatEvent(event))

    # ZooKeeper

    def _zookeeper_latency(self) -> float:
        settings = self.settings
        if self.random.random() < settings.zookeeper_late_share:
            return self.random.random() * settings.zookeeper_late_s_max
        return settings.zookeeper_s_min + self.random.random() * (settings.zookeeper_s_max - settings.zookeeper_s_min)

    def _zookeeper_noted(self, session: str, at_server: bool, what: str, path: str) -> None:
        """``session`` is named by the broker's id."""
        self.trace.entry(
            0 if at_server else int(session), "zk", f"{session}: {what} {path}" if at_server else f"{what} {path}"
        )

    def _committed(self, ops: Sequence[Op], results: Sequence[MultiResult], session_id: int) -> None:
        zxid = self.zookeeper.tree.zxid
        for op, result in zip(ops, results, strict=True):
            data: bytes | None = None
            path, version = op.path, -1
            if isinstance(op, Create):
                path, data, version = str(result), op.data, 0
            elif isinstance(op, SetData):
                data, version = op.data, result.version if isinstance(result, Stat) else -1
            elif not isinstance(op, Delete):
                continue
            self._count_commit(path, data, version, session_id)
            self.trace.entry(0, "zk", f"{'delete' if data is None else 'write'} {path} v{version} {_short(data)}")
            for listener in self.on_commit:
                listener(path, data, version, session_id, zxid)

    def _count_commit(self, path: str, data: bytes | None, version: int, session_id: int) -> None:
        if path.endswith("/state"):
            self._count_state(path, data)
        elif path == "/controller":
            self.counts["controllers"] += data is not None
        elif path.startswith("/brokers/ids/"):
            # Neither its own session's end, nor itself, nor a person: the controller fenced it.
            self.counts["fast_fences"] += data is None and self.broker_of_session(session_id) not in (0, int(path[13:]))

    def broker_of_session(self, session_id: int) -> int:
        """The broker whose process has this session; 0 if none has."""
        for node in self.nodes.values():
            if node.process is not None and node.process.zk.session_id == session_id:
                return node.broker_id
        return 0

    def _count_state(self, path: str, data: bytes | None) -> None:
        before = self._states.pop(path, None)
        try:
            state = json.loads(data or b"")
            leader, isr = int(state["leader"]), list(state["isr"])
        except (ValueError, KeyError, TypeError):
            return
        self._states[path] = leader, isr
        if before is not None:
            self.counts["elections"] += leader not in (-1, before[0])
            self.counts["isr_shrinks"] += any(one not in isr for one in before[1])
            self.counts["isr_expansions"] += any(one not in before[1] for one in isr)


@functools.cache
def _muffle_once() -> None:
    """What is left of killed processes when a world is gone is nothing to print."""
    early: Any = globalLogBeginner._temporaryObserver
    if early is None:
        return

    def muffled(event: dict[str, Any]) -> None:
        failure = event.get("log_failure")
        if failure is None:
            # A heading of a failure would stand alone.
            is_told = not event.get("isError")
        else:
            is_told = failure.check(ProcessGoneError) is None
        if is_told:
            early(event)

    globalLogPublisher.removeObserver(early)
    observer: Any = muffled
    globalLogPublisher.addObserver(observer)
    globalLogBeginner._temporaryObserver = observer


@functools.cache
def _freeze_once() -> None:
    """What is there before the first world is never garbage, and need not be looked at again and again."""
    gc.freeze()


class _Lines(logging.Handler):
    """What packages say through ``logging``."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.INFO)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        process = self._world.current
        if process is not None:
            process.log(record.getMessage())


def _short(data: bytes | None) -> str:
    return "" if data is None else data[:200].decode("utf-8", "backslashreplace")


class _ServerTimers:
    """The ensemble's own events."""

    def __init__(self, world: World) -> None:
        self._world = world

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> Event:  # noqa: A002
        queue = self._world.queue
        text = getattr(callable, "__qualname__", None) or type(callable).__name__
        return queue.add(queue.now + delay, None, "zk", SAID_OTHERWISE.get(text, text), callable, *args)


class _TrueClock:
    """The ensemble's clocks."""

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return self._world.queue.now

    def wall_ms(self) -> int:
        return int((WALL_BASE_S + self._world.queue.now) * 1000)

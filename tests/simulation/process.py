"""One simulated broker process: the whole ``Broker`` on a reactor, clocks, threads, disk and ZooKeeper session that are
all events of the world; and the node (machine) that its processes run on one after the other."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.fakes.cleaner import start_stepped
from tests.fakes.crash_disk import CrashDisk
from tests.fakes.zookeeper_session import FakeSession
from tests.simulation.events import Event
from tests.simulation.transport import Listener, Transport
from zkbroker.broker.lifecycle import Broker
from zkbroker.broker.listening import BoundSocket
from zkbroker.broker.parts import Parts
from zkbroker.kafka.listener import preload_hot
from zkbroker.model.cluster import Endpoint

if TYPE_CHECKING:
    from tests.simulation.world import World

WALL_BASE_S = 1_700_000_000.0
"""What wall clocks say when a world begins."""


SAID_OTHERWISE = {"FakeConnection._server_turn": "", "FakeConnection._client_turn": "", "LoopingCall": ""}
"""Events whose names say less than what the trace has of them otherwise, or nothing."""


class ProcessGoneError(BaseException):
    """Raised through code of a process that was killed meanwhile; what catches it does nothing that anybody sees."""


class NodeClock:
    """The clocks of a machine: fast or slow, and ahead while its process waits inside a call."""

    def __init__(self, world: World) -> None:
        self._queue = world.queue
        self._rate = 1.0
        self._true_base = 0.0
        self._base = 100.0 + world.random.random() * 1000.0
        self._wall_ahead_s = world.random.uniform(-0.5, 0.5)
        self.ahead_s = 0.0

    def __repr__(self) -> str:
        return f"NodeClock({self.monotonic():.6f} rate {self._rate})"

    @property
    def rate(self) -> float:
        return self._rate

    def monotonic(self) -> float:
        return self._base + (self._queue.now + self.ahead_s - self._true_base) * self._rate

    def wall_ms(self) -> int:
        passed = self._true_base + (self._queue.now + self.ahead_s - self._true_base) * self._rate
        return int((WALL_BASE_S + self._wall_ahead_s + passed) * 1000)

    def drift(self, rate: float) -> None:
        """Seconds of this clock per true second from now on."""
        now = self.monotonic()
        self._wall_ahead_s += (self._queue.now - self._true_base) * (self._rate - 1.0)
        self._base, self._true_base, self._rate = now, self._queue.now, rate

    def jump_wall(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self._wall_ahead_s += seconds

    def booted(self, seconds: float) -> None:
        """The machine starts again: its monotonic clock begins anew."""
        self._base, self._true_base = seconds, self._queue.now


class SimReactor:
    """What brokers ask of a reactor, for one process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self._queue = process.world.queue
        self._random = process.world.random
        self._soon_at = 0.0

    def seconds(self) -> float:
        return self._process.node.clock.monotonic()

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any, **kwargs: Any) -> Event:  # noqa: A002
        if delay < 0:
            raise ValueError(f"callLater({delay})")
        process = self._process
        if kwargs:
            function = callable

            def callable(*args: Any) -> object:  # noqa: A001
                return function(*args, **kwargs)

        clock = process.node.clock
        now = self._queue.now + clock.ahead_s
        if delay:
            # Timers are late by a little, never early.
            at = now + delay / clock.rate + self._random.random() * 0.001
        else:
            # In the order asked for, with room for what arrives between.
            at = self._soon_at = max(self._soon_at, now + self._random.random() * 0.0001)
        text = getattr(callable, "__qualname__", None) or type(callable).__name__
        return self._queue.add(at, process, "timer", SAID_OTHERWISE.get(text, text), callable, *args)

    def callFromThread(self, callable: Callable[..., object], *args: Any, **kwargs: Any) -> None:  # noqa: A002
        self.callLater(0, callable, *args, **kwargs)

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        return self._world.network.connect(self._process, host, port, factory, timeout)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Listener:
        return self._world.network.add_listener(self._process, fileDescriptor, factory)


class _Socket:
    """A bound socket; its descriptor is its port."""

    family = socket.AF_INET

    def __init__(self, host: str, port: int) -> None:
        self._name = host, port

    def getsockname(self) -> tuple[str, int]:
        return self._name

    def fileno(self) -> int:
        return self._name[1]

    def listen(self, backlog: int) -> None:
        """``adoptStreamPort`` follows at once."""

    def close(self) -> None:
        """The port lives on in the reactor."""


class Process:
    """One run of a broker, from its start to its end. What it left behind in the queue goes with it."""

    def __init__(self, world: World, node: Node, number: int) -> None:
        self.world = world
        self.node = node
        self.number = number
        self.is_alive = True
        self.is_paused = False
        self.busy_until = 0.0
        self.held: list[Event] = []
        """Events that wait for SIGCONT."""
        self.connections: dict[Transport, None] = {}
        self.listeners: list[Listener] = []
        self.disk = node.disk
        self.reactor = SimReactor(self)
        self.exit_reason: str | None = None
        """Why it ended by itself; None after a stop that was asked for, or while it lives."""
        self.zk: FakeSession = world.zookeeper.session(
            session_timeout_s=world.settings.session_timeout_s,
            name=str(node.broker_id),
            reactor=self.reactor,
            clock=node.clock,
        )
        self._changes_left = -1
        self.disk.cached = self._cached
        self.disk.before_change = self._before_change
        self.broker = Broker(
            config=world.config(node.broker_id),
            reactor=self.reactor,
            clock=node.clock,
            source=random.Random(world.random.getrandbits(64)),
            disk=self.disk,
            run_in_thread=self.run_in_thread,
            zk=self.zk,
            close_session=self._close_session,
            watchdog=_IdleWatchdog(self),
            log=self.log,
            fatal=self._fatal,
            ended=self._ended,
            bind=self._bind,
            boot_id=f"boot-{self.disk.boots}",
            start_cleaner=start_stepped(self.disk, self.run_in_thread),
        )

    def __repr__(self) -> str:
        return f"broker-{self.node.broker_id}.{self.number}"

    def true_now(self) -> float:
        """True time as this process lives it: ahead of the queue's while it waits inside a call."""
        return self.world.queue.now + self.node.clock.ahead_s

    def call(self, delay: float, kind: str, text: str, function: Callable[..., object], *args: Any) -> Event:
        """Run something in this process, ``delay`` true seconds from now; not if it is dead then, later if stopped."""
        return self.world.queue.add(self.world.queue.now + delay, self, kind, text, function, *args)

    def log(self, line: str) -> None:
        if self.is_alive:
            self.world.trace.entry(self.node.broker_id, "log", line)
            if ": truncating [" in line:
                self.world.counts["truncations_with_bytes"] += 1

    def run_in_thread(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        text = getattr(function, "__qualname__", "") or type(function).__name__
        settings = self.world.settings
        delay = self.node.clock.ahead_s + self.node.disk_delay_s
        delay += self.world.random.expovariate(1 / settings.thread_s_mean)
        if function is preload_hot:
            # Modules of this machine, not of the simulated one.
            self.call(delay, "thread", text, done.callback, None)
        else:
            self.call(delay, "thread", text, self._job, text, done, function, args)
        return done

    def _job(self, text: str, done: Deferred[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        result: Any
        try:
            result = function(*args)
        except Exception:
            result = Failure()
        delay = self.world.random.random() * 0.0005
        self.call(
            delay, "thread", f"{text} done", done.errback if isinstance(result, Failure) else done.callback, result
        )

    def _close_session(self, session_id: int, password: bytes) -> Deferred[bool]:
        done: Deferred[bool] = Deferred()
        self.world.zookeeper.close_session(session_id, password).addCallback(
            lambda closed: self.reactor.callFromThread(done.callback, closed)
        )
        return done

    def logs_are_open(self) -> None:
        """Some processes have so little memory for the tails of their logs that they read from their disks."""
        logs, random = self.broker._logs, self.world.random
        if logs is not None and random.random() < self.world.settings.small_tails_share:
            logs._context.tails.bytes_max = random.randint(0, 1000)

    def _cached(self, size: int) -> int | None:
        """Most reads find all of it in the page cache, some a part or nothing."""
        random = self.world.random
        if random.random() >= self.world.settings.cold_share:
            return size
        return random.randint(1, size) if size and random.random() < 0.5 else None

    def _bind(self, endpoint: Endpoint) -> BoundSocket:
        bound: Any = _Socket(self.node.host, endpoint.port)
        return BoundSocket(endpoint.listener, bound, endpoint.port)

    def _fatal(self, event: str, error: BaseException) -> None:
        if self.is_alive:
            self.world.broker_failed(self, f"FATAL {event}", Failure(error))
            self.world.process_gone(self)
        raise ProcessGoneError

    def _ended(self, reason: str | None) -> None:
        if self.is_alive:
            self.exit_reason = reason
            self.world.process_exited(self, reason)

    # Death inside a callback

    def kill_at_change(self, count: int) -> None:
        """Die ahead of the ``count``-th change of the disk from now (0: the next one), wherever that is."""
        self._changes_left = count

    def _before_change(self, operation: str) -> None:
        if not self.is_alive:
            raise ProcessGoneError
        self.node.clock.ahead_s += self.node.write_delay_s
        if self._changes_left >= 0:
            self._changes_left -= 1
            if self._changes_left < 0:
                self.node.dying(self, operation)
                raise ProcessGoneError


class _IdleWatchdog:
    """Its own thread is what makes a watchdog: there is none here, and its ticks are no steps."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def start(self) -> None:
        self._process.logs_are_open()

    def tick(self) -> None:
        self._process.world.is_idle_step = True

    def stop(self) -> None: ...


class Node:
    """A machine with a disk and clocks, on which a broker's processes run one after the other."""

    def __init__(self, world: World, broker_id: int) -> None:
        self.world = world
        self.broker_id = broker_id
        self.host = f"broker-{broker_id}"
        self.disk = CrashDisk()
        self.clock = NodeClock(world)
        self.process: Process | None = None
        self.processes = 0
        self.disk_delay_s = 0.0
        """How much longer jobs in threads take: a slow disk."""
        self.write_delay_s = 0.0
        """How long each change of the disk holds up the reactor."""
        self.is_cut_from_zookeeper = False
        self.is_deaf = False
        """While a firewall rejects: its own connects get no answer either."""
        self.losses = 0
        """How often unflushed data may have gone: a power loss, a torn write."""
        self.is_lossy = False
        """The next start is one without the unflushed data."""
        self.loses_unflushed = False
        """What a death at a disk change takes along."""

    def __repr__(self) -> str:
        return f"Node({self.broker_id} {'up' if self.is_running else 'down'})"

    @property
    def is_running(self) -> bool:
        return self.process is not None

    @property
    def is_paused(self) -> bool:
        return self.process is not None and self.process.is_paused

    @property
    def broker(self) -> Broker | None:
        """Of the running process."""
        return None if self.process is None else self.process.broker

    @property
    def parts(self) -> Parts | None:
        """Of the running process, from its registration on."""
        return None if self.process is None else self.process.broker._parts

    @property
    def is_ready(self) -> bool:
        """Whether its Kafka listener would answer: the first snapshot is applied, and it is not stopping."""
        parts = self.parts
        if parts is None or not parts.metadata.is_ready or self.process is None:
            return False
        return any(listener.port == self.world.settings.kafka_port for listener in self.process.listeners)

    def dying(self, process: Process, operation: str) -> None:
        self.world.dies_at_change(self, process, operation)

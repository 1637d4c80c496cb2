"""The network of a simulated world: listening ports, connections, and what happens to them.

A connection is two ends, each a Twisted transport, and two pipes. A pipe carries bytes in order with a random delay,
cut into random pieces or joined; connections overtake one another. As the kernel does, a pipe goes on carrying what its
writer's process left when that process is killed, and then says FIN, or RST where the dead process had unread bytes.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from twisted.internet import error
from twisted.internet.address import IPv4Address

from tests.simulation.transport import Connector, End, Listener, Pipe, Transport

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

CLIENT_PORT_FIRST = 40_000
SYN_AGAIN_S = 1.0
"""A connect that gets no answer is sent again after so long, as Linux does."""


class HostState(Enum):
    """What connects to a host meet, besides its listening ports."""

    UP = "up"
    REJECTS = "rejects"
    """A firewall answers every connect with a reset, though the processes live."""
    SILENT = "silent"
    """No answer at all: the machine is gone, or its cable."""
    UNREACHABLE = "unreachable"
    """A router says that there is no such host."""
    NAME_GONE = "name gone"
    """Its name does not resolve any more."""


class Network:
    """All hosts and what is between them. Node 0 is the world: clients."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._queue = world.queue
        self._random = world.random
        self._listeners: dict[tuple[str, int], Listener] = {}
        self._hosts: dict[str, int] = {}
        self.states: dict[int, HostState] = {}
        self._cuts: dict[tuple[int, int], None] = {}
        self._slow: dict[tuple[int, int], float] = {}
        self._next_client_port = CLIENT_PORT_FIRST
        self._stuck: dict[Pipe, None] = {}
        """Pipes with something to deliver across a cut."""

    # Hosts

    def add_host(self, node_id: int, host: str) -> None:
        self._hosts[host] = node_id
        self.states[node_id] = HostState.UP

    def add_listener(self, process: Process, port: int, factory: Any) -> Listener:
        listener = self._listeners[process.node.host, port] = Listener(self, process, port, factory)
        process.listeners.append(listener)
        return listener

    def remove_listener(self, listener: Listener) -> bool:
        key = (listener.process.node.host, listener.port)
        if self._listeners.get(key) is not listener:
            return False
        del self._listeners[key]
        return True

    def is_cut(self, source: int, target: int) -> bool:
        return bool(self._cuts) and (source, target) in self._cuts

    def latency(self) -> float:
        """Seconds one way; now and then a packet is late."""
        settings = self._world.settings
        random = self._random
        if random.random() < settings.late_share:
            return random.random() * settings.late_s_max
        return settings.latency_s_min + random.random() * (settings.latency_s_max - settings.latency_s_min)

    def soon(self, process: Process, kind: str, call: Any, *args: Any) -> None:
        """Something that the process's own kernel tells it."""
        self._queue.add(self._queue.now + self._random.random() * 0.0002, process, "net", kind, call, *args)

    # Connecting

    def connect(self, process: Process, host: str, port: int, factory: Any, timeout: float) -> Connector:
        connector = Connector(self, process, host, port, factory, timeout)
        if process.is_alive:
            self._queue.add(
                process.true_now() + self.latency(), None, "net", f"SYN to {host}:{port}", self._syn, connector
            )
        return connector

    def _syn(self, connector: Connector) -> None:
        """A connect arrives at the other host's kernel, which answers whatever its processes do."""
        process = connector.process
        if connector.is_over or not process.is_alive:
            return
        source, target = process.node.broker_id, self._hosts.get(connector.host, -1)
        state = self.states.get(target, HostState.NAME_GONE)
        if state is HostState.NAME_GONE:
            self._answer(process, connector.fail, error.DNSLookupError())
        elif state is HostState.UNREACHABLE:
            self._answer(process, connector.fail, error.NoRouteError())
        elif state is HostState.SILENT or self.is_cut(source, target) or self.is_cut(target, source):
            again_at = self._queue.now + SYN_AGAIN_S
            self._queue.add(
                again_at, None, "net", f"SYN again to {connector.host}:{connector.port}", self._syn, connector
            )
        elif self.states[source] is not HostState.UP and self._world.nodes[source].is_deaf:
            # The answer does not get through the caller's own firewall.
            again_at = self._queue.now + SYN_AGAIN_S
            self._queue.add(
                again_at, None, "net", f"SYN again to {connector.host}:{connector.port}", self._syn, connector
            )
        else:
            listener = self._listeners.get((connector.host, connector.port))
            if listener is None or state is HostState.REJECTS:
                self._answer(process, connector.fail, error.ConnectionRefusedError())
            else:
                self._accept(connector, listener)

    def _answer(self, process: Process, call: Any, *args: Any) -> None:
        self._queue.add(self._queue.now + self.latency(), process, "net", "connect answered", call, *args)

    def _accept(self, connector: Connector, listener: Listener) -> None:
        caller, called = connector.process, listener.process
        port = self._next_client_port = self._next_client_port + 1
        caller_address = IPv4Address("TCP", caller.node.host, port)
        called_address = IPv4Address("TCP", connector.host, connector.port)
        settings = self._world.settings
        limit = self._random.randint(settings.send_buffer_bytes_min, settings.send_buffer_bytes_max)
        near = Transport(self, caller, caller_address, called_address, limit)
        far = Transport(self, called, called_address, caller_address, limit)
        there, back = Pipe(), Pipe()
        there.writer, there.reader = near, far
        back.writer, back.reader = far, near
        near.outgoing, near.incoming = there, back
        far.outgoing, far.incoming = back, there
        caller.connections[near] = None
        called.connections[far] = None
        self.soon(called, f"accepts {caller.node.host}:{port}", far.made, listener.factory)
        self._answer(caller, connector.made, near)

    # Carrying

    def carry(self, pipe: Pipe) -> None:
        """Set off what was put into the pipe."""
        at = pipe.writer.process.true_now() + self.latency()
        if self._slow:
            at += self._slow.get((pipe.writer.process.node.broker_id, pipe.reader.process.node.broker_id), 0.0)
        owner = None if pipe.is_blackhole else pipe.reader.process
        pipe.event = self._queue.add(at, owner, "net", "", self._arrive, pipe)

    def carry_again(self, pipe: Pipe) -> None:
        """The reader takes bytes (again)."""
        if pipe.event is None and (pipe.size or pipe.end is not None):
            self.carry(pipe)

    def _arrive(self, pipe: Pipe) -> None:
        reader = pipe.reader
        pipe.event = None
        if pipe.is_blackhole:
            self._unknown(pipe)
            return
        if reader.is_gone:
            return
        source, target = pipe.writer.process.node.broker_id, reader.process.node.broker_id
        if self.is_cut(source, target):
            self._stuck[pipe] = None
            return
        if reader.protocol is None:
            # The process does not know of the connection yet; whatever came first, it learns of that first.
            return
        if pipe.size:
            if not reader.is_reading:
                return
            size = pipe.size
            if size > 1 and self._random.random() < self._world.settings.split_share:
                size = self._random.randint(1, size - 1)
            data = pipe.take(size)
            self._world.trace.entry(target, "net", b"from %d: %b" % (source, data))
            pipe.writer.room_made()
            if not reader.disconnecting:
                reader.protocol.dataReceived(data)
            if pipe.event is None and (pipe.size or pipe.end is not None):
                self.carry(pipe)
        elif pipe.end is not None:
            self._world.trace.entry(target, "net", f"{pipe.end.value} from {source}")
            if pipe.end is End.RST:
                reader.outgoing.chunks.clear()
                reader.outgoing.size = 0
                reader.lost(error.ConnectionLost("Connection reset by peer"))
            else:
                # Twisted closes its own side at once.
                self.close(reader)
                reader.lost(error.ConnectionDone())

    def _unknown(self, pipe: Pipe) -> None:
        """Bytes for a machine that went without a word: one that is back has never heard of the connection."""
        node = pipe.reader.process.node
        if node.process is not None and self.states[node.broker_id] is HostState.UP and not pipe.writer.is_gone:
            self._end_with_reset(pipe.writer.incoming)

    # Ending

    def close(self, transport: Transport) -> None:
        """What the kernel does when a process closes a socket or ends: it sends what is left and FIN; RST instead if
        there were unread bytes, and then some of what was left may be lost."""
        outgoing, incoming = transport.outgoing, transport.incoming
        if outgoing.end is None:
            if incoming.size and self._random.random() < 0.5:
                self._end_with_reset(outgoing)
            else:
                outgoing.end = End.FIN
                self._set_off_end(outgoing)
        incoming.chunks.clear()
        incoming.size = 0

    def reset(self, transport: Transport) -> None:
        """End with RST; a part of what was written may still have been sent."""
        if transport.outgoing.end is not End.RST:
            self._end_with_reset(transport.outgoing)

    def _end_with_reset(self, pipe: Pipe) -> None:
        if pipe.size:
            pipe.keep_only(self._random.randint(0, pipe.size))
        pipe.end = End.RST
        self._set_off_end(pipe)

    def _set_off_end(self, pipe: Pipe) -> None:
        if pipe.event is None and not pipe.reader.is_gone:
            self.carry(pipe)

    def lost_later(self, transport: Transport, reason: error.ConnectionClosed) -> None:
        self.soon(transport.process, "closed", transport.lost, reason)

    def process_ended(self, process: Process, *, silently: bool = False) -> None:
        """Its sockets close; ``silently``: with its machine, so that nobody hears of it."""
        for listener in process.listeners:
            self.remove_listener(listener)
        for transport in list(process.connections):
            if silently:
                incoming = transport.incoming
                incoming.is_blackhole = True
                if incoming.event is not None:
                    incoming.event.cancel()
                    incoming.event = None
                transport.outgoing.keep_only(0)
            else:
                self.close(transport)
            transport.is_gone = True
        process.connections.clear()

    def host_back(self, node_id: int) -> None:
        """A machine that went without a word answers again: who waits for it learns that it knows nothing."""
        for node in self._world.nodes.values():
            for transport in list(node.process.connections) if node.process is not None else ():
                if transport.outgoing.is_blackhole and transport.other.process.node.broker_id == node_id:
                    self.carry_again(transport.outgoing)

    # Faults

    def cut(self, source: int, target: int) -> None:
        """What ``source`` sends to ``target`` is held from now on."""
        self._cuts[source, target] = None

    def heal(self, source: int, target: int) -> None:
        """TCP sends again what was lost meanwhile."""
        if self._cuts.pop((source, target), self) is not None:
            return
        stuck, self._stuck = self._stuck, {}
        for pipe in stuck:
            if self.is_cut(pipe.writer.process.node.broker_id, pipe.reader.process.node.broker_id):
                self._stuck[pipe] = None
            elif not pipe.reader.is_gone:
                self.carry_again(pipe)

    def slow(self, source: int, target: int, seconds: float) -> None:
        """What ``source`` sends to ``target`` takes so much longer."""
        self._slow.pop((source, target), None)
        if seconds:
            self._slow[source, target] = seconds

    def heal_all(self) -> None:
        """No link is cut or slow any more."""
        self._slow.clear()
        for source, target in list(self._cuts):
            self.heal(source, target)

    def reset_connections(self, one: int, other: int) -> int:
        """Both ends of every connection between two nodes (``other`` -1: any) are reset; how many there were."""
        count = 0
        for node in self._world.nodes.values():
            process = node.process
            if process is None or node.broker_id != one:
                continue
            for transport in list(process.connections):
                if other in (-1, transport.other.process.node.broker_id):
                    count += 1
                    self.reset(transport)
                    self.reset(transport.other)
        return count

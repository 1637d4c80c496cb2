"""A firewall without rights: brokers advertise proxies of this process, which can cut one of them off from all others.

Its connections are reset, those it holds to others too (a caller of the line protocol says who it is), and new ones to
it are refused. Its process, and its session with ZooKeeper, go on.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Coroutine
from typing import Any, NamedTuple

from tests.harness.brokers import Cluster

READ_BYTES = 65_536
WAIT_S = 20.0


class _Listener(NamedTuple):
    broker_id: int
    is_replication: bool
    target_port: int
    port: int


class _Passing:
    """One connection through a proxy."""

    def __init__(self, owner: int, transports: list[Any]) -> None:
        self.owner = owner
        self.caller = -1
        self.transports = transports

    def reset(self) -> None:
        for transport in self.transports:
            transport.abort()


class CutOff:
    """Use as a context manager around the cluster: ``attach`` before it starts."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cut off", daemon=True)
        self._listeners: list[_Listener] = []
        self._servers: dict[_Listener, asyncio.Server] = {}
        self._passing: dict[_Passing, None] = {}
        self._cut: set[int] = set()

    def __enter__(self) -> CutOff:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()

    def attach(self, cluster: Cluster) -> None:
        """Have its brokers, which are not started yet, advertise proxies."""
        for broker_id, broker in cluster.brokers.items():
            advertised = []
            for listener in str(broker.settings["listeners"]).split(","):
                name, _, address = listener.partition("://")
                port = int(address.rpartition(":")[2])
                proxy = self._run(self._open(_Listener(broker_id, name == "REPLICATION", port, 0)))
                advertised.append(f"{name}://127.0.0.1:{proxy.port}")
            broker.settings["advertised.listeners"] = ",".join(advertised)

    def cut(self, broker_id: int) -> None:
        """Cut it off from the others and from clients, now."""
        self._run(self._cut_one(broker_id))

    def heal(self) -> None:
        """Let everything through again."""
        self._run(self._heal())

    def _run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result(WAIT_S)

    async def _open(self, listener: _Listener) -> _Listener:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._pass(listener, reader, writer)

        server = await asyncio.start_server(accepted, "127.0.0.1", listener.port, limit=1 << 20)
        port = int(server.sockets[0].getsockname()[1])
        listener = listener._replace(port=port)
        self._servers[listener] = server
        if listener not in self._listeners:
            self._listeners.append(listener)
        return listener

    async def _cut_one(self, broker_id: int) -> None:
        self._cut.add(broker_id)
        for listener, server in list(self._servers.items()):
            if listener.broker_id == broker_id:
                del self._servers[listener]
                server.close()
        for passing in list(self._passing):
            if broker_id in (passing.owner, passing.caller):
                passing.reset()

    async def _heal(self) -> None:
        self._cut.clear()
        for listener in self._listeners:
            if listener not in self._servers:
                await self._open(listener)

    async def _close(self) -> None:
        for server in self._servers.values():
            server.close()
        for passing in list(self._passing):
            passing.reset()
        await asyncio.sleep(0)

    async def _pass(self, listener: _Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passing = _Passing(listener.broker_id, [writer.transport])
        self._passing[passing] = None
        try:
            first = b""
            if listener.is_replication:
                first = await reader.readuntil(b"\n")
                caller = re.search(rb"^HELLO .*\bbroker=(\d+)", first)
                passing.caller = int(caller.group(1)) if caller else -1
            if self._cut & {passing.owner, passing.caller}:
                return
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", listener.target_port)
            passing.transports.append(onward_writer.transport)
            onward_writer.write(first)
            await asyncio.gather(_pump(reader, onward_writer), _pump(onward_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            del self._passing[passing]
            passing.reset()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(READ_BYTES):
        writer.write(data)
        await writer.drain()
    writer.close()

"""Relays between brokers that a test can cut: each broker advertises its relay's port as its REPLICATION listener.

A cut is silent, as in a network that drops packets: connections stay, new ones are accepted, and no byte arrives until
the link is whole again. Who calls is read from the first line that a broker says, its HELLO.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Iterable

from tests.harness.brokers import Cluster

_CALLER = re.compile(rb"^HELLO\b.* broker=(\d+)", re.IGNORECASE)

CHUNK_BYTES = 65_536
LOOK_AGAIN_S = 0.01


class Relays:
    """One for each broker of a cluster that has not been started. Use as a context manager."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._cut: set[tuple[int, int]] = set()
        """(caller, called): what one broker's connections to the other carry is held back, both ways."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relays", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Relays:
        self._thread.start()
        for broker_id, broker in self._cluster.brokers.items():
            _, _, replication = broker.settings["listeners"].rpartition(":")
            starting = asyncio.run_coroutine_threadsafe(self._listen(broker_id, int(replication)), self._loop)
            broker.settings["advertised.listeners"] = (
                f"PLAINTEXT://127.0.0.1:{broker.port},REPLICATION://127.0.0.1:{starting.result(10)}"
            )
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self, links: Iterable[tuple[int, int]]) -> None:
        """Hold back all that callers and called of these links say to each other."""
        self._cut.update(links)

    def isolate(self, broker_id: int) -> None:
        """Nobody reaches it and it reaches nobody; ZooKeeper and clients see nothing of this."""
        others = [other for other in self._cluster.brokers if other != broker_id]
        self.cut([*((broker_id, other) for other in others), *((other, broker_id) for other in others)])

    def heal(self) -> None:
        """All links are whole again: what was held back arrives."""
        self._cut.clear()

    async def _listen(self, broker_id: int, port: int) -> int:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._relay(broker_id, port, reader, writer)
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        return int(server.sockets[0].getsockname()[1])

    async def _relay(self, called: int, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            first = await reader.readline()
            found = _CALLER.search(first)
            link = (int(found.group(1)) if found else 0, called)
            pumps = [
                asyncio.ensure_future(self._pump(link, reader, to_writer, first)),
                asyncio.ensure_future(self._pump(link, to_reader, writer, b"")),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            to_writer.close()

    async def _pump(
        self, link: tuple[int, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes
    ) -> None:
        """Until one side ends, which the other hears only over a link that is whole."""
        while True:
            data = data or await reader.read(CHUNK_BYTES)
            while link in self._cut:
                await asyncio.sleep(LOOK_AGAIN_S)
            if not data:
                return
            writer.write(data)
            await writer.drain()
            data = b""

    async def _close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

"""Members of consumer groups by the hundred in one process, for ``zkbroker-bench groups``.

Each member has a connection of its own to its group's coordinator, heartbeats and commits on it, and when it breaks
looks for the next coordinator as Java's client does: at once, then again and again with a back-off that doubles from
100 ms up to 1 s. Only FindCoordinator goes over a connection that the members share, one to each broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
import time
from collections.abc import Callable, Sequence

from zkbroker.cli import _group_protocol as protocol
from zkbroker.cli._group_protocol import Coordinator
from zkbroker.model.errors import ErrorCode

HEARTBEAT_S = 3.0
BACKOFF_S, BACKOFF_S_MAX = 0.1, 1.0
"""Java's retry.backoff.ms and retry.backoff.max.ms."""
CONNECT_TIMEOUT_S = 5.0
METADATA_BYTES = 100
ASSIGNMENT_BYTES = 50
"""What a consumer of a few partitions sends."""

_GO_ON = (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ErrorCode.COORDINATOR_NOT_AVAILABLE)
"""Ask the same coordinator again after a pause. (Java's client looks for another after the second.)"""


class BackOff:
    def __init__(self) -> None:
        self._seconds = BACKOFF_S

    async def pause(self) -> None:
        await asyncio.sleep(self._seconds * random.uniform(0.8, 1.2))
        self._seconds = min(BACKOFF_S_MAX, 2 * self._seconds)


class Connection:
    """Requests one after the other, each answered before the next."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, host: str, port: int) -> Connection:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            return cls(*await asyncio.open_connection(host, port))

    async def ask(self, key: int, body: bytes) -> bytes:
        """Raises ConnectionError when the broker is gone."""
        async with self._turn:
            self._writer.write(protocol.frame(key, 1, body))
            try:
                (size,) = struct.unpack(">i", await self._reader.readexactly(4))
                return await self._reader.readexactly(size)
            except asyncio.IncompleteReadError:
                raise ConnectionError("closed by the broker") from None

    def close(self) -> None:
        self._writer.close()


class Brokers:
    """Whom to ask for coordinators."""

    def __init__(self, addresses: Sequence[tuple[str, int]]) -> None:
        self._addresses = list(addresses)
        self._connections: dict[tuple[str, int], Connection] = {}

    async def find(self, group: str) -> Coordinator | None:
        """What a broker says, any that answers."""
        for address in random.sample(self._addresses, len(self._addresses)):
            try:
                if address not in self._connections:
                    self._connections[address] = await Connection.open(*address)
                answer = await self._connections[address].ask(
                    protocol.FIND_COORDINATOR, protocol.find_coordinator(group)
                )
                return protocol.read_coordinator(answer)
            except OSError:
                self._connections.pop(address, None)
        return None

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


class Member:
    """One member. ``generation`` is that of its assignment, -1 while it has none."""

    def __init__(self, brokers: Brokers, group: str, topic: str, partition: int, settings: MemberSettings) -> None:
        self.group = group
        self.partition = partition
        self.generation = -1
        self.stable_at_s = 0.0
        """When it got its newest assignment, by time.monotonic()."""
        self.acknowledged_offset = -1
        self.sent_offset = -1
        self.connection_losses = 0
        self.unexpected: list[str] = []
        self._brokers = brokers
        self._topic = topic
        self._settings = settings
        self._member_id = ""
        self._connection: Connection | None = None
        self._joined_generation = -1
        self._is_leader = False
        self._members: tuple[str, ...] = ()
        self._version = 0
        """Part of its metadata: another one asks for a rebalance."""

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                try:
                    if self._connection is None:
                        await self._find()
                    if await self._join() and await self._sync():
                        await self._serve()
                except OSError:
                    self.connection_losses += 1
                    self._version += 1
                    self._leave_connection()
        finally:
            self._leave_connection()

    async def fetch_offset(self) -> int | None:
        """What the coordinator has of its partition; None without an answer yet."""
        connection = self._connection
        if connection is None:
            return None
        body = protocol.offset_fetch(self.group, self._topic, [self.partition])
        error, offsets = protocol.read_offsets(await connection.ask(protocol.OFFSET_FETCH, body))
        return offsets[self.partition] if error is ErrorCode.NONE else None

    def _leave_connection(self) -> None:
        self.generation = -1
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _find(self) -> None:
        back_off = BackOff()
        while self._connection is None:
            found = await self._brokers.find(self.group)
            if found is not None and found.error is ErrorCode.NONE:
                with contextlib.suppress(OSError):
                    self._connection = await Connection.open(found.host, found.port)
                    return
            await back_off.pause()

    async def _ask(self, key: int, body: bytes) -> bytes:
        if self._connection is None:
            raise ConnectionError("no coordinator")
        return await self._connection.ask(key, body)

    async def _join(self) -> bool:
        back_off = BackOff()
        self.generation = -1
        while True:
            metadata = self._version.to_bytes(4, "big") + bytes(METADATA_BYTES - 4)
            body = protocol.join_group(self.group, self._member_id, self._settings.session_timeout_ms, metadata)
            joined = protocol.read_joined(await self._ask(protocol.JOIN_GROUP, body))
            if joined.error is ErrorCode.NONE:
                self._joined_generation = joined.generation
                self._member_id = joined.member_id
                self._is_leader = joined.leader_id == joined.member_id
                self._members = joined.members
                return True
            if joined.error is ErrorCode.MEMBER_ID_REQUIRED:
                self._member_id = joined.member_id
            elif joined.error is ErrorCode.UNKNOWN_MEMBER_ID:
                self._member_id = ""
            elif joined.error in _GO_ON:
                await back_off.pause()
            elif not await self._take_error("join", joined.error):
                return False

    async def _sync(self) -> bool:
        assignments = dict.fromkeys(self._members, bytes(ASSIGNMENT_BYTES)) if self._is_leader else {}
        body = protocol.sync_group(self.group, self._joined_generation, self._member_id, assignments)
        error = protocol.read_error(await self._ask(protocol.SYNC_GROUP, body))
        if error is ErrorCode.NONE:
            self.generation = self._joined_generation
            self.stable_at_s = time.monotonic()
            self._settings.became_stable()
            return True
        await self._take_error("sync", error)
        return False

    async def _serve(self) -> None:
        """Heartbeats and commits, until the group rebalances."""
        beat_at = time.monotonic() + random.uniform(0, HEARTBEAT_S)
        commit_at = time.monotonic() + random.uniform(0, self._settings.commit_s)
        while True:
            await asyncio.sleep(max(0.0, min(beat_at, commit_at) - time.monotonic()))
            if time.monotonic() >= commit_at:
                commit_at += self._settings.commit_s
                error = await self._commit()
            else:
                beat_at += HEARTBEAT_S
                body = protocol.heartbeat(self.group, self.generation, self._member_id)
                error = protocol.read_error(await self._ask(protocol.HEARTBEAT, body))
            if error is not ErrorCode.NONE and error not in _GO_ON:
                await self._take_error("serve", error)
                return

    async def _commit(self) -> ErrorCode:
        self.sent_offset += 1
        offset = self.sent_offset
        body = protocol.offset_commit(self.group, self.generation, self._member_id, self._topic, self.partition, offset)
        error = protocol.read_committed(await self._ask(protocol.OFFSET_COMMIT, body))
        if error is ErrorCode.NONE:
            self.acknowledged_offset = offset
        return error

    async def _take_error(self, step: str, error: ErrorCode) -> bool:
        """Whether the same may be asked again. Raises ConnectionError where another broker coordinates."""
        self.generation = -1
        if error is ErrorCode.NOT_COORDINATOR:
            await asyncio.sleep(BACKOFF_S)
            raise ConnectionError("not the coordinator")
        if error is ErrorCode.UNKNOWN_MEMBER_ID:
            self._member_id = ""
        elif error not in (ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.ILLEGAL_GENERATION, *_GO_ON):
            self.unexpected.append(f"{step}: {error.name}")
            await asyncio.sleep(BACKOFF_S)
        return False


class MemberSettings:
    """Of all members. ``became_stable`` is called whenever one has an assignment."""

    def __init__(self, session_timeout_ms: int, commit_s: float, became_stable: Callable[[], None]) -> None:
        self.session_timeout_ms = session_timeout_ms
        self.commit_s = commit_s
        self.became_stable = became_stable

"""Reassignments in ZooKeeper: a partition's row in its topic's znode and its state, in one fenced multi."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Sequence
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.python.failure import Failure

from zkbroker.broker.controller_reading import ClusterReader, Data, image_of
from zkbroker.broker.controller_zookeeper import OPS_COUNT_MAX, FencedWriter, Found, gather, state_ops
from zkbroker.controller.cluster_image import TopicImage
from zkbroker.controller.effects import EditReassignments, MoveWrite, WriteMoves
from zkbroker.model.topics import TopicPartition
from zkbroker.zookeeper.client import (
    BadVersionError,
    ConnectionLossError,
    Create,
    Delete,
    MultiError,
    NoNodeError,
    Op,
    SetData,
    Stat,
)
from zkbroker.zookeeper.znodes import admin as admin_znode
from zkbroker.zookeeper.znodes import topics as topic_znode
from zkbroker.zookeeper.znodes.codec import ZnodeError

TOPIC_ZNODE_BYTES_MAX = 900_000
"""ZooKeeper takes 1 MiB in one request; the states of a step go with it."""

STATES_BYTES_MAX = 100_000
"""Of the states and their paths: 99 have 50 kB, unless somebody wrote targets of thousands of brokers."""

Told = Callable[[str, TopicImage | None, list[Found], str], None]


class MoveWriter:
    """The moves of one term. All of a topic's partitions stand in one znode, so that its writes go one after the other;
    what comes meanwhile goes with the next."""

    def __init__(
        self,
        writer: FencedWriter,
        reader: ClusterReader,
        *,
        told: Told,
        failed: Callable[[Failure], None],
        log: Callable[[str], None],
    ) -> None:
        """``told`` hears what ZooKeeper holds then: the topic's rows (None: no znode, one that does not decode,
        or of another topic), the states, and why the rows cannot be written, empty if they can."""
        self._writer = writer
        self._reader = reader
        self._told = told
        self._failed = failed
        self._log = log
        self._waiting: dict[str, list[MoveWrite]] = {}
        self._busy: dict[str, None] = {}
        self._edits: list[tuple[EditReassignments, Deferred[None]]] = []
        self._is_editing = False

    def __repr__(self) -> str:
        return f"MoveWriter(busy={sorted(self._busy)}, waiting={sorted(self._waiting)})"

    def write(self, effect: WriteMoves) -> None:
        self._waiting.setdefault(effect.topic, []).extend(effect.writes)
        if effect.topic not in self._busy:
            self._busy[effect.topic] = None
            self._run(effect.topic).addErrback(self._failed)

    @inlineCallbacks
    def _run(self, topic: str) -> Generator[Deferred[Any], Any, None]:
        try:
            while topic in self._waiting:
                writes = self._waiting.pop(topic)
                # one operation is the topic's own
                chunk, rest = writes[: OPS_COUNT_MAX - 1], writes[OPS_COUNT_MAX - 1 :]
                if rest:
                    self._waiting[topic] = rest
                yield self._write(topic, chunk)
        finally:
            del self._busy[topic]

    @inlineCallbacks
    def _write(self, topic: str, chunk: Sequence[MoveWrite]) -> Generator[Deferred[Any], Any, None]:
        path = topic_znode.topic_path(topic)
        while True:
            read = yield self._read(topic)
            if read is None:
                break
            content, stat = read
            if not _is_of(content, chunk):
                break  # deleted and made again by hand: these rows are not the new one's
            after = _with_rows(content, chunk)
            data = topic_znode.encode(after)
            state_writes = [op for write in chunk if write.state is not None for op in state_ops(write.state)]
            states_bytes = sum(len(op.path) + len(op.data) for op in state_writes if isinstance(op, Create | SetData))
            if len(data) > TOPIC_ZNODE_BYTES_MAX or states_bytes > STATES_BYTES_MAX:
                # ZooKeeper would close the connection, which all of this broker's writes use.
                refusal = f"topic {topic} cannot be reassigned: its znode would have {len(data)} bytes"
                self._log(refusal)
                found = yield gather([self._state(write) for write in chunk])
                self._told(topic, image_of(topic, content, stat.mzxid), found, refusal)
                return
            try:
                written = yield self._writer.write([SetData(path, data, stat.version), *state_writes])
            except ConnectionLossError:
                yield self._writer.overtake()
                break
            except MultiError as error:
                if error.index == 0 and isinstance(error.error, BadVersionError):
                    continue  # partitions were added, or somebody edits by hand: on top of that
                if len(chunk) == 1:
                    break
                for write in chunk:
                    yield self._write(topic, [write])
                return
            states = [(write.partition, write.state and write.state.state) for write in chunk]
            self._told(topic, image_of(topic, after, written[0].mzxid), states, "")
            return
        read = yield self._read(topic)
        found = yield gather([self._state(write) for write in chunk])
        image = None if read is None or not _is_of(read[0], chunk) else image_of(topic, read[0], read[1].mzxid)
        self._told(topic, image, found, "")

    @inlineCallbacks
    def _state(self, write: MoveWrite) -> Generator[Deferred[Any], Any, Found]:
        state = None
        if write.state is not None:
            state = yield self._writer.read_state(write.state)
        return write.partition, state

    @inlineCallbacks
    def _read(self, topic: str) -> Generator[Deferred[Any], Any, tuple[topic_znode.TopicAssignment, Stat] | None]:
        """The topic's znode and its stat; None where there is none that decodes."""
        path = topic_znode.topic_path(topic)
        found: dict[str, Data] = yield from self._read_data(path)
        if path not in found:
            return None
        data, stat = found[path]
        try:
            return topic_znode.decode(path, data), stat
        except ZnodeError:
            return None  # the look at the topic says so to people

    def _read_data(self, path: str) -> Generator[Deferred[Any], Any, dict[str, Data]]:
        while True:
            yield self._writer.connected()
            try:
                found: dict[str, Data] = yield self._reader.get_all([path])
            except ConnectionLossError:
                yield self._writer.breathe()
                continue
            return found

    def edit(self, effect: EditReassignments) -> Deferred[None]:
        """Take entries out of ``/admin/reassign_partitions``; it goes with the last one, and if it does not decode. One
        write at a time: what is done meanwhile goes with the next, or thousands of moves would write over each other.
        """
        over: Deferred[None] = Deferred()
        self._edits.append((effect, over))
        if not self._is_editing:
            self._is_editing = True
            self._edit_all().addErrback(self._failed)
        return over

    @inlineCallbacks
    def _edit_all(self) -> Generator[Deferred[Any], Any, None]:
        while self._edits:
            edits, self._edits = self._edits, []
            yield self._edit(dict.fromkeys(entry for effect, _ in edits for entry in effect.done))
            for _, over in edits:
                over.callback(None)
        self._is_editing = False

    @inlineCallbacks
    def _edit(self, done: Container[tuple[TopicPartition, tuple[int, ...]]]) -> Generator[Deferred[Any], Any, None]:
        path = admin_znode.REASSIGN_PARTITIONS_PATH
        while True:
            found: dict[str, Data] = yield from self._read_data(path)
            if path not in found:
                return
            data, stat = found[path]
            try:
                wanted = admin_znode.decode_reassignment(data)
            except ZnodeError:
                wanted = {}
            left = {partition: target for partition, target in wanted.items() if (partition, target) not in done}
            if left and len(left) == len(wanted):
                return
            op: Op = Delete(path, stat.version)
            if left:
                op = SetData(path, admin_znode.encode_reassignment(left), stat.version)
            try:
                yield self._writer.write([op])
                return
            except ConnectionLossError:
                yield self._writer.breathe()
            except MultiError as error:
                if not isinstance(error.error, (BadVersionError, NoNodeError)):
                    raise error.error from error


def _is_of(content: topic_znode.TopicAssignment, chunk: Sequence[MoveWrite]) -> bool:
    """Are these rows of that topic, as far as they say? (Without a state nothing was ever written of a partition.)"""
    return all(write.state is None or write.state.state.topic_id == content.topic_id for write in chunk)


def _with_rows(content: topic_znode.TopicAssignment, chunk: Sequence[MoveWrite]) -> topic_znode.TopicAssignment:
    rows = {write.partition.partition: write.placement for write in chunk}
    return content._replace(
        partitions={**content.partitions, **{number: row.replicas for number, row in rows.items()}},
        adding={**content.adding, **{number: row.adding for number, row in rows.items()}},
        removing={**content.removing, **{number: row.removing for number, row in rows.items()}},
    )

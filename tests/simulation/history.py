"""What clients attempted, were told and read, checked as it happens against what is committed.

Invariants 10 and 13 live here: what was read stays as it was, and is never above what is committed; an acknowledged
offset is that of its record; nothing of an idempotent producer is stored twice, and its acknowledged records keep their
order. With acks=all an answer means committed, at this moment.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.simulation.checkers import Checkers
from tests.simulation.checkers.batches import Batch, same_content, values_of, walk
from tests.simulation.checkers.ghost import Key, Partition, View
from tests.simulation.violation import Violation

ALL = -1


def values_at(data: bytes) -> dict[int, bytes]:
    """Offset → value of all records in whole batches."""
    found: dict[int, bytes] = {}
    for batch in walk(data):
        for number, value in enumerate(values_of(batch.data)):
            found[batch.base + number] = value
    return found


class Attempt(NamedTuple):
    """One value that a producer tried to store."""

    client: str
    index: int
    """Rises with each value of this client in this partition of a topic."""
    acks: int
    is_idempotent: bool
    attempted_at: float


class Answered(NamedTuple):
    """What a broker told in the step that just ran; checked when the step is over."""

    view: View
    what: str
    acks: int
    base_offset: int
    sent: bytes
    """The batch as it was produced; empty for a read."""
    chunks: Sequence[bytes | memoryview]
    fetch_offset: int
    leader_epoch: int
    broker_epoch: int
    rate: float


class _Acked:
    """Acknowledged values of one client in one partition, by their index."""

    __slots__ = ("indexes", "offsets")

    def __init__(self) -> None:
        self.indexes: list[int] = []
        self.offsets: list[int] = []


class History:
    def __init__(self, world: Any, checkers: Checkers) -> None:
        self._world = world
        self._checkers = checkers
        self._answers: list[Answered] = []
        self.attempts: dict[bytes, Attempt] = {}
        self.stored: dict[Key, dict[bytes, int]] = {}
        """Value → offset at which it is committed first."""
        self.acked: dict[Key, dict[bytes, int]] = {}
        """Value → offset, of those that were acknowledged to a client with acks=all."""
        self._order: dict[tuple[Key, str], _Acked] = {}
        self._read: dict[Key, dict[int, bytes]] = {}
        """Base offset → batch as a consumer first got it."""
        checkers.committed.on_commit.append(self._committed)
        checkers.committed.on_loss.append(self._lost)
        world.checkers.append(self)

    def after_step(self, world: Any) -> None:
        if self._answers:
            answers, self._answers = self._answers, []
            for answer in answers:
                self._check(answer)

    # What clients tell

    def attempted(self, value: bytes, attempt: Attempt) -> None:
        self.attempts[value] = attempt

    def view_of(self, process: Any, topic: str, partition: int) -> View | None:
        """The replica in that process as the checkers see it."""
        if process.broker._parts is None:
            return None
        replica = process.broker._parts.replicas._table.replicas.get((topic, partition))
        if replica is None:
            return None
        found = self._checkers.ghost.partitions.get((replica.log.topic_id, partition))
        view = None if found is None else found.views.get(process.node.broker_id)
        return view if view is not None and view.replica is replica else None

    def broker_answered(
        self,
        process: Any,
        view: View,
        what: str,
        acks: int,
        base_offset: int,
        sent: bytes = b"",
        chunks: Sequence[bytes | memoryview] = (),
        fetch_offset: int = 0,
    ) -> None:
        """A broker answers without error, in the step that runs just now."""
        leader = view.replica.leader
        epoch = -1 if leader is None else leader.leader_epoch
        broker_epoch = process.broker._parts.registration.broker_epoch
        rate = process.node.clock.rate
        self._answers.append(
            Answered(view, what, acks, base_offset, sent, chunks, fetch_offset, epoch, broker_epoch, rate)
        )

    def acknowledged(self, key: Key, values: list[bytes], base_offset: int) -> None:
        """A client was told, with acks=all, that its values are stored from ``base_offset`` on (-1: somewhere)."""
        world = self._world
        world.counts["acked_all"] += len(values)
        partition = self._checkers.ghost.partitions[key]
        stored = self.stored.setdefault(key, {})
        acked = self.acked.setdefault(key, {})
        for number, value in enumerate(values):
            if value not in stored and base_offset >= 0:
                if partition.resets:
                    # Lost between the broker's word and the client's hearing it, as the rules permit.
                    continue
                raise Violation(6, f"{partition!r}: {value!r} was acknowledged with acks=all and is not committed")
            if value not in stored:
                continue
            offset = stored[value] if base_offset < 0 else base_offset + number
            acked[value] = offset
            attempt = self.attempts[value]
            if attempt.is_idempotent:
                if stored[value] != offset and not partition.resets:
                    raise Violation(
                        13, f"{partition!r}: {value!r} was acknowledged at offset {offset}, it is at {stored[value]}"
                    )
                self._check_order(partition, attempt, offset)

    # Checks of a broker's word

    def _check(self, answer: Answered) -> None:
        view = answer.view
        if answer.acks != ALL and answer.leader_epoch >= 0:
            self._checkers.fencing.answered(view, answer.leader_epoch, answer.broker_epoch, answer.what, answer.rate)
        if answer.sent:
            if answer.acks != 0:
                self._check_stored(answer)
        elif answer.chunks:
            self._check_read(answer)

    def _check_stored(self, answer: Answered) -> None:
        """The batch lies at the offset that was told; with acks=all it is committed."""
        partition, base = answer.view.partition, answer.base_offset
        if answer.acks == ALL:
            index = partition.committed_index(base)
            batch = partition.committed[index] if index < len(partition.committed) else None
            if batch is not None and batch.base == base and same_content(batch.data, answer.sent):
                return
            if partition.resets:
                return
            raise Violation(
                6 if batch is None else 13,
                f"{answer.view!r} acknowledged {answer.what} at offset {base} with acks=all; committed is up to "
                f"{partition.true_hw}, there: {None if batch is None else (batch.base, values_of(batch.data)[:2])}",
            )
        for epoch in partition.ends:
            data = partition.seen_bytes.get((epoch, base))
            if data is not None and same_content(data, answer.sent):
                return
        raise Violation(13, f"{answer.view!r} acknowledged {answer.what} at offset {base}, where it never was")

    def _check_read(self, answer: Answered) -> None:
        """Whole batches from the asked one on, without a gap, all committed, and as they always were."""
        view = answer.view
        partition = view.partition
        known = self._read.setdefault(partition.key, {})
        data = b"".join(bytes(chunk) for chunk in answer.chunks)
        expected, size = -1, 0
        for batch in walk(data):
            size += len(batch.data)
            if expected < 0 and not batch.base <= answer.fetch_offset < batch.end:
                raise Violation(
                    10, f"{view!r} was asked for offset {answer.fetch_offset} and gave {batch.base} to {batch.end}"
                )
            if expected >= 0 and batch.base != expected:
                raise Violation(10, f"{view!r} left out offsets {expected} to {batch.base}")
            expected = batch.end
            self._check_committed(view, batch)
            was = known.setdefault(batch.base, batch.data)
            if was is not batch.data:
                self._world.counts["read_again"] += 1
                if was != batch.data:
                    raise Violation(
                        10,
                        f"{view!r}: offset {batch.base} was read as {values_of(was)[:3]}, now it is "
                        f"{values_of(batch.data)[:3]}",
                    )
        if size != len(data):
            raise Violation(10, f"{view!r} gave {len(data)} bytes, of which {size} are whole batches")

    def _check_committed(self, view: View, batch: Batch) -> None:
        partition = view.partition
        index = partition.committed_index(batch.base)
        his = partition.committed[index] if index < len(partition.committed) else None
        if his is not None and his.base == batch.base and his.data == batch.data:
            return
        if partition.resets:
            return
        raise Violation(
            10,
            f"{view!r} gave offset {batch.base} of epoch {batch.epoch} to a consumer; committed is up to "
            f"{partition.true_hw}, there: {None if his is None else (his.base, his.epoch)}",
        )

    def _check_order(self, partition: Partition, attempt: Attempt, offset: int) -> None:
        order = self._order.setdefault((partition.key, attempt.client), _Acked())
        place = bisect_left(order.indexes, attempt.index)
        if place < len(order.indexes) and order.indexes[place] == attempt.index:
            return
        before = order.offsets[place - 1] if place else -1
        after = order.offsets[place] if place < len(order.offsets) else offset + 1
        if not before < offset < after:
            raise Violation(
                13,
                f"{partition!r}: value {attempt.index} of {attempt.client} was acknowledged at offset {offset}, "
                f"its neighbours at {before} and {after}",
            )
        order.indexes.insert(place, attempt.index)
        order.offsets.insert(place, offset)

    # What the checkers tell

    def _committed(self, partition: Partition, batch: Batch) -> None:
        stored = self.stored.setdefault(partition.key, {})
        offset = batch.base
        for value in values_of(batch.data):
            attempt = self.attempts.get(value)
            if attempt is None:
                raise Violation(13, f"{partition!r}: {value!r} at offset {offset} was never produced")
            known = stored.setdefault(value, offset)
            if known != offset and attempt.is_idempotent and not partition.resets:
                raise Violation(13, f"{partition!r}: {value!r} is stored at offset {known} and again at {offset}")
            offset += 1

    def _lost(self, partition: Partition, offset: int) -> None:
        """What was committed from ``offset`` on is lost, as the rules permit: nobody is held to it any more."""
        for kept in (self.stored, self.acked):
            values = kept.get(partition.key, {})
            for value in [value for value, place in values.items() if place >= offset]:
                del values[value]
        reads = self._read.get(partition.key, {})
        for base in [base for base in reads if base >= offset]:
            del reads[base]
        for (key, _), order in self._order.items():
            if key == partition.key:
                kept_count = sum(1 for place in order.offsets if place < offset)
                del order.indexes[kept_count:], order.offsets[kept_count:]

"""Judges a recorded history. Pure: events in, violations and figures out; it knows nothing of brokers.

What counts as a violation:

- *lost*: acknowledged with acks=all, and not in the log in the end. (acks=1 promises less: counted, no violation.)
- *misplaced*: acknowledged with acks=all at another offset than the one it is found at.
- *duplicated*: a record of an idempotent producer at two offsets; one offset given out twice in a scan.
- *reordered*: records of an idempotent producer not in the order of its attempts; offsets that fall within a scan.
- *re-read different*: an offset had another value than before.
- *gap*: an offset missing inside a scan (the topics of a run have no compaction, no transactions and no retention).
- *read before committed*: a record was read that is not in the log in the end.
- *invented*: a record was read that nobody wrote, or before it was written.
- *out of range*: a consumer came to an offset that the broker then did not know.
- *replicas differ*, *stuck*, *not read*: the replicas hold different bytes; something did not come about; a partition
  with acknowledged records was never read to its end, so nothing can be said.
- *too slow*: something took longer than promised, on a machine that had time for it.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.faults.history import (
    Acknowledged,
    Attempt,
    Event,
    Failed,
    Fault,
    Full,
    Healed,
    Promise,
    Read,
    Replica,
    Scan,
    ScanBroken,
    ScanEnded,
    Stuck,
    Writer,
)

ACKS_ALL = -1


class Violation(NamedTuple):
    kind: str
    at: float
    """When the last event happened that shows it."""
    text: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.at:.3f} s: {self.text}"


class FaultFigures(NamedTuple):
    """``acknowledged`` and ``lost`` count from the fault to the next one; those with ``_one`` are of acks=1."""

    fault: str
    detail: str
    at: float
    held_s: float | None
    """From the fault to its end. None: the history ends before."""
    acknowledged: int
    lost: int
    acknowledged_one: int
    lost_one: int
    worst_gap_s: float
    """The longest time in which some partition acknowledged nothing with acks=all, between fault and full ISR."""
    full_isr_s: float | None
    """From the fault's end until all replicas were in sync. None: they never were."""
    promises: tuple[Promise, ...] = ()
    """What took how long, where something is promised about it."""


class Verdict(NamedTuple):
    violations: list[Violation]
    figures: list[FaultFigures]
    attempts: int
    acknowledged: int
    acknowledged_one: int
    lost_one: int
    failed: int
    reads: int

    @property
    def kinds(self) -> set[str]:
        return {violation.kind for violation in self.violations}


class _Scan:
    def __init__(self, scan: Scan) -> None:
        self.partition = scan.partition
        self.is_final = scan.is_final
        self.name = f"scan {scan.scan} of {scan.partition} by {scan.reader}"
        self.next_offset = scan.first
        """One behind the last offset given out."""
        self.furthest = scan.first
        """One behind the highest."""


class _Written(NamedTuple):
    writer: Writer
    number: int
    """Position among all attempts."""
    at: float


class _Ack(NamedTuple):
    at: float
    partition: str
    value: str
    offset: int | None
    is_lost: bool


class Checker:
    """Takes the events in their order in time; ``verdict`` judges them all."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []
        self._writers: dict[str, Writer] = {}
        self._written: dict[tuple[str, str], _Written] = {}
        self._acks: list[Acknowledged] = []
        self._scans: dict[int, _Scan] = {}
        self._seen: dict[str, dict[int, str]] = defaultdict(dict)
        """By partition: the value first read at each offset."""
        self._read_at: dict[tuple[str, str], float] = {}
        self._final: dict[str, dict[int, str]] = {}
        self._offsets: dict[str, dict[str, list[int]]] = {}
        """By partition and value: where the final scan found it. Made when first asked for, in the end."""
        self._read_to_the_end: set[str] = set()
        """Partitions that a final scan has read."""
        self._replicas: dict[str, dict[int, tuple[str, int]]] = defaultdict(dict)
        self._faults: list[Fault] = []
        self._healed: dict[int, float] = {}
        self._full: dict[int, float] = {}
        self._promises: dict[int, list[Promise]] = defaultdict(list)
        self._failed_count = 0
        self._reads_count = 0
        self._last_at = 0.0

    def add(self, event: Event) -> None:
        self._last_at = max(self._last_at, event.at)
        match event:
            case Writer():
                self._writers[event.writer] = event
            case Attempt():
                written = _Written(self._writers[event.writer], len(self._written), event.at)
                self._written[event.partition, event.value] = written
            case Acknowledged():
                self._acks.append(event)
            case Failed():
                self._failed_count += 1
            case Scan():
                self._scans[event.scan] = _Scan(event)
            case Read():
                for offset, value in event.records:
                    self._read(event.at, self._scans[event.scan], offset, value)
            case ScanEnded():
                self._ended(event.at, self._scans[event.scan], event.end)
            case ScanBroken():
                scan = self._scans[event.scan]
                self._found("out of range", event.at, f"{scan.name} at offset {scan.next_offset}: {event.error}")
            case Fault():
                self._faults.append(event)
            case Healed():
                self._healed.setdefault(len(self._faults) - 1, event.at)
            case Full():
                self._full.setdefault(len(self._faults) - 1, event.at)
            case Stuck():
                self._found("stuck", event.at, f"{event.fault}: {event.what}")
            case Promise():
                self._promises[len(self._faults) - 1].append(event)
                if event.is_broken:
                    self._found("too slow", event.at, f"{event.fault}: {event}")
            case Replica():
                self._replicas[event.partition][event.broker] = (event.digest, event.bytes_count)

    def _found(self, kind: str, at: float, text: str) -> None:
        self._violations.append(Violation(kind, at, text))

    # -- while reading

    def _read(self, at: float, scan: _Scan, offset: int, value: str) -> None:
        self._reads_count += 1
        partition = scan.partition
        if offset == scan.next_offset - 1:
            self._found("duplicated", at, f"{scan.name} gave out offset {offset} twice")
        elif offset < scan.next_offset:
            self._found("reordered", at, f"{scan.name} went back from {scan.next_offset - 1} to {offset}")
        elif offset > scan.next_offset:
            self._found("gap", at, f"{scan.name} has nothing from {scan.next_offset} to {offset - 1}")
        scan.next_offset = offset + 1
        scan.furthest = max(scan.furthest, offset + 1)
        before = self._seen[partition].setdefault(offset, value)
        if before != value:
            self._found("re-read different", at, f"{scan.name}: {offset} holds {value!r}, earlier {before!r}")
        written = self._written.get((partition, value))
        if written is None:
            self._found("invented", at, f"{scan.name}: {value!r} at {offset} was never sent to {partition}")
        elif at < written.at:
            self._found("invented", at, f"{scan.name}: {value!r} at {offset} was sent at {written.at:.3f} s")
        self._read_at.setdefault((partition, value), at)
        if scan.is_final:
            self._final.setdefault(partition, {})[offset] = value

    def _ended(self, at: float, scan: _Scan, end: int) -> None:
        if scan.furthest < end:
            self._found("gap", at, f"{scan.name} has nothing from {scan.furthest} to {end - 1}")
        if scan.is_final:
            self._read_to_the_end.add(scan.partition)

    # -- in the end

    def verdict(self) -> Verdict:
        self._offsets.clear()
        acks = [
            (ack, self._writers_acks(ack) == ACKS_ALL)
            for ack in (
                _Ack(one.at, one.partition, one.value, one.offset, self._is_lost(one.partition, one.value))
                for one in self._acks
            )
        ]
        found = self._violations.copy()
        found.extend(self._unread({ack.partition for ack, _ in acks}))
        found.extend(self._unkept(ack for ack, is_all in acks if is_all))
        found.extend(self._uncommitted())
        found.extend(self._order())
        found.extend(self._differing_replicas())
        return Verdict(
            sorted(found, key=lambda violation: violation.at),
            list(self._figures(acks)),
            attempts=len(self._written),
            acknowledged=sum(is_all for _, is_all in acks),
            acknowledged_one=sum(not is_all for _, is_all in acks),
            lost_one=sum(ack.is_lost and not is_all for ack, is_all in acks),
            failed=self._failed_count,
            reads=self._reads_count,
        )

    def _writers_acks(self, ack: _Ack) -> int:
        written = self._written.get((ack.partition, ack.value))
        return ACKS_ALL if written is None else written.writer.acks

    def _is_lost(self, partition: str, value: str) -> bool:
        """Not in the log in the end. Where that was not read nothing is lost or kept: see "not read"."""
        return partition in self._read_to_the_end and value not in self._final_values(partition)

    def _final_values(self, partition: str) -> dict[str, list[int]]:
        cached = self._offsets.get(partition)
        if cached is None:
            cached = self._offsets[partition] = defaultdict(list)
            for offset, value in sorted(self._final.get(partition, {}).items()):
                cached[value].append(offset)
        return cached

    def _unread(self, partitions: set[str]) -> Iterator[Violation]:
        for partition in sorted(partitions):
            if partition not in self._read_to_the_end:
                yield Violation("not read", self._last_at, f"{partition} was not read to its end after the last fault")

    def _unkept(self, acks: Iterable[_Ack]) -> Iterator[Violation]:
        for ack in acks:
            offsets = self._final_values(ack.partition).get(ack.value, [])
            at = "" if ack.offset is None else f" at {ack.offset}"
            if ack.is_lost:
                yield Violation("lost", ack.at, f"{ack.partition}: {ack.value!r} was acknowledged{at}")
            elif offsets and ack.offset is not None and ack.offset not in offsets:
                yield Violation(
                    "misplaced", ack.at, f"{ack.partition}: {ack.value!r} was acknowledged{at}, found at {offsets}"
                )

    def _uncommitted(self) -> Iterator[Violation]:
        for (partition, value), at in self._read_at.items():
            if self._is_lost(partition, value):
                yield Violation("read before committed", at, f"{partition}: {value!r} was read and is gone")

    def _order(self) -> Iterator[Violation]:
        for partition in self._final:
            newest: dict[str, tuple[int, str]] = {}
            for value, offsets in self._final_values(partition).items():
                written = self._written.get((partition, value))
                if written is None or not written.writer.is_idempotent:
                    continue
                if len(offsets) > 1:
                    yield Violation("duplicated", self._last_at, f"{partition}: {value!r} is at {offsets}")
                number, before = newest.get(written.writer.writer, (-1, ""))
                if written.number < number:
                    yield Violation(
                        "reordered",
                        self._last_at,
                        f"{partition}: {value!r} was sent before {before!r}, found behind it",
                    )
                newest[written.writer.writer] = max((number, before), (written.number, value))

    def _differing_replicas(self) -> Iterator[Violation]:
        for partition, replicas in self._replicas.items():
            if len(set(replicas.values())) > 1:
                yield Violation("replicas differ", self._last_at, f"{partition}: {replicas}")

    def _figures(self, acks: list[tuple[_Ack, bool]]) -> Iterator[FaultFigures]:
        times: dict[str, list[float]] = defaultdict(list)
        for ack, is_all in acks:
            if is_all:
                times[ack.partition].append(ack.at)
        for number, fault in enumerate(self._faults):
            until = self._faults[number + 1].at if number + 1 < len(self._faults) else self._last_at + 1
            healed, full = self._healed.get(number), self._full.get(number)
            mine = [(ack, is_all) for ack, is_all in acks if fault.at <= ack.at < until]
            yield FaultFigures(
                fault.fault,
                fault.detail,
                fault.at,
                None if healed is None else healed - fault.at,
                acknowledged=sum(is_all for _, is_all in mine),
                lost=sum(is_all and ack.is_lost for ack, is_all in mine),
                acknowledged_one=sum(not is_all for _, is_all in mine),
                lost_one=sum(not is_all and ack.is_lost for ack, is_all in mine),
                worst_gap_s=max(
                    (worst_gap(sorted(one), fault.at, until if full is None else full) for one in times.values()),
                    default=0.0,
                ),
                full_isr_s=None if full is None or healed is None else full - healed,
                promises=tuple(self._promises[number]),
            )


def worst_gap(times: list[float], begin: float, end: float) -> float:
    """The longest interval between neighbours of ``times`` (ascending) that lies partly between begin and end."""
    return max(
        (later - earlier for earlier, later in itertools.pairwise(times) if later > begin and earlier < end),
        default=0.0,
    )


def check(events: Iterable[Event]) -> Verdict:
    checker = Checker()
    for event in events:
        checker.add(event)
    return checker.verdict()

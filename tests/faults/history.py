"""What clients tried, were told and read, and what was done to the cluster meanwhile: events with their times.

Times are seconds since the run began, of one monotonic clock. A history can be kept as a file, one JSON object a line,
and checked again later (``bin/zkbroker-torture --check FILE``).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias


class Writer(NamedTuple):
    """A producer: what was promised for its records. ``acks`` as on the wire: -1 (all), 1."""

    at: float
    writer: str
    acks: int
    is_idempotent: bool


class Attempt(NamedTuple):
    """A record was handed to the producer; its value is in no other record. ``partition`` is named ``topic-number``."""

    at: float
    writer: str
    partition: str
    value: str


class Acknowledged(NamedTuple):
    """``offset`` is None where the answer was lost with a broker and the producer knows from a later one."""

    at: float
    partition: str
    value: str
    offset: int | None


class Failed(NamedTuple):
    """The producer gave up: the record may be stored or not."""

    at: float
    partition: str
    value: str
    error: str


class Scan(NamedTuple):
    """A consumer begins to read a partition at offset ``first``. After the last fault one ``is_final`` scan of each
    partition, from offset 0, tells what is there in the end."""

    at: float
    scan: int
    reader: str
    partition: str
    first: int
    is_final: bool


class Read(NamedTuple):
    """``records`` are pairs of offset and value, in the order in which the consumer gave them out."""

    at: float
    scan: int
    records: list[list[Any]]


class ScanEnded(NamedTuple):
    """The consumer had read everything below ``end``, which was the high watermark at some time during the scan."""

    at: float
    scan: int
    end: int


class ScanBroken(NamedTuple):
    """The broker no longer knew the offset that the consumer had come to."""

    at: float
    scan: int
    error: str


class Fault(NamedTuple):
    at: float
    fault: str
    detail: str


class Healed(NamedTuple):
    """Nothing is broken any more; the cluster may still be recovering."""

    at: float
    fault: str


class Full(NamedTuple):
    """Every broker is registered and every partition has all its replicas in sync, and takes records again."""

    at: float
    fault: str


class Stuck(NamedTuple):
    """Something that must come about did not, in a time far beyond any timeout."""

    at: float
    fault: str
    what: str


class Promise(NamedTuple):
    """Something that is promised to take less than ``limit_s`` took so long. ``excuse`` says why that is not judged
    here; it is if that is empty."""

    at: float
    fault: str
    what: str
    took_s: float
    limit_s: float
    excuse: str

    @property
    def is_broken(self) -> bool:
        return self.took_s >= self.limit_s and not self.excuse

    def __str__(self) -> str:
        missed = "" if self.took_s < self.limit_s else f", not judged: {self.excuse}" if self.excuse else ", TOO LONG"
        return f"{self.what}: {self.took_s:.2f} s (promised: {self.limit_s:g} s{missed})"


class Replica(NamedTuple):
    """At the end: a digest of one replica's log on the disk."""

    at: float
    partition: str
    broker: int
    digest: str
    bytes_count: int


Event: TypeAlias = (
    Writer
    | Attempt
    | Acknowledged
    | Failed
    | Scan
    | Read
    | ScanEnded
    | ScanBroken
    | Fault
    | Healed
    | Full
    | Stuck
    | Promise
    | Replica
)

KINDS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        *(Writer, Attempt, Acknowledged, Failed, Scan, Read, ScanEnded, ScanBroken),
        *(Fault, Healed, Full, Stuck, Promise, Replica),
    )
}


class BadHistory(ValueError):
    """A file that is no history; the text names the line."""


def encode(event: Event) -> str:
    return json.dumps({"event": type(event).__name__, **event._asdict()}, separators=(",", ":"))


def decode(line: str) -> Event:
    """Raises BadHistory."""
    try:
        fields = json.loads(line)
        return KINDS[fields.pop("event")](**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadHistory(f"no event: {line[:80]!r} ({error!r})") from None


def read_history(path: Path) -> Iterator[Event]:
    """Raises OSError, BadHistory. The last line may be torn: the run was killed."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith("\n"):
                return
            try:
                yield decode(line)
            except BadHistory as error:
                raise BadHistory(f"{path}:{number}: {error}") from None


class Recorder:
    """Takes events of all threads; keeps them, and writes them to a file if there is one."""

    def __init__(self, path: Path | None = None) -> None:
        self.events: list[Event] = []
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._file: IO[str] | None = path.open("w", encoding="utf-8") if path is not None else None
        self._scans_count = 0

    def now(self) -> float:
        return round(time.monotonic() - self._began, 6)

    def add(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)
            if self._file is not None:
                self._file.write(encode(event) + "\n")

    def begin_scan(self, reader: str, partition: str, first: int, is_final: bool = False) -> int:
        """The number of the new scan."""
        with self._lock:
            self._scans_count += 1
            number = self._scans_count
        self.add(Scan(self.now(), number, reader, partition, first, is_final))
        return number

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

"""kcat: a command line on librdkafka (Debian's has an old one, which looks for features by exact versions)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.harness.brokers import LocalFailure, run_kcat
from tests.interop.adapters import Client, DoesNotApply, Got, Record, Start, Where

# Lengths first, so that any bytes can stand in keys and values; -1 for null.
FORMAT = "%p %o %T %K %S %h\\n%k%s\\n"


class KcatMember:
    """``kcat -G``: prints records on stdout and what it is assigned on stderr."""

    def __init__(self, bootstrap: str, group: str, topic: str, config: Sequence[str]) -> None:
        kcat = shutil.which("kcat") or "kcat"
        argv = [kcat, "-b", bootstrap, "-G", group, "-J", "-u", *config, topic]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._assigned: set[int] = set()
        self._received: list[Got] = []
        self._said: list[str] = []
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._read_out, self._read_err)]
        for thread in self._threads:
            thread.start()

    def _read_out(self) -> None:
        for line in self._process.stdout or ():
            row = json.loads(line)
            value = row["payload"]
            record = Record(None if value is None else value.encode(), timestamp_ms=row["ts"])
            self._received.append(Got(row["partition"], row["offset"], record))

    def _read_err(self) -> None:
        for line in self._process.stderr or ():
            text = line.decode()
            self._said.append(text)
            if " rebalanced" not in text:
                continue
            # "rebalanced (memberid M): assigned: t [0]", or "rebalanced: incremental assignment of … (…): t [0]"
            partitions = {int(one) for one in re.findall(r" \[(\d+)\]", text)}
            if "incremental" in text:
                is_more = "assignment" in text
                self._assigned = self._assigned | partitions if is_more else self._assigned - partitions
            else:
                self._assigned = partitions if "assigned:" in text else set()

    def assigned(self) -> set[int]:
        if self._process.poll() is not None:
            raise LocalFailure("kcat has ended: " + "".join(self._said))
        return self._assigned

    def received(self) -> list[Got]:
        return list(self._received)

    def leave(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise LocalFailure("kcat did not end: " + "".join(self._said)) from None


class KcatClient(Client):
    name = "kcat"
    library = "librdkafka 2.0.2"

    def produce(self, topic: str, records: Sequence[Record], where: Where = Where(), partition: int = 0) -> None:
        if any(one.timestamp_ms is not None for one in records):
            raise DoesNotApply("kcat cannot set timestamps")
        common = ["-b", self.bootstrap, "-P", "-t", topic, "-p", str(partition), "-Z"]
        common += ["-X", f"acks={where.acks}", "-X", "message.max.bytes=2000000", "-z", where.codec]
        common += ["-X", f"enable.idempotence={str(where.is_idempotent).lower()}"]
        # Headers are one set for a run: each change of them begins another.
        while records:
            headers = records[0].headers
            count = next((n for n, one in enumerate(records) if one.headers != headers), len(records))
            run, records = records[:count], records[count:]
            options = [part for name, value in headers for part in ("-H", _header(name, value))]
            self._produce(common + options, run)

    def _produce(self, options: list[str], run: Sequence[Record]) -> None:
        if len(run) == 1 and len(run[0].value or b"") > 100_000:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "value"
                path.write_bytes(run[0].value or b"")
                key = run[0].key
                done = run_kcat(*options, *(("-k", key.decode()) if key is not None else ()), str(path))
        else:
            # -Z makes an empty key or value null: none of our records has one that is empty and not null.
            lines = [(one.key or b"") + b"\t" + (one.value or b"") + b"\n" for one in run]
            done = run_kcat(*options, "-K", "\t", stdin=b"".join(lines))
        if done.returncode:
            raise LocalFailure(done.stderr.decode())

    def read(self, topic: str, count: int, start: Start = Start(), partition: int = 0) -> list[Got]:
        where = "beginning" if start.offset is None else str(start.offset)
        if start.time_ms is not None:
            where = f"s@{start.time_ms}"
        options = ["-C", "-q", "-e", "-t", topic, "-p", str(partition), "-o", where, "-c", str(count), "-f", FORMAT]
        done = run_kcat("-b", self.bootstrap, *options)
        if done.returncode:
            raise LocalFailure(done.stderr.decode())
        return list(parse(done.stdout))

    def join(
        self, group: str, topic: str, *, is_cooperative: bool = False, instance_id: str | None = None
    ) -> KcatMember:
        config = {
            "auto.offset.reset": "earliest",
            "auto.commit.interval.ms": "500",
            "session.timeout.ms": "10000",
            "heartbeat.interval.ms": "300",
            "partition.assignment.strategy": "cooperative-sticky" if is_cooperative else "range",
            **({} if instance_id is None else {"group.instance.id": instance_id}),
        }
        options = [part for name, value in config.items() for part in ("-X", f"{name}={value}")]
        return KcatMember(self.bootstrap, group, topic, options)

    def cluster(self) -> tuple[int, list[int]]:
        found = self._list()
        return found["controllerid"], sorted(one["id"] for one in found["brokers"])

    def topics(self) -> list[str]:
        return sorted(one["topic"] for one in self._list()["topics"])

    def _list(self) -> dict:  # type: ignore[type-arg]
        done = run_kcat("-b", self.bootstrap, "-L", "-J")
        if done.returncode:
            raise LocalFailure(done.stderr.decode())
        found: dict = json.loads(done.stdout)  # type: ignore[type-arg]
        return found


def _header(name: str, value: bytes | None) -> str:
    return name if value is None else f"{name}={value.decode()}"


def parse(data: bytes) -> Iterator[Got]:
    """What FORMAT printed."""
    while data:
        head, _, data = data.partition(b"\n")
        partition, offset, timestamp, key_size, size, *rest = head.split(b" ", 5)
        sizes = [None if int(one) < 0 else int(one) for one in (key_size, size)]
        parts: list[bytes | None] = []
        for one in sizes:
            parts.append(None if one is None else data[:one])
            data = data[one or 0 :]
        data = data[1:]
        headers = tuple(_parsed_header(one) for one in (rest[0].split(b",") if rest and rest[0] else ()))
        record = Record(parts[1], parts[0], headers, int(timestamp))
        yield Got(int(partition), int(offset), record)


def _parsed_header(text: bytes) -> tuple[str, bytes | None]:
    name, _, value = text.partition(b"=")
    return name.decode(), None if value == b"NULL" else value

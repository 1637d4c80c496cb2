"""A client that writes numbered records at a steady rate in a process of its own, and notes each acknowledgement.

A process, so that nothing that the benchmark does beside it delays the delivery callbacks, whose times are what is
measured. It speaks through a file: one SAMPLE for each callback, in their order.
"""

from __future__ import annotations

import contextlib
import json
import signal
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from zkbroker.cli import _common as common
from zkbroker.cli._processes import ChildProcess, LocalFailure, wait_until

SAMPLE = struct.Struct("=qqdd")
"""The record's number; its offset, FAILED, or UNTOLD; time.monotonic() when it was given to librdkafka, and of the
callback."""
FAILED = -2
UNTOLD = -1
"""Acknowledged, but the answer with its offset was lost: librdkafka knows it from a later one."""
WRITE_EVERY_S = 0.05
FLUSH_S = 60
LINGER_MS = 5.0
"""librdkafka's linger.ms unless it is set: for so long a record waits for others before it is sent."""


class FailoverWriter:
    """The process, and what it noted so far."""

    def __init__(
        self,
        directory: Path,
        name: str,
        bootstrap: str,
        topic: str,
        interval_s: float,
        config: Mapping[str, Any],
    ) -> None:
        """Values are ``NAME-NUMBER``."""
        self.name = name
        self.topic = topic
        self.acknowledged_s: list[float] = []
        """When each acknowledgement came, by time.monotonic()."""
        self.offsets: dict[int, int] = {}
        """Number of each acknowledged record → its offset, or UNTOLD."""
        self.failed_count = 0
        self._waits: list[tuple[float, float]] = []
        """When each record was given to librdkafka and when it was answered."""
        self._linger_s = float(config.get("linger.ms", config.get("queue.buffering.max.ms", LINGER_MS))) / 1000
        self._path = directory / f"{name}.acknowledgements"
        arguments = json.dumps([str(self._path), name, bootstrap, topic, interval_s, dict(config)])
        self._process = ChildProcess(
            name, [sys.executable, "-m", "zkbroker.cli._failover_writer", arguments], directory / f"{name}.log"
        )
        self._read_bytes = 0

    def start(self, warm_count: int, timeout_s: float = 90) -> None:
        """Returns when so many were acknowledged."""
        self._path.unlink(missing_ok=True)
        self._process.start()

        def is_warm() -> bool:
            if not self._process.is_running:
                raise LocalFailure("it ended")
            return len(self.look()) >= warm_count

        wait_until(is_warm, f"{self._process.name} writes to {self.topic}", timeout_s, self._process.log_tail)

    def look(self) -> list[float]:
        """Take in what it has noted; the times of all acknowledgements so far. The newest are WRITE_EVERY_S old."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._read_bytes)
            data = file.read()
            whole = len(data) - len(data) % SAMPLE.size
            self._read_bytes += whole
            for number, offset, asked, moment in SAMPLE.iter_unpack(data[:whole]):
                self._waits.append((asked, moment))
                if offset == FAILED:
                    self.failed_count += 1
                else:
                    self.acknowledged_s.append(moment)
                    self.offsets[number] = offset
        return self.acknowledged_s

    def check_running(self) -> None:
        """Raises LocalFailure when it has ended of itself: nothing that is waited for comes any more."""
        if not self._process.is_running:
            raise LocalFailure(f"{self._process.name} ended\n{self._process.log_tail()}")

    def was_idle(self, at_s: float) -> bool:
        """Whether no Produce request was under way at that moment: none but records that still lingered waited for
        their answers. To be asked after stop()."""
        return not any(asked <= at_s - self._linger_s and answered > at_s for asked, answered in self._waits)

    def latencies_ms(self, since_s: float, until_s: float) -> list[float]:
        """How long each record waited that was given to librdkafka in that stretch; to be asked after stop()."""
        return [1000 * (answered - asked) for asked, answered in self._waits if since_s <= asked < until_s]

    def stop(self) -> None:
        """Write no more, and wait until every record was answered. Raises LocalFailure when some were not."""
        if self._process.is_running:
            self._process.terminate()
        status = self._process.wait(FLUSH_S + 30)
        self.look()
        if status != 0:
            raise LocalFailure(f"{self._process.name} ended with status {status}\n{self._process.log_tail()}")

    def close(self) -> None:
        self._process.kill()


def _write(path: str, name: str, bootstrap: str, topic: str, interval_s: float, config: Mapping[str, Any]) -> int:
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    producer = Producer(common.client_config(bootstrap, defaults={"acks": "all", **config}))
    noted = bytearray()

    def deliver(number: int, asked: float) -> Any:
        def delivered(error: Any, message: Any) -> None:
            moment = time.monotonic()
            offset = message.offset()
            if error is not None:
                offset = FAILED
            elif offset is None or offset < 0:
                offset = UNTOLD
            noted.extend(SAMPLE.pack(number, offset, asked, moment))

        return delivered

    with Path(path).open("wb", buffering=0) as file:
        number = 0
        due = write_at = time.monotonic()
        while not stopping:
            now = time.monotonic()
            if now >= due:
                try:
                    producer.produce(topic, f"{name}-{number}", partition=0, on_delivery=deliver(number, now))
                    number += 1
                except BufferError:
                    pass  # it is away for long: this record is not written
                except KafkaException as error:
                    # So are those that come while brokers which all started anew do not know the topic yet (Kafka's).
                    if error.args[0].code() not in (KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
                        raise
                due = max(due + interval_s, now - 1)
            if now >= write_at:
                file.write(noted)
                noted.clear()
                write_at = now + WRITE_EVERY_S
            # Returns after the first callback, so none waits for the next record.
            producer.poll(max(0.0, min(due, write_at) - time.monotonic()))
        left = producer.flush(FLUSH_S)
        file.write(noted)
    if left:
        print(f"{left} of {number} records were not answered within {FLUSH_S} s", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(_write(*json.loads(sys.argv[1])))

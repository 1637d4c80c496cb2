"""Numbered records written by an idempotent producer, and the check that they came back once and in order."""

from __future__ import annotations

import threading
import time
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition

from zkbroker.cli import _common as common
from zkbroker.cli._processes import LocalFailure


class CheckedWriter:
    """Writes "0", "1", "2" … to partition 0 at a steady rate in a thread of its own, acks=all, five in flight."""

    def __init__(self, bootstrap: str, topic: str, per_second: int) -> None:
        config = {
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "delivery.timeout.ms": 120_000,
            "request.timeout.ms": 5_000,
            "reconnect.backoff.max.ms": 500,
            "topic.metadata.refresh.interval.ms": 1_000,
        }
        self._producer = Producer(common.client_config(bootstrap, defaults=config))
        self._topic = topic
        self._per_second = per_second
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._last_s = time.monotonic()
        self.acknowledged: dict[int, int] = {}
        """Number of the record → its offset."""
        self.sent_count = 0
        self.failed_count = 0
        self.longest_gap_s = 0.0

    @property
    def acknowledged_count(self) -> int:
        return len(self.acknowledged)

    def start(self) -> None:
        self._last_s = time.monotonic()
        self._thread.start()

    def stop(self, timeout_s: float = 130) -> None:
        """Write no more and wait for every answer. Raises LocalFailure when some never come."""
        self._stopping.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive() or len(self._producer):
            raise LocalFailure(f"{len(self._producer)} records were not answered within {timeout_s:g} s")

    def _run(self) -> None:
        began = time.monotonic()
        while not self._stopping.is_set():
            due = int((time.monotonic() - began) * self._per_second)
            while self.sent_count < due:
                try:
                    value = b"%d" % self.sent_count
                    self._producer.produce(self._topic, value, partition=0, on_delivery=self._delivered)
                except BufferError:
                    break
                self.sent_count += 1
            self._producer.poll(0.005)
        self._producer.flush(120)

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failed_count += 1
            return
        now = time.monotonic()
        self.longest_gap_s = max(self.longest_gap_s, now - self._last_s)
        self._last_s = now
        self.acknowledged[int(message.value())] = message.offset()


class Verdict(NamedTuple):
    read_count: int
    lost_count: int
    """Acknowledged and not read."""
    duplicated_count: int
    misplaced_count: int
    """Read at another offset than acknowledged, or after a record that was sent later."""

    @property
    def is_whole(self) -> bool:
        return self.lost_count == self.duplicated_count == self.misplaced_count == 0


def judge(records: list[tuple[int, int]], acknowledged: dict[int, int]) -> Verdict:
    """``records``: (offset, number) in the order read."""
    seen: dict[int, int] = {}
    duplicated = misplaced = 0
    highest = -1
    for offset, number in records:
        if number in seen:
            duplicated += 1
            continue
        seen[number] = offset
        if number < highest or acknowledged.get(number, offset) != offset:
            misplaced += 1
        highest = max(highest, number)
    lost = sum(1 for number in acknowledged if number not in seen)
    return Verdict(len(records), lost, duplicated, misplaced)


def read_back(bootstrap: str, topic: str, writer: CheckedWriter, timeout_s: float = 60) -> Verdict:
    """Read partition 0 from the first record to the high watermark and compare. Raises LocalFailure, KafkaException."""
    config = {
        "group.id": "check",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "check.crcs": True,
    }
    consumer = Consumer(common.client_config(bootstrap, defaults=config))
    records: list[tuple[int, int]] = []
    try:
        first, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=20)
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        deadline = time.monotonic() + timeout_s
        next_offset = first
        while next_offset < end:
            if time.monotonic() > deadline:
                raise LocalFailure(f"read up to offset {next_offset} of {end} within {timeout_s:g} s")
            for message in consumer.consume(5000, 0.2):
                error = message.error()
                if error is not None:
                    if error.retriable() or error.code() < 0:
                        continue
                    raise KafkaException(error)
                offset, value = message.offset(), message.value()
                if offset is None or value is None:
                    raise LocalFailure("a record without offset or value came back; this topic is not ours")
                records.append((offset, int(value)))
                next_offset = offset + 1
    finally:
        consumer.close()
    return judge(records, writer.acknowledged)

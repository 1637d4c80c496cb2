"""Clients that record what they try, are told and read: idempotent producers with acks=all, one with acks=1, a consumer
that follows and one that reads again from anywhere."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tests.faults.checker import ACKS_ALL
from tests.faults.history import Acknowledged, Attempt, Failed, Read, Recorder, ScanBroken, ScanEnded, Writer
from tests.harness.brokers import Cluster, LocalFailure, quiet

FAST = {
    "retry.backoff.ms": 10,
    "retry.backoff.max.ms": 20,
    "reconnect.backoff.ms": 10,
    "reconnect.backoff.max.ms": 50,
    "topic.metadata.refresh.fast.interval.ms": 10,
}
"""How a client is set that is to notice a new leader at once."""
UNANSWERED_MAX = 2000
"""A producer with so many records under way waits: while nobody takes them, more would show nothing more."""
POSITION_LOST = (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION)
REREAD_MAX = 1000
"""Records of one re-reading scan."""
READ_PATIENCE_S = 10.0


class RecordingWriter:
    """Writes numbered records to all partitions in turn until it is stopped, and goes on through every fault."""

    def __init__(
        self,
        recorder: Recorder,
        bootstrap: str,
        topic: str,
        partitions: int,
        name: str,
        per_second: float,
        acks: int = ACKS_ALL,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.acks = acks
        self.acknowledged: Counter[int] = Counter()
        """By partition."""
        self._recorder = recorder
        self._topic = topic
        self._partitions = partitions
        self._interval_s = 1 / per_second
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._producer = Producer(
            quiet(
                {
                    "bootstrap.servers": bootstrap,
                    "client.id": name,
                    "acks": acks,
                    "enable.idempotence": acks == ACKS_ALL,
                    "linger.ms": 2,
                    "request.timeout.ms": 5000,
                    # A record that its producer gives up may be stored or not: let none be given up.
                    "delivery.timeout.ms": 1_000_000,
                    "topic.metadata.refresh.interval.ms": 1000,
                    "reconnect.backoff.max.ms": 500,
                    **(config or {}),
                }
            )
        )
        recorder.add(Writer(recorder.now(), name, acks, acks == ACKS_ALL))

    def start(self) -> None:
        self._thread.start()

    def ask_to_stop(self) -> None:
        self._stopping.set()

    def wait(self, timeout_s: float) -> None:
        """Until every record is answered; raises LocalFailure if some are not."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise LocalFailure(f"{self.name}: {len(self._producer)} records without an answer after {timeout_s:g} s")

    def _run(self) -> None:
        number, next_s = 0, time.monotonic()
        while not self._stopping.is_set():
            # poll() returns with the first answer, before its time is over.
            while (pause_s := next_s - time.monotonic()) > 0:
                self._producer.poll(pause_s)
            self._producer.poll(0)
            next_s = max(next_s + self._interval_s, time.monotonic() - 1)
            if len(self._producer) < UNANSWERED_MAX:
                self._send(number)
                number += 1
        while len(self._producer):
            self._producer.poll(0.1)

    def _send(self, number: int) -> None:
        partition = number % self._partitions
        value = f"{self.name}-{number}"
        self._recorder.add(Attempt(self._recorder.now(), self.name, f"{self._topic}-{partition}", value))
        self._producer.produce(self._topic, value.encode(), partition=partition, on_delivery=self._delivered)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        now = self._recorder.now()
        partition = f"{self._topic}-{message.partition()}"
        value = (message.value() or b"").decode()
        if error is not None:
            self._recorder.add(Failed(now, partition, value, error.str()))
            return
        offset = message.offset()
        self._recorder.add(Acknowledged(now, partition, value, offset if offset is not None and offset >= 0 else None))
        self.acknowledged[message.partition() or 0] += 1


class RecordingReader:
    """One consumer's scans."""

    def __init__(self, recorder: Recorder, bootstrap: str, topic: str, name: str) -> None:
        self._recorder = recorder
        self._bootstrap = bootstrap
        self._topic = topic
        self.name = name

    @contextlib.contextmanager
    def _consumer(self) -> Iterator[Consumer]:
        consumer = Consumer(
            quiet(
                {
                    "bootstrap.servers": self._bootstrap,
                    "group.id": self.name,
                    "enable.auto.commit": False,
                    "auto.offset.reset": "error",
                    "topic.metadata.refresh.interval.ms": 1000,
                    "fetch.wait.max.ms": 100,
                    "check.crcs": True,
                    **FAST,
                }
            )
        )
        try:
            yield consumer
        finally:
            consumer.close()

    def follow(self, partitions: int, stopping: threading.Event) -> None:
        """Read all partitions from their beginning and stay at their ends until ``stopping``."""
        with self._consumer() as consumer:
            positions = dict.fromkeys(range(partitions), 0)
            scans: dict[int, int] = {}

            def begin(partition: int) -> None:
                first = positions[partition]
                scans[partition] = self._recorder.begin_scan(self.name, f"{self._topic}-{partition}", first)

            def assign() -> None:
                consumer.assign([TopicPartition(self._topic, number, offset) for number, offset in positions.items()])

            for partition in positions:
                begin(partition)
            assign()
            while not stopping.is_set():
                broken = False
                for partition, records in self._consume(consumer, 0.2).items():
                    if isinstance(records, KafkaError):
                        self._recorder.add(ScanBroken(self._recorder.now(), scans[partition], records.str()))
                        begin(partition)
                        broken = True
                    else:
                        self._recorder.add(Read(self._recorder.now(), scans[partition], records))
                        positions[partition] = records[-1][0] + 1
                if broken:
                    time.sleep(0.5)
                    assign()

    def _consume(self, consumer: Consumer, timeout_s: float) -> dict[int, list[list[Any]] | KafkaError]:
        """Records by partition, or the error that says that the position is no longer known."""
        got: dict[int, list[list[Any]] | KafkaError] = {}
        for message in consumer.consume(1000, timeout_s):
            error = message.error()
            partition = message.partition() or 0
            if error is None:
                records = got.setdefault(partition, [])
                if not isinstance(records, KafkaError):
                    records.append([message.offset(), (message.value() or b"").decode()])
            elif error.code() in POSITION_LOST:
                got[partition] = error
        return got

    def scan(
        self, partition: int, first: int, end: int, is_final: bool = False, patience_s: float = READ_PATIENCE_S
    ) -> bool:
        """One scan to ``end``; False if nothing more came for so long, which proves nothing."""
        number = self._recorder.begin_scan(self.name, f"{self._topic}-{partition}", first, is_final)
        next_offset, deadline = first, time.monotonic() + patience_s
        with self._consumer() as consumer:
            consumer.assign([TopicPartition(self._topic, partition, first)])
            while next_offset < end:
                if time.monotonic() > deadline:
                    return False
                records = self._consume(consumer, 0.2).get(partition)
                if isinstance(records, KafkaError):
                    self._recorder.add(ScanBroken(self._recorder.now(), number, records.str()))
                    return False
                if records:
                    self._recorder.add(Read(self._recorder.now(), number, records))
                    next_offset, deadline = records[-1][0] + 1, time.monotonic() + patience_s
        self._recorder.add(ScanEnded(self._recorder.now(), number, end))
        return True

    def end_of(self, partition: int) -> int | None:
        """The high watermark that the leader tells; None if nobody answers."""
        with self._consumer() as consumer:
            try:
                found = consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=3)
            except KafkaException:
                return None
        return None if found is None else int(found[1])

    def read_again(self, partitions: int, stopping: threading.Event, dice: random.Random) -> None:
        """Scans from random places, one after the other, until ``stopping``."""
        while not stopping.wait(0.5):
            partition = dice.randrange(partitions)
            end = self.end_of(partition)
            if end:
                first = dice.randrange(end)
                self.scan(partition, first, min(end, first + REREAD_MAX), patience_s=3)


class Traffic:
    """The clients of one run, in threads of their own. ``per_second`` records with acks=all, a quarter of it acks=1."""

    def __init__(
        self, cluster: Cluster, recorder: Recorder, topic: str, partitions: int, per_second: float, seed: int
    ) -> None:
        self.topic = topic
        self.partitions = partitions
        self._recorder = recorder
        self._bootstrap = cluster.bootstrap
        where = (recorder, cluster.bootstrap, topic, partitions)
        self.writers = [
            RecordingWriter(*where, "all-fast", per_second * 2 / 3, config=FAST),
            RecordingWriter(*where, "all-default", per_second / 3),
            RecordingWriter(*where, "one", per_second / 4, acks=1, config=FAST),
        ]
        self._stopping = threading.Event()
        self._readers = [
            threading.Thread(target=self.reader("follower").follow, args=(partitions, self._stopping), daemon=True),
            threading.Thread(
                target=self.reader("re-reader").read_again,
                args=(partitions, self._stopping, random.Random(seed)),
                daemon=True,
            ),
        ]

    def reader(self, name: str) -> RecordingReader:
        return RecordingReader(self._recorder, self._bootstrap, self.topic, name)

    def start(self) -> None:
        for writer in self.writers:
            writer.start()
        for reader in self._readers:
            reader.start()

    @property
    def quick_writers(self) -> list[str]:
        """Those with acks=all that notice a new leader at once."""
        return [self.writers[0].name]

    def acknowledged(self) -> list[int]:
        """With acks=all so far, by partition."""
        return [
            sum(writer.acknowledged[number] for writer in self.writers if writer.acks == ACKS_ALL)
            for number in range(self.partitions)
        ]

    def stop_writers(self, timeout_s: float) -> None:
        for writer in self.writers:
            writer.ask_to_stop()
        for writer in self.writers:
            writer.wait(timeout_s)

    def stop(self) -> None:
        """All threads, without waiting for answers."""
        self._stopping.set()
        for writer in self.writers:
            writer.ask_to_stop()
        for reader in self._readers:
            if reader.ident is not None:
                reader.join(30)

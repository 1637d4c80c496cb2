"""``zkbroker-bench failover`` with many partitions: how long until all that a dead broker led are led again.

Led means that a leader takes a record for it with acks=all; all partitions are asked at once, in one request to each
broker that is left, again and again until each has answered for its own.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping

from zkbroker.cli._canary import Canary
from zkbroker.cli._failover_cluster import create_topic, prefer, read_values
from zkbroker.cli._local_cluster import LocalCluster
from zkbroker.cli._processes import LocalFailure
from zkbroker.cli.bench_failover_rounds import (
    BEFORE_S,
    RECOVERY_TIMEOUT_S,
    Round,
    choose_victim,
    striking,
)
from zkbroker.cli.bench_failover_scenarios import Scenario, System
from zkbroker.kafka.wire import Reader, encode_string, encode_uvarint
from zkbroker.records.record import Record, build_batch

ASK_INTERVAL_S = 0.03
PRODUCE_VERSION = 9
ACKS_ALL = -1


def run_partitions_round(system: System, scenario: Scenario, number: int, canary: Canary) -> Round:
    """As bench_failover_rounds.run_round, for a topic of ``scenario.partitions_count``. Raises LocalFailure."""
    cluster = system.cluster
    cluster.start()
    brokers = list(cluster.brokers)
    topic = f"failover-{scenario.partitions_count}"
    assignment = [
        [brokers[(index + turn) % len(brokers)] for turn in range(len(brokers))]
        for index in range(scenario.partitions_count)
    ]
    create_topic(cluster, topic, assignment)
    cluster.wait_isr(topic, brokers, 240)
    prefer(cluster, topic, {index: replicas[0] for index, replicas in enumerate(assignment)}, 240)
    controller = cluster.controller_id()
    if controller is None:
        raise LocalFailure("no broker is the controller")
    victim, _ = choose_victim(scenario.victim, controller, brokers, number)
    orphans = {index for index, replicas in enumerate(assignment) if replicas[0] == victim}
    values = {index: b"%d-%d-%d" % (number, index, time.monotonic_ns()) for index in orphans}
    with contextlib.ExitStack() as stack:
        asked = [
            stack.enter_context(contextlib.closing(ManyPartitions(cluster.brokers[broker].port, topic)))
            for broker in brokers
            if broker != victim
        ]
        time.sleep(BEFORE_S)
        strike = stack.enter_context(striking(system, victim, scenario.fault))
        offsets: dict[int, int] = {}
        while pending := {index: values[index] for index in orphans if index not in offsets}:
            for client in asked:
                client.send(pending)
            for client in asked:
                offsets.update(client.receive())
            if time.monotonic() - strike.at_s > RECOVERY_TIMEOUT_S:
                raise LocalFailure(f"{len(pending)} partitions were not led within {RECOVERY_TIMEOUT_S:g} s")
            time.sleep(ASK_INTERVAL_S if len(offsets) < len(orphans) else 0)
        led_s = time.monotonic()
        cpu_s, waited_s = strike.cpu_s(), strike.waited_s()
        _check_znodes(cluster, topic, orphans, victim)
    delay = canary.delay(strike.at_s - BEFORE_S, led_s)
    cluster.start()
    found = {(partition, offset): value for _, partition, offset, value in _read_back(cluster, topic, offsets)}
    lost = sum(1 for index, offset in offsets.items() if found.get((index, offset)) != values[index])
    return Round(
        scenario.name,
        system.name,
        number,
        victim,
        1000 * (led_s - strike.at_s),
        None,
        None,
        len(offsets),
        lost,
        0,
        cpu_s,
        led_s - strike.at_s,
        waited_s,
        delay,
    )


def _check_znodes(cluster: LocalCluster, topic: str, partitions: Iterable[int], victim: int) -> None:
    wrong = [
        partition
        for partition in partitions
        if (state := cluster.state(topic, partition)) is None or state["leader"] in (-1, victim)
    ]
    if wrong:
        raise LocalFailure(f"{len(wrong)} partitions took records though their znodes name no live leader")


def _read_back(cluster: LocalCluster, topic: str, offsets: Mapping[int, int]) -> Iterator[tuple[str, int, int, bytes]]:
    yield from read_values(cluster.bootstrap, {(topic, index): offset for index, offset in offsets.items()})


class ManyPartitions:
    """One connection to one broker, for Produce requests with one record for each of many partitions of a topic."""

    def __init__(self, port: int, topic: str, timeout_s: float = 60) -> None:
        self._topic = topic
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def send(self, values: Mapping[int, bytes]) -> None:
        self._socket.sendall(encode_produce(self._topic, values, int(time.time() * 1000)))

    def receive(self) -> dict[int, int]:
        """Partition → offset of the record, of those that the broker leads and took."""
        (size,) = struct.unpack(">i", self._read(4))
        return decode_produced(self._read(size))

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise LocalFailure(f"a broker closed the connection of a client that asks for {self._topic}")
        return data


def encode_produce(topic: str, values: Mapping[int, bytes], now_ms: int) -> bytes:
    """A framed Produce request with acks=all: one record for each partition."""
    parts = [
        struct.pack(">hhi", 0, PRODUCE_VERSION, 0),
        encode_string("zkbroker-bench", False),
        b"\x00\x00",  # no tags; no transactional id
        struct.pack(">hi", ACKS_ALL, 30_000),
        b"\x02",
        encode_string(topic, True),
        encode_uvarint(len(values) + 1),
    ]
    for partition, value in values.items():
        batch = build_batch([Record(0, now_ms, None, value)])
        parts.append(struct.pack(">i", partition) + encode_uvarint(len(batch) + 1) + batch + b"\x00")
    parts.append(b"\x00\x00")
    message = b"".join(parts)
    return struct.pack(">i", len(message)) + message


def decode_produced(answer: bytes) -> dict[int, int]:
    """Partition → base offset, of those without an error."""
    reader = Reader(answer, 4)
    reader.skip_tags()
    offsets = {}
    for _ in range(reader.array_size(True)):
        reader.string(True)
        for _ in range(reader.array_size(True)):
            partition, error, base_offset = reader.int32(), reader.int16(), reader.int64()
            reader.take(16)  # append time, log start offset
            for _ in range(reader.array_size(True)):
                reader.int32()
                reader.nullable_string(True)
                reader.skip_tags()
            reader.nullable_string(True)
            reader.skip_tags()
            if error == 0:
                offsets[partition] = base_offset
        reader.skip_tags()
    return offsets

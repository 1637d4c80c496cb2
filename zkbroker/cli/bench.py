"""``zkbroker-bench``: what a cluster does per second, how long a client waits, and what the brokers use meanwhile.

Two clients: librdkafka, which people use, and one that sends requests encoded beforehand and so leaves the machine to
the brokers. Every run reads or counts its records afterwards: a fast run that lost some is a failed one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from zkbroker.cli import _common as common
from zkbroker.cli import bench_failover, bench_groups, bench_idle
from zkbroker.cli._figures import percentile
from zkbroker.cli._local_cluster import LocalCluster
from zkbroker.cli._local_zookeeper import LocalEnsemble
from zkbroker.cli._processes import LocalFailure
from zkbroker.cli._raw_client import RawClient, encode_records
from zkbroker.cli.server_stop import find_brokers
from zkbroker.model.errors import BrokerError, ErrorCode

PROG = "zkbroker-bench"
EXAMPLES = """\
  three brokers and an ensemble of its own on this machine:
    zkbroker-bench --start
  a running cluster; the topic is created with three replicas and deleted afterwards:
    zkbroker-bench --bootstrap-server localhost:9092
  small records, compressed, more of them:
    zkbroker-bench --start --record-size 100 --records 2000000 --compression-codec lz4
  for how long a fault keeps a client from writing (has a --help of its own):
    zkbroker-bench failover
  for how long consumer groups are without their coordinator (likewise):
    zkbroker-bench groups
  what brokers cost while nothing happens (has a --help of its own):
    zkbroker-bench idle
"""
RAW_BATCH_BYTES = 128 * 1024
NOT_YET = (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.NOT_ENOUGH_REPLICAS)
ACKS = {"0": 0, "1": 1, "all": -1}
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Measured(NamedTuple):
    name: str
    seconds: float
    records_count: int
    bytes_count: int
    requests_count: int
    latencies_ms: list[float]
    """Sorted; empty where latency was not asked for."""

    def line(self) -> str:
        rate = f"{self.bytes_count / 1e6 / self.seconds:8.1f} MB/s {self.records_count / self.seconds:10.0f} records/s"
        if self.requests_count:
            rate += f" {self.requests_count / self.seconds:8.0f} requests/s"
        if self.latencies_ms:
            p50, p99, p999 = (percentile(self.latencies_ms, share) for share in (0.5, 0.99, 0.999))
            rate += f"   p50 {p50:.2f}  p99 {p99:.2f}  p99.9 {p999:.2f} ms"
        return f"{self.name:<34}{rate}"


def make_parser() -> argparse.ArgumentParser:
    parser = common.make_parser(PROG, "Measure produce and consume throughput and latency.", EXAMPLES)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--bootstrap-server", metavar="HOST:PORT[,...]", help="a running cluster")
    where.add_argument(
        "--start", action="store_true", help="start an ensemble and brokers on this machine, in a new folder"
    )
    parser.add_argument("--brokers", type=common.positive, default=3, help="with --start: how many (default 3)")
    parser.add_argument("--records", type=common.positive, default=200_000, metavar="N", help="in each throughput run")
    parser.add_argument("--record-size", type=common.positive, default=1000, metavar="BYTES")
    parser.add_argument("--batch-size", type=common.positive, default=262_144, metavar="BYTES", help="largest batch")
    parser.add_argument("--partitions", type=common.positive, default=6, metavar="N")
    parser.add_argument("--replication-factor", type=common.positive, default=3, metavar="N")
    parser.add_argument("--latency-seconds", type=float, default=5.0, metavar="S", help="length of each latency run")
    parser.add_argument("--latency-rate", type=common.positive, default=500, metavar="N", help="its records per second")
    parser.add_argument("--compression-codec", default="none", choices=["none", "gzip", "snappy", "lz4", "zstd"])
    parser.add_argument(
        "--requests", type=common.positive, default=20_000, metavar="N", help="in each run of one-record requests"
    )
    parser.add_argument("--acks", action="append", choices=["0", "1", "all"], help="default: 1 and all")
    return parser


def main(argv: list[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["failover"]:
        return bench_failover.main(given[1:])
    if given[:1] == ["groups"]:
        return bench_groups.main(given[1:])
    if given[:1] == ["idle"]:
        return bench_idle.main(given[1:])
    return common.run(PROG, _run, make_parser(), given)


def _run(arguments: argparse.Namespace) -> int:
    common.raise_on_signals()
    try:
        with _cluster(arguments) as (bootstrap, pids):
            return _Bench(bootstrap, pids, arguments).run()
    except (LocalFailure, BrokerError, OSError) as failure:
        print(f"{PROG}: {failure}", file=sys.stderr)
        return 1


@contextlib.contextmanager
def _cluster(arguments: argparse.Namespace) -> Iterator[tuple[str, list[int]]]:
    """The bootstrap servers, and the brokers' process ids as far as they are on this machine."""
    if not arguments.start:
        yield arguments.bootstrap_server, [broker.pid for broker in find_brokers()]
        return
    with tempfile.TemporaryDirectory(prefix="zkbroker-bench-") as folder:
        ensemble = LocalEnsemble(Path(folder))
        try:
            ensemble.start()
            settings = {
                "min.insync.replicas": min(2, arguments.brokers),
                "offsets.topic.replication.factor": min(3, arguments.brokers),
                "zookeeper.session.timeout.ms": 6000,
            }
            with LocalCluster(ensemble.connect, Path(folder), arguments.brokers, settings) as cluster:
                yield cluster.bootstrap, [broker.pid for broker in cluster.brokers.values()]
                cluster.stop()
        finally:
            ensemble.stop()


class _Usage(NamedTuple):
    cpu_s: float
    rss_bytes: int


def _usage(pids: list[int]) -> dict[int, _Usage]:
    """CPU time and memory of these processes so far; those that /proc does not show are left out."""
    result = {}
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
        cpu_s = (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
        result[pid] = _Usage(cpu_s, pages * os.sysconf("SC_PAGE_SIZE"))
    return result


class _Bench:
    def __init__(self, bootstrap: str, pids: list[int], arguments: argparse.Namespace) -> None:
        self._pids = pids
        self._bootstrap = bootstrap
        self._arguments = arguments
        self._admin = common.kafka_admin.AdminClient(common.client_config(bootstrap, defaults={}))
        self._payload = (b"zkbroker-bench " + os.urandom(arguments.record_size))[: arguments.record_size]
        self._is_whole = True

    def run(self) -> int:
        arguments = self._arguments
        print(
            f"{arguments.records} records of {arguments.record_size} bytes, {arguments.partitions} partitions, "
            f"{arguments.replication_factor} replicas, compression {arguments.compression_codec}, "
            f"batches up to {arguments.batch_size} bytes, {os.cpu_count()} cores shared by brokers and client",
            flush=True,
        )
        for acks in arguments.acks or ["1", "all"]:
            with self._topic(f"bench-{acks}", arguments.partitions) as topic:
                self._measure(topic, acks)
            if acks != "0":
                with self._topic(f"bench-raw-{acks}", 1) as topic:
                    self._measure_raw(topic, acks)
        return 0 if self._is_whole else 1

    @contextlib.contextmanager
    def _topic(self, name: str, partitions: int) -> Iterator[str]:
        topic = f"{name}-{os.getpid()}-{int(time.time())}"
        new = common.kafka_admin.NewTopic(topic, partitions, self._arguments.replication_factor)
        self._admin.create_topics([new], operation_timeout=30)[topic].result(40)
        try:
            yield topic
        finally:
            self._admin.delete_topics([topic], operation_timeout=30)[topic].result(40)

    def _measure_raw(self, topic: str, acks: str) -> None:
        """One partition, requests encoded beforehand; then all of it read back, each CRC and offset checked."""
        metadata = self._admin.list_topics(topic, 10)
        leader = metadata.brokers[metadata.topics[topic].partitions[0].leader]
        with contextlib.closing(RawClient(leader.host, leader.port, topic, 0)) as client:
            self._raw_runs(client, acks, self._first(client, acks))

    def _first(self, client: RawClient, acks: str) -> int:
        """Write until one record is acknowledged: a new topic's leader may not know of it yet. Records stored: 1."""
        record = encode_records(1, self._arguments.record_size)
        deadline = time.monotonic() + 30
        while True:
            try:
                client.produce(record, ACKS[acks], 1, 1)
                return 1
            except BrokerError as error:
                if error.error not in NOT_YET or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def _raw_runs(self, client: RawClient, acks: str, stored: int) -> None:
        arguments = self._arguments
        per_batch = max(1, RAW_BATCH_BYTES // (arguments.record_size + 10))
        full, single = encode_records(per_batch, arguments.record_size), encode_records(1, arguments.record_size)
        for name, batch, records, count, in_flight in (
            ("128 KiB batches, 5 in flight", full, per_batch, max(1, arguments.records // per_batch), 5),
            ("one record, 50 in flight", single, 1, arguments.requests, 50),
            ("one record at a time", single, 1, max(1, arguments.requests // 5), 1),
        ):
            warm = min(count, 10 * in_flight)
            client.produce(batch, ACKS[acks], warm, in_flight)
            before = _usage(self._pids)
            began = time.perf_counter()
            took = client.produce(batch, ACKS[acks], count, in_flight)
            seconds = time.perf_counter() - began
            stored += (warm + count) * records
            latencies = sorted(1000 * one for one in took)
            done = Measured(f"raw acks={acks} {name}", seconds, count * records, count * len(batch), count, latencies)
            print(done.line(), flush=True)
            self._show_usage(before, done)
        before = _usage(self._pids)
        began = time.perf_counter()
        read = client.read_all(stored, check=False)
        seconds = time.perf_counter() - began
        done = Measured("raw consume", seconds, read.records_count, read.bytes_count, read.requests_count, [])
        print(done.line(), flush=True)
        self._show_usage(before, done)
        checked = client.read_all(stored, check=True)
        if (checked.records_count, checked.bytes_count) != (stored, read.bytes_count):
            self._is_whole = False
            common.complain(f"{PROG}: {stored} records acknowledged, {checked.records_count} read back", 1)

    def _measure(self, topic: str, acks: str) -> None:
        arguments = self._arguments
        self._produce(topic, acks, 10 * arguments.partitions)  # leaders known, connections open, code paths warm
        warm = 10 * arguments.partitions
        before = _usage(self._pids)
        produced = self._produce(topic, acks, arguments.records)
        print(produced.line(), flush=True)
        self._show_usage(before, produced)
        self._check(topic, warm + arguments.records, acks)
        before = _usage(self._pids)
        consumed = self._consume(topic, warm + arguments.records)
        print(consumed.line(), flush=True)
        self._show_usage(before, consumed)
        print(self._latency(topic, acks).line(), flush=True)

    def _producer(self, acks: str, **config: Any) -> Producer:
        defaults = {
            "acks": acks,
            "compression.type": self._arguments.compression_codec,
            "batch.size": self._arguments.batch_size,
            "message.max.bytes": max(1_000_000, self._arguments.record_size + 1000),
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 262_144,
            **config,
        }
        return Producer(common.client_config(self._bootstrap, defaults=defaults))

    def _produce(self, topic: str, acks: str, count: int) -> Measured:
        requests = {"count": 0}

        def statistics(text: str) -> None:
            brokers = json.loads(text)["brokers"].values()
            requests["count"] = sum(broker["req"].get("Produce", 0) for broker in brokers)

        producer = self._producer(acks, **{"linger.ms": 5, "statistics.interval.ms": 200, "stats_cb": statistics})
        partitions = self._arguments.partitions
        # Runs of one partition fill batches as a busy client's do.
        run_length = max(1, min(self._arguments.batch_size // len(self._payload), count // partitions))
        run = [{"value": self._payload}] * run_length
        began = time.monotonic()
        given = 0
        while given < count:
            partition = given // run_length % partitions
            wanted = min(run_length - given % run_length, count - given)
            # In one call, without a callback for each record: else Python, not the cluster, would be measured.
            # A record that is not delivered is missing in the count afterwards.
            try:
                taken = producer.produce_batch(topic, run[:wanted], partition)
            except BufferError:
                taken = 0
            given += taken
            if taken < wanted:
                producer.poll(0.01)
        left = producer.flush(300)
        seconds = time.monotonic() - began
        producer.poll(0.25)  # one more statistics report, for the number of requests
        if left:
            raise common.CommandError(f"{PROG}: {left} of {count} records were not acknowledged")
        return Measured(f"produce acks={acks}", seconds, count, count * len(self._payload), requests["count"], [])

    def _latency(self, topic: str, acks: str) -> Measured:
        """Single records at a steady rate, each timed from produce() to its acknowledgement."""
        producer = self._producer(acks, **{"linger.ms": 0})
        latencies: list[float] = []
        rate = self._arguments.latency_rate
        count = max(1, int(rate * self._arguments.latency_seconds))
        began = time.perf_counter()

        def callback(sent: float) -> Any:
            def delivered(error: Any, _: Any) -> None:
                if error is not None:
                    raise common.CommandError(f"{PROG}: {error.str()}")
                latencies.append((time.perf_counter() - sent) * 1000)

            return delivered

        for number in range(count):
            due = began + number / rate
            while (left := due - time.perf_counter()) > 0:
                producer.poll(left)
            sent = time.perf_counter()
            partition = number % self._arguments.partitions
            producer.produce(topic, self._payload, partition=partition, on_delivery=callback(sent))
            producer.poll(0)
        producer.flush(60)
        seconds = time.perf_counter() - began
        latencies.sort()
        name = f"latency acks={acks} at {rate}/s"
        return Measured(name, seconds, len(latencies), len(latencies) * len(self._payload), 0, latencies)

    def _consume(self, topic: str, count: int) -> Measured:
        config = {
            "group.id": "bench",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 100,
            "auto.offset.reset": "error",
        }
        consumer = Consumer(common.client_config(self._bootstrap, defaults=config))
        try:
            consumer.list_topics(topic, 10)
            began = time.monotonic()
            consumer.assign(
                [TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(self._arguments.partitions)]
            )
            read = size = 0
            last = began
            while read < count:
                for message in consumer.consume(10_000, 0.1):
                    value = message.value()
                    if message.error() is None and value is not None:
                        read += 1
                        size += len(value)
                        last = time.monotonic()
                if time.monotonic() - last > 30:
                    raise common.CommandError(f"{PROG}: only {read} of {count} records came back")
            return Measured("consume", time.monotonic() - began, read, size, 0, [])
        finally:
            consumer.close()

    def _check(self, topic: str, expected: int, acks: str) -> None:
        """Ends minus starts over all partitions; acks=0 may lose, the others may not."""
        spec = common.kafka_admin.OffsetSpec
        partitions = [TopicPartition(topic, number) for number in range(self._arguments.partitions)]
        # With acks=1 the answer does not wait for the followers: the high watermark may trail for a moment.
        deadline = time.monotonic() + 30
        stored = -1
        while stored != expected and time.monotonic() < deadline:
            futures = self._admin.list_offsets({partition: spec.latest() for partition in partitions})
            stored = sum(future.result(30).offset for future in futures.values())
        if stored != expected:
            self._is_whole = False
            common.complain(f"{PROG}: {expected} records acknowledged, {stored} stored", 1)

    def _show_usage(self, before: dict[int, _Usage], done: Measured) -> None:
        """What the brokers used: together per GB, or per 1,000 requests of one record; and each by itself."""
        after = _usage(self._pids)
        used = {pid: usage.cpu_s - before[pid].cpu_s for pid, usage in after.items() if pid in before}
        if not used:
            return
        total = sum(used.values())
        if done.requests_count == done.records_count:
            per = f"{1000 * total / done.requests_count:.3f} s per 1,000 requests"
        else:
            per = f"{1e9 * total / done.bytes_count:.2f} s/GB"
        each = ", ".join(f"{used[pid]:.2f} s {after[pid].rss_bytes / 2**20:.0f} MiB" for pid in used)
        print(f"    brokers' CPU {total:.2f} s: {per}; each with its memory: {each}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

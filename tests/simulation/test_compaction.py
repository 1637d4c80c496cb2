"""A compacted topic in simulated clusters: brokers die in the middle of compactions, leaders change, followers copy
over holes, power is lost where acknowledged means on the disk. What was acknowledged last of each key is what is read.

The checkers of other runs compare logs byte by byte, which compaction changes by intent; here a plain model is held
against what consumers of the leader are given, while all is going on and once it has healed, and against every replica.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.simulation import simple
from tests.simulation.faults import FaultDriver
from tests.simulation.profiles import Profile
from tests.simulation.run import Supervisor
from tests.simulation.settings import WorldSettings
from tests.simulation.world import World
from zkbroker.broker.parts import Parts
from zkbroker.kafka.ports import ConsumedRow, ConsumeOptions, ConsumeRow, ProducedRow, ProduceRow
from zkbroker.log.log import Log
from zkbroker.model.topics import TopicPartition
from zkbroker.records.batch import batches
from zkbroker.records.record import Record, build_batch, records_of

KILLS = {
    "kill": 1.0, "kill_leader": 1.0, "kill_all": 0.2, "stop": 0.3, "pause": 0.3, "cut": 0.3, "isolate_leader": 0.3,
    "reset": 0.5,
}  # fmt: skip
POWER = {"power": 0.6, "power_leader": 0.5, "power_all": 0.1, "dies_writing": 2.0, "reset": 0.3}
KEYS = 6
PUTS = int(os.environ.get("ZKBROKER_COMPACTION_PUTS", "60"))
SEEDS = int(os.environ.get("ZKBROKER_COMPACTION_SEEDS", "2"))
"""Raise both to search."""
PATIENCE_S = 60.0
TOPIC_CONFIG = {
    "cleanup.policy": "compact",
    "segment.bytes": "500",
    "min.cleanable.dirty.ratio": "0.01",
    # Longer than any replica is away: as in Kafka, one that comes back later never hears of what was deleted meanwhile.
    "delete.retention.ms": "10000",
}
CONFIG = {
    "log.cleaner.backoff.ms": "100",
    "log.cleaner.dedupe.buffer.size": "240",
    "log.retention.check.interval.ms": "500",
    "log.segment.delete.delay.ms": "200",
    "min.insync.replicas": "2",
}


class Keyed:
    """One writer that goes on until each record is acknowledged by all, and what a reader must believe then."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(f"keyed {seed}")
        self.expected: dict[bytes, bytes] = {}
        self.end = 0
        self.compactions = 0

    def put(self, number: int) -> None:
        pairs = []
        for place in range(self.random.randint(1, 3)):
            key = b"k%d" % self.random.randrange(KEYS)
            value = (
                None if self.random.random() < 0.2 else b"%d.%d" % (number, place) + b"." * self.random.randrange(90)
            )
            pairs.append((key, value))
        stamp = simple.WALL_MS
        records = [Record(place, stamp, key, value) for place, (key, value) in enumerate(pairs)]
        batch = build_batch(records, codec=self.random.randrange(5))

        def attempt(parts: Parts, done: Callable[[list[ProducedRow]], None]) -> None:
            parts.replicas.produce(-1, 900, None, [ProduceRow(simple.TOPIC, 0, batch)], done)

        answer = simple._until_done(self.world, 0, attempt, PATIENCE_S)
        self.end = answer.base_offset + len(pairs)
        for key, value in pairs:
            self.expected.pop(key, None)
            if value is not None:
                self.expected[key] = value

    def read(self) -> dict[bytes, bytes]:
        """What a consumer that begins at the beginning believes at the end; offsets rise, no record is read twice."""
        found: dict[bytes, bytes] = {}
        offset, last = 0, -1
        while offset < self.end:
            place = offset

            def attempt(parts: Parts, done: Callable[[list[ConsumedRow]], None], place: int = place) -> None:
                row = ConsumeRow(simple.TOPIC, 0, place, 600)
                parts.replicas.consume(ConsumeOptions(0, 0, 600), [row], done)

            answer = simple._until_done(self.world, 0, attempt, PATIENCE_S)
            data = b"".join(bytes(chunk) for chunk in answer.records)
            for at, header in batches(data):
                assert header.base_offset > last, f"offset {header.base_offset} after {last}"
                last = header.last_offset
                _take(found, records_of(data, header, at))
                offset = header.next_offset
            if not data:
                self.world.run_for(simple.AGAIN_S)
        return found


def _take(found: dict[bytes, bytes], records: Any) -> None:
    for record in records:
        assert record.key is not None
        found.pop(record.key, None)
        if record.value is not None:
            found[record.key] = record.value


def _of_replica(log: Log) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    disk = log.context.disk
    for segment in log.segments:
        data = disk.read_file(segment.path)[: segment.size]
        for at, header in batches(data):
            _take(found, records_of(data, header, at))
    return found


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("flushes", [False, True], ids=["kills", "power"])
def test_the_last_acknowledged_value_of_each_key_is_read(flushes: bool, seed: int) -> None:
    config = {**CONFIG, **({"log.flush.interval.messages": "1"} if flushes else {})}
    profile = Profile("compaction", "", POWER if flushes else KILLS)
    with World(seed, WorldSettings(config=config)) as world:
        world.start_all()
        assert world.run_until(lambda: all(node.is_ready for node in world.nodes.values()), 10.0)
        simple.create_topic(world, **TOPIC_CONFIG)
        keyed = Keyed(world, seed)
        driver = FaultDriver(world, profile)
        supervisor = Supervisor()
        world.checkers += [driver, supervisor]
        for number in range(PUTS):
            keyed.put(number)
            world.run_for(keyed.random.choice((0.0, 0.05, 0.2)))
            if number % 20 == 19:
                assert keyed.read() == keyed.expected
        driver.stop()
        world.heal_all()
        assert keyed.read() == keyed.expected
        assert world.run_until(lambda: _all_alike(world, keyed.end), PATIENCE_S), world
        world.run_for(3.0)
        for node in world.nodes.values():
            assert node.parts is not None
            log = node.parts._logs.logs[TopicPartition(simple.TOPIC, 0)]
            assert _of_replica(log) == keyed.expected, f"broker {node.broker_id} {log!r}"
            assert log.size < 3 * 500 + 1500, f"broker {node.broker_id} compacts nothing: {log!r}, {log.size} bytes"


def _all_alike(world: World, end: int) -> bool:
    if len(simple.isr_of(world)) != len(world.nodes):
        return False
    for node in world.nodes.values():
        log = None if node.parts is None else node.parts._logs.logs.get(TopicPartition(simple.TOPIC, 0))
        if log is None or log.log_end_offset < end:
            return False
    return True

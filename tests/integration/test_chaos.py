"""Brokers killed by seed while three idempotent producers write: every acknowledged record is read from every replica.

ZKBROKER_CHAOS_SECONDS (20) and ZKBROKER_CHAOS_SEED (random) choose the run; a failure prints the seed.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.harness.brokers import Cluster, SteadyWriter
from tests.harness.zookeeper import ZooKeeperEnsemble

SECONDS = float(os.environ.get("ZKBROKER_CHAOS_SECONDS", "20"))
SEED = int(os.environ.get("ZKBROKER_CHAOS_SEED", str(random.SystemRandom().randrange(2**32))))
TOPIC = "chaos"
PARTITIONS = 6
PER_SECOND = 600
PATIENCE = 0.7
"""How often the next kill waits until the broker before has started again."""


def choose_victim(cluster: Cluster, dice: random.Random) -> tuple[str, int]:
    """Leader, follower or controller of some partition, as the dice say."""
    partition = dice.randrange(PARTITIONS)
    leader = cluster.leader(TOPIC, partition)
    role = dice.choice(["leader", "follower", "controller"])
    if role == "controller" and cluster.controller_id() is not None:
        return role, cluster.controller_id() or 0
    if role == "leader" and leader in cluster.brokers:
        return role, leader or 0
    return "follower", dice.choice([broker for broker in cluster.brokers if broker != leader])


@pytest.mark.timeout(SECONDS * 3 + 600)
def test_acknowledged_records_survive_kills(ensemble: ZooKeeperEnsemble, tmp_path: Path) -> None:
    print(f"ZKBROKER_CHAOS_SEED={SEED} ZKBROKER_CHAOS_SECONDS={SECONDS:g}")
    dice = random.Random(SEED)
    overrides = {"min.insync.replicas": 2, "auto.leader.rebalance.enable": "false"}
    with Cluster(ensemble.connect_string, tmp_path, overrides=overrides) as cluster:
        order = [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 3, 2], [2, 1, 3], [3, 2, 1]]
        cluster.create_topic(TOPIC, assignment=order)
        cluster.wait_isr(TOPIC, [1, 2, 3])
        writers = [SteadyWriter(cluster, f"w{number}", TOPIC, range(PARTITIONS), PER_SECOND / 3) for number in range(3)]
        for writer in writers:
            writer.start()
        story = _make_trouble(cluster, dice)
        cluster.start()
        for writer in writers:
            writer.stop()
        cluster.wait_isr(TOPIC, [1, 2, 3], 120)

        history = "\n".join(story)
        for writer in writers:
            assert writer.failures == [], history
            assert len(writer.acknowledged) == sum(len(sent) for sent in writer.sent.values()), history
        print(f"{sum(len(writer.acknowledged) for writer in writers)} records, {len(story)} kills")
        _read_from_every_replica(cluster, writers, history)


def _make_trouble(cluster: Cluster, dice: random.Random) -> list[str]:
    """Kill one broker after the other, each restarted after 0–3 s; what was done, with times."""
    story = []
    began = time.monotonic()
    while time.monotonic() - began < SECONDS:
        time.sleep(dice.uniform(0.5, 3))
        role, victim = choose_victim(cluster, dice)
        away_s = dice.uniform(0, 3)
        story.append(f"{time.monotonic() - began:6.2f} kill -9 broker {victim} ({role}), back after {away_s:.2f} s")
        cluster.brokers[victim].kill()
        time.sleep(away_s)
        cluster.brokers[victim].start()
        if dice.random() < PATIENCE:
            cluster.brokers[victim].wait_started()
        # else the next one dies while this one recovers, or this one once more
    return story


def _read_from_every_replica(cluster: Cluster, writers: list[SteadyWriter], history: str) -> None:
    """Each broker in turn leads every partition (the two others are stopped) and must serve the same records."""
    expected: dict[int, dict[int, bytes]] = {partition: {} for partition in range(PARTITIONS)}
    for writer in writers:
        for record in writer.acknowledged:
            if record.offset is None:
                continue  # librdkafka concluded it from the acknowledgement of a later one; found by its value below
            assert record.offset not in expected[record.partition], f"two records at one offset\n{history}"
            expected[record.partition][record.offset] = record.value
    ends = {partition: max(offsets) + 1 for partition, offsets in expected.items()}
    for survivor in cluster.brokers:
        cluster.start()
        cluster.wait_isr(TOPIC, [1, 2, 3], 120)
        for broker_id, broker in cluster.brokers.items():
            if broker_id != survivor:
                broker.stop()
        for partition in range(PARTITIONS):
            cluster.wait_for(
                lambda partition=partition: cluster.leader(TOPIC, partition) == survivor,  # noqa: B023
                f"broker {survivor} leads {TOPIC}-{partition}",
            )
            read = cluster.consume(TOPIC, partition, end=ends[partition])
            found = dict(read)
            assert len(found) == len(read), f"an offset read twice\n{history}"
            lost = {offset: value for offset, value in expected[partition].items() if found.get(offset) != value}
            assert not lost, (
                f"{len(lost)} of {TOPIC}-{partition} lost or changed at broker {survivor}: {lost}\n{history}"
            )
            for writer in writers:
                mine = writer.sent[partition]
                kept = [value for _, value in read if value.startswith(writer.sent_prefix)]
                assert kept == mine, f"{TOPIC}-{partition} at {survivor}: not in order or not once\n{history}"

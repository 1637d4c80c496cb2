"""Which brokers hold the replicas of new partitions: Kafka's placement, with and without racks.

The formulas are those of Kafka's ``AdminUtils.assignReplicasToBrokers``, so that the same start index and shift
give the same assignment. The two random numbers are parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zkbroker.model.errors import BrokerError, ErrorCode

Assignment = dict[int, tuple[int, ...]]
"""Partition → replicas, the preferred leader first."""


def assign_replicas(
    brokers: Mapping[int, str | None],
    partitions_count: int,
    replication_factor: int,
    *,
    start_index: int,
    shift: int,
    first_partition: int = 0,
) -> Assignment:
    """Place ``partitions_count`` partitions from ``first_partition`` on over ``brokers`` (id → rack).

    Racks count only when every broker has one: while racks are being introduced the placement ignores them, where
    Kafka refuses to create topics. Raises BrokerError INVALID_PARTITIONS or INVALID_REPLICATION_FACTOR.
    """
    if partitions_count <= 0:
        raise BrokerError(ErrorCode.INVALID_PARTITIONS, "Number of partitions must be larger than 0.")
    if replication_factor <= 0:
        raise BrokerError(ErrorCode.INVALID_REPLICATION_FACTOR, "Replication factor must be larger than 0.")
    if replication_factor > len(brokers):
        raise BrokerError(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"Replication factor: {replication_factor} larger than available brokers: {len(brokers)}.",
        )
    racks = {broker: rack for broker, rack in brokers.items() if rack is not None}
    if len(racks) < len(brokers):
        ring = sorted(brokers)
        racks = {}
    else:
        ring = alternate_racks(racks)
    assignment: Assignment = {}
    for partition in range(first_partition, first_partition + partitions_count):
        if partition > 0 and partition % len(ring) == 0:
            shift += 1
        first = (partition + start_index) % len(ring)
        if racks:
            assignment[partition] = _place_over_racks(ring, racks, replication_factor, first, shift)
        else:
            followers = (ring[_replica_index(first, shift, j, len(ring))] for j in range(replication_factor - 1))
            assignment[partition] = (ring[first], *followers)
    return assignment


def extend_assignment(
    brokers: Mapping[int, str | None], existing: Mapping[int, Sequence[int]], total: int
) -> Assignment:
    """The replicas of the partitions that raise a topic to ``total``: as many each as partition 0 has.

    Start and shift are the place of partition 0's preferred leader, so the sequence goes on as it began.
    Raises BrokerError as ``assign_replicas`` does.
    """
    racks = {broker: rack for broker, rack in brokers.items() if rack is not None}
    ring = alternate_racks(racks) if brokers and len(racks) == len(brokers) else sorted(brokers)
    preferred = existing[0][0]
    start = next((index for index, broker in enumerate(ring) if broker >= preferred), 0)
    return assign_replicas(
        brokers,
        total - len(existing),
        len(existing[0]),
        start_index=start,
        shift=start,
        first_partition=len(existing),
    )


def alternate_racks(racks: Mapping[int, str]) -> list[int]:
    """Broker ids ordered so that neighbours are on different racks: racks sorted, ids sorted, round robin."""
    by_rack: dict[str, list[int]] = {}
    for broker in sorted(racks):
        by_rack.setdefault(racks[broker], []).append(broker)
    lanes = [by_rack[rack] for rack in sorted(by_rack)]
    longest = max((len(lane) for lane in lanes), default=0)
    return [lane[turn] for turn in range(longest) for lane in lanes if turn < len(lane)]


def _replica_index(first: int, shift: int, j: int, count: int) -> int:
    return (first + 1 + (shift + j) % (count - 1)) % count


def _place_over_racks(
    ring: list[int], racks: Mapping[int, str], replication_factor: int, first: int, shift: int
) -> tuple[int, ...]:
    racks_count = len(set(racks.values()))
    replicas = [ring[first]]
    used_racks = {racks[ring[first]]}
    k = 0
    while len(replicas) < replication_factor:
        broker = ring[_replica_index(first, shift * racks_count, k, len(ring))]
        k += 1
        if broker in replicas or (racks[broker] in used_racks and len(used_racks) < racks_count):
            continue
        replicas.append(broker)
        used_racks.add(racks[broker])
    return tuple(replicas)

"""What ``zkbroker-reassign-partitions`` calculates: its JSON files, proposed assignments, which replicas are throttled.

The rules are those of Kafka's ReassignPartitionsCommand (KIP-455, KIP-73), so that either tool can go on where the
other stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from zkbroker.cli._common import CommandError
from zkbroker.controller.assignment import assign_replicas
from zkbroker.model.errors import BrokerError
from zkbroker.model.reassignments import OngoingMove
from zkbroker.model.topics import TopicPartition

ANY_DIR = "any"
Replicas = Mapping[TopicPartition, tuple[int, ...]]


class Move(NamedTuple):
    """Between which brokers the bytes of one partition travel."""

    sources: tuple[int, ...]
    destinations: tuple[int, ...]


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        raise CommandError("The input string is not a valid JSON") from None
    if not isinstance(document, dict):
        raise CommandError("The input string is not a valid JSON")
    version = document.get("version", 1)
    if version != 1:
        raise CommandError(f"Not supported version field value {version}")
    return document


def parse_reassignment(text: str) -> dict[TopicPartition, tuple[int, ...]]:
    """``--reassignment-json-file``. Raises CommandError."""
    found: dict[TopicPartition, tuple[int, ...]] = {}
    twice: dict[TopicPartition, None] = {}
    try:
        for row in _document(text).get("partitions", ()):
            partition = TopicPartition(str(row["topic"]), int(row["partition"]))
            replicas = tuple(int(replica) for replica in row["replicas"])
            folders = row.get("log_dirs")
            if folders is not None and len(folders) != len(replicas):
                raise CommandError(
                    f"Size of replicas list {list(replicas)} is different from size of log dirs list {folders} "
                    f"for partition {partition}"
                )
            if folders is not None and any(folder != ANY_DIR for folder in folders):
                raise CommandError(
                    f"{partition}: replicas are moved between brokers only; log_dirs other than any are not supported"
                )
            if partition in found:
                twice[partition] = None
            found[partition] = replicas
    except (KeyError, TypeError, ValueError):
        raise CommandError("a row of the JSON wants topic, partition and replicas") from None
    if not found:
        raise CommandError("Partition reassignment list cannot be empty")
    if any(not replicas for replicas in found.values()):
        raise CommandError("Partition replica list cannot be empty")
    if twice:
        raise CommandError(f"Partition reassignment contains duplicate topic partitions: {','.join(map(str, twice))}")
    doubled = [
        f"{partition} contains multiple entries for {','.join(map(str, _repeated(replicas)))}"
        for partition, replicas in found.items()
        if _repeated(replicas)
    ]
    if doubled:
        raise CommandError(f"Partition replica lists may not contain duplicate entries: {'. '.join(doubled)}")
    return found


def parse_topics(text: str) -> list[str]:
    """``--topics-to-move-json-file``. Raises CommandError."""
    try:
        names = [str(row["topic"]) for row in _document(text).get("topics", ())]
    except (KeyError, TypeError):
        raise CommandError("a row of the JSON wants topic") from None
    if _repeated(names):
        raise CommandError(f"List of topics to reassign contains duplicate entries: {','.join(_repeated(names))}")
    return names


def parse_brokers(text: str) -> list[int]:
    """``--broker-list``. Raises CommandError."""
    try:
        brokers = [int(part) for part in text.split(",")]
    except ValueError:
        raise CommandError(f"--broker-list wants broker ids as in 1,2, not {text!r}") from None
    if _repeated(brokers):
        raise CommandError(f"Broker list contains duplicate entries: {','.join(map(str, _repeated(brokers)))}")
    return brokers


def _repeated(items: Iterable[Any]) -> list[Any]:
    seen: dict[Any, int] = {}
    for item in items:
        seen[item] = seen.get(item, 0) + 1
    return [item for item, count in seen.items() if count > 1]


def as_rows(assignment: Replicas) -> dict[str, Any]:
    """The document that ``--execute`` takes."""
    rows = [
        {
            "topic": partition.topic,
            "partition": partition.partition,
            "replicas": list(replicas),
            "log_dirs": [ANY_DIR] * len(replicas),
        }
        for partition, replicas in sorted(assignment.items())
    ]
    return {"version": 1, "partitions": rows}


def as_json(document: Mapping[str, Any]) -> str:
    """Without blanks, as Kafka's tool writes it."""
    return json.dumps(document, separators=(",", ":"))


def propose(
    current: Replicas, brokers: Mapping[int, str | None], random_below: Callable[[int], int]
) -> dict[TopicPartition, tuple[int, ...]]:
    """An assignment of the same partitions to these brokers (id → rack), each topic placed as a new one would be.
    Raises CommandError."""
    by_topic: dict[str, list[TopicPartition]] = {}
    for partition in sorted(current):
        by_topic.setdefault(partition.topic, []).append(partition)
    proposed: dict[TopicPartition, tuple[int, ...]] = {}
    for partitions in by_topic.values():
        factor = len(current[partitions[0]])
        try:
            placed = assign_replicas(
                brokers,
                len(partitions),
                factor,
                start_index=random_below(len(brokers)),
                shift=random_below(len(brokers)),
            )
        except BrokerError as error:
            raise CommandError(str(error)) from None
        proposed.update((partition, placed[number]) for number, partition in enumerate(partitions))
    return proposed


def moves(current: Replicas, wanted: Replicas, ongoing: Mapping[TopicPartition, OngoingMove]) -> dict[str, Any]:
    """Topic → partition → Move, with what is under way already."""
    found: dict[str, dict[int, Move]] = {}
    for partition, move in ongoing.items():
        sources = tuple(replica for replica in move.replicas if replica not in move.adding)
        found.setdefault(partition.topic, {})[partition.partition] = Move(sources, move.adding)
    for partition, replicas in wanted.items():
        if partition in ongoing:
            move = ongoing[partition]
            sources = tuple(replica for replica in move.replicas if replica not in move.adding)
            coming = (*move.adding, *replicas)
        else:
            sources, coming = tuple(current[partition]), replicas
        destinations = tuple(dict.fromkeys(replica for replica in coming if replica not in sources))
        found.setdefault(partition.topic, {})[partition.partition] = Move(sources, destinations)
    return found


def throttled_replicas(by_partition: Mapping[int, Move]) -> tuple[str, str]:
    """The topic's leader.replication.throttled.replicas and its follower's: ``partition:broker,…``."""

    def listed(side: Callable[[Move], Sequence[int]]) -> str:
        return ",".join(
            f"{number}:{broker}" for number in sorted(by_partition) for broker in sorted(side(by_partition[number]))
        )

    return listed(lambda move: move.sources), listed(lambda move: move.destinations)

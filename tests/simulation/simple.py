"""The simplest client of a simulated cluster, for tests of the world itself: one request at a time until it is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.simulation.process import Node, Process
from tests.simulation.settings import WorldSettings
from tests.simulation.world import World
from zkbroker.broker.parts import Parts
from zkbroker.kafka.ports import ConsumedRow, ConsumeOptions, ConsumeRow, ProducedRow, ProduceRow
from zkbroker.model.channel import NewTopic
from zkbroker.model.errors import ErrorCode
from zkbroker.records.batch import batches
from zkbroker.records.record import Record, build_batch, records_of

TOPIC = "t"
AGAIN_S = 0.05
ATTEMPT_S = 1.0
WALL_MS = 1_700_000_000_000


def booted(seed: int, settings: WorldSettings | None = None) -> World:
    """A world whose brokers are all ready."""
    world = World(seed, settings)
    world.start_all()
    assert world.run_until(lambda: all(node.is_ready for node in world.nodes.values()), 10.0)
    return world


def controller_of(world: World) -> Node | None:
    """The node that is controller as brokers know it."""
    for node in world.nodes.values():
        if node.parts is not None and node.parts.controller.is_controller:
            return node
    return None


def leader_of(world: World, partition: int = 0) -> Node | None:
    """The running node that believes that it leads."""
    for node in world.nodes.values():
        parts = node.parts
        view = None if parts is None else parts.metadata.topic(TOPIC)
        if view is not None and partition in view.partitions and view.partitions[partition].leader == node.broker_id:
            return node
    return None


def isr_of(world: World, partition: int = 0) -> list[int]:
    """As ZooKeeper has it."""
    data = world.zookeeper.data(f"/brokers/topics/{TOPIC}/partitions/{partition}/state")
    return [] if data is None else list(json.loads(data)["isr"])


def create_topic(world: World, partitions: int = 1, **configs: str) -> None:
    """``TOPIC`` on three brokers; every broker knows it afterwards."""
    assert world.run_until(lambda: controller_of(world) is not None, 10.0)
    node = controller_of(world)
    assert node is not None and node.parts is not None
    admin = node.parts.admin
    answers: list[Any] = []
    topic = NewTopic(TOPIC, partitions, min(3, world.settings.brokers), configs=tuple(sorted(configs.items())))
    in_process(node, lambda: admin.create_topics([topic], 5_000, False).addBoth(answers.append))
    assert world.run_until(lambda: answers, 10.0)
    assert answers[0][0].error is ErrorCode.NONE, answers
    assert world.run_until(lambda: all(_knows(node) for node in world.nodes.values()), 10.0)


def _knows(node: Node) -> bool:
    return node.parts is not None and node.parts.metadata.topic(TOPIC) is not None


def in_process(node: Node, function: Callable[[], object]) -> Process:
    """Have the node's process run something."""
    assert node.process is not None
    node.process.call(0.0, "client", "asks", function)
    return node.process


def produce(world: World, value: bytes, *, partition: int = 0, acks: int = -1, seconds_max: float = 10.0) -> int:
    """The offset at which ``value`` was acknowledged, asked again until it is."""

    def attempt(parts: Parts, done: Callable[[list[ProducedRow]], None]) -> None:
        batch = build_batch([Record(0, WALL_MS, None, value)])
        parts.replicas.produce(acks, 900, None, [ProduceRow(TOPIC, partition, batch)], done)

    return int(_until_done(world, partition, attempt, seconds_max).base_offset)


def consume(world: World, *, partition: int = 0, seconds_max: float = 10.0) -> list[bytes]:
    """Every committed value of a partition."""

    def attempt(parts: Parts, done: Callable[[list[ConsumedRow]], None]) -> None:
        parts.replicas.consume(ConsumeOptions(0, 0, 1_000_000), [ConsumeRow(TOPIC, partition, 0, 1_000_000)], done)

    data = b"".join(bytes(chunk) for chunk in _until_done(world, partition, attempt, seconds_max).records)
    return [record.value or b"" for at, header in batches(data) for record in records_of(data, header, at)]


def _until_done(
    world: World, partition: int, attempt: Callable[[Parts, Callable[[list[Any]], None]], None], seconds_max: float
) -> Any:
    until = world.now + seconds_max
    last: ErrorCode | None = None
    while world.now < until:
        answer = _ask(world, partition, attempt)
        if answer is not None:
            last = answer.error
            if last is ErrorCode.NONE:
                return answer
        world.run_for(AGAIN_S)
    raise AssertionError(f"not done in {seconds_max} s, {last}: {world}")


def _ask(world: World, partition: int, attempt: Callable[[Parts, Callable[[list[Any]], None]], None]) -> Any:
    node = leader_of(world, partition)
    if node is None or node.parts is None:
        return None
    parts, answers = node.parts, list[Any]()
    process = in_process(node, lambda: attempt(parts, answers.extend))
    world.run_until(lambda: answers or not process.is_alive, ATTEMPT_S)
    return answers[0] if answers else None

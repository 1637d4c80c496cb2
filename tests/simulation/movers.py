"""A simulated administrator who moves partitions: grows, shrinks, moves them, takes it back, asks for elections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.simulation.clients import NOBODY, Client
from tests.simulation.links import Answered
from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.reassignments import ElectionKind
from zkbroker.model.topics import TopicPartition
from zkbroker.zookeeper.client import Create
from zkbroker.zookeeper.znodes import admin as admin_znode

REPLICAS_MAX = 4

EXPECTED = frozenset(
    (
        ErrorCode.NONE,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.INVALID_REPLICA_ASSIGNMENT,
        ErrorCode.NO_REASSIGNMENT_IN_PROGRESS,
        ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE,
        ErrorCode.ELECTION_NOT_NEEDED,
        ErrorCode.INVALID_TOPIC_EXCEPTION,
    )
)


class Mover(Client):
    """Asks for a move of some partition in most of its turns, whether the last one is over or not."""

    turn_s = 0.06

    def __init__(self, *args: Any, moves_per_turn: float, **kwargs: Any) -> None:
        self.moves_per_turn = moves_per_turn
        self.is_moving = True
        self._waits = False
        super().__init__(*args, **kwargs)

    def act(self) -> None:
        if self._waits:
            return
        if self.controller == NOBODY or not self.partition_counts or self.random.random() < 0.1:
            self.refresh()
            return
        if not self.is_moving or self.random.random() > self.moves_per_turn:
            return
        topic = self.random.choice(sorted(self.partition_counts))
        partition = TopicPartition(topic, self.random.randrange(self.partition_counts[topic]))
        kind = self.random.random()
        if kind < 0.6:
            self._move({partition: self._target()})
        elif kind < 0.8:
            self._move({partition: None})
        elif kind < 0.9:
            self._write({partition: self._target()})
        else:
            self._ask(
                f"elect {partition}", lambda admin: admin.elect_leaders(ElectionKind.PREFERRED, [partition], 2_000)
            )

    def _target(self) -> tuple[int, ...]:
        brokers = sorted(self.world.nodes)
        count = self.random.choice((1, 2, 2, 3, 3, 3, REPLICAS_MAX))
        return tuple(self.random.sample(brokers, min(count, len(brokers))))

    def _move(self, wanted: Mapping[TopicPartition, tuple[int, ...] | None]) -> None:
        self._ask(f"move {dict(wanted)}", lambda admin: admin.alter_reassignments(wanted, 2_000))

    def _write(self, wanted: Mapping[TopicPartition, tuple[int, ...]]) -> None:
        """As an old tool does, which has a connection to ZooKeeper of its own."""
        zookeeper = self.world.zookeeper
        if zookeeper.stat(admin_znode.REASSIGN_PARTITIONS_PATH) is None:
            self.world.trace.add("client", f"{self.name} writes the znode: {dict(wanted)}")
            zookeeper.write(Create(admin_znode.REASSIGN_PARTITIONS_PATH, admin_znode.encode_reassignment(wanted)))
            self.world.counts["moves_by_znode"] += 1

    def _ask(self, text: str, ask: Any) -> None:
        link = self.link_to(self.controller)
        if link is None:
            self.refresh()
            return
        process = link.process
        self._waits = True

        def run(answer: Answered) -> None:
            parts = process.broker._parts
            if parts is None:
                return
            ask(parts.admin).addCallbacks(answer, lambda failure: answer(failure.value))

        self.send(link, f"{self.name} {text}", run, self._answered)

    def _answered(self, answer: Any) -> None:
        self._waits = False
        self.refresh()
        if isinstance(answer, Mapping):
            for outcome in answer.values():
                if outcome.error not in EXPECTED:
                    raise AssertionError(f"{outcome}")
                self.world.counts["moves_begun"] += outcome.error is ErrorCode.NONE
        elif answer is not None and not isinstance(answer, BrokerError):
            raise answer

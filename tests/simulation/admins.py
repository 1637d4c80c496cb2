"""A simulated administrator: makes topics, deletes them, makes them again, adds partitions."""

from __future__ import annotations

from typing import Any

from tests.simulation.clients import NOBODY, Client
from tests.simulation.links import Answered
from zkbroker.kafka.ports import PartitionsToAdd, TopicToDelete
from zkbroker.model.channel import NewTopic
from zkbroker.model.errors import BrokerError, ErrorCode

PARTITIONS_MAX = 4


class Admin(Client):
    """Keeps ``topics`` there; those in ``changing`` are deleted and enlarged, ``changes_per_turn`` times on average."""

    turn_s = 0.3

    def __init__(
        self,
        *args: Any,
        topics: dict[str, int],
        changing: tuple[str, ...],
        changes_per_turn: float,
        replication_factor: int,
        **kwargs: Any,
    ) -> None:
        self.topics = topics
        """Topic → partitions that it is made with."""
        self.changing = changing
        self.changes_per_turn = changes_per_turn
        self.replication_factor = replication_factor
        self.is_changing = True
        self._waits = False
        super().__init__(*args, **kwargs)

    @property
    def is_content(self) -> bool:
        """As far as it heard, all of its topics are there."""
        return not self._waits and all(topic in self.partition_counts for topic in self.topics)

    def act(self) -> None:
        if self._waits:
            return
        missing = [topic for topic in self.topics if topic not in self.partition_counts]
        if missing or self.random.random() < 0.2:
            self.refresh()
        if self.controller == NOBODY:
            return
        if missing:
            topic = missing[0]
            wanted = NewTopic(topic, self.topics[topic], self.replication_factor)
            self._ask(f"create {topic}", lambda admin: admin.create_topics([wanted], 2_000, False))
        elif self.changing and self.is_changing and self.random.random() < self.changes_per_turn:
            self._change(self.random.choice(self.changing))

    def _change(self, topic: str) -> None:
        count = self.partition_counts[topic]
        if self.random.random() < 0.4 and count < PARTITIONS_MAX:
            larger = PartitionsToAdd(topic, count + 1)
            self._ask(f"enlarge {topic}", lambda admin: admin.create_partitions([larger], 2_000, False))
        else:
            gone = TopicToDelete(topic, None)
            self._ask(f"delete {topic}", lambda admin: admin.delete_topics([gone], 2_000))

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
        if isinstance(answer, list):
            error = answer[0].error
            self.world.counts["topic_changes"] += error is ErrorCode.NONE
        elif answer is not None and not isinstance(answer, BrokerError):
            raise answer

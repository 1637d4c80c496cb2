"""What every simulated client has: connections, a picture of who leads, and a turn now and then."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from tests.simulation.history import History
from tests.simulation.links import Answered, Link, can_connect
from zkbroker.model.errors import ErrorCode

if TYPE_CHECKING:
    from tests.simulation.world import World

REQUEST_TIMEOUT_S = 1.5
"""After so long without an answer a client gives its connection up."""
METADATA_AGAIN_S = 0.02
FIRST_TURNS_S = 0.03
"""Before it has heard of any topic a client is in a hurry."""
NOBODY = -1

MOVED = frozenset(
    (
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.LEADER_NOT_AVAILABLE,
        ErrorCode.FENCED_LEADER_EPOCH,
        ErrorCode.UNKNOWN_LEADER_EPOCH,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.KAFKA_STORAGE_ERROR,
        ErrorCode.NOT_CONTROLLER,
    )
)
"""Errors after which a client asks for metadata."""


class Client:
    """Acts every ``turn_s`` or so; ``name`` is for values and the trace."""

    turn_s = 0.1

    def __init__(self, world: World, history: History, name: str, *, delay_s_max: float, loss_share: float) -> None:
        self.world = world
        self.history = history
        self.name = name
        self.random = random.Random(world.random.getrandbits(64))
        self.delay_s_max = delay_s_max
        self.loss_share = loss_share
        self.is_beside_firewall = self.random.random() < 0.5
        """It reaches brokers through another way than the firewall that rejects what their peers connect to."""
        self.links: dict[int, Link] = {}
        self.sent_at: dict[int, float] = {}
        """Broker → when the oldest request that waits there was sent, or later."""
        self.leaders: dict[tuple[str, int], tuple[int, int]] = {}
        """(topic, partition) → (leader, leader epoch) as last heard; leader NOBODY without one."""
        self.partition_counts: dict[str, int] = {}
        self.controller = NOBODY
        self._metadata_at = float("-inf")
        self._metadata_waits = False
        self.is_stopped = False
        self.answers_count = 0
        """Answers of any kind from brokers: it is served."""
        self._turn_later()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    def act(self) -> None:
        """Its turn."""
        raise NotImplementedError

    def _turn_later(self) -> None:
        seconds = self.turn_s if self.partition_counts else FIRST_TURNS_S
        self.world.call_later(seconds * (0.5 + self.random.random()), "client", self._turn)

    def _turn(self) -> None:
        if self.is_stopped:
            return
        self._turn_later()
        now = self.world.now
        for broker_id, link in list(self.links.items()):
            link.check()
            if link.is_open and link.in_flight and now - self.sent_at[broker_id] > REQUEST_TIMEOUT_S:
                link.broke()
            if not link.is_open:
                del self.links[broker_id]
        self.act()

    def stop(self) -> None:
        self.is_stopped = True

    # Requests

    def link_to(self, broker_id: int) -> Link | None:
        """An open connection, made if need be; None if there cannot be one now."""
        link = self.links.get(broker_id)
        world = self.world
        if link is not None and link.is_open and link.process.is_alive:
            return link
        process = world.nodes[broker_id].process if broker_id in world.nodes else None
        if process is None or not can_connect(world, broker_id, is_beside_firewall=self.is_beside_firewall):
            return None
        if link is not None:
            link.broke()
        link = self.links[broker_id] = Link(world, process, delay_s_max=self.delay_s_max, loss_share=self.loss_share)
        return link

    def send(self, link: Link, text: str, run: Any, answered: Answered) -> None:
        broker_id = link.process.node.broker_id
        if not link.in_flight:
            self.sent_at[broker_id] = self.world.now

        def done(answer: Any) -> None:
            if answer is not None:
                self.answers_count += 1
                self.sent_at[broker_id] = self.world.now
            answered(answer)

        link.send(text, run, done)

    def any_link(self) -> Link | None:
        """A connection to some broker that accepts one."""
        ids = list(self.world.nodes)
        self.random.shuffle(ids)
        for broker_id in ids:
            link = self.link_to(broker_id)
            if link is not None:
                return link
        return None

    # Metadata

    def refresh(self) -> None:
        """Ask some broker who leads, unless it was asked a moment ago."""
        now = self.world.now
        if self._metadata_waits and now - self._metadata_at < REQUEST_TIMEOUT_S:
            return
        if now - self._metadata_at < METADATA_AGAIN_S:
            return
        link = self.any_link()
        if link is None:
            return
        self._metadata_at = now
        self._metadata_waits = True
        process = link.process

        def run(answer: Answered) -> None:
            metadata = process.broker._parts.metadata  # type: ignore[union-attr]
            answer((metadata.controller_id, metadata.topics()))

        self.send(link, f"{self.name} metadata", run, self._metadata)

    def _metadata(self, answer: Any) -> None:
        self._metadata_waits = False
        if answer is None:
            return
        self.controller, topics = answer
        self.partition_counts = {}
        for view in topics:
            self.partition_counts[view.name] = len(view.partitions)
            for number, state in view.partitions.items():
                known = self.leaders.get((view.name, number))
                # As librdkafka and Java do: metadata of an older leader epoch is not believed.
                if known is None or state.leader_epoch >= known[1] or self.random.random() < 0.2:
                    self.leaders[view.name, number] = (state.leader, state.leader_epoch)

    def moved(self, topic: str, partition: int, row: Any) -> None:
        """An answer said that the leader is another one."""
        hint = row.current_leader
        if hint is not None and self.random.random() < 0.8:
            self.leaders[topic, partition] = (hint.leader, hint.leader_epoch)
        else:
            self.leaders.pop((topic, partition), None)
            self.refresh()

    def leader_link(self, topic: str, partition: int) -> Link | None:
        known = self.leaders.get((topic, partition))
        if known is None or known[0] == NOBODY:
            self.refresh()
            return None
        link = self.link_to(known[0])
        if link is None:
            self.leaders.pop((topic, partition), None)
            self.refresh()
        return link

"""The clients of one simulated cluster, drawn from the world's seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulation.admins import Admin
from tests.simulation.checkers import Checkers
from tests.simulation.clients import Client
from tests.simulation.consumers import Consumer
from tests.simulation.history import ALL, History
from tests.simulation.liveness import Liveness
from tests.simulation.movers import Mover
from tests.simulation.producers import Producer

if TYPE_CHECKING:
    from tests.simulation.world import World


@dataclass(frozen=True)
class WorkloadSettings:
    topics: Mapping[str, int] = field(default_factory=lambda: {"t": 2, "u": 1})
    """Topic → partitions."""
    changing_topics: tuple[str, ...] = ()
    """Those among them that are deleted, made again and enlarged."""
    changes_per_turn: float = 0.05
    moves_per_turn: float = 0.0
    """How often a second administrator reassigns a partition; 0: there is none."""
    idempotent_producers: int = 2
    acks_all_producers: int = 1
    weak_producers: int = 1
    """With acks 0 or 1."""
    consumers: int = 2
    batches_per_turn: float = 0.6
    again_share: float = 0.2
    delay_s_max: float = 0.004
    loss_share: float = 0.01
    """Of requests: the connection breaks, the outcome is unknown."""


def drawn(random: Any, *, clients: int | None = None, changes_topics: bool = False) -> WorkloadSettings:
    """A workload of some shape; ``clients`` fixes how many producers and consumers there are."""
    topics = {"t": random.randint(1, 3)}
    if random.random() < 0.6 or changes_topics:
        topics["u"] = random.randint(1, 2)
    counts = [random.randint(1, 3), random.randint(0, 2), random.randint(0, 2), random.randint(1, 2)]
    if clients is not None:
        counts = [0, 0, 0, 0]
        for place in range(clients):
            counts[(0, 3, 1, 2)[place % 4]] += 1
    changing = ("u",) if changes_topics or ("u" in topics and random.random() < 0.15) else ()
    return WorkloadSettings(
        topics=topics,
        changing_topics=changing,
        changes_per_turn=random.choice((0.02, 0.1, 0.3)),
        idempotent_producers=counts[0],
        acks_all_producers=counts[1],
        weak_producers=counts[2],
        consumers=counts[3],
        batches_per_turn=random.choice((0.3, 0.8, 2.0)),
        again_share=random.choice((0.1, 0.3)),
        delay_s_max=random.choice((0.001, 0.004, 0.02)),
        loss_share=random.choice((0.0, 0.01, 0.03)),
    )


class Workload:
    """``start`` before or after the brokers start; ``check_liveness`` once, after faults have healed."""

    def __init__(self, world: World, checkers: Checkers, settings: WorkloadSettings | None = None) -> None:
        self.world = world
        self.checkers = checkers
        self.settings = settings if settings is not None else WorkloadSettings()
        self.history = History(world, checkers)
        self.producers: list[Producer] = []
        self.consumers: list[Consumer] = []
        self.admin: Admin | None = None
        self.mover: Mover | None = None

    def __repr__(self) -> str:
        return f"Workload({len(self.producers)} producers, {len(self.consumers)} consumers)"

    @property
    def clients(self) -> list[Client]:
        admins: list[Client] = [admin for admin in (self.admin, self.mover) if admin is not None]
        return [*admins, *self.producers, *self.consumers]

    def start(self) -> None:
        settings = self.settings
        topics = tuple(settings.topics)
        self.admin = Admin(
            self.world,
            self.history,
            "admin",
            delay_s_max=settings.delay_s_max,
            loss_share=settings.loss_share,
            topics=dict(settings.topics),
            changing=settings.changing_topics,
            changes_per_turn=settings.changes_per_turn,
            replication_factor=self.world.settings.replication_factor,
        )
        if settings.moves_per_turn > 0:
            self.mover = Mover(
                self.world,
                self.history,
                "mover",
                delay_s_max=settings.delay_s_max,
                loss_share=settings.loss_share,
                moves_per_turn=settings.moves_per_turn,
            )
        for number in range(settings.idempotent_producers):
            self._produce(f"i{number}", ALL, is_idempotent=True, topics=topics)
        for number in range(settings.acks_all_producers):
            self._produce(f"a{number}", ALL, is_idempotent=False, topics=topics)
        for number in range(settings.weak_producers):
            self._produce(f"w{number}", (1, 0)[number % 2], is_idempotent=False, topics=topics)
        for number in range(settings.consumers):
            self.consumers.append(
                Consumer(
                    self.world,
                    self.history,
                    f"c{number}",
                    delay_s_max=settings.delay_s_max,
                    loss_share=settings.loss_share,
                    topics=topics,
                    again_share=settings.again_share,
                )
            )

    def _produce(self, name: str, acks: int, *, is_idempotent: bool, topics: tuple[str, ...]) -> None:
        settings = self.settings
        self.producers.append(
            Producer(
                self.world,
                self.history,
                name,
                delay_s_max=settings.delay_s_max,
                loss_share=settings.loss_share,
                acks=acks,
                is_idempotent=is_idempotent,
                topics=topics,
                batches_per_turn=settings.batches_per_turn,
                retries_max=self.world.random.choice((0, 3, 10)),
            )
        )

    def stop_producing(self) -> None:
        """No new records, no more changes of topics; what was begun goes on."""
        for producer in self.producers:
            producer.is_producing = False
        if self.admin is not None:
            self.admin.is_changing = False
        if self.mover is not None:
            self.mover.is_moving = False

    def check_liveness(self) -> None:
        """After ``World.heal_all``: everything works again, and everything acknowledged is read. Raises Violation."""
        Liveness(self).check()

"""What the checkers believe of each partition, from what they saw themselves: the committed ZooKeeper writes, the bytes
in the log files, and the roles that replicas took. Nothing here is computed by the code that is checked."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.simulation.checkers.batches import Batch

Key = tuple[str, int]
"""(topic id, partition)"""


class State(NamedTuple):
    """A committed ``state`` znode, read by the checkers' own decoder."""

    leader: int
    leader_epoch: int
    isr: tuple[int, ...]
    elr: tuple[int, ...]
    controller_epoch: int
    version: int
    recovering: bool

    @property
    def members(self) -> tuple[int, ...]:
        """Who may be elected without loss."""
        return self.isr + self.elr


def decode_state(data: bytes, version: int) -> State:
    found = json.loads(data)
    return State(
        int(found["leader"]),
        int(found["leader_epoch"]),
        tuple(int(member) for member in found["isr"]),
        tuple(int(member) for member in found.get("elr", ())),
        int(found["controller_epoch"]),
        version,
        found.get("leader_recovery_state", 0) == 1,
    )


class Content:
    """The record batches in the files of one replica, as the checkers' own walker found them."""

    __slots__ = ("agreed", "batches", "end", "file_name", "position", "producers", "start")

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.start = 0
        self.end = 0
        """Behind the last batch."""
        self.agreed = 0
        """All below this offset was compared to the committed history and is the same."""
        self.file_name = ""
        """The newest segment, and how far it was read."""
        self.position = 0
        self.producers: dict[int, tuple[int, int]] = {}
        """Producer id → (epoch, last sequence)."""

    def index_of(self, offset: int) -> int:
        """Index of the batch that begins at ``offset``, or of the next one."""
        return bisect_left(self.batches, offset, key=_base_of)

    def note_producers(self, batches: list[Batch]) -> None:
        for batch in batches:
            if batch.producer_id >= 0:
                self.producers[batch.producer_id] = (batch.producer_epoch, batch.last_sequence)


def _base_of(batch: Batch) -> int:
    return batch.base


class Partition:
    """One partition of one topic id."""

    __slots__ = (
        "begins_above",
        "committed",
        "committed_bases",
        "counted",
        "deleting",
        "ends",
        "epoch_starts",
        "fewest_replicas",
        "is_moving",
        "key",
        "leaders",
        "led_by",
        "log_start",
        "lossy",
        "min_isr",
        "partition",
        "replicas",
        "resets",
        "seen_bytes",
        "state",
        "state_at",
        "superseded_at",
        "topic",
        "true_hw",
        "unsettled",
        "views",
    )

    def __init__(self, topic: str, key: Key, min_isr: int) -> None:
        self.topic = topic
        self.partition = key[1]
        self.key = key
        self.min_isr = min_isr
        self.replicas: tuple[int, ...] = ()
        """The assignment, by the topic's znode."""
        self.fewest_replicas = 0
        """The smallest assignment that it had since as many members as the minimum held all; 0 before it had one."""
        self.is_moving = False
        """Its row has replicas that are being added or removed."""
        self.state: State | None = None
        self.state_at = 0.0
        """True time of the last commit of its state."""
        self.superseded_at: dict[int, float] = {}
        """Leader epoch → true time at which a higher one was committed."""
        self.leaders: dict[int, int] = {}
        """Leader epoch → the leader that ZooKeeper names for it (-1: none)."""
        self.led_by: dict[int, tuple[int, int]] = {}
        """Leader epoch → (broker, number of its process) that took the role."""
        self.epoch_starts: dict[int, int] = {}
        """Leader epoch → where its leader's log ended when it took up the role."""
        self.true_hw = 0
        """The largest high watermark that any leader ever had."""
        self.committed: list[Batch] = []
        """The committed history, as the leaders who committed it had it; below ``true_hw``."""
        self.committed_bases: dict[int, int] = {}
        """Base offset → epoch of each committed batch."""
        self.seen_bytes: dict[tuple[int, int], bytes] = {}
        """(epoch, base offset) → the one content that it may ever have."""
        self.ends: dict[int, int] = {}
        """Leader epoch → end of the records that were ever seen in it."""
        self.log_start = 0
        """The largest that any replica had."""
        self.lossy: dict[int, None] = {}
        """Brokers that lost unflushed data and were not seen with the whole committed history since."""
        self.counted: dict[int, None] = {}
        """Those of them that were counted on when they lost it: in the ISR or ELR, or in a leader's maximal ISR."""
        self.begins_above: dict[int, int] = {}
        """Brokers whose log lost its beginning with the power → where it begins now, above ``true_hw``."""
        self.unsettled: dict[int, None] = {}
        """Those that were counted on when they lost it, until a state is written that does not count on them."""
        self.resets = 0
        """How often committed records were lost as the rules permit."""
        self.views: dict[int, View] = {}
        """Broker → its replica, while a process runs that has one."""
        self.deleting = False

    def __repr__(self) -> str:
        return f"{self.topic}-{self.partition}"

    @property
    def effective_min_isr(self) -> int:
        return min(self.min_isr, len(self.replicas) or 1)

    @property
    def may_have_lost(self) -> bool:
        """As many lossy failures as the minimum ISR: then also committed records may be gone."""
        return len(self.counted) >= min(self.min_isr, self.fewest_replicas or 1)

    def committed_index(self, offset: int) -> int:
        return bisect_left(self.committed, offset, key=_base_of)

    def commit(self, batches: list[Batch], high_watermark: int) -> None:
        for batch in batches:
            self.committed_bases[batch.base] = batch.epoch
        self.committed += batches
        self.true_hw = high_watermark

    def cut_history(self, offset: int) -> list[Batch]:
        """Forget what was committed from ``offset`` on: a loss that the rules permit. What was forgotten."""
        index = self.committed_index(offset)
        lost = self.committed[index:]
        del self.committed[index:]
        for batch in lost:
            del self.committed_bases[batch.base]
        self.true_hw = min(self.true_hw, offset)
        self.resets += 1
        for view in self.views.values():
            view.content.agreed = min(view.content.agreed, offset)
        return lost


class View:
    """What was last seen of one replica in a running process."""

    __slots__ = ("broker_id", "content", "folder", "incarnation", "partition", "replica", "role_epoch", "seen")

    def __init__(self, broker_id: int, incarnation: int, replica: Any, partition: Partition, folder: str) -> None:
        self.broker_id = broker_id
        self.incarnation = incarnation
        """Number of the process on this broker."""
        self.replica = replica
        """The real one: read, never changed."""
        self.partition = partition
        self.folder = folder
        self.content = Content()
        self.seen: tuple[Any, ...] = ()
        """The fingerprint (see ``observer``)."""
        self.role_epoch = -1

    def __repr__(self) -> str:
        return f"{self.partition!r} on broker {self.broker_id}"


class Ghost:
    """All partitions, and the ZooKeeper facts that are not of one partition."""

    def __init__(self, min_insync_replicas: int, trace: Callable[[str], None]) -> None:
        self.min_insync_replicas = min_insync_replicas
        """Of topics that do not say."""
        self.unclean_elections = False
        """Whether anybody may be elected uncleanly."""
        self.trace = trace
        self.now = 0.0
        """True seconds of the step."""
        self.partitions: dict[Key, Partition] = {}
        self.topics: dict[str, str] = {}
        """Topic → topic id, by its znode."""
        self.controller_epoch = 0
        self.controller_session = 0
        self.registered: dict[int, tuple[int, float]] = {}
        """Broker → (czxid of its registration, true time of it), while it is there."""
        self.unregistered: dict[int, tuple[int, float]] = {}
        """Broker → (czxid of its last registration that is gone, true time at which it went)."""
        self.gone_at: dict[tuple[int, int], float] = {}
        """The same of all that are gone, by broker and czxid."""
        self.incarnations: dict[int, int] = {}
        """Broker → number of its processes so far."""

    def find(self, topic: str, partition: int) -> Partition | None:
        topic_id = self.topics.get(topic)
        return None if topic_id is None else self.partitions.get((topic_id, partition))

    def of(self, topic: str, key: Key) -> Partition:
        found = self.partitions.get(key)
        if found is None:
            found = self.partitions[key] = Partition(topic, key, self.min_insync_replicas)
        return found

"""What the controller asks its shell to do. Imperative; each says what it stands for, and reprs are stable.

Order is carried by the events that answer: a new state reaches the image, the brokers and whoever asked only after
``Controller.states_found`` told that ZooKeeper holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from zkbroker.controller.cluster_image import Placement
from zkbroker.model.channel import AlterPartitionResponse
from zkbroker.model.cluster import ClusterDelta, DeletedReplica
from zkbroker.model.reassignments import PartitionOutcome
from zkbroker.model.topics import PartitionState, TopicPartition

CREATE = -1
"""The expected version of a state znode that does not exist yet."""


class StateWrite(NamedTuple):
    """One conditional write of a state znode; ``state.partition_epoch`` is the version it will have."""

    partition: TopicPartition
    state: PartitionState
    expected_version: int

    def __repr__(self) -> str:
        where = "create" if self.expected_version == CREATE else f"at v{self.expected_version}"
        return f"{self.partition} {where} {show_state(self.state)}"


class WriteStates(NamedTuple):
    """Write each, fenced by the controller epoch; answer with ``states_found`` for every one of them."""

    writes: tuple[StateWrite, ...]


class MoveWrite(NamedTuple):
    """A step of a reassignment: the partition's row in the topic's znode, and its state (None: it never had one)."""

    partition: TopicPartition
    placement: Placement
    state: StateWrite | None

    def __repr__(self) -> str:
        row = f"{self.partition} on {show_placement(self.placement)}"
        return row if self.state is None else f"{row}, {self.state!r}"


class WriteMoves(NamedTuple):
    """Write each row together with its state, all or nothing of a partition, fenced by the controller epoch; answer
    with ``moves_found`` for every one of them."""

    topic: str
    writes: tuple[MoveWrite, ...]


class EditReassignments(NamedTuple):
    """Take these entries out of ``/admin/reassign_partitions``, and the znode away when none is left. An entry with
    another target stays: it came later."""

    done: tuple[tuple[TopicPartition, tuple[int, ...]], ...]


class FenceBroker(NamedTuple):
    """Delete the registration of that incarnation and write the first states in one multi, as if its session had ended;
    then write the rest. Answer with ``broker_fenced``, and ``states_found`` for every one of them."""

    broker_id: int
    broker_epoch: int
    writes: tuple[StateWrite, ...]


class PushDelta(NamedTuple):
    """Send to every subscriber, with its own number and its own deletion orders filled in."""

    delta: ClusterDelta
    orders: tuple[tuple[int, tuple[DeletedReplica, ...]], ...] = ()
    """Per broker id: what it must delete."""


class PushSnapshot(NamedTuple):
    """Send this broker everything again, if it is subscribed: its receipt will tell which replicas are offline."""

    broker_id: int


class DeleteTopicNodes(NamedTuple):
    """Every replica is gone: remove the topic's znodes, configuration and admin marker; then ``topic_deleted``."""

    topic: str


class DropDeletionMarker(NamedTuple):
    """Remove ``/admin/delete_topics/T``: there is nothing to delete, or it is not allowed."""

    topic: str
    reason: str


Result = AlterPartitionResponse | tuple[TopicPartition, ...] | Mapping[TopicPartition, PartitionOutcome] | None


class Answer(NamedTuple):
    """Whoever waits for ``token`` gets this."""

    token: int
    result: Result


class Log(NamedTuple):
    """One line for people."""

    line: str


Effect = (
    WriteStates
    | WriteMoves
    | EditReassignments
    | FenceBroker
    | PushDelta
    | PushSnapshot
    | DeleteTopicNodes
    | DropDeletionMarker
    | Answer
    | Log
)


def show_placement(placement: Placement) -> str:
    """The replicas as one word, with what a reassignment adds and removes."""
    line = ",".join(map(str, placement.replicas))
    if placement.adding:
        line += f" adding={','.join(map(str, placement.adding))}"
    if placement.removing:
        line += f" removing={','.join(map(str, placement.removing))}"
    return line


def show_state(state: PartitionState) -> str:
    """One line of what matters of a state: logs and scenarios share it."""
    line = (
        f"leader={state.leader} leader_epoch={state.leader_epoch} isr={','.join(map(str, state.isr))} "
        f"partition_epoch={state.partition_epoch}"
    )
    if state.elr:
        line += f" elr={','.join(map(str, state.elr))}"
    if state.recovering:
        line += " recovering"
    if state.adding or state.removing:
        line += f" adding={','.join(map(str, state.adding))} removing={','.join(map(str, state.removing))}"
    return f"{line} ({state.reason})" if state.reason else line


LINES_COUNT_MAX = 20
"""Lines logged for one event."""


def shortened(effects: list[Effect]) -> list[Effect]:
    """With no more than LINES_COUNT_MAX lines to log: a broker's death can move thousands of leaders at once."""
    lines = [effect for effect in effects if isinstance(effect, Log)]
    if len(lines) <= LINES_COUNT_MAX:
        return effects
    kept = [*lines[:LINES_COUNT_MAX], Log(f"… and {len(lines) - LINES_COUNT_MAX} more like these")]
    return [*kept, *(effect for effect in effects if not isinstance(effect, Log))]

"""``/brokers/topics/T/partitions/P/state``: leader and ISR of one partition; only the controller writes it.

Example::

    {"controller_epoch":1,"leader":2,"version":1,"leader_epoch":1,"isr":[2,3,1]}

and ``"leader_recovery_state":1`` only while recovering from an unclean election. zkbroker adds, where there is
something to say, ``elr``, ``elr_version``, ``reason`` (of this state), ``leader_reason`` (of the last change of the
leader, where that was another state) and ``removed`` (brokers whose data a reassignment left to be deleted); Kafka's
readers ignore them. The znode's version is the partition epoch.

``elr`` counts only beside an ``elr_version`` that is the znode's own version. Whoever writes a state without knowing
the rules of the ELR (an older zkbroker hands ``elr`` on as it is) must not make somebody eligible who lacks what was
acknowledged since.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from zkbroker.model.topics import NO_LEADER, PartitionState
from zkbroker.zookeeper.znodes.codec import Fields, dump, load
from zkbroker.zookeeper.znodes.topics import TopicAssignment, partition_path

VERSION = 1

RECOVERING = 1
"""Kafka's ``LeaderRecoveryState.RECOVERING``; 0 is RECOVERED."""


class LeaderAndIsr(NamedTuple):
    """The content of a state znode; what PartitionState has besides comes from the topic's znode."""

    leader: int
    leader_epoch: int
    isr: tuple[int, ...]
    controller_epoch: int
    partition_epoch: int
    """Version of the znode."""
    recovering: bool = False
    elr: tuple[int, ...] = ()
    reason: str = ""
    leader_reason: str = ""
    removed: tuple[int, ...] = ()


def state_path(topic: str, partition: int) -> str:
    return f"{partition_path(topic, partition)}/state"


def encode(state: PartitionState | LeaderAndIsr) -> bytes:
    value: dict[str, Any] = {
        "controller_epoch": state.controller_epoch,
        "leader": state.leader,
        "version": VERSION,
        "leader_epoch": state.leader_epoch,
        "isr": list(state.isr),
    }
    if state.recovering:
        value["leader_recovery_state"] = RECOVERING
    if state.elr:
        value["elr"] = list(state.elr)
        value["elr_version"] = state.partition_epoch
    if state.reason:
        value["reason"] = state.reason
    if state.leader_reason and state.leader_reason != state.reason:
        value["leader_reason"] = state.leader_reason
    if state.removed:
        value["removed"] = list(state.removed)
    return dump(value)


def decode(path: str, data: bytes, version: int) -> LeaderAndIsr:
    """``version`` is that of the znode's stat. Raises ZnodeError, also for an empty ISR or a leader outside it:
    such a partition is better left alone than led by who may lack committed records."""
    fields = load(path, data)
    leader = fields.number("leader", minimum=NO_LEADER)
    isr = fields.numbers("isr")
    if not isr:
        raise fields.fail("'isr' is empty")
    if leader != NO_LEADER and leader not in isr:
        raise fields.fail(f"the leader {leader} is not in 'isr'")
    reason = fields.text("reason", "")
    return LeaderAndIsr(
        leader=leader,
        leader_epoch=fields.number("leader_epoch"),
        isr=isr,
        controller_epoch=fields.number("controller_epoch"),
        partition_epoch=version,
        recovering=fields.number("leader_recovery_state", 0, maximum=RECOVERING) == RECOVERING,
        elr=_elr(fields, isr, version),
        reason=reason,
        leader_reason=fields.text("leader_reason", reason),
        removed=fields.numbers("removed") if fields.has("removed") else (),
    )


def _elr(fields: Fields, isr: tuple[int, ...], version: int) -> tuple[int, ...]:
    if not fields.has("elr"):
        return ()
    listed = fields.numbers("elr")
    if fields.number("elr_version", -1, minimum=-1) != version:
        return ()
    return tuple(dict.fromkeys(member for member in listed if member not in isr))


def partition_state(assignment: TopicAssignment, partition: int, found: LeaderAndIsr) -> PartitionState:
    """What the two znodes say together. KeyError if the assignment does not have the partition."""
    return PartitionState(
        topic_id=assignment.topic_id,
        replicas=assignment.partitions[partition],
        leader=found.leader,
        leader_epoch=found.leader_epoch,
        isr=found.isr,
        partition_epoch=found.partition_epoch,
        controller_epoch=found.controller_epoch,
        adding=assignment.adding.get(partition, ()),
        removing=assignment.removing.get(partition, ()),
        recovering=found.recovering,
        elr=found.elr,
        reason=found.reason,
        leader_reason=found.leader_reason,
        removed=found.removed,
    )

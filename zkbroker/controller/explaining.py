"""What the controller tells people: why a partition has no leader and what to do, why a preferred leader is declined.

A partition without a leader waits, and nothing here decides how long. Even where every replica that came back says that
its log ends at 0: a log that lost what was not flushed may have held any number of records, so that nobody can tell an
empty partition from one that lost all of them. Only a person may accept that.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from zkbroker.controller.cluster_image import ClusterImage
from zkbroker.controller.complaints import Complaints
from zkbroker.controller.elections import elect_lossy, named_brokers
from zkbroker.controller.waits import Wait
from zkbroker.model.cluster import ALL_LOSSY, LossyReplica
from zkbroker.model.errors import ErrorCode
from zkbroker.model.reassignments import DONE, ElectionKind, PartitionOutcome
from zkbroker.model.topics import NO_LEADER, PartitionState, TopicPartition

LEADERLESS_COUNT_MAX = 10
"""Partitions without a leader that are told of at once: after a loss of power there can be thousands."""

NAMED_COUNT_MAX = 5
"""Partitions named in one line; of the others it says how many there are."""


def leaderless(image: ClusterImage, partition: TopicPartition, state: PartitionState) -> str:
    """Which brokers a partition without a leader waits for, and what a person can do instead of waiting."""
    lossy = {replica: lost for replica in state.replicas if (lost := image.loss(replica, partition)) is not None}
    awaited = tuple(member for member in state.replicas if member in (*state.isr, *state.elr) and member not in lossy)
    topic, number = partition
    command = f"zkbroker-leader-election --election-type unclean --topic {topic} --partition {number}"
    ends = [f"broker {replica} ({_rest(lost)})" for replica, lost in lossy.items()]
    left = f"back without unflushed data: {', '.join(ends)}" if ends else ""
    if awaited:
        told = f"waits for {named_brokers(awaited)} to come back with its log folders" + (f"; {left}" if left else "")
        return f"{told}; if none of them ever does, {command} elects another and loses what it lacks"
    best = elect_lossy(state.replicas, lambda r: image.is_online(r, partition), lambda r: image.loss(r, partition))
    elected = "whoever is there" if best is None else f"broker {best.leader}"
    return f"waits for a person: {left or 'no replica is left'}; {command} elects {elected} and accepts the loss"


def _rest(lost: LossyReplica) -> str:
    if lost == ALL_LOSSY:
        return "how much is left was not told"
    return "log gone" if lost.is_gone else f"up to offset {lost.log_end_offset}"


def leaderless_lines(image: ClusterImage, writes: Container[TopicPartition] = ()) -> list[str]:
    """One for each partition without a leader, LEADERLESS_COUNT_MAX at most; those with a write under way are left out:
    they may be about to have one."""
    waiting = [
        partition for partition, state in image.states.items() if state.leader == NO_LEADER and partition not in writes
    ]
    waiting.sort()
    lines = [
        f"{partition} has no leader: {leaderless(image, partition, image.states[partition])}"
        for partition in waiting[:LEADERLESS_COUNT_MAX]
    ]
    if len(waiting) > LEADERLESS_COUNT_MAX:
        lines.append(
            f"{len(waiting) - LEADERLESS_COUNT_MAX} more partitions have no leader: zkbroker-topics --describe "
            "--unavailable-partitions names all"
        )
    return lines


def declined(image: ClusterImage, complaints: Complaints, partition: TopicPartition) -> str | None:
    """Why the preferred leader that was asked for is not elected; None where it leads or no state is known."""
    state = image.states.get(partition)
    if state is None or not state.replicas:
        return None
    preferred = state.replicas[0]
    if state.leader == preferred:
        return None
    if image.loss(preferred, partition) is not None:
        return f"broker {preferred} came back without unflushed data"
    if not image.is_online(preferred, partition):
        return f"broker {preferred} is not online"
    if preferred not in state.isr:
        return f"broker {preferred} is not in the ISR"
    return complaints.distrust(preferred, partition)


def elections_ended(image: ClusterImage, complaints: Complaints, wait: Wait) -> dict[TopicPartition, PartitionOutcome]:
    """What became of the elections that a request asked for, with Kafka's errors."""
    ended = dict(wait.outcomes)
    for partition in wait.asked:
        state = image.states.get(partition)
        if state is None:
            ended[partition] = PartitionOutcome(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The partition does not exist.")
        elif wait.election is ElectionKind.UNCLEAN:
            ended[partition] = DONE
            if state.leader == NO_LEADER:
                told = leaderless(image, partition, state)
                ended[partition] = PartitionOutcome(ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE, told)
            elif state.leader not in image.brokers:
                told = f"broker {state.leader}, the leader, does not answer; ask again when its session is over"
                ended[partition] = PartitionOutcome(ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE, told)
        else:
            reason = declined(image, complaints, partition)
            refused = PartitionOutcome(ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE, reason)
            ended[partition] = DONE if state.replicas and state.leader == state.replicas[0] else refused
    return ended


def declined_lines(reasons: Iterable[tuple[TopicPartition, str]]) -> list[str]:
    """One for each reason, with the first of its partitions."""
    by_reason: dict[str, list[TopicPartition]] = {}
    for partition, reason in reasons:
        by_reason.setdefault(reason, []).append(partition)
    lines = []
    for reason, partitions in by_reason.items():
        named = ", ".join(map(str, partitions[:NAMED_COUNT_MAX]))
        others = f" and {len(partitions) - NAMED_COUNT_MAX} more" if len(partitions) > NAMED_COUNT_MAX else ""
        lines.append(f"preferred leader election of {named}{others} declined: {reason}")
    return lines

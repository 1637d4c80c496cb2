"""Judging AlterPartition: may this leader change its ISR like this? (KIP-497; member epochs as KIP-903.)

Kafka 3.9 with ZooKeeper checks neither that the sender leads, nor that the leader stays in the ISR, nor that the
ISR is within the assignment, nor the members' broker epochs. All are checked here, as KRaft does.
"""

from __future__ import annotations

from zkbroker.controller.cluster_image import ClusterImage
from zkbroker.controller.elections import check_state, named_brokers
from zkbroker.controller.eligible import eligible_after
from zkbroker.model.channel import IsrProposal
from zkbroker.model.errors import ErrorCode
from zkbroker.model.topics import PartitionState, TopicPartition


def judge_proposal(
    image: ClusterImage, sender: int, proposal: IsrProposal, controller_epoch: int
) -> PartitionState | ErrorCode:
    """The state to write; or NONE when it is so already; or the error to answer.

    The order of the checks matters: a leader that repeats a proposal whose answer was lost must be told of its
    success, although its partition epoch is behind by then.
    """
    partition = TopicPartition(proposal.topic, proposal.partition)
    state = image.states.get(partition)
    if state is None:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if proposal.topic_id != state.topic_id:
        return ErrorCode.UNKNOWN_TOPIC_ID
    if proposal.leader_epoch > state.leader_epoch or proposal.partition_epoch > state.partition_epoch:
        return ErrorCode.NOT_CONTROLLER
    if proposal.leader_epoch < state.leader_epoch:
        return ErrorCode.FENCED_LEADER_EPOCH
    members = tuple(member for member, _ in proposal.isr)
    if sender != state.leader:
        return ErrorCode.INVALID_REQUEST
    if sorted(members) == sorted(state.isr) and proposal.recovering == state.recovering:
        return ErrorCode.NONE
    if proposal.partition_epoch < state.partition_epoch:
        return ErrorCode.INVALID_UPDATE_VERSION
    if sender not in members or len(set(members)) < len(members):
        return ErrorCode.INVALID_REQUEST
    if any(member not in state.replicas for member in members):
        return ErrorCode.INVALID_REQUEST
    if proposal.recovering and (len(members) > 1 or not state.recovering):
        return ErrorCode.INVALID_REQUEST
    if any(not _eligible(image, partition, sender, member, epoch) for member, epoch in proposal.isr):
        return ErrorCode.INELIGIBLE_REPLICA
    elr = eligible_after(
        state,
        sender,
        members,
        proposal.recovering,
        image.min_insync_replicas(partition.topic),
        lambda replica: image.loss(replica, partition) is not None,
    )
    after = state._replace(
        isr=members,
        elr=elr,
        partition_epoch=state.partition_epoch + 1,
        controller_epoch=controller_epoch,
        recovering=proposal.recovering,
        reason=_reason(state, members),
    )
    check_state(after)
    return after


def _reason(state: PartitionState, members: tuple[int, ...]) -> str:
    """Why the state is as it is from now on: what led to the former one is no reason for this one."""
    joined = tuple(member for member in members if member not in state.isr)
    left = tuple(member for member in state.isr if member not in members)
    told = [f"{named_brokers(joined)} caught up and joined the ISR"] if joined else []
    told += [f"{named_brokers(left)} fell behind and left the ISR"] if left else []
    return ", ".join(told) or f"broker {state.leader} leads with what an unclean election left"


def _eligible(image: ClusterImage, partition: TopicPartition, leader: int, member: int, epoch: int) -> bool:
    """Alive in exactly this incarnation, without a loss that is still to be confirmed. A leader that is shutting down
    may still name itself: it leads because nobody else can, and must be able to let a successor join."""
    if image.broker_epoch(member) != epoch or image.loss(member, partition) is not None:
        return False
    if member == leader:
        return image.is_alive(member, partition)
    return image.is_online(member, partition)

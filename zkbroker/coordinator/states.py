"""The states of a consumer group, every step between them, and what each state makes of each request.

All of it is in this file, as tables that the rest of the package looks up::

              rebalance wanted             all have joined, or time is up
      Empty ------------------> Preparing ---------------------------> Completing
        ^                       Rebalance <--------------------------- Rebalance
        |  nobody is left  ______/  ^          rebalance wanted             |
        +-----------------/         |                                      | assignment stored
        |                           +------------- Stable <----------------+
        | removal failed              rebalance wanted
        v
      Dead <--- removal began (from Empty), unloaded (from any)

The names are Kafka's, as DescribeGroups and ListGroups show them. A group is PreparingRebalance while its members
(re)join, CompletingRebalance while its leader computes the assignment and that is being stored, Empty without members
(it may have offsets), Dead while its last records are being deleted, or after this broker stopped to coordinate it.
"""

from __future__ import annotations

from enum import Enum

from zkbroker.model.errors import ErrorCode, InvariantViolation


class GroupState(Enum):
    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


EMPTY = GroupState.EMPTY
PREPARING = GroupState.PREPARING_REBALANCE
COMPLETING = GroupState.COMPLETING_REBALANCE
STABLE = GroupState.STABLE
DEAD = GroupState.DEAD


class GroupEvent(Enum):
    REBALANCE_WANTED = "rebalance wanted"
    """A member came, went, failed or changed what it supports; the leader asked; an assignment was not stored."""
    GENERATION_BEGAN = "generation began"
    """All have joined, or the time for it is up and some have."""
    EMPTIED = "emptied"
    """The time to join is over and nobody is a member."""
    ASSIGNMENT_STORED = "assignment stored"
    REMOVAL_BEGAN = "removal began"
    """The tombstones of all that the group has are being written."""
    REMOVAL_FAILED = "removal failed"
    """They could not be: the group is what it was. (Kafka forgets it anyway, until the next broker loads it.)"""
    UNLOADED = "unloaded"
    """Another broker coordinates it from now on."""


TRANSITIONS: dict[tuple[GroupState, GroupEvent], GroupState] = {
    (EMPTY, GroupEvent.REBALANCE_WANTED): PREPARING,
    (COMPLETING, GroupEvent.REBALANCE_WANTED): PREPARING,
    (STABLE, GroupEvent.REBALANCE_WANTED): PREPARING,
    (PREPARING, GroupEvent.GENERATION_BEGAN): COMPLETING,
    (PREPARING, GroupEvent.EMPTIED): EMPTY,
    (COMPLETING, GroupEvent.ASSIGNMENT_STORED): STABLE,
    (EMPTY, GroupEvent.REMOVAL_BEGAN): DEAD,
    (DEAD, GroupEvent.REMOVAL_FAILED): EMPTY,
    (EMPTY, GroupEvent.UNLOADED): DEAD,
    (PREPARING, GroupEvent.UNLOADED): DEAD,
    (COMPLETING, GroupEvent.UNLOADED): DEAD,
    (STABLE, GroupEvent.UNLOADED): DEAD,
    (DEAD, GroupEvent.UNLOADED): DEAD,
}
"""Every legal step; any other is a broken invariant."""


def after(state: GroupState, event: GroupEvent) -> GroupState:
    following = TRANSITIONS.get((state, event))
    if following is None:
        raise InvariantViolation(f"a group that is {state.value} cannot take the step '{event.value}'")
    return following


class Step(Enum):
    """What a state makes of a request that was found to be in order (the member is known, its generation current)."""

    PARK = "park"
    """It is answered when the state changes."""
    TELL_CURRENT = "tell current"
    """Answer with what the current generation has."""
    REBALANCE = "rebalance"
    """The member joins anew, and so must all."""
    STORE = "store"


CURRENT_JOIN: dict[GroupState, tuple[Step, Step, Step] | ErrorCode] = {
    EMPTY: ErrorCode.UNKNOWN_MEMBER_ID,
    PREPARING: (Step.REBALANCE, Step.REBALANCE, Step.REBALANCE),
    # With nothing changed, the answer to its JoinGroup may have been lost.
    COMPLETING: (Step.TELL_CURRENT, Step.TELL_CURRENT, Step.REBALANCE),
    # The leader asks when it saw what members cannot see, such as new partitions.
    STABLE: (Step.TELL_CURRENT, Step.REBALANCE, Step.REBALANCE),
    DEAD: ErrorCode.COORDINATOR_NOT_AVAILABLE,
}
"""JoinGroup from a member of the group: (a follower with the same protocols, the leader with the same, anyone with
others). REBALANCE in PreparingRebalance means: it has joined the one under way."""

STATIC_JOIN: dict[GroupState, Step | ErrorCode] = {
    EMPTY: ErrorCode.UNKNOWN_MEMBER_ID,
    PREPARING: Step.PARK,
    # The leader may be assigning to the member id that was just replaced.
    COMPLETING: Step.REBALANCE,
    # Nothing moves, unless another assignor would be chosen: the new member id is stored, then answered (KIP-345).
    STABLE: Step.STORE,
    DEAD: ErrorCode.COORDINATOR_NOT_AVAILABLE,
}
"""JoinGroup without a member id from a known ``group.instance.id``: the process was restarted."""

SYNC: dict[GroupState, Step | ErrorCode] = {
    EMPTY: ErrorCode.UNKNOWN_MEMBER_ID,
    PREPARING: ErrorCode.REBALANCE_IN_PROGRESS,
    COMPLETING: Step.PARK,
    STABLE: Step.TELL_CURRENT,
    DEAD: ErrorCode.COORDINATOR_NOT_AVAILABLE,
}

HEARTBEAT: dict[GroupState, ErrorCode] = {
    EMPTY: ErrorCode.UNKNOWN_MEMBER_ID,
    PREPARING: ErrorCode.REBALANCE_IN_PROGRESS,
    COMPLETING: ErrorCode.NONE,
    STABLE: ErrorCode.NONE,
    DEAD: ErrorCode.COORDINATOR_NOT_AVAILABLE,
}

COMMIT: dict[GroupState, Step | ErrorCode] = {
    EMPTY: Step.STORE,
    # Its heartbeat tells the member of the rebalance; until then it may commit what it has read.
    PREPARING: Step.STORE,
    COMPLETING: ErrorCode.REBALANCE_IN_PROGRESS,
    STABLE: Step.STORE,
    DEAD: ErrorCode.COORDINATOR_NOT_AVAILABLE,
}

DELETE: dict[GroupState, ErrorCode] = {
    EMPTY: ErrorCode.NONE,
    PREPARING: ErrorCode.NON_EMPTY_GROUP,
    COMPLETING: ErrorCode.NON_EMPTY_GROUP,
    STABLE: ErrorCode.NON_EMPTY_GROUP,
    DEAD: ErrorCode.GROUP_ID_NOT_FOUND,
}
"""DeleteGroups; also OffsetDelete, except that the offsets of a consumer group with members may be deleted for topics
that it is not subscribed to (KIP-496)."""

STORE_GROUP_ERRORS: dict[ErrorCode, ErrorCode] = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_LEADER_OR_FOLLOWER: ErrorCode.NOT_COORDINATOR,
    ErrorCode.KAFKA_STORAGE_ERROR: ErrorCode.NOT_COORDINATOR,
    ErrorCode.REQUEST_TIMED_OUT: ErrorCode.REBALANCE_IN_PROGRESS,
    ErrorCode.MESSAGE_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
    ErrorCode.RECORD_LIST_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
    ErrorCode.INVALID_FETCH_SIZE: ErrorCode.UNKNOWN_SERVER_ERROR,
}
"""What the members are told when the group's record could not be written; others as they are."""

STORE_OFFSETS_ERRORS: dict[ErrorCode, ErrorCode] = {
    ErrorCode.NETWORK_EXCEPTION: ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_LEADER_OR_FOLLOWER: ErrorCode.NOT_COORDINATOR,
    ErrorCode.KAFKA_STORAGE_ERROR: ErrorCode.NOT_COORDINATOR,
    ErrorCode.MESSAGE_TOO_LARGE: ErrorCode.INVALID_COMMIT_OFFSET_SIZE,
    ErrorCode.RECORD_LIST_TOO_LARGE: ErrorCode.INVALID_COMMIT_OFFSET_SIZE,
    ErrorCode.INVALID_FETCH_SIZE: ErrorCode.INVALID_COMMIT_OFFSET_SIZE,
}
"""What a consumer is told when its offsets, or the tombstones of some, could not be written; others as they are."""

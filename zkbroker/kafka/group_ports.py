"""What the APIs of consumer groups need of a broker. ``broker/`` fills these; tests fill them with fakes.

The API files look after what belongs to versions and what the picture of the cluster knows (are those topics there?);
whether a group id is allowed, whether this broker coordinates the group, and all else is the port's to say. Callbacks
come on the reactor thread, also at once, and exactly once unless the request was cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from zkbroker.kafka.ports import Cancellable
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    CommitAnswer,
    CommitOffsets,
    DeleteOffsets,
    DeleteOffsetsAnswer,
    DescribedGroup,
    FetchOffsets,
    FetchOffsetsAnswer,
    GroupError,
    Heartbeat,
    JoinAnswer,
    JoinGroup,
    LeaveAnswer,
    LeaveGroup,
    ListedGroups,
    SyncAnswer,
    SyncGroup,
)


class GroupPort(Protocol):
    """The groups that this broker coordinates. A request that returns a ``Cancellable`` may be parked; to cancel it
    drops the answer only: a member whose connection is gone stays until its session times out, as in Kafka, and a
    commit that was accepted is written."""

    def join(self, asked: JoinGroup, done: Callable[[JoinAnswer], None]) -> Cancellable | None: ...

    def sync(self, asked: SyncGroup, done: Callable[[SyncAnswer], None]) -> Cancellable | None: ...

    def heartbeat(self, asked: Heartbeat, done: Callable[[ErrorCode], None]) -> Cancellable | None: ...

    def leave(self, asked: LeaveGroup, done: Callable[[LeaveAnswer], None]) -> Cancellable | None: ...

    def commit(self, asked: CommitOffsets, done: Callable[[CommitAnswer], None]) -> Cancellable | None:
        """``done`` when the offsets are replicated as ``offsets.commit.required.acks`` wants. There is a partition at
        least, and each one exists as far as this broker knows."""
        ...

    def fetch_offsets(
        self, asked: Sequence[FetchOffsets], done: Callable[[list[FetchOffsetsAnswer]], None]
    ) -> Cancellable | None:
        """One answer per group, in the order asked."""
        ...

    def delete_offsets(self, asked: DeleteOffsets, done: Callable[[DeleteOffsetsAnswer], None]) -> Cancellable | None:
        """There may be no partition at all: what is wrong with the group is told all the same."""
        ...

    def describe(self, group_ids: Sequence[str], done: Callable[[list[DescribedGroup]], None]) -> Cancellable | None:
        """One answer per group id, in the order asked."""
        ...

    def list_groups(
        self, states: frozenset[str], types: frozenset[str], done: Callable[[ListedGroups], None]
    ) -> Cancellable | None:
        """The groups in any of these states and of any of these types, both in lower case; empty is no filter."""
        ...

    def delete(self, group_ids: Sequence[str], done: Callable[[list[GroupError]], None]) -> Cancellable | None:
        """One answer per group id, in the order asked."""
        ...


KEY_OF_GROUP = 0
"""``key_type`` of FindCoordinator: the key is a group id."""
KEY_OF_TRANSACTION = 1
"""… a transactional id."""


class Coordinator(NamedTuple):
    """Who coordinates a key. With an error ``broker_id`` is -1; ``message`` is for people."""

    error: ErrorCode
    broker_id: int = -1
    message: str | None = None


class CoordinatorPort(Protocol):
    def find(self, key_type: int, key: str) -> Coordinator:
        """The leader of the key's partition of ``__consumer_offsets`` (KEY_OF_GROUP) or ``__transaction_state``
        (KEY_OF_TRANSACTION), as this broker knows it. COORDINATOR_NOT_AVAILABLE when it has none, or when there is no
        such topic: it is then being made (KEY_OF_GROUP)."""
        ...

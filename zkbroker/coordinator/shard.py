"""The coordinator of all groups of one partition of ``__consumer_offsets``, during one leader epoch.

How the shell drives it:

1. The broker becomes leader of the partition: make a shard. Until it is loaded it answers every request by itself, as
   Kafka does (COORDINATOR_LOAD_IN_PROGRESS, a heartbeat NONE).
2. Give it every record of the log in order: ``replay(key, value, producer_id)``, the producer id only for records of
   transactional batches, and ``transaction_ended`` for their markers. In slices as long as it likes; nothing is
   raised for whatever bytes, but counted (``malformed``, ``foreign``). Then ``loaded``, once.
3. Every request goes to ``handle`` with a ticket of the shell's choice, unique for the life of the shard. It returns
   effects in order: ``Answer`` (now, or by a later call: joins, syncs and whatever waits for a write), ``Write``, and
   ``Log`` lines. A request whose client is gone needs no word: drop the answer.
4. Append each ``Write`` as one batch with ``offsets.commit.required.acks``, in the order given, even when several are
   under way. Tell the outcome of each, once, with ``written``: NONE when it is replicated, REQUEST_TIMED_OUT after
   ``offsets.commit.timeout.ms``, else the error of the append. Successes come in the order of the writes (the high
   watermark rises in that order); failures at any time. Before the answers in its effects are sent, the shell makes
   sure that this broker still is the leader in the shard's epoch, else it unloads.
5. After every call look at ``next_deadline`` and call ``tick`` then (a little late does no harm, early is harmless).
6. Every ``offsets.retention.check.interval.ms``: ``expire_offsets`` for each of ``group_ids``, in slices. When topics
   were deleted: ``forget_topics``, likewise.
7. The broker is no longer leader: ``unload`` gives the answers for all that is parked. Whatever is called after that
   returns nothing; throw the shard away.

Without a shard for a group's partition the answer is ``refused(request, NOT_COORDINATOR)``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from zkbroker.coordinator.effects import Effects, GroupRequest, Now
from zkbroker.coordinator.settings import GroupSettings
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import ListedGroup


class GroupShard:
    """See the top of this file. ``settings`` may be replaced at any time; ``malformed`` and ``foreign`` count records
    that were passed over while loading: not understood, and of kinds (key versions) that later Kafkas write."""

    def __init__(self, settings: GroupSettings, new_uuid: Callable[[], str]) -> None:
        """``new_uuid`` makes what tells member ids apart: ``str(uuid.uuid4())``."""
        self.settings = settings
        self.malformed = 0
        self.foreign = 0
        self._new_uuid = new_uuid

    # --- loading ---

    def replay(self, key: bytes | None, value: bytes | None, producer_id: int = -1) -> None:
        """One record, in the order of the log."""
        raise NotImplementedError

    def transaction_ended(self, producer_id: int, *, is_committed: bool) -> None:
        """The marker of a transaction, also of one that ends after loading: its offsets count from now on, or never."""
        raise NotImplementedError

    def loaded(self, now: Now) -> Effects:
        """All is replayed: members have their session timeout, from now, to be heard of."""
        raise NotImplementedError

    @property
    def is_loaded(self) -> bool:
        raise NotImplementedError

    # --- serving ---

    def handle(self, ticket: int, request: GroupRequest, now: Now) -> Effects:
        """Answers at once or later."""
        raise NotImplementedError

    def written(self, write_id: int, error: ErrorCode, now: Now) -> Effects:
        """The outcome of a Write: releases what waited for it."""
        raise NotImplementedError

    def next_deadline(self) -> float | None:
        """When to ``tick``, in monotonic seconds; None while there is nothing to wait for. Costs nothing to ask."""
        raise NotImplementedError

    def tick(self, now: Now) -> Effects:
        """Sessions, rebalances and memberships whose time is up."""
        raise NotImplementedError

    def list_groups(self, states: Collection[str] = (), types: Collection[str] = ()) -> tuple[ListedGroup, ...]:
        """Of the states and types named, in any case; all without names. Every group here is of type ``classic``."""
        raise NotImplementedError

    def group_ids(self) -> tuple[str, ...]:
        """Every group, for ``expire_offsets`` and ``forget_topics``."""
        raise NotImplementedError

    def expire_offsets(self, group_id: str, now: Now) -> Effects:
        """Forget the group's offsets that are due (KIP-211), and the group when it has neither these nor members."""
        raise NotImplementedError

    def forget_topics(self, group_id: str, topics: Collection[str], now: Now) -> Effects:
        """Forget the group's offsets of topics that were deleted."""
        raise NotImplementedError

    def unload(self) -> Effects:
        """Answers all that is parked with NOT_COORDINATOR; the shard is dead then."""
        raise NotImplementedError

"""Tombstones: for offsets that are deleted, expired or of deleted topics, and for groups of which nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from zkbroker.coordinator.context import ShardContext
from zkbroker.coordinator.group import Group
from zkbroker.coordinator.offsets import Place
from zkbroker.coordinator.records import GroupRecord, group_key, offset_key
from zkbroker.coordinator.states import GroupEvent
from zkbroker.model.errors import ErrorCode

TOMBSTONES_BYTES_MAX = 256 * 1024
"""Of the keys in one batch of tombstones, so that it fits in any sensible ``message.max.bytes``."""


class Removal:
    """Removes offsets of a group, and if ``whole`` the group, which is Empty.

    An offset is there until its tombstone is replicated. A whole group is Dead until all of its are, and Empty again if
    one could not be written. (Kafka forgets first and writes then, without waiting: an offset that was reported as
    deleted can come back with the next coordinator, one that could not be deleted is missing until then.)
    """

    def __init__(
        self,
        context: ShardContext,
        group: Group,
        places: list[Place],
        done: Callable[[ErrorCode], None],
        *,
        whole: bool = False,
    ) -> None:
        """``done`` is told the first error, or NONE; at once when there is nothing to write."""
        self._context = context
        self._group = group
        self._done = done
        self._whole = whole
        self._since_ms = group.state_timestamp_ms
        self._error = ErrorCode.NONE
        if whole:
            group.step(GroupEvent.REMOVAL_BEGAN, context.now.wall_ms)
            for member_id in group.pending:
                context.expect_no_more(group, member_id)
            group.pending.clear()
        batches = _tombstones(group, places, whole=whole)
        self._outstanding = len(batches)
        for records, removed in batches:
            order = context.write(records, partial(self._written, removed))
            group.offsets.begin(removed, order)
        if not batches:
            self._end()

    def _written(self, removed: list[Place], error: ErrorCode, write_id: int) -> None:
        if error:
            self._error = self._error or error
        else:
            for place in removed:
                self._group.offsets.remove(place, write_id)
        self._group.offsets.end(removed)
        self._outstanding -= 1
        if self._outstanding == 0:
            self._end()

    def _end(self) -> None:
        context, group = self._context, self._group
        if self._whole and not context.is_closed:
            if self._error:
                group.step(GroupEvent.REMOVAL_FAILED, self._since_ms)
            else:
                del context.groups[group.group_id]
        self._done(self._error)


def _tombstones(group: Group, places: list[Place], *, whole: bool) -> list[tuple[list[GroupRecord], list[Place]]]:
    """(records, the places they remove) of each batch; the group's own comes last."""
    batches: list[tuple[list[GroupRecord], list[Place]]] = []
    size = TOMBSTONES_BYTES_MAX
    for place in places:
        key = offset_key(group.group_id, *place)
        size += len(key)
        if size > TOMBSTONES_BYTES_MAX:
            batches.append(([], []))
            size = len(key)
        batches[-1][0].append(GroupRecord(key, None))
        batches[-1][1].append(place)
    if whole and group.is_stored:
        if not batches:
            batches.append(([], []))
        batches[-1][0].append(GroupRecord(group_key(group.group_id), None))
    return batches

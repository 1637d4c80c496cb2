"""OffsetCommit, OffsetFetch, OffsetDelete and DeleteGroups; and how offsets and groups end without being asked to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

from zkbroker.coordinator.context import ShardContext, said
from zkbroker.coordinator.fields import fits
from zkbroker.coordinator.group import Group
from zkbroker.coordinator.offsets import Place
from zkbroker.coordinator.records import NO_TIMESTAMP, GroupRecord, StoredOffset, offset_key, offset_value
from zkbroker.coordinator.removal import Removal
from zkbroker.coordinator.states import COMMIT, DEAD, DELETE, EMPTY, STABLE, STORE_OFFSETS_ERRORS
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    CommitAnswer,
    CommitOffsets,
    DeleteGroup,
    DeleteOffsets,
    DeleteOffsetsAnswer,
    FetchedOffset,
    FetchOffsets,
    FetchOffsetsAnswer,
    GroupError,
    OffsetToCommit,
    PartitionError,
)

I64_MAX = 2**63 - 1


class Commits:
    def __init__(self, context: ShardContext) -> None:
        self._context = context

    # --- OffsetCommit ---

    def commit(self, ticket: int, request: CommitOffsets) -> None:
        context = self._context
        group = context.groups.get(request.group_id)
        if group is None and request.generation < 0:
            group = context.create(request.group_id)  # of consumers that assign by themselves
        error = ErrorCode.ILLEGAL_GENERATION if group is None else _commit_error(group, request)
        if group is None or error:
            rows = tuple(PartitionError(row.topic, row.partition, error) for row in request.offsets)
            context.answer(ticket, CommitAnswer(rows))
            return
        member = group.members.get(request.member_id)
        if member is not None:
            context.expect(group, member)
        errors = [self._row_error(row) for row in request.offsets]
        # Of a partition that is named twice, the last counts.
        stored = {
            (row.topic, row.partition): self._stored(row, request.retention_ms)
            for row, row_error in zip(request.offsets, errors, strict=True)
            if not row_error
        }
        if not stored:
            context.answer(ticket, _commit_answer(request, errors, ErrorCode.NONE))
            return
        records = [
            GroupRecord(offset_key(group.group_id, *place), offset_value(offset)) for place, offset in stored.items()
        ]
        order = context.write(records, partial(self._committed, group, stored, ticket, request, errors))
        group.offsets.begin(stored, order)

    def _committed(
        self,
        group: Group,
        stored: dict[Place, StoredOffset],
        ticket: int,
        request: CommitOffsets,
        errors: list[ErrorCode],
        error: ErrorCode,
        write_id: int,
    ) -> None:
        if not error:
            for place, offset in stored.items():
                group.offsets.commit(place, offset, write_id)
        group.offsets.end(stored)
        self._context.answer(ticket, _commit_answer(request, errors, STORE_OFFSETS_ERRORS.get(error, error)))
        self._context.drop_if_hollow(group.group_id)

    def _row_error(self, row: OffsetToCommit) -> ErrorCode:
        if not fits(row.topic):
            return ErrorCode.INVALID_TOPIC_EXCEPTION
        if row.metadata is not None and _is_too_long(row.metadata, self._context.settings.metadata_length_max):
            return ErrorCode.OFFSET_METADATA_TOO_LARGE
        return ErrorCode.NONE

    def _stored(self, row: OffsetToCommit, retention_ms: int) -> StoredOffset:
        now_ms = self._context.now.wall_ms
        return StoredOffset(
            row.offset,
            row.leader_epoch,
            row.metadata or "",
            now_ms if row.commit_timestamp_ms == NO_TIMESTAMP else row.commit_timestamp_ms,
            NO_TIMESTAMP if retention_ms == -1 else min(now_ms + retention_ms, I64_MAX),
        )

    # --- OffsetFetch ---

    def fetch(self, ticket: int, request: FetchOffsets) -> None:
        """Members or not, everybody may ask, in every state."""
        group = self._context.groups.get(request.group_id)
        places: Collection[Place]
        if request.partitions is not None:
            places = dict.fromkeys(request.partitions)
        else:
            places = group.offsets.committed if group is not None else ()
        rows = tuple(_fetched(group, place, require_stable=request.require_stable) for place in places)
        self._context.answer(ticket, FetchOffsetsAnswer(request.group_id, ErrorCode.NONE, rows))

    # --- OffsetDelete and DeleteGroups ---

    def delete_offsets(self, ticket: int, request: DeleteOffsets) -> None:
        context = self._context
        group = context.groups.get(request.group_id)
        error = ErrorCode.GROUP_ID_NOT_FOUND if group is None else DELETE[group.state]
        if error is ErrorCode.NON_EMPTY_GROUP and group is not None and group.is_consumers:
            error = ErrorCode.NONE
        if group is None or error:
            context.answer(ticket, DeleteOffsetsAnswer(error))
            return
        in_use = set() if group.state is EMPTY else {t for t, _ in request.partitions if group.is_subscribed(t)}
        offsets = group.offsets
        places = [
            place
            for place in dict.fromkeys(request.partitions)
            if place[0] not in in_use and (place in offsets.committed or offsets.is_unstable(place))
        ]

        def done(error: ErrorCode) -> None:
            told = STORE_OFFSETS_ERRORS.get(error, error)
            rows = (
                PartitionError(topic, partition, ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC if topic in in_use else told)
                for topic, partition in request.partitions
            )
            context.answer(ticket, DeleteOffsetsAnswer(ErrorCode.NONE, tuple(rows)))

        if places:
            self._remove(group, places, done)
        else:
            done(ErrorCode.NONE)

    def delete_group(self, ticket: int, request: DeleteGroup) -> None:
        context = self._context
        group = context.groups.get(request.group_id)
        error = ErrorCode.GROUP_ID_NOT_FOUND if group is None else DELETE[group.state]
        if group is None or error:
            context.answer(ticket, GroupError(request.group_id, error))
            return

        def done(error: ErrorCode) -> None:
            context.answer(ticket, GroupError(request.group_id, STORE_OFFSETS_ERRORS.get(error, error)))
            if not error:
                context.log(f"{said(group)} was deleted")

        Removal(context, group, sorted(group.offsets.places()), done, whole=True)

    # --- what nobody asks for ---

    def expire(self, group: Group) -> None:
        """KIP-211: the offsets of a group without members live on for the retention time; those of a stable group of
        consumers for that long after the last commit, but always while their topic is subscribed; those of consumers
        that assign by themselves for that long after the last commit."""
        now_ms, retention_ms = self._context.now.wall_ms, self._context.settings.retention_ms
        offsets = group.offsets
        places: list[Place] = []
        if group.protocol_type is None:
            places = offsets.expired(now_ms, retention_ms, None)
        elif group.state is EMPTY:
            since_ms = None if group.state_timestamp_ms == NO_TIMESTAMP else group.state_timestamp_ms
            places = offsets.expired(now_ms, retention_ms, since_ms)
        elif group.state is STABLE and group.is_consumers and group.subscribed_topics is not None:
            places = offsets.expired(now_ms, retention_ms, None, group.subscribed_topics)
        self._remove(group, places, partial(self._ended, group, len(places), "expired"))

    def forget_topics(self, group: Group, topics: Mapping[str, int]) -> None:
        offsets = group.offsets
        places = sorted(
            place for place in offsets.places() if place[0] in topics and not offsets.has_newer(place, topics[place[0]])
        )
        self._remove(group, places, partial(self._ended, group, len(places), "belonged to deleted topics"))

    def _ended(self, group: Group, count: int, why: str, error: ErrorCode) -> None:
        if error:
            self._context.log(f"{said(group)}: {count} offsets that {why} could not be removed: {error.name}")
        elif count:
            self._context.log(f"{said(group)}: {count} offsets that {why} were removed")

    def _remove(self, group: Group, places: list[Place], done: Callable[[ErrorCode], None]) -> None:
        """Also the group, if it has no members and then no offsets either."""
        if group.state is DEAD:
            return
        offsets = group.offsets
        is_left_empty = (
            group.state is EMPTY
            and not group.pending
            and not (offsets.in_flight or offsets.transactional)
            and len(places) == len(offsets.committed)
        )
        Removal(self._context, group, places, done, whole=is_left_empty)


def _commit_error(group: Group, request: CommitOffsets) -> ErrorCode:
    if group.state is DEAD:
        return ErrorCode.COORDINATOR_NOT_AVAILABLE
    if request.generation < 0 and group.state is EMPTY:
        return ErrorCode.NONE  # consumers that assign by themselves, and administrators
    error = ErrorCode.UNKNOWN_MEMBER_ID
    if request.generation >= 0 or request.member_id or request.group_instance_id is not None:
        error = group.refusal(request.member_id, request.group_instance_id)
        if not error and request.generation != group.generation:
            error = ErrorCode.ILLEGAL_GENERATION
    if error:
        return error
    step = COMMIT[group.state]
    return step if isinstance(step, ErrorCode) else ErrorCode.NONE


def _commit_answer(request: CommitOffsets, errors: list[ErrorCode], error: ErrorCode) -> CommitAnswer:
    rows = zip(request.offsets, errors, strict=True)
    return CommitAnswer(tuple(PartitionError(row.topic, row.partition, row_error or error) for row, row_error in rows))


def _fetched(group: Group | None, place: Place, *, require_stable: bool) -> FetchedOffset:
    if group is None:
        return FetchedOffset(*place)
    if require_stable and group.offsets.is_unstable(place):
        return FetchedOffset(*place, error=ErrorCode.UNSTABLE_OFFSET_COMMIT)
    committed = group.offsets.committed.get(place)
    if committed is None:
        return FetchedOffset(*place)
    return FetchedOffset(*place, committed.stored.offset, committed.stored.leader_epoch, committed.stored.metadata)


def _is_too_long(metadata: str, length_max: int) -> bool:
    """Java counts UTF-16 units; the record's field ends at STRING_BYTES_MAX, whatever is configured."""
    if len(metadata) > length_max or not fits(metadata):
        return True
    if len(metadata) * 2 <= length_max or metadata.isascii():
        return False
    return len(metadata.encode("utf-16-be", "surrogatepass")) // 2 > length_max

"""The consumer groups that this broker coordinates: one shard for each partition of ``__consumer_offsets`` it leads.

Level-triggered: whatever changed about a leadership, the partition is looked at again, and what is there is compared
with what should be. A request is served by the shard of the tenure that holds at that moment, never by an older one.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from zkbroker.broker.coordinator_log import CoordinatorLog
from zkbroker.broker.delayed import Turn
from zkbroker.broker.group_loading import GroupLoading
from zkbroker.broker.group_partition import Coordination, Done, GroupPartition
from zkbroker.broker.offsets_topic import OFFSETS_TOPIC, OffsetsTopic
from zkbroker.broker.slices import Slices, Steps
from zkbroker.coordinator.answers import is_legal_group_id, refused
from zkbroker.coordinator.effects import Effects, GroupRequest, Now
from zkbroker.coordinator.settings import GroupSettings
from zkbroker.coordinator.shard import GroupShard
from zkbroker.kafka.ports import Cancellable
from zkbroker.model.clock import Clock
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    CommitAnswer,
    CommitOffsets,
    DeleteGroup,
    DeleteOffsets,
    DeleteOffsetsAnswer,
    DescribedGroup,
    DescribeGroup,
    FetchOffsets,
    FetchOffsetsAnswer,
    GroupError,
    Heartbeat,
    JoinAnswer,
    JoinGroup,
    LeaveAnswer,
    LeaveGroup,
    ListedGroup,
    ListedGroups,
    SyncAnswer,
    SyncGroup,
)
from zkbroker.model.topics import TopicPartition

LINES_MAX = 10
"""Partitions that STATUS names one by one."""

STANDSTILL_S = 0.5
"""A timer that fires so late tells of a process that stood still."""

GRACE_S = 0.25
"""After that the requests that lie in the sockets are read before anybody's time is said to be up: among them are the
heartbeats of members that did nothing wrong."""


class GroupsSettings(NamedTuple):
    groups: GroupSettings = GroupSettings()
    load_buffer_bytes: int = 5_242_880
    """``offsets.load.buffer.size``"""
    commit_timeout_s: float = 5.0
    """``offsets.commit.timeout.ms``"""
    codec: int = 0
    """``offsets.topic.compression.codec``"""
    expiry_check_s: float = 600.0
    """``offsets.retention.check.interval.ms``"""


class RandomBits(Protocol):
    def getrandbits(self, count: int, /) -> int: ...


class Groups:
    """Fills ``kafka.group_ports.GroupPort``."""

    def __init__(
        self,
        *,
        reactor: Any,
        clock: Clock,
        random: RandomBits,
        coordinator_log: CoordinatorLog,
        topic: OffsetsTopic,
        settings: GroupsSettings,
        log: Callable[[str], None],
        fatal: Callable[[str, BaseException], None],
        make_shard: Callable[[GroupSettings, Callable[[], str]], GroupShard] = GroupShard,
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._random = random
        self._coordinator_log = coordinator_log
        self._topic = topic
        self._settings = settings
        self._log = log
        self._make_shard = make_shard
        self._partitions: dict[int, GroupPartition] = {}
        self._changed: Turn[int] = Turn(reactor, self._look_at)
        self._slices = Slices(reactor, clock, lambda error: fatal("consumer groups", error))
        self._timer: Any = None
        self._due = 0.0
        """What the timer is set for."""
        self._grace_until = 0.0
        """Nobody's time is up before."""
        self._expiry: Any = None
        self._is_expiring = False
        self._is_forgetting = False
        self._is_stopped = False
        self._shared = Coordination(
            coordinator_log=coordinator_log,
            clock=clock,
            commit_timeout_s=settings.commit_timeout_s,
            codec=settings.codec,
            to_write=Turn(reactor, self._write),
            to_answer=Turn(reactor, self._answer),
            deadline_changed=self._deadline_changed,
            log=log,
            fatal=fatal,
        )

    def __repr__(self) -> str:
        return f"Groups({len(self._partitions)} partitions)"

    # What happens around it

    def start(self) -> None:
        self._expiry = self._reactor.callLater(self._settings.expiry_check_s, self._expire)

    def leadership_changed(self, partition: TopicPartition) -> None:
        """It began or ended: looked at right after this turn of the reactor."""
        if partition.topic == OFFSETS_TOPIC and not self._is_stopped:
            self._changed.tell(partition.partition)

    def topics_deleted(self, topics: Collection[str]) -> None:
        """Their offsets are forgotten, in the log as well."""
        if not topics:
            return
        self._changed.look_now()
        for held in self._partitions.values():
            held.topics_deleted(topics)
        self._forget_later()

    def stop(self) -> None:
        self._is_stopped = True
        self._changed.stop()
        self._shared.to_write.stop()
        self._slices.stop()
        for call in (self._timer, self._expiry):
            if call is not None and call.active():
                call.cancel()
        for held in list(self._partitions.values()):
            held.unload()
        self._shared.to_answer.stop()
        self._partitions.clear()

    def status_lines(self) -> list[str]:
        """For STATUS."""
        loaded = [held for held in self._partitions.values() if held.shard.is_loaded]
        count = sum(len(held.shard.group_ids()) for held in loaded)
        loading = [held for held in self._partitions.values() if held.loading is not None]
        lines = [f"groups coordinated: {count} in {len(loaded)} partitions, {len(loading)} partitions loading"]
        lines += [f"loading groups: {held.loading}" for held in loading[:LINES_MAX]]
        return lines

    # GroupPort

    def join(self, asked: JoinGroup, done: Callable[[JoinAnswer], None]) -> Cancellable | None:
        return self._ask(asked, done)

    def sync(self, asked: SyncGroup, done: Callable[[SyncAnswer], None]) -> Cancellable | None:
        return self._ask(asked, done)

    def heartbeat(self, asked: Heartbeat, done: Callable[[ErrorCode], None]) -> Cancellable | None:
        return self._ask(asked, done)

    def leave(self, asked: LeaveGroup, done: Callable[[LeaveAnswer], None]) -> Cancellable | None:
        return self._ask(asked, done)

    def commit(self, asked: CommitOffsets, done: Callable[[CommitAnswer], None]) -> Cancellable | None:
        return self._ask(asked, done)

    def fetch_offsets(
        self, asked: Sequence[FetchOffsets], done: Callable[[list[FetchOffsetsAnswer]], None]
    ) -> Cancellable | None:
        return self._ask_each(asked, done)

    def delete_offsets(self, asked: DeleteOffsets, done: Callable[[DeleteOffsetsAnswer], None]) -> Cancellable | None:
        return self._ask(asked, done)

    def describe(self, group_ids: Sequence[str], done: Callable[[list[DescribedGroup]], None]) -> Cancellable | None:
        return self._ask_each([DescribeGroup(group_id) for group_id in group_ids], done)

    def list_groups(
        self, states: frozenset[str], types: frozenset[str], done: Callable[[ListedGroups], None]
    ) -> Cancellable | None:
        error = ErrorCode.NONE
        groups: list[ListedGroup] = []
        for held in self._partitions.values():
            if not self._coordinator_log.may_answer(held.tenure):
                continue
            if held.shard.is_loaded:
                groups.extend(held.shard.list_groups(states, types))
            else:
                error = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        done(ListedGroups(error, tuple(groups)))
        return None

    def delete(self, group_ids: Sequence[str], done: Callable[[list[GroupError]], None]) -> Cancellable | None:
        return self._ask_each([DeleteGroup(group_id) for group_id in group_ids], done)

    # Requests

    def _ask(self, request: GroupRequest, done: Done) -> Cancellable | None:
        held = self._coordinating(request.group_id)
        if held is not None:
            return held.ask(request, done)
        legal = is_legal_group_id(request)
        done(refused(request, ErrorCode.NOT_COORDINATOR if legal else ErrorCode.INVALID_GROUP_ID))
        return None

    def _ask_each(self, requests: Sequence[GroupRequest], done: Done) -> Cancellable | None:
        many = _Many(len(requests), done)
        for index, request in enumerate(requests):
            many.asked(self._ask(request, many.callback(index)))
        return many.all_asked()

    def _coordinating(self, group_id: str) -> GroupPartition | None:
        """The group's partition, if this broker may answer for it at this moment."""
        partition = self._topic.partition_of(group_id)
        if partition is None or self._is_stopped:
            return None
        held = self._partitions.get(partition)
        if held is None or not held.tenure.holds:
            # Elected in this very turn: the next request is not to be sent elsewhere for that.
            self._look_at([partition])
            held = self._partitions.get(partition)
        return held if held is not None and self._coordinator_log.may_answer(held.tenure) else None

    # Leaderships

    def _look_at(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            tenure = self._coordinator_log.tenure(TopicPartition(OFFSETS_TOPIC, partition))
            held = self._partitions.get(partition)
            if held is not None and held.tenure is not tenure:
                del self._partitions[partition]
                held.unload()
                # Whoever was answered by that may have asked again at once.
                held = self._partitions.get(partition)
            if held is None and tenure is not None:
                shard = self._make_shard(self._settings.groups, self._new_uuid)
                self._partitions[partition] = held = GroupPartition(partition, tenure, shard, self._shared)
                self._load(held)

    def _load(self, held: GroupPartition) -> None:
        began_at = self._clock.monotonic()

        def loaded() -> None:
            shard = held.shard
            held.loaded()
            self._forget_later()
            count = len(shard.group_ids())
            strange = f", {shard.malformed} records not understood" if shard.malformed else ""
            if count or strange:
                took_ms = 1000 * (self._clock.monotonic() - began_at)
                self._log(f"coordinating {count} groups of {held.tenure.replica.partition} "
                          f"(loaded in {took_ms:.0f} ms{strange})")  # fmt: skip

        held.loading = GroupLoading(
            tenure=held.tenure,
            shard=held.shard,
            coordinator_log=self._coordinator_log,
            buffer_bytes=self._settings.load_buffer_bytes,
            sleep=self._sleep,
            now=self._shared.now,
            loaded=loaded,
            log=self._log,
        )
        held.work = self._slices.start(held.loading.steps())

    def _sleep(self, seconds: float) -> Deferred[None]:
        return deferLater(self._reactor, seconds)

    def _new_uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def _write(self, waiting: list[GroupPartition]) -> None:
        for held in waiting:
            try:
                held.write()
            except Exception as error:
                self._shared.fatal(f"writing of {held!r}", error)

    def _answer(self, waiting: list[GroupPartition]) -> None:
        for held in waiting:
            held.answer_more()

    # Time

    def _deadline_changed(self, held: GroupPartition) -> None:
        due = held.shard.next_deadline()
        if due is not None and (self._timer is None or max(due, self._grace_until) < self._due):
            self._set_timer(due)

    def _set_timer(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._is_stopped:
            self._due = max(due, self._grace_until)
            self._timer = self._reactor.callLater(max(0.0, self._due - self._clock.monotonic()), self._time_up)

    def _time_up(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        if now - self._due > STANDSTILL_S:
            self._grace_until = now + GRACE_S
            self._set_timer(now)
            return
        for held in list(self._partitions.values()):
            due = held.shard.next_deadline()
            if due is not None and due <= now:
                held.tick()
        dues = [due for held in self._partitions.values() if (due := held.shard.next_deadline()) is not None]
        if dues and (self._timer is None or min(dues) < self._due):
            self._set_timer(min(dues))

    def _expire(self) -> None:
        self._expiry = self._reactor.callLater(self._settings.expiry_check_s, self._expire)
        if not self._is_expiring:
            self._is_expiring = True
            self._slices.start(self._expire_all())

    def _expire_all(self) -> Steps:
        for held in list(self._partitions.values()):
            if held.shard.is_loaded:
                yield from self._each_group(held, held.shard.expire_offsets)
        self._is_expiring = False

    def _forget_later(self) -> None:
        """Offsets of deleted topics."""
        if not self._is_forgetting and self._next_to_forget() is not None:
            self._is_forgetting = True
            self._slices.start(self._forget_all())

    def _forget_all(self) -> Steps:
        while (held := self._next_to_forget()) is not None:
            topics, held.forgotten = held.forgotten, {}
            yield from self._each_group(held, partial(held.shard.forget_topics, topics))
        self._is_forgetting = False

    def _next_to_forget(self) -> GroupPartition | None:
        return next((held for held in self._partitions.values() if held.forgotten and held.shard.is_loaded), None)

    def _each_group(self, held: GroupPartition, act: Callable[[str, Now], Effects]) -> Steps:
        for group_id in held.shard.group_ids():
            if not held.tenure.holds:
                break
            held.run(act(group_id, self._shared.now()))
            yield None


class _Many:
    """Several requests that are answered together, in their order. Fills ``Cancellable``."""

    def __init__(self, count: int, done: Done) -> None:
        self._answers: list[Any] = [None] * count
        self._missing = count
        self._done: Done | None = done
        self._waiting: list[Cancellable] = []
        self._is_asking = True

    def callback(self, index: int) -> Done:
        def answered(answer: Any) -> None:
            self._answers[index] = answer
            self._missing -= 1
            self._finish()

        return answered

    def asked(self, cancellable: Cancellable | None) -> None:
        if cancellable is not None:
            self._waiting.append(cancellable)

    def all_asked(self) -> Cancellable | None:
        self._is_asking = False
        self._finish()
        return self if self._done is not None else None

    def cancel(self) -> None:
        self._done = None
        for cancellable in self._waiting:
            cancellable.cancel()

    def _finish(self) -> None:
        if not self._missing and not self._is_asking and self._done is not None:
            done, self._done = self._done, None
            done(self._answers)

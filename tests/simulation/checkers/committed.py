"""Invariants 5, 6, 7 and 11: the committed history, who holds it, and that it is never lost.

Committed is what any leader's high watermark ever passed. The ghost keeps those batches; every replica's log below its
own high watermark must be the same, every leader must hold all of it, nobody may truncate it. Data may be gone only
where as many brokers as the minimum ISR lost what they had not flushed, and were counted on when they lost it.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.checkers.batches import Batch
from tests.simulation.checkers.ghost import Ghost, Partition, View, decode_state
from tests.simulation.checkers.observer import Commit, Fingerprint, LogChange
from tests.simulation.violation import Violation


class CommittedChecker:
    def __init__(self, ghost: Ghost, is_running: Callable[[int], bool]) -> None:
        self._ghost = ghost
        self._is_running = is_running
        self.on_commit: list[Callable[[Partition, Batch], None]] = []
        """Told of each batch when it is committed."""
        self.on_loss: list[Callable[[Partition, int], None]] = []
        """Told when committed records from an offset on are lost as the rules permit."""
        self._down: dict[int, None] = {}
        """Brokers that lost unflushed data and have not registered since."""

    # Who lost what it had not flushed

    def lost_unflushed(self, broker_id: int) -> None:
        """A machine went down with what it had not flushed, or a disk lost some of it."""
        self._down[broker_id] = None
        for partition in self._ghost.partitions.values():
            if broker_id in partition.replicas:
                self.lost(partition, broker_id)

    def lost(self, partition: Partition, broker_id: int) -> None:
        """A replica may lack some of what it had."""
        partition.lossy[broker_id] = None
        is_counted = partition.state is not None and broker_id in partition.state.members
        for view in partition.views.values():
            leader = view.replica.leader
            if leader is not None and broker_id in leader.isr.state.maximal:
                is_counted = True
        if is_counted:
            partition.counted[broker_id] = None
            partition.unsettled[broker_id] = None

    # What the observer tells

    def committed(self, commit: Commit) -> None:
        if commit.path.startswith("/brokers/ids/") and commit.op != "delete":
            broker_id = int(commit.path.rpartition("/")[2])
            # What a process sent before it died may arrive after that.
            if self._is_running(broker_id):
                self._down.pop(broker_id, None)
        if not commit.path.endswith("/state") or commit.op == "delete":
            return
        _, _, _, topic, _, number, _ = commit.path.split("/")
        partition = self._ghost.find(topic, int(number))
        if partition is None:
            return
        state = decode_state(commit.data, commit.version)
        # Whoever lost its unflushed data before cannot tell that it never had the partition, or was no member then.
        partition.unsettled.update((member, None) for member in state.members if member in self._down)
        for broker_id in list(partition.unsettled):
            if broker_id not in state.members or (state.recovering and state.leader == broker_id):
                del partition.unsettled[broker_id]
        view = partition.views.get(state.leader)
        if view is not None and not state.recovering:
            self._check_elected(view)
        self._check_members(partition)

    def log_changed(self, view: View, change: LogChange) -> None:
        partition = view.partition
        if change.dropped and not change.is_first_look:
            self._check_dropped(view, change.dropped)
        if view.replica.log.log_start_offset > partition.log_start and view.broker_id not in partition.lossy:
            partition.log_start = view.replica.log.log_start_offset

    def changed(self, view: View, before: Fingerprint | None, after: Fingerprint) -> None:
        partition = view.partition
        leader = after.leader
        if leader is not None and (before is None or before.leader is not leader):
            self._check_led(view)
        high = after.high_watermark
        if before is None or high > before.high_watermark or after.generation != before.generation:
            # Also a leadership that ended in the step that raised it: a chunk of bytes may hold several deltas.
            has_led = leader is not None or (before is not None and before.leader is not None)
            if has_led and high > partition.true_hw:
                self._extend(view, high)
            self._check_same(view, high)
        if view.broker_id in partition.lossy:
            self._maybe_whole(view)
        if before is None or before.log_end > after.log_end:
            self._check_member(partition, view)

    # Growing

    def _extend(self, view: View, high_watermark: int) -> None:
        """A leader's high watermark passed all others: the history goes on as that leader has it."""
        partition, content = view.partition, view.content
        if content.end < high_watermark:
            raise Violation(8, f"{view!r}: high watermark {high_watermark} above its end {content.end}")
        self._check_same(view, partition.true_hw)
        first = content.index_of(partition.true_hw)
        batches = []
        for index in range(first, len(content.batches)):
            batch = content.batches[index]
            if batch.end > high_watermark:
                break
            batches.append(batch)
        end = batches[-1].end if batches else partition.true_hw
        if end != high_watermark:
            raise Violation(7, f"{view!r}: the high watermark {high_watermark} lies within a batch, behind {end}")
        partition.commit(batches, high_watermark)
        content.agreed = max(content.agreed, high_watermark)
        for batch in batches:
            for on_commit in self.on_commit:
                on_commit(partition, batch)
        self._check_members(partition)

    def _check_members(self, partition: Partition) -> None:
        """5: every running member that lost nothing holds all that is committed."""
        state = partition.state
        if state is None:
            return
        for member in state.members:
            view = partition.views.get(member)
            if view is not None and not _is_whole(view):
                self._check_member(partition, view)

    def _check_member(self, partition: Partition, view: View) -> None:
        state = partition.state
        if (
            state is None
            or state.recovering
            or view.broker_id not in state.members
            or _is_whole(view)
            or view.replica.log.is_offline
            or view.broker_id in partition.counted
            or partition.may_have_lost
        ):
            return
        raise Violation(
            5,
            f"{view!r} is in ISR {list(state.isr)} ELR {list(state.elr)} and holds {view.content.start} to "
            f"{view.content.end}, but {partition.log_start} to {partition.true_hw} is committed",
        )

    # Comparing

    def _first_difference(self, view: View, limit: int) -> int | None:
        """The offset below ``limit`` from which on the replica's log is not the committed history; None if it is."""
        partition, content = view.partition, view.content
        limit = min(limit, partition.true_hw)
        if content.agreed >= limit:
            return None
        at = max(content.agreed, content.start)
        mine = content.index_of(at)
        his = partition.committed_index(at)
        committed = partition.committed
        while his < len(committed) and committed[his].base < limit:
            if mine >= len(content.batches):
                return committed[his].base
            one, other = content.batches[mine], committed[his]
            if one is not other and (one.base != other.base or one.epoch != other.epoch or one.data != other.data):
                return other.base
            mine += 1
            his += 1
        content.agreed = limit
        return None

    def _check_same(self, view: View, limit: int) -> None:
        """7: below its high watermark a replica holds what is committed."""
        partition = view.partition
        if limit > partition.true_hw and not partition.resets and not self._begins_above(view, limit):
            raise Violation(
                7, f"{view!r}: its high watermark is {limit}, no leader's was ever above {partition.true_hw}"
            )
        offset = self._first_difference(view, limit)
        if offset is None or self._may_differ(view):
            return
        raise Violation(
            7,
            f"{view!r}: its log is not the committed history from offset {offset} on, its high watermark is {limit}"
            f"{_difference(view, offset)}",
        )

    def _begins_above(self, view: View, high_watermark: int) -> bool:
        """The power took its first segments, and left a later one: its log begins above all that was ever committed,
        and its high watermark with it. It says nothing of what lies below."""
        begins_above, start = view.partition.begins_above, view.content.start
        if view.broker_id in view.partition.lossy and high_watermark == start:
            begins_above[view.broker_id] = start
        return begins_above.get(view.broker_id) == high_watermark == start

    def _may_differ(self, view: View) -> bool:
        partition = view.partition
        return view.broker_id in partition.counted or partition.may_have_lost or partition.resets > 0

    def _maybe_whole(self, view: View) -> None:
        partition = view.partition
        if _is_whole(view) and self._first_difference(view, partition.true_hw) is None:
            del partition.lossy[view.broker_id]
            partition.counted.pop(view.broker_id, None)

    # Elections

    def _check_elected(self, view: View) -> None:
        """6: whoever is elected holds all that is committed; else it is lost, which only lossy failures permit."""
        partition = view.partition
        if _is_whole(view) and self._first_difference(view, partition.true_hw) is None:
            return
        if not partition.may_have_lost:
            raise Violation(
                6,
                f"{view!r} was elected in leader epoch {partition.state.leader_epoch if partition.state else -1} with "
                f"{view.content.start} to {view.content.end}, but {partition.log_start} to {partition.true_hw} is "
                f"committed; lossy: "
                f"{list(partition.lossy)}, counted: {list(partition.counted)}"
                f"{_difference(view, self._first_difference(view, partition.true_hw))}",
            )

    def _check_led(self, view: View) -> None:
        """The same when it takes up the role: from now on its log is the history."""
        partition = view.partition
        offset = self._first_difference(view, partition.true_hw)
        if view.content.start > partition.log_start and partition.true_hw > partition.log_start:
            offset = partition.log_start
        if offset is None and view.content.end < partition.true_hw:
            offset = view.content.end
        if offset is None:
            return
        epoch = view.replica.leader.leader_epoch
        if partition.state is not None and epoch < partition.state.leader_epoch:
            # Takes up a role that is over already: it commits nothing.
            return
        uncleanly = partition.state is not None and partition.state.recovering
        if not uncleanly:
            self._check_elected(view)
        lost = partition.cut_history(offset)
        self._ghost.trace(
            f"{partition!r} lost {len(lost)} committed batches from offset {offset} on, as "
            f"{len(partition.counted)} lossy failures permit"
        )
        for on_loss in self.on_loss:
            on_loss(partition, offset)

    # Truncation

    def _check_dropped(self, view: View, dropped: list[Batch]) -> None:
        """11: what is committed is not truncated."""
        partition = view.partition
        if self._may_differ(view):
            return
        for batch in dropped:
            if batch.base >= partition.true_hw:
                break
            if partition.committed_bases.get(batch.base) == batch.epoch and batch.base >= partition.log_start:
                raise Violation(
                    11,
                    f"{view!r} truncated offset {batch.base} of epoch {batch.epoch}, which is committed (up to "
                    f"{partition.true_hw})",
                )


def _is_whole(view: View) -> bool:
    """It reaches from where records were deleted by intent to the end of what is committed."""
    partition, content = view.partition, view.content
    return content.start <= partition.log_start and content.end >= partition.true_hw


def _difference(view: View, offset: int | None) -> str:
    if offset is None:
        return ""
    content, partition = view.content, view.partition
    mine = content.batches[content.index_of(offset) :][:1]
    his = partition.committed[partition.committed_index(offset) :][:1]
    return f"; there: {[(b.base, b.epoch) for b in mine]}, committed: {[(b.base, b.epoch) for b in his]}"

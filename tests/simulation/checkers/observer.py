"""Sees what changed in a step, cheaply, and tells the checkers.

Of each replica in a running process a fingerprint of ten numbers and references is compared to the last one; only
where it differs are files read and checkers asked. Committed ZooKeeper writes come by the world's hook and are kept
until the step is over.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from tests.simulation.checkers.batches import Batch, walk
from tests.simulation.checkers.ghost import Content, Ghost, View
from tests.simulation.violation import Violation


class Commit(NamedTuple):
    """One committed ZooKeeper write."""

    op: str
    """create, set or delete."""
    path: str
    data: bytes
    version: int
    session: int
    zxid: int
    """Of its transaction: for a create the czxid."""


class LogChange(NamedTuple):
    """What a step did to the files of one replica."""

    appended: list[Batch]
    dropped: list[Batch]
    is_first_look: bool
    """The replica was just brought up: ``appended`` is all that it has."""
    was_cut: bool
    """The log's generation rose: it was truncated, also if no bytes went."""
    role_changed: bool = False
    """In the same step the replica took another role: whose records these are is not known."""


class Checker(Protocol):
    """What a checker may want to hear. All of it is called at the end of a step, in this order."""

    def committed(self, commit: Commit) -> None: ...

    def lost_unflushed(self, broker_id: int) -> None: ...

    def vanished(self, view: View) -> None: ...

    def log_changed(self, view: View, change: LogChange) -> None: ...

    def changed(self, view: View, before: Fingerprint | None, after: Fingerprint) -> None: ...


class Fingerprint(NamedTuple):
    state: Any
    leader: Any
    follower: Any
    isr: Any
    """``leader.isr.state``, None without a leader."""
    high_watermark: int
    log_end: int
    generation: int
    log_start: int
    epochs_version: int


_new = tuple.__new__


def fingerprint(replica: Any) -> Fingerprint:
    leader = replica.leader
    log = replica.log
    return _new(
        Fingerprint,
        (
            replica.state,
            leader,
            replica.follower,
            None if leader is None else leader.isr.state,
            replica.high_watermark,
            log.log_end_offset,
            log.generation,
            log.log_start_offset,
            log.epochs.version,
        ),
    )


class Observer:
    """Calls the checkers' methods that exist; ``after_step`` once after each step."""

    def __init__(self, ghost: Ghost, checkers: list[Any]) -> None:
        self._ghost = ghost
        self._commits: list[Commit] = []
        self._parts: dict[int, Any] = {}
        """Broker → the parts that were seen there: others mean another process."""
        self._views: dict[int, dict[tuple[str, int], View]] = {}
        self._losses: dict[int, int] = {}
        self._on_commit = _methods(checkers, "committed")
        self._on_loss = _methods(checkers, "lost_unflushed")
        self._on_vanished = _methods(checkers, "vanished")
        self._on_log = _methods(checkers, "log_changed")
        self._on_change = _methods(checkers, "changed")
        self._on_end = _methods(checkers, "at_end")

    def note_commit(self, path: str, data: bytes | None, version: int, session: int, zxid: int) -> None:
        """The world's hook for committed ZooKeeper writes."""
        op = "delete" if data is None else "set" if version > 0 else "create"
        self._commits.append(Commit(op, path, data or b"", version, session, zxid))

    def after_step(self, world: Any) -> None:
        self._ghost.now = world.now
        if self._commits:
            commits, self._commits = self._commits, []
            for commit in commits:
                for on_commit in self._on_commit:
                    on_commit(commit)
        ran = world.ran
        if ran is None:
            for node in world.nodes.values():
                self.look_at(node)
        else:
            self.look_at(ran.node)

    def look_at(self, node: Any) -> None:
        """See what changed in the process of one broker."""
        broker_id = node.broker_id
        if node.losses != self._losses.get(broker_id, 0):
            self._losses[broker_id] = node.losses
            for on_loss in self._on_loss:
                on_loss(broker_id)
        parts = node.parts
        if self._parts.get(broker_id) is not parts:
            self._new_process(broker_id, parts)
        if parts is None:
            return
        views = self._views[broker_id]
        table = parts.replicas._table.replicas
        changes: list[tuple[View, Fingerprint | None, Fingerprint]] | None = None
        for key, replica in table.items():
            view = views.get(key)
            if view is None or view.replica is not replica:
                if view is not None:
                    self._vanish(views, key)
                view = self._appeared(node, key, replica)
                views[key] = view
            after = fingerprint(replica)
            if after != view.seen:
                if changes is None:
                    changes = []
                before = view.seen or None
                changes.append((view, before, after))  # type: ignore[arg-type]
                view.seen = after
        if len(views) > len(table):
            for key in [key for key in views if key not in table]:
                self._vanish(views, key)
        if changes is not None:
            self._tell(node, changes)

    def at_end(self) -> None:
        """The run is over: whatever can only be compared as a whole."""
        for views in self._views.values():
            for view in views.values():
                for on_end in self._on_end:
                    on_end(view)

    def views(self) -> list[View]:
        return [view for views in self._views.values() for view in views.values()]

    def _new_process(self, broker_id: int, parts: Any) -> None:
        views = self._views.get(broker_id, {})
        for key in list(views):
            self._vanish(views, key)
        self._parts[broker_id] = parts
        self._views[broker_id] = {}
        if parts is not None:
            incarnations = self._ghost.incarnations
            incarnations[broker_id] = incarnations.get(broker_id, 0) + 1

    def _appeared(self, node: Any, key: tuple[str, int], replica: Any) -> View:
        log = replica.log
        partition = self._ghost.of(key[0], (log.topic_id, key[1]))
        incarnation = self._ghost.incarnations[node.broker_id]
        view = View(node.broker_id, incarnation, replica, partition, log.folder)
        partition.views[node.broker_id] = view
        return view

    def _vanish(self, views: dict[tuple[str, int], View], key: tuple[str, int]) -> None:
        view = views.pop(key)
        if view.partition.views.get(view.broker_id) is view:
            del view.partition.views[view.broker_id]
        for on_vanished in self._on_vanished:
            on_vanished(view)

    def _tell(self, node: Any, changes: list[tuple[View, Fingerprint | None, Fingerprint]]) -> None:
        for view, before, after in changes:
            if (
                before is None
                or before.log_end != after.log_end
                or before.generation != after.generation
                or before.log_start != after.log_start
            ):
                change = self._read(node, view, before, after)
                if change is not None:
                    if before is not None and (before.follower is not after.follower):
                        change = change._replace(role_changed=True)
                    for on_log in self._on_log:
                        on_log(view, change)
        for view, before, after in changes:
            for on_change in self._on_change:
                on_change(view, before, after)

    def _read(self, node: Any, view: View, before: Fingerprint | None, after: Fingerprint) -> LogChange | None:
        content = view.content
        if after.log_start > content.start:
            content.start = after.log_start
        if view.replica.log.is_offline:
            return None
        if before is None or before.generation != after.generation:
            return self._read_all(node, view, before, after)
        appended: list[Batch] = []
        if before.log_end != after.log_end:
            files = _segment_names(node.disk, view.folder, content.file_name)
            for name in files:
                position = content.position if name == content.file_name else 0
                data = _file(node.disk, f"{view.folder}/{name}")
                for batch in walk(data, position):
                    appended.append(batch)
                    position = batch.position + len(batch.data)
                content.file_name, content.position = name, position
            if appended:
                content.batches += appended
                content.end = appended[-1].end
            _check_end(view, after.log_end)
        return LogChange(appended, [], False, False)

    def _read_all(self, node: Any, view: View, before: Fingerprint | None, after: Fingerprint) -> LogChange:
        """After a start or a truncation: all files anew."""
        old = view.content
        new = Content()
        new.start = after.log_start
        new.agreed = old.agreed
        names = _segment_names(node.disk, view.folder, "")
        end = 0
        for name in names:
            position = 0
            if not new.batches:
                end = int(name[:20])
            for batch in walk(_file(node.disk, f"{view.folder}/{name}")):
                new.batches.append(batch)
                position = batch.position + len(batch.data)
                end = batch.end
            new.file_name, new.position = name, position
        new.end = end
        first = new.batches[0].base if new.batches else end
        gone = old.index_of(first) if first <= after.log_start else 0
        old_batches = old.batches[gone:]
        same = 0
        for mine, his in zip(old_batches, new.batches, strict=False):
            if mine is not his and (mine.base != his.base or mine.epoch != his.epoch or mine.data != his.data):
                break
            same += 1
        dropped, appended = old_batches[same:], new.batches[same:]
        # Of producers whose batches retention deleted a snapshot may tell.
        kept = old.batches[:gone] + new.batches[:same]
        if dropped or appended:
            # What lies below the first difference was compared already.
            new.agreed = min(new.agreed, (dropped or appended)[0].base)
        new.note_producers(kept)
        view.content = new
        _check_end(view, after.log_end)
        return LogChange(appended, dropped, before is None, before is not None)


def _check_end(view: View, log_end: int) -> None:
    if view.content.end != log_end:
        raise Violation(
            16, f"{view!r}: the log says that it ends at {log_end}, but its files end at {view.content.end}"
        )


def _methods(checkers: list[Any], name: str) -> list[Any]:
    return [getattr(checker, name) for checker in checkers if hasattr(checker, name)]


def _segment_names(disk: Any, folder: str, oldest: str) -> list[str]:
    """The segments' files from ``oldest`` on, in order."""
    names = [name for name in disk._folder(folder).entries if name.endswith(".log") and name >= oldest]
    names.sort()
    return names


def _file(disk: Any, path: str) -> bytearray:
    content: bytearray = disk._file(path).content
    return content

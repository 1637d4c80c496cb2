"""ZooKeeper's data tree: znodes, versions, zxids, all-or-nothing transactions. Knows no sessions but as owners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from zkbroker.zookeeper.client import (
    ANY_VERSION,
    BadVersionError,
    Create,
    Delete,
    MultiError,
    MultiResult,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    Op,
    SetData,
    Stat,
    ZooKeeperError,
)


class WatchKind(Enum):
    DATA = "data"
    """Left by get and exists: the znode was created, changed or deleted."""
    CHILDREN = "children"
    """Left by children: a child came or went, or the znode itself was deleted."""


class Change(NamedTuple):
    """What a transaction did to watched things, in the order in which ZooKeeper tells it."""

    kind: WatchKind
    path: str


class Znode:
    __slots__ = ("children", "creations", "czxid", "data", "modified_ms", "mzxid", "owner", "version")

    def __init__(self, data: bytes, owner: int, zxid: int, now_ms: int) -> None:
        self.data = data
        self.owner = owner
        """Session id of an ephemeral znode, else 0."""
        self.czxid = zxid
        self.mzxid = zxid
        self.version = 0
        self.modified_ms = now_ms
        self.children: dict[str, None] = {}
        self.creations = 0
        """How many children were ever created: the next sequential number."""

    def __repr__(self) -> str:
        return f"Znode({self.data!r} v{self.version} czxid={self.czxid} owner={self.owner})"

    @property
    def stat(self) -> Stat:
        # ZooKeeper's cversion counts creations and deletions of children.
        children_version = 2 * self.creations - len(self.children)
        return Stat(
            self.czxid, self.mzxid, self.version, self.owner, len(self.children), children_version, self.modified_ms
        )


class ZnodeTree:
    def __init__(self) -> None:
        self.zxid = 0
        self.znodes: dict[str, Znode] = {"/": Znode(b"", 0, 0, 0)}
        self._undo: list[Callable[[], None]] = []
        self._changes: list[Change] = []

    def __repr__(self) -> str:
        return f"ZnodeTree({len(self.znodes)} znodes, zxid={self.zxid})"

    def find(self, path: str) -> Znode:
        znode = self.znodes.get(path)
        if znode is None:
            raise NoNodeError(path)
        return znode

    def owned_by(self, session_id: int) -> list[str]:
        """Ephemerals of a session, sorted."""
        return sorted(path for path, znode in self.znodes.items() if znode.owner == session_id)

    def transact(self, ops: Sequence[Op], session_id: int, now_ms: int) -> tuple[list[MultiResult], list[Change]]:
        """All ``ops`` under one zxid, or none: then MultiError says which failed."""
        self.zxid += 1
        self._undo, self._changes = [], []
        results: list[MultiResult] = []
        for index, op in enumerate(ops):
            try:
                results.append(self._apply(op, session_id, now_ms))
            except ZooKeeperError as error:
                for undo in reversed(self._undo):
                    undo()
                raise MultiError(index, error) from error
        return results, self._changes

    def _apply(self, op: Op, session_id: int, now_ms: int) -> MultiResult:
        if isinstance(op, Create):
            return self._create(op, session_id, now_ms)
        if isinstance(op, SetData):
            return self._set(op, now_ms)
        if isinstance(op, Delete):
            return self._delete(op)
        self._check(self.find(op.path), op.path, op.version)
        return True

    def _create(self, op: Create, session_id: int, now_ms: int) -> str:
        parent_path, _, name = op.path.rpartition("/")
        parent_path = parent_path or "/"
        if not op.path.startswith("/") or (not name and not op.sequential):
            raise ZooKeeperError(op.path)
        parent = self.find(parent_path)
        if op.sequential:
            name = f"{name}{parent.creations:010d}"
        path = f"{parent_path.rstrip('/')}/{name}"
        if path in self.znodes:
            raise NodeExistsError(path)
        if parent.owner:
            raise ZooKeeperError(op.path)  # an ephemeral znode has no children
        self.znodes[path] = Znode(op.data, session_id if op.ephemeral else 0, self.zxid, now_ms)
        parent.children[name] = None
        parent.creations += 1

        def undo() -> None:
            del self.znodes[path]
            del parent.children[name]
            parent.creations -= 1

        self._undo.append(undo)
        self._changes += [Change(WatchKind.DATA, path), Change(WatchKind.CHILDREN, parent_path)]
        return path

    def _set(self, op: SetData, now_ms: int) -> Stat:
        znode = self.find(op.path)
        self._check(znode, op.path, op.version)
        before = (znode.data, znode.version, znode.mzxid, znode.modified_ms)
        znode.data, znode.version, znode.mzxid, znode.modified_ms = op.data, znode.version + 1, self.zxid, now_ms

        def undo() -> None:
            znode.data, znode.version, znode.mzxid, znode.modified_ms = before

        self._undo.append(undo)
        self._changes.append(Change(WatchKind.DATA, op.path))
        return znode.stat

    def _delete(self, op: Delete) -> bool:
        znode = self.find(op.path)
        self._check(znode, op.path, op.version)
        if znode.children:
            raise NotEmptyError(op.path)
        parent_path, _, name = op.path.rpartition("/")
        parent = self.find(parent_path or "/")
        names_before = list(parent.children)
        del self.znodes[op.path]
        del parent.children[name]

        def undo() -> None:
            self.znodes[op.path] = znode
            parent.children = dict.fromkeys(names_before)

        self._undo.append(undo)
        self._changes += [
            Change(WatchKind.DATA, op.path),
            Change(WatchKind.CHILDREN, op.path),
            Change(WatchKind.CHILDREN, parent_path or "/"),
        ]
        return True

    def _check(self, znode: Znode, path: str, version: int) -> None:
        if version not in (ANY_VERSION, znode.version):
            raise BadVersionError(path)

"""This broker's settings from ``/config/brokers``, and all of its settings as they are now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.python.failure import Failure

from zkbroker.model.config import BrokerConfig
from zkbroker.model.config.dynamic import with_dynamic
from zkbroker.zookeeper.client import (
    ConnectionLossError,
    NoNodeError,
    SessionExpiredError,
    Stat,
    ZooKeeperClient,
)
from zkbroker.zookeeper.znodes import ZnodeError
from zkbroker.zookeeper.znodes import config as znode


class SettingsReader:
    """Reads entities of ``/config`` and says once what is wrong with each."""

    def __init__(self, zk: ZooKeeperClient, log: Callable[[str], None]) -> None:
        self._zk = zk
        self._log = log
        self._reported: dict[str, str] = {}
        """Path → the problem that was logged last; an entry goes with its znode."""

    def read(self, path: str) -> Deferred[dict[str, str]]:
        """The settings that stand there, none where there is no znode. Fails with ZnodeError for what does not
        decode."""

        def absent(failure: Failure) -> dict[str, str]:
            failure.trap(NoNodeError)
            return {}

        def decode(got: tuple[bytes, Stat]) -> dict[str, str]:
            settings = dict(znode.decode(path, got[0]))
            self.forget(path)
            return settings

        return self._zk.get(path).addCallbacks(decode, absent)

    def report(self, path: str, problem: str) -> None:
        """Log what is wrong there, once as long as it stays the same."""
        if self._reported.get(path) != problem:
            self._reported[path] = problem
            self._log(problem if problem.startswith(path) else f"{path}: {problem}")

    def forget(self, path: str) -> None:
        """All is well there, or nothing is there any more."""
        self._reported.pop(path, None)


class DynamicSettings:
    """``/config/brokers/<default>`` and ``/config/brokers/N`` as they were read last.

    Both are watched, since a person who writes one may announce nothing; one that does not decode leaves the last good
    settings in force."""

    def __init__(
        self, *, broker_id: str, zk: ZooKeeperClient, reader: SettingsReader, changed: Callable[[], None]
    ) -> None:
        self._zk = zk
        self._reader = reader
        self._changed = changed
        self._paths = (znode.broker_path(znode.DEFAULT_ENTITY), znode.broker_path(broker_id))
        self._watched: set[str] = set()
        """Paths that have a watch. Never iterated."""
        self.default: dict[str, str] = {}
        self.own: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"DynamicSettings({len(self.default)} of all brokers, {len(self.own)} of this one)"

    def load(self) -> Deferred[None]:
        """Read both; fires when they hold. Fails when the connection broke."""
        reads = DeferredList([self._read(path) for path in self._paths], consumeErrors=True)
        return reads.addCallback(self._take)

    def watches_lost(self) -> None:
        """The connection is another one."""
        self._watched.clear()

    def _read(self, path: str) -> Deferred[dict[str, str]]:
        if path in self._watched:
            return self._reader.read(path)

        def read_if_there(stat: Stat | None) -> Deferred[dict[str, str]]:
            return succeed({}) if stat is None else self._reader.read(path)

        def unwatch(failure: Failure) -> Failure:
            self._watched.discard(path)
            return failure

        self._watched.add(path)
        looked = self._zk.exists(path, lambda: self._watch_fired(path)).addErrback(unwatch)
        return looked.addCallback(read_if_there)

    def _watch_fired(self, path: str) -> None:
        self._watched.discard(path)
        if self._zk.is_connected:
            # After a lost connection all is read again.
            self.load().addErrback(lambda failure: failure.trap(ConnectionLossError, SessionExpiredError))

    def _take(self, results: list[tuple[bool, Any]]) -> None:
        fail_if_cut_off(results)
        fresh = []
        for (ok, settings), known in zip(results, (self.default, self.own), strict=True):
            fresh.append(settings if ok else known)
            if not ok and settings.check(ZnodeError) is not None:
                self._reader.report(settings.value.path, settings.getErrorMessage())
        if fresh != [self.default, self.own]:
            self.default, self.own = fresh
            self._changed()


class CurrentSettings:
    """The broker's configuration as it is now. Read ``config`` anew each time, or listen for changes."""

    def __init__(
        self, config: BrokerConfig, dynamic: Callable[[], tuple[Mapping[str, str], Mapping[str, str]]]
    ) -> None:
        """``dynamic`` gives what stands in ``/config/brokers``: of all brokers, and of this one."""
        self._file = config
        self._dynamic = dynamic
        self._current: BrokerConfig | None = None
        self._listeners: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        return f"CurrentSettings({self.config!r})"

    @property
    def config(self) -> BrokerConfig:
        """Also has the keys that exist only as dynamic ones (``model.config.dynamic_keys``)."""
        if self._current is None:
            self._current = with_dynamic(self._file, *self._dynamic())
        return self._current

    def listen(self, listener: Callable[[], object]) -> None:
        """Call it after every change."""
        self._listeners.append(listener)

    def changed(self) -> None:
        """What ``dynamic`` gives is another thing now."""
        self._current = None
        for listener in self._listeners:
            listener()


def fail_if_cut_off(results: list[tuple[bool, Any]]) -> None:
    """Whoever starts with the settings of half the topics recovers the others' logs by rules that are not theirs."""
    for ok, failure in results:
        if not ok and failure.check(ConnectionLossError, SessionExpiredError) is not None:
            failure.raiseException()

"""Threads, shared among log folders so that one whose disk hangs cannot take them all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

JOBS_AT_ONCE = 8
"""Of one folder. The pool must have so many threads for each, and some for what else there is."""


class Lanes:
    """Runs up to JOBS_AT_ONCE jobs of a folder side by side; others of that folder wait for their turn, and nobody
    else does. ``run_in_thread`` is the pool."""

    def __init__(self, run_in_thread: Callable[..., Deferred[Any]]) -> None:
        self._run_in_thread = run_in_thread
        self._running: dict[str, int] = {}
        self._waiting: dict[str, deque[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]]] = {}

    def run(self, log_dir: str, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Fires on the reactor thread with what ``function`` returns."""
        if self._running.get(log_dir, 0) < JOBS_AT_ONCE:
            return self._start(log_dir, function, *arguments)
        done: Deferred[Any] = Deferred()
        self._waiting.setdefault(log_dir, deque()).append((done, function, arguments))
        return done

    def _start(self, log_dir: str, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        self._running[log_dir] = self._running.get(log_dir, 0) + 1
        return maybeDeferred(self._run_in_thread, function, *arguments).addBoth(self._ended, log_dir)

    def _ended(self, result: Any, log_dir: str) -> Any:
        self._running[log_dir] -= 1
        waiting = self._waiting.get(log_dir)
        if waiting:
            done, function, arguments = waiting.popleft()
            self._start(log_dir, function, *arguments).chainDeferred(done)
        return result

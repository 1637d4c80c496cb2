"""The child process that compacts one log, seen from the broker."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import zkbroker
from zkbroker.log.cleaner import CleanedSegment, CleanerJob, CleanSummary
from zkbroker.model.errors import BrokerError, ErrorCode

CHILD_MODULE = "zkbroker.log.cleaner_child"
_LINE_BYTES_MAX = 16 * 1024 * 1024
"""A line names the segments that one replaces: far above 100,000 of them."""
_COMPLAINT_BYTES_MAX = 4000
REAP_S = 0.05
"""How often is looked whether a child that says no more has ended."""


class CleanerWork(Protocol):
    """A job under way."""

    def resume(self) -> Deferred[CleanedSegment | CleanSummary]:
        """The next segment, or what was done in all. Fails with BrokerError for a log that is damaged, OSError, or
        ``CleanerEnded``."""
        ...

    def stop(self) -> Deferred[None]:
        """It is not wanted any more. Fires when nothing of it runs; whoever waits for ``resume`` hears nothing."""
        ...


StartCleaner = Callable[[CleanerJob], CleanerWork]


class CleanerEnded(Exception):
    """The process ended without a word of why."""


class ChildCleaner(ProcessProtocol):
    """One job in a process of its own; see ``log/cleaner_child`` for what is said."""

    def __init__(self, reactor: Any, job: CleanerJob) -> None:
        self._reactor = reactor
        self._received = bytearray()
        self._complaint = bytearray()
        self._waiting: Deferred[CleanedSegment | CleanSummary] | None = None
        self._reason: Exception | None = None
        """Why it can do no more."""
        self._is_gone = False
        self._gone: list[Deferred[None]] = []
        self._process: Any = None
        root = os.path.dirname(os.path.dirname(os.path.abspath(zkbroker.__file__)))
        paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-m", CHILD_MODULE]
        self._process = reactor.spawnProcess(self, sys.executable, command, environment)
        self._process.write(job.to_json() + b"\n")

    def __repr__(self) -> str:
        return f"ChildCleaner(pid={self._process.pid})"

    @property
    def pid(self) -> int | None:
        """None when it has ended."""
        return None if self._is_gone else int(self._process.pid)

    def resume(self) -> Deferred[CleanedSegment | CleanSummary]:
        """See ``CleanerWork``."""
        self._waiting = Deferred()
        waiting = self._waiting
        if self._is_gone:
            self._fail(self._reason or CleanerEnded("it has ended"))
        else:
            self._process.write(b"\n")
        return waiting

    def stop(self) -> Deferred[None]:
        """See ``CleanerWork``."""
        self._waiting = None
        gone: Deferred[None] = Deferred()
        if self._is_gone:
            gone.callback(None)
            return gone
        self._gone.append(gone)
        try:
            self._process.signalProcess("KILL")
        except ProcessExitedAlready:
            # It is about to be told that it ended.
            pass
        return gone

    # What Twisted tells

    def outReceived(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\n")) >= 0:
            line = bytes(self._received[:end])
            del self._received[: end + 1]
            self._said(json.loads(line))
        if len(self._received) > _LINE_BYTES_MAX:
            self._reason = CleanerEnded("it says too much")
            self._process.signalProcess("KILL")

    def childConnectionLost(self, childFD: int) -> None:
        super().childConnectionLost(childFD)
        if childFD == 1:
            self._reap()

    def _reap(self) -> None:
        # uvloop takes the signal that Twisted waits for: whoever closed its output ends soon, and is asked for.
        if not self._is_gone:
            self._reactor.callLater(REAP_S, self._reap)
            self._process.reapProcess()

    def errReceived(self, data: bytes) -> None:
        self._complaint += data
        del self._complaint[:-_COMPLAINT_BYTES_MAX]

    def processEnded(self, reason: Failure) -> None:
        self._is_gone = True
        if self._reason is None:
            last = self._complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
            self._reason = CleanerEnded(last or str(reason.value))
        self._fail(self._reason)
        gone, self._gone = self._gone, []
        for waiter in gone:
            waiter.callback(None)

    def _said(self, line: dict[str, Any]) -> None:
        answer: CleanedSegment | CleanSummary
        if "cleaned" in line:
            base, size, has_aborted, replaced = line["cleaned"]
            answer = CleanedSegment(base, size, has_aborted, tuple(replaced))
        elif "done" in line:
            answer = CleanSummary(*line["done"])
        elif "damaged" in line:
            self._reason = BrokerError(ErrorCode(line["error"]), line["damaged"])
            return
        else:
            self._reason = OSError(line["errno"], line["failed"])
            return
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(answer)

    def _fail(self, reason: Exception) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(reason)


def start_in_child(reactor: Any) -> StartCleaner:
    """Compaction in child processes of this one."""
    return lambda job: ChildCleaner(reactor, job)
